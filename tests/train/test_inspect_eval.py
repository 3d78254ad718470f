"""Tasks under Inspect AI: played and scored as everywhere else, and logged for its viewer."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from recorder.errors import FireflyError
from recorder.exchange import Json
from recorder.importer import import_files, import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.export.conversation import user_text
from synth.export.dataset import Dataset
from synth.task import Task, Tool
from synth.world import World
from tests.servers.chat_endpoint import ChatEndpoint, completion, tool_calls
from tests.servers.messages_endpoint import Received, Reply
from tests.synth.export_sample import FIND, RESET, SHOP_READ, STOCK_READ, record, tasks_of
from train.environment import Environment, Message, replayed
from train.policy import Reply as Said
from train.policy import Seat
from train.rollout import Limits, Rollout, play

try:
    from inspect_ai.log import EvalLog, read_eval_log
    from inspect_ai.model import (
        ChatMessageAssistant,
        GenerateConfig,
        ModelOutput,
        ModelUsage,
        StopReason,
        get_model,
    )
    from inspect_ai.tool import ToolCall, ToolInfo

    from train.inspect_eval import Inspected, run_inspect

    INSTALLED = True
except (ImportError, FireflyError):
    INSTALLED = False

needs_inspect = pytest.mark.skipif(not INSTALLED, reason="inspect_ai is not installed")

MISSING = """
import sys; sys.modules['inspect_ai'] = None
from firefly_proxy.command_line import run
import click

@click.command()
def evaluate():
    import train.inspect_eval

run(evaluate, 'firefly')
"""


def test_without_inspect_one_line_says_what_to_install() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        "firefly: Inspect AI is not installed: pip install 'firefly-proxy[inspect]', in an environment of its"
        " own\n",
    )


ALIASES = {FIND: "find", SHOP_READ: "shop__read", STOCK_READ: "stock__read", RESET: "stock__reset"}

Turn = list[tuple[str, Json]] | str
"""What a model writes: calls, or its final message."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return record(tmp_path / "world.db")


def oracle(task: Task) -> list[Turn]:
    calls: list[Turn] = [[(ALIASES[call.ref], call.arguments)] for call in task.calls]
    return [*calls, json.dumps(task.answer)]


def message_of(turn: Turn, number: int) -> ChatMessageAssistant:
    if isinstance(turn, str):
        return ChatMessageAssistant(content=turn)
    calls = [
        ToolCall(id=f"call-{number}-{place}", function=name, arguments=arguments)  # type: ignore[arg-type]
        for place, (name, arguments) in enumerate(turn)
    ]
    return ChatMessageAssistant(content="", tool_calls=calls)


class Script:
    """A model that says what is written for each task, whatever it is answered."""

    def __init__(
        self, turns: dict[str, list[Turn]], tasks: Sequence[Task], last: StopReason = "stop"
    ) -> None:
        self._turns = {user_text(task): turns[task.task_id] for task in tasks if task.task_id in turns}
        self._last = last
        self.asked: list[tuple[list[Any], list[ToolInfo], GenerateConfig]] = []

    def __call__(
        self, input: list[Any], tools: list[ToolInfo], choice: object, config: GenerateConfig
    ) -> Any:
        self.asked.append((list(input), tools, config))
        turns = self._turns.get(input[1].text)
        if turns is None:
            raise RuntimeError("the model is\nnot to be had")
        number = sum(message.role == "assistant" for message in input)
        message = message_of(turns[number], number)
        output = ModelOutput.from_message(message, "tool_calls" if message.tool_calls else self._last)
        # Else it is counted by an encoding that is fetched from the network.
        output.usage = ModelUsage(input_tokens=7, output_tokens=5, total_tokens=15, input_tokens_cache_read=3)
        return output


def run(
    world: World, tasks: list[Task], model: Callable[..., Any] | Any, folder: Path, **options: Any
) -> tuple[Inspected, EvalLog]:
    given = get_model("mockllm/model", custom_outputs=model) if callable(model) else model
    found = run_inspect(
        tasks,
        replayed(world.replayer),
        Dataset(world, tasks_of(world)).functions,
        model=given,
        split="test",
        log_dir=folder / "logs",
        **options,
    )
    assert found.log.suffix == ".eval"
    assert found.log.parent == folder / "logs"
    return found, read_eval_log(str(found.log))


