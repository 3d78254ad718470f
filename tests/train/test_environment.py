"""What a model is shown of a task, and what its calls are answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recorder.exchange import Json, OtherResult, RpcError, ToolCall, ToolRef, ToolResult
from recorder.importer import import_sessions
from replayer.session import Outcome
from synth.export.conversation import SYSTEM
from synth.export.dataset import Dataset
from synth.task import Task, Tool
from tests.servers.ledger import Ledger
from tests.synth.small_world import BEGIN, GROUP, opened, told
from tests.train import made_rollouts
from tests.train.ledger_rollouts import AMOUNT, LISTED, Stage, staged
from tests.train.scripted_policy import Told
from train.environment import CallMade, Environment, final_text, prompt_of, replayed

LONG = "read_" + "the_quite_detailed_" * 5 + "record"
REFS = [
    ToolRef("attic", "read"),
    ToolRef("attic", "reset"),
    ToolRef("attic", "get_reward"),
    ToolRef("attic", "_hidden"),
    ToolRef("attic", "attic__read"),
    ToolRef("attic", "cellar__read"),
    ToolRef("attic", LONG),
    ToolRef("attic", f"{LONG}_2"),
    ToolRef("attic", "a.b c/é"),
    ToolRef("attic", "plain"),
    ToolRef("cellar", "read"),
    ToolRef("cellar", LONG),
]
"""Two servers with tools of one name; names that TRL would swallow, that no API takes, and ones that look as
if they were made by us."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def offering(task_id: str, *refs: ToolRef) -> Task:
    tools = [Tool(server=ref.server, name=ref.name) for ref in refs]
    return made_rollouts.task(task_id, *{ref.server for ref in refs}).model_copy(
        update={"tools": tools[:2], "distractors": tools[2:], "calls": [], "group": GROUP}
    )


def within(stage: Stage, told: Told) -> Environment:
    return Environment(stage.task, stage.functions, told)


def answered(text: str, **more: Json) -> ToolResult:
    return ToolResult(result={"content": [{"type": "text", "text": text}], **more})


def nothing(_: ToolCall) -> Outcome | None:
    return None


# Names


def test_every_tool_is_called_by_its_alias_and_the_right_server_answers(tmp_path: Path) -> None:
    calls: list[tuple[str, str, dict[str, Json], Json]] = [
        (ref.server, ref.name, {"n": number}, f"{ref.server} has {number}") for number, ref in enumerate(REFS)
    ]
    world = told(tmp_path / "world.db", calls)
    task = offering("names", *REFS)
    with replayed(world.replayer)(task) as caller:
        environment = Environment(task, Dataset(world, [task]).functions, caller)
        names = environment.names
        assert set(names) == set(REFS)
        assert len(set(names.values())) == len(REFS)
        for number, ref in enumerate(REFS):
            assert re.fullmatch("[a-zA-Z0-9-][a-zA-Z0-9_-]{0,63}", names[ref]), names[ref]
            assert environment.call(names[ref], {"n": number}) == f"{ref.server} has {number}"
        made = [(call.name, call.tool, call.outcome) for call in environment.calls]
        assert made == [(names[ref], ref, "answered") for ref in REFS]
        # A tool keeps its own name where it can, be it one that we would make of another.
        kept = {ref.name for ref in REFS if names[ref] == ref.name}
        assert kept == {"attic__read", "cellar__read", "plain"}
        for taken in ("reset", "get_reward", "_hidden", "read", LONG):
            assert environment.call(taken, {}).startswith("{'error': \"no tool is called")


def test_tools_are_shown_with_their_aliases_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    world = told(tmp_path / "world.db", [(ref.server, ref.name, {}, "x") for ref in REFS])
    task = offering("names", *REFS)
    turned = task.model_copy(update={"tools": task.distractors, "distractors": task.tools})
    functions = Dataset(world, [task]).functions
    shown = Environment(task, functions, Told(nothing)).tools
    assert shown == Environment(turned, functions, Told(nothing)).tools
    assert [tool["function"]["name"] for tool in shown] == [functions[ref].name for ref in sorted(REFS)]


