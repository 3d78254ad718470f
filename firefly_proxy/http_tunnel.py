"""Lines from a client on our standard streams to a streamable HTTP server and back."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectSendStream

from firefly_proxy.lines import LineSplitter
from firefly_proxy.outlet import outlet_to
from firefly_proxy.server_config import HttpServer
from firefly_proxy.tunnel import ANSWER_GRACE_S, READ_SIZE, Ending, Tap
from firefly_proxy.upstream import HttpUpstream
from recorder.errors import FireflyError

_ALWAYS_READY = contextlib.suppress(PermissionError)
"""What waiting for a plain file raises: it is always ready, and epoll does not take it."""

MOST_WAITING = 1000
"""Lines that wait to be sent before we stop reading the client's."""


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
        self._out = outlet_to(sys.stdout.fileno())
        self._writing = anyio.Lock()
        self._ending = Ending("the client closed", "connection closed", 0)

    async def run(self) -> Ending:
        send, receive = anyio.create_memory_object_stream[bytes](MOST_WAITING)
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._await_signal)
                self._tasks.start_soon(self._read_client, send)
                await self._upstream.run(receive)
                self._tasks.cancel_scope.cancel()
        except* FireflyError as group:
            raise _first(group) from group
        return self._ending

    async def _read_client(self, lines: MemoryObjectSendStream[bytes]) -> None:
        """Pass on the client's lines, each recorded before anyone sees it, until it closes."""
        splitter = LineSplitter()
        async with lines:
            while chunk := await _read_input():
                await self._take(splitter.feed(chunk), lines)
            await self._take(splitter.feed(b""), lines)
        # What it asked last may still be answered; what it does not wait for may not keep us.
        with anyio.move_on_after(ANSWER_GRACE_S):
            while self._tap.unanswered():
                await anyio.sleep(0.02)
        self._tasks.cancel_scope.cancel()

    async def _take(self, taken: list[bytes], lines: MemoryObjectSendStream[bytes]) -> None:
        if taken:
            self._tap.record("to_server", taken)
            self._tap.flush()
        for line in taken:
            await lines.send(line)

    async def _await_signal(self) -> None:
        wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        heeded = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                self._ending = Ending(f"signal {number.name}", "connection closed", 128 + number)
                self._tasks.cancel_scope.cancel()

    async def _deliver(self, line: bytes) -> None:
        async with self._writing:
            if self._tap.record("to_client", [line])[0]:
                await self._write(line)

    async def _report(self, line: bytes) -> None:
        async with self._writing:
            self._tap.record_own(line)
            await self._write(line)

    async def _write(self, line: bytes) -> None:
        """Write to the client, as fast as it reads."""
        self._out.write(line)
        while self._out.queued:
            with _ALWAYS_READY:
                await anyio.wait_writable(self._out.fd)
            self._out.flush()
        if self._out.broken:
            self._ending = Ending("the client went away", "connection closed", 0)
            self._tasks.cancel_scope.cancel()


async def _read_input() -> bytes:
    """Read what the client sent; nothing once it is gone, however it went."""
    with _ALWAYS_READY:
        await anyio.wait_readable(sys.stdin.fileno())
    try:
        return os.read(sys.stdin.fileno(), READ_SIZE)
    except OSError:
        return b""


def _first(group: BaseExceptionGroup[FireflyError]) -> FireflyError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
