"""Tasks and their recording, opened together."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.errors import FireflyError
from synth.export.dataset import Dataset
from synth.task import read_tasks, write_tasks
from synth.world import WorldError
from tests.synth.garden import Garden, record
from tests.train.command import firefly
from train.environment import Environment, replayed
from train.suite import open_suite


def recorded_again(folder: Path) -> Path:
    """Return a recording of the same sessions, so that what is written beside it is nobody else's."""
    record(folder / "again.db", Garden.grown())
    return folder / "again.db"


def test_a_suite_has_the_tasks_of_the_splits_that_are_asked_for(garden: Path) -> None:
    everything = read_tasks(garden / "tasks")
    assert open_suite(garden / "tasks", garden / "world.db").tasks == tuple(everything)
    for splits in (["train"], ["test"], ["test", "test_unseen_servers"]):
        suite = open_suite(garden / "tasks", garden / "world.db", splits=splits)  # type: ignore[arg-type]
        assert suite.tasks == tuple(task for task in everything if task.split in splits)
        assert list(suite.by_id.values()) == list(suite.tasks)


def test_tools_have_the_same_names_whichever_split_is_looked_at(garden: Path) -> None:
    everything = open_suite(garden / "tasks", garden / "world.db")
    test = open_suite(garden / "tasks", garden / "world.db", splits=["test"])
    assert test.functions == everything.functions
    assert everything.functions == Dataset(everything.world, everything.tasks).functions


def test_hashes_tell_tasks_and_worlds_apart_and_nothing_else(garden: Path, tmp_path: Path) -> None:
    first = open_suite(garden / "tasks", garden / "world.db", splits=["train"])
    again_db = recorded_again(tmp_path)
    again = open_suite(garden / "tasks", again_db, splits=["train"])
    assert (again.tasks_hash, again.world_hash) == (first.tasks_hash, first.world_hash)
    other = open_suite(garden / "tasks", garden / "world.db", splits=["test"])
    assert other.tasks_hash != first.tasks_hash
    assert {len(first.tasks_hash), len(first.world_hash)} == {32}


def test_a_recording_that_holds_more_will_do_and_one_that_holds_less_will_not(
    garden: Path, tmp_path: Path
) -> None:
    db = tmp_path / "other.db"
    record(db, Garden.grown(), sessions=(5,))
    with pytest.raises(WorldError, match=r"24 of 24 tasks in .*tasks cite sessions that .*other\.db does"):
        open_suite(garden / "tasks", db)
    record(db, Garden.grown())
    assert len(open_suite(garden / "tasks", db).tasks) == 24


def test_a_foreign_recording_is_refused_for_the_chosen_tasks_alone(garden: Path, tmp_path: Path) -> None:
    record(tmp_path / "other.db", Garden.grown(8))
    with pytest.raises(WorldError, match="--db must name the recording that they were made from"):
        open_suite(garden / "tasks", tmp_path / "other.db", splits=["test"])


def test_what_is_not_there_is_named(garden: Path, tmp_path: Path) -> None:
    with pytest.raises(FireflyError, match=f"{tmp_path / 'none'}.* is not there"):
        open_suite(tmp_path / "none", garden / "world.db")
    with pytest.raises(FireflyError, match=r"none\.db"):
        open_suite(garden / "tasks", tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no recording")
    with pytest.raises(FireflyError, match=r"text\.db"):
        open_suite(garden / "tasks", tmp_path / "text.db")


def test_a_split_without_tasks_says_which_have_some(garden: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", [t for t in read_tasks(garden / "tasks") if t.split == "train"])
    with pytest.raises(FireflyError, match="has no task in test; splits with tasks: train"):
        open_suite(tmp_path, garden / "world.db", splits=["test"])
    write_tasks(tmp_path / "tasks.jsonl", [])
    with pytest.raises(FireflyError, match=f"{tmp_path} has no tasks$"):
        open_suite(tmp_path, garden / "world.db")


@pytest.mark.parametrize("journalled", [True, False])
def test_misses_are_counted_beside_the_recording_where_that_is_asked_for(
    garden: Path, tmp_path: Path, journalled: bool
) -> None:
    db = recorded_again(tmp_path)
    suite = open_suite(garden / "tasks", db, splits=["train"], journalled=journalled)
    task = suite.tasks[0]
    with replayed(suite.world.replayer)(task) as caller:
        environment = Environment(task, suite.functions, caller)
        for name in environment.names.values():
            environment.call(name, {"nobody": "asked this"})
        missed = [call for call in environment.calls if call.outcome == "miss"]
    assert missed
    told = firefly("misses", "--db", db, "--json").json
    assert len(told["misses"]) == (len(missed) if journalled else 0)
