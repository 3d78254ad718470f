"""What was learned from a recording, in a file beside it: tables, and how they are read.

`F.replay.db` stands beside the recording `F`, which is only ever read. It holds what `learn` found (calls by
key with where they stood, which calls change the world, what may differ, trust) and what replaying leaves
behind (`journal`: misses, simulated answers).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recorder.database import Connection, Database, open_beside
from recorder.errors import FireflyError
from recorder.store import Store
from recorder.verbs import declared, suggested
from replayer.evidence import Row
from replayer.keys import hash64
from replayer.lessons import ErrorLessons
from replayer.policy import Policy
from replayer.state import Place
from replayer.trust import Calibration, Rates

VERSION = 11
"""Of the tables and of everything that goes into a key; another one is learned anew."""

TABLES = {
    "learned": """(
        version INTEGER NOT NULL,
        recording TEXT NOT NULL,           -- which recording, by content of its first row
        frames INTEGER NOT NULL,           -- its last frame: more have come if the recording's is another
        policy TEXT NOT NULL,              -- JSON, as given
        embedder TEXT,                     -- the model behind `vector`
        calibration TEXT NOT NULL,         -- JSON: for a known and an unknown group
        lessons TEXT NOT NULL,             -- JSON: errors for arguments that violate a schema
        everywhere TEXT NOT NULL,          -- JSON: by server, what nearly all calls name
        summary TEXT NOT NULL              -- JSON: counts and times, for people
    )""",
    "conversation": """(                   -- one session with one server
        number INTEGER PRIMARY KEY,        -- the server's row in the recording
        session TEXT NOT NULL,
        group_number INTEGER NOT NULL
    )""",
    "tool": """(
        id INTEGER PRIMARY KEY,            -- `tool_id`
        server TEXT NOT NULL,
        name TEXT NOT NULL,
        calls INTEGER NOT NULL,
        facts TEXT NOT NULL                -- JSON: `Facts`
    )""",
    "effect": """(
        server TEXT NOT NULL,
        kind TEXT NOT NULL,
        changes INTEGER NOT NULL,
        reason TEXT NOT NULL,
        changed REAL NOT NULL,
        unchanged REAL NOT NULL,
        PRIMARY KEY (server, kind)
    ) WITHOUT ROWID""",
    "call": """(                           -- every answered request; the names are those of `evidence.Row`.
                                           -- One that names minted ids stands twice, as it was and under the
                                           -- key with what stands for them
        key INTEGER NOT NULL,
        exchange INTEGER NOT NULL,
        conversation INTEGER NOT NULL,
        group_number INTEGER NOT NULL,
        world INTEGER NOT NULL,
        prefix INTEGER NOT NULL,
        related INTEGER NOT NULL,
        history INTEGER NOT NULL,
        output INTEGER NOT NULL,
        loose INTEGER NOT NULL,
        busy INTEGER NOT NULL,             -- whether the key has more than BUSY rows
        tool INTEGER NOT NULL,
        PRIMARY KEY (key, exchange)
    ) WITHOUT ROWID""",
    "distinct_call": """(                  -- each distinct request once, by its earliest exchange
        tool INTEGER NOT NULL,
        key INTEGER NOT NULL,
        exchange INTEGER NOT NULL,
        arguments TEXT NOT NULL,           -- canonical
        PRIMARY KEY (tool, key)
    ) WITHOUT ROWID""",
    "near": """(                           -- keys of calls that differ only where their tool does not care
        near INTEGER NOT NULL,
        key INTEGER NOT NULL,
        PRIMARY KEY (near, key)
    ) WITHOUT ROWID""",
    "minted": """(
        conversation INTEGER NOT NULL,
        ref TEXT NOT NULL,
        id TEXT NOT NULL,
        exchange INTEGER NOT NULL,         -- whose answer brought it
        PRIMARY KEY (conversation, ref)
    ) WITHOUT ROWID""",
    "vector": """(
        tool INTEGER PRIMARY KEY,
        keys TEXT NOT NULL,                -- JSON list of the calls' keys, one for each row of the matrix
        matrix BLOB NOT NULL               -- (N, D) float32, unit rows
    )""",
}

INDEXES = (
    *(
        f"CREATE INDEX busy_by_{column} ON call (key, {column}, group_number) WHERE busy"
        for column in ("world", "history", "prefix", "related")
    ),
    "CREATE INDEX busy_by_group ON call (key, group_number) WHERE busy",
    "CREATE INDEX conversation_by_group ON conversation (group_number)",
)

BUSY = 32
"""Rows of one key that are weighed at once; of a busier key, as many of each kind as stand near the call."""

Keep = Callable[[Row], bool]
"""Which recorded answers may be used; a measurement leaves some out."""

ROW = "exchange, conversation, group_number, world, prefix, related, history, output, loose"


class NotLearned(FireflyError):
    """There is nothing learned beside a recording, or what there is belongs to an earlier state of it."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was learned of one tool."""

    insensitive: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """Arguments that may differ, and among which values (canonical text); `None`: among all."""
    prose: tuple[str, ...] = ()
    """Arguments whose spelling may differ: case, white space and closing punctuation."""
    volatile: tuple[str, ...] = ()
    """Places in the output that change from one moment to the next: pointers, with `*` for list positions."""

    def as_json(self) -> dict[str, Any]:
        return {
            "insensitive": {
                name: None if values is None else sorted(values) for name, values in self.insensitive.items()
            },
            "prose": list(self.prose),
            "volatile": list(self.volatile),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Facts:
        insensitive = {
            name: None if values is None else frozenset(values)
            for name, values in value["insensitive"].items()
        }
        return Facts(insensitive, tuple(value["prose"]), tuple(value["volatile"]))


def tool_id(server: str, name: str) -> int:
    return hash64(f"{server}\0{name}")


def learned_path(recording: Path) -> Path:
    """Return where what is learned from a recording lies."""
    return recording.with_name(recording.name + ".replay.db")


def recording_mark(store: Store) -> tuple[str, int]:
    """Return what tells a recording from every other, and how far it has come."""
    return store.identity(), store.last_frame()


class Learned:
    """Reads what was learned; safe from many threads and after a fork.

    Opening reads a few rows: what belongs to a tool is read when it is first asked for.

    Raises:
        NotLearned: nothing is, or by another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise NotLearned(f"nothing is learned at {path}: run firefly-proxy learn")
        self._database = Database(path, lambda: open_beside(path, read_only=True))
        tables = self._database.all("SELECT name FROM sqlite_master WHERE name = 'learned'")
        rows = self._database.all("SELECT * FROM learned") if tables else []
        if not rows or rows[0][0] != VERSION:
            raise NotLearned(f"{path} holds nothing learned by this version: run firefly-proxy learn")
        _, self.recording, self.frames, policy, self.embedder, *texts = rows[0]
        calibration, lessons, everywhere, summary = texts
        self.policy = Policy.from_json(json.loads(policy))
        self.summary: dict[str, Any] = json.loads(summary)
        self.lessons = {server: ErrorLessons.from_json(item) for server, item in json.loads(lessons).items()}
        """By server."""
        self.everywhere = {server: frozenset(values) for server, values in json.loads(everywhere).items()}
        self.known_group, self.unknown_group = (_calibration(item) for item in json.loads(calibration))
        self._facts: dict[int, Facts] = {}
        self._effects: dict[tuple[str, str], bool] = {}

    def is_current(self, store: Store) -> bool:
        """Whether the recording is still as it was when this was learned."""
        return (self.recording, self.frames) == recording_mark(store)

    def has_group(self, group: int) -> bool:
        return bool(self._database.all("SELECT 1 FROM conversation WHERE group_number = ? LIMIT 1", (group,)))

    def groups(self) -> list[int]:
        return [
            row[0] for row in self._database.rows("SELECT DISTINCT group_number FROM conversation LIMIT 2")
        ]

    def session_of(self, conversation: int) -> str:
        rows = self._database.all("SELECT session FROM conversation WHERE number = ?", (conversation,))
        return str(rows[0][0])

    def conversations_of(self, session: str) -> frozenset[int]:
        return frozenset(
            row[0]
            for row in self._database.rows("SELECT number FROM conversation WHERE session = ?", (session,))
        )

    def facts(self, tool: int) -> Facts:
        """Return what was learned of a tool; nothing is, of one that was never called."""
        facts = self._facts.get(tool)
        if facts is None:
            rows = self._database.all("SELECT facts FROM tool WHERE id = ?", (tool,))
            facts = self._facts[tool] = Facts.from_json(json.loads(rows[0][0])) if rows else Facts()
        return facts

    def changes(self, server: str, kind: str, annotations: object = None) -> bool:
        """Return whether calls of this kind change the world; one never recorded is judged by its name."""
        known = self._effects.get((server, kind))
        if known is None:
            rows = self._database.all(
                "SELECT changes FROM effect WHERE server = ? AND kind = ?", (server, kind)
            )
            if rows:
                known = bool(rows[0][0])
            else:
                known = first_known(self.policy.changes(server, kind), declared(annotations), suggested(kind))
            self._effects[server, kind] = known
        return known

    def rows(self, key: int, place: Place, *, known: bool, keep: Keep | None = None) -> list[Row]:
        """Return the recorded answers to a call: all, or of a busy one the earliest and the nearest.

        Args:
            known: Whether the call's group is recorded, so that its own recordings stand nearest.
            keep: Which of them may be used.
        """
        few = self._kept(f"SELECT {ROW} FROM call WHERE key = ? LIMIT {BUSY + 1}", (key,), None)
        if len(few) > BUSY:
            return list(dict.fromkeys([*self._nearest_rows(key, place, known, keep), *_those(few, keep)]))
        return _those(few, keep)

    def _nearest_rows(self, key: int, place: Place, known: bool, keep: Keep | None) -> list[Row]:
        """Return the recordings of a busy call that stand nearest, by the first way to that has any."""
        ways: list[list[tuple[str, tuple[int, ...]]]] = [
            [("world", (place.world,)), ("history", (place.history,))],
            [("prefix", (place.prefix,))],
            [("related", (place.related,))],
        ]
        if known:
            own = " AND group_number = ?"
            for columns in [*ways, [("prefix", place.earlier)]]:
                if found := self._busy(key, columns, keep, own, (place.group,)):
                    return found
            statement = _busy_statement("group", f"key = ?{own}")
            own_rows = self._kept(statement, (key, place.group), keep)
        else:
            own_rows = []
        for columns in ways:
            if found := self._busy(key, columns, keep):
                return [*found, *own_rows]
        return own_rows

    def _busy(
        self,
        key: int,
        columns: Iterable[tuple[str, Iterable[int]]],
        keep: Keep | None,
        also: str = "",
        values: tuple[int, ...] = (),
    ) -> list[Row]:
        return [
            row
            for column, wanted in columns
            for value in wanted
            for row in self._kept(
                _busy_statement(column, f"key = ? AND {column} = ?{also}"),
                (key, value, *values),
                keep,
            )
        ]

    def _kept(self, statement: str, values: tuple[int, ...], keep: Keep | None) -> list[Row]:
        rows = list(map(Row._make, self._database.all(statement, values)))
        return rows if keep is None else _those(rows, keep)

    def has_call(self, key: int) -> bool:
        return bool(self._database.all("SELECT 1 FROM call WHERE key = ? LIMIT 1", (key,)))

    def near_keys(self, near: int) -> list[int]:
        return [
            row[0] for row in self._database.all(f"SELECT key FROM near WHERE near = ? LIMIT {BUSY}", (near,))
        ]

    def minted(self, conversation: int) -> list[tuple[str, str, int]]:
        """Return what stands for each id made up in a conversation, the id, and whose answer brought it."""
        return self._database.all(
            "SELECT ref, id, exchange FROM minted WHERE conversation = ?", (conversation,)
        )

    def distinct_calls(self, tool: int, limit: int) -> list[tuple[int, int, str]]:
        """Return exchange, key and canonical arguments of a tool's distinct calls, in no telling order."""
        return [
            tuple(row)
            for row in self._database.all(
                "SELECT exchange, key, arguments FROM distinct_call WHERE tool = ? LIMIT ?", (tool, limit)
            )
        ]

    def recorded_arguments(self, tool: int, key: int) -> dict[str, Any]:
        """Return the canonical arguments of a recorded call."""
        rows = self._database.all(
            "SELECT arguments FROM distinct_call WHERE tool = ? AND key = ?", (tool, key)
        )
        return dict(json.loads(rows[0][0]))

    def vectors(self, tool: int) -> tuple[list[int], bytes] | None:
        """Return the keys of a tool's distinct calls, and their embeddings: (N, D) float32."""
        rows = self._database.all("SELECT keys, matrix FROM vector WHERE tool = ?", (tool,))
        return (json.loads(rows[0][0]), rows[0][1]) if rows else None

    def tools(self) -> list[tuple[str, str, int, Facts]]:
        """Return server, name, recorded calls and facts of every tool."""
        rows = self._database.rows("SELECT server, name, calls, facts FROM tool ORDER BY server, name")
        return [
            (server, name, calls, Facts.from_json(json.loads(facts))) for server, name, calls, facts in rows
        ]

    def effects(self) -> list[tuple[str, str, bool, str, float, float]]:
        """Return server, kind, whether it changes the world, why, and the evidence either way."""
        return [
            (server, kind, bool(changes), reason, changed, unchanged)
            for server, kind, changes, reason, changed, unchanged in self._database.rows(
                "SELECT * FROM effect"
            )
        ]


def _busy_statement(index: str, where: str) -> str:
    """Return a look among the recordings of a busy call.

    It names its index: SQLite takes a key to have few rows, and would read all those of a busy one.
    """
    return f"SELECT {ROW} FROM call INDEXED BY busy_by_{index} WHERE busy AND {where} LIMIT {BUSY}"


def _those(rows: list[Row], keep: Keep | None) -> list[Row]:
    return rows if keep is None else [row for row in rows if keep(row)]


def first_known(*verdicts: bool | None) -> bool:
    """Return the first verdict there is; a call that nothing is known of is taken to change the world."""
    return next((verdict for verdict in verdicts if verdict is not None), True)


def create_tables(connection: Connection, schema: str = "main") -> None:
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {schema}.{name} {columns}")


def calibration_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "compared": calibration.compared,
        "threshold": calibration.threshold,
        "rates": [[*at, *count] for at, count in calibration.rates.kinds.items()],
    }


def _calibration(value: Mapping[str, Any]) -> Calibration:
    rates = {(server, kind, tuple(cell)): (right, all_) for server, kind, cell, right, all_ in value["rates"]}
    return Calibration(Rates(rates), value["compared"], value["threshold"])
