"""Which tasks are worth training on: those that the model sometimes solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from recorder.errors import FireflyError
from train.rollout import Rollout
from train.suite import Suite
from train.summary import tallies_of

LOWEST, HIGHEST = 0.1, 0.9
"""A group whose rewards are all equal teaches nothing: what is nearly never or nearly always right makes few
others. DAPO (arXiv 2503.14476) leaves groups out that are all right or all wrong."""


def filtered(suite: Suite, rollouts: Sequence[Rollout], lowest: float, highest: float) -> Suite:
    """Return a suite with those tasks alone whose share of right rollouts is within bounds, both included.

    Rollouts that are not scored do not count, and tasks without a scored one are left out.

    Raises:
        FireflyError: no task is left.
    """
    rates = {task: tally.right / tally.scored for task, tally in tallies_of(rollouts).items() if tally.scored}
    kept = tuple(task for task in suite.tasks if lowest <= rates.get(task.task_id, -1.0) <= highest)
    if not kept:
        tried = [task for task in suite.tasks if task.task_id in rates]
        raise FireflyError(
            f"none of {len(suite.tasks)} tasks has a pass rate from {lowest:g} to {highest:g}"
            f" ({len(tried)} were tried and scored): widen --pass-rate, or begin with firefly train sft"
        )
    return replace(suite, tasks=kept)
