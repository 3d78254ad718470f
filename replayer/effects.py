"""Which calls change the world: as servers declare, as recordings show, as names suggest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["policy", "annotation", "recording", "name", "unknown"]


@dataclass(slots=True)
class Effect:
    """What recordings show of one kind of call: what other calls answered before and after it."""

    changed: float = 0.0
    """Reads that answered differently afterwards; where several calls lay between, each bears its share."""
    unchanged: float = 0.0
    """Reads that answered the same. Most reads are about something else than what a call changed, so much of
    this is needed to speak against a change."""

    def verdict(self, suggestion: bool | None) -> tuple[bool, Reason]:
        """Weigh what was seen against what the name suggests; nothing known counts as a change."""
        seen = self.changed + self.unchanged
        if suggestion is False:
            if self.changed >= MOST_BLAME and self.changed > MOST_BLAME_SHARE * seen:
                return True, "recording"
            return False, "name"
        if self.unchanged >= ENOUGH_UNCHANGED and self.changed < LEAST_CHANGED_SHARE * seen:
            return False, "recording"
        return True, "unknown" if suggestion is None else "name"


MOST_BLAME, MOST_BLAME_SHARE = 1.0, 0.1
"""A call named as a read is one until it bears this much of the blame for changes: reads share it by chance,
whenever a real change lies beside them."""

ENOUGH_UNCHANGED, LEAST_CHANGED_SHARE = 20, 0.01


@dataclass(slots=True)
class Effects:
    """Collects evidence over recorded conversations, one after the other."""

    reading: set[int] = field(default_factory=set)
    """Kinds that are taken for reads: they are blamed for a change only where nothing else lay between."""
    kinds: dict[int, Effect] = field(default_factory=dict)
    """By the kind's number."""
    _last: dict[tuple[int, int], tuple[tuple[int, ...], int]] = field(default_factory=dict)
    _group: int | None = None

    def watch(
        self, group: int, kinds: list[int], keys: list[int], outputs: list[int], failed: list[bool]
    ) -> None:
        """Take in one conversation's answered tool calls, in order.

        Conversations of a group should come one after the other: the last answer to each call is kept for
        the next one to be compared with, for one group at a time.
        """
        if group != self._group:
            self._group = group
            self._last.clear()
        made: list[int] = []
        here: dict[int, tuple[int, int]] = {}
        for kind, key, output, failure in zip(kinds, keys, outputs, failed, strict=True):
            if key in here:
                position, before = here[key]
                self._blame(set(made[position:]), changed=before != output)
            elif (there := self._last.get((group, key))) is not None:
                self._blame(_unlike(there[0], made), changed=there[1] != output)
            if key not in here and len(self._last) < MOST_REMEMBERED:
                self._last[group, key] = (tuple(made[-MOST_COMPARED:]), output)
            if not failure:
                made.append(kind)
            here[key] = (len(made) - (not failure), output)

    def of(self, kind: int) -> Effect:
        return self.kinds.get(kind, Effect())

    def _blame(self, kinds: set[int], *, changed: bool) -> None:
        suspects = (kinds - self.reading or kinds) if changed else kinds
        for kind in suspects:
            effect = self.kinds.setdefault(kind, Effect())
            if changed:
                effect.changed += 1 / len(suspects)
            else:
                effect.unchanged += 1


MOST_REMEMBERED, MOST_COMPARED = 100_000, 50
"""Answers of one group that are kept to compare with, and calls before each: bounds on memory."""


def _unlike(left: tuple[int, ...], right: list[int]) -> set[int]:
    """Return the kinds of call that one conversation made more often than the other."""
    counts: dict[int, int] = {}
    for kind in left:
        counts[kind] = counts.get(kind, 0) + 1
    for kind in right[-MOST_COMPARED:]:
        counts[kind] = counts.get(kind, 0) - 1
    return {kind for kind, count in counts.items() if count}
