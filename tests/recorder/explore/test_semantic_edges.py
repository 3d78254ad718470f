"""Edges by embedding: near names are joined, far ones are not, and the work is bounded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recorder.embedder import SentenceEmbedder
from recorder.exchange import ToolRef
from recorder.explore.graph import CONFIDENT, Edge
from recorder.explore.semantic_edges import MOST_ACROSS, MOST_WITHIN, semantic_edges
from recorder.explore.shapes import Seen
from recorder.tool import ToolSpec
from tests.tiny_embedder import build_tiny_embedder

numpy = pytest.importorskip("numpy", reason="embeddings need numpy: pip install 'firefly-proxy[semantic]'")


class WordEmbedder:
    """Texts with the same words, whatever their order, are one point; `alike` names words for the same."""

    name = "words"

    def __init__(self, alike: dict[str, str] | None = None) -> None:
        self.embedded: list[str] = []
        self._alike = alike or {}

    def embed(self, texts: Sequence[str]) -> Any:
        self.embedded += texts
        rows = numpy.zeros((len(texts), 512), dtype=numpy.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.replace(":", " ").split():
                digest = hashlib.blake2b(self._alike.get(word, word).encode(), digest_size=2).digest()
                row[int.from_bytes(digest, "big") % 512] += 1
            row /= numpy.linalg.norm(row) or 1
        return rows


def tool(server: str, name: str, *, takes: Any = None, gives: Any = None, about: str = "") -> ToolSpec:
    """Parameters and output fields, each by its description."""

    def schema(fields: dict[str, Any]) -> dict[str, Any]:
        parts = {
            field: part if isinstance(part, dict) else {"type": "string", "description": part}
            for field, part in fields.items()
        }
        return {"type": "object", "properties": parts}

    entry = {"name": name, "description": about, "inputSchema": schema(takes or {})}
    return ToolSpec(
        server=server,
        name=name,
        version="1",
        entry={**entry, **({"outputSchema": schema(gives)} if gives else {})},
    )


def joined(edges: list[Edge]) -> set[tuple[str, str, str, str]]:
    return {(edge.producer.name, edge.output, edge.consumer.name, edge.parameter) for edge in edges}


def test_names_for_the_same_thing_are_joined_and_others_are_not() -> None:
    tools = [
        tool("a", "find_flight", gives={"booking": "locator of the trip", "price": "in euros"}),
        tool("a", "cancel", takes={"reservation": "locator of the trip", "reason": "free text"}),
    ]
    (edge,) = semantic_edges(tools, WordEmbedder({"reservation": "booking"}))
    assert edge == Edge(
        producer=ToolRef("a", "find_flight"),
        output="$.booking",
        consumer=ToolRef("a", "cancel"),
        parameter="reservation",
        evidence="semantic",
        confidence=0.8,
    )


def test_what_a_tool_without_fields_returns_is_what_it_says_and_less_sure() -> None:
    tools = [
        tool("a", "list_invoices", about="open bill"),
        tool("a", "pay", takes={"invoice": "open bill"}),
    ]
    (edge,) = semantic_edges(tools, WordEmbedder())
    assert (edge.output, edge.parameter) == ("$", "invoice")
    assert edge.confidence == pytest.approx(0.6)
    seen = {ToolRef("a", "list_invoices"): [Seen(("rows", "*", "total"), (12,))]}
    assert semantic_edges(tools, WordEmbedder(), shapes=seen) == []


def test_places_within_lists_and_objects_are_named() -> None:
    tools = [
        tool(
            "a",
            "search",
            gives={
                "hits": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"author": {"type": "string"}}},
                }
            },
        ),
        tool(
            "a",
            "follow",
            takes={
                "who": {
                    "type": "object",
                    "properties": {"authors": {"type": "array", "items": {"type": "string"}}},
                }
            },
        ),
    ]
    assert joined(semantic_edges(tools, WordEmbedder())) == {
        ("search", "$.hits[*].author", "follow", "who.authors[*]")
    }


def test_an_id_serves_its_own_server_better_than_another() -> None:
    def pair(server: str) -> list[ToolSpec]:
        return [
            tool(server, "open_account", gives={"account_id": "number"}),
            tool(server, "close", takes={"account_id": "number"}),
        ]

    found = semantic_edges([*pair("bank"), *pair("shop")], WordEmbedder())
    confidences = {(edge.producer.server, edge.consumer.server): edge.confidence for edge in found}
    assert confidences["bank", "bank"] == confidences["shop", "shop"] >= CONFIDENT
    assert confidences["bank", "shop"] == confidences["shop", "bank"] < CONFIDENT


def test_flags_choices_and_limits_are_no_parameters_to_feed() -> None:
    gives = {
        "verbose": {"type": "boolean"},
        "colour": {"enum": ["red", "blue"]},
        "limit": {"type": "integer"},
    }
    tools = [tool("a", "settings", gives=gives), tool("a", "paint", takes=gives)]
    assert semantic_edges(tools, WordEmbedder()) == []


def test_of_many_alike_a_parameter_gets_a_bounded_number_and_each_text_is_embedded_once() -> None:
    tools = [
        tool(f"s{number % 20}", f"call_{number}", gives={"city": "a town"}, takes={"city": "a town"})
        for number in range(400)
    ]
    embedder = WordEmbedder()
    edges = semantic_edges(tools, embedder)
    assert embedder.embedded == ["city: a town"]
    into = {edge.consumer: 0 for edge in edges}
    for edge in edges:
        assert edge.producer != edge.consumer
        into[edge.consumer] += 1
    assert set(into.values()) == {MOST_WITHIN + MOST_ACROSS}
    assert edges == semantic_edges(tools, WordEmbedder())


def test_the_threshold_is_an_argument_and_nothing_comes_of_nothing() -> None:
    tools = [
        tool("a", "find", gives={"booking": "locator of a trip"}),
        tool("a", "cancel", takes={"booking": "locator of one trip"}),
    ]
    assert semantic_edges(tools, WordEmbedder()) == []
    (edge,) = semantic_edges(tools, WordEmbedder(), least_cosine=0.5)
    assert edge.confidence < CONFIDENT
    assert semantic_edges([], WordEmbedder()) == []
    with pytest.raises(ValueError, match=r"least_cosine must be in \(0, 1\], got 0"):
        semantic_edges([], WordEmbedder(), least_cosine=0)


def test_a_model_of_sentence_transformers_does_it(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'firefly-proxy[semantic]'")
    embedder = SentenceEmbedder(build_tiny_embedder(tmp_path / "tiny"))
    tools = [
        tool("a", "forecast", gives={"city": "the city of the weather", "wind": "wind today"}),
        tool("a", "book_train", takes={"city": "the city of the weather"}),
    ]
    told: list[tuple[int, int]] = []
    edges = semantic_edges(tools, embedder, progress=lambda done, of: told.append((done, of)))
    assert ("forecast", "$.city", "book_train", "city") in joined(edges)
    assert told == [(3, 3)]
