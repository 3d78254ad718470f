import csv
import io
import json
import math
import time
from typing import Any

import pytest

from synth.values import (
    Leaf,
    WrongKind,
    as_kind,
    at,
    date_text,
    duration_s,
    is_exact,
    is_measure,
    kind_of,
    leaves,
    number,
    read,
    replaced,
    size_bytes,
    tables,
    text,
    truth,
)

ROWS = [{"name": "a.txt", "size": "12"}, {"name": "b.txt", "size": "7"}]
PEOPLE = [{"Name": "Ada", "Age": "36"}, {"Name": "Bob", "Age": "40"}]
FILES = ["a.txt", "b.txt"]
TAGGED = [{"tag": "FILE", "name": "a.txt", "size": "12 B"}, {"tag": "DIR", "name": "my docs"}]


def said(*texts: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": part} for part in texts]}


FORMS: dict[str, tuple[str, Any]] = {
    "json object": ('{"a": 1, "b": [true, null]}', {"a": 1, "b": [True, None]}),
    "json object of one member": ('{"only": "x"}', {"only": "x"}),
    "json list": ("[1, 2]", [1, 2]),
    "json in prose": ('Found it:\n{"a": 1, "b": 2}\nDone.', {"a": 1, "b": 2}),
    "json list in prose": ('Here you go: [{"a": 1}, {"a": 2}]', [{"a": 1}, {"a": 2}]),
    "python repr": ("{'a': None, 'b': True, 'c': (1, 2)}", {"a": None, "b": True, "c": [1, 2]}),
    "python repr of rows": ("[{'a': 1}, {'a': 2}]", [{"a": 1}, {"a": 2}]),
    "python repr with numbers as keys": ("{1: 'a', 2: 'b'}", {"1": "a", "2": "b"}),
    "csv": ("name,size\na.txt,12\nb.txt,7\n", ROWS),
    "semicolons": ("name;size\na.txt;12\nb.txt;7", ROWS),
    "tabs": ("name\tsize\na.txt\t12\nb.txt\t7", ROWS),
    "markdown table": ("| name | size |\n|---|---|\n| a.txt | 12 |\n| b.txt | 7 |", ROWS),
    "markdown table after prose": (
        "Two files:\n\n| name | size |\n|:--|--:|\n| a.txt | 12 |\n| b.txt | 7 |\n", ROWS,
    ),
    "key and value": ("Name: Ada\nAge: 36", PEOPLE[0]),
    "blocks apart by an empty line": ("Name: Ada\nAge: 36\n\nName: Bob\nAge: 40", PEOPLE),
    "blocks apart by a rule": ("Name: Ada\nAge: 36\n---\nName: Bob\nAge: 40", PEOPLE),
    "tagged lines": ("[FILE] a.txt   12 B\n[DIR] my docs\n", TAGGED),
    "tagged lines and a summary": (
        "[FILE] a.txt   12 B\n[DIR] my docs\n\nTotal: 1 file, 1 directory\nCombined size: 12 B", TAGGED,
    ),
    "paths": ("/a/a.txt\n/a/b.txt", ["/a/a.txt", "/a/b.txt"]),
    "paths under a heading": ("Allowed directories:\n/tmp\n/home", ["/tmp", "/home"]),
    "bullets": ("- a.txt\n- b.txt", FILES),
    "numbered": ("1. a.txt\n2. b.txt", FILES),
}  # fmt: skip

PROSE = [
    "hello",
    "42",
    "a.txt",
    "a, b, c",
    "Error: something went wrong",
    "Total: 5",
    "It rained. It was cold, though, and we left.\nThen we came home again, tired.",
    "- one two\n- three four",
    "Hello: world\nhow are you",
    "[x] is a box",
    "<a>1</a>",
    "NaN",
]


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_output_reads_into_the_tree_that_it_shows(form: str) -> None:
    written, tree = FORMS[form]
    assert read(said(written)) == tree


@pytest.mark.parametrize("prose", PROSE)
def test_prose_stays_one_text(prose: str) -> None:
    assert read(said(prose)) == prose


@pytest.mark.parametrize("result", [said(""), said("  \n "), {"content": []}, {}, None])
def test_a_result_that_says_nothing_is_nothing(result: Any) -> None:
    assert read(result) is None


def test_texts_of_one_result_are_items_of_a_list() -> None:
    assert read(said('{"id": 1, "n": "a"}', '{"id": 2, "n": "b"}')) == [
        {"id": 1, "n": "a"},
        {"id": 2, "n": "b"},
    ]
    assert read(said("a", "b")) == ["a", "b"]


def test_lines_of_json_are_rows() -> None:
    assert read(said('{"a": 1}\n{"a": 2}\n{"a": 3}')) == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("written", [*(written for written, _ in FORMS.values()), *PROSE])
def test_the_same_text_read_twice_gives_the_same_tree(written: str) -> None:
    assert json.dumps(read(said(written))) == json.dumps(read(said(str(written))))


@pytest.mark.parametrize("written", ["json", "repr", "csv", "markdown", "blocks"])
def test_the_same_rows_have_the_same_table_in_every_form(written: str) -> None:
    rows = [{"name": "ant", "price": 12}, {"name": "bee", "price": 7}, {"name": "cat", "price": 30}]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, ["name", "price"])
    writer.writeheader()
    writer.writerows(rows)
    lines = ["| name | price |", "|---|---|", *(f"| {row['name']} | {row['price']} |" for row in rows)]
    forms = {
        "json": json.dumps(rows),
        "repr": repr(rows),
        "csv": sheet.getvalue(),
        "markdown": "\n".join(lines),
        "blocks": "\n\n".join(f"name: {row['name']}\nprice: {row['price']}" for row in rows),
    }
    (table,) = tables(read(said(forms[written])))
    assert {column.name: (column.kind, column.values) for column in table.columns} == {
        "name": ("text", ("ant", "bee", "cat")),
        "price": ("number", (12, 7, 30)),
    }


