"""What a tool returns and what it asks for, as its schemas, outputs, name and description say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from recorder.explore.names import EVERY, words_in
from recorder.explore.outputs import Path
from recorder.explore.terms import (
    ROLES,
    Term,
    described_terms,
    head_of,
    object_of,
    returned_terms,
    term_of,
)
from recorder.tool import ToolSpec

MOST_DEPTH = 8
"""Levels of a schema that are read: a schema may refer to itself."""

OPENING_OF_FIELD = 60
"""Characters of a description in which an output field is called by its right name, if in any."""

OPENING = 24
"""The same for a parameter, of which more is said besides."""

Scalar = str | int | float | bool


class Seen(NamedTuple):
    """A place in a tool's outputs, as they were seen, with some of the values there."""

    path: Path
    examples: tuple[Scalar, ...]


class Kind(NamedTuple):
    """What makes fields alike: they match the same parameters equally well."""

    term: Term
    type: str
    """`string`, `number`, or empty where it is unknown."""
    looks: str
    """What its values look like, see `_looks_of`; empty where none is known."""
    weight: float
    """How sure it is that the tool returns this."""


@dataclass(frozen=True, slots=True)
class Field:
    """A place in a tool's output, and what is believed to stand there."""

    tool: int
    path: Path
    kind: Kind
    own: str
    """The field's own name, as words."""
    allowed: frozenset[Scalar] = frozenset()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A place in a tool's arguments that an earlier output could fill."""

    tool: int
    path: Path
    terms: tuple[tuple[Term, float], ...]
    """What it may hold, with how sure that is."""
    type: str
    looks: str
    own: str
    absolute: bool
    """Whether a path is to be absolute, as far as is known."""
    allowed: frozenset[Scalar] = frozenset()


CONTROLS = frozenset(
    """
    limit offset page cursor max maximum min minimum depth timeout sort order ordering format verbose style
    mode size width height precision step start end skip top per threshold level head tail enabled recursive
    count context ignore include exclude option options flag config settings debug retry retries
    """.split()  # noqa: SIM905
)
"""Words in the names of parameters that say how something is to be done, not to what."""

_THINGS_TOO = frozenset({("order",), ("page",)})
"""Of these, those that are things when they stand alone."""

KNOWN_EVERYWHERE = frozenset(
    """
    url email location latitude longitude timezone language symbol currency country address ip domain
    phone telephone isbn doi zip zipcode postal repository host hostname airport airline
    """.split()  # noqa: SIM905
)
"""Things whose names mean the same to every server."""

_LISTING = frozenset("list search find browse scan glob lookup discover enumerate".split())  # noqa: SIM905
_GETTING = frozenset("get fetch retrieve show read describe query view open".split())  # noqa: SIM905
_MAKING = frozenset(
    "create add new register insert upload book submit import make generate start plan save put".split()  # noqa: SIM905
)
"""What tools do that return: many things, one thing, or a new one's id."""
_VERBS = _LISTING | _GETTING | _MAKING
PATH_THINGS = frozenset({"file", "directory"})
PATHLIKE = frozenset({"path", "folder", "file"})
CONTAINERS = frozenset(
    (thing,) for thing in ("project", "repository", "workspace", "sandbox", "bucket", "drive")
)
"""Where one of these is asked for, too, paths are relative to it."""


def fields_of(number: int, tool: ToolSpec, seen: Sequence[Seen], common: tuple[str, ...]) -> list[Field]:
    """Return what a tool is known, or believed, to return."""
    found: dict[tuple[Path, Term], Field] = {}

    def put(path: Path, kind: Kind, allowed: frozenset[Scalar] = frozenset()) -> None:
        own = " ".join(words_in(next((name for name in reversed(path) if name != EVERY), "")))
        found.setdefault((path, kind.term), Field(number, path, kind, own, allowed))

    description = str(tool.entry.get("description") or "")
    lists = bool(_verbs(tool.name, description, common) & _LISTING) or _is_plural(tool.name, common)
    telling = 0
    for path, examples in seen:
        term = term_of(path, tool.name, common)
        kinds = {_type_of(value) for value in examples}
        if kinds == {"boolean"}:
            continue
        looks = _looks_of(examples)
        if looks == "boolean":
            continue
        if looks in PATHLIKE and term.kind == "content":
            term = term._replace(kind="path")
        # A text without a name is what the tool lists, if it lists anything.
        named = any(name != EVERY for name in path)
        weight = 1.0 if named or lists or looks in PATHLIKE else 0.5
        put(path, Kind(term, kinds.pop() if len(kinds) == 1 else "", looks, weight))
        telling += weight == 1.0 and looks not in ("text", "words") and (bool(term.of) or looks in PATHLIKE)
    for path, schema in _schema_leaves(tool.entry.get("outputSchema"), ()):
        kind_of_value = _schema_type(schema)
        names = [name for name in path if name != EVERY]
        vague = not names or all(name.lower() in ("result", "content", "data", "output") for name in names)
        if kind_of_value in ("boolean", "object") or (vague and (telling or kind_of_value == "")):
            continue
        if vague and EVERY not in path:
            continue  # some text, of which the name of the tool says more
        allowed = _allowed(schema)
        looks = _FORMATS.get(str(schema.get("format")), "")
        put(path, Kind(term_of(path, tool.name, common), kind_of_value, looks, 1.0), allowed)
        for term in described_terms(str(schema.get("description") or "")[:OPENING_OF_FIELD]):
            put(path, Kind(term, kind_of_value, looks, 0.85), allowed)
        telling += 1
    about = head_of(tool.name, common)[-1:]
    if not telling or (lists and not any(each.kind.term.of[-1:] == about for each in found.values())):
        # Prose that was seen may still name it; where fields were seen, names of members or something else.
        sure = 1.0 if not seen else 0.9 if lists else 0.75
        for term, weight in _promised(tool.name, description, common):
            put((), Kind(term, "", "", weight * sure))
    return list(found.values())


