"""A client's side of one MCP conversation on stdio, with nothing hidden: raw lines out, raw lines in.

Blocking, with a deadline on every wait, because these tests kill, signal and starve real processes.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
FICKLE = [sys.executable, str(ROOT / "tests" / "servers" / "fickle.py")]
ECHO = [sys.executable, str(ROOT / "tests" / "servers" / "echo.py")]
FIREFLY = [sys.executable, "-m", "firefly_proxy.cli"]
WAIT_S = 20
"""How long anything may take that is bound to happen; generous, for a slow and busy machine."""

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "promise", "version": "1"},
}


class Conversation:
    """Runs a command and speaks JSON-RPC with it, a line a message.

    Args:
        environment: Replaces the whole environment; by default the process has ours.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.lines: list[bytes] = []
        """Every line received, as it came; the last may lack its line end."""
        self.errors: list[str] = []
        """Every line on the standard error stream."""
        self._ids = itertools.count(1)
        self._replies: dict[object, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
        )
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the process end on its own, but see that it does."""
        self.close_input()
        try:
            self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            if error is None:
                raise
        finally:
            for reader in self._readers:
                reader.join(WAIT_S)

    def send(self, message: Mapping[str, Any] | bytes) -> None:
        """Write one line; bytes as they are. A process that is gone is no error: its silence shows it."""
        line = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False).encode()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + b"\n")
            self.process.stdin.flush()

    def request(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request and return its id, without waiting for the reply."""
        request_id = next(self._ids)
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}})
        return request_id

    def reply(self, request_id: object, timeout_s: float = WAIT_S) -> dict[str, Any]:
        """Wait for a reply and return it.

        Raises:
            EOFError: the process closed its output first.
            TimeoutError: neither happened in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: request_id in self._replies or self._ended, timeout_s):
                raise TimeoutError(f"no reply to {request_id} within {timeout_s} s; stderr: {self.errors}")
            if request_id not in self._replies:
                raise EOFError(f"output ended before a reply to {request_id}; stderr: {self.errors}")
            return self._replies[request_id]

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self.reply(self.request(method, params))

    def start_call(self, tool: str, **arguments: object) -> int:
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def call(self, tool: str, **arguments: object) -> dict[str, Any]:
        return self.reply(self.start_call(tool, **arguments))

    def initialize(self, params: Mapping[str, Any] = INITIALIZE) -> dict[str, Any]:
        reply = self.ask("initialize", params)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return reply

    def received(self) -> int:
        """How many replies have come so far."""
        return len(self._replies)

    def wait_until_received(self, count: int) -> bool:
        """Wait for that many replies in all; False if the output ended before."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._replies) >= count or self._ended, WAIT_S)
            return len(self._replies) >= count

    def close_input(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Wait until the process has ended and all it wrote is read, and return its exit code."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(timeout_s)
            assert not reader.is_alive(), "the process ended, but something holds its output open"
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict) and "id" in message and "method" not in message:
                with self._changed:
                    self._replies[message["id"]] = message
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.decode(errors="replace").rstrip("\n"))


def record(
    db: Path, upstream: Sequence[str], *options: str, environment: Mapping[str, str] | None = None
) -> Conversation:
    """Start `firefly-proxy record` in front of a command."""
    return Conversation(
        [*FIREFLY, "record", "--db", str(db), *options, "--", *upstream], environment=environment
    )


def replay(db: Path, *options: str, environment: Mapping[str, str] | None = None) -> Conversation:
    """Start `firefly-proxy replay`."""
    return Conversation([*FIREFLY, "replay", "--db", str(db), *options], environment=environment)


def show(db: Path) -> dict[str, Any]:
    """Return what `firefly-proxy show --json` prints."""
    command = [*FIREFLY, "show", "--db", str(db), "--json"]
    shown = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=WAIT_S)
    return json.loads(shown.stdout)


def result_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reply's result without its `_meta`."""
    return {name: value for name, value in reply["result"].items() if name != "_meta"}
