"""Where a conversation stands: what it has asked so far, as far as that can matter to the next answer.

The same code walks recorded sessions when they are learned and a rollout when it is replayed, so that the
two can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from zlib import crc32

from replayer.keys import chain64, hash64

MOST_EARLIER = 4
"""Earlier states of a conversation that are looked into when its present one was never recorded."""

START = 0
"""The state and the history of a conversation that has asked nothing."""


class Place:
    """Where one call stands in its conversation with one server, before it is answered.

    Args:
        group: The task and start state; `UNKNOWN` where nobody said.
        world: Of the world-changing calls before it, to whichever server. With the group this is the state.
        prefix: Of those to the same server: one replayed alone knows of no others.
        earlier: Prefixes before the last world-changing calls, latest first; at most `MOST_EARLIER`.
        related: Of the world-changing calls before it that name something it names; of all, if it names
            nothing. It may be given as what finds it out: few answers need it, and it takes the longest.
        history: Of all calls before it, and itself.
    """

    __slots__ = ("_related", "earlier", "group", "history", "prefix", "world")

    def __init__(
        self,
        group: int,
        world: int,
        prefix: int,
        earlier: tuple[int, ...],
        related: int | Callable[[], int],
        history: int,
    ) -> None:
        self.group, self.world, self.prefix, self.earlier = group, world, prefix, earlier
        self._related, self.history = related, history

    @property
    def related(self) -> int:
        if not isinstance(self._related, int):
            self._related = self._related()
        return self._related

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        return f"Place{self._fields()}"

    def _fields(self) -> tuple[object, ...]:
        return (self.group, self.world, self.prefix, self.earlier, self.related, self.history)


UNKNOWN = 0
"""The group of a conversation whose start state nobody named."""


def group_id(group: str | None) -> int:
    """Return a group's number, or `UNKNOWN` for none."""
    return UNKNOWN if group is None else (hash64(group) or 1)


@dataclass(slots=True)
class Shared:
    """What a conversation's parts with several servers have in common."""

    world: int = START


@dataclass(slots=True)
class World:
    """One conversation's state with one server.

    Args:
        group: As `group_id` numbers it.
        shared: With the other servers' parts of the conversation.
    """

    group: int
    shared: Shared = field(default_factory=Shared)
    _prefixes: list[int] = field(default_factory=lambda: [START])
    _history: int = START
    _asked: dict[int, int] = field(default_factory=dict)
    _writers: dict[int, list[int]] = field(default_factory=dict)
    """What is named → the world-changing calls that named it, by number, earliest first."""
    _writes: list[int] = field(default_factory=list)
    _far_reaching: list[int] = field(default_factory=list)
    """Those that named nothing, by number: they may concern everything."""

    def place(self, key: int, values: Sequence[int] | Callable[[], Sequence[int]]) -> Place:
        """Return where a tool call stands. Its `related` is to be asked for before the conversation moves on.

        Args:
            values: What it names, as `names_in` numbers it; nothing, if it may concern everything. Or what
                finds it out.
        """
        prefixes = self._prefixes
        return Place(
            self.group,
            self.shared.world,
            prefixes[-1],
            tuple(prefixes[-2 : -2 - MOST_EARLIER : -1]),
            lambda: self._related(values() if callable(values) else values),
            chain64(self._history, key),
        )

    def _related(self, values: Sequence[int]) -> int:
        if not values:
            return self._prefixes[-1]
        numbers = {number for value in values for number in self._writers.get(value, ())}
        if not numbers and not self._far_reaching:
            return START
        ordered = sorted(numbers.union(self._far_reaching))
        return chain64(START, *(self._writes[number] for number in ordered))

    def place_of_other(self, key: int) -> Place:
        """Return where a request stands that is no tool call; equal ones are told apart by their number."""
        prefixes, turn = self._prefixes, self._asked.get(key, 0)
        earlier = tuple(prefixes[-2 : -2 - MOST_EARLIER : -1])
        history = chain64(self._history, key, turn)
        return Place(self.group, self.shared.world, prefixes[-1], earlier, START, history)

    def note(self, key: int, values: Sequence[int], *, changes: bool, told: Sequence[int] = ()) -> None:
        """Move on: a tool call was made, and it changed the world or did not.

        Args:
            told: What its answer names, an id of the server's making perhaps.
        """
        self._history = chain64(self._history, key)
        if changes:
            self.shared.world = chain64(self.shared.world, key)
            self._prefixes.append(chain64(self._prefixes[-1], key))
            for value in dict.fromkeys([*values, *told]):
                self._writers.setdefault(value, []).append(len(self._writes))
            if not values:
                self._far_reaching.append(len(self._writes))
            self._writes.append(key)

    def note_other(self, key: int) -> None:
        """Note that a request was made that is no tool call: it does not move the conversation on."""
        self._asked[key] = self._asked.get(key, 0) + 1


def names_in(arguments: object) -> list[int]:
    """Number what a JSON value names: numbers, and the words of texts, as paths and lists split them.

    Equal numbers may be different names, one time in some billions: then two calls count as related that
    are not.
    """
    words: dict[str, None] = {}
    for text in sorted(_texts(arguments), key=len):
        if len(words) >= MOST_WORDS:
            break
        text = text[:MOST_CHARACTERS].casefold()
        words |= dict.fromkeys(part.strip("*.:-!'") for part in _BREAK.split(text))
    words.pop("", None)
    return [crc32(word.encode("utf-8", "surrogatepass")) for word in words]


MOST_WORDS, MOST_CHARACTERS = 64, 1024
"""Words that are looked at, and characters of one text, the shortest texts first: names are short."""

_BREAK = re.compile(r"[\s/\\,;(){}\[\]\"=<>|]+")


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case bool():
            return
        case int() | float():
            yield str(value)
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
