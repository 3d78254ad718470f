"""G9: the reference calls replay to the end, each from an equal recorded call."""

from __future__ import annotations

from recorder.exchange import ToolResult
from replayer.exact import SAME
from replayer.mask import masked, output_text
from synth.task import Task, Verdict
from synth.world import World

NAME = "replay completeness"


def replay(task: Task, world: World) -> Verdict:
    """Fail where a replay in a conversation of its own misses a call, or answers other than the task was
    made from."""
    for number, (call, answer) in enumerate(
        zip(task.calls, world.ask(task.calls, task.group), strict=True), 1
    ):
        where = f"call {number}, {call.server}/{call.tool},"
        if answer is None:
            return Verdict(gate=NAME, passed=False, reason=f"{where} is missed")
        if answer.tier != SAME:
            return Verdict(gate=NAME, passed=False, reason=f"{where} is answered by the tier {answer.tier}")
        cited = world.exchange(call.exchange).outcome
        if not isinstance(answer.outcome, ToolResult) or masked(output_text(answer.outcome)) != masked(
            output_text(cited)
        ):
            return Verdict(gate=NAME, passed=False, reason=f"{where} is answered otherwise than cited")
    return Verdict(gate=NAME, passed=True, reason=f"{len(task.calls)} calls answered exactly")
