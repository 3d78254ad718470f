"""A model walks a sub-DAG: against an endpoint that refuses what the real API refuses."""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from firefly_proxy.live import LiveServer
from recorder.caller import ToolCaller
from recorder.claude_api import ClaudeApi, CompletionError, Price, sendable
from recorder.errors import FireflyError
from recorder.exchange import NoReply, RpcError, ToolCall, ToolRef, ToolResult
from recorder.explore.claude import MAX_TOKENS, ClaudeExplorer, Turn, WalkEnding
from recorder.explore.claude_wire import MOST_RESULT_CHARACTERS, api_names, api_schema, result_block
from recorder.explore.graph import Edge, SubDag
from recorder.tool import ToolSpec
from tests.servers.ledger import TOOLS as LEDGER_TOOLS
from tests.servers.messages_endpoint import (
    MessagesEndpoint,
    Received,
    Reply,
    Script,
    error,
    message,
    tool_use,
)

MODEL = "claude-haiku-4-5"
KEY = "key-of-the-test"
LEDGER = Path(__file__).parents[2] / "servers" / "ledger.py"

CITIES, WEATHER, PLACES = ToolRef("geo", "list_cities"), ToolRef("sky", "weather"), ToolRef("geo", "place")
BY_ID = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
OUTPUTS: Mapping[ToolRef, Callable[[Any], str]] = {
    CITIES: lambda _: json.dumps(
        {"cities": [{"id": "c-77", "name": "Oslo"}, {"id": "c-78", "name": "Bergen"}]}
    ),
    WEATHER: lambda id: f"At station {id}: rain, 7 degrees",
    PLACES: lambda id: json.dumps({"id": id, "population": 709037}),
}


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the environment nor the profile of who runs the tests takes part."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def spec(ref: ToolRef, schema: Any = BY_ID, **entry: Any) -> ToolSpec:
    whole = {"name": ref.name, "inputSchema": schema, **entry}
    return ToolSpec(server=ref.server, name=ref.name, version="1", entry=whole)


def edge(producer: ToolRef, output: str, consumer: ToolRef, parameter: str) -> Edge:
    return Edge(
        producer=producer,
        output=output,
        consumer=consumer,
        parameter=parameter,
        evidence="schema",
        confidence=0.8,
    )


DAG = SubDag(
    tools=(CITIES, WEATHER, PLACES),
    edges=(edge(CITIES, "$.cities[*].id", WEATHER, "id"), edge(CITIES, "$.cities[*].id", PLACES, "id")),
)
SPECS = {ref: spec(ref) for ref in DAG.tools}
ONE = SubDag(tools=(CITIES,), edges=())


def text_result(text: str, **more: Any) -> ToolResult:
    return ToolResult(result={"content": [{"type": "text", "text": text}], **more})


def answer(call: ToolCall) -> ToolResult:
    return text_result(OUTPUTS[call.tool](call.arguments.get("id")))


class Walked:
    """A walk with what was called and kept, in order."""

    def __init__(
        self,
        script: Iterable[Reply] | Script,
        caller: ToolCaller = answer,
        dag: SubDag = DAG,
        specs: Mapping[ToolRef, ToolSpec] = SPECS,
        known: Mapping[str, Sequence[Any]] | None = None,
        calls: int = 20,
        **settings: Any,
    ) -> None:
        self.turns: list[Turn] = []
        self.log: list[str] = []
        self.error: CompletionError | None = None
        self.ending: WalkEnding | None = None

        def keep(turn: Turn) -> None:
            self.turns.append(turn)
            self.log.append("kept")

        def call(asked: ToolCall) -> ToolResult | RpcError | NoReply:
            self.log.append(str(asked))
            return caller(asked)

        with MessagesEndpoint(script) as endpoint:
            explorer = ClaudeExplorer(MODEL, base_url=endpoint.url, api_key=KEY, **settings)
            try:
                self.ending = explorer.walk(dag, specs, known or {}, call, calls=calls, keep=keep)
            except CompletionError as failed:
                self.error = failed
        self.spent_usd = explorer.spent_usd
        self.bodies = [received.body for received in endpoint.received]
        self.refused = [json.loads(reply.body) for reply in endpoint.refused]

    @property
    def reason(self) -> str:
        assert self.ending is not None, self.error
        assert self.refused == []
        return self.ending.reason

    def results(self, number: int = -1) -> list[Any]:
        """The results within the last message of a request."""
        content = self.bodies[number]["messages"][-1]["content"]
        return [block for block in content if block["type"] == "tool_result"]


