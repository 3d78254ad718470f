"""What a field holds: whose it is, and which of its properties.

`customer_id`, `customer.id` and the `id` that `list_customers` returns are all the `id` of a `customer`. What
names alone do not say is looked for in descriptions: "The name of the entity where the relation starts".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from recorder.explore.names import EVERY, Words, subject_of, words_in


class Term(NamedTuple):
    of: Words
    """Whose; the last word names the kind of thing. Empty where nothing says."""
    kind: str
    """Which property: a value of `_KINDS`, or empty for the thing itself."""
    unit: str = ""


def _sets(text: str) -> dict[str, str]:
    """Map each word of a line to the line's first."""
    return {word: line.split()[0] for line in text.strip().splitlines() for word in line.split()}


_KINDS = _sets("""
    id uuid guid key number no identifier sha hash slug handle ref iban isbn sku
    name
    title label headline
    path file filename directory
    url uri link href
    content text body source_code snippet markdown html
    query sql expression pattern prompt statement regex
    description summary comment note detail message insight
    code
    date day
    time
    datetime timestamp
    type category kind status state
    count total size length amount
    value
""")
"""The first word of a line stands for all of it."""

_SAME = _sets("""
    commit revision changeset
    repository repo
    location place city
    latitude lat
    longitude lon lng long
    email mail
    timezone tz
    language lang
    symbol ticker
    currency ccy
    document doc
    user member account
    organization organisation org
    image picture photo
    conversation chat
    telephone phone
""")
"""Words for the same thing; names of fields prefer now one and now the other."""

ROLES = frozenset(
    """
    source destination src dest dst from to target origin original new old base default current my parent
    first last next previous selected given all optional start end other main specific
    root working full relative absolute available installed installable supported allowed active enabled found
    matching known valid remaining recent
    """.split()  # noqa: SIM905
)
"""Words that say what part a value plays, not what it is."""

_WRAPPERS = frozenset(
    """
    data result response item list output payload row record value object entry element content contents
    structured info information array
    """.split()  # noqa: SIM905
)

_UNITS = _sets("""
    ms millisecond milliseconds millis
    s sec second seconds
    min minute minutes
    h hour hours hr
    celsius
    fahrenheit
    kelvin
    km kilometer kilometers kilometre
    mile miles mi
    m meter meters metre
    ft foot feet
    kg kilogram kilograms
    lb lbs pound pounds
    usd dollar dollars
    eur euro euros
    cent cents
    byte bytes
    kb kilobyte kilobytes
    mb megabyte megabytes
    percent pct
""")
_SHORT_UNITS = frozenset({"s", "h", "m", "min", "mi", "ft", "kg", "lb", "kb", "mb", "km", "ms"})

FREE = frozenset({"content", "query", "description", "title", "value"})
"""Kinds that anything may stand in: a name says little about what would fit."""

WORDING = frozenset({"content", "description", "title"})
"""Those that are written anew rather than taken over."""

MEASURES = frozenset({"count", "date", "time", "datetime", "type"})
"""Kinds whose values say what something is like, and not which it is."""

_FURTHER_VERBS = frozenset(
    """
    adapt apply build clone configure crawl discover download enumerate export extract fork format generate
    initialize load make manage parse process query render request scan scrape suggest summarise sync test
    track transform translate trigger
    """.split()  # noqa: SIM905
)
"""At the beginning of a name; further on they are things."""

_PREPOSITIONS = frozenset("to from for in of by with on at as into via using and".split())  # noqa: SIM905
_SPLIT = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@lru_cache(maxsize=100_000)
def head_of(tool: str, common: Words = ()) -> Words:
    """Return what a tool's name says that it is about: `add_tasks_to_request` is about tasks.

    Args:
        tool: Its name.
        common: Words that most names of that server have, and that so say nothing.
    """
    words = _SPLIT.findall(tool)
    for number, word in enumerate(words):
        if number and word.lower() in _PREPOSITIONS and subject_of("_".join(words[:number])):
            words = words[:number]
            break
    if len(words) > 1 and words[0].lower() in _FURTHER_VERBS:
        words = words[1:]
    subject = tuple(word for word in subject_of("_".join(words)) if word not in ROLES)
    head = tuple(word for word in subject if word not in common and word not in _WRAPPERS) or subject
    if len(head) > 1 and head[-1] in _KINDS and head[-1] not in ("file", "directory"):
        head = head[:-1]
    # Which files: those that the tool is for, and a path to any file may lead to one of them.
    return head[-1:] if head[-1:] in (("file",), ("directory",)) else canonical(head)


def canonical(words: Words) -> Words:
    return tuple(_SAME.get(word, word) for word in words)


