"""Arguments for a tool, drawn from what is known: the better a source, the sooner it is asked.

The order follows the one measured on 60 real servers: a user's seeds; what an error asked for; const and
enum, which end the list; a small language, a new name or a path, where one is wanted; what worked for a
parameter of the same name; what was harvested under its qualified name (for ids before what worked);
examples; what descriptions mention; defaults; formats; a dictionary of names; what was harvested under
related names, or told by other servers; pattern or chance. At most one draw in ten passes over the best,
the fewer the more values failed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from recorder.canonical import canonical_json
from recorder.exchange import Json
from recorder.explore.dialects import STRICT, Asked, dialect_of, sentences
from recorder.explore.dictionary import FORMATS, values_for, written_like
from recorder.explore.experience import (
    ServerExperience,
    ToolExperience,
    destructive_words,
    parameter_words,
)
from recorder.explore.harvest import Found, argument_texts
from recorder.explore.mined import mined, section
from recorder.explore.names import EVERY, Words, subject_of, words_in
from recorder.explore.outputs import Path
from recorder.explore.parameters import (
    as_list,
    as_schema,
    converted,
    fits,
    input_schema,
    properties_of,
    required_of,
    resolved,
    type_of,
    walk,
)
from recorder.explore.paths import MADE, endings_for, path_kind, path_values
from recorder.explore.pattern import matching
from recorder.explore.roots import Roots
from recorder.verbs import suggested

LOWER_SHARE = 0.1
"""Of draws that pass over the best source: a source that is always best teaches nothing about the others."""

FRESH_SHARE = 0.25
"""Of further calls of a tool that works that are drawn anew instead of changing one argument of a call that
worked; the rest climbs from there, which fails less often."""

OPTIONAL_SHARE = 0.15
"""Of optional parameters that a fresh draw gives."""

HANDLE_SHARE = 0.8
"""Of optional ids that are given where this walk was told one."""

MOST_DRAWS = 24
"""Draws after which nothing new is expected of a tool."""

WAITING = frozenset("duration delay wait sleep".split())  # noqa: SIM905
"""Parameters that say how long a call takes. They are always given, as defaults wait for long."""

NEW_NAME_SHARE = 0.7
"""Of names for what a tool creates that are new ones; the rest tries names that are there."""

Seeds = Callable[[str, str, tuple[str, ...]], Sequence[Json]]
"""Server, tool and parameter path → the user's values, best first."""


@dataclass(frozen=True, slots=True)
class Candidate:
    value: Json
    call: int | None = None
    """The call that told it."""
    given: frozenset[str] = frozenset()
    """That call's arguments."""


@dataclass(slots=True)
class _Chosen:
    """What this argument set holds so far; values that belong together should come together."""

    calls: set[int] = field(default_factory=set)
    values: set[str] = field(default_factory=set)


