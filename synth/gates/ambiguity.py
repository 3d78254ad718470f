"""G4: one answer is right, and it hangs on what the program reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.program import AnswerProgram, Expression, ProgramError, Read, calls_of, look
from synth.task import Task, Verdict
from synth.values import WrongKind, at, moment, number, replaced
from synth.world import World

NAME = "ambiguity"

MOST_PERTURBED = 60
"""Read values that are changed one by one, spread over all that are read."""


MOST_ELSEWHERE = 4
"""Values of each column that are tried in the place of others."""


def ambiguity(task: Task, world: World) -> Verdict:
    """Fail where several things fit what is asked for, or where a value that is read does not matter.

    A value matters if some other value in its place leads to another answer, to another argument of a later
    call, or to none.
    """
    trees = world.trees(task.calls)
    expressions = [*task.program.fields.values(), *(argument.value for argument in task.program.arguments)]
    try:
        found = [look(expression, trees) for expression in expressions]
    except ProgramError as error:
        return Verdict(gate=NAME, passed=False, reason=f"{error}"[:200])
    for name, expression in task.program.fields.items():
        if not calls_of(expression):
            reason = f"field {name} is {task.answer.get(name)!r:.60} whatever is read"
            return Verdict(gate=NAME, passed=False, reason=reason)
    readers: dict[Read, list[int]] = {}
    for place, (_, reads) in enumerate(found):
        for read in reads:
            readers.setdefault(read, []).append(place)
    chosen = list(readers)
    if len(chosen) > MOST_PERTURBED:
        chosen = [chosen[n * len(chosen) // MOST_PERTURBED] for n in range(MOST_PERTURBED)]
    constants, elsewhere = list(_constants(task.program)), _values(trees, chosen)
    for read in chosen:
        affected = [(expressions[place], found[place][0]) for place in readers[read]]
        # A value that becomes equal to what it is compared with makes a difference at once.
        others = chain(constants, _others(trees, read), elsewhere)
        if not any(_differs(affected, _with(trees, read, other)) for other in others):
            where = "/".join(map(str, read.address)) or "the whole"
            reason = f"{where} of call {read.call + 1} is read, and no other value changes the answer"
            return Verdict(gate=NAME, passed=False, reason=reason)
    return Verdict(gate=NAME, passed=True, reason=f"{len(chosen)} read values matter")


def _differs(expressions: Sequence[tuple[Expression, Json]], trees: Sequence[Json]) -> bool:
    """Whether an expression has another value over these outputs than it is said to have, or none."""
    try:
        return any(
            canonical_json(look(each, trees)[0]) != canonical_json(value) for each, value in expressions
        )
    except ProgramError:
        return True


def _constants(program: AnswerProgram) -> Iterator[Json]:
    """Yield what values are compared with: one that becomes equal to it makes a difference."""
    stack: list[Json] = [*program.fields.values(), *(argument.value for argument in program.arguments)]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if item.get("op") == "const":
                yield item["value"]
            else:
                stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _values(trees: Sequence[Json], reads: Sequence[Read]) -> list[Json]:
    """Return some values that stand elsewhere, of each column a few."""
    found: dict[tuple[object, ...], list[Json]] = {}
    for read in reads:
        if not read.whole:
            generic = (read.call, *("*" if isinstance(step, int) else step for step in read.address))
            column = found.setdefault(generic, [])
            if len(column) < MOST_ELSEWHERE:
                column.append(at(trees[read.call], read.address))
    return [value for column in found.values() for value in column]


def _with(trees: Sequence[Json], read: Read, value: Json) -> list[Json]:
    changed = list(trees)
    changed[read.call] = replaced(trees[read.call], read.address, value)
    return changed


def _others(trees: Sequence[Json], read: Read) -> Iterator[Json]:
    """Yield values that could stand in a value's place, so different that any use of it shows."""
    value = at(trees[read.call], read.address)
    if isinstance(value, list):
        yield value[:-1]
        yield [*value, value[-1]] if value else [{}]
        return
    if isinstance(value, dict):
        yield dict(list(value.items())[:-1])
        return
    if isinstance(value, bool):
        yield not value
        return
    if isinstance(value, str):
        if value.strip().lower() in ("true", "false", "yes", "no"):
            yield "false" if value.strip().lower() in ("true", "yes") else "true"
        try:
            moment(value)
            yield "1901-02-03"
            yield "2999-12-30"
            return
        except WrongKind:
            pass
    try:
        found = number(value)
        for other in (found + 1, 10**12, -(10**12)):
            yield str(other) if isinstance(value, str) else other
    except WrongKind:
        yield f"{value} (other)"
        yield "!"
        yield "\U0010fffd"
        yield "9999999 GB"
        yield "0 B"
