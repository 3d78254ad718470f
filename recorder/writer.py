"""The one way into a recording: a conversation's lines, committed before they are passed on.

This is the hot path of `firefly-proxy record`, so it uses the standard library alone. Measured here, one
commit (write-ahead log, synchronous=NORMAL) takes 15 to 20 µs.
"""

from __future__ import annotations

import json
import os
import secrets as random_secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from recorder.canonical import content_hash, encodable, readable_json
from recorder.errors import RecordingError
from recorder.frame import Direction, Frame, Message, as_object, frame_of, read_line
from recorder.handshake import (
    INTRODUCTIONS,
    LIST_METHODS,
    ClientHello,
    client_hello,
    server_hello,
    subject,
)
from recorder.liveness import this_process
from recorder.pairing import Pairer, Pending
from recorder.redact import Redactor
from recorder.schema import begin, connect_for_writing

T = TypeVar("T")

MOVE_CHECK_S = 1.0
"""How often to look whether the file is still where it was; that it is not deleted is looked at each time."""

MOST_TAKEN = 100
"""Lines to the server that may wait for a commit while others keep coming."""


class RecordingWriter:
    """Writes one session: one client's conversation with one or more servers.

    Every method commits before it returns; what `record` may leave for later, it says. Not safe to share
    between threads.

    Args:
        path: The recording; made where there is none. Other processes may write to it meanwhile.
        group: The task or start state that repetitions of this session share.
        run: Which repetition this is.
        secrets: Values that must not be written.
        durable: Whether commits survive the loss of power, too.

    Raises:
        RecordingError: the recording cannot be opened, or, from every method, cannot be written. The
            session is over then: what was not written must not be passed on.
    """

    def __init__(
        self,
        path: Path,
        *,
        group: str,
        run: str | None = None,
        secrets: Collection[str] = (),
        durable: bool = False,
    ) -> None:
        self.path = path
        self.session_id = random_secrets.token_hex(6)
        self._connection = connect_for_writing(path, durable=durable)
        self._execute = self._connection.execute
        self._file = os.open(path, os.O_RDONLY)
        self._found_at = time.monotonic()
        key = self._connection.execute("SELECT redaction_key FROM recording").fetchone()[0]
        self._redactor = Redactor(key, secrets)
        self._pairers: dict[int, Pairer] = {}
        self._client: ClientHello | None = None
        self._durable = durable
        self._taken: list[tuple[int, Direction, Frame, Frame, float]] = []
        self._commit(
            lambda: self._execute(
                "INSERT INTO session (id, group_id, run_id, started_at, process) VALUES (?, ?, ?, ?, ?)",
                (self.session_id, self._safe(group), run and self._safe(run), time.time(), this_process()),
            )
        )

    def add_server(self, name: str, config: Mapping[str, object]) -> int:
        """Register an upstream server and return its id.

        Args:
            config: As the user wrote it, variables unexpanded.
        """
        server_id = self._commit(
            lambda: self._execute(
                "INSERT INTO server (session_id, name, config) VALUES (?, ?, ?)",
                (self.session_id, self._safe(name), self._safe(readable_json(config))),
            )
        ).lastrowid
        assert server_id is not None
        self._pairers[server_id] = Pairer()
        return server_id

    def record(self, server_id: int, direction: Direction, lines: Sequence[bytes]) -> list[bool]:
        """Take the lines and say of each whether it may be passed on.

        A line from the server that is not JSON-RPC is noise: written, and kept from the client.

        Lines to the client are committed when this returns, and whatever came before them too, in one
        transaction. Lines to the server wait for the next commit, which is soon (see `flush`): a commit
        of their own would cost every call as much again. With `durable` they are committed here.
        """
        at = time.time()
        passes = []
        for line in lines:
            passing = True
            for frame in read_line(line):
                text = self._redactor.redact(frame.text)
                stored = frame if text is frame.text else _with_text(frame, text)
                self._taken.append((server_id, direction, frame, stored, at))
                passing = frame.kind != "noise" or direction == "to_server"
            passes.append(passing)
        if direction == "to_client" or self._durable or len(self._taken) > MOST_TAKEN:
            self.flush()
        return passes

    def flush(self) -> None:
        """Commit what was taken; to be called as soon as nothing else is to be done."""
        if self._taken:
            self._commit(self._write_taken)
            self._taken.clear()

    def record_own(self, server_id: int, line: bytes) -> None:
        """Write a reply that the proxy itself gives the client; it is no server's answer.

        The request counts as answered then, and its exchange as one that no reply came to.
        """
        self.flush()
        self._commit(lambda: self._write_own(server_id, line.decode().strip()))

    def unanswered(self, server_id: int) -> list[Pending]:
        """Return the client's requests whose reply it still waits for, oldest first."""
        self.flush()
        waiting = (p for p in self._pairers[server_id] if p.direction == "to_server" and p.answerable)
        return sorted(waiting, key=lambda pending: pending.frame_id)

    def end_server(self, server_id: int, ending: str) -> None:
        """Note how a server's process or connection ended, and that its open requests stay unanswered."""
        self.flush()
        self._commit(lambda: self._write_server_ending(server_id, ending))
        self._pairers[server_id] = Pairer()

    def end(self, ending: str) -> None:
        """Close the session and the recording. A session without this shows as interrupted."""
        self.flush()
        self._commit(
            lambda: self._execute(
                "UPDATE session SET ended_at = ?, ending = ? WHERE id = ?",
                (time.time(), self._safe(ending), self.session_id),
            )
        )
        self.close()

    def close(self) -> None:
        """Let go of the file and leave the session as it is on disk."""
        self._connection.close()
        # Only now: closing any descriptor of a file gives up all locks that the process has on it.
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write_taken(self) -> None:
        for taken in self._taken:
            self._write(*taken)

    def _write_own(self, server_id: int, text: str) -> None:
        self._insert_frame(server_id, "to_client", "proxy", None, self._safe(text), time.time())
        if pending := self._pairers[server_id].close("to_client", json.loads(text).get("id")):
            self._insert_exchange(server_id, pending, "disconnected")

    def _write_server_ending(self, server_id: int, ending: str) -> None:
        for pending in self._pairers[server_id]:
            self._insert_exchange(server_id, pending, "cancelled" if pending.cancelled else "disconnected")
        self._execute("UPDATE server SET ending = ? WHERE id = ?", (self._safe(ending), server_id))

    def _write(self, server_id: int, direction: Direction, frame: Frame, stored: Frame, at: float) -> None:
        if stored is not frame and direction == "to_server":
            self._keep_digests(stored.text)
        frame_id = self._insert_frame(server_id, direction, frame.kind, stored.method, stored.text, at)
        if frame.kind == "response":
            if answered := self._pairers[server_id].close(direction, frame.message.get("id")):
                self._answer(server_id, answered, stored, frame_id, at)
        elif frame.kind == "request":
            self._pairers[server_id].open(
                Pending(
                    request_id=frame.message.get("id"),
                    frame_id=frame_id,
                    direction=direction,
                    method=stored.method or "",
                    name=subject(stored),
                    started_at=at,
                    cursor=stored.params.get("cursor"),
                )
            )
            if direction == "to_server":
                self._note_client(server_id, stored)
        elif frame.method == "notifications/cancelled":
            self._pairers[server_id].cancel(direction, frame.params.get("requestId"))

    def _answer(self, server_id: int, pending: Pending, reply: Frame, frame_id: int, at: float) -> None:
        self._insert_exchange(
            server_id, pending, outcome_of(reply.message), frame_id, at - pending.started_at
        )
        if pending.direction == "to_client":
            return
        if pending.method in LIST_METHODS:
            self._note_listing(server_id, pending, as_object(reply.message.get("result")), at)
        elif pending.method in INTRODUCTIONS and "result" in reply.message:
            self._note_server(server_id, pending.method, as_object(reply.message["result"]))

    def _note_client(self, server_id: int, request: Frame) -> None:
        hello = client_hello(request)
        if hello is None or hello == self._client:
            return
        self._client = hello
        self._execute(
            "UPDATE session SET client = ?, client_capabilities = ? WHERE id = ?",
            (readable_json(hello.info), readable_json(hello.capabilities), self.session_id),
        )
        if hello.era == "modern" and request.method != "server/discover":
            # A probe may yet fall back to the handshake; any other modern request has chosen its era.
            self._note_era(server_id, hello.era, hello.protocol_version)

    def _note_server(self, server_id: int, method: str, result: Message) -> None:
        hello = server_hello(method, result)
        self._execute(
            "UPDATE server SET info = ?, capabilities = ?, instructions = ? WHERE id = ?",
            (readable_json(hello.info), readable_json(hello.capabilities), hello.instructions, server_id),
        )
        self._note_era(server_id, hello.era, hello.protocol_version)

    def _note_era(self, server_id: int, era: str, version: str | None) -> None:
        for table, key in (("server", server_id), ("session", self.session_id)):
            self._execute(
                f"UPDATE {table} SET era = ?, protocol_version = coalesce(?, protocol_version) WHERE id = ?",
                (era, version, key),
            )

    def _note_listing(self, server_id: int, pending: Pending, result: Message, at: float) -> None:
        field, kind, name_field = LIST_METHODS[pending.method]
        entries = result.get(field)
        if not isinstance(entries, list):
            return
        server, listed_text = self._execute(
            "SELECT name, listed FROM server WHERE id = ?", (server_id,)
        ).fetchone()
        listed = json.loads(listed_text)
        ids = list(listed.get(kind, [])) if pending.cursor is not None else []
        for entry in entries:
            try:
                version = (
                    server,
                    kind,
                    encodable(str(as_object(entry).get(name_field, ""))),
                    content_hash(entry),
                )
            except RecursionError:
                continue  # nested too deep to be told apart; the frame has it
            self._execute(
                "INSERT OR IGNORE INTO listing (server, kind, name, hash, entry, first_seen)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*version, readable_json(entry), at),
            )
            ids += self._execute(
                "SELECT id FROM listing WHERE server = ? AND kind = ? AND name = ? AND hash = ?", version
            ).fetchone()
        self._execute(
            "UPDATE server SET listed = ? WHERE id = ?", (readable_json(listed | {kind: ids}), server_id)
        )

    def _safe(self, text: str) -> str:
        return self._redactor.redact(text)

    def _keep_digests(self, text: str) -> None:
        """Let lookup find the secrets whose placeholders stand in a request, without their values."""
        for secret in self._redactor.known():
            if secret.placeholder in text:
                self._execute(
                    "INSERT OR IGNORE INTO secret VALUES (?, ?, ?)",
                    (secret.digest, secret.length, secret.placeholder),
                )

    def _commit(self, write: Callable[[], T]) -> T:
        """Commit what `write` writes, or nothing of it, and return what it returns."""
        try:
            try:
                self._execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                begin(self._connection)
            try:
                written = write()
                self._execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise RecordingError(f"recording to {self.path} failed: {error}") from error
        self._check_file()
        return written

    def _check_file(self) -> None:
        """Make sure that the file can still be found.

        SQLite does not notice that the file it has open was deleted, moved or replaced, and would go on
        writing where nobody looks: its log does not move along.
        """
        if os.fstat(self._file).st_nlink == 0:
            raise RecordingError(f"recording to {self.path} failed: the file was deleted or replaced")
        now = time.monotonic()
        if now - self._found_at > MOVE_CHECK_S:
            if not self.path.exists() or not os.path.samestat(os.stat(self.path), os.fstat(self._file)):
                raise RecordingError(f"recording to {self.path} failed: the file was moved")
            self._found_at = now

    def _insert_frame(
        self, server_id: int, direction: Direction, kind: str, method: str | None, text: str, at: float
    ) -> int:
        row_id = self._execute(
            "INSERT INTO frame (server_id, at, direction, kind, method, text) VALUES (?, ?, ?, ?, ?, ?)",
            (server_id, at, direction, kind, method, text),
        ).lastrowid
        assert row_id is not None
        return row_id

    def _insert_exchange(
        self,
        server_id: int,
        request: Pending,
        outcome: str,
        reply_frame: int | None = None,
        duration_s: float | None = None,
    ) -> None:
        self._execute(
            "INSERT INTO exchange VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                server_id,
                request.frame_id,
                reply_frame,
                request.direction,
                request.method,
                request.name,
                outcome,
                duration_s,
            ),
        )


def outcome_of(reply: Message) -> str:
    """Name what kind of reply this is.

    Returns:
        `rpc_error`, `tool_error` (a result with `isError`), `input_required` (one that asks back, of the
        2026-07-28 era) or `result`.
    """
    if "result" not in reply:
        return "rpc_error"
    result = as_object(reply["result"])
    if result.get("isError") is True:
        return "tool_error"
    return "input_required" if result.get("resultType") == "input_required" else "result"


def _with_text(frame: Frame, text: str) -> Frame:
    """Return the frame as it may be written: with another text, and what that says."""
    try:
        return frame_of(as_object(json.loads(text)), text)
    except (ValueError, RecursionError):
        return Frame(frame.kind, text, {}, frame.method)
