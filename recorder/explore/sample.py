"""Sub-DAGs, sampled from the graph of tools: what has been walked least comes first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Literal

from recorder.exchange import ToolRef
from recorder.explore.graph import CONFIDENT, Edge, SubDag, ToolGraph
from recorder.explore.names import words_in
from recorder.explore.parameters import input_schema, properties_of, required_of, resolved, type_of
from recorder.tool import ToolSpec

Pair = tuple[ToolRef, ToolRef]
Shape = Literal["single", "chain", "fan-out", "fan-in", "diamond", "mixed"]

SIZES: Mapping[int, float] = {2: 3, 3: 4, 4: 4, 5: 3, 6: 2, 7: 1, 8: 1}
"""Number of tools → weight. The paper's tasks take 3 calls on average and up to 10."""

LEAST_SUCCESSORS = 2
"""Confident successors that make a start of a tool that needs a value from upstream (paper)."""

UPSTREAM_SHARE = 0.35
"""Of growing steps that add a producer instead of a consumer: without any, nothing would fan in."""

MOST_TOOLS = 8
"""Of a sub-DAG that had to grow for the sake of what its tools need."""

ATTEMPTS = 6
"""Samples that are drawn to find one that begins where it may."""

_IDENTIFIES = frozenset("id uuid key ref handle token cursor".split())  # noqa: SIM905


