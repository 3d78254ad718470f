"""What the name of a tool, its annotations and the first word of what it runs say of what a call does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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
    configure reconfigure initialize initialise init activate deactivate approve reject rebuild reindex
    refresh reload unregister connect disconnect
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
OPEN_ENDED = frozenset(
    """
    execute exec run eval query sql shell bash command cmd terminal invoke script
    """.split()  # noqa: SIM905 - forty quotes hide the words
)
"""Words in the names of tools whose argument says what they do."""

_NOUNS = frozenset("file head with options".split())  # noqa: SIM905
"""Commands that read, and say nothing where they are words of a name: `configure_file_watcher`."""

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
    named = (word.lower() for word in _WORD.findall(name))
    for word in [*([ran.lower()] if ran else []), *(word for word in named if word not in _NOUNS)]:
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
