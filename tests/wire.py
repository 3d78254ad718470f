"""Raw MCP clients: they send texts, and keep every text that comes back, in order.

No SDK between the test and the wire, so ids, nulls, number formats, unknown fields and the order of
messages are there to compare. A client answers server-to-client requests by itself (see `Answer`).
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from subprocess import PIPE
from typing import Any, NamedTuple

import anyio
import httpx2
from anyio.abc import Process, TaskGroup

BOUND_S = 10.0
"""No single step of a test may take longer."""

META = "io.modelcontextprotocol/"
MODERN = "2026-07-28"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}

Answer = Callable[[Mapping[str, Any]], str]
"""The text of the reply to a server's request."""


class Line(NamedTuple):
    """A text that came in; stdout is stream 0, each HTTP response is a stream of its own."""

    stream: int
    text: str


class Wire:
    """What every raw client has: what it saw, and ways to wait for more."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.lines: list[Line] = []
        self.closed = False
        self.replies: dict[str, str] = {}
        """The latest reply to each id; ids are JSON texts, so 7 and "7" differ."""
        self.notified: Counter[str] = Counter()
        self._changed = anyio.Event()

    async def send(self, text: str) -> None:
        raise NotImplementedError

    async def request(self, text: str) -> str:
        """Send a request and return the text of its reply."""
        request_id = json.dumps(json.loads(text)["id"])
        self.replies.pop(request_id, None)
        await self.send(text)
        await self.until(lambda: request_id in self.replies)
        return self.replies[request_id]

    async def until(self, arrived: Callable[[], bool]) -> None:
        """Wait until `arrived()`, which is asked after each line."""
        while not arrived():
            if self.closed:
                raise EOFError("the server closed the connection")
            await self._changed.wait()

    async def saw(self, text: str, stream: int = 0) -> None:
        """Keep a line; answer it if it is a request."""
        self.lines.append(Line(stream, text))
        for message in read_messages(text):
            message_id = json.dumps(message.get("id"))
            if "method" not in message:
                self.replies[message_id] = text
            elif "id" not in message:
                self.notified[str(message["method"])] += 1
            else:
                with suppress(anyio.BrokenResourceError):  # the server that asked may be gone
                    await self.send(self.answer(message))
        self.changed()

    def changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def read_messages(text: str) -> list[Mapping[str, Any]]:
    """The JSON-RPC messages on a line; none if it is noise, or cannot be read."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    values = value if isinstance(value, list) else [value]
    return [message for message in values if isinstance(message, dict)]


class StdioWire(Wire):
    """A client on the other end of a process's stdin and stdout."""

    def __init__(self, process: Process, answer: Answer) -> None:
        super().__init__(answer)
        self.process = process
        self.stderr, self.stderr_closed = "", False

    async def send(self, text: str) -> None:
        assert self.process.stdin
        await self.process.stdin.send(text.encode(errors="surrogateescape") + b"\n")

    async def close_stdin(self) -> None:
        assert self.process.stdin
        await self.process.stdin.aclose()

    async def until_exit(self) -> int:
        """Wait until the process ended and all it printed was read; return its exit code."""
        await self.process.wait()
        while not (self.closed and self.stderr_closed):
            await self._changed.wait()
        assert self.process.returncode is not None
        return self.process.returncode

    async def read(self) -> None:
        assert self.process.stdout
        pieces: list[bytes] = []
        async for chunk in self.process.stdout:
            *complete, rest = chunk.split(b"\n")
            for piece in complete:
                await self.saw(b"".join([*pieces, piece]).decode(errors="surrogateescape"))
                pieces.clear()
            pieces.append(rest)
        if any(pieces):
            await self.saw(b"".join(pieces).decode(errors="surrogateescape"))
        self.closed = True
        self.changed()

    async def read_stderr(self) -> None:
        assert self.process.stderr
        async for chunk in self.process.stderr:
            self.stderr += chunk.decode(errors="backslashreplace")
        self.stderr_closed = True
        self.changed()


@asynccontextmanager
async def open_stdio(
    argv: Sequence[str], answer: Answer, env: Mapping[str, str], cwd: Path
) -> AsyncIterator[StdioWire]:
    """Start a server and talk to it; at the end close its stdin, and kill it if that is not enough."""
    async with anyio.create_task_group() as tasks:
        process = await anyio.open_process(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(env), cwd=cwd)
        wire = StdioWire(process, answer)
        tasks.start_soon(wire.read)
        tasks.start_soon(wire.read_stderr)
        try:
            yield wire
        finally:
            with anyio.CancelScope(shield=True):
                await wire.close_stdin()
                with anyio.move_on_after(5):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                await process.wait()
                tasks.cancel_scope.cancel()


