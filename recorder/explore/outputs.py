"""A tool's output as a value, whatever it was written in.

Of real servers' outputs only a quarter to a half is JSON; the rest is Python's `repr`, JSON within prose,
tables in CSV or Markdown, `Key: value` lines, or lines that list something. Each is read into what JSON would
have said, so that fields can be found in it; what is none of these stays text.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from recorder.exchange import Json
from recorder.explore.names import EVERY

Path = tuple[str, ...]
"""Names from the outermost object to a field, `EVERY` for the items of a list."""

MOST_CHARACTERS = 200_000
"""Of a text that is read; in what is longer, only JSON is looked for."""

MOST_ITEMS, MOST_LEAVES, MOST_DEPTH = 60, 3000, 12
"""Items of one list, leaves of one output, and levels that are looked at: large outputs repeat themselves."""

LONGEST_LINE = 160
"""Of lines that list something; longer ones are prose."""


class Leaf(NamedTuple):
    path: Path
    value: str | int | float | bool


def output_of(result: Json) -> Json:
    """Return what a tool's result says, as a value; `None` if it says nothing."""
    if not isinstance(result, dict):
        return result
    structured = result.get("structuredContent")
    if isinstance(structured, dict) and structured:
        inner = next(iter(structured.values())) if len(structured) == 1 else None
        # A text with a wrapper around it is still a text, whatever the wrapper is called.
        return parsed(inner) if isinstance(inner, str) and _is_text(structured, inner) else structured
    content = result.get("content")
    if not isinstance(content, list):
        return None
    blocks = [value for block in content if (value := _block(block)) is not None]
    return blocks[0] if len(blocks) == 1 else blocks or None


def text_of(result: Json) -> str:
    """Return the text of a tool's result, as a model would read it."""
    if not isinstance(result, dict):
        return "" if result is None else json.dumps(result)
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    texts = [
        block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)
    ]
    if not texts and isinstance(result.get("structuredContent"), dict):
        return json.dumps(result["structuredContent"], ensure_ascii=False)
    return "\n".join(texts)


def parsed(text: str) -> Json:
    """Read a text into a value; return the text itself, stripped, where it is in no form we know."""
    text = text.strip()
    if text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    if len(text) > MOST_CHARACTERS:
        return text
    if text[:1] in ("{", "[", "("):
        try:
            return _jsonlike(ast.literal_eval(text))
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            pass
    for read in (_within_prose, _markdown_table, _delimited, _key_values, _lines):
        value = read(text)
        if value is not None:
            return value
    return text


def leaves(value: Json, path: Path = (), most_items: int = MOST_ITEMS) -> Iterator[Leaf]:
    """Yield the plain values within a value, in order, at most `MOST_LEAVES`, of a list's first items.

    Booleans are among them; `null` and empty strings are not.
    """
    count = 0
    stack: list[tuple[Path, Json]] = [(path, value)]
    while stack and count < MOST_LEAVES:
        at, item = stack.pop()
        if isinstance(item, dict):
            if len(at) < MOST_DEPTH:
                stack.extend(reversed([((*at, str(name)), inner) for name, inner in item.items()]))
        elif isinstance(item, list):
            if len(at) < MOST_DEPTH:
                stack.extend(reversed([((*at, EVERY), inner) for inner in item[:most_items]]))
        elif isinstance(item, str | int | float) and item != "":
            count += 1
            yield Leaf(at, item)


def keyed_leaves(value: Json, most_items: int = MOST_ITEMS) -> Iterator[Leaf]:
    """Yield a value's leaves, and the names of members that are values themselves, at `EVERY`.

    `{"orders": {"W2378156": {"total": 5}}}` holds an order's number at `orders.*`, and 5 at `orders.*.total`.
    """
    told: set[tuple[Path, str]] = set()
    for leaf in leaves(value, most_items=most_items):
        if not any(_DATA_NAME.fullmatch(name) for name in leaf.path):
            yield leaf
            continue
        path: Path = ()
        for name in leaf.path:
            is_value = _DATA_NAME.fullmatch(name) is not None
            path = (*path, EVERY if is_value else name)
            if is_value and (path, name) not in told:
                told.add((path, name))
                yield Leaf(path, name)
        yield Leaf(path, leaf.value)


