"""What may differ without mattering: arguments of a call, and places in an output.

Both are learned from recordings of one tool in the same state (group and world-changing calls before), and
only from comparisons that could have come out otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recorder.database import Connection
from recorder.store import Store
from replayer.keys import canonical_text, hash64
from replayer.learned import Facts
from replayer.mask import error_text, masked, result_text
from replayer.near import spelled

MOST_CALLS = 2000
"""Recorded calls of one tool that are compared; more would say the same."""

ENOUGH_AGREEMENTS, ENOUGH_CONTEXTS = 30, 3
"""Comparisons, all of which must agree, before an argument counts as insensitive; and the different calls
among them, which must have that many different answers: a tool that says `ok` to everything shows nothing."""

ENOUGH_WITH_DIGITS = 100
"""The same for an argument whose values have digits: a page or a limit matters to few calls, but to some."""

ALL_VALUES = 50
"""Different values of an argument among the comparisons after which others are taken to be like them."""

ENOUGH_SPELLINGS = 5
"""The same for the spelling of one argument."""

MOST_PAIRS = 20
"""Pairs of outputs of one tool that are compared leaf by leaf."""

LEAST_PAIRS, LEAST_SHARE = 2, 0.5
"""Pairs in which a place must differ to count as volatile, and the share of the pairs that have it."""

_STAMP = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*"  # a time
    r"|[A-Za-z]{3}, \d\d? [A-Za-z]{3} \d{4} \d\d:\d\d:\d\d.*"  # a time, RFC 9110
    r"|1[5-9]\d{8}(?:\d{3})?(?:\.\d+)?"  # Unix seconds or milliseconds of this century
    r"|\d+(?:\.\d+)? ?(?:[mµun]?s|secs?|(?:milli)?seconds?)"  # a duration
    r"|\W?(?=\S*\d)(?=\S*[A-Za-z])[A-Za-z0-9_+/=-]{12,}",  # a hash or a token
    re.IGNORECASE,
)


@dataclass(slots=True)
class _Tally:
    agreements: int = 0
    disagreements: int = 0
    contexts: set[int] = field(default_factory=set)
    answers: set[int] = field(default_factory=set)
    values: set[str] = field(default_factory=set)


def learn_facts(connection: Connection, store: Store, tool: int) -> Facts:
    """Learn what may differ in a tool's calls and outputs."""
    rows = connection.execute(
        "SELECT call.key, group_number, prefix, output, call.exchange, arguments FROM call"
        " JOIN distinct_call ON distinct_call.tool = call.tool AND distinct_call.key = call.key"
        " WHERE call.tool = ? ORDER BY call.exchange LIMIT ?",
        (tool, MOST_CALLS),
    ).fetchall()
    calls = [
        _Call(hash64(f"{group} {prefix}"), output, exchange, key, json.loads(arguments))
        for key, group, prefix, output, exchange, arguments in rows
    ]
    names = sorted({name for call in calls for name in call.arguments})
    return Facts(
        insensitive={name: values for name in names if (values := _insensitive(calls, name)) != frozenset()},
        prose=tuple(name for name in names if _is_prose(calls, name)),
        volatile=tuple(_volatile(calls, lambda exchange: reply_text(store, exchange))),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    state: int
    output: int
    exchange: int
    key: int
    arguments: Mapping[str, Any]


def _insensitive(calls: Sequence[_Call], name: str) -> frozenset[str] | None:
    """Return among which values of this argument recordings agree that are equal but for it, in one state.

    `None` for all, and none where they do not agree.
    """
    tally = _tally(calls, name, lambda value: None)
    counted = any(character.isdigit() for value in tally.values for character in value)
    if (
        tally.disagreements
        or tally.agreements < (ENOUGH_WITH_DIGITS if counted else ENOUGH_AGREEMENTS)
        or min(len(tally.contexts), len(tally.answers)) < ENOUGH_CONTEXTS
    ):
        return frozenset()
    return None if len(tally.values) >= ALL_VALUES else frozenset(tally.values)


def _is_prose(calls: Sequence[_Call], name: str) -> bool:
    """Whether recordings in the same state that differ only in this argument's spelling agree."""
    tally = _tally(calls, name, lambda value: spelled(value) if isinstance(value, str) else value)
    return not tally.disagreements and tally.agreements >= ENOUGH_SPELLINGS and len(tally.answers) >= 2


def _tally(calls: Sequence[_Call], name: str, reduced: Callable[[Any], Any]) -> _Tally:
    """Compare calls that are equal once an argument is reduced, and different before."""
    tally = _Tally()
    first: dict[tuple[int, int], tuple[str, int]] = {}
    for call in calls:
        value = call.arguments.get(name)
        rest = {**call.arguments, name: reduced(value)}
        context = hash64(canonical_text(rest))
        value_text = canonical_text(value)
        before = first.setdefault((call.state, context), (value_text, call.output))
        if before[0] == value_text:
            continue
        if before[1] == call.output:
            tally.agreements += 1
            tally.values |= {before[0], value_text}
            tally.contexts.add(context)
            tally.answers.add(call.output)
        else:
            tally.disagreements += 1
    return tally


def _volatile(calls: Sequence[_Call], text_of: Callable[[int], str | None]) -> list[str]:
    """Return the places that change between answers to one call in one state."""
    first: dict[tuple[int, int], _Call] = {}
    compared: dict[str, int] = {}
    changes: dict[str, int] = {}
    differing: dict[str, list[tuple[Any, Any]]] = {}
    pairs = equal = 0
    for call in calls:
        before = first.setdefault((call.state, call.key), call)
        if before is call:
            continue
        if before.output == call.output:
            equal += 1
            continue
        pairs += 1
        if pairs > MOST_PAIRS:
            break
        earlier, later = (_leaves_of(text_of(exchange)) for exchange in (before.exchange, call.exchange))
        both = sorted(earlier.keys() & later.keys())
        for place in {_place(pointer) for pointer in both}:
            compared[place] = compared.get(place, 0) + 1
        changed = [pointer for pointer in both if earlier[pointer] != later[pointer]]
        for place in {_place(pointer) for pointer in changed}:
            changes[place] = changes.get(place, 0) + 1
        for pointer in changed:
            differing.setdefault(_place(pointer), []).append((earlier[pointer], later[pointer]))
    return sorted(
        place
        for place, values in differing.items()
        if changes[place] >= LEAST_PAIRS
        and changes[place] >= LEAST_SHARE * (compared[place] + equal)
        and _is_volatile(values)
    )


def _is_volatile(values: Sequence[tuple[Any, Any]]) -> bool:
    """Whether all values are shaped like what changes by itself, or all count upwards."""
    if all(isinstance(value, int) and not isinstance(value, bool) for pair in values for value in pair):
        return all(later > earlier for earlier, later in values)
    return all(_STAMP.fullmatch(str(value)) is not None for pair in values for value in pair)


def without_volatile(text: str, places: Sequence[str]) -> str:
    """Return an output's text with its volatile places replaced, if it is JSON; else as it is."""
    value = _json(text)
    if not isinstance(value, dict | list):
        return text
    return canonical_text(_blanked(value, "", frozenset(places)))


def _blanked(value: Any, pointer: str, places: frozenset[str]) -> Any:
    if pointer in places:
        return "#"
    match value:
        case dict():
            return {key: _blanked(item, f"{pointer}/{_escaped(key)}", places) for key, item in value.items()}
        case list():
            return [_blanked(item, f"{pointer}/*", places) for item in value]
        case _:
            return value


def reply_text(store: Store, exchange: int) -> str | None:
    """Return the text of a recorded answer, as it is compared."""
    reply = store.reply(exchange)
    if reply is None:
        return None
    message = json.loads(reply)
    return result_text(message["result"]) if "result" in message else error_text(message.get("error"))


def _leaves_of(text: str | None) -> dict[str, Any]:
    """Return the scalars in an output that is JSON, by pointer, as the fixed mask leaves them."""
    value = _json(text or "")
    return dict(_leaves(value, "")) if isinstance(value, dict | list) else {}


def _leaves(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    match value:
        case dict():
            for key, item in value.items():
                yield from _leaves(item, f"{pointer}/{_escaped(key)}")
        case list():
            for position, item in enumerate(value):
                yield from _leaves(item, f"{pointer}/[{position}]")
        case _:
            yield pointer, masked(value) if isinstance(value, str) else value


def _place(pointer: str) -> str:
    return re.sub(r"/\[\d+\]", "/*", pointer)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
