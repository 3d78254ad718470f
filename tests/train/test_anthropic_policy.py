from pathlib import Path
from typing import Any

import anyio
import pytest

from recorder.errors import FireflyError
from recorder.exchange import ToolRef
from synth.export.conversation import Function
from tests.servers.messages_endpoint import (
    MessagesEndpoint,
    Received,
    Reply,
    blocks,
    error,
    message,
    tool_use,
)
from tests.synth.model_tasks import without_credentials
from tests.train.ledger_rollouts import AMOUNT, LISTED, RIGHT, Stage, staged
from train.anthropic_policy import AnthropicPolicy
from train.environment import CallMade, prompt_of, tools_of
from train.policy import OutOfBudget, PolicyFailed, Seat
from train.rollout import Limits, Rollout

MODEL = "claude-haiku-4-5"
KEY = "key-of-the-test"
BOTH = [("toolu_a", "list", {}), ("toolu_b", "get", {"key": "plums"})]
MARK = {"cache_control": {"type": "ephemeral"}}
SOON = {"retry_after_ms": "1"}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_credentials(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def policy_at(endpoint: MessagesEndpoint, **settings: Any) -> AnthropicPolicy:
    return AnthropicPolicy(MODEL, **{"base_url": endpoint.url, "api_key": KEY, "timeout_s": 10, **settings})


def played(
    stage: Stage, *replies: Reply, limits: Limits | None = None, **settings: Any
) -> tuple[Rollout, list[Any]]:
    """Play a rollout against a script that is used to its end, and return the bodies of the requests, too."""
    with MessagesEndpoint(replies, alternating=True) as endpoint:
        policy = policy_at(endpoint, **settings)
        rollout = stage.play_one(policy, limits)
        policy.close()
    assert endpoint.refused == []
    assert len(endpoint.received) == len(replies)
    return rollout, [received.body for received in endpoint.received]


def called(identifier: str, name: str, arguments: Any) -> Any:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def used(identifier: str, name: str, arguments: Any) -> Any:
    return {"type": "tool_use", "id": identifier, "name": name, "input": arguments}


def result(identifier: str, *texts: str) -> Any:
    content = [{"type": "text", "text": text} for text in texts]
    return {"type": "tool_result", "tool_use_id": identifier, "content": content}


def test_a_right_answer_through_parallel_calls_in_one_turn(stage: Stage) -> None:
    first = {"input_tokens": 50, "cache_creation_input_tokens": 2000, "output_tokens": 40}
    second = {
        "input_tokens": 10,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 100,
        "output_tokens": 20,
    }
    rollout, bodies = played(
        stage,
        tool_use(*BOTH, text="Let me look.", thinking="The list first.", usage=first),
        message(RIGHT, usage=second),
        temperature=0.5,
    )
    system, question = prompt_of(stage.task)
    common = {
        "model": MODEL,
        "temperature": 0.5,
        "system": [{"type": "text", "text": system["content"], **MARK}],
        "tools": [
            {
                "name": name,
                "description": stage.functions[ToolRef("ledger", name)].description,
                "input_schema": stage.functions[ToolRef("ledger", name)].parameters,
            }
            for name in ("divide", "get", "list")
        ],
    }
    asked = {"role": "user", "content": [{"type": "text", "text": question["content"], **MARK}]}
    assert bodies[0] == {**common, "max_tokens": 8192, "messages": [asked]}
    said = {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "The list first.", "signature": "c2ln"},
            {"type": "text", "text": "Let me look."},
            *(used(*call) for call in BOTH),
        ],
    }
    results = {"role": "user", "content": [result("toolu_a", LISTED), {**result("toolu_b", AMOUNT), **MARK}]}
    assert bodies[1] == {**common, "max_tokens": 8152, "messages": [asked, said, results]}
    assert rollout == Rollout(
        task_id=stage.task.task_id,
        sample=0,
        reward=1.0,
        right=True,
        stop="answer",
        failure=None,
        fields={"name": True, "amount": True},
        trust=1.0,
        calls=[
            CallMade(name=call.tool, tool=call.ref, outcome="answered", tier="exact", exchange=call.exchange)
            for call in stage.task.calls
        ],
        messages=[
            system,
            question,
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [called(*call) for call in BOTH],
            },
            {"role": "tool", "name": "list", "content": LISTED, "tool_call_id": "toolu_a"},
            {"role": "tool", "name": "get", "content": AMOUNT, "tool_call_id": "toolu_b"},
            {"role": "assistant", "content": RIGHT},
        ],
        prompt_tokens=4160,
        cached_tokens=2000,
        completion_tokens=60,
        cost_usd=(50 + 1.25 * 2000 + 5 * 40) / 1e6 + (10 + 0.1 * 2000 + 1.25 * 100 + 5 * 20) / 1e6,
        seconds=0.0,
    )


