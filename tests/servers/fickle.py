"""An MCP server that misbehaves when asked to, on stdio or over HTTP.

    fickle.py [--lifeline PORT] [--stubborn] [--http] [ANYTHING ...]

`--lifeline`: every process of this server keeps a connection to that port of this machine open for as long as
it lives, after one line with its role and pid; so a test learns of a death by an event, zombies included.
`--stubborn`: stay after the end of input, and ignore every polite signal.
`--http`: print a port, then serve MCP there.
Other arguments are there to be revealed.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOOLS = ("echo", "later", "hang", "freeze", "crash", "spawn", "noise", "reveal", "fail")

Reply = str | None
"""The `result` or `error` member of a reply as JSON text, or nothing at all."""

writing = threading.Lock()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("--stubborn", action="store_true")
    parser.add_argument("--http", action="store_true")
    parser.add_argument("--role", default="upstream")
    options, _ = parser.parse_known_args()
    if options.stubborn or options.role != "upstream":
        for polite in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(polite, signal.SIG_IGN)
    if options.lifeline:
        lifeline = socket.create_connection(("127.0.0.1", options.lifeline))
        lifeline.sendall(f"{options.role} {os.getpid()}\n".encode())
    if options.role != "upstream":
        sleep_forever()
    if options.http:
        serve_http()
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message and "method" in message:
            reply = answer(message["method"], message.get("params") or {}, {}, message["id"])
            if reply is not None:
                write(reply_line(message["id"], reply))
    if options.stubborn:
        sleep_forever()


def answer(method: str, params: Mapping[str, Any], headers: Mapping[str, str], request_id: object) -> Reply:
    match method:
        case "tools/call":
            return call(params["name"], params.get("arguments") or {}, headers, request_id)
        case "initialize":
            return result(
                protocolVersion=params["protocolVersion"],
                capabilities={"tools": {}, "resources": {}, "logging": {}},
                serverInfo={"name": "fickle", "version": "1"},
            )
        case "tools/list":
            return result(tools=[{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS])
        case "resources/read":
            return result(contents=[{"uri": params["uri"], "text": f"what is at {params['uri']}"}])
        case "ping":
            return result()
        case _:
            return error(json.dumps(f"no method {method}"))


def call(tool: str, arguments: Mapping[str, Any], headers: Mapping[str, str], request_id: object) -> Reply:
    match tool:
        case "echo":
            return text(arguments["message"])
        case "later":
            reply = reply_line(request_id, text(arguments["message"]))
            threading.Timer(arguments["ms"] / 1000, write, [reply]).start()
        case "hang":
            return None
        case "freeze":
            sleep_forever()
        case "crash":
            print(*arguments["stderr"], sep="\n", file=sys.stderr, flush=True)
            os._exit(arguments["code"])
        case "spawn":
            spawn()
            return text("spawned")
        case "noise":
            for line in arguments["lines"]:
                write(line)
            return text("said")
        case "reveal":
            return reveal(looked_up(arguments, headers), on_stdio=not headers)
        case "fail":
            spelled = spellings(looked_up(arguments, headers)).values()
            return error(json.dumps(f"cannot use {looked_up(arguments, headers)}"), f"[{','.join(spelled)}]")
    return None


def spawn() -> None:
    """Start a child, and a child's child whose parent is gone at once.

    Each has a session of its own, holds our output open and ignores every polite signal.
    """
    ourselves = [sys.executable, *sys.argv]
    subprocess.Popen([*ourselves, "--role", "child"], stdin=subprocess.DEVNULL, start_new_session=True)
    leave = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"
    orphan = [sys.executable, "-c", leave, *ourselves, "--role", "orphan"]
    subprocess.run(orphan, check=True, stdin=subprocess.DEVNULL)


def looked_up(arguments: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Return the value that the arguments name: a variable's, a header's, a program argument, or given."""
    match arguments:
        case {"variable": name}:
            return os.environ.get(name, "unset")
        case {"header": name}:
            return headers.get(name.lower(), "absent")
        case {"position": position}:
            return sys.argv[position]
        case {"value": value}:
            return str(value)
    raise ValueError(f"nothing to look up in {arguments}")


def reveal(value: str, *, on_stdio: bool) -> str:
    """Tell the value in every way there is: noise and a log message (on stdio), text, structure, keys."""
    spelled = [*spellings(value).values()]
    if on_stdio:
        for line in (value, f"value={value}", *(f"debug: {literal}" for literal in spelled)):
            write(line)
        for literal in spelled:
            params = f'{{"level":"info","data":{literal}}}'
            write(f'{{"jsonrpc":"2.0","method":"notifications/message","params":{params}}}')
    content = ",".join(f'{{"type":"text","text":{literal}}}' for literal in spelled)
    structure = f'{{"list":[{",".join(spelled)}],"object":{{{spelled[0]}:{spelled[1]}}}}}'
    return f'"result":{{"content":[{content}],"structuredContent":{structure}}}'


def spellings(value: str) -> dict[str, str]:
    """Return JSON texts that mean `value`, or hold it as JSON in a string, or as JSON in a string in JSON.

    Their names begin with how deep the value lies (`nested`, `doubly nested`) and end with how it is
    written: `plain`; `ascii`; with escaped `slashes`; `markup`-safe, as .NET and Go do; `codes` and `CODES`,
    every character by its number, which nobody does who has nothing to hide.
    """
    ascii_only = json.dumps(value)
    codes = "".join(map(code_of, value))
    markup = "".join(code_of(char) if char in "\"&'+<=>`" else json.dumps(char)[1:-1] for char in value)
    plain = {
        "plain": json.dumps(value, ensure_ascii=False),
        "ascii": ascii_only,
        "slashes": ascii_only.replace("/", r"\/"),
        "markup": f'"{markup}"',
        "codes": f'"{codes}"',
        "CODES": f'"{codes.upper()}"'.replace(r"\U", r"\u"),
    }
    nested = {
        f"nested {name}": json.dumps(f'{{"value": {spelled}}}', ensure_ascii=False)
        for name, spelled in plain.items()
    }
    doubly = {f"doubly {name}": json.dumps(f'{{"text": {spelled}}}') for name, spelled in nested.items()}
    return plain | nested | doubly


def code_of(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(rf"\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def text(value: str) -> str:
    return result(content=[{"type": "text", "text": value}])


def result(**members: object) -> str:
    return f'"result":{json.dumps(members, ensure_ascii=False)}'


def error(message: str, data: str = "null") -> str:
    return f'"error":{{"code":-32000,"message":{message},"data":{data}}}'


def reply_line(request_id: object, reply: str) -> str:
    return f'{{"jsonrpc":"2.0","id":{json.dumps(request_id)},{reply}}}'


def write(line: str) -> None:
    with writing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def sleep_forever() -> None:
    while True:
        time.sleep(3600)


def serve_http() -> None:
    class Handler(BaseHTTPRequestHandler):
        """Streamable HTTP without streams: one JSON reply a POST."""

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = None
            if "id" in message and "method" in message:
                reply = answer(message["method"], message.get("params") or {}, headers, message["id"])
            self._respond(202 if reply is None else 200, reply and reply_line(message["id"], reply))

        def do_GET(self) -> None:
            self._respond(405)

        def do_DELETE(self) -> None:
            self._respond(200)

        def _respond(self, status: int, body: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len((body or "").encode())))
            self.end_headers()
            self.wfile.write((body or "").encode())

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogatepass")
    main()
