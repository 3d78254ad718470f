"""An MCP server on stdio with one tool, `echo`, and next to no work of its own: what a proxy adds shows."""

import json
import sys
from typing import Any

TOOL = {
    "name": "echo",
    "description": "Return the message.",
    "inputSchema": {
        "type": "object",
        "properties": {"message": {"type": "string"}},
        "required": ["message"],
    },
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the `result` or `error` member of the reply."""
    match method:
        case "tools/call" if params.get("name") == "echo":
            return {"result": {"content": [{"type": "text", "text": params["arguments"]["message"]}]}}
        case "initialize":
            return {
                "result": {
                    "protocolVersion": params["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "echo", "version": "1"},
                }
            }
        case "tools/list":
            return {"result": {"tools": [TOOL]}}
        case "ping":
            return {"result": {}}
        case _:
            return {"error": {"code": -32601, "message": f"no method {method}"}}


def main() -> None:
    write, flush = sys.stdout.write, sys.stdout.flush
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            reply = answer(message["method"], message.get("params") or {})
            write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **reply}) + "\n")
            flush()


if __name__ == "__main__":
    main()
