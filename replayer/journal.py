"""What replaying leaves behind: misses, counted, and simulated answers, apart from everything recorded."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recorder.database import Connection, Database, open_beside, transaction
from recorder.errors import RecordingError
from recorder.exchange import Json, Record
from replayer.simulated import Simulated

TABLES = (
    """CREATE TABLE IF NOT EXISTS miss (      -- one request that was missed, in one state
        server TEXT NOT NULL,
        method TEXT NOT NULL,
        key INTEGER NOT NULL,
        group_id TEXT,                     -- as the rollout gave it
        state INTEGER NOT NULL,            -- prefix of world-changing calls before it
        name TEXT,                         -- the tool, where it was a tool call
        params TEXT NOT NULL,              -- JSON, secrets replaced
        before TEXT NOT NULL,              -- JSON: the world-changing calls before it, each [tool, arguments]
        nearest TEXT NOT NULL,             -- JSON: the nearest recorded requests, and where they differ
        times INTEGER NOT NULL,
        first_at REAL NOT NULL,            -- Unix seconds
        last_at REAL NOT NULL
    )""",
    "CREATE UNIQUE INDEX IF NOT EXISTS miss_once ON miss (server, key, state, coalesce(group_id, ''))",
    """CREATE TABLE IF NOT EXISTS simulated ( -- an answer that a model made up; never a recorded one
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        server TEXT NOT NULL,
        name TEXT NOT NULL,
        arguments TEXT NOT NULL,           -- JSON
        is_error INTEGER NOT NULL,
        output TEXT NOT NULL,
        model TEXT NOT NULL,
        input_tokens INTEGER,
        output_tokens INTEGER,
        cost_usd REAL
    )""",
)

MOST_BEFORE = 200
"""World-changing calls that a journalled miss names; a longer history cannot be asked again from it."""

logger = logging.getLogger(__name__)


class MissedRequest(Record):
    """A request that a recording had no answer to."""

    server: str
    method: str
    name: str | None
    params: dict[str, Json]
    group: str | None
    before: list[tuple[str, dict[str, Json]]] | None
    """The world-changing calls that came before; `None` if there were too many."""
    nearest: list[dict[str, Json]]
    times: int
    first_at: float
    last_at: float


def create_journal(connection: Connection) -> None:
    for statement in TABLES:
        connection.execute(statement)


class Journal:
    """Written by any number of processes and threads. What it cannot write it reports once; replay goes on.

    Args:
        path: The file beside the recording; made where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, self._connect)
        self._failed = False

    def miss(
        self,
        *,
        server: str,
        method: str,
        key: int,
        name: str | None,
        params: Mapping[str, Any],
        group: str | None,
        state: int,
        before: Sequence[tuple[str, Mapping[str, Any]]],
        nearest: Sequence[Mapping[str, Any]],
    ) -> None:
        """Count a miss; the same request in the same state is one row."""
        now = time.time()
        earlier = list(before) if len(before) <= MOST_BEFORE else None
        self._write(
            "INSERT INTO miss VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT DO UPDATE SET"
            " times = times + 1, last_at = excluded.last_at",
            (
                server,
                method,
                key,
                group,
                state,
                name,
                json.dumps(params),
                json.dumps(earlier),
                json.dumps(list(nearest)),
                now,
                now,
            ),
        )

    def simulated(self, server: str, name: str, arguments: Mapping[str, Any], answer: Simulated) -> None:
        """Keep an answer that a model made up."""
        self._write(
            "INSERT INTO simulated (at, server, name, arguments, is_error, output, model, input_tokens,"
            " output_tokens, cost_usd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                time.time(),
                server,
                name,
                json.dumps(arguments),
                answer.is_error,
                answer.text,
                answer.model,
                answer.input_tokens,
                answer.output_tokens,
                answer.cost_usd,
            ),
        )

    def misses(self) -> list[MissedRequest]:
        """Return what was missed, most often asked first."""
        rows = self._database.rows(
            "SELECT server, method, group_id, name, params, before, nearest, times, first_at, last_at"
            " FROM miss ORDER BY times DESC, last_at DESC"
        )
        return [
            MissedRequest(
                server=server,
                method=method,
                name=name,
                params=json.loads(params),
                group=group,
                before=json.loads(before),
                nearest=json.loads(nearest),
                times=times,
                first_at=first_at,
                last_at=last_at,
            )
            for server, method, group, name, params, before, nearest, times, first_at, last_at in rows
        ]

    def forget(self, missed: MissedRequest) -> None:
        """Take a miss out, in whatever state: it was asked again and is recorded now."""
        self._write(
            "DELETE FROM miss"
            " WHERE server = ? AND method = ? AND params = ? AND group_id IS ? AND before = ?",
            (
                missed.server,
                missed.method,
                json.dumps(missed.params),
                missed.group,
                json.dumps(missed.before),
            ),
        )

    def _write(self, statement: str, values: Sequence[Any]) -> None:
        try:
            connection = self._database.connection()
            with transaction(connection, self.path):
                connection.execute(statement, values)
        except RecordingError as error:
            if not self._failed:
                self._failed = True
                logger.warning("misses are not journalled: %s", error)

    def _connect(self) -> Connection:
        connection = open_beside(self.path)
        with transaction(connection, self.path):
            create_journal(connection)
        return connection
