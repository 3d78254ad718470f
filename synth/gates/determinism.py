"""G7: the answer does not depend on when it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.program import ProgramError, arguments_of, look, run
from synth.repeats import repeats_of
from synth.task import Task, Verdict
from synth.world import World

NAME = "determinism"


def determinism(task: Task, world: World) -> Verdict:
    """Fail where recordings of a call lead to another answer, or what is read looks as if it will not last.

    Compared are recordings of the group in which nothing was changed before, in their session.
    """
    repeats = repeats_of(world)
    trees = world.trees(task.calls)
    try:
        answer = canonical_json(run(task.program, trees).answer)
        reads = dict.fromkeys(run(task.program, trees).reads)
        for argument in task.program.arguments:
            reads |= dict.fromkeys(look(argument.value, trees)[1])
    except ProgramError as error:
        return Verdict(gate=NAME, passed=False, reason=f"the program fails: {error}"[:200])
    fewest = 10**9
    for number, call in enumerate(task.calls):
        alike = repeats.of(task.group, call)
        fewest = min(fewest, len(alike))
        for other in alike:
            if _differs(task, answer, trees, number, world.tree(other)):
                reason = (
                    f"call {number + 1}, {call.server}/{call.tool}, led to another answer in exchange {other}"
                )
                return Verdict(gate=NAME, passed=False, reason=reason)
        if (why := repeats.doubt(task.group, call)) is not None:
            reason = f"call {number + 1}, {call.server}/{call.tool}, {why}"
            return Verdict(gate=NAME, passed=False, reason=reason)
    for read in reads:
        if (why := repeats.fleeting(task.calls[read.call], read, trees[read.call])) is not None:
            reason = f"{'/'.join(map(str, read.address))} of call {read.call + 1} {why}"
            return Verdict(gate=NAME, passed=False, reason=reason)
    seen = "recorded once" if fewest < 2 else f"{fewest} recordings or more of each call agree"
    return Verdict(gate=NAME, passed=True, reason=f"the answer holds: {seen}")


def _differs(task: Task, answer: str, trees: Sequence[Json], number: int, other: Json) -> bool:
    if other is trees[number] or canonical_json(other) == canonical_json(trees[number]):
        return False
    changed = [*trees[:number], other, *trees[number + 1 :]]
    try:
        if canonical_json(run(task.program, changed).answer) != answer:
            return True
        return any(
            canonical_json(arguments_of(task.program, n, call.arguments, changed))
            != canonical_json(call.arguments)
            for n, call in enumerate(task.calls)
        )
    except ProgramError:
        return True
