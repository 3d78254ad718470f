"""What the odd servers do, as rows: a name and the texts a client sends to make them do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio

from tests.firefly_proxy.behaviours_compare import Behaviour
from tests.wire import META, MODERN, Wire

Call = Callable[..., str]

NO_HTTP = ()
LEGACY_HTTP = ("legacy",)


def legacy(method: str, request_id: object = 1, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def modern(method: str, request_id: object = 1, meta: dict[str, Any] | None = None, **params: Any) -> str:
    return legacy(method, request_id, **params, _meta=ENVELOPE | (meta or {}))


def legacy_call(tool: str, request_id: object = 1, **arguments: Any) -> str:
    return legacy("tools/call", request_id, name=tool, arguments=arguments)


def modern_call(tool: str, request_id: object = 1, **arguments: Any) -> str:
    return modern("tools/call", request_id, name=tool, arguments=arguments)


ENVELOPE = {
    META + "protocolVersion": MODERN,
    META + "clientInfo": {"name": "raw é", "version": "0", "x-info": 1.0},
    META + "clientCapabilities": {"elicitation": {}, "sampling": {}, "roots": {}, "x-cap": [None]},
}


def result(text: str) -> str:
    return f'{{"jsonrpc":"2.0","id":$ID,"result":{text}}}'


def error(text: str) -> str:
    return f'{{"jsonrpc":"2.0","id":$ID,"error":{text}}}'


EMPTY = result('{"content":[]}')

REPLIES = {
    "a result that is a list": result('[1, {"a": 2}]'),
    "a result that is a string": result('"done"'),
    "a result that is null": result("null"),
    "a result that is a number": result("0"),
    "a result that is false": result("false"),
    "an empty result": result("{}"),
    "structured content that is a list": result('{"content":[],"structuredContent":[1,"a",null]}'),
    "structured content that is a number": result('{"content":[],"structuredContent":1.0}'),
    "structured content that is null": result('{"content":[],"structuredContent":null}'),
    "content of an unknown type": result('{"content":[{"type":"smell","of":"roses","n":1.0}]}'),
    "content that is no list": result('{"content":"text","isError":"perhaps"}'),
    "a result without content": result('{"structuredContent":{"a":{}}}'),
    "unknown fields in a result": result(
        '{"content":[{"type":"text","text":"","x":{"y":[]}}],"x-result":null}'
    ),
    "metadata of others": result(
        '{"content":[],"_meta":{"io.firefly/replay":1,"é":{},"progressToken":null}}'
    ),
    "unknown fields in the envelope": '{"x-first":1,"jsonrpc":"2.0","id":$ID,"result":{},"trace":{"a":null}}',
    "keys in another order": '{"result":{"isError":false,"content":[]},"id":$ID,"jsonrpc":"2.0"}',
    "whitespace inside": '{ "jsonrpc" :\t"2.0", "id": $ID , "result": { "content": [ ] } }  ',
    "a key that comes twice": '{"jsonrpc":"2.0","id":$ID,"result":{"a":1,"a":2,"content":[]}}',
    "numbers": result(
        '{"content":[],"n":[1.0,1e5,1E+2,-0,0.10,12345678901234567890123,-9223372036854775809,1e400]}'
    ),
    "numbers that JSON does not know": result('{"content":[],"n":[NaN,Infinity,-Infinity]}'),
    "escaped text": result('{"content":[],"t":"\\u00e9\\/\\ud83d\\udc3f\\u0000\\u007f\\b"}'),
    "half a surrogate pair": result('{"content":[],"t":"\\ud83d"}'),
    "text with odd line separators": result('{"content":[],"t":"é\u2028\u2029\u0085🐿"}'),
    "a result and an error": '{"jsonrpc":"2.0","id":$ID,"result":{},"error":{"code":1,"message":"both"}}',
    "neither result nor error": '{"jsonrpc":"2.0","id":$ID}',
    "an error with data": error(
        '{"code":-32042,"message":"open it","data":{"elicitations":[{"mode":"url"}]}}'
    ),
    "an error without a message": error('{"code":-32000}'),
    "an error whose code is a string": error('{"code":"ENOENT","message":null,"data":null,"x-error":1}'),
    "an error whose code is a fraction": error('{"code":1.50,"message":""}'),
    "an error whose code is huge": error('{"code":99999999999999999999,"message":"big"}'),
    "an error that is a string": error('"went wrong"'),
    "a reply without jsonrpc": '{"id":$ID,"result":{"content":[]}}',
    "a reply of JSON-RPC 1": '{"jsonrpc":"1.0","id":$ID,"result":{},"error":null}',
    "a deeply nested result": result('{"content":[],"deep":' + "[" * 300 + "]" * 300 + "}"),
}


def note(method: str, params: str, rest: str = "") -> str:
    return f'{{"jsonrpc":"2.0","method":"{method}","params":{params}{rest}}}'


NOTIFICATIONS = {
    "a log notification": note("notifications/message", '{"level":"info","data":1.0}'),
    "an unknown notification": note("notifications/odd/é", '{"x":[1.0,null]}', ',"y":0'),
    "a notification without params": '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
    "a notification whose params are a list": note("notifications/odd", "[1, 2]"),
    "a notification whose params are null": note("notifications/odd", " null "),
    "progress for an unknown token": note(
        "notifications/progress", '{"progressToken":"nobody","progress":1e0}'
    ),
    "a cancellation of an unknown request": note("notifications/cancelled", '{"requestId":404,"reason":"é"}'),
    "a task's new status": note("notifications/tasks/status", '{"taskId":"t","status":"pondering","x":1}'),
    "a finished URL elicitation": note("notifications/elicitation/complete", '{"elicitationId":"e"}'),
    "a reply that nobody asked for": '{"jsonrpc":"2.0","id":"unasked","result":{"content":[]}}',
    "an error for nobody": '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"what?"}}',
}

NOISE = {
    "a line of plain text": "Listening on port 3000 … é",
    "an empty line": "",
    "a header of another protocol": "Content-Length: 12",
    "a JSON string": '"starting"',
    "a JSON number": "12",
    "an empty list": "[]",
    "an object of no protocol": '{"level":"info","msg":"started"}',
    "half a message": '{"jsonrpc":"2.0","resu',
}


def asked(request_id: str, method: str, params: str = "{}") -> str:
    """A server's request."""
    return f'{{"jsonrpc":"2.0","id":{request_id},"method":"{method}","params":{params},"x-envelope":1.0}}'


