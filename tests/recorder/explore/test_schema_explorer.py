"""An explorer without a model, on small servers in memory: what it makes of outputs and errors."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from random import Random

import pytest

from recorder.canonical import canonical_json
from recorder.exchange import Json, ToolCall, ToolRef, ToolResult
from recorder.explore.experience import ServerExperience
from recorder.explore.roots import Roots
from recorder.explore.schema_explorer import SchemaExplorer, survey_order
from recorder.tool import ToolSpec

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


class Refusal(Exception):
    """What a server answers with an error."""


class Server:
    """Tools are the methods named in `tools`, with their parameters; each session has its own state."""

    tools: Mapping[str, Mapping[str, Json]] = {}

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []

    def __call__(self, call: ToolCall) -> ToolResult:
        self.calls.append(call)
        try:
            said, is_error = getattr(self, call.tool.name)(**call.arguments), False
        except (Refusal, TypeError, sqlite3.Error) as error:
            said, is_error = str(error), True
        text = said if isinstance(said, str) else json.dumps(said)
        return ToolResult(result={"content": [{"type": "text", "text": text}], "isError": is_error})

    @classmethod
    def specs(cls) -> list[ToolSpec]:
        return [
            ToolSpec(
                server="s",
                name=name,
                version="v",
                entry={
                    "name": name,
                    "description": str(getattr(cls, name).__doc__ or ""),
                    "inputSchema": {
                        "type": "object",
                        "properties": properties,
                        "required": [key for key, value in properties.items() if "default" not in value],
                    },
                },
            )
            for name, properties in cls.tools.items()
        ]

    def made(self, name: str) -> list[dict[str, Json]]:
        return [call.arguments for call in self.calls if call.tool.name == name]


def known_of(server: type[Server]) -> ServerExperience:
    known = ServerExperience("s")
    known.learn_tools(server.specs())
    return known


def explore(
    server: Server,
    known: ServerExperience | None = None,
    *,
    calls: int = 40,
    seed: int = 0,
    number: int = 0,
    tools: Sequence[ToolRef] | None = None,
) -> ServerExperience:
    known = known or known_of(type(server))
    order = survey_order(known, list(known.tools)) if tools is None else tools
    explorer = SchemaExplorer(lambda server, tool, path: [], {"s": Roots()}, lambda spec, arguments: True)
    explorer.walk(order, {"s": known}, server, calls=calls, rng=Random(seed), number=number)
    return known


SEEDS = pytest.mark.parametrize("seed", range(8))


class Project(Server):
    """Refuses everything until a project is open."""

    tools = {"count_lines": {}, "find_symbol": {"symbol": TEXT}, "open_project": {"project": TEXT}}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.project = ""

    def open_project(self, project: str) -> str:
        self.project = project
        return "opened, 17 files"

    def count_lines(self) -> Json:
        if not self.project:
            raise Refusal("No project is open. Call open_project first.")
        return {"lines": 120}

    def find_symbol(self, symbol: str) -> Json:
        if not self.project:
            raise Refusal("No project is open. Call open_project first.")
        return {"line": 17, "file": "main.py"}


@SEEDS
def test_a_set_up_call_that_an_error_asks_for_is_made(seed: int) -> None:
    known = explore(server := Project(), tools=[ToolRef("s", "count_lines")], seed=seed)
    assert known.tools["count_lines"].effective == 1
    assert [call.tool.name for call in server.calls[:3]] == ["count_lines", "open_project", "count_lines"]


@SEEDS
def test_in_a_fresh_session_set_up_comes_first(seed: int) -> None:
    known = explore(Project(), tools=[ToolRef("s", "count_lines")], seed=seed)
    explore(fresh := Project(), known, tools=[ToolRef("s", "find_symbol")], seed=seed, number=1)
    assert known.tools["find_symbol"].effective >= 1
    explore(again := Project(), known, tools=[ToolRef("s", "count_lines")], seed=seed, number=2)
    assert not again.calls or again.calls[0].tool.name == "open_project"
    assert "open_project" in {call.tool.name for call in fresh.calls[:3]}


class Units(Server):
    tools = {"convert": {"amount": NUMBER, "unit": TEXT}}  # noqa: RUF012

    def convert(self, amount: int, unit: str) -> Json:
        if unit not in ("furlong", "rod"):
            raise Refusal(f"unit: '{unit}' is not one of ['furlong', 'rod']")
        return {"metres": amount * 201}


@SEEDS
def test_an_allowed_value_is_learned_from_an_error(seed: int) -> None:
    explore(server := Units(), seed=seed, calls=8)
    units = [arguments["unit"] for arguments in server.made("convert")]
    assert units[1] in ("furlong", "rod")
    assert {"furlong", "rod"} <= set(units)


class Tasks(Server):
    tools = {  # noqa: RUF012
        "delete_task": {"task_id": TEXT},
        "get_task": {"task_id": TEXT},
        "create_task": {"title": TEXT},
    }

    def __init__(self, last: int = 700) -> None:
        super().__init__()
        self.tasks: dict[str, str] = {}
        self.last = last

    def create_task(self, title: str) -> Json:
        self.last += 37
        self.tasks[f"t{self.last}"] = title
        return {"id": f"t{self.last}", "state": "open"}

    def get_task(self, task_id: str) -> Json:
        if task_id not in self.tasks:
            raise Refusal(f"task {task_id} does not exist")
        return {"title": self.tasks[task_id], "state": "open", "age": 3}

    def delete_task(self, task_id: str) -> Json:
        if self.tasks.pop(task_id, None) is None:
            raise Refusal(f"task {task_id} does not exist")
        return {"left": len(self.tasks)}


@SEEDS
def test_an_id_that_a_creating_tool_returned_is_used(seed: int) -> None:
    known = explore(server := Tasks(), seed=seed)
    assert all(tool.effective for tool in known.tools.values())
    assert {f"t{737 + 37 * number}" for number in range(9)} & {
        arguments["task_id"] for arguments in server.made("get_task")
    }


@SEEDS
def test_in_a_fresh_session_ids_are_made_anew(seed: int) -> None:
    known = explore(Tasks(), seed=seed, calls=12)
    before = known.tools["get_task"].effective
    explore(fresh := Tasks(last=20_000), known, seed=seed + 100, number=1)
    assert known.tools["get_task"].effective > before
    assert fresh.made("create_task")


def test_what_deletes_comes_last_and_what_needs_nothing_first() -> None:
    order = [tool.name for tool in survey_order(known_of(Tasks), list(Tasks.tools))]
    assert order[-1] == "delete_task"
    assert survey_order(known_of(Catalog), list(Catalog.tools))[0].name == "list_items"
    assert [tool.name for tool in survey_order(known_of(Project), list(Project.tools))] == [
        "count_lines",
        "open_project",
        "find_symbol",
    ]


class Catalog(Server):
    tools = {"get_item": {"item_id": TEXT}, "list_items": {}}  # noqa: RUF012

    def list_items(self) -> Json:
        return {"items": [{"id": f"it-{number}-{number * 7919 % 97}", "name": "x"} for number in range(6)]}

    def get_item(self, item_id: str) -> Json:
        if item_id not in {item["id"] for item in self.list_items()["items"]}:
            raise Refusal("item not found")
        return {"price": 12.5, "stock": 4}


@SEEDS
def test_what_a_listing_tells_is_asked_for_and_nothing_is_asked_twice(seed: int) -> None:
    known = explore(server := Catalog(), seed=seed, calls=60)
    assert server.calls[0].tool.name == "list_items"
    assert known.tools["get_item"].effective >= 2
    made = [canonical_json([call.tool.name, call.arguments]) for call in server.calls]
    assert len(made) == len(set(made))


@SEEDS
def test_a_walk_ends_when_nothing_new_is_left(seed: int) -> None:
    explore(server := Catalog(), seed=seed, calls=1000)
    assert len(server.calls) < 60


class Database(Server):
    tools = {"read_query": {"query": TEXT}, "list_tables": {}}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:")
        self.db.execute("CREATE TABLE gremlins (id INTEGER, mood TEXT)")
        self.db.execute("INSERT INTO gremlins VALUES (1, 'cross'), (2, 'merry')")

    def list_tables(self) -> Json:
        """List the tables of the database."""
        return [{"name": "gremlins"}]

    def read_query(self, query: str) -> Json:
        """Run a SELECT query on the SQLite database."""
        found = self.db.execute(query)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


@SEEDS
def test_tables_that_were_listed_are_queried(seed: int) -> None:
    known = explore(server := Database(), seed=seed, calls=15)
    about = [
        query for arguments in server.made("read_query") if "gremlins" in (query := str(arguments["query"]))
    ]
    assert len(about) >= 2
    assert known.tools["read_query"].effective
    server.db.close()


class Picky(Server):
    tools = {"look": {"city": TEXT}}  # noqa: RUF012

    def look(self, city: str) -> Json:
        if len({arguments["city"] for arguments in self.made("look")}) < 3:
            raise Refusal(f"nothing is known of {city}")
        return {"degrees": 21}


@SEEDS
def test_after_a_failure_another_value_is_tried(seed: int) -> None:
    known = explore(server := Picky(), seed=seed, calls=6)
    cities = [arguments["city"] for arguments in server.made("look")]
    assert len(set(cities)) == len(cities) >= 3
    assert known.tools["look"].effective


class Never(Server):
    tools = {"fail": {"name": TEXT}}  # noqa: RUF012

    def fail(self, name: str) -> Json:
        raise Refusal("internal")


@SEEDS
def test_patience_with_a_tool_that_never_works_ends(seed: int) -> None:
    known = explore(server := Never(), calls=100, seed=seed)
    assert 2 <= len(server.calls) <= 8
    for number in range(1, 4):
        explore(Never(), known, calls=100, seed=seed, number=number)
    assert known.tools["fail"].hopeless


@pytest.mark.parametrize("server", [Tasks, Catalog, Database, Project])
def test_equal_seeds_make_equal_calls(server: type[Server]) -> None:
    one, same, other = server(), server(), server()
    explore(one, seed=5)
    explore(same, seed=5)
    explore(other, seed=6)
    assert one.calls == same.calls
    assert one.calls != other.calls or server is Catalog


@pytest.mark.parametrize("calls", [0, 1, 2, 7])
@pytest.mark.parametrize("server", [Tasks, Project])
def test_no_more_calls_are_made_than_allowed(server: type[Server], calls: int) -> None:
    explore(made := server(), calls=calls)
    assert len(made.calls) == calls


def test_what_is_not_permitted_is_not_called_for_set_up_either() -> None:
    known = known_of(Project)
    explorer = SchemaExplorer(
        lambda server, tool, path: [], {}, lambda spec, arguments: spec.name != "open_project"
    )
    server = Project()
    explorer.walk(
        [ToolRef("s", "count_lines"), ToolRef("s", "open_project")],
        {"s": known},
        server,
        calls=20,
        rng=Random(0),
        number=0,
    )
    assert server.made("count_lines")
    assert not server.made("open_project")
