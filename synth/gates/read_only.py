"""G10: no call changes the world."""

from __future__ import annotations

from synth.task import Task, Verdict
from synth.world import World

NAME = "read-only"


def read_only(task: Task, world: World) -> Verdict:
    """Fail where a call may change the world: as its server declares, recordings show, or its name
    suggests."""
    for number, call in enumerate(task.calls, 1):
        if world.changes(call):
            reason = f"call {number}, {call.server}/{call.tool}, may change the world"
            return Verdict(gate=NAME, passed=False, reason=reason)
    return Verdict(gate=NAME, passed=True, reason="every call is a read")