def asked_with_answer(request_id: str, answer: str) -> str:
    """A server's request that says which text the client is to answer with."""
    return asked(request_id, "odd/question", json.dumps({"odd/answer": answer}))


def common(call: Call, raw: Callable[[str], str]) -> list[Behaviour]:
    """The rows of both eras. `call` writes a tools/call, `raw` fills the era's `_meta` into a text."""

    def says(name: str, *lines: str, **options: Any) -> Behaviour:
        return Behaviour(name, [call("say", lines=lines)], **options)

    async def cancel_seven(wire: Wire) -> None:
        await wire.send(cancel("7"))
        await wire.request(call("until_dropped", 8, id="7"))
        await wire.request(call("release", 9, count=1))
        await wire.until(lambda: "7" in wire.replies)
        await anyio.sleep(0.3)  # time for a reply to "7", which must not come

    return [
        *(says(name, line) for name, line in REPLIES.items()),
        *(says(f"{name}, then the reply", line, EMPTY) for name, line in NOTIFICATIONS.items()),
        *(says(f"noise: {name}", text, EMPTY, noise=[text], http=NO_HTTP) for name, text in NOISE.items()),
        says(
            "noise between messages", *NOTIFICATIONS.values(), "noise", EMPTY, noise=["noise"], http=NO_HTTP
        ),
        says("a notification after the reply", EMPTY, NOTIFICATIONS["a log notification"]),
        says("two replies to one request", result('{"n":1}'), result('{"n":2}')),
        says("a reply that ends in CR", EMPTY + "\r", http=NO_HTTP),
        says("a reply that begins with spaces", "  " + EMPTY, http=NO_HTTP),
        says(
            "an error with a null id",
            '{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"?"}}',
            unanswered=[1],
            http=NO_HTTP,
        ),
        says(
            "a reply whose id is a list",
            '{"jsonrpc":"2.0","id":[$ID],"result":{}}',
            unanswered=[1],
            http=NO_HTTP,
        ),
        says(
            "a reply whose id became a float",
            '{"jsonrpc":"2.0","id":1.0,"result":{}}',
            unanswered=[1],
            http=NO_HTTP,
        ),
        says(
            "a reply whose id became a string",
            '{"jsonrpc":"2.0","id":"1","result":{}}',
            unanswered=[1],
            http=NO_HTTP,
        ),
        says("a batch of replies", f"[{EMPTY},{NOTIFICATIONS['a log notification']}]", http=NO_HTTP),
        says("nested deeper than parsers go", result("[" * 100_000 + "]" * 100_000), EMPTY, http=NO_HTTP),
        says("a number of 5,000 digits", result("9" * 5000), EMPTY, http=NO_HTTP),
        says("no reply", unanswered=[1], http=NO_HTTP),
        says("a byte that is not UTF-8", result('{"t":"\udcff"}'), EMPTY, http=NO_HTTP),
        Behaviour(
            "a byte that is not UTF-8 in a request",
            [raw('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"b":"\udcff",$TOOL}}')],
            http=NO_HTTP,
        ),
        Behaviour("an unknown tool", [call("nothing")]),
        Behaviour(
            "an unknown method", [raw('{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"_meta":$META}}')]
        ),
        Behaviour(
            "unknown fields in a request",
            [raw('{"a":1,"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"b":null,$TOOL},"c":{}}')],
        ),
        Behaviour(
            "a request with whitespace and keys in another order",
            [raw('{ "params" : { $TOOL },\t"method":"tools/call", "id" : 1, "jsonrpc": "2.0" }')],
        ),
        Behaviour(
            "numbers in a request",
            [
                raw(
                    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
                    '{"arguments":{"n":[1.0,1e5,-0,0.10,12345678901234567890123,NaN]},$TOOL}}'
                )
            ],
        ),
        Behaviour(
            "text in a request",
            [
                raw(
                    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
                    '{"arguments":{"t":"\\u00e9é\u2028\u0085\\ud83d\\u0000\\/"},$TOOL}}'
                )
            ],
        ),
        Behaviour(
            "a key that comes twice in a request",
            [
                raw(
                    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"a":1,"a":2},$TOOL}}'
                )
            ],
        ),
        *(
            Behaviour(f"a request whose id is {request_id}", [call("echo", json.loads(request_id))])
            for request_id in ["0", "-1", '""', '"é\\u0000"', "1180591620717411303424", "1.5"]
        ),
        Behaviour(
            "requests 7 and '7' at once", [call("hold", 7), call("hold", "7"), call("release", 8, count=2)]
        ),
        Behaviour("the same id again", [call("echo", 7, n=1), call("echo", 7, n=2)], in_turn=True),
        Behaviour(
            "one id for two open requests",
            [call("hold", 7), call("echo", 7), call("release", 8, count=1)],
            http=NO_HTTP,
        ),
        Behaviour(
            "replies in reverse order",
            [*(call("hold", n) for n in range(2, 12)), call("release", 1, count=10)],
        ),
        Behaviour("twenty requests at once", [call("echo", n, n=n) for n in range(20)], http=NO_HTTP),
        Behaviour(
            "2,000 progress notifications before a reply",
            [raw('{"jsonrpc":"2.0","id":1,"method":"odd/flood","params":{"count":2000,"_meta":$FLOOD}}')],
        ),
        Behaviour(
            "progress for a token that is a string",
            [raw('{"jsonrpc":"2.0","id":1,"method":"odd/flood","params":{"count":3,"_meta":$TOKEN}}')],
        ),
        Behaviour("a reply of 3 MB", [call("large", chars=750_000)]),
        Behaviour("a reply of 25 MB", [call("large", chars=6_250_000)], http=LEGACY_HTTP),
        Behaviour("a request of 3 MB", [call("say", lines=[EMPTY], x="é\n" * 375_000)]),
        Behaviour("a request of 25 MB", [call("say", lines=[EMPTY], x="é\n" * 3_125_000)], http=LEGACY_HTTP),
        Behaviour("what the server process sees", [call("surroundings")], http=NO_HTTP),
        Behaviour("text on stderr", [call("stderr", text="a warning\n")], http=NO_HTTP),
        Behaviour(
            "cancelling '7' leaves 7",
            [call("hold", 7), call("hold", "7"), call("until_held", 6, count=2)],
            unanswered=[7, "7"],
            script=cancel_seven,
        ),
        Behaviour(
            "cancelling an answered request",
            [call("echo", 7), cancel(7), call("echo", 8)],
            in_turn=True,
            http=LEGACY_HTTP,
        ),
        Behaviour("the client sends what is not JSON", ["what?"], http=NO_HTTP),
        Behaviour(
            "the client answers nobody", ['{"jsonrpc":"2.0","id":9,"result":{"x":1.0}}'], http=LEGACY_HTTP
        ),
        Behaviour("the client sends a batch", [f"[{call('echo', 1)}, {call('echo', 2)}]"], http=NO_HTTP),
        Behaviour(
            "an unknown notification to the server",
            ['{"jsonrpc":"2.0","method":"notifications/odd","params":[1.0, null],"x":1}'],
            http=LEGACY_HTTP,
        ),
        Behaviour(
            "the server asks with the client's own ids",
            [
                call("hold", 7),
                call("hold", "7"),
                call("ask", 8, requests=[asked("7", "sampling/createMessage"), asked('"7"', "roots/list")]),
                call("release", 9, count=1),
            ],
            unanswered=[7, "7"],
            in_turn=True,
            http=LEGACY_HTTP,
        ),
        *(
            Behaviour(
                f"the server asks {method}",
                [call("ask", requests=[asked("0", method, params)])],
                http=LEGACY_HTTP,
            )
            for method, params in ASKS.items()
        ),
        *(
            Behaviour(
                f"the client answers {name}",
                [call("ask", requests=[asked_with_answer('"q"', answer)])],
                http=LEGACY_HTTP,
            )
            for name, answer in ANSWERS.items()
        ),
    ]


