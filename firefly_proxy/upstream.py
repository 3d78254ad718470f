"""A streamable HTTP server as a stream of lines: one line in is one POST, and each message back is one line.

The messages themselves are not touched. The SDK's own client transport is not used, since it reads each
message into a model, which drops fields and whole messages that the model does not know.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
import httpx2
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    mcp_param_headers,
    x_mcp_header_map,
)

from recorder.canonical import readable_json
from recorder.frame import Frame, Message, as_object, read_line
from recorder.handshake import PROTOCOL_VERSION_META

logger = logging.getLogger(__name__)

SESSION_HEADER = "mcp-session-id"
LAST_EVENT_HEADER = "last-event-id"

CONNECT_TIMEOUT_S = 30.0
"""To connect, to send, and to get a connection; an answer may take as long as its client waits."""

RECONNECT_DELAY_S = 1.0
"""Wait before resuming a broken event stream, where the server names none."""

MIN_RECONNECT_DELAY_S = 0.01

RECONNECT_ATTEMPTS = 3

CLOSE_TIMEOUT_S = 2.0

INVALID_REQUEST, METHOD_NOT_FOUND, INTERNAL_ERROR, CONNECTION_CLOSED = -32600, -32601, -32603, -32000


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Who gets what a server says, and what stands in for an answer that will not come."""

    deliver: Callable[[bytes], Awaitable[None]]
    report: Callable[[bytes], Awaitable[None]]

    async def fail(self, frame: Frame, code: int, message: str, **data: object) -> None:
        error = {"code": code, "message": message, **({"data": data} if data else {})}
        await self.report(_line({"jsonrpc": "2.0", "id": frame.message["id"], "error": error}))


async def _drop(_: bytes) -> None:
    """Nobody waits for the answer to what we asked ourselves."""


_NOBODY = _Receiver(_drop, _drop)


@dataclass(slots=True)
class _Events:
    """Where an event stream stands, so that it can be taken up again."""

    last_id: str | None = None
    delay_s: float = RECONNECT_DELAY_S


