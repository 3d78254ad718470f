"""The exact tiers: the same call, in the same state or in another one."""

from __future__ import annotations

from dataclasses import replace

from replayer.evidence import SAME_STATE, Candidate, weigh
from replayer.learned import Keep, Learned
from replayer.tier import Asked

SAME, OTHER = "exact", "exact-other-state"


class ExactTier:
    """Answers with what was recorded for an equal call, nearest state first."""

    name = SAME

    def __init__(self, learned: Learned) -> None:
        self._learned = learned

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None:
        rows = self._learned.rows(asked.key, asked.place, known=asked.known, keep=keep)
        told = {row.exchange for row in rows}
        if asked.bound is not None:
            # The same call of another run, whatever its ids were; or of one that was told the very same id.
            bound = self._learned.rows(asked.bound, asked.place, known=asked.known, keep=keep)
            told -= {row.exchange for row in bound}
            rows = list(dict.fromkeys([*bound, *rows]))
        found = weigh(rows, asked.place, SAME, known=asked.known)
        if found is not None and asked.bound is not None and found.exchange in told:
            found = replace(found, literal=True)
        return found if found is None or found.level in SAME_STATE else replace(found, tier=OTHER)
