import json
import math
import random
import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from recorder.exchange import NoReply, Outcome, RpcError, ToolResult
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
    Failure,
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
    tree_of,
)
from synth.values import WrongKind, as_kind, at, kind_of, replaced

SHOP: Any = {
    "total": "1,234.5",
    "items": [
        {"id": 1, "name": "pen", "price": 0.1, "size": "2 KB", "made": "2024-01-01", "of": "A"},
        {"id": 2, "name": "cup", "price": 0.2, "size": "3 B", "made": "2024-03-01T12:00:00Z", "of": "B"},
        {"id": 3, "name": "cap", "price": 12, "size": "1 MB", "made": "2023-12-31", "of": "A"},
    ],
    "stock": {"pen": {"left": 4}, "cup": {"left": 0}, "cap": {"left": 9}},
    "tags": ["red", "blue", "red"],
}
MAKERS: Any = [{"code": "B", "city": "Bonn"}, {"code": "A", "city": "Ulm"}, {"code": "C", "city": "Rom"}]


def const(value: Any) -> Expression:
    return {"op": "const", "value": value}


def extract(*path: str | int, call: int = 0, kind: str | None = None) -> Expression:
    return {"op": "extract", "call": call, "path": list(path), **({"as": kind} if kind else {})}


def op(name: str, of: Any = None, path: Any = None, kind: str | None = None, **rest: Any) -> Expression:
    made = {"op": name, "of": of, "path": path, "as": kind}
    return {key: value for key, value in made.items() if value is not None} | rest


def since(start: Expression, end: Expression, unit: str) -> Expression:
    return {"op": "date_difference", "start": start, "end": end, "unit": unit}


def value_of(expression: Expression, *trees: Any) -> Any:
    return run(AnswerProgram(fields={"x": expression}), trees or (SHOP, MAKERS)).answer["x"]


ITEMS, MAKER_ROWS, TAGS = extract("items"), extract(call=1), extract("tags")
PRICES = op("pluck", ITEMS, ["price"], "number")
A_ITEMS = op("filter", ITEMS, ["of"], "text", test="eq", value=const("A"))

