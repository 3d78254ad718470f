"""A rollout from its prompt to its end, whoever plays it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from recorder.exchange import ToolCall, ToolResult
from tests.train.ledger_rollouts import AMOUNT, LISTED, RIGHT, Stage, staged
from tests.train.scripted_policy import Scripted, Told, asks, says
from train.environment import Environment, prompt_of
from train.evaluate import RolloutFile, read_rollouts, write_sorted
from train.policy import OutOfBudget, PolicyFailed, Reply, Seat
from train.rollout import Limits, Rollout, play

LIST, GET = ("list", {}), ("get", {"key": "plums"})
UNKNOWN = ("get", {"key": "quinces"})
WRONG = '{"name": "figs", "amount": 0}'
MISSED = 'no recorded answer for ledger/get({"key": "quinces"})'


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def after_prompt(rollout: Rollout) -> list[tuple[str, str]]:
    assert [message["role"] for message in rollout.messages[:2]] == ["system", "user"]
    return [(message["role"], message["content"]) for message in rollout.messages[2:]]


def outcomes(rollout: Rollout) -> list[str]:
    return [call.outcome for call in rollout.calls]


def test_a_rollout_goes_from_the_prompt_over_calls_to_the_answer(stage: Stage) -> None:
    policy = Scripted([asks(LIST, tokens=5), asks(GET, tokens=7), says(RIGHT, tokens=9)])
    rollout = stage.play_one(policy)
    assert (rollout.task_id, rollout.sample) == (stage.task.task_id, 0)
    assert (rollout.reward, rollout.right, rollout.stop, rollout.failure) == (1.0, True, "answer", None)
    assert rollout.fields == {"name": True, "amount": True}
    assert rollout.completion_tokens == 21
    assert rollout.messages == [
        *prompt_of(stage.task),
        asks(LIST).message,
        {"role": "tool", "name": "list", "content": LISTED, "tool_call_id": "call_0"},
        asks(GET).message,
        {"role": "tool", "name": "get", "content": AMOUNT, "tool_call_id": "call_0"},
        {"role": "assistant", "content": RIGHT},
    ]
    # It is shown all that was said, each time.
    assert [len(seen) for seen in policy.seen] == [2, 4, 6]
    assert policy.seen[-1] == rollout.messages[:-1]


def test_calls_of_one_message_are_answered_in_order(stage: Stage) -> None:
    calls = [LIST, GET, ("lookup", {}), ("get", "plums"), ("get", {"key": "figs"})]
    rollout = stage.play_one(Scripted([asks(*calls), says(RIGHT)]))
    results = [message for message in rollout.messages if message["role"] == "tool"]
    assert [result["tool_call_id"] for result in results] == [f"call_{number}" for number in range(5)]
    assert [result["content"] for result in results[:2]] == [LISTED, AMOUNT]
    assert outcomes(rollout) == ["answered", "answered", "invalid", "invalid", "error"]
    assert (rollout.reward, rollout.stop) == (1.0, "answer")


def test_calls_without_ids_are_answered_without(stage: Stage) -> None:
    call = {"type": "function", "function": {"name": "list", "arguments": {}}}
    first = Reply({"role": "assistant", "content": "", "tool_calls": [call]})
    rollout = stage.play_one(Scripted([first, says(WRONG)]))
    assert rollout.messages[3] == {"role": "tool", "name": "list", "content": LISTED}
    assert (rollout.reward, rollout.right, rollout.stop) == (0.0, False, "answer")
    assert rollout.fields == {"name": False, "amount": False}


def test_a_miss_ends_the_rollout_after_its_message_and_is_not_scored(stage: Stage) -> None:
    rollout = stage.play_one(Scripted([asks(UNKNOWN, GET), says(RIGHT)]))
    assert (rollout.reward, rollout.right, rollout.stop) == (None, False, "miss")
    assert outcomes(rollout) == ["miss", "answered"]
    assert after_prompt(rollout) == [("assistant", ""), ("tool", MISSED), ("tool", AMOUNT)]


@pytest.mark.parametrize(("answer", "reward"), [(RIGHT, 1.0), (WRONG, 0.0)])
def test_a_kept_miss_is_told_and_the_rollout_goes_on(stage: Stage, answer: str, reward: float) -> None:
    rollout = stage.play_one(Scripted([asks(UNKNOWN), asks(GET), says(answer)]), Limits(miss="keep"))
    assert (rollout.reward, rollout.stop) == (reward, "answer")
    assert outcomes(rollout) == ["miss", "answered"]
    assert after_prompt(rollout)[1] == ("tool", MISSED)


def test_turns_are_rounds_of_calls_and_one_more_message_may_follow(stage: Stage) -> None:
    lines = [asks(LIST), asks(GET, LIST), says(RIGHT)]
    assert stage.play_one(Scripted(lines), Limits(turns=2)).reward == 1.0
    cut = stage.play_one(Scripted(lines), Limits(turns=1))
    assert (cut.reward, cut.right, cut.stop) == (0.0, False, "turns")
    # The calls past the limit are written down, and were not made.
    assert outcomes(cut) == ["answered"]
    assert cut.messages[-1] == asks(GET, LIST).message


def test_a_policy_without_room_ends_the_rollout(stage: Stage) -> None:
    rollout = stage.play_one(Scripted([asks(LIST), Reply(None)]))
    assert (rollout.reward, rollout.right, rollout.stop) == (0.0, False, "tokens")
    assert after_prompt(rollout)[-1] == ("tool", LISTED)
    nothing = stage.play_one(Scripted([Reply(None)]))
    assert (nothing.reward, nothing.stop, nothing.messages) == (0.0, "tokens", prompt_of(stage.task))


def test_a_message_that_is_cut_off_is_the_last_and_its_calls_are_not_made(stage: Stage) -> None:
    text = stage.play_one(Scripted([says("The fruit is", truncated=True)]))
    assert (text.reward, text.stop, after_prompt(text)) == (0.0, "tokens", [("assistant", "The fruit is")])
    calls = stage.play_one(Scripted([asks(LIST, truncated=True)]))
    assert (calls.reward, calls.stop, calls.calls) == (0.0, "tokens", [])


def test_a_policy_is_told_the_limit_and_what_it_spent(stage: Stage) -> None:
    policy = Scripted([asks(LIST, tokens=30), says(RIGHT, tokens=4)])
    stage.play_one(policy, Limits(tokens=77))
    [seat] = policy.seats
    assert (seat.max_tokens, seat.spent_tokens) == (77, 34)


def test_a_policy_that_fails_leaves_a_rollout_that_is_not_scored(stage: Stage) -> None:
    rollout = stage.play_one(Scripted([asks(GET), PolicyFailed("HTTP 503 overloaded")]))
    assert (rollout.reward, rollout.right, rollout.stop) == (None, False, "failed")
    assert rollout.failure == "HTTP 503 overloaded"
    assert outcomes(rollout) == ["answered"]


def test_a_rollout_that_cannot_be_paid_for_is_none(stage: Stage) -> None:
    with pytest.raises(OutOfBudget, match="used up"):
        stage.play_one(Scripted([asks(GET), OutOfBudget("the budget is used up")]))


def test_costs_add_up_and_one_that_is_not_known_makes_the_sum_unknown(stage: Stage) -> None:
    def priced(reply: Reply, usd: float | None) -> Reply:
        return Reply(reply.message, 100, 40, 10, usd)

    told = stage.play_one(Scripted([priced(asks(LIST), 0.25), priced(says(RIGHT), 0.5)]))
    assert (told.cost_usd, told.prompt_tokens, told.cached_tokens) == (0.75, 200, 80)
    unknown = stage.play_one(Scripted([priced(asks(LIST), None), priced(says(RIGHT), 0.5)]))
    assert unknown.cost_usd is None


def test_the_reward_may_be_weighed_by_trust(stage: Stage) -> None:
    def answer(call: ToolCall) -> ToolResult:
        return ToolResult(result={"content": [{"type": "text", "text": call.tool.name}]})

    environment = Environment(stage.task, stage.functions, Told(answer, trust=0.25))
    seat = Seat(0, 1, 100, environment)
    limits = Limits(reward="tier-aware")
    rollout = anyio.run(play, environment, Scripted([asks(GET), says(RIGHT)]), seat, limits, 3)
    assert (rollout.reward, rollout.right, rollout.trust, rollout.sample) == (0.25, True, 0.25, 3)


@pytest.mark.parametrize("blocking", [True, False])
def test_calls_that_may_take_long_are_made_in_a_thread(stage: Stage, blocking: bool) -> None:
    threads = []

    def answer(_: ToolCall) -> ToolResult:
        threads.append(threading.get_ident())
        return ToolResult(result={"content": []})

    environment = Environment(stage.task, stage.functions, Told(answer))

    async def played() -> None:
        policy = Scripted([asks(GET, LIST), says("")])
        await play(environment, policy, Seat(0, 1, 100, environment), Limits(), 0, blocking=blocking)

    anyio.run(played)
    assert len(threads) == 2
    assert all((thread != threading.get_ident()) == blocking for thread in threads)


TEXTS = ["plain", "\ud800 alone", "\x00\x1b[31m", "líne\u2028separated\r\n", '{"amount": NaN}', "𝄞"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_rollout_is_read_as_it_was_written(stage: Stage, tmp_path: Path, text: str) -> None:
    odd: Any = {"key": text, "big": 10**300}
    rollout = stage.play_one(Scripted([asks(("get", odd), ("list", text)), says(text)]), Limits(miss="keep"))
    path = tmp_path / "rollouts.jsonl"
    file = RolloutFile(path)
    file.append(rollout)
    file.close()
    appended = path.read_bytes()
    assert read_rollouts(path) == [rollout]
    write_sorted(path, [rollout])
    assert path.read_bytes() == appended
    assert appended.count(b"\n") == 1
    appended.decode("utf-8")


def test_numbers_that_json_has_no_form_for_are_written_as_null(stage: Stage, tmp_path: Path) -> None:
    odd: Any = {"key": float("nan"), "also": [float("inf")]}
    rollout = stage.play_one(Scripted([asks(("get", odd)), says("")]), Limits(miss="keep"))
    write_sorted(tmp_path / "rollouts.jsonl", [rollout])
    [read] = read_rollouts(tmp_path)
    [call] = read.messages[2]["tool_calls"]
    assert call["function"]["arguments"] == {"key": None, "also": [None]}