class HttpWire(Wire):
    """A streamable HTTP client of either era, written from the specification.

    Messages are posted one after the other: `send` returns when the response to the POST has begun, so
    the server hears them in the order they were sent.
    """

    def __init__(self, url: str, client: httpx2.AsyncClient, tasks: TaskGroup, answer: Answer) -> None:
        super().__init__(answer)
        self.url, self.client, self.tasks = url, client, tasks
        self.headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        self.posts: dict[str, anyio.CancelScope] = {}
        self.stream_numbers = count(1)
        self.hello_id: str | None = None
        """The id of an `initialize` that waits for its reply."""
        self.mirrored: dict[str, dict[str, tuple[str, ...]]] = {}
        """Tool name to header name to path of the argument that the header mirrors."""

    async def send(self, text: str) -> None:
        message = json.loads(text)
        params = message.get("params")
        modern = isinstance(params, dict) and META + "protocolVersion" in params.get("_meta", {})
        if message.get("method") == "notifications/cancelled":
            scope = self.posts.get(json.dumps(params["requestId"]))
            if scope and not self.is_legacy:
                return scope.cancel()  # in the modern era, closing the stream is the cancellation
        headers = self.headers | (self.modern_headers(message) if modern else {})
        status = await self.tasks.start(self.post, text, message, headers)
        if message.get("method") == "notifications/initialized" and status == 202:
            await self.tasks.start(self.listen)
        return None

    @property
    def is_legacy(self) -> bool:
        """Whether a handshake settled a protocol version."""
        return "mcp-protocol-version" in self.headers

    async def post(self, text: str, message: Mapping[str, Any], headers: dict[str, str], *, task_status: Any):
        stream = next(self.stream_numbers)
        request_id = json.dumps(message["id"]) if {"id", "method"} <= message.keys() else None
        with anyio.CancelScope() as scope:
            if request_id:
                self.posts[request_id] = scope
            if message.get("method") == "initialize":
                self.hello_id = request_id
            last_event = await self.receive("POST", headers, text, stream, task_status)
            if last_event and self.is_legacy and request_id not in self.replies:
                await self.receive("GET", self.headers | {"last-event-id": last_event}, None, stream)

    async def saw(self, text: str, stream: int = 0) -> None:
        await super().saw(text, stream)
        if self.hello_id in self.replies:
            result = json.loads(self.replies[self.hello_id])["result"]
            self.headers["mcp-protocol-version"] = result["protocolVersion"]
            self.hello_id = None

    async def listen(self, *, task_status: Any) -> None:
        """Read what belongs to no request (legacy era)."""
        await self.receive("GET", self.headers, None, next(self.stream_numbers), task_status)

    async def receive(
        self,
        method: str,
        headers: Mapping[str, str],
        content: str | None,
        stream: int,
        task_status: Any = anyio.TASK_STATUS_IGNORED,
    ) -> str | None:
        """Send a request and see every message in the response; return the id of its last event."""
        last_event = None
        body = None if content is None else content.encode()
        async with self.client.stream(method, self.url, content=body, headers=headers) as response:
            if session_id := response.headers.get("mcp-session-id"):
                self.headers["mcp-session-id"] = session_id
            task_status.started(response.status_code)
            try:
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    async for event_id, data in read_events(response.aiter_bytes()):
                        last_event = event_id or last_event
                        if data:
                            await self.saw(data, stream)
                elif text := (await response.aread()).decode():
                    await self.saw(text, stream)
            except httpx2.TransportError:  # the server is gone
                self.closed = True
                self.changed()
        return last_event

    def modern_headers(self, message: Mapping[str, Any]) -> dict[str, str]:
        method, params = message["method"], message["params"]
        version = params["_meta"][META + "protocolVersion"]
        headers = {"mcp-protocol-version": version, "mcp-method": method}
        if method in NAMED_BY:
            headers["mcp-name"] = encode_header(params[NAMED_BY[method]])
        if method == "tools/call":
            for header, path in self.mirrored.get(params["name"], {}).items():
                value: Any = params.get("arguments", {})
                for key in path:
                    value = value.get(key, {})
                if value != {}:
                    headers[header] = encode_header(str(value))
        return headers


@asynccontextmanager
async def open_http(
    url: str, answer: Answer, mirrored: Mapping[str, dict[str, tuple[str, ...]]]
) -> AsyncIterator[HttpWire]:
    async with httpx2.AsyncClient(timeout=None) as client, anyio.create_task_group() as tasks:
        wire = HttpWire(url, client, tasks, answer)
        wire.mirrored.update(mirrored)
        yield wire
        tasks.cancel_scope.cancel()


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, str]]:
    """The id and the data of each server-sent event."""
    pieces: list[bytes] = []
    event_id, data = "", []
    async for chunk in chunks:
        pieces.append(chunk)
        if b"\n" not in chunk:
            continue
        *complete, rest = b"".join(pieces).split(b"\n")
        pieces = [rest]
        for line in complete:
            name, _, value = line.removesuffix(b"\r").decode().partition(":")
            if name == "data":
                data.append(value.removeprefix(" "))
            elif name == "id":
                event_id = value.removeprefix(" ")
            elif not name and not value:
                yield event_id, "\n".join(data)
                data = []


def encode_header(value: str) -> str:
    """A header value; what a header cannot carry travels as base64."""
    if value.isascii() and value.isprintable() and value == value.strip():
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


@asynccontextmanager
async def serving(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> AsyncIterator[str]:
    """Start an HTTP server that prints its URL as its first line; yield the URL."""
    async with await anyio.open_process(
        argv, stdin=None, stdout=PIPE, stderr=None, env=dict(env), cwd=cwd
    ) as process:
        assert process.stdout
        with anyio.fail_after(BOUND_S):
            url = (await process.stdout.receive()).decode().strip()
        try:
            yield url
        finally:
            process.kill()
