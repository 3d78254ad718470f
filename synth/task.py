"""A task: a question, its answer as a program over recorded outputs, and what was checked of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from recorder.canonical import content_hash, readable_json
from recorder.errors import FireflyError
from recorder.exchange import Json, Record, ToolRef
from synth.program import AnswerProgram

Split = Literal["train", "test", "test_unseen_servers"]


class ReferenceCall(Record):
    """A call of the reference trajectory."""

    server: str
    tool: str
    arguments: dict[str, Json]
    exchange: int
    """Id of the recorded exchange, in the recording that the task was made from."""

    @property
    def ref(self) -> ToolRef:
        return ToolRef(self.server, self.tool)


class Verdict(Record):
    """What a gate says of a task."""

    gate: str
    passed: bool
    reason: str


class Difficulty(Record):
    level: Literal["easy", "medium", "hard"]
    calls: int
    servers: int
    operations: int
    """Operations of the program, other than reading a value."""
    depth: int
    """Calls on the longest way from an output to an argument and on: 1 where no call needs another."""
    fields: int


class Tool(Record):
    """A tool that is needed or offered, by name; its schema is in the recording."""

    server: str
    name: str


class Task(Record):
    task_id: str
    """Hash of the question, the program and the calls."""
    question: str
    answer_schema: dict[str, Json]
    """JSON Schema of the answer, with the keywords of `answers`."""
    answer: dict[str, Json]
    program: AnswerProgram
    calls: list[ReferenceCall]
    """The reference trajectory, in order."""
    tools: list[Tool]
    """Those that the calls need, in order of first use."""
    distractors: list[Tool]
    """Those offered besides."""
    servers: list[str]
    """Of the needed tools, sorted."""
    group: str
    """The start state, as the recording names it."""
    template: str
    """What tasks made alike have in common: how the calls hang together, and which operations make the
    answer."""
    entities: list[str]
    """What the calls name, sorted: the values of their arguments, and tools that are called without any."""
    difficulty: Difficulty
    gates: list[Verdict]
    split: Split
    world: list[str]
    """Content hashes of the recorded sessions that the calls are from, sorted."""


def task_id(question: str, program: AnswerProgram, calls: Iterable[ReferenceCall]) -> str:
    """Return the id of a task, which is the same wherever it is made."""
    made = [[call.server, call.tool, call.arguments] for call in calls]
    return content_hash([question, program.model_dump(mode="json"), made])[:16]


def write_tasks(path: Path, tasks: Iterable[Record]) -> None:
    """Write records as JSON lines, all or nothing."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        for task in tasks:
            file.write(readable_json(task.model_dump(mode="json")) + "\n")
    beside.replace(path)


def read_tasks(folder: Path) -> list[Task]:
    """Return the tasks of a data set.

    Raises:
        FireflyError: there are none, or a line is no task; it names the line.
    """
    return list(_read(folder / "tasks.jsonl" if folder.is_dir() else folder))


def _read(path: Path) -> Iterator[Task]:
    if not path.is_file():
        raise FireflyError(f"{path} is not there: firefly synth --db FILE --out {path.parent} makes it")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield Task.model_validate(json.loads(line))
                except (ValidationError, ValueError, RecursionError) as error:
                    raise FireflyError(f"{path}, line {number}, is no task: {_first(error)}") from error


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors()[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return str(error)