ASKS = {
    "sampling/createMessage": '{"messages":[],"maxTokens":1e2,"tools":[{"x":1}],"toolChoice":{"mode":"no"}}',
    "elicitation/create": '{"mode":"url","url":"https://é.example/","elicitationId":"e","message":"go","x":[1.0]}',
    "roots/list": "null",
    "ping": "{}",
    "tasks/get": '{"taskId":"client-task"}',
    "odd/unknown": "[1, 2.0]",
}

ANSWERS = {
    "with an error with data": '{"id":$ID,"error":{"code":-1,"message":"no","data":[1.0]},"jsonrpc":"2.0"}',
    "with a list": '{"jsonrpc":"2.0","id":$ID,"result":[ 1.0 ]}',
    "with null": '{"jsonrpc":"2.0","id":$ID,"result":null}',
    "with unknown fields": '{"x":1,"jsonrpc":"2.0","id":$ID,"result":{"a":1,"a":2,"t":"\\u00e9"}}',
}


def cancel(request_id: object) -> str:
    params = {"requestId": request_id, "reason": "é", "x": 1.0}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})


TOOL = '"name":"echo","_meta":$META'


def legacy_raw(text: str) -> str:
    flood, token = '{"progressToken":5}', '{"progressToken":"é 1","x":1.0}'
    return (
        text.replace("$TOOL", TOOL)
        .replace("$META", '{"x-meta":1.0}')
        .replace("$FLOOD", flood)
        .replace("$TOKEN", token)
    )


