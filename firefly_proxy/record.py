"""`firefly-proxy record`: a conversation passed through, and written down before it is passed on."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from firefly_proxy.server_config import HttpServer, Server, default_group, secrets_of
from firefly_proxy.stdio_tunnel import run_tunnel
from firefly_proxy.tunnel import Ending
from recorder.frame import Direction
from recorder.writer import RecordingWriter


def record(
    server: Server,
    db: Path,
    *,
    group: str | None = None,
    run: str | None = None,
    redact: Collection[str] = (),
    durable: bool = False,
) -> Ending:
    """Connect our standard streams with `server` and record the session into `db`.

    Raises:
        RecordingError: it cannot be recorded; then nothing more has been passed on.
        FireflyError: a name in `redact` is not set.
    """
    secrets = secrets_of(server, os.environ, redact)
    group = group or default_group(server, secrets)
    writer = RecordingWriter(db, group=group, run=run, secrets=secrets, durable=durable)
    tap = ServerTap(writer, writer.add_server(server.name, server.config))
    try:
        if isinstance(server, HttpServer):
            # Only this path needs an event loop and an HTTP client, which take time to import.
            from firefly_proxy.http_tunnel import run_http_tunnel

            ending = run_http_tunnel(server, tap)
        else:
            ending = run_tunnel(server.command, tap, env={**os.environ, **server.env}, cwd=server.cwd)
        tap.end(ending.server)
        writer.end(ending.session)
    finally:
        writer.close()
    return ending


class ServerTap:
    """A tunnel's view of the recording: one server of one session."""

    def __init__(self, writer: RecordingWriter, server_id: int) -> None:
        self._writer, self._server_id = writer, server_id
        self.flush = writer.flush

    def record(self, direction: Direction, lines: Sequence[bytes]) -> list[bool]:
        return self._writer.record(self._server_id, direction, lines)

    def record_own(self, line: bytes) -> None:
        self._writer.record_own(self._server_id, line)

    def unanswered(self) -> list[tuple[object, str]]:
        return [(pending.request_id, pending.method) for pending in self._writer.unanswered(self._server_id)]

    def end(self, ending: str) -> None:
        self._writer.end_server(self._server_id, ending)
