"""Edges that were seen: a value of an output that was given as an argument afterwards.

Values are followed through all sessions of one walk, that is of one group and run; a session without a run is
a walk of its own. A value that was an argument before it stood in an output is no news of that output, which
may only echo it. Every output that brought a value as news counts as its source.

Some flows may be chance, or were a wrong guess: a plain word within prose, a value out of an error, an
argument of a call that failed. These are kept, too, but do not make an edge one to be walked along.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from recorder.exchange import Json, ToolRef
from recorder.explore.graph import Edge
from recorder.explore.outputs import Leaf, Path, keyed_leaves, leaves, output_of, path_text
from recorder.store import Answered, Conversation, Store

SHORTEST, LONGEST = 4, 120
"""Characters of a value that is followed: shorter ones recur by chance, longer ones are contents."""

MOST_VALUES = 100_000
"""Remembered of one walk; beyond, the oldest are forgotten."""

MOST_SOURCES = 6
"""Tools that are remembered to have brought the same value."""

MOST_WORDS = 2_000
"""Of one text that are remembered one by one."""

MOST_ITEMS = 1_000
"""Of one list. More than `outputs` looks at for shapes: the item that is taken may be any."""

RECENT_CHARACTERS, RECENT_OF_ONE = 100_000, 20_000
"""Of the latest outputs, in which phrases are looked for that no word or line shows."""

MOST_EDGES = 200_000
"""Beyond, those seen once are forgotten: outputs that have values for names have ever new paths."""

Place = tuple[ToolRef, Path]


class Flow(NamedTuple):
    producer: ToolRef
    output: str
    consumer: ToolRef
    parameter: str


class _Call(NamedTuple):
    tool: ToolRef
    arguments: Json
    output: Json
    failed: bool


class _Source(NamedTuple):
    place: Place
    rank: int
    """`WHOLE`, `WITHIN` or `DOUBTFUL`."""


WHOLE, WITHIN, DOUBTFUL = 2, 1, 0
"""The value is all that stands there; it stands within a text, and looks like a value; it may be chance."""


def observed_edges(store: Store) -> list[Edge]:
    """Return the edges along which a value was seen to flow, in one pass over the recording.

    A tool that feeds itself is among them. Edges come by producer, output, consumer and parameter.
    """
    counts = _Counts()
    for walk in _walks(store):
        watcher = _Watcher(counts)
        for call in _calls(store, walk):
            watcher.watch(call)
    return counts.edges()


def confidence_of(sure: int, doubtful: int) -> float:
    """Return how far an edge is trusted that was seen so often: confident from the second time on."""
    if sure >= 2:
        return round(1 - 0.4 / sure, 3)
    return 0.55 if sure else (0.4 if doubtful > 1 else 0.3)


class _Counts:
    """How often each flow was seen, surely and doubtfully."""

    def __init__(self) -> None:
        self._counts: dict[Flow, list[int]] = {}

    def add(self, flow: Flow, sure: bool) -> None:
        count = self._counts.get(flow)
        if count is None:
            if len(self._counts) >= MOST_EDGES:
                self._forget_single()
            count = self._counts[flow] = [0, 0]
        count[0 if sure else 1] += 1

    def edges(self) -> list[Edge]:
        return [
            Edge(
                producer=flow.producer,
                output=flow.output,
                consumer=flow.consumer,
                parameter=flow.parameter,
                evidence="observed",
                confidence=confidence_of(sure, doubtful),
                seen=sure + doubtful,
            )
            for flow, (sure, doubtful) in sorted(self._counts.items())
        ]

    def _forget_single(self) -> None:
        kept = {flow: count for flow, count in self._counts.items() if sum(count) > 1}
        # Where nearly all were seen twice, forgetting would begin again with each new one.
        if len(kept) > 0.9 * MOST_EDGES:
            often = heapq.nlargest(MOST_EDGES // 2, kept.items(), key=lambda item: sum(item[1]))
            kept = dict(often)
        self._counts = kept


class _Watcher:
    """Follows the values of one walk."""

    def __init__(self, counts: _Counts) -> None:
        self._counts = counts
        self._sources: OrderedDict[str, tuple[_Source, ...]] = OrderedDict()
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._recent: deque[tuple[ToolRef, list[Leaf], str, bool]] = deque()
        self._recent_size = 0

    def watch(self, call: _Call) -> None:
        given = [(leaf.path, value) for leaf in leaves(call.arguments) if (value := identifying(leaf.value))]
        for path, value in given:
            for source in self._origins(value):
                tool, output = source.place
                flow = Flow(tool, path_text(output), call.tool, parameter_text(path))
                self._counts.add(flow, source.rank > DOUBTFUL and not call.failed)
        for _, value in given:
            self._asked[value] = None
        self._remember(call)
        while len(self._asked) > MOST_VALUES:
            self._asked.popitem(last=False)
        while len(self._sources) > MOST_VALUES:
            self._sources.popitem(last=False)

    def _origins(self, value: str) -> Iterable[_Source]:
        if found := self._sources.get(value):
            return found
        if value in self._asked:
            return ()
        # A path is often put together from a folder and a name that was listed in it.
        head, slash, tail = value.rstrip("/").rpartition("/")
        if slash and head and "://" not in head and (found := self._sources.get(tail)):
            return found
        return self._within_recent(value)

    def _within_recent(self, value: str) -> list[_Source]:
        found = []
        for tool, its_leaves, text, _ in self._recent:
            if value in text:
                path = next((leaf.path for leaf in its_leaves if value in str(leaf.value)), ())
                found.append(_Source((tool, path), DOUBTFUL))
        return found[:MOST_SOURCES]

    def _remember(self, call: _Call) -> None:
        its_leaves = list(keyed_leaves(call.output, MOST_ITEMS))
        text = "\n".join(leaf.value for leaf in its_leaves if isinstance(leaf.value, str))[:RECENT_OF_ONE]
        for leaf in its_leaves:
            place = (call.tool, leaf.path)
            for value, rank in _values_in(leaf.value):
                self._add_source(value, _Source(place, DOUBTFUL if call.failed else rank))
        if text:
            self._recent.append((call.tool, its_leaves, text, call.failed))
            self._recent_size += len(text)
            while self._recent_size > RECENT_CHARACTERS:
                self._recent_size -= len(self._recent.popleft()[2])

    def _add_source(self, value: str, source: _Source) -> None:
        if value in self._asked:
            return
        known = self._sources.get(value, ())
        for number, other in enumerate(known):
            if other.place[0] == source.place[0]:
                if source.rank > other.rank:
                    self._sources[value] = (*known[:number], source, *known[number + 1 :])
                return
        if len(known) < MOST_SOURCES:
            self._sources[value] = (*known, source)


def identifying(value: str | int | float) -> str | None:
    """Return a value as it is compared, if it can say which of many something is, else `None`.

    A number and its digits are the same. Small numbers, rounded ones and truth values occur everywhere.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip()
        return value if SHORTEST <= len(value) <= LONGEST else None
    text = str(value)
    if isinstance(value, int):
        return text if abs(value) >= 1000 else None
    return text if len(text.partition(".")[2]) >= 3 and "e" not in text else None


