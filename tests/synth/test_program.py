"""Programs over outputs: what each operation means, how each fails, and what a program looked at."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from recorder.canonical import canonical_json
from recorder.exchange import Json, NoReply, RpcError, ToolResult
from synth.program import (
    DEEPEST,
    KINDS,
    NOTHING,
    OPERATIONS,
    OPERATORS,
    TESTS,
    UNITS,
    AnswerProgram,
    Argument,
    Expression,
    ProgramError,
    Read,
    arguments_of,
    calls_of,
    check,
    evaluate,
    look,
    operations_of,
    renumbered,
    run,
)
from synth.values import at, leaves, replaced

TREES: list[Json] = [
    {
        "trees": [
            {"name": "oak", "age": "1,200", "size": "3 KB", "cut": "2024-03-05", "leafy": "yes", "by": 7},
            {
                "name": "elm",
                "age": 35,
                "size": "20 B",
                "cut": "2024-01-02T10:00:00Z",
                "leafy": False,
                "by": 9,
            },
            {"name": "ash", "age": 35.5, "size": "1 KB", "cut": "2023-12-30", "leafy": True, "by": 7},
        ],
        "total": 3,
        "empty": [],
        "none": None,
        "took": "1.5 h",
    },
    {"7": {"who": "Ada"}, "9": {"who": "Ben"}, "11": {"who": "Cleo"}},
    [{"id": 7, "who": "Ada"}, {"id": 9, "who": "Ben"}],
    ["elm", "fir", "elm", "yew"],
    [0.1, 0.2, 0.3],
    NOTHING,
]
T = {"op": "extract", "call": 0, "path": ["trees"]}
PLAIN = {"op": "extract", "call": 3, "path": []}
TENTHS = {"op": "extract", "call": 4, "path": []}
OAK = {"op": "item", "of": T, "number": 0}


def const(value: Json) -> Expression:
    return {"op": "const", "value": value}


def extract(call: int, *path: str | int, kind: str | None = None) -> Expression:
    return {"op": "extract", "call": call, "path": list(path)} | ({"as": kind} if kind else {})


def pluck(path: str, kind: str, of: Expression = T) -> Expression:
    return {"op": "pluck", "of": of, "path": [path], "as": kind}


def where(path: str, kind: str, test: str, value: Json, of: Expression = T) -> Expression:
    return {"op": "filter", "of": of, "path": [path], "as": kind, "test": test, "value": const(value)}


def name_of(row: Expression) -> Expression:
    return {"op": "get", "of": row, "path": ["name"], "as": "text"}


def best(op: str, path: str, kind: str, of: Expression = T) -> Expression:
    return {"op": op, "of": of, "path": [path], "as": kind}


def arithmetic(operator: str, left: Json, right: Json) -> Expression:
    return {"op": "arithmetic", "operator": operator, "left": const(left), "right": const(right)}


def days(start: Json, end: Json, unit: str = "days") -> Expression:
    return {"op": "date_difference", "start": const(start), "end": const(end), "unit": unit}


def both(op: str, left: Json, right: Json) -> Expression:
    return {"op": op, "left": const(left), "right": const(right)}


def rounded(value: Json, digits: int) -> Expression:
    return {"op": "round", "of": const(value), "digits": digits}


def compare(left: Json, test: str, right: Json) -> Expression:
    return {"op": "compare", "left": const(left), "test": test, "right": const(right)}


def value_of(expression: Expression) -> Json:
    check(expression)
    return look(expression, TREES)[0]


JOINED = {
    "op": "join",
    "left": T,
    "right": extract(2),
    "left_path": ["by"],
    "right_path": ["id"],
    "as": "number",
}
TOP_TWO = {"op": "sort_take", "of": T, "path": ["age"], "as": "number", "n": 2, "descending": True}

MEANS: dict[str, tuple[Expression, Json]] = {
    "const": (const("x"), "x"),
    "const list": (const([1, "a"]), [1, "a"]),
    "extract": (extract(0, "trees", 0, "age", kind="number"), 1200),
    "extract text": (extract(0, "trees", 1, "age", kind="text"), "35"),
    "extract size": (extract(0, "trees", 0, "size", kind="size"), 3072),
    "extract date": (extract(0, "trees", 1, "cut", kind="date"), "2024-01-02T10:00:00Z"),
    "extract duration": (extract(0, "took", kind="duration"), 5400),
    "extract boolean": (extract(0, "trees", 0, "leafy", kind="boolean"), True),
    "extract whole": (extract(2), TREES[2]),
    "get": (name_of(OAK), "oak"),
    "only": (name_of({"op": "only", "of": where("name", "text", "eq", "elm")}), "elm"),
    "item": ({"op": "item", "of": PLAIN, "number": 1, "as": "text"}, "fir"),
    "item row": (name_of({"op": "item", "of": T, "number": 2}), "ash"),
    "count": ({"op": "count", "of": T}, 3),
    "count nothing": ({"op": "count", "of": extract(0, "empty")}, 0),
    "count members": ({"op": "count", "of": extract(1)}, 3),
    "filter": (pluck("name", "text", where("leafy", "boolean", "eq", True)), ["oak", "ash"]),
    "filter none": (pluck("name", "text", where("age", "number", "gt", 5000)), []),
    "pluck": (pluck("age", "number"), [1200, 35, 35.5]),
    "pluck members": (
        {"op": "pluck", "of": extract(1), "path": ["value", "who"], "as": "text"}, ["Ada", "Ben", "Cleo"],
    ),
    "pluck keys": ({"op": "pluck", "of": extract(1), "path": ["key"], "as": "text"}, ["7", "9", "11"]),
    "distinct": ({"op": "distinct", "of": PLAIN}, ["elm", "fir", "yew"]),
    "distinct numbers": ({"op": "distinct", "of": const([3, 3.0, 2])}, [2, 3]),
    "sum": ({"op": "sum", "of": pluck("age", "number")}, 1270.5),
    "sum of nothing": ({"op": "sum", "of": extract(0, "empty")}, 0),
    "mean": ({"op": "mean", "of": pluck("by", "number")}, 7.666667),
    "min": ({"op": "min", "of": pluck("name", "text")}, "ash"),
    "max": ({"op": "max", "of": pluck("cut", "date")}, "2024-03-05"),
    "argmax": (name_of(best("argmax", "size", "size")), "oak"),
    "argmin": (name_of(best("argmin", "cut", "date")), "ash"),
    "sort_take": (pluck("name", "text", TOP_TWO), ["oak", "ash"]),
    "sort_take up": (pluck("name", "text", {**TOP_TWO, "descending": False}), ["elm", "ash"]),
    "union": (both("union", ["b", "a"], ["c", "a"]), ["a", "b", "c"]),
    "intersection": (both("intersection", ["b", "a", "a"], ["c", "a"]), ["a"]),
    "difference": (both("difference", ["b", "a"], ["c", "a"]), ["b"]),
    "join": (
        {"op": "pluck", "of": JOINED, "path": ["right", "who"], "as": "text"}, ["Ada", "Ben", "Ada"],
    ),
    "date_difference": (days("2024-02-28", "2024-03-01"), 2),
    "date_difference back": (days("2024-03-01T00:00:00+02:00", "2024-02-29T21:00:00Z", "hours"), -1),
    "date_difference small": (days("2024-03-01T00:00:00.5Z", "2024-03-01", "seconds"), -0.5),
    "add": (arithmetic("add", 0.1, 0.2), 0.3),
    "subtract": (arithmetic("subtract", 1, 0.9), 0.1),
    "multiply": (arithmetic("multiply", 1.1, 1.1), 1.21),
    "divide": (arithmetic("divide", 1, 3), 0.333333),
    "percent": (arithmetic("percent", 1, 8), 12.5),
    "compare": (compare(2, "lt", 10), True),
    "compare texts": (compare("2", "lt", "10"), False),
    "choose": ({"op": "choose", "if": compare(1, "eq", 1.0), "then": const("a"), "else": const("b")}, "a"),
    "choose else": ({"op": "choose", "if": const(1), "then": const("a"), "else": const("b")}, "b"),
    "round": (rounded(2.5, 0), 2),
    "round half to even": (rounded(0.125, 2), 0.12),
    "round up": (rounded(3.146, 2), 3.15),
    "format": ({"op": "format", "template": "{1}/{0}!", "of": [const("a"), const(7.0)]}, "7/a!"),
}  # fmt: skip


@pytest.mark.parametrize("example", MEANS)
def test_each_operation_means_what_its_example_says(example: str) -> None:
    expression, value = MEANS[example]
    assert canonical_json(value_of(expression)) == canonical_json(value)


def test_there_is_an_example_of_each_operation() -> None:
    used = {name for expression, _ in MEANS.values() for name in operations_of(expression)}
    assert used == set(OPERATIONS)


@pytest.mark.parametrize(
    ("left", "test", "right", "found"),
    [
        (1, "eq", 1.0, True), (1, "eq", "1", False), (True, "eq", 1, False), (1, "ne", 2, True),
        (2, "le", 2, True), (2, "ge", 3, False), (3, "gt", 2.5, True), ("abc", "contains", "b", True),
        ("abc", "starts", "ab", True), ("abc", "ends", "ab", False), (1.5, "contains", 5, True),
        ("a", "lt", "b", True), ("B", "lt", "a", True),
    ],
)  # fmt: skip
def test_each_test_compares(left: Json, test: str, right: Json, found: bool) -> None:
    assert value_of(compare(left, test, right)) is found


def test_a_template_is_filled_once_whatever_is_filled_in() -> None:
    filled = {"op": "format", "template": "{0}-{1}", "of": [const("{1}"), const("x")]}
    assert value_of(filled) == "{1}-x"


FAILS: dict[str, tuple[Expression, str]] = {
    "a call without output": (extract(5), "no output"),
    "a call that is not there": (extract(17), "no output"),
    "no such member": (extract(0, "twigs"), "missing"),
    "no such item": (extract(0, "trees", 3), "missing"),
    "no item of that number": ({"op": "item", "of": T, "number": 3}, "missing"),
    "no such column": (pluck("height", "number"), "missing"),
    "no such part of a pair": ({"op": "pluck", "of": JOINED, "path": ["middle"], "as": "text"}, "missing"),
    "null": (extract(0, "none", kind="text"), "wrong kind"),
    "a list as a number": (extract(0, "trees", kind="number"), "wrong kind"),
    "a word as a number": (extract(0, "trees", 0, "name", kind="number"), "wrong kind"),
    "rows of a number": ({"op": "count", "of": extract(0, "total")}, "wrong kind"),
    "the sum of texts": ({"op": "sum", "of": pluck("name", "text")}, "wrong kind"),
    "a text that is no moment": (days("soon", "2024-01-01"), "wrong kind"),
    "a truth value in a text": ({"op": "format", "template": "{0}", "of": [const(True)]}, "wrong kind"),
    "two rows fit": ({"op": "only", "of": where("by", "number", "eq", 7)}, "ambiguous"),
    "two rows are best": (best("argmin", "by", "number"), "ambiguous"),
    "the last taken is as good as the first left": (
        {"op": "sort_take", "of": T, "path": ["by"], "as": "number", "n": 1}, "ambiguous",
    ),
    "two keys are the same": ({**JOINED, "left": extract(2), "right": T, "left_path": ["id"],
                               "right_path": ["by"]}, "ambiguous"),
    "no row fits": ({"op": "only", "of": where("name", "text", "eq", "fir")}, "empty"),
    "the least of nothing": ({"op": "min", "of": extract(0, "empty")}, "empty"),
    "the mean of nothing": ({"op": "mean", "of": extract(0, "empty")}, "empty"),
    "the best of nothing": (best("argmax", "x", "number", extract(0, "empty")), "empty"),
    "more than there are": ({**TOP_TWO, "n": 4}, "empty"),
    "none taken": ({**TOP_TWO, "n": 0}, "empty"),
    "division by zero": (arithmetic("divide", 1, 0), "undefined"),
    "percent of zero": (arithmetic("percent", 1, 0.0), "undefined"),
    "a product beyond any float": (
        {"op": "arithmetic", "operator": "multiply", "left": const(1.5e300), "right": const(1.7e300)},
        None,  # type: ignore[dict-item]
    ),
    "a number among texts": ({"op": "min", "of": const(["a", 1])}, "wrong kind"),
    "a number below a text": (compare(1, "lt", "a"), "wrong kind"),
}  # fmt: skip


@pytest.mark.parametrize("example", [name for name, (_, kind) in FAILS.items() if kind])
def test_each_failure_has_its_kind(example: str) -> None:
    expression, kind = FAILS[example]
    with pytest.raises(ProgramError) as failed:
        value_of(expression)
    assert failed.value.kind == kind
    assert str(failed.value).startswith(f"{kind}: ")


def test_a_result_beyond_any_float_is_a_failure_or_a_whole_number() -> None:
    try:
        found = value_of(FAILS["a product beyond any float"][0])
    except ProgramError as error:
        assert error.kind == "undefined"  # noqa: PT017
    else:
        assert isinstance(found, int)


# --- outcomes ---

OUT = ToolResult(result={"content": [{"type": "text", "text": '{"total": 3}'}]})
TOTAL = AnswerProgram(fields={"total": extract(0, "total", kind="number")})


def test_an_answer_is_made_of_what_came_of_the_calls() -> None:
    assert evaluate(TOTAL, [OUT]) == {"total": 3}
    failed = ToolResult(result={**OUT.result, "isError": True})
    for outcome in (failed, RpcError(error={"code": 1, "message": "no"}), NoReply(reason="cancelled"), None):
        with pytest.raises(ProgramError) as error:
            evaluate(TOTAL, [outcome])
        assert error.value.kind == "no output"
    with pytest.raises(ProgramError) as error:
        evaluate(TOTAL, [])
    assert error.value.kind == "no output"


def test_fields_come_in_the_order_of_the_program() -> None:
    program = AnswerProgram(fields={"z": extract(0, "total", kind="number"), "a": {"op": "count", "of": T}})
    assert list(run(program, TREES).answer.items()) == [("z", 3), ("a", 3)]


def test_an_argument_comes_out_of_earlier_outputs_only() -> None:
    first = Argument(call=1, path=("key", 0), value=name_of(OAK))
    program = AnswerProgram(fields=TOTAL.fields, arguments=(first,))
    given: dict[str, Json] = {"key": ["?", "b"], "n": 1}
    assert arguments_of(program, 1, given, TREES) == {"key": ["oak", "b"], "n": 1}
    assert given == {"key": ["?", "b"], "n": 1}
    assert arguments_of(program, 0, given, TREES) == given
    own = AnswerProgram(fields=TOTAL.fields, arguments=(Argument(call=0, path=("key",), value=name_of(OAK)),))
    with pytest.raises(ProgramError) as error:
        arguments_of(own, 0, {"key": "?"}, TREES)
    assert error.value.kind == "no output"


@pytest.mark.parametrize(
    "path",
    [
        ("lock",),
        ("key", 5),
        ("key", "x"),
        ("n", "deep"),
        ("key", 0, 0),
        ("key", -1),
    ],
)
def test_an_argument_that_the_call_does_not_have_is_malformed(path: tuple[str | int, ...]) -> None:
    program = AnswerProgram(fields=TOTAL.fields, arguments=(Argument(call=1, path=path, value=name_of(OAK)),))
    with pytest.raises(ProgramError) as error:
        arguments_of(program, 1, {"key": ["?"], "n": 1}, TREES)
    assert error.value.kind == "malformed"


# --- form ---


@pytest.mark.parametrize("example", MEANS)
def test_a_program_survives_json(example: str) -> None:
    expression, value = MEANS[example]
    program = AnswerProgram(fields={"f": expression}, arguments=(Argument(call=2, path=("a", 0), value=T),))
    again = AnswerProgram.model_validate_json(json.dumps(program.model_dump(mode="json")))
    assert again == program
    assert canonical_json(run(again, TREES).answer) == canonical_json({"f": value})


MALFORMED: dict[str, tuple[Json, str]] = {
    "no object": ("x", "no operation 'x'"),
    "nothing": (None, "no operation None"),
    "no operation": ({"path": []}, "no operation None"),
    "another operation": ({"op": "eval"}, "no operation 'eval'"),
    "an operand is missing": ({"op": "count"}, "'count' lacks 'of'"),
    "an operand too many": ({**T, "limit": 3}, "'extract' has no operand 'limit'"),
    "a negative call": (extract(-1), "'call' of 'extract' must be count, got -1"),
    "a truth value for a call": ({**T, "call": True}, "'call' of 'extract' must be count"),
    "a fraction for a call": ({**T, "call": 1.5}, "'call' of 'extract' must be count"),
    "a text for a path": ({"op": "extract", "call": 0, "path": "a"}, "'path' of 'extract' must be path"),
    "a negative step": (extract(0, -1), "'path' of 'extract' must be path"),
    "another kind": (extract(0, kind="colour"), "'as' of 'extract' must be kind, got 'colour'"),
    "a kind that is a list": ({**T, "as": ["text"]}, "'as' of 'extract' must be kind"),
    "another unit": (days("a", "b", "fortnights"), "'unit' of 'date_difference' must be unit"),
    "another test": (compare(1, "like", 2), "'test' of 'compare' must be test"),
    "another operator": (arithmetic("power", 1, 2), "'operator' of 'arithmetic' must be operator"),
    "an object for a constant": (const({"a": 1}), "'value' of 'const' must be plain"),
    "null for a constant": (const(None), "'value' of 'const' must be plain"),
    "a plain value for an expression": ({"op": "count", "of": 3}, "no operation 3"),
    "no parts": (
        {"op": "format", "template": "x", "of": []}, "'of' of 'format' must be a list of expressions",
    ),
    "a number for a template": (
        {"op": "format", "template": 1, "of": [T]}, "'template' of 'format' must be text",
    ),
    "a number for a flag": ({**TOP_TWO, "descending": 1}, "'descending' of 'sort_take' must be flag"),
    "too many digits": (rounded(1, 10**9), "'digits' of 'round' must be count"),
}  # fmt: skip


@pytest.mark.parametrize("example", MALFORMED)
def test_what_is_no_program_is_refused_with_the_operand_named(example: str) -> None:
    expression, message = MALFORMED[example]
    nested = {"op": "format", "template": "{0}", "of": [const("x"), expression]}
    for form in (expression, nested):
        with pytest.raises(ValueError, match=r"operation|'.+' of '.+' must be") as refused:
            check(form)
        assert message in str(refused.value)
        with pytest.raises(ValidationError):
            AnswerProgram.model_validate({"fields": {"f": form}})
        with pytest.raises(ValidationError):
            Argument.model_validate({"call": 1, "path": ["a"], "value": form})


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ({"op": ["count"]}, "no operation"),
        ({"op": {}}, "no operation"),
        ({**days("a", "b"), "unit": []}, "'unit' of 'date_difference' must be unit"),
        ({**days("a", "b"), "unit": {}}, "'unit' of 'date_difference' must be unit"),
    ],
    ids=str,
)
def test_a_list_or_an_object_for_a_word_is_refused(expression: Json, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(expression)


def test_a_program_has_fields_and_nothing_foreign() -> None:
    for form in ({}, {"fields": {}}, {"fields": {"a": T}, "code": "1"}, {"fields": [T]}):
        with pytest.raises(ValidationError):
            AnswerProgram.model_validate(form)


def test_a_program_goes_only_so_deep() -> None:
    expression: Expression = T
    for _ in range(DEEPEST):
        expression = {"op": "only", "of": expression}
    check(expression)
    with pytest.raises(ValueError, match=f"deeper than {DEEPEST}"):
        check({"op": "only", "of": expression})
    for _ in range(50_000):
        expression = {"op": "only", "of": expression}
    with pytest.raises(ValueError, match=f"deeper than {DEEPEST}"):
        check(expression)


def test_a_constant_goes_only_so_deep() -> None:
    value: Json = "x"
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match="value"):
        check(const(value))


def test_the_calls_of_an_expression_are_found_and_numbered_anew() -> None:
    assert calls_of(JOINED) == {0, 2}
    assert calls_of(const([{"op": "extract"}] and "x")) == set()
    moved = renumbered(JOINED, {0: 4, 2: 1})
    assert calls_of(moved) == {1, 4}
    assert renumbered(moved, {4: 0, 1: 2}) == JOINED


# --- numbers ---


def test_fractions_are_added_as_the_decimals_that_they_are_written_as() -> None:
    assert value_of({"op": "sum", "of": TENTHS}) == 0.6
    assert value_of(arithmetic("add", 0.1, 0.2)) == 0.3
    assert value_of({"op": "sum", "of": const([0.1] * 10)}) == 1


@pytest.mark.parametrize("op", ["sum", "mean", "min", "max", "distinct"])
def test_the_order_of_rows_changes_no_answer(op: str) -> None:
    rng = Random(3)
    values: list[Json] = [round(rng.uniform(-1e6, 1e6), rng.randrange(7)) for _ in range(200)] + [1e15, -1e15]
    first = value_of({"op": op, "of": const(values)})
    for _ in range(20):
        rng.shuffle(values)
        assert value_of({"op": op, "of": const(values)}) == first


# --- what a program looked at ---


def _places(expression: Expression) -> list[Read]:
    return look(expression, TREES)[1]


def test_a_filter_looks_at_the_column_of_each_row_and_at_what_is_taken() -> None:
    found = _places(name_of({"op": "only", "of": where("name", "text", "eq", "elm")}))
    assert found == [Read(0, ("trees", n, "name"), False) for n in range(3)]
    counted = _places({"op": "count", "of": T})
    assert counted == [Read(0, ("trees",), True)]


def _holds(tree: Json, address: tuple[str | int, ...]) -> bool:
    try:
        at(tree, address)
    except LookupError:
        return False
    return True


def _unread(trees: list[Json], reads: list[Read]) -> Iterator[tuple[int, tuple[str | int, ...], Json]]:
    """Yield the leaves that a program did not look at, neither themselves nor within what it looked at."""
    seen = {(read.call, read.address) for read in reads if not read.whole}
    for call, tree in enumerate(trees):
        if tree is NOTHING:
            continue
        for leaf in leaves(tree):
            prefixes = [leaf.address[:n] for n in range(len(leaf.address) + 1)]
            if not any((call, prefix) in seen for prefix in prefixes):
                yield call, leaf.address, leaf.value


OTHERS: tuple[Json, ...] = ("another", -99, "1999-01-01", True, "7 B")


def assert_reads_are_complete(expression: Expression, trees: list[Json]) -> int:
    """Check that what was not looked at does not matter; return how many leaves were changed."""
    try:
        value, reads = look(expression, trees)
    except ProgramError:
        return 0
    for read in reads:
        assert _holds(trees[read.call], read.address)
    changed = 0
    for call, address, _ in list(_unread(trees, reads))[:40]:
        other = OTHERS[(changed + len(address)) % len(OTHERS)]
        altered = list(trees)
        altered[call] = replaced(trees[call], address, other)
        changed += 1
        assert canonical_json(look(expression, altered)[0]) == canonical_json(value), (expression, address)
    return changed


@pytest.mark.parametrize("example", MEANS)
def test_what_a_program_did_not_look_at_does_not_matter(example: str) -> None:
    assert_reads_are_complete(MEANS[example][0], TREES)


# --- any program at all ---


class _Maker:
    """Makes expressions of the right form over trees, most of which mean nothing."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = Random(seed)
        self.trees: list[Json] = [self._tree(3) for _ in range(rng.randrange(4))]
        if rng.random() < 0.1:
            self.trees.append(NOTHING)

    def _plain(self) -> Json:
        rng = self._rng
        return rng.choice(
            [rng.randrange(-3, 4), rng.choice((0.1, 2.5, 1e300, -1e-300)), "a", "b", "3", "1,000", "2 KB",
             "5 h", "2024-02-29", "2024-01-01T00:00:00+05:00", "yes", "", " ", True, False, "\ud800", 10**20,
             "{0}", "9" * 70, "1e300"]
        )  # fmt: skip

    def _tree(self, depth: int) -> Json:
        rng = self._rng
        kind = rng.random()
        if depth == 0 or kind < 0.2:
            return rng.choice((self._plain(), None))
        if kind < 0.6:
            rows = [{name: self._plain() for name in ("a", "b", "c") if rng.random() < 0.9}
                    for _ in range(rng.randrange(5))]  # fmt: skip
            return rng.choice((rows, [self._plain() for _ in range(rng.randrange(5))]))
        return {name: self._tree(depth - 1) for name in ("a", "b", "c", "0") if rng.random() < 0.8}

    def _constant(self) -> Json:
        value = self._rng.choice((self._plain(), [self._plain(), self._plain()]))
        return value if value is not None else 0

    def expression(self, depth: int = 4) -> Expression:
        rng = self._rng
        names = list(OPERATIONS) if depth else ["const", "extract"]
        name = rng.choice([*names, "extract"])
        made: Expression = {"op": name}
        for operand, form in OPERATIONS[name].operands.items():
            if form[-1] != "?" or rng.random() < 0.5:
                made[operand] = self._operand(form.rstrip("?"), depth)
        if name == "extract" and self.trees and rng.random() < 0.9:
            made["call"] = rng.randrange(len(self.trees))
            if rng.random() < 0.8 and (found := list(leaves(self.trees[made["call"]]))):
                address = rng.choice(found).address
                made["path"] = list(address[: rng.randrange(len(address) + 1)])
        return made

    def _operand(self, form: str, depth: int) -> Json:
        rng = self._rng
        match form:
            case "expression":
                return self.expression(depth - 1 if depth else 0)
            case "expressions":
                return [self.expression(max(0, depth - 1)) for _ in range(rng.randrange(1, 3))]
            case "path":
                return rng.choices(("a", "b", "c", 0, 1, "key", "value", "left", "right"), k=rng.randrange(3))
            case "plain":
                return self._constant()
            case "count":
                return rng.choice((0, 0, 1, 2, 3, 10_000))
            case "text":
                return rng.choice(("{0}", "{1}{0}", "x", "{0}" * 50))
        return rng.choice({"flag": (True, False), "kind": KINDS, "test": TESTS, "operator": OPERATORS,
                           "unit": tuple(UNITS)}[form])  # fmt: skip