def test_breakpoints_follow_the_end_of_the_conversation(stage: Stage) -> None:
    keys = ("apples", "pears", "plums")
    turns = [tool_use((f"toolu_{key}", "get", {"key": key})) for key in keys]
    rollout, bodies = played(stage, *turns, message(RIGHT))
    assert rollout.reward == 1.0
    marked = [
        [place for place, turn in enumerate(body["messages"]) if "cache_control" in turn["content"][-1]]
        for body in bodies
    ]
    assert marked == [[0], [0, 2], [2, 4], [4, 6]]


def test_rollouts_at_once_have_turns_of_their_own(stage: Stage) -> None:
    def script(received: Received) -> Reply:
        asked = len(received.body["messages"])
        return {1: tool_use(BOTH[0]), 3: tool_use(BOTH[1])}.get(asked, message(RIGHT, delay_s=0.05))

    with MessagesEndpoint(script, alternating=True) as endpoint:
        policy = policy_at(endpoint)
        first = stage.play(policy, rollouts=4)
        second = stage.play(policy, rollouts=4)
    assert endpoint.refused == []
    assert [rollout.reward for rollout in first] == [1.0] * 4
    assert first == second


@pytest.mark.parametrize("given", ['{"key": "plu', ["plums"], 7])
def test_arguments_that_are_no_object_are_answered_with_an_error(stage: Stage, given: Any) -> None:
    rollout, bodies = played(stage, tool_use(("a", "get", given)), message(RIGHT))
    assert rollout.messages[2]["tool_calls"] == [called("a", "get", given)]
    kind = type(given).__name__
    words = str({"error": f"get() argument after ** must be a mapping, not {kind}"})
    assert rollout.messages[3]["content"] == words
    assert rollout.calls == [CallMade(name="get", tool=ToolRef("ledger", "get"), outcome="invalid")]
    assert bodies[1]["messages"][1:] == [
        {"role": "assistant", "content": [used("a", "get", {})]},
        {"role": "user", "content": [{**result("a", words), **MARK}]},
    ]


def test_a_tool_that_is_not_there_is_called_in_vain(stage: Stage) -> None:
    rollout, bodies = played(stage, tool_use(("a", "stock.get", {})), message(RIGHT))
    assert rollout.calls == [CallMade(name="stock.get", tool=None, outcome="invalid")]
    words = str({"error": "no tool is called 'stock.get'; there are divide, get, list"})
    assert bodies[1]["messages"][1:] == [
        {"role": "assistant", "content": [used("a", "stock_get", {})]},
        {"role": "user", "content": [{**result("a", words), **MARK}]},
    ]


def test_calls_without_names_and_ids_of_their_own_get_what_they_need_to_be_sent_back(stage: Stage) -> None:
    written = blocks(
        used("a", "list", {}),
        used("a", "list", {}),
        {"type": "tool_use", "input": {}},
        {"type": "tool_use", "id": "", "name": "list"},
        stop_reason="tool_use",
    )
    last = tool_use(("a", "get", {"key": "plums"}))
    rollout, bodies = played(stage, written, last, message(RIGHT))
    assert rollout.messages[2]["tool_calls"] == [
        called("a", "list", {}),
        called("call00001", "list", {}),
        called("call00002", "", {}),
        called("call00003", "list", {}),
    ]
    assert bodies[2]["messages"][1]["content"] == [
        used("a", "list", {}),
        used("call00001", "list", {}),
        used("call00002", "_", {}),
        used("call00003", "list", {}),
    ]
    assert rollout.messages[7]["tool_calls"] == [called("call00004", "get", {"key": "plums"})]
    outcomes = ["answered", "answered", "invalid", "answered", "answered"]
    assert [call.outcome for call in rollout.calls] == outcomes
    assert rollout.reward == 1.0


