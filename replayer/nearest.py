"""The recorded calls that come closest to one that was missed, and where they differ.

They make a miss readable. As a tier of its own, the last one, the closest of them answers when the user
wants an answer to everything (`--min-trust 0`, the mode of the paper).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rapidfuzz import fuzz, process

from recorder.canonical import canonical_json
from recorder.exchange import Exchange
from recorder.store import Store
from replayer.evidence import Candidate, weigh
from replayer.keys import canonical_text
from replayer.learned import Keep, Learned, tool_id
from replayer.tier import Asked

MOST_COMPARED = 2000
"""Distinct recorded calls of a tool that are compared, earliest first."""

COMPARED_CHARACTERS = 2000
"""Characters of each that are compared: edit similarity takes time with the square of them."""

SHOWN_CHARACTERS = 300
"""Characters of a value that a message shows."""

VOTERS = 3
"""Closest calls whose answers are compared with each other."""

MOST_TRIED = 8
"""Closest calls that a measurement looks through for those that it did not leave out."""


@dataclass(frozen=True, slots=True)
class Difference:
    pointer: str
    """JSON pointer into a call's arguments, or another request's params."""
    recorded: str
    asked: str

    def __str__(self) -> str:
        return f"{self.pointer or '(the whole)'}: {self.recorded} recorded, {self.asked} asked"


@dataclass(frozen=True, slots=True)
class Near:
    exchange: Exchange
    score: float
    """Edit similarity of the beginning of the canonical text, in [0, 1]."""
    differences: tuple[Difference, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "session": self.exchange.session_id,
            "exchange": self.exchange.id,
            "score": round(self.score, 4),
            "differs_at": [difference.pointer for difference in self.differences],
        }


class NearestTier:
    """Answers with the recorded call whose arguments' text is most alike, whatever the difference means."""

    name = "nearest"

    def __init__(self, learned: Learned) -> None:
        self._learned = learned

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None:
        if asked.tool is None:
            return None
        tool = tool_id(asked.server, asked.tool)
        best: Candidate | None = None
        alike: list[int] = []
        for score, _, key, _ in closest(self._learned, tool, asked.arguments, MOST_TRIED if keep else VOTERS):
            rows = self._learned.rows(key, asked.place, known=asked.known, keep=keep)
            found = weigh(rows, asked.place, self.name, known=asked.known)
            if found is None:
                continue
            if best is None:
                best = replace(found, level=f"alike {int(score * 10) / 10:.1f}", score=round(score, 4))
            alike.append(found.loose)
            if len(alike) == VOTERS:
                break
        if best is None:
            return None
        # Whether the closest calls answer alike, and how alike they are, says more than where they stood.
        agree = alike.count(best.loose)
        return replace(best, agree=agree, conflict=0 if agree == len(alike) else 2, wide=0)


def closest(
    learned: Learned, tool: int, arguments: Mapping[str, Any], limit: int
) -> list[tuple[float, int, int, str]]:
    """Return score, exchange, key and arguments of the recorded calls most like this one, best first."""
    calls = learned.distinct_calls(tool, MOST_COMPARED)
    best = process.extract(
        canonical_text(arguments)[:COMPARED_CHARACTERS],
        [text[:COMPARED_CHARACTERS] for _, _, text in calls],
        scorer=fuzz.ratio,
        limit=limit,
    )
    return [(percent / 100, *calls[position]) for _, percent, position in best]


def nearest(store: Store, learned: Learned, asked: Asked, limit: int = 3) -> list[Near]:
    """Return the recorded requests most like this one: of the same tool or method, best first."""
    tool = tool_id(asked.server, asked.tool or f"{asked.method}\0")
    return [
        Near(store.exchange(exchange), score, tuple(_differences(json.loads(text), asked.arguments)))
        for score, exchange, _, text in closest(learned, tool, asked.arguments, limit)
    ]


def compared(method: str, params: Mapping[str, Any]) -> object:
    """Return the part of a request that is compared: a call's arguments, or all but `_meta`."""
    if method == "tools/call" and not {"inputResponses", "requestState"} & params.keys():
        return params.get("arguments") or {}
    return {name: value for name, value in params.items() if name != "_meta"}


def shown(value: object) -> str:
    """Render a value for a message, cut where it is long."""
    text = canonical_json(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _differences(recorded: object, asked: object, pointer: str = "") -> Iterator[Difference]:
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in dict.fromkeys([*recorded, *asked]):
            below = f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"
            yield from _differences(recorded.get(key, _NOTHING), asked.get(key, _NOTHING), below)
    elif isinstance(recorded, list) and isinstance(asked, list) and len(recorded) == len(asked):
        for position, pair in enumerate(zip(recorded, asked, strict=True)):
            yield from _differences(*pair, f"{pointer}/{position}")
    elif recorded is _NOTHING or asked is _NOTHING or canonical_json(recorded) != canonical_json(asked):
        yield Difference(pointer, _side(recorded), _side(asked))


_NOTHING = object()


def _side(value: object) -> str:
    return "nothing" if value is _NOTHING else shown(value)
