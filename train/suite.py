"""The tasks of a run, with the recording that holds their world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from firefly_proxy.progress import progress_to_stderr
from recorder.canonical import content_hash
from recorder.errors import FireflyError
from recorder.exchange import ToolRef
from recorder.store import Store
from replayer.journal import Journal
from replayer.replayer import Replayer, ensure_learned, journal_beside
from synth.export.conversation import Function
from synth.export.dataset import Dataset
from synth.task import Split, Task, read_tasks
from synth.world import World, WorldError


@dataclass(frozen=True)
class Suite:
    """Tasks of one split or several, the tools of the whole data set, and the world. Opened once."""

    tasks: tuple[Task, ...]
    world: World
    functions: Mapping[ToolRef, Function]
    """Every tool of the data set by the name that models call it by, whichever split is looked at."""

    @cached_property
    def by_id(self) -> dict[str, Task]:
        return {task.task_id: task for task in self.tasks}

    @cached_property
    def world_hash(self) -> str:
        """Content hash of the recorded sessions that the tasks cite; 32 hex digits."""
        return content_hash(sorted({session for task in self.tasks for session in task.world}))[:32]

    @cached_property
    def tasks_hash(self) -> str:
        """Content hash of the tasks' ids."""
        return content_hash([task.task_id for task in self.tasks])[:32]


def open_suite(
    folder: Path,
    db: Path,
    *,
    splits: Sequence[Split] = (),
    min_trust: float | None = None,
    journalled: bool = False,
    listings_only: bool = False,
) -> Suite:
    """Open a data set with its recording, and make sure that they belong together.

    Args:
        listings_only: The recording has no more than what servers listed, as they answer for themselves.
        splits: Only tasks of these; all where none is named.
        min_trust: As for `Replayer`.
        journalled: Misses are counted beside the recording, where they can be.

    Raises:
        FireflyError: there are no such tasks, or the recording does not hold their sessions.
    """
    everything = read_tasks(folder)
    tasks = [task for task in everything if not splits or task.split in splits]
    if not everything:
        raise FireflyError(f"{folder} has no tasks")
    if not tasks:
        there = ", ".join(sorted({task.split for task in everything}))
        raise FireflyError(f"{folder} has no task in {' or '.join(splits)}; splits with tasks: {there}")
    store = Store(db)
    learned = ensure_learned(store, progress_to_stderr())
    journal: Journal | None = journal_beside(store) if journalled else None
    world = World(store, Replayer(store, learned, min_trust=min_trust, journal=journal))
    if not listings_only:
        _check_world(tasks, world, folder, db)
    return Suite(tuple(tasks), world, Dataset(world, everything).functions)


def _is_there(task: Task, world: World) -> bool:
    try:
        # First where the task says; all sessions are looked through only if it is not there.
        world.located(task)
    except WorldError:
        return False
    return True


def _check_world(tasks: Sequence[Task], world: World, folder: Path, db: Path) -> None:
    foreign = [task for task in tasks if not _is_there(task, world)]
    if foreign:
        raise WorldError(
            f"{len(foreign)} of {len(tasks)} tasks in {folder} cite sessions that {db} does not hold: --db"
            " must name the recording that they were made from, or one that contains it"
        )
