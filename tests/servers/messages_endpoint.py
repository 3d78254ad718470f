"""A local server that speaks the Anthropic Messages API over HTTP, without streaming, from a script.

It refuses what the real one refuses, in the same form, so a client that asks wrongly shows.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Self

from jsonschema import Draft202012Validator, SchemaError


@dataclass(frozen=True)
class Reply:
    """What the server answers, byte for byte."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    delay_s: float = 0.0


@dataclass(frozen=True)
class Received:
    """A request that passed the server's checks."""

    headers: Mapping[str, str]
    """Names in lower case."""
    body: Any

    @property
    def prompt(self) -> Any:
        return self.body["messages"][-1]["content"]


Script = Callable[[Received], Reply]


def message(
    text: str,
    *,
    thinking: str | None = None,
    model: str = "claude-haiku-4-5-20251001",
    stop_reason: str = "end_turn",
    usage: Mapping[str, int] | None = None,
    delay_s: float = 0.0,
) -> Reply:
    """A message of the assistant; the usage is 100 tokens in and 20 out unless given."""
    content = [*_thought(thinking), {"type": "text", "text": text}]
    return _message(content, model, stop_reason, usage, delay_s)


def tool_use(
    *calls: tuple[str, str, Any],
    text: str | None = None,
    thinking: str | None = None,
    model: str = "claude-haiku-4-5-20251001",
    stop_reason: str = "tool_use",
    usage: Mapping[str, int] | None = None,
) -> Reply:
    """A message of the assistant that asks for calls: the id, the tool's name and the input of each."""
    content = [
        *_thought(thinking),
        *([{"type": "text", "text": text}] if text is not None else []),
        *({"type": "tool_use", "id": id_, "name": name, "input": input_} for id_, name, input_ in calls),
    ]
    return _message(content, model, stop_reason, usage, 0.0)


def blocks(*content: Any, stop_reason: str = "end_turn", usage: Mapping[str, int] | None = None) -> Reply:
    """A message of the assistant that is any blocks, be they ones that the API would not write."""
    return _message(list(content), "claude-haiku-4-5-20251001", stop_reason, usage, 0.0)


def _thought(thinking: str | None) -> list[Any]:
    return [{"type": "thinking", "thinking": thinking, "signature": "c2ln"}] if thinking is not None else []


def _message(
    content: list[Any], model: str, stop_reason: str, usage: Mapping[str, int] | None, delay_s: float
) -> Reply:
    body = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "service_tier": "standard",
            **({"input_tokens": 100, "output_tokens": 20} if usage is None else usage),
        },
    }
    return Reply(200, json.dumps(body).encode(), delay_s=delay_s)


def error(status: int, kind: str, words: str, **headers: str) -> Reply:
    """An error of the API, such as `error(429, "rate_limit_error", "…", retry_after="1")`."""
    body = {"type": "error", "error": {"type": kind, "message": words}, "request_id": "req_01"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {"content-type": "application/json", **named})


NOTHING_LEFT = error(400, "invalid_request_error", "the script has no further reply")


class MessagesEndpoint:
    """The server, running while the `with` block does.

    Args:
        script: Replies in order, or a function that makes one of a request, called in the thread of its
            connection. A request after the last reply is refused.
        alternating: Turns of one role in a row are refused as well, which the API takes for one turn.
    """

    def __init__(self, script: Iterable[Reply] | Script, *, alternating: bool = False) -> None:
        self._alternating = alternating
        self.received: list[Received] = []
        self.refused: list[Reply] = []
        """Replies to requests that the real API would not have taken, or that had none in the script."""
        self.closing = threading.Event()
        self._script = script if callable(script) else _in_order(iter(script))
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: Mapping[str, str], raw: bytes) -> Reply:
        refusal = self.refusal(path, headers, raw)
        if refusal is not None:
            self.refused.append(refusal)
            return refusal
        received = Received(headers, json.loads(raw))
        self.received.append(received)
        reply = self._script(received)
        if reply is NOTHING_LEFT:
            self.refused.append(reply)
        return reply

    def refusal(self, path: str, headers: Mapping[str, str], raw: bytes) -> Reply | None:
        """Return what the API says to a request that it does not take."""
        refusal = _refusal(path, headers, raw)
        if refusal is None and self._alternating:
            roles = [turn["role"] for turn in json.loads(raw)["messages"]]
            if any(role == before for before, role in pairwise(roles)):
                return error(400, "invalid_request_error", "messages: roles must alternate")
        return refusal


