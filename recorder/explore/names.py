"""What the names of fields, parameters and tools have in common once spelling is set aside.

Names are compared as words: split at camelCase, `_`, `-` and digits, in small letters, in the singular. A
bare `id` or `name` says nothing of what it identifies, so it is qualified by the object it stands in, else by
what the tool is about: `id` in the output of `create_task` is a task's id.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from recorder.verbs import CHANGING, OPEN_ENDED, READING

Words = tuple[str, ...]

EVERY = "*"
"""Stands in a path for the items of a list, whichever."""

BARE = frozenset(
    """
    id ids uuid guid name key title code number no ref slug handle value label identifier index type kind
    uri url path
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
"""Names that do not say whose they are."""

_FILLER = frozenset("a all an and as at by current for from given in into of on or the to tool with".split())  # noqa: SIM905

_NOUNS_TOO = frozenset(
    """
    archive book command commit exchange file history invoice message note order post purchase query record
    reply return schedule script stash status store transfer tree
    """.split()  # noqa: SIM905
)
"""Verbs that are things when they come after another word: `get_order`, `git_commit`."""

_WRAPPERS = frozenset(
    """
    data result results response item items list content output payload value values row rows record body
    """.split()  # noqa: SIM905
)
"""Names of objects and lists that say nothing of what they hold."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+")
_ACRONYMS = re.compile(r"([A-Z]{2,})s(?![a-z])")

_SAME = {
    "ids": "id",
    "identifier": "id",
    "filename": "file",
    "filepath": "path",
    "dir": "directory",
    "folder": "directory",
}


@lru_cache(maxsize=200_000)
def words_in(name: str) -> Words:
    """Return the words of a name: `customerIDs` and `customer_id` are both `("customer", "id")`."""
    return tuple(map(_stem, _split(name)))


@lru_cache(maxsize=50_000)
def subject_of(tool: str) -> Words:
    """Return what a tool is about, its name without verbs: `get_user_orders` is about `("user", "order")`."""
    words = _split(tool)
    verbs = READING | CHANGING | OPEN_ENDED
    return tuple(
        _stem(word)
        for number, word in enumerate(words)
        if word not in _FILLER
        and not word.isdigit()
        and (word not in verbs or (number > 0 and word in _NOUNS_TOO))
    )


def qualified(path: Sequence[str], tool: str) -> Words:
    """Return the words that say what a field is and whose.

    Args:
        path: Names from the outermost object to the field, `EVERY` for the items of a list.
        tool: The tool whose output or parameter it is.
    """
    names = [name for name in path if name != EVERY]
    if not names:
        return subject_of(tool)
    own = words_in(names[-1])
    if not all(word in BARE for word in own):
        return own
    for name in reversed(names[:-1]):
        parent = words_in(name)
        if not all(word in _WRAPPERS for word in parent):
            return (*parent, *own)
    return (*subject_of(tool), *own)


def _split(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(_ACRONYMS.sub(r"\1", name))]


def _stem(word: str) -> str:
    if word in _SAME:
        return _SAME[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
