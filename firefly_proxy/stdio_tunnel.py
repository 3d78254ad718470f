"""Lines from a client to a server process and back, unchanged and in order, each seen by a tap first.

One thread, one `poll` loop: this is what lets a proxied call cost so little (see tests/bench). Our own
standard input and output stay in blocking mode, since that mode is shared with whoever holds them, too
(see `outlet`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import compress

from firefly_proxy.lines import LineSplitter
from firefly_proxy.outlet import Outlet, outlet_to
from firefly_proxy.process_tree import StartError, end_descendants, reap, start
from firefly_proxy.tunnel import ANSWER_GRACE_S, READ_SIZE, Ending, Tap
from recorder.frame import read_line

MAX_QUEUED = 1 << 20
"""Bytes that wait for a slow reader before we stop reading what is meant for it."""

IDLE_MS = 1.0
"""How long nothing must happen before the tap catches up: longer than a quick server takes to answer."""

LOOKS = 40
"""How often to look for the reply to a request before sleeping until it comes: some 80 µs in all. Waking a
sleeper on another core costs more than a quick server's work; measured on two cores, a call through `record`
takes 12 % less, and on one core the same."""

_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)

ENDING_POLL_MS = 50.0
"""How often to look whether one side is done, once the other is."""

EOF_GRACE_S = 1.5
"""Time for a server to end by itself once its client has closed; clients wait about two seconds."""

MAX_GRACE_S = 30.0
"""Time after which a tunnel whose client closed is ended whatever it waits for."""

DRAIN_S = 0.3
"""How long to read on after a server has ended, from a pipe that its children hold open."""

REFUSE_S = 30.0
"""How long to wait for the `initialize` that tells the client why the server is not there."""

STDERR_TAIL = 20
"""Lines of a server's standard error to show when it fails."""

ENDED_BY_US = "ended by its proxy"

UPSTREAM_FAILED = -32000
"""JSON-RPC error code of a reply that we give in the place of a server that could not be started."""


