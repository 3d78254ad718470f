"""G8: the real servers still lead to the same answer."""

from __future__ import annotations

from recorder.exchange import Json, ToolResult
from replayer.replayer import Live as Servers
from synth.answers import is_right
from synth.program import ProgramError, arguments_of, run, tree_of
from synth.task import ReferenceCall, Task, Verdict
from synth.world import World

NAME = "live re-execution"


class Live:
    """Makes a task's calls anew, each with arguments out of the new answers, and evaluates the program over
    them."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def __call__(self, task: Task, world: World) -> Verdict:
        trees: list[Json] = []
        for number, call in enumerate(task.calls):
            found = self._one(task, number, call, trees)
            if isinstance(found, str):
                return Verdict(gate=NAME, passed=False, reason=found)
            trees.append(found[0])
        try:
            answer = run(task.program, trees).answer
        except ProgramError as error:
            return Verdict(
                gate=NAME, passed=False, reason=f"the program fails on what is answered now: {error}"[:200]
            )
        if not is_right(task.answer_schema, task.answer, answer):
            wrong = next(name for name, value in task.answer.items() if answer.get(name) != value)
            reason = f"{wrong} is {answer.get(wrong)!r:.60} now, and was {task.answer[wrong]!r:.60}"
            return Verdict(gate=NAME, passed=False, reason=reason)
        return Verdict(gate=NAME, passed=True, reason="the real servers lead to the same answer")

    def _one(self, task: Task, number: int, call: ReferenceCall, trees: list[Json]) -> str | tuple[Json]:
        where = f"call {number + 1}, {call.server}/{call.tool},"
        try:
            arguments = arguments_of(task.program, number, call.arguments, trees)
        except ProgramError as error:
            return f"{where} has no arguments now: {error}"[:200]
        outcome = self._servers.ask(call.server, "tools/call", {"name": call.tool, "arguments": arguments})
        if not isinstance(outcome, ToolResult):
            return f"{where} was not answered"
        return (tree_of(outcome),)
