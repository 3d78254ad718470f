"""The read side of a recording."""

from __future__ import annotations

import heapq
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.errors import RecordingError
from recorder.exchange import Exchange, NoReply, OtherResult, RpcError, ToolRef, ToolResult
from recorder.frame import as_object
from recorder.liveness import is_alive
from recorder.redact import KnownSecret, Redactor
from recorder.schema import connect_for_reading
from recorder.session import Server, Session, Status
from recorder.tool import ToolSpec

_EXCHANGES = """
    SELECT exchange.id, server.session_id, server.name AS server, exchange.direction, exchange.method,
           exchange.outcome, request.at AS started_at, exchange.duration_s,
           request.text AS request, reply.text AS reply
    FROM exchange
    JOIN server ON server.id = exchange.server_id
    JOIN frame AS request ON request.id = exchange.id
    LEFT JOIN frame AS reply ON reply.id = exchange.reply
"""

_OPEN_REQUESTS = """
    SELECT frame.id, server.session_id, server.name AS server, frame.direction, frame.method,
           'interrupted' AS outcome, frame.at AS started_at, NULL AS duration_s,
           frame.text AS request, NULL AS reply
    FROM frame
    CROSS JOIN server ON server.id = frame.server_id  -- CROSS: read the frames once, in this order
    CROSS JOIN session ON session.id = server.session_id AND session.ended_at IS NULL
    WHERE frame.kind = 'request'
      AND NOT EXISTS (SELECT 1 FROM exchange WHERE exchange.server_id = server.id AND exchange.id = frame.id)
    ORDER BY frame.id
"""

_EXCHANGE_COUNTS = """
    SELECT server.session_id, count(*) FROM exchange JOIN server ON server.id = exchange.server_id
    GROUP BY server.session_id
"""

_ANSWERED_REQUESTS = """
    SELECT exchange.id, server.session_id, request.text AS request, answer.text AS asks_input
    FROM exchange
    JOIN server ON server.id = exchange.server_id
    JOIN frame AS request ON request.id = exchange.id
    LEFT JOIN frame AS answer ON exchange.outcome = 'input_required' AND answer.id = exchange.reply
    WHERE exchange.direction = 'to_server' AND exchange.reply IS NOT NULL
      AND exchange.server_id IN (SELECT value FROM json_each(?))
    ORDER BY exchange.server_id, exchange.id
"""


@dataclass(frozen=True, slots=True)
class AnsweredRequest:
    """What an index needs of an exchange: the request, and the reply only where it asks for more input."""

    exchange_id: int
    session_id: str
    request: dict[str, Any]
    asks_input: dict[str, Any] | None


