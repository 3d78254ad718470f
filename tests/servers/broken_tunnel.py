"""A stdio proxy that breaks one thing: `python -m tests.servers.broken_tunnel FAULT -- CMD ARGS...`.

The transparency tests run their comparison against it, to show that the comparison would notice. The
handshake passes unharmed, so that what is noticed is the fault at its own place.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

KNOWN = {"jsonrpc", "id", "method", "params", "result", "error"}
KNOWN_IN_RESULTS = {"content", "structuredContent", "isError", "_meta", "heard", "said"}

Message = dict[str, Any]


def keep_known(message: Message) -> Message:
    return {key: value for key, value in message.items() if key in KNOWN}


def keep_known_in_result(message: Message) -> Message:
    result = message.get("result")
    if isinstance(result, dict):
        message["result"] = {key: value for key, value in result.items() if key in KNOWN_IN_RESULTS}
    return message


def stringify_id(message: Message) -> Message:
    return {**message, "id": str(message["id"])} if isinstance(message.get("id"), int) else message


def without_notifications(message: Message) -> Message | None:
    return None if "method" in message and "id" not in message else message


def without_requests(message: Message) -> Message | None:
    return None if "method" in message and "id" in message else message


def without_cancellations(message: Message) -> Message | None:
    return None if message.get("method") == "notifications/cancelled" else message


def edited(lines: Iterable[bytes], edit: Callable[[Message], Message | None]) -> Iterable[bytes]:
    """The lines after `edit`; one that it does not change stays as it is."""
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        changed = edit(dict(message))
        if changed == message and edit is not same:
            yield line
        elif changed is not None:
            yield json.dumps(changed).encode() + b"\n"


def same(message: Message) -> Message:
    return message


def notifications_last(lines: Iterable[bytes]) -> Iterable[bytes]:
    late: list[bytes] = []
    for line in lines:
        if b'"method"' in line[:40]:
            late.append(line)
        else:
            yield line
            yield from late
            late = []


def in_swapped_pairs(lines: Iterable[bytes]) -> Iterable[bytes]:
    """Every second late reply overtakes the one before."""
    waiting: list[bytes] = []
    for line in lines:
        if b'"late"' not in line:
            yield line
        elif waiting:
            yield from [line, *waiting]
            waiting = []
        else:
            waiting = [line]


def truncated(lines: Iterable[bytes]) -> Iterable[bytes]:
    return (line.replace(b"\\n", b"", 1) if len(line) > 100_000 else line for line in lines)


def json_only(lines: Iterable[bytes]) -> Iterable[bytes]:
    """What a faithful proxy does here: pass on all but noise."""
    return (line for line in lines if line.startswith((b"{", b"[{")))


Pass = Callable[[Iterable[bytes]], Iterable[bytes]]


def editing(edit: Callable[[Message], Message | None]) -> Pass:
    return lambda lines: edited(lines, edit)


TO_CLIENT: dict[str, Pass] = {
    "none": json_only,
    "re-serialise": editing(same),
    "drop unknown envelope fields": editing(keep_known),
    "drop unknown result fields": editing(keep_known_in_result),
    "integer ids become strings": editing(stringify_id),
    "drop notifications": editing(without_notifications),
    "drop server requests": editing(without_requests),
    "notifications after the reply": notifications_last,
    "swap pairs of replies": in_swapped_pairs,
    "truncate long lines": truncated,
    "forward noise": lambda lines: lines,
}
TO_SERVER: dict[str, Pass] = {
    "re-serialise requests": editing(same),
    "drop cancellations": editing(without_cancellations),
    "truncate long requests": truncated,
}

HANDSHAKE = 5
"""Lines of each direction that pass unharmed: the greeting, two lists, the first report."""


def pump(source: BinaryIO, sink: BinaryIO, broken: Pass) -> None:
    for number, line in enumerate(source, 1):
        sink.write(line)
        sink.flush()
        if number == HANDSHAKE - (sink is sys.stdout.buffer):
            break
    for line in broken(source):
        sink.write(line)
        sink.flush()
    sink.close()


def main() -> None:
    fault, _, *command = sys.argv[1:]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout
        upward = (sys.stdin.buffer, server.stdin, TO_SERVER.get(fault, iter))
        threading.Thread(target=pump, args=upward, daemon=True).start()
        pump(server.stdout, sys.stdout.buffer, TO_CLIENT.get(fault, json_only))


if __name__ == "__main__":
    main()