class Sampler:
    """Samples from one graph. Preparing takes time linear in the edges, a sample time in the degrees of its
    tools.

    Args:
        graph: Every tool in it may be sampled.
        specs: Of its tools; of what is missing nothing is known to be required.
        sizes: Number of tools → weight.
        least: Confidence from which an edge is walked.
        least_successors: What a tool that needs a value from upstream has to lead to, to begin a sub-DAG.
        upstream_share: Of growing steps that add a producer, in [0, 1].
        most_tools: Of a sub-DAG, at least the largest of `sizes`.
    """

    def __init__(
        self,
        graph: ToolGraph,
        specs: Iterable[ToolSpec],
        *,
        sizes: Mapping[int, float] = SIZES,
        least: float = CONFIDENT,
        least_successors: int = LEAST_SUCCESSORS,
        upstream_share: float = UPSTREAM_SHARE,
        most_tools: int = MOST_TOOLS,
    ) -> None:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"sizes must be numbers of tools from 1 on, got {sorted(sizes)}")
        if most_tools < max(sizes):
            raise ValueError(
                f"most_tools must be at least {max(sizes)}, as sizes go so far, got {most_tools}"
            )
        if not 0 <= upstream_share <= 1:
            raise ValueError(f"upstream_share must be in [0, 1], got {upstream_share}")
        self._sizes, self._least_successors = dict(sorted(sizes.items())), least_successors
        self._upstream_share, self._most_tools = upstream_share, most_tools
        self._needs = {spec.ref: needed_from_upstream(spec) for spec in specs}
        self._tools = sorted(node.ref for node in graph.nodes)
        self._edges: dict[Pair, list[Edge]] = {}
        for edge in graph.edges:
            if edge.confidence >= least and edge.producer != edge.consumer:
                self._edges.setdefault((edge.producer, edge.consumer), []).append(edge)
        self._after: dict[ToolRef, list[ToolRef]] = {}
        self._before: dict[ToolRef, list[ToolRef]] = {}
        for producer, consumer in sorted(self._edges):
            self._after.setdefault(producer, []).append(consumer)
            self._before.setdefault(consumer, []).append(producer)
        self._confidence = {
            pair: max(edge.confidence for edge in edges) for pair, edges in self._edges.items()
        }
        self._givers = {tool: self._givers_of(tool) for tool in self._tools}

    @cached_property
    def starts(self) -> frozenset[ToolRef]:
        """Tools that a sub-DAG may begin with: they need nothing, nobody can give it, or they lead far
        enough."""
        return frozenset(
            tool
            for tool in self._tools
            if not self._givers[tool] or len(self._after.get(tool, ())) >= self._least_successors
        )

    def sample(self, rng: Random, explored: Mapping[ToolRef, int], walked: Mapping[Pair, int]) -> SubDag:
        """
        Args:
            explored: Tool → how often it was called.
            walked: Producer and consumer → how often they were walked together.

        Raises:
            ValueError: the graph has no tools.
        """
        if not self._tools:
            raise ValueError("a graph without tools has no sub-DAGs")
        drawn = [self._draw(rng, explored, walked)]
        while self._faults(drawn[-1]) > (0, 0) and len(drawn) < ATTEMPTS:
            drawn.append(self._draw(rng, explored, walked))
        return self._finished(min(drawn, key=self._faults))

    def _faults(self, chosen: _Chosen) -> tuple[int, int]:
        """Count the tools that begin it and should not, and the values that somebody could give and nobody
        does: there was no room, or the giver itself waits for the tool."""
        unmet = sum(
            not any((giver, tool) in chosen.pairs for giver in givers)
            for tool in chosen.tools
            for givers in self._givers[tool]
        )
        return self._bad_starts(chosen), unmet

    def _bad_starts(self, chosen: _Chosen) -> int:
        """Count the tools that begin it and should not: somebody could give what they need."""
        fed = {consumer for _, consumer in chosen.pairs}
        return sum(tool not in fed and tool not in self.starts for tool in chosen.tools)

    def _draw(self, rng: Random, explored: Mapping[ToolRef, int], walked: Mapping[Pair, int]) -> _Chosen:
        (size,) = rng.choices(list(self._sizes), list(self._sizes.values()))
        least = min(explored.get(tool, 0) for tool in self._tools)
        # The least explored, and those that are nearly so: in strict order the same few would always meet.
        behind = [tool for tool in self._tools if explored.get(tool, 0) <= 1.25 * least + 1]
        first = behind[rng.randrange(len(behind))]
        chosen = _Chosen([first])
        self._add_upstream(first, chosen, rng, walked)
        while len(chosen.tools) < size and self._grow(chosen, rng, explored, walked):
            pass
        if len(chosen.tools) < min(2, size):
            self._add_neighbours(chosen, size, rng, explored, walked)
        return chosen

    def _givers_of(self, tool: ToolRef) -> list[list[ToolRef]]:
        """Return who can give what a tool needs from upstream, for each value that anybody can give."""
        found = []
        for parameter in self._needs.get(tool, ()):
            givers = [
                producer
                for producer in self._before.get(tool, ())
                if any(_is_about(edge, parameter) for edge in self._edges[producer, tool])
            ]
            if givers:
                found.append(givers)
        return found

    def _add_upstream(self, tool: ToolRef, chosen: _Chosen, rng: Random, walked: Mapping[Pair, int]) -> None:
        """Put producers of what a tool needs, and of what they need, before it, while there is room."""
        for givers in self._givers[tool]:
            behind = chosen.downstream(tool)
            open_to = [giver for giver in givers if giver not in behind]
            there = [giver for giver in open_to if giver in chosen.tools]
            if there:
                if not any((giver, tool) in chosen.pairs for giver in there):
                    chosen.link((there[0], tool))
                continue
            if not open_to or len(chosen.tools) >= self._most_tools:
                continue
            weights = [self._weight((giver, tool), walked) for giver in open_to]
            (giver,) = rng.choices(open_to, weights)
            chosen.add(giver, (giver, tool))
            self._add_upstream(giver, chosen, rng, walked)

    def _grow(
        self, chosen: _Chosen, rng: Random, explored: Mapping[ToolRef, int], walked: Mapping[Pair, int]
    ) -> bool:
        """Add one tool next to those that are chosen; return whether there was one."""
        there = set(chosen.tools)
        down = [(a, b) for a in chosen.tools for b in self._after.get(a, ()) if b not in there]
        up = [(a, b) for b in chosen.tools for a in self._before.get(b, ()) if a not in there]
        pairs = up if up and (not down or rng.random() < self._upstream_share) else down
        if not pairs:
            return False
        new = [b if a in there else a for a, b in pairs]
        weights = [
            self._weight(pair, walked) / (1 + explored.get(tool, 0))
            for pair, tool in zip(pairs, new, strict=True)
        ]
        ((pair, tool),) = rng.choices(list(zip(pairs, new, strict=True)), weights)
        chosen.add(tool, pair)
        self._add_upstream(tool, chosen, rng, walked)
        return True

    def _add_neighbours(
        self,
        chosen: _Chosen,
        size: int,
        rng: Random,
        explored: Mapping[ToolRef, int],
        walked: Mapping[Pair, int],
    ) -> None:
        """Join a tool without edges to others of its server, which share its state if nothing else."""
        near = [
            tool for tool in self._tools if tool.server == chosen.tools[0].server and tool not in chosen.tools
        ]
        while near and len(chosen.tools) < size:
            weights = [1 / (1 + explored.get(tool, 0)) for tool in near]
            (tool,) = rng.choices(near, weights)
            near.remove(tool)
            if tool not in chosen.tools:
                chosen.add(tool)
                self._add_upstream(tool, chosen, rng, walked)

    def _weight(self, pair: Pair, walked: Mapping[Pair, int]) -> float:
        return self._confidence[pair] / (1 + walked.get(pair, 0))

    def _finished(self, chosen: _Chosen) -> SubDag:
        """Add every edge between the tools that closes no circle, and put producers first."""
        among = sorted(chosen.tools)
        for a in among:
            for b in among:
                if (a, b) in self._edges and a not in chosen.downstream(b):
                    chosen.link((a, b))
        tools = chosen.in_order()
        edges: dict[tuple[ToolRef, ToolRef, str], Edge] = {}
        for pair in sorted(chosen.pairs):
            for edge in self._edges[pair]:
                key = (edge.producer, edge.consumer, edge.parameter)
                if key not in edges or edges[key].confidence < edge.confidence:
                    edges[key] = edge
        return SubDag(tools=tuple(tools), edges=tuple(edges.values()))


