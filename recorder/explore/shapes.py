"""Edges that schemas suggest: what a tool returns and what another one asks for go by the same name.

What a tool returns is known from its output schema, from outputs that were seen, or, where there is neither,
only from what its name and its description say. Both sides are read into terms (whose, which property), and
terms are compared, then types, formats, allowed values and units.

Within a server nearly the same name is enough. Between servers ids are another server's ids, so that only
what means the same everywhere (a URL, a place, a time zone, an absolute path) makes a confident edge.

Fields are found by their words, so the work grows with the pairs that share one. Edges of one parameter are
bounded, and so is the number of fields that a common word leads to.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import nlargest
from typing import NamedTuple

from recorder.exchange import Json, ToolRef, ToolResult
from recorder.explore.fields import (
    CONTAINERS,
    KNOWN_EVERYWHERE,
    PATH_THINGS,
    PATHLIKE,
    Field,
    Kind,
    Parameter,
    Scalar,
    fields_of,
    parameters_of,
)
from recorder.explore.fields import CONTROLS as CONTROLS
from recorder.explore.fields import Seen as Seen
from recorder.explore.graph import Edge
from recorder.explore.names import EVERY
from recorder.explore.observed import parameter_text
from recorder.explore.outputs import Path, keyed_leaves, output_of, path_text
from recorder.explore.terms import FREE, MEASURES, WORDING, Term, common_words, is_made
from recorder.store import Store
from recorder.tool import ToolSpec

LEAST = 0.3
"""Confidence of an edge that is worth keeping: a later tier may strengthen it."""

MOST_WITHIN, MOST_ACROSS = 32, 12
"""Edges of one parameter, from tools of its own server and from others'."""

MOST_PLACES = 3
"""In the output of one tool, for one parameter."""

MOST_FIELDS = 300
"""Kinds of fields that a word leads to in other servers; the kinds that most tools have come first."""

MOST_OF_A_KIND = 40
"""Fields of one kind that are looked at for one parameter, from other servers."""

MOST_EXAMPLES = 4
MOST_PATHS = 200
"""Of one tool's output that are remembered."""

MOST_MEMBERS = 24
"""Of an object whose names are fields; where there are more, they are values."""

Shapes = Mapping[ToolRef, Sequence[Seen]]
"""What outputs were seen to look like."""


class ShapeLog:
    """Gathers the shapes of outputs as they come."""

    def __init__(self) -> None:
        self._seen: dict[ToolRef, dict[Path, list[Scalar]]] = {}

    def add(self, tool: ToolRef, output: Json) -> None:
        """Add an output, as `outputs.output_of` reads it; one that is an error says nothing of the shape."""
        places = self._seen.setdefault(tool, {})
        found = list(keyed_leaves(output))
        members = Counter(path[:-1] for path in {path for path, _ in found})
        for path, value in found:
            if path and path[-1] != EVERY and members[path[:-1]] > MOST_MEMBERS:
                path = (*path[:-1], EVERY)
            examples = places.get(path)
            if examples is None:
                if len(places) >= MOST_PATHS:
                    continue
                examples = places[path] = []
            if len(examples) < MOST_EXAMPLES and value not in examples:
                examples.append(value[:400] if isinstance(value, str) else value)

    def shapes(self) -> Shapes:
        return {
            tool: [Seen(path, tuple(examples)) for path, examples in places.items()]
            for tool, places in self._seen.items()
        }


def shapes_of(store: Store) -> Shapes:
    """Return what the outputs in a recording look like."""
    log = ShapeLog()
    for exchange in store.exchanges(method="tools/call"):
        call, outcome = exchange.call, exchange.outcome
        if call is not None and isinstance(outcome, ToolResult) and not outcome.is_error:
            log.add(call.tool, output_of(outcome.result))
    return log.shapes()


def schema_edges(tools: Sequence[ToolSpec], shapes: Shapes | None = None) -> list[Edge]:
    """Return the edges that names, schemas and seen outputs suggest, by producer, output and consumer.

    Args:
        tools: One version of each.
        shapes: What was seen of their outputs.
    """
    return _Matcher(tools, shapes or {}).edges()


# ------------------------------------------------------------------------------------------------- comparing


