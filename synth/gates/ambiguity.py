"""G4: one answer is right, and it hangs on what the program reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Literal

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.program import AnswerProgram, Expression, ProgramError, Read, calls_of, look
from synth.repeats import generic
from synth.task import Task, Verdict
from synth.values import Address, WrongKind, at, moment, number, replaced
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
    for place, (_, its) in enumerate(found):
        for read in its:
            readers.setdefault(read, []).append(place)
    reads = _some(list(readers))
    constants, elsewhere = list(_constants(task.program)), _values(trees, reads)
    for read in reads:
        affected = [(expressions[place], found[place][0]) for place in readers[read]]
        # A value that becomes equal to what it is compared with makes a difference at once.
        others = chain(constants, _others(trees, read), elsewhere)
        if not any(
            _came(each, value, _with(trees, [read], other)) != "same"
            for other in others
            for each, value in affected
        ):
            where = "/".join(map(str, read.address)) or "the whole"
            reason = f"{where} of call {read.call + 1} is read, and no other value changes the answer"
            return Verdict(gate=NAME, passed=False, reason=reason)
    for name, (value, its) in zip(task.program.fields, found, strict=False):
        expression = task.program.fields[name]
        # One value may not be enough, as where two shares are compared: then all of a column.
        if not any(
            _came(expression, value, _with(trees, together, other)) == "other"
            for together in (*([read] for read in _some(its)), *_columns(its))
            for other in chain(constants, _others(trees, together[0]), elsewhere)
        ):
            reason = f"field {name} is {value!r:.60} whatever is read"
            return Verdict(gate=NAME, passed=False, reason=reason)
    return Verdict(gate=NAME, passed=True, reason=f"{len(reads)} read values matter")


def _some(reads: Sequence[Read]) -> list[Read]:
    if len(reads) <= MOST_PERTURBED:
        return list(reads)
    return [reads[n * len(reads) // MOST_PERTURBED] for n in range(MOST_PERTURBED)]


def _came(expression: Expression, value: Json, trees: Sequence[Json]) -> Literal["same", "other", "none"]:
    """Say what an expression comes to over other outputs.

    A value of a kind that could not stand there shows nothing, so it counts as the same.
    """
    try:
        other = canonical_json(look(expression, trees)[0])
    except ProgramError as error:
        return "same" if error.kind in ("wrong kind", "malformed") else "none"
    return "same" if other == canonical_json(value) else "other"


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
    found: dict[tuple[int, Address], list[Json]] = {}
    for read in reads:
        if not read.whole:
            column = found.setdefault((read.call, generic(read.address)), [])
            if len(column) < MOST_ELSEWHERE:
                column.append(at(trees[read.call], read.address))
    return [value for column in found.values() for value in column]


def _with(trees: Sequence[Json], reads: Sequence[Read], value: Json) -> list[Json]:
    changed = list(trees)
    for read in reads:
        changed[read.call] = replaced(changed[read.call], read.address, value)
    return changed


def _columns(reads: Sequence[Read]) -> list[list[Read]]:
    """Return what was read of the same column, where that is more than one value."""
    found: dict[tuple[int, Address], list[Read]] = {}
    for read in reads:
        if not read.whole:
            found.setdefault((read.call, generic(read.address)), []).append(read)
    return [together for together in found.values() if len(together) > 1]


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
