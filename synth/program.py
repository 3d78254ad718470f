"""An answer as a program over outputs: operations as data, and what they mean.

A program names the outputs it reads by the number of their call. Its fields make the answer; its arguments
say which argument of a later call comes out of earlier outputs. An expression is an object with `op` and
what `OPERATIONS` lists for it; where an operand is itself an expression, it is written in place.

    {"op": "extract", "call": 0, "path": ["total"], "as": "number"}
    {"op": "get", "of": {"op": "argmax", "of": ROWS, "path": ["size"], "as": "size"}, "path": ["name"],
    "as": "text"}

Evaluation is pure and total: it returns an answer, or raises `ProgramError` and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from recorder.canonical import canonical_json
from recorder.exchange import Json, NoReply, Outcome, Record, RpcError, ToolResult
from synth.values import Address, WrongKind, as_kind, at, items_of, moment, number, read, replaced

Expression = dict[str, Any]

Failure = Literal[
    "no output",  # a call failed, or is not there
    "missing",  # nothing stands at an address
    "wrong kind",  # what stands there is something else
    "ambiguous",  # two or more fit where one is asked for
    "empty",  # a list has nothing to take from
    "undefined",  # arithmetic has no result
    "malformed",  # not a program
]

DEEPEST = 32
"""Expressions within each other."""

DEEPEST_CONSTANT = 8
"""Lists within each other."""

DIGITS = 6
"""Decimal places that sums, means and arithmetic are rounded to, unless `round` says otherwise: binary
fractions differ beyond with the order of the terms."""


class ProgramError(Exception):
    """An expression has no value."""

    def __init__(self, kind: Failure, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail = kind, detail


class Argument(Record):
    """An argument that comes out of earlier outputs."""

    call: int = Field(ge=0)
    """Number of the call that has it, from 0."""
    path: tuple[str | int, ...]
    """Where in its arguments it stands."""
    value: Expression

    @field_validator("value")
    @classmethod
    def _is_expression(cls, value: Expression) -> Expression:
        check(value)
        return value


class AnswerProgram(Record):
    fields: dict[str, Expression]
    """Field of the answer → its value, in the order of the answer."""
    arguments: tuple[Argument, ...] = ()

    @field_validator("fields")
    @classmethod
    def _are_expressions(cls, fields: dict[str, Expression]) -> dict[str, Expression]:
        if not fields:
            raise ValueError("a program needs at least one field")
        for expression in fields.values():
            check(expression)
        return fields


class Read(NamedTuple):
    """A node of an output that a program looked at."""

    call: int
    address: Address
    whole: bool
    """Whether it matters how many items the node has, and not what it is."""


@dataclass(slots=True)
class Evaluation:
    """What came of a program."""

    answer: dict[str, Json]
    reads: dict[Read, None] = field(default_factory=dict)
    by_field: dict[str, list[Read]] = field(default_factory=dict)


def evaluate(program: AnswerProgram, outcomes: Sequence[Outcome | None]) -> dict[str, Json]:
    """Return the answer: the value of each field, from what came of the calls, in their order.

    Raises:
        ProgramError: a field has no value.
    """
    return run(program, [tree_of(outcome) for outcome in outcomes]).answer


def tree_of(outcome: Outcome | None) -> Json:
    """Return an outcome as a program reads it; `NOTHING` where there is no output."""
    match outcome:
        case ToolResult(result=result) if not outcome.is_error:
            return read(result)
        case None | ToolResult() | RpcError() | NoReply():
            return NOTHING
    return NOTHING


class _Nothing:
    """Stands for the output of a call that was not made, or gave none."""


NOTHING = _Nothing()


def run(program: AnswerProgram, trees: Sequence[Json]) -> Evaluation:
    """Evaluate over outputs that are read already, and keep what was looked at.

    Raises:
        ProgramError: a field has no value.
    """
    found = Evaluation({})
    for name, expression in program.fields.items():
        found.answer[name], found.by_field[name] = look(expression, trees)
        found.reads.update(dict.fromkeys(found.by_field[name]))
    return found


def arguments_of(
    program: AnswerProgram, call: int, arguments: Mapping[str, Json], trees: Sequence[Json]
) -> dict[str, Json]:
    """Return a call's arguments, with what comes out of earlier outputs put in.

    Raises:
        ProgramError: one of them has no value.
    """
    made: dict[str, Json] = dict(arguments)
    for argument in program.arguments:
        if argument.call == call:
            value = _Machine(trees[:call]).plain(argument.value)
            try:
                made = replaced(made, argument.path, value)
            except (LookupError, ValueError, TypeError) as error:
                raise ProgramError("malformed", f"call {call} has no argument {argument.path}") from error
    return made


def look(expression: Expression, trees: Sequence[Json]) -> tuple[Json, list[Read]]:
    """Return the value of an expression, and what it looked at.

    Raises:
        ProgramError: it has no value.
    """
    machine = _Machine(trees)
    return machine.plain(expression), list(machine.reads)


def calls_of(expression: Json) -> set[int]:
    """Return the numbers of the calls that an expression reads."""
    if isinstance(expression, dict):
        own = {expression["call"]} if expression.get("op") == "extract" else set()
        return own.union(*(calls_of(inner) for inner in expression.values()))
    if isinstance(expression, list):
        return set().union(*map(calls_of, expression))
    return set()


def operations_of(expression: Json) -> list[str]:
    """Return the operations of an expression, outermost first."""
    found: list[str] = []
    if isinstance(expression, dict):
        if isinstance(op := expression.get("op"), str):
            found.append(op)
        for name, inner in expression.items():
            if name not in ("op", "path", "left_path", "right_path") and not (
                op == "const" and name == "value"
            ):
                found += operations_of(inner)
    elif isinstance(expression, list):
        for inner in expression:
            found += operations_of(inner)
    return found


def renumbered(expression: Json, numbers: Mapping[int, int]) -> Json:
    """Return an expression that reads other calls."""
    if isinstance(expression, dict):
        if expression.get("op") == "const":
            return expression
        changed = {name: renumbered(inner, numbers) for name, inner in expression.items()}
        if changed.get("op") == "extract":
            changed["call"] = numbers[expression["call"]]
        return changed
    if isinstance(expression, list):
        return [renumbered(inner, numbers) for inner in expression]
    return expression


# --- checking ---


def check(expression: Json, depth: int = 0) -> None:
    """Check that an expression has the form of one.

    Raises:
        ValueError: it has not.
    """
    if depth > DEEPEST:
        raise ValueError(f"an expression goes deeper than {DEEPEST}")
    op = expression.get("op") if isinstance(expression, dict) else None
    if not isinstance(op, str) or op not in OPERATIONS:
        known = ", ".join(OPERATIONS)
        shown = op if isinstance(expression, dict) else expression
        raise ValueError(f"no operation {_brief(shown)} (operations: {known})")
    operation = OPERATIONS[op]
    missing = [
        name for name, form in operation.operands.items() if name not in expression and form[-1] != "?"
    ]
    foreign = [name for name in expression if name != "op" and name not in operation.operands]
    if missing or foreign:
        wrong = f"lacks {missing[0]!r}" if missing else f"has no operand {foreign[0]!r}"
        raise ValueError(f"operation {expression['op']!r} {wrong}")
    for name, value in expression.items():
        if name == "op":
            continue
        form = operation.operands[name].rstrip("?")
        if form == "expression":
            check(value, depth + 1)
        elif form == "expressions":
            if not isinstance(value, list) or not value:
                raise ValueError(f"{name!r} of {expression['op']!r} must be a list of expressions")
            for inner in value:
                check(inner, depth + 1)
        elif not _FORMS[form](value):
            raise ValueError(f"{name!r} of {op!r} must be {form}, got {_brief(value)}")


def _brief(value: Json) -> str:
    """Show a value in few characters; one may be nested deeper than `repr` goes."""
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return type(value).__name__


def _is_path(value: Json) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(step, str) or (isinstance(step, int) and not isinstance(step, bool) and step >= 0)
        for step in value
    )


def _is_count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000


def _is_plain(value: Json, depth: int = 0) -> bool:
    """Whether a value is plain and finite, or a list of such, within each other at most a few times."""
    if isinstance(value, list):
        return depth < DEEPEST_CONSTANT and all(_is_plain(item, depth + 1) for item in value)
    return isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value))


TESTS = ("eq", "ne", "lt", "le", "gt", "ge", "contains", "starts", "ends")
OPERATORS = ("add", "subtract", "multiply", "divide", "percent")
UNITS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
KINDS = ("boolean", "number", "date", "duration", "size", "id", "text")

_FORMS: dict[str, Callable[[Json], bool]] = {
    "path": _is_path,
    "count": _is_count,
    "plain": _is_plain,
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "kind": lambda value: isinstance(value, str) and value in KINDS,
    "test": lambda value: isinstance(value, str) and value in TESTS,
    "operator": lambda value: isinstance(value, str) and value in OPERATORS,
    "unit": lambda value: isinstance(value, str) and value in UNITS,
}


# --- evaluating ---


class _Node(NamedTuple):
    """A value on its way, and where it stands in an output, if it does."""

    value: Json
    call: int = -1
    address: Address = ()

    def child(self, path: Sequence[str | int]) -> _Node:
        try:
            value = at(self.value, path)
        except (LookupError, TypeError):
            raise ProgramError("missing", f"nothing at {_shown([*self.address, *path])}") from None
        return _Node(value, self.call, (*self.address, *path)) if self.call >= 0 else _Node(value)


class _Machine:
    """One evaluation: the outputs it reads, and what it has looked at."""

    def __init__(self, trees: Sequence[Json]) -> None:
        self._trees = trees
        self.reads: dict[Read, None] = {}

    def plain(self, expression: Expression) -> Json:
        """Return a value that stands in no output, everything that it is made of looked at."""
        try:
            return self._look(self.value(expression))
        except WrongKind as error:
            raise ProgramError("wrong kind", str(error)) from error
        except RecursionError as error:
            raise ProgramError("malformed", "too deep") from error
        except TypeError as error:
            # What was checked has the right operands, so these are values that cannot be compared.
            raise ProgramError("wrong kind", str(error)) from error
        except (KeyError, AttributeError) as error:
            raise ProgramError("malformed", f"{type(error).__name__}: {error}") from error
        except (OverflowError, ArithmeticError, ValueError) as error:
            raise ProgramError("undefined", str(error)) from error

    def value(self, expression: Expression) -> Any:
        return OPERATIONS[expression["op"]].run(self, expression)

    def root(self, call: int) -> _Node:
        if not 0 <= call < len(self._trees) or isinstance(self._trees[call], _Nothing):
            raise ProgramError("no output", f"call {call} gave no output")
        return _Node(self._trees[call], call, ())

    def rows(self, expression: Expression) -> list[_Row]:
        """Return a list's items, or the members of an object as `{key, value}`."""
        found = self.value(expression)
        if isinstance(found, list):
            return [row if isinstance(row, _Node | _Record) else _Node(row) for row in found]
        if not isinstance(found, _Node):
            raise WrongKind(f"{_shown(found)} has no items")
        if isinstance(found.value, list):
            return [found.child([number]) for number in range(len(found.value))]
        members = items_of(found.value)
        # The name of a member has no address of its own; its value has.
        return [
            _Record({"key": _Node(member["key"]), "value": found.child([member["key"]])})
            for member in members
        ]

    def column(self, row: _Row, expression: Expression) -> Any:
        found = row.child(expression["path"])
        return self._typed(found, expression.get("as"))

    def _typed(self, node: _Node, kind: str | None) -> Any:
        if kind is None:
            return node
        if isinstance(node.value, dict | list) or node.value is None:
            raise WrongKind(f"{_shown(node.value)} is no {kind}")
        self._note(node)
        return as_kind(node.value, kind)

    def _note(self, node: _Node) -> None:
        if node.call >= 0:
            self.reads[Read(node.call, node.address, False)] = None

    def _look(self, found: Any) -> Json:
        if isinstance(found, _Node):
            self._note(found)
            if isinstance(found.value, float) and not math.isfinite(found.value):
                raise WrongKind(f"{found.value} is no finite number")
            return found.value
        if isinstance(found, _Record):
            return {name: self._look(part) for name, part in found.parts.items()}
        if isinstance(found, list):
            return [self._look(item) for item in found]
        return found

    def plains(self, expression: Expression) -> list[Json]:
        found = self.value(expression)
        if isinstance(found, _Node):
            found = self.rows(expression)
        if not isinstance(found, list):
            raise WrongKind(f"{_shown(found)} is no list")
        return [self._look(item) for item in found]

    # The operations, in the order of the table below.

    def const(self, e: Expression) -> Json:
        return e["value"]

    def extract(self, e: Expression) -> Any:
        return self._typed(self.root(e["call"]).child(e["path"]), e.get("as"))

    def get(self, e: Expression) -> Any:
        found, path = self.value(e["of"]), e["path"]
        if isinstance(found, list):
            # Rows that were picked out of a list: the first step says which.
            if not path:
                if "as" in e:
                    raise WrongKind(f"a list is no {e['as']}")
                return found
            number, path = path[0], path[1:]
            if not isinstance(number, int) or number >= len(found):
                raise ProgramError("missing", f"no item {number!r} of {len(found)}")
            found = found[number]
        row = found if isinstance(found, _Node | _Record) else _Node(found)
        if isinstance(row, _Record) and not path:
            return row
        return self._typed(row.child(path), e.get("as"))

    def only(self, e: Expression) -> Any:
        rows = self.rows(e["of"])
        if len(rows) != 1:
            raise ProgramError("ambiguous" if rows else "empty", f"{len(rows)} fit where one is asked for")
        return rows[0]

    def item(self, e: Expression) -> Any:
        rows = self.rows(e["of"])
        if e["number"] >= len(rows):
            raise ProgramError("missing", f"no item {e['number']} of {len(rows)}")
        row = rows[e["number"]]
        return self._typed(row, e["as"]) if "as" in e and isinstance(row, _Node) else row

    def count(self, e: Expression) -> int:
        found = self.value(e["of"])
        if isinstance(found, _Node) and found.call >= 0:
            self.reads[Read(found.call, found.address, True)] = None
        return len(found) if isinstance(found, list) else len(self.rows(e["of"]))

    def filter(self, e: Expression) -> list[_Row]:
        value = self.plain(e["value"])
        return [row for row in self.rows(e["of"]) if _test(e["test"], self.column(row, e), value)]

    def pluck(self, e: Expression) -> list[Json]:
        return [self._look(self.column(row, e)) for row in self.rows(e["of"])]

    def distinct(self, e: Expression) -> list[Json]:
        return _sorted_set(self.plains(e["of"]))

    def sum(self, e: Expression) -> int | float:
        return _rounded(sum(map(_exact, self.plains(e["of"])), Fraction()))

    def mean(self, e: Expression) -> int | float:
        values = _some(self.plains(e["of"]))
        return _rounded(sum(map(_exact, values), Fraction()) / len(values))

    def min(self, e: Expression) -> Json:
        return min(_some(self.plains(e["of"])), key=_order)

    def max(self, e: Expression) -> Json:
        return max(_some(self.plains(e["of"])), key=_order)

    def argmax(self, e: Expression) -> _Row:
        return self._best(e, largest=True)

    def argmin(self, e: Expression) -> _Row:
        return self._best(e, largest=False)

    def _best(self, e: Expression, *, largest: bool) -> _Row:
        rows: list[_Row] = _some(self.rows(e["of"]))
        keys = [_order(self.column(row, e)) for row in rows]
        best = max(keys) if largest else min(keys)
        if keys.count(best) > 1:
            raise ProgramError("ambiguous", f"{keys.count(best)} rows are equally far out")
        return rows[keys.index(best)]

    def sort_take(self, e: Expression) -> list[_Row]:
        rows = self.rows(e["of"])
        if len(rows) < e["n"] or e["n"] < 1:
            raise ProgramError("empty", f"{e['n']} of {len(rows)} rows")
        keyed = sorted(
            ((_order(self.column(row, e)), number) for number, row in enumerate(rows)),
            key=lambda pair: pair[0],
            reverse=e.get("descending", False),
        )
        for (key, _), (next_key, _) in pairwise(keyed[: e["n"] + 1]):
            if key == next_key:
                raise ProgramError("ambiguous", "rows among the taken are equal in what they are sorted by")
        return [rows[number] for _, number in keyed[: e["n"]]]

    def union(self, e: Expression) -> list[Json]:
        return _sorted_set([*self.plains(e["left"]), *self.plains(e["right"])])

    def intersection(self, e: Expression) -> list[Json]:
        right = {canonical_json(value) for value in self.plains(e["right"])}
        return _sorted_set([value for value in self.plains(e["left"]) if canonical_json(value) in right])

    def difference(self, e: Expression) -> list[Json]:
        right = {canonical_json(value) for value in self.plains(e["right"])}
        return _sorted_set([value for value in self.plains(e["left"]) if canonical_json(value) not in right])

    def join(self, e: Expression) -> list[_Record]:
        kind = e.get("as", "text")
        left, right = self.rows(e["left"]), self.rows(e["right"])
        by_key: dict[str, _Row] = {}
        for row in right:
            key = canonical_json(self._look(self.column(row, {"path": e["right_path"], "as": kind})))
            if key in by_key:
                raise ProgramError("ambiguous", f"the key {key} is there twice")
            by_key[key] = row
        joined = []
        for row in left:
            key = canonical_json(self._look(self.column(row, {"path": e["left_path"], "as": kind})))
            if key in by_key:
                joined.append(_Record({"left": row, "right": by_key[key]}))
        return joined

    def date_difference(self, e: Expression) -> int | float:
        start, end = self._moment(e["start"]), self._moment(e["end"])
        seconds = Fraction((end - start) // _MICROSECOND, 1_000_000)
        return _rounded(seconds / UNITS[e["unit"]])

    def _moment(self, expression: Expression) -> datetime:
        found = moment(self.plain(expression))
        if isinstance(found, datetime):
            return found.astimezone(UTC)
        return datetime.combine(found, time(), tzinfo=UTC)

    def arithmetic(self, e: Expression) -> int | float:
        left, right = _exact(self.plain(e["left"])), _exact(self.plain(e["right"]))
        match e["operator"]:
            case "add":
                return _rounded(left + right)
            case "subtract":
                return _rounded(left - right)
            case "multiply":
                return _rounded(left * right)
        if right == 0:
            raise ProgramError("undefined", "division by zero")
        return _rounded(left / right if e["operator"] == "divide" else 100 * left / right)

    def compare(self, e: Expression) -> bool:
        return _test(e["test"], self.plain(e["left"]), self.plain(e["right"]))

    def choose(self, e: Expression) -> Json:
        return self.plain(e["then"] if self.plain(e["if"]) is True else e["else"])

    def round(self, e: Expression) -> int | float:
        return _rounded(_exact(self.plain(e["of"])), e["digits"])

    def format(self, e: Expression) -> str:
        parts = [str(as_kind(self.plain(part), "text")) for part in e["of"]]

        def part(found: re.Match[str]) -> str:
            place = int(found[1])
            return parts[place] if place < len(parts) else found[0]

        # At once, since what is put in may look like a place, too.
        return re.sub(r"\{(\d{1,4})\}", part, e["template"])


class _Record(NamedTuple):
    """A row put together from nodes that stand apart: a member and its name, or two rows that were joined."""

    parts: dict[str, _Row]

    def child(self, path: Sequence[str | int]) -> _Node:
        if not path or path[0] not in self.parts:
            raise ProgramError("missing", f"such a row has {', '.join(self.parts)}, and no {_shown(path)}")
        return self.parts[str(path[0])].child(path[1:])


_Row = _Node | _Record


class Operation(NamedTuple):
    run: Callable[[_Machine, Expression], Any]
    operands: Mapping[str, str]
    """Name → form; with `?` where it may be left out."""
    meaning: str


_ROWS, _COLUMN = {"of": "expression"}, {"path": "path", "as": "kind"}
_BOTH = {"left": "expression", "right": "expression"}

OPERATIONS: dict[str, Operation] = {
    "const": Operation(_Machine.const, {"value": "plain"}, "the value itself"),
    "extract": Operation(_Machine.extract, {"call": "count", "path": "path", "as": "kind?"},
                         "the node at `path` of a call's output, read as a kind"),
    "get": Operation(_Machine.get, {**_ROWS, "path": "path", "as": "kind?"}, "the node at `path` of a row"),
    "only": Operation(_Machine.only, _ROWS, "the one item of a list"),
    "item": Operation(_Machine.item, {**_ROWS, "number": "count", "as": "kind?"}, "an item of a list,"
        " from 0"),
    "count": Operation(_Machine.count, _ROWS, "how many items a list has"),
    "filter": Operation(_Machine.filter, {**_ROWS, **_COLUMN, "test": "test", "value": "expression"},
                        "the rows whose value at `path` passes the test"),
    "pluck": Operation(_Machine.pluck, {**_ROWS, **_COLUMN}, "the value at `path` of each row"),
    "distinct": Operation(_Machine.distinct, _ROWS, "each value once, sorted"),
    "sum": Operation(_Machine.sum, _ROWS, "of numbers"),
    "mean": Operation(_Machine.mean, _ROWS, "of numbers"),
    "min": Operation(_Machine.min, _ROWS, "the least value"),
    "max": Operation(_Machine.max, _ROWS, "the greatest value"),
    "argmax": Operation(_Machine.argmax, {**_ROWS, **_COLUMN}, "the one row with the greatest value at"
        " `path`"),
    "argmin": Operation(_Machine.argmin, {**_ROWS, **_COLUMN}, "the one row with the least value at `path`"),
    "sort_take": Operation(_Machine.sort_take, {**_ROWS, **_COLUMN, "n": "count", "descending": "flag?"},
                           "the first `n` rows by the value at `path`"),
    "union": Operation(_Machine.union, _BOTH, "what is in either list, sorted"),
    "intersection": Operation(_Machine.intersection, _BOTH, "what is in both lists, sorted"),
    "difference": Operation(_Machine.difference, _BOTH, "what is in the left list only, sorted"),
    "join": Operation(_Machine.join, {**_BOTH, "left_path": "path", "right_path": "path", "as": "kind?"},
                      "pairs `{left, right}` of rows with the same key"),
    "date_difference": Operation(_Machine.date_difference,
                                 {"start": "expression", "end": "expression", "unit": "unit"},
                                 "the time from `start` to `end`"),
    "arithmetic": Operation(_Machine.arithmetic, {**_BOTH, "operator": "operator"},
                            "`percent` is the left in percent of the right"),
    "compare": Operation(_Machine.compare, {**_BOTH, "test": "test"}, "whether the left passes the test"),
    "choose": Operation(_Machine.choose, {"if": "expression", "then": "expression", "else": "expression"},
                        "one of two values"),
    "round": Operation(_Machine.round, {**_ROWS, "digits": "count"}, "to decimal places, halves to even"),
    "format": Operation(_Machine.format, {"of": "expressions", "template": "text"},
                        "`{0}`, `{1}`… in a text replaced"),
}  # fmt: skip


_MICROSECOND = datetime.resolution


def _test(test: str, left: Json, right: Json) -> bool:
    match test:
        case "eq":
            return canonical_json(left) == canonical_json(right)
        case "ne":
            return canonical_json(left) != canonical_json(right)
        case "contains" | "starts" | "ends":
            text, part = str(as_kind(left, "text")), str(as_kind(right, "text"))
            if test == "contains":
                return part in text
            return text.startswith(part) if test == "starts" else text.endswith(part)
    one, other = _order(left), _order(right)
    below, above = bool(one < other), bool(one > other)
    return {"lt": below, "le": not above, "gt": above, "ge": not below}[test]


def _order(value: Json) -> Any:
    """Return what a value is ordered by. Numbers and texts are not ordered among each other."""
    if isinstance(value, _Node):
        value = value.value
    if isinstance(value, str):
        return _Text(value)
    return _exact(value)


class _Text(str):
    """A text that is not compared with a number."""

    __slots__ = ()


def _exact(value: Json) -> Fraction:
    found = number(value.value if isinstance(value, _Node) else value)
    # By its decimal form, so that 0.1 is a tenth.
    return Fraction(str(found)) if isinstance(found, float) else Fraction(found)


def _rounded(value: Fraction, digits: int = DIGITS) -> int | float:
    rounded = round(value, digits)
    return int(rounded) if rounded.denominator == 1 else float(rounded)


def _some(values: list[Any]) -> list[Any]:
    if not values:
        raise ProgramError("empty", "the list is empty")
    return values


def _sorted_set(values: Sequence[Json]) -> list[Json]:
    unique = {canonical_json(value): value for value in values}
    return [unique[key] for key in sorted(unique)]


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