def likeness(one: Term, other: Term) -> float:
    """Return how probably two terms, a field's and a parameter's, mean the same thing, from 0 to 1."""
    if one.unit and other.unit and one.unit != other.unit:
        return 0.2
    if not one.of or not other.of:
        return 0.0
    if one.of == other.of:
        whose = 1.0
    elif one.of[-1] == other.of[-1]:
        shorter = min(one.of, other.of, key=len)
        longer = max(one.of, other.of, key=len)
        whose = 0.86 if longer[-len(shorter) :] == shorter else 0.55
    elif set(one.of) & set(other.of):
        whose = 0.45
    else:
        return 0.0
    pair = (one.kind, other.kind)
    fit = _KIND_PAIRS.get(pair, 0.95 if one.kind == other.kind else 0.3)
    if pair in _OF_FILES and one.of[-1] not in PATH_THINGS:
        fit *= 0.6  # a file is its path, whereas a project has one
    return whose * fit


_OF_FILES = frozenset({("path", ""), ("", "path"), ("name", "path")})


_KIND_PAIRS: dict[tuple[str, str], float] = {}
"""A field's kind, then a parameter's: how well the one stands for the other."""
for _field_kind, _parameter_kind, _fit in (
    ("id", "", 0.85),
    ("", "id", 0.85),
    ("name", "", 0.92),
    ("", "name", 0.92),
    ("path", "", 0.9),
    ("", "path", 0.85),
    ("name", "path", 0.75),
    ("path", "name", 0.5),
    ("id", "name", 0.4),
    ("name", "id", 0.4),
    ("url", "", 0.7),
    ("", "url", 0.6),
    ("code", "id", 0.75),
    ("id", "code", 0.75),
    ("code", "", 0.8),
    ("", "code", 0.8),
    ("id", "query", 0.3),
    ("name", "query", 0.7),
    ("", "query", 0.6),
    ("time", "date", 0.7),
    ("date", "time", 0.6),
    ("datetime", "time", 0.5),
    ("datetime", "date", 0.7),
    ("date", "datetime", 0.8),
    ("time", "datetime", 0.7),
):
    _KIND_PAIRS[_field_kind, _parameter_kind] = _fit


def _is_path(term: Term, looks: str) -> bool:
    return (
        looks in PATHLIKE
        or term.kind in ("path", "file", "directory")
        or (bool(term.of) and term.of[-1] in PATH_THINGS and not term.kind)
    )