def common_words(tools: Collection[str]) -> Words:
    """Return the word that most names of a server's tools begin with: `git` of `git_log` and `git_show`."""
    counts: dict[str, int] = {}
    for tool in tools:
        for word in words_in(tool)[:1]:
            counts[word] = counts.get(word, 0) + 1
    return tuple(word for word, count in counts.items() if len(tools) >= 4 and count >= 0.6 * len(tools))


def term_of(path: Sequence[str], tool: str, common: Words = ()) -> Term:
    """Return what the field at a path of a tool's arguments or output holds, as its names say."""
    names = [name for name in path if name != EVERY]
    term = _term(words_in(names[-1])) if names else Term((), "")
    if term.of:
        return term
    for name in reversed(names[:-1]):
        words = tuple(word for word in words_in(name) if word not in ROLES and word not in _WRAPPERS)
        if words:
            parent = _term(words)
            # The `name` in `files` is a file's name; in `commit_hash` the object is still a commit.
            return Term(parent.of or canonical(words), term.kind, term.unit)
    return Term(head_of(tool, common), term.kind, term.unit)


def described_terms(description: str) -> list[Term]:
    """Return what a parameter's description says it holds: "ID of the task", "the commit sha"."""
    found: list[Term] = []
    for match in _OF.finditer(description):
        found.append(Term(canonical(_plain(match[2])), _KINDS[words_in(match[1])[-1]]))
    for match in _BEFORE.finditer(description):
        found.append(Term(canonical(_plain(match[1])), _KINDS[words_in(match[2])[-1]]))
    return list(dict.fromkeys(term for term in found if term.of))


def returned_terms(description: str) -> list[Term]:
    """Return what a tool's description says that it returns: "Returns the new task's id"."""
    return [term for match in _RETURNS.finditer(description) for term in described_terms(match[1])]


def object_of(description: str) -> Words:
    """Return what a description's first verb is about: "Register a new user request and …", a request."""
    match = _OBJECT.match(description)
    return canonical(_plain(match[1])) if match is not None else ()


_OBJECT = re.compile(r"\s*[A-Za-z]+s?\s+((?:(?!and\b|or\b)[A-Za-z]+\s*){1,5})")
_KIND_WORD = (
    r"ids?|uuids?|names?|paths?|urls?|uris?|keys?|slugs?|shas?|hash(?:es)?|numbers?|codes?|titles?|"
    r"handles?|identifiers?"
)
_OF = re.compile(
    rf"\b((?:{_KIND_WORD})(?=\s+(?:of|for))|paths?(?=\s+to))\s+(?:of|for|to)\s+"
    r"(?:the\s+|an?\s+|each\s+|this\s+|one\s+)?((?:[a-z]+\s+)?[a-z]+)",
    re.IGNORECASE,
)
_BEFORE = re.compile(rf"\b((?:[a-z]+[ _-])?[a-z]+)(?:'s)?[ _-]({_KIND_WORD})\b", re.IGNORECASE)
_RETURNS = re.compile(
    r"\b(?:returns?|returning|outputs?|gives?|yields?)\b:?\s+([^.\n]{3,160})", re.IGNORECASE
)
_STOP = frozenset(
    """
    a an the of to for in on with by from or and this that which unique optional specific new valid given
    string list array its their your each any all full exact returned required single existing
    containing within inside under holding more get is are be was use used using provide provided register
    enter return where must should can will it they you we has have not no
    """.split()  # noqa: SIM905
)


def _plain(text: str) -> Words:
    kept: list[str] = []
    for word in _SPLIT.findall(text):
        if word.lower() in _STOP:
            # What follows a stop word belongs together, what stands before it does not.
            if kept:
                break
            continue
        kept += [each for each in words_in(word) if each not in ROLES and each not in _WRAPPERS]
    return tuple(kept)


def is_made(word: str) -> bool:
    """Whether a word says that something was done to what follows it: `adapted_query`, `inserted_id`."""
    return len(word) > 4 and word.endswith("ed")


@lru_cache(maxsize=100_000)
def _term(words: Words) -> Term:
    """Read a name: its last word may be the property or the unit, the words before it say whose."""
    unit = ""
    if words and words[-1] in _UNITS and (len(words) > 1 or words[-1] not in _SHORT_UNITS):
        unit = _UNITS[words[-1]]
        words = words[:-1]
    kept = tuple(word for word in words if word not in ROLES)
    if len(kept) > 1 and is_made(kept[0]):
        kept = kept[1:]
    kind = ""
    if len(kept) > 1 and kept[0] in ("total", "num", "count"):
        kind, kept = "count", kept[1:]
    elif kept and kept[-1] in _KINDS:
        kind = _KINDS[kept[-1]]
        # A file is a thing as well as a path to it, and so is a directory.
        things = (kept[-1],) if kept[-1] in ("file", "directory") else ()
        kept = (*kept[:-1], *things)
    elif kept and kept[-1] in _WRAPPERS:
        kept = kept[:-1]
    return Term(canonical(kept), kind, unit)
