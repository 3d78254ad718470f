import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recorder.claude_api import CompletionError
from synth.gates.judges import SYSTEM, Judges, results_in
from synth.program import OPERATIONS
from synth.task import Task, Verdict
from synth.world import World
from tests.servers.messages_endpoint import MessagesEndpoint, Reply, error, message
from tests.synth.model_tasks import (
    ANSWER,
    FIELDS,
    HAIKU,
    LLAMA,
    QWEN,
    SONNET,
    by_model,
    make_task,
    models,
    open_world,
    record,
    say,
    without_credentials,
)

RIGHT = say({"fields": FIELDS})
RIGHT_ANSWER = say({"answer": {"amount": "7,319", "name": " Plums "}})
WRONG = say({"fields": {**FIELDS, "amount": {"op": "const", "value": 12}}})
UNCLEAR = say({"unclear": "last by which order?"})
PROSE = message("The answer is 7319 plums.")


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


def judged(
    task: Task, world: World, said: Mapping[str, Any], *names: str
) -> tuple[Verdict, MessagesEndpoint]:
    """Ask these judges, each of which says what its family says."""
    with MessagesEndpoint(by_model(**said)) as endpoint:
        verdict = Judges(models(), [f"{name}@{endpoint.url}" for name in names])(task, world)
    assert endpoint.refused == []
    return verdict, endpoint


def test_two_families_that_come_to_the_same_answer_pass_a_task(world: World, task: Task) -> None:
    verdict, endpoint = judged(task, world, {"haiku": RIGHT, "qwen": RIGHT_ANSWER}, HAIKU, QWEN)
    assert verdict == Verdict(
        gate="judges",
        passed=True,
        reason="2 of 2 agree (claude-haiku-4-5: agrees, Qwen/Qwen3-8B: agrees)",
    )
    assert results_in(verdict.reason) == {HAIKU: "agrees", QWEN: "agrees"}
    assert len(endpoint.received) == 2


def test_a_judge_sees_the_question_and_the_outputs_and_neither_program_nor_answer(
    world: World, task: Task
) -> None:
    _, endpoint = judged(task, world, {"haiku": RIGHT}, HAIKU)
    [received] = endpoint.received
    lines = received.prompt.splitlines()
    assert {'output: ["apples", "pears", "plums"]', 'output: "7319"', json.dumps(task.question)} <= set(lines)
    assert json.dumps({"call": 1, "tool": "ledger/get", "arguments": {"key": "plums"}}) in lines
    assert '"op"' not in received.prompt
    assert json.dumps(ANSWER) not in received.prompt
    system = received.body["system"]
    assert system == SYSTEM
    assert all(
        f"- {name}(" in system and operation.meaning in system for name, operation in OPERATIONS.items()
    )


@pytest.mark.parametrize(
    ("qwen", "llama", "passed", "reason"),
    [
        ("differs", "agrees", True, "2 of 3 agree"),
        ("differs", "differs", False, "1 of 3 agree"),
        ("unclear", "differs", False, "1 of 3 agree"),
        ("unclear", "agrees", True, "2 of 3 agree"),
        ("differs", "no answer", False, "1 of 2 agree"),
    ],
)
def test_more_than_half_of_those_that_answer_must_agree(
    world: World, task: Task, qwen: str, llama: str, passed: bool, reason: str
) -> None:
    replies = {"agrees": RIGHT, "differs": WRONG, "unclear": UNCLEAR, "no answer": PROSE}
    said = {"haiku": RIGHT, "qwen": replies[qwen], "llama": replies[llama]}
    verdict, _ = judged(task, world, said, HAIKU, QWEN, LLAMA)
    listed = f"(claude-haiku-4-5: agrees, Qwen/Qwen3-8B: {qwen}, llama-4: {llama})"
    assert verdict == Verdict(gate="judges", passed=passed, reason=f"{reason} {listed}")
    assert results_in(verdict.reason) == {HAIKU: "agrees", QWEN: qwen, LLAMA: llama}