class _Matcher:
    """Holds the fields and parameters of all tools, and the indexes over them."""

    def __init__(self, tools: Sequence[ToolSpec], shapes: Shapes) -> None:
        self._tools = tools
        by_server: dict[str, list[int]] = defaultdict(list)
        for number, tool in enumerate(tools):
            by_server[tool.server].append(number)
        self._servers = by_server
        self._fields: list[list[Field]] = [[] for _ in tools]
        self._parameters: list[list[Parameter]] = [[] for _ in tools]
        for numbers in by_server.values():
            common = common_words([tools[number].name for number in numbers])
            for number in numbers:
                tool = tools[number]
                self._fields[number] = fields_of(number, tool, shapes.get(tool.ref, ()), common)
                self._parameters[number] = parameters_of(number, tool, common)
            looks = {each.kind.looks for number in numbers for each in self._fields[number]}
            if "file" in looks and "path" not in looks:
                # Where a server itself speaks of files by relative paths, it asks for such.
                for number in numbers:
                    self._parameters[number] = [_relative(each) for each in self._parameters[number]]
        self._takes = [{term for each in part for term, _ in each.terms} for part in self._parameters]
        self._fits: dict[tuple[Kind, _Wanted], float] = {}

    def edges(self) -> list[Edge]:
        best: dict[tuple[int, Path, int, Path], float] = {}
        everywhere = self._index_of_kinds()
        for numbers in self._servers.values():
            within = self._index_within(numbers)
            for number in numbers:
                for parameter in self._parameters[number]:
                    wanted = _Wanted(parameter.terms, parameter.type, parameter.looks, parameter.absolute)
                    found = [
                        *_best(MOST_WITHIN, self._within(parameter, wanted, within)),
                        *_best(MOST_ACROSS, self._across(parameter, wanted, everywhere)),
                    ]
                    for confidence, _, producer, path in found:
                        key = (producer, path, parameter.tool, parameter.path)
                        best[key] = max(confidence, best.get(key, 0.0))
        return [self._edge(*key, confidence) for key, confidence in sorted(best.items())]

    def _edge(self, producer: int, path: Path, consumer: int, parameter: Path, confidence: float) -> Edge:
        return Edge(
            producer=self._tools[producer].ref,
            output=path_text(path),
            consumer=self._tools[consumer].ref,
            parameter=parameter_text(parameter),
            evidence="schema",
            confidence=round(confidence, 3),
        )

    # ------------------------------------------------------------------------------------- within one server

    def _index_within(self, numbers: Sequence[int]) -> dict[str, list[Field]]:
        index: dict[str, list[Field]] = defaultdict(list)
        for number in numbers:
            for each in self._fields[number]:
                for key in _keys(each.kind.term, each.kind.looks, each.own):
                    index[key].append(each)
        return index

    def _within(
        self, parameter: Parameter, wanted: _Wanted, index: Mapping[str, list[Field]]
    ) -> Iterator[tuple[float, int, int, Path]]:
        seen = set()
        for key in _wanted_keys(parameter):
            for each in index.get(key, ()):
                if each.tool == parameter.tool or id(each) in seen:
                    continue
                seen.add(id(each))
                score = self._fit(each.kind, wanted)
                if each.own == parameter.own and _says_something(parameter):
                    # The very same word, even one that says little, is used alike within a server.
                    score = max(
                        score, 0.65 * wanted.terms[0][1] * each.kind.weight * _form_fit(each.kind, wanted)
                    )
                yield from self._kept(each, parameter, score)

    # --------------------------------------------------------------------------------------- between servers

    def _index_of_kinds(self) -> dict[str, list[tuple[Kind, list[Field]]]]:
        """Index the kinds of fields by the thing they are of, those that most tools have first."""
        members: dict[Kind, list[Field]] = defaultdict(list)
        for part in self._fields:
            for each in part:
                members[each.kind].append(each)
        index: dict[str, list[tuple[Kind, list[Field]]]] = defaultdict(list)
        for kind, its_fields in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
            for key in _keys_across(kind.term, kind.looks):
                if len(index[key]) < MOST_FIELDS:
                    index[key].append((kind, its_fields))
        return index

    def _across(
        self, parameter: Parameter, wanted: _Wanted, index: Mapping[str, list[tuple[Kind, list[Field]]]]
    ) -> Iterator[tuple[float, int, int, Path]]:
        server = self._tools[parameter.tool].server
        seen: set[Kind] = set()
        for key in {key for term, _ in parameter.terms for key in _keys_across(term, parameter.looks)}:
            for kind, its_fields in index.get(key, ()):
                if kind in seen:
                    continue
                seen.add(kind)
                score = self._fit(kind, wanted) * _reach(kind, parameter)
                if score < LEAST:
                    continue
                # Not always the same ones of many alike.
                start = zlib.crc32(f"{server} {parameter.own}".encode()) % len(its_fields)
                looked = 0
                for each in (*its_fields[start:], *its_fields[:start]):
                    if self._tools[each.tool].server != server:
                        yield from self._kept(each, parameter, score)
                        looked += 1
                        if looked >= MOST_OF_A_KIND:
                            break

    # --------------------------------------------------------------------------------------------- one pair

    def _fit(self, kind: Kind, wanted: _Wanted) -> float:
        pair = (kind, wanted)
        known = self._fits.get(pair)
        if known is None:
            known = self._fits[pair] = fit_of(kind, wanted)
        return known

    def _kept(
        self, each: Field, parameter: Parameter, score: float
    ) -> Iterator[tuple[float, int, int, Path]]:
        if parameter.allowed:
            values = each.allowed
            score *= (1.0 if values <= parameter.allowed else 0.8) if values & parameter.allowed else 0.4
        term = each.kind.term
        made = is_made(each.own.partition(" ")[0])
        if term in self._takes[each.tool] and not made and not each.allowed:
            score *= 0.72  # it returns what it was given
        if score >= LEAST:
            # Not always the same ones of many that fit alike.
            tie = zlib.crc32(f"{each.tool} {parameter.tool} {parameter.own}".encode())
            yield score, tie, each.tool, each.path


def _relative(parameter: Parameter) -> Parameter:
    folder = any(term.of[-1:] == ("directory",) or term.of[-1:] in CONTAINERS for term, _ in parameter.terms)
    return parameter if folder else replace(parameter, absolute=False)


def _best(most: int, found: Iterable[tuple[float, int, int, Path]]) -> Iterator[tuple[float, int, int, Path]]:
    """Yield the best, but few places of any one tool: a large output is not to crowd out the others."""
    places: Counter[int] = Counter()
    for each in nlargest(most * MOST_PLACES, found):
        places[each[2]] += 1
        if places[each[2]] <= MOST_PLACES:
            yield each
            most -= 1
            if most == 0:
                return


class _Wanted(NamedTuple):
    """What makes parameters alike: the same fields match them equally well."""

    terms: tuple[tuple[Term, float], ...]
    type: str
    looks: str
    absolute: bool


