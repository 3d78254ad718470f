"""The values that outputs tell, by name, with where they come from."""

from __future__ import annotations

import json
from typing import Any

from recorder.exchange import Json, ToolRef
from recorder.explore.harvest import LONGEST, MOST_OBJECTS, MOST_PER_NAME, MOST_WORDS, Harvest


def harvested(tool: str, said: Json, **arguments: Json) -> Harvest:
    harvest = Harvest()
    take(harvest, tool, said, **arguments)
    return harvest


def take(harvest: Harvest, tool: str, said: Json, call: int = 1, walk: int = 0, **arguments: Json) -> None:
    text = said if isinstance(said, str) else json.dumps(said)
    result = {"content": [{"type": "text", "text": text}]}
    harvest.take(ToolRef("shop", tool), arguments, result, call, walk)


def known(harvest: Harvest, *words: str, related: bool = False) -> list[Any]:
    return [found.value for found in harvest.known(words, related=related)]


def everything(harvest: Harvest) -> set[Any]:
    return {found.value for named in harvest.by_words.values() for found in named.values()}


def test_a_bare_id_is_named_after_its_object_else_after_its_tool() -> None:
    harvest = harvested("list_orders", {"orders": [{"id": "o-1", "customer": {"id": "c-1"}}]})
    assert known(harvest, "order", "id") == ["o-1"]
    assert known(harvest, "customer", "id") == ["c-1"]
    assert known(harvested("create_order", {"id": 17}), "order", "id") == [17]
    assert known(harvested("list_orders", {"items": [{"id": 17}]}), "order", "id") == [17]


def test_names_fit_whatever_their_spelling_and_a_name_fits_a_bare_thing() -> None:
    harvest = harvested("find", [{"orderId": "o-1"}, {"order_id": "o-2"}, {"Order-ID": "o-3"}])
    assert known(harvest, "order", "id") == ["o-3", "o-2", "o-1"]
    assert known(harvested("list_tables", [{"name": "pets"}]), "table") == ["pets"]
    assert known(harvested("list_tables", [{"name": "pets"}]), "table", "name") == ["pets"]
    assert known(harvested("list_tables", [{"name": "pets"}]), "table", "id") == []


def test_the_latest_comes_first_and_related_names_only_when_asked() -> None:
    harvest = harvested("list_orders", [{"order_id": "o-1"}, {"order_id": "o-2"}])
    take(harvest, "list_orders", [{"order_id": "o-1"}], call=2)
    assert known(harvest, "order", "id") == ["o-1", "o-2"]
    assert known(harvest, "old", "order", "id") == []
    assert known(harvest, "old", "order", "id", related=True) == ["o-1", "o-2"]


def test_a_value_knows_where_it_came_from() -> None:
    harvest = Harvest()
    take(harvest, "list_orders", {"orders": [{"id": "o-1"}]}, call=7, walk=3, state="open")
    (found,) = harvest.known(("order", "id"))
    assert (found.source, found.path, found.call, found.walk) == (
        ToolRef("shop", "list_orders"),
        ("orders", "*", "id"),
        7,
        3,
    )
    assert found.given == frozenset({'"open"'})


def test_an_argument_said_back_is_no_news() -> None:
    harvest = harvested("get_weather", {"city": "Rome", "station": "LIRF"}, city="Rome")
    assert known(harvest, "city") == []
    assert known(harvest, "station") == ["LIRF"]


def test_what_a_tool_tells_under_the_name_it_was_given_is_something_else() -> None:
    harvest = harvested("describe_table", [{"name": "age", "type": "int"}], name="pets")
    assert known(harvest, "table", "name") == known(harvest, "table") == []


def test_placeholders_of_secrets_are_never_harvested() -> None:
    secret = "[redacted:0a1b2c3d]"
    said = {"token": secret, "url": f"https://x/?key={secret}", "id": secret, "n": [secret], "ok": "o-1"}
    for text in (said, f"token: {secret}\nid: {secret}", f"Created item with id {secret} at /a/{secret}", secret,
                 {secret: {"a": 1}, "b": {"a": 2}, "c": {"a": 3}}):  # fmt: skip
        harvest = harvested("list_keys", text)
        assert not [value for value in everything(harvest) if "redacted" in str(value)], text


def test_placeholders_of_secrets_are_in_no_object_row_or_word_either() -> None:
    secret = "[redacted:0a1b2c3d]"
    harvest = harvested("read_query", [{"id": 1, "token": secret}], query="SELECT * FROM keys")
    assert [flat for flat, _, _ in harvest.objects if secret in flat.values()] == []
    assert [row for row in harvest.tables["keys"].rows if secret in row.values()] == []
    assert "redacted" not in harvest.searchable()


