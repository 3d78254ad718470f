"""What recordings of the same call say together: whether a tool answers alike, and where it does not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from weakref import WeakKeyDictionary

from recorder.canonical import canonical_json
from recorder.exchange import Exchange, Json, ToolRef, ToolResult
from recorder.explore.names import words_in
from synth.program import Read, tree_of
from synth.task import ReferenceCall
from synth.values import Address, WrongKind, at, leaves, moment
from synth.world import World

MADE_UP = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{16,64}", re.IGNORECASE)
"""An identifier that a server may have made up for a call."""


NEAR = timedelta(hours=36)
"""A moment this near to the call is most likely its own time, or of what was set up for it."""

_FLEETING = frozenset(
    """accessed elapsed took latency duration uptime pid random now today nonce timestamp timing seed token
    session
    """.split()  # noqa: SIM905
)
"""Words in the names of values that are seldom the same twice."""

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


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

    def doubt(self, group: str, call: ReferenceCall) -> str | None:
        """Say why a call may be answered otherwise the next time; `None` if nothing says so."""
        if call.ref not in self.agreed:
            return "is of a tool of which no call was recorded in two sessions and answered alike"
        changed = self.first_change.get((group, call.server))
        if changed is None or len(self.of(group, call)) >= 2:
            return None
        earliest = min(self.of(group, call), default=call.exchange)
        return (
            "was recorded once, after calls that may have changed what it reads"
            if earliest > changed
            else None
        )

    def fleeting(self, call: ReferenceCall, read: Read, tree: Json) -> str | None:
        """Say why a value that a program reads will not last; `None` if nothing speaks for it."""
        return None if read.whole else _fleeting(self, call, read, tree)


_KNOWN: WeakKeyDictionary[World, Repeats] = WeakKeyDictionary()


def repeats_of(world: World) -> Repeats:
    """Return what a recording repeats; collected once for each world."""
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
    changed = found.first_change.get((found.world.group(left.session_id), left.server))
    if changed is not None and changed < max(one, other):
        return  # the world may have changed between them
    for address in mine.keys() | its.keys():
        if mine.get(address) != its.get(address):
            found.volatile[left.call.tool].add(generic(address))


def _identifiers(exchange: Exchange) -> Iterator[str]:
    if isinstance(exchange.outcome, ToolResult):
        yield from {found.lower() for found in MADE_UP.findall(canonical_json(exchange.outcome.result))}


def generic(address: Address) -> Address:
    """Return an address with the items of lists unnumbered."""
    return tuple("*" if isinstance(step, int) else step for step in address)


def _key(group: str, tool: ToolRef, arguments: Json) -> str:
    return canonical_json([group, *tool, arguments])


def _fleeting(found: Repeats, call: ReferenceCall, read: Read, tree: Json) -> str | None:
    """Say why a value that is read will not last; `None` if nothing speaks for it."""
    if generic(read.address) in found.volatile.get(call.ref, ()):
        return "differed between equal calls of this tool"
    value = at(tree, read.address)
    exchange = found.world.exchange(call.exchange)
    recorded = datetime.fromtimestamp(exchange.started_at, tz=UTC)
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
        if MADE_UP.fullmatch(value.strip()) and found.made_up[value.strip().lower()] < 2:
            return f"is {value!r:.40}, which may have been made up for this call"
    name = next((step for step in reversed(read.address) if isinstance(step, str)), "")
    if set(words_in(name)) & _FLEETING and len(found.of(found.world.group(exchange.session_id), call)) < 2:
        return f"is a {name!r}, and was recorded once"
    return None


def _days_around(recorded: datetime) -> set[str]:
    days = [recorded + timedelta(days=n) for n in (-1, 0, 1)]
    return {_WEEKDAYS[day.weekday()] for day in days}


def _noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
