"""Which reply answers which request, in one conversation with one server."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from recorder.frame import REVERSE, Direction

_Key = tuple[Direction, type, object]


@dataclass(slots=True, eq=False)
class Pending:
    """A request that waits for its reply."""

    request_id: object
    frame_id: int
    direction: Direction
    method: str
    name: str | None
    started_at: float
    cursor: object = None
    """Where a list request asked to go on; `None` for its first page."""
    cancelled: bool = False

    @property
    def answerable(self) -> bool:
        """Whether its sender still counts on a reply; a subscription's comes only when it ends."""
        return not self.cancelled and self.request_id is not None and self.method != "subscriptions/listen"


class Pairer:
    """Remembers open requests of both directions by id.

    Ids are compared as JSON: `7` and `"7"` are different ids, `7` and `7.0` are one, and each direction
    has ids of its own. Of two open requests with one id, the first that was not cancelled is answered. A
    `null` id pairs with nothing.
    """

    def __init__(self) -> None:
        self._open: defaultdict[_Key, deque[Pending]] = defaultdict(deque)

    def open(self, pending: Pending) -> None:
        # A null id gets a key that no reply can have.
        request_id = (pending.frame_id,) if pending.request_id is None else pending.request_id
        self._open[_key(pending.direction, request_id)].append(pending)

    def close(self, direction: Direction, reply_id: object) -> Pending | None:
        """Return the request that a reply travelling in `direction` answers, and forget it."""
        key = _key(REVERSE[direction], reply_id)
        waiting = self._open.get(key)
        if not waiting:
            return None
        pending = next((pending for pending in waiting if not pending.cancelled), waiting[0])
        waiting.remove(pending)
        if not waiting:
            del self._open[key]
        return pending

    def cancel(self, direction: Direction, request_id: object) -> None:
        """Mark the request that its sender no longer wants. A reply may still come, and counts."""
        for pending in self._open.get(_key(direction, request_id), ()):
            pending.cancelled = True

    def __iter__(self) -> Iterator[Pending]:
        """The requests still open."""
        for waiting in self._open.values():
            yield from waiting


def _key(direction: Direction, request_id: object) -> _Key:
    kind = type(request_id)
    if kind is int or kind is float:
        return direction, float, request_id
    if kind is dict or kind is list:
        return direction, kind, json.dumps(request_id)
    return direction, kind, request_id