def run_tunnel(
    command: Sequence[str], tap: Tap, *, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> Ending:
    """Connect our standard streams with a new server process until either side is done.

    Args:
        env: The server's whole environment; ours if `None`.
    """
    with _Signals() as signals:
        try:
            process = start(command, env=env, cwd=cwd)
        except StartError as error:
            _refuse(tap, signals, str(error))
            return Ending("the server could not be started", str(error), 127, str(error))
        try:
            return _Tunnel(command, process, tap, signals).run()
        finally:
            end_descendants()


class _Tunnel:
    def __init__(
        self, command: Sequence[str], process: subprocess.Popen[bytes], tap: Tap, signals: _Signals
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._command, self._process, self._tap, self._signals = command, process, tap, signals
        self._server_in = process.stdin
        self._server_out, self._server_err = process.stdout.fileno(), process.stderr.fileno()
        os.set_blocking(process.stdin.fileno(), False)
        self._to_server = Outlet(process.stdin.fileno(), partial(os.write, process.stdin.fileno()))
        self._to_client = outlet_to(sys.stdout.fileno())
        self._from_client, self._from_server = LineSplitter(), LineSplitter()
        self._stderr: deque[bytes] = deque(maxlen=STDERR_TAIL)
        self._stderr_lines = LineSplitter()
        self._stderr_out = outlet_to(sys.stderr.fileno()) if sys.stderr is not None else None
        self._client_open = self._server_open = self._stderr_open = True
        self._spoke = False
        self._behind = False
        self._heard_at = self._owing_at = time.monotonic()
        self._client_closed_at: float | None = None
        self._ending: Ending | None = None
        self._poll = select.poll()
        self._unsettled = True
        self._handlers = {
            signals.fd: self._on_signal,
            self._to_client.fd: self._on_client_ready,
            self._to_server.fd: self._on_server_ready,
            sys.stdin.fileno(): self._on_client_line,
            self._server_out: self._on_server_line,
            self._server_err: self._on_server_error,
        }

    def run(self) -> Ending:
        timeout_ms: float | None = None
        while self._ending is None:
            if self._unsettled:
                timeout_ms = self._settle()
                if self._ending is not None:
                    break
            happened = self._poll_for_reply() if self._behind else self._poll.poll(timeout_ms)
            for fd, events in happened:
                self._handlers[fd](events)
            if not happened and self._behind:
                self._tap.flush()
                self._behind = False
        return self._ending

    def _poll_for_reply(self) -> list[tuple[int, int]]:
        """Look for what a quick server has to say before going to sleep, letting others run between looks."""
        for _ in range(LOOKS):
            if happened := self._poll.poll(0):
                return happened
            _let_others_run()
        return self._poll.poll(IDLE_MS)

    def _settle(self) -> float | None:
        """Take in what changed besides lines going through; return how long to wait for more, in ms.

        The tunnel stays unsettled until nothing is queued and both sides are open, as nearly always.
        """
        if self._to_client.broken:
            self._end("the client went away")
        if not self._client_open and not self._to_server.queued:
            self._server_in.close()
        if self._ending is None and self._is_over():
            self._ending = self._over()
        self._poll = poll = select.poll()
        poll.register(self._signals.fd, select.POLLIN)
        # Without events, too, `poll` tells when the client closes its end.
        poll.register(self._to_client.fd, select.POLLOUT if self._to_client.queued else 0)
        for fd, event, wanted in (
            (self._to_server.fd, select.POLLOUT, self._to_server.queued),
            (sys.stdin.fileno(), select.POLLIN, self._client_open and self._to_server.queued < MAX_QUEUED),
            (self._server_out, select.POLLIN, self._server_open and self._to_client.queued < MAX_QUEUED),
            (self._server_err, select.POLLIN, self._stderr_open),
        ):
            if wanted:
                poll.register(fd, event)
        self._unsettled = bool(self._to_client.queued or self._to_server.queued) or not self._is_whole()
        return None if self._is_whole() else ENDING_POLL_MS

    def _is_whole(self) -> bool:
        return self._client_open and self._server_open and self._process.returncode is None

    def _on_client_line(self, _: int) -> None:
        chunk = _read_input()
        lines = self._from_client.feed(chunk)
        if lines:
            self._tap.record("to_server", lines)
            self._behind = True
            if self._to_server.write(b"".join(lines)):
                self._unsettled = True
        if not chunk:
            self._client_open = False
            self._unsettled = True
            self._client_closed_at = self._heard_at = time.monotonic()

    def _on_server_line(self, _: int) -> None:
        chunk = os.read(self._server_out, READ_SIZE)
        lines = self._from_server.feed(chunk)
        if lines:
            passing = b"".join(compress(lines, self._tap.record("to_client", lines)))
            self._behind = False
            if passing:
                self._spoke = True
                if self._to_client.write(passing):
                    self._unsettled = True
        if self._unsettled or not chunk:
            self._heard_at = time.monotonic()
        if not chunk:
            self._server_open = False
            self._unsettled = True

    def _on_server_error(self, _: int) -> None:
        chunk = os.read(self._server_err, READ_SIZE)
        self._stderr.extend(self._stderr_lines.feed(chunk))
        if self._stderr_out is not None:
            self._stderr_out.write_some(chunk)
        if not chunk:
            self._stderr_open = False
            self._unsettled = True

    def _on_client_ready(self, events: int) -> None:
        if events & (select.POLLERR | select.POLLNVAL | select.POLLHUP):
            self._end("the client went away")
        self._to_client.flush()

    def _on_server_ready(self, _: int) -> None:
        self._to_server.flush()

    def _on_signal(self, _: int) -> None:
        if number := self._signals.ending():
            self._end(f"signal {number.name}", 128 + number)
        elif reap(self._process) is not None:
            self._heard_at = time.monotonic()
            self._unsettled = True

    def _is_over(self) -> bool:
        if self._is_whole():
            return False
        now = time.monotonic()
        closed_s = 0.0 if self._client_closed_at is None else now - self._client_closed_at
        if self._to_client.queued:
            # It is the client that is slow: what it has not read yet is not late.
            self._heard_at = now
            return closed_s > MAX_GRACE_S
        if self._process.returncode is None and self._process.poll() is not None:
            self._heard_at = now
        quiet_s = now - self._heard_at
        if self._process.returncode is not None:
            # What it wrote last is still in the pipe.
            drained = not self._server_open and not self._stderr_open
            return drained or quiet_s > DRAIN_S
        if not self._server_open:
            return quiet_s > EOF_GRACE_S
        if self._tap.unanswered():
            self._owing_at = now
            return quiet_s > ANSWER_GRACE_S or closed_s > MAX_GRACE_S
        return min(closed_s, now - self._owing_at) > EOF_GRACE_S

    def _over(self) -> Ending:
        """Say how it ended, now that the server has, or must."""
        code = self._process.returncode
        if self._client_closed_at is not None and code is None:
            return Ending("the client closed", ENDED_BY_US, 0)
        name = self._command[0]  # what follows it may hold secrets, which quoting would disguise
        if code is None:
            how = f"upstream `{name}` closed its standard output"
        elif code < 0:
            how = f"upstream `{name}` was ended by signal {-code} ({signal.strsignal(-code)})"
        else:
            how = f"upstream `{name}` exited with code {code}"
        tail = b"".join(self._stderr).decode("utf-8", "replace").rstrip()
        failure = how + (f"; its last lines on standard error:\n{tail}" if tail else "")
        owed = {method for _, method in self._tap.unanswered()}
        if owed & {"initialize", "server/discover"} or (not self._spoke and self._client_closed_at is None):
            _refuse(self._tap, self._signals, failure)
        session = "the server ended" if self._client_closed_at is None else "the client closed"
        return Ending(session, how, exit_code_of(code or 0), failure if code or owed else None)

    def _end(self, session: str, exit_code: int = 0) -> None:
        code = self._process.poll()
        self._ending = Ending(session, ENDED_BY_US if code is None else f"exit code {code}", exit_code)


def _refuse(tap: Tap, signals: _Signals, message: str) -> None:
    """Answer each request with an error until the client knows why there is no server, or leaves."""
    outlet = outlet_to(sys.stdout.fileno())
    lines = LineSplitter()
    deadline = time.monotonic() + REFUSE_S
    owed = tap.unanswered()
    while True:
        for request_id, _ in owed:
            error = {"code": UPSTREAM_FAILED, "message": f"firefly-proxy: {message}"}
            reply = json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode() + b"\n"
            tap.record_own(reply)
            outlet.write_all(reply)
        if "initialize" in (method for _, method in owed):
            return
        owed = []
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        poll.register(sys.stdin.fileno(), select.POLLIN)
        ready = dict(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
        if not ready or (signals.fd in ready and signals.ending()):
            return
        if sys.stdin.fileno() not in ready:
            continue
        chunk = _read_input()
        if not chunk:
            return
        if asked := lines.feed(chunk):
            tap.record("to_server", asked)
        frames = [frame for line in asked for frame in read_line(line) if frame.kind == "request"]
        owed = [(frame.message["id"], frame.method or "") for frame in frames]


def _read_input() -> bytes:
    """Read what the client sent; nothing once it is gone, however it went."""
    try:
        return os.read(sys.stdin.fileno(), READ_SIZE)
    except OSError:
        return b""


def exit_code_of(returncode: int) -> int:
    """Return what a shell shows for a process that `subprocess` reports with `returncode`."""
    return returncode if returncode >= 0 else 128 - returncode


class _Signals:
    """Turns signals into something to poll for, so that none comes between a commit and its reply."""

    ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __enter__(self) -> _Signals:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self.fd = self._read.fileno()
        signal.set_wakeup_fd(self._write.fileno())
        for number in (*self.ENDING, signal.SIGCHLD):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number in self.ENDING:
            signal.signal(number, signal.SIG_IGN)

    def ending(self) -> signal.Signals | None:
        """Return the signal that asks us to end, if one came."""
        numbers = self._read.recv(512)
        return next((signal.Signals(number) for number in numbers if number in self.ENDING), None)
