"""`firefly graph`: what it says, writes and draws; servers that it asks; and a judge that is paid for."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from firefly_proxy.graph_view import MOST_PAGE_EDGES, page_data
from recorder.explore.graph import Edge
from recorder.explore.infer import build_graph
from recorder.importer import import_files, import_sessions
from recorder.store import Store
from recorder.tool import ToolSpec
from tests.servers.messages_endpoint import MessagesEndpoint, Received, Reply, message
from tests.tiny_embedder import build_tiny_embedder

ROOT = Path(__file__).parents[2]
ECHO = [sys.executable, str(ROOT / "tests" / "servers" / "echo.py")]
Json = dict[str, Any]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "firefly_proxy.main", "graph", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    return {**kept, "NO_PROXY": "127.0.0.1", **more}


def graph(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment(**variables),
        check=False,
    )


def as_json(*arguments: object, **variables: str) -> Json:
    """The one JSON object that it prints."""
    ended = graph("--json", *arguments, **variables)
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    return dict(json.loads(line))


def entry(name: str, server: str = "shop", gives: Json | None = None, **takes: str) -> Json:
    """A tool whose parameters, and output fields if any, have descriptions."""

    def schema(fields: Json) -> Json:
        parts = {field: {"type": "string", "description": text} for field, text in fields.items()}
        return {"type": "object", "properties": parts, "required": list(parts)}

    output = {"outputSchema": schema(gives)} if gives else {}
    return {
        "server": server,
        "name": name,
        "description": f"The {name} tool.",
        "inputSchema": schema(takes),
        **output,
    }


def listed(db: Path, entries: Sequence[Json]) -> Path:
    tools = db.with_suffix(".jsonl")
    tools.write_text("\n".join(map(json.dumps, entries)))
    assert import_files(db, [], tools=[tools]).problems == []
    return db


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A shop whose order ids were seen to flow twice, and a lamp that has to do with nothing."""
    calls = [
        {
            "server": "shop",
            "tool": "list_orders",
            "arguments": {},
            "output": {"orders": [{"id": "ord-7781"}]},
        },
        {"server": "shop", "tool": "get_order", "arguments": {"order_id": "ord-7781"}, "output": "sent"},
    ]
    sessions = [{"session_id": f"s{number}", "group": "g", "calls": calls} for number in range(2)]
    db = tmp_path / "world.db"
    assert import_sessions(db, sessions).problems == []
    return listed(
        db,
        [
            entry("list_orders"),
            entry("get_order", order_id="which order"),
            entry("switch", "lamp", brightness="how bright"),
        ],
    )


def test_json_is_one_object_with_counts_nodes_and_edges(db: Path) -> None:
    view = as_json("--db", db)
    assert view["counts"]["tools"] == 3
    assert view["counts"]["servers"] == 2
    assert (
        view["counts"]["edges"]
        == len(view["edges"])
        == sum(tally["edges"] for tally in view["by_evidence"].values())
    )
    assert [(node["server"], node["name"]) for node in view["nodes"]] == [
        ("lamp", "switch"),
        ("shop", "get_order"),
        ("shop", "list_orders"),
    ]
    (seen,) = (edge for edge in view["edges"] if edge["evidence"] == "observed")
    assert seen == {
        "producer": {"server": "shop", "name": "list_orders"},
        "output": "$.orders[*].id",
        "consumer": {"server": "shop", "name": "get_order"},
        "parameter": "order_id",
        "evidence": "observed",
        "confidence": seen["confidence"],
        "seen": 2,
    }
    assert view["isolated"] == [{"server": "lamp", "name": "switch"}]
    assert view["degrees"]["out"] == {"0": 2, "1": 1}
    assert view["degrees"]["confident_in"] == {"0": 2, "1": 1}
    (first, *_) = view["most_connected"]
    assert (first["server"], first["name"], first["in"]) == ("shop", "get_order", 1)


def test_for_people_it_prints_evidence_degrees_and_isolated_tools(db: Path) -> None:
    ended = graph("--db", db)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ended.stdout.startswith("3 tools of 2 servers, ")
    assert ["observed", "1", "1", "0"] in rows
    assert ["feed", "2", "1", "–", "–", "–", "–", "–", "–"] in rows
    assert "1 isolated: lamp/switch\n" in ended.stdout


def test_out_holds_nodes_and_edges(db: Path, tmp_path: Path) -> None:
    out = tmp_path / "graph.json"
    assert graph("--db", db, "--out", out).returncode == 0
    view = as_json("--db", db)
    assert json.loads(out.read_text()) == {"nodes": view["nodes"], "edges": view["edges"]}


