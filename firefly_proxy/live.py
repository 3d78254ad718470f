"""A real server to be asked now: a small MCP client that reaches it through our own recorder.

`record` already reaches every kind of server (a command, streamable HTTP, both protocol eras), so there is
one way to a server and not two, and what is asked here can be recorded as any client's requests are.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from firefly_proxy.lines import LineSplitter
from firefly_proxy.outlet import Outlet
from firefly_proxy.server_config import server_names
from firefly_proxy.tunnel import READ_SIZE
from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.frame import Frame, Message, as_object, read_line
from recorder.handshake import CLIENT_CAPABILITIES_META, CLIENT_INFO_META, PROTOCOL_VERSION_META

TIMEOUT_S = 60.0
"""For one answer; a first one may include the download of the server by npx or uvx."""

LEGACY_VERSION, MODERN_VERSION = "2025-11-25", "2026-07-28"

METHOD_NOT_FOUND = -32601

CLOSE_GRACE_S = 10.0
"""For a recorder whose client closed: it grants its server some seconds, and ends what is left itself."""

TERM_GRACE_S = 5.0
"""For a recorder that was told to end; it needs up to three seconds to end a stubborn server's processes."""

KILL_GRACE_S = 5.0

MOST_PAGES = 100
"""Pages of a list to follow, should a server never come to its last."""


class LiveError(FireflyError):
    """A server gave no answer: it did not start, ended, cannot be reached, or took too long."""

    def __init__(self, server: str, method: str, reason: str) -> None:
        super().__init__(f"live server {server!r}, {method}: {reason}")
        self.server, self.method, self.reason = server, method, reason


