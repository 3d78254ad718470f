from __future__ import annotations

from typing import Any

import pytest

from recorder.exchange import ToolRef
from recorder.explore.graph import CONFIDENT
from recorder.explore.shapes import ShapeLog, Shapes, schema_edges
from recorder.tool import ToolSpec


def tool(name: str, takes: Any = None, gives: Any = None, says: str = "", server: str = "shop") -> ToolSpec:
    entry: dict[str, Any] = {"name": name, "description": says, "inputSchema": described(takes or {})}
    if gives is not None:
        entry["outputSchema"] = described(gives)
    return ToolSpec(server=server, name=name, version="1", entry=entry)


def described(fields: Any) -> Any:
    """Write a schema short: a dict is an object, a list an array, a string a type."""
    if isinstance(fields, dict) and not {"type", "anyOf"} & set(fields):
        return {"type": "object", "properties": {name: described(part) for name, part in fields.items()}}
    if isinstance(fields, list):
        return {"type": "array", "items": described(fields[0])}
    return {"type": fields} if isinstance(fields, str) else fields


def confidence(
    producer: ToolSpec, consumer: ToolSpec, *others: ToolSpec, shapes: Shapes | None = None
) -> float:
    """Return that of the best edge from the one tool to the other, or 0."""
    found = schema_edges([producer, consumer, *others], shapes)
    return max(
        (edge.confidence for edge in found if (edge.producer, edge.consumer) == (producer.ref, consumer.ref)),
        default=0.0,
    )


STRING = "string"
LIST_ORDERS = tool("list_orders", gives={"orders": [{"id": STRING, "total_price": "number"}]})


@pytest.mark.parametrize(
    "takes",
    [{"order_id": STRING}, {"orderIDs": [STRING]}, {"order": STRING}, {"filter": {"order": {"id": STRING}}}],
)
def test_names_are_compared_by_words_and_by_whose_they_are(takes: Any) -> None:
    assert confidence(LIST_ORDERS, tool("ship", takes)) >= CONFIDENT


def test_the_id_of_something_else_is_no_edge() -> None:
    assert confidence(LIST_ORDERS, tool("get_customer", {"id": STRING})) < CONFIDENT
    assert confidence(LIST_ORDERS, tool("ship", {"carrier_id": STRING})) < CONFIDENT


def test_an_edge_says_where_the_value_stands_and_goes() -> None:
    (edge,) = schema_edges([LIST_ORDERS, tool("ship", {"lines": [{"order_id": STRING}]})])
    assert (edge.output, edge.parameter, edge.evidence) == (
        "$.orders[*].id",
        "lines[*].order_id",
        "schema",
    )


def test_ids_are_not_shared_between_servers_but_what_everybody_knows_is() -> None:
    elsewhere = [
        tool("ship", {"order_id": STRING}, server="post"),
        tool("tz", {"timezone": STRING}, server="b"),
    ]
    place = tool("locate", gives={"timezone": STRING})
    assert confidence(LIST_ORDERS, elsewhere[0]) < CONFIDENT
    assert confidence(place, elsewhere[1]) >= CONFIDENT


def test_descriptions_say_what_a_name_does_not() -> None:
    graph = tool("read_graph", gives={"entities": [{"name": STRING}]})
    link = tool("link", {"from": {"type": STRING, "description": "The name of the entity it starts at"}})
    assert confidence(graph, link) >= CONFIDENT


def test_a_name_and_a_description_promise_what_no_schema_says() -> None:
    use = tool("describe_table", {"table_name": STRING})
    assert confidence(tool("list_tables"), use) >= CONFIDENT
    assert confidence(tool("drop_table", {"table": STRING}), use) < CONFIDENT
    started = tool("start", says="Starts the work in the background and returns the job id.")
    assert confidence(started, tool("wait", {"job_id": STRING})) >= CONFIDENT


def test_units_types_and_allowed_values_must_agree() -> None:
    measured = tool("measure", gives={"delay_ms": "number", "temperature_celsius": "number"})
    assert confidence(measured, tool("wait", {"delay_s": "number"})) < CONFIDENT
    assert confidence(measured, tool("heat", {"temperature_fahrenheit": "number"})) < CONFIDENT
    levels = {"type": STRING, "enum": ["low", "high"]}
    sizes = {"type": STRING, "enum": ["small", "large"]}
    graded = tool("grade", gives={"risk_level": levels})
    assert confidence(graded, tool("filter", {"risk_level": levels})) > confidence(
        graded, tool("filter", {"risk_level": sizes})
    )


def test_outputs_that_were_seen_say_more_than_schemas() -> None:
    log = ShapeLog()
    history, show = tool("history"), tool("show", {"revision": STRING})
    assert confidence(history, show) == 0
    log.add(history.ref, [{"Commit": "6403f5617fe9", "Author": "Ada"}])
    assert confidence(history, show, shapes=log.shapes()) >= CONFIDENT


def test_paths_are_fed_by_what_lists_files_and_folders_are_no_files() -> None:
    search, roots = tool("search_files", {"pattern": STRING}), tool("list_allowed_directories")
    read = tool("read_file", {"path": STRING})
    log = ShapeLog()
    log.add(search.ref, ["/srv/a.md", "/srv/b.md"])
    log.add(roots.ref, ["/srv/plans"])
    assert confidence(search, read, shapes=log.shapes()) >= CONFIDENT
    assert confidence(roots, read, shapes=log.shapes()) < CONFIDENT
    assert confidence(roots, tool("list_directory", {"path": STRING}), shapes=log.shapes()) >= CONFIDENT


def test_a_seen_object_with_very_many_members_is_a_map() -> None:
    log, env = ShapeLog(), ToolRef("shop", "get_env")
    log.add(env, {f"LANGUAGE_{number}": "C" for number in range(100)})
    assert [seen.path for seen in log.shapes()[env]] == [("*",)]


def test_references_and_alternatives_in_schemas_are_followed() -> None:
    optional = {"anyOf": [{"type": STRING}, {"type": "null"}]}
    entry = {
        "name": "ship",
        "inputSchema": {
            "type": "object",
            "$defs": {"Order": {"type": "object", "properties": {"id": optional}}},
            "properties": {"order": {"$ref": "#/$defs/Order"}},
        },
    }
    ship = ToolSpec(server="shop", name="ship", version="1", entry=entry)
    assert confidence(LIST_ORDERS, ship) >= CONFIDENT


@pytest.mark.parametrize("schema", [None, True, [], {"properties": 3}, {"properties": {"id": None}}])
def test_schemas_that_are_none_are_no_edges(schema: Any) -> None:
    odd = ToolSpec(server="shop", name="x", version="1", entry={"name": "x", "inputSchema": schema})
    assert schema_edges([LIST_ORDERS, odd]) == []


def test_a_schema_that_refers_to_itself_ends() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    odd = ToolSpec(server="shop", name="x", version="1", entry={"name": "x", "inputSchema": tree})
    assert schema_edges([LIST_ORDERS, odd]) == []
