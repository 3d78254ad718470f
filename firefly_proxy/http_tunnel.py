"""Lines from a client on our standard streams to a streamable HTTP server and back."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread

from firefly_proxy.lines import LineSplitter
from firefly_proxy.server_config import HttpServer
from firefly_proxy.stdio_tunnel import ANSWER_GRACE_S, READ_SIZE, Ending, Tap
from firefly_proxy.upstream import HttpUpstream
from recorder.errors import FireflyError


def run_http_tunnel(server: HttpServer, tap: Tap) -> Ending:
    """Connect our standard streams with a server until the client is done.

    Raises:
        FireflyError: what `tap` raises.
    """

    async def run() -> Ending:
        return await _Tunnel(server, tap).run()

    return anyio.run(run)


class _Tunnel:
    def __init__(self, server: HttpServer, tap: Tap) -> None:
        self._tap = tap
        self._upstream = HttpUpstream(server.url, server.headers, self._deliver, self._report)
        self._writing = anyio.Lock()
        self._ending = Ending("the client closed", "connection closed", 0)
        self._scope = anyio.CancelScope()

    async def run(self) -> Ending:
        try:
            async with anyio.create_task_group() as tasks:
                with self._scope:
                    tasks.start_soon(self._await_signal)
                    await self._upstream.run(self._client_lines(tasks))
                tasks.cancel_scope.cancel()
        except* FireflyError as group:
            raise _first(group) from group
        return self._ending

    async def _client_lines(self, tasks: anyio.abc.TaskGroup) -> AsyncIterator[bytes]:
        """Yield the client's lines, each recorded before anyone sees it."""
        splitter = LineSplitter()
        while True:
            chunk = await anyio.to_thread.run_sync(
                os.read, sys.stdin.fileno(), READ_SIZE, abandon_on_cancel=True
            )
            lines = splitter.feed(chunk)
            if lines:
                self._tap.record("to_server", lines)
                self._tap.flush()
            for line in lines:
                yield line
            if not chunk:
                tasks.start_soon(self._end_after_grace)
                return

    async def _end_after_grace(self) -> None:
        """Leave once nothing is owed, or what is owed does not come."""
        with anyio.move_on_after(ANSWER_GRACE_S):
            while self._tap.unanswered():
                await anyio.sleep(0.02)
        self._scope.cancel()

    async def _await_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                self._ending = Ending(f"signal {number.name}", "connection closed", 128 + number)
                self._scope.cancel()

    async def _deliver(self, line: bytes) -> None:
        async with self._writing:
            if self._tap.record("to_client", [line])[0]:
                await self._write(line)

    async def _report(self, line: bytes) -> None:
        async with self._writing:
            self._tap.record_own(line)
            await self._write(line)

    async def _write(self, line: bytes) -> None:
        """Write to the client; in a thread, since it may be slow to read."""
        try:
            await anyio.to_thread.run_sync(_write_all, sys.stdout.fileno(), line)
        except OSError:
            self._ending = Ending("the client went away", "connection closed", 0)
            self._scope.cancel()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _first(group: BaseExceptionGroup[FireflyError]) -> FireflyError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
