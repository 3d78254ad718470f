"""What the npm server-everything does, as rows: a name and the texts a raw client sends."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.firefly_proxy.behaviours_compare import Behaviour, Mask
from tests.firefly_proxy.behaviours_odd import NO_HTTP, cancel
from tests.wire import Wire

FENCE = '{"jsonrpc":"2.0","id":"fence","method":"ping"}'

TIME = Mask(r"\d+:\d\d:\d\d [AP]M", "dynamic resources carry the time of day")
BLOB = Mask(r'"blob":"[\w=]+"', "a dynamic blob is the text with the time of day, as base64")
TASK = Mask(r"[0-9a-f]{32}", "a task's id is random")
DATE = Mask(r"20\d\d-\d\d-\d\dT[\d:.]+Z", "a task says when it was made and changed")
LEVEL = Mask(
    r'"level":"\w+","data":"[A-Z][^"]+?( - SessionId [^"]+)?"', "the level of a simulated log line is random"
)
UUID = Mask(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "sessions and unnamed elicitations have random ids")

HELLO = Behaviour(
    "hello",
    [
        '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":'
        '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true},"tasks":'
        '{"requests":{"sampling":{"createMessage":{}},"elicitation":{"create":{}}}}},'
        '"clientInfo":{"name":"raw é","version":"0"}}}',
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
    ],
    in_turn=True,
    # A third of a second later the server asks for the roots and logs how many there are.
    awaits=["notifications/message"],
)


def send(method: str, request_id: object = 1, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def call(tool: str, request_id: object = 1, meta: dict[str, Any] | None = None, **arguments: Any) -> str:
    return send("tools/call", request_id, name=tool, arguments=arguments, **({"_meta": meta} if meta else {}))


def data_uri(size: int) -> str:
    return "data:text/plain;base64," + base64.b64encode(b"firefly " * (size // 8)).decode()


async def read_zipped(wire: Wire) -> None:
    """Read the resource that a tool made."""
    await wire.request(send("resources/read", 2, uri="demo://resource/session/é.gz"))


async def finish_task(wire: Wire) -> None:
    """Follow the task that the last call made, up to its result."""
    task_id = json.loads(wire.replies["1"])["result"]["task"]["taskId"]
    await wire.request(send("tasks/get", 2, taskId=task_id))
    await wire.request(send("tasks/result", 3, taskId=task_id))
    await wire.request(send("tasks/get", 4, taskId=task_id))


async def cancel_task(wire: Wire) -> None:
    task_id = json.loads(wire.replies["1"])["result"]["task"]["taskId"]
    await wire.request(send("tasks/cancel", 2, taskId=task_id))
    await wire.request(send("tasks/get", 3, taskId=task_id))


def research(ambiguous: bool) -> str:
    arguments = {"topic": "é", "ambiguous": ambiguous}
    return send("tools/call", name="simulate-research-query", arguments=arguments, task={"ttl": 60000})


def complete(ref: dict[str, str], argument: str, value: str, context: dict[str, Any] | None = None) -> str:
    extra = {"context": {"arguments": context}} if context else {}
    return send("completion/complete", ref=ref, argument={"name": argument, "value": value}, **extra)


TEAM = {"type": "ref/prompt", "name": "completable-prompt"}
TEMPLATE = {"type": "ref/resource", "uri": "demo://resource/dynamic/text/{resourceId}"}
LOGGED = "notifications/message"
UPDATED = "notifications/resources/updated"

ROWS = [
    Behaviour("ping", [send("ping")]),
    Behaviour("the list of tools", [send("tools/list")]),
    Behaviour("the list of prompts", [send("prompts/list")]),
    Behaviour("the list of resources", [send("resources/list")]),
    Behaviour("the list of resource templates", [send("resources/templates/list")]),
    Behaviour("echo", [call("echo", message="é\u2028\U0001f43f")]),
    Behaviour("a sum of fractions", [call("get-sum", a=0.1, b=0.2)]),
    Behaviour("an argument of the wrong type", [call("get-sum", a="one", b=2)]),
    Behaviour("an unknown tool", [call("nothing")]),
    Behaviour("an unknown method", [send("x/y")]),
    Behaviour("a string id", [call("echo", "é", message="x")]),
    Behaviour("an image", [call("get-tiny-image")]),
    Behaviour("annotations", [call("get-annotated-message", messageType="error", includeImage=True)]),
    Behaviour("structured content", [call("get-structured-content", location="Chicago")]),
    Behaviour("links to resources", [call("get-resource-links", count=4)]),
    Behaviour(
        "an embedded text", [call("get-resource-reference", resourceType="Text", resourceId=3)], masks=[TIME]
    ),
    Behaviour(
        "an embedded blob", [call("get-resource-reference", resourceType="Blob", resourceId=3)], masks=[BLOB]
    ),
    Behaviour("the environment", [call("get-env")], http=NO_HTTP),
    Behaviour(
        "a static resource", [send("resources/read", uri="demo://resource/static/document/features.md")]
    ),
    Behaviour(
        "a templated text", [send("resources/read", uri="demo://resource/dynamic/text/7")], masks=[TIME]
    ),
    Behaviour(
        "a templated blob", [send("resources/read", uri="demo://resource/dynamic/blob/7")], masks=[BLOB]
    ),
    Behaviour("an unknown resource", [send("resources/read", uri="demo://nothing")]),
    Behaviour("a prompt", [send("prompts/get", name="simple-prompt")]),
    Behaviour(
        "a prompt with arguments", [send("prompts/get", name="args-prompt", arguments={"city": "Köln"})]
    ),
    Behaviour("a prompt without its argument", [send("prompts/get", name="args-prompt", arguments={})]),
    Behaviour(
        "a prompt with a resource",
        [send("prompts/get", name="resource-prompt", arguments={"resourceType": "Text", "resourceId": "2"})],
        masks=[TIME],
    ),
    Behaviour("completion", [complete(TEAM, "department", "S")]),
    Behaviour("completion in a context", [complete(TEAM, "name", "", {"department": "Sales"})]),
    Behaviour("completion of a template", [complete(TEMPLATE, "resourceId", "12")]),
    Behaviour(
        "progress",
        [call("trigger-long-running-operation", meta={"progressToken": "é 1"}, duration=0.2, steps=4)],
    ),
    Behaviour(
        "progress for two calls at once",
        [
            call("trigger-long-running-operation", 1, {"progressToken": 7}, duration=0.3, steps=2),
            call("trigger-long-running-operation", "1", {"progressToken": "7"}, duration=0.5, steps=2),
        ],
    ),
    Behaviour(
        "cancellation",
        [call("trigger-long-running-operation", 7, duration=0.3, steps=1), cancel(7), send("ping", 8)],
        unanswered=[7],
    ),
    Behaviour("sampling", [call("trigger-sampling-request", prompt="é", maxTokens=5)]),
    Behaviour(
        "sampling as a task of the client", [call("trigger-sampling-request-async", prompt="é", maxTokens=5)]
    ),
    Behaviour("elicitation", [call("trigger-elicitation-request")]),
    Behaviour("elicitation as a task of the client", [call("trigger-elicitation-request-async")]),
    Behaviour(
        "elicitation by URL",
        [call("trigger-url-elicitation", url="https://é.example/", elicitationId="e", message="é")],
    ),
    Behaviour(
        "elicitation by error",
        [call("trigger-url-elicitation", url="https://x.example/", errorPath=True)],
        masks=[UUID],
    ),
    Behaviour("roots", [call("get-roots-list")]),
    Behaviour(
        "changed roots",
        ['{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}'],
        awaits=[LOGGED],
        anywhere=[LOGGED, "roots/list"],
    ),
    Behaviour("a log level", [send("logging/setLevel", level="debug")]),
    Behaviour(
        "log lines",
        [
            send("logging/setLevel", 1, level="debug"),
            call("toggle-simulated-logging", 2),
            call("toggle-simulated-logging", 3),
        ],
        in_turn=True,
        awaits=[LOGGED],
        masks=[LEVEL, UUID],
    ),
    Behaviour(
        "a subscription",
        [
            send("resources/subscribe", 1, uri="demo://resource/dynamic/text/1"),
            call("toggle-subscriber-updates", 2),
            call("toggle-subscriber-updates", 3),
            send("resources/unsubscribe", 4, uri="demo://resource/dynamic/text/1"),
        ],
        in_turn=True,
        awaits=[UPDATED],
        masks=[UUID],
    ),
    Behaviour("a task that asks", [research(ambiguous=True)], script=finish_task, masks=[TASK, DATE]),
    Behaviour("a cancelled task", [research(ambiguous=False)], script=cancel_task, masks=[TASK, DATE]),
    Behaviour("a tool that must be a task", [call("simulate-research-query", topic="x")]),
    Behaviour("an unknown task", [send("tasks/get", taskId="nothing")]),
    Behaviour("3 MB up and down", [call("echo", message="x" * 3_000_000)]),
    Behaviour(
        "a resource made by a tool, with a changed list",
        [call("gzip-file-as-resource", name="é.gz", data=data_uri(100_000))],
        awaits=["notifications/resources/list_changed"],
        script=read_zipped,
    ),
    Behaviour(
        "a 3 MB file zipped",
        [call("gzip-file-as-resource", name="b", data=data_uri(3_000_000), outputType="resource")],
    ),
]