class LiveServer:
    """One real server, started with the first request; safe to use from many threads, which take turns.

    Nothing is read between requests: what the server asks its client meanwhile is answered during the next.
    A server that ended stays ended, since another one would not have its state.

    Args:
        name: What the server is called, in the configuration and in a recording.
        source: A client's configuration file that has a server of that name, or the command that starts it.
        db: Where to record the session; if `None`, a temporary recording that is deleted in the end.
        group, run, redact: As the options of `firefly-proxy record`.
        sandbox, work: Run it in a sandbox with this folder for what is private to it, and copies of these
            (`sandbox.sandboxed`).
        timeout_s: For each answer.
        start_timeout_s: For the first one, which may have to wait until npx or uvx has fetched the server; by
            default the same.
    """

    def __init__(
        self,
        name: str,
        source: Path | Sequence[str],
        *,
        db: Path | None = None,
        group: str | None = None,
        run: str | None = None,
        redact: Collection[str] = (),
        sandbox: Path | None = None,
        work: Sequence[Path] = (),
        timeout_s: float = TIMEOUT_S,
        start_timeout_s: float | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be above 0, got {timeout_s}")
        self.name, self.timeout_s = name, timeout_s
        self._start_timeout_s = timeout_s if start_timeout_s is None else start_timeout_s
        self._source, self._db = source, db
        self._options = [
            *(["--group", group] if group is not None else []),
            *(["--run", run] if run is not None else []),
            *(part for secret in redact for part in ("--redact", secret)),
            *(["--sandbox", str(sandbox)] if sandbox is not None else []),
            *(part for path in work if sandbox is not None for part in ("--work", str(path))),
        ]
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._envelope: Message = {}
        self._over: LiveError | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the server and return its whole reply, which holds a `result` or an `error`.

        Raises:
            LiveError: no answer came. After a timeout the server may be asked again, else it is over.
            ValueError: we are closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError(f"live server {self.name!r} is closed")
            if self._over is not None:
                raise LiveError(self.name, method, self._over.reason)
            if self._connection is None:
                self._connect()
            reply = self._request(method, params or {})
            if reason := _own_words(reply):
                raise LiveError(self.name, method, reason)
            return reply

    def close(self) -> None:
        """End the server and all it started; waits for a request that is under way."""
        with self._lock:
            self._closed = True
            self._end()

    def _connect(self) -> None:
        """Start the recorder with the server behind it, and shake hands; a failure is final."""
        self._connection = _Connection(self._command())
        try:
            self._shake_hands()
        except LiveError as error:
            self._over = error
            self._end()
            raise
        except BaseException:  # interrupted by the keyboard, say: half a handshake is of no use
            self._over = LiveError(self.name, "initialize", "interrupted")
            self._end()
            raise

    def _command(self) -> list[str]:
        db = self._db
        if db is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="firefly-live-", ignore_cleanup_errors=True)
            db = Path(self._temporary.name) / "session.db"
        command = [sys.executable, "-m", "firefly_proxy.cli", "record", "--db", str(db), *self._options]
        if isinstance(self._source, Path):
            return [*command, "--config", str(self._source), "--server", self.name]
        return [*command, "--name", self.name, "--", *self._source]

    def _shake_hands(self) -> None:
        """Introduce ourselves as a client of the older era, or of the newer where the server wants that."""
        info = {"name": "firefly", "version": version("firefly-proxy")}
        hello = {"protocolVersion": LEGACY_VERSION, "capabilities": {}, "clientInfo": info}
        reply = self._request("initialize", hello)
        if "result" in reply:
            assert self._connection is not None
            self._connection.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
            return
        refusal = _own_words(reply) or _message_of(reply)
        if _message_of(reply).startswith(_TUNNEL):
            raise LiveError(self.name, "initialize", refusal)  # there is nobody to ask again
        self._envelope = {
            PROTOCOL_VERSION_META: MODERN_VERSION,
            CLIENT_INFO_META: info,
            CLIENT_CAPABILITIES_META: {},
        }
        discovered = self._request("server/discover", {})
        if "result" not in discovered:
            also = _own_words(discovered) or _message_of(discovered)
            both = refusal if also == refusal else f"{refusal}; server/discover: {also}"
            raise LiveError(self.name, "initialize", both)
        if "tools" in as_object(as_object(discovered["result"]).get("capabilities")):
            self._list_tools()

    def _list_tools(self) -> None:
        """List the tools for the recorder's sake.

        Some arguments have to be repeated in HTTP headers; which ones, it learns from the list.
        """
        cursor: object = None
        for _ in range(MOST_PAGES):
            reply = self._request("tools/list", {} if cursor is None else {"cursor": cursor})
            cursor = as_object(reply.get("result")).get("nextCursor")
            if cursor is None:
                return

    def _request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its reply; if the server is over, so are we."""
        assert self._connection is not None
        if self._envelope:
            params = {**params, "_meta": {**as_object(params.get("_meta")), **self._envelope}}
        starts = method in ("initialize", "server/discover")
        timeout_s = self._start_timeout_s if starts else self.timeout_s
        try:
            return self._connection.request(method, params, timeout_s)
        except TimeoutError as error:
            raise LiveError(self.name, method, f"no answer within {timeout_s:g} s") from error
        except _UnreadError as error:
            raise LiveError(self.name, method, str(error)) from error
        except EOFError as error:
            self._over = LiveError(self.name, method, self._end())
            raise self._over from error

    def _end(self) -> str:
        """End the recorder, and with it the server; return what it had to say about that."""
        reason = self._connection.close() if self._connection is not None else ""
        self._connection = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
        return reason


def live_servers(config: Path) -> list[str]:
    """Return the names of the servers in a client's configuration, in its order.

    Raises:
        ConfigError: it cannot be read, or has no `mcpServers`.
    """
    return server_names(config)


class _UnreadError(Exception):
    """An answer that is JSON-RPC, but cannot be parsed."""


class _Connection:
    """A process that speaks JSON-RPC on its standard streams.

    One thread that polls is enough for one request at a time, and a peer that does not read, or fills its
    standard error, cannot block it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        # In a process session of its own, a Ctrl-C at the terminal does not end it under our hands. It is not
        # told to die with the thread that starts it, which may be a short-lived one: the end of its input
        # is enough, and that comes even when we are killed.
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        to_server = self._process.stdin.fileno()
        self._stdout, self._stderr = self._process.stdout.fileno(), self._process.stderr.fileno()
        os.set_blocking(to_server, False)  # our end of a pipe that nobody shares
        self._out = Outlet(to_server, lambda data: os.write(to_server, data))
        self._lines = LineSplitter()
        self._errors = b""
        self._errors_open = True
        self._ids = count(1)
        self._owed: set[int] = set()

    def send(self, message: Message) -> None:
        self._out.write(readable_json(message).encode() + b"\n")

    def request(self, method: str, params: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and wait for its reply; meanwhile answer what the server asks.

        Raises:
            TimeoutError: it did not come in time; the request is cancelled then.
            EOFError: the process closed its output.
            _UnreadError: something came that cannot be read, probably the reply.
        """
        request_id = next(self._ids)
        self._owed.add(request_id)
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})
        deadline = time.monotonic() + timeout_s
        replies: list[Message] = []
        try:
            while not replies:
                for frame in self._heard(deadline):
                    if frame.kind == "request":
                        self.send(_answer(frame))
                    elif frame.kind == "unread":
                        raise _UnreadError(f"the answer cannot be read: {frame.text[:80]}…")
                    elif frame.kind == "response" and type(frame.message.get("id")) is int:
                        self._owed.discard(frame.message["id"])
                        if frame.message["id"] == request_id:
                            replies.append(frame.message)
        except TimeoutError:
            if method != "initialize":  # which must not be cancelled
                cancelled = {"requestId": request_id, "reason": "it took too long"}
                self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled})
            raise
        return dict(replies[0])

    def close(self) -> str:
        """End the process, as politely as it lets us; return in one line why it ended, if it says so."""
        process = self._process
        # A recorder waits for answers that are still owed; nobody else does any more.
        graces: list[tuple[signal.Signals | None, float]] = [(None, 0.0 if self._owed else CLOSE_GRACE_S)]
        for number, grace_s in (*graces, (signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_GRACE_S)):
            if number is not None:
                process.send_signal(number)
            try:
                # Closes its input and reads on, so that it is not kept from ending by what it has to say.
                _, errors = process.communicate(timeout=grace_s)
            except subprocess.TimeoutExpired:
                continue
            return _last_words(self._errors + errors, process.returncode)
        return f"process {process.pid} cannot be ended"

    def _heard(self, deadline: float) -> list[Frame]:
        """Wait until something is said or can be sent; return the messages among it."""
        wait_s = deadline - time.monotonic()
        if wait_s <= 0:
            raise TimeoutError
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        if self._errors_open:
            poll.register(self._stderr, select.POLLIN)
        if self._out.queued:
            poll.register(self._out.fd, select.POLLOUT)
        ready = dict(poll.poll(wait_s * 1000))
        if self._out.fd in ready:
            self._out.flush()
        if self._stderr in ready:
            chunk = os.read(self._stderr, READ_SIZE)
            self._errors_open = bool(chunk)
            self._errors = (self._errors + chunk)[-READ_SIZE:]
        if self._stdout in ready:
            chunk = os.read(self._stdout, READ_SIZE)
            if not chunk:
                raise EOFError
            return [frame for line in self._lines.feed(chunk) for frame in read_line(line)]
        return []


def _answer(request: Frame) -> Message:
    """Answer what a server asks its client: we are there, have no folders, and do nothing else."""
    results: dict[str | None, Message] = {"ping": {}, "roots/list": {"roots": []}}
    reply = {"jsonrpc": "2.0", "id": request.message["id"]}
    if request.method in results:
        return {**reply, "result": results[request.method]}
    error = {"code": METHOD_NOT_FOUND, "message": f"firefly answers no {request.method}"}
    return {**reply, "error": error}


_TUNNEL = "firefly-proxy: "
"""What begins a recorder's own words about a server that is a process."""

_HTTP_FAILURE = re.compile(
    r".* cannot be reached: .*|Session terminated|SSE stream ended without a response"
    r"|server answered a request with 202 Accepted|Unexpected content type: .*|the answer is not JSON-RPC"
    r"|Redirect to .* not followed|Server returned an error response|Not Found",
    re.DOTALL,
)
"""What `upstream` says in the place of an HTTP server that did not answer with JSON-RPC."""


def _own_words(reply: Message) -> str:
    """Return what a reply says that is not a server's but the recorder's own; else nothing."""
    error = as_object(reply.get("error"))
    message, data = error.get("message"), as_object(error.get("data"))
    if not isinstance(message, str):
        return ""
    if message.startswith(_TUNNEL):
        return _one_line(message.removeprefix(_TUNNEL))
    # "Not Found" might be a server's answer, too, but then without an HTTP status.
    if not _HTTP_FAILURE.fullmatch(message) or (message == "Not Found" and "status" not in data):
        return ""
    return _one_line(message) + (f" (HTTP status {data['status']})" if "status" in data else "")


def _message_of(reply: Message) -> str:
    error = reply.get("error")
    message = as_object(error).get("message")
    return _one_line(message if isinstance(message, str) else readable_json(error))


def _last_words(errors: bytes, exit_code: int) -> str:
    """Return in one line what a recorder said last: its verdict, and its server's last line after it."""
    lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    verdicts = [line.removeprefix(_TUNNEL) for line in lines if line.startswith(_TUNNEL)]
    if verdicts:
        return verdicts[-1] + ("" if lines[-1].startswith(_TUNNEL) else f" {lines[-1]}")
    return f"its process ended (exit code {exit_code})" + (f": {lines[-1]}" if lines else "")


def _one_line(text: str) -> str:
    """Return the first line and the last: of what a failed server said, the last tells most."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(dict.fromkeys([*lines[:1], *lines[-1:]]))
