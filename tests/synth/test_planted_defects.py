"""Good tasks of the invented town with defects planted into them: what the gate meant for a kind catches.

The defects are made as they happen, not as the gates look for them, in several ways for each kind. A defect
that a gate lets through counts against it; whether any other executable gate catches it is counted, too.
After the tests there is a table.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.aspects import shown, spoken
from synth.gates import GATES
from synth.gates.duplicates import duplicates
from synth.pipeline import Wanted, synthesise
from synth.program import AnswerProgram, Expression, ProgramError, calls_of, renumbered, run
from synth.task import ReferenceCall, Task, Tool
from synth.trace import argument_leaves
from synth.values import Address, Column, Table, as_kind, at, leaves, replaced, tables
from synth.world import World
from tests.synth.worlds import documents, made

ENOUGH, LEAST_CAUGHT = 50, 0.98
GOOD = 260


@dataclass
class Defect:
    way: str
    task: Task
    world: World


@dataclass
class Tally:
    """What was caught, by kind and way."""

    rows: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    missed: list[tuple[str, str, Task]] = field(default_factory=list)

    def count(self, kind: str, way: str, task: Task, *, meant: bool, other: bool) -> None:
        row = self.rows[kind, way]
        row[0] += 1
        row[1] += meant
        row[2] += meant or other
        if not meant:
            self.missed.append((kind, way, task))

    def of(self, kind: str) -> tuple[int, int]:
        rows = [row for (name, _), row in self.rows.items() if name == kind]
        return sum(row[0] for row in rows), sum(row[1] for row in rows)

    def printed(self) -> str:
        lines = [f"{'kind':22} {'way':44} {'all':>4} {'meant':>6} {'any':>5}"]
        for (kind, way), (total, meant, any_) in self.rows.items():
            lines.append(f"{kind:22} {way:44} {total:4} {meant:6} {any_:5}")
        for kind in dict.fromkeys(kind for kind, _ in self.rows):
            total, meant = self.of(kind)
            lines.append(f"{kind:22} {'':44} {total:4} {meant:6} {100 * meant / total:5.1f} %")
        return "\n".join(lines)


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    tally = Tally()
    yield tally
    print(f"\n{tally.printed()}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made(tmp_path_factory.mktemp("town") / "town.db")


@pytest.fixture(scope="module")
def good(world: World) -> list[Task]:
    tasks = synthesise(world, Wanted(GOOD)).tasks
    assert len(tasks) > 200
    return tasks


def judge(kind: str, gates: Sequence[str], defects: Iterable[Defect], tally: Tally) -> None:
    """Run the gates over defects of a kind; one of those that are meant has to catch nearly all of them."""
    for defect in defects:
        meant = any(not GATES[name](defect.task, defect.world).passed for name in gates)
        # In their order, as the pipeline runs them, up to the first that fails.
        other = not meant and any(not gate(defect.task, defect.world).passed for gate in GATES.values())
        tally.count(kind, defect.way, defect.task, meant=meant, other=other)
    expect(kind, tally)


def expect(kind: str, tally: Tally) -> None:
    total, caught = tally.of(kind)
    missed = Counter(way for name, way, _ in tally.missed if name == kind)
    examples = [(way, task.question, task.answer) for name, way, task in tally.missed if name == kind][:3]
    assert total >= ENOUGH
    assert caught >= LEAST_CAUGHT * total, f"{caught} of {total}; missed {dict(missed)}, like {examples}"


# --- 1: an answer in the question ---


def test_an_answer_in_the_question(good: list[Task], world: World, tally: Tally) -> None:
    judge("answer in question", ["answer leak"], _leaking(good, world), tally)


def _leaking(good: list[Task], world: World) -> Iterator[Defect]:
    rng = Random("leaking")
    for task in good:
        told = list(_telling(task))
        if not told:
            continue
        name, item = rng.choice(told)
        text = str(item)
        ways = {
            "verbatim, at the end": f"{task.question} (It should be {text}.)",
            "verbatim, as an example of the form": f"{task.question} Answer in the form `{text}`.",
            "within a sentence": f"Mara says the {spoken(name)} is {text}, but check: {task.question}",
            "as a question": f"Is it {text}? {task.question}",
        }
        if isinstance(item, str) and item.lower() != item.upper():
            other = rng.choice((item.upper(), item.lower(), item.swapcase()))
            ways["in other letter case"] = f"{task.question} I noted {other} the last time."
            ways["in bold, other case"] = f"**{other}** was last month's answer. {task.question}"
        if isinstance(item, str) and (day := _day_in_words(item)) is not None:
            ways["a day in words"] = f"{task.question} I remember it as {day}."
        if isinstance(item, int | float):
            if abs(item) >= 1000:
                ways["with thousands separators"] = f"{task.question} It was {item:,} when I looked."
                ways["with thousands separators, in a sentence"] = (
                    f"We have {item:,} in our books. {task.question}"
                )
            if isinstance(item, float):
                ways["with two decimals"] = f"{task.question} My guess is {item:.2f} crowns."
            ways["with a unit"] = f"{task.question} Last week it was {text}km."
        for way in rng.sample(sorted(ways), min(2, len(ways))):
            yield Defect(way, _asked(task, ways[way]), world)


def _telling(task: Task) -> Iterator[tuple[str, Json]]:
    """Yield the values of an answer that nobody writes by chance."""
    for name, value in task.answer.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and len(item) > 3:
                yield name, item
            if isinstance(item, int | float) and sum(map(str.isdigit, str(item))) > 2:
                yield name, item


def _day_in_words(text: str) -> str | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return f"{day.day} {day:%B %Y}"


# --- 2: an ambiguous choice ---


def test_an_ambiguous_choice(good: list[Task], world: World, tally: Tally, tmp_path: Path) -> None:
    defects = [*_tied(good, world, tmp_path), *_over_ties(good, world)]
    judge("ambiguous choice", ["ambiguity"], defects, tally)


Change = tuple[str, Address, Json, str]
"""A call, where in its output another value is to stand, that value, and what it makes ambiguous."""


def _tied(good: list[Task], world: World, folder: Path) -> Iterator[Defect]:
    """Ties in the outputs that good tasks read: the town is another one, in which two rows are alike."""
    rng = Random("tied")
    waiting = list(good)
    for attempt in range(3):
        changes: dict[str, Change] = {}
        hit: list[tuple[Task, str]] = []
        for task in list(waiting):
            found = [each for each in _ties(task, world, rng) if each[0] not in changes]
            if found and not any(_key(call) in changes for call in task.calls):
                change = rng.choice(found)
                changes[change[0]] = change
                hit.append((task, change[3]))
                waiting.remove(task)
        other = _rerecorded(world, folder / f"tied-{attempt}.db", changes, sessions=(0, 1, 2))
        for task, way in hit:
            yield Defect(way, _moved(task, other), other)


def _ties(task: Task, world: World, rng: Random) -> Iterator[Change]:
    trees = world.trees(task.calls)
    for expression in _inner(_expressions(task)):
        rows = expression.get("of")
        if not isinstance(rows, dict) or rows.get("op") != "extract" or "path" not in expression:
            continue
        call, address, path = rows["call"], tuple(rows["path"]), tuple(expression["path"])
        items = at(trees[call], address)
        if not isinstance(items, list) or len(items) < 2:
            continue
        values = [as_kind(at(item, path), expression["as"]) for item in items]
        order = sorted(range(len(items)), key=lambda n: values[n])
        one, other, way = -1, -1, ""
        match expression["op"]:
            case "argmax" | "argmin":
                one = order[-1] if expression["op"] == "argmax" else order[0]
                other = rng.choice([n for n in range(len(items)) if n != one])
                way = f"two rows share the {'greatest' if expression['op'] == 'argmax' else 'least'} value"
            case "sort_take" if len(items) > expression["n"]:
                ranked = order[::-1] if expression.get("descending") else order
                one, other = ranked[expression["n"] - 1], ranked[expression["n"]]
                way = "a tie at the border of the first few"
            case "filter" if expression["test"] == "eq" and values.count(expression["value"]["value"]) == 1:
                one = values.index(expression["value"]["value"])
                other = rng.choice([n for n in range(len(items)) if n != one])
                way = "two rows fit where one is asked for"
        if one < 0 or values.count(values[one]) > 1:
            continue
        value = at(items[one], path)
        if way.startswith("two rows share") and isinstance(value, int) and rng.random() < 0.3:
            value, way = float(value), "two rows share it, in two spellings"
        yield _key(task.calls[call]), (*address, other, *path), value, way


def _over_ties(good: list[Task], world: World) -> Iterator[Defect]:
    """Programs that pick one of several, over columns of real outputs in which values are equal."""
    for task, call, table, column, label in _columns(good, world):
        values = list(column.values)
        if len(set(values)) == len(values) or label is column:
            continue
        rows: Expression = {"op": "extract", "call": 0, "path": list(table.address)}
        by: Expression = {"of": rows, "path": list(column.path), "as": column.kind}

        def told(row: Expression, label: Column = label) -> Expression:
            return {"op": "get", "of": row, "path": list(label.path), "as": label.kind}

        words, name = f"the {label.name} of the one with", f"{spoken(column.name)}"
        counts = Counter(values)
        top, low = max(values), min(values)
        picks: list[tuple[str, str, Expression]] = []
        is_ordered = column.kind != "boolean"
        if counts[top] > 1 and is_ordered:
            picks.append(("argmax over a tie", f"{words} the highest {name}", {"op": "argmax", **by}))
            first = {"op": "item", "of": {"op": "sort_take", **by, "n": 1, "descending": True}, "number": 0}
            picks.append(("first of a list sorted by what is tied", f"{words} the highest {name}", first))
        if counts[low] > 1 and is_ordered:
            picks.append(("argmin over a tie", f"{words} the lowest {name}", {"op": "argmin", **by}))
        twice = next(value for value in values if counts[value] > 1)
        fit = {"op": "filter", **by, "test": "eq", "value": {"op": "const", "value": twice}}
        picks.append(
            ("two rows fit a filter", f"{words} the {name} {shown(twice)}", {"op": "only", "of": fit})
        )
        picks.append(
            ("the first row that fits a filter is taken", f"{words} the {name} {shown(twice)}",
             {"op": "item", "of": fit, "number": 0})
        )  # fmt: skip
        for way, asked, row in picks:
            answer = label.values[values.index(twice)]
            yield Defect(way, _about(task, call, asked, {"which": told(row)}, {"which": answer}), world)
        ranked = sorted(values, reverse=True)
        for n in range(2, min(5, len(values))) if is_ordered else ():
            if ranked[n - 1] == ranked[n]:
                taken = {"op": "sort_take", **by, "n": n, "descending": True}
                plucked = {"op": "pluck", "of": taken, "path": list(label.path), "as": label.kind}
                asked = f"the {label.name} of the {n} with the highest {name}"
                order = sorted(range(len(values)), key=lambda row: values[row], reverse=True)
                answer = [label.values[row] for row in order[:n]]
                tied = _about(task, call, asked, {"which": plucked}, {"which": answer})
                yield Defect("sort and take across a tie", tied, world)
                break


def _columns(good: list[Task], world: World) -> Iterator[tuple[Task, ReferenceCall, Table, Column, Column]]:
    """Yield each column of the tables that good tasks read, with one that names the rows."""
    seen: set[str] = set()
    for task in good:
        for call in task.calls:
            if _key(call) in seen:
                continue
            seen.add(_key(call))
            for table in tables(world.tree(call.exchange)):
                labels = [each for each in table.columns if each.kind in ("id", "text") and each.distinct]
                for column in table.columns if labels and not table.keyed else ():
                    yield task, call, table, column, labels[0]


# --- 3: a call that is not needed ---


def test_an_unused_call(good: list[Task], world: World, tally: Tally) -> None:
    judge("unused call", ["minimality"], _unused(good, world), tally)


def _unused(good: list[Task], world: World) -> Iterator[Defect]:
    rng = Random("unused")
    known = {_key(call): call for task in good for call in task.calls}
    calls = [known[key] for key in sorted(known)]
    for number, task in enumerate(good):
        spare = [call for call in calls if call not in task.calls]
        near = [call for call in spare if call.server in task.servers] or spare
        first = {n: n + 1 for n in range(len(task.calls))}
        match number % 3:
            case 0:
                extra = rng.choice(near)
                said = f"{task.question} Also look at {_said(extra)}."
                yield Defect("one more at the end", _with_calls(task, [*task.calls, extra], said), world)
            case 1:
                extra = rng.choice(spare)
                said = f"Begin with {_said(extra)}. {task.question}"
                yield Defect("one more in front", _with_calls(task, [extra, *task.calls], said, first), world)
            case _:
                again = len(task.calls)
                name = rng.choice(sorted(task.program.fields))
                source = rng.choice(sorted(calls_of(task.program.fields[name])))
                numbers = {n: n for n in range(len(task.calls))} | {source: again}
                fields = dict(task.program.fields)
                fields[name] = renumbered(fields[name], numbers)
                arguments = [
                    argument.model_copy(update={"call": again})
                    for argument in task.program.arguments
                    if argument.call == source
                ]
                program = AnswerProgram(fields=fields, arguments=(*task.program.arguments, *arguments))
                changed = _with_calls(task, [*task.calls, task.calls[source]], task.question)
                yield Defect("the same call twice", changed.model_copy(update={"program": program}), world)
    for task in good:
        if task.program.arguments:
            argument = rng.choice(task.program.arguments)
            value = at(task.calls[argument.call].arguments, argument.path)
            name = spoken(str(argument.path[-1]))
            hints = (f"(The {name} is {shown(value)}.)", f"I think that the {name} is {value}.",
                     f"By the way, {value} is the {name} you will come to.")  # fmt: skip
            told = _asked(task, f"{task.question} {rng.choice(hints)}")
            yield Defect("the question says what it finds", told, world)
            bound = {each.call for each in task.program.arguments}
            last = max(bound)
            fields = {name: each for name, each in task.program.fields.items() if last not in calls_of(each)}
            if fields:
                yield Defect("a call at the end of a chain that nothing reads",
                             _with_fields(task, fields, world), world)  # fmt: skip
    yield from _told_twice(good, calls, world, rng)


def _told_twice(good: list[Task], calls: list[ReferenceCall], world: World, rng: Random) -> Iterator[Defect]:
    """A record is asked for, of which the list before told what is wanted of it."""
    for listing in calls:
        for table in tables(world.tree(listing.exchange)):
            for record in calls:
                if record.ref == listing.ref or len(record.arguments) != 1:
                    continue
                ((name, value),) = record.arguments.items()
                key = next((each for each in table.columns if each.name == name), None)
                if key is None or list(key.values).count(value) != 1:
                    continue
                tree, row = world.tree(record.exchange), list(key.values).index(value)
                same = [
                    each for each in table.columns
                    if each is not key and isinstance(tree, dict) and len(each.path) == 1
                    and tree.get(each.path[0]) == each.values[row] and len(str(each.values[row])) > 3
                ]  # fmt: skip
                measured = [each for each in table.columns if each.kind in ("number", "date")]
                if not same or not measured:
                    continue
                column, most = rng.choice(same), rng.choice(measured)
                rows = {"op": "extract", "call": 0, "path": list(table.address)}
                highest = {
                    "op": "max",
                    "of": {"op": "pluck", "of": rows, "path": list(most.path), "as": most.kind},
                }
                fields: dict[str, Expression] = {
                    "highest": highest,
                    "told": {"op": "extract", "call": 1, "path": list(column.path), "as": column.kind},
                }
                words = f"the highest {most.name}, and for {key.name} {shown(value)} its {column.name}"
                task = _about(good[0], listing, words, fields, {})
                task = _with_calls(task, [listing, record], task.question)
                yield Defect(
                    "a record of what the list told already", _with_fields(task, fields, world), world
                )
                break  # one of each list


# --- 4: an answer that cannot change ---


def test_a_constant_answer(good: list[Task], world: World, tally: Tally) -> None:
    judge("constant answer", ["ambiguity", "provenance"], _constant(good, world), tally)


def _constant(good: list[Task], world: World) -> Iterator[Defect]:
    rng = Random("constant")
    for task in good:
        call = rng.randrange(len(task.calls))
        tree = world.tree(task.calls[call].exchange)
        number = next((leaf for leaf in leaves(tree) if _is_number(leaf.value) and leaf.value), None)
        found = [each for each in tables(tree) if each.rows > 4 and not each.keyed]
        ways: dict[str, Expression] = {
            "a const": {"op": "const", "value": rng.choice((12, "north", 4.5))},
            "arithmetic over consts": {
                "op": "arithmetic", "operator": "multiply",
                "left": {"op": "const", "value": 6}, "right": {"op": "const", "value": 7},
            },
            "a text without a place to fill": {
                "op": "format", "template": "see the report", "of": [{"op": "const", "value": "x"}],
            },
            "the length of a const list": {"op": "count", "of": {"op": "const", "value": ["a", "b"]}},
        }  # fmt: skip
        if number is not None:
            value = {"op": "extract", "call": call, "path": list(number.address), "as": "number"}
            ways["a value minus itself"] = _arithmetic("subtract", value, value)
            ways["a value in percent of itself"] = _arithmetic("percent", value, value)
            ways["a value times zero"] = _arithmetic("multiply", value, {"op": "const", "value": 0})
            ways["whether a value is itself"] = {"op": "compare", "test": "eq", "left": value, "right": value}
            ways["one of two equal consts"] = {
                "op": "choose",
                "if": {"op": "compare", "test": "gt", "left": value, "right": {"op": "const", "value": 3}},
                "then": {"op": "const", "value": "as usual"}, "else": {"op": "const", "value": "as usual"},
            }  # fmt: skip
        for each in found:
            column = next((c for c in each.columns if c.kind == "number" and c.distinct), None)
            if column is None:
                continue
            by = {"of": {"op": "extract", "call": call, "path": list(each.address)},
                  "path": list(column.path), "as": column.kind}  # fmt: skip
            plucked = {"op": "pluck", **by}
            ways["how many the first three are"] = {"op": "count", "of": {"op": "sort_take", **by, "n": 3}}
            ways["what a list has that itself has not"] = {
                "op": "count", "of": {"op": "difference", "left": plucked, "right": plucked},
            }  # fmt: skip
            ways["whether the greatest is as great as the least"] = {
                "op": "compare", "test": "ge", "left": {"op": "max", "of": plucked},
                "right": {"op": "min", "of": plucked},
            }  # fmt: skip
        way = rng.choice(sorted(ways))
        if rng.random() < 0.5:
            asked = _about(
                task, task.calls[call], "what is noted", {"noted": renumbered(ways[way], {call: 0})}, {}
            )
            yield Defect(f"{way}, alone", _with_fields(asked, asked.program.fields, world), world)
        else:
            said = _asked(task, f"{task.question} Say what is noted, too.")
            yield Defect(way, _with_fields(said, {**task.program.fields, "noted": ways[way]}, world), world)


def _arithmetic(operator: str, left: Expression, right: Expression) -> Expression:
    return {"op": "arithmetic", "operator": operator, "left": left, "right": right}


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- 5: a value that does not last ---


def test_a_volatile_value(good: list[Task], world: World, tally: Tally, tmp_path: Path) -> None:
    defects = [*_momentary(good, world, tmp_path), *_drifting(good, world, tmp_path)]
    judge("volatile value", ["determinism"], defects, tally)


STEADY = {"zone", "form", "version", "region", "workers", "pot"}
"""What the tools say that answer otherwise each time, and is the same each time."""


def _momentary(good: list[Task], world: World, folder: Path) -> Iterator[Defect]:
    """Times, random ids and the like: recorded often, or in one session only."""
    sessions = documents()
    for each in sessions[1:]:
        each["calls"] = [call for call in each["calls"] if call["server"] != "ops"]
    once = made(folder / "once.db", sessions)
    for where, its in (("recorded often", world), ("recorded once", once)):
        number = 0
        for exchange in its.store.exchanges(method="tools/call"):
            if exchange.call is None or exchange.call.tool.server != "ops":
                continue
            call = ReferenceCall(
                server="ops",
                tool=exchange.call.tool.name,
                arguments=exchange.call.arguments,
                exchange=exchange.id,
            )
            for leaf in leaves(its.tree(exchange.id)):
                if leaf.address[-1] in STEADY:
                    continue
                kind = "number" if _is_number(leaf.value) else "text"
                value = {"op": "extract", "call": 0, "path": list(leaf.address), "as": kind}
                asked = f"the {spoken(str(leaf.address[-1]))}"
                alone = _about(good[0], call, asked, {"told": value}, {"told": leaf.value})
                if number % 2:
                    yield Defect(f"{call.tool}, {where}", alone, its)
                else:
                    task = _moved(good[number % len(good)], its)
                    at_end = len(task.calls)
                    fields = {**task.program.fields, "told": {**value, "call": at_end}}
                    said = f"{task.question} And look at {_said(call)}: what is {asked}?"
                    mixed = _with_calls(task, [*task.calls, call], said)
                    yield Defect(f"{call.tool} beside others, {where}", _with_fields(mixed, fields, its), its)
                number += 1


def _drifting(good: list[Task], world: World, folder: Path) -> Iterator[Defect]:
    """Values that good tasks answer with, and that another recording of the call has otherwise."""
    rng = Random("drifting")
    changes: dict[str, Change] = {}
    hit: list[tuple[Task, str]] = []
    for task in good:
        trees = world.trees(task.calls)
        if any(_key(call) in changes for call in task.calls):
            continue
        found: list[Change] = []
        for expression in task.program.fields.values():
            if expression["op"] == "extract":
                leaf = at(trees[expression["call"]], expression["path"])
                found.append((_key(task.calls[expression["call"]]), tuple(expression["path"]),
                              _later(leaf, rng), "a value is another one"))  # fmt: skip
            rows = expression.get("of")
            if expression["op"] == "count" and isinstance(rows, dict) and rows["op"] == "extract":
                items = at(trees[rows["call"]], rows["path"])
                if isinstance(items, list):
                    longer = [*items, items[0]]
                    found.append((_key(task.calls[rows["call"]]), tuple(rows["path"]), longer, "a row more"))
        if found:
            change = rng.choice(found)
            changes[change[0]] = change
            hit.append((task, change[3]))
    other = _rerecorded(world, folder / "drifting.db", changes, sessions=(1,))
    for task, way in hit:
        yield Defect(way, _moved(task, other), other)
    for task, call, table, column, _ in _columns(good, world):
        if _key(call) in changes or column.values[0] == column.values[-1]:
            continue
        tree = world.tree(call.exchange)
        items = at(tree, table.address)
        changes[_key(call)] = (_key(call), table.address, [items[-1], *items[:-1]], "")
        first = {"op": "extract", "call": 0, "path": [*table.address, 0, *column.path], "as": column.kind}
        asked = f"the {column.name} of the first one in the list"
        hit.append((_about(task, call, asked, {"first": first}, {"first": column.values[0]}), "rows move"))
    moving = _rerecorded(world, folder / "moving.db", changes, sessions=(1,))
    for task, way in hit:
        if way == "rows move":
            yield Defect(way, _moved(task, moving), moving)


def _later(value: Json, rng: Random) -> Json:
    """Return what a value may be at another time."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 7))
    if isinstance(value, float):
        return round(value + rng.choice((-0.1, 0.3, 2)), 2)
    text = str(value)
    if text in ("yes", "no", "true", "false"):
        return {"yes": "no", "no": "yes", "true": "false", "false": "true"}[text]
    if text.isdigit():
        return str(int(text) + 1)
    return (
        f"{text[:-1]}{'b' if text[-1] == 'a' else 'a'}"
        if text[-1].isalpha()
        else f"{text[:-1]}{(int(text[-1]) + 1) % 10}"
    )


