"""Which tasks are for training and which for testing: by server, and by what they are about.

No server of `test_unseen_servers` is seen in training, and no entity of `test`. Tasks that span both sides
are dropped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from random import Random

from synth.task import Split, Task

NAME = "split"

TEST_SERVERS, TEST_ENTITIES = 0.1, 0.15
"""The shares of the tasks that are held out for their servers, and of the others for their entities."""

MOST_SPOILT = 1.0
"""Tasks that span both sides, for each that is held out: with more, too much is dropped."""

MOST_COMPARED = 150
"""Tasks that are compared for being held out next."""

MOST_OF_SERVERS = 0.25
"""Share of the tasks that held-out servers may have."""

MOST_SERVERS = 16
"""Servers, those with the fewest tasks of their own, that are considered for being held out."""

FEWEST_SERVERS = 4
"""With fewer servers none is held out, since too little would be left."""


def split(
    tasks: Sequence[Task], seed: int, test_servers: Sequence[str] | None = None
) -> list[tuple[Split | None, str]]:
    """Return each task's split, or `None`, and why.

    Args:
        test_servers: The servers to hold out; by default those that together have about a tenth of the
        tasks, and
            share the fewest with others.
    """
    held = set(_held_servers(tasks, seed) if test_servers is None else test_servers)
    first: list[tuple[Split | None, str]] = []
    for task in tasks:
        mine = set(task.servers)
        if mine <= held:
            first.append(("test_unseen_servers", f"all its servers are held out ({', '.join(task.servers)})"))
        elif mine & held:
            first.append((None, f"it spans held-out and other servers ({', '.join(task.servers)})"))
        else:
            first.append(("train", ""))
    rest = [task for task, (side, _) in zip(tasks, first, strict=True) if side == "train"]
    unseen = _held_entities(rest, seed)
    found: list[tuple[Split | None, str]] = []
    for task, (side, why) in zip(tasks, first, strict=True):
        if side != "train":
            found.append((side, why))
            continue
        entities = set(task.entities)
        if entities <= unseen:
            found.append(("test", "all that it is about is held out"))
        elif entities & unseen:
            name = min(entities & unseen)
            found.append((None, f"it is about {name!r:.60}, which is held out, and about what is not"))
        else:
            found.append(("train", "nothing that it is about is held out"))
    return found


def _held_servers(tasks: Sequence[Task], seed: int) -> list[str]:
    """Choose servers to hold out: about the wanted share of tasks, and few that span both sides."""
    names = sorted({server for task in tasks for server in task.servers})
    if len(names) < FEWEST_SERVERS:
        return []
    # What matters of a task is which servers it has.
    kinds = Counter(frozenset(task.servers) for task in tasks)
    alone = {name: kinds[frozenset((name,))] for name in names}
    near = sorted((name for name in names if alone[name]), key=lambda name: alone[name])[:MOST_SERVERS]
    rng = Random(f"servers {seed}")
    best: tuple[float, float, tuple[str, ...]] | None = None
    for size in (1, 2, 3):
        for held in combinations(near, size):
            inside = sum(count for servers, count in kinds.items() if servers <= set(held))
            spanning = sum(count for servers, count in kinds.items() if servers & set(held)) - inside
            if 0 < inside <= MOST_OF_SERVERS * len(tasks) and size < len(names) - 1:
                cost = spanning + abs(inside - TEST_SERVERS * len(tasks))
                if best is None or (cost, rng.random()) < best[:2]:
                    best = cost, rng.random(), held
    return sorted(best[2]) if best else []


def _held_entities(tasks: Sequence[Task], seed: int) -> set[str]:
    """Choose entities to hold out so that few tasks are about both sides.

    Task by task, all that it is about is held out, where that completes most and spoils least.
    """
    by_entity: dict[str, list[int]] = defaultdict(list)
    for number, task in enumerate(tasks):
        for entity in task.entities:
            by_entity[entity].append(number)
    rng = Random(f"entities {seed}")
    wanted = TEST_ENTITIES * len(tasks)
    held: set[str] = set()
    inside: set[int] = set()
    touched: set[int] = set()
    left = list(range(len(tasks)))
    while len(inside) < wanted and left:
        best: tuple[float, int, set[int], set[int]] | None = None
        for number in rng.sample(left, min(len(left), MOST_COMPARED)):
            new = set(tasks[number].entities) - held
            near = {other for entity in new for other in by_entity[entity]} | touched
            complete = {other for other in near if set(tasks[other].entities) <= held | new}
            gained, spoilt = len(complete) - len(inside), len(near - complete)
            fits = len(complete) <= 1.5 * wanted + 1 and len(complete) < len(tasks)
            if gained > 0 and fits and spoilt <= MOST_SPOILT * len(complete) + 2:
                score = (spoilt - len(touched - inside)) / gained
                if best is None or score < best[0]:
                    best = score, number, complete, near
        if best is None:
            break
        _, number, inside, touched = best
        held |= set(tasks[number].entities)
        left = [other for other in left if other not in inside]
    return held
