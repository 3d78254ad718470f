"""How a behaviour is observed directly and through `firefly-proxy record`, and what is compared."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from tests.servers.odd import shorten
from tests.wire import BOUND_S, Line, Wire, read_messages

ROOT = Path(__file__).parents[2]

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "PYTHONPATH": str(ROOT),
    "ODD_VARIABLE": "é = 1",
    # Where the locale is not set, Python sets LC_CTYPE in its own environment, which its children inherit.
    "LC_ALL": "C.UTF-8",
}
"""The environment of both servers and of the proxy."""


@dataclass(frozen=True)
class Mask:
    """Something that differs between two runs of the same server, so says nothing about the proxy."""

    pattern: str
    reason: str


@dataclass(frozen=True)
class Behaviour:
    """Something a server does, and what a client sends to make it happen.

    The client sends `sends` and waits for the reply to each request among them, except those to
    `unanswered`, then for the notifications whose methods are in `awaits`. With `in_turn` it waits for each
    reply before the next text.
    """

    name: str
    sends: Sequence[str]
    unanswered: Sequence[object] = ()
    awaits: Sequence[str] = ()
    in_turn: bool = False
    script: Callable[[Wire], Awaitable[None]] | None = None
    """What to do after `sends`, where the next text depends on a reply."""
    noise: Sequence[str] = ()
    """Lines that are not JSON-RPC: the proxy keeps them in the recording and does not pass them on."""
    masks: Sequence[Mask] = ()
    http: Sequence[str] = ("legacy", "modern")
    """The eras in which it exists over HTTP too."""
    anywhere: Sequence[str] = ()
    """Notification methods whose place among the other lines the server leaves to its clock."""

    def __str__(self) -> str:
        return self.name


Observation = Sequence[Line]


async def observe(
    wire: Wire, behaviour: Behaviour, fence: str, lost_noise: int, bound_s: float
) -> Observation:
    """What the client sees of a behaviour, up to the reply to `fence`.

    An odd server's reply to the fence tells how many lines the server said; then the client waits
    for as many, less `lost_noise`. Over HTTP they may arrive after the fence.
    """
    start = len(wire.lines)
    try:
        with anyio.fail_after(bound_s):
            await play(wire, behaviour)
            reply = json.loads(await wire.request(fence))["result"]
            if "said" in reply:
                expected = start + reply["said"] + 1 - lost_noise
                await wire.until(lambda: len(wire.lines) >= expected)
    except (TimeoutError, EOFError, anyio.BrokenResourceError) as error:
        return [*wire.lines[start:], Line(0, f"{UNFINISHED}: {type(error).__name__}")]
    return wire.lines[start:]


UNFINISHED = "<not finished>"


async def play(wire: Wire, behaviour: Behaviour) -> None:
    wire.replies.clear()
    wire.notified.clear()
    expected: set[str] = set()

    def all_answered() -> bool:
        return expected <= wire.replies.keys()

    for text in behaviour.sends:
        awaited = ids_of_requests(text) - {json.dumps(request_id) for request_id in behaviour.unanswered}
        expected |= awaited
        for request_id in awaited:
            wire.replies.pop(request_id, None)  # an earlier request may have had the same id
        await wire.send(text)
        if behaviour.in_turn:
            await wire.until(all_answered)
    await wire.until(all_answered)
    if behaviour.script:
        await behaviour.script(wire)
    await wire.until(lambda: all(wire.notified[method] for method in behaviour.awaits))


def ids_of_requests(text: str) -> set[str]:
    return {
        json.dumps(message["id"]) for message in read_messages(text) if {"id", "method"} <= message.keys()
    }


def comparable(lines: Observation, behaviour: Behaviour) -> Observation:
    """The lines without what each run makes up anew; long ones as length and hash."""
    fixed = [line for line in lines if not names_any(line.text, behaviour.anywhere)]
    floating = sorted(line for line in lines if names_any(line.text, behaviour.anywhere))
    return [Line(line.stream, shorten(mask(line.text, behaviour.masks))) for line in [*fixed, *floating]]


def names_any(text: str, methods: Sequence[str]) -> bool:
    return any(f'"method":"{method}"' in text for method in methods)


def mask(text: str, masks: Sequence[Mask]) -> str:
    for each in masks:
        text = re.sub(each.pattern, "<masked>", text)
    return text


def difference_between(direct: Observation, proxied: Observation) -> str | None:
    """What a proxied client sees otherwise than a direct one.

    The lines of one stream must be equal, one by one. How several streams (HTTP responses) interleave is
    nobody's promise, so there all lines must be there, and those of each stream in order.
    """
    expected, got = [line.text for line in direct], [line.text for line in proxied]
    streams = {
        line.stream: [other.text for other in direct if other.stream == line.stream] for line in direct
    }
    if len(streams) == 1 and expected == got:
        return None
    if (
        len(streams) > 1
        and sorted(expected) == sorted(got)
        and all(comes_in(s, got) for s in streams.values())
    ):
        return None
    missing, extra = Counter(expected) - Counter(got), Counter(got) - Counter(expected)
    if missing or extra:
        return "\n".join(["only direct:", *missing, "only through the proxy:", *extra])
    return "\n".join(["in another order; direct:", *expected, "through the proxy:", *got])


def comes_in(stream: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether the texts of `stream` are among `lines` in that order."""
    rest = iter(lines)
    return all(text in rest for text in stream)


