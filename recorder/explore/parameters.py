"""A tool's parameters, out of its input schema: flat, with what each may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from recorder.exchange import Json
from recorder.explore.names import EVERY

Schema = Mapping[str, Any]

MOST_REFERENCES = 12
"""Steps from one `$ref` to the next that are followed; schemas may refer to themselves."""

MOST_JOINS = 4
"""Levels of `allOf` within `allOf`, for the same reason."""


def resolved(schema: object, root: Schema, joins: int = MOST_JOINS) -> dict[str, Any]:
    """Return a schema with its reference followed, its `allOf` joined, and the first choice that is not null.

    Of `anyOf` and `oneOf` the first alternative counts; the others are reached by `alternatives`.
    """
    for _ in range(MOST_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            schema = {
                **as_schema(_target(reference, root)),
                **{k: v for k, v in schema.items() if k != "$ref"},
            }
            continue
        if isinstance(schema.get("allOf"), list):
            joined = {name: value for name, value in schema.items() if name != "allOf"}
            for part in schema["allOf"] if joins else ():
                joined = _joined(joined, resolved(part, root, joins - 1))
            schema = joined
            continue
        choices = alternatives(schema, root)
        if choices:
            rest = {name: value for name, value in schema.items() if name not in ("anyOf", "oneOf")}
            schema = {**rest, **choices[0]}
            continue
        break
    return dict(schema) if isinstance(schema, dict) else {}


def alternatives(schema: Schema, root: Schema) -> list[dict[str, Any]]:
    """Return what `anyOf` or `oneOf` allows, without null."""
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            choices = [as_schema(choice) for choice in schema[name]]
            return [choice for choice in choices if choice.get("type") != "null"]
    return []


def type_of(schema: Schema) -> str | None:
    """Return the type of a resolved schema, `null` aside; guessed from its other members where none is
    given."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), None)
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema:
        return "array"
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return json_type(values[0]) if values else None


def json_type(value: Json) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
    return "null"


def properties_of(schema: Schema) -> dict[str, Any]:
    found = schema.get("properties")
    return dict(found) if isinstance(found, dict) else {}


def required_of(schema: Schema) -> list[str]:
    found = schema.get("required")
    names = found if isinstance(found, list) else []
    return [name for name in names if isinstance(name, str)]


def as_schema(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def input_schema(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input schema of a tool as listed; servers of old clients spell it otherwise."""
    return as_schema(entry.get("inputSchema") or entry.get("input_schema") or entry.get("parameters"))


def fits(value: Json, schema: Schema) -> bool:
    """Whether a value may be given for a resolved schema, as far as its type and its choices go.

    Numbers in strings fit numbers: outputs are often text.
    """
    kind = type_of(schema)
    if "const" in schema or "enum" in schema:
        choices = [schema["const"]] if "const" in schema else as_list(schema["enum"])
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in choices)
    match kind:
        case "string":
            is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
            return is_plain and _within(len(str(value)), schema.get("minLength"), schema.get("maxLength"))
        case "integer" | "number":
            return as_number(value, kind) is not None and _in_range(as_number(value, kind), schema)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    return True


def converted(value: Json, schema: Schema) -> Json:
    """Return a value that `fits` in the type that the schema asks for."""
    kind = type_of(schema)
    if kind == "string" and not isinstance(value, str):
        return str(value)
    if kind in ("integer", "number"):
        return as_number(value, kind)
    return value


def as_number(value: Json, kind: str) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value) if "." in value or "e" in value.lower() else int(value)
        except ValueError:
            return None
    if not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        return None
    if kind == "integer":
        return int(value) if value == int(value) else None
    return value


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def walk(
    schema: Schema, root: Schema, path: tuple[str, ...] = (), depth: int = 4
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], bool]]:
    """Yield each parameter as (path, resolved schema, required), outer ones first."""
    required = set(required_of(schema))
    for name, inner in properties_of(schema).items():
        yield from _walk_from((*path, name), resolved(inner, root), name in required, root, depth)


def _walk_from(
    at: tuple[str, ...], schema: dict[str, Any], required: bool, root: Schema, depth: int
) -> Iterator[tuple[tuple[str, ...], dict[str, Any], bool]]:
    yield at, schema, required
    kind = type_of(schema)
    if depth > 1 and kind == "object":
        yield from walk(schema, root, at, depth - 1)
    elif depth > 1 and kind == "array" and (item := resolved(schema.get("items"), root)):
        yield from _walk_from((*at, EVERY), item, False, root, depth - (type_of(item) == "array"))


def _in_range(number: int | float | None, schema: Schema) -> bool:
    if number is None or not _within(number, schema.get("minimum"), schema.get("maximum")):
        return False
    return number not in (schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")) and _within(
        number, schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    )


def _within(number: int | float, low: object, high: object) -> bool:
    """Whether a number lies between two that a schema gives, or may not give, or gives wrongly."""
    return not (_is_number(low) and number < low) and not (_is_number(high) and number > high)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _target(reference: str, root: Schema) -> object:
    found: object = root
    if not reference.startswith("#"):
        return {}
    for part in reference[1:].split("/"):
        if part:
            part = part.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _joined(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    both = {**left, **right}
    if "properties" in left or "properties" in right:
        both["properties"] = {**properties_of(left), **properties_of(right)}
    if "required" in left or "required" in right:
        both["required"] = [*required_of(left), *required_of(right)]
    return both
