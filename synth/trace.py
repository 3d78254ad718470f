"""Recorded calls as a graph: which argument value stands in which earlier output, and which the user has to
say.

Tasks are made of reads, so calls of different sessions may stand together: what makes them one world is
that a replay of their group answers each of them exactly. An observation is such a call with its output,
read.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolCall, ToolRef, ToolResult
from recorder.explore.effective import verdict
from recorder.explore.names import words_in
from recorder.explore.outputs import text_of
from replayer.exact import SAME
from synth.program import NOTHING
from synth.repeats import repeats_of
from synth.task import ReferenceCall
from synth.values import Address, Column, Plain, Table, WrongKind, as_kind, at, leaves, read, tables
from synth.world import World

LONGEST_OUTPUT = 12_000
"""Characters of an output that a task may rest on: a small model has to read it."""

MOST_OF_A_TOOL = 150
"""Distinct calls of one tool that tasks are made of, in a group."""

MOST_LINKS = 40
"""Producers that are kept of one argument."""

SHORTEST = 3
"""Characters of a value that tells one thing from others wherever it is met."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """A read that a replay of its group answers exactly, and what it answers."""

    call: ReferenceCall
    group: str
    tree: Json
    tables: tuple[Table, ...]
    links: list[Link] = field(default_factory=list, repr=False)
    """Where its arguments may come from."""

    @property
    def ref(self) -> ToolRef:
        return self.call.ref


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """An argument's value stands in another call's output."""

    producer: Observation
    path: Address
    """Of the argument."""
    address: Address
    """In the output."""
    table: Table | None
    """That the value stands in, and then `row` and `column`; else it stands alone."""
    row: int = 0
    column: Column | None = None
    folder: str = ""
    """What stands before the value, and a slash, in the argument: the producer was asked about it."""


def observations(world: World, progress: Progress | None = None) -> list[Observation]:
    """Return the calls that tasks can be made of, with their links, by group, server, tool and arguments.

    A call is asked anew in a conversation of its own, so that what is used is what a replay answers to
    somebody who begins. World-changing calls, errors, answers that say nothing, huge ones, and what may be
    answered otherwise the next time are left out.
    """
    found: list[Observation] = []
    groups = _distinct_calls(world)
    total = sum(len(calls) for calls in groups.values())
    done = 0
    for group, calls in groups.items():
        here: list[Observation] = []
        told: set[int] = set()
        for call in calls:
            done += 1
            if progress is not None:
                progress("reading calls", done, total)
            seen = _observed(world, call, group)
            if seen is not None and seen.call.exchange not in told:
                told.add(seen.call.exchange)
                here.append(seen)
        _link(here, world)
        found += here
    return found


def argument_leaves(arguments: Json) -> Iterator[tuple[Address, Plain]]:
    """Yield each plain value within a call's arguments, and where it stands."""
    for leaf in leaves(arguments):
        yield leaf.address, leaf.value


def _distinct_calls(world: World) -> dict[str, list[ReferenceCall]]:
    """Return the first of each distinct call that told something, by group."""
    known: dict[str, dict[str, ReferenceCall]] = defaultdict(dict)
    groups = {session.id: session.group for session in world.store.sessions()}
    for exchange in world.store.exchanges(method="tools/call"):
        call = exchange.call
        if call is None or not isinstance(exchange.outcome, ToolResult):
            continue
        key = canonical_json([*call.tool, call.arguments])
        if key in known[groups[exchange.session_id]] or "[redacted:" in key:
            continue
        if verdict(call.arguments, exchange.outcome) != "effective":
            continue
        known[groups[exchange.session_id]][key] = ReferenceCall(
            server=call.tool.server, tool=call.tool.name, arguments=call.arguments, exchange=exchange.id
        )
    chosen: dict[str, list[ReferenceCall]] = {}
    for group in sorted(known):
        by_tool: dict[ToolRef, list[str]] = defaultdict(list)
        for key, reference in known[group].items():
            by_tool[reference.ref].append(key)
        chosen[group] = [
            known[group][key] for tool in sorted(by_tool) for key in _some(sorted(by_tool[tool]), tool)
        ]
    return chosen


def _some(keys: list[str], tool: ToolRef) -> list[str]:
    if len(keys) <= MOST_OF_A_TOOL:
        return keys
    return sorted(random.Random("/".join(tool)).sample(keys, MOST_OF_A_TOOL))


def _observed(world: World, call: ReferenceCall, group: str) -> Observation | None:
    if world.replayer.call_changes(ToolCall(tool=call.ref, arguments=call.arguments)):
        return None
    (answer,) = world.ask([call], group)
    if answer is None or answer.tier != SAME or answer.exchange is None:
        return None
    outcome = answer.outcome
    if not isinstance(outcome, ToolResult) or verdict(call.arguments, outcome) != "effective":
        return None
    told = text_of(outcome.result)
    if len(told) > LONGEST_OUTPUT or "[redacted:" in told:
        return None
    tree = read(outcome.result)
    if tree is None or tree is NOTHING:
        return None
    # What is cited may have been asked in other words, with defaults left out.
    made = world.exchange(answer.exchange.id).call
    if made is None or made.tool != call.ref:
        return None
    cited = ReferenceCall(
        server=call.server, tool=call.tool, arguments=made.arguments, exchange=answer.exchange.id
    )
    if repeats_of(world).doubt(group, cited) is not None:
        return None
    return Observation(cited, group, tree, tuple(tables(tree)))


