"""G2: everything comes from somewhere: answers from outputs, arguments from the question or from outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolRef
from synth.answers import normalised
from synth.gates.leak import STEPS
from synth.program import AnswerProgram, ProgramError, arguments_of, run
from synth.task import Task, Verdict
from synth.trace import argument_leaves
from synth.world import World

NAME = "provenance"


def provenance(task: Task, world: World) -> Verdict:
    """Fail where a field reads no output, or an argument is neither in the question nor out of an earlier
    output."""
    trees = world.trees(task.calls)
    try:
        found = run(task.program, trees)
        made = [arguments_of(task.program, n, call.arguments, trees) for n, call in enumerate(task.calls)]
    except ProgramError as error:
        return Verdict(gate=NAME, passed=False, reason=f"the program fails: {error}"[:200])
    for name, reads in found.by_field.items():
        if not reads:
            return Verdict(gate=NAME, passed=False, reason=f"field {name} reads no output")
    question = normalised(_of_things(task, world))
    bound = {(argument.call, argument.path) for argument in task.program.arguments}
    for number, call in enumerate(task.calls):
        if canonical_json(made[number]) != canonical_json(call.arguments):
            reason = f"the arguments of call {number + 1} do not come out as they were recorded"
            return Verdict(gate=NAME, passed=False, reason=reason)
        for path, value in argument_leaves(call.arguments):
            if (number, path) not in bound and not _is_said(value, question):
                reason = (
                    f"{value!r:.60} of call {number + 1} is neither in the question nor in an earlier output"
                )
                return Verdict(gate=NAME, passed=False, reason=reason)
    for value in _picked_by(task.program):
        if not _is_said(value, question):
            reason = f"rows are picked by {value!r:.60}, which the question does not say"
            return Verdict(gate=NAME, passed=False, reason=reason)
    taken = f", {len(bound)} arguments out of earlier outputs" if bound else ""
    return Verdict(gate=NAME, passed=True, reason=f"{len(found.reads)} values read{taken}")


def _of_things(task: Task, world: World) -> str:
    """Return a question without numbers of steps, and without what it says as the tools' descriptions do."""
    text = STEPS.sub(" ", task.question)
    for tool in task.tools:
        for said in re.split(
            r"[.\n]", str(world.entry(ToolRef(tool.server, tool.name)).get("description") or "")
        ):
            words = said.strip()
            if len(words) > 8:
                text = re.sub(re.escape(words), " ", text, flags=re.IGNORECASE)
    return text


def _picked_by(program: AnswerProgram) -> Iterator[str | int | float]:
    """Yield what rows are compared with to be picked."""
    stack: list[Json] = [*program.fields.values(), *(argument.value for argument in program.arguments)]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("op") == "filter" and item["value"]["op"] == "const":
                value = item["value"]["value"]
                if isinstance(value, str | int | float) and not isinstance(value, bool):
                    yield value
            stack.extend(
                inner for name, inner in item.items() if name != "value" or item.get("op") != "const"
            )
        elif isinstance(item, list):
            stack.extend(item)


def _is_said(value: Json, question: str) -> bool:
    wanted = normalised(value)
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", question) is not None