# --- plain values ---


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1,234.50", 1234.5), ("1,234,567", 1234567), ("1e3", 1000), ("1E-2", 0.01), ("-.5", -0.5), ("+7", 7),
        (" 3 ", 3), ("-0", 0), (2.0, 2), (2.5, 2.5), (10**30, 10**30), ("1e90", 1e90),
    ],
)  # fmt: skip
def test_numbers_are_read_with_separators_signs_and_exponents(written: Any, value: float) -> None:
    assert number(written) == value
    assert type(number(written)) is type(value)


@pytest.mark.parametrize(
    "written",
    ["", "1,23", "12,345,6", "1_000", "0x10", "5.", "1e999", "nan", "one", "9" * 81, math.nan, math.inf, True,
     None, [1], {}],
)  # fmt: skip
def test_what_is_no_number_is_refused(written: Any) -> None:
    with pytest.raises(WrongKind):
        number(written)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12 B", 12), ("3 bytes", 3), ("1 byte", 1), ("1.5 KB", 1536), ("1 KiB", 1024), ("1kb", 1024),
        ("2 MB", 2 * 1024**2), ("1 GB", 1024**3), ("1,024 B", 1024), ("7", 7), (7, 7),
    ],
)  # fmt: skip
def test_sizes_are_in_bytes(written: Any, value: int) -> None:
    assert size_bytes(written) == value


@pytest.mark.parametrize("written", ["5 parsecs", "3%", "12 apples", "KB", True, None, ""])
def test_what_is_no_size_is_refused(written: Any) -> None:
    with pytest.raises(WrongKind):
        size_bytes(written)


def test_a_size_with_a_larger_unit_is_not_told_to_the_byte() -> None:
    assert [is_exact(size) for size in ("52 B", 52, "52.4 KB", "1 MB")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.5 h", 5400), ("90 min", 5400), ("5 mins", 300), ("2 hrs", 7200), ("2 days", 172800),
        ("1 d", 86400), ("3 weeks", 1814400), ("100 ms", 0.1), ("5 µs", 5e-6), ("1 ns", 1e-9),
        ("10 seconds", 10),
    ],
)  # fmt: skip
def test_durations_are_in_seconds(written: str, value: float) -> None:
    assert duration_s(written) == value


