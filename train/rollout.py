"""A rollout: a policy's try at a task, played in an environment, and what is written down of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from anyio import to_thread

from recorder.exchange import Json, Record
from train.environment import CallMade, Environment, Message
from train.policy import Policy, PolicyFailed, Seat
from train.reward import MissRule, RewardKind, Score, score

Stop = Literal["answer", "turns", "tokens", "miss", "failed"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What ends a rollout, apart from its answer."""

    turns: int = 12
    """Rounds of calls; one more message may follow the last."""
    tokens: int = 8192
    """See `Seat.max_tokens`."""
    miss: MissRule = "exclude"
    """`exclude` ends a rollout with its first miss."""
    reward: RewardKind = "binary"


class Rollout(Record):
    """A line of rollouts.jsonl."""

    task_id: str
    sample: int
    """Which of a task's tries, from 0."""
    reward: float | None
    """`None`: not scored, as it met a miss or failed."""
    right: bool
    stop: Stop
    """Why it ended. `tokens`: the last message is cut off, or there was no room for it; `failed`: the policy
    gave no message."""
    failure: str | None
    fields: dict[str, bool]
    trust: float
    """The least trust of an answer that it saw; 1 where none was measured."""
    calls: list[CallMade]
    messages: list[Message]
    """All of them, the prompt too."""
    prompt_tokens: int
    """Summed over its messages."""
    cached_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """`None` where the price is not known."""
    seconds: float


async def play(
    environment: Environment,
    policy: Policy,
    seat: Seat,
    limits: Limits,
    sample: int,
    *,
    blocking: bool = False,
) -> Rollout:
    """Let a policy try a task to its end.

    Args:
        blocking: Calls may take long, as real servers' do: they are made in a thread.

    Raises:
        OutOfBudget: the policy may not spend more; there is no rollout then.
    """
    started = time.monotonic()
    messages: list[Message] = list(environment.prompt)
    stop: Stop | None = None
    failure: str | None = None
    prompt_tokens = cached_tokens = rounds = 0
    cost_usd: float | None = 0.0
    while stop is None:
        try:
            reply = await policy.act(messages, environment.tools, seat)
        except PolicyFailed as error:
            stop, failure = "failed", str(error)
            break
        seat.spent_tokens += reply.completion_tokens
        prompt_tokens += reply.prompt_tokens
        cached_tokens += reply.cached_tokens
        cost_usd = None if cost_usd is None or reply.cost_usd is None else cost_usd + reply.cost_usd
        if reply.message is None:
            stop = "tokens"
            break
        messages.append(reply.message)
        calls = reply.message.get("tool_calls") or []
        if reply.truncated:
            stop = "tokens"
        elif not calls:
            stop = "answer"
        elif rounds == limits.turns:
            stop = "turns"
        else:
            rounds += 1
            for call in calls:
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                if blocking:
                    result = await to_thread.run_sync(environment.call, name, arguments)
                else:
                    result = environment.call(name, arguments)
                messages.append(_result(call, name, result))
            if limits.miss == "exclude" and environment.missed:
                stop = "miss"
    scored = _score(environment, messages, limits, failure)
    return Rollout(
        task_id=environment.task.task_id,
        sample=sample,
        reward=scored.reward,
        right=scored.right,
        stop=stop,
        failure=failure,
        fields=scored.fields,
        trust=scored.trust,
        calls=environment.calls,
        messages=messages,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=seat.spent_tokens,
        cost_usd=cost_usd,
        seconds=round(time.monotonic() - started, 3),
    )


def _result(call: Json, name: str, text: str) -> Message:
    message: Message = {"role": "tool", "name": name, "content": text}
    if "id" in call:
        message["tool_call_id"] = call["id"]
    return message


def _score(environment: Environment, messages: list[Message], limits: Limits, failure: str | None) -> Score:
    scored = score(environment.task, messages, environment.calls, miss=limits.miss, kind=limits.reward)
    return scored.model_copy(update={"reward": None}) if failure is not None else scored
