"""One client's conversation, as the recording describes it."""

from __future__ import annotations

from typing import Literal

from recorder.exchange import Json, Record

Status = Literal["complete", "running", "interrupted"]
"""`interrupted`: nobody wrote down an end, and the recorder is gone."""


class Server(Record):
    """One upstream server of a session."""

    id: int
    session_id: str
    name: str
    config: Json
    """As the user wrote it, variables unexpanded, secrets replaced."""
    info: Json
    capabilities: Json
    instructions: str | None
    era: Literal["legacy", "modern"] | None
    protocol_version: str | None
    ending: str | None


class Session(Record):
    id: str
    group: str
    run: str | None
    started_at: float
    ended_at: float | None
    ending: str | None
    status: Status
    client: Json
    client_capabilities: Json
    era: Literal["legacy", "modern"] | None
    protocol_version: str | None
    servers: list[Server]
    exchanges: int
