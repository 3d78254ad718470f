"""Sub-DAGs of random graphs: what holds for every one of them, and for many of them together."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from recorder.exchange import ToolRef
from recorder.explore.graph import Edge, SubDag, ToolGraph, ToolNode
from recorder.explore.sample import Sampler, needed_from_upstream, restricted, shape_of
from recorder.tool import ToolSpec

ROOT = Path(__file__).parents[3]
MOST = 8

BY_ID = {"properties": {"order_id": {"type": "string"}, "note": {}}, "required": ["order_id"]}
FREE = {"properties": {"order_id": {"type": "string"}, "note": {}}}


def spec(ref: ToolRef, schema: dict[str, object]) -> ToolSpec:
    return ToolSpec(server=ref.server, name=ref.name, version="v", entry={"inputSchema": schema})


def edge(producer: ToolRef, consumer: ToolRef, parameter: str = "note", confidence: float = 0.9) -> Edge:
    return Edge(
        producer=producer,
        output="$.id",
        consumer=consumer,
        parameter=parameter,
        evidence="schema",
        confidence=confidence,
    )


def graph_of(tools: list[ToolRef], edges: list[Edge]) -> ToolGraph:
    nodes = tuple(ToolNode(server=tool.server, name=tool.name, version="v") for tool in tools)
    return ToolGraph(nodes=nodes, edges=tuple(edges))


def random_graph(rng: Random, tools: int, edges: int) -> tuple[ToolGraph, list[ToolSpec]]:
    """Four servers; two tools in five need an id; edges in both directions, so that there are circles."""
    refs = [ToolRef(f"s{at % 4}", f"t{at:03}") for at in range(tools)]
    specs = [spec(ref, BY_ID if rng.random() < 0.4 else FREE) for ref in refs]
    pairs = [rng.sample(refs, 2) for _ in range(edges)]
    return graph_of(
        refs, [edge(a, b, rng.choice(["order_id", "note"]), rng.uniform(0.3, 1)) for a, b in pairs]
    ), specs


def sampled(
    graph: ToolGraph, specs: list[ToolSpec], rng: Random, samples: int
) -> tuple[list[SubDag], Counter[ToolRef]]:
    """Sample as a campaign does: what was walked counts for the next one."""
    sampler = Sampler(graph, specs)
    explored: Counter[ToolRef] = Counter()
    walked: Counter[tuple[ToolRef, ToolRef]] = Counter()
    found = []
    for _ in range(samples):
        dag = sampler.sample(rng, explored, walked)
        explored.update(dag.tools)
        walked.update({(one.producer, one.consumer) for one in dag.edges})
        found.append(dag)
    return found, explored


def is_connected(dag: SubDag) -> bool:
    reached = {dag.tools[0]}
    while more := {
        end
        for one in dag.edges
        if {one.producer, one.consumer} & reached
        for end in (one.producer, one.consumer)
        if end not in reached
    }:
        reached |= more
    return len(reached) == len(dag.tools)


@pytest.mark.parametrize(("tools", "edges"), [(30, 25), (30, 60), (40, 200), (20, 150)])
def test_each_is_small_acyclic_and_in_order_and_its_edges_are_the_graphs(tools: int, edges: int) -> None:
    for seed in range(10):
        rng = Random(seed)
        graph, specs = random_graph(rng, tools, edges)
        known, isolated = set(graph.edges), set(graph.isolated())
        dags, _ = sampled(graph, specs, rng, 100)
        for dag in dags:
            place = {tool: at for at, tool in enumerate(dag.tools)}
            assert len(place) == len(dag.tools) <= MOST
            assert len(dag.tools) >= 2 or dag.tools[0] in isolated
            assert set(dag.edges) <= known
            assert all(place[one.producer] < place[one.consumer] for one in dag.edges)


def test_where_the_graph_is_confident_and_in_one_piece_each_is_connected() -> None:
    for seed in range(20):
        rng = Random(seed)
        refs = [ToolRef(f"s{at % 3}", f"t{at:02}") for at in range(25)]
        ring = [edge(a, b) for a, b in zip(refs, refs[1:] + refs[:1], strict=True)]
        others = [edge(*rng.sample(refs, 2)) for _ in range(20)]
        dags, _ = sampled(graph_of(refs, ring + others), [], rng, 100)
        assert all(is_connected(dag) for dag in dags)


def test_each_shape_occurs_within_and_across_servers() -> None:
    rng = Random(1)
    graph, specs = random_graph(rng, 40, 200)
    dags, _ = sampled(graph, specs, rng, 1000)
    shapes = Counter(shape_of(dag) for dag in dags)
    named = ("chain", "fan-out", "fan-in", "diamond", "mixed")
    assert min(shapes[shape] for shape in named) >= 20
    servers = Counter(len(dag.servers) > 1 for dag in dags)
    assert min(servers[False], servers[True]) >= 10


def test_a_tool_that_needs_an_id_comes_after_a_tool_that_returns_it() -> None:
    listing, other, getting = (ToolRef("shop", name) for name in ("list", "other", "get"))
    graph = graph_of([listing, other, getting], [edge(listing, getting, "order_id"), edge(other, getting)])
    specs = [spec(listing, FREE), spec(other, FREE), spec(getting, BY_ID)]
    dags, _ = sampled(graph, specs, Random(0), 200)
    with_getting = [dag for dag in dags if getting in dag.tools]
    begun_with = [dag for dag in with_getting if dag.tools[0] == getting]
    assert with_getting
    assert begun_with == []


def unmet(dag: SubDag, graph: ToolGraph, specs: list[ToolSpec]) -> list[ToolRef]:
    """Return the tools that need an order's id which somebody could give, and nobody before them does."""
    needing = {one.ref for one in specs if needed_from_upstream(one)}
    sure = [one for one in graph.edges if one.confidence >= 0.6 and one.parameter == "order_id"]
    place = {tool: at for at, tool in enumerate(dag.tools)}
    return [
        tool
        for tool in dag.tools
        if tool in needing
        and (givers := [one.producer for one in sure if one.consumer == tool and one.producer != tool])
        and not any(place.get(giver, MOST) < place[tool] for giver in givers)
    ]