def _in_order(replies: Iterator[Reply]) -> Script:
    one_at_a_time = threading.Lock()

    def answer(_: Received) -> Reply:
        with one_at_a_time:
            return next(replies, NOTHING_LEFT)

    return answer


def _refusal(path: str, headers: Mapping[str, str], raw: bytes) -> Reply | None:
    def invalid(words: str) -> Reply:
        return error(400, "invalid_request_error", words)

    if path != "/v1/messages":
        return error(404, "not_found_error", f"{path} is not there")
    if not (headers.get("x-api-key") or headers.get("authorization", "").startswith("Bearer ")):
        return error(401, "authentication_error", "x-api-key header is required")
    if "anthropic-version" not in headers:
        return invalid("anthropic-version: header is required")
    try:
        body = json.loads(raw)
    except ValueError:
        return invalid("the body is not JSON")
    match body:
        case {"model": str(), "max_tokens": int(most), "messages": [{"role": "user"}, *_] as messages}:
            if most < 1:
                return invalid("max_tokens: must be at least 1")
        case _:
            return invalid("model, max_tokens and messages are required, the first of the user")
    if body.get("stream"):
        return invalid("stream: this endpoint does not stream")
    try:
        _check_tools(body.get("tools", []))
        _check_texts("system", body.get("system", "x"))
        _check_messages(messages, bool(body.get("tools")))
        _check_breakpoints(body)
    except Refused as refused:
        return invalid(str(refused))
    return None


class Refused(Exception):
    """What the API says of a body that it does not take."""


