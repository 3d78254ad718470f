"""G6: every call is needed."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.answers import normalised
from synth.gates.leak import leaks
from synth.program import NOTHING, AnswerProgram, ProgramError, calls_of, look, operations_of, run
from synth.repeats import generic
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
        if leaks(value, task.question) or _names(value, task.question):
            sources = sorted(calls_of(argument.value))
            return _unneeded(sources[0], f"{value!r:.60}", "the question says what it is needed for")
    for number in range(len(task.calls)):
        try:
            more = _tells_more(task, trees, number)
        except ProgramError as error:
            return Verdict(gate=NAME, passed=False, reason=f"the program fails: {error}"[:200])
        if not more:
            call = task.calls[number]
            return _unneeded(number, f"{call.server}/{call.tool}", "other calls tell the same")
    seen = [canonical_json([call.server, call.tool, call.arguments]) for call in task.calls]
    if len(set(seen)) < len(seen):
        return Verdict(gate=NAME, passed=False, reason="a call is made twice")
    return Verdict(gate=NAME, passed=True, reason=f"each of {len(task.calls)} calls is needed")


def _names(value: Json, question: str) -> bool:
    """Whether a question says a short name, in the same letters."""
    if not isinstance(value, str) or len(value) < 2 or not any(map(str.isalpha, value)):
        return False
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", question) is not None


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
    """Whether a call feeds another one, or a field reads something in it that no other output holds.

    A long value is told wherever it stands again. Short ones stand everywhere: of them a whole column has to
    be there again under its name, or one value under its name in what another tool, or the same call, said.
    """
    if any(number in calls_of(argument.value) for argument in task.program.arguments):
        return True
    others = [(task.calls[n], list(leaves(tree))) for n, tree in enumerate(trees) if n != number]
    values = {normalised(leaf.value) for _, told in others for leaf in told}
    columns: set[tuple[str, tuple[str, ...]]] = set()
    singles: set[tuple[str, str]] = set()
    call = task.calls[number]
    for other, told in others:
        column: dict[Address, list[str]] = defaultdict(list)
        for leaf in told:
            column[generic(leaf.address)].append(normalised(leaf.value))
            if other.ref != call.ref or other.arguments == call.arguments:
                singles.add((_name(leaf.address), normalised(leaf.value)))
        columns |= {(_name(address), tuple(sorted(items))) for address, items in column.items()}
    rows = {
        canonical_json(_row(trees[n], leaf.address))
        for n, (_, told) in zip([n for n in range(len(trees)) if n != number], others, strict=True)
        for leaf in told
    }
    for expression in task.program.fields.values():
        if number not in calls_of(expression):
            continue
        if _COMBINING & set(operations_of(expression)):
            return True  # which list a value stands in is what is asked
        groups: dict[Address, list[str]] = defaultdict(list)
        read_rows: dict[Address, set[str]] = defaultdict(set)
        for read in look(expression, trees)[1]:
            if read.call == number:
                value = at(trees[number], read.address)
                if read.whole or isinstance(value, dict | list):
                    return True
                place = generic(read.address)
                groups[place].append(normalised(value))
                read_rows[place].add(canonical_json(_row(trees[number], read.address)))
        for address, read_values in groups.items():
            own = (_name(address), tuple(sorted(read_values)))
            if not (
                (values.issuperset(read_values) and all(map(_is_telling, read_values)))
                or (rows - {"null"}).issuperset(read_rows[address])
                or (own in columns and len(read_values) > 1)
                or ((own[0], read_values[0]) in singles and len(read_values) == 1)
            ):
                return True
    return False


def _row(tree: Json, address: Address) -> Json:
    """Return the innermost item of a list that an address leads through; `None` if it is no object."""
    places = [n for n, step in enumerate(address) if isinstance(step, int)]
    row = at(tree, address[: places[-1] + 1]) if places else None
    return row if isinstance(row, dict) else None


def _is_telling(value: str) -> bool:
    """Whether a value, normalised, is not met by chance."""
    if value in ("true", "false"):
        return False
    return len(value) >= (SHORTEST if any(map(str.isalpha, value)) else SHORTEST + 1)


_COMBINING = frozenset(("union", "intersection", "difference", "join"))


def _name(address: Address) -> str:
    return next((step for step in reversed(address) if isinstance(step, str)), "")


def _unneeded(number: int, what: str, why: str) -> Verdict:
    return Verdict(gate=NAME, passed=False, reason=f"call {number + 1}, {what}, is not needed: {why}")