def test_an_empty_result_is_sent_without_a_text(stage: Stage) -> None:
    """The API takes no text that is empty."""

    async def two_turns(policy: AnthropicPolicy) -> None:
        environment: Any = None
        seat, tools = Seat(0, 0, 100, environment), tools_of(stage.task, stage.functions)
        prompt = prompt_of(stage.task)
        reply = await policy.act(prompt, tools, seat)
        empty = {"role": "tool", "name": "list", "content": " ", "tool_call_id": "toolu_a"}
        assert reply.message is not None
        await policy.act([*prompt, reply.message, empty], tools, seat)

    with MessagesEndpoint([tool_use(BOTH[0]), message(RIGHT)], alternating=True) as endpoint:
        anyio.run(two_turns, policy_at(endpoint))
    assert endpoint.refused == []
    answered = {"type": "tool_result", "tool_use_id": "toolu_a", **MARK}
    assert endpoint.received[1].body["messages"][2] == {"role": "user", "content": [answered]}


def test_a_schema_that_the_api_refuses_is_told_in_words(stage: Stage) -> None:
    parameters = {"type": "object", "properties": {"key": {"type": "text"}}}
    function = Function(ToolRef("ledger", "get"), "get", "", parameters)
    odd = Stage(stage.task, {**stage.functions, function.ref: function}, stage.world)
    _, [body] = played(odd, message(RIGHT))
    assert body["tools"][1] == {
        "name": "get",
        "description": "The arguments must follow this JSON Schema:"
        ' {"type": "object", "properties": {"key": {"type": "text"}}}',
        "input_schema": {"type": "object"},
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (500, "api_error"), (503, "api_error"), (529, "overloaded_error")],
)
def test_an_api_that_is_busy_is_asked_again(stage: Stage, status: int, kind: str) -> None:
    rollout, _ = played(stage, error(status, kind, "Later.", **SOON), message(RIGHT))
    assert (rollout.stop, rollout.reward) == ("answer", 1.0)


@pytest.mark.parametrize(("status", "kind"), [(429, "rate_limit_error"), (529, "overloaded_error")])
def test_an_api_that_stays_busy_fails_the_rollout(stage: Stage, status: int, kind: str) -> None:
    busy = error(status, kind, "Try\nagain later.", **SOON)
    rollout, _ = played(stage, tool_use(*BOTH), busy, busy, busy)
    assert (rollout.stop, rollout.reward, rollout.right) == ("failed", None, False)
    assert rollout.failure == f"{MODEL} gave no answer: HTTP {status} {kind} Try again later."
    assert len(rollout.messages) == 5


def test_a_long_wait_is_not_waited(stage: Stage) -> None:
    rollout, _ = played(stage, error(429, "rate_limit_error", "Later.", retry_after="3600"))
    assert (rollout.stop, rollout.reward) == ("failed", None)


def test_an_answer_that_cannot_be_read_fails_the_rollout(stage: Stage) -> None:
    rollout, _ = played(stage, Reply(200, b"{}"))
    words = "it is no message of the Messages API"
    assert rollout.failure == f"{MODEL} gave an answer that cannot be read: {words}"


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, "authentication_error", f"invalid x-api-key: {KEY}"),
        (403, "permission_error", "Not allowed."),
        (404, "not_found_error", f"model: {MODEL}"),
        (400, "invalid_request_error", "`temperature` is deprecated for this model."),
    ],
)
def test_what_would_fail_every_rollout_ends_the_run(stage: Stage, status: int, kind: str, words: str) -> None:
    with (
        MessagesEndpoint([error(status, kind, words)]) as endpoint,
        pytest.raises(FireflyError) as raised,
    ):
        stage.play_one(policy_at(endpoint))
    assert not isinstance(raised.value, PolicyFailed)
    said = words.replace(KEY, "…")
    assert str(raised.value) == f"{MODEL} gave no answer: HTTP {status} {kind} {said}"
    assert len(endpoint.received) == 1


def test_a_request_that_is_refused_after_others_were_taken_fails_its_rollout(stage: Stage) -> None:
    wrong = error(400, "invalid_request_error", "No such characters.")
    rollout, _ = played(stage, tool_use(*BOTH), wrong)
    assert (rollout.stop, rollout.reward) == ("failed", None)
    assert rollout.failure == f"{MODEL} gave no answer: HTTP 400 invalid_request_error No such characters."