def test_an_empty_recording_has_an_empty_graph(tmp_path: Path) -> None:
    db, page = tmp_path / "empty.db", tmp_path / "empty.html"
    import_sessions(db, [])
    ended = graph("--db", db, "--html", page)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("No tools are listed in this recording")
    view = as_json("--db", db)
    assert (view["nodes"], view["edges"], view["isolated"], view["counts"]["edges"]) == ([], [], [], 0)
    assert read_page(page)[0]["nodes"] == []


def test_what_cannot_be_read_or_written_is_one_line(db: Path, tmp_path: Path) -> None:
    ended = graph("--db", tmp_path / "none.db")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"firefly: .*none\.db.*\n", ended.stderr)
    ended = graph("--db", db, "--html", tmp_path / "nowhere" / "graph.html")
    assert ended.returncode == 1
    assert re.fullmatch(r"firefly: cannot write .*graph\.html: No such file or directory\n", ended.stderr)


def test_options_of_the_judge_need_one(db: Path) -> None:
    for options in (["--yes"], ["--max-usd", "1"], ["--base-url", "http://localhost:1"]):
        ended = graph("--db", db, *options)
        assert ended.returncode == 2
        assert "--base-url, --max-usd and --yes go with --judge" in ended.stderr


def test_called_tools_of_servers_without_a_list_are_in_the_graph(tmp_path: Path) -> None:
    db = tmp_path / "imported.db"
    calls = [
        {"server": "hr", "tool": "list_staff", "arguments": {}, "output": {"staff": [{"id": "emp-20931"}]}},
        {"server": "hr", "tool": "get_staff", "arguments": {"staff_id": "emp-20931"}, "output": "Ada"},
    ]
    import_sessions(db, [{"session_id": f"s{number}", "group": "g", "calls": calls} for number in range(2)])
    view = as_json("--db", db)
    assert [node["name"] for node in view["nodes"]] == ["get_staff", "list_staff"]
    assert view["by_evidence"]["observed"] == {"edges": 1, "confident": 1, "across_servers": 0}


# ------------------------------------------------------------------------------------------- servers to ask


def config(path: Path, **servers: Sequence[str]) -> Path:
    named = {name: {"command": argv[0], "args": list(argv[1:])} for name, argv in servers.items()}
    path.write_text(json.dumps({"mcpServers": named}))
    return path


def test_servers_of_a_configuration_are_asked_once_and_recorded(tmp_path: Path) -> None:
    db, file = tmp_path / "new.db", tmp_path / "mcp.json"
    view = as_json("--db", db, "--config", config(file, one=ECHO, two=ECHO))
    assert [(node["server"], node["name"]) for node in view["nodes"]] == [("one", "echo"), ("two", "echo")]
    assert sorted(server.name for session in Store(db).sessions() for server in session.servers) == [
        "one",
        "two",
    ]
    again = as_json("--db", db, "--config", config(file, one=["/nowhere/at/all"], two=["/nowhere/at/all"]))
    assert again == view
    assert len(Store(db).sessions()) == 2


def test_a_server_that_does_not_start_is_one_line_and_the_others_are_there(tmp_path: Path) -> None:
    db, file = tmp_path / "new.db", tmp_path / "mcp.json"
    ended = graph("--db", db, "--json", "--config", config(file, gone=["/nowhere/at/all"], echo=ECHO))
    assert ended.returncode == 1
    assert re.fullmatch(r"firefly: live server 'gone', .*\n", ended.stderr)
    assert [node["server"] for node in json.loads(ended.stdout)["nodes"]] == ["echo"]


# -------------------------------------------------------------------------------------------------- the judge


@pytest.fixture
def unsure(tmp_path: Path) -> Path:
    """Tools of which schemas suggest links that are not sure."""
    return listed(
        tmp_path / "unsure.db",
        [
            entry("list_tickets", "desk", gives={"ticket_id": "which"}),
            entry("open_ticket", "crm", ticket_id="which"),
            entry("close_ticket", "crm", ticket_id="which"),
        ],
    )


def verdicts(received: Received) -> Reply:
    """High for what opens a ticket, none for what closes one."""
    names = dict(re.findall(r'^(t\d+) \{"server": "\w+", "name": "(\w+)"', received.prompt, re.MULTILINE))
    pairs = [json.loads(line) for line in received.prompt.splitlines() if line.startswith('{"pair"')]
    judged = {str(pair["pair"]): "high" if names[pair["to"]] == "open_ticket" else "none" for pair in pairs}
    return message(json.dumps(judged))


