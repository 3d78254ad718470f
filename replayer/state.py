"""Where a conversation stands: what it has asked so far, as far as that can matter to the next answer.

The same code walks recorded sessions when they are learned and a rollout when it is replayed, so that the
two can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from replayer.keys import chain64, hash64

MOST_EARLIER = 4
"""Earlier states of a conversation that are looked into when its present one was never recorded."""

START = 0
"""The state and the history of a conversation that has asked nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one call stands in its conversation with one server, before it is answered."""

    group: int
    """The task and start state; `UNKNOWN` where nobody said."""
    world: int
    """Of the world-changing calls before it to whichever server, in order. With the group this is the state."""
    prefix: int
    """Of those to the same server: one replayed alone knows of no others."""
    earlier: tuple[int, ...]
    """Prefixes before the last world-changing calls, latest first; at most `MOST_EARLIER`."""
    related: int
    """Of the world-changing calls before it that share an argument value with it; of all, if it has none."""
    history: int
    """Of all calls before it, and itself."""


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
    """Argument value → the world-changing calls that named it, by number, earliest first."""
    _writes: list[int] = field(default_factory=list)

    def place(self, key: int, values: Sequence[int]) -> Place:
        """Return where a tool call stands.

        Args:
            values: Its argument values, as `argument_values` numbers them.
        """
        prefixes = self._prefixes
        if values:
            numbers = sorted({number for value in values for number in self._writers.get(value, ())})
            related = chain64(START, *(self._writes[number] for number in numbers)) if numbers else START
        else:
            related = prefixes[-1]
        return Place(
            self.group,
            self.shared.world,
            prefixes[-1],
            tuple(prefixes[-2 : -2 - MOST_EARLIER : -1]),
            related,
            chain64(self._history, key),
        )

    def place_of_other(self, key: int) -> Place:
        """Return where a request stands that is no tool call; equal ones are told apart by their number."""
        prefixes, turn = self._prefixes, self._asked.get(key, 0)
        earlier = tuple(prefixes[-2 : -2 - MOST_EARLIER : -1])
        history = chain64(self._history, key, turn)
        return Place(self.group, self.shared.world, prefixes[-1], earlier, START, history)

    def note(self, key: int, values: Sequence[int], *, changes: bool) -> None:
        """Move on: a tool call was made, and it changed the world or did not."""
        self._history = chain64(self._history, key)
        if changes:
            self.shared.world = chain64(self.shared.world, key)
            self._prefixes.append(chain64(self._prefixes[-1], key))
            for value in values:
                self._writers.setdefault(value, []).append(len(self._writes))
            self._writes.append(key)

    def note_other(self, key: int) -> None:
        """Note that a request was made that is no tool call: it does not move the conversation on."""
        self._asked[key] = self._asked.get(key, 0) + 1


def argument_values(arguments: object) -> list[int]:
    """Number the scalar values in a call's arguments that may name something: texts, and numbers from 100.

    Smaller numbers and one-letter texts are counts, pages and flags more often than names.
    """
    return [hash64(text) for text in dict.fromkeys(_names(arguments))]


def _names(value: object) -> Iterator[str]:
    match value:
        case bool():
            return
        case str():
            if len(value) > 1:
                yield value
        case int() | float():
            if abs(value) >= 100:
                yield str(value)
        case dict():
            for item in value.values():
                yield from _names(item)
        case list():
            for item in value:
                yield from _names(item)