def told(block: Any) -> tuple[bool, str]:
    return block.get("is_error", False), "\n".join(part["text"] for part in block["content"])


FIRST = tool_use(("t1", "geo__list_cities", {}), text="I list the cities.", thinking="Producers first.")
BOTH = tool_use(("t2", "sky__weather", {"id": "c-77"}), ("t3", "geo__place", {"id": "c-78"}))
DONE = message("Done.")


def test_a_walk_reaches_its_goals_with_parallel_calls_over_two_servers() -> None:
    together = threading.Barrier(2, timeout=5)  # broken, unless both servers are called at once

    def call(asked: ToolCall) -> ToolResult:
        if asked.tool != CITIES:
            together.wait()
        return answer(asked)

    walked = Walked([FIRST, BOTH, DONE], call, known={"city id": ["c-1", "c-2"], "long": ["x" * 500]})
    assert walked.reason == "goals"
    assert walked.ending is not None
    assert walked.ending.cost_usd == pytest.approx(3 * 0.0002)
    assert walked.ending == WalkEnding(
        reason="goals",
        detail="every tool was called with effect, and every link walked",
        calls=3,
        turns=3,
        cost_usd=walked.ending.cost_usd,
        unreached=(),
        unwalked=(),
    )
    first, second, third = walked.bodies
    assert first["messages"][0]["content"][0]["text"] == "Begin the walk."
    [system] = first["system"]
    assert "geo__list_cities: $.cities[*].id → sky__weather: id" in system["text"]
    assert '- "city id": "c-1", "c-2"' in system["text"]
    assert "xxx" not in system["text"]
    assert second["messages"][1]["content"][0] == {
        "type": "thinking",
        "thinking": "Producers first.",
        "signature": "c2ln",
    }
    assert [told(block)[1] for block in third["messages"][-1]["content"][:2]] == [
        "At station c-77: rain, 7 degrees",
        '{"id": "c-78", "population": 709037}',
    ]
    assert third["messages"][-1]["content"][-1]["text"] == "Calls left: 17. Goals open: 0."


def test_calls_to_one_server_are_made_one_after_the_other_in_order() -> None:
    busy = threading.Lock()

    def call(asked: ToolCall) -> ToolResult:
        assert busy.acquire(blocking=False)
        time.sleep(0.01)
        busy.release()
        return answer(asked)

    many = tool_use(*((f"p{number}", "geo__place", {"id": f"p{number}"}) for number in range(5)))
    walked = Walked([many, FIRST, DONE], call, SubDag(tools=(CITIES, PLACES), edges=()))
    assert walked.reason == "goals"
    assert walked.log[1:6] == [f'geo/place({{"id":"p{number}"}})' for number in range(5)]


def test_a_completion_is_kept_before_its_calls_are_made_and_turns_hold_each_message_once() -> None:
    walked = Walked([FIRST, BOTH, DONE])
    assert walked.log[:2] == ["kept", "geo/list_cities({})"]
    assert walked.log[2] == "kept"
    assert walked.log[-1] == "kept"
    first, second, third = (turn.request for turn in walked.turns)
    assert [name for name in first if name not in second] == ["system", "tools"]
    assert [turn["messages_from"] for turn in (first, second, third)] == [0, 1, 3]
    whole = [*first["messages"], *second["messages"], *third["messages"]]
    assert whole == without_marks(walked.bodies[-1]["messages"])
    assert walked.turns[0].response["content"][1]["text"] == "I list the cities."
    assert KEY not in repr(walked.turns)


def without_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_marks(item) for name, item in value.items() if name != "cache_control"}
    return [without_marks(item) for item in value] if isinstance(value, list) else value


