"""Proposals over the invented town that were read one by one before any gate judged them, against the gates.

Good is a question that can be understood and has one answer, which is right, stands nowhere beforehand, needs
every call, and is no lucky guess. Each verdict on a bad one says what is wrong with it.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.answers import Schema, answer_schema, field_schema, list_schema
from synth.gates import GATES
from synth.program import AnswerProgram
from synth.propose import difficulty
from synth.task import ReferenceCall, Task, Tool, Verdict, task_id
from synth.world import World
from tests.synth.worlds import GROUP, made

CHECKED = Path(__file__).with_name("hand_checked.jsonl")
FEWEST_GOOD, MOST_DROPPED = 100, 0.05


@dataclass(frozen=True)
class Checked:
    task: Task
    good: bool
    why: str
    """What is wrong with a bad one."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("checked") / "town.db")


@pytest.fixture(scope="module")
def checked(world: World) -> list[Checked]:
    exchanges: dict[str, int] = {}
    for exchange in world.store.exchanges(method="tools/call"):
        if exchange.call is not None:
            key = canonical_json([*exchange.call.tool, exchange.call.arguments])
            exchanges.setdefault(key, exchange.id)
    return [
        Checked(_task(line, exchanges), line["good"], line["why"])
        for line in map(json.loads, CHECKED.read_text(encoding="utf-8").splitlines())
    ]


def test_few_good_tasks_are_dropped(world: World, checked: list[Checked]) -> None:
    good = [each.task for each in checked if each.good]
    assert len(good) >= FEWEST_GOOD
    dropped = [(failed, task.question) for task in good if (failed := _failed(task, world)) is not None]
    print(f"{len(dropped)} of {len(good)} good ones dropped")
    for failed, question in dropped:
        print(f"  {failed.gate}: {failed.reason}\n    {question}")
    assert len(dropped) <= MOST_DROPPED * len(good), dropped


def test_which_bad_tasks_are_caught(world: World, checked: list[Checked]) -> None:
    bad = [each for each in checked if not each.good]
    failed = [(each, _failed(each.task, world)) for each in bad]
    caught = Counter(verdict.gate for _, verdict in failed if verdict is not None)
    print(f"{caught.total()} of {len(bad)} bad ones caught: {dict(caught)}; missed:")
    for each, verdict in failed:
        if verdict is None:
            print(f"  {each.why}\n    {each.task.question}")
    assert caught.total() > len(bad) / 2


def _failed(task: Task, world: World) -> Verdict | None:
    verdicts = (gate(task, world) for gate in GATES.values())
    return next((verdict for verdict in verdicts if not verdict.passed), None)


def _task(line: dict[str, Json], exchanges: dict[str, int]) -> Task:
    program = AnswerProgram.model_validate(line["program"])
    calls = [
        ReferenceCall(server=server, tool=tool, arguments=arguments,
                      exchange=exchanges[canonical_json([server, tool, arguments])])
        for server, tool, arguments in line["calls"]
    ]  # fmt: skip
    needed = list(dict.fromkeys(call.ref for call in calls))
    return Task(
        task_id=task_id(line["question"], program, calls),
        question=line["question"],
        answer_schema=answer_schema({name: _schema(name, value) for name, value in line["answer"].items()}),
        answer=line["answer"],
        program=program,
        calls=calls,
        tools=[Tool(server=ref.server, name=ref.name) for ref in needed],
        distractors=[],
        servers=sorted({ref.server for ref in needed}),
        group=GROUP,
        template="checked by hand",
        entities=[],
        difficulty=difficulty(program, calls),
        gates=[],
        split="train",
        world=[],
    )


def _schema(name: str, value: Json) -> Schema:
    if isinstance(value, list):
        kind = "text" if all(isinstance(item, str) for item in value) else "number"
        return list_schema(kind, name, ordered=name.startswith("top_"))
    if isinstance(value, bool):
        return field_schema("boolean", name)
    if isinstance(value, int | float):
        return field_schema("number", name, whole=isinstance(value, int))
    return field_schema("text", name)
