"""What is read out of errors as libraries and servers word them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recorder.explore.complaints import Complaint, read_complaint

TOOLS = ("set_repository", "activate_project", "list", "query")


def read(text: str, **arguments: Any) -> Complaint:
    """As an error of a tool with these arguments and three more parameters."""
    parameters = dict.fromkeys([*arguments, "city", "unit", "limit"])
    return read_complaint(text, arguments, parameters, TOOLS)


def pydantic(name: str, said: str, kind: str, given: str) -> str:
    return (
        f"1 validation error for call[forecast]\n{name}\n  {said} [type={kind}, "
        f"input_value={given}, input_type=str]\n"
        f"    For further information visit https://errors.pydantic.dev/2.12/v/{kind}"
    )


def zod(**issue: Any) -> str:
    """As the MCP SDK for TypeScript words the issues that zod 3 and 4 raise."""
    return f"MCP error -32602: Invalid arguments for tool forecast: {json.dumps([issue], indent=2)}"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (pydantic("unit", "Input should be 'metric' or 'imperial'", "literal_error", "'k'"), {"unit": "k"}),
        (pydantic("unit", "Input should be 'metric' or 'imperial'", "enum", "'k'"), {"unit": "k"}),
        (
            zod(code="invalid_enum_value", received="kelvin", options=["metric", "imperial"], path=["unit"]),
            {"unit": "kelvin"},
        ),
        (
            zod(code="invalid_value", values=["metric", "imperial"], path=["unit"],
                message='Invalid option: expected one of "metric"|"imperial"'),
            {"unit": "kelvin"},
        ),
        ("Invalid enum value. Expected 'metric' | 'imperial', received 'kelvin'", {"unit": "kelvin"}),
        ("'kelvin' is not one of ['metric', 'imperial']", {"unit": "kelvin"}),
        ("'kelvin' is not one of ['metric', 'imperial']\n\nFailed validating 'enum' in schema['properties']['unit']:"
         "\n    {'enum': ['metric', 'imperial']}\n\nOn instance['unit']:\n    'kelvin'", {"unit": "kelvin"}),
        ("argument --unit: invalid choice: 'kelvin' (choose from 'metric', 'imperial')", {"unit": "kelvin"}),
        ("argument --unit: invalid choice: 'kelvin' (choose from metric, imperial)", {"unit": "kelvin"}),
        ("Unknown unit 'kelvin'. Available units: metric, imperial", {"unit": "kelvin"}),
        ("Invalid unit: kelvin. Must be one of: metric, imperial.", {"unit": "kelvin"}),
        ("Invalid unit. Supported: ['metric', 'imperial']", {"unit": "kelvin"}),
        ("unit must be either 'metric' or 'imperial'", {"unit": "kelvin"}),
        ("ValueError: unit must be one of metric, imperial", {"unit": "kelvin"}),
        ("Unsupported unit: kelvin. Supported units are metric and imperial.", {"unit": "kelvin"}),
        ("Error: allowed values for unit are `metric`, `imperial`", {"unit": "kelvin"}),
        ('{"error": "bad unit", "valid_units": ["metric", "imperial"]}', {"unit": "kelvin"}),
        ("未知的单位 kelvin: ['metric', 'imperial']", {"unit": "kelvin"}),
    ],
)  # fmt: skip
def test_allowed_values_are_read_and_whose_they_are(text: str, arguments: dict[str, Any]) -> None:
    complaint = read(text, **arguments)
    assert (complaint.allowed, complaint.allowed_for) == (("metric", "imperial"), "unit")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('Project "xy" not found. Did you mean "xyz"?', "xyz"),
        ("No such project. Known projects: [xyz]", "xyz"),
        ("project must be 'xyz'", "xyz"),
    ],
)
def test_a_single_value_is_read(text: str, value: str) -> None:
    complaint = read(text, project="xy")
    assert (complaint.allowed, complaint.allowed_for) == ((value,), "project")


def test_a_list_is_for_the_parameter_that_it_is_headed_with() -> None:
    complaint = read("Unknown unit for city Rome. Available units: metric, imperial", city="Rome", unit="k")
    assert complaint.allowed_for == "unit"
    assert (
        read("No table pets. Available tables: users, orders", sql="x", table="pets").allowed_for == "table"
    )


def test_a_list_is_for_the_parameter_whose_short_value_is_quoted() -> None:
    assert read("'m' is not one of ['furlong', 'rod']", amount=2500, unit="m").allowed_for == "unit"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("Additional properties are not allowed ('x' was unexpected)", {"x": 1}),
        ("Additional properties are not allowed ('x', 'y' were unexpected)", {"x": 1, "y": 2}),
        ("forecast() got an unexpected keyword argument 'x'", {"x": 1}),
        (pydantic("x", "Extra inputs are not permitted", "extra_forbidden", "1"), {"x": 1}),
        ("Unknown tool: get_pets", {}),
        ("Unknown unit: kelvin", {"unit": "kelvin"}),
        ("Unsupported format: docx", {"format": "docx"}),
        ("Invalid value: kelvin", {"unit": "kelvin"}),
        ("Expected string, received number", {"city": 3}),
        ("expected str, bytes or os.PathLike object, not NoneType", {"city": 3}),
        ("Expected ',' or '}' after property value in JSON at position 5", {"city": '{"a"'}),
        ("'x' is not of type 'integer'", {"limit": "x"}),
        ("invalid literal for int() with base 10: 'x'", {"limit": "x"}),
        ("could not convert string to float: 'x'", {"limit": "x"}),
        ("The value is not allowed here.", {"city": "x"}),
        ("This operation is not supported. Try again, or contact support.", {"city": "x"}),
        ("No values are available for this period", {"city": "x"}),
        ("Service unavailable: retry later, or not", {"city": "x"}),
        ("invalid value: must be a positive integer", {"limit": -1}),
        ("no such table: pets", {"sql": "SELECT * FROM pets"}),
        ("no such column: name", {"sql": "SELECT name FROM t"}),
        ('near "selec": syntax error', {"sql": "selec"}),
        ("Error executing tool forecast: 'city'", {}),
        ("[Errno 2] No such file or directory: '/nope/x'", {"path": "/nope/x"}),
        ("Access denied - path outside allowed directories: /etc/x not in /data", {"path": "/etc/x"}),
        ("HTTP 404: Not Found", {"city": "x"}),
    ],
)
def test_what_is_refused_a_type_or_prose_is_no_allowed_value(text: str, arguments: dict[str, Any]) -> None:
    assert read(text, **arguments).allowed == ()


@pytest.mark.parametrize(
    ("text", "required"),
    [
        (pydantic("city", "Field required", "missing", "{}"), ("city",)),
        (pydantic("city", "Missing required argument", "missing_argument", "{}"), ("city",)),
        (zod(code="invalid_type", expected="string", received="undefined", path=["city"], message="Required"),
         ("city",)),
        (zod(expected="string", code="invalid_type", path=["city"],
             message="Invalid input: expected string, received undefined"), ("city",)),
        ("'city' is a required property", ("city",)),
        ("forecast() missing 1 required positional argument: 'city'", ("city",)),
        ("forecast() missing 2 required positional arguments: 'city' and 'unit'", ("city", "unit")),
        ("forecast() missing 1 required keyword-only argument: 'city'", ("city",)),
        ("forecast: error: the following arguments are required: --city, --unit", ("city", "unit")),
        ("Missing required parameter: city", ("city",)),
        ("city is required", ("city",)),
        ("Error: 'city' is required for a forecast", ("city",)),
        ("You must provide a city", ("city",)),
        ("city must be specified", ("city",)),
    ],
)  # fmt: skip
def test_missing_parameters_are_read(text: str, required: tuple[str, ...]) -> None:
    assert read(text).required == required


def test_a_missing_parameter_is_meant_however_it_is_spelt_unless_it_was_given() -> None:
    assert read_complaint("Missing required parameter: cityName", {}, ["city_name"], []).required == (
        "city_name",
    )
    assert read("city is required", city="Rome").required == ()
    assert read("confirmation is required").required == ()


@pytest.mark.parametrize(
    ("text", "unexpected"),
    [
        ("Additional properties are not allowed ('x' was unexpected)", ("x",)),
        ("Additional properties are not allowed ('x', 'y' were unexpected)", ("x", "y")),
        ("forecast() got an unexpected keyword argument 'x'", ("x",)),
        (pydantic("x", "Extra inputs are not permitted", "extra_forbidden", "1"), ("x",)),
        (pydantic("x", "Unexpected keyword argument", "unexpected_keyword_argument", "1"), ("x",)),
        (zod(code="unrecognized_keys", keys=["x"], message="Unrecognized key(s) in object: 'x'"), ("x",)),
        (zod(code="unrecognized_keys", keys=["x"], message='Unrecognized key: "x"'), ("x",)),
    ],
)
def test_parameters_that_should_not_be_there_are_read(text: str, unexpected: tuple[str, ...]) -> None:
    assert read(text, x=1, y=2).unexpected == unexpected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (pydantic("city", "Input should be a valid string", "string_type", "3"), "string"),
        (pydantic("city", "Input should be a valid list", "list_type", "'x'"), "array"),
        (pydantic("city", "Input should be a valid dictionary", "dict_type", "3"), "object"),
        (pydantic("city", "Input should be a valid integer, unable to parse", "int_parsing", "x"), "integer"),
        (zod(code="invalid_type", expected="number", received="string", path=["city"]), "number"),
        (zod(expected="array", code="invalid_type", path=["city"], message="Invalid input"), "array"),
        ("city must be a string", "string"),
        ("'city' must be an array", "array"),
    ],
)
def test_a_type_is_read_for_its_parameter(text: str, kind: str) -> None:
    assert read(text, city=3).types == {"city": kind}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        (pydantic("limit", "Input should be less than or equal to 10", "less_than_equal", "11"), (None, 10)),
        (pydantic("limit", "Input should be greater than or equal to 1", "x", "0"), (1, None)),
        ("11 is greater than the maximum of 10", (None, 10)),
        ("-3 is less than the minimum of -2.5", (-2.5, None)),
        (zod(code="too_big", path=["limit"], message="Too big: expected number to be <=10"), (None, 10)),
        (zod(code="too_small", path=["limit"], message="Number must be greater than or equal to 1"), (1, None)),
        ("limit must be between 1 and 100", (1, 100)),
        ("limit must be at most 50", (None, 50)),
        ("limit should be a number", (None, None)),
    ],
)  # fmt: skip
def test_limits_are_read(text: str, limits: tuple[float | None, float | None]) -> None:
    complaint = read(text, limit=11)
    assert (complaint.minimum, complaint.maximum) == limits


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        (pydantic("city", r"String should match pattern '^[A-Z]{2}\d$'", "x", "'z'"), r"^[A-Z]{2}\d$"),
        ("'z' does not match '^[A-Z]{2}$'", "^[A-Z]{2}$"),
        ("city must match the pattern /^[a-z]+$/", "^[a-z]+$"),
        ("the pattern of rain does not match", None),
    ],
)
def test_a_pattern_is_read(text: str, pattern: str | None) -> None:
    assert read(text, city="z").pattern == pattern


@pytest.mark.parametrize(
    ("text", "absolute", "directory", "missing"),
    [
        ("Path must be absolute: a.txt", True, None, False),
        ("path should be a relative path", False, None, False),
        ("Absolute paths are not allowed", False, None, False),
        ("ENOENT: no such file or directory, open '/a/b'", None, None, True),
        ("[Errno 2] No such file or directory: 'a'", None, None, True),
        ("[Errno 21] Is a directory: '/a'", None, False, False),
        ("EISDIR: illegal operation on a directory, read", None, False, False),
        ("ENOTDIR: not a directory, scandir '/a/b'", None, True, False),
        ("/a/b is not a valid directory", None, True, False),
        ("city is a name", None, None, False),
    ],
)
def test_what_is_wrong_with_a_path_is_read(
    text: str, absolute: bool | None, directory: bool | None, missing: bool
) -> None:
    complaint = read(text, path="/a/b")
    assert (complaint.absolute, complaint.directory, complaint.missing) == (absolute, directory, missing)


@pytest.mark.parametrize(
    ("text", "extensions"),
    [
        ("File must be an Excel file (.xlsx, .xls)", (".xlsx", ".xls")),
        ("Unsupported file type .txt, expected .csv", (".csv",)),
        ("Only .PDF files are supported", (".pdf",)),
        ("Cannot read ./a.b.c of example.com", ()),
    ],
)
def test_file_endings_that_would_do_are_read(text: str, extensions: tuple[str, ...]) -> None:
    assert read(text, path="notes.txt").extensions == extensions


@pytest.mark.parametrize(
    ("text", "tools", "set_up"),
    [
        ("Repository path not set. Call set_repository first.", ("set_repository",), True),
        ("No active project. Use `activate_project` to choose one.", ("activate_project",), True),
        ("Use activate_project, then set_repository", ("activate_project", "set_repository"), False),
        ("Please run the 'list' tool first", ("list",), True),
        ("Session not initialized", (), True),
        ("No file is open", (), True),
        ("A list of rows was expected in the query", (), False),
        ("reset_repository_all failed", (), False),
        ("city must be a string", (), False),
    ],
)
def test_set_up_and_the_tools_it_takes_are_read(text: str, tools: tuple[str, ...], set_up: bool) -> None:
    complaint = read(text, city="x")
    assert (complaint.tools, complaint.set_up) == (tools, set_up)


def test_parameters_that_exclude_each_other_are_read_where_they_were_given() -> None:
    text = "Cannot use both head and tail simultaneously"
    assert read(text, head=1, tail=2).exclusive == ("head", "tail")
    assert read("head must be positive", head=1, tail=2).exclusive == ()


def test_what_an_error_is_about_is_what_it_names_or_quotes() -> None:
    assert read("Unknown place Rome", city="Rome", limit=2).about == ("city",)
    assert read("bad limits in cityscape", city="a", limit=2).about == ()
    assert read("no such item: 17", ids=[{"of": 17}]).about == ("ids",)


def test_a_long_hostile_text_is_read_quickly_and_without_end_effects() -> None:
    for piece in ("expected ", "valid [", "'a', ", "must be one of: ", "((((", "path must be absolute \n"):
        complaint = read(piece * 20_000, city="a")
        assert len(complaint.allowed) <= 60