def _link(here: Sequence[Observation], world: World) -> None:
    """Find for each argument the outputs that its value stands in."""
    wanted: set[str] = set()
    for consumer in here:
        for _, value in argument_leaves(consumer.call.arguments):
            wanted.update(_spellings(value))
    places: dict[str, list[tuple[Observation, Address, Plain]]] = defaultdict(list)
    for producer in here:
        own = {key for _, value in argument_leaves(producer.call.arguments) for key in _spellings(value)}
        told: set[str] = set()
        for leaf in leaves(producer.tree):
            key = _spelling(leaf.value)
            # What was asked is no news, and what is told twice does not say which is meant.
            if key is not None and key in wanted and key not in own and key not in told:
                told.add(key)
                if len(places[key]) < MOST_LINKS:
                    places[key].append((producer, leaf.address, leaf.value))
    for consumer in here:
        for path, value in argument_leaves(consumer.call.arguments):
            if _is_listed(world.input_schema(consumer.ref), path):
                continue
            for key in _spellings(value):
                for producer, address, told_value in places.get(key, ()):
                    link = _linked(producer, consumer, path, value, address, told_value)
                    if link is not None:
                        consumer.links.append(link)


def _linked(
    producer: Observation, consumer: Observation, path: Address, value: Plain, address: Address, told: Plain
) -> Link | None:
    if producer is consumer:
        return None
    folder = ""
    if isinstance(value, str) and _spelling(value) != _spelling(told):
        folder = value[: -len(str(told))].rstrip("/")
        if not any(
            isinstance(asked, str) and asked.rstrip("/") == folder
            for _, asked in argument_leaves(producer.call.arguments)
        ):
            return None
    if not _is_meant(value, words_in(_last_name(address)), words_in(_last_name(path)), producer, consumer):
        return None
    for table in producer.tables:
        size = len(table.address)
        if address[:size] != table.address or len(address) <= size:
            continue
        rest = address[size + 1 :]
        row, inner = _row_of(table, address[size], rest, producer.tree)
        for column in table.columns:
            if column.path == inner and row is not None:
                return Link(producer, path, address, table, row, column, folder)
        return None
    if any(isinstance(step, int) for step in address):
        return None
    return Link(producer, path, address, None, folder=folder)


def _is_listed(schema: Json, path: Address) -> bool:
    """Whether a tool's schema lists the values of a parameter, so that a solver knows them already."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    found = properties.get(path[0]) if isinstance(properties, dict) and path else None
    return "'enum'" in repr(found) or "'const'" in repr(found)


_FREE = frozenset(
    """query pattern message text content expression code sql title description prompt comment body search
    keyword input instruction data value""".split()  # noqa: SIM905
)
"""Last words of parameters that take any text: a value in one of them was most likely a word to try."""

_BARE = frozenset("id key number no index name".split())  # noqa: SIM905


def _is_meant(
    value: Plain, told: tuple[str, ...], asked: tuple[str, ...], producer: Observation, consumer: Observation
) -> bool:
    """Whether equal values mean the same thing, as far as what they are called says."""
    is_number = not isinstance(value, str) or (value.isdigit() and len(value) < 6)
    if not is_number:
        return not (asked and asked[-1] in _FREE) or bool(told and told[-1] == asked[-1])
    # A small number stands everywhere: it has to be called alike, and by more than `id`.
    if not told or not asked or told[-1] != asked[-1]:
        return False
    if told == asked:
        return told[-1] not in _BARE or producer.ref.server == consumer.ref.server
    shorter, longer = sorted((told, asked), key=len)
    if shorter[-1] not in _BARE:
        return False
    whose = set(longer) - set(shorter)
    said = canonical_json([producer.ref.name, producer.call.arguments]).lower()
    return any(word in said for word in whose)


def _row_of(table: Table, step: str | int, rest: Address, tree: Json) -> tuple[int | None, Address]:
    if not table.keyed:
        return (step if isinstance(step, int) else None), rest
    members = list(at(tree, table.address))
    return (members.index(step) if step in members else None), ("value", *rest)


def _spelling(value: Plain) -> str | None:
    if isinstance(value, bool):
        return None
    try:
        found = str(as_kind(value, "text"))
    except WrongKind:
        return None
    return found if isinstance(value, int | float) or len(found) >= SHORTEST else None


def _spellings(value: Plain) -> list[str]:
    """Return a value as it may stand in an output: whole, or without the folder before it."""
    whole = _spelling(value)
    if whole is None:
        return []
    head, slash, tail = whole.rstrip("/").rpartition("/")
    return [whole, tail] if slash and head and len(tail) >= SHORTEST and "://" not in head else [whole]


def _last_name(address: Address) -> str:
    return next((step for step in reversed(address) if isinstance(step, str)), "")