@pytest.fixture
def endpoint() -> Iterator[MessagesEndpoint]:
    with MessagesEndpoint(verdicts) as endpoint:
        yield endpoint


def judging(db: Path, endpoint: MessagesEndpoint) -> list[object]:
    return ["--db", db, "--judge", "claude-haiku-4-5", "--base-url", endpoint.url]


def test_a_judge_strengthens_and_rejects_links_and_is_not_asked_twice(
    unsure: Path, endpoint: MessagesEndpoint
) -> None:
    before = as_json("--db", unsure)
    assert before["counts"]["confident"] == 0
    assert {edge["consumer"]["name"] for edge in before["edges"]} >= {"open_ticket", "close_ticket"}
    ended = graph("--json", "--yes", *judging(unsure, endpoint), ANTHROPIC_API_KEY="key-of-the-test")
    assert ended.returncode == 0, ended.stderr
    costs, done = ended.stderr.splitlines()
    assert re.fullmatch(
        r"judging \d+ pairs by claude-haiku-4-5 takes 1 prompts with about [\d,]+ tokens"
        r" \(about \$0\.00\d\d\)",
        costs,
    )
    assert re.fullmatch(
        r"judged: \d pairs now in 1 prompts for \$0\.0002, 0 known before, 0 left without a verdict"
        r" \(0 broken answers\)",
        done,
    )
    view = json.loads(ended.stdout)
    assert {
        (edge["consumer"]["name"], edge["evidence"], edge["confidence"])
        for edge in view["edges"]
        if edge["confidence"] >= 0.6
    } == {("open_ticket", "judged", 0.9)}
    assert "close_ticket" not in {edge["consumer"]["name"] for edge in view["edges"]}
    assert (view["judged"]["broken"], view["judged"]["cached"]) == (0, 0)
    assert len(endpoint.received) == 1
    # All is known: nothing is asked, so neither --yes nor a key is needed.
    again = as_json(*judging(unsure, endpoint))
    assert (again["edges"], again["judged"]["judged"]) == (view["edges"], 0)
    assert (len(endpoint.received), endpoint.refused) == (1, [])


def test_without_a_terminal_to_ask_at_nothing_is_spent(unsure: Path, endpoint: MessagesEndpoint) -> None:
    ended = graph(*judging(unsure, endpoint), ANTHROPIC_API_KEY="key-of-the-test")
    assert (ended.returncode, ended.stdout, endpoint.received) == (1, "", [])
    assert re.fullmatch(r"firefly: judging .* \$0\.00\d\d\): add --yes to go on, .*\n", ended.stderr)


@pytest.mark.parametrize(("answer", "asked"), [("y", 1), ("n", 0)])
def test_at_a_terminal_it_asks_before_it_spends(
    unsure: Path, endpoint: MessagesEndpoint, answer: str, asked: int
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("--json", *judging(unsure, endpoint)),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
        env=environment(ANTHROPIC_API_KEY="key-of-the-test"),
    )
    os.close(theirs)
    said = b""
    while b"Go on?" not in said:
        said += os.read(ours, 4096)
    assert b"about $0.0" in said
    assert endpoint.received == []
    os.write(ours, answer.encode() + b"\n")
    out, _ = process.communicate(timeout=30)
    os.close(ours)
    assert (process.returncode, len(endpoint.received)) == (0, asked)
    assert json.loads(out)["judged"]["judged"] == json.loads(out)["judged"]["rejected"] + asked


def test_a_missing_key_is_said_before_the_question(unsure: Path, endpoint: MessagesEndpoint) -> None:
    ended = graph(*judging(unsure, endpoint), "--yes", HOME=str(unsure.parent))
    assert ended.returncode == 1
    assert ended.stderr == "firefly: ANTHROPIC_API_KEY is not set, and claude-haiku-4-5 needs an API key\n"


def test_a_budget_holds(unsure: Path, endpoint: MessagesEndpoint) -> None:
    ended = graph(
        *judging(unsure, endpoint), "--yes", "--max-usd", "0.001", ANTHROPIC_API_KEY="key-of-the-test"
    )
    assert (ended.returncode, endpoint.received) == (1, [])
    assert "at most $0.001" in ended.stderr
    assert "firefly: judging stopped: the budget of $0.001 for claude-haiku-4-5 is used up" in ended.stderr
    assert ended.stdout.startswith("3 tools of 2 servers")


