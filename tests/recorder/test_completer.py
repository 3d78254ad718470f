import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recorder.completer import BudgetError, ClaudeCompleter, Completion, CompletionError, Price, known_price
from recorder.errors import FireflyError
from tests.servers.messages_endpoint import MessagesEndpoint, Received, Reply, error, message

MODEL = "claude-haiku-4-5"
KEY = "key-of-the-test"


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the profile of who runs the tests takes part."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def completer(endpoint: MessagesEndpoint, **settings: object) -> ClaudeCompleter:
    return ClaudeCompleter(MODEL, base_url=endpoint.url, api_key=KEY, **settings)  # type: ignore[arg-type]


def test_a_completion_holds_text_tokens_and_cost() -> None:
    usage = {"input_tokens": 1000, "cache_read_input_tokens": 500, "output_tokens": 200}
    with MessagesEndpoint([message("It rains.", thinking="hm", usage=usage)]) as endpoint:
        asked = completer(endpoint)
        completion = asked.complete("You are a tool.", "weather in Oslo?", max_tokens=300)
    assert completion == Completion(
        text="It rains.",
        model="claude-haiku-4-5-20251001",
        input_tokens=1500,
        output_tokens=200,
        cost_usd=pytest.approx(0.00205),
        stop_reason="end_turn",
    )
    assert asked.spent_usd == pytest.approx(0.00205)
    [received] = endpoint.received
    assert received.body == {
        "model": MODEL,
        "max_tokens": 300,
        "system": "You are a tool.",
        "messages": [{"role": "user", "content": "weather in Oslo?"}],
    }
    assert KEY in received.headers.get("authorization", "") + received.headers.get("x-api-key", "")


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with MessagesEndpoint([message("yes")]) as endpoint:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-the-environment")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", endpoint.url)
        assert ClaudeCompleter(MODEL).complete("", "ready?", 10).text == "yes"
    assert "key-of-the-environment" in str(endpoint.received[0].headers)
    assert "system" not in endpoint.received[0].body


def test_a_missing_key_is_named() -> None:
    with pytest.raises(
        FireflyError, match=r"^ANTHROPIC_API_KEY is not set, and claude-haiku-4-5 needs an API key$"
    ):
        ClaudeCompleter(MODEL)


@pytest.mark.parametrize("key", ["key\n", "kéy", "a key ", "key\x00"])
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(FireflyError, match="characters that no key has") as refused:
        ClaudeCompleter(MODEL, api_key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["localhost:8080", "https://", "http://h:x", "ftp://h"])
def test_an_address_must_be_one(url: str) -> None:
    with pytest.raises(FireflyError, match=r"must be like https://example\.com, got"):
        ClaudeCompleter(MODEL, base_url=url, api_key=KEY)


def test_an_unknown_price_makes_the_cost_unknown_and_a_budget_impossible() -> None:
    with MessagesEndpoint([message("a"), message("b")]) as endpoint:
        unpriced = ClaudeCompleter("other-1", base_url=endpoint.url, api_key=KEY)
        assert unpriced.complete("", "?", 10).cost_usd is None
        assert unpriced.spent_usd == 0
        priced = ClaudeCompleter("other-1", base_url=endpoint.url, api_key=KEY, price=Price(10_000, 100_000))
        assert priced.complete("", "?", 10).cost_usd == pytest.approx(3.0)
    with pytest.raises(FireflyError, match="a budget needs a price, and none is known for other-1"):
        ClaudeCompleter("other-1", api_key=KEY, max_usd=1)


def test_prices_know_dated_versions_and_long_prompts() -> None:
    assert known_price("claude-haiku-4-5-20251001") == known_price("claude-haiku-4-5") == Price(1, 5)
    assert known_price("claude-haiku-4") is None
    haiku = known_price("claude-haiku-5-5")
    assert haiku is not None
    assert haiku.cost_usd(100_000, 1000) == pytest.approx(0.0105)
    assert haiku.cost_usd(100_001, 1000) == pytest.approx(0.0525, rel=1e-4)


def test_a_call_that_might_exceed_the_budget_is_not_made() -> None:
    with MessagesEndpoint(
        lambda _: message("ok", usage={"input_tokens": 50, "output_tokens": 1000})
    ) as endpoint:
        asked = completer(endpoint, max_usd=0.012)  # 1000 tokens out are half a cent
        asked.complete("", "?", 1000)
        with pytest.raises(
            BudgetError,
            match=r"^the budget of \$0.012 for claude-haiku-4-5 is used up: \$0.0050 are spent,"
            r" and one more call may cost \$0.0105$",
        ):
            asked.complete("", "?", 2000)
        asked.complete("", "?", 1000)
        assert asked.spent_usd == pytest.approx(0.0101)
        with pytest.raises(BudgetError):
            asked.complete("", "?", 1000)
    assert len(endpoint.received) == 2