# --- 6: a task over again ---


def test_a_duplicate(good: list[Task], world: World, tally: Tally) -> None:
    kind = "duplicate"
    defects = list(_repeating(good, world))
    verdicts = duplicates([*good, *(each.task for each in defects)], world)[len(good) :]
    for defect, verdict in zip(defects, verdicts, strict=True):
        # That a kind of task is too frequent says nothing of likeness.
        caught = not verdict.passed and "enough tasks" not in verdict.reason
        tally.count(kind, defect.way, defect.task, meant=caught, other=False)
    expect(kind, tally)


def _repeating(good: list[Task], world: World) -> Iterator[Defect]:
    """Repeat each good task once, so that no repetition gives away another one."""
    rng = Random("repeating")
    for number, task in enumerate(good):
        fields = list(task.program.fields.items())
        match number % 8:
            case 0:
                yield Defect("the same question", _asked(task, task.question), world)
            case 1:
                other = rng.choice(
                    (task.question.upper(), f"{task.question}  ", task.question.replace(". ", ".\n"))
                )
                yield Defect("the same question in other letters or space", _asked(task, other), world)
            case 2:
                words = f"{_restyled(task.question)}"
                shuffled = dict(rng.sample(fields, len(fields)))
                changed = _with_fields(_asked(task, words), shuffled, world)
                yield Defect("fields in another order, restyled", changed, world)
            case 3:
                named = {f"value_{n}": each for n, (_, each) in enumerate(fields)}
                changed = _with_fields(_asked(task, _restyled(task.question)), named, world)
                yield Defect("fields under other names", changed, world)
            case 4 | 5:
                order = _other_order(task)
                if order is None:
                    yield Defect("restyled", _asked(task, _restyled(task.question)), world)
                    continue
                numbers = {old: new for new, old in enumerate(order)}
                changed = _with_calls(task, [task.calls[n] for n in order], _steps_renumbered(
                    _restyled(task.question), numbers), numbers)  # fmt: skip
                yield Defect("calls in another order, restyled", changed, world)
            case 6:
                yield Defect("a few other words", _asked(task, _synonyms(task.question, rng, 3)), world)
            case _:
                if len(fields) < 4:
                    yield Defect(
                        "many other words", _asked(task, _synonyms(_restyled(task.question), rng, 9)), world
                    )
                    continue
                fewer = dict(fields[:-1])
                changed = _with_fields(_asked(task, _restyled(task.question)), fewer, world)
                yield Defect("a field less, restyled", changed, world)


