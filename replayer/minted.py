"""Ids that a server made up during a conversation, and what stands for them in another one.

`create` answers with an id of its own making; another run of the same conversation gets another id. Both are
named here by where they came from: the call that was answered with it, which repetition of that call, and
which of the ids in the answer. So a call that names one is the same call in both runs, and an answer of one
run can be told with the ids of the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from recorder.canonical import readable_json
from recorder.verbs import CHANGING, READING, words_of

_WORD = re.compile(r"[\w-]+")
_WORD_ID = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|[A-Za-z]{1,16}[-_]\d+"  # task-12
    r"|(?=.*[A-Za-z])[A-Za-z0-9_]{8,64}"  # letters and digits, mixed
)
_NUMBERED = re.compile(r"(?:id|Id|ID)\"?\s{0,2}[:=]?\s{0,2}\"?#?(\d{1,18})(?![\w.-])")
"""`"id": 17`, `ticket_id=17`, `Task ID: 17`; what stands before says of what it is the id."""

_NOUN = re.compile(r"([A-Za-z]*)([_\- ]?)$")
_RANDOM = re.compile(
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|(?=.*\d[A-Za-z])(?=.*[A-Za-z]\d)[A-Za-z0-9_]{8,64}"
)
"""What no two servers make up alike."""

_NAMES_AN_ID = re.compile(r"(?:(.*)[_\- ])?(?:id|Id|ID)s?|(.*[a-z])(?:Id|ID)s?")

MOST_IDS = 50
"""Ids of one answer that are followed: an answer with more is a listing."""

MOST_HEARD, MOST_HEARD_CHARACTERS = 64, 65536
"""Earlier answers, and how much of each, that are searched for an id before it counts as new."""

Nouns = frozenset[str]
"""What a number counts: tickets and users are counted apart."""


def may_mint(text: str) -> bool:
    """Whether an answer holds anything shaped like an id."""
    return next(_found(text), None) is not None


def _found(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the ids in a text: words first, then numbers, each with the word before it or an empty one."""
    for word in _WORD.findall(text):
        # Most words have no digit, and are done with before any pattern is tried.
        if not word.isalpha() and not word.isdigit() and _has_digit(word) and _WORD_ID.fullmatch(word):
            yield word, None
    for match in _NUMBERED.finditer(text):
        noun = _labelled(text, match)
        if noun is not None:
            yield match[1], noun


def _has_digit(word: str) -> bool:
    return any(character in "0123456789" for character in word)


def _labelled(text: str, match: re.Match[str]) -> str | None:
    """Return the word that says of what a number is the id; `None` where that is no label (`paid`)."""
    before = _NOUN.search(text[max(0, match.start() - 40) : match.start()])
    assert before is not None
    noun, separator = before.groups()
    if noun and not separator and (match[0][0] == "i" or not noun[-1].islower()):
        return None
    return noun