def test_a_tool_of_the_data_set_that_a_task_does_not_offer_is_not_there(tmp_path: Path) -> None:
    world = told(tmp_path / "world.db", [(ref.server, ref.name, {}, "x") for ref in REFS])
    few, all_ = offering("few", *REFS[:2]), offering("all", *REFS)
    functions = Dataset(world, [few, all_]).functions
    environment = Environment(few, functions, Told(nothing))
    assert len(environment.tools) == 2
    assert "no tool is called" in environment.call(functions[REFS[-3]].name, {})


# Calls


def test_the_prompt_asks_the_question_and_the_recording_answers(stage: Stage) -> None:
    with replayed(stage.world.replayer)(stage.task) as caller:
        environment = Environment(stage.task, stage.functions, caller)
        assert environment.prompt == prompt_of(stage.task)
        system, user = environment.prompt
        assert system == {"role": "system", "content": SYSTEM}
        assert user["content"].startswith(stage.task.question)
        assert json.loads(user["content"].rpartition("\n")[2]) == stage.task.answer_schema
        assert environment.call("list", {}) == LISTED
        assert environment.call("get", {"key": "plums"}) == AMOUNT
    first, second = environment.calls
    assert (first.name, first.tool) == ("list", ToolRef("ledger", "list"))
    assert [call.outcome for call in environment.calls] == ["answered", "answered"]
    assert first.exchange is not None
    assert stage.world.store.exchange(first.exchange).call == ToolCall(
        tool=ToolRef("ledger", "list"), arguments={}
    )
    assert second.tier == first.tier
    assert not environment.missed


def test_an_unknown_tool_is_told_what_there_is_and_asks_nobody(stage: Stage) -> None:
    told = Told(nothing)
    environment = within(stage, told)
    text = environment.call("lookup", {"key": "plums"})
    assert text == "{'error': \"no tool is called 'lookup'; there are divide, get, list\"}"
    assert environment.calls == [CallMade(name="lookup", tool=None, outcome="invalid")]
    assert environment.outcomes == [None]
    assert not environment.missed
    assert told.calls == []


@pytest.mark.parametrize("arguments", [None, "{}", 3, ["key"], True])
def test_arguments_that_are_no_object_make_no_call(stage: Stage, arguments: Json) -> None:
    told = Told(nothing)
    environment = within(stage, told)
    kind = type(arguments).__name__
    words = f"get() argument after ** must be a mapping, not {kind}"
    assert environment.call("get", arguments) == str({"error": words})
    assert environment.calls == [CallMade(name="get", tool=ToolRef("ledger", "get"), outcome="invalid")]
    assert told.calls == []


@pytest.mark.parametrize(
    ("outcome", "kind", "text"),
    [
        (answered("41"), "answered", "41"),
        (answered("nothing is stored", isError=True), "error", "nothing is stored"),
        (RpcError(error={"code": -32602, "message": "Unknown tool: get"}), "error", "Unknown tool: get"),
        (RpcError(error="broken"), "error", "broken"),
        (OtherResult(result={"content": [{"type": "text", "text": "ok"}]}), "answered", "ok"),
        (ToolResult(result={"content": []}), "answered", ""),
    ],
)
def test_what_a_server_says_is_what_the_model_reads(
    stage: Stage, outcome: Outcome, kind: str, text: str
) -> None:
    environment = within(stage, Told(lambda _: outcome))
    assert environment.call("get", {"key": "plums"}) == text
    [call] = environment.calls
    assert (call.outcome, call.tier, call.trust, call.exchange) == (kind, "exact", 0.9, 1)
    assert environment.outcomes == [outcome]


def test_a_recorded_error_is_replayed_as_an_error(stage: Stage) -> None:
    with replayed(stage.world.replayer)(stage.task) as caller:
        environment = Environment(stage.task, stage.functions, caller)
        assert environment.call("get", {"key": "figs"}) == "nothing is stored under 'figs'"
        assert [call.outcome for call in environment.calls] == ["error"]


def test_what_was_not_recorded_is_a_miss_and_says_so(stage: Stage) -> None:
    with replayed(stage.world.replayer)(stage.task) as caller:
        environment = Environment(stage.task, stage.functions, caller)
        text = environment.call("get", {"key": "k" * 1000})
        assert text.startswith('no recorded answer for ledger/get({"key": "kkk')
        assert len(text) < 500
        assert environment.missed
        assert environment.calls == [CallMade(name="get", tool=ToolRef("ledger", "get"), outcome="miss")]