def modern_raw(text: str) -> str:
    def meta(**extra: Any) -> str:
        return json.dumps(ENVELOPE | extra)

    text = text.replace("$FLOOD", meta(progressToken=5)).replace("$TOKEN", meta(progressToken="é 1"))
    return text.replace("$TOOL", TOOL).replace("$META", meta(x=1.0))


LEGACY_HELLO = Behaviour(
    "hello",
    [
        '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":'
        '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true},'
        '"experimental":{},"x-capability":[1.0]},"clientInfo":{"name":"raw é","version":"0","x-info":1}}}',
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        legacy("tools/list"),
        legacy("tools/list", 2, cursor="p 2"),
    ],
    in_turn=True,
)

LEGACY_HTTP_FENCE = '{"jsonrpc":"2.0","id":"fence","method":"odd/heard","params":{"sorted":true}}'
LEGACY_FENCE = '{"jsonrpc":"2.0","id":"fence","method":"odd/heard"}'

LEGACY: list[Behaviour] = [
    *common(legacy_call, legacy_raw),
    *(
        Behaviour(method, [legacy(method, **params)])
        for method, params in {
            "ping": {},
            "resources/list": {"x-param": 1.0},
            "resources/templates/list": {},
            "resources/read": {"uri": "odd://é"},
            "prompts/list": {"cursor": None},
            "prompts/get": {"name": "p", "arguments": {"a": "é"}},
            "completion/complete": {"ref": {"type": "ref/odd"}, "argument": {}, "context": {"x": 1}},
            "logging/setLevel": {"level": "shout"},
            "tasks/get": {"taskId": "t"},
            "tasks/list": {},
            "tasks/result": {"taskId": "t"},
            "tasks/cancel": {"taskId": "t"},
            "resources/unsubscribe": {"uri": "odd://text"},
        }.items()
    ),
    Behaviour("resources/subscribe", [legacy("resources/subscribe", uri="odd://text")]),
    Behaviour(
        "a call as a task", [legacy("tools/call", name="start_task", arguments={}, task={"ttl": 1e3, "x": 1})]
    ),
    Behaviour("initialize again", [LEGACY_HELLO.sends[0]], http=NO_HTTP),
    Behaviour(
        "server/discover is refused",
        ['{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}'],
        http=NO_HTTP,
    ),
    Behaviour(
        "messages that belong to no request", [legacy_call("say_aside", lines=list(NOTIFICATIONS.values()))]
    ),
    Behaviour(
        "a request that belongs to no request",
        [
            legacy_call("say_aside", lines=[asked('"aside"', "roots/list"), asked("1", "ping")]),
            legacy("ping", 2),
        ],
        in_turn=True,
        http=NO_HTTP,
    ),
    Behaviour(
        "a notification of changed roots", ['{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}']
    ),
    Behaviour(
        "params that are a list",
        ['{"jsonrpc":"2.0","id":1,"method":"odd/echo","params":[1.0, null]}'],
        http=NO_HTTP,
    ),
    Behaviour(
        "params that are null", ['{"jsonrpc":"2.0","id":1,"method":"odd/echo","params":null}'], http=NO_HTTP
    ),
    Behaviour("a request whose id is null", ['{"jsonrpc":"2.0","id":null,"method":"ping"}'], http=NO_HTTP),
]

