"""Success over tasks that were tried several times: estimates, their intervals, and tests of two runs.

The unit is the task: tries of one task are alike, so intervals and tests draw tasks, never single rollouts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Literal

from recorder.exchange import Record

LEVEL = 0.95
"""Of every interval."""

RESAMPLES = 2_000
EXACT_TASKS = 20
"""Up to so many tasks that differ, a permutation test looks at all assignments of signs."""
SIGN_FLIPS = 20_000
"""Assignments that are drawn where there are more."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How a task went."""

    scored: int
    """Rollouts that have a reward; those that met a miss or failed have none."""
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.scored:
            raise ValueError(f"right must be in [0, scored], got {self.right} of {self.scored}")


class Estimate(Record):
    """A mean over tasks, with its interval."""

    value: float | None
    """`None`, as are `low` and `high`: no task has enough scored rollouts."""
    low: float | None
    high: float | None
    tasks: int
    """Those that the mean is over."""
    left_out: int
    """Those with too few scored rollouts."""


def pass_at_k(tally: Tally, k: int) -> float:
    """Estimate the chance that at least one of `k` tries is right, without bias.

    That is 1 - C(n - c, k) / C(n, k) with c right of n (Chen et al. 2021, arXiv 2107.03374).

    Raises:
        ValueError: fewer than `k` rollouts were scored, or `k` is below 1.
    """
    all_ways = _ways(tally, k)
    return (all_ways - math.comb(tally.scored - tally.right, k)) / all_ways


def pass_hat_k(tally: Tally, k: int) -> float:
    """Estimate pass^k, the chance that all of `k` tries are right, without bias.

    That is C(c, k) / C(n, k) with c right of n (tau-bench, Yao et al. 2024, arXiv 2406.12045).

    Raises:
        ValueError: as for `pass_at_k`.
    """
    all_ways = _ways(tally, k)
    return math.comb(tally.right, k) / all_ways


def _ways(tally: Tally, k: int) -> int:
    if not 1 <= k <= tally.scored:
        raise ValueError(f"k must be from 1 to the {tally.scored} scored rollouts, got {k}")
    return math.comb(tally.scored, k)


