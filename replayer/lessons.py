"""The error that a server gives for arguments that violate a tool's input schema, learned from recorded ones.

A recording holds few such errors, so what they have in common is learned: each text is cut into what it
repeats of its call (tool, property, value, ...) and what stays. Where recorded texts leave open which of
the two a piece is, and the readings differ for the call that is asked, there is no answer: a miss is
better than a guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from recorder.canonical import canonical_json, content_hash
from replayer.violations import Violation, json_type

MOST_KINDS, MOST_EXAMPLES = 64, 8
"""Kinds of violation kept for a tool, and recorded examples kept for a kind."""

MOST_CHARACTERS = 4000
"""Characters of an error, and of a call's arguments, that are learned from; longer ones are left out."""

MOST_PIECES = 200
"""Pieces of a text; one that is cut into more repeats something too short to mean anything."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """The error that the server gives, and where we know it from."""

    text: str
    exchange_id: int
    """The recorded exchange that came closest: for the shape of the reply around the text."""
    support: int
    """Recorded calls that bear the text out."""
    level: Literal["same", "tool", "server"]
    """Seen at the same place of the same tool, at another place of it, or at another tool."""


@dataclass(slots=True)
class _Example:
    tool: str
    violations: tuple[Violation, ...]
    text: str | None
    """`None`: the server took the call."""
    exchange_id: int
    count: int = 1

    @property
    def places(self) -> list[str]:
        return sorted(each.pointer for each in self.violations)

    def identity(self) -> list[object]:
        arguments = {} if self.text is None else self.violations[0].arguments
        return [self.text, self.places, canonical_json(arguments)]


def lesson_text(text: str, *, refused: bool) -> str:
    """Return an error's text as lessons keep it: whether the tool or the protocol said it is part of it."""
    return f"{_REFUSED if refused else _TOLD}{text}"


def told_text(lesson: str) -> str:
    """Return the error's own text."""
    return lesson.removeprefix(_REFUSED).removeprefix(_TOLD)


_REFUSED, _TOLD = "refused: ", "told: "