def fit_of(kind: Kind, wanted: _Wanted) -> float:
    """Return how probably a field of this kind holds what is wanted, from 0 to 1."""
    best = 0.0
    for term, sure in wanted.terms:
        score = likeness(kind.term, term)
        if _is_path(term, wanted.looks) and _is_path(kind.term, kind.looks):
            score = max(score, _path_fit(kind, term))
            if "number" in (kind.type, kind.looks):
                score *= 0.3
        if term.kind in FREE or kind.term.kind in FREE:
            score *= (0.62 if term.kind in WORDING else 0.8) if term.kind == kind.term.kind else 0.7
        if kind.term.kind in MEASURES and kind.term.of != term.of:
            score *= 0.6
        if not kind.term.kind and "number" in (kind.type, kind.looks) and not KNOWN_EVERYWHERE & set(term.of):
            # A number of things is not one of them.
            score *= 0.6 if not term.kind and wanted.type == "number" else 0.4
        if term.kind == "id" and kind.looks in ("words", "text"):
            score *= 0.4
        best = max(best, sure * score)
    return best * kind.weight * _form_fit(kind, wanted)


def _path_fit(kind: Kind, wanted: Term) -> float:
    """Return how well a path serves as another: files and folders do, paths to something special less."""
    special, given = set(wanted.of) - PATH_THINGS, set(kind.term.of) - PATH_THINGS
    fit = (
        (0.8 if special & given else 0.5)
        if special
        else ((0.74 if kind.looks in PATHLIKE else 0.68) if given else 0.8)
    )
    is_folder = kind.looks == "folder" or (kind.term.of[-1:] == ("directory",) and kind.looks not in PATHLIKE)
    is_file = kind.looks in ("path", "file") or (kind.term.of[-1:] == ("file",) and not is_folder)
    if (is_folder and wanted.of[-1:] == ("file",)) or (is_file and wanted.of[-1:] == ("directory",)):
        fit *= 0.6
    return fit


def _form_fit(kind: Kind, wanted: _Wanted) -> float:
    """Return how well the form of values fits: their type, and what they look like."""
    fit = 1.0
    if kind.type and wanted.type and kind.type != wanted.type:
        if "array" in (kind.type, wanted.type) or wanted.type == "object":
            fit *= 0.5
        else:
            fit *= 0.9 if kind.type == "number" or kind.looks == "number" else 0.5
    looks = kind.looks
    if looks in ("path", "folder") and not wanted.absolute:
        fit *= 0.6
    if looks == "text":
        fit *= 0.95 if any(term.kind in FREE for term, _ in wanted.terms) else 0.45
    elif looks and wanted.looks and looks != wanted.looks:
        close = (looks in PATHLIKE and wanted.looks in PATHLIKE) or {looks, wanted.looks} == {
            "date",
            "time",
        }
        fit *= 0.95 if close else 0.5
    return fit


def _reach(kind: Kind, parameter: Parameter) -> float:
    """Return how well a value serves another server than the one it came from."""
    # A word alone has many meanings: an address is a street's, a wallet's, or a byte's.
    sure = 1.0 if kind.weight == 1.0 else 0.85
    return sure * _known_to(kind, parameter)


def _known_to(kind: Kind, parameter: Parameter) -> float:
    term = kind.term
    if kind.looks in ("url", "email") or term.kind == "url" or KNOWN_EVERYWHERE & set(term.of):
        return 0.85
    if _is_path(term, kind.looks) and any(_is_path(asked, parameter.looks) for asked, _ in parameter.terms):
        if kind.looks in ("path", "folder"):
            return 0.9 if parameter.absolute else 0.5
        return 0.5 if kind.looks == "file" or not parameter.absolute else 0.65
    return {"id": 0.42, "name": 0.6, "": 0.6}.get(term.kind, 0.5)


def _says_something(parameter: Parameter) -> bool:
    """Whether a parameter's own name is more than `id` or `name`, and not the name of a text."""
    kind = parameter.terms[0][0].kind
    return bool(parameter.own) and kind not in WORDING and (kind in ("", "query") or " " in parameter.own)


def _keys(term: Term, looks: str, own: str) -> Iterator[str]:
    yield from term.of
    if _is_path(term, looks):
        yield "*path"
    if own:
        yield f"={own}"


def _wanted_keys(parameter: Parameter) -> set[str]:
    found = {key for term, _ in parameter.terms for key in _keys(term, parameter.looks, "")}
    return found | {f"={parameter.own}"}


def _keys_across(term: Term, looks: str) -> Iterator[str]:
    yield from term.of[-1:]
    if _is_path(term, looks):
        yield "*path"
