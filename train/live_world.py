"""Real servers as the world of a rollout."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from firefly_proxy.fallback import LiveFallback
from firefly_proxy.live import LiveServer, live_servers
from recorder.errors import FireflyError
from recorder.exchange import ToolCall
from replayer.replayer import Live, temporary_file
from replayer.session import LIVE
from synth.task import Task
from train.environment import Answered, Caller, World


class _Real:
    def __init__(self, servers: Live) -> None:
        self._servers = servers

    def call(self, call: ToolCall) -> Answered | None:
        params = {"name": call.tool.name, "arguments": call.arguments}
        outcome = self._servers.ask(call.tool.server, "tools/call", params)
        return None if outcome is None else Answered(outcome, LIVE)


def listings(config: Path, needed: Collection[str]) -> Path:
    """Ask real servers for their tools, and return a recording of that alone, for as long as we run.

    Raises:
        FireflyError: a server does not start, or is not in the configuration.
    """
    _check(config, needed)
    db = temporary_file("listings.db")
    for name in sorted(needed):
        with LiveServer(name, config, db=db) as server:
            server.ask("tools/list")
    return db


def _check(config: Path, needed: Collection[str]) -> None:
    there = set(live_servers(config))
    missing = sorted(set(needed) - there)
    if missing:
        raise FireflyError(
            f"{config} has no server {missing[0]!r}, which tasks need (servers: {', '.join(sorted(there))})"
        )


def real(config: Path, needed: Collection[str]) -> World:
    """Return worlds in which calls reach real servers, started for each rollout and stopped after it.

    What a server does not answer is a miss.

    Args:
        config: A client's configuration that names the servers as they were recorded.
        needed: Servers that it must have.

    Raises:
        FireflyError: it lacks one.
    """
    _check(config, needed)

    @contextmanager
    def opened(task: Task) -> Iterator[Caller]:
        servers = LiveFallback(config)
        try:
            yield _Real(servers)
        finally:
            servers.close()

    return opened
