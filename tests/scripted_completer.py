"""A completer that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from recorder.completer import Completion


@dataclass(frozen=True)
class Asked:
    system: str
    prompt: str
    max_tokens: int


class ScriptedCompleter:
    """Gives its replies in order, at 1 cent each, and keeps what it was asked.

    Args:
        replies: Texts, or whole completions; an exception is raised.
    """

    def __init__(self, replies: Iterable[str | Completion | Exception]) -> None:
        self.asked: list[Asked] = []
        self._replies = iter(replies)

    def complete(self, system: str, prompt: str, max_tokens: int) -> Completion:
        self.asked.append(Asked(system, prompt, max_tokens))
        reply = next(self._replies)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, Completion):
            return reply
        return Completion(
            text=reply,
            model="scripted-1",
            input_tokens=100,
            output_tokens=20,
            cost_usd=0.01,
            stop_reason="end_turn",
        )
