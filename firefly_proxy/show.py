"""`firefly-proxy show`: what a recording holds, for people and for machines."""

from __future__ import annotations

import time
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recorder.canonical import encodable
from recorder.exchange import Exchange, NoReply, RpcError, ToolResult
from recorder.frame import as_object
from recorder.session import Session
from recorder.store import Store
from replayer.index import SelectionError
from replayer.nearest import shown


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
    console = _console()
    view = summary(store)
    table = _table("session", "started", "server", "client", "protocol", "exchanges", "status")
    servers: dict[str, list[str]] = {}
    for server in view["servers"]:
        servers.setdefault(server["session_id"], []).append(server["name"])
    for session in view["sessions"]:
        table.add_row(
            session["id"],
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session["started_at"])),
            _cell(", ".join(servers.get(session["id"], []))),
            _cell(str(as_object(session["client"]).get("name", ""))),
            _cell(session["protocol_version"] or ""),
            str(session["exchanges"]),
            session["status"],
        )
    console.print(table)
    tools = _table("server", "tool", "calls")
    for tool in view["tools"]:
        tools.add_row(_cell(tool["server"]), _cell(tool["name"]), str(tool["calls"]))
    if view["tools"]:
        console.print(tools)
    console.print(
        f"{view['exchanges']} exchanges. One session and its exchanges: --session ID", highlight=False
    )


def print_session(store: Store, session_id: str) -> None:
    """Print one session and each of its exchanges, one a line."""
    console = _console()
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
            console.print(_cell(f"{name}: {value}"))
    table = _table("#", "", "method", "asked", "outcome", "ms")
    for position, exchange in enumerate(store.exchanges(session_id=session_id)):
        line = _line(exchange)
        table.add_row(
            str(position),
            "→" if exchange.direction == "to_server" else "←",
            _cell(exchange.method),
            _cell(line["asked"]),
            _cell(line["outcome"]),
            "" if exchange.duration_s is None else f"{exchange.duration_s * 1000:.1f}",
        )
    console.print(table)


def _cell(text: str) -> Text:
    """Return text that is shown as it is: no mark-up in it means anything."""
    return Text(encodable(text))


def _console() -> Console:
    console = Console()
    # Into a pipe or file there is no window to fit into.
    return console if console.is_terminal else Console(width=160)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != "asked", overflow="fold")
    return table


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
