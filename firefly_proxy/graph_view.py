"""What `firefly graph` shows: counts and tables for people, one JSON object, and a page to look around in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from inspect import cleandoc
from pathlib import Path
from typing import Any

from firefly_proxy.tables import cell, console, table
from recorder.canonical import encodable, readable_json
from recorder.errors import FireflyError
from recorder.exchange import ToolRef
from recorder.explore.graph import CONFIDENT, EVIDENCE, Edge, ToolGraph
from recorder.explore.infer import latest_versions
from recorder.explore.observed import parameter_text
from recorder.explore.parameters import input_schema, type_of, walk
from recorder.tool import ToolSpec

MOST_CONNECTED, MOST_ISOLATED = 10, 20
"""Tools that are named in what is printed; JSON has all that are isolated."""

BUCKETS = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, None))
"""Ranges of degrees, last one included, in the printed table."""

MOST_PAGE_EDGES = 30_000
"""Of the surest edges that a page holds: browsers draw some ten thousand lines smoothly."""

TOOL_CHARACTERS, PARAMETER_CHARACTERS = 1500, 300
"""Of descriptions in a page."""

PLACE = "{{DATA}}"
"""Where the page's template wants its data."""


def summary(graph: ToolGraph) -> dict[str, Any]:
    """Return what is counted in a graph, without its nodes and edges."""
    counts = graph.counts()
    across = Counter(edge.evidence for edge in graph.edges if edge.producer.server != edge.consumer.server)
    confident = Counter(edge.evidence for edge in graph.edges if edge.confidence >= CONFIDENT)
    feeds, fed = _neighbours(graph, 0.0)
    sure_feeds, sure_fed = _neighbours(graph, CONFIDENT)
    refs = [node.ref for node in graph.nodes]
    connected = sorted(
        refs,
        key=lambda ref: (
            -(sure_feeds[ref] + sure_fed[ref]),
            -(feeds[ref] + fed[ref]),
            ref,
        ),
    )
    return {
        "counts": {
            "tools": len(graph.nodes),
            "servers": len({node.server for node in graph.nodes}),
            "edges": len(graph.edges),
            "confident": sum(confident.values()),
            "across_servers": sum(across.values()),
        },
        "by_evidence": {
            evidence: {
                "edges": counts[evidence],
                "confident": confident[evidence],
                "across_servers": across[evidence],
            }
            for evidence in EVIDENCE
        },
        "degrees": {
            "out": _histogram(feeds[ref] for ref in refs),
            "in": _histogram(fed[ref] for ref in refs),
            "confident_out": _histogram(sure_feeds[ref] for ref in refs),
            "confident_in": _histogram(sure_fed[ref] for ref in refs),
        },
        "most_connected": [
            {
                "server": ref.server,
                "name": ref.name,
                "out": feeds[ref],
                "in": fed[ref],
                "confident_out": sure_feeds[ref],
                "confident_in": sure_fed[ref],
            }
            for ref in connected[:MOST_CONNECTED]
            if feeds[ref] or fed[ref]
        ],
        "isolated": [ref._asdict() for ref in graph.isolated()],
    }


def print_graph(view: Mapping[str, Any]) -> None:
    """Print what `summary` returns."""
    out, counts = console(), view["counts"]
    if not counts["tools"]:
        out.print("No tools are listed in this recording, so there is no graph.")
        return
    out.print(
        cell(
            f"{_number(counts['tools'], 'tool')} of {_number(counts['servers'], 'server')}, "
            f"{_number(counts['edges'], 'edge')}: {counts['confident']:,} worth walking along "
            f"(confidence {CONFIDENT:g} or more), {counts['across_servers']:,} between servers"
        ),
        soft_wrap=True,
    )
    columns = ("edges", "confident", "between servers")
    listing = table("evidence", *columns, right=columns)
    for evidence, tally in view["by_evidence"].items():
        listing.add_row(evidence, *(f"{tally[key]:,}" for key in ("edges", "confident", "across_servers")))
    out.print(listing)
    names = [_range(low, high) for low, high in BUCKETS]
    listing = table("tools that are linked to", *names, right=names)
    for title, key in (
        ("feed", "out"),
        ("feed, confident", "confident_out"),
        ("are fed by", "in"),
        ("are fed by, confident", "confident_in"),
    ):
        tools = [_within(view["degrees"][key], low, high) for low, high in BUCKETS]
        listing.add_row(title, *(f"{number:,}" if number else "–" for number in tools))
    out.print(listing)
    if view["most_connected"]:
        ways = ("feeds, confident of all", "is fed by")
        listing = table("most connected", *ways, right=ways)
        for tool in view["most_connected"]:
            pairs = [(tool[f"confident_{way}"], tool[way]) for way in ("out", "in")]
            listing.add_row(
                cell(f"{tool['server']}/{tool['name']}"), *(f"{sure:,} of {every:,}" for sure, every in pairs)
            )
        out.print(listing)
    isolated = [f"{tool['server']}/{tool['name']}" for tool in view["isolated"]]
    if isolated:
        more = len(isolated) - MOST_ISOLATED
        named = ", ".join(isolated[:MOST_ISOLATED]) + (f" and {more:,} more" if more > 0 else "")
        out.print(cell(f"{len(isolated):,} isolated: {named}"), soft_wrap=True)


