"""An audit of a data set finds what was changed after it was made, in any recording that holds its
sessions."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recorder.exchange import Json
from synth.check import Audit, Finding, audit
from synth.gates import GATES
from synth.pipeline import Wanted, reworded, synthesise
from synth.program import AnswerProgram, ProgramError, arguments_of, run
from synth.task import Task, Tool, Verdict, read_tasks, write_tasks
from synth.world import World
from tests.synth import garden
from tests.synth.garden import Garden, opened, record

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def world(folder: Path) -> World:
    record(folder / "world.db", Garden.grown())
    return opened(folder / "world.db")


@pytest.fixture(scope="module")
def tasks(world: World, folder: Path) -> list[Task]:
    write_tasks(folder / "tasks.jsonl", synthesise(world, Wanted(COUNT)).tasks)
    return read_tasks(folder)


def test_what_was_made_holds(tasks: list[Task], world: World) -> None:
    assert audit(tasks, world) == Audit(tasks=COUNT)


# What was changed


def honest(task: Task, **changes: object) -> Task:
    """Return a changed task whose id is that of what it says."""
    return reworded(task.model_copy(update=changes), str(changes.get("question", task.question)))


def program_with(task: Task, **changes: object) -> AnswerProgram:
    return AnswerProgram.model_validate({**task.program.model_dump(), **changes})


def another_answer(task: Task) -> Task:
    name, value = next((name, value) for name, value in task.answer.items() if isinstance(value, int))
    return task.model_copy(update={"answer": {**task.answer, name: value + 1}})


def a_field_less(task: Task) -> Task:
    return task.model_copy(update={"answer": dict(list(task.answer.items())[1:])})


def reworded_only(task: Task) -> Task:
    return task.model_copy(update={"question": f"{task.question} Please."})


def with_a_leak(task: Task) -> Task:
    told = next(value for value in task.answer.values() if len(str(value)) > 3)
    return honest(task, question=f"{task.question} It is not {told}, is it?")


def without_the_argument(task: Task) -> Task:
    value = next(iter(task.calls[0].arguments.values()))
    assert f"`{value}`" in task.question
    return honest(task, question=task.question.replace(f"`{value}`", "what I named before"))


def another_constant(task: Task) -> Task:
    fields = {name: {**field, "path": ["no such name"]} for name, field in task.program.fields.items()}
    return honest(task, program=program_with(task, fields=fields))


def a_constant_for_an_answer(task: Task) -> Task:
    name, value = next(iter(task.answer.items()))
    fields = {**task.program.fields, name: {"op": "const", "value": value}}
    return honest(task, program=program_with(task, fields=fields))


def another_argument(task: Task) -> Task:
    call = task.calls[0].model_copy(update={"arguments": {"isbn": "9780000000"}})
    return honest(task, calls=[call, *task.calls[1:]])


def argument_of_another_call(task: Task) -> Task:
    """It was recorded, too."""
    call = task.calls[0].model_copy(update={"arguments": {"isbn": f"978{1000000 + 7919 * 5}"}})
    return honest(task, calls=[call, *task.calls[1:]])


def a_call_more(task: Task) -> Task:
    call = task.calls[0].model_copy(update={"tool": "list_books", "arguments": {}})
    tools = [*task.tools, Tool(server=call.server, name=call.tool)]
    return honest(task, calls=[*task.calls, call], tools=tools)


def another_world(task: Task) -> Task:
    return task.model_copy(update={"world": ["0" * 32]})


def another_group(task: Task) -> Task:
    return task.model_copy(update={"group": "elsewhere"})


def another_id(task: Task) -> Task:
    return task.model_copy(update={"task_id": "0" * 16})


def is_about_one_book(task: Task) -> bool:
    return [call.tool for call in task.calls] == ["get_book"] and any(
        isinstance(value, int) for value in task.answer.values()
    )


@pytest.mark.parametrize(
    ("change", "gate", "reason"),
    [
        (another_answer, "program re-derivation", "is stored"),
        (a_field_less, "program re-derivation", "None is stored"),
        (reworded_only, "identity", "the id is not that of the question and program"),
        (with_a_leak, "answer leak", "stands in the question"),
        (without_the_argument, "provenance", "is neither in the question nor in an earlier output"),
        (another_constant, "program re-derivation", "the program has no answer"),
        (a_constant_for_an_answer, "provenance", "reads no output"),
        (another_argument, "world", "which is not there"),
        (argument_of_another_call, "program re-derivation", "is stored"),
        (a_call_more, "minimality", "is not needed"),
        (another_world, "world", "cites session 00000000"),
        (another_group, "replay completeness", "is answered by the tier exact-other-state"),
        (another_id, "identity", "the id is not that"),
    ],
)
def test_what_was_changed_is_found_and_nothing_else(
    tasks: list[Task], world: World, change: Callable[[Task], Task], gate: str, reason: str
) -> None:
    number = next(number for number, task in enumerate(tasks) if is_about_one_book(task))
    changed = change(tasks[number])
    found = audit([*tasks[:number], changed, *tasks[number + 1 :]], world)
    # With an argument goes what a task is about, and so its side of the split.
    findings = [finding for finding in found.findings if finding.gate not in ("form", "split")]
    assert (found.tasks, len(findings)) == (COUNT, 1)
    [finding] = findings
    assert (finding.task_id, finding.gate) == (changed.task_id, gate)
    assert reason in finding.reason


def test_a_constant_of_a_program_that_leads_elsewhere_is_found(tasks: list[Task], world: World) -> None:
    """Every number and text that is compared with, taken or counted is changed in turn, and the id with
    it."""
    changed = 0
    for task in tasks:
        for program in _other_constants(task):
            other = honest(task, program=AnswerProgram.model_validate(program))
            if not _leads_to_the_same(other, world):
                changed += 1
                gates = {finding.gate for finding in audit([other], world).findings}
                assert gates & {"program re-derivation", "provenance"}, other.program
    assert changed > 20


def _other_constants(task: Task) -> Iterator[Json]:
    text = json.dumps(task.program.model_dump(mode="json"))
    for found in re.finditer(r'"(?:value|number|n|digits)": (-?\d+(?!\.)|"[^"\\]+")', text):
        value = json.loads(found[1])
        other = json.dumps(value + 1 if isinstance(value, int) else f"{value}x")
        yield json.loads(text[: found.start(1)] + other + text[found.end(1) :])


def _leads_to_the_same(task: Task, world: World) -> bool:
    trees = world.trees(task.calls)
    try:
        return run(task.program, trees).answer == task.answer and all(
            arguments_of(task.program, number, call.arguments, trees) == call.arguments
            for number, call in enumerate(task.calls)
        )
    except ProgramError:
        return False


def test_a_task_that_is_there_twice_is_found(tasks: list[Task], world: World) -> None:
    found = audit([*tasks, tasks[3]], world)
    assert {finding.task_id for finding in found.findings} == {tasks[3].task_id}
    assert found.findings[0].gate in ("guessability", "near-duplicates")


def test_an_exchange_of_another_number_is_looked_up_anew(tasks: list[Task], world: World) -> None:
    """Numbers are those of the recording that a task was made from: what holds is the call."""
    for number in (1, tasks[1].calls[0].exchange, 10**6):
        calls = [call.model_copy(update={"exchange": number}) for call in tasks[0].calls]
        changed = tasks[0].model_copy(update={"calls": calls})
        assert audit([changed, *tasks[1:]], world) == Audit(tasks=COUNT)
        assert world.located(changed) == tasks[0]


def test_a_split_that_training_spoils_is_found(tasks: list[Task], world: World) -> None:
    train = [task for task in tasks if task.split == "train"]
    shared = Counter(entity for task in train for entity in task.entities)
    about = next(task for task in train if all(shared[entity] > 1 for entity in task.entities))
    for split, reason in [
        ("test", f"training is about {min(about.entities)!r}, too"),
        ("test_unseen_servers", f"training has server {about.servers[0]}, too"),
    ]:
        changed = about.model_copy(update={"split": split})
        found = audit([changed if task is about else task for task in tasks], world)
        assert [(finding.task_id, finding.gate) for finding in found.findings] == [(about.task_id, "split")]
        assert found.findings[0].reason == reason
    held = next(task for task in tasks if task.split == "test_unseen_servers")
    changed = held.model_copy(update={"split": "train"})
    found = audit([changed if task is held else task for task in tasks], world)
    assert {finding.gate for finding in found.findings} == {"split"}
    unseen = {task.task_id for task in tasks if task.split == "test_unseen_servers" and task is not held}
    assert {finding.task_id for finding in found.findings} == unseen


def test_what_no_answer_hangs_on_may_be_changed(tasks: list[Task], world: World) -> None:
    changed = [
        task.model_copy(
            update={
                "gates": [Verdict(gate=name, passed=True, reason="said") for name in GATES],
                "difficulty": task.difficulty.model_copy(update={"level": "hard"}),
            }
        )
        for task in tasks
    ]
    assert audit(changed, world) == Audit(tasks=COUNT)


def test_no_tasks_hold(world: World) -> None:
    assert audit([], world) == Audit()


@pytest.mark.parametrize(
    "changes",
    [
        {"servers": ["elsewhere"]},
        {"entities": ["nothing"]},
        {"tools": []},
        {"distractors": [Tool(server="nowhere", name="nothing")]},
    ],
    ids=lambda changes: str(next(iter(changes))),
)
def test_what_follows_from_the_calls_is_found_where_it_does_not(
    tasks: list[Task], world: World, changes: dict[str, object]
) -> None:
    """By `servers` and `entities` splits are judged; `tools` and `distractors` are what a solver is
    offered."""
    assert audit([tasks[0].model_copy(update=changes), *tasks[1:]], world).findings


def test_a_tolerance_that_lets_everything_pass_is_found(tasks: list[Task], world: World) -> None:
    number = next(number for number, task in enumerate(tasks) if "x-tolerance" in str(task.answer_schema))
    schema = json.loads(json.dumps(tasks[number].answer_schema))
    for each in schema["properties"].values():
        if "x-tolerance" in each:
            each["x-tolerance"] = 1e9
    changed = tasks[number].model_copy(update={"answer_schema": schema})
    assert audit([*tasks[:number], changed, *tasks[number + 1 :]], world).findings


# Other recordings


def test_any_recording_that_holds_the_sessions_will_do(
    tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.db"
    monkeypatch.setattr(garden, "GROUP", "another garden")
    record(path, Garden.grown(8), sessions=(5, 6), backwards=True)
    monkeypatch.undo()
    record(path, Garden.grown(), sessions=(5, 6), backwards=True)
    record(path, Garden.grown())
    other = opened(path)
    assert other.located(tasks[0]).calls[0].exchange != tasks[0].calls[0].exchange
    assert audit(tasks, other) == Audit(tasks=COUNT)


def test_a_recording_of_the_same_start_that_says_otherwise_contradicts(
    tasks: list[Task], tmp_path: Path
) -> None:
    """Other answers from the same start state: then the tasks' answers do not last."""
    path = tmp_path / "other.db"
    record(path, Garden.grown(8), sessions=(5, 6))
    record(path, Garden.grown())
    found = audit(tasks, opened(path))
    assert {finding.gate for finding in found.findings} == {"determinism"}


