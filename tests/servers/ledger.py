"""A small MCP server on stdio that keeps state: text under keys, and things under ids that it makes up.

    ledger.py

It starts empty, or with what the environment variable `LEDGER_START` holds as JSON, both members optional:

    {"entries": {"apples": "3"}, "records": {"5a1e…": "Ada"}}

and forgets everything when it ends. What its tools do to its state, and what an equal call answers again:

| tool | `readOnlyHint` | the answer depends on |
|---|---|---|
| `put(key, value)` | false | nothing; the entry's earlier value is lost |
| `get(key)` | true | what was put; an error if nothing was |
| `list()` | true | what was put: the keys, sorted |
| `create(name)` | false | chance: each call makes a record with an id of its own, a random UUID |
| `fetch(id)` | true | what was created; an error if there is no such record |
| `now()` | true | the clock |
| `divide(a, b)` | true | its arguments alone; an error if `b` is 0 |

Arguments that do not fit a tool's input schema are answered with a tool's error and the words of the Python
SDK (`Input validation error: …`), an unknown tool or method with a JSON-RPC error.
"""

import json
import os
import sys
import uuid
from datetime import UTC, datetime
from typing import Any


def schema(**properties: str) -> dict[str, Any]:
    """An object of exactly these properties, all required; their types by name."""
    return {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }


READ = {"readOnlyHint": True}
WRITE = {"readOnlyHint": False, "destructiveHint": True}
ADD = {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False}
TOOLS = [
    {
        "name": name,
        "description": description,
        "inputSchema": input_schema,
        "annotations": {**annotations, "openWorldHint": False},
    }
    for name, description, input_schema, annotations in (
        ("put", "Write a text under a key.", schema(key="string", value="string"), WRITE),
        ("get", "Read the text under a key.", schema(key="string"), READ),
        ("list", "List the keys.", schema(), READ),
        ("create", "Make a record and return its id.", schema(name="string"), ADD),
        ("fetch", "Return the record of an id.", schema(id="string"), READ),
        ("now", "Tell the time.", schema(), READ),
        ("divide", "Divide a by b.", schema(a="number", b="number"), READ),
    )
]
SCHEMAS = {tool["name"]: tool["inputSchema"] for tool in TOOLS}
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float)}


class ToolError(Exception):
    """What a tool tells the model instead of an answer."""


class Ledger:
    """The state, and one method a tool."""

    def __init__(self, start: dict[str, dict[str, str]]) -> None:
        self.entries = dict(start.get("entries", {}))
        self.records = dict(start.get("records", {}))

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Return the text of a tool's answer.

        Raises:
            ToolError: it has none.
        """
        if problem := violation(SCHEMAS[tool], arguments):
            raise ToolError(f"Input validation error: {problem}")
        match tool, arguments:
            case "put", {"key": key, "value": value}:
                self.entries[key] = value
                return f"stored {key}"
            case "get", {"key": key}:
                if key not in self.entries:
                    raise ToolError(f"nothing is stored under {key!r}")
                return self.entries[key]
            case "list", _:
                return json.dumps(sorted(self.entries))
            case "create", {"name": name}:
                record_id = str(uuid.uuid4())
                self.records[record_id] = name
                return json.dumps({"id": record_id, "name": name})
            case "fetch", {"id": record_id}:
                if record_id not in self.records:
                    raise ToolError(f"no record {record_id!r}")
                return json.dumps({"id": record_id, "name": self.records[record_id]})
            case "now", _:
                return datetime.now(UTC).isoformat(timespec="microseconds")
            case "divide", {"a": a, "b": b}:
                if b == 0:
                    raise ToolError(f"cannot divide {a} by 0")
                return json.dumps(a / b)
        raise AssertionError(f"{tool} is listed, but does nothing")


def violation(input_schema: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    """Say what is wrong with the arguments first, if anything is."""
    for name in input_schema["required"]:
        if name not in arguments:
            return f"{name!r} is a required property"
    for name, value in arguments.items():
        if name not in input_schema["properties"]:
            return f"Additional properties are not allowed ({name!r} was unexpected)"
        kind = input_schema["properties"][name]["type"]
        if not isinstance(value, TYPES[kind]) or isinstance(value, bool):
            return f"{value!r} is not of type {kind!r}"
    return None


def answer(ledger: Ledger, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the `result` or `error` member of the reply."""
    match method:
        case "initialize":
            return {
                "result": {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "ledger", "version": "1"},
                }
            }
        case "tools/list":
            return {"result": {"tools": TOOLS}}
        case "tools/call" if params.get("name") in SCHEMAS:
            try:
                text, is_error = ledger.call(params["name"], params.get("arguments") or {}), False
            except ToolError as error:
                text, is_error = str(error), True
            return {"result": {"content": [{"type": "text", "text": text}], "isError": is_error}}
        case "tools/call":
            return {"error": {"code": -32602, "message": f"Unknown tool: {params.get('name')}"}}
        case "ping":
            return {"result": {}}
        case _:
            return {"error": {"code": -32601, "message": f"no method {method}"}}


def main() -> None:
    ledger = Ledger(json.loads(os.environ.get("LEDGER_START") or "{}"))
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            reply = answer(ledger, message["method"], message.get("params") or {})
            print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
