from __future__ import annotations

from typing import Any

from recorder.exchange import ToolRef
from recorder.explore.graph import Edge, Evidence
from recorder.explore.infer import build_graph
from recorder.tool import ToolSpec

LIST, GET = ToolRef("shop", "list"), ToolRef("shop", "get")


def tool(ref: ToolRef, version: str = "1") -> ToolSpec:
    return ToolSpec(server=ref.server, name=ref.name, version=version, entry={"name": ref.name})


def edge(evidence: Evidence, confidence: float, **also: Any) -> Edge:
    values = {"producer": LIST, "output": "$[*].id", "consumer": GET, "parameter": "id", **also}
    return Edge(evidence=evidence, confidence=confidence, **values)


def test_the_strongest_evidence_stays_with_what_was_seen() -> None:
    graph = build_graph(
        [tool(LIST), tool(GET)],
        observed=[edge("observed", 0.55, seen=1)],
        shapes=[edge("schema", 0.9), edge("schema", 0.7, output="$[*].order_id")],
        extra=[edge("judged", 0.95), edge("semantic", 0.4, parameter="name")],
    )
    assert graph.edges == (
        edge("observed", 0.95, seen=1),
        edge("schema", 0.7, output="$[*].order_id"),
        edge("semantic", 0.4, parameter="name"),
    )


def test_the_latest_version_of_a_tool_is_its_node() -> None:
    graph = build_graph([tool(LIST, "old"), tool(GET), tool(LIST, "new")])
    assert [(node.name, node.version) for node in graph.nodes] == [("get", "1"), ("list", "new")]


def test_edges_of_tools_that_are_not_listed_are_left_out() -> None:
    assert build_graph([tool(LIST)], observed=[edge("observed", 0.9, seen=4)]).edges == ()


def test_a_tool_that_feeds_itself_is_not_linked() -> None:
    graph = build_graph([tool(LIST)], observed=[edge("observed", 0.9, seen=4, consumer=LIST)])
    assert len(graph.edges) == 1
    assert graph.isolated() == [LIST]
    assert graph.successors(LIST) == []
