"""A request and what came of it: the unit every later stage reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from recorder.canonical import canonical_json
from recorder.frame import Direction

Json = Any
"""A JSON value that `json.loads` returned. Checking it once more would cost time with each exchange, and
pydantic gives up at some 200 levels of nesting, which a recording may hold."""


class ToolRef(NamedTuple):
    """A tool's identity; two servers may offer tools of the same name."""

    server: str
    name: str


class Record(BaseModel):
    """A value that crosses a file, database or process boundary: frozen, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(Record):
    tool: ToolRef
    arguments: dict[str, Json]

    def __str__(self) -> str:
        return f"{self.tool.server}/{self.tool.name}({canonical_json(self.arguments)})"


class ToolResult(Record):
    """The tool ran. The result is kept whatever its shape."""

    kind: Literal["tool_result"] = "tool_result"
    result: Json
    """As the server sent it: usually an object, but servers err."""

    @property
    def is_error(self) -> bool:
        """The tool's own verdict, meant for the model to read."""
        return isinstance(self.result, dict) and self.result.get("isError") is True


class OtherResult(Record):
    """The result of a request that is no tool call, as the server sent it."""

    kind: Literal["other_result"] = "other_result"
    result: Json


class RpcError(Record):
    """The server refused the request; a tool did not run."""

    kind: Literal["rpc_error"] = "rpc_error"
    error: Json
    """The JSON-RPC error as sent: usually `code`, `message` and perhaps `data`."""

    @property
    def message(self) -> str:
        return str(self.error.get("message", "")) if isinstance(self.error, dict) else str(self.error)


class NoReply(Record):
    """No answer came: the request was cancelled or the session ended. Kept, never replayed."""

    kind: Literal["no_reply"] = "no_reply"
    reason: Literal["cancelled", "disconnected", "interrupted"]
    """`interrupted`: the recorder was killed, or is still at work."""


Outcome = Annotated[ToolResult | OtherResult | RpcError | NoReply, Field(discriminator="kind")]


class Exchange(Record):
    """A request and its outcome."""

    id: int
    """Of the request's frame; so a session's exchanges are ordered by it as the requests arrived."""
    session_id: str
    server: str
    direction: Direction
    method: str
    params: dict[str, Json]
    """As sent, secrets replaced; empty where none were sent."""
    outcome: Outcome
    started_at: float
    """Unix seconds when the request was read."""
    duration_s: float | None
    """Seconds from reading the request to reading its reply; `None` where there is none."""

    @property
    def call(self) -> ToolCall | None:
        """The tool call this is, if it is one."""
        name, arguments = self.params.get("name"), self.params.get("arguments")
        if self.method != "tools/call" or self.direction != "to_server" or not isinstance(name, str):
            return None
        return ToolCall(
            tool=ToolRef(self.server, name), arguments=arguments if isinstance(arguments, dict) else {}
        )
