"""`firefly-proxy replay`: an MCP server that answers from a recording alone.

It reads and writes plain JSON-RPC rather than through the SDK's server, whose standard-input loop settles
on a protocol era with the first request and then refuses a client that probes for the other one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recorder.canonical import readable_json
from recorder.exchange import RpcError
from recorder.frame import Message, as_object, is_message
from recorder.handshake import LIST_METHODS, PROTOCOL_VERSION_META, SERVER_INFO_META
from recorder.session import Server, Session
from replayer.nearest import compared, shown
from replayer.replayer import Replayer
from replayer.session import Answer, Miss, Rejected

REPLAY_META = "io.firefly/replay"
"""The `_meta` key that tells where an answer is from: out of the model's sight."""

SUBSCRIPTION_META = "io.modelcontextprotocol/subscriptionId"

HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSION = "2026-07-28"

NOT_RECORDED = -32010
"""JSON-RPC error code of a miss; of the range that the specification leaves to implementations."""

PROGRESS_PAUSE_S = 0.01
"""Between a progress note and what follows it: read in one piece with its reply, the TypeScript SDK's client
takes the note for one about an unknown request."""

PARSE_ERROR, INVALID_REQUEST = -32700, -32600

CACHEABLE = {*LIST_METHODS, "resources/read", "server/discover"}
"""Methods whose results say, in the 2026-07-28 era, how long they may be kept."""

UNRECORDED = ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe")
"""Methods answered with an empty result though they were not recorded: they change nothing that replays."""


