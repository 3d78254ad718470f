"""Rollouts of every task: which are played, in what order, what is kept, and how a run ends early."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from recorder.errors import FireflyError
from recorder.exchange import Json
from synth.task import Task
from tests.train.ledger_rollouts import AMOUNT, RIGHT, Stage, staged
from tests.train.made_rollouts import failed, rollout
from tests.train.scripted_policy import Line, Scripted, asks, says
from train import run_folder
from train.environment import Caller, Message, World, replayed
from train.evaluate import Plan, Played, RolloutFile, evaluate, read_rollouts, seed_of, write_sorted
from train.policy import OutOfBudget, PolicyFailed, Reply, Seat
from train.rollout import Rollout
from train.suite import Suite

GET = ("get", {"key": "plums"})
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


@pytest.fixture(scope="module")
def suite(stage: Stage) -> Suite:
    """Three tasks that ask the same."""
    tasks = tuple(stage.task.model_copy(update={"task_id": name}) for name in NAMES)
    return Suite(tasks, stage.world, stage.functions)


def world_of(suite: Suite) -> World:
    return replayed(suite.world.replayer)


def keys(rollouts: Sequence[Rollout]) -> list[tuple[str, int]]:
    return [(each.task_id, each.sample) for each in rollouts]


def untimed(rollouts: Sequence[Rollout]) -> list[Rollout]:
    return [each.model_copy(update={"seconds": 0.0}) for each in rollouts]


EVERY = [(name, sample) for name in NAMES for sample in range(2)]


class Watched(Scripted):
    """Keeps who was under way with whom, and which tries were played."""

    def __init__(self, lines: Any, *, batched: bool = False, slow: bool = False) -> None:
        super().__init__(lines)
        self.batched = batched
        self._slow = slow
        self.now: set[int] = set()
        self.most = 0
        self.told: list[int] = []
        self.together: list[tuple[int, ...]] = []

    def under_way(self, rollouts: int) -> None:
        self.told.append(rollouts)

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        self.now.add(seat.number)
        self.most = max(self.most, len(self.now))
        await anyio.lowlevel.checkpoint()
        if self._slow:
            await anyio.sleep(0.002 * (7 - seat.number % 7))
        reply = await super().act(messages, tools, seat)
        if not reply.message or not reply.message.get("tool_calls"):
            self.now.discard(seat.number)
        return reply

    @property
    def played(self) -> list[tuple[str, int]]:
        return sorted((seat.environment.task.task_id, seat.seed) for seat in self.seats)


def seeds(tries: Sequence[tuple[str, int]], seed: int = 0) -> list[tuple[str, int]]:
    return sorted((name, seed_of(seed, name, sample)) for name, sample in tries)


# What is played


def test_every_task_is_tried_so_often_and_comes_in_order(suite: Suite) -> None:
    kept: list[Rollout] = []
    steps: list[tuple[str, int, int]] = []
    played = evaluate(
        suite,
        world_of(suite),
        Watched([asks(GET), says(RIGHT)], slow=True),
        Plan(samples=2),
        keep=kept.append,
        progress=lambda what, done, of: steps.append((what, done, of)),
    )
    assert (keys(played.rollouts), played.stopped) == (EVERY, None)
    assert {each.reward for each in played.rollouts} == {1.0}
    # Kept as they end, whatever the order.
    assert keys(kept) != EVERY
    assert sorted(keys(kept)) == EVERY
    assert steps == [("playing", number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (2, 2), (4, 4), (50, 6)])
def test_so_many_are_under_way_at_once(suite: Suite, concurrency: int, most: int) -> None:
    policy = Watched([asks(GET), asks(GET), says(RIGHT)], slow=True)
    evaluate(suite, world_of(suite), policy, Plan(samples=2, concurrency=concurrency))
    assert policy.most == most
    # It is told how many are under way: all at once in the beginning, and each time that one fewer is.
    assert policy.told == list(range(most, -1, -1))


def test_seeds_are_of_the_try_alone(suite: Suite) -> None:
    policies = []
    for concurrency, done in ((1, []), (50, []), (2, [rollout("b", sample=0)])):
        policies.append(Watched([says(RIGHT)]))
        plan = Plan(samples=2, concurrency=concurrency, seed=9)
        evaluate(suite, world_of(suite), policies[-1], plan, done=done)
    assert policies[0].played == policies[1].played == seeds(EVERY, 9)
    assert policies[2].played == seeds([each for each in EVERY if each != ("b", 0)], 9)
    found = {seed_of(*each) for each in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}
    assert len(found) == 4
    assert all(0 <= each < 1 << 48 for each in found)


def test_each_rollout_has_a_world_that_is_opened_and_closed_once(suite: Suite) -> None:
    log: list[tuple[str, int]] = []

    @contextmanager
    def opened(task: Task) -> Iterator[Caller]:
        number = len(log)
        log.append(("open", number))
        try:
            with world_of(suite)(task) as caller:
                yield caller
        finally:
            log.append(("close", number))

    def ends(policy: Scripted, **more: Any) -> list[Any]:
        log.clear()
        with suppress(FireflyError, ZeroDivisionError):
            evaluate(suite, opened, policy, Plan(samples=2, concurrency=4, **more))
        opens, closes = ([n for what, n in log if what == kind] for kind in ("open", "close"))
        assert sorted(opens) == sorted(closes)
        return opens

    assert len(ends(Scripted([asks(GET), says(RIGHT)]))) == 6
    assert len(ends(Scripted([asks(GET), says(RIGHT)]), blocking=True)) == 6
    assert len(ends(Scripted([asks(GET), FireflyError("no")]))) <= 4
    assert len(ends(Scripted([asks(GET), ZeroDivisionError()]), blocking=True)) <= 4
    assert len(ends(Scripted([asks(GET), OutOfBudget("no")]))) <= 4


def test_a_world_that_may_take_long_is_asked_in_threads(suite: Suite) -> None:
    """All six wait for each other in their calls: in one thread they would for ever."""
    barrier = threading.Barrier(6, timeout=10)

    class Slow:
        def __init__(self, caller: Caller) -> None:
            self._caller = caller

        def call(self, call: Any) -> Any:
            barrier.wait()
            return self._caller.call(call)

    @contextmanager
    def opened(task: Task) -> Iterator[Caller]:
        with world_of(suite)(task) as caller:
            yield Slow(caller)

    played = evaluate(suite, opened, Scripted([asks(GET), says(RIGHT)]), Plan(samples=2, blocking=True))
    assert {each.messages[3]["content"] for each in played.rollouts} == {AMOUNT}


# Going on


def test_what_is_done_is_not_played_again_and_what_failed_is(suite: Suite) -> None:
    done = [rollout("a", False), rollout("a", None, sample=1), failed("b", "HTTP 503"), rollout("x")]
    policy = Watched([says(RIGHT)])
    kept: list[Rollout] = []
    played = evaluate(suite, world_of(suite), policy, Plan(samples=2), done=done, keep=kept.append)
    assert keys(played.rollouts) == EVERY
    assert [each.reward for each in played.rollouts] == [0.0, None, 1.0, 1.0, 1.0, 1.0]
    assert sorted(keys(kept)) == EVERY[2:]
    assert policy.played == seeds(EVERY[2:])


def test_of_what_was_tried_again_the_last_counts(suite: Suite) -> None:
    done = [failed("a", "HTTP 503"), rollout("a", False), failed("b", "x"), failed("b", "y")]
    played = evaluate(suite, world_of(suite), Watched([PolicyFailed("again")]), Plan(), done=done)
    assert [each.failure for each in played.rollouts] == [None, "again", "again"]


def test_all_done_asks_nobody(suite: Suite) -> None:
    done = [rollout(name, sample=sample) for name, sample in EVERY]
    for batched in (False, True):
        policy = Watched([], batched=batched)
        played = evaluate(suite, world_of(suite), policy, Plan(samples=2), done=done[::-1])
        assert played == Played(done, None)
        assert policy.seen == []


@pytest.mark.parametrize("missing", [[0], [3], [1, 2], [0, 5]])
def test_a_batch_that_lacks_a_rollout_is_played_once_more_as_it_was(suite: Suite, missing: list[int]) -> None:
    """Two batches of four and two: a policy whose batches are part of what it computes comes to the same."""
    plan = Plan(samples=2, concurrency=4)
    whole = evaluate(suite, world_of(suite), Watched([says(RIGHT)], batched=True), plan).rollouts
    policy = Watched([says(RIGHT)], batched=True)
    kept: list[Rollout] = []
    done = [each for number, each in enumerate(whole) if number not in missing]
    played = evaluate(suite, world_of(suite), policy, plan, done=done, keep=kept.append)
    assert untimed(played.rollouts) == untimed(whole)
    assert sorted(keys(kept)) == [EVERY[number] for number in missing]
    again = [number for number in range(6) if any(number // 4 == each // 4 for each in missing)]
    assert policy.played == seeds([EVERY[number] for number in again])
    assert sorted(seat.number for seat in policy.seats) == sorted(number % 4 for number in again)


# Ending early


def test_a_rollout_that_fails_is_no_reason_to_stop(suite: Suite) -> None:
    lines: dict[str, list[Line]] = {"a": [says(RIGHT)], "b": [PolicyFailed("HTTP 503")], "c": [says("")]}
    played = evaluate(suite, world_of(suite), Scripted(lines), Plan())
    assert [(each.reward, each.stop) for each in played.rollouts] == [
        (1.0, "answer"),
        (None, "failed"),
        (0.0, "answer"),
    ]
    assert played.stopped is None


def test_a_budget_that_runs_out_lets_those_under_way_end_and_begins_no_more(suite: Suite) -> None:
    lines: dict[str, list[Line]] = {
        "a": [asks(GET), asks(GET), says(RIGHT)],
        "b": [OutOfBudget("the budget of $1 is used up")],
        "c": [says(RIGHT)],
    }
    kept: list[Rollout] = []
    plan = Plan(samples=2, concurrency=3)
    played = evaluate(suite, world_of(suite), Scripted(lines), plan, keep=kept.append)
    assert played.stopped == "the budget of $1 is used up"
    assert keys(played.rollouts) == [("a", 0), ("a", 1)]
    assert sorted(keys(kept)) == [("a", 0), ("a", 1)]


@pytest.mark.parametrize("error", [FireflyError("the key is wrong"), ZeroDivisionError("a bug")], ids=repr)
def test_what_goes_wrong_for_all_ends_the_run_with_what_is_kept_so_far(
    suite: Suite, error: Exception
) -> None:
    """As it is, and not in a group of exceptions."""
    lines: dict[str, list[Line]] = {"a": [says(RIGHT)], "b": [error], "c": [says(RIGHT)]}
    kept: list[Rollout] = []
    with pytest.raises(type(error)) as raised:
        evaluate(suite, world_of(suite), Scripted(lines), Plan(concurrency=1), keep=kept.append)
    assert raised.value is error
    assert keys(kept) == [("a", 0)]
    with pytest.raises(type(error)):
        evaluate(suite, world_of(suite), Scripted([error]), Plan(samples=2))


def test_nobody_is_waited_for_once_the_run_has_ended(suite: Suite) -> None:
    class Stuck(Scripted):
        async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
            if seat.environment.task.task_id == "a":
                await anyio.sleep(60)
            return await super().act(messages, tools, seat)

    began = time.monotonic()
    with pytest.raises(FireflyError, match="the key is wrong"):
        evaluate(suite, world_of(suite), Stuck([FireflyError("the key is wrong")]), Plan())
    assert time.monotonic() - began < 30


# The file


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rollouts_are_written_as_they_end(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    file = RolloutFile(path)
    assert file.read_ones == []
    for number in range(3):
        file.append(rollout("a", sample=number))
        assert [line["sample"] for line in lines_of(path)] == list(range(number + 1))
    file.close()
    assert keys(RolloutFile(path).read_ones) == [("a", 0), ("a", 1), ("a", 2)]


@pytest.mark.parametrize("cut", [1, 2, 300])
def test_a_half_written_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_sorted(path, [rollout("a"), rollout("b")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read_rollouts(path) == [rollout("a")]
    assert path.read_bytes() == whole[:-cut]  # only who goes on with it changes it
    file = RolloutFile(path)
    assert file.read_ones == [rollout("a")]
    file.append(rollout("b"))
    file.close()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"{}", b"no json", b"\xff", b"[" * 100_000, b""])
def test_a_line_that_is_no_rollout_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_sorted(path, [rollout("a")])
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    before = path.read_bytes()
    openings: list[Callable[[], object]] = [lambda: RolloutFile(path), lambda: read_rollouts(tmp_path)]
    for opening in openings:
        with pytest.raises(FireflyError, match=f"{path}, line 2, is no rollout of firefly eval"):
            opening()
    assert path.read_bytes() == before


def test_rollouts_are_read_from_a_folder_or_a_file_without_writing(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    again = rollout("a", False)
    write_sorted(path, [failed("a", "HTTP 503"), rollout("b"), again, failed("c", "x"), failed("c", "y")])
    path.chmod(0o400)
    for where in (tmp_path, path):
        assert read_rollouts(where) == [rollout("b"), again, failed("c", "y")]
    with pytest.raises(FireflyError, match=f"{tmp_path / 'none'} is not there: firefly eval --out"):
        read_rollouts(tmp_path / "none")


def test_a_sorted_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_sorted(path, [rollout("a"), rollout("b")])
    with pytest.raises(AttributeError):
        write_sorted(path, [rollout("c"), None])  # type: ignore[list-item]
    assert keys(read_rollouts(path)) == [("a", 0), ("b", 0)]


# The folder


def test_a_run_begins_in_a_new_or_empty_folder(tmp_path: Path) -> None:
    settings = {"seed": 3, "model": "ü\ud800", "splits": ["test"], "temperature": None}
    for folder in (tmp_path / "deep" / "new", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        run_folder.begin(folder, settings, resume=False)
        assert run_folder.read(folder) == settings
        assert [each.name for each in folder.iterdir()] == [run_folder.SETTINGS]


def test_a_run_is_gone_on_with_only_as_it_was_begun(tmp_path: Path) -> None:
    settings = {"seed": 3, "splits": ("test",), "model": None}
    run_folder.begin(tmp_path, settings, resume=True)
    run_folder.begin(tmp_path, settings, resume=True)
    with pytest.raises(FireflyError, match=f"{tmp_path} holds a run already: --resume goes on with it"):
        run_folder.begin(tmp_path, settings, resume=False)
    for other, told in (
        ({"seed": 4}, "seed 3, not 4"),
        ({"splits": ["train"]}, r"splits \['test'\], not \['train'\]"),
        ({"model": "m"}, "model None, not 'm'"),
        ({"new": 1}, "new None, not 1"),
    ):
        with pytest.raises(FireflyError, match=f"was begun with {told}: --resume needs the same settings"):
            run_folder.begin(tmp_path, settings | other, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FireflyError, match=r"holds notes\.txt, which is of no run"):
        run_folder.begin(tmp_path, {}, resume=resume)
    with pytest.raises(FireflyError, match=r"notes\.txt is a file; --out must name a folder"):
        run_folder.begin(tmp_path / "notes.txt", {}, resume=resume)
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("text", ["{half", "3", "[1]", ""])
def test_settings_that_cannot_be_read_are_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / run_folder.SETTINGS).write_text(text)
    with pytest.raises(FireflyError, match=r"holds no run: settings\.json is not there, or cannot be read"):
        run_folder.read(tmp_path)
    with pytest.raises(FireflyError, match="holds no run"):
        run_folder.begin(tmp_path, {}, resume=True)


def test_a_run_that_was_killed_in_its_first_moment_can_be_begun_again(tmp_path: Path) -> None:
    (tmp_path / f"{run_folder.SETTINGS}.new").write_text("{hal")
    run_folder.begin(tmp_path, {"seed": 3}, resume=True)
    assert run_folder.read(tmp_path) == {"seed": 3}
