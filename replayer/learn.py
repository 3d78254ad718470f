"""The pass over a recording that fits keys, state, volatility and trust: `firefly-proxy learn`.

It reads the recording once, and conversations in which a server made ids up twice. Memory grows by some
hundred bytes an exchange, time linearly. What it finds is written into a new file and then put beside the
recording in one transaction, so that a replay in progress never sees half of it.
"""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from recorder.database import Connection, open_beside, transaction
from recorder.embedder import Embedder
from recorder.frame import as_object
from recorder.store import Answered, Conversation, Store
from recorder.verbs import declared, suggested
from replayer.effects import Effects
from replayer.evidence import Candidate
from replayer.exact import ExactTier
from replayer.journal import create_journal
from replayer.keys import Chains, call_key, canonical_text, hash64
from replayer.learned import (
    BUSY,
    INDEXES,
    TABLES,
    VERSION,
    Facts,
    Keep,
    Learned,
    calibration_json,
    create_tables,
    first_known,
    learned_path,
    recording_mark,
    tool_id,
)
from replayer.lessons import ErrorLessons, lesson_text
from replayer.mask import error_text, masked, result_text
from replayer.minted import Lineage, may_mint
from replayer.near import NearTier, near_key
from replayer.nearest import NearestTier
from replayer.policy import Policy
from replayer.request import Identity, identify
from replayer.schema_tier import lesson_candidate
from replayer.semantic import SemanticTier, embedded_text
from replayer.sensitivity import learn_facts, reply_text, without_volatile
from replayer.state import MOST_EARLIER, START, Place, Shared, World, group_id, names_in
from replayer.tier import Asked
from replayer.trust import (
    FOLDS,
    MIN_COMPARISONS,
    Calibration,
    Comparison,
    calibrate,
    cells_of,
    stands_alone,
)
from replayer.violations import Checker

MOST_COMPARISONS = 200_000
"""Recorded calls that are answered from the others to learn trust; of more, a sample spread evenly."""

EVERYWHERE = 0.8
"""Share of the calls to a server that name something before it tells nothing."""

MOST_NEAREST = 40
"""Calls of one tool whose nearest neighbour is compared: the search is the slowest of all, and it never
answers unless everything is to be answered."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@dataclass(slots=True)
class _Kind:
    server: str
    name: str
    tool: str
    changes: bool = True


@dataclass(slots=True)
class _Part:
    """One conversation's stretch of the columns."""

    conversation: Conversation
    group: int
    start: int
    end: int = 0
    mints: bool = False


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class _Columns:
    """Every answered request, a column each: a million of them fit in some 100 MB."""

    exchange: array[int] = field(default_factory=_integers)
    key: array[int] = field(default_factory=_integers)
    bound: array[int] = field(default_factory=_integers)
    """The key itself where no minted id is named."""
    output: array[int] = field(default_factory=_integers)
    world: array[int] = field(default_factory=_integers)
    prefix: array[int] = field(default_factory=_integers)
    related: array[int] = field(default_factory=_integers)
    history: array[int] = field(default_factory=_integers)
    tool: array[int] = field(default_factory=_integers)
    kind: array[int] = field(default_factory=lambda: array("l"))
    flags: array[int] = field(default_factory=lambda: array("b"))
    values: array[int] = field(default_factory=lambda: array("I"))
    values_end: array[int] = field(default_factory=_integers)
    told: dict[int, array[int]] = field(default_factory=dict)
    """Row of a call that may change the world → what its answer names."""

    def values_of(self, row: int) -> array[int]:
        return self.values[self.values_end[row - 1] if row else 0 : self.values_end[row]]


_IS_CALL, _IS_PLAIN, _FAILED = 1, 2, 4


