"""Edges between names that mean the same, by embedding: what a tool returns, and what another asks for.

Both sides are texts: the qualified name (`task id`) with its description. What a tool returns is known from
its output schema and from outputs that were seen, else only from what its own name and description say. Each
distinct text is embedded once. Cosines are taken some rows at a time and only a parameter's nearest are kept,
so that memory grows with the texts and not with their pairs.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING

from recorder.embedder import Embedder
from recorder.explore.graph import CONFIDENT, Edge
from recorder.explore.names import EVERY, qualified, subject_of, words_in
from recorder.explore.observed import parameter_text
from recorder.explore.outputs import Path, path_text
from recorder.explore.parameters import Schema, as_schema, input_schema, type_of, walk
from recorder.explore.shapes import CONTROLS, Shapes
from recorder.explore.terms import term_of
from recorder.tool import ToolSpec

if TYPE_CHECKING:
    # numpy comes with the extra `semantic`: without it these are unknown types, and nothing runs.
    from numpy import float32  # type: ignore[import-not-found, unused-ignore]
    from numpy.typing import NDArray  # type: ignore[import-not-found, unused-ignore]

LEAST_COSINE = 0.85
"""From which EnvFactory joins two parameters. Confidence falls from `SUREST` at a cosine of 1 to `CONFIDENT`
here, and on below it."""

SUREST = 0.8
"""Of an embedding alone: names that are the same words are the schema tier's business."""

LEAST = 0.3
"""Confidence of an edge that is worth keeping."""

PROMISED = 0.75
"""How sure it is that a tool returns what its description talks about, beside a field that is declared."""

ECHOED = 0.75
"""The same for a field that goes by the name of a parameter of the tool: it may return what it was given."""

FOREIGN_ID = 0.6
"""How well an id serves another server than its own, however alike the names are."""

MOST_WITHIN, MOST_ACROSS = 8, 8
"""Edges of one parameter, from tools of its own server and from others'."""

MOST_NEAR = 64
"""Texts that are looked at for one parameter."""

MOST_OF_A_TEXT = 40
"""Fields with the same text that are looked at for one parameter, from other servers."""

MOST_CHARACTERS = 300
"""Of a description: models read some hundred words, and the first say what it is."""

CHUNK_VALUES = 1 << 24
"""Cosines that are held at once (64 MB)."""

TEXTS_AT_ONCE = 512

Progress = Callable[[int, int], None]
"""Told how many of how many texts are embedded."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A value that a tool returns or asks for."""

    tool: int
    path: Path
    words: tuple[str, ...]
    text: str
    is_id: bool
    sure: float = 1.0


def semantic_edges(
    tools: Sequence[ToolSpec],
    embedder: Embedder,
    *,
    shapes: Shapes | None = None,
    least_cosine: float = LEAST_COSINE,
    progress: Progress | None = None,
) -> list[Edge]:
    """Return the edges that an embedding suggests, by producer, output and consumer.

    Args:
        tools: One version of each.
        shapes: What was seen of their outputs.
        least_cosine: In (0, 1]; lower makes more edges, which a judge may look at.
    """
    if not 0 < least_cosine <= 1:
        raise ValueError(f"least_cosine must be in (0, 1], got {least_cosine}")
    given: list[_Field] = []
    asked: list[_Field] = []
    for number, tool in enumerate(tools):
        parameters = list(_parameters(number, tool))
        asked += [field for field in parameters if not _is_control(field)]
        names = {field.words for field in parameters}
        given += _outputs(number, tool, names, [seen.path for seen in (shapes or {}).get(tool.ref, ())])
    if not given or not asked:
        return []
    given_texts, asked_texts = _distinct(given), _distinct(asked)
    vectors = _vectors(list(dict.fromkeys([*given_texts, *asked_texts])), embedder, progress)
    places = {text: place for place, text in enumerate(dict.fromkeys([*given_texts, *asked_texts]))}
    near = _nearest(
        vectors[[places[text] for text in asked_texts]],
        vectors[[places[text] for text in given_texts]],
        least_cosine,
    )
    found = _Expansion(tools, given)
    edges: list[Edge] = []
    asking = defaultdict(list)
    for field in asked:
        asking[field.text].append(field)
    for text, similar in zip(asked_texts, near, strict=True):
        matches = [(given_texts[place], cosine) for place, cosine in similar]
        if matches:
            for parameter in asking[text]:
                edges += found.edges(parameter, matches)
    return sorted(edges, key=lambda edge: (edge.producer, edge.output, edge.consumer, edge.parameter))


