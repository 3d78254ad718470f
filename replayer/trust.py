"""How often an answer like this one is right, learned from the recording itself.

Each recorded call is answered from the others and the answer compared with what was recorded: leaving its
session out to learn for a rollout whose group is recorded, leaving its whole group out for one whose is not.
What the recordings said about the answer (`evidence`) puts it into nested cells. A cell's rate of right
answers over all tools is shrunk towards that of the cell around it, its server's towards that, and its own
tool's towards both. So a tool that was compared seldom is judged as the others are, and one that was compared
often by itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from replayer.evidence import Candidate

SHRINKAGE = 4.0
"""Comparisons that a cell needs to count as much as what is known without it. Between 2 and 4 neither
coverage nor wrong answers moved by more than a point, on seven corpora."""

ALONE = 0.85
"""Where an answer's trust begins that other kinds of call say nothing of: under every threshold, so that a
kind that was never compared is not served."""

MOST_OF_A_TOOL = 10.0
"""Comparisons that one tool adds to the rates of its server and of the recording: those are rates over tools,
and say what to expect of one that was seldom compared."""

FOLDS = 20
"""Left-out trust is that of counts without a twentieth of the groups."""

MOST_WRONG = 0.02
"""The share of wrong answers that the default threshold allows, as an upper bound."""

BOUND_Z = 1.2816
"""Standard normal quantile of a one-sided 90 % bound."""

MIN_COMPARISONS = 30
"""Fewer comparisons than this are no calibration."""

LEAST_TRUST = 0.9
"""No threshold is lower: what is wrong one time in ten is not served, however right the rest is. On seven
corpora this halves the wrong answers and costs a point of coverage."""

Cell = tuple[str | int, ...]
"""What is known of an answer: tier, conflict, wide conflict, level, agreement; or the first of these.

Agreement is 1, or the number of recordings that agree at least.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One recorded call answered from the others."""

    server: str
    kind: str
    cells: tuple[Cell, ...]
    right: bool
    weight: float
    """1, or less where several sessions of one group repeat what is one piece of evidence."""
    group: int
    alone: bool = False
    """Whether only this kind's own comparisons say something of it: see `stands_alone`."""


def stands_alone(candidate: Candidate, *, changes: bool) -> bool:
    """Whether the rates of other kinds of call say nothing of an answer.

    What a world-changing call answers depends on the state that it changes. From another state it is right
    where the tool answers everything alike, and that is a matter of the tool.
    """
    return changes and candidate.tier == "exact-other-state"


def cells_of(candidate: Candidate) -> tuple[Cell, ...]:
    """Return the nested cells that an answer is in, widest first."""
    conflict = (candidate.tier, candidate.conflict, candidate.wide)
    level = (*conflict, f"stale {candidate.level}" if candidate.stale else candidate.level)
    # Two recordings that agree are among those of at least two: what three are worth is not less.
    agree = [(*level, least) for least in range(2, candidate.agree + 1)] or [(*level, 1)]
    return ((candidate.tier,), conflict, level, *agree)


Count = tuple[float, float]
"""Right comparisons, and all."""


class Rates:
    """How often answers were right: by cell, over all tools, those of a server, and for each kind of call.

    Args:
        kinds: (server, kind, cell) → count.
    """

    def __init__(self, kinds: Mapping[tuple[str, str, Cell], Count]) -> None:
        self.kinds = kinds
        self.servers: dict[tuple[str, Cell], Count] = {}
        self.all: dict[Cell, Count] = {}
        for (server, _, cell), (right, compared) in kinds.items():
            if compared > 0:
                share = min(1.0, MOST_OF_A_TOOL / compared)
                self.all[cell] = _sum(self.all.get(cell), right * share, compared * share)
                self.servers[server, cell] = _sum(
                    self.servers.get((server, cell)), right * share, compared * share
                )

    def trust(self, server: str, kind: str, cells: Sequence[Cell], *, alone: bool = False) -> float:
        """Return the probability that an answer in these cells is right; in (0, 1).

        Args:
            alone: Other kinds of call say nothing of this one.
        """
        if alone:
            return self._of_kind(server, kind, cells, ALONE)
        trust = 0.5
        for cell in cells[1:]:
            trust = _shrunk(self.all.get(cell, _NONE), trust)
        # What holds the same comparisons as what is around it adds nothing, and would count them twice.
        before = _NONE
        for cell in cells[1:]:
            count = self.servers.get((server, cell), _NONE)
            if count not in (before, self.all.get(cell)):
                trust = _shrunk(count, trust)
            before = count
        return self._of_kind(server, kind, cells, trust)

    def _of_kind(self, server: str, kind: str, cells: Sequence[Cell], trust: float) -> float:
        before = _NONE
        for cell in cells:
            count = self.kinds.get((server, kind, cell), _NONE)
            if count[1] != before[1]:
                trust = _shrunk(count, trust)
            before = count
        return trust


_NONE: Count = (0.0, 0.0)


def _sum(count: Count | None, right: float, compared: float) -> Count:
    return (right, compared) if count is None else (count[0] + right, count[1] + compared)