class Drawer:
    """Draws arguments for one server's tools.

    Args:
        others: Experience with other servers, whose values are asked after those of the server's own.
        roots: Folders and files that path parameters may name.
        elsewhere: Those of other servers, for where there are none.
        rng: The only source of chance.
        walk: The number of the walk: values told in it are preferred, as what they name is sure to exist.
    """

    def __init__(
        self,
        server: ServerExperience,
        others: Sequence[ServerExperience],
        roots: Roots,
        elsewhere: Roots,
        seeds: Seeds,
        rng: Random,
        walk: int,
    ) -> None:
        self._server, self._others, self._seeds = server, others, seeds
        self._roots, self._elsewhere = roots, elsewhere
        self._rng, self._walk = rng, walk

    def arguments(self, tool: ToolExperience) -> dict[str, Json] | None:
        """Draw arguments that the tool was not called with; `None` if none are found."""
        for number in range(MOST_DRAWS):
            climb = bool(tool.worked) and self._rng.random() >= FRESH_SHARE
            drawn = self._changed(tool) if climb else self._fresh(tool, bold=number > MOST_DRAWS // 2)
            if drawn is not None:
                drawn = self._without_exclusive(tool, drawn)
            if drawn is not None and canonical_json(drawn) not in tool.tried:
                return drawn
        return None

    def _without_exclusive(self, tool: ToolExperience, drawn: dict[str, Json]) -> dict[str, Json]:
        for names in tool.exclusive:
            given = [name for name in names if name in drawn and name not in tool.required_parameters()]
            for name in given[: -1 if len(given) == len(names) else 0]:
                drawn = {key: value for key, value in drawn.items() if key != name}
        return drawn

    def _fresh(self, tool: ToolExperience, *, bold: bool) -> dict[str, Json] | None:
        root = input_schema(tool.spec.entry)
        required = tool.required_parameters()
        chosen = _Chosen()
        drawn: dict[str, Json] = {}
        for name, schema in self._in_order(tool, root):
            optional = name not in required
            first = not tool.worked and not tool.calls
            share = 0.0 if first else 0.5 if bold else OPTIONAL_SHARE
            if optional and self._is_told_here(tool, name):
                share = HANDLE_SHARE
            skipped = optional and not WAITING & set(words_in(name))
            if skipped and (name in tool.unexpected or self._rng.random() >= share):
                continue
            value = self._value(tool, (name,), schema, root, chosen)
            if value is not _NOTHING:
                drawn[name] = value
            elif not optional:
                return None
        return drawn

    def _is_told_here(self, tool: ToolExperience, name: str) -> bool:
        """Whether a parameter is an id of which this walk was told one: a handle, most likely."""
        words = parameter_words((name,), tool.spec.name)
        found = self._server.harvest.by_words.get(words, {}) if words[-1:] in _IDS else {}
        return any(one.walk == self._walk for one in found.values())

    def _changed(self, tool: ToolExperience) -> dict[str, Json] | None:
        """Take a call that worked, this walk's or a late one, and change one argument."""
        root = input_schema(tool.spec.entry)
        worked = tool.worked[-8:]
        base = worked[self._rng.randrange(len(worked))]
        names = [name for name, _ in self._in_order(tool, root) if name not in tool.unexpected]
        if not names:
            return None
        # Parameters of which few values work are seldom changed.
        name = self._rng.choices(names, [self._luck(tool, name, name in base) for name in names])[0]
        required = tool.required_parameters()
        if name in base and name not in required and self._rng.random() < 0.3:
            return {key: value for key, value in base.items() if key != name}
        chosen = _Chosen(values=set(argument_texts({k: v for k, v in base.items() if k != name})))
        schema = resolved(tool.parameters.get(name), root)
        value = self._value(tool, (name,), schema, root, chosen, not_this=base.get(name, _ABSENT))
        if value is _NOTHING:
            return None
        return {**base, name: value}

    def _luck(self, tool: ToolExperience, name: str, given: bool) -> float:
        """Return how likely another value of a parameter is to work, as far as values of that name did."""
        words = parameter_words((name,), tool.spec.name)
        worked = len(self._server.worked_values.get(words, {}))
        failed = len(self._server.failed_values.get(words, {}))
        luck = (worked + 1) / (worked + failed + 1)
        return luck if worked != 1 or not given else luck / 2

    def _in_order(self, tool: ToolExperience, root: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """Return the parameters, required ones first, and what qualifies others (a table, a project) before
        those."""
        required = tool.required_parameters()
        names = [*required, *(name for name in tool.parameters if name not in required)]
        pairs = [(name, resolved(tool.parameters.get(name), root)) for name in names]
        return sorted(
            pairs, key=lambda pair: (pair[0] not in required, type_of(pair[1]) in ("object", "array"))
        )

    def _value(
        self,
        tool: ToolExperience,
        path: Path,
        schema: dict[str, Any],
        root: dict[str, Any],
        chosen: _Chosen,
        not_this: Json = None,
        depth: int = 0,
    ) -> Json:
        """Draw a value for one parameter; `_NOTHING` if there is none."""
        if len(path) == 1 and path[0] in tool.types:
            schema = {**schema, "type": tool.types[path[0]]}
        kind = type_of(schema)
        tabu = tool.blame.get(path, {})
        words = parameter_words(path, tool.spec.name)
        failed = self._server.failed_values.get(words, {})
        worked = self._server.worked_values.get(words, {})
        tiers = []
        for tier in self._tiers(tool, path, schema):
            kept = []
            for candidate in tier:
                if fits(candidate.value, schema) and candidate.value != not_this:
                    value = converted(candidate.value, schema)
                    key = canonical_json(value)
                    if tabu.get(key, 0) < 1 and failed.get(key, 0) < 2:
                        kept.append(Candidate(value, candidate.call, candidate.given))
            if kept:
                tiers.append(kept)
        built = kind in ("object", "array") and depth < 4
        if built and (not tiers or self._rng.random() < 0.5):
            value = (
                self._object(tool, path, schema, root, chosen, depth)
                if kind == "object"
                else self._array(tool, path, schema, root, chosen, depth)
            )
            if value is not _NOTHING:
                return value
        if not tiers:
            if kind in ("string", None) and (worked or not_this is not None):
                return _NOTHING  # a made-up text in the place of one that worked would only fail
            value = self._random(tool, path, schema)
            if value is not _NOTHING:
                chosen.values.add(canonical_json(value))
            return value
        tier = tiers[0]
        # The more values have failed, the less is tried.
        luck = (len(worked) + 1) / (len(worked) + len(failed) + 1)
        if len(tiers) > 1 and self._rng.random() < LOWER_SHARE * luck:
            tier = tiers[1 + self._rng.randrange(len(tiers) - 1)]
        tier = self._ours_or_theirs(tool, tier)
        best = sorted(tier, key=lambda candidate: self._strangeness(candidate, chosen))
        close = [c for c in best if self._strangeness(c, chosen) == self._strangeness(best[0], chosen)]
        pool = close if len(close) > 1 or self._rng.random() < 0.7 else best
        # What comes first is likelier, the tail is not left out.
        picked = pool[min(int(self._rng.random() ** 2 * len(pool)), len(pool) - 1)]
        if picked.call is not None:
            chosen.calls.add(picked.call)
        chosen.values.add(canonical_json(picked.value))
        return picked.value

    def _ours_or_theirs(self, tool: ToolExperience, tier: list[Candidate]) -> list[Candidate]:
        """Let tools that change things change what we made, and others look at what was there before."""
        ours = [c for c in tier if isinstance(c.value, str) and MADE in c.value]
        if destructive_words(tool.spec.name) or suggested(tool.spec.name):
            return ours or [c for c in tier if c.value not in self._roots.named] or tier
        theirs = [c for c in tier if c not in ours]
        return theirs if theirs and self._rng.random() < 0.9 else tier

    def _strangeness(self, candidate: Candidate, chosen: _Chosen) -> int:
        """Say how little a value has to do with those that are chosen: 0, 1 or 2."""
        if candidate.call is not None and candidate.call in chosen.calls:
            return 0
        if candidate.given & chosen.values:
            return 0
        return 1 if candidate.call is None or not chosen.values else 2

    def _tiers(self, tool: ToolExperience, path: Path, schema: dict[str, Any]) -> Iterator[list[Candidate]]:
        server, name = self._server, tool.spec.name
        words = parameter_words(path, name)
        text = self._text(tool, path, schema)
        plain = type_of(schema) not in ("object", "array")
        yield [Candidate(value) for value in self._seeds(server.name, name, path)]
        if len(path) == 1:
            yield [Candidate(value) for value in tool.written.get(path[0], ())]
            yield [Candidate(value) for value in self._shuffled(tool.allowed.get(path[0], ()))]
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else as_list(schema["enum"])
            yield [Candidate(value) for value in self._shuffled(values)]
            return
        if type_of(schema) == "boolean":
            yield [Candidate(value) for value in (True, False)]
            return
        if not plain:
            yield [Candidate(value) for value in as_list(schema.get("examples"))]
            return
        about = f"{name} {tool.spec.entry.get('description') or ''}"
        if type_of(schema) in ("string", None):
            yield self._lines(words, path)
            strict = False
            for dialect, made in self._sentences(tool, path, words, text, about):
                strict = dialect in STRICT
                yield made
            if strict:
                return
            yield self._new_names(tool, words)
            paths = self._paths(tool, path, words, text, about, schema)
            yield paths
            if paths:
                return
        if WAITING & set(words):
            yield [Candidate(value) for value in values_for(words, about)]
        said = mined(text)
        told = [self._candidate(found) for found in self._told(words)]
        like = [Candidate(value) for value in self._shuffled(written_like(text))]
        if words[-1:] and words[-1] in _CONTROLS:
            told = [self._candidate(found) for found in self._told(words) if found.words == words]
            yield [Candidate(value) for value in self._shuffled(said.choices or said.examples)]
            yield self._worked(words)
            yield told
        elif words[-1:] in _IDS:
            # An id that comes with others of its kind is worth more than one that worked with others.
            yield told
            yield self._worked(words)
        else:
            yield self._worked(words)
            yield like
            yield told
        yield [
            Candidate(value)
            for value in [*as_list(schema.get("examples")), schema.get("example")]
            if value is not None
        ]
        yield [Candidate(value) for value in self._shuffled(said.choices)]
        yield [Candidate(value) for value in self._shuffled(said.examples)]
        yield [Candidate(value) for value in (schema.get("default"), said.default) if value not in (None, "")]
        yield [Candidate(value) for value in FORMATS.get(str(schema.get("format")), ())]
        yield [Candidate(value) for value in self._shuffled(values_for(words, about))]
        yield [
            self._candidate(found)
            for found in self._mine_first(server.harvest.known(words, related=True))[:20]
        ]
        yield [
            Candidate(found.value) for other in self._others for found in list(other.harvest.known(words))[:5]
        ]

    def _sentences(
        self, tool: ToolExperience, path: Path, words: Words, text: str, about: str
    ) -> Iterator[tuple[str, list[Candidate]]]:
        own = words_in(path[-1]) if path[-1] != EVERY else words
        around = (self._roots if self._roots.words else self._elsewhere).words
        asked = Asked(own or words, text, tool.spec.name, about, self._server.harvest, around)
        dialect = dialect_of(asked)
        if dialect is not None:
            made = [Candidate(value) for value in sentences(dialect, asked, self._rng)]
            examples = [Candidate(value) for value in mined(text).examples]
            # A pattern's own examples are surer than ours, ours more varied.
            yield dialect, examples + made if self._rng.random() < 0.3 else made

    def _paths(
        self, tool: ToolExperience, path: Path, words: Words, text: str, about: str, schema: dict[str, Any]
    ) -> list[Candidate]:
        tool_words = words_in(tool.spec.name)
        own = words_in(next(name for name in reversed(path) if name != EVERY))
        kind = path_kind(own, text, tool_words, schema.get("format"))
        if kind is None:
            return []
        if path[0] in tool.directory and not kind.startswith("new"):
            kind = "directory" if tool.directory[path[0]] else "file"
        if kind == "any" and "file" in path[-1].lower():
            kind = "file"
        if kind.startswith("new") and path[0] in tool.existing:
            kind = "file" if kind == "new file" else "directory"
        endings = [*tool.extensions, *endings_for(own, text, tool_words, about, self._server.name)]
        endings = endings or self._worked_endings()
        told = [
            self._candidate(found)
            for found in self._mine_first(
                self._server.harvest.known(("directory" if "dir" in kind else "file", "path"))
            )
        ]
        told = [c for c in told if isinstance(c.value, str) and self._is_path(c.value, kind, endings, tool)]
        where = (self._roots, self._elsewhere)
        absolute = False if "relative" in own else True if "absolute" in own else self._absolute(tool)
        places = (path_values(kind, endings, roots, self._rng, absolute=absolute) for roots in where)
        rooted = [Candidate(value) for value in next(filter(None, places), [])]
        if kind.startswith("new"):
            return rooted
        if any(_TEXTS & set(words_in(at[-1])) for at, _, _ in walk(input_schema(tool.spec.entry), {}) if at):
            read = [json.loads(key) for key in self._server.lines]
            return [
                Candidate(v) for v in read if isinstance(v, str) and self._is_path(v, kind, endings, tool)
            ] or rooted
        worked = [c for c in self._worked(words) if self._is_path(str(c.value), kind, endings, tool)]
        if worked and self._rng.random() > self._luck(tool, path[0], True) / 2:
            return worked
        sure = [c for c in told if self._roots.knows(str(c.value))]
        return [*rooted[:16], *sure[:12], *(told[:12] if not rooted else [])]

    def _absolute(self, tool: ToolExperience) -> bool | None:
        return self._server.absolute if tool.absolute is None else tool.absolute

    def _worked_endings(self) -> list[str]:
        """Return the endings of files that the server's tools worked on, frequent ones first."""
        counts: Counter[str] = Counter()
        for values in self._server.worked_values.values():
            for value, times in values.values():
                text = value if isinstance(value, str) else ""
                match = re.search(r"\w(\.[A-Za-z][A-Za-z0-9]{1,4})$", text)
                if match is not None and ("/" in text or self._roots.knows(text)):
                    counts[match[1].lower()] += times
        return [ending for ending, times in counts.most_common(3) if times >= 2]

    def _is_path(self, value: str, kind: str, endings: Sequence[str], tool: ToolExperience) -> bool:
        absolute = self._absolute(tool)
        if absolute is not None and value.startswith("/") != absolute:
            return False
        return _is_kind(value, kind, endings)

    def _lines(self, words: Words, path: Path) -> list[Candidate]:
        """A line of a text that is known, for what has to be found in it: the old text of an edit."""
        if not _TEXTS & set(words):
            return []
        return [
            Candidate(line, None, frozenset({key}))
            for key, lines in list(self._server.lines.items())[-12:]
            for line in lines[:6]
        ]

    def _worked(self, words: Words) -> list[Candidate]:
        values = self._server.worked_values.get(words, {})
        return [Candidate(value) for value, _ in reversed(values.values())]

    def _told(self, words: Words) -> list[Found]:
        """Values that the server's tools told under a name like this one; of ids, this walk's if there are
        any."""
        found = self._mine_first(self._server.harvest.known(words))
        if words[-1:] in _IDS:
            found = [one for one in found if not re.search(r"\s|^.{81}", str(one.value))]
            return [one for one in found if one.walk == self._walk][:40] or found[:40]
        return found[:40]

    def _new_names(self, tool: ToolExperience, words: Words) -> list[Candidate]:
        """Names for what is to be created: what exists is mostly refused."""
        verbs = set(words_in(tool.spec.name)[:2])
        is_name = words[-1:] in (("name",), ("title",)) and set(words[:-1]) <= set(subject_of(tool.spec.name))
        if not verbs & _CREATING or not (is_name or words == subject_of(tool.spec.name)):
            return []
        return (
            [Candidate(f"{MADE}{self._rng.randrange(10_000)}")] if self._rng.random() < NEW_NAME_SHARE else []
        )

    def _mine_first(self, found: Iterator[Found]) -> list[Found]:
        """Values that this walk was told, before those of earlier ones, which may be gone."""
        kept = [found for _, found in zip(range(80), found, strict=False)]
        return sorted(kept, key=lambda one: one.walk != self._walk)

    def _candidate(self, found: Found) -> Candidate:
        return Candidate(found.value, found.call, found.given)

    def _object(
        self,
        tool: ToolExperience,
        path: Path,
        schema: dict[str, Any],
        root: dict[str, Any],
        chosen: _Chosen,
        depth: int,
    ) -> Json:
        properties = properties_of(schema)
        if not properties:
            return self._free_object(path, chosen, schema, root, tool, depth)
        required = required_of(schema)
        value: dict[str, Json] = {}
        for name, inner in properties.items():
            if (
                name not in required
                and (required or len(value) >= 2)
                and self._rng.random() >= OPTIONAL_SHARE
            ):
                continue
            drawn = self._value(tool, (*path, name), resolved(inner, root), root, chosen, depth=depth + 1)
            if drawn is not _NOTHING:
                value[name] = drawn
            elif name in required:
                return _NOTHING
        return value

    def _free_object(
        self,
        path: Path,
        chosen: _Chosen,
        schema: dict[str, Any],
        root: dict[str, Any],
        tool: ToolExperience,
        depth: int,
    ) -> Json:
        """Make an object that no schema describes, from one that was told about the same thing."""
        words = set(words_in(path[-1])) | set(words_in(tool.spec.name))
        known = [flat for flat, given, _ in self._server.harvest.objects if given & chosen.values]
        tables = [
            t for name, t in self._server.harvest.tables.items() if canonical_json(name) in chosen.values
        ]
        if tables and tables[0].columns:
            rows = tables[0].rows or [flat for flat in known if set(flat) <= set(tables[0].columns)]
            columns = tables[0].columns
            if words & {"condition", "where", "filter", "criteria", "match"}:
                if not rows:
                    return {}
                row = rows[self._rng.randrange(len(rows))]
                name = self._one([n for n in row if row[n] is not None] or list(row))
                return {name: row[name]}
            kept = [name for name in columns if name.lower() not in ("id", "rowid")] or list(columns)
            if words & {"update", "set", "change", "patch"}:
                kept = [self._one(kept)]
            return {name: self._cell(name, columns[name], rows) for name in kept}
        if known:
            flat = known[self._rng.randrange(len(known))]
            if words & {"condition", "where", "filter", "criteria", "match"}:
                name = self._one(list(flat))
                return {name: flat[name]}
            return flat
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) and extra:
            drawn = self._value(tool, (*path, "name"), resolved(extra, root), root, chosen, depth=depth + 1)
            return {"name": drawn} if drawn is not _NOTHING else {}
        if words & {
            "condition",
            "where",
            "filter",
            "option",
            "param",
            "parameter",
            "config",
            "metadata",
            "variable",
        }:
            return {}
        return {"name": "firefly", "value": self._rng.randint(1, 100)}

    def _cell(self, name: str, kind: str, rows: Sequence[dict[str, Json]]) -> Json:
        told = [row[name] for row in rows if row.get(name) is not None]
        if told and self._rng.random() < 0.7 and not isinstance(told[0], dict | list):
            return told[self._rng.randrange(len(told))]
        if re.search(r"int|serial", kind):
            return self._rng.randint(1, 500)
        if re.search(r"real|float|double|dec|num", kind):
            return round(self._rng.uniform(1, 200), 2)
        return f"firefly {self._rng.randint(1, 9999)}"

    def _array(
        self,
        tool: ToolExperience,
        path: Path,
        schema: dict[str, Any],
        root: dict[str, Any],
        chosen: _Chosen,
        depth: int,
    ) -> Json:
        item = resolved(schema.get("items"), root) or {"type": "string"}
        least = schema.get("minItems")
        most = schema.get("maxItems")
        size = max(least if isinstance(least, int) else 1, self._rng.choice((1, 1, 2, 3)))
        if EVERY in path:  # a list of lists
            words = parameter_words(path, tool.spec.name)
            size = next((_SIZES[word] for word in words if word in _SIZES), size)
        if "RGB" in self._text(tool, path[:1], as_schema(tool.parameters.get(path[0]))):
            size, item = 3, {**item, "minimum": 0, "maximum": 255}
        elif type_of(item) in ("integer", "number"):
            size = max(size, min(4, most) if isinstance(most, int) else 4)
        found: list[Json] = []
        for _ in range(size * 2):
            value = self._value(tool, (*path, EVERY), item, root, chosen, depth=depth + 1)
            if value is not _NOTHING and (value not in found or type_of(item) in ("integer", "number")):
                found.append(value)
            if len(found) >= size:
                break
        return found if len(found) >= (least if isinstance(least, int) else 1) else _NOTHING

    def _random(self, tool: ToolExperience, path: Path, schema: dict[str, Any]) -> Json:
        """Make up a value of the type, within the limits."""
        pattern = tool.patterns.get(path[0]) or schema.get("pattern")
        kind = type_of(schema)
        if kind in ("integer", "number"):
            low, high = self._limits(tool, path, schema)
            if kind == "integer":
                return self._rng.randint(int(low), int(max(low, high)))
            if self._rng.random() < 0.7 and int(low) <= low:
                return self._rng.randint(int(low), int(max(low, high)))
            return round(self._rng.uniform(low, max(low, high)), 2)
        if kind == "boolean":
            return self._rng.random() < 0.5
        if kind == "null":
            return None
        if kind in ("object", "array"):
            return {} if kind == "object" else []
        if isinstance(pattern, str) and (made := matching(pattern, self._rng)) is not None:
            return made
        said = self._server.harvest.searchable()[:40]
        if said and self._rng.random() < 0.7:
            return self._one(said)
        return self._one(("firefly", "example", "test", "alpha", "hello world")) + (
            "" if self._rng.random() < 0.5 else f" {self._rng.randint(1, 99)}"
        )

    def _limits(self, tool: ToolExperience, path: Path, schema: dict[str, Any]) -> tuple[float, float]:
        low, high = tool.limits.get(path[0], (None, None))
        for name, step in (("minimum", 0), ("exclusiveMinimum", 1)):
            if low is None and isinstance(schema.get(name), int | float):
                low = schema[name] + step
        for name, step in (("maximum", 0), ("exclusiveMaximum", -1)):
            if high is None and isinstance(schema.get(name), int | float):
                high = schema[name] + step
        low = (
            1 if low is None and (high is None or high >= 1) else low if low is not None else (high or 0) - 10
        )
        return float(low), float(min(high, low + 50) if high is not None else low + 20)

    def _text(self, tool: ToolExperience, path: Path, schema: dict[str, Any]) -> str:
        """Return what is said of a parameter: in its schema, and in its tool's description."""
        own = schema.get("description")
        text = own if isinstance(own, str) else ""
        if len(path) == 1:
            description = tool.spec.entry.get("description")
            also = section(description, path[0]) if isinstance(description, str) else ""
            text = f"{text}\n{also}".strip()
        elif not text and path[-1] == EVERY:
            array = as_schema(tool.parameters.get(path[0]))
            text = str(array.get("description") or "")
        return text

    def _shuffled(self, values: Sequence[Json]) -> list[Json]:
        mixed = list(values)
        self._rng.shuffle(mixed)
        return mixed

    def _one(self, values: Sequence[Any]) -> Any:
        return values[self._rng.randrange(len(values))]


_IDS = (("id",), ("ref",), ("handle",), ("uuid",), ("key",))
_SIZES = {"edge": 2, "pair": 2, "point": 2, "coordinate": 2, "position": 2}
"""A word in the name of a list whose items are lists → how long those are."""

_CONTROLS = frozenset("type format mode order style kind level unit operation action method status".split())  # noqa: SIM905
"""Last words of parameters that say how; what tools tell under names like theirs is about something else."""

_TEXTS = frozenset("old find anchor existing".split())  # noqa: SIM905
"""Words of parameters that have to say what a text holds."""

_CREATING = frozenset("create add new make insert".split())  # noqa: SIM905

_NOTHING: Any = object()
_ABSENT: Any = object()


def _is_kind(value: str, kind: str, endings: Sequence[str]) -> bool:
    last = value.rstrip("/").rsplit("/", 1)[-1]
    has_ending = "." in last.strip(".")
    if kind == "directory":
        return not has_ending
    if kind == "file":
        return has_ending and (not endings or value.lower().endswith(tuple(endings)))
    return True