def test_keys_of_an_object_that_is_a_table_are_values() -> None:
    said = {name: {"year": 1990} for name in ("python", "go", "ruby")}
    assert set(known(harvested("list_languages", said), "language")) == {"python", "go", "ruby"}
    assert set(known(harvested("list_languages", {"languages": said}), "language")) == {
        "python",
        "go",
        "ruby",
    }


def test_ids_in_prose_are_found() -> None:
    said = "All of it is done, as you asked. Task ID: t-99 waits for ord_17 and 3f2504e0-4f89-41d3-9a0c-0305e82c3301."
    harvest = harvested("create_task", said)
    assert "t-99" in known(harvest, "task", "id")
    assert "3f2504e0-4f89-41d3-9a0c-0305e82c3301" in known(harvest, "task", "id")
    assert known(harvest, "ord", "id") == ["ord_17"]


def test_paths_in_prose_are_found() -> None:
    harvest = harvested("search", "Found it in src/app/main.py and under /var/data/ too, see notes.md.")
    assert {"src/app/main.py", "notes.md"} <= set(known(harvest, "file", "path"))
    assert "/var/data/" in known(harvest, "directory", "path")


def test_entries_of_a_listed_folder_are_paths_within_it() -> None:
    harvest = harvested("list_directory", "[FILE] a.txt\n[DIR] inner", path="/data")
    assert {"/data/a.txt", "/data/inner"} <= set(known(harvest, "file", "path"))


def test_lines_and_plain_lists_are_values_of_what_the_tool_lists() -> None:
    assert set(known(harvested("list_branches", "main\ndev\nfix-1"), "branch")) == {"main", "dev", "fix-1"}
    assert set(known(harvested("list_branches", ["main", "dev"]), "branch")) == {"main", "dev"}


def test_tables_columns_and_rows_of_a_database_are_learned() -> None:
    harvest = Harvest()
    take(harvest, "list_tables", [{"name": "pets"}, {"name": "owners"}])
    assert set(harvest.tables) == {"pets", "owners"}
    take(
        harvest,
        "describe_table",
        [{"name": "id", "type": "INTEGER"}, {"name": "kind", "type": "TEXT"}],
        table="pets",
    )
    assert harvest.tables["pets"].columns == {"id": "integer", "kind": "text"}
    take(harvest, "read_query", [{"id": 1, "kind": "cat"}], query="SELECT * FROM pets LIMIT 1")
    assert harvest.tables["pets"].rows == [{"id": 1, "kind": "cat"}]
    take(harvest, "read_query", [{"n": 3}], query="SELECT count(*) AS n FROM owners")
    assert harvest.tables["owners"].columns == {}


def test_a_create_statement_tells_columns() -> None:
    sql = "CREATE TABLE IF NOT EXISTS `pets` (id INTEGER PRIMARY KEY, price DECIMAL(10, 2), PRIMARY KEY (id))"
    harvest = harvested("schema", [{"sql": sql}])
    assert harvest.tables["pets"].columns == {"id": "integer", "price": "decimal"}
    assert harvested("schema", "CREATE TABLE broken (id INTEGER").tables == {}


def test_a_create_statement_with_quoted_names_within_json_tells_columns() -> None:
    harvest = harvested("schema", [{"sql": 'CREATE TABLE "pets" ("id" INTEGER, "kind" TEXT)'}])
    assert harvest.tables["pets"].columns == {"id": "integer", "kind": "text"}


def test_what_is_kept_is_bounded() -> None:
    harvest = Harvest()
    for call in range(30):
        rows = [
            {
                "id": f"o-{call}-{row}",
                "word": f"w{call}x{row}",
                "long": "x" * (LONGEST + 1) if row == 0 else "",
            }
            for row in range(50)
        ]
        take(harvest, "list_orders", rows, call=call)
    assert max(map(len, harvest.by_words.values())) <= MOST_PER_NAME
    assert known(harvest, "order", "id")[0].startswith("o-29-")
    assert len(harvest.objects) <= MOST_OBJECTS
    assert len(harvest.searchable()) <= MOST_WORDS
    assert max(len(str(value)) for value in everything(harvest)) <= LONGEST


def test_any_result_is_taken_whatever_its_shape() -> None:
    harvest = Harvest()
    deep: Json = "x"
    for _ in range(300):
        deep = {"a": [deep]}
    for result in (None, 3, "text", [], {"content": 3}, {"structuredContent": {"a": None}}, {"structuredContent": deep},
                   {"content": [{"type": "text", "text": json.dumps({"": {"": {"": 1}}, "a": [[["b"]]], "c": [None]})}]}):  # fmt: skip
        harvest.take(ToolRef("s", "t"), {}, result, 1, 1)
    assert all(harvest.by_words)


def test_equal_calls_make_equal_harvests() -> None:
    said = {"orders": [{"id": "o-1", "note": "see /a/b.txt and ord_3 for more of this"}]}
    assert harvested("list_orders", said, a=1) == harvested("list_orders", said, a=1)
