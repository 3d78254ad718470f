"""Which tasks are worth training on."""

from __future__ import annotations

import pytest

from recorder.errors import FireflyError
from tests.train.ledger_rollouts import staged
from tests.train.made_rollouts import failed, rollout, task
from train.pass_rates import HIGHEST, LOWEST, filtered
from train.rollout import Rollout
from train.suite import Suite

NAMES = ("never", "seldom", "often", "always", "missed", "failed", "untried")


def rollouts_of(right: dict[str, list[bool | None]]) -> list[Rollout]:
    return [
        rollout(name, each, sample=sample)
        for name, tries in right.items()
        for sample, each in enumerate(tries)
    ]


TRIED = [
    *rollouts_of(
        {
            "never": [False] * 10,
            "seldom": [True, *[False] * 9, None, None],
            "often": [*[True] * 9, False],
            "always": [True] * 10,
            "missed": [None, None],
        }
    ),
    failed("failed", "HTTP 503"),
    rollout("of another data set", True),
    rollout("of another data set", False, sample=1),
]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    stage = staged(tmp_path_factory.mktemp("ledger") / "world.db")
    return Suite(tuple(task(name) for name in NAMES), stage.world, stage.functions)


@pytest.mark.parametrize(
    ("lowest", "highest", "kept"),
    [
        (LOWEST, HIGHEST, ["seldom", "often"]),
        (0, 1, ["never", "seldom", "often", "always"]),
        (0, 0, ["never"]),
        (0.11, 1, ["often", "always"]),
        (0.9, 0.9, ["often"]),
    ],
)
def test_tasks_that_are_solved_sometimes_are_kept_in_their_order(
    suite: Suite, lowest: float, highest: float, kept: list[str]
) -> None:
    for order in (TRIED, TRIED[::-1]):
        left = filtered(suite, order, lowest, highest)
        assert [each.task_id for each in left.tasks] == kept
        assert list(left.by_id) == kept
        assert (left.world, left.functions) == (suite.world, suite.functions)
    assert len(suite.tasks) == len(NAMES)
    assert left.tasks_hash != suite.tasks_hash


def test_where_no_task_is_left_it_is_said_how_many_were_tried(suite: Suite) -> None:
    with pytest.raises(
        FireflyError, match=r"none of 7 tasks has a pass rate from 0\.2 to 0\.8 \(4 were tried"
    ):
        filtered(suite, TRIED, 0.2, 0.8)
    with pytest.raises(FireflyError, match=r"\(0 were tried and scored\): widen --pass-rate"):
        filtered(suite, [], 0, 1)