def _other_order(task: Task) -> list[int] | None:
    """Return another order in which the calls can be made, if there is one."""
    needs = defaultdict(set)
    for argument in task.program.arguments:
        needs[argument.call] |= calls_of(argument.value)
    order: list[int] = []
    while len(order) < len(task.calls):
        free = [n for n in range(len(task.calls)) if n not in order and needs[n] <= set(order)]
        order.append(free[-1])
    return order if order != sorted(order) else None


def _restyled(question: str) -> str:
    """Return a question with its steps numbered in another style, and asked for with another verb."""
    text = question
    for other, verb in (("Report", "Tell me"), ("Tell me", "Give"), ("Give", "State"), ("State", "Report")):
        if f" {other} " in text:
            text = text.replace(f" {other} ", f" {verb} ", 1)
            break
    if re.search(r"\(1\) ", text):
        text = re.sub(r"(?<!from )\((\d)\) (\w)", lambda m: f"Step {m[1]}: {m[2].lower()}", text)
        return re.sub(r"from \((\d)\)", r"from step \1", text)
    if "Work in " in text:
        text = re.sub(r"Work in \w+ steps\. ", "", text)
        return re.sub(r"Step (\d): (\w)", lambda m: f"({m[1]}) {m[2].upper()}", text)
    names = ("first", "second", "third", "fourth", "fifth")
    text = re.sub(r"(?:First|Then|Next|After that),? (\w)", lambda m: m[1].upper(), text)
    for number, name in enumerate(names, 1):
        text = text.replace(f"from the {name} result", f"from call {number}")
    return text


