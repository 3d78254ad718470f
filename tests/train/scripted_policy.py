"""A policy that writes what it is told, and a caller that answers what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from recorder.exchange import Json, ToolCall
from replayer.session import Outcome
from train.baselines import Baseline
from train.environment import Answered, Message
from train.policy import Reply, Seat

Line = Reply | Exception
"""What a policy does in a turn."""


def says(text: str, *, tokens: int = 10, truncated: bool = False) -> Reply:
    return Reply({"role": "assistant", "content": text}, completion_tokens=tokens, truncated=truncated)


def asks(*calls: tuple[str, Json], tokens: int = 10, truncated: bool = False) -> Reply:
    """A message of calls, each a name with arguments; their ids are `call_0` and so on."""
    listed = [
        {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for place, (name, arguments) in enumerate(calls)
    ]
    message: Message = {"role": "assistant", "content": "", "tool_calls": listed}
    return Reply(message, completion_tokens=tokens, truncated=truncated)


class Scripted(Baseline):
    """Does the lines of a script in turn, in every rollout the same; or those of its task.

    Args:
        lines: For each task, or by a task's id.
    """

    name = "scripted"

    def __init__(self, lines: Sequence[Line] | Mapping[str, Sequence[Line]]) -> None:
        self._lines = lines
        self.seen: list[list[Message]] = []
        """What it was shown, in order."""
        self.seats: list[Seat] = []
        self.closed = False

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        self.seen.append(list(messages))
        if seat.kept is None:
            task = seat.environment.task.task_id
            seat.kept = iter(self._lines[task] if isinstance(self._lines, Mapping) else self._lines)
            self.seats.append(seat)
        line: Line = next(seat.kept)
        if isinstance(line, Exception):
            raise line
        return line

    def close(self) -> None:
        self.closed = True


class Told:
    """Answers calls by a function, and keeps them."""

    def __init__(self, answer: Callable[[ToolCall], Outcome | None], trust: float | None = 0.9) -> None:
        self._answer, self._trust = answer, trust
        self.calls: list[ToolCall] = []

    def call(self, call: ToolCall) -> Answered | None:
        self.calls.append(call)
        outcome = self._answer(call)
        return None if outcome is None else Answered(outcome, "exact", self._trust, len(self.calls))