OpenWire = Callable[[], AbstractAsyncContextManager[Wire]]


@dataclass
class Pair:
    """One server behind two clients: `direct` has it to itself, `proxied` talks through the proxy."""

    direct: OpenWire
    proxied: OpenWire
    fence: str
    hello: Behaviour
    """What both clients do first."""
    bound_s: float = BOUND_S
    _wires: tuple[Wire, Wire] | None = None
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def compare(self, behaviour: Behaviour) -> None:
        """Assert that a behaviour looks the same from both sides; start anew if it did not."""
        if self._wires is None:
            await self.open()
        assert self._wires
        observations: dict[bool, Observation] = {}

        async def look(wire: Wire, through_proxy: bool) -> None:
            lost_noise = len(behaviour.noise) if through_proxy else 0
            seen = await observe(wire, behaviour, self.fence, lost_noise, self.bound_s)
            observations[through_proxy] = comparable(seen, behaviour)

        async with anyio.create_task_group() as tasks:
            for wire, through_proxy in zip(self._wires, (False, True), strict=True):
                tasks.start_soon(look, wire, through_proxy)
        seen = [line for line in observations[False] if line.text not in behaviour.noise]
        difference = difference_between(seen, observations[True])
        unfinished = any(line.text.startswith(UNFINISHED) for line in seen)
        if difference or unfinished:
            await self.close()
        assert not unfinished, f"the server itself did not finish: {seen}"
        assert not difference, difference

    async def open(self) -> None:
        direct = await self._stack.enter_async_context(self.direct())
        proxied = await self._stack.enter_async_context(self.proxied())
        self._wires = direct, proxied
        await self.compare(self.hello)

    async def close(self) -> None:
        self._wires = None
        await self._stack.aclose()


@asynccontextmanager
async def open_pair(
    direct: OpenWire, proxied: OpenWire, *, fence: str, hello: Behaviour, bound_s: float = BOUND_S
) -> AsyncIterator[Pair]:
    pair = Pair(direct, proxied, fence, hello, bound_s)
    try:
        yield pair
    finally:
        await pair.close()


def record_argv(database: Path, name: str, server: Sequence[str]) -> list[str]:
    """The command line under test."""
    return [*PROXY, "--db", str(database), "--name", name, "--", *server]


def record_url_argv(database: Path, url: str) -> list[str]:
    return [*PROXY, "--db", str(database), "--url", url]


PROXY = [sys.executable, "-m", "firefly_proxy.cli", "record"]


def answer(message: Mapping[str, Any]) -> str:
    """Answer a server's request as it says in `odd/answer`, or with an odd result of its kind."""
    params = message.get("params")
    params = params if isinstance(params, dict) else {}
    wanted = params.get("odd/answer") or ANSWERS.get(str(message["method"]), ANSWERS["unknown"])
    if message["method"] == "sampling/createMessage" and "task" in params:
        wanted = TASK_ANSWER
    return wanted.replace("$ID", json.dumps(message["id"]))


TASK = (
    '"taskId":"client-task","ttl":60000,"createdAt":"2026-01-01T00:00:00Z",'
    '"lastUpdatedAt":"2026-01-01T00:00:00Z"'
)
TASK_ANSWER = f'{{"jsonrpc":"2.0","id":$ID,"result":{{"task":{{"status":"working",{TASK}}}}}}}'

ANSWERS = {
    "sampling/createMessage": '{"jsonrpc":"2.0","id":$ID,"result":{"role":"assistant","model":"none",'
    '"content":{"type":"text","text":"h\\u00e9llo"},"stopReason":"bored","x-field":1.0}}',
    "elicitation/create": '{"jsonrpc": "2.0", "result": {"action": "accept", "content": {"name": "Ä", '
    '"check": true}, "x-field": null}, "id": $ID}',
    "roots/list": '{"jsonrpc":"2.0","id":$ID,"result":{"roots":[{"uri":"file:///r%C3%A9","name":"r","x":1}]}}',
    "ping": '{"jsonrpc":"2.0","id":$ID,"result":{}}',
    "tasks/get": f'{{"jsonrpc":"2.0","id":$ID,"result":{{"status":"completed",{TASK}}}}}',
    "tasks/result": '{"jsonrpc":"2.0","id":$ID,"result":{"role":"assistant","model":"none",'
    '"content":{"type":"text","text":"later"}}}',
    "unknown": '{"jsonrpc":"2.0","id":$ID,"error":{"code":-32601,"message":"no","data":{"x":1.0}},"x":1}',
}