def test_an_embedding_links_names_that_mean_the_same(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="pip install 'firefly-proxy[semantic]'")
    model = build_tiny_embedder(tmp_path / "tiny")
    told = "the temperature of the city today and the wind in the city tomorrow"
    db = listed(
        tmp_path / "weather.db",
        [entry("forecast", "sky", gives={"rain": told}), entry("dress", "wardrobe", cold=told)],
    )
    view = as_json("--db", db, "--semantic", model)
    (edge,) = (edge for edge in view["edges"] if edge["evidence"] == "semantic")
    assert (edge["output"], edge["parameter"]) == ("$.rain", "cold")


# --------------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """What a browser would see of a page's elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._within] = self.texts.get(self._within, "") + data


def read_page(path: Path) -> tuple[Json, Page]:
    """The data within a page, and the page."""
    page = Page(path.read_text(encoding="utf-8"))
    return json.loads(page.texts["data"]), page


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "quote \" and ' and \\ and &lt; and {{DATA}} and ]]>",
    "line\u2028and\u2029paragraph\nand \x00 and \ud800",
    "Grüße, 你好, 🌍",
]


def test_whatever_servers_are_called_and_say_the_page_holds_it_as_data(tmp_path: Path) -> None:
    plain, hostile = tmp_path / "plain.html", tmp_path / "hostile.html"
    calm = listed(tmp_path / "calm.db", [entry(f"tool_{number}", item="a thing") for number in range(6)])
    wild = listed(
        tmp_path / "wild.db",
        [
            {
                **entry(text, f"server {text}", gives={text: text, "thing": "x"}, thing="x", **{text: text}),
                "description": text,
            }
            for text in HOSTILE
        ],
    )
    assert graph("--db", calm, "--html", plain).returncode == 0
    assert graph("--db", wild, "--html", hostile).returncode == 0
    (_, expected), (data, page) = read_page(plain), read_page(hostile)
    assert page.elements == expected.elements
    shown = [text.replace("\ud800", "?") for text in HOSTILE]
    assert sorted(node[1].replace("\ud800", "?") for node in data["nodes"]) == sorted(shown)
    assert sorted(data["servers"]) == sorted({data["servers"][node[0]] for node in data["nodes"]})
    abouts = {node[1]: node[2] for node in data["nodes"]}
    assert abouts[HOSTILE[0]] == HOSTILE[0]
    places = {parameter[3] for node in data["nodes"] for parameter in node[3]}
    assert {HOSTILE[0], HOSTILE[2], HOSTILE[5]} <= places
    raw = hostile.read_text(encoding="utf-8")
    embedded = raw[raw.index('id="data">') : raw.index("</script>")]
    assert not set(embedded[len('id="data">') :]) & set("<>&\u2028\u2029")


def test_the_page_needs_nothing_else(db: Path, tmp_path: Path) -> None:
    page = tmp_path / "graph.html"
    assert graph("--db", db, "--html", page).stdout.endswith(f"drawn in {page}\n")
    data, parsed = read_page(page)
    named = [attributes for _, attributes in parsed.elements if {"src", "href"} & set(attributes)]
    assert named == []
    addresses = set(re.findall(r"https?://[^\"' )]+", page.read_text(encoding="utf-8")))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert (data["title"], data["servers"]) == ("world.db", ["lamp", "shop"])
    assert [node[1] for node in data["nodes"]] == ["switch", "get_order", "list_orders"]
    assert data["nodes"][1][2:] == ["The get_order tool.", [["order_id", "string", 1, "which order"]]]
    observed = [edge for edge in data["edges"] if data["evidence"][edge[4]] == "observed"]
    ((producer, output, consumer, parameter, _, _, seen),) = observed
    assert (producer, data["texts"][output], consumer, data["texts"][parameter], seen) == (
        2,
        "$.orders[*].id",
        1,
        "order_id",
        2,
    )


def test_of_very_many_edges_the_page_holds_the_surest_and_says_so() -> None:
    tools = [ToolSpec(server="s", name=f"{n}", version="1", entry={"name": f"{n}"}) for n in range(200)]
    pairs = [(one.ref, other.ref) for one in tools for other in tools if one is not other]
    edges = [
        Edge(
            producer=producer,
            output="$",
            consumer=consumer,
            parameter="x",
            evidence="schema",
            confidence=0.3 if number < len(pairs) - MOST_PAGE_EDGES else 0.8,
        )
        for number, (producer, consumer) in enumerate(pairs)
    ]
    data = page_data(build_graph(tools, (), edges), tools, "many")
    assert (len(data["edges"]), data["left_out"]) == (MOST_PAGE_EDGES, len(pairs) - MOST_PAGE_EDGES)
    assert {edge[5] for edge in data["edges"]} == {0.8}
