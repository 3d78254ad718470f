"""What a schema says of a parameter, once references, joins and choices are followed."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.explore.parameters import converted, fits, input_schema, resolved, type_of, walk

DEFS: dict[str, Any] = {
    "$defs": {
        "Unit": {"type": "string", "enum": ["metric", "imperial"]},
        "Alias": {"$ref": "#/$defs/Unit"},
        "a/b~c": {"type": "integer"},
        "Node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
            "required": ["name"],
        },
        "Loop": {"$ref": "#/$defs/Loop"},
        "Ping": {"allOf": [{"$ref": "#/$defs/Pong"}]},
        "Pong": {"allOf": [{"$ref": "#/$defs/Ping"}]},
        "Some": {"anyOf": [{"$ref": "#/$defs/Some"}, {"type": "string"}]},
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"$ref": "#/$defs/Unit"}, {"type": "string", "enum": ["metric", "imperial"]}),
        ({"$ref": "#/$defs/Alias", "default": "metric"},
         {"type": "string", "enum": ["metric", "imperial"], "default": "metric"}),
        ({"$ref": "#/$defs/a~1b~0c"}, {"type": "integer"}),
        ({"$ref": "#/$defs/none"}, {}),
        ({"$ref": "https://example.com/schema"}, {}),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}], "default": None}, {"type": "integer", "default": None}),
        ({"oneOf": [{"$ref": "#/$defs/a~1b~0c"}, {"type": "string"}]}, {"type": "integer"}),
        ({"anyOf": [{"type": "null"}]}, {"anyOf": [{"type": "null"}]}),
        ({"allOf": [{"$ref": "#/$defs/Unit"}], "description": "d"},
         {"type": "string", "enum": ["metric", "imperial"], "description": "d"}),
        ({"allOf": [{"type": "object", "properties": {"a": {}}, "required": ["a"]},
                    {"properties": {"b": {}}, "required": ["b"]}]},
         {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"]}),
        ({"anyOf": [{"allOf": [{"anyOf": [{"type": "number"}]}]}]}, {"type": "number"}),
        (True, {}),
        (None, {}),
        ("string", {}),
    ],
)  # fmt: skip
def test_references_joins_and_choices_are_followed(schema: object, expected: dict[str, Any]) -> None:
    assert resolved(schema, DEFS) == expected


@pytest.mark.parametrize("name", ["Loop", "Ping", "Pong", "Some"])
def test_a_schema_that_refers_to_itself_comes_to_an_end(name: str) -> None:
    assert isinstance(resolved({"$ref": f"#/$defs/{name}"}, DEFS), dict)


def test_a_tree_is_walked_to_a_depth() -> None:
    root = {**DEFS, "properties": {"tree": {"$ref": "#/$defs/Node"}}, "required": ["tree"]}
    assert [(".".join(path), required) for path, _, required in walk(root, root, depth=3)] == [
        ("tree", True),
        ("tree.name", True),
        ("tree.children", False),
        ("tree.children.*", False),
        ("tree.children.*.name", True),
        ("tree.children.*.children", False),
    ]


def test_many_joins_of_itself_come_to_an_end() -> None:
    root = {"$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}] * 6 + [{"type": "string"}]}}}
    assert resolved({"$ref": "#/$defs/A"}, root)["type"] == "string"
    nested = {"$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}}}
    assert len(list(walk({"properties": {"l": {"$ref": "#/$defs/L"}}}, nested))) == 4


def test_lists_of_lists_are_walked_to_their_items() -> None:
    root = {"properties": {"m": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}}}
    found = {path: type_of(schema) for path, schema, _ in walk(root, root)}
    assert found == {("m",): "array", ("m", "*"): "array", ("m", "*", "*"): "number"}


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "integer"}, "integer"),
        ({"type": ["null", "string"]}, "string"),
        ({"type": ["null"]}, None),
        ({"properties": {}}, "object"),
        ({"additionalProperties": True}, "object"),
        ({"items": {}}, "array"),
        ({"enum": [1, 2]}, "integer"),
        ({"const": True}, "boolean"),
        ({"const": None}, "null"),
        ({"enum": []}, None),
        ({}, None),
    ],
)
def test_a_type_is_read_or_guessed(schema: dict[str, Any], kind: str | None) -> None:
    assert type_of(schema) == kind


@pytest.mark.parametrize(
    ("value", "schema", "given"),
    [
        ("17", {"type": "integer"}, 17),
        ("1.5", {"type": "number"}, 1.5),
        (3.0, {"type": "integer"}, 3),
        (17, {"type": "string"}, "17"),
        ("a", {"type": "string"}, "a"),
        (True, {"type": "boolean"}, True),
        ([1], {"type": "array"}, [1]),
        ({"a": 1}, {"type": "object"}, {"a": 1}),
        (5, {"type": "integer", "minimum": 5, "maximum": 5}, 5),
        (6, {"type": "integer", "exclusiveMinimum": 5, "minimum": "none"}, 6),
        ("abc", {"type": "string", "minLength": 3, "maxLength": 3}, "abc"),
        ("b", {"enum": ["a", "b"]}, "b"),
        ("a", {"const": "a"}, "a"),
        ([1], {}, [1]),
    ],
)
def test_a_value_that_fits_is_given_in_the_type_asked_for(
    value: Any, schema: dict[str, Any], given: Any
) -> None:
    assert fits(value, schema)
    assert (converted(value, schema), type(converted(value, schema))) == (given, type(given))


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("x", {"type": "integer"}),
        ("1.5", {"type": "integer"}),
        (True, {"type": "integer"}),
        (True, {"type": "string"}),
        (None, {"type": "string"}),
        ("nan", {"type": "number"}),
        ("1e999", {"type": "number"}),
        (float("inf"), {"type": "number"}),
        ("true", {"type": "boolean"}),
        (1, {"type": "boolean"}),
        ("a", {"type": "array"}),
        ([], {"type": "object"}),
        (4, {"type": "integer", "minimum": 5}),
        ("6", {"type": "integer", "maximum": 5}),
        (5, {"type": "integer", "exclusiveMinimum": 5}),
        (5, {"type": "number", "exclusiveMaximum": 5}),
        (6, {"type": "number", "exclusiveMaximum": 5}),
        ("c", {"enum": ["a", "b"]}),
        (True, {"enum": [1]}),
        ("b", {"const": "a"}),
        ("ab", {"type": "string", "minLength": 3}),
        ("abcd", {"type": "string", "maxLength": 3}),
    ],
)
def test_a_value_that_does_not_fit_is_not_given(value: Any, schema: dict[str, Any]) -> None:
    assert not fits(value, schema)


def test_a_schema_is_found_under_any_of_its_names() -> None:
    schema = {"type": "object"}
    for name in ("inputSchema", "input_schema", "parameters"):
        assert input_schema({name: schema}) == schema
    assert input_schema({"inputSchema": "none"}) == input_schema({}) == {}
