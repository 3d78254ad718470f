"""Which recorded sessions a replay is about."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.errors import FireflyError
from recorder.session import Server, Session
from recorder.store import Store


class SelectionError(FireflyError):
    """A server, session or group that the recording does not have."""


def select_sessions(
    store: Store, *, server: str | None = None, session_id: str | None = None
) -> list[tuple[Session, Server]]:
    """Return the sessions with one server, and their upstream of that name, earliest first.

    Raises:
        SelectionError: nothing of that server or session is recorded, or no server was named and
            there are several.
    """
    sessions = store.sessions()
    chosen = [session for session in sessions if session_id in (None, session.id)]
    if not chosen:
        known = _some([session.id for session in sessions])
        raise SelectionError(f"{store.path} has no session {session_id!r}; it has: {known}")
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


def _some(names: Sequence[str], most: int = 8) -> str:
    distinct = list(dict.fromkeys(names))
    if not distinct:
        return "none"
    return ", ".join(distinct[:most]) + (f" and {len(distinct) - most} more" if len(distinct) > most else "")
