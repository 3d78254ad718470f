"""The graph of tools: which value of one tool's output can feed which parameter of another tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Literal

from recorder.exchange import Record, ToolRef

Evidence = Literal["observed", "schema", "semantic", "judged"]

EVIDENCE: tuple[Evidence, ...] = ("observed", "schema", "semantic", "judged")
"""Strongest first."""

CONFIDENT = 0.6
"""Edges at least this sure are worth walking along: what was seen twice, names that agree, and a judge's
`high` and `medium`."""


class ToolNode(Record):
    server: str
    name: str
    version: str
    """Content hash of the entry, as in `ToolSpec`."""

    @property
    def ref(self) -> ToolRef:
        return ToolRef(self.server, self.name)


class Edge(Record):
    """A value in the producer's output can be an argument of the consumer."""

    producer: ToolRef
    output: str
    """Where the value stands in the output, as JSONPath: `$.items[*].id`."""
    consumer: ToolRef
    parameter: str
    """As JSONPath within the arguments, without `$.`: `id`, `filters.customer`, `ids[*]`."""
    evidence: Evidence
    """The strongest there is."""
    confidence: float
    """In (0, 1]."""
    seen: int = 0
    """How often the value was seen to flow in the recording."""


class ToolGraph(Record):
    """Nodes by server and name; edges by producer, consumer, parameter, most confident first."""

    nodes: tuple[ToolNode, ...]
    edges: tuple[Edge, ...]

    @cached_property
    def by_producer(self) -> Mapping[ToolRef, tuple[Edge, ...]]:
        return _grouped((edge.producer, edge) for edge in self.edges)

    def successors(self, tool: ToolRef, least: float = CONFIDENT) -> list[ToolRef]:
        """Return the other tools that it can feed, each once, in the order of the edges."""
        edges = self.by_producer.get(tool, ())
        return list(
            dict.fromkeys(
                edge.consumer for edge in edges if edge.confidence >= least and edge.consumer != tool
            )
        )

    def counts(self) -> dict[Evidence, int]:
        counts = Counter(edge.evidence for edge in self.edges)
        return {evidence: counts[evidence] for evidence in EVIDENCE}

    def isolated(self) -> list[ToolRef]:
        """Return the tools without an edge to or from another tool."""
        linked = {
            tool
            for edge in self.edges
            if edge.producer != edge.consumer
            for tool in (edge.producer, edge.consumer)
        }
        return [node.ref for node in self.nodes if node.ref not in linked]

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": [node.model_dump() for node in self.nodes],
            "edges": [_edge_json(edge) for edge in self.edges],
        }


class SubDag(Record):
    """A connected acyclic part of the graph that is to be walked: what a session is about."""

    tools: tuple[ToolRef, ...]
    """Producers before consumers."""
    edges: tuple[Edge, ...]
    """Between these tools, each from an earlier one to a later one."""

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tool.server for tool in self.tools))


def _edge_json(edge: Edge) -> dict[str, Any]:
    ends = {"producer": edge.producer._asdict(), "consumer": edge.consumer._asdict()}
    return {**edge.model_dump(), **ends}


def _grouped(pairs: Iterable[tuple[ToolRef, Edge]]) -> dict[ToolRef, tuple[Edge, ...]]:
    grouped: dict[ToolRef, list[Edge]] = {}
    for tool, edge in pairs:
        grouped.setdefault(tool, []).append(edge)
    return {tool: tuple(edges) for tool, edges in grouped.items()}
