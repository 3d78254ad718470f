"""Estimates, intervals and tests over tasks, against values worked out by hand and against simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations
from random import Random

import pytest

from train.statistics import (
    Estimate,
    Paired,
    Tally,
    bootstrap_interval,
    compare_paired,
    estimate,
    pass_at_k,
    pass_hat_k,
    share_interval,
    sign_flip_test,
    sign_test,
)


@pytest.mark.parametrize(
    ("tally", "k", "at_least_one", "all_of_them"),
    [
        (Tally(4, 1), 1, 1 / 4, 1 / 4),
        (Tally(4, 1), 2, 1 / 2, 0),
        (Tally(4, 3), 2, 1, 1 / 2),
        (Tally(5, 2), 3, 9 / 10, 0),
        (Tally(8, 0), 8, 0, 0),
        (Tally(8, 8), 3, 1, 1),
    ],
)
def test_pass_at_k_and_pass_hat_k_are_those_worked_out_by_hand(
    tally: Tally, k: int, at_least_one: float, all_of_them: float
) -> None:
    assert pass_at_k(tally, k) == pytest.approx(at_least_one)
    assert pass_hat_k(tally, k) == pytest.approx(all_of_them)


@pytest.mark.parametrize("scored", [1, 4, 7])
def test_they_are_shares_of_all_choices_of_k_rollouts(scored: int) -> None:
    for right in range(scored + 1):
        outcomes = [True] * right + [False] * (scored - right)
        for k in range(1, scored + 1):
            chosen = list(combinations(outcomes, k))
            assert pass_at_k(Tally(scored, right), k) == pytest.approx(sum(map(any, chosen)) / len(chosen))
            assert pass_hat_k(Tally(scored, right), k) == pytest.approx(sum(map(all, chosen)) / len(chosen))


def test_they_stay_exact_for_many_rollouts() -> None:
    assert pass_at_k(Tally(100_000, 1), 50_000) == 0.5
    assert pass_at_k(Tally(1_000_000, 1), 1) == 1e-6


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_beyond_the_scored_rollouts_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be from 1 to the 3 scored rollouts, got {k}"):
        pass_at_k(Tally(3, 1), k)
    with pytest.raises(ValueError, match=f"k must be from 1 to the 3 scored rollouts, got {k}"):
        pass_hat_k(Tally(3, 1), k)


def test_a_tally_with_more_right_than_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="right must be in"):
        Tally(1, 2)


def test_tasks_with_too_few_scored_rollouts_are_left_out_and_counted() -> None:
    found = estimate([Tally(4, 2), Tally(2, 2), Tally(1, 1), Tally(0, 0)], 2, Random(0))
    assert (found.value, found.tasks, found.left_out) == (pytest.approx((5 / 6 + 1) / 2), 2, 2)


def test_without_a_task_there_is_no_estimate() -> None:
    nothing = Estimate(value=None, low=None, high=None, tasks=0, left_out=1)
    assert estimate([Tally(1, 1)], 2, Random(0)) == nothing
    assert estimate([], 1, Random(0)) == nothing.model_copy(update={"left_out": 0})


# --- intervals ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_interval() -> None:
    values = [0.0, 0.25, 0.5, 1.0]
    assert bootstrap_interval(values, Random(3)) == bootstrap_interval(values, Random(3))
    assert bootstrap_interval(values, Random(3), resamples=50) != bootstrap_interval(
        values, Random(4), resamples=50
    )


def test_the_bootstrap_is_the_binomial_distribution_where_tasks_are_right_or_wrong() -> None:
    """Of 100 tasks with 30 right, resamples have a mean of 0.3 and a deviation of 0.0458."""
    low, high = bootstrap_interval([1.0] * 30 + [0.0] * 70, Random(0), resamples=4_000)
    assert low == pytest.approx(0.3 - 1.96 * 0.0458, abs=0.012)
    assert high == pytest.approx(0.3 + 1.96 * 0.0458, abs=0.012)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        bootstrap_interval([], Random(0))
    with pytest.raises(ValueError, match="must not be empty"):
        share_interval([], Random(0))


def test_where_all_tasks_are_alike_the_exact_bound_says_how_little_is_known() -> None:
    """0 of 5: Clopper and Pearson's upper limit is 1 - 0.025 ** (1 / 5)."""
    assert share_interval([0.0] * 5, Random(0)) == (0.0, pytest.approx(0.52182, abs=1e-5))
    assert share_interval([1.0] * 5, Random(0)) == (pytest.approx(0.47818, abs=1e-5), 1.0)
    assert share_interval([0.5], Random(0)) == (pytest.approx(0.0125), pytest.approx(0.9875))
    assert bootstrap_interval([0.5, 0.5], Random(0)) == (0.5, 0.5)


@pytest.mark.parametrize(("tasks", "least", "most"), [(10, 0.86, 0.93), (40, 0.91, 0.97), (100, 0.92, 0.98)])
def test_intervals_over_tasks_hold_the_truth_19_times_in_20_and_those_over_rollouts_do_not(
    tasks: int, least: float, most: float
) -> None:
    """Tasks differ in how hard they are, so a task's 8 rollouts are alike: mean success is 0.4."""
    chance, runs, samples = Random(20), 300, 8
    over_tasks = over_rollouts = 0
    for _ in range(runs):
        rates = [chance.betavariate(0.4, 0.6) for _ in range(tasks)]
        counts = [sum(chance.random() < rate for _ in range(samples)) for rate in rates]
        low, high = share_interval([count / samples for count in counts], chance, resamples=300)
        over_tasks += low <= 0.4 <= high
        mean = sum(counts) / (tasks * samples)
        reach = 1.96 * math.sqrt(mean * (1 - mean) / (tasks * samples))
        over_rollouts += abs(mean - 0.4) <= reach
    assert least <= over_tasks / runs <= most
    assert over_rollouts / runs < 0.8


