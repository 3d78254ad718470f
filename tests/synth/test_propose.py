"""Proposals: the same for the same seed, about what was recorded, in words that say all that is needed."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.answers import fits, normalised
from synth.aspects import aspects
from synth.program import AnswerProgram, arguments_of, calls_of, run
from synth.propose import MOST_CALLS, MOST_DISTRACTORS, MOST_FIELDS, PATTERNS, Proposer
from synth.task import Task, task_id
from synth.trace import Observation, argument_leaves, observations
from synth.values import at
from synth.world import World
from tests.synth import small_world

ATTEMPTS = 1500


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world.made(tmp_path_factory.mktemp("propose") / "world.db")


@pytest.fixture(scope="module")
def seen(world: World) -> list[Observation]:
    return observations(world)


def proposed(world: World, seen: list[Observation], seed: int, attempts: int) -> list[Task]:
    made = islice(Proposer(world, seen, seed).proposals(), attempts)
    return [task for task in made if task is not None]


@pytest.fixture(scope="module")
def tasks(world: World, seen: list[Observation]) -> list[Task]:
    return proposed(world, seen, 0, ATTEMPTS)


def test_the_same_seed_proposes_the_same_tasks_in_the_same_order(world: World) -> None:
    again = small_world.opened(world.store.path)
    first, second = (proposed(each, observations(each), 5, 300) for each in (world, again))
    assert [task.model_dump() for task in first] == [task.model_dump() for task in second]
    assert len(first) > 50


def test_another_seed_proposes_other_tasks(world: World, seen: list[Observation]) -> None:
    first, second = (proposed(world, seen, seed, 300) for seed in (5, 6))
    assert len({task.task_id for task in first} & {task.task_id for task in second}) < len(first) / 10


def test_patterns_are_proposed(tasks: list[Task]) -> None:
    assert {task.template.partition(":")[0] for task in tasks} >= set(PATTERNS) - {"pair"}
    assert len(tasks) > ATTEMPTS / 4


def test_two_tools_are_paired_by_what_they_count(tasks: list[Task]) -> None:
    assert "pair" in {task.template.partition(":")[0] for task in tasks}


def test_each_answer_is_what_its_program_says_and_fits_its_schema(world: World, tasks: list[Task]) -> None:
    for task in tasks:
        trees = world.trees(task.calls)
        again = AnswerProgram.model_validate_json(task.program.model_dump_json())
        assert canonical_json(run(again, trees).answer) == canonical_json(task.answer)
        assert list(task.answer) == list(task.program.fields)
        assert fits(task.answer_schema, task.answer) is None
        assert task.task_id == task_id(task.question, task.program, task.calls)
        assert Task.model_validate_json(task.model_dump_json()) == task


def test_each_argument_that_is_computed_comes_out_as_it_was_recorded(world: World, tasks: list[Task]) -> None:
    flows = 0
    for task in tasks:
        trees = world.trees(task.calls)
        for number, call in enumerate(task.calls):
            made = arguments_of(task.program, number, call.arguments, trees)
            assert canonical_json(made) == canonical_json(call.arguments)
        for argument in task.program.arguments:
            flows += 1
            assert calls_of(argument.value)
            assert max(calls_of(argument.value)) < argument.call
            at(task.calls[argument.call].arguments, argument.path)
    assert flows > len(tasks) / 4


def test_each_argument_that_is_not_computed_stands_in_the_question(tasks: list[Task]) -> None:
    for task in tasks:
        bound = {(argument.call, argument.path) for argument in task.program.arguments}
        for number, call in enumerate(task.calls):
            for path, value in argument_leaves(call.arguments):
                if (number, path) not in bound:
                    assert normalised(value) in normalised(task.question), (task.question, value)


def test_no_argument_that_is_computed_stands_in_the_question(tasks: list[Task]) -> None:
    said = 0
    for task in tasks:
        for argument in task.program.arguments:
            value = str(at(task.calls[argument.call].arguments, argument.path))
            said += re.search(rf"(?<!\w){re.escape(value)}(?!\w)", task.question) is not None
    # Where two calls name the same thing; the gate of minimality drops those.
    assert said < len(tasks) / 50


def test_no_question_names_a_tool(world: World, tasks: list[Task]) -> None:
    names = {spec.name for spec in world.store.tools() if "_" in spec.name}
    assert len(names) > 10
    for task in tasks:
        for name in names:
            assert name not in task.question


def test_each_constant_of_the_program_stands_in_the_question(tasks: list[Task]) -> None:
    def constants(expression: Json) -> list[Json]:
        if isinstance(expression, dict):
            own = [expression["value"]] if expression.get("op") == "const" else []
            return own + [found for inner in expression.values() for found in constants(inner)]
        if isinstance(expression, list):
            return [found for inner in expression for found in constants(inner)]
        return []

    for task in tasks:
        values = [*task.program.fields.values(), *(argument.value for argument in task.program.arguments)]
        for value in constants(values):
            assert normalised(value).rstrip("/") in normalised(task.question), (task.question, value)


def test_calls_fields_and_distractors_are_within_their_limits(world: World, tasks: list[Task]) -> None:
    for task in tasks:
        assert 1 <= len(task.calls) <= MOST_CALLS
        assert 1 <= len(task.answer) <= MOST_FIELDS
        offered = [(tool.server, tool.name) for tool in (*task.tools, *task.distractors)]
        assert len(offered) == len(set(offered))
        assert len(task.distractors) <= MOST_DISTRACTORS
        assert {(call.server, call.tool) for call in task.calls} == {
            (tool.server, tool.name) for tool in task.tools
        }
        assert len({canonical_json([*call.ref, call.arguments]) for call in task.calls}) == len(task.calls)
        assert task.difficulty.calls == len(task.calls)
        assert task.world == world.hashes(task.calls)


def test_no_call_is_proposed_that_nothing_is_asked_of(tasks: list[Task]) -> None:
    for task in tasks:
        used = calls_of([*task.program.fields.values(), *(each.value for each in task.program.arguments)])
        assert used == set(range(len(task.calls)))


def test_proposals_are_spread_over_servers(tasks: list[Task]) -> None:
    counts = Counter(server for task in tasks for server in task.servers)
    assert set(counts) == {"harbour", "bakery", "museum", "shelves", "observatory", "league"}
    assert min(counts.values()) > max(counts.values()) / 4


def test_what_a_question_gives_away_or_will_not_last_is_not_asked_for(tasks: list[Task]) -> None:
    for task in tasks:
        assert not any(call.server == "clock" for call in task.calls)
        for value in task.answer.values():
            for item in value if isinstance(value, list) else [value]:
                assert not (isinstance(item, str) and len(item) > 120)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_only_count_the_rows_are_no_amounts(tmp_path: Path, first: int) -> None:
    rows = [{"step": first + n, "seconds": 31 + 17 * n * n, "tool": f"Tool {n}"} for n in range(5)]
    world = small_world.told(tmp_path / "told.db", [("a", "read_recipe", {"recipe": "rye-loaf"}, rows)])
    (seen,) = observations(world)
    asked = {aspect.op for aspect in aspects(seen, 0, Random(0)) if aspect.about == "step"}
    assert not asked & {"max", "min", "sum", "mean"}


# --- recordings of which little can be made ---

SHIPS = [{"ship": f"Argo-{70 + n}", "crew": 11 + 7 * n} for n in range(5)]

SMALL: dict[str, list[tuple[str, str, dict[str, Json], Json]]] = {
    "empty": [],
    "one number": [("a", "get_total", {}, 41)],
    "one word": [("a", "get_name", {}, "Argo")],
    "one table": [("a", "list_ships", {}, SHIPS)],
    "a table and a row": [
        ("a", "list_ships", {}, SHIPS),
        ("a", "get_ship", {"ship": "Argo-71"}, {"tons": 811}),
    ],
    "prose": [("a", "get_story", {}, "Once upon a time there was a ship. It sank.")],
    "two words": [("a", "list_names", {}, ["oak", "elm"])],
    "cycle": [
        ("a", "get_next", {"ship": "Argo-71"}, {"next": "Argo-72", "tons": 12}),
        ("a", "get_next", {"ship": "Argo-72"}, {"next": "Argo-71", "tons": 13}),
    ],
    "three in a ring": [
        ("a", "get_next", {"ship": f"Argo-{n}"}, {"next": f"Argo-{n % 3 + 1}", "tons": 700 + n})
        for n in range(1, 4)
    ],
}


@pytest.mark.parametrize("small", SMALL)
def test_a_recording_of_little_ends_in_attempts_and_not_in_a_loop(tmp_path: Path, small: str) -> None:
    world = small_world.told(tmp_path / "told.db", SMALL[small])
    began = time.monotonic()
    made = list(islice(Proposer(world, observations(world), 0).proposals(), 300))
    assert time.monotonic() - began < 5
    found = [task for task in made if task is not None]
    for task in found:
        assert canonical_json(run(task.program, world.trees(task.calls)).answer) == canonical_json(
            task.answer
        )
        assert len({canonical_json([*call.ref, call.arguments]) for call in task.calls}) == len(task.calls)
    assert bool(found) is (small not in ("empty", "prose"))


def test_arguments_within_arguments_are_said_and_computed(tmp_path: Path) -> None:
    calls: list[tuple[str, str, dict[str, Json], Json]] = [("a", "list_ships", {}, SHIPS)]
    for n in range(5):
        asked = {"who": {"ships": [f"Argo-{70 + n}"], "harbour": "Quorin Bay"}, "deep": True}
        calls.append(("a", "get_load", asked, {"tons": 800 + 13 * n, "cook": f"Cook {n}{n}"}))
    world = small_world.told(tmp_path / "told.db", calls)
    seen = observations(world)
    tasks = [task for task in proposed(world, seen, 0, 600) if task.program.arguments]
    assert tasks
    for task in tasks:
        (path,) = {argument.path for argument in task.program.arguments}
        assert path == ("who", "ships", 0)
        assert "Quorin Bay" in task.question
        for number, call in enumerate(task.calls):
            made = arguments_of(task.program, number, call.arguments, world.trees(task.calls))
            assert json.dumps(made) == json.dumps(call.arguments)