class ErrorLessons:
    """What one server's recorded errors teach about calls that violate a schema.

    Calls are of one kind when they break the same rule, where the same type is wanted, with a value of
    the same class; calls with several violations, when all of these are equal, values too. A kind of
    which the server ever took a call has no answer.
    """

    def __init__(self) -> None:
        self._tools: dict[str, dict[str, list[_Example]]] = {}

    def note(
        self, tool: str, violations: Sequence[Violation], error_text: str | None, exchange_id: int
    ) -> None:
        """Learn from a recorded call; `error_text` is `None` where the server did not mind."""
        if not violations:
            return
        if error_text is not None:
            if len(error_text) + len(canonical_json(violations[0].arguments)) <= MOST_CHARACTERS:
                self._keep(_kind(violations), _Example(tool, tuple(violations), error_text, exchange_id))
            return
        # What was taken together was taken one by one as well.
        groups = [(violation,) for violation in violations]
        for group in [*groups, tuple(violations)] if len(groups) > 1 else groups:
            slim = tuple(replace(violation, value=None, arguments={}) for violation in group)
            self._keep(_kind(group), _Example(tool, slim, None, exchange_id))

    def answer(self, tool: str, violations: Sequence[Violation]) -> Lesson | None:
        """Return the error that the server would give, or `None` where the recording does not settle it."""
        if not violations:
            return None
        asked, kind = _Example(tool, tuple(violations), "", 0), _kind(violations)
        here = self._tools.get(tool, {}).get(kind, [])
        same = [example for example in here if _same_place(example, asked)]
        if (lesson := _lesson("same", same, same, asked)) or len(violations) > 1:
            return lesson
        rule = f"{violations[0].rule} "
        anywhere = [example for kinds in self._tools.values() for example in kinds.get(kind, [])]
        by_rule = {
            name: [each for key, kept in kinds.items() if key.startswith(rule) for each in kept]
            for name, kinds in self._tools.items()
        }
        every = [example for examples in by_rule.values() for example in examples]
        return _lesson("tool", here, by_rule.get(tool, []), asked) or _lesson(
            "server", anywhere, every, asked
        )

    def _keep(self, kind: str, example: _Example) -> None:
        kinds = self._tools.setdefault(example.tool, {})
        taken = example.text is None
        # Kinds with one violation are as many as the schema has places; the others have no end.
        if kind not in kinds and len(kinds) >= MOST_KINDS and not (taken and len(example.violations) == 1):
            return
        kept = kinds.setdefault(kind, [])
        for other in kept:
            if other.identity() == example.identity():
                other.count += 1
                return
        if len(kept) < MOST_EXAMPLES:
            kept.append(example)
            return
        errors = [position for position, other in enumerate(kept) if other.text is not None]
        pieces = _common([kept[position] for position in errors])
        if not errors or (not taken and pieces is None):
            return  # the kind has no answer already, and that is to stay
        if not taken and pieces is not None and _fill(pieces, _slots(example)) == example.text:
            kept[errors[-1]].count += 1
        else:
            kept[errors[-1]] = example

    def to_json(self) -> dict[str, Any]:
        return {
            tool: {kind: [_to_json(example) for example in kept] for kind, kept in kinds.items()}
            for tool, kinds in self._tools.items()
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> ErrorLessons:
        lessons = cls()
        for tool, kinds in written.items():
            lessons._tools[tool] = {
                kind: [_from_json(tool, example) for example in kept] for kind, kept in kinds.items()
            }
        return lessons


def _kind(violations: Sequence[Violation]) -> str:
    if len(violations) > 1:
        whole = [[each.rule, each.pointer, each.expected, each.value] for each in violations]
        return f"several {content_hash(sorted(map(canonical_json, whole)))}"
    (only,) = violations
    shape = "" if only.rule in ("required", "additionalProperties") else _shape(only.value)
    return f"{only.rule} {shape} {only.wanted}"


def _shape(value: object) -> str:
    """Return what a lenient server may tell values apart by: "5" is taken for a number, "five" is not."""
    match value:
        case str():
            text = value.strip().lower()
            if re.match(r"[-+.\d]|inf|nan|$", text):
                return "numeric text"
            if re.fullmatch("true|false|yes|no|on|off|t|f|y|n|null|none", text):
                return "word text"
            # A server may parse it and speak of what it found.
            return f"json {content_hash(value)}" if text[0] in '[{"' else "text"
        case bool() | None:
            return str(value)
        case int() | float():
            whole = value == value and abs(value) < 2**53 and value == int(value)
            return "bit" if value in (0, 1) else "whole" if whole else "fraction"
        case _:
            return f"{type(value).__name__} {'filled' if value else 'empty'}"


def _same_place(one: _Example, other: _Example) -> bool:
    return one.places == other.places and sorted(map(_expected, one.violations)) == sorted(
        map(_expected, other.violations)
    )


def _expected(violation: Violation) -> str:
    """Return the keyword's value, where it says something that the kind does not."""
    return "" if violation.rule in ("required", "type", "additionalProperties") else violation.expected


def _lesson(
    level: Literal["same", "tool", "server"],
    alike: Sequence[_Example],
    by_rule: Sequence[_Example],
    asked: _Example,
) -> Lesson | None:
    """Answer from examples of the asked kind, helped by others of its rule where one template fits all."""
    if not alike or any(example.text is None for example in alike):
        return None
    for examples in ([example for example in by_rule if example.text is not None], alike):
        pieces = _common(examples)
        if pieces is None or not _telling(examples, asked):
            continue
        if (text := _fill(pieces, _slots(asked))) is not None:
            first = min(alike, key=lambda example: example.tool != asked.tool)
            return Lesson(text, first.exchange_id, sum(example.count for example in examples), level)
    return None


def _telling(examples: Sequence[_Example], asked: _Example) -> bool:
    """Whether the examples differ in what sets the asked call apart, and speak of their violations.

    What a text does not repeat may still decide on it.
    """
    for told in (
        lambda example: example.tool,
        lambda example: example.places,
        lambda example: [_expected(each) for each in example.violations],
    ):
        seen = [told(example) for example in examples]
        if told(asked) not in seen and all(each == seen[0] for each in seen):
            return False
    # An error that does not name the property may be the tool's own, about something else.
    named = all(
        any(_token(each.name).search(example.text or "") for each in example.violations)
        for example in examples
    )
    return named or len({canonical_json(example.violations[0].arguments) for example in examples}) > 1


# Templates. A text is a row of pieces; each piece lists its possible readings: fixed text, or a slot. One
# text leaves several readings open (is `path` the word, or the property?), each further one narrows them.


@dataclass(frozen=True, slots=True)
class _Piece:
    fixed: str | None
    slots: frozenset[str] = frozenset()

    def readings(self, slots: Mapping[str, str]) -> set[str | None]:
        """Return the texts that the piece may stand for; `None` among them for a slot without one."""
        found: set[str | None] = {slots.get(name) for name in self.slots}
        return found if self.fixed is None else found | {self.fixed}


def _common(examples: Sequence[_Example]) -> tuple[_Piece, ...] | None:
    """Return the template that all the texts are made by, or `None` where they contradict each other."""
    filled = [(example.text or "", _slots(example)) for example in examples]
    for seed in filled[:3]:  # one may hide a slot behind a chance repetition; hardly three
        pieces: tuple[_Piece, ...] | None = _cut(*seed)
        for text, slots in filled:
            pieces = None if pieces is None else _narrow(pieces, text, slots)
        if pieces is not None:
            return pieces
    return None


def _cut(text: str, slots: Mapping[str, str]) -> tuple[_Piece, ...]:
    longest_first = sorted(
        {value for value in slots.values() if value}, key=lambda value: (-len(value), value)
    )
    pieces, end = [], 0
    found = (
        re.finditer("|".join(_token(value).pattern for value in longest_first), text) if longest_first else ()
    )
    for match in found:
        pieces.append(_Piece(text[end : match.start()]))
        pieces.append(_Piece(match[0], frozenset(name for name, value in slots.items() if value == match[0])))
        end = match.end()
    return (*pieces, _Piece(text[end:]))


def _narrow(pieces: tuple[_Piece, ...], text: str, slots: Mapping[str, str]) -> tuple[_Piece, ...] | None:
    """Return the pieces with the readings that give this text, or `None` where none do."""
    if len(pieces) > MOST_PIECES:
        return None
    dead: set[tuple[int, int]] = set()

    def read(position: int, start: int) -> tuple[_Piece, ...] | None:
        if position == len(pieces):
            return () if start == len(text) else None
        if (position, start) in dead:
            return None
        piece = pieces[position]
        readings = [
            each for each in piece.readings(slots) if each is not None and text.startswith(each, start)
        ]
        for reading in sorted(readings, key=len, reverse=True):
            if (rest := read(position + 1, start + len(reading))) is not None:
                kept = frozenset(name for name in piece.slots if slots.get(name) == reading)
                return (_Piece(piece.fixed if piece.fixed == reading else None, kept), *rest)
        dead.add((position, start))
        return None

    return read(0, 0)


def _fill(pieces: Sequence[_Piece], slots: Mapping[str, str]) -> str | None:
    """Return the text, or `None` where the readings left differ."""
    filled = []
    for piece in pieces:
        readings = piece.readings(slots)
        if len(readings) != 1 or (reading := readings.pop()) is None:
            return None
        filled.append(reading)
    return "".join(filled)


def _token(text: str) -> re.Pattern[str]:
    before = r"(?<!\w)" if re.match(r"\w", text) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", text) else ""
    return re.compile(before + re.escape(text) + after)


def _slots(example: _Example) -> dict[str, str]:
    """Return what an error may repeat of its call, by name, in the forms that servers write it in."""
    first = example.violations[0]
    parts = [part.replace("~1", "/").replace("~0", "~") for part in first.pointer.split("/")[1:]]
    indexed = [int(part) if part.isdecimal() else part for part in parts]
    brackets = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in indexed)
    slots = {
        "tool": example.tool,
        "title": first.title,
        "pointer": first.pointer,
        "dotted": ".".join(parts),
        "brackets": brackets.removeprefix("."),
        "zod path": ",\n      ".join(json.dumps(part) for part in indexed),
        **_forms("name", first.name),
        **_forms("expected", json.loads(first.expected)),
    }
    wanted = json.loads(first.wanted or "{}")
    slots |= _forms("wanted", wanted.get("type", "")) if len(wanted) == 1 else {}
    if first.rule != "required":
        slots |= _forms("value", first.value)
        slots |= {"python type": type(first.value).__name__, "json type": json_type(first.value)}
    slots |= _forms("holder", _holder(first.arguments, parts)) | _forms("arguments", first.arguments)
    for name, value in first.arguments.items():
        # Shorter ones stand in a text by chance.
        slots |= {key: text for key, text in _forms(f"argument {name}", value).items() if len(text) > 2}
    return slots


