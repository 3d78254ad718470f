import json
import socket
import sys
from typing import Any

import openai
import pytest

from recorder.claude_api import Price
from recorder.errors import FireflyError
from recorder.exchange import ToolRef
from tests.servers.chat_endpoint import MODEL, ChatEndpoint, completion, error, tool_calls
from tests.servers.messages_endpoint import Received, Reply
from tests.train.ledger_rollouts import AMOUNT, LISTED, RIGHT, Stage, staged
from train.environment import CallMade, prompt_of, tools_of
from train.openai_policy import OpenAIPolicy, read_price
from train.policy import OutOfBudget, PolicyFailed
from train.rollout import Limits, Rollout

KEY = "key-of-the-test"
BOTH = [("call_a", "list", "{}"), ("call_b", "get", '{"key": "plums"}')]
SOON = {"retry_after_ms": "1"}
TOO_LONG = (
    "This model's maximum context length is 8192 tokens. However, you requested 8300 tokens (108 in the"
    " messages, 8192 in the completion). Please reduce the length of the messages or completion."
)


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def policy_at(endpoint: ChatEndpoint, **settings: Any) -> OpenAIPolicy:
    return OpenAIPolicy(MODEL, **{"base_url": endpoint.url, "api_key": KEY, "timeout_s": 10, **settings})


def played(
    stage: Stage, *replies: Reply, limits: Limits | None = None, **settings: Any
) -> tuple[Rollout, list[Any]]:
    """Play a rollout against a script that is used to its end, and return the bodies of the requests, too."""
    with ChatEndpoint(replies) as endpoint:
        rollout = stage.play_one(policy_at(endpoint, **settings), limits)
    assert endpoint.refused == []
    assert len(endpoint.received) == len(replies)
    return rollout, [received.body for received in endpoint.received]


def refused(stage: Stage, *replies: Reply, **settings: Any) -> tuple[str, int]:
    """Play a rollout that ends the run; return why, and how many requests were made."""
    with ChatEndpoint(replies) as endpoint, pytest.raises(FireflyError) as raised:
        stage.play_one(policy_at(endpoint, **settings))
    assert not isinstance(raised.value, PolicyFailed)
    return str(raised.value), len(endpoint.received)


def called(identifier: str, name: str, arguments: Any) -> Any:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(identifier: str, content: str) -> Any:
    return {"role": "tool", "tool_call_id": identifier, "content": content}


def test_a_right_answer_through_parallel_calls_in_one_turn(stage: Stage) -> None:
    usage = {
        "prompt_tokens": 300,
        "completion_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 256},
    }
    rollout, bodies = played(
        stage,
        tool_calls(*BOTH, text="Let me look."),
        completion(RIGHT, usage=usage),
        temperature=0.5,
        price=Price(1, 10),
    )
    prompt = prompt_of(stage.task)
    tools = tools_of(stage.task, stage.functions)
    common = {"model": MODEL, "seed": 7, "temperature": 0.5, "tools": tools}
    assert bodies[0] == {**common, "messages": prompt, "max_tokens": 8192}
    said = {"role": "assistant", "content": "Let me look.", "tool_calls": [called(*call) for call in BOTH]}
    results = [result("call_a", LISTED), result("call_b", AMOUNT)]
    assert bodies[1] == {**common, "messages": [*prompt, said, *results], "max_tokens": 8172}
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
            *prompt,
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [called("call_a", "list", {}), called("call_b", "get", {"key": "plums"})],
            },
            {**results[0], "name": "list"},
            {**results[1], "name": "get"},
            {"role": "assistant", "content": RIGHT},
        ],
        prompt_tokens=400,
        cached_tokens=256,
        completion_tokens=50,
        cost_usd=0.0003 + 0.0006,
        seconds=0.0,
    )


def test_rollouts_at_once_share_connections_and_each_has_its_own_turns(stage: Stage) -> None:
    def script(received: Received) -> Reply:
        asked = len(received.body["messages"])
        return {2: tool_calls(BOTH[0]), 4: tool_calls(BOTH[1])}.get(asked, completion(RIGHT))

    with ChatEndpoint(script) as endpoint:
        policy = policy_at(endpoint)
        first = stage.play(policy, rollouts=4)
        second = stage.play(policy, rollouts=4)
    assert endpoint.refused == []
    assert [rollout.reward for rollout in first] == [1.0] * 4
    assert first == second
    assert len(endpoint.received) == 24


