"""Making tasks of a recording, and which of them are for training and which for testing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from recorder.writer import RecordingWriter
from synth import dataset
from synth.gates.duplicates import kind_of
from synth.pipeline import Synthesised, Wanted, synthesise
from synth.program import run
from synth.split import split
from synth.task import Task
from synth.world import World
from tests.synth.garden import GROUP, Garden, opened, record

COUNT = 80


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("making") / "world.db"
    record(path, Garden.grown())
    return path


@pytest.fixture(scope="module")
def world(recording: Path) -> World:
    return opened(recording)


@pytest.fixture(scope="module")
def made(world: World) -> Synthesised:
    return synthesise(world, Wanted(COUNT))


def test_ids_and_questions_are_unique(made: Synthesised) -> None:
    assert len(made.tasks) == COUNT
    assert len({task.task_id for task in made.tasks}) == COUNT
    assert len({task.question for task in made.tasks}) == COUNT


def test_no_kind_of_task_crowds_out_the_others(made: Synthesised) -> None:
    most = Counter(map(kind_of, made.tasks)).most_common(1)[0]
    assert most[1] <= max(2, 0.03 * COUNT), most[0]


def test_answers_are_what_the_programs_say_of_the_recording(made: Synthesised, world: World) -> None:
    for task in made.tasks:
        assert run(task.program, world.trees(task.calls)).answer == task.answer, task.question
        assert task.world == world.hashes(task.calls)
        assert [verdict for verdict in task.gates if not verdict.passed] == []


def test_questions_hold_no_name_of_a_tool(made: Synthesised, world: World) -> None:
    names = {tool.name for tool in world.tools if re.search(r"[_-]", tool.name)}
    assert len(names) > 10
    for task in made.tasks:
        assert [name for name in names if name in task.question.lower()] == [], task.question


def test_tasks_are_of_many_servers_and_forms(made: Synthesised) -> None:
    """The clock answers otherwise each time, so nothing is asked of it; all others are there."""
    assert {server for task in made.tasks for server in task.servers} == {
        "shop",
        "staff",
        "weather",
        "files",
        "tickets",
        "flights",
        "library",
    }
    told = dataset.figures(made.tasks)
    assert told["multi_call"] > 0.5
    assert len(told["by_pattern"]) >= 5
    assert len(told["by_level"]) == 3


def test_what_is_dropped_says_by_which_gate_and_the_funnel_counts_it(made: Synthesised) -> None:
    by_gate = Counter(dropped.gate for dropped in made.dropped)
    assert by_gate == {gate: dropped for gate, (_, dropped) in made.funnel.items() if dropped}
    kept = {task.task_id for task in made.tasks}
    for dropped in made.dropped:
        assert dropped.reason
        assert dropped.task.task_id not in kept


# The same again


def files_of(folder: Path, recording: Path, wanted: Wanted) -> dict[str, bytes]:
    """Make tasks of a recording that is opened anew; return what is written, by name."""
    folder.mkdir()
    world = opened(recording)
    dataset.write(folder, world, synthesise(world, wanted), {"count": wanted.count}, {})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_recording_and_wishes_give_the_same_bytes(recording: Path, tmp_path: Path) -> None:
    first, second = (files_of(tmp_path / name, recording, Wanted(40, 3)) for name in ("first", "second"))
    assert set(first) == {"tasks.jsonl", "dropped.jsonl", "manifest.json", "README.md"}
    assert len(first["tasks.jsonl"].splitlines()) == 40
    assert len(first["dropped.jsonl"].splitlines()) > 0
    assert first == second


def test_another_seed_gives_other_tasks(recording: Path, made: Synthesised) -> None:
    other = synthesise(opened(recording), Wanted(COUNT, 1))
    assert len(other.tasks) == COUNT
    same = {task.task_id for task in made.tasks} & {task.task_id for task in other.tasks}
    assert len(same) < COUNT / 2


@pytest.mark.parametrize("count", [1, 7])
def test_few_tasks_can_be_made_too(recording: Path, count: int) -> None:
    assert len(synthesise(opened(recording), Wanted(count)).tasks) == count


def test_more_tasks_than_there_are_end(tmp_path: Path) -> None:
    garden = Garden.grown(3)
    small = Garden(3, products=garden.products[:2], books=garden.books[:2])
    record(tmp_path / "small.db", small)
    made = synthesise(opened(tmp_path / "small.db"), Wanted(5000))
    assert len(made.tasks) < 200
    assert len({task.question for task in made.tasks}) == len(made.tasks)


def test_a_recording_of_nothing_gives_nothing(tmp_path: Path) -> None:
    record(tmp_path / "nothing.db", Garden.grown(), sessions=())
    writer = RecordingWriter(tmp_path / "nothing.db", group=GROUP)
    writer.end("done")
    made = synthesise(opened(tmp_path / "nothing.db"), Wanted(40))
    assert (made.tasks, made.dropped, made.observed, made.stopped) == ([], [], 0, "")


def test_a_recording_without_repeats_gives_nothing(tmp_path: Path) -> None:
    """Nobody knows there what stays the same."""
    record(tmp_path / "once.db", Garden.grown(), sessions=(0,))
    made = synthesise(opened(tmp_path / "once.db"), Wanted(40))
    assert made.tasks == []


# Splits


def assert_apart(tasks: Sequence[Task]) -> None:
    train = [task for task in tasks if task.split == "train"]
    servers = {server for task in train for server in task.servers}
    entities = {entity for task in train for entity in task.entities}
    for task in tasks:
        if task.split == "test_unseen_servers":
            assert not servers & set(task.servers)
        elif task.split == "test":
            assert not entities & set(task.entities)


@pytest.mark.parametrize("seed", [1, 2])
def test_training_sees_no_server_and_no_entity_of_a_test(recording: Path, seed: int) -> None:
    tasks = synthesise(opened(recording), Wanted(COUNT, seed)).tasks
    assert_apart(tasks)
    counts = Counter(task.split for task in tasks)
    assert counts["train"] > COUNT / 2
    assert counts["test"] >= 3
    assert counts["test_unseen_servers"] >= 3


@pytest.mark.parametrize("held", [["shop"], ["weather", "flights"]])
def test_servers_held_out_by_hand_are_the_ones(recording: Path, held: list[str]) -> None:
    made = synthesise(opened(recording), Wanted(40, test_servers=held))
    assert_apart(made.tasks)
    for task in made.tasks:
        assert (task.split == "test_unseen_servers") == (set(task.servers) <= set(held))
        assert set(task.servers) <= set(held) or not set(task.servers) & set(held)
    assert {server for task in made.tasks for server in task.servers} > set(held)


def test_no_server_may_be_held_out(made: Synthesised) -> None:
    assert "test_unseen_servers" not in [side for side, _ in split(made.tasks, 0, [])]


def test_a_task_that_spans_both_sides_is_on_none(made: Synthesised) -> None:
    one = made.tasks[0]
    tasks = [
        one.model_copy(update={"servers": servers, "entities": entities})
        for servers, entities in [
            (["a"], ["x"]),
            (["a", "b"], ["x", "y"]),
            (["b"], ["y"]),
            *((["b"], [f"y{n}", f"y{n // 2}"]) for n in range(60)),
        ]
    ]
    sides = split(tasks, 0, ["a"])
    assert sides[0][0] == "test_unseen_servers"
    assert sides[1] == (None, "it spans held-out and other servers (a, b)")
    assert all(why for side, why in sides if side is None)
    kept = [
        task.model_copy(update={"split": side}) for task, (side, _) in zip(tasks, sides, strict=True) if side
    ]
    assert_apart(kept)
    held = {entity for task in kept if task.split == "test" for entity in task.entities}
    assert held
    for task, (side, _) in zip(tasks[2:], sides[2:], strict=True):
        mine = set(task.entities)
        assert side == ("test" if mine <= held else None if mine & held else "train")


def test_tasks_that_span_both_sides_are_dropped_by_the_split(made: Synthesised) -> None:
    reasons = [dropped.reason for dropped in made.dropped if dropped.gate == "split"]
    assert reasons
    assert [reason for reason in reasons if not re.match(r"it (spans held-out|is about )", reason)] == []


def test_splits_are_the_same_each_time(made: Synthesised) -> None:
    for seed in range(3):
        assert split(made.tasks, seed) == split(list(made.tasks), seed)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_tasks_are_split_too(made: Synthesised, count: int) -> None:
    tasks = made.tasks[:count]
    sides = split(tasks, 0)
    assert len(sides) == count
    assert_apart([
        task.model_copy(update={"split": side}) for task, (side, _) in zip(tasks, sides, strict=True) if side
    ])  # fmt: skip
