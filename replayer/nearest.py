"""The recorded requests that came closest to one that was missed, and where they differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rapidfuzz import fuzz, process

from recorder.canonical import canonical_json
from recorder.exchange import Exchange
from recorder.store import Store
from replayer.index import RequestIndex, asked_by_name

MOST_COMPARED = 2000
"""Recorded requests of a tool that are compared, earliest first; each is read from disk."""

COMPARED_CHARACTERS = 2000
"""Characters of each that are compared: edit similarity takes time with the square of them."""

SHOWN_CHARACTERS = 300
"""Characters of a value that a message shows."""


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


def nearest(
    store: Store, index: RequestIndex, method: str, params: Mapping[str, Any], limit: int = 3
) -> list[Near]:
    """Return the recorded requests most like this one: of the same method and tool, best first."""
    exchange_ids = index.alike.get((method, asked_by_name(params)), [])[:MOST_COMPARED]
    asked = compared(method, params)
    recorded = [compared(method, other) for other in store.request_params(exchange_ids)]
    texts = [canonical_json(other)[:COMPARED_CHARACTERS] for other in recorded]
    best = process.extract(canonical_json(asked)[:COMPARED_CHARACTERS], texts, scorer=fuzz.ratio, limit=limit)
    return [
        Near(
            store.exchange(exchange_ids[position]),
            percent / 100,
            tuple(_differences(recorded[position], asked)),
        )
        for _, percent, position in best
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