class Scripted:
    """The same script as a policy of our own."""

    name, batched = "scripted", False

    def __init__(self, turns: list[Turn]) -> None:
        self._turns = turns

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Said:
        number = sum(message["role"] == "assistant" for message in messages)
        turn = self._turns[number]
        message: Message = {"role": "assistant", "content": turn if isinstance(turn, str) else ""}
        if not isinstance(turn, str):
            message["tool_calls"] = [
                {
                    "id": f"call-{number}-{place}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
                for place, (name, arguments) in enumerate(turn)
            ]
        return Said(message, 10, 3, 5, cost_usd=None)

    def under_way(self, rollouts: int) -> None: ...

    def close(self) -> None: ...


def ours(world: World, task: Task, turns: list[Turn], limits: Limits, sample: int = 0) -> dict[str, Any]:
    async def played() -> Rollout:
        with replayed(world.replayer)(task) as caller:
            environment = Environment(task, Dataset(world, tasks_of(world)).functions, caller)
            seat = Seat(0, 0, limits.tokens, environment)
            return await play(environment, Scripted(turns), seat, limits, sample)

    return timeless(anyio.run(played))


def timeless(rollout: Rollout) -> dict[str, Any]:
    return rollout.model_dump(mode="json", exclude={"seconds"})


@needs_inspect
def test_rollouts_are_those_of_every_other_policy(world: World, tmp_path: Path) -> None:
    lamp, town, chair = tasks = tasks_of(world)
    turns = {
        lamp.task_id: oracle(lamp),
        # A miss, by arguments that the schema forbids, after which nothing is asked any more.
        town.task_id: [[("stock__read", {"sku": 8}), ("stock__read", {"sku": "x"})], '{"town": "Zürich"}'],
        # A tool that is not offered, and a wrong answer.
        chair.task_id: [[("find", {}), ("shop__read", {"id": "p-8"})], '{"price": 4}'],
    }
    limits = Limits(miss="exclude")
    found, log = run(world, tasks, Script(turns, tasks), tmp_path, limits=limits)
    expected = [ours(world, task, turns[task.task_id], limits) for task in tasks]
    assert [timeless(rollout) for rollout in found.rollouts] == expected
    assert [(rollout.stop, rollout.reward) for rollout in found.rollouts] == [
        ("answer", 1.0),
        ("miss", None),
        ("answer", 0.0),
    ]
    assert (log.status, found.stopped) == ("success", None)
    assert log.samples is not None
    scores = {sample.id: sample.scores["rewarded"] for sample in log.samples if sample.scores}
    assert scores[lamp.task_id].value == 1.0
    assert math.isnan(scores[town.task_id].value)  # type: ignore[arg-type]
    assert scores[town.task_id].reason == "miss"
    for sample in log.samples:
        rollout = next(each for each in found.rollouts if each.task_id == sample.id)
        assert [(message.role, message.text) for message in sample.messages] == [
            (message["role"], message["content"]) for message in rollout.messages
        ]
        shown = [event.data for event in sample.events if event.event == "info"]
        assert [(each["name"], each["outcome"]) for each in shown] == [  # type: ignore[index, call-overload]
            (call.name, call.outcome) for call in rollout.calls
        ]
    assert log.results is not None
    (score,) = log.results.scores
    assert (score.metrics["mean"].value, score.unscored_samples) == (0.5, 1)


@needs_inspect
def test_misses_that_are_kept_are_scored_by_their_answer(world: World, tmp_path: Path) -> None:
    town = tasks_of(world)[1]
    turns: list[Turn] = [[("stock__read", {"sku": 999})], '{"town": "Zürich"}']
    limits = Limits(miss="keep")
    found, log = run(world, [town], Script({town.task_id: turns}, [town]), tmp_path, limits=limits)
    assert [timeless(rollout) for rollout in found.rollouts] == [ours(world, town, turns, limits)]
    assert log.samples is not None
    assert log.samples[0].scores["rewarded"].value == 1.0  # type: ignore[index]


@needs_inspect
def test_each_sample_is_a_rollout_of_its_own(world: World, tmp_path: Path) -> None:
    lamp, town, _ = tasks_of(world)
    turns = {task.task_id: oracle(task) for task in (lamp, town)}
    found, log = run(world, [lamp, town], Script(turns, [lamp, town]), tmp_path, samples=3)
    assert [timeless(rollout) for rollout in found.rollouts] == [
        ours(world, task, turns[task.task_id], Limits(), sample)
        for task in (lamp, town)
        for sample in range(3)
    ]
    assert log.eval.config.epochs == 3


@needs_inspect
def test_a_model_that_gives_no_answer_is_an_error_of_its_sample_alone(world: World, tmp_path: Path) -> None:
    lamp, town, _ = tasks_of(world)
    found, log = run(
        world, [lamp, town], Script({town.task_id: oracle(town)}, [lamp, town]), tmp_path, samples=2
    )
    reason = "mockllm/model gave no answer: RuntimeError: the model is not to be had"
    assert [(each.task_id, each.stop, each.reward, each.failure) for each in found.rollouts] == [
        (lamp.task_id, "failed", None, reason),
        (lamp.task_id, "failed", None, reason),
        (town.task_id, "answer", 1.0, None),
        (town.task_id, "answer", 1.0, None),
    ]
    assert log.status == "success"
    assert log.samples is not None
    assert {(sample.id, sample.error is not None) for sample in log.samples} == {
        (lamp.task_id, True),
        (town.task_id, False),
    }
    assert log.results is not None
    assert log.results.scores[0].metrics["mean"].value == 1.0


@needs_inspect
def test_a_run_that_no_rollout_got_an_answer_in_is_an_error(world: World, tmp_path: Path) -> None:
    tasks = tasks_of(world)
    reason = (
        "no rollout got an answer: mockllm/model gave no answer: RuntimeError: the model is not to be had"
    )
    with pytest.raises(FireflyError, match=f"^{reason}$"):
        run(world, tasks, Script({}, tasks), tmp_path)


@needs_inspect
@pytest.mark.parametrize(
    ("limits", "stop", "last", "tokens", "rooms"),
    [
        (Limits(turns=3), "answer", "stop", 20, [8192, 8187, 8182, 8177]),
        (Limits(turns=2), "turns", "stop", 15, [8192, 8187, 8182]),
        (Limits(tokens=10), "tokens", "stop", 10, [10, 5]),
        (Limits(), "tokens", "max_tokens", 20, [8192, 8187, 8182, 8177]),
        # Then the text is the API's.
        (Limits(), "tokens", "model_length", 20, [8192, 8187, 8182, 8177]),
    ],
)
def test_tokens_and_turns_end_a_rollout(
    limits: Limits,
    stop: str,
    last: StopReason,
    tokens: int,
    rooms: list[int],
    world: World,
    tmp_path: Path,
) -> None:
    (lamp, *_) = tasks_of(world)
    model = Script({lamp.task_id: oracle(lamp)}, [lamp], last)
    found, _ = run(world, [lamp], model, tmp_path, limits=limits)
    (rollout,) = found.rollouts
    assert (rollout.stop, rollout.completion_tokens) == (stop, tokens)
    assert (rollout.prompt_tokens, rollout.cached_tokens) == (2 * tokens, 3 * tokens // 5)
    assert [config.max_tokens for _, _, config in model.asked] == rooms
    assert (rollout.messages[-1]["content"] == json.dumps(lamp.answer)) == (
        last != "model_length" and tokens == 20
    )


@needs_inspect
def test_a_model_is_shown_the_schemas_as_they_were_recorded(world: World, tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "type": "object",
        "properties": {
            "where": {"oneOf": [{"$ref": "#/$defs/place"}, {"type": "null"}], "default": None},
            "how": {"type": "array", "items": True, "maxItems": 3},
            "any": True,
        },
        "$defs": {"place": {"type": "object", "properties": {"x": {"const": 1}}}},
    }
    listed = tmp_path / "odd.jsonl"
    listed.write_text(json.dumps({"server": "shop", "name": "find", "inputSchema": odd}) + "\n")
    assert import_files(world.store.path, [], tools=[listed]).problems == []
    store = Store(world.store.path)
    world = World(store, Replayer(store, learn(store)))
    (lamp, *_) = tasks_of(world)
    model = Script({lamp.task_id: oracle(lamp)}, [lamp])
    run(world, [lamp], model, tmp_path)
    with replayed(world.replayer)(lamp) as caller:
        expected = Environment(lamp, Dataset(world, tasks_of(world)).functions, caller).tools
    assert expected[0]["function"]["parameters"]["$defs"] == odd["$defs"]
    for _, tools, _ in model.asked:
        assert [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters.model_dump(exclude_none=True),
                },
            }
            for tool in tools
        ] == expected