@pytest.mark.parametrize(
    ("seed", "sessions", "backwards"),
    [(8, (0, 1), False), (7, (0, 1), True), (7, (5, 6), False)],
    ids=["another world", "another order", "another time"],
)
def test_a_recording_without_the_sessions_will_not(
    tasks: list[Task], tmp_path: Path, seed: int, sessions: tuple[int, ...], backwards: bool
) -> None:
    record(tmp_path / "other.db", Garden.grown(seed), sessions=sessions, backwards=backwards)
    found = audit(tasks, opened(tmp_path / "other.db"))
    assert [finding.task_id for finding in found.findings] == [task.task_id for task in tasks]
    assert {finding.gate for finding in found.findings} == {"world"}
    assert "other.db does not hold" in found.findings[0].reason


# Live


def test_as_many_tasks_as_asked_for_are_asked_live(tasks: list[Task], world: World) -> None:
    asked: list[str] = []

    def live(task: Task, _: World) -> Verdict:
        asked.append(task.task_id)
        return Verdict(gate="live re-execution", passed=len(asked) > 1, reason="it is another one now")

    found = audit(tasks, world, live, most_live=7)
    assert (found.live_checked, found.live_same) == (7, 6)
    assert asked == [tasks[n * COUNT // 7].task_id for n in range(7)]
    assert found.findings == [Finding(asked[0], "live re-execution", "it is another one now")]
    found = audit(tasks[:5], world, live, most_live=70)
    assert (found.live_checked, found.live_same) == (5, 5)


def test_progress_is_told(tasks: list[Task], world: World) -> None:
    told: list[tuple[str, int, int]] = []
    audit(tasks[:3], world, progress=lambda *said: told.append(said))
    assert told == [("checking tasks", number, 3) for number in range(3)]