_DATA_NAME = re.compile(r".*(?:\d{3}|[/@:.]|\s.*\s).*|.{41,}|\d+", re.DOTALL)
"""The name of a member that is a value itself, as in `{"W2378156": {...}}`."""


def path_text(path: Path) -> str:
    """Write a path as JSONPath: `("items", "*", "id")` is `$.items[*].id`."""
    parts = ["$"]
    for name in path:
        if name == EVERY:
            parts.append("[*]")
        elif re.fullmatch(r"[A-Za-z_]\w*", name):
            parts.append(f".{name}")
        else:
            parts.append(f"[{json.dumps(name, ensure_ascii=False)}]")
    return "".join(parts)


def _is_text(structured: dict[str, Json], text: str) -> bool:
    return "result" in structured or "\n" in text or text[:1] in ("{", "[")


def _block(block: object) -> Json:
    match block:
        case {"type": "text", "text": str(text)}:
            return parsed(text) or None
        case {"type": "resource", "resource": dict(resource)}:
            return {
                name: value for name, value in resource.items() if name in ("uri", "name", "mimeType", "text")
            }
        case {"type": "resource_link", **link}:
            return {name: value for name, value in link.items() if name in ("uri", "name", "mimeType")}
    return None


def _jsonlike(value: object) -> Json:
    match value:
        case dict():
            return {str(key): _jsonlike(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_jsonlike(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
    return str(value)


_OPENING = re.compile(r"(?:^|\n|: |```(?:json)?\s*\n)\s*(?=[\[{])")


def _within_prose(text: str) -> Json:
    """Return the first JSON object or list of objects that stands in a text, if it is a good part of it."""
    for opening in list(_OPENING.finditer(text))[:20]:
        try:
            value, end = json.JSONDecoder().raw_decode(text, opening.end())
        except (ValueError, RecursionError):
            end_of_line = text.find("\n", opening.end())
            line = text[opening.end() : end_of_line if end_of_line >= 0 else None]
            try:
                value, end = _jsonlike(ast.literal_eval(line)), opening.end() + len(line)
            except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
                continue
        if isinstance(value, dict | list) and value and end - opening.end() > 4:
            return value
    return None


def _markdown_table(text: str) -> Json:
    lines = text.splitlines()
    for number, line in enumerate(lines[1:], 1):
        if "-" in line and "|" in line and not set(line) - set(" |:-"):
            head = _cells(lines[number - 1])
            rows = []
            for row in lines[number + 1 :]:
                if "|" not in row:
                    break
                rows.append(dict(zip(head, _cells(row), strict=False)))
            if head and rows:
                return rows
    return None


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _delimited(text: str) -> Json:
    """Read a table whose first line names its columns."""
    lines = [line for line in text.splitlines() if line.strip()]
    for delimiter in (",", "\t", ";", "|"):
        columns = lines[0].count(delimiter) if len(lines) > 1 else 0
        if not columns:
            continue
        try:
            rows = list(csv.reader(lines, delimiter=delimiter))
        except csv.Error:
            continue
        if sum(len(row) == columns + 1 for row in rows) >= 0.9 * len(lines):
            head = [name.strip() for name in rows[0]]
            if len(set(head)) == len(head) and all(
                re.fullmatch(r"[A-Za-z_][\w .()/%-]{0,40}", name) for name in head
            ):
                return [dict(zip(head, map(str.strip, row), strict=False)) for row in rows[1:]]
    return None


_KEY_VALUE = re.compile(r"^\s*(?:[-*•]\s+)?\**([A-Za-z][\w .()/-]{0,40}?)\**\s*[:=]\**\s+(\S.*?)\s*$")


def _key_values(text: str) -> Json:
    """Read `Key: value` lines; a key that comes again begins another object."""
    lines = [line for line in text.splitlines() if line.strip()]
    found = [(match[1], match[2]) for line in lines if (match := _KEY_VALUE.match(line)) is not None]
    if not found or len(found) < 0.5 * len(lines):
        return None
    objects: list[dict[str, Any]] = [{}]
    for key, value in found:
        if key in objects[-1]:
            objects.append({})
        objects[-1][key] = value
    return objects[0] if len(objects) == 1 else objects


def _lines(text: str) -> Json:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or any(len(line) > LONGEST_LINE for line in lines):
        return None
    return lines