@dataclass(slots=True)
class _Session:
    """What the handshake of a legacy server settled; empty before, and in the 2026-07-28 era."""

    id: str | None = None
    version: str | None = None
    initialize: Frame | None = None
    initialized: Frame | None = None
    listener: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class HttpUpstream:
    """One client's connection to a server.

    Args:
        headers: Sent with every request, besides those of the protocol.
        deliver: Takes each line that the server sends.
        report: Takes each line that stands in for an answer that will not come, and says why.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        deliver: Callable[[bytes], Awaitable[None]],
        report: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._url = httpx2.URL(url)
        self._to = _Receiver(deliver, report)
        timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=None)
        # Each request in flight holds a connection, and so may any number of subscriptions.
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.AsyncClient(headers=dict(headers), timeout=timeout, limits=limits)
        self._session = _Session()
        self._expired = anyio.Lock()
        self._parameter_headers: dict[str, dict[tuple[str, ...], str]] = {}
        self._in_flight: dict[str, anyio.CancelScope] = {}
        self._cancelled: set[str] = set()

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Send lines until they end, then wait for the answers still owed."""
        async with self._client:
            try:
                async with anyio.create_task_group() as self._listeners:
                    async with anyio.create_task_group() as requests:
                        async for line in lines:
                            await self._send(line, requests)
                    self._listeners.cancel_scope.cancel()
            finally:
                await self._close()

    async def _send(self, line: bytes, requests: anyio.abc.TaskGroup) -> None:
        for frame in read_line(line):
            if frame.kind == "request":
                scope = anyio.CancelScope()
                self._in_flight[_id_text(frame.message)] = scope
                if frame.method == "initialize":
                    self._session.listener.cancel()
                    self._session = _Session(initialize=frame)
                    # What follows needs the session that this begins, even from a client that does not wait.
                    await self._request(frame, scope)
                else:
                    requests.start_soon(self._request, frame, scope)
            elif frame.method == "notifications/cancelled" and self._is_modern(frame):
                # In the 2026-07-28 era, closing the stream of a request is how it is cancelled.
                if in_flight := self._in_flight.get(json.dumps(frame.params.get("requestId"))):
                    in_flight.cancel()
            else:
                if frame.method == "notifications/cancelled":
                    self._cancelled |= {json.dumps(frame.params.get("requestId"))} & self._in_flight.keys()
                await self._notify(frame)
                if frame.method == "notifications/initialized":
                    self._session.initialized = frame
                    self._listeners.start_soon(self._listen, self._session)

    def _is_modern(self, frame: Frame) -> bool:
        return (
            PROTOCOL_VERSION_META in as_object(frame.params.get("_meta")) or self._session.initialize is None
        )

    async def _request(self, frame: Frame, scope: anyio.CancelScope) -> None:
        request_id = _id_text(frame.message)
        try:
            with scope:
                session = self._session
                if not await self._post(frame, session, self._to):
                    await self._renew(session)
                    if not await self._post(frame, self._session, self._to):
                        await self._to.fail(frame, INVALID_REQUEST, "Session terminated")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            await self._to.fail(
                frame, CONNECTION_CLOSED, f"{_without_secrets(self._url)} cannot be reached: {_words(error)}"
            )
        finally:
            if self._in_flight.get(request_id) is scope:
                del self._in_flight[request_id]
                self._cancelled.discard(request_id)

    async def _notify(self, frame: Frame) -> None:
        """Send what needs no answer; that it could not be sent is logged."""
        try:
            with anyio.fail_after(CONNECT_TIMEOUT_S):
                await self._post_notification(frame)
        except (httpx2.HTTPError, TimeoutError) as error:
            logger.warning("%s was not sent: %s", frame.method, _words(error))

    async def _post_notification(self, frame: Frame) -> None:
        async with self._open("POST", self._headers(frame), frame.text) as response:
            if response.status_code >= 400:
                logger.warning("%s answered %s to %s", self._url, response.status_code, frame.method)

    async def _post(self, frame: Frame, session: _Session, to: _Receiver) -> bool:
        """Send a request and deliver all that comes back; `False` if the server forgot our session."""
        async with self._open("POST", self._headers(frame), frame.text) as response:
            status, kind = response.status_code, _content_type(response)
            if status >= 300:
                return await self._refused(frame, session, response, to)
            if frame.method == "initialize":
                session.id = response.headers.get(SESSION_HEADER)
            if kind == "text/event-stream":
                await self._events(frame, response, to)
            elif kind == "application/json":
                await self._whole_message(frame, (await response.aread()).decode("utf-8-sig", "replace"), to)
            elif status == 202:
                await to.fail(frame, INVALID_REQUEST, "server answered a request with 202 Accepted")
            else:
                await to.fail(frame, INVALID_REQUEST, f"Unexpected content type: {kind}")
        return True

    async def _refused(
        self, frame: Frame, session: _Session, response: httpx2.Response, to: _Receiver
    ) -> bool:
        """Deliver the error in the body, or one made of the status with the words of the SDK's client."""
        body = (await response.aread()).decode("utf-8", "replace")
        reply = _error_reply(body)
        status = response.status_code
        code = as_object(reply.get("error")).get("code")
        if status == 404 and session.id is not None and code != METHOD_NOT_FOUND:
            return False
        if reply and _id_text(reply) != _id_text(frame.message):
            # Refused before its id was read: a client on stdio could not tell what this answers.
            await to.deliver(_line({**reply, "id": frame.message["id"]}))
        elif reply:
            await to.deliver(_one_line(body))
        elif status == 404:
            await to.fail(frame, METHOD_NOT_FOUND, "Not Found", status=status, body=body[:500])
        elif status < 400:
            location = response.headers.get("location")
            await to.fail(frame, INVALID_REQUEST, f"Redirect to {location} not followed", status=status)
        else:
            message = "Server returned an error response"
            await to.fail(frame, INTERNAL_ERROR, message, status=status, body=body[:500])
        return True

    async def _events(self, frame: Frame, response: httpx2.Response, to: _Receiver) -> None:
        """Deliver an event stream up to the answer, taking it up again where it breaks off."""
        events = _Events()
        if await self._read_events(frame, response, events, to):
            return
        for _ in range(RECONNECT_ATTEMPTS):
            if _id_text(frame.message) in self._cancelled:
                return  # a legacy server may end the stream of a request that it was told to drop
            if events.last_id is None:
                break
            await anyio.sleep(events.delay_s)
            headers = self._headers(None) | {LAST_EVENT_HEADER: events.last_id}
            try:
                async with self._open("GET", headers) as resumed:
                    if resumed.status_code == 200 and await self._read_events(frame, resumed, events, to):
                        return
            except httpx2.HTTPError as error:
                logger.info("the stream was not resumed: %s", _words(error))
        await to.fail(frame, CONNECTION_CLOSED, "SSE stream ended without a response")

    async def _read_events(
        self, frame: Frame | None, response: httpx2.Response, events: _Events, to: _Receiver
    ) -> bool:
        """Deliver events until they end; say whether the answer to `frame` was among them.

        What follows the answer on its stream is for the client, too.
        """
        answered = False
        try:
            async for event in httpx2.EventSource(response, max_event_size=None):
                if event.id and event.id.isascii():
                    events.last_id = event.id
                if event.retry is not None:
                    events.delay_s = max(event.retry / 1000, MIN_RECONNECT_DELAY_S)
                if event.event == "message" and event.data:
                    answered |= await self._message(frame, event.data, to)
        except httpx2.HTTPError as error:
            logger.info("an event stream broke off: %s", _words(error))
        return answered

    async def _message(self, frame: Frame | None, text: str, to: _Receiver) -> bool:
        """Deliver what the server sent, on one line; say whether it answers `frame`."""
        line = _one_line(text)
        answers = False
        for reply in read_line(line) if frame is not None else ():
            assert frame is not None
            if reply.kind == "response" and _id_text(reply.message) == _id_text(frame.message):
                answers = True
                self._learn(frame, as_object(reply.message.get("result")))
        await to.deliver(line)
        return answers

    async def _whole_message(self, frame: Frame, text: str, to: _Receiver) -> None:
        """Deliver a body that is the answer; one that is no message at all is a failure."""
        if read_line(_one_line(text))[0].kind == "noise":
            await to.fail(frame, INVALID_REQUEST, "the answer is not JSON-RPC", body=text[:500])
        else:
            await self._message(frame, text, to)

    def _learn(self, frame: Frame, result: Mapping[str, Any]) -> None:
        """Keep what later requests must repeat in their headers."""
        if frame.method == "initialize":
            version = result.get("protocolVersion")
            self._session.version = version if isinstance(version, str) else None
        elif frame.method == "tools/list":
            tools = result.get("tools")
            for tool in map(as_object, tools if isinstance(tools, list) else ()):
                self._parameter_headers[str(tool.get("name"))] = x_mcp_header_map(tool.get("inputSchema"))

    async def _listen(self, session: _Session) -> None:
        """Deliver what the server sends of its own accord, as long as its session lasts."""
        events = _Events()
        failures = 0
        with session.listener:
            while session.id is not None and failures < RECONNECT_ATTEMPTS:
                headers = self._headers(None)
                if events.last_id is not None:
                    headers[LAST_EVENT_HEADER] = events.last_id
                try:
                    async with self._open("GET", headers) as response:
                        if response.status_code in (404, 405):
                            return
                        failures = failures + 1 if response.status_code != 200 else 0
                        if response.status_code == 200:
                            await self._read_events(None, response, events, self._to)
                except httpx2.HTTPError as error:
                    failures += 1
                    logger.info("the server's own stream broke off: %s", _words(error))
                await anyio.sleep(events.delay_s)

    async def _renew(self, expired: _Session) -> None:
        """Shake hands anew for a session that the server forgot; once, for all requests that find out."""
        async with self._expired:
            if self._session is not expired or expired.initialize is None:
                return
            logger.warning("%s ended its session; starting another", self._url)
            expired.listener.cancel()
            self._session = renewed = _Session(initialize=expired.initialize)
            try:
                await self._post(expired.initialize, renewed, _NOBODY)
            finally:
                if renewed.version is None:
                    self._session = expired
            if renewed.version is not None and expired.initialized:
                await self._notify(expired.initialized)
                renewed.initialized = expired.initialized
                self._listeners.start_soon(self._listen, renewed)

    def _headers(self, frame: Frame | None) -> dict[str, str]:
        """Return the protocol's headers, which in the 2026-07-28 era repeat what the message says."""
        headers = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        if frame is None:
            headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        if self._session.id is not None:
            headers[SESSION_HEADER] = self._session.id
        params = frame.params if frame is not None else {}
        version = as_object(params.get("_meta")).get(PROTOCOL_VERSION_META)
        if frame is None or not isinstance(version, str):
            if self._session.version is not None:
                headers[MCP_PROTOCOL_VERSION_HEADER] = self._session.version
            return headers
        method = frame.method or ""
        headers[MCP_PROTOCOL_VERSION_HEADER] = encode_header_value(version)
        headers[MCP_METHOD_HEADER] = encode_header_value(method)
        self._session.version = version  # for notifications, which need not say it
        name = params.get(NAME_BEARING_METHODS.get(method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        if method == "tools/call" and isinstance(name, str):
            parameters = self._parameter_headers.get(name, {})
            headers |= mcp_param_headers(parameters, as_object(params.get("arguments")))
        return headers

    @asynccontextmanager
    async def _open(
        self, method: str, headers: Mapping[str, str], body: str | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Send a request; follow one redirect that stays with the server and keeps the method."""
        content = None if body is None else body.encode()
        async with self._client.stream(method, self._url, headers=headers, content=content) as response:
            location = response.headers.get("location")
            if response.status_code not in (307, 308) or location is None:
                yield response
                return
            target = self._url.join(location)
            if (target.scheme, target.host, target.port) != (
                self._url.scheme,
                self._url.host,
                self._url.port,
            ):
                yield response
                return
        self._url = target
        async with self._client.stream(method, target, headers=headers, content=content) as response:
            yield response

    async def _close(self) -> None:
        """End the session with the server, politely and briefly."""
        if self._session.id is None:
            return
        with anyio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            try:
                await self._client.delete(self._url, headers=self._headers(None))
            except httpx2.HTTPError as error:
                logger.info("the session was not ended: %s", _words(error))


def _error_reply(body: str) -> Message:
    """Return the JSON-RPC error in a body; empty if it holds none."""
    try:
        reply = as_object(json.loads(body))
    except (ValueError, RecursionError):
        return {}
    return reply if isinstance(reply.get("error"), dict) else {}


def _id_text(message: Message) -> str:
    """Return a message's id as JSON, which keeps `7` and `"7"` apart."""
    return json.dumps(message.get("id"))


def _one_line(text: str) -> bytes:
    """Return a message on one line. White space between tokens may hold line ends; a string cannot."""
    return text.replace("\r", " ").replace("\n", " ").encode() + b"\n"


def _without_secrets(url: httpx2.URL) -> httpx2.URL:
    return url.copy_with(userinfo=b"", query=None, fragment="")


def _content_type(response: httpx2.Response) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0]
    return str(kind).strip().lower()


def _line(message: Mapping[str, Any]) -> bytes:
    return readable_json(message).encode() + b"\n"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
