"""What a tunnel is, over whichever wire: it shows each line to a tap first, and says how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from recorder.frame import Direction

READ_SIZE = 1 << 16
"""Bytes; what a pipe holds."""

ANSWER_GRACE_S = 5.0
"""Time without a word from a server that still owes answers: a client may close as soon as it has asked."""


class Tap(Protocol):
    """Sees every line before it is passed on. What it raises ends the tunnel."""

    def record(self, direction: Direction, lines: Sequence[bytes]) -> list[bool]:
        """Take note of the lines and say which may be passed on."""

    def flush(self) -> None:
        """Catch up on what `record` put off; called when nothing else is to be done."""

    def record_own(self, line: bytes) -> None:
        """Take note of a line that the tunnel itself says to the client."""

    def unanswered(self) -> list[tuple[object, str]]:
        """Id and method of the client's requests that wait for a reply, oldest first."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a tunnel ended."""

    session: str
    server: str
    exit_code: int
    """For our own process: the server's, or 128 and the number of the signal that ended one of us."""
    failure: str | None = None
    """What to tell the operator, when the server is to blame."""
