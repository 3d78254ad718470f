from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recorder.exchange import ToolRef
from recorder.explore.graph import CONFIDENT, Edge
from recorder.explore.observed import confidence_of, identifying, observed_edges
from recorder.importer import import_sessions
from recorder.store import Store
from recorder.writer import RecordingWriter


def call(name: str, output: object, error: bool = False, server: str = "shop", **arguments: Any) -> Any:
    text = output if isinstance(output, str) else json.dumps(output)
    return {"server": server, "tool": name, "arguments": arguments, "output": text, "is_error": error}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


def seen(path: Path, *sessions: list[Any]) -> list[Edge]:
    import_sessions(
        path,
        [
            {"session_id": str(number), "group": str(number), "calls": calls}
            for number, calls in enumerate(sessions)
        ],
    )
    return observed_edges(Store(path))


def flows(edges: list[Edge]) -> set[tuple[str, str, str, str, int]]:
    return {
        (edge.producer.name, edge.output, edge.consumer.name, edge.parameter, edge.seen) for edge in edges
    }


def test_a_value_that_was_told_and_then_given_is_an_edge(path: Path) -> None:
    listed = call("list_orders", {"orders": [{"id": "W2378156"}, {"id": 4410287}]})
    edges = seen(path, [listed, call("get_order", {}, id="W2378156"), call("get_order", {}, id="4410287")])
    assert flows(edges) == {("list_orders", "$.orders[*].id", "get_order", "id", 2)}
    assert edges[0].confidence >= CONFIDENT


def test_an_argument_that_comes_back_is_no_news(path: Path) -> None:
    asked = call("get_order", {"id": "W2378156", "owner": "ada_1815"}, id="W2378156")
    edges = seen(path, [asked, call("cancel", "ok", id="W2378156"), call("get_user", {}, user="ada_1815")])
    assert flows(edges) == {("get_order", "$.owner", "get_user", "user", 1)}


def test_values_within_lists_objects_and_prose_are_followed(path: Path) -> None:
    made = call("export", "The report was written to /srv/out/q3.csv, as asked.")
    listed = call("list_items", "| item | name |\n|---|---|\n| B-2001 | lamp |\n| B-2002 | desk |")
    bought = call("buy", "ok", lines=[{"item": "B-2001"}, {"item": "B-2002"}])
    edges = seen(path, [made, listed, call("read", "", path="/srv/out/q3.csv"), bought])
    assert flows(edges) == {
        ("export", "$", "read", "path", 1),
        ("list_items", "$[*].item", "buy", "lines[*].item", 2),
    }


def test_a_path_may_be_put_together_from_a_folder_and_a_listed_name(path: Path) -> None:
    listed = call("ls", "[FILE] spring.md\n[FILE] autumn.md", path="/srv")
    edges = seen(path, [listed, call("cat", "# Spring", path="/srv/spring.md")])
    assert flows(edges) == {("ls", "$[*]", "cat", "path", 1)}


def test_a_tool_may_feed_itself(path: Path) -> None:
    first = call("page", {"next": "cursor-77c1", "rows": []})
    assert flows(seen(path, [first, call("page", {}, cursor="cursor-77c1")])) == {
        ("page", "$.next", "page", "cursor", 1)
    }


def test_values_do_not_flow_between_sessions(path: Path) -> None:
    listed = call("list_orders", [{"id": "W2378156"}])
    assert seen(path, [listed], [call("get_order", {}, id="W2378156")]) == []


@pytest.mark.parametrize("run", ["1", None])
def test_sessions_of_one_run_are_one_walk(path: Path, run: str | None) -> None:
    """Each server has a session of its own, and these interleave."""
    writers = [RecordingWriter(path, group="walk", run=run) for _ in range(2)]
    servers = [writer.add_server(name, {}) for writer, name in zip(writers, ("a", "b"), strict=True)]
    said: list[tuple[int, str, dict[str, str], str]] = [
        (0, "list", {}, "/srv/one.txt"),
        (1, "read", {"path": "/srv/one.txt"}, "see ticket T-9911"),
        (0, "open", {"ticket": "T-9911"}, "done"),
    ]
    for number, (side, tool, arguments, text) in enumerate(said):
        asked = {"id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        answer = {"id": number, "result": {"content": [{"type": "text", "text": text}]}}
        for direction, message in (("to_server", asked), ("to_client", answer)):
            line = json.dumps({"jsonrpc": "2.0", **message}).encode()
            writers[side].record(servers[side], direction, [line])  # type: ignore[arg-type]
    for writer in writers:
        writer.end("done")
    edges = [(edge.producer, edge.consumer) for edge in observed_edges(Store(path))]
    a, b = ToolRef("a", "list"), ToolRef("b", "read")
    assert edges == ([(a, b), (b, ToolRef("a", "open"))] if run else [])


def test_what_failed_or_may_be_chance_is_kept_without_confidence(path: Path) -> None:
    listed = call("list_orders", [{"id": "W2378156"}])
    wrong = call("get_user", "no such user", error=True, user="W2378156")
    said = call("status", "the lamp is nearly ready for pickup")
    edges = seen(path, *[[listed, wrong, said, call("find", [], word="nearly")]] * 3)
    assert flows(edges) == {
        ("list_orders", "$[*].id", "get_user", "user", 3),
        ("status", "$", "find", "word", 3),
    }
    assert all(edge.confidence < CONFIDENT for edge in edges)


def test_confidence_rises_with_the_count() -> None:
    rising = [confidence_of(sure, 0) for sure in (1, 2, 3, 10, 1000)]
    assert rising == sorted(set(rising))
    assert rising[0] < CONFIDENT <= rising[1] <= rising[-1] <= 1


@pytest.mark.parametrize(
    ("value", "compared"),
    [
        (True, None),
        (7, None),
        (4410287, "4410287"),
        (0.5, None),
        (52.5217, "52.5217"),
        ("abc", None),
        (" W-12 ", "W-12"),
        ("x" * 121, None),
    ],
)
def test_only_what_can_identify_something_is_followed(value: Any, compared: str | None) -> None:
    assert identifying(value) == compared
