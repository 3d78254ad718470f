"""G7: the answer does not depend on when it was asked."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from weakref import WeakKeyDictionary

from recorder.canonical import canonical_json
from recorder.exchange import Exchange, Json, ToolRef, ToolResult
from recorder.explore.names import words_in
from synth.program import ProgramError, Read, arguments_of, reads_of, run, tree_of
from synth.task import ReferenceCall, Task, Verdict
from synth.values import Address, WrongKind, at, leaves, moment
from synth.world import World

NAME = "determinism"

NEAR = timedelta(hours=36)
"""A moment this near to the call is most likely its own time, or of what was set up for it."""

_FLEETING = frozenset(
    """accessed elapsed took latency duration uptime pid random now today nonce timestamp timing seed token
    session
    """.split()  # noqa: SIM905
)
"""Words in the names of values that are seldom the same twice."""

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MADE_UP = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16,64}", re.IGNORECASE)


def determinism(task: Task, world: World) -> Verdict:
    """Fail where recordings of a call lead to another answer, or what is read looks as if it will not last.

    Compared are recordings of the group in which nothing was changed before, in their session.
    """
    repeats = _repeats(world)
    trees = world.trees(task.calls)
    try:
        answer = canonical_json(run(task.program, trees).answer)
        reads = dict.fromkeys(run(task.program, trees).reads)
        for argument in task.program.arguments:
            reads |= dict.fromkeys(reads_of(argument.value, trees))
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
        if call.ref not in repeats.agreed:
            reason = f"no call of {call.server}/{call.tool} was recorded in two sessions and answered alike"
            return Verdict(gate=NAME, passed=False, reason=reason)
        if (why := repeats.unsafe(task.group, call, len(alike))) is not None:
            reason = f"call {number + 1}, {call.server}/{call.tool}, {why}"
            return Verdict(gate=NAME, passed=False, reason=reason)
    for read in reads:
        if read.whole:
            continue
        if (why := _fleeting(world, repeats, task.calls[read.call], read, trees[read.call])) is not None:
            reason = f"{'/'.join(map(str, read.address))} of call {read.call + 1} {why}"
            return Verdict(gate=NAME, passed=False, reason=reason)
    seen = "recorded once" if fewest < 2 else f"{fewest} recordings or more of each call agree"
    return Verdict(gate=NAME, passed=True, reason=f"the answer holds: {seen}")


@dataclass(slots=True)
class Repeats:
    """Which recordings there are of the same call, and what differs between them."""

    world: World
    by_call: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Group and call → exchanges without a change before them in their session."""
    first_change: dict[tuple[str, str], int] = field(default_factory=dict)
    """Group and server → the first exchange that changed the world, in a session without a world of its
    own."""
    agreed: set[ToolRef] = field(default_factory=set)
    """Tools of which a call was recorded in two sessions, and answered alike."""
    volatile: dict[ToolRef, set[Address]] = field(default_factory=lambda: defaultdict(set))
    """Tool → places, items of lists unnumbered, at which equal calls were answered otherwise."""
    made_up: Counter[str] = field(default_factory=Counter)
    """Identifier → how many exchanges hold it."""

    def of(self, group: str, call: ReferenceCall) -> list[int]:
        return self.by_call.get(_key(group, call.ref, call.arguments), [])

    def unsafe(self, group: str, call: ReferenceCall, recorded: int) -> str | None:
        """Say why a call may have been answered from a changed world; `None` if it was not."""
        changed = self.first_change.get((group, call.server))
        if changed is None or recorded >= 2:
            return None
        earliest = min(self.of(group, call), default=call.exchange)
        return (
            "was recorded once, after calls that may have changed what it reads"
            if earliest > changed
            else None
        )


_KNOWN: WeakKeyDictionary[World, Repeats] = WeakKeyDictionary()


def _repeats(world: World) -> Repeats:
    if world not in _KNOWN:
        _KNOWN[world] = _collect(world)
    return _KNOWN[world]


