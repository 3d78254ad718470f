"""Ids that a server made up during a conversation, and what stands for them in another one.

`create` answers with an id of its own making; another run of the same conversation gets another id. Both are
named here by where they came from: the call that was answered with it, which repetition of that call, and
which of the ids in the answer. So a call that names one is the same call in both runs, and an answer of one
run can be told with the ids of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_ID = re.compile(
    r"(?<![\w-])(?:"
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"  # a UUID
    r"|[A-Za-z]{1,16}[-_]\d+"  # task-12
    r"|(?=[A-Za-z0-9_]*\d)(?=[A-Za-z0-9_]*[A-Za-z])[A-Za-z0-9_]{8,64}"  # letters and digits, mixed
    r")(?![\w-])"
    r"|(?i:(?<![a-z])id\"?\s{0,2}[:=]?\s{0,2}\"?#?)(\d{1,18})(?![\w.-])"  # "id": 17
)
_OPAQUE = re.compile(r"(?=.*\d[A-Za-z])(?=.*[A-Za-z]\d)[A-Za-z0-9_]{8,64}")
MOST_IDS = 50
"""Ids of one answer that are followed: an answer with more is a listing."""

MOST_HEARD, MOST_HEARD_CHARACTERS = 64, 65536
"""Earlier answers, and how much of each, that are searched for an id before it counts as new."""


def may_mint(text: str) -> bool:
    """Whether an answer holds anything shaped like an id."""
    return _ID.search(text) is not None


class Lineage:
    """The minted ids of one conversation with one server."""

    def __init__(self) -> None:
        self.refs: dict[str, str] = {}
        """Id → what stands for it in every run."""
        self.ids: dict[str, str] = {}
        """The reverse."""
        self._named: set[str] = set()
        self._heard: list[str] = []
        self._turns: dict[int, int] = {}

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments with minted ids replaced; the same object if there is none."""
        if not self.refs:
            return arguments
        bound = _replaced(arguments, self.refs)
        return bound if bound != arguments else arguments

    def bind_text(self, text: str) -> str:
        """Return an answer's text with each minted id replaced."""
        return substitute(text, self.refs) if self.refs else text

    def bind_answer(self, text: str, new: Mapping[str, str]) -> str:
        """Return the text of an answer that minted `new` as it is compared with another run's.

        Ids that look random are replaced too, since another run gets others; counted ones (`17`, `task-12`)
        stay, since the same state counts them the same.
        """
        opaque = {made: ref for made, ref in new.items() if _OPAQUE.fullmatch(made)}
        others = {made: ref for made, ref in self.refs.items() if made not in new}
        return substitute(text, others | opaque) if others or opaque else text

    def hear(self, arguments: Mapping[str, Any], text: str) -> None:
        """Take note of a call and its answer: ids in either are nobody's making later on."""
        self._named.update(_texts(arguments))
        if len(self._heard) < MOST_HEARD:
            self._heard.append(text[:MOST_HEARD_CHARACTERS])

    def mint(self, key: int, arguments: Mapping[str, Any], text: str) -> dict[str, str]:
        """Return the ids that the answer to a world-changing call brings, and what stands for each.

        Args:
            key: The call's, minted ids in its arguments replaced.
        """
        turn = self._turns.get(key, 0)
        self._turns[key] = turn + 1
        self._named.update(_texts(arguments))
        new: dict[str, str] = {}
        for ordinal, made in enumerate(dict.fromkeys(_ids(text))):
            if ordinal == MOST_IDS:
                break
            if made not in self.refs and not self._known(made):
                new[made] = f"«{key & 0xFFFFFFFFFFFFFFFF:x}.{turn}.{ordinal}»"
        for made, ref in new.items():
            self.refs[made], self.ids[ref] = ref, made
        return new

    def _known(self, made: str) -> bool:
        if made.isdigit():
            return made in self._named
        return any(made in text for text in self._named) or any(made in text for text in self._heard)


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    """Replace whole ids in a text, all at once; bare numbers only where they stand as an id."""
    if not any(old in text for old in replacements):
        return text
    words = [re.escape(old) for old in sorted(replacements, key=len, reverse=True) if not old.isdigit()]
    if words:
        pattern = rf"(?<![\w-])(?:{'|'.join(words)})(?![\w-])"
        text = re.sub(pattern, lambda match: replacements[match[0]], text)
    if any(old.isdigit() for old in replacements):
        text = _ID.sub(lambda match: _numbered(match, replacements), text)
    return text


def _numbered(match: re.Match[str], replacements: Mapping[str, str]) -> str:
    number = match[1]
    if number is None or number not in replacements:
        return match[0]
    return match[0][: len(match[0]) - len(number)] + replacements[number]


def _ids(text: str) -> Iterator[str]:
    for match in _ID.finditer(text):
        yield match[1] or match[0]


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


def _replaced(value: Any, replacements: Mapping[str, str], name: str = "") -> Any:
    match value:
        case str():
            if value.isdigit():
                return replacements.get(value, value) if _names_an_id(name) else value
            words = {old: new for old, new in replacements.items() if not old.isdigit()}
            return substitute(value, words) if words else value
        case bool():
            return value
        case int():
            return replacements.get(str(value), value) if _names_an_id(name) else value
        case dict():
            return {key: _replaced(item, replacements, str(key)) for key, item in value.items()}
        case list():
            return [_replaced(item, replacements, name) for item in value]
        case _:
            return value


def _names_an_id(name: str) -> bool:
    return name.rstrip("s").lower().endswith("id")