def test_an_interrupted_call_leaves_its_completion_kept() -> None:
    def call(asked: ToolCall) -> ToolResult:
        raise KeyboardInterrupt

    kept: list[Turn] = []
    with MessagesEndpoint([FIRST]) as endpoint:
        explorer = ClaudeExplorer(MODEL, base_url=endpoint.url, api_key=KEY)
        with pytest.raises(KeyboardInterrupt):
            explorer.walk(DAG, SPECS, {}, call, calls=9, keep=kept.append)
    assert [turn.stop_reason for turn in kept] == ["tool_use"]


def test_cache_breakpoints_stand_on_the_prompt_and_on_the_last_two_turns_of_the_user() -> None:
    walked = Walked([FIRST, BOTH, DONE])
    for body, marked in zip(walked.bodies, ([0], [0, 2], [2, 4]), strict=True):
        assert body["system"][0]["cache_control"] == {"type": "ephemeral"}
        found = [
            (number, place - len(turn["content"]))
            for number, turn in enumerate(body["messages"])
            for place, block in enumerate(turn["content"])
            if "cache_control" in block
        ]
        assert found == [(number, -1) for number in marked]


def test_cached_tokens_have_their_price() -> None:
    usage = {
        "input_tokens": 1000,
        "cache_creation_input_tokens": 2000,
        "cache_read_input_tokens": 10_000,
        "output_tokens": 100,
    }
    walked = Walked([tool_use(("t1", "geo__list_cities", {}), usage=usage), DONE], dag=ONE)
    assert walked.reason == "goals"
    turn = walked.turns[0]
    assert (turn.input_tokens, turn.cache_read_tokens, turn.cache_write_tokens, turn.output_tokens) == (
        13_000,
        10_000,
        2000,
        100,
    )
    assert turn.cost_usd == pytest.approx((1000 + 2500 + 1000) / 1e6 + 100 * 5 / 1e6)
    assert walked.spent_usd == pytest.approx(0.005 + 0.0002)


def test_a_price_that_is_not_known_makes_the_cost_unknown() -> None:
    with MessagesEndpoint([FIRST, DONE]) as endpoint:
        explorer = ClaudeExplorer("other-1", base_url=endpoint.url, api_key=KEY)
        ending = explorer.walk(ONE, SPECS, {}, answer, calls=9, keep=lambda _: None)
    assert (ending.cost_usd, explorer.spent_usd) == (None, 0)
    with pytest.raises(FireflyError, match="a budget needs a price"):
        ClaudeExplorer("other-1", api_key=KEY, max_usd=1)


def test_the_budget_ends_a_walk_before_it_can_be_exceeded() -> None:
    costly = {"input_tokens": 3000, "output_tokens": 6000}
    walked = Walked(
        [tool_use(("t1", "geo__list_cities", {}), usage=costly), BOTH], max_usd=0.06, price=Price(1, 5)
    )
    assert walked.reason == "budget"
    assert walked.ending is not None
    assert walked.ending.detail.startswith("the budget of $0.06 for claude-haiku-4-5 is used up: $0.0330")
    assert walked.log == ["kept", "geo/list_cities({})"]
    assert walked.ending.unreached == (WEATHER, PLACES)
    assert walked.ending.unwalked == DAG.edges
    assert Walked([], max_usd=0.01).reason == "budget"  # not even the first request


def test_the_bound_of_a_request_follows_from_what_the_last_one_had() -> None:
    """Bytes bound tokens some four times too high, so a long walk would end with much of its budget left."""
    usage = {"input_tokens": 3000, "output_tokens": 100}
    page = lambda _: text_result("word " * 2000)  # noqa: E731
    script = [tool_use((f"t{n}", "geo__list_cities", {"page": n}), usage=usage) for n in range(8)]
    spent = 8 * 0.0035
    next_usd = (3000 + 100 + 13_000) * 1.25 / 1e6 + MAX_TOKENS * 5 / 1e6
    assert Walked([*script, DONE], page, ONE, max_usd=spent + next_usd).reason == "goals"


