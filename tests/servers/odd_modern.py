"""An odd MCP server of the stateless era (protocol revision 2026-07-28), on stdio."""

from __future__ import annotations

import json
from typing import Any

from tests.servers.odd import Channel, OddServer, Request, serve_stdio

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"

CACHE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}

RESULTS: dict[str, dict[str, Any]] = {
    "server/discover": {
        "supportedVersions": [VERSION, "2099-01-01"],
        "capabilities": {
            "tools": {"listChanged": True, "x": 1},
            "resources": {"subscribe": True},
            "x-cap": {},
        },
        "instructions": "Ask me\nanything.",
        **CACHE,
        "_meta": {META + "serverInfo": {"name": "odd é", "version": "1.0", "x-info": [None]}},
    },
    "resources/list": {"resources": [{"uri": "odd://é", "name": "é", "x-field": 1}], **CACHE},
    "resources/templates/list": {
        "resourceTemplates": [{"uriTemplate": "odd://{name}", "name": "any", "x-field": True}],
        **CACHE,
    },
    "resources/read": {
        "contents": [{"uri": "odd://text", "text": "line\nline\u2028end", "x-field": 0}],
        **CACHE,
    },
    "prompts/list": {"prompts": [{"name": "p", "arguments": [{"name": "a", "x-type": "date"}]}], **CACHE},
    "prompts/get": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "hello", "x-field": 1}}],
        "resultType": "complete",
    },
    "completion/complete": {
        "completion": {"values": ["a", "b"], "total": 7, "x-more": "maybe"},
        "resultType": "complete",
    },
    "tasks/get": {"taskId": "t", "status": "working", "resultType": "complete", "pollIntervalMs": 1.0},
    "tasks/update": {"resultType": "complete", "x-result": None},
    "tasks/cancel": {"resultType": "complete"},
}


class OddModern(OddServer):
    def __init__(self, aside: Channel) -> None:
        super().__init__(aside)
        self.listening: dict[str, Request] = {}
        self.commands |= {
            "interview": self.interview,
            "start_task": self.start_task,
            "regional": self.echo,
            "wetter-größe": self.echo,
            "log": self.log,
            "touch": self.touch,
        }
        self.methods |= {
            "tools/list": self.list_tools,
            "subscriptions/listen": self.listen,
            **{
                method: (lambda request, method=method: request.result(RESULTS[method])) for method in RESULTS
            },
        }

    def refuse(self, method: str, request: Request) -> tuple[int, str, object] | None:
        """Refuse a request that does not carry the era's envelope."""
        meta = request.params.get("_meta", {})
        version = meta.get(META + "protocolVersion")
        if version is None:
            return -32602, "params._meta must carry the protocol version", {"_meta": meta}
        if version != VERSION:
            return -32022, "unsupported protocol version", {"supported": [VERSION], "requested": version}
        if META + "clientCapabilities" not in meta:
            return -32021, "params._meta must carry the client's capabilities", {"requiredCapabilities": {}}
        return None

    def list_tools(self, request: Request) -> None:
        tools = [
            {"name": name, "inputSchema": input_schema(name), "x-tool": name}
            for name in sorted(self.commands)
        ]
        request.result({"tools": tools, **CACHE})

    def interview(self, request: Request) -> None:
        """Two rounds of questions, then what was answered; `requestState` counts the rounds."""
        state = request.params.get("requestState")
        if state == "round 2 / é":
            answered = {key: request.params.get(key) for key in ("inputResponses", "requestState")}
            return request.result({"content": [], "structuredContent": answered, "resultType": "complete"})
        question = {
            "mode": "form",
            "message": "name?",
            "requestedSchema": {"type": "object", "properties": {}},
        }
        asked: dict[str, Any] = {"who": {"method": "elicitation/create", "params": question}}
        if state is None:
            prompt = {"role": "user", "content": {"type": "text", "text": "hi"}}
            params = {"messages": [prompt], "maxTokens": 10}
            asked["what"] = {"method": "sampling/createMessage", "params": params}
            asked["where"] = {"method": "roots/list"}
        return request.result(
            {
                "resultType": "input_required",
                "inputRequests": asked,
                "requestState": "round 1" if state is None else "round 2 / é",
                "x-result": 1.0,
            }
        )

    def start_task(self, request: Request) -> None:
        request.result({"resultType": "task", "task": {"taskId": "t", "status": "working", "ttlMs": 1e5}})

    def log(self, request: Request) -> None:
        """A log notification at the level that this request asks for, then the reply."""
        level = json.dumps(request.params["_meta"].get(META + "logLevel"))
        params = f'{{"level":{level},"data":{{"x":1.0}},"logger":"odd"}}'
        request.finish(
            f'{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}',
            f'{{"jsonrpc":"2.0","id":{request.id},"result":{{"resultType":"complete"}}}}',
        )

    def listen(self, request: Request) -> None:
        """Acknowledge with what was asked for; stays open until it is dropped."""
        self.held[request.id] = request
        self.listening[request.id] = request
        asked = json.dumps(request.params.get("notifications"))
        self.publish(request, "notifications/subscriptions/acknowledged", f'"notifications":{asked},')

    def touch(self, request: Request) -> None:
        """Tell every open subscription that things changed."""
        for listener in self.listening.values():
            self.publish(listener, "notifications/resources/updated", '"uri":"odd://text",')
            self.publish(listener, "notifications/tools/list_changed", '"x-field":1.0,')
            self.publish(listener, "notifications/odd/changed", "")
        request.result({"content": [], "resultType": "complete"})

    def publish(self, listener: Request, method: str, fields: str) -> None:
        meta = f'"_meta":{{"{META}subscriptionId":{listener.id}}}'
        listener.channel.say(f'{{"jsonrpc":"2.0","method":"{method}","params":{{{fields}{meta}}}}}')

    def drop(self, request_id: str, reason: object) -> None:
        self.listening.pop(request_id, None)
        super().drop(request_id, reason)


def input_schema(tool: str) -> dict[str, Any]:
    """The tool's schema; `regional` wants two of its arguments in HTTP headers as well."""
    if tool != "regional":
        return {"type": "object", "x-schema": {"deep": [1.0, None]}}
    return {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "zone": {"type": "object", "properties": {"number": {"type": "integer", "x-mcp-header": "Zone"}}},
        },
    }


if __name__ == "__main__":
    serve_stdio(OddModern)
