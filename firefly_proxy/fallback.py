"""What a replay misses, asked of the real server: `--on-miss live` and `--on-miss record`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firefly_proxy.live import LiveError, LiveServer, live_servers
from recorder.exchange import OtherResult, RpcError, ToolResult
from replayer.session import Outcome

logger = logging.getLogger(__name__)


class LiveFallback:
    """Real servers, started when they are first needed.

    They have not seen what the replay answered: a server whose world the conversation has changed answers as
    if nothing had happened. What it is asked and answers is real all the same, and recorded as what it is: a
    session of its own, in which only the misses were asked.

    Args:
        config: A client's configuration that names the servers as they were recorded.
        db: The recording to add to; `None` to ask without recording.
        group: The group of the sessions that are recorded.
    """

    def __init__(self, config: Path, *, db: Path | None = None, group: str | None = None) -> None:
        self._config, self._db, self._group = config, db, group
        self._names = frozenset(live_servers(config))
        self._servers: dict[str, LiveServer] = {}

    def ask(self, server: str, method: str, params: Mapping[str, Any]) -> Outcome | None:
        if server not in self._names:
            return None
        live = self._servers.get(server)
        if live is None:
            live = LiveServer(server, self._config, db=self._db, group=self._group, run="on-miss")
            self._servers[server] = live
        try:
            return outcome_of_reply(method, live.ask(method, _plain(params)))
        except LiveError as error:
            logger.warning("%s", error)
            return None

    def close(self) -> None:
        for live in self._servers.values():
            live.close()
        self._servers.clear()


def outcome_of_reply(method: str, reply: Mapping[str, Any]) -> Outcome:
    """Return what a JSON-RPC reply says."""
    if "result" not in reply:
        return RpcError(error=reply.get("error"))
    return (
        ToolResult(result=reply["result"]) if method == "tools/call" else OtherResult(result=reply["result"])
    )


def _plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params without `_meta`: that is between this client and us."""
    return {name: value for name, value in params.items() if name != "_meta"}