def test_a_refusal_ends_the_walk() -> None:
    walked = Walked([FIRST, message("", stop_reason="refusal")])
    assert walked.reason == "refusal"
    assert [turn.stop_reason for turn in walked.turns] == ["tool_use", "refusal"]


def test_a_rate_limit_is_waited_for() -> None:
    walked = Walked([error(429, "rate_limit_error", "slow down", retry_after="0"), FIRST, BOTH, DONE])
    assert walked.reason == "goals"


def test_an_endpoint_that_hangs_fails_the_walk_and_leaves_what_was_kept() -> None:
    replies = iter([FIRST])
    walked = Walked(lambda _: next(replies, message("late", delay_s=30)), timeout_s=0.2)
    assert str(walked.error) == "claude-haiku-4-5 gave no answer within 0.2 s"
    assert walked.log == ["kept", "geo/list_cities({})"]
    assert walked.spent_usd > 3 * MAX_TOKENS * 5 / 1e6


def test_a_wrong_key_fails_the_walk_in_one_line() -> None:
    walked = Walked([error(401, "authentication_error", "invalid x-api-key")])
    assert str(walked.error) == (
        "claude-haiku-4-5 gave no answer: HTTP 401 authentication_error invalid x-api-key"
    )


def test_a_model_that_ends_too_early_is_told_once_what_is_missing() -> None:
    walked = Walked([FIRST, DONE, DONE])
    assert walked.reason == "gave up"
    reminder = walked.bodies[-1]["messages"][-1]["content"][0]["text"]
    assert reminder.splitlines()[:5] == [
        "The walk is not complete:",
        "- sky__weather was not yet called with effect",
        "- geo__place was not yet called with effect",
        '- no effective call of sky__weather had as "id" a value from an output of geo__list_cities',
        '- no effective call of geo__place had as "id" a value from an output of geo__list_cities',
    ]
    assert Walked([FIRST, DONE, BOTH, DONE]).reason == "goals"
    assert Walked([FIRST, message("", thinking="Is that all?"), BOTH, DONE]).reason == "goals"


def test_a_link_is_walked_only_with_a_value_that_came_before() -> None:
    guessed = tool_use(("t1", "sky__weather", {"id": "c-1"}), ("t2", "geo__list_cities", {}))
    walked = Walked([guessed, tool_use(("t3", "geo__place", {"id": "c-77"})), DONE, DONE])
    assert walked.reason == "gave up"
    assert walked.ending is not None
    assert (walked.ending.unreached, walked.ending.unwalked) == ((), DAG.edges[:1])


def test_a_link_leads_into_nested_parameters_and_out_of_prose() -> None:
    deep = SubDag(
        tools=(CITIES, WEATHER),
        edges=(
            edge(CITIES, "$", WEATHER, "filters.ids[*]"),
            edge(CITIES, "$", WEATHER, '["max age"]'),
        ),
    )

    def call(asked: ToolCall) -> ToolResult:
        return text_result("Take station st-9 for 120 days." if asked.tool == CITIES else "Rain, 7 degrees")

    arguments = {"filters": {"ids": ["other", "st-9"]}, "max age": 120.0}
    assert Walked([FIRST, tool_use(("t2", "sky__weather", arguments)), DONE], call, deep).reason == "goals"


def test_an_error_told_as_text_is_no_success() -> None:
    walked = Walked([FIRST, DONE, DONE], lambda _: text_result("Error: no such table"), ONE)
    assert walked.reason == "gave up"


def test_the_number_of_calls_is_a_limit_and_calls_beyond_it_are_not_made() -> None:
    walked = Walked([FIRST, BOTH], calls=2)
    assert walked.reason == "calls"
    assert walked.log == ["kept", "geo/list_cities({})", "kept", 'sky/weather({"id":"c-77"})']
    assert walked.ending is not None
    assert walked.ending.calls == 2
    assert Walked([FIRST, BOTH], calls=3).reason == "goals"


def test_the_number_of_turns_is_a_limit() -> None:
    walked = Walked([FIRST, BOTH], max_turns=1)
    assert walked.reason == "turns"
    assert len(walked.bodies) == 1