def test_what_only_some_servers_know_is_sent_back_as_it_came(stage: Stage) -> None:
    signed = {**called(*BOTH[0]), "extra_content": {"google": {"thought_signature": "c2ln"}}}
    message = completion(None, reasoning="First, the list.", audio=None, tool_calls=[signed])
    rollout, bodies = played(stage, message, completion(RIGHT))
    assert bodies[1]["messages"][2] == {
        "role": "assistant",
        "content": None,
        "reasoning": "First, the list.",
        "tool_calls": [signed],
    }
    assert rollout.messages[2] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [called("call_a", "list", {})],
    }


@pytest.mark.parametrize("arguments", ['{"key": "plu', '["plums"]', "null", "plums"])
def test_malformed_arguments_are_answered_with_an_error_and_sent_back_as_they_were(
    stage: Stage, arguments: str
) -> None:
    rollout, bodies = played(stage, tool_calls(("a", "get", arguments)), completion(RIGHT))
    assert bodies[1]["messages"][2]["tool_calls"] == [called("a", "get", arguments)]
    assert rollout.messages[2]["tool_calls"] == [called("a", "get", arguments)]
    assert rollout.messages[3]["content"] == str(
        {"error": "get() argument after ** must be a mapping, not str"}
    )
    assert rollout.calls == [CallMade(name="get", tool=ToolRef("ledger", "get"), outcome="invalid")]
    assert rollout.stop == "answer"


@pytest.mark.parametrize(
    ("name", "arguments", "sent"),
    [("list", "", ""), ("list", None, "{}"), ("get", {"key": "plums"}, '{"key": "plums"}')],
)
def test_arguments_that_are_left_out_or_no_text_are_taken_as_they_are_meant(
    stage: Stage, name: str, arguments: Any, sent: str
) -> None:
    written = completion(None, tool_calls=[called("a", name, arguments)])
    rollout, bodies = played(stage, written, completion(RIGHT))
    assert [call.outcome for call in rollout.calls] == ["answered"]
    assert rollout.messages[2]["tool_calls"] == [called("a", name, arguments or {})]
    assert bodies[1]["messages"][2]["tool_calls"] == [called("a", name, sent)]


def test_a_tool_that_is_not_there_is_called_in_vain(stage: Stage) -> None:
    rollout, bodies = played(stage, tool_calls(("a", "stock.get", "{}")), completion(RIGHT))
    [call] = rollout.calls
    assert call == CallMade(name="stock.get", tool=None, outcome="invalid")
    assert bodies[1]["messages"][2]["tool_calls"] == [called("a", "stock_get", "{}")]
    assert bodies[1]["messages"][3]["content"] == str(
        {"error": "no tool is called 'stock.get'; there are divide, get, list"}
    )


def test_calls_without_names_and_ids_of_their_own_get_what_they_need_to_be_sent_back(stage: Stage) -> None:
    listed = [
        called("a", "list", "{}"),
        called("a", "list", "{}"),
        {"type": "function", "function": {"arguments": "{}"}},
        called("", "list", "{}"),
        "list()",
    ]
    rollout, bodies = played(
        stage,
        completion(None, tool_calls=listed),
        tool_calls(("a", "get", '{"key": "plums"}')),
        completion(RIGHT),
    )
    assert rollout.messages[2]["tool_calls"] == [
        called("a", "list", {}),
        called("call00001", "list", {}),
        called("call00002", "", {}),
        called("call00003", "list", {}),
        called("call00004", "", {}),
    ]
    names = [call["function"]["name"] for call in bodies[1]["messages"][2]["tool_calls"]]
    assert names == ["list", "list", "_", "list", "_"]
    assert rollout.messages[8]["tool_calls"] == [called("call00005", "get", {"key": "plums"})]
    outcomes = ["answered", "answered", "invalid", "answered", "invalid", "answered"]
    assert [call.outcome for call in rollout.calls] == outcomes
    assert rollout.reward == 1.0


