"""Values that the user knows to work, by server, tool and field: the best source there is.

    fields:
      city: [Berlin, Lima]
      "*_id": [17]
    servers:
      github:
        fields: {repo: [octocat/hello]}
        tools:
          "search_*": {query: [mcp]}

What is said of a tool comes first, then what is said of its server, then the rest; a name before a pattern.
Names are compared as they are, then by their words: `cityName` and `city_name` are the same. What is neither
a number nor true, false or null is text: `NO`, `10:30` and `2026-11-25` need no quotes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from recorder.canonical import canonical_json
from recorder.errors import FireflyError
from recorder.exchange import Json
from recorder.explore.names import EVERY, words_in
from recorder.explore.parameters import input_schema, properties_of, required_of, resolved, type_of
from recorder.explore.paths import path_kind
from recorder.tool import ToolSpec

Fields = Mapping[str, Sequence[Json]]

MOST_DEPTH = 40
"""Levels of a value; an alias may hold itself."""


class SeedsError(FireflyError):
    """A seeds file that cannot be used. Its values may be secret, so no message shows one."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class ServerSeeds:
    fields: Fields = field(default_factory=dict)
    tools: Mapping[str, Fields] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seeds:
    fields: Fields = field(default_factory=dict)
    servers: Mapping[str, ServerSeeds] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Seeds:
        """
        Raises:
            SeedsError: the file cannot be read, is no YAML, or has something where it does not belong.
        """
        try:
            value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        except OSError as error:
            raise SeedsError(f"cannot read {path}: {error.strerror}") from error
        except _TwiceError as error:
            raise SeedsError(
                f"{path}:{error.line}: {error.key!r} stands there twice; join the two"
            ) from error
        except UnicodeDecodeError as error:
            raise SeedsError(f"{path} is not UTF-8 text (byte {error.start})") from error
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
            # What the parser says may quote a value.
            raise SeedsError(f"{path}{where}: not YAML of names, lists and plain values") from error
        top = _mapping({} if value is None else value, str(path), ("fields", "servers"))
        servers = {}
        for name, inner in _mapping(top.get("servers"), f"{path}: servers").items():
            at = f"{path}: servers.{name}"
            server = _mapping(inner, at, ("fields", "tools"))
            tools = _mapping(server.get("tools"), f"{at}.tools")
            servers[name] = ServerSeeds(
                _fields(server.get("fields"), f"{at}.fields"),
                {tool: _fields(fields, f"{at}.tools.{tool}") for tool, fields in tools.items()},
            )
        return cls(_fields(top.get("fields"), f"{path}: fields"), servers)

    def __call__(self, server: str, tool: str, path: tuple[str, ...]) -> list[Json]:
        """Return the values for a parameter, best first.

        Args:
            path: Of the parameter, `*` for the items of a list, which take the values of the list.
        """
        names = [name for name in path if name != EVERY]
        if not names:
            return []
        found: list[Json] = []
        for seeds in _fitting(self.servers, server):
            for fields in _fitting(seeds.tools, tool):
                found += _values(fields, names, path)
        for seeds in _fitting(self.servers, server):
            found += _values(seeds.fields, names, path)
        found += _values(self.fields, names, path)
        return list({canonical_json(value): value for value in found}.values())