def _shrunk(count: Count, towards: float) -> float:
    return (count[0] + SHRINKAGE * towards) / (count[1] + SHRINKAGE)


def rates_of(comparisons: Iterable[Comparison]) -> Rates:
    kinds: dict[tuple[str, str, Cell], Count] = {}
    for comparison in comparisons:
        for cell in comparison.cells:
            at = (comparison.server, comparison.kind, cell)
            kinds[at] = _sum(kinds.get(at), comparison.right * comparison.weight, comparison.weight)
    return Rates(kinds)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was learned of one kind of rollout: its group recorded, or not."""

    rates: Rates
    compared: float
    """Comparisons of answers that may be served, weighted."""
    threshold: float | None
    """The default; `None` where no trust is enough."""

    @property
    def enough(self) -> bool:
        return self.compared >= MIN_COMPARISONS

    def compared_at(self, levels: Collection[str]) -> float:
        """Return how many exact answers of these levels were compared."""
        return sum(
            compared
            for (_, _, cell), (_, compared) in self.rates.kinds.items()
            if len(cell) == 4 and cell[0] == "exact" and cell[3] in levels
        )

    def compared_by(self, tier: str) -> float:
        """Return how many answers of a tier were compared."""
        return sum(compared for (_, _, cell), (_, compared) in self.rates.kinds.items() if cell == (tier,))


def calibrate(comparisons: Sequence[Comparison]) -> Calibration:
    """Fit rates to comparisons and find the default threshold."""
    folds: dict[int, list[Comparison]] = {}
    for comparison in comparisons:
        folds.setdefault(comparison.group % FOLDS, []).append(comparison)
    scored = []
    for number, part in folds.items():
        others = rates_of(c for other, fold in folds.items() if other != number for c in fold)
        # The nearest call is served only where everything is, so it has no say in the threshold.
        servable = (c for c in part if c.cells[0][0] != "nearest")
        scored += [(others.trust(c.server, c.kind, c.cells, alone=c.alone), c) for c in servable]
    compared = sum(c.weight for c in comparisons if c.cells[0][0] not in ("nearest", "schema"))
    return Calibration(rates_of(comparisons), compared, default_threshold(scored))


def default_threshold(scored: Iterable[tuple[float, Comparison]]) -> float | None:
    """Return the lowest trust whose left-out wrong rate has an upper 90 % bound of at most 2 %.

    Where too little was compared to bound it so (it takes 81 answers without a wrong one, 166 with one), the
    lowest trust above which at least 30 answers were compared and at most 1 % wrong. Never less than
    `LEAST_TRUST`.

    Args:
        scored: Each comparison with its left-out trust.
    """
    lowest = likely = None
    sample = _Clustered()
    ordered = sorted(scored, key=lambda item: -item[0])
    for position, (trust, comparison) in enumerate(ordered):
        if trust < LEAST_TRUST:
            break
        sample.add(comparison.group, 0.0 if comparison.right else comparison.weight, comparison.weight)
        following = ordered[position + 1][0] if position + 1 < len(ordered) else 0.0
        if following == trust:
            continue
        # What lies between this trust and the next that was seen is as good as this one, as far as is known.
        between = max(LEAST_TRUST, (trust + following) / 2)
        if sample.upper_bound() <= MOST_WRONG:
            lowest = between
        if sample.compared >= MIN_COMPARISONS and sample.wrong <= MOST_WRONG / 2 * sample.compared:
            likely = between
    return likely if lowest is None else lowest


class _Clustered:
    """A rate over groups of comparisons that tend to go wrong together."""

    def __init__(self) -> None:
        self.wrong = self.compared = 0.0
        self._groups: dict[int, Count] = {}
        # Sums over groups of wrong², wrong · compared and compared².
        self._squares = [0.0, 0.0, 0.0]

    def add(self, group: int, wrong: float, compared: float) -> None:
        before = self._groups.get(group, _NONE)
        now = self._groups[group] = _sum(before, wrong, compared)
        for sign, (w, n) in ((-1, before), (1, now)):
            for place, square in enumerate((w * w, w * n, n * n)):
                self._squares[place] += sign * square
        self.wrong += wrong
        self.compared += compared

    def upper_bound(self) -> float:
        """Return the upper bound for as many comparisons as would vary this much if they were independent.

        The variance of the rate is that of a ratio over clusters (W. G. Cochran, Sampling Techniques, 1977).
        """
        rate, size = self.wrong / self.compared, self.compared
        ww, wn, nn = self._squares
        variance = (ww - 2 * rate * wn + rate * rate * nn) / (size * size)
        if self.wrong and variance > 0:
            size = min(size, rate * (1 - rate) / variance)
        return upper_bound(rate * size, size)


def upper_bound(wrong: float, compared: float) -> float:
    """Return the one-sided upper 90 % bound of a rate (E. B. Wilson, 1927)."""
    z2, rate = BOUND_Z * BOUND_Z, wrong / compared
    spread = BOUND_Z * math.sqrt(rate * (1 - rate) / compared + z2 / (4 * compared * compared))
    return (rate + z2 / (2 * compared) + spread) / (1 + z2 / compared)
