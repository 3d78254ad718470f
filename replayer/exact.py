"""The exact tier: the same request."""

from __future__ import annotations

from replayer.history import History
from replayer.index import RequestIndex
from replayer.tier import Hit, Request


class ExactTier:
    """Answers from a session that the conversation follows, else from the earliest that has an answer.

    The n-th equal request gets that session's n-th answer, and when those are used up, the last.
    """

    name = "exact"

    def __init__(self, index: RequestIndex) -> None:
        self._index = index

    def find(self, request: Request, history: History) -> Hit | None:
        if request.key is None or not (answers := self._index.answers.get(request.key)):
            return None
        followed = history.followed(request)
        number = next((number for number in followed if number in answers), min(answers))
        exchange_ids = answers[number]
        turn = min(history.times(request.key), len(exchange_ids) - 1)
        return Hit(exchange_ids[turn], self.name, 1.0)
