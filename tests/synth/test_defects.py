"""Defects planted into good tasks, fifty of each kind and more: the gate meant for a kind has to catch it."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest

from recorder.exchange import Json
from synth.aspects import shown
from synth.gates.ambiguity import ambiguity
from synth.gates.derivation import derivation
from synth.gates.determinism import determinism
from synth.gates.duplicates import duplicates
from synth.gates.leak import leak
from synth.gates.minimality import minimality
from synth.gates.provenance import provenance
from synth.pipeline import Wanted, synthesise
from synth.program import AnswerProgram, ProgramError, run
from synth.task import ReferenceCall, Task, Verdict
from synth.trace import argument_leaves
from synth.values import leaves, tables
from synth.world import World
from tests.synth.garden import Garden, opened, record

ENOUGH, LEAST_CAUGHT = 50, 0.98


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("defects") / "garden.db"
    record(path, Garden.grown())
    return path


@pytest.fixture(scope="module")
def world(path: Path) -> World:
    return opened(path)


@pytest.fixture(scope="module")
def good(world: World) -> list[Task]:
    tasks = synthesise(world, Wanted(220)).tasks
    assert len(tasks) > 150
    return tasks


def caught(
    defects: list[Task], gate: Callable[[Task, World], Verdict], world: World, good: list[Task]
) -> None:
    """Assert that a gate fails nearly all defects, and passes what they were made from."""
    assert len(defects) >= ENOUGH
    missed = [task for task in defects if gate(task, world).passed]
    assert len(missed) <= (1 - LEAST_CAUGHT) * len(defects), [
        (task.question, task.answer, gate(task, world).reason) for task in missed[:5]
    ]
    assert all(gate(task, world).passed for task in good)


def telling(task: Task) -> Iterator[Json]:
    """Yield the values of an answer that nobody writes by chance."""
    for value in task.answer.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                if len(item) > 3:
                    yield item
            elif not isinstance(item, bool) and sum(map(str.isdigit, str(item))) > 2:
                yield item


def test_an_answer_in_the_question(good: list[Task], world: World) -> None:
    rng = Random(1)
    defects = []
    for task in good:
        for item in list(telling(task))[:1]:
            text = str(item)
            ways = [
                f"{task.question} (I remember {text}.)",
                f"Is it {text}? {task.question}",
                f'{task.question} My notes say "{text.upper()}".',
                f"Somebody told me {text}, but check: {task.question}",
            ]
            defects.append(task.model_copy(update={"question": rng.choice(ways)}))
    caught(defects, leak, world, good)


def test_an_ambiguous_argmax(good: list[Task], world: World) -> None:
    """The best row of a real list, by a column in which it is not the only best, or by rank across a tie."""
    defects = []
    seen = {call.exchange: call for task in good for call in task.calls}
    for exchange, call in seen.items():
        tree = world.tree(exchange)
        for table in tables(tree):
            for column in table.columns:
                values = list(column.values)
                rows = {"op": "extract", "call": 0, "path": list(table.address)}
                by = {"of": rows, "path": list(column.path), "as": column.kind}
                for op, best in (("argmax", max), ("argmin", min)):
                    try:
                        tied = values.count(best(values)) > 1
                    except TypeError:
                        continue
                    if tied:
                        picked = {"op": "get", "of": {"op": op, **by}, "path": []}
                        defects.append(made(good[0], call, {"best": picked}))
                if len(set(values)) < len(values) and len(values) > 2:
                    taken = {"op": "sort_take", **by, "n": len(values), "descending": True}
                    column_values = {"op": "pluck", "of": taken, "path": list(column.path), "as": column.kind}
                    defects.append(made(good[0], call, {"ranked": column_values}))
                    value = next(v for v in values if values.count(v) > 1)
                    fit = {"op": "filter", **by, "test": "eq", "value": {"op": "const", "value": value}}
                    one = {"op": "get", "of": {"op": "only", "of": fit}, "path": list(column.path)}
                    defects.append(made(good[0], call, {"which": one}))
    caught(defects, ambiguity, world, good)


def made(task: Task, call: ReferenceCall, fields: dict[str, Any]) -> Task:
    """Return a task over one call, with other fields."""
    return task.model_copy(
        update={"calls": [call], "program": AnswerProgram(fields=fields), "answer": dict.fromkeys(fields, 1)}
    )


def test_an_unused_call(good: list[Task], world: World) -> None:
    """A call that nothing reads, one whose only use the question tells, one that says what another said."""
    rng = Random(2)
    calls = sorted({call.exchange: call for task in good for call in task.calls}.items())
    defects = []
    for task in good:
        extra = next(call for _, call in rng.sample(calls, len(calls)) if call not in task.calls)
        defects.append(task.model_copy(update={"calls": [*task.calls, extra]}))
        for argument in task.program.arguments[:1]:
            value: Json = task.calls[argument.call].arguments
            for step in argument.path:
                value = value[step]
            if len(str(value)) > 3:
                told = f"{task.question} (That is {shown(value)}.)"
                defects.append(task.model_copy(update={"question": told}))
    for task in good:
        if len(task.calls) == 1:
            again = deepcopy(task.calls[0])
            fields = {
                **task.program.fields,
                "again": {"op": "extract", "call": 1, "path": [], "as": "text"},
            }
            # The same output once more: what is read in it stands in the first one, too.
            leaf = next(
                (leaf for leaf in leaves(world.tree(again.exchange)) if len(str(leaf.value)) > 3), None
            )
            if leaf is not None:
                fields["again"] = {"op": "extract", "call": 1, "path": list(leaf.address)}
                program = AnswerProgram(fields=fields)
                defects.append(task.model_copy(update={"calls": [*task.calls, again], "program": program}))
    caught(defects, minimality, world, good)


def test_a_constant_answer(good: list[Task], world: World) -> None:
    """A field that reads nothing, or reads what cannot make a difference."""
    defects = []
    for number, task in enumerate(good):
        call = number % len(task.calls)
        path = list(next(leaves(world.tree(task.calls[call].exchange))).address)
        extract = {"op": "extract", "call": call, "path": path}
        const = {"op": "const", "value": number}
        ways: list[dict[str, Any]] = [
            const,
            {"op": "compare", "test": "eq", "left": extract, "right": extract},
            {"op": "arithmetic", "operator": "add", "left": const, "right": const},
            {"op": "choose", "if": {"op": "compare", "test": "ne", "left": extract, "right": extract},
             "then": {"op": "const", "value": 1}, "else": const},
            {"op": "count", "of": {"op": "intersection", "left": {"op": "const", "value": ["a"]},
                                   "right": {"op": "const", "value": ["a"]}}},
        ]  # fmt: skip
        fields = {"constant": ways[number % len(ways)]}
        program = AnswerProgram(fields=fields)
        defects.append(
            task.model_copy(update={"program": program, "answer": run_or_none(program, task, world)})
        )
    caught(defects, ambiguity, world, good)


def run_or_none(program: AnswerProgram, task: Task, world: World) -> dict[str, Json]:
    try:
        return run(program, world.trees(task.calls)).answer
    except ProgramError:
        return {}


def test_a_volatile_value(good: list[Task], tmp_path: Path) -> None:
    """In this world the stations and books answer otherwise each time, in one place of many."""

    class Drifting(Garden):
        def answer(self, server: str, tool: str, arguments: dict[str, Json], session: int = 0) -> str:
            text = super().answer(server, tool, arguments, session)
            if session % 2 and tool in ("get_product", "get_book", "get_ticket"):
                told = json.loads(text)
                name = next(name for name in ("pages", "stock", "hours") if name in told)
                return json.dumps({**told, name: told[name] + 1})
            return text

    grown = Garden.grown()
    path = tmp_path / "drifting.db"
    record(path, Drifting(**{name: getattr(grown, name) for name in grown.__dataclass_fields__}))
    world = opened(path)
    defects = []
    for exchange in world.store.exchanges(method="tools/call"):
        call = exchange.call
        if call is None or call.tool.name not in ("get_product", "get_book", "get_ticket"):
            continue
        name = {"get_product": "stock", "get_book": "pages", "get_ticket": "hours"}[call.tool.name]
        at = ReferenceCall(
            server=call.tool.server, tool=call.tool.name, arguments=call.arguments, exchange=exchange.id
        )
        for op in ("number", None):
            extract = {"op": "extract", "call": 0, "path": [name], **({"as": op} if op else {})}
            defects.append(made(good[0], at, {name: extract}))
    caught(defects, determinism, world, [])


def test_a_duplicate(good: list[Task], world: World) -> None:
    """The same question; the same fields under other names; the same calls in another order; other words."""
    rng = Random(3)
    defects: list[Task] = []
    for number, task in enumerate(good[:120]):
        match number % 4:
            case 0:
                defects.append(task.model_copy(update={"task_id": f"{number}"}))
            case 1:
                fields = {f"{name}_x": each for name, each in reversed(task.program.fields.items())}
                program = task.program.model_copy(update={"fields": fields})
                words = f"In other words: {' '.join(sorted(task.question.split()))}"
                defects.append(
                    task.model_copy(update={"program": program, "question": words, "task_id": f"{number}"})
                )
            case 2:
                defects.append(
                    task.model_copy(update={"question": f"{task.question}  ", "task_id": f"{number}"})
                )
            case _:
                words = task.question.split()
                words[rng.randrange(len(words))] = "kindly"
                defects.append(task.model_copy(update={"question": " ".join(words), "task_id": f"{number}"}))
    assert len(defects) >= ENOUGH
    verdicts = duplicates([*good, *defects], world)
    assert all(verdict.passed for verdict in verdicts[: len(good)])
    missed = [task for task, verdict in zip(defects, verdicts[len(good) :], strict=True) if verdict.passed]
    assert len(missed) <= (1 - LEAST_CAUGHT) * len(defects), missed[:3]


def test_an_unsupported_field(good: list[Task], world: World) -> None:
    """A field that no program has, one that the outputs say otherwise, one whose place is not there."""
    defects = []
    for number, task in enumerate(good):
        name, value = next(iter(task.answer.items()))
        match number % 4:
            case 0:
                schema = deepcopy(task.answer_schema)
                schema["properties"]["colour"] = {"type": "string"}
                schema["required"].append("colour")
                defects.append(
                    task.model_copy(
                        update={"answer": {**task.answer, "colour": "red"}, "answer_schema": schema}
                    )
                )
            case 1:
                other = (
                    [*value, "more"]
                    if isinstance(value, list)
                    else not value
                    if isinstance(value, bool)
                    else None
                )
                other = value + 1 if isinstance(value, int | float) and not isinstance(value, bool) else other
                other = f"{value}s" if isinstance(value, str) else other
                defects.append(task.model_copy(update={"answer": {**task.answer, name: other}}))
            case 2:
                fields = {**task.program.fields, name: {"op": "extract", "call": 0, "path": ["nowhere", 3]}}
                program = task.program.model_copy(update={"fields": fields})
                defects.append(task.model_copy(update={"program": program}))
            case _:
                left = {key: inner for key, inner in task.answer.items() if key != name}
                defects.append(task.model_copy(update={"answer": left}))
    caught(defects, derivation, world, good)


def test_a_missing_entity(good: list[Task], world: World) -> None:
    """An argument that the question does not say: left out, hinted at, or misspelt."""
    rng = Random(4)
    defects = []
    for task in good:
        bound = {(argument.call, argument.path) for argument in task.program.arguments}
        for number, call in enumerate(task.calls):
            for at, value in argument_leaves(call.arguments):
                text = str(value)
                if (number, at) in bound or text not in task.question or len(text) < 3:
                    continue
                broken = text[:-1] + ("x" if text[-1] != "x" else "y")
                other = rng.choice(("", "that one", broken))
                defects.append(task.model_copy(update={"question": task.question.replace(text, other)}))
    caught(defects, provenance, world, good)