def write_graph(graph: ToolGraph, path: Path) -> None:
    """Write nodes and edges as JSON.

    Raises:
        FireflyError: the file cannot be written.
    """
    _write(path, readable_json(graph.as_json()) + "\n")


def write_page(graph: ToolGraph, tools: Iterable[ToolSpec], title: str, path: Path) -> None:
    """Write the graph as one page that needs nothing else.

    Args:
        tools: As given to `build_graph`; descriptions and parameters come from them.
        title: Names the graph.

    Raises:
        FireflyError: the file cannot be written.
    """
    template = files("firefly_proxy").joinpath("graph.html").read_text(encoding="utf-8")
    head, _, tail = template.partition(PLACE)
    _write(path, head + _embedded(page_data(graph, tools, title)) + tail)


def page_data(graph: ToolGraph, tools: Iterable[ToolSpec], title: str) -> dict[str, Any]:
    """Return what the page is given: lists in place of objects, since there may be many."""
    specs = {tool.ref: tool for tool in latest_versions(tools)}
    servers = {server: number for number, server in enumerate(dict.fromkeys(n.server for n in graph.nodes))}
    numbers = {node.ref: number for number, node in enumerate(graph.nodes)}
    edges: Sequence[Edge] = graph.edges
    if len(edges) > MOST_PAGE_EDGES:
        edges = sorted(edges, key=lambda edge: -edge.confidence)[:MOST_PAGE_EDGES]
    texts: dict[str, int] = {}
    rows = [
        [
            numbers[edge.producer],
            texts.setdefault(edge.output, len(texts)),
            numbers[edge.consumer],
            texts.setdefault(edge.parameter, len(texts)),
            EVIDENCE.index(edge.evidence),
            round(edge.confidence, 3),
            edge.seen,
        ]
        for edge in edges
    ]
    return {
        "title": title,
        "servers": list(servers),
        "evidence": EVIDENCE,
        "confident": CONFIDENT,
        "nodes": [
            [servers[node.server], node.name, *_described(specs.get(node.ref))] for node in graph.nodes
        ],
        "texts": list(texts),
        "edges": rows,
        "left_out": len(graph.edges) - len(edges),
    }


def _described(tool: ToolSpec | None) -> tuple[str, list[list[Any]]]:
    """Return a tool's description and parameters: place, type, whether required, description."""
    if tool is None:
        return "", []
    schema = input_schema(tool.entry)
    parameters = []
    for path, part, required in walk(schema, schema):
        kind = type_of(part) or ""
        choices = part.get("enum")
        if isinstance(choices, list) and choices:
            kind = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices[:8])
        note = _cut(part.get("description"), PARAMETER_CHARACTERS)
        parameters.append([parameter_text(path), kind, int(required), note])
    return _cut(tool.entry.get("description"), TOOL_CHARACTERS), parameters


def _cut(text: object, limit: int) -> str:
    if not isinstance(text, str):
        return ""
    text = cleandoc(text)  # many are Python's, with its indentation
    return text if len(text) <= limit else f"{text[:limit]}…"


def _embedded(value: object) -> str:
    """Return JSON that may stand in a `script` element: no text in it can end that or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(encodable(text), encoding="utf-8")
    except OSError as error:
        raise FireflyError(f"cannot write {path}: {error.strerror}") from error


def _neighbours(graph: ToolGraph, least: float) -> tuple[Counter[ToolRef], Counter[ToolRef]]:
    """Return to how many other tools each is linked, out and in, by edges at least so sure."""
    pairs = {
        (edge.producer, edge.consumer)
        for edge in graph.edges
        if edge.confidence >= least and edge.producer != edge.consumer
    }
    return Counter(producer for producer, _ in pairs), Counter(consumer for _, consumer in pairs)


def _histogram(degrees: Iterable[int]) -> dict[str, int]:
    return {str(degree): number for degree, number in sorted(Counter(degrees).items())}


def _within(histogram: Mapping[str, int], low: int, high: int | None) -> int:
    return sum(
        number
        for degree, number in histogram.items()
        if int(degree) >= low and (high is None or int(degree) <= high)
    )


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}–{high}"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