@pytest.mark.parametrize("written", [7, "7", "1h 30m", "1 month", "3%", "", None])
def test_what_has_no_unit_of_time_is_no_duration(written: Any) -> None:
    with pytest.raises(WrongKind):
        duration_s(written)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2024-02-29", "2024-02-29"),
        ("Feb 28, 2024", "2024-02-28"),
        ("Wed Feb 28 2024", "2024-02-28"),
        ("2024-02-28 23:59", "2024-02-28T23:59:00Z"),
        ("2024-02-28T23:59:59Z", "2024-02-28T23:59:59Z"),
        ("2024-02-28T23:59:59 UTC", "2024-02-28T23:59:59Z"),
        ("2024-02-28T23:59:59.123456789+02:00", "2024-02-28T21:59:59Z"),
        ("2024-02-28T23:59:59-0530", "2024-02-29T05:29:59Z"),
        ("Wed, 28 Feb 2024 23:59:59 GMT", "2024-02-28T23:59:59Z"),
        ("Wed, 28 Feb 2024 23:59:59 -0100", "2024-02-29T00:59:59Z"),
        ("Wed, 28 Feb 2024 23:59:59 -0000", "2024-02-28T23:59:59Z"),
        ("Wed Feb 28 2024 10:00:00 GMT+0100 (Central European Standard Time)", "2024-02-28T09:00:00Z"),
    ],
)
def test_dates_are_days_or_moments_in_utc(written: str, value: str) -> None:
    assert date_text(written) == value
    assert date_text(value) == value


@pytest.mark.parametrize(
    "written",
    ["2024-02-30", "2024-13-01", "2024-01-01T25:00:00Z", "2024-01-01T24:00:00Z", "20240101", "2024/01/01",
     "1.2.2024", "Wed, 99 Foo 2024", "Mon, 01 Jan 99999 00:00:00", "Mon, 01 Jan 2024 00:00:00 +9999",
     "9999-12-31T23:59:59-02:00", "0001-01-01T00:00:00+02:00", "a long text", "",
     "x" * 200, 20240101, True, None],
)  # fmt: skip
def test_what_is_no_date_is_refused(written: Any) -> None:
    with pytest.raises(WrongKind):
        date_text(written)


def test_a_moment_before_the_year_1000_has_four_digits() -> None:
    assert date_text("0999-01-01T00:00:00Z") == "0999-01-01T00:00:00Z"


def test_a_zone_more_than_a_day_away_is_none() -> None:
    with pytest.raises(WrongKind):
        date_text("2024-01-01T10:00:00+25:00")


@pytest.mark.parametrize("kind", ["date", "boolean", "duration", "text"])
def test_a_number_too_long_to_write_is_of_the_wrong_kind(kind: str) -> None:
    with pytest.raises(WrongKind):
        as_kind(10**5000, kind)


def test_words_of_truth_are_truth_values_and_numbers_are_not() -> None:
    assert [truth(word) for word in (True, False, "Yes", "no", " TRUE ", "false")] == [
        True, False, True, False, True, False,
    ]  # fmt: skip
    for other in (1, 0, "1", "y", "", None):
        with pytest.raises(WrongKind):
            truth(other)


def test_a_text_is_stripped_and_a_number_is_the_text_of_itself() -> None:
    assert [text(value) for value in (" a ", 5, 5.0, 0.5)] == ["a", "5", "5", "0.5"]
    others: list[Any] = [True, "", "  ", None, [], {}, math.nan]
    for other in others:
        with pytest.raises(WrongKind):
            text(other)


def test_a_kind_that_does_not_exist_is_named() -> None:
    with pytest.raises(WrongKind, match=r"no kind 'colour'.*boolean, number"):
        as_kind("red", "colour")


@pytest.mark.parametrize(
    ("value", "name", "kind"),
    [
        ("1.10", "version", "text"), ("1.10", "price", "number"), ("007", "", "text"), ("-01", "", "text"),
        ("0.5", "", "number"), ("0", "", "number"), ("2024", "release", "text"), ("555", "phone", "text"),
        ("x-12", "", "id"), ("550e8400-e29b-41d4-a716-446655440000", "", "id"),
        ("deadbeefdeadbeef", "", "id"), (5, "id", "id"), ("5", "user_id", "id"), ("5", "userId", "id"),
        (12, "year", "number"),
        ("2024-01-01", "", "date"), ("5 KB", "", "size"), ("5 B", "", "size"), ("5 m", "length", "size"),
        ("5 s", "", "duration"), ("5s", "", "text"), ("yes", "", "boolean"), (True, "id", "boolean"),
        ("hello world", "", "text"), ("a\nb", "", None), ("x" * 161, "", None), ("", "", None),
        (" ", "", None), (None, "", None), ([], "", None), ({}, "", None), (math.nan, "", None),
    ],
)  # fmt: skip
def test_the_kind_of_a_value_goes_by_its_form_and_its_name(value: Any, name: str, kind: str | None) -> None:
    assert kind_of(value, name) == kind
    if kind is not None:
        as_kind(value, kind)