@pytest.mark.parametrize(
    "written",
    [
        '{"key": NaN}',
        '{"key": -Infinity}',
        '{"key": 1e999}',
        '{"key": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"key": "\\u0000"}',
        '{"key": ' + "9" * 4000 + "}",
        '{"key": ' + "[" * 90 + "]" * 90 + "}",
        '{"": {"": null}}',
    ],
)
def test_no_arguments_that_a_model_can_write_break_the_world(stage: Stage, written: str) -> None:
    with replayed(stage.world.replayer)(stage.task) as caller:
        environment = Environment(stage.task, stage.functions, caller)
        assert environment.call("get", json.loads(written))
        assert [call.outcome for call in environment.calls] in (["miss"], ["error"])
        assert environment.call("get", {"key": "plums"}) == AMOUNT


@pytest.mark.parametrize(("depth", "outcome"), [(100, "answered"), (101, "invalid"), (5000, "invalid")])
def test_arguments_that_are_nested_without_end_make_no_call(stage: Stage, depth: int, outcome: str) -> None:
    """What a model writes that repeats a bracket; all that comes after would follow it down."""
    value: Json = "deep"
    for level in range(depth):
        value = {"key": value} if level % 2 or level == depth - 1 else [value]
    environment = within(stage, Told(lambda _: answered("41")))
    text = environment.call("get", value)
    assert [call.outcome for call in environment.calls] == [outcome]
    if outcome == "invalid":
        assert text == str({"error": "get() arguments are nested more than 100 deep"})


# One world a rollout


def test_rollouts_at_once_do_not_see_what_the_others_change(tmp_path: Path) -> None:
    """Each walk reads, writes and reads again; what it reads depends on its own writes alone."""
    walks = {"keep": [], "one": ["3"], "two": ["3", "8"]}  # values that are put under one key
    documents = []
    for number, (name, values) in enumerate([*walks.items(), *((f"{n}-again", w) for n, w in walks.items())]):
        ledger, calls = Ledger({"entries": {"figs": "1"}}), []
        made: list[tuple[str, dict[str, Any]]] = [("get", {"key": "figs"})]
        for value in values:
            made += [("put", {"key": "figs", "value": value}), ("get", {"key": "figs"})]
        for place, (tool, arguments) in enumerate(made):
            call = {"server": "ledger", "tool": tool, "arguments": arguments}
            at = BEGIN + 86_400 * number + place
            calls.append({**call, "output": ledger.call(tool, arguments), "started_at": at})
        documents.append({"session_id": name, "group": GROUP, "calls": calls})
    assert import_sessions(tmp_path / "world.db", documents).problems == []
    world = opened(tmp_path / "world.db")
    task = offering("state", ToolRef("ledger", "get"), ToolRef("ledger", "put"))
    functions = Dataset(world, [task]).functions
    start = replayed(world.replayer)
    with start(task) as a, start(task) as b, start(task) as c:
        first, second, third = (Environment(task, functions, caller) for caller in (a, b, c))

        def read(environment: Environment) -> str:
            return environment.call("get", {"key": "figs"})

        assert [read(first), read(second)] == ["1", "1"]
        first.call("put", {"key": "figs", "value": "3"})
        assert [read(first), read(second), read(third)] == ["3", "1", "1"]
        first.call("put", {"key": "figs", "value": "8"})
        second.call("put", {"key": "figs", "value": "3"})
        assert [read(first), read(second), read(third)] == ["8", "3", "1"]
        assert [call.outcome for call in [*first.calls, *second.calls, *third.calls]] == ["answered"] * 11


# The last message


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], None),
        ([{"role": "user", "content": "x"}], None),
        ([{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}], None),
        ([{"role": "assistant", "content": "a", "tool_calls": [{}]}], None),
        ([{"role": "assistant", "content": "a", "tool_calls": []}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "tool", "content": "b"}, {"role": "assistant", "content": "a"}], "a"),
    ],
)
def test_the_final_message_is_the_last_one_if_the_model_wrote_it(
    messages: list[Any], expected: str | None
) -> None:
    assert final_text(messages) == expected