MODERN_HELLO = Behaviour("hello", [modern("server/discover", 0), modern("tools/list")], in_turn=True)
MODERN_FENCE = modern("odd/heard", "fence")
MODERN_HTTP_FENCE = modern("odd/heard", "fence", sorted=True)

INTERVIEW = {"name": "interview", "arguments": {}}
ROUND_1 = {
    "who": {"action": "accept", "content": {"name": "é"}, "x": 1.0},
    "what": None,
    "where": {"roots": []},
}


def listen(request_id: object) -> str:
    notifications = {"toolsListChanged": True, "resourceSubscriptions": ["odd://text"], "x-odd": 1.0}
    return modern("subscriptions/listen", request_id, notifications=notifications)


async def end_subscriptions(wire: Wire) -> None:
    """Cancel one subscription, then the other; see every event that came before."""
    events = "notifications/odd/changed"
    await wire.until(lambda: wire.notified["notifications/subscriptions/acknowledged"] == 2)
    await wire.request(modern_call("touch", 6))
    await wire.until(lambda: wire.notified[events] == 2)
    await wire.send(cancel("5"))
    await wire.request(modern_call("until_dropped", 7, id="5"))
    await wire.request(modern_call("touch", 8))
    await wire.until(lambda: wire.notified[events] == 3)
    await wire.send(cancel(5))
    await wire.request(modern_call("until_dropped", 9, id=5))


