"""The read side of a recording."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recorder.canonical import content_hash
from recorder.database import Database
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


class Conversation(NamedTuple):
    """One session's part with one server."""

    number: int
    """The server's row."""
    session_id: str
    server: str
    group: str


class Answered(NamedTuple):
    """An answered request, as it was sent and answered."""

    exchange_id: int
    method: str
    outcome: str
    """As the column of that name says it: `result`, `tool_error`, `input_required` or `rpc_error`."""
    request: str
    reply: str


class Store:
    """Reads one recording; safe from many threads and after a fork, each with a connection of its own.

    Raises:
        RecordingError: the file is missing, is no recording, or is newer than this version reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, self._connect)
        self._rows = self._database.rows
        self._sessions_of: dict[int, str] = {}
        self._database.connection()

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

    def sessions_of_run(self, run: str) -> list[str]:
        """Return the ids of the sessions of a run, earliest first."""
        return [
            row[0]
            for row in self._rows(
                "SELECT id FROM session WHERE run_id = ? ORDER BY started_at, rowid", (run,)
            )
        ]

    def sandboxed_runs(self) -> set[str]:
        """Return the ids of the campaigns whose walks each had a private copy of the servers' folders."""
        if not any(self._rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'campaign'")):
            return set()
        return {
            row[0] for row in self._rows("SELECT id FROM campaign WHERE json_extract(settings, '$.sandbox')")
        }

    def identity(self) -> str:
        """Return what tells this recording from every other; it says nothing of the key it is made from."""
        created_at, key = next(self._rows("SELECT created_at, redaction_key FROM recording"))
        return content_hash([created_at, key.hex()])

    def last_frame(self) -> int:
        """Return the id of the newest frame: a recording that has grown has a greater one."""
        return int(next(self._rows("SELECT coalesce(max(id), 0) FROM frame"))[0])

    def conversations(self) -> list[Conversation]:
        """Return each session's part with each of its servers, earliest session first."""
        rows = self._rows(
            "SELECT server.id, session.id, server.name, session.group_id FROM session"
            " JOIN server ON server.session_id = session.id ORDER BY started_at, session.rowid, server.id"
        )
        return [Conversation(*row) for row in rows]

    def conversations_of(self, session_id: str) -> list[Conversation]:
        """Return a session's parts with each of its servers."""
        rows = self._rows(
            "SELECT server.id, session.id, server.name, session.group_id FROM session"
            " JOIN server ON server.session_id = session.id WHERE session.id = ? ORDER BY server.id",
            (session_id,),
        )
        return [Conversation(*row) for row in rows]

    def answered(self, conversation: int) -> Iterator[Answered]:
        """Yield a conversation's answered requests to the server as text, in the order they were asked."""
        rows = self._rows(
            "SELECT exchange.id, exchange.method, exchange.outcome, request.text, reply.text FROM exchange"
            " JOIN frame AS request ON request.id = exchange.id"
            " JOIN frame AS reply ON reply.id = exchange.reply"
            " WHERE exchange.server_id = ? AND exchange.direction = 'to_server' ORDER BY exchange.id",
            (conversation,),
        )
        return (Answered(*row) for row in rows)

    def reply(self, exchange_id: int) -> str | None:
        """Return the reply to a request as it was sent; `None` if there is none."""
        for (text,) in self._rows(
            "SELECT reply.text FROM exchange JOIN frame AS reply ON reply.id = exchange.reply"
            " WHERE exchange.id = ? AND exchange.server_id = (SELECT server_id FROM frame WHERE id = ?)",
            (exchange_id, exchange_id),
        ):
            return str(text)
        return None

    def tool_entry(self, server: str, name: str) -> dict[str, Any] | None:
        """Return a tool as its server listed it last."""
        for (entry,) in self._rows(
            "SELECT entry FROM listing WHERE server = ? AND kind = 'tool' AND name = ?"
            " AND json_type(entry) = 'object' ORDER BY id DESC LIMIT 1",
            (server, name),
        ):
            return dict(json.loads(entry))
        return None

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

    def answer(self, conversation: int, exchange_id: int) -> tuple[str, ToolResult | OtherResult | RpcError]:
        """Return the session and the outcome of an answered request; much cheaper than the exchange.

        Raises:
            RecordingError: there is none of that id in that conversation.
        """
        for row in self._rows(
            "SELECT exchange.method, exchange.direction, reply.text AS reply FROM exchange"
            " JOIN frame AS reply ON reply.id = exchange.reply"
            " WHERE exchange.server_id = ? AND exchange.id = ?",
            (conversation, exchange_id),
        ):
            outcome = _outcome(row)
            assert not isinstance(outcome, NoReply)
            return self._session_of(conversation), outcome
        raise RecordingError(f"{self.path} has no answered exchange {exchange_id}")

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

    def _session_of(self, conversation: int) -> str:
        session = self._sessions_of.get(conversation)
        if session is None:
            (session,) = next(self._rows("SELECT session_id FROM server WHERE id = ?", (conversation,)))
            self._sessions_of[conversation] = session
        return session

    def _open_requests(self) -> dict[str, list[sqlite3.Row]]:
        """Return the requests without an outcome, by session; only sessions that nobody ended have any."""
        found: dict[str, list[sqlite3.Row]] = {}
        if any(self._rows("SELECT 1 FROM session WHERE ended_at IS NULL LIMIT 1")):
            for row in self._rows(_OPEN_REQUESTS):
                found.setdefault(row["session_id"], []).append(row)
        return found

    def _connect(self) -> sqlite3.Connection:
        connection = connect_for_reading(self.path)
        connection.row_factory = sqlite3.Row
        return connection


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