@pytest.mark.parametrize("status", [400, 500])
def test_a_server_that_cannot_read_malformed_arguments_gets_them_as_a_json_text(
    stage: Stage, status: int
) -> None:
    broken = '{"key": "plu'
    wrong = error(status, None, "Unterminated string starting at: line 1 column 9 (char 8)", **SOON)
    rollout, bodies = played(
        stage,
        tool_calls(BOTH[0], ("b", "get", broken)),
        *([wrong] if status == 400 else [wrong] * 3),
        tool_calls(("c", "get", '{"key": "plums"}')),
        completion(RIGHT),
    )
    assert rollout.reward == 1.0
    sent = [
        [call["function"]["arguments"] for call in body["messages"][2]["tool_calls"]] for body in bodies[1:]
    ]
    assert sent == [*[["{}", broken]] * (len(bodies) - 3), *[["{}", json.dumps(broken)]] * 2]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(stage: Stage, status: int) -> None:
    rollout, _ = played(stage, error(status, "busy", "Later.", **SOON), completion(RIGHT))
    assert (rollout.stop, rollout.reward) == ("answer", 1.0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_fails_the_rollout(stage: Stage, status: int) -> None:
    busy = error(status, "busy", "Try\nagain later.", **SOON)
    rollout, _ = played(stage, tool_calls(*BOTH), busy, busy, busy)
    assert (rollout.stop, rollout.reward, rollout.right) == ("failed", None, False)
    assert rollout.failure == f"{MODEL} gave no answer: HTTP {status} busy Try again later."
    assert len(rollout.messages) == 5
    assert rollout.completion_tokens == 20


@pytest.mark.parametrize("wait", [{"retry_after": "3600"}, {"retry_after": "soon"}])
def test_a_long_wait_is_not_waited(stage: Stage, wait: dict[str, str]) -> None:
    rollout, _ = played(stage, error(429, "busy", "Later.", **wait))
    assert (rollout.stop, rollout.reward) == ("failed", None)


def test_a_server_that_is_not_there_fails_the_rollout(stage: Stage) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        policy = OpenAIPolicy(MODEL, base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        rollout = stage.play_one(policy)
    assert rollout.failure == f"{MODEL} gave no answer: 127.0.0.1 cannot be reached (ConnectError)"


def test_no_answer_in_time_fails_the_rollout_and_counts_as_spent(stage: Stage) -> None:
    with ChatEndpoint(lambda _: completion(RIGHT, delay_s=5)) as endpoint:
        policy = policy_at(endpoint, timeout_s=0.5, price=Price(0, 1), max_usd=1)
        rollout = stage.play_one(policy)
    assert rollout.failure == f"{MODEL} gave no answer within 0.5 s"
    assert len(endpoint.received) == 3
    assert policy.spent_usd == pytest.approx(3 * 8192 / 1e6)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "invalid_api_key", f"Incorrect API key provided: {KEY}. You can find your key\nelsewhere."),
        (403, "forbidden", f"No access for {KEY}."),
        (404, "model_not_found", "The model `gpt-test` does not exist."),
        (400, "unsupported_value", "'temperature' does not support 3 with this model."),
    ],
)
def test_what_would_fail_every_rollout_ends_the_run(stage: Stage, status: int, code: str, words: str) -> None:
    said = " ".join(words.replace(KEY, "…").split())
    line = f"{MODEL} gave no answer: HTTP {status} {code} {said}"
    assert refused(stage, error(status, code, words)) == (line, 1)


def test_a_request_that_is_refused_after_others_were_taken_fails_its_rollout(stage: Stage) -> None:
    rollout, _ = played(stage, tool_calls(*BOTH), error(400, None, "No such characters."))
    assert (rollout.stop, rollout.reward) == ("failed", None)
    assert rollout.failure == f"{MODEL} gave no answer: HTTP 400 invalid_request_error No such characters."


def test_a_wrong_key_ends_the_run_even_after_answers(stage: Stage) -> None:
    line, requests = refused(stage, tool_calls(*BOTH), error(401, "invalid_api_key", "Revoked."))
    assert (line, requests) == (f"{MODEL} gave no answer: HTTP 401 invalid_api_key Revoked.", 2)


def test_an_empty_account_ends_the_run_even_after_answers(stage: Stage) -> None:
    empty = error(429, "insufficient_quota", "You exceeded your current quota.", x_should_retry="false")
    line, requests = refused(stage, tool_calls(*BOTH), empty)
    told = "HTTP 429 insufficient_quota You exceeded your current quota."
    assert (line, requests) == (f"{MODEL} gave no answer: {told}", 2)


