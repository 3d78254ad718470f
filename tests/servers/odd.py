"""What the two odd servers share: a puppet that says exactly what its client asks it to say.

A command is a tool (`tools/call` of `say`) and a method (`odd/say`) at once. Nothing here uses a clock
or a random source: the same messages in give the same messages out.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

LONG = 4_000
"""Texts of more characters than this are reported by length and hash."""


class Channel(Protocol):
    """Where the messages that belong to one request go: stdout, or the reply to one HTTP POST."""

    def say(self, text: str) -> None: ...

    def done(self) -> None: ...


class Stdout:
    def say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def done(self) -> None:
        """Stdout stays open."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that waits for its reply; `arguments` are the tool's, or the method's params."""

    id: str
    """As JSON text, so that 7 and "7" differ."""
    params: Mapping[str, Any]
    arguments: Mapping[str, Any]
    channel: Counted

    def finish(self, *lines: str) -> None:
        for line in lines:
            self.channel.say(line)
        self.channel.done()

    def result(self, value: object) -> None:
        self.finish(f'{{"jsonrpc":"2.0","id":{self.id},"result":{json.dumps(value)}}}')

    def error(self, code: int, message: str, data: object) -> None:
        error = {"code": code, "message": message, "data": data}
        self.finish(f'{{"jsonrpc":"2.0","id":{self.id},"error":{json.dumps(error)},"x-envelope":true}}')


Command = Callable[[Request], None]


class Counted:
    """A channel that counts what is said on it."""

    def __init__(self, channel: Channel, server: OddServer) -> None:
        self.channel, self.server = channel, server

    def say(self, text: str) -> None:
        self.server.said += 1
        self.channel.say(text)

    def done(self) -> None:
        self.channel.done()


