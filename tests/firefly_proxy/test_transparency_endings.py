"""How a conversation ends looks the same through the proxy too; and what HTTP adds to it."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2
import pytest

from tests.firefly_proxy.behaviours_compare import ENV, answer, play, record_argv, record_url_argv
from tests.firefly_proxy.behaviours_odd import (
    EMPTY,
    LEGACY_HELLO,
    legacy,
    legacy_call,
    modern_call,
)
from tests.wire import BOUND_S, StdioWire, open_stdio, serving

pytestmark = pytest.mark.anyio

ODD = [sys.executable, "-m", "tests.servers.odd_legacy"]


@pytest.fixture(params=["direct", "proxied"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    return ODD if request.param == "direct" else record_argv(tmp_path / "recording.db", "odd", ODD)


@asynccontextmanager
async def talking(command: list[str], directory: Path) -> AsyncIterator[StdioWire]:
    with anyio.fail_after(BOUND_S):
        async with open_stdio(command, answer, ENV, directory) as wire:
            yield wire


async def test_a_server_that_leaves_says_its_last_words(command: list[str], tmp_path: Path) -> None:
    async with talking(command, tmp_path) as wire:
        await play(wire, LEGACY_HELLO)
        reply = await wire.request(legacy_call("exit", 7, code=3, lines=[EMPTY]))
        assert json.loads(reply) == {"jsonrpc": "2.0", "id": 7, "result": {"content": []}}
        assert await wire.until_exit() == 3
        assert "the odd server leaves" in wire.stderr


async def test_requests_still_owed_are_answered_after_the_client_closed_stdin(
    command: list[str], tmp_path: Path
) -> None:
    async with talking(command, tmp_path) as wire:
        for number in range(50):
            await wire.send(legacy("ping", number))
        await wire.close_stdin()
        assert await wire.until_exit() == 0
        assert [json.loads(line.text)["id"] for line in wire.lines] == list(range(50))


async def test_what_the_server_prints_on_stderr_is_shown(command: list[str], tmp_path: Path) -> None:
    async with talking(command, tmp_path) as wire:
        await wire.request(legacy_call("stderr", text="a warning\nand more\n"))
        await wire.close_stdin()
        await wire.until_exit()
        assert "a warning\nand more\n" in wire.stderr


@pytest.mark.parametrize("framing", ["json", "sse"])
async def test_an_expired_http_session_is_replaced_unnoticed(framing: str, tmp_path: Path) -> None:
    async with proxy_to_front("legacy", framing, tmp_path) as wire:
        await play(wire, LEGACY_HELLO)
        await wire.request(legacy_call("expire", 5))
        after = json.loads(await wire.request(legacy_call("sessions", 6)))
        assert after["result"] == {"opened": 2}
        aside = '{"jsonrpc":"2.0","method":"notifications/odd"}'
        await wire.request(legacy_call("say_aside", 7, lines=[aside]))
        await wire.until(lambda: wire.notified["notifications/odd"] == 1)


@pytest.mark.parametrize("framing", ["json", "sse"])
async def test_an_http_request_that_gets_no_reply_ends_in_an_error(framing: str, tmp_path: Path) -> None:
    async with proxy_to_front("legacy", framing, tmp_path) as wire:
        await play(wire, LEGACY_HELLO)
        reply = json.loads(await wire.request(legacy_call("say", 5, lines=[])))
        assert reply["error"]["code"] == -32600
        note = '{"jsonrpc":"2.0","method":"notifications/odd"}'
        reply = json.loads(await wire.request(legacy_call("say", 6, lines=[note, note])))
        assert reply["error"]["code"] == -32000
        assert wire.notified["notifications/odd"] == 2


@asynccontextmanager
async def proxy_to_front(era: str, framing: str, directory: Path) -> AsyncIterator[StdioWire]:
    front = [sys.executable, "-m", "tests.servers.http_front", era, framing]
    async with (
        serving(front, ENV, directory) as url,
        talking(record_url_argv(directory / "recording.db", url), directory) as wire,
    ):
        yield wire


# What the comparison over HTTP stands on: the front refuses a client that does not keep the protocol.

MODERN_HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
    "mcp-name": "regional",
    "mcp-param-region": "west",
    "mcp-param-zone": "7",
}


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("mcp-method", "tools/list"),
        ("mcp-name", None),
        ("mcp-name", "echo"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-param-region", None),
        ("mcp-param-zone", "8"),
    ],
)
async def test_the_front_refuses_headers_that_contradict_the_body(
    header: str, value: str | None, tmp_path: Path
) -> None:
    body = modern_call("regional", 5, region="west", zone={"number": 7})
    wrong = {name: text for name, text in (MODERN_HEADERS | {header: value}).items() if text is not None}
    front = [sys.executable, "-m", "tests.servers.http_front", "modern", "json"]
    async with serving(front, ENV, tmp_path) as url, httpx2.AsyncClient() as client:
        assert (await client.post(url, content=body, headers=MODERN_HEADERS)).status_code == 200
        refused = await client.post(url, content=body, headers=wrong)
        assert (refused.status_code, refused.json()["id"], refused.json()["error"]["code"]) == (
            400,
            5,
            -32020,
        )


async def test_the_front_refuses_sessions_it_does_not_know(tmp_path: Path) -> None:
    front = [sys.executable, "-m", "tests.servers.http_front", "legacy", "json"]
    headers = {name: text for name, text in MODERN_HEADERS.items() if not name.startswith("mcp-")}
    async with serving(front, ENV, tmp_path) as url, httpx2.AsyncClient(headers=headers) as client:
        hello = await client.post(url, content=LEGACY_HELLO.sends[0])
        session = {"mcp-session-id": hello.headers["mcp-session-id"]}
        known = session | {"mcp-protocol-version": "2025-11-25"}
        for expected, sent in [
            (200, known),
            (400, session),
            (400, {}),
            (404, known | {"mcp-session-id": "session-9"}),
        ]:
            assert (await client.post(url, content=legacy("ping"), headers=sent)).status_code == expected