@pytest.mark.parametrize(("tools", "edges"), [(30, 25), (30, 60), (40, 200), (20, 150)])
def test_what_gives_an_id_comes_first_and_a_start_leads_somewhere(tools: int, edges: int) -> None:
    for seed in range(10):
        rng = Random(seed)
        refs = [ToolRef(f"s{at % 4}", f"t{at:03}") for at in range(tools)]
        specs = [spec(ref, BY_ID if rng.random() < 0.4 else FREE) for ref in refs]
        # Without circles, as in one neither can come first.
        pairs = [sorted(rng.sample(refs, 2), key=refs.index) for _ in range(edges)]
        graph = graph_of(refs, [edge(a, b, rng.choice(["order_id", "note"])) for a, b in pairs])
        dags, _ = sampled(graph, specs, rng, 100)
        assert [found for dag in dags if (found := unmet(dag, graph, specs))] == []


def test_tools_that_wait_for_each_other_are_reached_in_one_order_or_the_other() -> None:
    a, b, c = (ToolRef("s", name) for name in "abc")
    graph = graph_of([a, b, c], [edge(a, b, "order_id"), edge(b, a, "order_id"), edge(a, c)])
    specs = [spec(ref, BY_ID) for ref in (a, b)] + [spec(c, FREE)]
    dags, explored = sampled(graph, specs, Random(0), 50)
    assert set(explored) == {a, b, c}
    assert all(is_connected(dag) for dag in dags)
    assert {dag.tools[0] for dag in dags} <= {a, b}


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="most_tools must be at least 8"):
        Sampler(graph_of([], []), [], most_tools=3)
    with pytest.raises(ValueError, match="upstream_share"):
        Sampler(graph_of([], []), [], upstream_share=1.5)


def test_a_start_needs_nothing_or_nobody_gives_it_or_it_leads_to_two() -> None:
    listing, getting, leading, alone, a, b = (
        ToolRef("shop", name) for name in ("list", "get", "lead", "alone", "a", "b")
    )
    edges = [
        edge(listing, getting, "order_id"),
        edge(listing, leading, "order_id"),
        edge(leading, a),
        edge(leading, b),
    ]
    specs = [spec(tool, BY_ID) for tool in (getting, leading, alone)]
    sampler = Sampler(graph_of([listing, getting, leading, alone, a, b], edges), specs)
    assert sampler.starts == {listing, leading, alone, a, b}


