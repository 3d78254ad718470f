"""What a replay tier is: one way to find a recorded exchange for a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from replayer.history import History


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    params: Mapping[str, Any]
    key: str | None
    """Equal for equal requests; `None` for a leg of a chain that this conversation did not begin."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A recorded exchange offered as the answer to a request."""

    exchange_id: int
    tier: str
    score: float
    """Similarity in [0, 1]; 1 is identical. Scores of different tiers do not compare."""


class Tier(Protocol):
    """Finds the best recorded exchange for a request, or `None` to let the next tier try."""

    @property
    def name(self) -> str: ...

    def find(self, request: Request, history: History) -> Hit | None: ...