def _steps_renumbered(question: str, numbers: dict[int, int]) -> str:
    def other(found: re.Match[str]) -> str:
        return f"{found[1]}{numbers.get(int(found[2]) - 1, int(found[2]) - 1) + 1}"

    return re.sub(r"((?:[Ss]tep|call) |\()(\d)(?!\d)", other, question)


_SYNONYMS = {
    "Look up": "Search for",
    "look up": "search for",
    "Find out about": "See what is known of",
    "find out about": "see what is known of",
    "Get": "Fetch",
    "get": "fetch",
    "Check": "Inspect",
    "check": "inspect",
    "List": "Enumerate",
    "list": "enumerate",
    "Please": "Kindly",
    "Report": "Name",
    "Tell me": "Let me know",
    "State": "Write down",
    "Give": "Return",
    "highest": "greatest",
    "lowest": "least",
    "entries": "rows",
    "entry": "row",
    "given": "where it is about",
    "whose": "with a",
    "number of": "count of",
    "earliest": "first",
    "latest": "last",
}


def _synonyms(question: str, rng: Random, most: int) -> str:
    found = [word for word in sorted(_SYNONYMS) if f"{word} " in question]
    for word in rng.sample(found, min(most, len(found))):
        question = question.replace(f"{word} ", f"{_SYNONYMS[word]} ")
    return question


