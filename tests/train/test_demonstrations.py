"""Conversations that SFT learns from."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import Json
from recorder.writer import RecordingWriter
from tests.train.ledger_rollouts import AMOUNT, LISTED, RIGHT, Stage, staged
from tests.train.scripted_policy import Line, Scripted, asks, says
from train.baselines import Oracle
from train.demonstrations import (
    EXPLORING,
    MOST_CALLS,
    MOST_TOOLS,
    from_explorer,
    from_rollouts,
    is_recording,
    references,
)
from train.environment import prompt_of, replayed, tools_of
from train.evaluate import Plan, evaluate, write_sorted
from train.policy import PolicyFailed
from train.rollout import Limits, Rollout
from train.suite import Suite, open_suite

GET = ("get", {"key": "plums"})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


def suite_of(stage: Stage) -> Suite:
    return Suite((stage.task,), stage.world, stage.functions)


def written(path: Path, stage: Stage, *lines: list[Line]) -> list[Rollout]:
    """Write a rollout for each script; what they met as misses counts."""
    found = [stage.play_one(Scripted(line), Limits(miss="keep")) for line in lines]
    write_sorted(path, found)
    return found


def test_the_reference_trajectories_are_what_the_oracle_does(garden: Path, tmp_path: Path) -> None:
    suite = open_suite(garden / "tasks", garden / "world.db")
    played = evaluate(suite, replayed(suite.world.replayer), Oracle(), Plan())
    write_sorted(tmp_path / "rollouts.jsonl", played.rollouts)
    rows = list(from_rollouts(suite, tmp_path, only_right=True))
    assert [row | {"source": "reference"} for row in rows] == list(references(suite))
    assert len(rows) == len(suite.tasks)
    assert {row["source"] for row in rows} == {"rollout"}


def test_a_rollout_is_kept_as_it_went_without_what_no_template_reads(stage: Stage, tmp_path: Path) -> None:
    rollouts = written(
        tmp_path / "r.jsonl", stage, [asks(("list", {}), GET), asks(("lookup", {})), says(RIGHT)]
    )
    [row] = from_rollouts(suite_of(stage), tmp_path / "r.jsonl", only_right=True)
    calls = [
        {"type": "function", "function": {"name": name, "arguments": arguments}}
        for name, arguments in (("list", {}), GET, ("lookup", {}))
    ]
    assert row["messages"] == [
        *prompt_of(stage.task),
        {"role": "assistant", "content": "", "tool_calls": calls[:2]},
        {"role": "tool", "name": "list", "content": LISTED},
        {"role": "tool", "name": "get", "content": AMOUNT},
        {"role": "assistant", "content": "", "tool_calls": calls[2:]},
        {"role": "tool", "name": "lookup", "content": rollouts[0].messages[6]["content"]},
        {"role": "assistant", "content": RIGHT},
    ]
    assert json.loads(row["tools"]) == tools_of(stage.task, stage.functions)
    assert (row["task_id"], row["source"]) == (stage.task.task_id, "rollout")


def test_wrong_ones_are_kept_where_all_are_wanted(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    scripts: list[list[Line]] = [
        [says(RIGHT)],
        [asks(("get", {"key": "quinces"})), says(RIGHT)],
        [says("No idea.")],
        [asks(("get", "plums")), says(RIGHT)],
        [PolicyFailed("HTTP 503")],
    ]
    rollouts = written(path, stage, *scripts)
    assert [rollout.reward for rollout in rollouts] == [1.0, 1.0, 0.0, 1.0, None]

    def ends(*, only_right: bool) -> list[str]:
        found = from_rollouts(suite_of(stage), path, only_right=only_right)
        return [row["messages"][-1]["content"] for row in found]

    # A call whose arguments are no object cannot be rendered; without a message there is nothing to learn.
    assert ends(only_right=True) == [RIGHT, RIGHT]
    assert ends(only_right=False) == [RIGHT, RIGHT, "No idea."]


def test_rollouts_of_other_tasks_and_a_half_written_line_are_left_out(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    [rollout] = written(path, stage, [says(RIGHT)])
    write_sorted(path, [rollout.model_copy(update={"task_id": "other"}), rollout])
    with path.open("ab") as file:
        file.write(path.read_bytes()[:200])
    for where in (path, tmp_path):
        assert len(list(from_rollouts(suite_of(stage), where, only_right=True))) == 1
    lean = {"task_id": stage.task.task_id, "reward": 1.0, "messages": rollout.messages}
    path.write_text(json.dumps(lean))
    assert len(list(from_rollouts(suite_of(stage), path, only_right=True))) == 1


@pytest.mark.parametrize("line", ["{}", "no json", "[]", '{"task_id": 3}', ""])
def test_a_line_that_is_no_rollout_is_named(stage: Stage, tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.jsonl"
    written(path, stage, [says(RIGHT)])
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(FireflyError, match=f"{path}, line 2, is no rollout"):
        list(from_rollouts(suite_of(stage), path, only_right=True))
    with pytest.raises(FireflyError, match=r"none\.jsonl is not there: it should be rollouts"):
        list(from_rollouts(suite_of(stage), tmp_path / "none.jsonl", only_right=True))


def test_a_recording_is_told_from_rollouts(stage: Stage, tmp_path: Path) -> None:
    assert is_recording(stage.world.store.path)
    written(tmp_path / "rollouts.jsonl", stage, [says(RIGHT)])
    assert not is_recording(tmp_path / "rollouts.jsonl")
    assert not is_recording(tmp_path)
    with pytest.raises(FireflyError, match=r"cannot read .*none: No such file"):
        is_recording(tmp_path / "none")


# An explorer's walks

Said = tuple[str, str, dict[str, Json], dict[str, Json] | None]
"""Server, tool, arguments and the reply; `None`: none came."""


def text(words: str, **more: Json) -> dict[str, Json]:
    return {"result": {"content": [{"type": "text", "text": words}], **more}}


def walked(path: Path, *sessions: tuple[str | None, list[Said]], extra_tools: int = 0) -> None:
    """Record sessions, each with its run; all servers have the tools `look` and `go`."""
    names = ["look", "go", *(f"extra_{number:02}" for number in range(extra_tools))]
    tools = [
        {"name": name, "description": f"To {name}.", "inputSchema": {"type": "object"}} for name in names
    ]
    for run, said in sessions:
        writer = RecordingWriter(path, group="g", run=run)
        ids = {name: writer.add_server(name, {}) for name in dict.fromkeys(server for server, *_ in said)}
        asked: list[tuple[int, str, Any, Any]] = [
            (server, "tools/list", {}, {"result": {"tools": tools}}) for server in ids.values()
        ]
        for server, tool, arguments, reply in said:
            asked.append((ids[server], "tools/call", {"name": tool, "arguments": arguments}, reply))
        for number, (server_id, method, params, reply) in enumerate(asked):
            frame = {"jsonrpc": "2.0", "id": number}
            request = json.dumps({**frame, "method": method, "params": params})
            writer.record(server_id, "to_server", [request.encode()])
            if reply is not None:
                writer.record(server_id, "to_client", [json.dumps({**frame, **reply}).encode()])
        for server_id in ids.values():
            writer.end_server(server_id, "done")
        writer.end("done")


def shown(row: dict[str, Any]) -> list[Any]:
    return [
        [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
        if "tool_calls" in message
        else (message["role"], message["content"])
        for message in row["messages"]
    ]


def test_a_walk_is_a_conversation_with_its_failures(tmp_path: Path) -> None:
    refusal = {"error": {"code": -32602, "message": "no such place"}}
    walked(
        tmp_path / "world.db",
        (
            None,
            [
                ("east", "look", {}, text("a door")),
                ("east", "go", {"to": "moon"}, refusal),
                ("east", "go", {"to": "bar"}, text("it is shut", isError=True)),
                ("east", "go", {"to": "nowhere"}, None),
                ("west", "look", {"n": 2}, text("a hill")),
            ],
        ),
    )
    [row] = from_explorer(tmp_path / "world.db")
    assert shown(row) == [
        ("user", EXPLORING),
        [("east__look", {})],
        ("tool", "a door"),
        [("east__go", {"to": "moon"})],
        ("tool", "no such place"),
        [("east__go", {"to": "bar"})],
        ("tool", "it is shut"),
        [("west__look", {"n": 2})],
        ("tool", "a hill"),
    ]
    assert (row["task_id"], row["source"]) == ("", "explorer")
    tools = [tool["function"] for tool in json.loads(row["tools"])]
    assert [tool["name"] for tool in tools] == ["east__go", "east__look", "west__go", "west__look"]
    assert tools[0]["description"] == "To go."


def test_sessions_of_a_run_are_one_walk_and_others_each_their_own(tmp_path: Path) -> None:
    path = tmp_path / "world.db"
    walked(
        path,
        ("a", [("east", "look", {"n": 1}, text("1"))]),
        (None, [("east", "look", {"n": 2}, text("2"))]),
        ("a", [("west", "look", {"n": 3}, text("3"))]),
        (None, [("east", "look", {"n": 4}, text("4"))]),
        ("b", [("east", "look", {"n": 5}, None)]),
    )
    found = [
        [text for role, text in filter(lambda part: part[0] == "tool", shown(row))]
        for row in from_explorer(path)
    ]
    assert found == [["1", "3"], ["2"], ["4"]]


def test_a_walk_is_offered_what_it_called_and_some_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "world.db"
    walked(path, (None, [("east", "look", {}, text("1"))]), extra_tools=90)
    [row] = from_explorer(path)
    tools = json.loads(row["tools"])
    assert len(tools) == 1 + MOST_TOOLS
    assert "look" in {tool["function"]["name"] for tool in tools}
    assert row["tools"] == readable_json(tools)


def test_what_is_no_recording_has_no_walks(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no recording")
    with pytest.raises(FireflyError, match="text"):
        list(from_explorer(tmp_path / "text"))


def test_a_long_walk_is_several_conversations(tmp_path: Path) -> None:
    path = tmp_path / "world.db"
    calls: list[Said] = [
        ("east", "look", {"n": number}, text(str(number))) for number in range(2 * MOST_CALLS + 3)
    ]
    walked(path, ("a", calls))
    found = [
        [text for role, text in filter(lambda part: part[0] == "tool", shown(row))]
        for row in from_explorer(path)
    ]
    assert [len(each) for each in found] == [MOST_CALLS, MOST_CALLS, 3]
    assert list(chain(*found)) == [str(number) for number in range(2 * MOST_CALLS + 3)]