def test_calls_at_once_share_the_budget() -> None:
    others_refused = threading.Semaphore(0)

    def answer(_: Received) -> Reply:
        assert others_refused.acquire(timeout=10)
        return message("ok")

    with MessagesEndpoint(answer) as endpoint:
        asked = completer(endpoint, max_usd=0.012)  # each call may cost a little more than 0.005
        ended: list[str] = []

        def ask() -> None:
            try:
                ended.append(asked.complete("", "?", 1000).text)
            except BudgetError:
                ended.append("budget")
                if len(ended) == 3:
                    others_refused.release(2)

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert ended == ["budget", "budget", "budget", "ok", "ok"]
    assert asked.spent_usd == pytest.approx(0.0004)


def test_a_rate_limit_is_waited_for() -> None:
    script = [error(429, "rate_limit_error", "slow down", retry_after="0"), message("at last")]
    with MessagesEndpoint(script) as endpoint:
        assert completer(endpoint).complete("", "?", 10).text == "at last"
    assert len(endpoint.received) == 2


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (
            error(429, "rate_limit_error", "more than\nyour limit", retry_after="3600"),
            "HTTP 429 rate_limit_error more than your limit",
        ),
        (
            error(529, "overloaded_error", "Overloaded", x_should_retry="false"),
            "HTTP 529 overloaded_error Overloaded",
        ),
        (
            error(429, "rate_limit_error", "later", retry_after_ms="3600000"),
            "HTTP 429 rate_limit_error later",
        ),
        (Reply(400, b'{"error": {"type": [1], "message": {"a": 2}}}'), "HTTP 400 [1] {'a': 2}"),
        (error(401, "authentication_error", "invalid key"), "HTTP 401 authentication_error invalid key"),
        (error(400, "invalid_request_error", "x" * 1000), "HTTP 400 invalid_request_error xxx"),
        (Reply(500, b"<html>", {"content-type": "text/html", "x-should-retry": "false"}), "HTTP 500"),
    ],
    ids=["rate limit", "overloaded", "milliseconds", "odd", "key", "long", "html"],
)
def test_a_refusal_of_the_api_is_one_short_line(reply: Reply, reason: str) -> None:
    with MessagesEndpoint([reply]) as endpoint:
        asked = completer(endpoint, max_usd=1)
        with pytest.raises(CompletionError) as refused:
            asked.complete("", "?", 10)
    assert str(refused.value).startswith(f"claude-haiku-4-5 gave no answer: {reason}")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300
    assert KEY not in str(refused.value)
    assert asked.spent_usd == 0
    assert len(endpoint.received) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        b'{"content": "text", "model": "m", "stop_reason": "end_turn", "usage": {}}',
        message("x", usage={}).body,
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/html"])
def test_a_reply_that_is_no_message_is_no_answer_and_may_have_cost_all_it_could(
    body: bytes, content_type: str
) -> None:
    with MessagesEndpoint([Reply(200, body, {"content-type": content_type})]) as endpoint:
        asked = completer(endpoint)
        with pytest.raises(
            CompletionError, match=r"^claude-haiku-4-5 gave an answer that cannot be read: .*$"
        ):
            asked.complete("", "?", 1000)
    assert asked.spent_usd == pytest.approx(0.0055, rel=0.01)


def test_no_answer_in_time_is_no_answer_and_each_attempt_may_have_cost_all_it_could() -> None:
    with MessagesEndpoint(lambda _: message("late", delay_s=30)) as endpoint:
        asked = completer(endpoint, timeout_s=0.2)
        with pytest.raises(CompletionError, match=r"^claude-haiku-4-5 gave no answer within 0\.2 s$"):
            asked.complete("", "?", 1000)
    assert asked.spent_usd == pytest.approx(3 * 0.0055, rel=0.01)
    assert len(endpoint.received) == 3


def test_a_server_that_is_not_there_is_no_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        asked = ClaudeCompleter(MODEL, f"http://127.0.0.1:{unused.getsockname()[1]}", KEY)
        with pytest.raises(CompletionError, match=r"gave no answer: 127\.0\.0\.1 cannot be reached \(\w+\)$"):
            asked.complete("", "?", 10)
    assert asked.spent_usd == 0


def test_an_answer_that_ended_early_says_so() -> None:
    with MessagesEndpoint(
        [message("It ra", stop_reason="max_tokens"), message("", stop_reason="refusal")]
    ) as endpoint:
        asked = completer(endpoint)
        replies = [asked.complete("", "?", 10) for _ in range(2)]
    assert [(reply.text, reply.stop_reason) for reply in replies] == [
        ("It ra", "max_tokens"),
        ("", "refusal"),
    ]


def test_a_lone_surrogate_in_recorded_text_can_be_sent() -> None:
    with MessagesEndpoint([message("ok")]) as endpoint:
        completer(endpoint).complete("a\ud800", "€ \udc80", 10)
    assert (endpoint.received[0].body["system"], endpoint.received[0].prompt) == ("a?", "€ ?")


def test_nothing_that_is_logged_holds_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), MessagesEndpoint([message("ok")]) as endpoint:
        completer(endpoint).complete("", "?", 10)
    assert caplog.records
    assert KEY not in caplog.text


def test_the_sdk_is_loaded_on_use_only() -> None:
    program = (
        "import sys, json, recorder.completer, recorder.embedder; print(json.dumps(sorted(sys.modules)))"
    )
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    )
    assert not {"anthropic", "sentence_transformers", "numpy", "torch"} & set(loaded)
