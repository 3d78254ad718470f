"""A small MCP server on stdio that keeps items and can be told to crash or to hang in a share of its calls.

    unsteady.py [ANYTHING ...]

It starts with the same few items each time and forgets everything else when it ends. Environment variables:

| variable | meaning | default |
|---|---|---|
| `UNSTEADY_CRASH` | share of calls that end the process, half of them before they are made | 0 |
| `UNSTEADY_HANG` | share of calls after which it answers nothing more and ignores polite signals | 0 |
| `UNSTEADY_SEED` | of the two | empty |
| `UNSTEADY_KIND` | what its items are called: items get ids such as `kind-0001` | `item` |
| `UNSTEADY_CALLS` | a file to which it adds each call as a line, before it is made | none |
| `UNSTEADY_LIFELINE` | a port of this machine, to which it stays connected (see `fickle.py`) | none |
| `API_TOKEN` | what `whoami` answers with, in the clear | none |

Which calls crash or hang depends on the seed, on the call, and on how many calls this process was sent
before: no clock, no random source.
"""

import json
import os
import signal
import socket
import sys
import time
from random import Random
from typing import Any

KIND = os.environ.get("UNSTEADY_KIND", "item")
CRASH, HANG = (float(os.environ.get(name, "0")) for name in ("UNSTEADY_CRASH", "UNSTEADY_HANG"))
SEED = os.environ.get("UNSTEADY_SEED", "")
WORDS = ("red", "green", "blue", "round", "square", "small", "large", "old")
COLOURS = ("red", "green", "blue")


def tool(
    name: str, description: str, annotations: dict[str, bool] | None = None, /, **properties: dict[str, Any]
) -> dict[str, Any]:
    required = [field for field, schema in properties.items() if "default" not in schema]
    schema = {"type": "object", "properties": properties, "required": required}
    hints = {} if annotations is None else {"annotations": annotations}
    return {"name": name, "description": description, "inputSchema": schema, **hints}


READ = {"readOnlyHint": True}
ITEM_ID = {"type": "string", "description": "The id of an item, as listed."}
COLOUR = {"type": "string", "enum": list(COLOURS)}
TOOLS = [
    tool("list_items", "List the items.", READ, limit={"type": "integer", "default": 5}),
    tool("get_item", "Return an item.", None, id=ITEM_ID),
    tool("search_items", "Search the items' names.", None, query={"type": "string"}),
    tool("whoami", "Tell who is asking.", READ),
    tool("create_item", "Create an item and return its id.", None, name={"type": "string"}),
    tool("update_item", "Change the colour of an item.", None, id=ITEM_ID, colour=COLOUR),
    tool("delete_item", "Delete an item.", {"destructiveHint": True}, id=ITEM_ID),
]


class ToolError(Exception):
    """What a tool tells the model instead of an answer."""


class Items:
    def __init__(self) -> None:
        self.items: dict[str, dict[str, str]] = {}
        self.made = 0
        for word in WORDS:
            self.create(f"{word} {KIND}")

    def create(self, name: str) -> dict[str, str]:
        self.made += 1
        item_id = f"{KIND}-{self.made:04}"
        self.items[item_id] = {"id": item_id, "name": name, "colour": COLOURS[self.made % 3]}
        return self.items[item_id]

    def call(self, name: str, arguments: dict[str, Any]) -> object:
        match name, arguments:
            case "list_items", _:
                return list(self.items.values())[: int(arguments.get("limit", 5))]
            case "get_item", {"id": item_id}:
                return self.found(item_id)
            case "search_items", {"query": query}:
                return [item for item in self.items.values() if str(query).lower() in item["name"]]
            case "whoami", _:
                return {"user": "ada", "token": os.environ.get("API_TOKEN", "none")}
            case "create_item", {"name": item_name}:
                return self.create(str(item_name))
            case "update_item", {"id": item_id, "colour": colour}:
                return self.found(item_id) | {"colour": colour}
            case "delete_item", {"id": item_id}:
                self.found(item_id)
                return {"deleted": self.items.pop(item_id)["id"]}
        raise ToolError("a required argument is missing")

    def found(self, item_id: object) -> dict[str, str]:
        if item_id not in self.items:
            raise ToolError(f"no {KIND} {item_id!r}")
        return self.items[str(item_id)]


def answer(items: Items, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the `result` or `error` member of the reply."""
    match method:
        case "initialize":
            return {
                "result": {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": f"unsteady {KIND}", "version": "1"},
                }
            }
        case "tools/list":
            return {"result": {"tools": TOOLS}}
        case "tools/call" if any(params.get("name") == listed["name"] for listed in TOOLS):
            try:
                text, is_error = json.dumps(items.call(params["name"], params.get("arguments") or {})), False
            except ToolError as error:
                text, is_error = str(error), True
            return {"result": {"content": [{"type": "text", "text": text}], "isError": is_error}}
        case "tools/call":
            return {"error": {"code": -32602, "message": f"Unknown tool: {params.get('name')}"}}
        case "ping":
            return {"result": {}}
        case _:
            return {"error": {"code": -32601, "message": f"no method {method}"}}


def mishap(number: int, params: dict[str, Any]) -> str | None:
    """Say what becomes of a call: `before` and `after` it is made the process ends, or it hangs."""
    call = json.dumps([params.get("name"), params.get("arguments")], sort_keys=True)
    rng = Random(f"{SEED} {number} {call}")
    drawn = rng.random()
    if drawn < CRASH:
        return rng.choice(("before", "after"))
    return "hang" if drawn < CRASH + HANG else None


def keep(params: dict[str, Any]) -> None:
    if path := os.environ.get("UNSTEADY_CALLS"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([params.get("name"), params.get("arguments")]) + "\n")


def hang() -> None:
    for polite in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(polite, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def main() -> None:
    if port := os.environ.get("UNSTEADY_LIFELINE"):
        lifeline = socket.create_connection(("127.0.0.1", int(port)))
        lifeline.sendall(f"{KIND} {os.getpid()}\n".encode())
    items, calls = Items(), 0
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        params = message.get("params") or {}
        trouble = None
        if message["method"] == "tools/call":
            keep(params)
            trouble = mishap(calls, params)
            calls += 1
        if trouble == "before":
            os._exit(3)
        if trouble == "hang":
            hang()
        reply = answer(items, message["method"], params)
        if trouble == "after":
            os._exit(4)
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}), flush=True)


if __name__ == "__main__":
    main()
