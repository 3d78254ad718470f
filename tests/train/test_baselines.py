"""Policies without a model: what is known to be right comes out right, in replay and against real servers."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator

from firefly_proxy.live import LiveServer
from recorder.exchange import ToolCall, ToolResult
from replayer.session import Outcome
from synth.task import read_tasks
from tests.servers import ledger
from tests.train.command import firefly, refused
from tests.train.ledger_rollouts import Stage, staged
from tests.train.scripted_policy import Told
from train.baselines import DoNothing, Oracle
from train.baselines import Random as Chance
from train.environment import Environment, replayed, tools_of
from train.evaluate import Plan, Played, evaluate
from train.live_world import listings, real
from train.policy import Policy, Seat
from train.rollout import Limits, play
from train.suite import Suite, open_suite


@pytest.fixture(scope="module")
def suite(garden: Path) -> Suite:
    return open_suite(garden / "tasks", garden / "world.db")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def played(suite: Suite, policy: Policy, samples: int = 1, **limits: Any) -> Played:
    return evaluate(
        suite, replayed(suite.world.replayer), policy, Plan(samples=samples, limits=Limits(**limits))
    )


def test_the_oracle_is_right_at_every_task(suite: Suite) -> None:
    found = played(suite, Oracle())
    assert {(rollout.reward, rollout.right, rollout.stop) for rollout in found.rollouts} == {
        (1.0, True, "answer")
    }
    for rollout in found.rollouts:
        task = suite.by_id[rollout.task_id]
        assert [call.tool for call in rollout.calls] == [call.ref for call in task.calls]
        assert {call.outcome for call in rollout.calls} == {"answered"}
        assert json.loads(rollout.messages[-1]["content"]) == task.answer
    assert len(found.rollouts) == len(suite.tasks) == 24


def test_doing_nothing_is_never_right(suite: Suite) -> None:
    found = played(suite, DoNothing(), samples=2)
    assert {(rollout.reward, len(rollout.calls), rollout.stop) for rollout in found.rollouts} == {
        (0.0, 0, "answer")
    }
    assert not any(right for rollout in found.rollouts for right in rollout.fields.values())


@pytest.mark.parametrize("miss", ["exclude", "keep"])
def test_chance_is_about_never_right(suite: Suite, miss: str) -> None:
    found = played(suite, Chance(), samples=8, miss=miss)
    rewards = Counter(rollout.reward for rollout in found.rollouts)
    assert rewards[1.0] <= 0.02 * len(found.rollouts)
    assert (rewards[None] > 0) == (miss == "exclude")
    assert {rollout.stop for rollout in found.rollouts} <= {"answer", "miss"}
    calls = [call for rollout in found.rollouts for call in rollout.calls]
    assert {call.outcome for call in calls} >= {"answered", "miss"}
    assert len({call.tool for call in calls}) > 5


def test_chance_comes_from_the_seed_alone(suite: Suite) -> None:
    first, second = (
        [rollout.model_copy(update={"seconds": 0.0}) for rollout in played(suite, Chance()).rollouts]
        for _ in range(2)
    )
    assert first == second


def test_random_arguments_and_answers_fit_their_schemas(suite: Suite) -> None:
    found = played(suite, Chance(), samples=4, miss="keep")
    for rollout in found.rollouts:
        task = suite.by_id[rollout.task_id]
        environment = Environment(task, suite.functions, Told(lambda _: None))
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in environment.tools}
        for message in rollout.messages:
            for call in message.get("tool_calls", []):
                schema = schemas[call["function"]["name"]]
                Draft202012Validator(schema).validate(call["function"]["arguments"])
        Draft202012Validator(task.answer_schema).validate(json.loads(rollout.messages[-1]["content"]))


def test_the_oracle_draws_later_arguments_from_what_it_was_answered(stage: Stage) -> None:
    """In a world that answers otherwise than the recorded one, it asks for what that names."""

    def answer(call: ToolCall) -> Outcome:
        text = '["figs", "kiwis", "melons"]' if call.tool.name == "list" else "77"
        return ToolResult(result={"content": [{"type": "text", "text": text}]})

    told = Told(answer)
    environment = Environment(stage.task, stage.functions, told)
    seat = Seat(0, 0, 100, environment)
    rollout = anyio.run(play, environment, Oracle(), seat, Limits(), 0)
    assert [call.arguments for call in told.calls] == [{}, {"key": "melons"}]
    assert json.loads(rollout.messages[-1]["content"]) == {"name": "melons", "amount": 77}
    assert rollout.reward == 0.0


@pytest.mark.parametrize("text", ["[]", "what?", ""])
def test_the_oracle_gives_up_where_its_program_does_not_apply(stage: Stage, text: str) -> None:
    told = Told(lambda _: ToolResult(result={"content": [{"type": "text", "text": text}]}))
    environment = Environment(stage.task, stage.functions, told)
    rollout = anyio.run(play, environment, Oracle(), Seat(0, 0, 100, environment), Limits(), 0)
    assert (rollout.messages[-1]["content"], rollout.reward, rollout.stop) == ("{}", 0.0, "answer")


# Against a real server

TOWNS = ("Riga", "Cork", "Graz", "Bern", "Oslo", "Turin")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of a real server, what was recorded of it, and tasks of that."""
    folder = tmp_path_factory.mktemp("shop")
    rng = Random(4)
    entries = {
        f"item-{rng.randrange(100, 999)}": json.dumps(
            {"price": rng.randrange(1000, 9999), "town": rng.choice(TOWNS), "weight": rng.randrange(10, 500)}
        )
        for _ in range(10)
    }
    server = {
        "command": sys.executable,
        "args": [str(Path(ledger.__file__))],
        "env": {"LEDGER_START": json.dumps({"entries": entries})},
    }
    (folder / "mcp.json").write_text(json.dumps({"mcpServers": {"ledger": server}}))
    for _ in range(2):
        with LiveServer("ledger", folder / "mcp.json", db=folder / "world.db", group="start") as recorded:
            recorded.ask("tools/list")
            for name, arguments in [("list", {}), *(("get", {"key": key}) for key in entries)]:
                recorded.ask("tools/call", {"name": name, "arguments": arguments})
    made = firefly("synth", "--db", folder / "world.db", "--out", folder / "tasks", "--count", 6)
    assert made.returncode == 0, made.stderr
    return folder