def _check_tools(tools: list[Any]) -> None:
    names: set[str] = set()
    for number, tool in enumerate(tools):
        at = f"tools.{number}.custom"
        if not (isinstance(tool.get("name"), str) and re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool["name"])):
            raise Refused(f"{at}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if tool["name"] in names:
            raise Refused("tools: Tool names must be unique.")
        names.add(tool["name"])
        if set(tool) - {"name", "description", "input_schema", "cache_control", "type"}:
            raise Refused(f"{at}: Extra inputs are not permitted")
        if not isinstance(tool.get("description", ""), str):
            raise Refused(f"{at}.description: Input should be a valid string")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise Refused(f"{at}.input_schema.type: Input should be 'object'")
        if {"anyOf", "oneOf", "allOf"} & set(schema):
            words = "input_schema does not support oneOf, allOf, or anyOf at the top level"
            raise Refused(f"{at}.input_schema: {words}")
        for name in schema.get("properties", {}):
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                words = "Property keys should match pattern '^[a-zA-Z0-9_.-]{1,64}$'"
                raise Refused(f"{at}.input_schema.properties: {words}")
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            words = "JSON schema is invalid. It must match JSON Schema draft 2020-12"
            raise Refused(f"{at}.input_schema: {words}") from error


def _check_messages(messages: list[Any], tools_offered: bool) -> None:
    """Check each block, and that calls are answered at once, each and once, before anything else is said."""
    asked: list[str] = []
    ids: set[str] = set()
    for number, (role, content) in enumerate(_turns(messages)):
        at = f"messages.{number}"
        _check_texts(at, content)
        blocks = content if isinstance(content, list) else []
        answered = []
        for place, block in enumerate(blocks):
            match role, block:
                case "user", {"type": "tool_result", "tool_use_id": str(identifier)}:
                    answered.append(identifier)
                    if len(answered) <= place:
                        raise Refused(f"{at}: `tool_result` blocks must come first")
                    _check_result(f"{at}.content.{place}", block)
                case "assistant", {"type": "tool_use", "id": str(identifier), "name": str(name)}:
                    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
                        raise Refused(f"{at}.content.{place}.tool_use.name: String should match pattern")
                    if not isinstance(block.get("input"), dict):
                        words = "Input should be a valid dictionary"
                        raise Refused(f"{at}.content.{place}.tool_use.input: {words}")
                    if identifier in ids:
                        raise Refused(f"{at}: `tool_use` ids must be unique")
                    ids.add(identifier)
                case ("user", {"type": "image"}) | (_, {"type": "text"}):
                    pass
                case "assistant", {"type": "thinking", "thinking": str(), "signature": str()}:
                    if place == len(blocks) - 1:
                        raise Refused(f"{at}: The final block in an assistant message cannot be `thinking`.")
                case _:
                    raise Refused(
                        f"{at}.content.{place}: a block of type {block.get('type')} from the {role}"
                    )
        if missing := [identifier for identifier in asked if identifier not in answered]:
            raise Refused(
                f"{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}"
            )
        if len(answered) > len(set(answered)) or set(answered) - set(asked):
            raise Refused(f"{at}: unexpected `tool_use_id` found in `tool_result` blocks: {answered}")
        asked = [block["id"] for block in blocks if block.get("type") == "tool_use"]
    if ids and not tools_offered:
        raise Refused("Requests which include `tool_use` or `tool_result` blocks must define tools")
    if asked:
        raise Refused("the last message asks for calls, which only answers can follow")


def _turns(messages: list[Any]) -> list[tuple[str, Any]]:
    """Return the messages with those in a row of one role combined, as the API does."""
    turns: list[tuple[str, Any]] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        if role not in ("user", "assistant"):
            raise Refused("messages: role must be user or assistant")
        if turns and turns[-1][0] == role:
            parts = [
                [{"type": "text", "text": part}] if isinstance(part, str) else part
                for part in (turns[-1][1], content)
            ]
            turns[-1] = (role, [*parts[0], *parts[1]])
        else:
            turns.append((role, content))
    return turns


def _check_result(at: str, block: Any) -> None:
    for part in block.get("content", []):
        if block.get("is_error") and part["type"] != "text":
            raise Refused(f"{at}.tool_result: all content must be type 'text' if 'is_error' is true")
        match part:
            case {"type": "text", "text": str(text)} if text.strip():
                pass
            case {"type": "image", "source": {"type": "base64", "media_type": kind, "data": str(data)}}:
                _check_image(at, kind, data)
            case _:
                raise Refused(f"{at}.tool_result: text content blocks must be non-empty, got {part}")


def _check_image(at: str, kind: str, data: str) -> None:
    magic = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8", "image/gif": b"GIF8", "image/webp": b"RIFF"}
    try:
        image = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise Refused(f"{at}.image.source.base64: invalid base64 data") from error
    if kind not in magic or not image.startswith(magic[kind]):
        raise Refused(f"{at}.image.source.base64.data: The image was specified using {kind}, but is none")
    if b"broken" in image:
        raise Refused("Could not process image")


def _check_texts(at: str, content: Any) -> None:
    if not content:
        raise Refused(f"{at}: text content blocks must be non-empty")
    for block in content if isinstance(content, list) else []:
        if block.get("type") == "text" and not (isinstance(block.get("text"), str) and block["text"].strip()):
            raise Refused(f"{at}: text content blocks must contain non-whitespace text")


def _check_breakpoints(body: Any) -> None:
    messages = [turn["content"] for turn in body["messages"] if isinstance(turn["content"], list)]
    system = body.get("system", [])
    blocks = [*body.get("tools", []), *(system if isinstance(system, list) else [])]
    for content in messages:
        blocks += content
    marks = [block["cache_control"] for block in blocks if "cache_control" in block]
    if any(mark.get("type") != "ephemeral" for mark in marks):
        raise Refused("cache_control.type: Input should be 'ephemeral'")
    if len(marks) > 4:
        words = "A maximum of 4 blocks with cache_control may be provided."
        raise Refused(f"{words} Found {len(marks)}.")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that is killed, or gives up, is none of our troubles.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        endpoint: MessagesEndpoint = self.server.endpoint  # type: ignore[attr-defined]
        raw = self.rfile.read(int(self.headers["content-length"]))
        reply = endpoint.answer(self.path, {name.lower(): text for name, text in self.headers.items()}, raw)
        endpoint.closing.wait(reply.delay_s)
        try:
            self.send_response(reply.status)
            for name, value in {"request-id": "req_01", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
        except ConnectionError:
            self.close_connection = True  # the client gave up waiting

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""
