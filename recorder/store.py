"""The read side of a recording."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from recorder.errors import RecordingError
from recorder.exchange import Exchange, NoReply, OtherResult, RpcError, ToolResult
from recorder.liveness import is_alive
from recorder.redact import KnownSecret, Redactor
from recorder.schema import connect_for_reading
from recorder.session import Server, Session, Status
from recorder.tool import ToolSpec


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
        self._rows("SELECT 1")

    def sessions(self) -> list[Session]:
        """Return all sessions, earliest first."""
        servers: dict[str, list[Server]] = {}
        for row in self._rows("SELECT * FROM server ORDER BY id"):
            servers.setdefault(row["session_id"], []).append(_server(row))
        counts: dict[str, int] = {
            session_id: count
            for session_id, count in self._rows("SELECT session_id, count(*) FROM exchange GROUP BY session_id")
        }
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
                exchanges=counts.get(row["id"], 0),
            )
            for row in self._rows("SELECT * FROM session ORDER BY started_at, rowid")
        ]

    def tools(self, server: str | None = None) -> list[ToolSpec]:
        """Return each version of each tool that was listed, by server and in order of first listing."""
        rows = self._rows(
            "SELECT * FROM listing WHERE kind = 'tool' AND server = coalesce(?, server) ORDER BY server, id",
            (server,),
        )
        return [
            ToolSpec(
                server=row["server"], name=row["name"], version=row["hash"], entry=json.loads(row["entry"])
            )
            for row in rows
        ]

    def exchange_count(self) -> int:
        return int(next(self._rows("SELECT count(*) FROM exchange"))[0])

    def exchange(self, exchange_id: int) -> Exchange:
        """Return one exchange.

        Raises:
            RecordingError: there is none of that id.
        """
        for exchange in self._exchanges("WHERE exchange.id = ?", (exchange_id,)):
            return exchange
        raise RecordingError(f"{self.path} has no exchange {exchange_id}")

    def exchanges(self, *, session_id: str | None = None, method: str | None = None) -> Iterator[Exchange]:
        """Yield exchanges of both directions, by session and then in the order the requests arrived."""
        return self._exchanges(
            "WHERE exchange.session_id = coalesce(?, exchange.session_id)"
            " AND exchange.method = coalesce(?, exchange.method) ORDER BY exchange.session_id, sequence",
            (session_id, method),
        )

    def answered_requests(self, server_ids: Sequence[int]) -> Iterator[AnsweredRequest]:
        """Yield the client's answered requests to these servers, in the order they arrived."""
        rows = self._rows(
            "SELECT exchange.id, session_id, request.text, CASE WHEN instr(reply.text, '\"input_required\"')"
            " THEN reply.text END"
            " FROM exchange JOIN frame AS request ON request.id = request_frame"
            " JOIN frame AS reply ON reply.id = reply_frame"
            " WHERE exchange.server_id IN (SELECT value FROM json_each(?)) AND exchange.direction = 'to_server'"
            " ORDER BY exchange.id",
            (json.dumps(list(server_ids)),),
        )
        for exchange_id, session_id, request_text, reply_text in rows:
            result = json.loads(reply_text).get("result") if reply_text else None
            asks = isinstance(result, dict) and result.get("resultType") == "input_required"
            yield AnsweredRequest(exchange_id, session_id, json.loads(request_text), result if asks else None)

    def progress(self, exchange: Exchange) -> list[dict[str, JsonValue]]:
        """Return the params of each progress notification about an exchange, in order."""
        meta = exchange.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        if token is None:
            return []
        rows = self._rows(
            "SELECT note.text FROM exchange JOIN frame AS note ON note.server_id = exchange.server_id"
            " AND note.id > request_frame AND note.id < reply_frame"
            " WHERE exchange.id = ? AND note.method = 'notifications/progress' AND note.direction = 'to_client'"
            " ORDER BY note.id",
            (exchange.id,),
        )
        notes = [json.loads(text)["params"] for (text,) in rows]
        return [note for note in notes if json.dumps(note.get("progressToken")) == json.dumps(token)]

    def redactor(self) -> Redactor:
        """Return what turns the shapes of tokens into the placeholders of this recording."""
        return Redactor(next(self._rows("SELECT redaction_key FROM recording"))[0])

    def known_secrets(self) -> list[KnownSecret]:
        return [KnownSecret(*row) for row in self._rows("SELECT digest, length, placeholder FROM secret")]

    def close(self) -> None:
        """Close this thread's connection; another use opens a new one."""
        if held := getattr(self._local, "held", None):
            self._local.held = None
            held[1].close()

    def _exchanges(self, where: str, values: Sequence[object]) -> Iterator[Exchange]:
        rows = self._rows(
            "SELECT exchange.*, server.name AS server, request.text AS request, reply.text AS reply"
            " FROM exchange JOIN server ON server.id = exchange.server_id"
            " JOIN frame AS request ON request.id = request_frame"
            f" LEFT JOIN frame AS reply ON reply.id = reply_frame {where}",
            values,
        )
        return map(_exchange, rows)

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
        sequence=row["sequence"],
        direction=row["direction"],
        method=row["method"],
        params=params if isinstance(params, dict) else {},
        outcome=_outcome(row),
        started_at=row["started_at"],
        duration_s=row["duration_s"],
    )


def _outcome(row: sqlite3.Row) -> ToolResult | OtherResult | RpcError | NoReply:
    if row["reply"] is None:
        return NoReply(reason=row["outcome"] or "interrupted")
    reply = json.loads(row["reply"])
    if "result" not in reply:
        return RpcError(error=reply.get("error"))
    if row["method"] == "tools/call" and row["direction"] == "to_server":
        return ToolResult(result=reply["result"])
    return OtherResult(result=reply["result"])


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