@needs_inspect
def test_a_long_result_is_whole(tmp_path: Path) -> None:
    long = json.dumps({"price": 40, "text": "x" * 60_000})
    made = {"server": "shop", "tool": "read", "arguments": {"id": "p-8"}, "output": long}
    import_sessions(tmp_path / "long.db", [{"session_id": "s", "group": "g", "calls": [made]}])
    store = Store(tmp_path / "long.db")
    long_world = World(store, Replayer(store, learn(store)))
    chair = tasks_of(record(tmp_path / "world.db"))[2].model_copy(
        update={"tools": [Tool(server="shop", name="read")], "distractors": []}
    )
    given = Dataset(long_world, [chair])
    turns: list[Turn] = [[("read", {"id": "p-8"})], '{"price": 40}']
    model = get_model("mockllm/model", custom_outputs=Script({chair.task_id: turns}, [chair]))
    (rollout,) = run_inspect(
        [chair],
        replayed(long_world.replayer),
        given.functions,
        model=model,
        split="train",
        log_dir=tmp_path / "logs",
    ).rollouts
    assert (rollout.messages[3]["content"], rollout.reward) == (long, 1.0)


@needs_inspect
@pytest.mark.parametrize("model", ["nobody/nothing", "mockllm", "openai-api/nobody/nothing"])
def test_a_model_that_is_not_there_is_said_in_one_line(model: str, world: World, tmp_path: Path) -> None:
    with pytest.raises(FireflyError, match=f"^Inspect AI has no model {model}: [^\n\\[]*$"):
        run(world, tasks_of(world), model, tmp_path)