def test_all_tools_are_reached_isolated_ones_too_and_coverage_evens_out() -> None:
    for seed in range(10):
        rng = Random(seed)
        graph, specs = random_graph(rng, 30, 40)
        _, early = sampled(graph, specs, rng, 40)
        assert set(early) == {node.ref for node in graph.nodes}
        _, late = sampled(graph, specs, rng, 400)
        assert max(late.values()) <= 12 * min(late.values())


def test_a_tool_without_edges_is_joined_to_others_of_its_server() -> None:
    refs = [ToolRef("here", name) for name in "abc"] + [ToolRef("there", "d")]
    sampler = Sampler(graph_of(refs, []), [])
    for seed in range(50):
        dag = sampler.sample(Random(seed), {}, {})
        assert dag.edges == ()
        assert len(dag.servers) == 1
        assert len(dag.tools) >= (2 if dag.servers == ("here",) else 1)


def test_unsure_edges_and_those_of_a_tool_to_itself_are_not_walked() -> None:
    a, b = ToolRef("s", "a"), ToolRef("s", "b")
    sampler = Sampler(graph_of([a, b], [edge(a, b, confidence=0.5), edge(a, a)]), [])
    assert all(sampler.sample(Random(seed), {}, {}).edges == () for seed in range(20))


def test_a_big_dense_graph_is_sampled_as_any() -> None:
    rng = Random(3)
    graph, specs = random_graph(rng, 1000, 80_000)
    dags, explored = sampled(graph, specs, rng, 50)
    assert all(2 <= len(dag.tools) <= MOST and is_connected(dag) for dag in dags)
    assert len(explored) > 100


PRINT = """
import sys
sys.path.insert(0, {root!r})
from random import Random
from tests.recorder.explore.test_sample import random_graph, sampled
rng = Random(7)
graph, specs = random_graph(rng, 40, 150)
for dag in sampled(graph, specs, rng, 60)[0]:
    print(dag.model_dump_json())
"""


def test_the_same_seed_gives_the_same_whatever_the_seed_of_hashes() -> None:
    printed = {
        subprocess.run(
            [sys.executable, "-c", PRINT.format(root=str(ROOT))],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("0", "1", "2")
    }
    assert len(printed) == 1
    assert printed.pop().count("\n") == 60


@pytest.mark.parametrize(
    ("pairs", "shape"),
    [
        ([], "single"),
        (["ab", "bc"], "chain"),
        (["ab", "ac"], "fan-out"),
        (["ab", "bc", "bd"], "fan-out"),
        (["ac", "bc"], "fan-in"),
        (["ab", "ac", "bd", "cd"], "diamond"),
        (["ab", "ac", "bd", "cd", "de"], "diamond"),
        (["ab", "ac", "dc"], "mixed"),
    ],
)
def test_a_shape_has_a_name(pairs: list[str], shape: str) -> None:
    edges = [edge(ToolRef("s", a), ToolRef("s", b)) for a, b in pairs]
    names = sorted({name for pair in pairs for name in pair}) or ["a"]
    assert shape_of(SubDag(tools=tuple(ToolRef("s", name) for name in names), edges=tuple(edges))) == shape


def test_only_ids_that_nothing_tells_a_value_for_are_needed() -> None:
    properties: dict[str, object] = {
        "order_id": {"type": "string"},
        "customerId": {"type": "integer"},
        "state_id": {"enum": ["a"]},
        "page_id": {"default": 1},
        "city": {"type": "string"},
    }
    ref = ToolRef("s", "t")
    assert needed_from_upstream(spec(ref, {"properties": properties, "required": list(properties)})) == (
        "order_id",
        "customerId",
    )
    assert needed_from_upstream(spec(ref, {"properties": properties})) == ()


def test_a_restricted_graph_has_only_what_is_allowed() -> None:
    a, b, c = (ToolRef("s", name) for name in "abc")
    graph = graph_of([a, b, c], [edge(a, b), edge(b, c)])
    assert restricted(graph, {a, b}) == graph_of([a, b], [edge(a, b)])
    with pytest.raises(ValueError, match="tools"):
        Sampler(restricted(graph, ()), []).sample(Random(0), {}, {})