class Store:
    """Reads one recording; safe from many threads and after a fork, each with a connection of its own.

    Raises:
        RecordingError: the file is missing, is no recording, or is newer than this version reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._connection()

    def sessions(self) -> list[Session]:
        """Return all sessions, earliest first."""
        servers: dict[str, list[Server]] = {}
        for row in self._rows("SELECT * FROM server ORDER BY id"):
            servers.setdefault(row["session_id"], []).append(_server(row))
        counts = Counter(dict(map(tuple, self._rows(_EXCHANGE_COUNTS))))
        counts.update({session_id: len(rows) for session_id, rows in self._open_requests().items()})
        return [
            Session(
                id=row["id"],
                group=row["group_id"],
                run=row["run_id"],
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                ending=row["ending"],
                status=_status(row),
                client=_json(row["client"]),
                client_capabilities=_json(row["client_capabilities"]),
                era=row["era"],
                protocol_version=row["protocol_version"],
                servers=servers.get(row["id"], []),
                exchanges=counts[row["id"]],
            )
            for row in self._rows("SELECT * FROM session ORDER BY started_at, rowid")
        ]

    def tools(self, server: str | None = None) -> list[ToolSpec]:
        """Return each version of each tool that was listed, by server and in order of first listing."""
        rows = self._rows(
            "SELECT * FROM listing WHERE kind = 'tool' AND json_type(entry) = 'object'"
            " AND server = coalesce(?, server) ORDER BY server, id",
            (server,),
        )
        return [
            ToolSpec(
                server=row["server"], name=row["name"], version=row["hash"], entry=json.loads(row["entry"])
            )
            for row in rows
        ]

    def exchange(self, exchange_id: int) -> Exchange:
        """Return one exchange.

        Raises:
            RecordingError: there is none of that id.
        """
        where = "exchange.id = ? AND exchange.server_id = (SELECT server_id FROM frame WHERE id = ?)"
        for row in self._rows(f"{_EXCHANGES} WHERE {where}", (exchange_id, exchange_id)):
            return _exchange(row)
        raise RecordingError(f"{self.path} has no exchange {exchange_id}")

    def exchanges(self, *, session_id: str | None = None, method: str | None = None) -> Iterator[Exchange]:
        """Yield exchanges of both directions in the order the requests arrived, session by session.

        Requests that are still open, or whose recorder was killed, are among them.
        """
        open_requests = self._open_requests()
        for (session,) in self._rows("SELECT id FROM session ORDER BY started_at, rowid"):
            if session_id in (None, session):
                closed = self._rows(
                    f"{_EXCHANGES} WHERE server.session_id = ? ORDER BY exchange.id", (session,)
                )
                for row in heapq.merge(closed, open_requests.get(session, []), key=lambda row: row["id"]):
                    if method in (None, row["method"]):
                        yield _exchange(row)

    def call_counts(self, session_id: str | None = None) -> Counter[ToolRef]:
        """Return how often each tool was called and an outcome is known."""
        rows = self._rows(
            "SELECT server.name, exchange.name, count(*) FROM exchange JOIN server ON server.id = server_id"
            " WHERE method = 'tools/call' AND direction = 'to_server' AND exchange.name IS NOT NULL"
            " AND session_id = coalesce(?, session_id) GROUP BY 1, 2",
            (session_id,),
        )
        return Counter({ToolRef(server, tool): count for server, tool, count in rows})

    def request_params(self, exchange_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Return the params of these requests, in the same order; much cheaper than the exchanges."""
        rows = self._rows(
            "SELECT frame.text FROM json_each(?) AS wanted JOIN frame ON frame.id = wanted.value"
            " ORDER BY wanted.key",
            (json.dumps(list(exchange_ids)),),
        )
        return [dict(as_object(json.loads(text).get("params"))) for (text,) in rows]

    def answering_servers(self) -> set[int]:
        """Return the ids of the servers that answered anything; one that never started did not."""
        return {
            row[0] for row in self._rows("SELECT DISTINCT server_id FROM exchange WHERE reply IS NOT NULL")
        }

    def answered_requests(self, server_ids: Sequence[int]) -> Iterator[AnsweredRequest]:
        """Yield the client's answered requests to these servers, one by one, as they arrived."""
        rows = self._rows(_ANSWERED_REQUESTS, (json.dumps(list(server_ids)),))
        for exchange_id, session_id, request_text, reply_text in rows:
            asks_input = json.loads(reply_text)["result"] if reply_text else None
            yield AnsweredRequest(exchange_id, session_id, json.loads(request_text), asks_input)

    def progress(self, exchange: Exchange) -> list[dict[str, Any]]:
        """Return the params of each progress notification about an exchange, in order."""
        meta = exchange.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if token is None:
            return []
        rows = self._rows(
            "SELECT note.text FROM exchange JOIN frame AS note"
            " ON note.id > exchange.id AND note.id < exchange.reply AND note.server_id = exchange.server_id"
            " WHERE exchange.id = ? AND exchange.server_id = (SELECT server_id FROM frame WHERE id = ?)"
            " AND note.method = 'notifications/progress' AND note.direction = 'to_client' ORDER BY note.id",
            (exchange.id, exchange.id),
        )
        notes = [dict(as_object(json.loads(text).get("params"))) for (text,) in rows]
        return [note for note in notes if json.dumps(note.get("progressToken")) == json.dumps(token)]

    def redactor(self) -> Redactor:
        """Return what turns the shapes of tokens into the placeholders of this recording."""
        return Redactor(next(self._rows("SELECT redaction_key FROM recording"))[0])

    def known_secrets(self) -> list[KnownSecret]:
        return [KnownSecret(*row) for row in self._rows("SELECT digest, length, placeholder FROM secret")]

    def _open_requests(self) -> dict[str, list[sqlite3.Row]]:
        """Return the requests without an outcome, by session; only sessions that nobody ended have any."""
        found: dict[str, list[sqlite3.Row]] = {}
        if any(self._rows("SELECT 1 FROM session WHERE ended_at IS NULL LIMIT 1")):
            for row in self._rows(_OPEN_REQUESTS):
                found.setdefault(row["session_id"], []).append(row)
        return found

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[sqlite3.Row]:
        try:
            yield from self._connection().execute(statement, values)
        except sqlite3.Error as error:
            raise RecordingError(f"cannot read {self.path}: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        held: tuple[int, sqlite3.Connection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            # SQLite connections must not cross a fork.
            connection = connect_for_reading(self.path)
            connection.row_factory = sqlite3.Row
            held = self._local.held = (os.getpid(), connection)
        return held[1]


def _status(row: sqlite3.Row) -> Status:
    if row["ended_at"] is not None:
        return "complete"
    return "running" if is_alive(row["process"]) else "interrupted"


def _server(row: sqlite3.Row) -> Server:
    return Server(
        id=row["id"],
        session_id=row["session_id"],
        name=row["name"],
        config=_json(row["config"]),
        info=_json(row["info"]),
        capabilities=_json(row["capabilities"]),
        instructions=row["instructions"],
        era=row["era"],
        protocol_version=row["protocol_version"],
        ending=row["ending"],
    )


def _exchange(row: sqlite3.Row) -> Exchange:
    params = json.loads(row["request"]).get("params")
    return Exchange(
        id=row["id"],
        session_id=row["session_id"],
        server=row["server"],
        direction=row["direction"],
        method=row["method"],
        params=params if isinstance(params, dict) else {},
        outcome=_outcome(row),
        started_at=row["started_at"],
        duration_s=row["duration_s"],
    )


def _outcome(row: sqlite3.Row) -> ToolResult | OtherResult | RpcError | NoReply:
    if row["reply"] is None:
        return NoReply(reason=row["outcome"])
    reply = json.loads(row["reply"])
    if "result" not in reply:
        return RpcError(error=reply.get("error"))
    if row["method"] == "tools/call" and row["direction"] == "to_server":
        return ToolResult(result=reply["result"])
    return OtherResult(result=reply["result"])


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