# --- 7: a field that no output supports ---


def test_an_unsupported_field(good: list[Task], world: World, tally: Tally) -> None:
    judge("unsupported field", ["program re-derivation"], _unsupported(good, world), tally)


def _unsupported(good: list[Task], world: World) -> Iterator[Defect]:
    rng = Random("unsupported")
    for number, task in enumerate(good):
        name = rng.choice(sorted(task.answer))
        value = task.answer[name]
        schema = deepcopy(task.answer_schema)
        match number % 8:
            case 0:
                schema["properties"]["colour"] = {"type": "string", "description": "The colour"}
                schema["required"].append("colour")
                answer = {**task.answer, "colour": "green"}
                changed = task.model_copy(update={"answer": answer, "answer_schema": schema})
                yield Defect("made up, answered and declared", changed, world)
            case 1:
                schema["properties"]["remarks"] = {"type": "string", "description": "Remarks"}
                schema["required"].append("remarks")
                yield Defect(
                    "declared and not answered", task.model_copy(update={"answer_schema": schema}), world
                )
            case 2:
                answer = {**task.answer, "note": "none"}
                yield Defect("answered and not declared", task.model_copy(update={"answer": answer}), world)
            case 3 | 4:
                answer = {**task.answer, name: _wrong(value, rng)}
                yield Defect("another value is stored", task.model_copy(update={"answer": answer}), world)
            case 5:
                fields = deepcopy(task.program.fields)
                extracts = [each for each in _inner(fields.values()) if each["op"] == "extract"]
                broken = rng.choice(extracts)
                broken["path"] = [*broken["path"], rng.choice(("details", "value", 99))]
                program = task.program.model_copy(update={"fields": fields})
                yield Defect(
                    "read from where nothing stands", task.model_copy(update={"program": program}), world
                )
            case 6:
                known = {c.exchange: c for other in good for c in other.calls if c.ref == task.calls[-1].ref}
                others = [known[key] for key in sorted(known) if key != task.calls[-1].exchange]
                if not others or not any(
                    len(task.calls) - 1 in calls_of(e) for e in task.program.fields.values()
                ):
                    continue
                calls = [*task.calls[:-1], rng.choice(others)]
                changed = task.model_copy(update={"calls": calls})
                if _answer(task.program, calls, world) != task.answer:
                    yield Defect("answered from another call's output", changed, world)
            case _:
                text = str(value) if not isinstance(value, list) else ", ".join(map(str, value))
                if text != value:
                    answer = {**task.answer, name: text}
                    yield Defect("stored as a text", task.model_copy(update={"answer": answer}), world)


