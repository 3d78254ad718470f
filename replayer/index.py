"""The recorded requests of one server, by key: what the tiers search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recorder.errors import FireflyError
from recorder.frame import as_object
from recorder.session import Server, Session
from recorder.store import Store
from replayer.keys import ChainKeys


class SelectionError(FireflyError):
    """A server, session or group that the recording does not have."""


def select_sessions(
    store: Store, *, server: str | None = None, session_id: str | None = None, group: str | None = None
) -> list[tuple[Session, Server]]:
    """Return the sessions with one server, and their upstream of that name, earliest first.

    Raises:
        SelectionError: nothing of that server, session or group is recorded, or no server was named and
            there are several.
    """
    sessions = store.sessions()
    for what, value, known in (
        ("session", session_id, [session.id for session in sessions]),
        ("group", group, [session.group for session in sessions]),
    ):
        if value is not None and value not in known:
            raise SelectionError(f"{store.path} has no {what} {value!r}; it has: {_some(known)}")
    chosen = [
        session for session in sessions if session_id in (None, session.id) and group in (None, session.group)
    ]
    answering = store.answering_servers()
    upstreams = [upstream for session in chosen for upstream in session.servers]
    names = list(dict.fromkeys(upstream.name for upstream in upstreams if upstream.id in answering))
    if server is None:
        if len(names) != 1:
            many = f"has several servers: choose one with --server ({', '.join(names)})"
            raise SelectionError(f"{store.path} {many if names else 'holds no answered request'}")
        server = names[0]
    elif server not in names:
        raise SelectionError(f"{store.path} has no server {server!r}; it has: {_some(names)}")
    return [
        (session, upstream) for session in chosen for upstream in session.servers if upstream.name == server
    ]


class RequestIndex:
    """Which sessions hold an answer to which request.

    Sessions are numbered from 0, earliest first.
    """

    def __init__(self, store: Store, sessions: Sequence[tuple[Session, Server]]) -> None:
        self.answers: dict[str, dict[int, list[int]]] = {}
        """Request key → session number → ids of the exchanges that answer it, in order."""
        self.calls: list[list[str]] = [[] for _ in sessions]
        """For each session, the keys of its answered tool calls, in order."""
        self.alike: dict[tuple[str, str | None], list[int]] = {}
        """Method, and tool or prompt → one exchange of each distinct request."""
        numbers = {session.id: number for number, (session, _) in enumerate(sessions)}
        chains = [ChainKeys() for _ in sessions]
        for asked in store.answered_requests([server.id for _, server in sessions]):
            number, method = numbers[asked.session_id], asked.request["method"]
            params = as_object(asked.request.get("params"))
            try:
                key = chains[number].key(method, params)
            except RecursionError:
                continue  # nested too deep to be compared
            if key is None or not isinstance(method, str):
                continue
            if asked.asks_input is not None:
                chains[number].ask_input(key, method, params, asked.asks_input)
            if key not in self.answers:
                self.alike.setdefault((method, asked_by_name(params)), []).append(asked.exchange_id)
            self.answers.setdefault(key, {}).setdefault(number, []).append(asked.exchange_id)
            if method == "tools/call":
                self.calls[number].append(key)


def asked_by_name(params: Mapping[str, Any]) -> str | None:
    """Return the tool or prompt that a request names, if it names one."""
    name = params.get("name")
    return name if isinstance(name, str) else None


def _some(names: Sequence[str], most: int = 8) -> str:
    distinct = list(dict.fromkeys(names))
    if not distinct:
        return "none"
    return ", ".join(distinct[:most]) + (f" and {len(distinct) - most} more" if len(distinct) > most else "")