class OddServer:
    """One conversation. `aside` takes the messages that belong to no request."""

    def __init__(self, aside: Channel) -> None:
        self.aside = Counted(aside, self)
        self.said = 0
        self.heard: list[str] = []
        self.held: dict[str, Request] = {}
        self.dropped: dict[str, object] = {}
        self.on_hold: Request | None = None
        self.on_drop: dict[str, Request] = {}
        self.on_answer: dict[str, Callable[[str], None]] = {}
        self.commands: dict[str, Command] = {
            "say": self.say,
            "break_off": self.say,
            "say_aside": self.say_aside,
            "echo": self.echo,
            "ask": self.ask,
            "hold": self.hold,
            "release": self.release,
            "until_held": self.until_held,
            "until_dropped": self.until_dropped,
            "flood": self.flood,
            "large": self.large,
            "surroundings": self.surroundings,
            "stderr": self.stderr,
            "exit": self.exit,
        }
        self.methods: dict[str, Command] = {
            "tools/call": self.call_tool,
            "ping": lambda request: request.result({}),
            "odd/heard": self.report,
            **{f"odd/{name}": command for name, command in self.commands.items()},
        }

    def hear(self, line: str, channel: Channel) -> None:
        """Take one line or POST body; what it causes is said before this returns, or later."""
        counted = Counted(channel, self)
        if '"odd/heard"' not in line:
            self.heard.append(shorten(line))
        try:
            value = json.loads(line)
        except ValueError:
            counted.say('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"not JSON"}}')
            counted.done()
        else:
            for message in value if isinstance(value, list) else [value]:
                self.take(message, line, counted)

    def take(self, message: Mapping[str, Any], line: str, channel: Counted) -> None:
        method, message_id = message.get("method"), json.dumps(message.get("id"))
        params = message.get("params")
        params = params if isinstance(params, dict) else {}
        if method is not None and "id" in message:
            self.serve(method, Request(message_id, params, params, channel))
            return
        if method is None and message_id in self.on_answer:
            self.on_answer.pop(message_id)(line)
        elif method == "notifications/cancelled":
            self.drop(json.dumps(params.get("requestId")), params.get("reason"))
        channel.done()

    def serve(self, method: str, request: Request) -> None:
        if refusal := self.refuse(method, request):
            request.error(*refusal)
        elif command := self.methods.get(method):
            command(request)
        else:
            request.error(-32601, f"no method {method}", {"method": method, "x-data": [1.0, None]})

    def refuse(self, method: str, request: Request) -> tuple[int, str, object] | None:
        """What is wrong with a request, as code, message and data."""
        return None

    def call_tool(self, request: Request) -> None:
        name = request.params.get("name")
        arguments = request.params.get("arguments")
        command = self.commands.get(name) if isinstance(name, str) else None
        if command is None:
            return request.error(-32602, f"no tool {name}", {"name": name})
        arguments = arguments if isinstance(arguments, dict) else {}
        return command(Request(request.id, request.params, arguments, request.channel))

    def drop(self, request_id: str, reason: object) -> None:
        """The client no longer wants the reply to a request that is held."""
        if request := self.held.pop(request_id, None):
            self.dropped[request_id] = reason
            request.channel.done()
            if waiting := self.on_drop.pop(request_id, None):
                self.until_dropped(waiting)

    def hang_up(self, channel: Channel) -> None:
        """The client closed the stream of one request."""
        for request_id, request in list(self.held.items()):
            if request.channel.channel is channel:
                self.drop(request_id, "stream closed")

    # Commands.

    def report(self, request: Request) -> None:
        """Every line heard, and how many were said, since the last report.

        With `sorted`, for clients whose messages may overtake each other on their way (HTTP).
        """
        heard, said = self.heard, self.said
        if request.arguments.get("sorted"):
            heard.sort()
        self.heard = []
        request.result({"heard": heard, "said": said})
        self.said = 0

    def say(self, request: Request) -> None:
        """Say `lines` as they are but for `$ID`, this request's id. The reply is one of them, or none is."""
        request.finish(*(line.replace("$ID", request.id) for line in request.arguments["lines"]))

    def say_aside(self, request: Request) -> None:
        for line in request.arguments["lines"]:
            self.aside.say(line)
        request.result({"content": []})

    def echo(self, request: Request) -> None:
        request.result({"content": [], "structuredContent": request.params, "resultType": "complete"})

    def ask(self, request: Request) -> None:
        """Send `requests` to the client and reply with the answers' texts, in the order of the requests."""
        texts = request.arguments["requests"]
        answers: list[str | None] = [None] * len(texts)

        def on_answer(position: int, line: str) -> None:
            answers[position] = line
            if None not in answers:
                request.result({"content": [], "structuredContent": answers})

        for position, text in enumerate(texts):
            asked_id = json.dumps(json.loads(text)["id"])
            self.on_answer[asked_id] = lambda line, position=position: on_answer(position, line)
        for text in texts:
            request.channel.say(text)

    def hold(self, request: Request) -> None:
        self.held[request.id] = request
        if self.on_hold:
            self.commands[self.on_hold.params["name"]](self.on_hold)

    def until_held(self, request: Request) -> None:
        """Reply once `count` requests are held."""
        self.on_hold = request if len(self.held) < request.arguments["count"] else None
        if not self.on_hold:
            request.result({"content": [], "structuredContent": sorted(self.held)})

    def release(self, request: Request) -> None:
        """Once `count` requests are held, answer this, then them, in falling order of their ids."""
        self.until_held(request)
        if not self.on_hold:
            held, self.held = self.held, {}
            for late in sorted(held, reverse=True):
                held[late].result({"content": [], "_meta": {"late": held[late].params}})

    def until_dropped(self, request: Request) -> None:
        """Reply once the request with JSON id `id` has been dropped, saying why it was."""
        dropped_id = json.dumps(request.arguments["id"])
        if dropped_id in self.dropped:
            reason = self.dropped.pop(dropped_id)
            request.result({"content": [], "structuredContent": {"id": dropped_id, "reason": reason}})
        else:
            self.on_drop[dropped_id] = request

    def flood(self, request: Request) -> None:
        """Progress notifications, numbered, then the reply."""
        token = json.dumps(request.params.get("_meta", {}).get("progressToken"))
        for number in range(request.arguments["count"]):
            params = f'{{"progressToken":{token},"progress":{number},"x":"\\u00e9"}}'
            request.channel.say(f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}')
        request.result({"content": [], "resultType": "complete"})

    def large(self, request: Request) -> None:
        request.result({"content": [{"type": "text", "text": "é\n" * (request.arguments["chars"] // 2)}]})

    def surroundings(self, request: Request) -> None:
        request.result({"cwd": os.getcwd(), "argv": sys.argv[1:], "environ": dict(os.environ)})

    def stderr(self, request: Request) -> None:
        sys.stderr.write(request.arguments["text"])
        sys.stderr.flush()
        request.result({"content": []})

    def exit(self, request: Request) -> None:
        sys.stderr.write("the odd server leaves\n")
        sys.stderr.flush()
        request.finish(*(line.replace("$ID", request.id) for line in request.arguments["lines"]))
        os._exit(request.arguments["code"])


def shorten(text: str) -> str:
    """Return `text`, or its length and hash where it is long."""
    if len(text) <= LONG:
        return text
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
    return f"{len(text)} characters, sha256 {digest}"


def serve_stdio(make_server: Callable[[Channel], OddServer]) -> None:
    stdout = Stdout()
    # Bytes that are not UTF-8 travel as lone surrogates: U+DCFF is the byte 0xff.
    sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    server = make_server(stdout)
    for line in sys.stdin:
        server.hear(line.rstrip("\n"), stdout)