def _wrong(value: Json, rng: Random) -> Json:
    if isinstance(value, list):
        return rng.choice((value[:-1], [*value, value[0]], [*value[1:], "Orsolet"]))
    return _later(value, rng)


# --- 8: something that the question does not say ---


def test_a_missing_argument(good: list[Task], world: World, tally: Tally) -> None:
    judge("missing argument", ["provenance"], _missing(good, world), tally)


def test_a_missing_value_that_rows_are_picked_by(good: list[Task], world: World, tally: Tally) -> None:
    judge("missing row value", ["provenance"], _unpicked(good, world), tally)


def _missing(good: list[Task], world: World) -> Iterator[Defect]:
    rng = Random("missing")
    for task in good:
        bound = {(argument.call, argument.path) for argument in task.program.arguments}
        for number, call in enumerate(task.calls):
            for path, value in argument_leaves(call.arguments):
                said = f"{spoken(str(path[0]))}: {shown(value)}"
                if (number, path) in bound or said not in task.question:
                    continue
                yield from _without(task, spoken(str(path[0])), said, value, rng, world)


def _unpicked(good: list[Task], world: World) -> Iterator[Defect]:
    """A row is picked by a value that the question leaves out or has wrong."""
    rng = Random("unpicked")
    for task in good:
        for each in _inner(_expressions(task)):
            if each["op"] != "filter" or each["value"]["op"] != "const":
                continue
            value = each["value"]["value"]
            said = f"is {shown(value)}"
            if isinstance(value, str) and len(value) > 3 and said in task.question:
                yield from _without(task, "is", said, value, rng, world)
                break


