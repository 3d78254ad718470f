"""What a replay tier is: one way to find a recorded answer to a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from replayer.evidence import Candidate
from replayer.learned import Keep
from replayer.state import Place


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the tiers see it: what it asks, and where it stands."""

    server: str
    method: str
    tool: str | None
    """`None` for a request that is no tool call."""
    kind: str
    """`verbs.kind_of` a tool call, else the method."""
    arguments: Mapping[str, Any]
    """Canonical, for a tool call."""
    key: int
    bound: int | None
    """The key with minted ids replaced; `None` where the arguments name none."""
    place: Place
    known: bool
    """Whether the group is recorded."""


class Tier(Protocol):
    """Finds the best recorded answer that it can to a request, if any."""

    @property
    def name(self) -> str: ...

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None: ...
