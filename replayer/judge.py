"""Whether an answer that was found may be given: the calibration applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replayer.evidence import OWN_GROUP, SAME_STATE, Candidate
from replayer.exact import SAME
from replayer.trust import MIN_COMPARISONS, Calibration, cells_of, stands_alone


@dataclass(frozen=True, slots=True)
class Verdict:
    trust: float | None
    """Probability that the answer is right; `None` where too little could be compared to say."""
    served: bool


class Judge:
    """
    Args:
        known: Learned by leaving sessions out, for rollouts whose group is recorded.
        unknown: Learned by leaving groups out, for the others.
        changes: Whether a kind of call changes the world, by server and kind.
        min_trust: Instead of the learned thresholds, in [0, 1]; at 0 everything found is served.
    """

    def __init__(
        self,
        known: Calibration,
        unknown: Calibration,
        min_trust: float | None = None,
        changes: Callable[[str, str], bool] = lambda server, kind: False,
    ) -> None:
        self.known, self.unknown, self.min_trust = known, unknown, min_trust
        self._changes = changes
        self._verdicts: dict[tuple[object, ...], Verdict] = {}
        # Of groups recorded once nothing in the same state could be compared, whatever else could.
        self._enough_lessons = unknown.compared_by("schema") >= MIN_COMPARISONS
        self._same_state = known if known.compared_at(SAME_STATE) >= MIN_COMPARISONS else None

    def judge(self, candidate: Candidate, server: str, kind: str, *, known: bool) -> Verdict:
        """Return the trust in an answer, and whether it may be given. Like answers get the same verdict."""
        c = candidate
        like = (server, kind, known, c.tier, c.level, c.stale, c.agree, c.conflict, c.wide)
        verdict = self._verdicts.get(like)
        if verdict is None:
            verdict = self._verdicts[like] = self._judged(candidate, server, kind, known)
        return verdict

    def _judged(self, candidate: Candidate, server: str, kind: str, known: bool) -> Verdict:
        calibration = self._calibration(candidate, known)
        if calibration is None:
            # Nothing could be learned: the same call is served for what it is, anything else is a guess. An
            # error for a violated schema is the server's own words for the same mistake.
            served = candidate.tier.startswith("exact") or candidate.tier == "schema"
            return Verdict(None, served or self.min_trust == 0)
        alone = stands_alone(candidate, changes=self._changes(server, kind))
        trust = calibration.rates.trust(server, kind, cells_of(candidate), alone=alone)
        if candidate.tier == "nearest":
            return Verdict(trust, self.min_trust == 0)
        if candidate.stale:
            # A conversation reads what it wrote, however seldom that makes a difference.
            return Verdict(trust, self.min_trust is not None and trust >= self.min_trust)
        threshold = calibration.threshold if self.min_trust is None else self.min_trust
        return Verdict(trust, threshold is not None and trust >= threshold)

    def _calibration(self, candidate: Candidate, known: bool) -> Calibration | None:
        """Return what was learned about such an answer, if enough was."""
        if candidate.tier == "schema":
            return self.unknown if self._enough_lessons else None
        if not known:
            return self.unknown if self.unknown.enough else None
        if candidate.tier == SAME:
            return self._same_state
        if self.known.enough:
            return self.known
        return self.unknown if candidate.level not in OWN_GROUP and self.unknown.enough else None
