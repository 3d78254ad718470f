"""Values found in the outputs of one server's tools, under qualified names, with where they come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolRef
from recorder.explore.names import BARE, EVERY, Words, qualified, subject_of, words_in
from recorder.explore.outputs import MOST_DEPTH, Path, leaves, output_of, text_of

MOST_PER_NAME = 60
"""Distinct values kept under one name, newest first: a listing of thousands has no more to teach than its
beginning."""

MOST_WORDS, MOST_OBJECTS = 400, 60

SHORT_TEXT = 2000
"""Characters up to which a text is about what was asked; in longer ones, things that look like ids are
content."""

LONGEST = 1000
"""Characters of a value that is kept; what is longer is content, not something that identifies."""

_PLACEHOLDER = re.compile(r"\[redacted:[0-9a-f]+\]")
_TAG = re.compile(r"^(?:\[[A-Z]{1,6}\]|[-*•│├└─ ]+|\d+[.)])\s+")
_PATH = re.compile(
    r"(?<![\w:/.])(?:~|\.{1,2})?(?:/?[\w.@-]+)?(?:/[\w.@+-]+)+/?|(?<![\w/.])[\w-]+(?:\.[\w-]+)*\.[A-Za-z][A-Za-z0-9]{0,4}(?![\w/(])"
)
_NAMED = re.compile(
    r"\b([A-Za-z]\w*(?: [A-Za-z][\w]*){0,2})\s*(?::|=|\bis\b|#)\s*[\"'`]?([A-Za-z0-9][\w./:@-]{1,80})[\"'`]?"
)
_IDENTIFIER = re.compile(
    r"(?<![\w-])(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{18,22}|[0-9a-f]{16,64}|[a-z]{2,12}[-_][0-9]{1,9})(?![\w-])"
)
_WORD = re.compile(r"[^\W\d_]\w{2,24}")
_CREATE_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?[\"'`\[]?(\w+)[\"'`\]]?\s*\(", re.IGNORECASE)
_COLUMN = re.compile(r"^\s*[\"'`\[]?([A-Za-z_]\w*)[\"'`\]]?\s+([A-Za-z]+)")
_NO_COLUMN = frozenset("primary foreign unique check constraint key".split())  # noqa: SIM905


@dataclass(frozen=True, slots=True)
class Found:
    """A value and its lineage."""

    value: Json
    words: Words
    """Its qualified name."""
    source: ToolRef
    path: Path
    call: int
    """Number of the call that told it, rising."""
    walk: int
    given: frozenset[str]
    """Arguments of that call, as canonical text."""


class _Place(NamedTuple):
    """Where a value was found."""

    source: ToolRef
    path: Path
    call: int
    walk: int
    given: frozenset[str]


@dataclass(slots=True)
class Table:
    columns: dict[str, str] = field(default_factory=dict)
    """Name → type as the database calls it, in small letters; empty if unknown."""
    rows: list[dict[str, Json]] = field(default_factory=list)


@dataclass(slots=True)
class Harvest:
    """What one server has told, in the order it came, so that equal calls make equal harvests."""

    by_words: dict[Words, dict[str, Found]] = field(default_factory=dict)
    by_last: dict[str, dict[Words, None]] = field(default_factory=dict)
    """Last word of a name → the names that end in it."""
    words: Counter[str] = field(default_factory=Counter)
    """Of texts, for things to search for."""
    objects: list[tuple[dict[str, Json], frozenset[str], ToolRef]] = field(default_factory=list)
    """Flat objects, newest last, with the arguments of the call that told them."""
    tables: dict[str, Table] = field(default_factory=dict)
    """Tables of a database, by name."""

    def take(
        self, source: ToolRef, arguments: Mapping[str, Json], result: Json, call: int, walk: int
    ) -> None:
        """Take in the result of a call that told something."""
        given = frozenset(argument_texts(arguments))
        asked = {qualified(path, source.name) for path, _ in leaves(dict(arguments))}
        # What stands for a secret is of no use to anybody, and is in nobody's world.
        value = _without_placeholders(output_of(result))
        folder = _folder_of(arguments)
        for path, leaf in leaves(value):
            if isinstance(leaf, bool):
                continue
            words = qualified(path, source.name)
            if words in asked and path and words[-1] in BARE:
                words = (*words, "part")  # what `describe_table(name)` tells under `name` is no table's name
            at = _Place(source, path, call, walk, given)
            if isinstance(leaf, str):
                self._take_text(leaf, words, at, folder)
            else:
                self._add(leaf, words, at)
        for name in _keys_that_identify(value):
            self._add(name, subject_of(source.name), _Place(source, (), call, walk, given))
        text = _PLACEHOLDER.sub(" ", text_of(result))
        self._take_tables(value, text, arguments, source)
        for flat in _flat_objects(value):
            if not set(map(str.lower, flat)) <= _REPORTS:
                self.objects.append((flat, given, source))
        del self.objects[:-MOST_OBJECTS]
        if len(self.words) < MOST_WORDS:
            self.words.update(_WORD.findall(text[:20_000])[:400])

    def known(self, words: Words, *, related: bool = False) -> Iterator[Found]:
        """Yield values for a parameter of this qualified name, those of the best fitting name first.

        Args:
            related: Yield those of names that only share words with it instead.

        Names fit that are equal, and those equal but for a bare last word (`table_name`, and the `name` in
        what `list_tables` told).
        """
        core, end = _core(words), _bare_end(words)
        exact, alike, near = [words], [], []
        for name in self._ending_like(words, core):
            if name == words:
                continue
            if core and _core(name) == core and (end in (None, "name") or _bare_end(name) in (None, end)):
                alike.append(name)
            elif core and (set(core) <= set(name) or set(_core(name)) <= set(words)) and _core(name):
                near.append(name)
        for name in near if related else (*exact, *alike):
            yield from reversed(self.by_words.get(name, {}).values())

    def searchable(self) -> list[str]:
        """Return words to search for, those said most often first."""
        return [word for word, _ in self.words.most_common(MOST_WORDS)]

    def _ending_like(self, words: Words, core: Words) -> list[Words]:
        lasts = dict.fromkeys((*words[-1:], *core[-1:], *(("name", "id", "path") if core else ())))
        return list(dict.fromkeys(name for last in lasts for name in self.by_last.get(last, ())))

    def _take_text(self, text: str, words: Words, at: _Place, folder: str | None) -> None:
        line = _TAG.sub("", text.strip())
        prose = line.count(" ") > 3 or len(line) > LONGEST
        if "\n" not in line and line and not (prose and not at.path):
            self._add(line, words, at)
            if at.path[-1:] == (EVERY,) and " " not in line:
                self._add(line, subject_of(at.source.name), at)
        if folder is not None and _FILE_NAME.fullmatch(line):
            self._add(f"{folder.rstrip('/')}/{line}", ("file", "path"), at)
        if prose or " " in line or "/" in line:
            for found in _PATH.findall(text[:20_000])[:80]:
                if len(found) <= 200:
                    kind = "file" if "." in found.rsplit("/", 1)[-1].strip(".") else "directory"
                    self._add(found.rstrip(":,."), (kind, "path"), at)
        if len(text) < SHORT_TEXT and (prose or " " in line):
            for name, said in _NAMED.findall(text):
                self._add(said.rstrip(".:,"), qualified((name.replace(" ", "_"),), at.source.name), at)
            for said in _IDENTIFIER.findall(text):
                prefix = re.match(r"[a-z]{2,12}(?=[-_][0-9]+$)", said)
                self._add(said, (*(words_in(prefix[0]) if prefix else subject_of(at.source.name)), "id"), at)

    def _add(self, value: Json, words: Words, at: _Place) -> None:
        if not words or (isinstance(value, str) and (len(value) > LONGEST or _PLACEHOLDER.search(value))):
            return
        key = canonical_json(value)
        if key in at.given and words[-1] not in BARE:
            return  # an echo
        found = self.by_words.setdefault(words, {})
        found.pop(key, None)
        found[key] = Found(value, words, at.source, at.path, at.call, at.walk, at.given)
        if len(found) > MOST_PER_NAME:
            del found[next(iter(found))]
        self.by_last.setdefault(words[-1], {})[words] = None

    def _take_tables(self, value: Json, text: str, arguments: Mapping[str, Json], source: ToolRef) -> None:
        """Learn the tables and columns of a database, from `CREATE TABLE`, listings and rows."""
        text = text[:100_000].replace("\\n", "\n")
        said = [leaf.value for leaf in leaves(value) if isinstance(leaf.value, str) and "(" in leaf.value]
        for statement in (text, *said):
            for created in _CREATE_TABLE.finditer(statement):
                if columns := _columns(_balanced(statement, created.end())):
                    self.tables.setdefault(created[1], Table()).columns.update(columns)
        about_tables = "table" in subject_of(source.name) or any(
            "table" in words_in(name) for name in arguments
        )
        rows = (
            value
            if isinstance(value, list)
            else next((inner for inner in value.values() if isinstance(inner, list)), [])
            if isinstance(value, dict)
            else []
        )
        objects = [row for row in rows if isinstance(row, dict)]
        named = next(
            (str(v) for name, v in arguments.items() if "table" in words_in(name) and isinstance(v, str)),
            None,
        )
        if named is None:
            named = next(
                (match[1] for v in arguments.values() if isinstance(v, str) and (match := _FROM.search(v))),
                None,
            )
        if about_tables and named is None:
            for row in [*rows, *([value] if isinstance(value, dict) else [])]:
                for name in _table_names(row):
                    self.tables.setdefault(name, Table())
        elif named is not None and objects:
            table = self.tables.setdefault(named, Table())
            described = {
                str(row["name"]): str(row.get("type") or row.get("data_type") or "").lower()
                for row in objects
                if isinstance(row.get("name"), str) and ("type" in row or "data_type" in row)
            }
            if described and len(described) == len(objects):
                table.columns.update(described)
            elif _FROM_ALL.search(" ".join(str(v) for v in arguments.values())) or "table" in " ".join(
                arguments
            ):
                table.rows = objects[:20]
                for name in objects[0]:
                    table.columns.setdefault(name, "")


def _without_placeholders(value: Json, depth: int = MOST_DEPTH + 1) -> Json:
    """Return a value without the texts in which a placeholder stands, and without what lies too deep."""
    match value:
        case dict() | list() if not depth:
            return None
        case dict():
            kept = {name: _without_placeholders(item, depth - 1) for name, item in value.items()}
            return {name: item for name, item in kept.items() if item is not None or value[name] is None}
        case list():
            return [item for each in value if (item := _without_placeholders(each, depth - 1)) is not None]
        case str() if _PLACEHOLDER.search(value):
            return None
    return value


def _balanced(text: str, start: int) -> str:
    """Return what stands from `start` to the parenthesis that closes the one before it."""
    depth = 1
    for at in range(start, min(len(text), start + 20_000)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return text[start:at]
    return ""


_REPORTS = frozenset(
    """
    message status success error ok result count rowsaffected affectedrows insertedid lastid changes code
    """.split()  # noqa: SIM905
)
"""Members of objects that report on a call and describe nothing."""

_FILE_NAME = re.compile(r"[\w.@+-]+\.[A-Za-z0-9]{1,6}|[\w@+-]{2,40}")


def _folder_of(arguments: Mapping[str, Json]) -> str | None:
    """Return the folder that a call asked about, if it named one."""
    for name, value in arguments.items():
        if isinstance(value, str) and value.startswith("/") and {"path", "directory"} & set(words_in(name)):
            return value
    return None


def _keys_that_identify(value: Json) -> list[str]:
    """Return the keys of an object that is a table: `{"python": {…}, "go": {…}}`."""
    if not isinstance(value, dict):
        return []
    if len(value) == 1:
        return _keys_that_identify(next(iter(value.values())))
    if len(value) > 2 and all(isinstance(inner, dict) for inner in value.values()):
        return list(value)[:MOST_PER_NAME]
    return []


_FROM = re.compile(r"\bfrom\s+[\"'`\[]?(\w+)", re.IGNORECASE)
_FROM_ALL = re.compile(r"select\s+\*\s+from", re.IGNORECASE)


def argument_texts(arguments: Mapping[str, Json]) -> Iterator[str]:
    """Yield each plain value within arguments as canonical text."""
    for _, value in leaves(dict(arguments)):
        yield canonical_json(value)


def _core(words: Words) -> Words:
    """Drop the bare words at the end, which say what kind of thing a value is and not of what."""
    end = len(words)
    while end > 0 and words[end - 1] in BARE:
        end -= 1
    return words[:end]


def _bare_end(words: Words) -> str | None:
    return words[-1] if words and words[-1] in BARE else None


def _columns(text: str) -> dict[str, str]:
    found = {}
    for part in re.split(r",(?![^(]*\))", text):
        match = _COLUMN.match(part)
        if match is not None and match[1].lower() not in _NO_COLUMN:
            found[match[1]] = match[2].lower()
    return found


def _table_names(row: Json) -> Iterable[str]:
    match row:
        case str() if re.fullmatch(r"\w{1,60}", row):
            return [row]
        case dict():
            names = [
                v for name, v in row.items() if name.lower() in ("name", "table", "table_name", "tablename")
            ]
            names += [
                v
                for name, inner in row.items()
                if name.lower() == "tables" and isinstance(inner, list)
                for v in inner
            ]
            return [name for name in names if isinstance(name, str) and re.fullmatch(r"\w{1,60}", name)]
    return []


def _flat_objects(value: Json, depth: int = 4) -> Iterator[dict[str, Json]]:
    """Yield the objects within a value whose members are plain, at most a dozen."""
    count = 0
    stack = [(value, depth)]
    while stack and count < 12:
        item, left = stack.pop()
        if isinstance(item, dict):
            if len(item) > 1 and not any(isinstance(inner, dict | list) for inner in item.values()):
                count += 1
                yield item
            elif left:
                stack.extend((inner, left - 1) for inner in reversed(item.values()))
        elif isinstance(item, list) and left:
            stack.extend((inner, left - 1) for inner in reversed(item[:12]))
