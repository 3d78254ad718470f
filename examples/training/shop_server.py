"""An MCP server on stdio over a shop's SQLite file: two calls lead from an article's name to its people.

    python examples/training/shop_server.py shop.db

| tool | it returns |
|---|---|
| `find_plate(name)` and so on, one for each of `KINDS` | `{"id": …}` |
| `get_maker(id)` and so on, one for each of `FIELDS` | `{"maker": …}` |

All of them only read. What is not there is a tool's error.
"""

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

KINDS = ("plate", "mug", "tile", "rug", "poster", "scarf")
FIELDS = ("maker", "owner", "dealer", "painter", "tester", "courier")
"""Columns of the table `article`, beside `id`, `kind` and `name`."""


def shop(file: str) -> MCPServer:
    """Return the server of a shop, which opens its file anew for each call."""
    server = MCPServer("shop", log_level="WARNING")

    def value(query: str, key: str, missing: str) -> str:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            row = connection.execute(query, (key,)).fetchone()
        if row is None:
            raise ToolError(missing)
        return str(row[0])

    def finder(kind: str) -> Callable[[str], str]:
        def find(name: str) -> str:
            query = f"SELECT id FROM article WHERE kind = '{kind}' AND name = ?"
            return json.dumps({"id": value(query, name, f"no {kind} is called {name}")})

        return find

    def getter(field: str) -> Callable[[str], str]:
        def get(id: str) -> str:
            query = f"SELECT {field} FROM article WHERE id = ?"
            return json.dumps({field: value(query, id, f"no article has the id {id}")})

        return get

    tools = [(f"find_{kind}", f"Find the id of a {kind} by its name.", finder(kind)) for kind in KINDS]
    tools += [
        (f"get_{field}", f"Get the {field} of an article by its id.", getter(field)) for field in FIELDS
    ]
    for name, description, function in tools:
        server.add_tool(
            function,
            name=name,
            description=description,
            annotations=ToolAnnotations(read_only_hint=True),
            structured_output=False,
        )
    return server


if __name__ == "__main__":
    shop(sys.argv[1]).run()
