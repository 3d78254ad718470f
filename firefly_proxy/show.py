"""`firefly-proxy show`: what a recording holds, for people and for machines."""

from __future__ import annotations

import time
from typing import Any

from firefly_proxy.tables import cell, console, table
from recorder.exchange import Exchange, NoReply, RpcError, ToolResult
from recorder.frame import as_object
from recorder.session import Session
from recorder.store import Store
from replayer.nearest import shown
from replayer.selection import SelectionError


def summary(store: Store, session_id: str | None = None) -> dict[str, Any]:
    """Return one JSON object: `sessions`, `servers` and `tools` as lists, `exchanges` as a number.

    With a session, only what belongs to it, and its exchanges' lines as `calls`.
    """
    sessions = _sessions(store, session_id)
    names = {server.name for session in sessions for server in session.servers}
    calls = store.call_counts(session_id)
    tools = [tool for tool in store.tools() if tool.server in names]
    listed = {tool.ref for tool in tools}
    return {
        "path": str(store.path),
        "sessions": [session.model_dump(exclude={"servers"}) for session in sessions],
        "servers": [server.model_dump() for session in sessions for server in session.servers],
        "tools": [
            *({**tool.model_dump(exclude={"entry"}), "calls": calls[tool.ref]} for tool in tools),
            *(
                {"server": server, "name": name, "version": None, "calls": count}
                for (server, name), count in calls.items()
                if (server, name) not in listed
            ),
        ],
        "exchanges": sum(session.exchanges for session in sessions),
        **(
            {"calls": [_line(exchange) for exchange in store.exchanges(session_id=session_id)]}
            if session_id
            else {}
        ),
    }


def print_overview(store: Store) -> None:
    """Print the sessions, and how often each tool was called."""
    out = console()
    view = summary(store)
    listing = table("session", "started", "server", "client", "protocol", "exchanges", "status")
    servers: dict[str, list[str]] = {}
    for server in view["servers"]:
        servers.setdefault(server["session_id"], []).append(server["name"])
    for session in view["sessions"]:
        listing.add_row(
            session["id"],
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session["started_at"])),
            cell(", ".join(servers.get(session["id"], []))),
            cell(str(as_object(session["client"]).get("name", ""))),
            cell(session["protocol_version"] or ""),
            str(session["exchanges"]),
            session["status"],
        )
    out.print(listing)
    tools = table("server", "tool", "calls")
    for tool in view["tools"]:
        tools.add_row(cell(tool["server"]), cell(tool["name"]), str(tool["calls"]))
    if view["tools"]:
        out.print(tools)
    out.print(f"{view['exchanges']} exchanges. One session and its exchanges: --session ID", highlight=False)


def print_session(store: Store, session_id: str) -> None:
    """Print one session and each of its exchanges, one a line."""
    out = console()
    (session,) = _sessions(store, session_id)
    details = {
        "group": session.group,
        "run": session.run,
        "status": f"{session.status}: {session.ending}" if session.ending else session.status,
        "protocol": session.protocol_version,
        "client": shown(session.client) if session.client else None,
        **{server.name: shown(server.config) for server in session.servers},
    }
    for name, value in details.items():
        if value is not None:
            out.print(cell(f"{name}: {value}"))
    listing = table("#", "", "method", "asked", "outcome", "ms", folding=["asked"])
    for position, exchange in enumerate(store.exchanges(session_id=session_id)):
        line = _line(exchange)
        listing.add_row(
            str(position),
            "→" if exchange.direction == "to_server" else "←",
            cell(exchange.method),
            cell(line["asked"]),
            cell(line["outcome"]),
            "" if exchange.duration_s is None else f"{exchange.duration_s * 1000:.1f}",
        )
    out.print(listing)


def _line(exchange: Exchange) -> dict[str, Any]:
    match exchange.outcome:
        case ToolResult(is_error=True):
            outcome = "tool error"
        case RpcError(message=message):
            outcome = f"error: {message}"
        case NoReply(reason=reason):
            outcome = f"no reply ({reason})"
        case _:
            outcome = "result"
    params = {name: value for name, value in exchange.params.items() if name != "_meta"}
    return {
        "id": exchange.id,
        "server": exchange.server,
        "direction": exchange.direction,
        "method": exchange.method,
        "asked": str(exchange.call) if exchange.call else shown(params) if params else "",
        "outcome": outcome,
        "duration_s": exchange.duration_s,
    }


def _sessions(store: Store, session_id: str | None) -> list[Session]:
    sessions = [session for session in store.sessions() if session_id in (None, session.id)]
    if session_id and not sessions:
        raise SelectionError(f"{store.path} has no session {session_id!r}")
    return sessions
