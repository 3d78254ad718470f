"""Evaluation during training: what `firefly eval` would say of the model as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from train.environment import replayed
from train.evaluate import Plan, evaluate, write_sorted
from train.grpo import HeldOut
from train.policy import Policy
from train.rollout import Limits
from train.suite import Suite
from train.summary import summarise


def evaluation(suite: Suite, limits: Limits, samples: int, seed: int, folder: Path) -> HeldOut:
    """Return what evaluates a policy on a suite, and keeps the rollouts in `folder/held_out/step-N.jsonl`.

    The plan is that of `firefly eval` with the same seed, samples and default concurrency: the rollouts are
    the same, word for word.
    """
    world = replayed(suite.world.replayer)
    plan = Plan(samples=samples, seed=seed, limits=limits)

    def look(policy: Policy, step: int) -> Mapping[str, float]:
        played = evaluate(suite, world, policy, plan)
        kept = folder / "held_out"
        kept.mkdir(exist_ok=True)
        write_sorted(kept / f"step-{step:06}.jsonl", played.rollouts)
        summary = summarise(played.rollouts, suite.by_id, [samples])
        found = summary.pass_at[1]
        told = {
            "held_out/pass@1": found.value,
            "held_out/pass@1_low": found.low,
            "held_out/pass@1_high": found.high,
            f"held_out/pass@{samples}": summary.pass_at[samples].value,
            "held_out/missed": summary.counts.missed / summary.counts.rollouts,
        }
        return {name: value for name, value in told.items() if value is not None}

    return look
