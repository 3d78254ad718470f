"""A local server that speaks the Anthropic Messages API over HTTP, without streaming, from a script.

It refuses what the real one refuses, in the same form, so a client that asks wrongly shows.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


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
    thought = (
        [{"type": "thinking", "thinking": thinking, "signature": "c2ln"}] if thinking is not None else []
    )
    body = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [*thought, {"type": "text", "text": text}],
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
    """

    def __init__(self, script: Iterable[Reply] | Script) -> None:
        self.received: list[Received] = []
        self.refused: list[Reply] = []
        """Replies to requests that the real API would not have taken, or that had none in the script."""
        self.closing = threading.Event()
        self._script = script if callable(script) else _in_order(iter(script))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
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
        refusal = _refusal(path, headers, raw)
        if refusal is not None:
            self.refused.append(refusal)
            return refusal
        received = Received(headers, json.loads(raw))
        self.received.append(received)
        reply = self._script(received)
        if reply is NOTHING_LEFT:
            self.refused.append(reply)
        return reply


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
    texts = [body.get("system", "x"), *(turn.get("content") for turn in messages)]
    if not all(texts):
        return invalid("text content blocks must be non-empty")
    return None


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
