"""Rollouts of a policy at every task of a suite, each written down as soon as it ends."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import to_thread
from pydantic import ValidationError

from recorder.canonical import content_hash, readable_json
from recorder.errors import FireflyError
from synth.task import Task
from train.environment import Caller, Environment, World
from train.policy import OutOfBudget, Policy, Seat
from train.rollout import Limits, Rollout, play
from train.suite import Suite

ROLLOUTS = "rollouts.jsonl"

Progress = Callable[[str, int, int], None]

Try = tuple[Task, int]
"""A task, and which of its tries."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played."""

    samples: int = 1
    """Tries of each task."""
    concurrency: int = 32
    """Rollouts under way at once; of a batched policy, how many make a batch."""
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    blocking: bool = False
    """The world's answers may take long, as those of real servers do."""


@dataclass(slots=True)
class Played:
    rollouts: list[Rollout]
    """By task, in the suite's order, and by sample."""
    stopped: str | None = None
    """Why it is not all of them."""


def evaluate(
    suite: Suite,
    world: World,
    policy: Policy,
    plan: Plan,
    *,
    done: Sequence[Rollout] = (),
    keep: Callable[[Rollout], None] | None = None,
    progress: Progress | None = None,
) -> Played:
    """Let a policy try every task, and return all rollouts.

    Args:
        done: Rollouts of an earlier run that was stopped; those that failed are tried again. A batched policy
            plays a batch of which some are missing once more, and comes to the same.
        keep: Is given each rollout when it ends.

    Raises:
        FireflyError: the policy cannot go on at all.
    """
    tries = [(task, sample) for task in suite.tasks for sample in range(plan.samples)]
    found = {(each.task_id, each.sample): each for each in done if each.stop != "failed"}
    run = _Run(suite, world, policy, plan, found, keep, progress, len(tries))
    anyio.run(run.play, _batches(tries, found, plan.concurrency) if policy.batched else [tries])
    ordered = [found[key] for task, sample in tries if (key := (task.task_id, sample)) in found]
    return Played(ordered, run.stopped)


def _batches(tries: list[Try], found: Mapping[tuple[str, int], Rollout], size: int) -> list[list[Try]]:
    """Return those batches of which a rollout is missing. What is done does not change what is a batch."""
    batches = [tries[start : start + size] for start in range(0, len(tries), size)]
    return [batch for batch in batches if any((task.task_id, sample) not in found for task, sample in batch)]


def seed_of(seed: int, task_id: str, sample: int) -> int:
    """Return the seed of one rollout, the same whatever else is played; 48 bits."""
    return int(content_hash([seed, task_id, sample])[:12], 16)


class _Run:
    def __init__(
        self,
        suite: Suite,
        world: World,
        policy: Policy,
        plan: Plan,
        found: dict[tuple[str, int], Rollout],
        keep: Callable[[Rollout], None] | None,
        progress: Progress | None,
        wanted: int,
    ) -> None:
        self._suite, self._world, self._policy, self._plan = suite, world, policy, plan
        self._found, self._keep, self._progress, self._wanted = found, keep, progress, wanted
        self._live = 0
        self._failure: Exception | None = None
        self.stopped: str | None = None

    async def play(self, batches: list[list[Try]]) -> None:
        for batch in batches:
            again = set(self._found) if not self._policy.batched else set()
            waiting = iter(
                [
                    (number, task, sample)
                    for number, (task, sample) in enumerate(batch)
                    if (task.task_id, sample) not in again
                ]
            )
            size = min(self._plan.concurrency, len(batch))
            self._live = size
            self._policy.under_way(size)
            async with anyio.create_task_group() as group:
                for _ in range(size):
                    group.start_soon(self._play_some, waiting, group.cancel_scope)
            if self._failure is not None:
                raise self._failure
            if self.stopped is not None:
                return

    async def _play_some(self, waiting: Iterator[tuple[int, Task, int]], scope: anyio.CancelScope) -> None:
        try:
            for number, task, sample in waiting:
                if self.stopped is not None:
                    break
                await self._play_one(number, task, sample)
        except OutOfBudget as error:
            # Those under way may be in the midst of something that is paid for; they end as they can.
            self.stopped = str(error)
        except Exception as error:
            # The first is raised once all have ended: one traceback, and not a group of one for each rollout.
            self._failure = self._failure or error
            scope.cancel()
        finally:
            self._live -= 1
            self._policy.under_way(self._live)

    async def _play_one(self, number: int, task: Task, sample: int) -> None:
        plan = self._plan
        async with _Opened(self._world, task, blocking=plan.blocking) as caller:
            environment = Environment(task, self._suite.functions, caller)
            seat = Seat(number, seed_of(plan.seed, task.task_id, sample), plan.limits.tokens, environment)
            made = await play(environment, self._policy, seat, plan.limits, sample, blocking=plan.blocking)
        new = (task.task_id, sample) not in self._found
        self._found[task.task_id, sample] = made
        if new and self._keep is not None:
            self._keep(made)
        if self._progress is not None:
            self._progress("playing", len(self._found), self._wanted)


class _Opened:
    """A world, opened and closed in a thread where that takes long."""

    def __init__(self, world: World, task: Task, *, blocking: bool) -> None:
        self._context, self._blocking = world(task), blocking

    async def __aenter__(self) -> Caller:
        return self._context.__enter__()

    async def __aexit__(self, *error: object) -> None:
        if self._blocking:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._context.__exit__, None, None, None)
        else:
            self._context.__exit__(None, None, None)


# --- the folder ---------------------------------------------------------------------------------------------


class RolloutFile:
    """Rollouts in a file, one a line; a line that a killed run wrote half is cut off.

    Raises:
        FireflyError: a whole line is no rollout.
    """

    def __init__(self, path: Path) -> None:
        self.read_ones, whole = _read(path)
        self._file = path.open("ab")
        self._file.truncate(whole)

    def append(self, rollout: Rollout) -> None:
        self._file.write(_line(rollout))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_rollouts(folder: Path) -> list[Rollout]:
    """Return the rollouts of a run, be it finished, interrupted or under way; the file is left as it is.

    Of a try that failed and was made again, the last one counts.

    Raises:
        FireflyError: there are none.
    """
    path = folder / ROLLOUTS if folder.is_dir() else folder
    if not path.is_file():
        raise FireflyError(f"{path} is not there: firefly eval --out {path.parent} writes it")
    found, _ = _read(path)
    last = {(each.task_id, each.sample): place for place, each in enumerate(found)}
    return [
        each
        for place, each in enumerate(found)
        if each.stop != "failed" or last[each.task_id, each.sample] == place
    ]


def _read(path: Path) -> tuple[list[Rollout], int]:
    """Return the rollouts in a file, and how many bytes their lines have: one that has no end is left out."""
    raw = path.read_bytes() if path.exists() else b""
    whole = raw.rfind(b"\n") + 1
    found = []
    for number, line in enumerate(raw[:whole].splitlines(), 1):
        try:
            found.append(Rollout.model_validate(json.loads(line)))
        except (ValidationError, ValueError, RecursionError) as error:
            raise FireflyError(f"{path}, line {number}, is no rollout of firefly eval") from error
    return found, whole


def write_sorted(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Write rollouts in their order, all or nothing: however a run went, its file is the same."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        for rollout in rollouts:
            file.write(_line(rollout))
    beside.replace(path)


def _line(rollout: Rollout) -> bytes:
    return readable_json(rollout.model_dump(mode="json")).encode("utf-8", "backslashreplace") + b"\n"
