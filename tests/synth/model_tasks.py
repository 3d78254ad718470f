"""A task over a recording of `ledger.py`, made by hand, and what tests of models share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.exchange import Json
from recorder.store import Store
from recorder.writer import RecordingWriter
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.answers import answer_schema, field_schema
from synth.model import Models
from synth.program import AnswerProgram, run
from synth.task import Difficulty, ReferenceCall, Task, Tool, task_id
from synth.world import World
from tests.servers.ledger import Ledger, answer
from tests.servers.messages_endpoint import Received, Reply, message

HAIKU, SONNET, QWEN, LLAMA = "claude-haiku-4-5", "claude-sonnet-5-5", "Qwen/Qwen3-8B", "llama-4"
KEY = "key-of-the-test"
GROUP = "stock"
QUESTION = "Of the fruit whose name comes last in the alphabet: what is it called, and how many are in stock?"
STOCK = {"apples": "12", "pears": "41", "plums": "7319"}

LAST: dict[str, Json] = {
    "op": "item",
    "of": {"op": "extract", "call": 0, "path": []},
    "number": 2,
    "as": "text",
}
FIELDS: dict[str, Json] = {
    "name": LAST,
    "amount": {"op": "extract", "call": 1, "path": [], "as": "number"},
}
ANSWER = {"name": "plums", "amount": 7319}


def record(path: Path) -> None:
    """Record what a client asks `ledger.py`, which answers for real."""
    ledger = Ledger({"entries": STOCK})
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    requests: list[tuple[str, dict[str, Any]]] = [
        ("initialize", hello),
        ("tools/list", {}),
        ("tools/call", {"name": "list", "arguments": {}}),
        *(("tools/call", {"name": "get", "arguments": {"key": key}}) for key in [*STOCK, "figs"]),
        ("tools/call", {"name": "divide", "arguments": {"a": 7, "b": 2}}),
    ]
    writer = RecordingWriter(path, group=GROUP)
    server_id = writer.add_server("ledger", {})
    for number, (method, params) in enumerate(requests):
        asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        writer.record(server_id, "to_server", [json.dumps(asked).encode()])
        told = {"jsonrpc": "2.0", "id": number, **answer(ledger, method, params)}
        writer.record(server_id, "to_client", [json.dumps(told).encode()])
    writer.end_server(server_id, "done")
    writer.end("done")


def open_world(path: Path) -> World:
    store = Store(path)
    return World(store, Replayer(store, learn(store)))


def make_task(world: World, question: str = QUESTION) -> Task:
    """The last key, and what stands under it; `divide` is offered besides."""
    exchanges = {
        json.dumps(exchange.call.arguments): exchange.id
        for exchange in world.store.exchanges(method="tools/call")
        if exchange.call is not None
    }
    made: list[tuple[str, dict[str, Json]]] = [("list", {}), ("get", {"key": "plums"})]
    calls = [
        ReferenceCall(
            server="ledger", tool=tool, arguments=arguments, exchange=exchanges[json.dumps(arguments)]
        )
        for tool, arguments in made
    ]
    program = AnswerProgram.model_validate(
        {"fields": FIELDS, "arguments": [{"call": 1, "path": ["key"], "value": LAST}]}
    )
    task = Task(
        task_id=task_id(question, program, calls),
        question=question,
        answer_schema=answer_schema(
            {
                "name": field_schema("text", "the fruit"),
                "amount": field_schema("number", "how many", whole=True),
            }
        ),
        answer=ANSWER,
        program=program,
        calls=calls,
        tools=[Tool(server="ledger", name="list"), Tool(server="ledger", name="get")],
        distractors=[Tool(server="ledger", name="divide")],
        servers=["ledger"],
        group=GROUP,
        template="t",
        entities=["list", "plums"],
        difficulty=Difficulty(level="easy", calls=2, servers=1, operations=1, depth=2, fields=2),
        gates=[],
        split="train",
        world=world.hashes(calls),
    )
    assert run(program, world.trees(calls)).answer == ANSWER
    return task


def models(path: Path | None = None, **settings: Any) -> Models:
    return Models(path, api_key=KEY, **settings)


def say(value: Json) -> Reply:
    return message(json.dumps(value))


def by_model(**scripts: list[Reply] | Reply) -> Callable[[Received], Reply]:
    """Answer by the family of the model that is asked: a list in order, a single reply each time."""
    left = {name: list(script) if isinstance(script, list) else script for name, script in scripts.items()}

    def reply(received: Received) -> Reply:
        name = next(name for name in left if name in received.body["model"].lower())
        script = left[name]
        return script.pop(0) if isinstance(script, list) else script

    return reply


def without_credentials(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let neither the environment nor the profile of who runs the tests take part."""
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