def test_numbers_that_say_which_or_where_are_no_measures() -> None:
    assert [is_measure(name) for name in ("price", "total_size", "user_id", "zipCode", "lat")] == [
        True, True, False, False, False,
    ]  # fmt: skip


# --- tables ---


def test_every_list_of_records_in_a_tree_is_a_table_outermost_first() -> None:
    rows = [{"id": 1, "size": "1 KB", "by": {"who": "Ada"}}, {"id": 2, "size": 5, "by": {"who": "Bob"}}]
    tree = {"inner": {"list": rows}, "rows": [{"n": 1, "inside": rows}, {"n": 2, "inside": rows}]}
    outer, inner = tables(tree)
    assert (outer.address, outer.rows, [column.path for column in outer.columns]) == (("rows",), 2, [("n",)])
    assert (inner.address, inner.rows, inner.keyed) == (("inner", "list"), 2, False)
    assert [(column.path, column.kind, column.values, column.exact) for column in inner.columns] == [
        (("id",), "id", ("1", "2"), True),
        (("size",), "size", (1024, 5), False),
        (("by", "who"), "text", ("Ada", "Bob"), True),
    ]


def test_members_of_an_object_are_rows_with_a_key() -> None:
    (table,) = tables({"of": {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 2}}})
    assert (table.address, table.rows, table.keyed) == (("of",), 3, True)
    assert [(column.path, column.values, column.distinct) for column in table.columns] == [
        (("key",), ("a", "b", "c"), True),
        (("value", "x"), (1, 2, 2), False),
    ]


@pytest.mark.parametrize(("items", "kind"), [([3, 1, 2.5], "number"), (["ant", "bee"], "text")])
def test_a_list_of_plain_values_is_a_table_of_one_column(items: list[Any], kind: str) -> None:
    (table,) = tables({"items": items})
    assert [(column.path, column.kind, column.values) for column in table.columns] == [
        ((), kind, tuple(items))
    ]


@pytest.mark.parametrize(
    "tree",
    [[], [1], [{"a": 1}], [1, "a"], [True, False], [[1, 2], [3, 4]], ["one two three four five", "b"],
     [{"a": 1}, 2], [{"a": None}, {"a": 1}], [{"a": 1}, {"b": 1}], [{"a": 1}] * 201, {"a": {"x": 1},
      "b": {"x": 2}},
     "text", 5, None],
)  # fmt: skip
def test_what_is_no_list_of_the_same_kind_is_no_table(tree: Any) -> None:
    assert tables(tree) == []


def test_a_column_of_several_kinds_is_text_and_one_with_gaps_is_none() -> None:
    (table,) = tables([{"mixed": 1, "gap": "x", "n": 1}, {"mixed": "two", "gap": "", "n": 2}])
    assert {column.name: column.values for column in table.columns} == {"mixed": ("1", "two"), "n": (1, 2)}


@pytest.mark.parametrize(
    "tree", [*(tree for _, tree in FORMS.values()), {"k": {"a": {"x": 1}, "b": [1, "y"]}}]
)
def test_every_leaf_stands_at_its_address(tree: Any) -> None:
    found = list(leaves(tree))
    assert all(at(tree, leaf.address) == leaf.value for leaf in found)
    assert len({leaf.address for leaf in found}) == len(found)


def test_leaves_come_in_order_without_nulls_and_empty_texts() -> None:
    assert list(leaves({"a": [1, None, ""], "b": False, "c": {"d": "x"}})) == [
        Leaf(("a", 0), 1),
        Leaf(("b",), False),
        Leaf(("c", "d"), "x"),
    ]


# --- addresses ---

