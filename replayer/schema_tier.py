"""The tier before all others: for arguments that violate the schema, the error this server gives for such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.exchange import Exchange, RpcError, ToolResult
from replayer.evidence import Candidate
from replayer.learned import Learned
from replayer.lessons import Lesson, told_text
from replayer.request import Identity
from replayer.violations import Checker

SCHEMA = "schema"


class SchemaTier:
    """Answers from what recorded errors teach (`lessons`).

    A call that was recorded itself is left to the exact tier, which knows better.
    """

    def __init__(self, learned: Learned) -> None:
        self._learned = learned
        self._checkers: dict[tuple[str, str], Checker] = {}

    def find(self, identity: Identity, schema: Mapping[str, Any] | None) -> tuple[Lesson, Candidate] | None:
        lessons = self._learned.lessons.get(identity.server)
        if lessons is None or schema is None or identity.tool is None or identity.key is None:
            return None
        at = (identity.server, identity.tool)
        checker = self._checkers.get(at)
        if checker is None:
            checker = self._checkers[at] = Checker(schema)
        found = checker.violations(identity.sent)
        if not found or self._learned.has_call(identity.key):
            return None
        lesson = lessons.answer(identity.tool, found)
        return (lesson, lesson_candidate(lesson)) if lesson else None


def lesson_candidate(lesson: Lesson) -> Candidate:
    """Return a lesson as trust is learned of it: by where it comes from, and by what bears it out."""
    return Candidate(lesson.exchange_id, 0, 0, 0, SCHEMA, lesson.level, min(lesson.support, 3), 0, 0)


def told(lesson: Lesson, exchange: Exchange) -> ToolResult | RpcError:
    """Return the error, in the shape of the recorded one that it comes from."""
    text = told_text(lesson.text)
    outcome = exchange.outcome
    if isinstance(outcome, RpcError):
        return RpcError(error={**outcome.error, "message": text})
    return ToolResult(result={"content": [{"type": "text", "text": text}], "isError": True})