def _without(task: Task, name: str, said: str, value: Json, rng: Random, world: World) -> Iterator[Defect]:
    way = rng.choice(
        ("left out", "it", "a character wrong", "a character less", "a character more", "turned")
    )
    text = str(value)
    place = rng.randrange(len(text))
    if way == "left out":
        told = ""
    elif way == "it":
        told = f"{name} {rng.choice(('it', 'that one', 'the one I mentioned', 'the usual'))}"
    elif way == "turned":
        turned = text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
        told = said.replace(text, turned)
    else:
        letter = rng.choice("abcdefgh" if text[place].isalpha() else "123456789")
        broken = {
            "a character wrong": text[:place] + letter + text[place + 1 :],
            "a character less": text[:place] + text[place + 1 :],
            "a character more": text[:place] + letter + text[place:],
        }[way]  # fmt: skip
        told = said.replace(text, broken)
    question = task.question.replace(said, told)
    # What is said elsewhere as well is not missing, unless it is a number that stands for something else.
    is_there = isinstance(value, str) and text.lower() in question.lower()
    if told.lower() != said.lower() and not is_there:
        yield Defect(way, _asked(task, question), world)


# --- what defects are made with ---


def _asked(task: Task, question: str) -> Task:
    return task.model_copy(update={"question": question, "task_id": f"{task.task_id}-defect"})


