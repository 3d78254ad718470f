"""The semantic tier: a call whose prose means the same, by embedding, and which names the same things.

An embedding does not see that `W123` and `W124` are two orders, so only prose may differ here: texts of
several words, and in them no word that has a digit. How often such an answer is right is learned like that of
any other tier; it abstains where it is not trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from recorder.embedder import Embedder
from replayer.evidence import Candidate, weigh
from replayer.keys import canonical_text
from replayer.learned import Keep, Learned, tool_id
from replayer.tier import Asked

LEAST_SIMILARITY = 0.5
"""Cosine below which a call is not a candidate at all."""

MOST_LOOKED_AT = 50
"""Most similar calls that are looked through for one that names the same things."""

LEAST_WORDS = 3
"""Words that make a text prose."""

_WITH_DIGIT = re.compile(r"\S*\d\S*")


class SemanticTier:
    """Searches one matrix per tool.

    Args:
        embedder: The one that the matrices were made with.
    """

    name = "semantic"

    def __init__(self, learned: Learned, embedder: Embedder) -> None:
        self._learned, self._embedder = learned, embedder

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None:
        if asked.tool is None or not any(True for _ in _prose(asked.arguments)):
            return None
        tool = tool_id(asked.server, asked.tool)
        vectors = self._learned.vectors(tool)
        if vectors is None:
            return None
        import numpy  # comes with the embedder, and takes a tenth of a second to load

        keys, data = vectors
        matrix = numpy.frombuffer(data, dtype=numpy.float32).reshape(len(keys), -1)
        similarity = matrix @ self._embedder.embed([embedded_text(asked.tool, asked.arguments)])[0]
        named = _named(asked.arguments)
        for position in numpy.argsort(-similarity)[:MOST_LOOKED_AT]:
            score = float(similarity[position])
            if score < LEAST_SIMILARITY:
                return None
            key = keys[position]
            if key == asked.key or _named(self._learned.recorded_arguments(tool, key)) != named:
                continue
            rows = self._learned.rows(key, asked.place, known=asked.known, keep=keep)
            if found := weigh(rows, asked.place, self.name, known=asked.known):
                return replace(found, level=f"alike {int(score * 20) / 20:.2f}", score=round(score, 4))
        return None


def embedded_text(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return the text that stands for a call in the embedding."""
    return f"{tool} {canonical_text(arguments)}"


def _prose(value: object) -> Iterator[str]:
    match value:
        case str():
            if len(value.split(None, LEAST_WORDS)) >= LEAST_WORDS:
                yield value
        case dict():
            for item in value.values():
                yield from _prose(item)
        case list():
            for item in value:
                yield from _prose(item)


def _named(value: Any) -> Any:
    """Return the arguments with prose reduced to its words that have digits, in their order."""
    match value:
        case str():
            return _WITH_DIGIT.findall(value) if any(True for _ in _prose(value)) else value
        case dict():
            return {key: _named(item) for key, item in value.items()}
        case list():
            return [_named(item) for item in value]
        case _:
            return value