EXAMPLES: dict[str, list[tuple[Expression, Any]]] = {
    "const": [(const("x"), "x"), (const([1, "a", True]), [1, "a", True])],
    "extract": [
        (extract("total"), "1,234.5"),
        (extract("total", kind="number"), 1234.5),
        (extract("items", 1, "size", kind="size"), 3),
        (extract("items", 1, "made", kind="date"), "2024-03-01T12:00:00Z"),
        (extract(0, call=1), {"code": "B", "city": "Bonn"}),
    ],
    "get": [
        (op("get", op("item", ITEMS, number=2), ["name"], "text"), "cap"),
        (op("get", const([5, 6]), [1]), 6),
    ],
    "only": [
        (op("only", op("filter", ITEMS, ["id"], "number", test="eq", value=const(2))), SHOP["items"][1]),
    ],
    "item": [(op("item", TAGS, number=1), "blue"), (op("item", const([5]), None, "text", number=0), "5")],
    "count": [
        (op("count", ITEMS), 3),
        (op("count", extract("stock")), 3),
        (op("count", A_ITEMS), 2),
        (op("count", const([])), 0),
    ],
    "filter": [
        (op("filter", ITEMS, ["price"], "number", test="gt", value=const(0.15)), SHOP["items"][1:]),
        (op("filter", ITEMS, ["name"], "text", test="starts", value=const("x")), []),
        (op("filter", TAGS, [], "text", test="contains", value=const("lu")), ["blue"]),
    ],
    "pluck": [(op("pluck", ITEMS, ["size"], "size"), [2048, 3, 1024**2])],
    "distinct": [(op("distinct", TAGS), ["blue", "red"]), (op("distinct", const([1, "1", 1])), ["1", 1])],
    "sum": [(op("sum", op("pluck", A_ITEMS, ["price"], "number")), 12.1), (op("sum", const([])), 0)],
    "mean": [(op("mean", const([1, 2])), 1.5), (op("mean", const([1, 1, 2])), 1.333333)],
    "min": [(op("min", PRICES), 0.1), (op("min", TAGS), "blue")],
    "max": [(op("max", PRICES), 12), (op("max", TAGS), "red")],
    "argmax": [(op("argmax", ITEMS, ["size"], "size"), SHOP["items"][2])],
    "argmin": [(op("argmin", ITEMS, ["made"], "date"), SHOP["items"][2])],
    "sort_take": [
        (op("sort_take", ITEMS, ["price"], "number", n=2), SHOP["items"][:2]),
        (op("sort_take", ITEMS, ["price"], "number", n=1, descending=True), SHOP["items"][2:]),
    ],
    "union": [(op("union", left=TAGS, right=const(["blue", "green"])), ["blue", "green", "red"])],
    "intersection": [(op("intersection", left=TAGS, right=const(["red", "green"])), ["red"])],
    "difference": [(op("difference", left=TAGS, right=const(["red", "green"])), ["blue"])],
    "join": [
        (
            op("join", left=op("sort_take", ITEMS, ["id"], "number", n=1), right=MAKER_ROWS, left_path=["of"],
               right_path=["code"]),
            [{"left": SHOP["items"][0], "right": MAKERS[1]}],
        )
    ],
    "date_difference": [
        (since(const("2024-01-01"), const("2024-01-02T12:00:00Z"), "days"), 1.5),
        (since(const("2024-01-01T01:00:00+01:00"), const("2024-01-01"), "hours"), 0),
        (since(const("2024-01-02"), const("2024-01-01"), "minutes"), -1440),
        (since(extract("items", 2, "made"), const("2024-01-01"), "seconds"), 86400),
    ],
    "arithmetic": [
        (op("arithmetic", left=const(2), right=const("1,000"), operator="add"), 1002),
        (op("arithmetic", left=const(0.3), right=const(0.1), operator="subtract"), 0.2),
        (op("arithmetic", left=const(1.1), right=const(3), operator="multiply"), 3.3),
        (op("arithmetic", left=const(1), right=const(3), operator="divide"), 0.333333),
        (op("arithmetic", left=const(1), right=const(8), operator="percent"), 12.5),
    ],
    "compare": [
        (op("compare", left=const(1), right=const(1.0), test="eq"), True),
        (op("compare", left=const(True), right=const(1), test="ne"), True),
        (op("compare", left=const("a"), right=const("b"), test="lt"), True),
        (op("compare", left=const(2), right=const(2), test="le"), True),
        (op("compare", left=const(9), right=const(10), test="gt"), False),
        (op("compare", left=const("b"), right=const("b"), test="ge"), True),
        (op("compare", left=const("abc"), right=const("b"), test="contains"), True),
        (op("compare", left=const("abc"), right=const("ab"), test="starts"), True),
        (op("compare", left=const("abc"), right=const("ab"), test="ends"), False),
    ],
    "choose": [
        ({"op": "choose", "if": const(True), "then": const("yes"), "else": extract("no")}, "yes"),
        ({"op": "choose", "if": const("true"), "then": extract("no"), "else": const("other")}, "other"),
    ],
    "round": [
        (op("round", const(0.125), digits=2), 0.12),
        (op("round", const(2.675), digits=2), 2.68),
        (op("round", const(2.5), digits=0), 2),
    ],
    "format": [
        (op("format", [extract("tags", 0), op("count", ITEMS)], template="{1} {0} {0} {2}"), "3 red red {2}"),
    ],
}  # fmt: skip


def test_every_operation_has_an_example_and_every_choice_is_tried() -> None:
    assert set(EXAMPLES) == set(OPERATIONS)
    written = json.dumps([[expression for expression, _ in examples] for examples in EXAMPLES.values()])
    assert [word for word in (*TESTS, *OPERATORS, *UNITS) if f'"{word}"' not in written] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_operation_does_what_its_example_shows(name: str) -> None:
    for expression, answer in EXAMPLES[name]:
        assert name in operations_of(expression)
        found = value_of(expression)
        assert (found, json.dumps(found)) == (answer, json.dumps(answer))


