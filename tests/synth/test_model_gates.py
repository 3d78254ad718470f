"""Gates that ask models: what they know without tools, and how often they find the answer with them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder.claude_api import BudgetError, CompletionError
from synth.gates.closed_book import ClosedBook
from synth.gates.solvability import MOST_TURNS, Solvability
from synth.task import Task, Verdict
from synth.world import World
from tests.servers.messages_endpoint import MessagesEndpoint, Reply, error, message, tool_use
from tests.synth.model_tasks import (
    ANSWER,
    HAIKU,
    QUESTION,
    QWEN,
    by_model,
    make_task,
    models,
    open_world,
    record,
    say,
    without_credentials,
)

WRONG = say({"name": "plums", "amount": 7318})
LOOK = tool_use(("toolu_1", "ledger__list", {}), thinking="First, what is there?")
FETCH = tool_use(("toolu_2", "ledger__get", {"key": "plums"}))
FOUND = message(f"It is:\n{json.dumps(ANSWER)}")
MISSED = tool_use(("toolu_3", "ledger__divide", {"a": 1, "b": 3}))


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_credentials(monkeypatch, tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    record(tmp_path / "world.db")
    return open_world(tmp_path / "world.db")


@pytest.fixture
def task(world: World) -> Task:
    return make_task(world)


# Closed book


def test_a_question_that_nobody_can_answer_without_tools_passes(world: World, task: Task) -> None:
    vague = [WRONG, message("I cannot know."), message("No.", stop_reason="refusal")]
    with MessagesEndpoint(by_model(haiku=vague, qwen=WRONG)) as endpoint:
        gate = ClosedBook(models(), [f"{HAIKU}@{endpoint.url}", f"{QWEN}@{endpoint.url}"], samples=3)
        verdict = gate(task, world)
    assert verdict == Verdict(
        gate="closed book",
        passed=True,
        reason="right in 0 of 6 answers without tools (claude-haiku-4-5: 0 of 3, Qwen/Qwen3-8B: 0 of 3)",
    )
    assert len(endpoint.received) == 6
    body = endpoint.received[0].body
    assert "tools" not in body
    assert body["messages"][0]["content"].startswith(QUESTION)
    assert json.dumps(task.answer_schema) in body["messages"][0]["content"]
    assert "plums" not in json.dumps(body)


def test_a_question_that_gives_its_answer_away_fails(world: World) -> None:
    leaking = make_task(
        world, question="There are 7319 plums. What comes last in the alphabet, and how many?"
    )

    def read_off(received: Any) -> Reply:
        return FOUND if "7319 plums" in received.prompt else WRONG

    with MessagesEndpoint(read_off) as endpoint:
        gate = ClosedBook(models(), [f"{HAIKU}@{endpoint.url}"], samples=2)
        assert gate(leaking, world) == Verdict(
            gate="closed book",
            passed=False,
            reason="right in 2 of 2 answers without tools (claude-haiku-4-5: 2 of 2)",
        )
        assert gate(make_task(world), world).passed


def test_one_right_answer_among_many_fails_a_task(world: World, task: Task) -> None:
    with MessagesEndpoint(by_model(haiku=WRONG, qwen=[WRONG, WRONG, FOUND])) as endpoint:
        gate = ClosedBook(models(), [f"{HAIKU}@{endpoint.url}", f"{QWEN}@{endpoint.url}"], samples=3)
        verdict = gate(task, world)
    assert not verdict.passed
    assert (
        verdict.reason
        == "right in 1 of 6 answers without tools (claude-haiku-4-5: 0 of 3, Qwen/Qwen3-8B: 1 of 3)"
    )


def test_without_models_nothing_is_asked(world: World, task: Task) -> None:
    assert ClosedBook(models(), [])(task, world) == Verdict(
        gate="closed book", passed=True, reason="not asked: no models"
    )


def test_a_rate_limit_without_end_is_no_verdict(world: World, task: Task) -> None:
    limit = error(429, "rate_limit_error", "slow down", retry_after="0")
    with MessagesEndpoint(lambda _: limit) as endpoint:
        gate = ClosedBook(models(), [f"{HAIKU}@{endpoint.url}"])
        with pytest.raises(CompletionError, match="429"):
            gate(task, world)
    with MessagesEndpoint([limit, FOUND]) as endpoint:
        assert not ClosedBook(models(), [f"{HAIKU}@{endpoint.url}"], samples=1)(task, world).passed


# Solvability


def solved(task: Task, world: World, script: list[Reply], samples: int = 1) -> tuple[str, MessagesEndpoint]:
    with MessagesEndpoint(script) as endpoint:
        verdict = Solvability(models(), f"{HAIKU}@{endpoint.url}", samples)(task, world)
    assert endpoint.refused == []
    assert verdict.passed
    assert verdict.gate == "solvability"
    return verdict.reason, endpoint


def test_a_model_solves_a_task_against_the_recording(world: World, task: Task) -> None:
    reason, endpoint = solved(task, world, [LOOK, FETCH, FOUND])
    assert reason == "easy: solved 1 of 1"
    first, _, last = (received.body for received in endpoint.received)
    assert [tool["name"] for tool in first["tools"]] == ["ledger__divide", "ledger__get", "ledger__list"]
    assert first["tools"][1]["input_schema"]["required"] == ["key"]
    assert first["messages"][0]["content"].startswith(QUESTION)
    assert "plums" not in json.dumps(first)
    roles = [turn["role"] for turn in last["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    results = [turn["content"] for turn in last["messages"][2::2]]
    assert results == [
        [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [{"type": "text", "text": '["apples", "pears", "plums"]'}],
            }
        ],
        [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_2",
                "content": [{"type": "text", "text": "7319"}],
            }
        ],
    ]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([FOUND, FOUND], "easy: solved 2 of 2"),
        ([WRONG, FOUND], "band: solved 1 of 2"),
        ([WRONG, message("I do not know.")], "hard: solved 0 of 2"),
        ([message("{", stop_reason="refusal"), FOUND], "band: solved 1 of 2"),
        ([LOOK, MISSED, FOUND], "easy: solved 1 of 1 (1 left out, which met a replay miss)"),
        ([MISSED, MISSED], "unknown: 2 of 2 runs met a replay miss"),
    ],
    ids=["easy", "band", "hard", "refusal", "miss", "misses"],
)
def test_runs_are_counted_by_their_ends(world: World, task: Task, script: list[Reply], expected: str) -> None:
    reason, endpoint = solved(task, world, script, samples=2)
    assert reason == expected
    assert len(endpoint.received) == len(script)


def test_a_reply_that_was_cut_off_ends_a_run_without_its_calls(world: World, task: Task) -> None:
    cut_off = tool_use(("toolu_1", "ledger__get", {}), stop_reason="max_tokens")
    reason, endpoint = solved(task, world, [cut_off, FOUND], samples=2)
    assert reason == "band: solved 1 of 2"
    assert len(endpoint.received) == 2


def test_calls_at_once_are_all_answered_and_mistakes_are_told(world: World, task: Task) -> None:
    calls = tool_use(
        ("toolu_1", "ledger__get", {"key": "figs"}),
        ("toolu_2", "no such tool", {}),
        ("toolu_3", "ledger__list", {}),
    )
    reason, endpoint = solved(task, world, [calls, FOUND])
    assert reason == "easy: solved 1 of 1"
    blocks = endpoint.received[1].prompt
    assert [(block["tool_use_id"], block.get("is_error", False)) for block in blocks] == [
        ("toolu_1", True),
        ("toolu_2", True),
        ("toolu_3", False),
    ]
    assert "nothing is stored under 'figs'" in blocks[0]["content"][0]["text"]
    assert "There is no tool no_such_tool" in blocks[1]["content"][0]["text"]


def test_a_run_ends_after_its_last_turn(world: World, task: Task) -> None:
    looks: Iterator[Reply] = (
        tool_use((f"toolu_{number}", "ledger__list", {})) for number in range(MOST_TURNS)
    )
    reason, endpoint = solved(task, world, [*looks, FOUND])
    assert reason == "hard: solved 0 of 1"
    assert len(endpoint.received) == MOST_TURNS


def test_a_run_ends_before_its_conversation_is_too_long(world: World, task: Task) -> None:
    long = tool_use(("toolu_1", "ledger__list", {}), usage={"input_tokens": 149_900, "output_tokens": 20})
    reason, endpoint = solved(task, world, [long, FOUND])
    assert reason == "hard: solved 0 of 1"
    assert len(endpoint.received) == 1


def test_a_budget_that_runs_out_within_a_run_repeats_no_turn(
    world: World, task: Task, tmp_path: Path
) -> None:
    kept = tmp_path / "completions.jsonl"
    dear = tool_use(
        ("toolu_1", "ledger__list", {}), thinking="hm", usage={"input_tokens": 0, "output_tokens": 8000}
    )
    with MessagesEndpoint([FOUND, dear, FETCH, FOUND]) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        first = models(kept, max_usd=0.05)
        with pytest.raises(BudgetError):
            Solvability(first, spec, samples=2)(task, world)
        assert len(endpoint.received) == 2
        second = models(kept, max_usd=0.05)
        assert Solvability(second, spec, samples=2)(task, world).reason == "easy: solved 2 of 2"
        assert len(endpoint.received) == 4
        assert second.used.completions == 4
    third = models(kept)
    nowhere = f"{HAIKU}@http://127.0.0.1:1"
    assert Solvability(third, nowhere, samples=2)(task, world).reason == "easy: solved 2 of 2"
    assert third.used == second.used
