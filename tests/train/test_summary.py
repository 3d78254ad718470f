"""The numbers of a run, from rollouts made up for it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import pytest

from recorder.errors import FireflyError
from synth.task import Task
from tests.train.made_rollouts import ANSWERED, MISS, READ, failed, rollout, task
from train.environment import CallMade
from train.rollout import Rollout
from train.summary import Calls, Change, Cost, Counts, Group, compare, summarise, tallies_of

TASKS = {
    each.task_id: each
    for each in (
        task("a", "shop", level="easy", calls=1),
        task("b", "shop", "mail", level="medium", calls=2),
        task("c", "mail", level="hard", calls=6),
        task("d", "mail", level="hard", calls=4),
        task("untried", "files"),
    )
}
ROLLOUTS = [
    *(rollout("a", right, sample=n) for n, right in enumerate([True, True, False, True])),
    *(rollout("b", right, sample=n) for n, right in enumerate([True, None, False, False])),
    *(rollout("c", right, sample=n) for n, right in enumerate([None, None, False, None])),
    *(failed("d", reason) for reason in ("overloaded", "timed out", "overloaded")),
]


def test_rollouts_that_are_not_scored_count_in_no_estimate() -> None:
    found = summarise(ROLLOUTS, TASKS, [1, 2, 4])
    assert (found.tasks, found.untried, found.samples) == (4, 1, 4)
    assert found.counts == Counts(rollouts=15, scored=8, missed=4, failed=3)
    assert {k: (at.value, at.tasks, at.left_out) for k, at in found.pass_at.items()} == {
        1: (pytest.approx((3 / 4 + 1 / 3 + 0) / 3), 3, 1),
        2: (pytest.approx((1 + 2 / 3) / 2), 2, 2),
        4: (1.0, 1, 3),
    }
    assert {k: (at.value, at.tasks) for k, at in found.pass_all.items()} == {
        1: (pytest.approx((3 / 4 + 1 / 3 + 0) / 3), 3),
        2: (pytest.approx((1 / 2 + 0) / 2), 2),
        4: (0.0, 1),
    }
    assert found.reward == 4 / 8


def test_an_answer_after_a_miss_counts_in_none_either() -> None:
    run = [rollout("a", True, reward=None, calls=[MISS]), rollout("a", True), rollout("a", False)]
    found = summarise(run, TASKS, [1])
    assert (found.counts.scored, found.pass_at[1].value, found.reward) == (2, 0.5, 0.5)


def test_misses_counted_as_wrong_show_what_they_could_hide() -> None:
    found = summarise(ROLLOUTS, TASKS, [1]).pass_1_misses_wrong
    assert (found.value, found.tasks, found.left_out) == (pytest.approx((3 / 4 + 1 / 4 + 0) / 3), 3, 1)


def test_a_miss_that_is_kept_is_scored_and_counted() -> None:
    kept = rollout("a", True, calls=[ANSWERED, MISS])
    found = summarise([kept, rollout("a", False, sample=1)], TASKS, [1])
    assert found.counts == Counts(rollouts=2, scored=2, missed=1, failed=0)
    assert (found.pass_at[1].value, found.pass_1_misses_wrong.value) == (0.5, 0)


def test_pass_at_1_is_always_there() -> None:
    assert set(summarise(ROLLOUTS, TASKS, [4]).pass_at) == {1, 4}
    assert summarise(ROLLOUTS, TASKS, [99]).pass_at[99].value is None
    with pytest.raises(ValueError, match="k must be"):
        summarise(ROLLOUTS, TASKS, [0])


def figures(groups: Sequence[Group]) -> list[tuple[str, int, int, int, float | None]]:
    return [
        (
            group.name,
            group.tasks,
            group.rollouts,
            group.missed,
            None if (rate := group.pass_1.value) is None else round(rate, 4),
        )
        for group in groups
    ]


def test_groups_are_by_server_difficulty_calls_and_number_of_servers() -> None:
    found = summarise(ROLLOUTS, TASKS, [1])
    a, b, c = (pytest.approx(round(rate, 4)) for rate in (3 / 4, 1 / 3, 0))
    assert figures(found.by_difficulty) == [
        ("easy", 1, 4, 0, a),
        ("medium", 1, 4, 1, b),
        ("hard", 2, 7, 3, c),
    ]
    assert figures(found.by_calls) == [("1", 1, 4, 0, a), ("2", 1, 4, 1, b), ("4+", 2, 7, 3, c)]
    assert figures(found.by_servers) == [("1", 3, 11, 3, 0.375), ("2", 1, 4, 1, b)]
    assert figures(found.by_server) == [("mail", 3, 11, 4, 0.1667), ("shop", 2, 8, 1, 0.5417)]


def test_stops_failures_calls_and_costs_are_summed() -> None:
    calls = [
        ANSWERED,
        CallMade(name="read", tool=READ, outcome="error", tier="near", trust=0.5),
        CallMade(name="none", tool=None, outcome="invalid"),
        CallMade(name="read", tool=READ, outcome="answered", tier="exact"),
    ]
    found = summarise([*ROLLOUTS, rollout("a", calls=calls, fields={"x": True, "z": False})], TASKS, [1])
    assert found.stops == {"answer": 9, "turns": 0, "tokens": 0, "miss": 4, "failed": 3}
    assert list(found.failures.items()) == [("overloaded", 2), ("timed out", 1)]
    assert found.calls == Calls(
        made=16,
        invalid=1,
        errors=1,
        misses=4,
        tiers={"exact": 10, "near": 1},
        mean_trust=found.calls.mean_trust,
    )
    assert found.calls.mean_trust == pytest.approx(0.86)
    assert found.cost == Cost(
        prompt_tokens=1600, cached_tokens=640, completion_tokens=160, usd=4.0, seconds=24.0
    )
    # Of 9 scored rollouts' 18 fields, 4 had both right, and one had one.
    assert found.fields_right == 9 / 18


def test_one_unknown_price_makes_the_cost_unknown() -> None:
    assert summarise([*ROLLOUTS, rollout("a", cost_usd=None)], TASKS, [1]).cost.usd is None


def test_a_run_of_nothing_has_no_numbers() -> None:
    found = summarise([], TASKS, [1, 2])
    assert (found.tasks, found.untried, found.pass_at[2].value, found.reward) == (0, 5, None, None)
    assert (found.fields_right, found.calls.mean_trust, found.by_server) == (None, None, [])


def test_the_order_of_rollouts_makes_no_difference() -> None:
    tasks = {f"t{n}": task(f"t{n}") for n in range(20)}
    run = [rollout(f"t{n}", sample < n % 5, sample=sample) for n in range(20) for sample in range(4)]
    other = run.copy()
    random.Random(4).shuffle(other)
    assert summarise(other, tasks, [1, 2]) == summarise(run, tasks, [1, 2])


def test_another_k_changes_no_interval() -> None:
    few, many = (summarise(ROLLOUTS, TASKS, ks) for ks in ([1], [1, 2, 3]))
    assert few.pass_at[1] == many.pass_at[1]
    assert few.by_server == many.by_server
    assert summarise(ROLLOUTS, TASKS, [1], seed=1).pass_at[1].value == few.pass_at[1].value


def test_a_summary_goes_to_json_and_comes_back() -> None:
    found = summarise(ROLLOUTS, TASKS, [1, 2])
    assert type(found).model_validate_json(found.model_dump_json()) == found


def test_a_rollout_of_another_data_set_is_refused() -> None:
    with pytest.raises(
        FireflyError, match="1 of 5 tasks of these rollouts are not in the data set, first zz"
    ):
        summarise([*ROLLOUTS, rollout("zz")], TASKS, [1])


def test_tallies_know_tasks_without_a_scored_rollout() -> None:
    found = {task: (tally.scored, tally.right) for task, tally in tallies_of(ROLLOUTS).items()}
    assert found == {"a": (4, 3), "b": (3, 1), "c": (1, 0), "d": (0, 0)}


def test_a_hundred_thousand_rollouts_take_seconds() -> None:
    chance = random.Random(1)
    tasks: dict[str, Task] = {
        f"t{n}": task(f"t{n}", f"s{n % 40}", f"s{n % 7}x", level="hard", calls=1 + n % 5) for n in range(1000)
    }
    outcomes = {right: rollout("a", right, calls=[ANSWERED] * 4) for right in (True, False, None)}
    rollouts: list[Rollout] = [
        chance.choice(list(outcomes.values())).model_copy(update={"task_id": name})
        for name in tasks
        for _ in range(100)
    ]
    started = time.monotonic()
    found = summarise(rollouts, tasks, [1, 2, 4, 8, 16, 32])
    assert time.monotonic() - started < 30
    assert found.counts.rollouts == 100_000


# --- two runs -----------------------------------------------------------------------------------------------


def test_two_runs_are_compared_on_the_tasks_that_both_scored() -> None:
    first = [rollout("a"), rollout("b", False), rollout("c"), rollout("d", None), rollout("only", False)]
    second = [rollout("a"), rollout("b"), rollout("c", False), rollout("d"), failed("only", "why")]
    found = compare(first, second)
    assert found.first == Counts(rollouts=5, scored=4, missed=1, failed=0)
    assert found.second == Counts(rollouts=5, scored=4, missed=0, failed=1)
    assert (found.only_first, found.only_second) == (1, 1)
    assert (found.success.tasks, found.success.difference, found.success.p) == (3, 0, 1)
    assert found.changes == [
        Change(task_id="c", first=1, second=0),
        Change(task_id="b", first=0, second=1),
    ]
    assert compare(first[::-1], second[::-1]) == found
