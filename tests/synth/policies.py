"""Ways to answer without solving: nothing, words of the question, what was mostly right in training.

And one that solves: the oracle makes the reference calls in a replay, each with arguments out of what it was
answered, and evaluates the program. Run as a program, it scores them all on a data set's test splits:

    python tests/synth/policies.py TASKS_DIR RECORDING
"""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from recorder.exchange import Json, ToolResult
from recorder.store import Store
from replayer.replayer import Replayer, ensure_learned
from replayer.session import Answer
from synth.answers import is_right
from synth.program import ProgramError, arguments_of, run, tree_of
from synth.task import Task, read_tasks
from synth.world import World

Policy = Callable[[Task], Json]

TOKEN = re.compile(r"`([^`]+)`|\"([^\"]+)\"|(-?\d[\d.,-]*\d|\d)|([A-Za-z_]\w+)")


def nothing(task: Task) -> Json:
    return {}


def from_question(task: Task) -> Json:
    """Give each field the next token of the question that is of its type, dates and quotes first."""
    tokens = ["".join(groups) for groups in TOKEN.findall(task.question)]
    answer: dict[str, Json] = {}
    for place, (name, schema) in enumerate(task.answer_schema["properties"].items()):
        answer[name] = _of_type(schema, tokens, place)
    return answer


def _of_type(schema: dict[str, Any], tokens: Sequence[str], place: int) -> Json:
    match schema["type"]:
        case "boolean":
            return True
        case "integer" | "number":
            numbers = [token for token in tokens if re.fullmatch(r"-?\d+(?:\.\d+)?", token)]
            return float(numbers[place % len(numbers)]) if numbers else 1
        case "array":
            return [_of_type(schema["items"], tokens, place)]
    dates = [token for token in tokens if re.fullmatch(r"\d{4}-\d\d-\d\d.*", token)]
    texts = dates if schema.get("format") == "date" and dates else [t for t in tokens if len(t) > 3]
    return texts[place % len(texts)] if texts else ""


def majority(train: Sequence[Task]) -> Policy:
    """Learn each field's most frequent value: by tools, template and name; by the latter two; by name."""
    counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for task in train:
        for name, value in task.answer.items():
            for key in _keys(task, name):
                counts[key][json.dumps(value)] += 1

    def policy(task: Task) -> Json:
        answer = {}
        for name in task.answer_schema["properties"]:
            key = next((key for key in _keys(task, name) if key in counts), None)
            answer[name] = json.loads(counts[key].most_common(1)[0][0]) if key else None
        return answer

    return policy


def _keys(task: Task, name: str) -> list[tuple[str, ...]]:
    tools = "+".join(f"{tool.server}/{tool.name}" for tool in task.tools)
    return [(tools, task.template, name), (task.template, name), (name,)]


def oracle(world: World) -> Policy:
    def policy(task: Task) -> Json:
        session = world.replayer.session(task.group)
        trees: list[Json] = []
        for number, call in enumerate(task.calls):
            try:
                arguments = arguments_of(task.program, number, call.arguments, trees)
            except ProgramError:
                return None
            asked = {"name": call.tool, "arguments": arguments}
            answer = session.ask(call.server, "tools/call", asked, quiet=True)
            if not isinstance(answer, Answer) or not isinstance(answer.outcome, ToolResult):
                return None
            trees.append(tree_of(answer.outcome))
        return run(task.program, trees).answer

    return policy


def score(policy: Policy, tasks: Sequence[Task]) -> float:
    right = sum(is_right(task.answer_schema, task.answer, policy(task)) for task in tasks)
    return right / len(tasks)


def scores(tasks: Sequence[Task], world: World) -> dict[str, float]:
    """Score every policy on the tasks that are not for training."""
    train = [task for task in tasks if task.split == "train"]
    test = [task for task in tasks if task.split != "train"]
    policies = {
        "nothing": nothing,
        "from the question": from_question,
        "majority": majority(train),
        "oracle": oracle(world),
    }
    return {name: score(policy, test) for name, policy in policies.items()}


if __name__ == "__main__":
    store = Store(Path(sys.argv[2]))
    print(
        json.dumps(
            scores(read_tasks(Path(sys.argv[1])), World(store, Replayer(store, ensure_learned(store))))
        )
    )
