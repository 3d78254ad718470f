"""What a campaign keeps in the recording besides its calls: its settings, which walks ended, and
completions."""

from __future__ import annotations

import json
import secrets as random_names
import sqlite3
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from recorder.canonical import readable_json
from recorder.errors import RecordingError
from recorder.explore.claude import Turn
from recorder.redact import Redactor
from recorder.schema import begin, connect_for_writing


class FinishedWalk(NamedTuple):
    number: int
    run: str
    """`run_id` of its sessions."""
    plan: dict[str, Any]
    ending: str


class CampaignLog:
    """Writes and reads one campaign; safe to use from many threads.

    Args:
        secrets: Values that must not be written; those of all servers.

    Raises:
        RecordingError: the recording cannot be written.
    """

    def __init__(self, path: Path, secrets: Collection[str]) -> None:
        self.path = path
        self._connection = connect_for_writing(path)
        self._lock = threading.Lock()
        (key,) = self._connection.execute("SELECT redaction_key FROM recording").fetchone()
        self.redactor = Redactor(key, secrets)
        self.id = ""

    def close(self) -> None:
        self._connection.close()

    def start(self, settings: dict[str, Any]) -> None:
        """Begin a new campaign."""
        self.id = f"explore-{random_names.token_hex(4)}"
        text = self.redactor.redact(readable_json(settings))
        self._write("INSERT INTO campaign VALUES (?, ?, ?, NULL, NULL)", self.id, time.time(), text)

    def resume(self, settings: dict[str, Any]) -> bool:
        """Take up the last campaign with these settings; return whether there is one."""
        text = self.redactor.redact(readable_json(settings))
        row = self._connection.execute(
            "SELECT id FROM campaign WHERE settings = ? ORDER BY started_at DESC LIMIT 1", (text,)
        ).fetchone()
        if row is None:
            return False
        (self.id,) = row
        self._write("UPDATE campaign SET ended_at = NULL, ending = NULL WHERE id = ?", self.id)
        return True

    def last_settings(self) -> dict[str, Any] | None:
        """Return the settings of the last campaign, whichever they are."""
        row = self._connection.execute(
            "SELECT settings FROM campaign ORDER BY started_at DESC LIMIT 1"
        ).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def finished(self) -> list[FinishedWalk]:
        """Return the walks that ended, by number."""
        rows = self._connection.execute(
            "SELECT number, run_id, plan, ending FROM walk WHERE campaign = ? ORDER BY number", (self.id,)
        )
        return [FinishedWalk(number, run, json.loads(plan), ending) for number, run, plan, ending in rows]

    def attempts(self, number: int) -> int:
        """Return how often a walk was begun, by the sessions that were recorded."""
        (count,) = self._connection.execute(
            "SELECT count(DISTINCT run_id) FROM session WHERE run_id GLOB ?", (f"{self.id}/{number}.*",)
        ).fetchone()
        return int(count)

    def calls_in_vain(self) -> dict[str, int]:
        """Return how many tool calls each server got in walks that were begun and did not end, answered or
        not."""
        rows = self._connection.execute(
            "SELECT server.name, count(*) FROM session JOIN server ON server.session_id = session.id"
            " JOIN frame ON frame.server_id = server.id"
            " WHERE run_id GLOB ? AND frame.kind = 'request' AND frame.method = 'tools/call'"
            " AND frame.direction = 'to_server'"
            " AND run_id NOT IN (SELECT run_id FROM walk WHERE campaign = ?) GROUP BY server.name",
            (f"{self.id}/*", self.id),
        ).fetchall()
        return dict(rows)

    def finish(self, walk: FinishedWalk) -> None:
        plan = self.redactor.redact(readable_json(walk.plan))
        self._write(
            "INSERT INTO walk VALUES (?, ?, ?, ?, ?, ?)",
            self.id, walk.number, walk.run, plan, time.time(), walk.ending,
        )  # fmt: skip

    def keep(self, run: str, turn: Turn) -> None:
        """Keep a prompt and its completion, secrets replaced."""
        request, response = (self.redactor.redact(readable_json(v)) for v in (turn.request, turn.response))
        self._write(
            "INSERT INTO completion VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.id, run, time.time(), turn.model, request, response, turn.input_tokens,
            turn.cache_read_tokens, turn.cache_write_tokens, turn.output_tokens, turn.cost_usd,
        )  # fmt: skip

    def spent_usd(self) -> float:
        (spent,) = self._connection.execute(
            "SELECT coalesce(sum(cost_usd), 0) FROM completion WHERE campaign = ?", (self.id,)
        ).fetchone()
        return float(spent)

    def end(self, ending: str) -> None:
        self._write("UPDATE campaign SET ended_at = ?, ending = ? WHERE id = ?", time.time(), ending, self.id)

    def _write(self, statement: str, *values: object) -> None:
        with self._lock:
            try:
                begin(self._connection)
                self._connection.execute(statement, values)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise RecordingError(f"cannot write to {self.path}: {error}") from error
