"""G0: the calls are valid, and answered what can be used."""

from __future__ import annotations

from recorder.exchange import ToolResult
from recorder.explore.effective import verdict
from recorder.explore.outputs import text_of
from replayer.violations import Checker
from synth.task import Task, Verdict
from synth.trace import LONGEST_OUTPUT
from synth.world import World

NAME = "call validity"


def validity(task: Task, world: World) -> Verdict:
    """Fail where a call is an error, says nothing, is too long, or has arguments that its schema does not
    allow."""
    for number, call in enumerate(task.calls, 1):
        exchange = world.exchange(call.exchange)
        where = f"call {number}, {call.server}/{call.tool},"
        if (
            exchange.call is None
            or exchange.call.tool != call.ref
            or exchange.call.arguments != call.arguments
        ):
            return Verdict(
                gate=NAME, passed=False, reason=f"{where} is not what exchange {call.exchange} recorded"
            )
        outcome = exchange.outcome
        if not isinstance(outcome, ToolResult):
            return Verdict(gate=NAME, passed=False, reason=f"{where} got no result")
        if (told := verdict(call.arguments, outcome)) != "effective":
            return Verdict(gate=NAME, passed=False, reason=f"{where} answered: {told}")
        if (size := len(text_of(outcome.result))) > LONGEST_OUTPUT:
            return Verdict(gate=NAME, passed=False, reason=f"{where} answered {size} characters")
        if wrong := Checker(world.input_schema(call.ref)).violations(call.arguments):
            return Verdict(gate=NAME, passed=False, reason=f"{where} violates its schema: {wrong[0]}"[:200])
    return Verdict(gate=NAME, passed=True, reason=f"{len(task.calls)} valid calls")