def draft_seeds(tools: Sequence[ToolSpec], roots: Mapping[str, Sequence[str]]) -> str:
    """Write a seeds file to be filled in: what tools require and nothing tells a value for.

    Args:
        roots: Server → folders and files that its configuration names, offered where a path is wanted.
    """
    lines = ["# Values that work, for `firefly explore --seeds`. Empty lists give nothing."]
    by_server: dict[str, dict[str, list[tuple[str, dict[str, Any]]]]] = {}
    for spec in tools:
        root = input_schema(spec.entry)
        for name in required_of(root):
            schema = resolved(properties_of(root).get(name), root)
            if not {"enum", "const", "default", "examples", "example"} & set(schema):
                by_server.setdefault(spec.server, {}).setdefault(name, []).append((spec.name, schema))
    if not by_server:
        return "\n".join([*lines, "servers: {}", ""])
    lines.append("servers:")
    for server, fields in by_server.items():
        lines += [f"  {_key(server)}:", "    fields:"]
        for name, uses in fields.items():
            schema = uses[0][1]
            text = _remark(str(schema.get("description") or ""))[:100]
            users = _remark(", ".join(tool for tool, _ in uses[:4])) + (", …" if len(uses) > 4 else "")
            lines.append(f"      # {type_of(schema) or 'any'}, of {users}" + (f": {text}" if text else ""))
            kind = path_kind(words_in(name), text, words_in(uses[0][0]), None)
            values = list(roots.get(server, ()))[:3] if kind is not None else []
            lines.append(f"      {_key(name)}: [{', '.join(map(_key, values))}]")
    return "\n".join([*lines, ""])


def _values(fields: Fields, names: Sequence[str], path: tuple[str, ...]) -> list[Json]:
    found: list[Json] = []
    for values in _fitting(fields, *dict.fromkeys((".".join(names), names[-1]))):
        found += values
    if path[-1] == EVERY:  # a seed may be a whole list
        return [item for value in found for item in (value if isinstance(value, list) else [value])]
    return found


def _fitting(named: Mapping[str, Any], *names: str) -> list[Any]:
    """Return what is said under these names: exactly, then by words, then by patterns."""
    exact = [named[name] for name in names if name in named]
    words = {words_in(name) for name in names}
    alike = [
        value
        for key, value in named.items()
        if key not in names and not _is_glob(key) and words_in(key) and words_in(key) in words
    ]
    globs = [
        value
        for key, value in named.items()
        if _is_glob(key)
        and key not in names
        and any(fnmatchcase(name, key) or fnmatchcase("_".join(words_in(name)), key) for name in names)
    ]
    return exact + alike + globs


def _is_glob(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _mapping(value: object, where: str, allowed: Sequence[str] | None = None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SeedsError(f"{where} must be a mapping of names, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise SeedsError(f"{where}: names must be text, put {key!r} in quotes")
        if not key.isprintable():
            raise SeedsError(f"{where}: names must be of one line, without control characters, got {key!r}")
        if allowed is not None and key not in allowed:
            raise SeedsError(f"{where}: {key!r} is not known here; there may be {' and '.join(allowed)}")
    return value


def _fields(value: object, where: str) -> dict[str, list[Json]]:
    fields = _mapping(value, where)
    for name, values in fields.items():
        if values is not None and not isinstance(values, list):
            raise SeedsError(f"{where}.{name} must be a list of values, got {type(values).__name__}")
        for number, item in enumerate(values or (), 1):
            if not _is_json(item):
                raise SeedsError(f"{where}.{name}: value {number} must be one that JSON has, too")
    return {name: list(values or []) for name, values in fields.items()}


def _is_json(value: object, depth: int = 0) -> bool:
    match value:
        case dict():
            return depth < MOST_DEPTH and all(
                isinstance(name, str) and _is_json(item, depth + 1) for name, item in value.items()
            )
        case list():
            return depth < MOST_DEPTH and all(_is_json(item, depth + 1) for item in value)
        case float():
            return math.isfinite(value)
    return value is None or isinstance(value, str | int)


class _TwiceError(Exception):
    def __init__(self, key: object, line: int) -> None:
        super().__init__(key, line)
        self.key, self.line = key, line


class _Loader(yaml.SafeLoader):
    """Reads plain values as YAML's core schema does: without dates, base 60, and `NO` for false."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base class declares it

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, AttributeError) as error:
            # PyYAML lets them through for `!!int x` and numbers of thousands of digits; they quote the value.
            raise yaml.constructor.ConstructorError(problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Of a name that stands there twice YAML would drop the first, without a word.
        names = [self.construct_object(key) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise _TwiceError(name, node.value[at][0].start_mark.line + 1)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?", list("-+0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)


def _remark(text: str) -> str:
    """Return a text as it may stand in a comment, on one line."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _key(text: str) -> str:
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=10_000).strip()
