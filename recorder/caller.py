"""The smallest thing that an explorer needs of a real server: somebody to call its tools."""

from __future__ import annotations

from typing import Protocol

from recorder.exchange import NoReply, RpcError, ToolCall, ToolResult


class ToolCaller(Protocol):
    """Calls a tool, and blocks until it is known what came of it. Whoever makes one sees to the recording.

    `NoReply` means that no answer came in time, or that the server ended; a later call may find it back.
    """

    def __call__(self, call: ToolCall, /) -> ToolResult | RpcError | NoReply: ...