def test_an_empty_account_ends_the_run_even_after_answers(stage: Stage) -> None:
    empty = error(400, "invalid_request_error", "Your credit balance is too low.")
    with (
        MessagesEndpoint([tool_use(*BOTH), empty]) as endpoint,
        pytest.raises(FireflyError, match=r"HTTP 400 .* Your credit balance is too low\.$") as raised,
    ):
        stage.play_one(policy_at(endpoint))
    assert not isinstance(raised.value, PolicyFailed)


def test_a_conversation_that_fills_the_context_leaves_no_room_for_a_message(stage: Stage) -> None:
    full = error(400, "invalid_request_error", "prompt is too long: 200251 tokens > 200000 maximum")
    rollout, bodies = played(stage, tool_use(*BOTH), full, full, limits=Limits(tokens=520))
    assert (rollout.stop, rollout.reward, rollout.failure) == ("tokens", 0.0, None)
    assert [body["max_tokens"] for body in bodies] == [520, 500, 256]


def test_where_the_context_has_less_room_than_is_left_a_shorter_message_is_asked_for(stage: Stage) -> None:
    words = "input length and `max_tokens` exceed context limit: 197202 + 8192 > 200000"
    rollout, bodies = played(stage, error(400, "invalid_request_error", words), message(RIGHT))
    assert rollout.reward == 1.0
    assert [body["max_tokens"] for body in bodies] == [8192, 4096]


def test_a_budget_ends_the_run_before_a_request_that_might_exceed_it(stage: Stage) -> None:
    usage = {"input_tokens": 1000, "output_tokens": 5000}
    with MessagesEndpoint([message(RIGHT, usage=usage)]) as endpoint:
        policy = policy_at(endpoint, max_usd=0.06)
        assert stage.play_one(policy).cost_usd == pytest.approx(0.026)
        with pytest.raises(OutOfBudget, match=r"the budget of \$0.06 for .* is used up: \$0.0260 are spent"):
            stage.play_one(policy)
    assert policy.spent_usd == pytest.approx(0.026)
    assert len(endpoint.received) == 1


@pytest.mark.parametrize("reason", ["max_tokens", "model_context_window_exceeded"])
def test_a_message_that_is_cut_off_ends_the_rollout(stage: Stage, reason: str) -> None:
    rollout, _ = played(stage, tool_use(("a", "get", {}), text="{", stop_reason=reason))
    assert (rollout.stop, rollout.reward, rollout.calls) == ("tokens", 0.0, [])
    said = {"role": "assistant", "content": "{", "tool_calls": [called("a", "get", {})]}
    assert rollout.messages[2] == said


def test_no_message_is_asked_for_where_no_tokens_are_left(stage: Stage) -> None:
    rollout, [body] = played(stage, tool_use(*BOTH), limits=Limits(tokens=20))
    assert (rollout.stop, rollout.reward) == ("tokens", 0.0)
    assert body["max_tokens"] == 20


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (message("I can't help with that.", stop_reason="refusal"), "I can't help with that."),
        (tool_use(*BOTH, text="I will not.", stop_reason="refusal"), "I will not."),
        (blocks(stop_reason="refusal"), ""),
        (blocks(), ""),
        (message("", thinking="Hm."), ""),
        (blocks({"type": "text", "text": "{"}, "odd", {"type": "text", "text": "}"}), "{}"),
        (message("\ud800"), "?"),
    ],
    ids=["refusal", "with calls", "refused in silence", "nothing", "empty", "parts", "surrogate"],
)
def test_a_message_without_calls_is_an_answer_whatever_it_says(stage: Stage, reply: Reply, text: str) -> None:
    rollout, _ = played(stage, reply)
    assert (rollout.stop, rollout.reward, rollout.failure) == ("answer", 0.0, None)
    assert rollout.messages[2:] == [{"role": "assistant", "content": text}]


def test_a_model_without_a_price_has_no_cost_and_no_budget(stage: Stage) -> None:
    with MessagesEndpoint([message(RIGHT)]) as endpoint:
        policy = AnthropicPolicy("qwen3", base_url=endpoint.url, api_key=KEY)
        assert stage.play_one(policy).cost_usd is None
        with pytest.raises(FireflyError, match="a budget needs a price, and none is known for qwen3"):
            AnthropicPolicy("qwen3", base_url=endpoint.url, api_key=KEY, max_usd=1)


def test_without_a_key_it_is_said_which_is_missing() -> None:
    with pytest.raises(FireflyError, match="ANTHROPIC_API_KEY is not set, and claude-haiku-4-5 needs"):
        AnthropicPolicy(MODEL)
