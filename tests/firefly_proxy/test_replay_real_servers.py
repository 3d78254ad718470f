"""A session recorded from a real server is replayed word for word, with the server and its files gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from examples.demo import (
    FIREFLY,
    Step,
    Walk,
    ask,
    call,
    environment,
    everything_walk,
    filesystem_walk,
    git_walk,
    memory_walk,
    time_walk,
)
from tests.wire import StdioWire, open_stdio

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
CONVERSATION_S = 60
"""No recorded or replayed conversation may take longer."""

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}},
    "clientInfo": {"name": "real-servers", "version": "1"},
}
CLIENT_ANSWERS = {
    "roots/list": {"roots": [{"uri": "file:///tmp/firefly-root", "name": "root"}]},
    "sampling/createMessage": {
        "role": "assistant",
        "content": {"type": "text", "text": "Hello!"},
        "model": "none",
    },
    "elicitation/create": {"action": "accept", "content": {"name": "Ada", "integer": 7}},
}
MORE_OF_EVERYTHING = [
    Step("ping"),
    call("trigger-elicitation-request"),
    call("get-roots-list"),
    Step("logging/setLevel", {"level": "error"}),
    Step("resources/subscribe", {"uri": "demo://resource/static/document/features.md"}),
    Step("resources/unsubscribe", {"uri": "demo://resource/static/document/features.md"}),
    Step("resources/read", {"uri": "demo://resource/dynamic/blob/3"}),
    Step("prompts/get", {"name": "no-such-prompt"}),
    Step("completion/complete", {"ref": {"type": "ref/prompt", "name": "no-such-prompt"}}),
    Step("com.example/unknown", {"deep": [1, 2.5, None, {"ü": "\u2028"}]}),
    call("echo", message="twice"),
    call("echo", message="twice"),
]


@dataclass(frozen=True)
class Reply:
    """What came back for a step, as text: order of keys and form of numbers count, `_meta` does not."""

    body: str
    progress: Sequence[str]


@dataclass(frozen=True)
class Recorded:
    db: Path
    walk: Walk
    replies: Sequence[Reply]


@pytest.fixture(scope="module", params=["time", "git", "filesystem", "memory", "everything"])
async def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A recording of one long session with a real server; the server and its files are gone."""
    folder = tmp_path_factory.mktemp(request.param)
    world = folder / "world"
    walk = walk_of(request.param, request, world)
    db = folder / "session.db"
    with anyio.fail_after(CONVERSATION_S):
        async with opened(record_command(walk, db), walk.env) as wire:
            replies = await converse(wire, walk.steps)
    shutil.rmtree(world, ignore_errors=True)
    return Recorded(db, walk, replies)


def walk_of(server: str, request: pytest.FixtureRequest, world: Path) -> Walk:
    """The demo's walk, on the server that the test's environment has, in a fresh `world`."""
    match server:
        case "time":
            return time_walk()
        case "git":
            return git_walk(world)
        case "filesystem":
            walk = filesystem_walk(world)
            return replace(walk, command=[*request.getfixturevalue("filesystem_server"), str(world)])
        case "memory":
            world.mkdir()
            walk = memory_walk(world / "memory.jsonl")
            return replace(walk, command=request.getfixturevalue("memory_server"))
        case _:
            walk = everything_walk()
            steps = [*walk.steps, *MORE_OF_EVERYTHING]
            return replace(walk, command=request.getfixturevalue("everything"), steps=steps)


def record_command(walk: Walk, db: Path) -> list[str]:
    return [*FIREFLY, "record", "--db", str(db), "--name", walk.server, "--", *walk.command]


def replay_command(db: Path, *options: str) -> list[str]:
    return [*FIREFLY, "replay", "--db", str(db), *options]


def opened(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[StdioWire]:
    return open_stdio(command, answer_server, environment(env), ROOT)


def answer_server(request: Mapping[str, Any]) -> str:
    """Be the client that a server asks."""
    result = CLIENT_ANSWERS.get(request["method"], {})
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})


async def converse(wire: StdioWire, steps: Sequence[Step], *, first_id: int = 1) -> list[Reply]:
    """Initialize, send the steps one after the other, and return the replies, that to `initialize` first."""
    replies = [await send(wire, Step("initialize", INITIALIZE), first_id)]
    await wire.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    for number, step in enumerate(steps, first_id + 1):
        # Every second id is a string; a reply that changed its type would never be found.
        replies.append(await send(wire, step, number if number % 2 else f"call-{number}"))
    return replies


async def send(wire: StdioWire, step: Step, request_id: int | str) -> Reply:
    token = f"progress of {request_id}"
    params = {**step.params, "_meta": {"progressToken": token}}
    seen = len(wire.lines)
    request = {"jsonrpc": "2.0", "id": request_id, "method": step.method, "params": params}
    message = json.loads(await wire.request(json.dumps(request)))
    assert message["id"] == request_id
    body = {kind: message[kind] for kind in ("result", "error") if kind in message}
    for outcome in body.values():
        outcome.pop("_meta", None)
    progress = []
    for notification in messages(wire, seen):
        if notification.get("method") == "notifications/progress":
            assert notification["params"].pop("progressToken") == token
            progress.append(json.dumps(notification["params"]))
    return Reply(json.dumps(body, ensure_ascii=False), progress)


def messages(wire: StdioWire, start: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line.text) for line in wire.lines[start:]]