def test_a_conversation_that_fills_the_context_leaves_no_room_for_a_message(stage: Stage) -> None:
    full = error(400, "context_length_exceeded", TOO_LONG)
    rollout, bodies = played(stage, tool_calls(*BOTH), *[full] * 6)
    assert (rollout.stop, rollout.reward, rollout.failure) == ("tokens", 0.0, None)
    assert [body["max_tokens"] for body in bodies[1:]] == [8172, 4086, 2043, 1021, 510, 256]


@pytest.mark.parametrize(
    "words",
    [
        TOO_LONG,
        "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is"
        " 8192 tokens and your request has 650 input tokens (8192 > 8192 - 650).",
    ],
)
def test_where_the_context_has_less_room_than_is_left_a_shorter_message_is_asked_for(
    stage: Stage, words: str
) -> None:
    plain = {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}
    rollout, bodies = played(stage, Reply(400, json.dumps(plain).encode()), completion(RIGHT))
    assert rollout.reward == 1.0
    assert [body["max_tokens"] for body in bodies] == [8192, 4096]


def test_an_api_is_asked_in_the_form_that_it_takes(stage: Stage) -> None:
    rollout, bodies = played(
        stage,
        error(
            400,
            "unsupported_parameter",
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead.",
        ),
        Reply(422, json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}).encode()),
        tool_calls(*BOTH),
        completion(RIGHT),
    )
    assert rollout.reward == 1.0
    options = [set(body) - {"model", "messages", "tools"} for body in bodies]
    assert options == [
        {"max_tokens", "seed"},
        {"max_completion_tokens", "seed"},
        {"max_completion_tokens"},
        {"max_completion_tokens"},
    ]


def test_a_budget_ends_the_run_before_a_request_that_might_exceed_it(stage: Stage) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    with ChatEndpoint([completion(RIGHT, usage=usage)]) as endpoint:
        policy = policy_at(endpoint, price=Price(0, 1000), max_usd=1.2)
        assert stage.play_one(policy, Limits(tokens=1000)).cost_usd == 0.5
        with pytest.raises(OutOfBudget) as raised:
            stage.play_one(policy, Limits(tokens=1000))
    told = "$0.5000 are spent, and one more message may cost $1.0000"
    assert str(raised.value) == f"the budget of $1.2 for {MODEL} is used up: {told}"
    assert (policy.spent_usd, len(endpoint.received)) == (0.5, 1)


def test_a_budget_counts_what_the_next_prompt_may_have_by_what_the_last_one_had(stage: Stage) -> None:
    """A text of some thousand letters may have as many tokens, until the API says how many it has."""
    usage = {"prompt_tokens": 200, "completion_tokens": 10}
    with ChatEndpoint([tool_calls(*BOTH, usage=usage), completion(RIGHT, usage=usage)]) as endpoint:
        policy = policy_at(endpoint, price=Price(1e6, 0), max_usd=8000)
        assert stage.play_one(policy).reward == 1.0
        policy = policy_at(endpoint, price=Price(1e6, 0), max_usd=1000)
        with pytest.raises(OutOfBudget):
            stage.play_one(policy)
    assert len(endpoint.received) == 2


def test_a_message_that_is_cut_off_ends_the_rollout(stage: Stage) -> None:
    rollout, _ = played(
        stage, completion("{", finish_reason="length", tool_calls=[called("a", "get", '{"ke')])
    )
    assert (rollout.stop, rollout.reward, rollout.calls) == ("tokens", 0.0, [])
    assert rollout.messages[2]["tool_calls"] == [called("a", "get", '{"ke')]


