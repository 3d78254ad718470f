"""What a rollout is worth: binary, as in the paper, with its parts beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from recorder.exchange import Record
from synth.answers import fields_right, is_right
from synth.export.conversation import answer_in
from synth.task import Task
from train.environment import CallMade, Message, final_text

MissRule = Literal["exclude", "keep"]
"""What becomes of a rollout that met a miss: it leaves its group, or is scored by its answer all the same."""

RewardKind = Literal["binary", "tier-aware"]


class Score(Record):
    reward: float | None
    """In [0, 1]; `None`: the rollout is not scored, as the recording could not answer it."""
    right: bool
    """Whether the final message is the task's answer in every field."""
    fields: dict[str, bool]
    """Field → whether it is right; one that was not asked for is not."""
    trust: float
    """The least trust of an answer that the rollout saw; 1 where none was measured."""


def score(
    task: Task,
    messages: Sequence[Message],
    calls: Sequence[CallMade],
    *,
    miss: MissRule = "exclude",
    kind: RewardKind = "binary",
) -> Score:
    """Score a rollout by its last message.

    `tier-aware` multiplies the binary reward by the least trust of the answers seen (CacheRL, arXiv
    2606.14179, weighs by the tier that answered): a bound on the probability that all of them were right.

    Args:
        messages: Those after the prompt, or all.
        calls: All that the rollout made.
    """
    text = final_text(messages)
    given = None if text is None else answer_in(text)
    right = is_right(task.answer_schema, task.answer, given)
    trust = least_trust(calls)
    reward: float | None = float(right) * (trust if kind == "tier-aware" else 1.0)
    if miss == "exclude" and any(call.outcome == "miss" for call in calls):
        reward = None
    return Score(
        reward=reward,
        right=right,
        fields=fields_right(task.answer_schema, task.answer, given),
        trust=trust,
    )


def least_trust(calls: Sequence[CallMade]) -> float:
    return min((call.trust for call in calls if call.trust is not None), default=1.0)