def test_a_reply_cut_off_is_asked_again_once_and_none_of_its_calls_is_made() -> None:
    half = tool_use(("t9", "geo__place", {}), thinking="hm", stop_reason="max_tokens")
    assert Walked([FIRST, half, BOTH, DONE]).reason == "goals"
    walked = Walked([FIRST, half, half])
    assert walked.reason == "cut off"
    assert walked.log == ["kept", "geo/list_cities({})", "kept", "kept"]
    assert walked.bodies[-1]["messages"][-1]["content"][0]["text"].startswith("Your last reply was cut off")


def test_unknown_tools_and_broken_arguments_are_answered_beside_good_calls() -> None:
    mixed = tool_use(
        ("m1", "geo__nope", {}),
        ("m2", "geo__list_cities", {}),
        ("m3", "geo__place", "not an object"),
        ("m4", "what is this?", {}),
    )
    walked = Walked([mixed, BOTH, DONE])
    assert walked.reason == "goals"
    assert walked.log[:2] == ["kept", "geo/list_cities({})"]
    unknown, good, broken, odd = map(told, walked.results(1))
    assert unknown == (
        True,
        "There is no tool geo__nope; the call was not made. The tools are:"
        " geo__list_cities, sky__weather, geo__place",
    )
    assert good[0] is False
    assert broken == (True, "The arguments must be one JSON object; the call was not made.")
    assert odd[0] is True
    assert walked.ending is not None
    assert walked.ending.calls == 3


def test_each_failure_is_told_plainly() -> None:
    outcomes = iter(
        [
            text_result("no record 'x'", isError=True),
            RpcError(error={"code": -32602, "message": "Unknown tool", "data": {"id": 1}}),
            NoReply(reason="cancelled"),
            NoReply(reason="disconnected"),
            ToolResult(result={"content": [], "isError": True}),
            RpcError(error="odd"),
        ]
    )
    asked = tool_use(*((f"t{number}", "geo__list_cities", {"n": number}) for number in range(6)))
    walked = Walked([asked, DONE, DONE], lambda _: next(outcomes), ONE)
    assert [told(block) for block in walked.results(1)] == [
        (True, "The tool reported an error:\nno record 'x'"),
        (True, 'The server refused the call (JSON-RPC error -32602): Unknown tool\ndata: {"id": 1}'),
        (True, "No answer came in time, so the call was given up."),
        (True, "The server ended before it answered. A later call may find it started again."),
        (True, "The tool reported an error:\n(without a word)"),
        (True, "The server refused the call (JSON-RPC error null): odd"),
    ]
    assert walked.reason == "gave up"


def test_a_huge_output_is_cut_in_the_middle_with_a_note() -> None:
    walked = Walked([FIRST, DONE, DONE], lambda _: text_result("a" * 17_000_000 + "next=b-2"), ONE)
    [result] = walked.results(1)
    text = told(result)[1]
    assert len(text) < MOST_RESULT_CHARACTERS + 100
    assert text.startswith("aaa")
    assert "16,988,008 of 17,000,008 characters left out here" in text
    assert text.endswith("next=b-2")
    assert max(len(turn.model_dump_json()) for turn in walked.turns) < 50_000


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40


def image(data: bytes, kind: str = "image/png") -> dict[str, str]:
    return {"type": "image", "data": base64.b64encode(data).decode(), "mimeType": kind}


def test_content_of_every_kind_becomes_blocks_that_the_api_takes() -> None:
    content = [
        {"type": "text", "text": " \n"},
        image(PNG, "image/jpg"),  # servers name another type than they send
        image(b"<svg/>", "image/svg+xml"),
        image(PNG + b"\0" * 1_000_000),
        {"type": "image", "data": "", "mimeType": "image/png"},
        {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "inside"}},
        {"type": "resource", "resource": {"uri": "file:///b", "blob": "AAAA"}},
        {"type": "resource_link", "uri": "file:///c", "name": "c"},
        {"type": "new kind"},
        7,
    ]
    walked = Walked([FIRST, DONE], lambda _: ToolResult(result={"content": content}), ONE)
    assert walked.reason == "goals"
    [result] = walked.results(1)
    text, picture = result["content"]
    assert picture["source"]["media_type"] == "image/png"
    assert text["text"].splitlines() == [
        "(An image, image/svg+xml, some 6 bytes, not shown.)",
        "(An image, image/png, some 1000050 bytes, not shown.)",
        "(An image, image/png, some 0 bytes, not shown.)",
        "(Audio, audio/wav, some 3 bytes, not shown.)",
        'Resource "file:///a":',
        "inside",
        '(Resource "file:///b", of no type, some 3 bytes, not shown.)',
        '{"type": "resource_link", "uri": "file:///c", "name": "c"}',
        '{"type": "new kind"}',
        "7",
    ]