# --- two runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 1 / 16), (0, 5, 1 / 16), (8, 2, 112 / 1024), (3, 3, 1.0)],
)
def test_the_sign_test_is_the_exact_binomial(better: int, worse: int, p: float) -> None:
    assert sign_test(better, worse) == pytest.approx(p)


def test_the_sign_test_takes_thousands_of_tasks() -> None:
    assert sign_test(5_200, 4_800) == pytest.approx(6.6e-5, rel=0.03)


def test_the_permutation_test_counts_every_assignment_of_signs() -> None:
    """Sums of ±1/2 ±1/4 ±1/4: of 8, 1 and -1 reach 1; 1/2 and more has 4, and 0 all."""
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    assert sign_flip_test([half, quarter, quarter], Random(0)) == 2 / 8
    assert sign_flip_test([half, quarter, -quarter], Random(0)) == 6 / 8
    assert sign_flip_test([half, -quarter, -quarter], Random(0)) == 1
    assert sign_flip_test([Fraction(1, 3), Fraction(0)] * 5, Random(0)) == 2 / 32
    assert sign_flip_test([Fraction(0)] * 30, Random(0)) == 1
    assert sign_flip_test([], Random(0)) == 1


def test_of_many_tasks_assignments_are_drawn_and_come_close_to_all() -> None:
    chance = Random(5)
    differences = [Fraction(chance.randint(-6, 8), 8) for _ in range(18)]
    exact = sign_flip_test(differences, Random(0))
    assert 0.02 < exact < 0.9
    assert sign_flip_test(differences, Random(0), exact_tasks=0) == pytest.approx(exact, abs=0.01)


def test_a_drawn_p_is_never_0() -> None:
    assert sign_flip_test([Fraction(1)] * 200, Random(0), flips=999) == 1 / 1000


def test_under_no_difference_the_permutation_test_is_right_about_as_often_as_it_says() -> None:
    chance, runs = Random(9), 400
    low = 0
    for _ in range(runs):
        differences = [Fraction(chance.randint(0, 4) - chance.randint(0, 4), 4) for _ in range(15)]
        low += sign_flip_test(differences, chance) <= 0.05
    assert 0.02 <= low / runs <= 0.07


def test_runs_of_one_sample_are_compared_by_mcnemars_test() -> None:
    first = {**{f"t{n}": Tally(1, 0) for n in range(6)}, "same": Tally(1, 1), "only first": Tally(1, 1)}
    second = {**{f"t{n}": Tally(1, 1) for n in range(5)}, "t5": Tally(0, 0), "same": Tally(1, 1)}
    found = compare_paired(first, second, Random(0))
    assert found == Paired(
        tasks=6,
        first=1 / 6,
        second=1.0,
        difference=5 / 6,
        low=found.low,
        high=1.0,
        better=5,
        worse=0,
        same=1,
        test="mcnemar",
        exact=True,
        p=1 / 16,
    )
    assert found.low == pytest.approx(0.5)


def test_runs_of_several_samples_are_compared_by_flipping_signs() -> None:
    first = {"a": Tally(4, 1), "b": Tally(4, 2), "c": Tally(2, 2), "d": Tally(4, 4)}
    second = {"a": Tally(4, 3), "b": Tally(4, 3), "c": Tally(4, 3), "d": Tally(4, 4)}
    found = compare_paired(first, second, Random(0))
    assert (found.first, found.second, found.difference) == (0.6875, 0.8125, 0.125)
    assert (found.better, found.worse, found.same) == (2, 1, 1)
    # Sums of ±2 ±1 ±1 that are 2 or more from 0: 6 of 8.
    assert (found.test, found.exact, found.p) == ("permutation", True, 6 / 8)


def test_a_run_does_not_differ_from_itself() -> None:
    run = {f"t{n}": Tally(8, n % 9) for n in range(50)}
    found = compare_paired(run, run, Random(0))
    assert (found.difference, found.low, found.high, found.p, found.same) == (0, 0, 0, 1, 50)


def test_runs_without_a_common_task_cannot_be_compared() -> None:
    found = compare_paired({"a": Tally(2, 1), "b": Tally(0, 0)}, {"b": Tally(2, 1)}, Random(0))
    assert (found.tasks, found.difference, found.low, found.p) == (0, None, None, None)


def test_the_paired_interval_is_narrower_than_that_of_runs_on_other_tasks() -> None:
    """Both runs find the same tasks hard; only the difference of each task counts."""
    chance = Random(1)
    first = {f"t{n}": Tally(8, chance.choice([0, 1, 7])) for n in range(100)}
    second = {task: Tally(8, tally.right + 1) for task, tally in first.items()}
    found = compare_paired(first, second, Random(0))
    assert (found.low, found.high) == (0.125, 0.125)
    assert found.p == 1 / 20_001