TREE: Any = {"rows": [{"n": 1}, {"n": 2}], "0": "zero", "text": "abc"}


def test_an_address_leads_to_its_node() -> None:
    assert [at(TREE, path) for path in ((), ("rows", 1, "n"), ("0",))] == [TREE, 2, "zero"]


@pytest.mark.parametrize(
    "path",
    [
        ("no",),
        ("rows", 2),
        ("rows", -1),
        ("rows", "0"),
        ("rows", True),
        (0,),
        ("text", 0),
        ("rows", 0, "n", 0),
    ],
)
def test_an_address_of_nothing_is_a_lookup_error(path: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        at(TREE, path)


def test_replacing_changes_the_copy_and_not_the_tree() -> None:
    before = json.dumps(TREE)
    changed = replaced(TREE, ("rows", 1, "n"), "new")
    assert changed == {**TREE, "rows": [{"n": 1}, {"n": "new"}]}
    assert changed["rows"][0] is TREE["rows"][0]
    assert replaced(TREE, (), 5) == 5
    assert json.dumps(TREE) == before


@pytest.mark.parametrize("path", [("no",), ("rows", 2), ("rows", "x")])
def test_replacing_what_is_not_there_raises(path: tuple[str | int, ...]) -> None:
    with pytest.raises((LookupError, ValueError)):
        replaced(TREE, path, 5)


@pytest.mark.parametrize("path", [(0,), ("text", 0), ("rows", -1), ("rows", "0"), ("rows", True)])
def test_replacing_refuses_the_addresses_that_lead_nowhere(path: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        replaced(TREE, path, 5)


# --- huge, deep and odd ---

MEGA = 1_000_000
ODD: dict[str, str] = {
    "words": "word " * MEGA,
    "lines": "some line of text\n" * (MEGA // 4),
    "lists that do not end": "[" * 5 * MEGA,
    "objects that do not end": '{"a": ' * MEGA,
    "keys and values": "a: b\n" * MEGA,
    "pipes": "|" * 5 * MEGA,
    "csv": "a,b\n" + "1,2\n" * MEGA,
    "rows": "[" + ",".join(['{"a": 1}'] * (MEGA // 2)) + "]",
    "paths": "/a/b.txt\n" * (MEGA // 2),
    "spaces": " " * 5 * MEGA + "x",
    "nested lists": "[" * 5000 + "]" * 5000,
    "nested tuples": "(" * 5000 + ")" * 5000,
    "nested objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "nested in prose": "See: " + "[" * 5000 + "]" * 5000,
    "nested signs": "[" + "-" * 5000 + "1]",
    "digits": '{"a": ' + "9" * 5000 + "}",
    "infinities": '{"a": NaN, "b": [Infinity, -Infinity, 1e400]}',
    "surrogate": "\ud800",
    "surrogate in json": '{"a": "\\ud800", "b\ud800": 1}',
    "nul": "\0" * 1000,
    "same member twice": '{"a": 1, "a": 2}',
    "bytes": "b'x'",
    "tag alone": "[FILE]",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_text_is_read_without_an_error(name: str) -> None:
    tree = read(said(ODD[name]))
    for table in tables(tree):
        at(tree, table.address)
    for leaf in leaves(tree):
        kind = kind_of(leaf.value, str(leaf.address[-1]) if leaf.address else "")
        if kind is not None:
            as_kind(leaf.value, kind)


@pytest.mark.parametrize(
    "result",
    ["x", 5, [1], {"content": "abc"}, {"content": [None, 3]}, {"content": [{"type": "text", "text": 5}]},
     {"content": [{"type": "text"}]}, {"content": [{"type": "image", "data": "x"}]},
     {"structuredContent": None}, {"structuredContent": {}, "content": None}],
)  # fmt: skip
def test_a_result_of_an_odd_shape_is_read_without_an_error(result: Any) -> None:
    assert tables(read(result)) == []


def test_a_long_run_of_spaces_in_a_tagged_line_takes_no_time() -> None:
    def seconds(spaces: int) -> float:
        started = time.process_time()
        read(said("[FILE] a  b" + " " * spaces + "c"))
        return time.process_time() - started

    assert seconds(12_000) < 8 * seconds(3_000) + 0.05