def test_an_image_that_the_api_cannot_process_is_left_out() -> None:
    results = iter([ToolResult(result={"content": [image(PNG + b"broken")]})])
    walked = Walked([FIRST, DONE], lambda _: next(results), ONE)
    assert walked.ending is not None
    assert walked.ending.reason == "goals"
    assert [refusal["error"]["message"] for refusal in walked.refused] == ["Could not process image"]
    assert told(walked.results(1)[0])[1] == "(An image that cannot be shown.)"


@pytest.mark.parametrize(
    "result",
    [
        {"content": []},
        {"content": [{"type": "text", "text": ""}]},
        {"content": [], "structuredContent": {"a": 1}},
        {"content": [image(PNG)], "isError": True},
        {"toolResult": 5},
        [1],
        None,
        {"content": [{"type": "text", "text": "lone \ud800 surrogate"}]},
        {"content": [{"type": "text", "text": "nul \0"}]},
        {"content": [{"text": "no type"}]},
        {"content": "text"},
    ],
    ids=repr,
)
def test_a_result_of_any_shape_can_be_told(result: Any) -> None:
    walked = Walked([FIRST, DONE, DONE], lambda _: ToolResult(result=result), ONE)
    assert walked.reason in ("goals", "gave up")


def test_a_result_nested_beyond_all_bounds_can_be_told() -> None:
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    block = result_block("t", ToolResult(result={"content": [nested]}))
    assert told(block) == (False, "(nested too deeply to be shown)")


def test_tools_that_share_a_name_or_have_a_long_one_stay_apart() -> None:
    refs = [
        ToolRef("a", "b__c"),
        ToolRef("a__b", "c"),
        ToolRef("a.b", "c d/é"),
        ToolRef("s" * 60, "t" * 60),
        ToolRef("s" * 60, "t" * 61),
        ToolRef("geo", "list"),
    ]
    names = api_names(refs)
    assert names[ToolRef("geo", "list")] == "geo__list"
    assert len(set(names.values())) == len(refs)
    assert names == {**api_names(refs[3:]), **api_names(refs[:3])}  # whichever others there are

    called: list[ToolRef] = []

    def call(asked: ToolCall) -> ToolResult:
        called.append(asked.tool)
        return text_result("value 1")

    asked = tool_use(*((f"t{place}", names[ref], {}) for place, ref in enumerate(refs)))
    dag = SubDag(tools=tuple(refs), edges=())
    assert Walked([asked, DONE], call, dag, {ref: spec(ref) for ref in refs}).reason == "goals"
    assert sorted(called) == sorted(refs)


DEEP: Any = {"type": "string"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}}

