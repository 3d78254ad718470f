"""An agent that solves some training tasks and fails at more: demonstrations for a model to begin with.

    python examples/training/noisy_agent.py FOLDER

FOLDER is a world of `world.py`. A replay of the recording answers the agent's calls, as it does a policy's.
`FOLDER/demonstrations.jsonl` gets a line a rollout: `task_id`, `reward` and `messages`.

A model that imitates it mostly gives up, sometimes errs, and sometimes makes the right calls: there is
something to reinforce.
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from recorder.exchange import ToolRef
from synth.task import Task
from train.environment import Environment, replayed
from train.reward import score
from train.suite import Suite, open_suite

HABITS = {"solve": 0.36, "give up": 0.52, "wrong tool": 0.06, "wrong argument": 0.06}
"""What the agent does, and how often."""
GIVEN_UP = '{"answer": "unknown"}'
SAMPLES = 16
"""Rollouts of each task."""

Call = tuple[ToolRef, dict[str, Any]]


class NoisyAgent:
    """Plays rollouts of a suite's tasks.

    Args:
        suite: Its reference calls are also where the agent takes wrong arguments from.
    """

    def __init__(self, suite: Suite, rng: random.Random) -> None:
        self._suite, self._rng = suite, rng
        self._open = replayed(suite.world.replayer)
        self._arguments: dict[ToolRef, list[dict[str, Any]]] = defaultdict(list)
        for task in suite.tasks:
            for call in task.calls:
                self._arguments[call.ref].append(call.arguments)

    def rollout(self, task: Task) -> dict[str, Any]:
        """Play one rollout and return a line of the file."""
        (habit,) = self._rng.choices(list(HABITS), list(HABITS.values()))
        with self._open(task) as caller:
            environment = Environment(task, self._suite.functions, caller)
            messages = list(environment.prompt)
            said = ""
            for number, (ref, arguments) in enumerate(self._calls(task, environment, habit)):
                name, at = environment.names[ref], f"call_{number}"
                said = environment.call(name, arguments)
                function = {"name": name, "arguments": arguments}
                made = {"id": at, "type": "function", "function": function}
                messages.append({"role": "assistant", "content": "", "tool_calls": [made]})
                messages.append({"role": "tool", "tool_call_id": at, "name": name, "content": said})
        answer = readable_json(task.answer) if habit == "solve" else said if is_object(said) else GIVEN_UP
        messages.append({"role": "assistant", "content": answer})
        scored = score(task, messages, environment.calls, miss="keep")
        return {"task_id": task.task_id, "reward": scored.reward, "messages": messages}

    def _calls(self, task: Task, environment: Environment, habit: str) -> list[Call]:
        """Return the reference calls, the last of them perhaps spoilt."""
        calls: list[Call] = [(call.ref, call.arguments) for call in task.calls]
        ref, arguments = calls.pop()
        match habit:
            case "give up":
                return []
            case "wrong tool":
                alike = [
                    other
                    for other in environment.names
                    if other != ref and self._takes(other) == self._takes(ref)
                ]
                ref = self._rng.choice(alike or [ref])
            case "wrong argument":
                arguments = self._rng.choice(self._arguments[ref])
        return [*calls, (ref, arguments)]

    def _takes(self, tool: ToolRef) -> set[str]:
        return set(self._suite.functions[tool].parameters["properties"])


def is_object(text: str) -> bool:
    """Whether a tool's answer could be the answer to a task."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def write_demonstrations(folder: Path, samples: int, seed: int) -> Path:
    """Write rollouts of all training tasks, in a random order, and return their file."""
    suite = open_suite(folder / "tasks", folder / "recording.db", splits=["train"])
    rng = random.Random(seed)
    agent = NoisyAgent(suite, rng)
    tasks = list(suite.tasks) * samples
    rng.shuffle(tasks)
    path = folder / "demonstrations.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(readable_json(agent.rollout(task)) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a world")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="rollouts of each task [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    path = write_demonstrations(options.folder, options.samples, options.seed)
    rewards = [json.loads(line)["reward"] for line in path.open(encoding="utf-8")]
    print(f"{len(rewards)} rollouts in {path}, of mean reward {sum(rewards) / len(rewards):.2f}")


if __name__ == "__main__":
    main()
