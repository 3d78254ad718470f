"""The form of an answer, and when two answers are the same.

An answer is a JSON object. Its schema is JSON Schema with three keywords of ours: `x-unit`, `x-tolerance`
(the greatest absolute difference between equal numbers) and `x-order` (`set`: the order of a list does not
matter).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from recorder.exchange import Json
from synth.values import WrongKind, date_text, number

TOLERANCE = 0.01
"""For numbers with a fraction: answers are asked for with two decimals."""

ORDERS = ("set", "list")

Schema = dict[str, Json]


def field_schema(kind: str, description: str, unit: str = "", *, whole: bool = False) -> Schema:
    """Return the schema of a plain field.

    Args:
        kind: As in `values.Kind`.
        whole: A number that is always an integer.
    """
    schema: Schema = {"type": "string", "description": description}
    match kind:
        case "boolean":
            schema["type"] = "boolean"
        case "number" | "size" | "duration":
            schema["type"] = "integer" if whole else "number"
            if not whole:
                schema["x-tolerance"] = TOLERANCE
        case "date":
            schema["format"] = "date"
    unit = unit or {"size": "bytes", "duration": "seconds"}.get(kind, "")
    if unit:
        schema["x-unit"] = unit
    return schema


def list_schema(item_kind: str, description: str, *, ordered: bool, whole: bool = False) -> Schema:
    item = {
        name: value
        for name, value in field_schema(item_kind, "", whole=whole).items()
        if name != "description"
    }
    return {
        "type": "array",
        "items": item,
        "description": description,
        "x-order": "list" if ordered else "set",
    }


def answer_schema(fields: Mapping[str, Schema]) -> Schema:
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def fields_right(schema: Schema, expected: Mapping[str, Json], given: Json) -> dict[str, bool]:
    """Return for each expected field whether a given answer has it right; fields beyond are all wrong."""
    answer = given if isinstance(given, dict) else {}
    properties = schema.get("properties", {})
    right = {
        name: name in answer and same(properties.get(name, {}), value, answer[name])
        for name, value in expected.items()
    }
    return right | {name: False for name in answer if name not in expected}


def is_right(schema: Schema, expected: Mapping[str, Json], given: Json) -> bool:
    """Whether a given answer is the expected one in every field."""
    return isinstance(given, dict) and all(fields_right(schema, expected, given).values())


def same(schema: Schema, expected: Json, given: Json) -> bool:
    """Whether two values are the same to a field's schema."""
    match schema.get("type"):
        case "boolean":
            return isinstance(given, bool) and given == expected
        case "integer" | "number":
            if isinstance(given, bool):
                return False
            try:
                distance = abs(number(expected) - number(given))
            except WrongKind:
                return False
            # A little more, as 0.02 - 0.01 is above 0.01.
            return distance <= float(schema.get("x-tolerance", 0)) * (1 + 1e-9)
        case "array":
            if not isinstance(given, list) or not isinstance(expected, list) or len(given) != len(expected):
                return False
            item = schema.get("items", {})
            if schema.get("x-order") == "set":
                return _same_set(item, expected, given)
            return all(same(item, left, right) for left, right in zip(expected, given, strict=True))
    if schema.get("format") in ("date", "date-time"):
        try:
            return date_text(expected) == date_text(given)
        except WrongKind:
            return False
    return isinstance(given, str | int | float) and normalised(expected) == normalised(given)


_SPACE = re.compile(r"\s+")


def normalised(value: Json) -> str:
    """Return a text as it is compared: letter case, space, forms of the same character and outer quotes
    aside."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        try:
            return str(number(value))
        except WrongKind:
            return str(value)
    text = unicodedata.normalize("NFKC", str(value))
    return _SPACE.sub(" ", text).strip().strip("\"'`").strip().casefold()


def _same_set(item: Schema, expected: Sequence[Json], given: Sequence[Json]) -> bool:
    left = list(given)
    for value in expected:
        for number_, other in enumerate(left):
            if same(item, value, other):
                del left[number_]
                break
        else:
            return False
    return True


_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


def fits(schema: Schema, answer: Mapping[str, Json]) -> str | None:
    """Say how an answer does not fit its schema; `None` if it does."""
    properties = schema.get("properties", {})
    if set(properties) != set(answer) or set(schema.get("required", ())) != set(answer):
        return f"the schema has the fields {sorted(properties)}, and the answer {sorted(answer)}"
    for name, value in answer.items():
        declared = properties[name]
        if (
            declared.get("x-tolerance", TOLERANCE) != TOLERANCE
            or declared.get("x-order", "set") not in ORDERS
        ):
            return f"field {name} is compared otherwise than answers are"
        expected = _TYPES.get(declared.get("type", ""))
        is_truth = isinstance(value, bool) and declared.get("type") != "boolean"
        if expected is None or is_truth or not isinstance(value, expected):
            return f"field {name} is to be of type {declared.get('type')}, and is {value!r:.60}"
        inner = declared.get("items", {})
        for item in value if isinstance(value, list) else ():
            if not isinstance(item, _TYPES.get(inner.get("type", ""), ())):
                return f"an item of {name} is to be of type {inner.get('type')}, and is {item!r:.60}"
    return None
