"""How arguments violate a tool's input schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from jsonschema.exceptions import ValidationError  # type: ignore[import-untyped]
from jsonschema.validators import Draft202012Validator, validator_for  # type: ignore[import-untyped]
from referencing.jsonschema import EMPTY_REGISTRY

from recorder.canonical import canonical_json

MOST_VIOLATIONS = 50
"""Violations that are looked for in one call; no server's text for more will be asked for again."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a call's arguments do not fit the schema."""

    rule: str
    """The schema's keyword: `required`, `type`, `enum`, ..."""
    pointer: str
    """JSON pointer of the place, also of a property that is missing or unknown."""
    name: str
    """The last part of the pointer."""
    expected: str
    """Canonical JSON of the keyword's value."""
    value: object
    """What stands there; `None` for what is missing."""
    wanted: str
    """Canonical JSON of what else decides on a server's words: the type, enum, ... wanted at the place."""
    arguments: Mapping[str, Any] = field(compare=False, repr=False)
    title: str = field(compare=False, repr=False)
    """The schema's title, which pydantic repeats in its errors."""


class Checker:
    """One tool's schema, compiled once. A schema that cannot be used finds no violations."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._proves: Callable[[object], bool] | None = None
        self._validator, self._longest_text, self._title = None, None, ""
        try:
            kind = validator_for(schema, default=Draft202012Validator)
            kind.check_schema(schema)
            self._longest_text = _longest_text(schema)
            self._proves = _proof(schema)
            self._title = str(schema.get("title", ""))
            # Without a registry of its own, jsonschema fetches what a `$ref` names.
            self._validator = kind(schema, registry=EMPTY_REGISTRY)
        except Exception:  # a schema is whatever a server sent, and fails in as many ways
            self._validator = None

    def violations(self, arguments: Mapping[str, Any]) -> tuple[Violation, ...]:
        plain = arguments if isinstance(arguments, dict) else dict(arguments)
        try:
            if self._validator is None or (self._proves is not None and self._proves(plain)):
                return ()
            if self._longest_text is not None and any(
                len(text) > self._longest_text for text in _texts(plain)
            ):
                return ()
            errors = islice(self._validator.iter_errors(plain), MOST_VIOLATIONS)
            return tuple(each for error in errors for each in _violations(error, plain, self._title))
        except Exception:  # an endless or unresolvable `$ref` shows only when it is followed
            return ()


def violations(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> tuple[Violation, ...]:
    """Return what is wrong with the arguments; nothing where the schema cannot be used."""
    return Checker(schema).violations(arguments)


def _violations(error: ValidationError, arguments: dict[str, Any], title: str) -> Iterator[Violation]:
    rule, held, schema = str(error.validator), error.instance, error.schema
    path: list[object] = list(error.absolute_path)
    places: list[tuple[list[object], object, object]] = [(path, held, schema)]
    if rule == "required":
        known = schema.get("properties", {})
        missing = [name for name in error.validator_value if error.message.startswith(f"{name!r} is ")]
        places = [([*path, name], None, known.get(name)) for name in missing]
    elif rule == "additionalProperties":
        patterns = schema.get("patternProperties", {})
        unknown = [name for name in held if name not in schema.get("properties", {})]
        unknown = [name for name in unknown if not any(re.search(pattern, name) for pattern in patterns)]
        places = [([*path, name], held[name], None) for name in unknown]
    for at, value, wanted in places:
        parts = [str(part).replace("~", "~0").replace("/", "~1") for part in at]
        yield Violation(
            rule,
            "".join(f"/{part}" for part in parts),
            str(at[-1]) if at else "",
            canonical_json(error.validator_value),
            value,
            _wanted(wanted, rule),
            arguments,
            title,
        )


def _wanted(schema: object, rule: str) -> str:
    """Return what a server's words may hang on; its `enum` is left out where it is the violated rule."""
    telling = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
    if not isinstance(schema, Mapping):
        return ""
    return canonical_json(
        {name: schema[name] for name in telling if name in schema and name not in {rule} - {"type"}}
    )


# Proof of validity: jsonschema takes some 50 µs for a valid call, and nearly every call is valid.