ROUNDS = 8000


def test_any_program_over_any_outputs_has_an_answer_or_a_program_error() -> None:
    began, answered, altered = time.monotonic(), 0, 0
    kinds = set()
    for seed in range(ROUNDS):
        maker = _Maker(seed)
        expression = maker.expression()
        check(expression)
        program = AnswerProgram(fields={"f": expression})
        try:
            found = run(program, maker.trees)
        except ProgramError as error:
            kinds.add(error.kind)
            continue
        answered += 1
        assert canonical_json(run(program, maker.trees).answer) == canonical_json(found.answer)
        for read in found.reads:
            assert _holds(maker.trees[read.call], read.address)
        altered += assert_reads_are_complete(expression, maker.trees)
    assert kinds >= {"no output", "missing", "wrong kind", "ambiguous", "empty"}
    assert answered > ROUNDS / 20
    assert altered > 100
    assert time.monotonic() - began < 30


def test_any_arithmetic_has_an_answer_or_a_program_error() -> None:
    rng = Random(1)
    numbers: list[Json] = [0, 1, -3, 0.1, 1e300, -1e-300, 10**40, "1,000", "9" * 70, 2**53 + 1, True, "x"]
    kinds = set()
    for _ in range(3000):
        made: Expression = const(rng.choice(numbers))
        for _ in range(rng.randrange(1, 6)):
            operands = [made, const(rng.choice(numbers))]
            rng.shuffle(operands)
            made = {"op": "arithmetic", "operator": rng.choice(OPERATORS), "left": operands[0],
                    "right": operands[1]}  # fmt: skip
            if rng.random() < 0.3:
                made = {"op": "round", "of": made, "digits": rng.choice((0, 2, 400, 10_000))}
        try:
            found = value_of(made)
        except ProgramError as error:
            kinds.add(error.kind)
        else:
            assert isinstance(found, int | float)
    assert kinds == {"wrong kind", "undefined"}


def test_a_program_that_is_no_form_of_one_is_refused_or_fails_as_a_program() -> None:
    """`look` takes expressions that nobody checked, from a judge for example."""
    for seed in range(1000):
        maker = _Maker(seed)
        rng = Random(seed)
        expression: Any = json.loads(json.dumps(maker.expression()))
        if isinstance(expression, dict) and len(expression) > 1:
            victim = rng.choice(list(expression))
            foreign = (
                (None, 3, "x", True) if victim in ("op", "unit") else (None, 3, "x", [], {}, [1], {"op": "x"})
            )
            expression[victim] = rng.choice(foreign)
        try:
            check(expression)
        except ValueError:
            continue
        try:
            look(expression, maker.trees)
        except ProgramError:
            continue
