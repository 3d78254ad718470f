"""Outputs as trees, addresses into them, and what a plain value is."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest

from recorder.exchange import Json
from synth.values import (
    LONGEST_TEXT,
    MOST_DEPTH,
    MOST_ITEMS,
    MOST_NODES,
    READERS,
    Leaf,
    WrongKind,
    as_kind,
    at,
    date_text,
    duration_s,
    is_exact,
    is_measure,
    items_of,
    kind_of,
    leaves,
    moment,
    number,
    quantity,
    read,
    replaced,
    size_bytes,
    tables,
    text,
    truth,
)


def told(words: str) -> dict[str, Json]:
    """A result that says a text."""
    return {"content": [{"type": "text", "text": words}]}


ROWS = [{"name": "oak", "age": "7"}, {"name": "elm", "age": "12"}]

FORMS: dict[str, tuple[str, Json]] = {
    "json object": ('{"total": 3, "ok": true, "none": null}', {"total": 3, "ok": True, "none": None}),
    "json list": ('[{"a": 1}, {"a": 2.5}]', [{"a": 1}, {"a": 2.5}]),
    "json number": ("42", "42"),
    "json in prose": ('Here it is:\n{"a": [1, 2]}\nAnything else?', {"a": [1, 2]}),
    "json in a fence": ('The result:\n```json\n[{"a": 1}]\n```', [{"a": 1}]),
    "repr of a list": ("[{'a': None, 'b': True, 'c': (1, 2)}]", [{"a": None, "b": True, "c": [1, 2]}]),
    "repr of a tuple": ("('x', 3)", ["x", 3]),
    "repr with keys that are numbers": ("{1: 'x'}", {"1": "x"}),
    "csv": ("name,age\noak,7\nelm,12", ROWS),
    "tabs": ("name\tage\noak\t7\nelm\t12", ROWS),
    "semicolons": ("name;age\noak;7\nelm;12", ROWS),
    "markdown": ("Trees:\n\n| name | age |\n|:---|---:|\n| oak | 7 |\n| elm | 12 |\n\nThat is all.", ROWS),
    "markdown without rims": ("name | age\n---|---\noak | 7\nelm | 12", ROWS),
    "block": ("Name: oak\nAge: 7", {"Name": "oak", "Age": "7"}),
    "bold block": ("**Name**: oak\n**Age**: 7", {"Name": "oak", "Age": "7"}),
    "equals": ("name = oak\nage = 7", {"name": "oak", "age": "7"}),
    "blocks": ("Name: oak\nAge: 7\n\nName: elm\nAge: 12", [{"Name": "oak", "Age": "7"},
                                                             {"Name": "elm", "Age": "12"}]),
    "tagged": (
        "[DIR] leaves\n[FILE] oak.md    140 B\n\nTotal: 1 file, 1 folder",
        [{"tag": "DIR", "name": "leaves"}, {"tag": "FILE", "name": "oak.md", "size": "140 B"}],
    ),
    "tagged with a space in the name": (
        "[FILE] red oak.md   1.5 KB\n[FILE] elm.md   2 B",
        [
            {"tag": "FILE", "name": "red oak.md", "size": "1.5 KB"},
            {"tag": "FILE", "name": "elm.md", "size": "2 B"},
        ],
    ),
    "one tagged line": ("[FILE] a.md", [{"tag": "FILE", "name": "a.md"}]),
    "bullets": ("- oak\n- elm\n- ash", ["oak", "elm", "ash"]),
    "numbered": ("1. oak\n2) elm", ["oak", "elm"]),
    "headed": ("Allowed folders:\n/home/a\n/home/b", ["/home/a", "/home/b"]),
    "prose": ("The oak is old.\nThe elm is not.", "The oak is old.\nThe elm is not."),
    "a sentence with a colon": ("Note: all of this is old", "Note: all of this is old"),
    "code": ("def f(x):\n    return x\nf(1)", "def f(x):\n    return x\nf(1)"),
    "brackets that are none": ("[see the list", "[see the list"),
    "one word": ("  oak \n", "oak"),
    "nothing": ("", None),
    "space": (" \n ", None),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_output_is_read_into_what_json_would_have_said(form: str) -> None:
    written, tree = FORMS[form]
    assert read(told(written)) == tree


def test_a_table_may_have_commas_within_quotes() -> None:
    assert read(told('name,age\n"oak, red",7\nelm,12')) == [{"name": "oak, red", "age": "7"}, ROWS[1]]


def test_structured_content_goes_before_the_text_beside_it() -> None:
    assert read({**told("three"), "structuredContent": {"a": 3, "b": 4}}) == {"a": 3, "b": 4}
    assert read({"content": [], "structuredContent": {"result": [1, 2]}}) == {"result": [1, 2]}
    assert read({**told("- oak\n- elm"), "structuredContent": {"result": "- oak\n- elm"}}) == ["oak", "elm"]


@pytest.mark.parametrize(
    "result", [None, {}, {"content": None}, {"content": []}, {"content": [{"type": "image", "data": "x"}]}]
)
def test_a_result_without_words_says_nothing(result: Json) -> None:
    assert read(result) is None


def test_two_blocks_are_a_list_of_two() -> None:
    both = {"content": [{"type": "text", "text": '{"a": 1}'}, {"type": "text", "text": "b"}]}
    assert read(both) == [{"a": 1}, "b"]


# --- addresses ---

TREES = [tree for _, tree in FORMS.values()] + [
    {"a": {"0": "zero", "": "nameless"}, "b": [[1], [2, [3]]], "c": None},
    [[[]], {}, [{}], ""],
]


@pytest.mark.parametrize("form", FORMS)
def test_the_same_text_reads_into_the_same_tree_and_each_leaf_stands_at_its_address(form: str) -> None:
    written, _ = FORMS[form]
    tree, again = read(told(written)), read(json.loads(json.dumps(told(written))))
    assert tree == again
    assert list(leaves(tree)) == list(leaves(again))
    for leaf in leaves(tree):
        assert at(again, leaf.address) == leaf.value


@pytest.mark.parametrize("tree", TREES)
def test_a_value_that_is_replaced_stands_there_and_all_else_stays(tree: Json) -> None:
    before = json.dumps(tree)
    found = list(leaves(tree))
    for leaf in found:
        changed = replaced(tree, leaf.address, "another")
        assert at(changed, leaf.address) == "another"
        assert [(each.address, each.value) for each in leaves(changed) if each.address != leaf.address] == [
            (each.address, each.value) for each in found if each.address != leaf.address
        ]
    assert json.dumps(tree) == before


@pytest.mark.parametrize(
    "address", [("x",), (0,), ("b", 2), ("b", -1), ("b", "0"), ("b", True), ("a", "0", 0), ("c", "d")]
)
def test_an_address_of_nothing_is_a_lookup_error(address: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        at(TREES[-2], address)


def test_leaves_come_in_order_without_nulls_and_empty_texts() -> None:
    assert list(leaves({"b": [1, None, ""], "a": {"x": False, "y": 0}})) == [
        Leaf(("b", 0), 1),
        Leaf(("a", "x"), False),
        Leaf(("a", "y"), 0),
    ]


def test_no_output_is_too_large_or_too_deep() -> None:
    began = time.monotonic()
    deep = "[" * 10_000 + "]" * 10_000
    assert read(told(deep)) == deep
    nested: Json = "end"
    for _ in range(10_000):
        nested = {"in": nested}
    assert list(leaves(nested)) == []
    assert tables(nested) == []
    assert len(list(leaves(list(range(MOST_NODES * 2))))) == MOST_ITEMS
    wide = {str(n): n for n in range(MOST_NODES * 4)}
    assert len(list(leaves(wide))) == MOST_NODES - 1
    edge: Json = "end"
    for _ in range(MOST_DEPTH):
        edge = [edge]
    assert len(list(leaves(edge))) == 1
    assert list(leaves([edge])) == []
    assert tables([{"a": nested}] * 3) == []
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "line",
    [
        "a line of a log, 1234\n",
        "word " * 20,
        "[FILE] a\n",
        "key: value\n",
        "- item\n",
        "a,b\n",
        "| a |\n",
        ": {",
        "[",
        "{'a': ",
        "[[1,",
        " ",
        "\n[A",
    ],
    ids=repr,
)
def test_twenty_megabytes_are_read_in_time(line: str) -> None:
    began = time.monotonic()
    tree = read(told(line * (20_000_000 // len(line))))
    list(leaves(tree))
    tables(tree)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "line", [": {", "\n[1,", "- item\n", "key: v\n", "a,b\n", "|-|\n", "[A] x\n", "[", "("]
)
def test_the_longest_text_of_any_form_is_read_in_time(line: str) -> None:
    began = time.monotonic()
    tables(read(told(line * (190_000 // len(line)))))
    assert time.monotonic() - began < 5


ODD: list[Json] = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e308,
    10**400,
    -(10**30),
    "NaN",
    "inf",
    "1e999",
    "1e-999",
    "\ud800",
    "a\ud800b",
    "\x00",
    "\u202e5",
    "١٢٣",
    "Ⅳ",
    "",
    " ",
    "-",
    ".",
    "1" * 79,
    "1" * 81,
    "9" * 5000,
    "1,2",
    "1,23",
    "$",
    "$ 5",
    "0000-00-00",
    "2024-02-30",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
    "2024-01-01T25:00:00Z",
    "2024-01-01T00:00:00+99:99",
    "Mon, 32 Feb 2024 00:00:00 GMT",
    "Mon, 01 Jan 99999999 00:00:00 +9999",
    "Jan 1, 999999999999",
    "Sun Feb 30 2024",
    "999999999999999999999999 weeks",
    "1e300 h",
    "5 / 0",
    True,
    None,
    [],
    {},
    [float("nan")],
]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
def test_an_odd_value_is_of_a_kind_or_the_wrong_one_and_nothing_else(kind: str, value: Json) -> None:
    try:
        found = as_kind(value, kind)
    except WrongKind:
        return
    assert isinstance(found, str | int | float)
    assert not isinstance(found, float) or math.isfinite(found)


@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:30])
def test_a_value_is_read_as_the_kind_that_it_is_said_to_be(value: Json) -> None:
    for name in ("", "id", "size", "created at", "version", "elapsed"):
        kind = kind_of(value, name)
        if kind is not None and not (isinstance(value, float) and not math.isfinite(value)):
            as_kind(value, kind)


def test_results_of_odd_values_are_read() -> None:
    for value in ODD:
        tree = read({"content": [], "structuredContent": {"a": value, "b": [value, value]}})
        tables(tree)
        list(leaves(tree))
    assert read(told("[NaN, Infinity]")) is not None
    assert read({"content": [{"type": "text", "text": 3}, "x", None]}) is None


# --- plain values ---


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (7, 7), (-7.5, -7.5), (2.0, 2), ("7", 7), (" 7 ", 7), ("+7", 7), ("-0", 0), ("0.10", 0.1),
        ("1,234", 1234), ("1,234.50", 1234.5), ("12,345,678", 12345678), ("-1,000", -1000),
        ("1e3", 1000), ("1.5E-3", 0.0015), ("6.02e23", 6.02e23), (".5", 0.5), ("-.5", -0.5),
        (2**60, 2**60), ("9007199254740991", 9007199254740991),
    ],
)  # fmt: skip
def test_a_number_is_read_with_separators_and_exponents(written: Json, value: float) -> None:
    found = number(written)
    assert (found, type(found)) == (value, type(value))


def test_a_whole_number_beyond_what_a_float_holds_keeps_all_its_digits() -> None:
    assert number("9007199254740993") == 9007199254740993
    assert number("123456789012345678") == 123456789012345678


@pytest.mark.parametrize(
    "written",
    ["", "seven", "1,23", "1.2.3", "12,34,567", "1_000", "0x10", "1 000", "1e", "--1", "5%", "7 apples", True,
     None, [], {}, "1e999", float("nan"), float("inf")],
)  # fmt: skip
def test_what_is_no_number_is_the_wrong_kind(written: Json) -> None:
    with pytest.raises(WrongKind):
        number(written)


@pytest.mark.parametrize(
    ("written", "amount", "unit"),
    [
        ("12.5 kB", 12.5, "kB"), ("$3", 3, "$"), ("3 €", None, ""), ("€ 3,000.50", 3000.5, "€"),
        ("45%", 45, "%"), ("-3 °C", -3, "°C"), ("30km/h", 30, "km/h"), ("7", 7, ""), (7, 7, ""),
        ("5 µs", 5, "µs"), ("7 big apples", None, ""), ("", None, ""),
    ],
)  # fmt: skip
def test_a_quantity_keeps_its_unit(written: Json, amount: float | None, unit: str) -> None:
    if amount is None:
        with pytest.raises(WrongKind):
            quantity(written)
    else:
        assert quantity(written) == (amount, unit)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("140 B", 140), ("1 byte", 1), ("3 bytes", 3), ("1.5 KB", 1536), ("1 KiB", 1024), ("2k", 2048),
        ("1 MB", 2**20), ("1.25GiB", 1342177280), ("2 TB", 2 * 2**40), ("1,024 bytes", 1024), (77, 77),
        ("77", 77), ("0 B", 0),
    ],
)  # fmt: skip
def test_a_size_is_in_bytes(written: Json, size: int) -> None:
    assert size_bytes(written) == size
    assert isinstance(size_bytes(written), int)


@pytest.mark.parametrize("written", ["3 apples", "3 %", "", "KB", True, None, "1 h"])
def test_what_is_no_size_is_the_wrong_kind(written: Json) -> None:
    with pytest.raises(WrongKind):
        size_bytes(written)


@pytest.mark.parametrize(
    ("written", "exact"),
    [("140 B", True), ("3 bytes", True), (77, True), ("77", True), ("1.5 KB", False), ("2 MiB", False)],
)
def test_only_a_size_told_in_bytes_is_exact(written: Json, exact: bool) -> None:
    assert is_exact(written) is exact


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1.5 h", 5400), ("90 minutes", 5400), ("2 days", 172800), ("1 week", 604800), ("250 ms", 0.25),
        ("3 s", 3), ("3 seconds", 3), ("5 µs", 5e-06), ("1 min", 60), ("2 hrs", 7200), ("100 ns", 1e-07),
    ],
)  # fmt: skip
def test_a_duration_is_in_seconds(written: str, seconds: float) -> None:
    assert duration_s(written) == seconds


@pytest.mark.parametrize("written", ["5", 5, "5 apples", "", "PT5S", "1h 30m", None])
def test_what_has_no_unit_of_time_is_no_duration(written: Json) -> None:
    with pytest.raises(WrongKind):
        duration_s(written)


NOON = datetime(2024, 3, 5, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("2024-03-05", date(2024, 3, 5)),
        ("2024-03-05T12:30:15Z", NOON),
        ("2024-03-05 12:30:15", NOON),
        ("2024-03-05T12:30:15+00:00", NOON),
        ("2024-03-05T14:30:15+02:00", NOON),
        ("2024-03-05T14:30:15+0200", NOON),
        ("2024-03-05T07:00:15-05:30", NOON),
        ("2024-03-05 12:30:15 UTC", NOON),
        ("2024-03-05T12:30:15.250Z", NOON.replace(microsecond=250_000)),
        ("2024-03-05T12:30:15,123456789Z", NOON.replace(microsecond=123_456)),
        ("2024-03-05T12:30Z", NOON.replace(second=0)),
        ("2024-03-06T00:30:15+12:00", NOON),
        ("Tue, 05 Mar 2024 12:30:15 GMT", NOON),
        ("Tue, 05 Mar 2024 14:30:15 +0200", NOON),
        ("5 Mar 2024 12:30:15 +0000", None),
        ("Tue Mar 05 2024 14:30:15 GMT+0200 (Central European Summer Time)", NOON),
        ("Tue Mar 05 2024", date(2024, 3, 5)),
        ("Mar 5, 2024", date(2024, 3, 5)),
        ("Mar 5 2024", date(2024, 3, 5)),
        ("2024-02-29", date(2024, 2, 29)),
        ("2023-02-29", None),
        ("2024-13-01", None),
        ("05/03/2024", None),
        ("20240305", None),
        ("1709641815", None),
        ("yesterday", None),
        ("Mon", None),
        (1709641815, None),
        ("may be so", None),
        ("version 2024-03-05", None),
    ],
)
def test_a_moment_is_read_in_each_form_and_zone(written: Json, found: date | datetime | None) -> None:
    if found is None:
        with pytest.raises(WrongKind):
            moment(written)
    else:
        assert (moment(written), type(moment(written))) == (found, type(found))


def test_equal_moments_have_the_same_text_whatever_their_zone() -> None:
    forms = ("2024-03-05T14:30:15+02:00", "2024-03-05 12:30:15", "Tue, 05 Mar 2024 12:30:15 GMT")
    assert {date_text(form) for form in forms} == {"2024-03-05T12:30:15Z"}
    assert date_text("2024-03-05") == "2024-03-05"


def test_a_moment_of_the_first_years_is_written_so_that_it_can_be_read_again() -> None:
    assert date_text("0099-03-05T00:00:00Z") == "0099-03-05T00:00:00Z"
    assert date_text(date_text("0099-03-05T00:00:00Z")) == "0099-03-05T00:00:00Z"


def test_truth_is_said_in_words_too() -> None:
    assert [truth(value) for value in (True, False, "true", "No", " YES ", "False")] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    for value in ("1", 1, 0, "on", "", None):
        with pytest.raises(WrongKind):
            truth(value)


def test_a_text_is_without_space_around_and_a_number_is_its_own() -> None:
    assert [text(value) for value in (" a b ", 7, 7.0, 0.5)] == ["a b", "7", "7", "0.5"]
    for value in ("", " ", True, None, [], {}):
        with pytest.raises(WrongKind):
            text(value)


def test_there_is_no_kind_of_another_name() -> None:
    with pytest.raises(WrongKind, match="there is no kind 'colour'"):
        as_kind("red", "colour")


@pytest.mark.parametrize(
    ("value", "name", "kind"),
    [
        (True, "", "boolean"), ("yes", "", "boolean"), (3, "total", "number"), ("3", "total", "number"),
        (3, "user_id", "id"), ("x7", "code", "id"), ("A-17", "", "id"), ("T_0042", "", "id"),
        ("6fa459ea-ee8a-3ca4-894e-db77e160355e", "", "id"), ("deadbeef1234", "", "id"),
        ("2024-03-05", "", "date"), ("5 MB", "", "size"), ("12 h", "", "duration"), ("12h", "", "text"),
        ("5 m", "size", "size"), ("007", "", "text"), ("1.10", "version", "text"), ("81675", "zip", "text"),
        ("oak", "", "text"), ("", "", None), (None, "", None), ([], "", None), ({}, "", None),
        ("a\nb", "", None), ("x" * (LONGEST_TEXT + 1), "", None), ("12.5", "price", "number"),
    ],
)  # fmt: skip
def test_the_kind_of_a_value_goes_by_its_name_too(value: Json, name: str, kind: str | None) -> None:
    assert kind_of(value, name) == kind


@pytest.mark.parametrize(
    ("value", "name"), [("5 m", "height"), ("3 d", "model"), ("4 w", "power"), ("NO", "country")]
)
@pytest.mark.xfail(
    strict=True, reason="a letter is taken for a unit of time, and a country for a truth value"
)
def test_a_letter_is_no_unit_of_time_and_a_country_no_truth_value(value: str, name: str) -> None:
    assert kind_of(value, name) == "text"


@pytest.mark.xfail(strict=True, reason="the first of several objects in prose stands for all of them")
def test_of_several_objects_in_prose_none_is_left_out() -> None:
    both = 'Monday:\n{"rain": 1}\nTuesday:\n{"rain": 2}'
    assert read(told(both)) in (both, [{"rain": 1}, {"rain": 2}])


def test_a_tagged_name_may_hold_two_spaces() -> None:
    assert read(told("[FILE] my  file.md   3 B")) == [{"tag": "FILE", "name": "my  file.md", "size": "3 B"}]


def test_numbers_that_say_which_or_where_are_no_measure() -> None:
    assert [
        name for name in ("price", "user_id", "year", "total", "latitude", "line_number") if is_measure(name)
    ] == [
        "price",
        "total",
    ]


# --- tables ---


def test_a_table_has_the_columns_that_every_row_has_with_values_of_one_kind() -> None:
    rows = [
        {"name": "oak", "age": "7", "cut": "2024-01-02", "at": {"x": 1}, "note": "old", "odd": 1},
        {"name": "elm", "age": 12, "cut": "2024-03-02", "at": {"x": 2}, "odd": [2]},
    ]
    (table,) = tables({"trees": rows})
    assert (table.address, table.rows, table.keyed) == (("trees",), 2, False)
    assert {column.path: (column.kind, column.values) for column in table.columns} == {
        ("name",): ("text", ("oak", "elm")),
        ("age",): ("number", (7, 12)),
        ("cut",): ("date", ("2024-01-02", "2024-03-02")),
        ("at", "x"): ("number", (1, 2)),
    }


def test_members_of_an_object_that_are_objects_are_a_table_keyed_by_their_names() -> None:
    tree = {name: {"age": age} for name, age in (("oak", 7), ("elm", 12), ("ash", 3))}
    (table,) = tables({"trees": tree})
    assert (table.address, table.rows, table.keyed) == (("trees",), 3, True)
    assert [(column.path, column.kind, column.values) for column in table.columns] == [
        (("key",), "id", ("oak", "elm", "ash")),
        (("value", "age"), "number", (7, 12, 3)),
    ]
    assert items_of(tree)[1] == {"key": "elm", "value": {"age": 12}}


def test_two_members_are_a_record_and_not_a_table() -> None:
    assert tables({"left": {"a": 1}, "right": {"a": 2}}) == []


def test_plain_lists_are_tables_of_one_column_and_mixed_ones_are_none() -> None:
    assert [(table.columns[0].path, table.columns[0].kind) for table in tables([1, 2.5])] == [((), "number")]
    assert [table.columns[0].values for table in tables(["oak", "elm"])] == [("oak", "elm")]
    assert tables([1, "oak"]) == []
    assert tables([True, False]) == []
    assert tables([None, 1]) == []
    assert tables(["one"]) == []
    assert tables([]) == []
    assert tables([{}, {}]) == []
    assert tables(["a sentence of five words", "b"]) == []


def test_tables_are_outermost_first_and_none_stands_within_the_rows_of_another() -> None:
    rows = [{"a": 1, "inner": [{"b": 1}, {"b": 2}]}, {"a": 2, "inner": [{"b": 3}, {"b": 4}]}]
    found = tables({"deep": {"rows": rows}, "top": [1, 2]})
    assert [table.address for table in found] == [("top",), ("deep", "rows")]


def test_sizes_told_in_kilobytes_make_a_column_that_is_not_exact() -> None:
    for sizes, exact in ((("140 B", "20 B"), True), (("140 B", "1.5 KB"), False)):
        (table,) = tables([{"size": size} for size in sizes])
        (column,) = table.columns
        assert (column.kind, column.exact) == ("size", exact)


def test_a_table_of_too_many_rows_is_left_alone() -> None:
    rows: list[Any] = [{"n": n} for n in range(MOST_ITEMS + 1)]
    assert tables(rows) == []
    assert len(tables(rows[:-1])) == 1