@needs_inspect
def test_a_model_behind_an_api_is_asked(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    lamp, town, _ = tasks_of(world)
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}

    def script(request: Received) -> Reply:
        messages = request.body["messages"]
        task = lamp if messages[1]["content"] == user_text(lamp) else town
        number = sum(message["role"] == "assistant" for message in messages)
        if task is town and number == 0:
            # No JSON at all.
            return tool_calls(("t0", "stock__read", '{"sku": 8'), usage=usage)
        if task is town:
            return completion(json.dumps(town.answer), usage=usage)
        if number == len(lamp.calls):
            return completion(json.dumps(lamp.answer), usage=usage)
        call = lamp.calls[number]
        return tool_calls((f"c{number}", ALIASES[call.ref], json.dumps(call.arguments)), usage=usage)

    class Endpoint(ChatEndpoint):
        def refusal(self, path: str, headers: Any, raw: bytes) -> Reply | None:
            # Inspect sends more than ours takes.
            return None

    monkeypatch.setenv("SCRIPT_API_KEY", "k")
    with Endpoint(script) as endpoint:
        found, log = run(
            world,
            [lamp, town],
            "openai-api/script/m",
            tmp_path,
            base_url=endpoint.url,
            temperature=0.5,
            concurrency=2,
        )
    assert log.status == "success"
    first, second = found.rollouts
    assert (first.reward, first.stop, first.completion_tokens) == (1.0, "answer", 20 * 4)
    assert [call.outcome for call in first.calls] == ["answered"] * 3
    assert [call.outcome for call in second.calls] == ["invalid"]
    assert second.reward == 1.0
    functions = Dataset(world, tasks_of(world)).functions
    for request in endpoint.received:
        assert request.body["temperature"] == 0.5
        for tool in request.body["tools"]:
            (recorded,) = [each for each in functions.values() if each.name == tool["function"]["name"]]
            assert tool["function"]["parameters"] == recorded.parameters