_NOTES = {"title", "description", "default", "examples", "format", "$comment", "$schema", "deprecated"}
_TYPES: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,  # drafts differ on 2.0
    "number": lambda value: type(value) is int or type(value) is float,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: _TYPES["number"](value) and value >= bound,
    "maximum": lambda value, bound: _TYPES["number"](value) and value <= bound,
    "minLength": lambda value, bound: isinstance(value, str) and len(value) >= bound,
    "maxLength": lambda value, bound: isinstance(value, str) and len(value) <= bound,
    "minItems": lambda value, bound: isinstance(value, list) and len(value) >= bound,
    "maxItems": lambda value, bound: isinstance(value, list) and len(value) <= bound,
}


def _proof(schema: object) -> Callable[[object], bool] | None:
    """Return a test that only valid values pass (not all of them), or `None` for a schema beyond it."""
    if schema is True:
        return lambda value: True
    if not isinstance(schema, Mapping):
        return None
    tests: list[Callable[[object], bool]] = []
    rules = {name: rule for name, rule in schema.items() if name not in _NOTES}
    if "type" in rules:
        named = rules.pop("type")
        types = tuple(_TYPES[name] for name in ([named] if isinstance(named, str) else named))
        tests.append(types[0] if len(types) == 1 else lambda value: any(test(value) for test in types))
    if "enum" in rules:
        allowed = frozenset(value for value in rules.pop("enum") if isinstance(value, str))
        tests.append(lambda value: isinstance(value, str) and value in allowed)
    if "anyOf" in rules:
        choices = [test for test in map(_proof, rules.pop("anyOf")) if test]
        tests.append(lambda value: any(test(value) for test in choices))
    if "items" in rules and (item := _proof(rules["items"])):
        del rules["items"]
        tests.append(lambda value: isinstance(value, list) and all(map(item, value)))
    for name in rules.keys() & _BOUNDS.keys():
        tests.append(partial(_within, _BOUNDS[name], rules.pop(name)))
    if rules.keys() <= {"properties", "required", "additionalProperties", "$defs", "definitions"}:
        properties = {name: _proof(rule) for name, rule in rules.get("properties", {}).items()}
        required, closed = frozenset(rules.get("required", ())), rules.get("additionalProperties") is False
        if not closed and rules.get("additionalProperties", True) not in (True, {}):
            return None
        if properties or required or closed:
            tests.append(lambda value: _proves_object(value, properties, required, closed))
        return tests[0] if len(tests) == 1 else lambda value: all(test(value) for test in tests)
    return None


def _within(test: Callable[[Any, Any], bool], bound: object, value: object) -> bool:
    return test(value, bound)


def _proves_object(
    value: object,
    properties: Mapping[str, Callable[[object], bool] | None],
    required: frozenset[str],
    closed: bool,
) -> bool:
    if not isinstance(value, dict) or not required <= value.keys():
        return False
    for name, item in value.items():
        if name not in properties:
            if closed:
                return False
        elif (test := properties[name]) is None or not test(item):
            return False
    return True


def _longest_text(schema: object) -> int | None:
    """Return how long a text the schema's patterns may be tried on: nothing can interrupt `re`."""
    limits = []
    for pattern in _patterns(schema):
        re.compile(pattern)
        repeats = len(re.findall(r"[*+]|\{\d*,\}", pattern))
        # A repeat around a repeat or a choice may take time that doubles with each character.
        nested = re.search(r"[*+|}].*\)[*+{]", pattern)
        limits.append(16 if nested else int(1e7 ** (1 / max(repeats, 1))))
    return min(limits, default=None)


def _patterns(schema: object) -> Iterator[str]:
    for name, rule in schema.items() if isinstance(schema, Mapping) else ():
        if name == "pattern" and isinstance(rule, str):
            yield rule
        if name == "patternProperties" and isinstance(rule, Mapping):
            yield from rule
        yield from _patterns(rule)
    for item in schema if isinstance(schema, list) else ():
        yield from _patterns(item)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in (
        [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _texts(item)


def json_type(value: object) -> str:
    """Return what JSON Schema calls a value's type; integers are numbers."""
    return next(
        name for name in ("string", "boolean", "null", "array", "object", "number") if _TYPES[name](value)
    )
