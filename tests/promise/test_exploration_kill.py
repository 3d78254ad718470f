"""Killed at any moment, a campaign goes on after its last finished walks, and leaves no process behind."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from tests.exploration import (
    WAIT_S,
    calls_by_walk,
    configure,
    exchanges,
    explore,
    has_tables,
    recorded_calls,
    report_of,
    started,
    unsteady,
    walks,
)
from tests.promise.lifeline import Lifeline
from tests.promise.recording import is_intact, query

SEED = int(os.environ.get("PROMISE_SEED", random.randrange(10**6)))
"""Of the moments; set PROMISE_SEED to see the same ones again."""

KILLS, CALLS = 3, 400


def test_a_campaign_that_is_killed_repeats_no_finished_walk_and_loses_no_call(
    tmp_path: Path, db: Path, lifeline: Lifeline
) -> None:
    rng = random.Random(f"{SEED} exploration")
    servers = {
        "apples": unsteady("apple", lifeline=lifeline.port),
        "books": unsteady("book", lifeline=lifeline.port, crash=0.05),
        "chairs": unsteady("chair", lifeline=lifeline.port),
    }
    config = configure(tmp_path, servers)
    options = ("--allow-writes", "--allow", "*", "--calls", CALLS, "--seed", SEED, "--json")
    finished: list[tuple[int, str, str]] = []
    for kill in range(KILLS):
        most = CALLS * (kill + 1) // (KILLS + 1)
        seen, lag_s = rng.randrange(most - 80, most), rng.uniform(0, 0.1)
        print(f"PROMISE_SEED={SEED}: killed {lag_s * 1000:.0f} ms after call {seen}")
        with started(config, db, *options, *(["--resume"] if kill else [])) as process:
            wait_for_calls(db, seen)
            time.sleep(lag_s)
            process.kill()
            process.communicate()

        assert lifeline.survivors(timeout_s=WAIT_S) == []
        calls = calls_by_walk(db)
        assert is_intact(db)
        assert sum(map(len, calls.values())) >= seen
        assert walks(db)[: len(finished)] == finished
        finished = walks(db)
        of_finished = {name: calls[name] for name in names(finished) if name in calls}

    report = report_of(explore(config, db, *options, "--resume"))

    assert lifeline.survivors(timeout_s=WAIT_S) == []
    assert is_intact(db)
    assert walks(db)[: len(finished)] == finished
    assert {name: calls_by_walk(db)[name] for name in of_finished} == of_finished
    numbers = sorted(number for number, _, _ in walks(db))
    assert numbers == list(range(len(numbers)))
    again = [name for name in calls_by_walk(db) if int(name.split(".")[0]) not in numbers]
    assert again == []
    assert (report["ending"], report["calls"], len(recorded_calls(db))) == ("calls", CALLS, CALLS)
    assert query(db, "SELECT count(*), count(ending) FROM campaign") == [(1, 1)]


def names(finished: list[tuple[int, str, str]]) -> list[str]:
    return [run.split("/")[1] for _, run, _ in finished]


def wait_for_calls(db: Path, calls: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if db.exists() and has_tables(db) and exchanges(db) >= calls:
            return
        time.sleep(0.02)
    raise AssertionError(f"fewer than {calls} calls were made")