def options(shop: Path) -> list[object]:
    return [
        "--tasks",
        shop / "tasks",
        "--db",
        shop / "world.db",
        "--split",
        "train",
        "--split",
        "test",
        "--json",
    ]


def test_the_oracle_is_right_against_the_real_server(shop: Path, tmp_path: Path) -> None:
    live = ["--live", "--config", shop / "mcp.json", "--out", tmp_path / "run"]
    ran = firefly("eval", *options(shop), "--policy", "oracle", *live)
    assert ran.returncode == 0, ran.stderr
    told = ran.json
    assert (told["pass_at"]["1"]["value"], told["counts"]["missed"]) == (1.0, 0)
    assert told["settings"]["live"] is True
    assert set(told["calls"]["tiers"]) == {"live"}
    assert told["calls"]["made"] > 0
    assert told["calls"]["mean_trust"] is None


def test_live_needs_no_recording(shop: Path, tmp_path: Path) -> None:
    about = ["--tasks", shop / "tasks", "--live", "--config", shop / "mcp.json", "--split", "train", "--json"]
    told = firefly("eval", *about, "--policy", "oracle", "--out", tmp_path / "run").json
    assert (told["pass_at"]["1"]["value"], told["counts"]["missed"]) == (1.0, 0)
    suite = open_suite(
        shop / "tasks", listings(shop / "mcp.json", {"ledger"}), splits=("train",), listings_only=True
    )
    recorded = open_suite(shop / "tasks", shop / "world.db", splits=("train",))
    assert tools_of(suite.tasks[0], suite.functions) == tools_of(recorded.tasks[0], recorded.functions)


def test_each_rollout_has_a_real_server_of_its_own(shop: Path) -> None:
    """A policy that changes the world; if rollouts shared it, only the first would find it as it was."""
    suite = open_suite(shop / "tasks", shop / "world.db", splits=("train",))
    task = suite.tasks[0]
    with real(shop / "mcp.json", {"ledger"})(task) as first, real(shop / "mcp.json", ())(task) as second:
        put = ToolCall.model_validate({"tool": ["ledger", "put"], "arguments": {"key": "new", "value": "1"}})
        get = ToolCall.model_validate({"tool": ["ledger", "get"], "arguments": {"key": "new"}})
        assert first.call(put) is not None
        texts = []
        for caller in (first, second):
            found = caller.call(get)
            assert found is not None
            assert isinstance(found.outcome, ToolResult)
            texts.append(found.outcome.result["content"][0]["text"])  # type: ignore[index]
        assert texts == ["1", "nothing is stored under 'new'"]


def test_a_real_server_ends_with_its_rollout(shop: Path, tmp_path: Path) -> None:
    program = f"import os, runpy; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))"
    program += f"; runpy.run_path({ledger.__file__!r}, run_name='__main__')"
    config = tmp_path / "mcp.json"
    config.write_text(
        json.dumps({"mcpServers": {"ledger": {"command": sys.executable, "args": ["-c", program]}}})
    )
    [task, *_] = read_tasks(shop / "tasks")
    call = ToolCall.model_validate({"tool": ["ledger", "list"], "arguments": {}})
    with real(config, {"ledger"})(task) as caller:
        assert caller.call(call) is not None
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_real_server_that_does_not_answer_is_a_miss(shop: Path, tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"ledger": {"command": sys.executable, "args": ["-c", ""]}}}))
    ran = firefly("eval", *options(shop), "--policy", "oracle", "--live", "--config", config)
    assert ran.returncode == 0, ran.stderr
    counts = ran.json["counts"]
    assert counts["missed"] == counts["rollouts"] > 0
    assert counts["scored"] == 0


def test_live_needs_the_servers_that_the_tasks_offer(shop: Path, tmp_path: Path) -> None:
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"other": {"command": "true"}}}))
    ran = firefly("eval", *options(shop), "--policy", "oracle", "--live", "--config", config)
    refused(ran, "has no server 'ledger'", "other")
    missing = firefly("eval", *options(shop), "--policy", "oracle", "--live", "--config", tmp_path / "none")
    refused(missing, tmp_path / "none", code=2)
    for half in (["--live"], ["--config", config]):
        refused(firefly("eval", *options(shop), "--policy", "oracle", *half), "go together", code=2)


def test_the_servers_of_distractors_are_needed_too(garden: Path, tmp_path: Path) -> None:
    tasks = [task for task in read_tasks(garden / "tasks") if task.split == "test"]
    needed = {server for task in tasks for server in task.servers}
    offered = {tool.server for task in tasks for tool in [*task.tools, *task.distractors]}
    assert offered > needed
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {server: {"command": "true"} for server in needed}}))
    live = ["--live", "--config", config, "--policy", "oracle", "--split", "test"]
    ran = firefly("eval", "--tasks", garden / "tasks", "--db", garden / "world.db", *live)
    refused(ran, f"has no server {min(offered - needed)!r}")