def _with_calls(
    task: Task, calls: list[ReferenceCall], question: str, numbers: dict[int, int] | None = None
) -> Task:
    """Return a task over other calls; its program reads them under new numbers, if given."""
    program = task.program
    if numbers is not None:
        program = AnswerProgram(
            fields={name: renumbered(each, numbers) for name, each in program.fields.items()},
            arguments=tuple(
                argument.model_copy(
                    update={"call": numbers[argument.call], "value": renumbered(argument.value, numbers)}
                )
                for argument in program.arguments
            ),
        )
    tools = [Tool(server=ref.server, name=ref.name) for ref in dict.fromkeys(call.ref for call in calls)]
    servers = sorted({call.server for call in calls})
    update = {"calls": calls, "program": program, "tools": tools, "servers": servers}
    return _asked(task, question).model_copy(update=update)


def _with_fields(task: Task, fields: dict[str, Expression], world: World) -> Task:
    """Return a task with other fields, and the answer and schema that go with them."""
    program = AnswerProgram(fields=fields, arguments=task.program.arguments)
    answer = _answer(program, task.calls, world)
    return task.model_copy(update={"program": program, "answer": answer, "answer_schema": _schema(answer)})


def _about(
    task: Task, call: ReferenceCall, words: str, fields: dict[str, Expression], answer: dict[str, Json]
) -> Task:
    """Return a task over one call."""
    question = f"Look at {_said(call)}. Tell me {words}."
    program = AnswerProgram(fields=fields)
    alone = task.model_copy(update={"program": program, "answer": answer, "answer_schema": _schema(answer)})
    return _with_calls(alone, [call], question)


def _said(call: ReferenceCall) -> str:
    given = "; ".join(f"{spoken(name)}: {shown(value)}" for name, value in call.arguments.items())
    return f"{spoken(call.tool)}{f' ({given})' if given else ''}"


def _answer(program: AnswerProgram, calls: list[ReferenceCall], world: World) -> dict[str, Json]:
    try:
        return run(program, world.trees(calls)).answer
    except ProgramError:
        return {}


def _schema(answer: dict[str, Json]) -> dict[str, Any]:
    types = {bool: "boolean", int: "integer", float: "number", str: "string"}
    properties = {
        name: {"type": "array", "items": {"type": types[type(value[0])] if value else "string"}}
        if isinstance(value, list)
        else {"type": types[type(value)]}
        for name, value in answer.items()
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(answer),
        "additionalProperties": False,
    }


def _expressions(task: Task) -> list[Expression]:
    return [*task.program.fields.values(), *(argument.value for argument in task.program.arguments)]


def _inner(expressions: Iterable[Json]) -> Iterator[Expression]:
    """Yield expressions and all that they are made of."""
    for each in expressions:
        if isinstance(each, dict):
            if "op" in each:
                yield each
            yield from _inner(
                value for name, value in each.items() if name != "value" or each.get("op") != "const"
            )
        elif isinstance(each, list):
            yield from _inner(each)


def _key(call: ReferenceCall) -> str:
    return canonical_json([call.server, call.tool, call.arguments])


def _rerecorded(world: World, path: Path, changes: dict[str, Change], sessions: Sequence[int]) -> World:
    """Record the town with other values in the outputs of some calls, in the sessions of these numbers."""
    trees: dict[str, Json] = {}
    for exchange in world.store.exchanges(method="tools/call"):
        if exchange.call is not None:
            key = canonical_json([*exchange.call.tool, exchange.call.arguments])
            trees.setdefault(key, world.tree(exchange.id))
    told = documents()
    for number, session in enumerate(told):
        for call in session["calls"]:
            key = canonical_json([call["server"], call["tool"], call["arguments"]])
            if key not in changes:
                continue
            _, address, value, _ = changes[key]
            # Both ways in JSON, so that nothing else differs.
            tree = replaced(trees[key], address, value) if number in sessions else trees[key]
            call["output"] = json.dumps(tree)
    return made(path, told)


def _moved(task: Task, world: World) -> Task:
    """Return a task that cites the same calls in another recording."""
    exchanges = _exchanges(world)
    calls = [call.model_copy(update={"exchange": exchanges[_key(call)]}) for call in task.calls]
    return task.model_copy(update={"calls": calls})


_KNOWN: WeakKeyDictionary[World, dict[str, int]] = WeakKeyDictionary()


def _exchanges(world: World) -> dict[str, int]:
    """Return the first exchange of each call."""
    if world not in _KNOWN:
        found: dict[str, int] = {}
        for exchange in world.store.exchanges(method="tools/call"):
            if exchange.call is not None:
                key = canonical_json([*exchange.call.tool, exchange.call.arguments])
                found.setdefault(key, exchange.id)
        _KNOWN[world] = found
    return _KNOWN[world]
