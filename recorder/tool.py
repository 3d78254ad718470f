"""A tool as its server listed it."""

from __future__ import annotations

from recorder.exchange import Json, Record, ToolRef


class ToolSpec(Record):
    server: str
    name: str
    version: str
    """Content hash of the entry: another description or schema is another version."""
    entry: dict[str, Json]
    """The whole entry, unknown fields included."""

    @property
    def ref(self) -> ToolRef:
        return ToolRef(self.server, self.name)
