"""The odd servers over streamable HTTP: `python -m tests.servers.http_front legacy|modern json|sse`.

Prints its URL first. The two framings are the two a server may choose from: `json` answers a request
with a JSON body where it can, `sse` with an event stream always, written as inconveniently as the
format allows. It refuses what the protocol says must be refused, so headers that are wrong show.
"""

from __future__ import annotations

import base64
import json
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.servers.odd import OddServer
from tests.servers.odd import Request as OddRequest
from tests.servers.odd_legacy import OddLegacy
from tests.servers.odd_modern import META, OddModern, input_schema

Framing = Literal["json", "sse"]

NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
STATUS_OF_ERROR = {"-32601": 404, "-32602": 400, "-32020": 400, "-32021": 400, "-32022": 400}


def status_of(reply: str) -> int:
    """The HTTP status that goes with a reply in the modern era."""
    if len(reply) > 10_000:
        return 200
    error = json.loads(reply).get("error")
    return STATUS_OF_ERROR.get(str(error.get("code")), 200) if isinstance(error, dict) else 200


class Events:
    """A channel that keeps its messages, so that an HTTP response can send them, and another go on later."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.closed = False
        self.broken_at: int | None = None
        self._changed = anyio.Event()

    def say(self, text: str) -> None:
        self.texts.append(text)
        self._change()

    def done(self) -> None:
        self.closed = True
        self._change()

    def break_off(self) -> None:
        """End the response after the messages so far; a client must resume to see the rest."""
        self.broken_at = len(self.texts)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def single_message(self) -> str | None:
        """The reply, where it is all there is to send."""
        return self.texts[0] if self.closed and len(self.texts) == 1 else None

    async def sse(self, position: int = 0) -> AsyncIterator[bytes]:
        """The messages from `position` on as server-sent events.

        Comments, a priming event without data, unknown fields, both line endings, `data:` with and without a
        space, and chunks that end inside a character: all of it legal.
        """
        yield f": hello\n\nretry: 10\nid: {self.name}/{position}\ndata:\n\n".encode()
        while True:
            while position < len(self.texts) and position != self.broken_at:
                for chunk in encode_event(f"{self.name}/{position + 1}", self.texts[position], position % 6):
                    yield chunk
                position += 1
            if self.broken_at is not None:
                self.broken_at = None
                return
            if self.closed:
                return
            await self._changed.wait()


def encode_event(event_id: str, text: str, style: int) -> tuple[bytes, bytes]:
    end, space = ("\r\n", "") if style % 2 else ("\n", " ")
    kind = "" if style % 3 else f"event:{space}message{end}"
    event = f"id: {event_id}{end}{kind}x-field: 1{end}data:{space}{text}{end}{end}".encode()
    middle = 1 + next((place for place, byte in enumerate(event) if byte >= 0x80), len(event) // 2)
    return event[:middle], event[middle:]


def rpc_error(status: int, code: int, message: str, request_id: object = None) -> Response:
    error = {"code": code, "message": message, "data": {"x": 1.0}}
    return JSONResponse({"jsonrpc": "2.0", "id": request_id, "error": error}, status)


def refuse_media_types(request: Request) -> Response | None:
    accept = request.headers.get("accept", "")
    if "application/json" not in accept or "text/event-stream" not in accept:
        return rpc_error(406, -32000, "a client must accept JSON and event streams")
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return rpc_error(415, -32000, "the body must be JSON")
    return None


async def exchange(
    server: OddServer, framing: Framing, body: str, streams: dict[str, Events], modern: bool
) -> Response:
    """Let the server hear one POST body, and answer with what it says to it."""
    events = Events(str(len(streams)))
    server.hear(body, events)
    if events.closed and not events.texts:
        return Response(status_code=202)
    reply = events.single_message() if framing == "json" or modern else None
    status = status_of(reply) if reply is not None and modern else 200
    if reply is not None and (framing == "json" or status != 200):
        return Response(reply, status, media_type="application/json; charset=utf-8")
    streams[events.name] = events

    async def stream() -> AsyncIterator[bytes]:
        try:
            async for chunk in events.sse():
                yield chunk
        finally:
            if modern and not events.closed:
                server.hang_up(events)

    return StreamingResponse(stream(), media_type="text/event-stream")


@dataclass(frozen=True)
class Session:
    """One conversation of the legacy era; `aside` is its stream for what belongs to no request."""

    server: OddLegacy
    aside: Events
    version: str
    streams: dict[str, Events]


class LegacyFront:
    """Sessions by id."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.sessions: dict[str, Session] = {}
        self.opened = 0

    async def handle(self, request: Request) -> Response:
        session_id = request.headers.get("mcp-session-id")
        body = (await request.body()).decode()
        session = self.sessions.get(session_id or "")
        if request.method == "POST" and (refusal := refuse_media_types(request)):
            return refusal
        if request.method == "POST" and '"initialize"' in body and session_id is None:
            return await self.open_session(body)
        if session_id is None:
            return rpc_error(400, -32000, "Mcp-Session-Id is required")
        if session is None:
            return rpc_error(404, -32001, "no such session")
        version = request.headers.get("mcp-protocol-version")
        if request.method != "DELETE" and version != session.version:
            return rpc_error(400, -32000, f"MCP-Protocol-Version must be {session.version}, got {version}")
        if request.method == "POST":
            return await exchange(session.server, self.framing, body, session.streams, modern=False)
        if request.method == "DELETE":
            session.aside.done()
            del self.sessions[session_id]
            return Response(status_code=204)
        if "text/event-stream" not in request.headers.get("accept", ""):
            return rpc_error(406, -32000, "a client must accept event streams")
        name, _, position = request.headers.get("last-event-id", "aside/0").rpartition("/")
        events = session.aside if name == "aside" else session.streams[name]
        return StreamingResponse(events.sse(int(position)), media_type="text/event-stream")

    async def open_session(self, body: str) -> Response:
        self.opened += 1
        session_id = f"session-{self.opened}"
        aside = Events("aside")
        server = OddLegacy(aside)
        version = json.loads(body)["params"]["protocolVersion"]
        session = self.sessions[session_id] = Session(server, aside, version, {})
        server.commands["expire"] = lambda expiring: self.expire(session_id, expiring)
        server.commands["break_off"] = break_off
        server.commands["sessions"] = lambda asked: asked.result({"opened": self.opened})
        response = await exchange(server, self.framing, body, session.streams, modern=False)
        response.headers["mcp-session-id"] = session_id
        return response

    def expire(self, session_id: str, request: OddRequest) -> None:
        """Reply, then forget the session."""
        request.result({"content": []})
        self.sessions.pop(session_id).aside.done()


