"""Precision and recall of each kind of evidence, on edges judged by hand over thirteen real servers.

`edges.json` says of pairs whether a value in the producer's real answer can be given as the consumer's
parameter. `testbed_tools.json` holds what those servers list, and `testbed_calls.json` two walks over them
with their answers, cut where they were long.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from recorder.canonical import content_hash
from recorder.explore.graph import CONFIDENT, Edge
from recorder.explore.infer import build_graph
from recorder.explore.observed import observed_edges
from recorder.explore.shapes import Shapes, schema_edges, shapes_of
from recorder.importer import import_sessions
from recorder.store import Store
from recorder.tool import ToolSpec

HERE = Path(__file__).parent


class Score(NamedTuple):
    precision: float
    recall: float

    def reaches(self, precision: float, recall: float) -> bool:
        return self.precision >= precision and self.recall >= recall


@cache
def tools() -> Sequence[ToolSpec]:
    listed = json.loads((HERE / "testbed_tools.json").read_text(encoding="utf-8"))
    return [
        ToolSpec(server=server, name=entry["name"], version=content_hash(entry), entry=entry)
        for server, entries in listed.items()
        for entry in entries
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    db = tmp_path_factory.mktemp("testbed") / "walks.db"
    report = import_sessions(db, json.loads((HERE / "testbed_calls.json").read_text(encoding="utf-8")))
    assert report.problems == []
    return Store(db)


@pytest.fixture(scope="module")
def shapes(store: Store) -> Shapes:
    return shapes_of(store)


def name_of(edge: Edge) -> str:
    producer, consumer = "/".join(edge.producer), "/".join(edge.consumer)
    return f"{producer} -> {consumer} {edge.parameter}"


def score(edges: Iterable[Edge], among: set[str] | None = None) -> Score:
    """Compare the confident edges with those judged; `among` limits which of these are asked for."""
    judged = json.loads((HERE / "edges.json").read_text(encoding="utf-8"))
    true, false = set(judged["true"]), set(judged["false"])
    found = {name_of(edge) for edge in edges if edge.confidence >= CONFIDENT}
    right, wrong = len(found & true), len(found & false)
    print(f"\nmissed {sorted(true - found)}\nwrong {sorted(found & false)}")
    asked = true if among is None else true & among
    score = Score(right / (right + wrong), len(found & asked) / len(asked))
    print(f"precision {score.precision:.3f}, recall {score.recall:.3f}, {right} right, {wrong} wrong")
    return score


def test_at_least_sixty_edges_are_judged_true_and_sixty_false() -> None:
    judged = json.loads((HERE / "edges.json").read_text(encoding="utf-8"))
    assert min(len(set(judged["true"])), len(set(judged["false"]))) >= 60
    assert not set(judged["true"]) & set(judged["false"])


def test_schemas_alone_find_most_edges() -> None:
    assert score(schema_edges(tools())).reaches(0.95, 0.62)


def test_schemas_and_seen_outputs_find_more_of_them(shapes: Shapes) -> None:
    assert score(schema_edges(tools(), shapes)).reaches(0.95, 0.78)


def test_what_flowed_twice_is_nearly_always_true(store: Store) -> None:
    edges = observed_edges(store)
    flowed = {name_of(edge) for edge in edges}
    assert score(edges, among=flowed).reaches(0.95, 0.6)


def test_every_edge_seen_to_flow_twice_is_in_the_graph(store: Store, shapes: Shapes) -> None:
    observed = observed_edges(store)
    graph = build_graph(tools(), observed=observed, shapes=schema_edges(tools(), shapes))
    twice = {(name_of(edge), edge.output) for edge in observed if edge.seen >= 2}
    assert len(twice) > 30
    assert twice <= {(name_of(edge), edge.output) for edge in graph.edges if edge.seen >= 2}
