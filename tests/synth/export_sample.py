"""A small recording of two servers that both have a tool `read`, and three tasks over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recorder.exchange import ToolRef
from recorder.importer import import_files, import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer
from synth.answers import answer_schema, field_schema
from synth.program import AnswerProgram
from synth.task import Difficulty, ReferenceCall, Split, Task, Tool, write_tasks
from synth.world import World

FIND, SHOP_READ = ToolRef("shop", "find"), ToolRef("shop", "read")
STOCK_READ, RESET = ToolRef("stock", "read"), ToolRef("stock", "reset")

SCHEMAS: dict[ToolRef, dict[str, Any]] = {
    FIND: {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    SHOP_READ: {"type": "object", "properties": {"id": {"type": "string"}}, "additionalProperties": False},
    STOCK_READ: {
        "type": "object",
        "properties": {"sku": {"type": ["integer", "null"], "default": 1}, "tags": {"type": "array"}},
    },
    RESET: {"type": "object"},
}
"""No two have the same keys, and `STOCK_READ` has values of mixed types: what Arrow cannot infer."""

LAMP, LAMP_PRICE = {"id": "p-7"}, {"price": 12.5}
CALLS: dict[str, list[tuple[ToolRef, dict[str, Any], str]]] = {
    "lamp": [
        (FIND, {"name": "lamp"}, json.dumps(LAMP)),
        (SHOP_READ, {"id": "p-7"}, json.dumps(LAMP_PRICE)),
        (STOCK_READ, {"sku": 7, "tags": ["a", 1, None]}, '{"items": 3}'),
    ],
    "town": [(STOCK_READ, {"sku": 8}, '{"town": "Zürich"}')],
    "chair": [(SHOP_READ, {"id": "p-8"}, '{"price": 40}')],
}
"""Session → its calls with the text that each returned."""


def record(db: Path) -> World:
    sessions = [
        {
            "session_id": name,
            "group": "g",
            "calls": [
                {"server": ref.server, "tool": ref.name, "arguments": arguments, "output": output}
                for ref, arguments, output in calls
            ],
        }
        for name, calls in CALLS.items()
    ]
    report = import_sessions(db, sessions)
    listed = db.with_name("tools.jsonl")
    listed.write_text(
        "".join(
            json.dumps(
                {
                    "server": ref.server,
                    "name": ref.name,
                    "description": f"Does {ref.name}.",
                    "inputSchema": schema,
                }
            )
            + "\n"
            for ref, schema in SCHEMAS.items()
        )
    )
    tools = import_files(db, [], tools=[listed])
    assert (report.problems, tools.problems) == ([], [])
    store = Store(db)
    return World(store, Replayer(store, learn(store)))


def tasks_of(world: World) -> list[Task]:
    price, items = field_schema("number", "The price"), field_schema("number", "Items in stock", whole=True)
    return [
        _task(
            world,
            "lamp",
            "What does the lamp cost, and how many are there?",
            {"price": price, "items": items},
            {"price": 12.5, "items": 3},
            [("price", 1), ("items", 2)],
            "train",
            [RESET],
        ),
        _task(
            world,
            "town",
            "Where is 8 kept?",
            {"town": field_schema("text", "The town")},
            {"town": "Zürich"},
            [("town", 0)],
            "test",
            [SHOP_READ],
        ),
        _task(
            world,
            "chair",
            "What does p-8 cost?",
            {"price": price},
            {"price": 40},
            [("price", 0)],
            "train",
            [],
        ),
    ]


def written(folder: Path, tasks: list[Task]) -> Path:
    folder.mkdir()
    write_tasks(folder / "tasks.jsonl", tasks)
    return folder


def _task(
    world: World,
    session: str,
    question: str,
    fields: dict[str, dict[str, Any]],
    answer: dict[str, Any],
    reads: list[tuple[str, int]],
    split: Split,
    distractors: list[ToolRef],
) -> Task:
    exchanges = list(world.store.exchanges(session_id=session, method="tools/call"))
    calls = [
        ReferenceCall(server=ref.server, tool=ref.name, arguments=arguments, exchange=exchange.id)
        for (ref, arguments, _), exchange in zip(CALLS[session], exchanges, strict=True)
    ]
    needed = list(dict.fromkeys(call.ref for call in calls))
    kinds = {"string": "text"}
    program = {
        name: {
            "op": "extract",
            "call": call,
            "path": [name],
            "as": kinds.get(str(fields[name]["type"]), "number"),
        }
        for name, call in reads
    }
    return Task(
        task_id=f"task-{session}",
        question=question,
        answer_schema=answer_schema(fields),
        answer=answer,
        program=AnswerProgram(fields=program),
        calls=calls,
        tools=[Tool(server=ref.server, name=ref.name) for ref in needed],
        distractors=[Tool(server=ref.server, name=ref.name) for ref in distractors],
        servers=sorted({ref.server for ref in needed}),
        group="g",
        template="t",
        entities=[session],
        difficulty=Difficulty(
            level="easy", calls=len(calls), servers=1, operations=0, depth=1, fields=len(answer)
        ),
        gates=[],
        split=split,
        world=world.hashes(calls),
    )