def of_calls(steps: Sequence[Step], replies: Sequence[Reply]) -> list[tuple[Step, Reply]]:
    """Each step with its reply, so that a comparison that fails says which call it was."""
    return list(zip(steps, replies[1:], strict=True))


async def test_every_request_is_answered_identically_by_two_clients_at_once_twice(recorded: Recorded) -> None:
    async def one_client(first_id: int) -> None:
        async with opened(replay_command(recorded.db, "--server", recorded.walk.server)) as wire:
            replayed[first_id] = await converse(wire, recorded.walk.steps, first_id=first_id)
            asked = [message for message in messages(wire) if {"id", "method"} <= message.keys()]
            assert asked == [], "what the server asked the client then is not asked again"

    for _ in range(2):
        replayed: dict[int, list[Reply]] = {}
        with anyio.fail_after(CONVERSATION_S):
            async with anyio.create_task_group() as clients:
                clients.start_soon(one_client, 1)
                clients.start_soon(one_client, 500)
        for replies in replayed.values():
            assert replies[0] == recorded.replies[0]
            steps = recorded.walk.steps
            assert of_calls(steps, replies) == of_calls(steps, recorded.replies)
        assert len(replayed) == 2


async def test_every_answer_names_its_source_and_a_repeat_beyond_the_recording_gets_the_last_answer(
    recorded: Recorded,
) -> None:
    tools = [step for step in recorded.walk.steps if step.method == "tools/call"]
    with anyio.fail_after(CONVERSATION_S):
        async with opened(replay_command(recorded.db)) as wire:
            await converse(wire, tools)
            first = await answer_to(wire, tools[0])
            second = await answer_to(wire, tools[0])
    source = first["result"]["_meta"]["io.firefly/replay"]
    assert source["tier"] in ("exact", "exact-other-state")
    assert (source["score"], source["trust"]) == (1, None)
    assert "source" in source
    assert second["result"] == first["result"]
    assert "firefly" not in json.dumps(first["result"]["content"])


async def answer_to(wire: StdioWire, step: Step) -> dict[str, Any]:
    request = {
        "jsonrpc": "2.0",
        "id": f"more-{len(wire.lines)}",
        "method": step.method,
        "params": step.params,
    }
    answer: dict[str, Any] = json.loads(await wire.request(json.dumps(request)))
    return answer


@asynccontextmanager
async def recorded_session(walk: Walk, db: Path) -> AsyncIterator[list[Reply]]:
    """Record `walk`, and yield the replies once the server has stopped."""
    with anyio.fail_after(CONVERSATION_S):
        async with opened(record_command(walk, db), walk.env) as wire:
            replies = await converse(wire, walk.steps)
        yield replies


async def test_reads_after_writes_replay_in_the_order_of_the_session(
    filesystem_server: list[str], tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    read = call("read_text_file", path=str(note))
    steps = [read]
    for line in ("one", "two", "three"):
        steps += [call("write_file", path=str(note), content=line), read, read]
    walk = Walk("files", [*filesystem_server, str(tmp_path)], steps)
    async with recorded_session(walk, tmp_path / "session.db") as replies:
        note.write_text("the replay does not look here", encoding="utf-8")
        async with opened(replay_command(tmp_path / "session.db")) as wire:
            replayed = await converse(wire, steps)
    assert of_calls(steps, replayed) == of_calls(steps, replies)
    texts = [json.loads(reply.body)["result"]["content"][0]["text"] for reply in replayed[1:]]
    after_writes = [text for step, text in zip(steps, texts, strict=True) if step == read][1:]
    assert after_writes == ["one", "one", "two", "two", "three", "three"]


async def test_a_call_that_was_never_made_is_an_error_result_that_shows_what_came_close(
    time_server: list[str], tmp_path: Path
) -> None:
    tokyo = {"source_timezone": "Europe/Paris", "target_timezone": "Asia/Tokyo"}
    walk = Walk("time", time_server, [call("convert_time", time="09:30", **tokyo)])
    async with (
        recorded_session(walk, tmp_path / "session.db"),
        opened(replay_command(tmp_path / "session.db")) as wire,
    ):
        await converse(wire, [])
        missed = (await answer_to(wire, call("convert_time", time="09:31", **tokyo)))["result"]
        unknown = (await answer_to(wire, call("get_current_time", timezone="UTC")))["result"]
        refused = await answer_to(wire, Step("resources/read", {"uri": "file:///nowhere"}))
    assert missed["isError"] is True
    text = missed["content"][0]["text"]
    for named in ("convert_time", "exact", "/time", "09:30", "09:31"):
        assert named in text
    assert unknown["isError"] is True
    assert "get_current_time" in unknown["content"][0]["text"]
    assert "reason" in refused["error"]["data"]


@pytest.mark.parametrize("recorded_as", ["legacy", "2026-07-28"])
async def test_a_client_of_either_era_gets_the_same_answers_from_a_recording_of_either(
    recorded_as: str, tmp_path: Path
) -> None:
    walk = time_walk()
    db = tmp_path / "session.db"

    async def answers(command: Sequence[str], mode: str) -> list[tuple[Step, Mapping[str, Any]]]:
        server = StdioServerParameters(command=command[0], args=list(command[1:]), env=environment())
        async with Client(server, mode=mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            return [(step, (await ask(client, step)).body) for step in walk.steps]

    with anyio.fail_after(CONVERSATION_S):
        live = await answers(record_command(walk, db), recorded_as)
        for mode in ("legacy", "auto", "2026-07-28"):
            assert await answers(replay_command(db), mode) == live, f"mode {mode}"