class Lineage:
    """The minted ids of one conversation with one server."""

    def __init__(self) -> None:
        self.refs: dict[str, str] = {}
        """Id → what stands for it in every run."""
        self.ids: dict[str, str] = {}
        """The reverse."""
        self._numbers: dict[str, list[tuple[Nouns, str]]] = {}
        """Number → of what it is the id, and what stands for that."""
        self._named: set[str] = set()
        self._heard: list[str] = []
        self._turns: dict[int, int] = {}

    @property
    def is_empty(self) -> bool:
        return not self.ids

    def bind(self, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments with minted ids replaced; the same object if there is none."""
        if not self.ids:
            return arguments
        bound = self._bound(arguments, _nouns(tool), None)
        return bound if bound != arguments else arguments

    def bind_text(self, text: str, new: Mapping[str, str] | None = None) -> str:
        """Return an answer's text with minted ids replaced, as it is compared with another run's.

        Args:
            new: The ids that this answer itself brought. Those that look random are replaced, since another
                run gets others; counted ones (`17`, `task-12`) stay, since the same state counts them alike.
        """
        if not self.ids:
            return text
        kept = {made for made in new or () if not _RANDOM.fullmatch(made)}
        text = substitute(text, {made: ref for made, ref in self.refs.items() if made not in kept})
        return _NUMBERED.sub(lambda match: self._numbered(match, text, kept), text) if self._numbers else text

    def hear(self, arguments: Mapping[str, Any], text: str) -> None:
        """Take note of a call and its answer: ids in either are nobody's making later on."""
        self._named.update(_texts(arguments))
        if len(self._heard) < MOST_HEARD:
            self._heard.append(text[:MOST_HEARD_CHARACTERS])

    def mint(self, key: int, tool: str, arguments: Mapping[str, Any], text: str) -> dict[str, str]:
        """Return the ids that the answer to a world-changing call brings, and what stands for each.

        Args:
            key: The call's, minted ids in its arguments replaced.
        """
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        self._named.update(_texts(arguments))
        new: dict[str, str] = {}
        for made, noun in _found(text):
            if made in new or self._known(made, numbered=noun is not None):
                continue
            ref = f"«{key & 0xFFFFFFFFFFFFFFFF:x}.{turn}.{len(new)}»"
            new[made], self.ids[ref] = ref, made
            if noun is None:
                self.refs[made] = ref
            else:
                self._numbers.setdefault(made, []).append((_nouns(noun) or _nouns(tool), ref))
            if len(new) == MOST_IDS:
                break
        return new

    def rebind(
        self, value: Any, recorded: list[tuple[str, str, int]], exchange: int, *, literal: bool = False
    ) -> Any | None:
        """Return what a recorded run was answered, told with this conversation's ids.

        Args:
            recorded: What stands for each id minted in that run, the id, and whose answer brought it.
            exchange: Whose answer this is.
            literal: The call named ids that are this conversation's and that run's, too.

        Returns:
            `None` if an id in it stands for something else in this conversation.
        """
        changed: dict[str, str] = {}
        strangers: list[str] = []
        for ref, made, brought_by in recorded:
            own = self.ids.get(ref) if brought_by != exchange else None
            if literal and self.refs.get(made, ref) != ref:
                # Counted ids of two runs are equal by chance; what looks random is one and the same.
                if not _RANDOM.fullmatch(made):
                    strangers.append(made)
            elif own is not None:
                if own != made:
                    changed[made] = own
            elif made in self.refs:
                strangers.append(made)
        if not changed and not strangers:
            return value
        text = readable_json(value)
        if any(made in text for made in strangers):
            return None
        told = substitute(text, {made: own for made, own in changed.items() if not made.isdigit()})
        told = _NUMBERED.sub(lambda match: _renumbered(match, changed), told)
        return json.loads(told) if told != text else value

    def _known(self, made: str, *, numbered: bool) -> bool:
        if numbered:
            return made in self._named
        if made in self.refs:
            return True
        return any(made in text for text in self._named) or any(made in text for text in self._heard)

    def _bound(self, value: Any, nouns: Nouns, name: str | None) -> Any:
        match value:
            case bool():
                return value
            case str() | int():
                text = str(value)
                if not text.isdigit():
                    return substitute(text, self.refs) if isinstance(value, str) else value
                named = _NAMES_AN_ID.fullmatch(name or "")
                if named is None:
                    return value
                ref = self._number(text, _nouns(named[1] or named[2] or "") or nouns)
                return value if ref is None else ref
            case dict():
                return {key: self._bound(item, nouns, str(key)) for key, item in value.items()}
            case list():
                return [self._bound(item, nouns, name) for item in value]
            case _:
                return value

    def _number(self, number: str, nouns: Nouns) -> str | None:
        for counted, ref in self._numbers.get(number, ()):
            if counted & nouns or not (counted or nouns):
                return ref
        return None

    def _numbered(self, match: re.Match[str], text: str, kept: set[str]) -> str:
        number, noun = match[1], _labelled(text, match)
        ref = None if noun is None or number in kept else self._number(number, _nouns(noun))
        return match[0] if ref is None else match[0][: -len(number)] + ref


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    """Replace whole words in a text, all at once."""
    present = [old for old in replacements if old in text]
    if not present:
        return text
    words = "|".join(re.escape(old) for old in sorted(present, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{words})(?![\w-])", lambda match: replacements[match[0]], text)


def _renumbered(match: re.Match[str], replacements: Mapping[str, str]) -> str:
    number = match[1]
    return match[0][: -len(number)] + replacements.get(number, number)


def _nouns(name: str) -> Nouns:
    """Return the words of a name that are no verbs, in the singular."""
    return frozenset(word.removesuffix("s") for word in words_of(name) - READING - CHANGING)


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case int() | float():
            yield str(value)
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
