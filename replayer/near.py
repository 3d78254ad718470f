"""The near tier: a call that differs only where its tool's recordings show that it does not matter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from replayer.evidence import Candidate, Row, weigh
from replayer.keys import call_key, canonical_text
from replayer.learned import Facts, Keep, Learned, tool_id
from replayer.tier import Asked

_SPACE = re.compile(r"\s+")


class NearTier:
    name = "near"

    def __init__(self, learned: Learned) -> None:
        self._learned = learned

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None:
        if asked.tool is None:
            return None
        facts = self._learned.facts(tool_id(asked.server, asked.tool))
        near = near_key(asked.server, asked.tool, asked.arguments, facts)
        if near is None:
            return None
        rows: list[Row] = []
        for key in self._learned.near_keys(near):
            if key != asked.key:
                rows += self._learned.rows(key, asked.place, known=asked.known, keep=keep)
        return weigh(rows, asked.place, self.name, known=asked.known)


def near_key(server: str, tool: str, arguments: Mapping[str, Any], facts: Facts) -> int | None:
    """Return a key equal for calls that differ only where it does not matter; `None` if it always does."""
    if not facts.insensitive and not facts.prose:
        return None
    kept = {
        name: spelled(value) if name in facts.prose and isinstance(value, str) else value
        for name, value in arguments.items()
    }
    for name, values in facts.insensitive.items():
        # A value that was never compared may matter, though others do not.
        if values is None or canonical_text(arguments.get(name)) in values:
            kept[name] = _ANY
    return call_key(server, tool, canonical_text(["near", kept]))


_ANY = ["any"]


def spelled(text: str) -> str:
    """Return a text without what is only spelling: case, runs of white space, closing punctuation."""
    return _SPACE.sub(" ", text).strip().rstrip(".!?;, ").casefold()
