"""G6: every call is needed."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.answers import normalised
from synth.gates.leak import leaks
from synth.program import NOTHING, AnswerProgram, ProgramError, calls_of, operations_of, run
from synth.task import Task, Verdict
from synth.values import Address, at, leaves
from synth.world import World

NAME = "minimality"

SHORTEST = 3
"""Characters of a value that is not met by chance."""


def minimality(task: Task, world: World) -> Verdict:
    """Fail where the answer can be had with a call less.

    Each call is deleted in turn, and with it all that can then not be asked; the program must fail. A call
    whose output only repeats what others tell is not needed either, nor one whose value for a later call
    the question says itself.
    """
    trees = world.trees(task.calls)
    for number, call in enumerate(task.calls):
        left = _without(task.program, trees, number)
        if _runs(task.program, left):
            return _unneeded(number, f"{call.server}/{call.tool}", "the program runs without it")
    for argument in task.program.arguments:
        value = at(task.calls[argument.call].arguments, argument.path)
        if leaks(value, task.question):
            sources = sorted(calls_of(argument.value))
            return _unneeded(sources[0], f"{value!r:.60}", "the question says what it is needed for")
    for number in range(len(task.calls)):
        if not _tells_more(task, trees, number):
            call = task.calls[number]
            return _unneeded(number, f"{call.server}/{call.tool}", "other calls tell the same")
    seen = [canonical_json([call.server, call.tool, call.arguments]) for call in task.calls]
    if len(set(seen)) < len(seen):
        return Verdict(gate=NAME, passed=False, reason="a call is made twice")
    return Verdict(gate=NAME, passed=True, reason=f"each of {len(task.calls)} calls is needed")


def _without(program: AnswerProgram, trees: Sequence[Json], number: int) -> list[Json]:
    """Return the outputs without one, and without those of calls whose arguments cannot be had then."""
    left = list(trees)
    left[number] = NOTHING
    for argument in sorted(program.arguments, key=lambda each: each.call):
        if any(left[source] is NOTHING for source in calls_of(argument.value)):
            left[argument.call] = NOTHING
    return left


def _runs(program: AnswerProgram, trees: Sequence[Json]) -> bool:
    try:
        run(program, trees)
    except ProgramError:
        return False
    return True


def _tells_more(task: Task, trees: Sequence[Json], number: int) -> bool:
    """Whether a call feeds another one, or a field reads something in it that no other output holds."""
    if any(number in calls_of(argument.value) for argument in task.program.arguments):
        return True
    others = [tree for other, tree in enumerate(trees) if other != number]
    values = {normalised(leaf.value) for tree in others for leaf in leaves(tree)}
    names = {_name(leaf.address) for tree in others for leaf in leaves(tree)}
    told = False
    for name, expression in task.program.fields.items():
        if number not in calls_of(expression):
            continue
        if _COMBINING & set(operations_of(expression)):
            return True  # which list a value stands in is what is asked
        for read in run(task.program, trees).by_field[name]:
            if read.call != number:
                continue
            if read.whole:
                return True
            value = at(trees[number], read.address)
            # What is short stands everywhere: of it, only the name of its field tells.
            is_short = isinstance(value, bool | dict | list) or len(normalised(value)) < SHORTEST
            if _name(read.address) not in names if is_short else normalised(value) not in values:
                return True
            told = told or not is_short
    return not told


_COMBINING = frozenset(("union", "intersection", "difference", "join"))


def _name(address: Address) -> str:
    return next((step for step in reversed(address) if isinstance(step, str)), "")


def _unneeded(number: int, what: str, why: str) -> Verdict:
    return Verdict(gate=NAME, passed=False, reason=f"call {number + 1}, {what}, is not needed: {why}")
