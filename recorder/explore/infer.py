"""The tool graph, put together from the edges of every kind of evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recorder.exchange import ToolRef
from recorder.explore.graph import EVIDENCE, Edge, ToolGraph, ToolNode
from recorder.tool import ToolSpec

RANK = {evidence: rank for rank, evidence in enumerate(EVIDENCE)}


def build_graph(
    tools: Iterable[ToolSpec],
    observed: Iterable[Edge] = (),
    shapes: Iterable[Edge] = (),
    extra: Iterable[Edge] = (),
) -> ToolGraph:
    """Merge edges into a graph of the latest version of each tool.

    Args:
        tools: In order of first listing, as `Store.tools` returns them; of several versions the last counts.
        observed: From `observed_edges`. Tools that no server lists any more are left out with their edges.
        shapes: From `schema_edges`.
        extra: From tiers that ask a model.

    Returns:
        One edge for each output path, producer, consumer and parameter: that of the strongest evidence. Where
        weaker evidence is surer of it, its confidence is taken.
    """
    latest = latest_versions(tools)
    known = {tool.ref for tool in latest}
    merged: dict[tuple[ToolRef, ToolRef, str, str], Edge] = {}
    for edge in (*observed, *shapes, *extra):
        if edge.producer not in known or edge.consumer not in known:
            continue
        key = (edge.producer, edge.consumer, edge.parameter, edge.output)
        other = merged.get(key)
        merged[key] = edge if other is None else _merged(edge, other)
    nodes = [ToolNode(server=tool.server, name=tool.name, version=tool.version) for tool in latest]
    return ToolGraph(
        nodes=tuple(sorted(nodes, key=lambda node: node.ref)),
        edges=tuple(sorted(merged.values(), key=_order)),
    )


def latest_versions(tools: Iterable[ToolSpec]) -> Sequence[ToolSpec]:
    """Return the last version of each tool."""
    return list({tool.ref: tool for tool in tools}.values())


def _merged(one: Edge, other: Edge) -> Edge:
    stronger = min(one, other, key=lambda edge: (RANK[edge.evidence], -edge.confidence))
    confidence, seen = max(one.confidence, other.confidence), max(one.seen, other.seen)
    if (stronger.confidence, stronger.seen) == (confidence, seen):
        return stronger
    return stronger.model_copy(update={"confidence": confidence, "seen": seen})


def _order(edge: Edge) -> tuple[ToolRef, ToolRef, str, float, str]:
    return edge.producer, edge.consumer, edge.parameter, -edge.confidence, edge.output