class _Expansion:
    """Turns texts that are alike into edges between the fields that have them."""

    def __init__(self, tools: Sequence[ToolSpec], given: Sequence[_Field]) -> None:
        self._tools = tools
        self._fields: dict[str, list[_Field]] = defaultdict(list)
        self._own: dict[tuple[str, str], list[_Field]] = defaultdict(list)
        for field in given:
            self._fields[field.text].append(field)
            self._own[field.text, tools[field.tool].server].append(field)

    def edges(self, parameter: _Field, matches: Sequence[tuple[str, float]]) -> Iterator[Edge]:
        within = (
            _Scored(confidence, _tie(field, parameter), field)
            for text, cosine in matches
            for field in self._own.get((text, self._tools[parameter.tool].server), ())
            if field.tool != parameter.tool
            if (confidence := _confidence(cosine, field)) >= LEAST
        )
        across = (
            _Scored(confidence, _tie(field, parameter), field)
            for text, cosine in matches
            for field in self._foreign(text, parameter)
            if (confidence := _confidence(cosine, field) * (FOREIGN_ID if field.is_id else 1)) >= LEAST
        )
        best: dict[tuple[int, Path], _Scored] = {}
        for each in [
            *nlargest(MOST_WITHIN, within, key=_Scored.key),
            *nlargest(MOST_ACROSS, across, key=_Scored.key),
        ]:
            # Found surest first within its kind, so the first of a place is its best.
            best.setdefault((each.field.tool, each.field.path), each)
        for each in best.values():
            yield Edge(
                producer=self._tools[each.field.tool].ref,
                output=path_text(each.field.path),
                consumer=self._tools[parameter.tool].ref,
                parameter=parameter_text(parameter.path),
                evidence="semantic",
                confidence=round(each.confidence, 3),
            )

    def _foreign(self, text: str, parameter: _Field) -> Iterator[_Field]:
        """Yield some of the fields of other servers with a text; not always the same ones of many."""
        fields, server = self._fields[text], self._tools[parameter.tool].server
        start, count = zlib.crc32(f"{server} {parameter.text}".encode()) % len(fields), 0
        for field in (*fields[start:], *fields[:start]):
            if self._tools[field.tool].server != server:
                yield field
                count += 1
                if count >= MOST_OF_A_TEXT:
                    return


@dataclass(frozen=True, slots=True)
class _Scored:
    confidence: float
    tie: int
    field: _Field

    def key(self) -> tuple[float, int]:
        return self.confidence, self.tie


def _confidence(cosine: float, field: _Field) -> float:
    drop = (SUREST - CONFIDENT) / (1 - LEAST_COSINE)
    return (SUREST - drop * (1 - min(cosine, 1.0))) * field.sure


def _tie(field: _Field, parameter: _Field) -> int:
    return zlib.crc32(f"{field.tool} {parameter.tool} {parameter.text}".encode())


# --------------------------------------------------------------------------------------------- both sides


def _parameters(number: int, tool: ToolSpec) -> Iterator[_Field]:
    schema = input_schema(tool.entry)
    for path, part, _ in walk(schema, schema):
        if _is_value(part) and "enum" not in part and "const" not in part:
            yield _field(number, tool, path, part)


def _outputs(
    number: int, tool: ToolSpec, parameters: set[tuple[str, ...]], seen: Sequence[Path]
) -> list[_Field]:
    found: dict[Path, _Field] = {}
    schema = as_schema(tool.entry.get("outputSchema"))
    for path, part, _ in walk(schema, schema):
        # `{"result": …}` is the wrapper that frameworks put around a text.
        if _is_value(part) and [name for name in path if name != EVERY] != ["result"]:
            found[path] = _field(number, tool, path, part, parameters)
    for path in seen:
        if any(name != EVERY for name in path):
            found.setdefault(path, _field(number, tool, path, {}, parameters))
    if found:
        return list(found.values())
    words = subject_of(tool.name)
    text = _text(words or words_in(tool.name), tool.entry.get("description"))
    return [_Field(number, (), words, text, is_id=False, sure=PROMISED)]


def _field(
    number: int, tool: ToolSpec, path: Path, schema: Schema, parameters: set[tuple[str, ...]] | None = None
) -> _Field:
    words = qualified(path, tool.name)
    return _Field(
        number,
        path,
        words,
        _text(words, schema.get("description")),
        is_id=term_of(path, tool.name).kind == "id",
        sure=ECHOED if parameters and words in parameters else 1.0,
    )


def _is_value(schema: Schema) -> bool:
    return type_of(schema) not in ("object", "array", "boolean")


def _is_control(field: _Field) -> bool:
    """Whether a parameter says how something is done, not to what."""
    name = next((name for name in reversed(field.path) if name != EVERY), "")
    return not CONTROLS.isdisjoint(words_in(name)) and not field.is_id


def _text(words: tuple[str, ...], description: object) -> str:
    said = " ".join(description.split())[:MOST_CHARACTERS] if isinstance(description, str) else ""
    return f"{' '.join(words)}: {said}" if said else " ".join(words)


# ---------------------------------------------------------------------------------------------- embeddings


def _distinct(fields: Sequence[_Field]) -> list[str]:
    return list(dict.fromkeys(field.text for field in fields))


def _vectors(texts: Sequence[str], embedder: Embedder, progress: Progress | None) -> NDArray[float32]:
    import numpy  # comes with the embedder, and takes a tenth of a second to load

    parts = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        parts.append(embedder.embed(texts[start : start + TEXTS_AT_ONCE]))
        if progress is not None:
            progress(min(start + TEXTS_AT_ONCE, len(texts)), len(texts))
    return numpy.concatenate(parts)


def _nearest(
    asked: NDArray[float32], given: NDArray[float32], least: float
) -> Iterator[list[tuple[int, float]]]:
    """Yield for each row of `asked` the nearest rows of `given`, nearest first, with their cosines."""
    import numpy

    rows = max(1, CHUNK_VALUES // len(given))
    for start in range(0, len(asked), rows):
        # Rounding differs with the shape of what is multiplied; what is equal should come out so.
        for cosines in numpy.round(asked[start : start + rows] @ given.T, 4):
            near = numpy.flatnonzero(cosines >= numpy.float32(least))
            if len(near) > MOST_NEAR:
                near = near[numpy.argpartition(-cosines[near], MOST_NEAR)[:MOST_NEAR]]
            order = near[numpy.lexsort((near, -cosines[near]))]
            yield [(int(place), float(cosines[place])) for place in order]