def _forms(name: str, value: object) -> dict[str, str]:
    forms = {
        "json": json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        "spaced": json.dumps(value, ensure_ascii=False),
        "repr": repr(value),
        "clipped": _clipped(repr(value)),
    }
    if isinstance(value, str):
        forms["plain"] = value
    if isinstance(value, list) and value:
        *others, last = map(repr, value)
        forms["or"] = f"{', '.join(others)} or {last}" if others else last
        forms["bars"] = "|".join(json.dumps(item, ensure_ascii=False) for item in value)
    return {f"{name} {form}": text for form, text in forms.items()}


def _clipped(text: str) -> str:
    """Return the text as pydantic clips a value: to 50 bytes, around its middle."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= 50:
        return text
    return f"{encoded[:25].decode('utf-8', 'ignore')}...{encoded[-24:].decode('utf-8', 'ignore')}"


def _holder(arguments: object, parts: Sequence[str]) -> object:
    """Return what the place is in."""
    for part in parts[:-1]:
        arguments = arguments[int(part)] if isinstance(arguments, list) else arguments[part]  # type: ignore[index]
    return arguments


def _to_json(example: _Example) -> dict[str, Any]:
    first = example.violations[0]
    return {
        "violations": [
            [each.rule, each.pointer, each.name, each.expected, each.value, each.wanted]
            for each in example.violations
        ],
        "arguments": first.arguments,
        "title": first.title,
        "text": example.text,
        "exchange": example.exchange_id,
        "count": example.count,
    }


def _from_json(tool: str, written: Mapping[str, Any]) -> _Example:
    about = {name: written[name] for name in ("arguments", "title")}
    violations = tuple(Violation(*each, **about) for each in written["violations"])
    return _Example(tool, violations, written["text"], written["exchange"], written["count"])
