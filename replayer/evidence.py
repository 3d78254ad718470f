"""What the recordings of one call say together: an answer, and how far they agree on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from replayer.state import START, Place


class Row(NamedTuple):
    """One recorded answer to a call: where it stood, and what it was."""

    exchange: int
    conversation: int
    group: int
    world: int
    prefix: int
    related: int
    history: int
    output: int
    """Hash of the answer's text under the fixed mask."""
    loose: int
    """The same without what was learned to be volatile: agreement is judged by it."""


LEVELS = (
    "same history",
    "same state",
    "same server history",
    "same server state",
    "same related",
    "earlier state",
    "like history",
    "like state",
    "like server history",
    "like server state",
    "like related",
    "same group",
    "any",
)
"""How near a recording stands to the call, nearest first.

`same`: of the call's own group. `like`: of another group, or the call's is unknown. `state`: the world-
changing calls before it are equal, to whichever server. `history`: so are all calls to its server. `server`:
only calls to its own server are looked at. `related`: those world-changing ones are equal that name something
it names. `earlier state`: as before one of the conversation's last world-changing calls.
"""

SAME_STATE = frozenset({"same history", "same state"})
UNRELATED = frozenset({"earlier state", "same group", "any"})
OWN_GROUP = frozenset(level for level in LEVELS if level.startswith(("same", "earlier")))


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that the nearest recordings give, with what speaks for and against it."""

    exchange: int
    conversation: int
    output: int
    loose: int
    tier: str
    level: str
    agree: int
    """Recordings of this level that give this answer: sessions, or groups where the call's is unknown; from 1
    to 3, where 3 means more, too."""
    conflict: int
    """0: no recording of this level says otherwise, 1: less than a quarter do, 2: more."""
    wide: int
    """The same over all recordings of the call, of whatever level."""
    stale: bool = False
    """Whether the conversation has made related world-changing calls that the recorded one had not."""
    literal: bool = False
    """Whether the ids it names are the very same ones, and not those of another run that stand for them."""
    score: float = 1.0
    """How alike the recorded call is, in [0, 1]; scores of different tiers do not compare."""


def weigh(rows: Iterable[Row], place: Place, tier: str, *, known: bool) -> Candidate | None:
    """Return the answer that most recordings of the nearest level give; the earliest of several that tie.

    Args:
        known: Whether the call's group is recorded. Where it is not, each group counts once however many
            sessions it has: their start state is one piece of evidence.
    """
    rows = list(rows)
    if not rows:
        return None
    if len(rows) == 1:
        row = rows[0]
        level = LEVELS[_level(row, place, known)]
        stale = level in UNRELATED and place.related != START
        return Candidate(row[0], row[1], row[7], row[8], tier, level, 1, 0, 0, stale)
    levels = [_level(row, place, known) for row in rows]
    best = min(levels)
    nearest = [row for row, level in zip(rows, levels, strict=True) if level == best]
    if LEVELS[best] == "earlier state":
        latest = min(place.earlier.index(row.prefix) for row in nearest)
        nearest = [row for row in nearest if row.prefix == place.earlier[latest]]
    votes, all_votes = _votes(nearest, known), _votes(rows, known)
    if len(votes) == 1:
        chosen = min(nearest)
    else:
        first = {row[_LOOSE]: row for row in sorted(nearest, reverse=True)}
        chosen = first[min(votes, key=lambda answer: (-votes[answer], first[answer]))]
    return Candidate(
        chosen.exchange,
        chosen.conversation,
        chosen.output,
        chosen.loose,
        tier,
        LEVELS[best],
        min(votes[chosen.loose], 3),
        _conflict(votes, chosen.loose),
        _conflict(all_votes, chosen.loose),
        LEVELS[best] in UNRELATED and place.related != START,
    )


def _level(row: Row, place: Place, known: bool) -> int:
    _, _, group, world, prefix, related, history, _, _ = row
    same = known and group == place.group
    if world == place.world:
        level = 0 if history == place.history else 1
    elif history == place.history:
        level = 2
    elif prefix == place.prefix:
        level = 3
    elif related == place.related:
        level = 4
    elif same:
        return 5 if prefix in place.earlier else 11
    else:
        return 12
    return level if same else level + 6


_CONVERSATION, _GROUP, _LOOSE = (Row._fields.index(name) for name in ("conversation", "group", "loose"))


def _votes(rows: list[Row], known: bool) -> Counter[int]:
    """Return how many sessions, or groups, give each answer; by position, since this runs for each call."""
    voter = _CONVERSATION if known else _GROUP
    return Counter([answer for answer, _ in {(row[_LOOSE], row[voter]) for row in rows}])


def _conflict(votes: Counter[int], answer: int) -> int:
    against = sum(votes.values()) - votes[answer]
    return 0 if not against else 1 if votes[answer] > 3 * against else 2
