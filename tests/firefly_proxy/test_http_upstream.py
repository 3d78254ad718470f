"""An HTTP server that answers badly costs its client one error, and nobody the session."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.promise.conversation import FIREFLY, Conversation, show

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "bad", "version": "1"}}
Reply = tuple[int, str, bytes]
"""Status, content type and body."""


class BadServer(ThreadingHTTPServer):
    """Answers POSTs with what `answer` says; by default a handshake and an echo of each method."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[dict[str, Any]], Reply | None] = lambda message: None
        self.sessions = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/mcp"


class _Handler(BaseHTTPRequestHandler):
    server: BadServer

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        reply = self.server.answer(message) or (200, "application/json", self._usual(message))
        status, kind, body = reply
        self.send_response(202 if "id" not in message else status)
        if message.get("method") == "initialize" and status == 200:
            self.server.sessions += 1
            self.send_header("mcp-session-id", f"session {self.server.sessions}")
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _usual(self, message: dict[str, Any]) -> bytes:
        result = HELLO if message["method"] == "initialize" else {"method": message["method"]}
        return json.dumps({"jsonrpc": "2.0", "id": message.get("id"), "result": result}).encode()

    def do_GET(self) -> None:
        self.send_error(405)

    def do_DELETE(self) -> None:
        self.send_error(405)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[BadServer]:
    with BadServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "session.db"


def recorded(server: BadServer, db: Path) -> Conversation:
    return Conversation([*FIREFLY, "record", "--db", str(db), "--url", server.url])


def only(method: str, reply: Reply) -> Callable[[dict[str, Any]], Reply | None]:
    return lambda message: reply if message["method"] == method else None


@pytest.mark.parametrize(
    "reply",
    [
        (200, "application/json", b""),
        (200, "application/json", b"hello"),
        (200, "application/json", b"{}"),
        (204, "application/json", b""),
        (500, "application/json", b"[" * 100_000),
        (502, "text/html", b"<html>bad gateway</html>"),
    ],
    ids=["empty", "text", "no message", "no content", "too deep", "a page"],
)
def test_a_body_that_answers_nothing_becomes_an_error(server: BadServer, db: Path, reply: Reply) -> None:
    server.answer = only("x/bad", reply)
    with recorded(server, db) as client:
        client.initialize()
        assert "error" in client.ask("x/bad")
        assert client.ask("x/good")["result"] == {"method": "x/good"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("x/latin", '{"jsonrpc":"2.0","id":2,"result":"café"}'.encode("latin-1")),
        ("x/bom", b'\xef\xbb\xbf{"jsonrpc":"2.0","id":2,"result":1}'),
        ("tools/list", b'{"jsonrpc":"2.0","id":2,"result":{"tools":7}}'),
    ],
)
def test_an_odd_answer_is_passed_on(server: BadServer, db: Path, method: str, body: bytes) -> None:
    server.answer = only(method, (200, "application/json", body))
    with recorded(server, db) as client:
        client.initialize()
        assert "result" in client.ask(method)
        assert client.ask("x/good")["result"] == {"method": "x/good"}


def test_a_method_outside_ascii_reaches_a_modern_server(server: BadServer, db: Path) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    with recorded(server, db) as client:
        assert client.ask("x/é", {"_meta": meta})["result"] == {"method": "x/é"}


def test_a_renewal_that_fails_leaves_the_session_to_be_renewed_later(server: BadServer, db: Path) -> None:
    healthy = threading.Event()
    expired = threading.Event()

    def answer(message: dict[str, Any]) -> Reply | None:
        if not expired.is_set() or healthy.is_set():
            return None
        return (503, "text/plain", b"") if message["method"] == "initialize" else (404, "text/plain", b"")

    server.answer = answer
    with recorded(server, db) as client:
        client.initialize()
        expired.set()
        assert "error" in client.ask("x/while-ill")
        healthy.set()
        assert client.ask("x/well-again")["result"] == {"method": "x/well-again"}
        assert sum(json.loads(line)["id"] == 1 for line in client.lines) == 1, "one reply to initialize"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=str)
def test_a_signal_ends_the_session_though_the_client_holds_its_end_open(
    server: BadServer, db: Path, number: signal.Signals
) -> None:
    with recorded(server, db) as client:
        client.initialize()
        client.process.send_signal(number)
        assert client.wait(8) == 128 + number
    assert [session["ending"] for session in show(db)["sessions"]] == [f"signal {number.name}"]


@pytest.mark.parametrize("method", ["initialize", "notifications/initialized", "x/slow"])
def test_a_server_that_never_answers_keeps_no_recorder_alive(
    server: BadServer, db: Path, method: str
) -> None:
    def hang(message: dict[str, Any]) -> Reply | None:
        if message["method"] == method:
            server.released.wait(30)
        return None

    server.answer = hang
    with recorded(server, db) as client:
        client.request("initialize", {})
        client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        client.request("x/slow")
        client.close_input()
        assert client.wait(10) == 0