ODD_SCHEMAS: list[tuple[Any, set[str] | None, bool]] = [
    # a schema, the properties that are left of it, whether it is told whole
    (None, None, True),
    ({}, None, True),
    ({"properties": {"a": {}}}, {"a"}, True),
    ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#", "$id": "x"}, None, True),
    ({"type": ["object", "null"], "properties": {"a": {}}}, {"a"}, False),
    ({"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}]}, {"a", "b"}, False),
    ({"oneOf": [{"type": "object", "properties": {"a": {}}}, {"type": "object"}]}, None, False),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "properties": {"a": {}}}}}, {"a"}, False),
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}, {"a"}, True),
    ({"type": "object", "properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {"A": {}}}, None, False),
    ({"type": "object", "properties": {"a": {"$ref": "https://example.com/a"}}}, None, False),
    ({"type": "object", "properties": {"filter[x]": {}, "a": {}}, "required": ["filter[x]"]}, {"a"}, False),
    ({"type": "object", "properties": {"a": {"type": "float"}}}, None, False),
    ({"type": "object", "properties": {"a": {"type": "string", "required": True}}}, None, False),
    ({"type": "object", "properties": {"a": {"minimum": 0, "exclusiveMinimum": True}}}, None, False),
    ({"type": "object", "properties": {"a": {"items": [{"type": "string"}]}}}, None, False),
    ({"type": "object", "properties": {"a": {"enum": "x"}}}, None, False),
    (
        {"type": "object", "properties": {"a": {"default": float("nan"), "description": "\ud800"}}},
        {"a"},
        True,
    ),
    ({"type": "object", "properties": {"a": {"description": "x" * 50_000}}}, None, False),
    ({"type": "object", "properties": "none"}, None, False),
    (DEEP, None, False),
    ("string", None, False),
    (True, None, False),
]


@pytest.mark.parametrize(("schema", "properties", "whole"), ODD_SCHEMAS)
def test_an_odd_schema_becomes_one_that_the_api_takes(
    schema: Any, properties: set[str] | None, whole: bool
) -> None:
    kept, told_whole = api_schema(schema)
    assert (set(kept["properties"]) if "properties" in kept else None) == properties
    assert told_whole is whole
    walked = Walked([FIRST, DONE], specs={CITIES: spec(CITIES, schema, description="Lists.")}, dag=ONE)
    assert walked.reason == "goals"
    [tool] = walked.bodies[0]["tools"]
    assert tool["description"].startswith("Lists.")
    assert ("The arguments must follow this JSON Schema" in tool["description"]) is not whole
    assert len(tool["description"]) < 21_000


def test_what_json_has_no_form_for_is_replaced() -> None:
    assert sendable({"a\ud800": [float("inf"), 1.5, None, ("x",)]}) == {"a?": ["inf", 1.5, None, ["x"]]}


def test_words_of_servers_cannot_break_the_prompt() -> None:
    ref = ToolRef("{calls}", "a\n# Goals")
    specs = {ref: spec(ref, description=7, title="  ")}
    name = api_names(specs)[ref]
    dag = SubDag(tools=(ref,), edges=())
    script = [tool_use(("t1", name, {})), DONE]
    walked = Walked(
        script, lambda _: text_result("value 1"), dag, specs, {"{x}\n": ["{y}\n", {"a": 1}, None]}
    )
    assert walked.reason == "goals"
    text = walked.bodies[0]["system"][0]["text"]
    assert '("a\\n# Goals" of the server "{calls}")' in text
    assert '- "{x}\\n": "{y}\\n", {"a": 1}, null' in text


def test_a_walk_that_outgrows_the_context_ends() -> None:
    big = {"input_tokens": 149_000, "output_tokens": 900}
    assert Walked([tool_use(("t1", "geo__list_cities", {}), usage=big)], dag=ONE).reason == "context"
    filled = message("Hm", stop_reason="model_context_window_exceeded")
    assert Walked([filled], dag=ONE).reason == "context"


def test_tools_of_the_sub_dag_must_be_offered() -> None:
    explorer = ClaudeExplorer(MODEL, api_key=KEY)
    with pytest.raises(ValueError, match="tools that are not offered"):
        explorer.walk(DAG, {}, {}, answer, calls=1, keep=lambda _: None)
    with pytest.raises(ValueError, match="calls must be at least 1, got 0"):
        explorer.walk(DAG, SPECS, {}, answer, calls=0, keep=lambda _: None)
    with pytest.raises(ValueError, match="max_turns must be at least 1, got 0"):
        ClaudeExplorer(MODEL, api_key=KEY, max_turns=0)


def test_two_walks_at_once_share_the_budget() -> None:
    with MessagesEndpoint(
        lambda received: FIRST if len(received.body["messages"]) == 1 else DONE
    ) as endpoint:
        explorer = ClaudeExplorer(MODEL, base_url=endpoint.url, api_key=KEY, max_usd=1)
        endings: list[WalkEnding] = []

        def walk() -> None:
            endings.append(explorer.walk(ONE, SPECS, {}, answer, calls=9, keep=lambda _: None))

        threads = [threading.Thread(target=walk) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert [ending.reason for ending in endings] == ["goals", "goals"]
    assert explorer.spent_usd == pytest.approx(4 * 0.0002)


def test_a_real_server_is_walked() -> None:
    create, fetch, divide = (ToolRef("ledger", name) for name in ("create", "fetch", "divide"))
    listed = {tool["name"]: tool for tool in LEDGER_TOOLS}
    specs = {
        ref: ToolSpec(server="ledger", name=ref.name, version="1", entry=listed[ref.name])
        for ref in (create, fetch, divide)
    }
    dag = SubDag(tools=(create, fetch), edges=(edge(create, "$.id", fetch, "id"),))

    def think(received: Received) -> Reply:
        """Do what a model would: create, fetch what was created, and say so."""
        match len(received.body["messages"]):
            case 1:
                return tool_use(
                    ("t1", "ledger__create", {"name": "Ada"}),
                    ("t2", "ledger__fetch", {"id": "made-up"}),
                    ("t3", "ledger__divide", {"a": 1}),
                )
            case 3:
                created = json.loads(received.prompt[0]["content"][0]["text"])
                return tool_use(("t4", "ledger__fetch", {"id": created["id"]}))
        return DONE

    with LiveServer("ledger", [sys.executable, str(LEDGER)]) as server:

        def call(asked: ToolCall) -> ToolResult | RpcError:
            reply = server.ask("tools/call", {"name": asked.tool.name, "arguments": asked.arguments})
            return ToolResult(result=reply["result"]) if "result" in reply else RpcError(error=reply["error"])

        walked = Walked(think, call, dag, specs)
    assert walked.reason == "goals"
    assert [told(block) for block in walked.results(1)[1:]] == [
        (True, "The tool reported an error:\nno record 'made-up'"),
        (True, "The tool reported an error:\nInput validation error: 'b' is a required property"),
    ]
    assert json.loads(told(walked.results(2)[0])[1])["name"] == "Ada"


CALLS = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}]}
GO = {"role": "user", "content": "go"}
TOOL = {"name": "a", "input_schema": {"type": "object"}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "1"}]}
MARKED = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("messages", "tools", "words"),
    [
        ([GO], [{**TOOL, "name": "a.b"}], "name: String should match pattern"),
        ([GO], [TOOL, TOOL], "Tool names must be unique"),
        ([GO], [{"name": "a", "input_schema": {}}], "input_schema.type: Input should be 'object'"),
        ([GO], [{"name": "a", "input_schema": {"type": "object", "anyOf": [{}]}}], "at the top level"),
        ([GO], [{"name": "a", "input_schema": {"type": "object", "required": True}}], "draft 2020-12"),
        ([GO, CALLS, GO], [TOOL], "without `tool_result` blocks immediately after"),
        ([GO, CALLS], [TOOL], "which only answers can follow"),
        ([GO, CALLS, {"role": "user", "content": [MARKED, RESULT]}], [TOOL], "must come first"),
        ([GO, CALLS, {"role": "user", "content": [RESULT, RESULT]}], [TOOL], "unexpected `tool_use_id`"),
        ([GO, CALLS, {"role": "user", "content": [RESULT]}], [], "must define tools"),
        ([{"role": "user", "content": [MARKED] * 5}], [TOOL], "A maximum of 4 blocks"),
        ([{"role": "user", "content": [{"type": "text", "text": " "}]}], [TOOL], "non-whitespace"),
    ],
)
def test_the_endpoint_refuses_what_the_api_refuses(messages: list[Any], tools: list[Any], words: str) -> None:
    with MessagesEndpoint([DONE]) as endpoint:
        api = ClaudeApi(MODEL, base_url=endpoint.url, api_key=KEY, timeout_s=10)
        with pytest.raises(CompletionError) as refused:
            api.ask(messages, 10, tools=tools)
    assert words in str(refused.value)