def estimate(
    tallies: Iterable[Tally],
    k: int,
    rng: Random,
    *,
    of: Callable[[Tally, int], float] = pass_at_k,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Average a measure over the tasks that have `k` scored rollouts.

    Args:
        of: `pass_at_k` or `pass_hat_k`.
    """
    given = list(tallies)
    values = [of(tally, k) for tally in given if tally.scored >= k]
    if not values:
        return Estimate(value=None, low=None, high=None, tasks=0, left_out=len(given))
    low, high = share_interval(values, rng, resamples=resamples)
    return Estimate(
        value=_mean(values), low=low, high=high, tasks=len(values), left_out=len(given) - len(values)
    )


# --- intervals ----------------------------------------------------------------------------------------------


def bootstrap_interval(
    values: Sequence[float], rng: Random, *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean (Efron and Tibshirani 1993, chapter 13).

    Whole tasks are drawn, all their tries with them: the bootstrap over clusters of Field and Welsh (2007).
    For few tasks it is too narrow: with 10 it holds the truth about 9 times in 10. It has no width where all
    values are equal.

    Args:
        values: One a task.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("values must not be empty")
    size = len(values)
    if min(values) == max(values):
        return values[0], values[0]
    means = sorted(sum(rng.choices(values, k=size)) / size for _ in range(resamples))
    tail = (1 - LEVEL) / 2
    return _quantile(means, tail), _quantile(means, 1 - tail)


def share_interval(
    values: Sequence[float], rng: Random, *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return a 95 % interval of a mean of values in [0, 1].

    It is `bootstrap_interval`, except where all values are equal: to draw them again shows nothing else, yet
    0 of 5 tasks is weak evidence, and one task is hardly any. There the chance of another value has an exact
    upper bound (Clopper and Pearson 1934), and such values could be anything from 0 to 1.
    """
    if not values or min(values) != max(values):
        return bootstrap_interval(values, rng, resamples=resamples)
    only, other = values[0], 1 - ((1 - LEVEL) / 2) ** (1 / len(values))
    return only * (1 - other), 1 - (1 - only) * (1 - other)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile, interpolated between the two values around it."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# --- two runs -----------------------------------------------------------------------------------------------


class Paired(Record):
    """Two runs on the tasks that both have a scored rollout of."""

    tasks: int
    first: float | None
    """Mean success; `None`, as are the four below, without such tasks."""
    second: float | None
    difference: float | None
    """The second's less the first's."""
    low: float | None
    high: float | None
    better: int
    """Tasks that the second run has right more often."""
    worse: int
    same: int
    test: Literal["mcnemar", "permutation"]
    """`mcnemar`: one scored rollout a task in both, so tasks are right or wrong."""
    exact: bool
    """Whether all assignments of signs were counted, and none drawn."""
    p: float | None
    """Two-sided, of no difference."""


def compare_paired(
    first: Mapping[str, Tally],
    second: Mapping[str, Tally],
    rng: Random,
    *,
    resamples: int = RESAMPLES,
) -> Paired:
    """Compare two runs task by task.

    Tests assume that, were both runs the same, a task's difference would be as likely as its negative. That
    holds where both tried it equally often, and nearly so elsewhere.

    Args:
        first: Task → how it went.
    """
    shared = sorted(
        task for task in first.keys() & second.keys() if first[task].scored and second[task].scored
    )
    before, after = [first[task] for task in shared], [second[task] for task in shared]
    differences = [_rate(new) - _rate(old) for old, new in zip(before, after, strict=True)]
    better, worse = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    single = all(tally.scored == 1 for tally in [*before, *after])
    counts = {"tasks": len(shared), "better": better, "worse": worse, "same": len(shared) - better - worse}
    exact = single or better + worse <= EXACT_TASKS
    test: Literal["mcnemar", "permutation"] = "mcnemar" if single else "permutation"
    if not shared:
        return Paired(
            **counts, first=None, second=None, difference=None, low=None, high=None, test=test, exact=exact,
            p=None,
        )  # fmt: skip
    low, high = bootstrap_interval([float(value) for value in differences], rng, resamples=resamples)
    return Paired(
        **counts,
        first=float(sum(map(_rate, before)) / len(shared)),
        second=float(sum(map(_rate, after)) / len(shared)),
        difference=float(sum(differences) / len(shared)),
        low=low,
        high=high,
        test=test,
        exact=exact,
        p=sign_test(better, worse) if single else sign_flip_test(differences, rng),
    )


def _rate(tally: Tally) -> Fraction:
    return Fraction(tally.right, tally.scored)


def sign_test(better: int, worse: int) -> float:
    """Return the two-sided p of the exact sign test.

    Where tasks are right or wrong it is the exact form of McNemar's test (1947): tasks that went the same
    in both runs say nothing.
    """
    trials = better + worse
    tail, ways = 0, 1
    for few in range(min(better, worse) + 1):
        tail, ways = tail + ways, ways * (trials - few) // (few + 1)
    return min(1.0, 2 * tail / (1 << trials))


def sign_flip_test(
    differences: Sequence[Fraction],
    rng: Random,
    *,
    exact_tasks: int = EXACT_TASKS,
    flips: int = SIGN_FLIPS,
) -> float:
    """Return the two-sided p of the permutation test that flips signs of paired differences (Fisher 1935).

    All assignments of signs are counted where few differences are not 0; otherwise some are drawn, and the
    observed one counts as one of them, so that p is never 0 (Phipson and Smyth 2010).

    Args:
        differences: One a task; exact, so that sums that tie do.
    """
    scale = math.lcm(*(value.denominator for value in differences))
    sizes = Counter(abs(int(value * scale)) for value in differences if value)
    observed = abs(int(sum(differences, Fraction()) * scale))
    if sizes.total() <= exact_tasks:
        sums = Counter({0: 1})
        for size in sizes.elements():
            flipped: Counter[int] = Counter()
            for reached, ways in sums.items():
                flipped[reached + size] += ways
                flipped[reached - size] += ways
            sums = flipped
        extreme = sum(ways for reached, ways in sums.items() if abs(reached) >= observed)
        return extreme / sums.total()
    extreme = sum(abs(_flipped(sizes, rng)) >= observed for _ in range(flips))
    return (1 + extreme) / (1 + flips)


def _flipped(sizes: Mapping[int, int], rng: Random) -> int:
    """Return the sum of differences with random signs: for each size, the bits of a number are its signs."""
    return sum(size * (2 * rng.getrandbits(count).bit_count() - count) for size, count in sizes.items())
