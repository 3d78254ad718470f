"""The values that descriptions mention, in the wordings of real tools."""

from __future__ import annotations

import pytest

from recorder.explore.mined import LONGEST, MOST_VALUES, Mined, listed, mined, quoted, section


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("Unit of temperature, one of: metric, imperial", ("metric", "imperial")),
        ('The unit: either "metric" or "imperial".', ("metric", "imperial")),
        ("must be one of `a`, `b` or `c`", ("a", "b", "c")),
        ("Output format (json|csv|xml)", ("json", "csv", "xml")),
        ("Output format (json/csv)", ("json", "csv")),
        ("Sort order. Options: asc, desc. Default: asc", ("asc", "desc")),
        ("Level of detail. Supported values are low, medium and high", ("low", "medium", "high")),
        ("Available modes: r, w, a", ("r", "w", "a")),
        ("Allowed: GET, POST", ("GET", "POST")),
        ("valid values: GET | POST", ("GET", "POST")),
        ("Can be 'open' or 'closed'. It's kept with the issue's \"history\".", ("open", "closed")),
        ("Mode:\n- fast: quick\n- slow: careful\n- auto: chooses", ("fast", "slow", "auto")),
        ("排序方式。支持：asc、desc", ("asc", "desc")),
    ],
)
def test_choices_are_read(text: str, choices: tuple[str, ...]) -> None:
    assert mined(text).choices == choices


@pytest.mark.parametrize(
    ("text", "examples"),
    [
        ("City name, e.g. Berlin", ("Berlin",)),
        ("City name (e.g., 'Berlin', 'New York')", ("Berlin", "New York")),
        ("Repository, for example octocat/hello-world", ("octocat/hello-world",)),
        ("Date, such as 2024-01-15", ("2024-01-15",)),
        ("Ticker symbol (e.g. AAPL, MSFT)", ("AAPL", "MSFT")),
        ("Currency code, like USD or EUR", ("USD", "EUR")),
        ('Query. Examples: "is:open", "label:bug"', ("is:open", "label:bug")),
        ("Path to the file, e.g. /data/a.csv", ("/data/a.csv",)),
        ("Pattern, e.g. *.py or src/**", ("*.py", "src/**")),
        ("A file like notes.txt", ("notes.txt",)),
        ("Status to set ('open', 'closed')", ("open", "closed")),
        ("The user's id, for instance 'u-17'.", ("u-17",)),
    ],
)
def test_examples_are_read(text: str, examples: tuple[str, ...]) -> None:
    assert mined(text).examples == examples


@pytest.mark.parametrize(
    ("text", "default"),
    [
        ("Time zone (default: 'UTC')", "UTC"),
        ("Max results (default 10)", "10"),
        ("Defaults to 5", "5"),
        ("The number of items. Default is 20.", "20"),
        ("Threshold. Default: 0.5.", "0.5"),
        ("Encoding (default: utf-8)", "utf-8"),
        ("default=json", "json"),
        ("Folder. Default: ~/notes", "~/notes"),
        ("Recursive, default false", "false"),
        ("Default value is -1", "-1"),
        ("Default value is null", None),
        ("Optional (default: None)", None),
        ("Defaults to the current directory", None),
        ("By default it is sorted", None),
        ("The default behavior is fine", None),
        ("Sorts by default, unless told otherwise", None),
    ],
)
def test_a_default_is_read(text: str, default: str | None) -> None:
    assert mined(text).default == default


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The user's name and the group's name",
        "Don't use this; it's deprecated",
        "A name like you would write it",
        "Must be a valid identifier",
        "Can be used to filter",
        "Values are sorted",
        "Must be between 1 and 10",
        "One of the ids returned by list_pets",
        "The id (returned by list_pets)",
        "ISO 8601 date (YYYY-MM-DD)",
        "Whether to include hidden files",
        "Use and/or filters",
        "Supports pagination",
        "Returns numbers, such as counts and sums",
    ],
)
def test_prose_gives_nothing(text: str) -> None:
    assert mined(text) == Mined()


def test_what_is_mined_is_bounded_and_distinct() -> None:
    many = mined("One of: " + ", ".join(f"v{number}" for number in range(90)))
    assert len(many.choices) == MOST_VALUES
    assert mined("e.g. 'a1', 'a1', 'b2'").examples == ("a1", "b2")
    assert all(len(value) <= LONGEST for value in mined(f"e.g. '{'x' * 400}'").examples)


def test_quotation_marks_of_any_kind_quote_and_apostrophes_do_not() -> None:
    assert quoted("'a' \"b\" `c` “d” 「e」") == ["a", "b", "c", "d", "e"]
    assert quoted(r"one of \"metric\"|\"imperial\"") == ["metric", "imperial"]
    assert quoted("it's 'a', isn't it") == ["a"]
    assert quoted(r"'C:\data'") == [r"C:\data"]


def test_a_list_ends_with_its_sentence() -> None:
    assert listed("red, green or blue. Ask the owner, or not") == ["red", "green", "blue"]
    assert listed("'a', 'b'. And 'c'") == ["a", "b"]
    assert listed("nothing of the kind") == []


DOCSTRING = """Find orders.

    Args:
        state: Which ones, one of: open, closed
        limit (int, optional): At most so many
            (default 10)
        `sort` - by what

    Returns:
        state of the orders
"""


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("state", "Which ones, one of: open, closed"),
        ("limit", "At most so many\n            (default 10)"),
        ("sort", "by what"),
        ("stat", ""),
        ("a+b", ""),
    ],
)
def test_a_parameters_section_of_a_docstring_is_found(parameter: str, said: str) -> None:
    assert section(DOCSTRING, parameter) == said


def test_a_section_in_markdown_is_found() -> None:
    assert section("- **city**: the city\n- unit: the unit", "unit") == "the unit"
    assert section("- **city**: the city\n- unit: the unit", "city") == "the city"
