"""An odd MCP server of the era with `initialize` (up to protocol revision 2025-11-25), on stdio."""

from __future__ import annotations

from typing import Any

from tests.servers.odd import Channel, OddServer, Request, serve_stdio

PUPPET_SCHEMA = {"type": "object", "x-schema": {"deep": [1.0, None]}}

RESULTS: dict[str, dict[str, Any]] = {
    "resources/list": {
        "resources": [{"uri": "odd://é", "name": "é", "x-field": 1, "annotations": {"x-hint": []}}],
        "x-result": None,
    },
    "resources/templates/list": {
        "resourceTemplates": [{"uriTemplate": "odd://{name}", "name": "any", "x-field": True}]
    },
    "resources/read": {
        "contents": [
            {"uri": "odd://text", "text": "line\nline\u2028end", "x-field": 0},
            {"uri": "odd://blob", "blob": "AAEC", "mimeType": "x/y"},
            {"uri": "odd://other", "x-kind": "neither text nor blob"},
        ]
    },
    "prompts/list": {"prompts": [{"name": "p", "arguments": [{"name": "a", "x-type": "date"}]}]},
    "prompts/get": {
        "messages": [
            {"role": "narrator", "content": {"type": "smell", "of": "roses"}},
            {"role": "user", "content": {"type": "text", "text": "hello", "x-field": 1}},
        ]
    },
    "completion/complete": {"completion": {"values": ["a", "b"], "total": 1e5, "x-more": "maybe"}},
    "tasks/get": {"taskId": "t", "status": "pondering", "ttl": None, "createdAt": "once", "pollInterval": 1},
    "tasks/list": {"tasks": [{"taskId": "t", "status": "pondering"}], "nextCursor": "0"},
    "tasks/result": {"content": [], "_meta": {"io.modelcontextprotocol/related-task": {"taskId": "t"}}},
    "tasks/cancel": {"taskId": "t", "status": "cancelled"},
}


class OddLegacy(OddServer):
    def __init__(self, aside: Channel) -> None:
        super().__init__(aside)
        self.commands["start_task"] = lambda request: request.result(
            {"task": {"taskId": "t", "status": "working", "ttl": 60000, "x": request.params.get("task")}}
        )
        self.methods |= {
            "initialize": self.initialize,
            "tools/list": self.list_tools,
            "logging/setLevel": self.set_level,
            "resources/subscribe": self.subscribe,
            "resources/unsubscribe": lambda request: request.result({}),
            **{
                method: (lambda request, method=method: request.result(RESULTS[method])) for method in RESULTS
            },
        }

    def initialize(self, request: Request) -> None:
        """Tell the client its own identity and capabilities, as they arrived."""
        request.result(
            {
                "protocolVersion": request.params["protocolVersion"],
                "capabilities": {"tools": {"listChanged": True, "x": 1}, "x-capability": {}, "logging": {}},
                "serverInfo": {"name": "odd é", "version": "1.0", "x-info": [None]},
                "instructions": "Ask me\nanything. \U0001f43f",
                "_meta": {"you": request.params},
            }
        )

    def list_tools(self, request: Request) -> None:
        """Two pages."""
        names = sorted(self.commands)
        cursor = request.params.get("cursor")
        page = names[:5] if cursor is None else names[5:]
        tools = [{"name": name, "inputSchema": PUPPET_SCHEMA, "x-tool": name} for name in page]
        request.result({"tools": tools, **({"nextCursor": "p 2"} if cursor is None else {})})

    def set_level(self, request: Request) -> None:
        request.finish(
            '{"jsonrpc":"2.0","method":"notifications/message","params":'
            '{"level":"shout","data":{"x":[1.0]},"logger":null,"x-field":1}}',
            f'{{"jsonrpc":"2.0","id":{request.id},"result":{{}}}}',
        )

    def subscribe(self, request: Request) -> None:
        uri = request.params["uri"]
        self.aside.say(
            '{"jsonrpc":"2.0","method":"notifications/resources/updated",'
            f'"params":{{"uri":"{uri}","title":"x"}}}}'
        )
        request.result({})


if __name__ == "__main__":
    serve_stdio(OddLegacy)