def break_off(request: OddRequest) -> None:
    """Send one line of `lines`, end the response, and have the others ready for a client that resumes."""
    first, *rest = (line.replace("$ID", request.id) for line in request.arguments["lines"])
    events = request.channel
    events.say(first)
    events.channel.break_off()
    for line in rest:
        events.say(line)
    events.done()


class ModernFront:
    """One odd server; every request says in its headers what its body says."""

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.server = OddModern(Events("aside"))

    async def handle(self, request: Request) -> Response:
        if request.method != "POST":
            return Response(status_code=405)
        if refusal := refuse_media_types(request):
            return refusal
        body = (await request.body()).decode()
        message = json.loads(body)
        if mismatch := header_mismatch(request.headers, message):
            return rpc_error(400, -32020, mismatch, message.get("id"))
        return await exchange(self.server, self.framing, body, {}, modern=True)


def header_mismatch(headers: Mapping[str, str], message: Mapping[str, Any]) -> str | None:
    """How the headers of a modern request contradict its body."""
    method, params = message.get("method"), message.get("params", {})
    expected: dict[str, object] = {"mcp-method": method}
    if "id" in message and META + "protocolVersion" in params.get("_meta", {}):
        expected["mcp-protocol-version"] = params["_meta"][META + "protocolVersion"]
    if method in NAMED_BY:
        expected["mcp-name"] = params.get(NAMED_BY[method])
    if method == "tools/call" and params.get("name") == "regional":
        arguments = params.get("arguments", {})
        zone = arguments.get("zone", {}).get("number")
        expected["mcp-param-region"] = arguments.get("region")
        expected["mcp-param-zone"] = None if zone is None else str(zone)
        assert "x-mcp-header" in json.dumps(input_schema("regional"))
    for name, value in expected.items():
        if decode_header(headers.get(name)) != value:
            return f"{name} is {headers.get(name)!r}, the body says {value!r}"
    return None


def decode_header(value: str | None) -> str | None:
    if value is not None and value.startswith("=?base64?") and value.endswith("?="):
        return base64.b64decode(value[len("=?base64?") : -2]).decode()
    return value


def main() -> None:
    era, framing = sys.argv[1:]
    front = {"legacy": LegacyFront, "modern": ModernFront}[era](framing)
    app = Starlette(routes=[Route("/mcp", front.handle, methods=["GET", "POST", "DELETE"])])
    # With the protocol named, asyncio turns Nagle's algorithm off, which costs 40 ms a request.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
