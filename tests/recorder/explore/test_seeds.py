"""What a user says of values that work, and the file in which it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from recorder.errors import FireflyError
from recorder.explore.seeds import Seeds, draft_seeds
from recorder.tool import ToolSpec

EXAMPLE = """
fields:
  city: [Berlin, Lima]
  "*_id": [17]
servers:
  github:
    fields: {repo: [octocat/hello], city: [Bonn]}
    tools:
      "search_*": {query: [glob]}
      search_code: {query: [exact], city: [Oslo]}
"""


def read(tmp_path: Path, text: str) -> Seeds:
    path = tmp_path / "seeds.yaml"
    path.write_text(text, encoding="utf-8")
    return Seeds.read(path)


def test_what_is_said_of_a_tool_comes_before_its_server_and_that_before_the_rest(tmp_path: Path) -> None:
    seeds = read(tmp_path, EXAMPLE)
    assert seeds("github", "search_code", ("city",)) == ["Oslo", "Bonn", "Berlin", "Lima"]
    assert seeds("github", "other", ("city",)) == ["Bonn", "Berlin", "Lima"]
    assert seeds("elsewhere", "search_code", ("city",)) == ["Berlin", "Lima"]


def test_a_name_comes_before_a_pattern(tmp_path: Path) -> None:
    seeds = read(tmp_path, EXAMPLE)
    assert seeds("github", "search_code", ("query",)) == ["exact", "glob"]
    assert seeds("github", "search_users", ("query",)) == ["glob"]
    assert seeds("github", "list_users", ("query",)) == []
    assert seeds("any", "any", ("order_id",)) == [17]


def test_a_pattern_is_not_taken_for_a_name(tmp_path: Path) -> None:
    seeds = read(tmp_path, 'fields: {"city?": [one more], "[ab]_id": [1], "__": [no words]}')
    assert seeds("s", "t", ("city",)) == []
    assert seeds("s", "t", ("city2",)) == ["one more"]
    assert seeds("s", "t", ("a_id",)) == [1]
    assert seeds("s", "t", ("ab_id",)) == []
    assert seeds("s", "t", ("--",)) == []


def test_spelling_and_the_object_around_a_name_do_not_matter(tmp_path: Path) -> None:
    seeds = read(tmp_path, "fields: {city_name: [Berlin], customer_id: [c-1], filters.state: [open]}")
    assert seeds("s", "t", ("cityName",)) == ["Berlin"]
    assert seeds("s", "t", ("customer", "id")) == ["c-1"]
    assert seeds("s", "t", ("filters", "state")) == ["open"]
    assert seeds("s", "t", ("state",)) == []


def test_the_whole_path_of_a_field_comes_before_its_last_name(tmp_path: Path) -> None:
    seeds = read(tmp_path, "fields: {state: [any], filters.state: [open]}")
    assert seeds("s", "t", ("filters", "state")) == ["open", "any"]


def test_servers_and_tools_are_named_like_fields(tmp_path: Path) -> None:
    servers = "{gitHub: {fields: {a: [1]}}, 'git*': {fields: {a: [2]}, tools: {getUser: {a: [0]}}}}"
    seeds = read(tmp_path, f"servers: {servers}")
    assert seeds("git_hub", "get_user", ("a",)) == [0, 1, 2]
    assert seeds("gitlab", "list", ("a",)) == [2]


def test_items_of_a_list_take_the_values_of_the_list(tmp_path: Path) -> None:
    seeds = read(tmp_path, "fields: {tags: [red, [green, blue]]}")
    assert seeds("s", "t", ("tags", "*")) == ["red", "green", "blue"]
    assert ["green", "blue"] in seeds("s", "t", ("tags",))


@pytest.mark.parametrize("text", ["", "{}", "fields:\nservers:\n", "fields: {city: }", "fields: {city: []}"])
def test_a_file_that_says_nothing_gives_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text)("s", "t", ("city",)) == []
    assert Seeds()("s", "t", ("city",)) == []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("- hunter2", ["must be a mapping"]),
        ("field: {a: [hunter2]}", ["'field'", "fields and servers"]),
        ("fields: {token: hunter2}", ["fields.token", "must be a list", "got str"]),
        ("fields: [hunter2]", ["fields", "must be a mapping", "got list"]),
        ("servers: {git: {token: [hunter2]}}", ["servers.git", "'token'", "fields and tools"]),
        ("servers: {git: {tools: {push: [hunter2]}}}", ["servers.git.tools.push", "must be a mapping"]),
        ("servers: {git: {tools: {push: {key: {a: hunter2}}}}}", ["servers.git.tools.push.key", "a list"]),
        ("fields: {token: [hunter2]} : x", [":1:"]),
        ("fields: {token: [!!python/name:hunter2 x]}", [":1:"]),
        ("fields: {token: [*hunter2]}", [":1:"]),
        ("fields: {token: [!!int hunter2]}", [":1:18"]),
        ("fields: {token: [!!bool hunter2]}", [":1:18"]),
        ("fields: {token: [!!timestamp hunter2]}", [":1:18"]),
        (f"fields: {{token: [{'1' * 5000}]}}", [":1:18"]),
        ('fields: {"a\\nb": [hunter2]}', ["fields", r"'a\nb'", "one line"]),
    ],
)
def test_an_error_is_one_line_that_names_file_and_place_but_no_value(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    with pytest.raises(FireflyError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert str(tmp_path / "seeds.yaml") in message
    assert [part for part in parts if part not in message] == []
    assert "hunter2" not in message
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(FireflyError, match="No such file"):
        Seeds.read(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"fields: {city: [M\xfcnchen]}")
    with pytest.raises(FireflyError, match=r"latin\.yaml"):
        Seeds.read(tmp_path / "latin.yaml")


def tool(server: str, name: str, required: list[str], **properties: dict[str, object]) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": required}
    return ToolSpec(server=server, name=name, version="v", entry={"name": name, "inputSchema": schema})


TOOLS = [
    tool(
        "my shop: 1",
        "get_order",
        ["order_id", "state", "pages"],
        order_id={"type": "string", "description": "Which order:\nas # listed"},
        state={"enum": ["open"]},
        pages={"type": "integer", "default": 1},
        note={"type": "string"},
    ),
    tool("my shop: 1", "cancel_order", ["order_id"], order_id={"type": "string"}),
    tool("files", "read", ["path"], path={"type": "string", "description": "Path to the file"}),
    tool("files", "list", [], path={"type": "string"}),
]


def test_a_draft_asks_once_for_each_field_that_nothing_tells_a_value_for(tmp_path: Path) -> None:
    draft = draft_seeds(TOOLS, {"files": ["/data/a b.txt"]})
    seeds = read(tmp_path, draft)
    assert {name: set(server.fields) for name, server in seeds.servers.items()} == {
        "my shop: 1": {"order_id"},
        "files": {"path"},
    }
    comment = next(line for line in draft.splitlines() if "Which order" in line)
    assert comment.lstrip().startswith("# string")
    assert "get_order, cancel_order" in comment


def test_a_draft_offers_roots_where_a_path_is_wanted_and_else_gives_nothing(tmp_path: Path) -> None:
    seeds = read(tmp_path, draft_seeds(TOOLS, {"files": ["/data/a b.txt"], "my shop: 1": ["/shop"]}))
    assert seeds("files", "read", ("path",)) == ["/data/a b.txt"]
    assert seeds("my shop: 1", "get_order", ("order_id",)) == []


def test_a_draft_without_anything_to_fill_in_reads_back(tmp_path: Path) -> None:
    assert read(tmp_path, draft_seeds([TOOLS[3]], {})) == Seeds()