def _collect(world: World) -> Repeats:
    found = Repeats(world)
    sessions = {session.id: session for session in world.store.sessions()}
    private = world.store.sandboxed_runs()
    changed_in: set[str] = set()
    for exchange in world.store.exchanges(method="tools/call"):
        call = exchange.call
        if call is None or not isinstance(exchange.outcome, ToolResult):
            continue
        session = sessions[exchange.session_id]
        at_ = ReferenceCall(
            server=call.tool.server, tool=call.tool.name, arguments=call.arguments, exchange=exchange.id
        )
        if world.changes(at_):
            if not exchange.outcome.is_error:
                changed_in.add(exchange.session_id)
                if (session.run or "").partition("/")[0] not in private:
                    found.first_change.setdefault((session.group, exchange.server), exchange.id)
        elif exchange.session_id not in changed_in:
            found.by_call[_key(session.group, call.tool, call.arguments)].append(exchange.id)
            for identifier in _identifiers(exchange):
                found.made_up[identifier] += 1
    for exchanges in found.by_call.values():
        for other in exchanges[1:]:
            _compare(found, exchanges[0], other)
    return found


def _compare(found: Repeats, one: int, other: int) -> None:
    left, right = found.world.exchange(one), found.world.exchange(other)
    if left.call is None:
        return
    if left.outcome == right.outcome:
        if left.session_id != right.session_id:
            found.agreed.add(left.call.tool)
        return
    mine = {leaf.address: leaf.value for leaf in leaves(tree_of(left.outcome))}
    its = {leaf.address: leaf.value for leaf in leaves(tree_of(right.outcome))}
    changed = found.first_change.get((_group_of(found.world, left), left.server))
    if changed is not None and changed < max(one, other):
        return  # the world may have changed between them
    for address in mine.keys() | its.keys():
        if mine.get(address) != its.get(address):
            found.volatile[left.call.tool].add(_generic(address))


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


def _fleeting(world: World, repeats: Repeats, call: ReferenceCall, read: Read, tree: Json) -> str | None:
    """Say why a value that is read will not last; `None` if nothing speaks for it."""
    if _generic(read.address) in repeats.volatile.get(call.ref, ()):
        return "differed between equal calls of this tool"
    value = at(tree, read.address)
    recorded = datetime.fromtimestamp(world.exchange(call.exchange).started_at, tz=UTC)
    if isinstance(value, str):
        if value.strip().lower() in _days_around(recorded):
            return f"is {value!r}, the day on which it was recorded"
        try:
            told = moment(value)
            told_at = told if isinstance(told, datetime) else _noon(told)
            if abs(told_at - recorded) < NEAR:
                return f"is {value!r:.40}, about the time at which it was recorded"
        except WrongKind:
            pass
        if _MADE_UP.fullmatch(value.strip()) and repeats.made_up[value.strip().lower()] < 2:
            return f"is {value!r:.40}, which may have been made up for this call"
    name = next((step for step in reversed(read.address) if isinstance(step, str)), "")
    if (
        set(words_in(name)) & _FLEETING
        and len(repeats.of(_group_of(world, world.exchange(call.exchange)), call)) < 2
    ):
        return f"is a {name!r}, and was recorded once"
    return None


def _days_around(recorded: datetime) -> set[str]:
    days = [recorded + timedelta(days=n) for n in (-1, 0, 1)]
    return {_WEEKDAYS[day.weekday()] for day in days}


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


def _identifiers(exchange: Exchange) -> Iterator[str]:
    if isinstance(exchange.outcome, ToolResult):
        yield from {found.lower() for found in _MADE_UP.findall(canonical_json(exchange.outcome.result))}


def _generic(address: Address) -> Address:
    return tuple("*" if isinstance(step, int) else step for step in address)


def _group_of(world: World, exchange: Exchange) -> str:
    return world.group(exchange.session_id)


def _key(group: str, tool: ToolRef, arguments: Json) -> str:
    return canonical_json([group, *tool, arguments])