POOREST = op("sort_take", extract("stock"), ["value", "left"], "number", n=1)

FAILURES: list[tuple[Failure, str, Expression]] = [
    ("no output", "call 7", extract(call=7)),
    ("no output", "call 2", extract(call=2)),
    ("missing", "nope", extract("nope")),
    ("missing", "nothing at", extract("items", 3)),
    ("missing", "no item 3 of 3", op("item", ITEMS, number=3)),
    ("missing", "such a row has key, value", op("get", op("only", POOREST), ["name"])),
    ("missing", "'name'", op("pluck", POOREST, ["value", "name"], "text")),
    ("wrong kind", "'pen' is no number", extract("items", 0, "name", kind="number")),
    ("wrong kind", "is no text", extract("items", kind="text")),
    ("wrong kind", "no items", op("count", extract("total"))),
    ("wrong kind", "no date", since(const("x"), const("2024-01-01"), "days")),
    ("wrong kind", "is no text", op("format", [const(True)], template="{0}")),
    ("ambiguous", "2 fit", op("only", A_ITEMS)),
    ("ambiguous", "2 rows", op("argmax", TAGS, [], "text")),
    ("ambiguous", "equal", op("sort_take", TAGS, [], "text", n=1, descending=True)),
    ("ambiguous", "twice", op("join", left=MAKER_ROWS, right=ITEMS, left_path=["code"], right_path=["of"])),
    ("empty", "0 fit", op("only", const([]))),
    ("empty", "list is empty", op("mean", const([]))),
    ("empty", "list is empty", op("max", op("pluck", const([]), [], "number"))),
    ("empty", "list is empty", op("argmin", const([]), [], "number")),
    ("empty", "4 of 3", op("sort_take", ITEMS, ["id"], "number", n=4)),
    ("undefined", "division by zero", op("arithmetic", left=const(1), right=const(0), operator="divide")),
    ("undefined", "division by zero", op("arithmetic", left=const(1), right=const(0), operator="percent")),
]


@pytest.mark.parametrize(("kind", "detail", "expression"), FAILURES)
def test_an_expression_without_a_value_says_why(kind: Failure, detail: str, expression: Expression) -> None:
    with pytest.raises(ProgramError, match=re.escape(detail)) as failure:
        value_of(expression)
    assert failure.value.kind == kind


def test_an_argument_that_a_call_does_not_have_is_malformed() -> None:
    program = AnswerProgram(fields={"x": const(1)}, arguments=(put(1, ["a"], extract("total")),))
    with pytest.raises(ProgramError, match="call 1 has no argument") as failure:
        arguments_of(program, 1, {"b": 0}, [SHOP])
    assert failure.value.kind == "malformed"
    assert {kind for kind, _, _ in FAILURES} | {"malformed"} == set(get_args(Failure))


@pytest.mark.parametrize(
    "outcome",
    [
        None,
        NoReply(reason="cancelled"),
        RpcError(error={"code": 1, "message": "no"}),
        ToolResult(result={"isError": True}),
    ],
)
def test_a_call_that_failed_has_no_output(outcome: Outcome | None) -> None:
    assert tree_of(outcome) is NOTHING
    with pytest.raises(ProgramError, match="no output: call 0"):
        evaluate(AnswerProgram(fields={"x": extract()}), [outcome])


def test_an_answer_comes_from_what_the_calls_gave_in_the_order_of_its_fields() -> None:
    results = [{"content": [{"type": "text", "text": json.dumps(tree)}]} for tree in (SHOP, MAKERS)]
    program = AnswerProgram(fields={"b": op("count", ITEMS), "a": op("count", MAKER_ROWS)})
    answer = evaluate(program, [ToolResult(result=result) for result in results])
    assert json.dumps(answer) == '{"b": 3, "a": 3}'