class _Chosen:
    """The tools of a sub-DAG in the making, and which of them lead to which."""

    def __init__(self, tools: Sequence[ToolRef]) -> None:
        self.tools = list(tools)
        self.pairs: set[Pair] = set()

    def add(self, tool: ToolRef, pair: Pair | None = None) -> None:
        self.tools.append(tool)
        if pair is not None:
            self.link(pair)

    def link(self, pair: Pair) -> None:
        self.pairs.add(pair)

    def downstream(self, tool: ToolRef) -> set[ToolRef]:
        """Return the tool itself and those that a path goes to from it."""
        seen, stack = {tool}, [tool]
        while stack:
            at = stack.pop()
            found = [b for a, b in self.pairs if a == at and b not in seen]
            seen.update(found)
            stack.extend(found)
        return seen

    def in_order(self) -> list[ToolRef]:
        """Return producers before consumers, else in the order they were chosen."""
        left, order = list(self.tools), []
        while left:
            ready = next(tool for tool in left if not any(b == tool and a in left for a, b in self.pairs))
            left.remove(ready)
            order.append(ready)
        return order


def needed_from_upstream(spec: ToolSpec) -> tuple[str, ...]:
    """Return the required parameters whose values nobody could guess: ids, without an enum or a default."""
    root = input_schema(spec.entry)
    found = []
    for name in required_of(root):
        schema = resolved(properties_of(root).get(name), root)
        guessable = {"enum", "const", "default", "examples", "format"} & set(schema)
        if (
            type_of(schema) in ("string", "integer", None)
            and not guessable
            and _IDENTIFIES & set(words_in(name))
        ):
            found.append(name)
    return tuple(found)


def restricted(graph: ToolGraph, allowed: Collection[ToolRef]) -> ToolGraph:
    """Return the part of a graph that has only these tools."""
    kept = set(allowed)
    return ToolGraph(
        nodes=tuple(node for node in graph.nodes if node.ref in kept),
        edges=tuple(edge for edge in graph.edges if edge.producer in kept and edge.consumer in kept),
    )


def shape_of(dag: SubDag) -> Shape:
    """Name the form of a sub-DAG."""
    if len(dag.tools) == 1:
        return "single"
    pairs = {(edge.producer, edge.consumer) for edge in dag.edges}
    into = {tool: sum(b == tool for _, b in pairs) for tool in dag.tools}
    out = {tool: sum(a == tool for a, _ in pairs) for tool in dag.tools}
    sources = [tool for tool in dag.tools if not into[tool]]
    sinks = [tool for tool in dag.tools if not out[tool]]
    if len(pairs) < len(dag.tools) - 1:
        return "mixed"  # tools without edges, joined as neighbours
    if max(into.values()) <= 1:
        return "chain" if max(out.values()) <= 1 else "fan-out"
    if max(out.values()) <= 1:
        return "fan-in"
    return "diamond" if len(sources) == len(sinks) == 1 else "mixed"


def _is_about(edge: Edge, parameter: str) -> bool:
    return edge.parameter.replace("[", ".").split(".")[0] == parameter