def _promised(name: str, description: str, common: tuple[str, ...]) -> Iterator[tuple[Term, float]]:
    """Yield what a tool's name and description let one expect of its output."""
    verbs_of_name = _verbs(name, "", common)
    verbs = _verbs(name, description, common)
    of = head_of(name, common)
    for term in returned_terms(description):
        yield term, 0.85
    if not verbs_of_name & _VERBS and (described := object_of(description)):
        of = described
    if not of:
        return
    if verbs & _LISTING or (_is_plural(name, common) and verbs & _GETTING):
        weight = 0.85
    elif verbs & _MAKING:
        weight = 0.78
    elif verbs & _GETTING:
        weight = 0.68
    else:
        return
    yield Term(of, ""), weight
    yield Term(of, "id"), weight
    yield Term(of, "name"), weight
    if of[-1] in PATH_THINGS:
        yield Term(of, "path"), weight


def _verbs(name: str, description: str, common: tuple[str, ...]) -> set[str]:
    """Return the words that say what a tool does: the first of its name and of its description."""
    words = [word.lower() for word in _NAME_PART.findall(name)]
    if words and words[0] in common:
        words = words[1:]
    opening = re.findall(r"[a-z]+", description.lower())[:1]
    return {*words[:1], *(_singular(word) for word in opening)}


def _is_plural(name: str, common: tuple[str, ...]) -> bool:
    of = head_of(name, common)
    return any(
        word.lower().endswith("s")
        and not word.lower().endswith(("ss", "us"))
        and words_in(word)[-1:] == of[-1:]
        for word in _NAME_PART.findall(name)
    )


_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def _singular(verb: str) -> str:
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else verb


def parameters_of(number: int, tool: ToolSpec, common: tuple[str, ...]) -> list[Parameter]:
    """Return the parameters that an earlier output could fill."""
    description = str(tool.entry.get("description") or "")
    parts = list(_schema_leaves(tool.entry.get("inputSchema"), ()))
    whole = [term_of(path, tool.name, common) for path, _ in parts]
    verbs = _verbs(tool.name, description, common)
    makes = bool(verbs & _MAKING)
    found = []
    for (path, schema), term in zip(parts, whole, strict=True):
        name = next((name for name in reversed(path) if name != EVERY), "")
        own = words_in(name)
        kind_of_value = _schema_type(schema)
        if kind_of_value in ("boolean", "object"):
            continue
        identifies = term.kind in ("id", "name", "path", "url")
        allowed = _allowed(schema)
        controls = (
            CONTROLS.intersection(own)
            and not allowed
            and not (own in _THINGS_TOO and kind_of_value == "string")
        )
        if not identifies and (controls or (kind_of_value == "number" and not term.of)):
            continue
        said = str(schema.get("description") or _said_of(name, description))
        also = described_terms(said)
        bare = not _term_is_own(path, tool.name, common)
        if term.kind == "path" and bare:
            # What lists files is told where to look, not which.
            places = ("directory",) if verbs & _LISTING or "directory" in term.of else ("file",)
            term = term._replace(of=places) if {*places, "file"} & set(term.of) else term
        if not term.kind and (kinds := [other.kind for other in also if other.of == term.of]):
            term = term._replace(kind=kinds[0])
        # What a tool makes gets a name of its own; `base_branch` is another one's.
        new = makes and term.kind in ("name", "") and term.of == head_of(tool.name, common)
        sure = 0.55 if new and not ROLES.intersection(own) else 1.0
        terms = {term: sure}
        # A name that says it all needs no explanation; what is said at once is what it is.
        opening = described_terms(said[:OPENING])
        for other in also:
            related = set(other.of) & set(term.of) or other in opening
            terms.setdefault(other, sure * (0.95 if bare else 0.85 if related else 0.6))
        inside = any(other.of[-1:] in CONTAINERS and other.of != term.of for other in whole)
        found.append(
            Parameter(
                number,
                path,
                tuple(terms.items()),
                kind_of_value,
                _FORMATS.get(str(schema.get("format")), "") or _asked_looks(term, said),
                " ".join(own),
                not inside and "relative" not in said.lower(),
                allowed,
            )
        )
    return found


