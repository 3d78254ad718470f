"""What inferring a tool graph from schemas costs as the number of tools doubles: time, edges, memory.

    python tests/bench/graph.py --tools FILE [--least 125] [--seed 0] [--json FILE]

FILE holds tools, one JSON object a line, plain or gzip: `{"server", "name", "description", "inputSchema",
"outputSchema"?}`; or one document: a `tools/list` result, or an object of lists by server. Whole servers
are taken in a seeded order, until there are as many tools as wanted. Each size is measured in a process of
its own, without embeddings and without a recording. Prints a table, then one JSON line.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from recorder.canonical import content_hash
from recorder.explore.graph import CONFIDENT
from recorder.explore.infer import build_graph, latest_versions
from recorder.explore.shapes import schema_edges
from recorder.tool import ToolSpec
from tests.bench.proxy_overhead import commit, machine

GZIP_MAGIC = b"\x1f\x8b"
LIMITS = {1_000: 5.0, 16_069: 180.0}
"""Seconds for so many tools."""
MOST_MB = 2_000


def tools_in(path: Path) -> list[ToolSpec]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == GZIP_MAGIC else data).decode()
    try:
        documents = [json.loads(text)]
    except ValueError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    entries = [entry for document in documents for entry in _entries(document, path.stem)]
    return list(
        latest_versions(
            ToolSpec(server=server, name=entry["name"], version=content_hash(entry), entry=entry)
            for server, entry in entries
        )
    )


def _entries(document: Any, server: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(document, list):
        for part in document:
            yield from _entries(part, server)
    elif isinstance(document, dict) and isinstance(document.get("name"), str):
        own = {name: value for name, value in document.items() if name != "server" and value is not None}
        yield str(document.get("server") or server), own
    elif isinstance(document, dict):
        for name in ("result", "tools"):
            if name in document:
                yield from _entries(document[name], server)
                return
        for name, part in document.items():
            yield from _entries(part, str(name))


def chosen(tools: list[ToolSpec], size: int, seed: int) -> list[ToolSpec]:
    """Return so many tools, of whole servers but for the last one."""
    servers: dict[str, list[ToolSpec]] = {}
    for tool in tools:
        servers.setdefault(tool.server, []).append(tool)
    names = sorted(servers)
    random.Random(seed).shuffle(names)
    return [tool for name in names for tool in servers[name]][:size]


def measure(tools: list[ToolSpec]) -> dict[str, Any]:
    before_mb = peak_mb()
    began = time.perf_counter()
    edges = schema_edges(tools)
    inferred = time.perf_counter()
    graph = build_graph(tools, shapes=edges)
    ended = time.perf_counter()
    return {
        "tools": len(graph.nodes),
        "servers": len({node.server for node in graph.nodes}),
        "seconds": ended - began,
        "infer_s": inferred - began,
        "merge_s": ended - inferred,
        "edges": len(graph.edges),
        "confident": sum(edge.confidence >= CONFIDENT for edge in graph.edges),
        "between_servers": sum(edge.producer.server != edge.consumer.server for edge in graph.edges),
        "isolated": len(graph.isolated()),
        "peak_mb": peak_mb(),
        "peak_before_mb": before_mb,
    }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def sizes(all_of_them: int, least: int) -> list[int]:
    found = []
    while least < all_of_them:
        found.append(least)
        least *= 2
    return [*found, all_of_them]


def goals(rows: list[dict[str, Any]]) -> dict[str, bool]:
    met = {
        f"{limit:,} tools within {seconds:g} s": all(
            row["seconds"] <= seconds for row in rows if row["tools"] <= limit
        )
        for limit, seconds in LIMITS.items()
        if any(row["tools"] <= limit for row in rows)
    }
    return met | {f"at most {MOST_MB:,} MB": all(row["peak_mb"] <= MOST_MB for row in rows)}


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'tools':>8}{'servers':>9}{'seconds':>9}{'infer':>8}{'merge':>8}{'edges':>10}", end="")
    print(f"{'confident':>11}{'between':>9}{'isolated':>10}{'peak MB':>9}")
    for row in rows:
        print(f"{row['tools']:8,}{row['servers']:9,}{row['seconds']:9.2f}{row['infer_s']:8.2f}", end="")
        print(f"{row['merge_s']:8.2f}{row['edges']:10,}{row['confident']:11,}", end="")
        print(f"{row['between_servers']:9,}{row['isolated']:10,}{row['peak_mb']:9.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what inferring a tool graph costs.")
    parser.add_argument("--tools", type=Path, required=True, metavar="FILE", help="tools as JSON, see above")
    parser.add_argument(
        "--least", type=int, default=125, help="the first size; each next one is twice as large"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order of servers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to this file, too")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    tools = tools_in(options.tools)
    if options.size:
        print(json.dumps(measure(chosen(tools, options.size, options.seed))))
        return
    rows = []
    for size in sizes(len(tools), options.least):
        print(f"{size:,} tools".ljust(30), end="\r", file=sys.stderr, flush=True)
        argv = [__file__, "--tools", str(options.tools), "--seed", str(options.seed), "--size", str(size)]
        ran = subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(ran.stdout.splitlines()[-1])
        rows.append({name: round(value, 3) for name, value in row.items()})
    met = goals(rows)
    print_table(rows)
    for goal, reached in met.items():
        print(f"{goal}: {'yes' if reached else 'NO'}")
    figures = {"bench": "graph", "file": options.tools.name, "sizes": rows, "goals": met}
    line = json.dumps({**figures, "machine": machine(), "commit": commit()})
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