# --- arguments and numbers of calls ---


def put(call: int, path: list[str | int], value: Expression) -> Argument:
    return Argument(call=call, path=tuple(path), value=value)


def test_a_later_call_takes_arguments_out_of_earlier_outputs_only() -> None:
    program = AnswerProgram(
        fields={"x": const(1)},
        arguments=(put(1, ["who", 1], extract("items", 0, "name")), put(1, ["n"], op("count", ITEMS))),
    )
    given = {"who": ["?", "?"], "n": 0, "kept": True}
    assert arguments_of(program, 1, given, [SHOP]) == {"who": ["?", "pen"], "n": 3, "kept": True}
    assert arguments_of(program, 0, given, []) == given
    with pytest.raises(ProgramError, match="no output: call 0"):
        arguments_of(
            AnswerProgram(fields={"x": const(1)}, arguments=(put(0, ["n"], extract()),)), 0, given, [SHOP]
        )
    assert given == {"who": ["?", "?"], "n": 0, "kept": True}


def test_calls_are_found_and_renumbered_wherever_they_stand() -> None:
    expression = op("join", left=ITEMS, right=op("filter", MAKER_ROWS, ["code"], "text", test="eq",
                    value=const("extract")), left_path=["call"], right_path=["call"])  # fmt: skip
    moved = renumbered(expression, {0: 3, 1: 0})
    assert (calls_of(expression), calls_of(moved)) == ({0, 1}, {3, 0})
    assert renumbered(moved, {3: 0, 0: 1}) == expression
    assert operations_of(expression) == ["join", "extract", "filter", "extract", "const"]


# --- the form of programs ---


def test_a_program_survives_json() -> None:
    for examples in EXAMPLES.values():
        for expression, answer in examples:
            program = AnswerProgram(
                fields={"x": expression, "é": const("\U0001f600")}, arguments=(put(1, ["a", 0], expression),)
            )
            again = AnswerProgram.model_validate_json(program.model_dump_json())
            assert again == program
            assert list(again.fields) == ["x", "é"]
            assert run(again, [SHOP, MAKERS]).answer["x"] == answer


def nested(depth: int) -> Expression:
    made = const([1])
    for _ in range(depth):
        made = op("distinct", made)
    return made


MALFORMED: list[tuple[Any, str]] = [
    (3, "no operation 3"),
    (None, "no operation None"),
    ({}, "no operation None"),
    ({"op": "product", "of": const([1])}, "no operation 'product' (operations: const, extract"),
    ({"op": "sum"}, "operation 'sum' lacks 'of'"),
    (op("pluck", const([]), []), "operation 'pluck' lacks 'as'"),
    (op("sum", const([]), n=1), "operation 'sum' has no operand 'n'"),
    (op("sum", [1]), "no operation [1]"),
    (op("sum", op("mean")), "operation 'mean' lacks 'of'"),
    ({"op": "extract", "call": -1, "path": []}, "'call' of 'extract' must be count, got -1"),
    ({"op": "extract", "call": True, "path": []}, "'call' of 'extract' must be count, got True"),
    ({"op": "extract", "call": 0, "path": "a"}, "'path' of 'extract' must be path, got 'a'"),
    ({"op": "extract", "call": 0, "path": [-1]}, "'path' of 'extract' must be path, got [-1]"),
    ({"op": "extract", "call": 0, "path": [1.5]}, "must be path"),
    (extract(kind="colour"), "'as' of 'extract' must be kind, got 'colour'"),
    (const(None), "'value' of 'const' must be plain, got None"),
    (const({"a": 1}), "must be plain"),
    (
        op("filter", ITEMS, [], "text", test="like", value=const(1)),
        "'test' of 'filter' must be test, got 'like'",
    ),
    (op("arithmetic", left=const(1), right=const(1), operator="+"), "must be operator, got '+'"),
    (since(const("x"), const("x"), "day"), "must be unit, got 'day'"),
    (op("sort_take", ITEMS, [], "text", n=1, descending=1), "must be flag, got 1"),
    (op("format", [], template=""), "'of' of 'format' must be a list of expressions"),
    (op("format", const("x"), template=""), "'of' of 'format' must be a list of expressions"),
    (op("format", [const("x")], template=5), "'template' of 'format' must be text, got 5"),
    (op("round", const(1), digits=10_001), "must be count"),
    (nested(DEEPEST + 1), f"deeper than {DEEPEST}"),
]