def _asked_looks(term: Term, said: str) -> str:
    """Return what a parameter's values are to look like."""
    if "HH:MM" in said:
        return "time" if "YYYY" in said else "clock"
    return _LOOKS_BY_KIND.get(term.kind, "")


def _term_is_own(path: Path, tool: str, common: tuple[str, ...]) -> bool:
    """Whether a field's own name says whose it is."""
    names = [name for name in path if name != EVERY]
    return bool(names) and bool(term_of(names[-1:], "", common).of)


def _said_of(parameter: str, description: str) -> str:
    """Return what the description of a tool says of a parameter in a line of its own, as in a docstring."""
    if not parameter:
        return ""
    match = re.search(rf"^[\s\-*]*`?{re.escape(parameter)}`?\s*(?:\([^)]*\))?\s*:\s*(.+)$", description, re.M)
    return match[1] if match else ""


def _schema_leaves(
    schema: object, path: Path, root: object = None, depth: int = 0
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the places of plain values that a schema describes, with the part that describes each."""
    root = schema if root is None else root
    if not isinstance(schema, dict) or depth > MOST_DEPTH:
        return
    if isinstance(reference := schema.get("$ref"), str):
        yield from _schema_leaves(_referred(reference, root), path, root, depth + 1)
        return
    branches = [branch for key in ("anyOf", "oneOf", "allOf") for branch in _list(schema.get(key))]
    branches = [branch for branch in branches if isinstance(branch, dict) and branch.get("type") != "null"]
    if branches and "properties" not in schema:
        for branch in branches[:4]:
            inherited = {key: schema[key] for key in ("description", "format") if key in schema}
            yield from _schema_leaves({**inherited, **branch}, path, root, depth + 1)
        return
    properties = schema.get("properties")
    if isinstance(properties, dict) and properties:
        for name, part in properties.items():
            yield from _schema_leaves(part, (*path, str(name)), root, depth + 1)
    elif isinstance(items := schema.get("items"), dict):
        inherited = {"description": schema["description"]} if "description" in schema else {}
        yield from _schema_leaves({**inherited, **items}, (*path, EVERY), root, depth + 1)
    elif path:
        yield path, schema


def _referred(reference: str, root: object) -> object:
    place = root
    for part in reference.removeprefix("#/").split("/"):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _schema_type(schema: Mapping[str, Any]) -> str:
    declared = schema.get("type")
    types = [each for each in (declared if isinstance(declared, list) else [declared]) if each != "null"]
    if len(types) != 1:
        return ""
    return "number" if types[0] == "integer" else str(types[0] or "")


def _type_of(value: Scalar) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _allowed(schema: Mapping[str, Any]) -> frozenset[Scalar]:
    values = [*_list(schema.get("enum")), *([schema["const"]] if "const" in schema else [])]
    return frozenset(value for value in values if isinstance(value, str | int | float))


_FORMATS = {
    "uri": "url",
    "url": "url",
    "email": "email",
    "date": "date",
    "date-time": "time",
    "uuid": "uuid",
    "time": "time",
}
_LOOKS_BY_KIND = {"url": "url", "date": "date", "path": "path"}
_LOOKS = {
    "url": re.compile(r"[a-z][a-z0-9+.-]*://\S+"),
    "email": re.compile(r"[^@\s]+@[^@\s]+\.\w+"),
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE),
    "time": re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*"),
    "clock": re.compile(r"\d\d?:\d\d(:\d\d)?"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "boolean": re.compile(r"true|false|yes|no", re.IGNORECASE),
    "number": re.compile(r"-?\d+(\.\d+)?"),
    "path": re.compile(r"(?:(?:~|[A-Za-z]:)?[/\\]|file://)[^\n]*\.\w{1,5}"),
    "folder": re.compile(r"(?:(?:~|[A-Za-z]:)?[/\\]|file://)[^\n]*"),
    "file": re.compile(
        r"\[\w+\]\s+[\w.@-]+|(?:\[\w+\]\s+)?(?:\.[\w@-]+/[\w./@ -]*|(?:[\w.@-]+/){2,}[\w.@ -]*"
        r"|[\w.@-]+(?:/[\w.@ -]+)*(?:/|\.[A-Za-z]\w{0,5}))(?:\s+[\d.]+ ?[kKMG]?i?B)?"
    ),
    "text": re.compile(r"(?s).*\n.*|(?:\S+\s+){5,}.*"),
    "words": re.compile(r"\S+(?:\s+\S+)+"),
}


def _looks_of(examples: Iterable[Scalar]) -> str:
    """Return what values look like: a form that half of them have, `text` for prose, or nothing."""
    forms: Counter[str] = Counter()
    total = 0
    for value in examples:
        if isinstance(value, str) and value.endswith(":"):
            continue  # a heading
        total += 1
        if isinstance(value, str):
            forms[next((name for name, form in _LOOKS.items() if form.fullmatch(value.strip())), "")] += 1
    if not forms:
        return ""
    (form, count), *_ = forms.most_common(1)
    return form if 2 * count >= total else ""
