"""Whoever answers a conversation: one protocol for local models, models behind an API, and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recorder.errors import FireflyError
from recorder.exchange import Json
from train.environment import Environment, Message


class PolicyFailed(FireflyError):
    """A policy gave no message, through no fault of the model: an API stayed unreachable, or refused the
    request. The rollout is reported apart, never as a wrong answer."""


class OutOfBudget(FireflyError):
    """Another message might cost more than is left."""


@dataclass(slots=True)
class Seat:
    """One rollout's place at a policy, from its first message to its last."""

    number: int
    """Unique among the rollouts under way; those of one batch are kept in this order."""
    seed: int
    """All chance of this rollout comes from it."""
    max_tokens: int
    """Of the whole rollout: all that the model writes and, for local models, what the tools return."""
    environment: Environment
    """For baselines that know the task; a model sees messages and tools alone."""
    spent_tokens: int = 0
    """What the model wrote so far."""
    kept: Any = field(default=None, repr=False)
    """The policy's own memory of this rollout, such as its token ids."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A policy's next message, and what it took."""

    message: Message | None
    """From `assistant`, with `content` (a text) and perhaps `tool_calls` (each with `id`, `type` and
    `function`: `name` and `arguments`, an object, or what stood in its place where the model wrote none).
    `None`: there was no room for one."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt's, those that a cache of the API had."""
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    """`None` where the price is not known."""
    truncated: bool = False
    """The message ends where the tokens did."""


class Policy(Protocol):
    name: str
    """As reports call it."""
    batched: bool
    """Its rollouts go in batches that are the same whenever they are played."""

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        """Return the next message of a conversation.

        Args:
            messages: All so far: the prompt, then the policy's own messages and the tools' results.
            tools: In the form of the chat APIs.

        Raises:
            PolicyFailed: there is no answer, after all retries.
            OutOfBudget: it might cost too much.
        """

    def under_way(self, rollouts: int) -> None:
        """Be told how many rollouts are under way, whenever that changes."""

    def close(self) -> None: ...
