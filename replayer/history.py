"""What one conversation has asked so far, beside what the recorded ones did."""

from __future__ import annotations

from collections import Counter

from replayer.index import RequestIndex
from replayer.tier import Request


class History:
    """The answered requests of one conversation, and the recorded sessions that began the same way."""

    def __init__(self, index: RequestIndex) -> None:
        self._index = index
        self._times: Counter[str] = Counter()
        self._calls = 0
        self._alike = list(range(len(index.calls)))
        self._left = False
        """Whether the conversation went on where none of the sessions it followed does."""

    def times(self, key: str) -> int:
        """How often a request of this key was answered before."""
        return self._times[key]

    def followed(self, request: Request) -> list[int]:
        """Return the sessions whose tool calls began as this conversation's, earliest first.

        A tool call in question counts as part of the conversation; other requests do not move it on. Once
        no session goes on as the conversation does, those it followed last stay the nearest to its world.
        """
        return self._alike if self._left else self._going_on(request) or self._alike

    def _going_on(self, request: Request) -> list[int]:
        if request.method != "tools/call":
            return self._alike
        calls = self._index.calls
        return [
            number
            for number in self._alike
            if len(calls[number]) > self._calls and calls[number][self._calls] == request.key
        ]

    def add(self, request: Request) -> None:
        """Note that a request was answered. One that was missed changes nothing."""
        assert request.key is not None
        if request.method == "tools/call":
            going_on = [] if self._left else self._going_on(request)
            self._left = not going_on
            self._alike = going_on or self._alike
            self._calls += 1
        self._times[request.key] += 1