MODERN_ROWS: list[Behaviour] = [
    *common(modern_call, modern_raw),
    *(
        Behaviour(method, [modern(method, **params)])
        for method, params in {
            "server/discover": {},
            "tools/list": {"x-param": 1.0},
            "resources/list": {},
            "resources/templates/list": {},
            "resources/read": {"uri": "odd://é"},
            "prompts/list": {},
            "prompts/get": {"name": "p", "arguments": {"a": "é"}},
            "completion/complete": {"ref": {"type": "ref/odd"}, "argument": {}, "context": {"x": 1}},
            "tasks/get": {"taskId": "t"},
            "tasks/update": {"taskId": "t", "inputResponses": {"a": {"x": 1.0}}},
            "tasks/cancel": {"taskId": "t"},
        }.items()
    ),
    Behaviour("initialize is refused", [LEGACY_HELLO.sends[0]], http=NO_HTTP),
    Behaviour("a request without the envelope", [legacy("tools/list")], http=NO_HTTP),
    Behaviour(
        "an unsupported version", [modern("tools/list", meta={META + "protocolVersion": "2099-01-01"})]
    ),
    Behaviour(
        "a request without capabilities",
        [legacy("tools/list", _meta={META + "protocolVersion": MODERN})],
    ),
    Behaviour(
        "a call that asks for input twice",
        [
            modern("tools/call", 1, **INTERVIEW),
            modern("tools/call", 2, **INTERVIEW, inputResponses=ROUND_1, requestState="round 1"),
            modern("tools/call", "3", **INTERVIEW, inputResponses={"who": {}}, requestState="round 2 / é"),
        ],
        in_turn=True,
    ),
    Behaviour("a call that becomes a task", [modern_call("start_task")]),
    Behaviour(
        "a log level for one request", [modern("tools/call", name="log", meta={META + "logLevel": "shout"})]
    ),
    Behaviour(
        "trace context in _meta",
        [modern("tools/call", name="echo", meta={"traceparent": "00-1-1-01", "é": 1})],
    ),
    Behaviour(
        "arguments that are mirrored in headers", [modern_call("regional", region="é", zone={"number": 7})]
    ),
    Behaviour("mirrored arguments left out", [modern_call("regional", zone={})]),
    Behaviour(
        "a mirrored argument with spaces around", [modern_call("regional", region=" x ", zone={"number": 0})]
    ),
    Behaviour("a tool name that no header can carry", [modern_call("wetter-größe", a="b")]),
    Behaviour(
        "two subscriptions, 5 and '5', and the end of one",
        [listen(5), listen("5")],
        unanswered=[5, "5"],
        script=end_subscriptions,
    ),
    Behaviour("a subscription that the server ends", [listen(5), modern_call("release", 6, count=1)]),
]