def learn(
    store: Store,
    path: Path | None = None,
    *,
    policy: Policy | None = None,
    without: Collection[str] = (),
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Learn from a recording, and return what was learned.

    Args:
        path: Where it is put; beside the recording if `None`. What is there already is replaced, its journal
            of misses kept.
        policy: What the user says; if `None`, what the file there was last learned with.
        without: Ids of sessions that are left out.
        embedder: Makes the vectors of the semantic tier, if there is to be one.
        progress: Called now and then.

    Raises:
        RecordingError: the recording cannot be read, or the result not written.
    """
    target = path or learned_path(store.path)
    if policy is None:
        policy = _policy_of(target)
    scratch = target.with_name(f"{target.name}.{time.time_ns():x}.learning")
    connection = open_beside(scratch, lasting=False)
    try:
        _Pass(store, connection, scratch, policy, frozenset(without), embedder, progress or _silent).run()
        connection.close()
        _publish(scratch, target)
    finally:
        connection.close()
        scratch.unlink(missing_ok=True)
    return Learned(target)


class _Pass:
    """One pass over a recording; its methods run in the order of `run`."""

    def __init__(
        self,
        store: Store,
        connection: Connection,
        scratch: Path,
        policy: Policy,
        without: frozenset[str],
        embedder: Embedder | None,
        progress: Progress,
    ) -> None:
        self._store, self._connection, self._scratch = store, connection, scratch
        self._policy, self._embedder, self._progress = policy, embedder, progress
        self._mark = recording_mark(store)
        self._conversations = [part for part in store.conversations() if part.session_id not in without]
        self._columns = _Columns()
        self._parts: list[_Part] = []
        self._kinds: list[_Kind] = []
        self._kind_numbers: dict[tuple[str, str], int] = {}
        self._entries: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._tools: dict[int, tuple[str, str]] = {}
        self._effects = Effects()
        self._checkers: dict[tuple[str, str], Checker | None] = {}
        self._lessons: dict[str, ErrorLessons] = {}
        self._lesson_comparisons: list[Comparison] = []
        self._minted = 0
        self._everywhere: dict[str, frozenset[int]] = {}
        self._seconds: dict[str, float] = {}

    def run(self) -> None:
        create_tables(self._connection)
        for step in (
            self._read,
            self._judge,
            self._place,
            self._write_calls,
            self._write_facts,
            self._write_vectors,
            self._compare,
        ):
            began = time.perf_counter()
            self._connection.execute("BEGIN")
            step()
            self._connection.execute("COMMIT")
            self._seconds[step.__name__.strip("_")] = round(time.perf_counter() - began, 2)
        self._connection.execute(
            "UPDATE learned SET summary = ?", (json.dumps(self._summary | {"seconds": self._seconds}),)
        )

    def _read(self) -> None:
        for done, conversation in enumerate(self._conversations):
            self._progress("reading", done, len(self._conversations))
            columns = self._columns
            part = _Part(conversation, group_id(conversation.group), len(columns.exchange))
            distinct: list[tuple[int, int, int, str]] = []
            for answered, identity, text, failed in self._requests(conversation):
                assert identity.key is not None
                tool = tool_id(identity.server, identity.listed_as)
                self._tools.setdefault(tool, (identity.server, identity.listed_as))
                plain = identity.tool is not None
                kind = self._kind(identity)
                for column, value in (
                    (columns.exchange, answered.exchange_id),
                    (columns.key, identity.key),
                    (columns.bound, identity.key),
                    (columns.output, hash64(masked(text))),
                    (columns.tool, tool),
                    (columns.kind, kind),
                    (columns.flags, _IS_CALL * identity.is_call | _IS_PLAIN * plain | _FAILED * failed),
                ):
                    column.append(value)
                if plain:
                    self._note_violations(part, identity, answered, text)
                    columns.values.extend(identity.values(frozenset()))
                    if not failed and self._kinds[kind].changes:
                        part.mints = part.mints or may_mint(text)
                        columns.told[len(columns.values_end)] = array("I", names_in(text))
                columns.values_end.append(len(columns.values))
                distinct.append((tool, identity.key, answered.exchange_id, identity.text))
            self._connection.executemany("INSERT OR IGNORE INTO distinct_call VALUES (?, ?, ?, ?)", distinct)
            part.end = len(columns.exchange)
            self._parts.append(part)
        self._connection.executemany(
            "INSERT INTO conversation VALUES (?, ?, ?)",
            [(part.conversation.number, part.conversation.session_id, part.group) for part in self._parts],
        )

    def _requests(self, conversation: Conversation) -> Iterator[tuple[Answered, Identity, str, bool]]:
        """Yield a conversation's requests, read, with the text of each answer and whether it is an error."""
        chains = Chains()
        for answered in self._store.answered(conversation.number):
            try:
                request, reply = json.loads(answered.request), json.loads(answered.reply)
                method, params = request.get("method"), as_object(request.get("params"))
                if not isinstance(method, str):
                    continue
                identity = identify(
                    conversation.server, method, params, chains, self._schema(conversation.server, params)
                )
                text = result_text(reply["result"]) if "result" in reply else error_text(reply.get("error"))
            except (RecursionError, ValueError):
                continue  # nested too deep to be compared
            if identity.key is None:
                continue
            if answered.outcome == "input_required":
                chains.ask_input(identity.key, conversation.server, method, params, reply["result"])
            yield answered, identity, text, answered.outcome in ("tool_error", "rpc_error")

    def _note_violations(self, part: _Part, identity: Identity, answered: Answered, text: str) -> None:
        """Learn from a call that violates its schema, and how well what was learned before foretells it."""
        assert identity.tool is not None
        at = (identity.server, identity.tool)
        if at not in self._checkers:
            schema = self._schema(identity.server, {"name": identity.tool})
            self._checkers[at] = Checker(schema) if schema else None
        checker = self._checkers[at]
        found = checker.violations(identity.sent) if checker else ()
        if not found:
            return
        lessons = self._lessons.setdefault(identity.server, ErrorLessons())
        failed = answered.outcome in ("tool_error", "rpc_error")
        told = lesson_text(text, refused=answered.outcome == "rpc_error") if failed else None
        if lesson := lessons.answer(identity.tool, found):
            cells = cells_of(lesson_candidate(lesson))
            right = told is not None and masked(told) == masked(lesson.text)
            self._lesson_comparisons.append(
                Comparison(identity.server, identity.tool, cells, right, 1.0, part.group)
            )
        lessons.note(identity.tool, found, told, answered.exchange_id)

    def _entry(self, server: str, tool: str) -> dict[str, Any] | None:
        if (server, tool) not in self._entries:
            self._entries[server, tool] = self._store.tool_entry(server, tool)
        return self._entries[server, tool]

    def _schema(self, server: str, params: Any) -> dict[str, Any] | None:
        name = params.get("name")
        entry = self._entry(server, name) if isinstance(name, str) else None
        schema = entry.get("inputSchema") if entry else None
        return schema if isinstance(schema, dict) else None

    def _kind(self, identity: Identity) -> int:
        number = self._kind_numbers.get((identity.server, identity.kind))
        if number is None:
            number = self._kind_numbers[identity.server, identity.kind] = len(self._kinds)
            changes = identity.is_call and first_known(*self._told(identity.server, identity.kind))
            self._kinds.append(
                _Kind(identity.server, identity.kind, identity.kind.partition(" ")[0], changes)
            )
        return number

    def _told(self, server: str, kind: str) -> tuple[bool | None, bool | None, bool | None]:
        """Return what policy, annotations and name say of whether a kind of call changes the world."""
        entry = self._entry(server, kind.partition(" ")[0]) or {}
        return self._policy.changes(server, kind), declared(entry.get("annotations")), suggested(kind)

    def _judge(self) -> None:
        """Find which kinds of call change the world."""
        columns = self._columns
        self._effects.reading |= {number for number, kind in enumerate(self._kinds) if not kind.changes}
        for part in sorted(self._parts, key=lambda part: part.group):
            calls = [row for row in range(part.start, part.end) if columns.flags[row] & _IS_CALL]
            self._effects.watch(
                part.group,
                [columns.kind[row] for row in calls],
                [columns.key[row] for row in calls],
                [columns.output[row] for row in calls],
                [bool(columns.flags[row] & _FAILED) for row in calls],
            )
        called = {kind for kind, flags in zip(columns.kind, columns.flags, strict=True) if flags & _IS_CALL}
        for number in sorted(called):
            kind = self._kinds[number]
            effect = self._effects.of(number)
            by_policy, by_server, by_name = self._told(kind.server, kind.name)
            if by_policy is not None:
                kind.changes, reason = by_policy, "policy"
            elif by_server is not None:
                kind.changes, reason = by_server, "annotation"
            else:
                kind.changes, reason = effect.verdict(by_name)
            self._connection.execute(
                "INSERT INTO effect VALUES (?, ?, ?, ?, ?, ?)",
                (kind.server, kind.name, kind.changes, reason, effect.changed, effect.unchanged),
            )

    def _place(self) -> None:
        """Say of each request where it stood."""
        columns = self._columns
        for column in (columns.world, columns.prefix, columns.related, columns.history):
            column.frombytes(bytes(8 * len(columns.exchange)))
        self._everywhere = self._named_everywhere()
        done = 0
        for _, session in groupby(self._parts, key=lambda part: part.conversation.session_id):
            parts, shared = list(session), Shared()
            self._progress("placing", done, len(self._parts))
            done += len(parts)
            worlds: list[tuple[int, World, frozenset[int]]] = []
            for part in parts:
                if part.mints:
                    self._bind(part)
                world = World(part.group, shared)
                everywhere = self._everywhere.get(part.conversation.server, frozenset())
                worlds += [(row, world, everywhere) for row in range(part.start, part.end)]
            if len(parts) > 1:
                worlds.sort(key=lambda item: columns.exchange[item[0]])
            for row, world, everywhere in worlds:
                self._place_one(row, world, everywhere)

    def _named_everywhere(self) -> dict[str, frozenset[int]]:
        """Return what nearly all calls to a server name."""
        columns, counts, calls = self._columns, Counter[tuple[str, int]](), Counter[str]()
        for part in self._parts:
            for row in range(part.start, part.end):
                if values := columns.values_of(row):
                    calls[part.conversation.server] += 1
                    counts.update((part.conversation.server, value) for value in values)
        named: dict[str, set[int]] = {}
        for (server, value), count in counts.items():
            if count >= EVERYWHERE * calls[server] and calls[server] >= MIN_COMPARISONS:
                named.setdefault(server, set()).add(value)
        return {server: frozenset(values) for server, values in named.items()}

    def _place_one(self, row: int, world: World, everywhere: frozenset[int]) -> None:
        columns = self._columns
        flags, key = columns.flags[row], columns.bound[row]
        if flags & _IS_CALL:
            values = [value for value in columns.values_of(row) if value not in everywhere]
            place = world.place(key, values)
            changes = self._kinds[columns.kind[row]].changes and not flags & _FAILED
            told = [value for value in columns.told.get(row, ()) if value not in everywhere]
            world.note(key, values, changes=changes, told=told if changes else ())
        else:
            place = world.place_of_other(key)
            world.note_other(key)
        columns.world[row], columns.prefix[row] = place.world, place.prefix
        columns.related[row], columns.history[row] = place.related, place.history

    def _bind(self, part: _Part) -> None:
        """Read a conversation again for ids it made up, now that it is known which calls change the world."""
        columns, lineage, row = self._columns, Lineage(), part.start
        minted: list[tuple[int, str, str, int]] = []
        for answered, identity, text, failed in self._requests(part.conversation):
            assert columns.exchange[row] == answered.exchange_id
            if identity.tool is not None:
                bound = lineage.bind(identity.tool, identity.arguments)
                if bound is not identity.arguments:
                    columns.bound[row] = call_key(identity.server, identity.tool, canonical_text(bound))
                if self._kinds[columns.kind[row]].changes and not failed:
                    new = lineage.mint(columns.bound[row], identity.tool, identity.arguments, text)
                    number = part.conversation.number
                    minted += [(number, ref, made, answered.exchange_id) for made, ref in new.items()]
                    told = lineage.bind_text(text, new)
                else:
                    told = lineage.bind_text(text)
                    lineage.hear(identity.arguments, text)
                if told is not text:
                    columns.output[row] = hash64(masked(told))
            row += 1
        self._minted += len(minted)
        self._connection.executemany(
            "INSERT INTO minted VALUES (?, ?, ?, ?)",
            minted,
        )

    def _write_calls(self) -> None:
        columns, size = self._columns, len(self._columns.exchange)
        self._progress("writing calls", 0, size)
        conversation, group = _integers(), _integers()
        for part in self._parts:
            conversation.extend([part.conversation.number] * (part.end - part.start))
            group.extend([part.group] * (part.end - part.start))
        # In the order of the table's key, so that its pages are written one after the other.
        twice = [row for row, bound in enumerate(columns.bound) if bound != columns.key[row]]
        keys = columns.key + array("q", (columns.bound[row] for row in twice))
        order = sorted(range(len(keys)), key=keys.__getitem__)

        def rows() -> Iterator[tuple[int, ...]]:
            for key, alike in groupby(order, key=keys.__getitem__):
                members = [place if place < size else twice[place - size] for place in alike]
                for row in members:
                    yield (
                        key,
                        columns.exchange[row],
                        conversation[row],
                        group[row],
                        columns.world[row],
                        columns.prefix[row],
                        columns.related[row],
                        columns.history[row],
                        columns.output[row],
                        columns.output[row],
                        len(members) > BUSY,
                        columns.tool[row],
                    )

        self._connection.executemany(f"INSERT INTO call VALUES ({', '.join('?' * 12)})", rows())
        for index in (*INDEXES, "CREATE INDEX call_by_tool ON call (tool)"):
            self._connection.execute(index)

    def _write_facts(self) -> None:
        """Find what may differ without mattering, tool by tool."""
        counts: dict[int, int] = {}
        for tool in self._columns.tool:
            counts[tool] = counts.get(tool, 0) + 1
        for done, (tool, (server, name)) in enumerate(self._tools.items()):
            self._progress("comparing arguments", done, len(self._tools))
            facts = Facts() if name.endswith("\0") else learn_facts(self._connection, self._store, tool)
            facts = _ruled(facts, self._policy, server, name)
            self._connection.execute(
                "INSERT INTO tool VALUES (?, ?, ?, ?, ?)",
                (tool, server, name, counts[tool], json.dumps(facts.as_json())),
            )
            if facts.volatile:
                self._write_loose(tool, facts)
            if facts.insensitive or facts.prose:
                calls = self._connection.execute(
                    "SELECT key, arguments FROM distinct_call WHERE tool = ?", (tool,)
                )
                self._connection.executemany(
                    "INSERT OR IGNORE INTO near VALUES (?, ?)",
                    [
                        (near_key(server, name, json.loads(text), facts), key)
                        for key, text in calls.fetchall()
                    ],
                )
        self._connection.execute("DROP INDEX call_by_tool")

    def _write_loose(self, tool: int, facts: Facts) -> None:
        """Hash a tool's outputs again without what is volatile in them."""
        rows = self._connection.execute("SELECT key, exchange FROM call WHERE tool = ?", (tool,)).fetchall()
        loose = []
        for key, exchange in rows:
            text = reply_text(self._store, exchange)
            if text is not None:
                loose.append((hash64(masked(without_volatile(text, facts.volatile))), key, exchange))
        self._connection.executemany("UPDATE call SET loose = ? WHERE key = ? AND exchange = ?", loose)

    def _write_vectors(self) -> None:
        if self._embedder is None:
            return
        for done, (tool, (_, name)) in enumerate(self._tools.items()):
            self._progress("embedding calls", done, len(self._tools))
            rows = self._connection.execute(
                "SELECT key, arguments FROM distinct_call WHERE tool = ?", (tool,)
            ).fetchall()
            if not name.endswith("\0"):
                matrix = self._embedder.embed([embedded_text(name, json.loads(text)) for _, text in rows])
                self._connection.execute(
                    "INSERT INTO vector VALUES (?, ?, ?)",
                    (tool, json.dumps([key for key, _ in rows]), matrix.tobytes()),
                )

    def _compare(self) -> None:
        """Answer recorded calls from the others, and learn how often that is right."""
        self._write_learned(calibrate([]), calibrate([]))
        self._connection.execute("COMMIT")
        learned = Learned(self._scratch)
        comparisons: tuple[list[Comparison], list[Comparison]] = ([], [])
        sizes = Counter((part.conversation.server, part.group) for part in self._parts)
        few_groups = len({part.group for part in self._parts}) < FOLDS
        calls = sum(1 for flags in self._columns.flags if flags & _IS_PLAIN)
        stride = max(1, calls // MOST_COMPARISONS)
        finder = _Finder(learned, self._embedder)
        for part in self._parts:
            self._progress("measuring trust", part.start, len(self._columns.exchange))
            own, group = part.conversation.number, part.group
            alike = sizes[part.conversation.server, group]
            for row, asked in self._asked(part):
                if row % stride:
                    continue
                right = self._columns.output[row]
                changes = self._kinds[self._columns.kind[row]].changes
                if alike > 1 and (found := finder.find(asked, _unlike(conversation=own))):
                    # A few groups are what there is to replay, and no sample of others: sessions are.
                    cluster = own if few_groups else group
                    comparisons[0].append(_comparison(asked, found, right, 1.0, changes, cluster))
                unknown = replace(asked, known=False)
                if found := finder.find(unknown, _unlike(group=group)):
                    comparisons[1].append(_comparison(asked, found, right, 1.0 / alike, changes, group))
        self._connection.execute("BEGIN")
        self._connection.execute("DELETE FROM learned")
        self._write_learned(*(calibrate([*found, *self._lesson_comparisons]) for found in comparisons))

    def _asked(self, part: _Part) -> Iterator[tuple[int, Asked]]:
        """Yield a conversation's plain calls, each with the row it stands in, as a rollout would ask them."""
        columns, prefixes = self._columns, [START]
        for row in range(part.start, part.end):
            if not columns.flags[row] & _IS_CALL:
                continue
            if columns.prefix[row] != prefixes[-1]:
                prefixes.append(columns.prefix[row])
            if columns.flags[row] & _IS_PLAIN:
                kind, key = self._kinds[columns.kind[row]], columns.key[row]
                place = Place(
                    part.group,
                    columns.world[row],
                    prefixes[-1],
                    tuple(prefixes[-2 : -2 - MOST_EARLIER : -1]),
                    columns.related[row],
                    columns.history[row],
                )
                bound = None if columns.bound[row] == key else columns.bound[row]
                yield (
                    row,
                    Asked(
                        kind.server,
                        "tools/call",
                        self._tools[columns.tool[row]][1],
                        kind.name,
                        {},
                        key,
                        bound,
                        place,
                        True,
                    ),
                )

    def _write_learned(self, known: Calibration, unknown: Calibration) -> None:
        columns = self._columns
        self._summary = {
            "sessions": len({part.conversation.session_id for part in self._parts}),
            "exchanges": len(columns.exchange),
            "calls": sum(1 for flags in columns.flags if flags & _IS_CALL),
            "distinct_tools": sum(1 for _, name in self._tools.values() if not name.endswith("\0")),
            "minted": self._minted,
        }
        self._connection.execute(
            "INSERT INTO learned VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                VERSION,
                *self._mark,
                json.dumps(self._policy.as_json()),
                self._embedder.name if self._embedder else None,
                json.dumps([calibration_json(known), calibration_json(unknown)]),
                json.dumps({server: lessons.to_json() for server, lessons in self._lessons.items()}),
                json.dumps({server: sorted(values) for server, values in self._everywhere.items()}),
                json.dumps(self._summary),
            ),
        )


class _Finder:
    """Finds what a rollout would be answered if part of the recording were not there."""

    def __init__(self, learned: Learned, embedder: Embedder | None) -> None:
        self._learned = learned
        self._exact, self._near, self._nearest = ExactTier(learned), NearTier(learned), NearestTier(learned)
        self._semantic = SemanticTier(learned, embedder) if embedder else None
        self._searched: Counter[tuple[bool, str, str | None]] = Counter()

    def find(self, asked: Asked, keep: Keep) -> Candidate | None:
        if found := self._exact.find(asked, keep):
            return found
        assert asked.tool is not None
        tool = tool_id(asked.server, asked.tool)
        facts = self._learned.facts(tool)
        searched = self._searched[asked.known, asked.server, asked.tool]
        if searched >= MOST_NEAREST and not (facts.insensitive or facts.prose):
            return None
        question = replace(asked, arguments=self._learned.recorded_arguments(tool, asked.key))
        if found := self._near.find(question, keep):
            return found
        if searched >= MOST_NEAREST:
            return None
        self._searched[asked.known, asked.server, asked.tool] += 1
        if self._semantic and (found := self._semantic.find(question, keep)):
            return found
        return self._nearest.find(question, keep)


def _unlike(*, conversation: int | None = None, group: int | None = None) -> Keep:
    """Leave out the recordings of one conversation, or of one group."""
    return lambda row: row.conversation != conversation and row.group != group


def _comparison(
    asked: Asked, found: Candidate, right: int, weight: float, changes: bool, cluster: int
) -> Comparison:
    return Comparison(
        asked.server,
        asked.kind,
        cells_of(found),
        found.output == right,
        weight,
        cluster,
        stands_alone(found, changes=changes),
    )


def _ruled(facts: Facts, policy: Policy, server: str, tool: str) -> Facts:
    """Return what was learned of a tool with what the user says over it."""
    ruled, sensitive = (policy.names(server, tool, what) for what in ("insensitive", "sensitive"))
    return Facts(
        insensitive={
            name: None if name in ruled else facts.insensitive[name]
            for name in sorted({*facts.insensitive, *ruled} - sensitive)
        },
        prose=tuple(sorted(set(facts.prose) - sensitive)),
        volatile=tuple(sorted({*facts.volatile, *policy.names(server, tool, "volatile")})),
    )


def _policy_of(path: Path) -> Policy:
    """Return the policy that was learned with last, by whatever version; none where nothing was."""
    if not path.is_file():
        return Policy()
    connection = open_beside(path, read_only=True)
    try:
        tables = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'learned'").fetchall()
        rows = connection.execute("SELECT policy FROM learned").fetchall() if tables else []
        return Policy.from_json(json.loads(rows[0][0])) if rows else Policy()
    finally:
        connection.close()


def _publish(scratch: Path, target: Path) -> None:
    """Put the tables of one file into another, in one transaction, and leave that one's journal as it is."""
    connection = open_beside(target)
    try:
        connection.execute("ATTACH ? AS new", (str(scratch),))
        with transaction(connection, target):
            create_journal(connection)
            for table in TABLES:
                connection.execute(f"DROP TABLE IF EXISTS main.{table}")
            create_tables(connection)
            for table in TABLES:
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")
            for index in INDEXES:
                connection.execute(index)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _silent(what: str, done: int, of: int) -> None:
    """Tell nobody of progress."""