@pytest.mark.parametrize("reply", [WRONG, RIGHT], ids=["differ", "agree"])
def test_judges_of_one_family_give_no_verdict(world: World, task: Task, reply: Reply) -> None:
    verdict, _ = judged(task, world, {"haiku": reply, "sonnet": reply}, HAIKU, SONNET)
    assert verdict.passed
    assert verdict.reason.startswith("no verdict: one family (claude-haiku-4-5: ")
    assert set(results_in(verdict.reason)) == {HAIKU, SONNET}


def test_no_judges_give_no_verdict(world: World, task: Task) -> None:
    assert Judges(models(), [])(task, world) == Verdict(
        gate="judges", passed=True, reason="no verdict: no judge answered (none asked)"
    )


def test_where_only_one_family_answers_there_is_no_verdict(world: World, task: Task) -> None:
    refusal = message("I will not judge this.", stop_reason="refusal")
    verdict, endpoint = judged(task, world, {"haiku": WRONG, "qwen": refusal}, HAIKU, QWEN)
    assert verdict.passed
    assert verdict.reason == "no verdict: one family (claude-haiku-4-5: differs, Qwen/Qwen3-8B: no answer)"
    assert len(endpoint.received) == 2  # a refusal is not argued with


@pytest.mark.parametrize(
    ("first", "wrong"),
    [
        (PROSE, 'no JSON object with "fields", "answer" or "unclear"'),
        (say({"verdict": "fine"}), 'no JSON object with "fields", "answer" or "unclear"'),
        (
            say({"fields": {"name": {"op": "guess"}}}),
            "malformed at fields: Value error, no operation 'guess'",
        ),
        (say({"fields": {"name": 3}}), "malformed at fields.name: Input should be a valid dictionary"),
        (say({"fields": {}}), "a program needs at least one field"),
        (
            say({"fields": {**FIELDS, "amount": {"op": "extract", "call": 7, "path": []}}}),
            "the program does not run: no output: call 7 gave no output",
        ),
        (say({"fields": {"fruit": FIELDS["name"]}}), "the fields must be name, amount, and are fruit"),
        (say({"answer": {"name": "plums"}}), "the fields must be name, amount, and are name"),
        (message("", stop_reason="max_tokens"), 'no JSON object with "fields"'),
    ],
    ids=["prose", "other", "op", "form", "empty", "call", "fields", "missing", "cut off"],
)
def test_what_is_no_program_is_said_and_asked_again_once(
    world: World, task: Task, first: Reply, wrong: str
) -> None:
    said = {"haiku": RIGHT, "qwen": [first, RIGHT]}
    verdict, endpoint = judged(task, world, said, HAIKU, QWEN)
    assert verdict.reason.startswith("2 of 2 agree")
    assert wrong in str(endpoint.received[2].prompt)
    verdict, endpoint = judged(task, world, {"haiku": RIGHT, "qwen": [first, first]}, HAIKU, QWEN)
    assert verdict.reason == "no verdict: one family (claude-haiku-4-5: agrees, Qwen/Qwen3-8B: no answer)"
    assert len(endpoint.received) == 3


def test_a_judge_that_cannot_be_reached_ends_the_run_and_what_came_before_is_kept(
    world: World, task: Task, tmp_path: Path
) -> None:
    limit = error(429, "rate_limit_error", "slow down", retry_after="0")
    kept = tmp_path / "completions.jsonl"
    with MessagesEndpoint(by_model(haiku=RIGHT, qwen=[limit] * 3 + [limit, RIGHT])) as endpoint:
        specs = [f"{name}@{endpoint.url}" for name in (HAIKU, QWEN)]
        with pytest.raises(CompletionError, match="429 rate_limit_error slow down"):
            Judges(models(kept), specs)(task, world)
        assert Judges(models(kept), specs)(task, world).passed
        asked = [received.body["model"] for received in endpoint.received]
    assert asked == [HAIKU, *[QWEN] * 5]


def test_results_are_read_from_reasons_alone() -> None:
    reason = "1 of 3 agree (a: agrees, org/b-2: no answer, c: unclear)"
    assert results_in(reason) == {"a": "agrees", "org/b-2": "no answer", "c": "unclear"}
    assert results_in("no verdict: one family (a: differs)") == {"a": "differs"}
    assert results_in("no verdict: no judge answered (none asked)") == {}
