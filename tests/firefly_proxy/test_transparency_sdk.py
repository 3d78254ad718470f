"""The SDK's own client cannot tell `firefly-proxy record` from the server behind it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel

from tests.firefly_proxy.behaviours_compare import ENV, mask, record_argv, record_url_argv
from tests.firefly_proxy.behaviours_everything import TIME, UUID
from tests.firefly_proxy.test_transparency_everything import serving_everything
from tests.wire import BOUND_S, serving

pytestmark = [
    pytest.mark.anyio,
    # Logging and resources/subscribe are on their way out of the protocol; until then they must pass.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]


@dataclass
class Seat:
    """A client with what its callbacks were given, in order."""

    client: Client
    heard: list[Any] = field(default_factory=list)

    async def until_heard(self, count: int) -> None:
        while len(self.heard) < count:
            await anyio.sleep(0.01)


Behaviour = Callable[[Seat], Awaitable[object]]


@asynccontextmanager
async def seat_at(server: Any, mode: str) -> AsyncIterator[Seat]:
    heard: list[Any] = []

    async def sample(context: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        heard.append(params)
        content = types.TextContent(type="text", text="é")
        return types.CreateMessageResult(role="assistant", content=content, model="none")

    async def elicit(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        heard.append(params)
        return types.ElicitResult(action="accept", content={"name": "é", "check": True})

    async def list_roots(context: Any) -> types.ListRootsResult:
        heard.append("roots/list")
        return types.ListRootsResult(roots=[types.Root(uri="file:///é", name="é")])

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params)

    async with Client(
        server,
        mode=mode,
        sampling_callback=sample,
        elicitation_callback=elicit,
        list_roots_callback=list_roots,
        logging_callback=log,
        read_timeout_seconds=BOUND_S,
    ) as client:
        yield Seat(client, heard)


async def look(seat: Seat, behaviour: Behaviour) -> list[str]:
    """The outcome of a behaviour, or the error that it ends in, then what the callbacks were given."""
    seat.heard.clear()
    try:
        with anyio.fail_after(BOUND_S):
            outcome = await behaviour(seat)
    except MCPError as error:
        outcome = error.error
    return [mask(str(plain(value)), [TIME, UUID]) for value in [outcome, *seat.heard]]


def plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


# Behaviours of any server.


async def hello(seat: Seat) -> object:
    client = seat.client
    return [client.protocol_version, client.server_info, client.server_capabilities, client.instructions]


async def listings(seat: Seat) -> object:
    client = seat.client
    return [
        await client.list_tools(),
        await client.list_prompts(),
        await client.list_resources(),
        await client.list_resource_templates(),
    ]


async def unknown_tool(seat: Seat) -> object:
    return await seat.client.call_tool("nothing", {})


# Behaviours of server-everything.


async def many_calls_at_once(seat: Seat) -> object:
    sums: list[Any] = [None] * 30

    async def add(number: int) -> None:
        sums[number] = await seat.client.call_tool("get-sum", {"a": number, "b": 0.5})

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(add, number)
    return sums


async def structured_content(seat: Seat) -> object:
    return await seat.client.call_tool("get-structured-content", {"location": "Chicago"})


async def three_megabytes(seat: Seat) -> object:
    return await seat.client.call_tool("echo", {"message": "é" * 400_000})


async def resources(seat: Seat) -> object:
    return [
        await seat.client.read_resource("demo://resource/static/document/features.md"),
        await seat.client.read_resource("demo://resource/dynamic/text/3"),
    ]


async def unknown_resource(seat: Seat) -> object:
    return await seat.client.read_resource("demo://nothing")


async def prompts(seat: Seat) -> object:
    return await seat.client.get_prompt("args-prompt", {"city": "Köln"})


async def completion(seat: Seat) -> object:
    reference = types.PromptReference(type="ref/prompt", name="completable-prompt")
    return await seat.client.complete(reference, {"name": "department", "value": "S"})


async def progress(seat: Seat) -> object:
    async def note(done: float, total: float | None, message: str | None) -> None:
        seat.heard.append([done, total, message])

    return await seat.client.call_tool(
        "trigger-long-running-operation", {"duration": 0.2, "steps": 4}, progress_callback=note
    )


async def cancellation(seat: Seat) -> object:
    with anyio.move_on_after(0.1):
        await seat.client.call_tool("trigger-long-running-operation", {"duration": 1, "steps": 1})
    return await seat.client.call_tool("get-sum", {"a": 1, "b": 2})


async def sampling(seat: Seat) -> object:
    return await seat.client.call_tool("trigger-sampling-request", {"prompt": "é", "maxTokens": 5})


async def elicitation(seat: Seat) -> object:
    return await seat.client.call_tool("trigger-elicitation-request", {})


async def roots(seat: Seat) -> object:
    return await seat.client.call_tool("get-roots-list", {})


async def log_lines(seat: Seat) -> object:
    await seat.client.set_logging_level("debug")
    await seat.client.subscribe_resource("demo://resource/dynamic/text/1")
    await seat.until_heard(1)  # the server logs each subscription, and its end
    outcome = await seat.client.unsubscribe_resource("demo://resource/dynamic/text/1")
    await seat.until_heard(2)
    return outcome


EVERYTHING = [
    hello,
    listings,
    unknown_tool,
    many_calls_at_once,
    structured_content,
    three_megabytes,
    resources,
    unknown_resource,
    prompts,
    completion,
    progress,
    cancellation,
    sampling,
    elicitation,
    roots,
    log_lines,
]


# Behaviours of the odd server of the 2026-07-28 era.


async def asked_for_input_twice(seat: Seat) -> object:
    """The client answers the questions and calls again by itself."""
    return await seat.client.call_tool("interview", {})


async def structured_list(seat: Seat) -> object:
    result = '{"content":[],"structuredContent":[1.5,null],"resultType":"complete"}'
    line = f'{{"jsonrpc":"2.0","id":$ID,"result":{result}}}'
    return await seat.client.call_tool("say", {"lines": [line]})


async def mirrored_arguments(seat: Seat) -> object:
    await seat.client.list_tools()
    return await seat.client.call_tool("regional", {"region": "é", "zone": {"number": 7}})


async def odd_tool_name(seat: Seat) -> object:
    return await seat.client.call_tool("wetter-größe", {})


async def flood_of_progress(seat: Seat) -> object:
    async def note(done: float, total: float | None, message: str | None) -> None:
        seat.heard.append(done)

    return await seat.client.call_tool("flood", {"count": 500}, progress_callback=note)


async def subscription(seat: Seat) -> object:
    async with seat.client.listen(tools_list_changed=True, resource_subscriptions=["odd://text"]) as events:
        await seat.client.call_tool("touch", {})
        return [str(await events.__anext__()), str(await events.__anext__())]


async def other_requests(seat: Seat) -> object:
    client = seat.client
    reference = types.PromptReference(type="ref/prompt", name="p")
    return [
        await client.read_resource("odd://é"),
        await client.get_prompt("p", {"a": "é"}),
        await client.complete(reference, {"name": "a", "value": ""}),
    ]


ODD = [
    hello,
    listings,
    unknown_tool,
    asked_for_input_twice,
    structured_list,
    mirrored_arguments,
    odd_tool_name,
    flood_of_progress,
    subscription,
    other_requests,
]


def named(behaviour: Behaviour) -> str:
    return behaviour.__name__.replace("_", " ")


@dataclass
class Seats:
    direct: Seat
    proxied: Seat

    async def until_heard(self, count: int) -> None:
        with anyio.fail_after(BOUND_S):
            await self.direct.until_heard(count)
            await self.proxied.until_heard(count)

    async def compare(self, behaviour: Behaviour) -> None:
        expected = await look(self.direct, behaviour)
        assert await look(self.proxied, behaviour) == expected


def stdio(argv: list[str], directory: Path) -> StdioServerParameters:
    return StdioServerParameters(command=argv[0], args=argv[1:], env=ENV, cwd=directory)


@pytest.fixture(scope="module", params=["stdio legacy", "stdio auto", "http legacy", "http auto"])
async def everything_seats(
    request: pytest.FixtureRequest, everything: list[str], tmp_path_factory: pytest.TempPathFactory
):
    transport, mode = request.param.split()
    directory = tmp_path_factory.mktemp("everything")
    recording = directory / "recording.db"
    if transport == "stdio":
        server = [*everything, "stdio"]
        proxied = stdio(record_argv(recording, "everything", server), directory)
        async with seat_at(stdio(server, directory), mode) as one, seat_at(proxied, mode) as other:
            seats = Seats(one, other)
            await seats.until_heard(2)  # soon after the start it asks for the roots, then logs their number
            yield seats
        return
    async with serving_everything(everything, directory) as url:
        proxied = stdio(record_url_argv(recording, url), directory)
        async with seat_at(http(url), mode) as one, seat_at(proxied, mode) as other:
            seats = Seats(one, other)
            await seats.until_heard(2)  # soon after the start it asks for the roots, then logs their number
            yield seats


@pytest.fixture(scope="module", params=["stdio auto", "stdio 2026-07-28", "http auto", "http 2026-07-28"])
async def odd_seats(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    transport, mode = request.param.split()
    directory = tmp_path_factory.mktemp("odd")
    recording = directory / "recording.db"
    if transport == "stdio":
        server = [sys.executable, "-m", "tests.servers.odd_modern"]
        proxied = stdio(record_argv(recording, "odd", server), directory)
        async with seat_at(stdio(server, directory), mode) as one, seat_at(proxied, mode) as other:
            yield Seats(one, other)
        return
    front = [sys.executable, "-m", "tests.servers.http_front", "modern", "sse"]
    async with serving(front, ENV, directory) as url:
        proxied = stdio(record_url_argv(recording, url), directory)
        async with seat_at(http(url), mode) as one, seat_at(proxied, mode) as other:
            yield Seats(one, other)


def http(url: str) -> Any:
    """The SDK's transport, which by default refuses events of more than 1 MiB."""
    return streamable_http_client(url)


@pytest.mark.parametrize("behaviour", EVERYTHING, ids=named)
async def test_everything(behaviour: Behaviour, everything_seats: Seats) -> None:
    await everything_seats.compare(behaviour)


@pytest.mark.parametrize("behaviour", ODD, ids=named)
async def test_odd_modern(behaviour: Behaviour, odd_seats: Seats) -> None:
    await odd_seats.compare(behaviour)