def test_no_message_is_asked_for_where_no_tokens_are_left(stage: Stage) -> None:
    rollout, [body] = played(stage, tool_calls(*BOTH), limits=Limits(tokens=20))
    assert (rollout.stop, rollout.reward) == ("tokens", 0.0)
    assert body["max_tokens"] == 20


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (completion(None, refusal="I can't help with that."), "I can't help with that."),
        (completion(None), ""),
        (completion("", tool_calls=[]), ""),
        (completion("", finish_reason="content_filter"), ""),
        (completion([{"type": "text", "text": "{"}, {"type": "text", "text": "}"}]), "{}"),  # type: ignore[arg-type]
        (completion("\ud800"), "?"),
    ],
    ids=["refusal", "nothing", "empty", "filtered", "parts", "surrogate"],
)
def test_a_message_without_calls_is_an_answer_whatever_it_says(stage: Stage, reply: Reply, text: str) -> None:
    rollout, _ = played(stage, reply)
    assert (rollout.stop, rollout.reward, rollout.failure) == ("answer", 0.0, None)
    assert rollout.messages[2:] == [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("<html>", "Expecting value: line 1 column 1 (char 0)"),
        ('{"choices": []}', "it is no chat completion with its usage"),
        (
            '{"choices": [{"message": {"content": "x"}}]}',
            "it is no chat completion with its usage",
        ),
        ('{"error": {"message": "Provider\\nreturned error", "code": 502}}', "Provider returned error"),
    ],
)
def test_an_answer_that_cannot_be_read_fails_the_rollout(stage: Stage, body: str, why: str) -> None:
    rollout, _ = played(stage, Reply(200, body.encode()))
    assert (rollout.stop, rollout.reward) == ("failed", None)
    assert rollout.failure == f"{MODEL} gave an answer that cannot be read: {why}"


def test_a_server_that_is_named_needs_no_key(stage: Stage) -> None:
    with ChatEndpoint([completion(RIGHT)]) as endpoint:
        assert stage.play_one(OpenAIPolicy(MODEL, base_url=endpoint.url)).reward == 1.0
    assert endpoint.received[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "OPENAI_API_KEY is not set, and gpt-test needs an API key"),
        (
            {"api_key": "schlüssel"},
            "the API key for gpt-test (OPENAI_API_KEY) has characters that no key has",
        ),
        (
            {"base_url": "localhost:8000"},
            "the address of the API must be like https://example.com, got 'localhost:8000'",
        ),
        ({"api_key": KEY, "max_usd": 1}, "a budget needs a price, and none is known for gpt-test"),
    ],
)
def test_what_an_operator_can_mend_is_said_at_once(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(FireflyError) as raised:
        OpenAIPolicy(MODEL, **settings)
    assert str(raised.value) == words


def test_without_the_sdk_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(FireflyError, match=r"pip install 'firefly-proxy\[eval\]'"):
        OpenAIPolicy(MODEL, api_key=KEY)


def test_a_price_is_read() -> None:
    assert read_price("0.15, 0.6") == Price(0.15, 0.6)


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "1,x", "-1,2", "nan,1", "1,inf"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(FireflyError, match="a price is IN,OUT"):
        read_price(text)


CALL = {"role": "assistant", "content": None, "tool_calls": [called("a", "list", "{}")]}
GO = {"role": "user", "content": "go"}
DONE = result("a", "[]")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([GO, CALL], "asks for calls that have no response messages: ['a']"),
        ([GO, CALL, GO], "These did not have response messages: ['a']"),
        ([GO, CALL, DONE, DONE], "must be a response to a preceding message"),
        ([GO, CALL, result("b", "")], "must be a response to a preceding message"),
        ([GO, DONE], "must be a response to a preceding message"),
        ([GO, CALL, DONE, CALL, DONE], "ids of tool_calls must be unique"),
        ([GO, {**CALL, "tool_calls": [called("a", "", "{}")]}, DONE], "does not match pattern"),
        ([GO, {**CALL, "tool_calls": [called("a", "list", {})]}, DONE], "Invalid value for messages[1]"),
        ([GO, {"role": "assistant", "content": None}, GO], "expected a string, got null"),
        ([GO, {**GO, "name": "x", "extra": 1}], "Invalid value for messages[1]"),
    ],
)
def test_the_endpoint_refuses_what_the_api_refuses(messages: list[Any], words: str) -> None:
    body = {"model": MODEL, "messages": messages}
    with (
        ChatEndpoint([completion("x")]) as endpoint,
        openai.OpenAI(api_key=KEY, base_url=endpoint.url) as client,
        pytest.raises(openai.BadRequestError) as raised,
    ):
        client.chat.completions.create(**body)  # type: ignore[call-overload]
    assert words in str(raised.value)