@pytest.mark.parametrize(("expression", "wrong"), MALFORMED)
def test_a_malformed_program_is_refused_and_what_is_wrong_is_named(expression: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=re.escape(wrong)):
        check(expression)
    with pytest.raises(ValidationError):
        AnswerProgram(fields={"x": expression})
    with pytest.raises(ValidationError):
        Argument(call=0, path=(), value=expression)


def test_a_program_without_fields_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least one field"):
        AnswerProgram(fields={})


def test_the_deepest_program_runs() -> None:
    assert value_of(nested(DEEPEST)) == [1]


def deep_list(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made


@pytest.mark.parametrize("value", [[None], [{}], [math.nan], [1, math.inf]])
def test_a_constant_is_plain_or_a_list_of_plain_values(value: list[Any]) -> None:
    with pytest.raises(ValueError, match="'value' of 'const' must be plain"):
        check(const(value))


@pytest.mark.parametrize(
    "expression",
    [{"op": ["sum"], "of": const([])}, {"op": {}}, since(const("2024"), const("2024"), "") | {"unit": []}],
)
def test_a_list_where_a_word_belongs_is_refused(expression: Any) -> None:
    with pytest.raises(ValidationError):
        AnswerProgram(fields={"x": expression})


def test_a_very_deep_constant_is_refused() -> None:
    with pytest.raises(ValueError, match="must be plain"):
        check(const(deep_list(3000)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_constant_that_json_cannot_write_is_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        AnswerProgram(fields={"x": const(value)})


def test_a_value_that_looks_like_a_place_is_put_in_as_it_is() -> None:
    assert value_of(op("format", [const("{1}"), const("x")], template="{0}-{1}")) == "{1}-x"


@pytest.mark.parametrize(
    "expression", [op("min", const([1, "a"])), op("compare", left=const("a"), right=const(1), test="lt")]
)
def test_numbers_and_texts_that_are_compared_are_of_the_wrong_kind(expression: Expression) -> None:
    with pytest.raises(ProgramError) as failure:
        value_of(expression)
    assert failure.value.kind == "wrong kind"


@pytest.mark.parametrize("written", ['{"a": NaN}', '{"a": 1e400}'])
def test_a_number_that_is_not_finite_is_no_answer(written: str) -> None:
    outcome = ToolResult(result={"content": [{"type": "text", "text": written}]})
    with pytest.raises(ProgramError):
        evaluate(AnswerProgram(fields={"x": extract("a")}), [outcome])


# --- arithmetic and order ---


def test_tenths_add_up() -> None:
    assert value_of(op("sum", const([0.1, 0.2]))) == 0.3
    assert value_of(op("sum", const(["0.1", 0.2, "1e1"]))) == 10.3
    assert value_of(op("sum", const([0.1] * 10))) == 1
    assert value_of(op("mean", const([0.1, 0.2, 0.3]))) == 0.2
    assert value_of(op("arithmetic", left=const(0.1), right=const(0.2), operator="add")) == 0.3


def test_the_order_of_rows_changes_no_sum_and_no_mean() -> None:
    draw = random.Random(7)
    numbers: list[float] = [draw.uniform(-1e6, 1e6) * 10.0 ** draw.randint(-9, 9) for _ in range(60)]
    rows = [{"n": value} for value in numbers]
    column = op("pluck", extract(), ["n"], "number")
    expected = [value_of(op(name, column), rows) for name in ("sum", "mean", "min", "max")]
    for _ in range(50):
        draw.shuffle(rows)
        assert [value_of(op(name, column), rows) for name in ("sum", "mean", "min", "max")] == expected


# --- what was looked at ---


def test_a_program_keeps_what_it_looked_at_for_each_field() -> None:
    program = AnswerProgram(
        fields={
            "n": op("count", ITEMS),
            "sum": op("sum", op("pluck", A_ITEMS, ["price"], "number")),
            "city": extract(0, "city", call=1),
            "again": extract("items", 0, "price"),
        }
    )
    found = run(program, [SHOP, MAKERS])
    kinds = [Read(0, ("items", n, "of"), False) for n in range(3)]
    prices = [Read(0, ("items", n, "price"), False) for n in (0, 2)]
    city = Read(1, (0, "city"), False)
    assert found.by_field == {
        "n": [Read(0, ("items",), True)],
        "sum": [*kinds, *prices],
        "city": [city],
        "again": prices[:1],
    }
    assert list(found.reads) == [Read(0, ("items",), True), *kinds, *prices, city]


def test_rows_of_a_keyed_object_stand_where_its_members_do() -> None:
    stock = extract("stock")
    most = op("argmax", stock, ["value", "left"], "number")
    lefts = [Read(0, ("stock", name, "left"), False) for name in ("pen", "cup", "cap")]
    assert look(op("pluck", stock, ["value", "left"], "number"), [SHOP]) == ([4, 0, 9], lefts)
    assert look(op("get", most, ["key"]), [SHOP]) == ("cap", lefts)
    assert look(op("get", most, ["value", "left"]), [SHOP]) == (9, lefts)
    assert look(most, [SHOP]) == (
        {"key": "cap", "value": {"left": 9}},
        [*lefts, Read(0, ("stock", "cap"), False)],
    )
    named = op("filter", stock, ["key"], "text", test="eq", value=const("cup"))
    assert look(op("get", op("only", named), ["value", "left"], "number"), [SHOP]) == (0, lefts[1:2])


def test_joined_rows_stand_in_both_outputs() -> None:
    first = op("sort_take", ITEMS, ["id"], "number", n=1)
    joined = op("join", left=first, right=MAKER_ROWS, left_path=["of"], right_path=["code"])
    city, reads = look(op("get", op("only", joined), ["right", "city"], "text"), [SHOP, MAKERS])
    assert city == "Ulm"
    assert {
        Read(1, (1, "city"), False),
        Read(1, (1, "code"), False),
        Read(0, ("items", 0, "of"), False),
    } <= set(reads)


def test_a_row_of_a_list_of_rows_is_its_value_and_is_looked_at() -> None:
    cheapest = op("sort_take", ITEMS, ["price"], "number", n=1)
    row, reads = look(op("get", cheapest, [0]), [SHOP])
    assert type(row) is dict
    assert row == SHOP["items"][0]
    assert Read(0, ("items", 0), False) in reads


def test_a_value_in_a_row_of_a_list_of_rows_is_found() -> None:
    cheapest = op("sort_take", ITEMS, ["price"], "number", n=1)
    assert value_of(op("get", cheapest, [0, "name"], "text")) == "pen"


# --- random programs over random trees ---

WORDS = ["a", "b", "n", "key", "value", "left", "right"]
VALUES: list[Any] = [
    0, 1, -3, 0.1, 2.5, 1e300, 10**30, True, False, "", "a", "b", "12", "1,234.5", "1e9", "007", "5 KB",
    "2 h", "yes", "2024-01-01", "2024-02-01T10:00:00+02:00", "0001-01-01T00:00:00+02:00", "9999-12-31",
    "\ud800", "{0}", "é" * 200,
]  # fmt: skip
COLUMNS: list[list[Any]] = [
    ["1", 2, 2.5, -7, 0.1, 40],
    ["ant", "bee", "cat", "dog", "eel"],
    ["2024-01-01", "2024-02-01T10:00:00+02:00", "Feb 28, 2024", "1999-12-31"],
    ["1 KB", "3 B", 5, "2 MB"],
]
HUGE = 10**5000
"""Has more digits than Python writes."""
ODD_VALUES: list[Any] = [None, math.nan, math.inf, HUGE, [], {}]


def random_tree(draw: random.Random, depth: int = 3) -> Any:
    kind = draw.random()
    if depth == 0 or kind < 0.2:
        return draw.choice(VALUES if draw.random() < 0.95 else ODD_VALUES)
    if kind < 0.5:
        if draw.random() < 0.2:
            return [random_tree(draw, depth - 1) for _ in range(draw.randint(0, 5))]
        columns = {name: draw.choice(COLUMNS) for name in WORDS[:3]}
        return [
            {name: draw.choice(draw.choice([*[values] * 9, VALUES])) for name, values in columns.items()}
            for _ in range(draw.randint(0, 5))
        ]
    if kind < 0.6:
        return [random_tree(draw, 0) for _ in range(draw.randint(0, 4))]
    return {name: random_tree(draw, depth - 1) for name in draw.sample(WORDS, draw.randint(0, 4))}


def paths_in(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The addresses of a tree's nodes, plain ones and others."""
    yield path
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, inner in members:
        yield from paths_in(inner, (*path, name))


def random_expression(draw: random.Random, trees: list[Any], depth: int) -> Expression:
    """An expression that fits the trees more often than not."""

    def table() -> tuple[Expression, list[str | int], str]:
        """Rows, the path of a column and its kind, of a list in the trees if there is one."""
        lists = [
            (call, path, rows)
            for call, tree in enumerate(trees)
            for path in paths_in(tree)
            if isinstance(rows := at(tree, path), list) and rows and isinstance(rows[0], dict) and rows[0]
        ]
        if not lists:
            return const([1, 2]), [], "number"
        call, path, rows = draw.choice(lists)
        column = draw.choice(list(rows[0]))
        value = rows[0][column]
        kind = None if value == HUGE else kind_of(value, column)
        return extract(*path, call=call), [column], kind or "text"

    def inner() -> Expression:
        if name == "date_difference" and draw.random() < 0.5:
            return const(draw.choice(COLUMNS[2]))
        made = random_expression(draw, trees, depth - 1)
        # Until `get` takes a list of rows: see the test of it above.
        rows = name == "get" and made["op"] in ("filter", "sort_take", "join")
        return {"op": "item", "of": made, "number": 0} if rows else made

    def path() -> list[str | int]:
        steps: list[str | int] = [*WORDS, 0, 1]
        return [draw.choice(steps) for _ in range(draw.choice([0, 1, 1, 1, 2]))]

    if depth <= 0 or draw.random() < 0.15:
        if draw.random() < 0.25:
            return const(draw.choice([*VALUES, [1, 2, 2.5], ["a", "b"], [], [True, "1"], [1, "x"]]))
        call = draw.randrange(len(trees))
        if draw.random() < 0.05:
            return extract(*path(), call=draw.randrange(4))
        return extract(*draw.choice(list(paths_in(trees[call]))), call=call)
    name = draw.choice(list(OPERATIONS))
    made: Expression = {"op": name}
    if draw.random() < 0.5:
        rows, column, kind = table()
        fitting = {"of": rows, "path": column, "as": kind}
        if name == "join":
            made |= {"left": rows, "right": rows, "left_path": column, "right_path": column}
        elif {"of", "path", "as"} <= set(OPERATIONS[name].operands) and name != "get":
            made |= fitting
        elif name in ("min", "max", "sum", "mean"):
            made["of"] = {"op": "pluck", **fitting}
    for operand, form in OPERATIONS[name].operands.items():
        if operand in made:
            continue
        if form.endswith("?") and draw.random() < 0.5:
            continue
        match form.rstrip("?"):
            case "expression":
                made[operand] = inner()
            case "expressions":
                made[operand] = [inner() for _ in range(draw.randint(1, 3))]
            case "path":
                made[operand] = path()
            case "count":
                made[operand] = draw.choice([0, 1, 2, 3])
            case "plain":
                made[operand] = draw.choice(VALUES)
            case "text":
                made[operand] = draw.choice(["{0}", "{1} of {0}", "", "{"])
            case "flag":
                made[operand] = draw.random() < 0.5
            case "kind":
                made[operand] = draw.choice([*KINDS, "text", "number", "text", "number"])
            case "test":
                made[operand] = draw.choice(TESTS)
            case "operator":
                made[operand] = draw.choice(OPERATORS)
            case "unit":
                made[operand] = draw.choice(list(UNITS))
            case other:
                raise AssertionError(f"no values of form {other}")
    return made


def outcome_of(program: AnswerProgram, trees: list[Any]) -> tuple[Any, set[Read]] | Failure:
    try:
        found = run(program, trees)
    except ProgramError as error:
        return error.kind
    return found.answer, set(found.reads)


def test_random_programs_have_an_answer_or_a_program_error() -> None:
    draw = random.Random(20240501)
    answered: set[str] = set()
    failed: set[str] = set()
    for _ in range(3000):
        trees = [random_tree(draw) if draw.random() < 0.95 else NOTHING for _ in range(2)]
        program = AnswerProgram(fields={"x": random_expression(draw, trees, draw.choice([1, 2, 3, 5]))})
        before = repr_of(trees)
        outcome = outcome_of(program, trees)
        assert repr_of(outcome_of(program, trees)) == repr_of(outcome)
        assert repr_of(trees) == before
        if isinstance(outcome, str):
            failed.add(outcome)
        else:
            assert is_plain(outcome[0]["x"])
            answered.update(operations_of(program.fields["x"]))
    # Otherwise this would hold of programs that all fail in the same way.
    assert len(failed) >= 5
    assert len(set(OPERATIONS) - answered) <= 3


def is_plain(value: Any) -> bool:
    if type(value) is dict:
        return all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if type(value) is list else isinstance(value, str | int | float | None)


def repr_of(value: Any) -> str:
    """What repr() says, for numbers of more digits than it takes as well."""
    match value:
        case dict():
            return "{" + ",".join(f"{name}:{repr_of(inner)}" for name, inner in value.items()) + "}"
        case set():
            return ",".join(sorted(map(repr_of, value)))
        case list() | tuple():
            return "[" + ",".join(map(repr_of, value)) + "]"
        case int():
            return f"{type(value).__name__} {value:x}"
    return repr(value)


def test_a_value_that_is_not_in_the_reads_never_matters() -> None:
    draw = random.Random(42)
    tried = 0
    for _ in range(4000):
        trees = [random_tree(draw) for _ in range(2)]
        program = AnswerProgram(fields={"x": random_expression(draw, trees, draw.choice([1, 2, 3, 4]))})
        outcome = outcome_of(program, trees)
        if isinstance(outcome, str):
            continue
        looked_at = {(read.call, read.address) for read in outcome[1] if not read.whole}
        changed = list(trees)
        for call, tree in enumerate(trees):
            for address in list(paths_in(tree)):
                parents = {(call, address[:n]) for n in range(len(address) + 1)}
                if isinstance(at(tree, address), dict | list) or parents & looked_at:
                    continue
                changed[call] = replaced(changed[call], address, draw.choice(VALUES + ODD_VALUES[:4]))
                tried += 1
        assert repr_of(outcome_of(program, changed)) == repr_of(outcome), (program, trees, changed)
    assert tried > 2000


def test_every_kind_refuses_lists_and_objects() -> None:
    for kind in KINDS:
        for value in ([], {}, [1], {"a": 1}, None):
            with pytest.raises(WrongKind):
                as_kind(value, kind)
