"""Which calls change the world: as servers declare, as recordings show, as names suggest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Reason = Literal["policy", "annotation", "recording", "name", "unknown"]

READING = frozenset(
    """
    get list read search find fetch query show describe check count view look lookup calculate
    compute estimate convert validate verify inspect browse preview compare diff status is has think
    retrieve select explain with head options ls cat grep egrep rg pwd tail wc stat file
    which echo du tree sort display info summarize analyze detect resolve
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
CHANGING = frozenset(
    """
    create add new insert update upsert modify edit change set put patch post write append delete
    remove drop clear reset move mv rename copy cp mkdir rmdir rm touch truncate alter replace merge
    upload send reply forward publish submit book cancel order purchase pay transfer return exchange
    refund register sign login logout start stop open close enable disable toggle commit push
    checkout stash revert schedule assign grant revoke invite join leave subscribe unsubscribe mark
    complete archive restore import install record store save click fill type press navigate cd
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
OPEN_ENDED = frozenset(
    """
    execute exec run eval query sql shell bash command cmd terminal invoke script
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
"""Words in the names of tools whose argument says what they do."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_FIRST_WORD = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*([A-Za-z]+)", re.DOTALL)


SWEEPING = frozenset(
    """
    list search find query grep count filter all tree ls scan browse history recent stats summary
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
"""Words in the names of tools that look at more than their arguments name."""

_CHANGE_WITHIN = re.compile(
    r"\b(insert|update|delete|merge|replace|create|drop|alter|truncate|rm|mv|cp|touch|mkdir|tee|chmod)\b",
    re.IGNORECASE,
)


def kind_of(tool: str, arguments: Mapping[str, Any]) -> str:
    """Return what kind of call this is: its tool, and for an open-ended one the first word that it is to run.

    `execute_sql` with `{"sql": "SELECT …"}` is of the kind `execute_sql SELECT`. Where the first word reads
    and another one changes (`WITH … INSERT`, `ls; rm`), that one counts.
    """
    if not OPEN_ENDED & words_of(tool):
        return tool
    for value in arguments.values():
        if isinstance(value, str) and len(value.split(None, 2)) > 1 and (found := _FIRST_WORD.match(value)):
            word = found[1]
            if word.lower() not in CHANGING and (change := _CHANGE_WITHIN.search(value)):
                word = change[1]
            return f"{tool} {word[:20].upper()}"
    return tool


def names_all_it_touches(tool: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call concerns only what its arguments name, so that calls that name none of it do not matter.

    Not where a tool runs what it is given, looks through everything, or is given a pattern.
    """
    if (OPEN_ENDED | SWEEPING) & words_of(tool):
        return False
    return not any(isinstance(value, str) and "*" in value for value in arguments.values())


def words_of(name: str) -> set[str]:
    """Return the words that a name is put together from, in small letters."""
    words = _NAME_WORDS.get(name)
    if words is None:
        words = _NAME_WORDS[name] = {word.lower() for word in _WORD.findall(name)}
    return words


_NAME_WORDS: dict[str, set[str]] = {}


def suggested(kind: str) -> bool | None:
    """Return whether a kind's name suggests that such a call changes the world; `None` if it says nothing."""
    name, _, ran = kind.partition(" ")
    for word in [*([ran.lower()] if ran else []), *(word.lower() for word in _WORD.findall(name))]:
        if word in OPEN_ENDED and not ran:
            continue
        if word in READING:
            return False
        if word in CHANGING:
            return True
    return None


def declared(annotations: object) -> bool | None:
    """Return whether a tool's annotations say that it changes the world (specification, ToolAnnotations)."""
    read_only = annotations.get("readOnlyHint") if isinstance(annotations, dict) else None
    return not read_only if isinstance(read_only, bool) else None


@dataclass(slots=True)
class Effect:
    """What recordings show of one kind of call: what other calls answered before and after it."""

    changed: float = 0.0
    """Reads that answered differently afterwards; where several calls lay between, each bears its share."""
    unchanged: float = 0.0
    """Reads that answered the same. Most reads are about something else than what a call changed, so much of
    this is needed to speak against a change."""

    def verdict(self, suggestion: bool | None) -> tuple[bool, Reason]:
        """Weigh what was seen against what the name suggests; nothing known counts as a change."""
        seen = self.changed + self.unchanged
        if suggestion is False:
            if self.changed >= MOST_BLAME and self.changed > MOST_BLAME_SHARE * seen:
                return True, "recording"
            return False, "name"
        if self.unchanged >= ENOUGH_UNCHANGED and self.changed < LEAST_CHANGED_SHARE * seen:
            return False, "recording"
        return True, "unknown" if suggestion is None else "name"


MOST_BLAME, MOST_BLAME_SHARE = 1.0, 0.1
"""A call named as a read is one until it bears this much of the blame for changes: reads share it by chance,
whenever a real change lies beside them."""

ENOUGH_UNCHANGED, LEAST_CHANGED_SHARE = 20, 0.01


@dataclass(slots=True)
class Effects:
    """Collects evidence over recorded conversations, one after the other."""

    reading: set[int] = field(default_factory=set)
    """Kinds that are taken for reads: they are blamed for a change only where nothing else lay between."""
    kinds: dict[int, Effect] = field(default_factory=dict)
    """By the kind's number."""
    _last: dict[tuple[int, int], tuple[tuple[int, ...], int]] = field(default_factory=dict)
    _group: int | None = None

    def watch(
        self, group: int, kinds: list[int], keys: list[int], outputs: list[int], failed: list[bool]
    ) -> None:
        """Take in one conversation's answered tool calls, in order.

        Conversations of a group should come one after the other: the last answer to each call is kept for
        the next one to be compared with, for one group at a time.
        """
        if group != self._group:
            self._group = group
            self._last.clear()
        made: list[int] = []
        here: dict[int, tuple[int, int]] = {}
        for kind, key, output, failure in zip(kinds, keys, outputs, failed, strict=True):
            if key in here:
                position, before = here[key]
                self._blame(set(made[position:]), changed=before != output)
            elif (there := self._last.get((group, key))) is not None:
                self._blame(_unlike(there[0], made), changed=there[1] != output)
            if key not in here and len(self._last) < MOST_REMEMBERED:
                self._last[group, key] = (tuple(made[-MOST_COMPARED:]), output)
            if not failure:
                made.append(kind)
            here[key] = (len(made) - (not failure), output)

    def of(self, kind: int) -> Effect:
        return self.kinds.get(kind, Effect())

    def _blame(self, kinds: set[int], *, changed: bool) -> None:
        suspects = (kinds - self.reading or kinds) if changed else kinds
        for kind in suspects:
            effect = self.kinds.setdefault(kind, Effect())
            if changed:
                effect.changed += 1 / len(suspects)
            else:
                effect.unchanged += 1


MOST_REMEMBERED, MOST_COMPARED = 100_000, 50
"""Answers of one group that are kept to compare with, and calls before each: bounds on memory."""


def _unlike(left: tuple[int, ...], right: list[int]) -> set[int]:
    """Return the kinds of call that one conversation made more often than the other."""
    counts: dict[int, int] = {}
    for kind in left:
        counts[kind] = counts.get(kind, 0) + 1
    for kind in right[-MOST_COMPARED:]:
        counts[kind] = counts.get(kind, 0) - 1
    return {kind for kind, count in counts.items() if count}