class ReplayServer:
    """One client's conversation with a recording.

    Args:
        sessions: The sessions with the server that is stood in for, and its part in each; earliest first.
        group: The task and start state of the conversation; `None` where it is not known.
    """

    def __init__(
        self, replayer: Replayer, sessions: list[tuple[Session, Server]], group: str | None = None
    ) -> None:
        self._store = replayer.store
        self._servers = [server for _, server in sessions]
        self._session = replayer.session(group)
        self._name = self._servers[0].name

    def handle_line(self, line: bytes) -> Iterator[Message | list[Message]]:
        """Answer one line of the client's; yields the messages to send, in order."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield _error(None, PARSE_ERROR, f"not JSON: {error}")
            return
        if isinstance(value, list) and value:
            replies = [reply for item in value for reply in self.handle(item)]
            if replies:
                yield replies
            return
        try:
            yield from self.handle(value)
        except RecursionError:
            request_id = value.get("id") if isinstance(value, dict) else None
            yield _error(
                request_id, INVALID_REQUEST, "the request, or its recorded answer, is nested too deep"
            )

    def handle(self, message: object) -> Iterator[Message]:
        """Answer one message: notifications about a request first, then its reply. Only requests have any."""
        if not is_message(message):
            yield _error(None, INVALID_REQUEST, "not a JSON-RPC message")
            return
        assert isinstance(message, dict)
        if "method" not in message or "id" not in message:
            return
        method, request_id = message["method"], message["id"]
        if not isinstance(method, str):
            yield _error(request_id, INVALID_REQUEST, "the method must be a string")
            return
        params = as_object(message.get("params"))
        modern = PROTOCOL_VERSION_META in as_object(params.get("_meta"))
        if method == "initialize":
            yield _result(request_id, self._initialize(params))
        elif method == "server/discover":
            yield _result(request_id, self._discover())
        elif method == "subscriptions/listen":
            yield _acknowledgement(request_id, params)
        else:
            yield from self._ask(request_id, method, params, modern)

    def _initialize(self, params: Message) -> dict[str, Any]:
        """Return the recorded handshake, or one made of what a modern server said of itself.

        The version is the client's if it is an older one than the recorded: servers speak those too.
        """
        server = self._introduced("legacy")
        recorded = server.protocol_version if server.era == "legacy" else None
        recorded = recorded or HANDSHAKE_VERSIONS[-1]
        wanted = params.get("protocolVersion")
        version = min(wanted, recorded) if wanted in HANDSHAKE_VERSIONS else recorded
        return {
            **self._recorded_result("initialize", server),
            "protocolVersion": version,
            "capabilities": as_object(server.capabilities) or {"tools": {}},
            "serverInfo": server.info or {"name": self._name, "version": "recorded"},
            **({"instructions": server.instructions} if server.instructions is not None else {}),
        }

    def _discover(self) -> dict[str, Any]:
        server = self._introduced("modern")
        recorded = self._recorded_result("server/discover", server)
        made = {
            "supportedVersions": [MODERN_VERSION],
            "capabilities": as_object(server.capabilities) or {"tools": {}},
            **({"instructions": server.instructions} if server.instructions is not None else {}),
            "_meta": {SERVER_INFO_META: server.info or {"name": self._name, "version": "recorded"}},
        }
        return _for_modern("server/discover", {**made, **recorded})

    def _introduced(self, era: str) -> Server:
        """Return the earliest recorded server that spoke this era; else one that spoke the other."""
        speaking = [server for server in self._servers if server.era is not None]
        same_era = [server for server in speaking if server.era == era]
        return next(iter([*same_era, *speaking, *self._servers]))

    def _recorded_result(self, method: str, server: Server) -> dict[str, Any]:
        for exchange in self._store.exchanges(session_id=server.session_id, method=method):
            result = getattr(exchange.outcome, "result", None)
            if exchange.server == server.name and isinstance(result, dict):
                return dict(result)
        return {}

    def _ask(self, request_id: object, method: str, params: Message, modern: bool) -> Iterator[Message]:
        made = method in UNRECORDED or method == "tools/list"
        answer = self._session.ask(self._name, method, params, quiet=made)
        if isinstance(answer, Answer):
            yield from self._answer(request_id, method, params, modern, answer)
        elif method in UNRECORDED:
            yield _result(request_id, _for_modern(method, {}) if modern else {})
        elif method == "tools/list" and "cursor" not in params and (tools := self._tools()):
            result = {"tools": tools}
            yield _result(request_id, _for_modern(method, result) if modern else result)
        else:
            yield self._miss(request_id, method, params, modern, answer)

    def _tools(self) -> list[dict[str, Any]]:
        """Return the tools of a recording in which nobody listed them: those imported, and those called."""
        newest = {tool.name: tool.entry for tool in self._store.tools(self._name)}
        called = {tool.name for tool in self._store.call_counts() if tool.server == self._name}
        return [_listed(name, newest.get(name, {})) for name in [*newest, *sorted(called - newest.keys())]]

    def _answer(
        self, request_id: object, method: str, params: Message, modern: bool, answer: Answer
    ) -> Iterator[Message]:
        token = as_object(params.get("_meta")).get("progressToken")
        if token is not None and answer.exchange is not None:
            for note in self._store.progress(self._store.exchange(answer.exchange.id)):
                yield {
                    "jsonrpc": "2.0",
                    "method": "notifications/progress",
                    "params": {**note, "progressToken": token},
                }
        outcome, exchange = answer.outcome, answer.exchange
        source = {
            "tier": answer.tier,
            "score": answer.score,
            "trust": answer.trust,
            "source": exchange and {"session": exchange.session_id, "exchange": exchange.id},
        }
        if isinstance(outcome, RpcError):
            yield {"jsonrpc": "2.0", "id": request_id, "error": _with_meta(outcome.error, source)}
            return
        result = outcome.result
        if isinstance(result, dict):
            if not modern and result.get("resultType") == "input_required":
                reason = "the recorded server asked for input, which only a client of 2026-07-28 can give"
                yield self._miss(request_id, method, params, modern, Miss((answer.tier,)), reason)
                return
            result = _for_modern(method, result) if modern else _for_legacy(result)
        yield {"jsonrpc": "2.0", "id": request_id, "result": _with_meta(result, source)}

    def _miss(
        self, request_id: object, method: str, params: Message, modern: bool, miss: Miss, reason: str = ""
    ) -> Message:
        name = params.get("name")
        if method == "tools/call":
            arguments = as_object(compared(method, params))
            asked = f"{self._name}/{name}({shown(arguments)})"
        else:
            asked = f"{self._name} {method} {shown(compared(method, params))}"
        lines = [f"no recorded answer for {asked} (tiers tried: {', '.join(miss.tiers)})"]
        if miss.rejected is not None:
            lines.append(f"what was found is not trusted enough: {_rejected(miss.rejected)}")
        if reason:
            lines.append(reason)
        if miss.nearest:
            lines.append(
                "nearest recorded calls:" if method == "tools/call" else "nearest recorded requests:"
            )
        for near in miss.nearest:
            request = (
                str(near.exchange.call)
                if near.exchange.call
                else shown(compared(method, near.exchange.params))
            )
            lines.append(f"  {request[:400]}")
            lines += [f"    differs at {difference}" for difference in near.differences[:5]]
        if not miss.nearest and not reason:
            lines.append(
                f"nothing is recorded for {'this tool' if method == 'tools/call' else 'this method'}"
            )
        text = "\n".join(lines)
        detail = {
            "tier": None,
            "score": 0.0,
            "trust": miss.rejected and miss.rejected.trust,
            "source": None,
            "tiers_tried": list(miss.tiers),
            "nearest": [near.as_json() for near in miss.nearest],
        }
        if method == "tools/call":
            result = {"content": [{"type": "text", "text": text}], "isError": True}
            return _result(request_id, _with_meta(_for_modern(method, result) if modern else result, detail))
        error = {"code": NOT_RECORDED, "message": text, "data": {"reason": "not_recorded", **detail}}
        return {"jsonrpc": "2.0", "id": request_id, "error": error}


def serve(server: ReplayServer, lines: Iterable[bytes]) -> None:
    """Answer lines until they end; on standard output, one message a line."""
    out = sys.stdout.buffer
    noted = False
    try:
        for line in lines:
            if line.strip():
                for message in server.handle_line(line):
                    if noted:
                        time.sleep(PROGRESS_PAUSE_S)
                    noted = isinstance(message, dict) and "method" in message
                    out.write(readable_json(message).encode() + b"\n")
                    out.flush()
    except BrokenPipeError:
        # The client went away; what is left in the buffer has no reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def _for_modern(method: str, result: dict[str, Any]) -> dict[str, Any]:
    """Add what a 2026-07-28 client requires of a result, where it is not there."""
    caching = {"ttlMs": 0, "cacheScope": "private"} if method in CACHEABLE else {}
    return {"resultType": "complete", **caching, **result}


def _for_legacy(result: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only a 2026-07-28 client knows."""
    if result.get("resultType") != "complete":
        return result
    return {key: value for key, value in result.items() if key not in ("resultType", "ttlMs", "cacheScope")}


def _with_meta(value: Any, source: dict[str, Any]) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("_meta", {}), dict):
        return value
    return {**value, "_meta": {**as_object(value.get("_meta")), REPLAY_META: source}}


def _listed(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool's entry as a client accepts it: without null members, its input an object."""
    listed = {field: value for field, value in entry.items() if value is not None}
    schema = listed.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        # Imported schemas may be of a dialect; what they say of properties is kept.
        listed["inputSchema"] = {**(schema if isinstance(schema, dict) else {}), "type": "object"}
    return {"name": name, **listed}


def _rejected(rejected: Rejected) -> str:
    trust = "not measured" if rejected.trust is None else f"{rejected.trust:.2f}"
    return f"{rejected.tier} tier, trust {trust}, exchange {rejected.exchange_id}"


def _acknowledgement(request_id: object, params: Message) -> Message:
    """Open a subscription; nothing will ever be announced on it."""
    return {
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {
            "notifications": as_object(params.get("notifications")),
            "_meta": {SUBSCRIPTION_META: request_id},
        },
    }


def _result(request_id: object, result: object) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _error(request_id: object, code: int, message: str) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
