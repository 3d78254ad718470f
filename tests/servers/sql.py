"""A small MCP server on stdio over one SQLite file.

    sql.py FILE [--plain]

The file is opened anew for each call, so it is the whole state, and whoever replaces it resets the server.
Each call is one transaction.

| tool | `readOnlyHint` | it |
|---|---|---|
| `list_tables()` | true | lists the tables, sorted |
| `describe_table(table)` | true | tells a table's columns |
| `query(sql)` | true | runs one statement and returns its rows; with `--plain`, one that writes, too |
| `execute(sql)` | false | runs one statement; returns how many rows it changed, and the id it made if any |
| `insert_row(table, values)` | false | adds a row and returns the id that the table counted for it |
| `get_row(table, id)` | true | returns a row; an error if there is none |
| `delete_row(table, id)` | false | deletes a row; an error if there is none |

With `--plain` no tool has annotations, as most servers have none. What SQLite refuses is a tool's error.
"""

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any


def schema(**properties: str) -> dict[str, Any]:
    """An object of these properties, all required; their types by name."""
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }


TOOLS = [
    {
        "name": name,
        "description": description,
        "inputSchema": input_schema,
        "annotations": {"readOnlyHint": read_only},
    }
    for name, description, input_schema, read_only in (
        ("list_tables", "List the tables.", schema(), True),
        ("describe_table", "Tell a table's columns.", schema(table="string"), True),
        ("query", "Run a SELECT and return its rows.", schema(sql="string"), True),
        ("execute", "Run a statement that writes.", schema(sql="string"), False),
        ("insert_row", "Add a row and return its id.", schema(table="string", values="object"), False),
        ("get_row", "Return the row of an id.", schema(table="string", id="integer"), True),
        ("delete_row", "Delete the row of an id.", schema(table="string", id="integer"), False),
    )
]
NAMES = {str(tool["name"]) for tool in TOOLS}


class ToolError(Exception):
    """What a tool tells the model instead of an answer."""


def run(connection: sqlite3.Connection, tool: str, arguments: dict[str, Any]) -> Any:
    """Return a tool's answer as a JSON value.

    Raises:
        ToolError: it has none.
        sqlite3.Error: SQLite refuses.
        KeyError: an argument is missing.
    """
    match tool:
        case "list_tables":
            rows = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1"
            )
            return [name for (name,) in rows]
        case "describe_table":
            rows = connection.execute(f"PRAGMA table_info({quoted(arguments['table'])})")
            columns = [{"name": row[1], "type": row[2]} for row in rows]
            if not columns:
                raise ToolError(f"no such table: {arguments['table']}")
            return columns
        case "query":
            cursor = connection.execute(arguments["sql"])
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        case "execute":
            cursor = connection.execute(arguments["sql"])
            inserted = arguments["sql"].lstrip().upper().startswith("INSERT")
            return {"changed": cursor.rowcount, "last_insert_id": cursor.lastrowid if inserted else None}
        case "insert_row":
            values = arguments["values"]
            columns, marks = ", ".join(map(quoted, values)), ", ".join("?" * len(values))
            statement = f"INSERT INTO {quoted(arguments['table'])} ({columns}) VALUES ({marks})"
            return {"id": connection.execute(statement, list(values.values())).lastrowid}
        case "get_row":
            statement = f"SELECT * FROM {quoted(arguments['table'])} WHERE id = ?"
            cursor = connection.execute(statement, (arguments["id"],))
            row = cursor.fetchone()
            if row is None:
                raise ToolError(f"no row {arguments['id']} in {arguments['table']}")
            return dict(zip([column[0] for column in cursor.description], row, strict=True))
        case "delete_row":
            statement = f"DELETE FROM {quoted(arguments['table'])} WHERE id = ?"
            if not connection.execute(statement, (arguments["id"],)).rowcount:
                raise ToolError(f"no row {arguments['id']} in {arguments['table']}")
            return {"deleted": arguments["id"]}
    raise AssertionError(f"{tool} is listed, but does nothing")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def call(file: str, plain: bool, tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    """Return the text of a tool's answer, and whether it is an error."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        if tool == "query" and not plain:
            connection.execute("PRAGMA query_only = ON")
        try:
            with connection:
                return json.dumps(run(connection, tool, arguments)), False
        except (ToolError, sqlite3.Error) as error:
            return str(error), True
        except KeyError as error:
            return f"missing argument: {error}", True


def answer(file: str, plain: bool, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the `result` or `error` member of the reply."""
    match method:
        case "initialize":
            return {
                "result": {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "sql", "version": "1"},
                }
            }
        case "tools/list":
            hidden = {"annotations"} if plain else set()
            tools = [{key: tool[key] for key in tool if key not in hidden} for tool in TOOLS]
            return {"result": {"tools": tools}}
        case "tools/call" if params.get("name") in NAMES:
            text, is_error = call(file, plain, params["name"], params.get("arguments") or {})
            return {"result": {"content": [{"type": "text", "text": text}], "isError": is_error}}
        case "tools/call":
            return {"error": {"code": -32602, "message": f"Unknown tool: {params.get('name')}"}}
        case "ping":
            return {"result": {}}
        case _:
            return {"error": {"code": -32601, "message": f"no method {method}"}}


def main() -> None:
    file, plain = sys.argv[1], "--plain" in sys.argv[2:]
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            reply = answer(file, plain, message["method"], message.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