def parameter_text(path: Path) -> str:
    """Write where a parameter stands in the arguments: `("ids", "*")` is `ids[*]`."""
    text = path_text(path)
    return text[2:] if text.startswith("$.") else text[1:]


_COMMON = re.compile(r"-?(?:[1-9]0*|19\d\d|20\d\d|\d{1,3}|\d+\.\d{0,2})|true|false|null|none", re.IGNORECASE)
"""Round numbers, years, and what other values are called everywhere: they meet by chance."""

_SEPARATORS = re.compile(r"[\s\"'`<>()\[\]{}|,;]+")
_LINE_START = re.compile(r"^\s*(?:[-*•+>]+\s+|\[[^\]]{1,12}\]\s*|\d+[.)]\s+)?")
_QUOTED = re.compile(r"[\"'`]([^\"'`\n]{4,120})[\"'`]")
_TELLING = re.compile(r"\d|\w[/._@#:\\-]\w|^[/~.]|[a-z][A-Z]|^[A-Z]{2,}")
"""In a word that names something even within prose: a digit, several words joined, or capitals."""


def _values_in(value: str | int | float) -> Iterator[tuple[str, int]]:
    """Yield what a leaf may bring, with its rank."""
    if whole := identifying(value):
        yield whole, DOUBTFUL if _COMMON.fullmatch(whole) else WHOLE
    if not isinstance(value, str) or not re.search(r"\W", value):
        return
    for match in _QUOTED.finditer(value):
        if within := identifying(match[1]):
            yield within, WITHIN
    count = 0
    for line in value.splitlines():
        bare = _LINE_START.sub("", line, count=1).strip()
        if bare != value and (within := identifying(bare)):
            yield within, WITHIN
        for word in _SEPARATORS.split(line):
            for form in {word.strip(".,:;!?*="), word.partition("=")[2]}:
                if within := identifying(form):
                    count += 1
                    telling = _TELLING.search(within) and not _COMMON.fullmatch(within)
                    yield within, WITHIN if telling else DOUBTFUL
        if count > MOST_WORDS:
            return


def _walks(store: Store) -> Iterator[list[Conversation]]:
    """Yield the conversations that belong together."""
    runs = {session.id: session.run for session in store.sessions()}
    walks: dict[tuple[str, str | None], list[Conversation]] = {}
    for conversation in store.conversations():
        run = runs.get(conversation.session_id)
        key = (conversation.session_id, None) if run is None else (conversation.group, run)
        walks.setdefault(key, []).append(conversation)
    yield from walks.values()


def _calls(store: Store, walk: list[Conversation]) -> Iterator[_Call]:
    """Yield a walk's answered tool calls in the order in which they were asked."""
    parts = [_part(store, conversation) for conversation in walk]
    for _, server, answered in heapq.merge(*parts, key=lambda part: part[0]):
        call = _call(server, answered)
        if call is not None:
            yield call


def _part(store: Store, conversation: Conversation) -> Iterator[tuple[int, str, Answered]]:
    for answered in store.answered(conversation.number):
        if answered.method == "tools/call" and answered.outcome != "rpc_error":
            yield answered.exchange_id, conversation.server, answered


def _call(server: str, answered: Answered) -> _Call | None:
    params = json.loads(answered.request).get("params")
    if not isinstance(params, dict) or not isinstance(params.get("name"), str):
        return None
    result = json.loads(answered.reply).get("result")
    failed = answered.outcome != "result"
    return _Call(ToolRef(server, params["name"]), params.get("arguments"), output_of(result), failed)
