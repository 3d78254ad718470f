"""The npm server-everything looks the same through `firefly-proxy record` as directly, to a raw client."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL

import anyio
import pytest

from tests.firefly_proxy.behaviours_compare import (
    ENV,
    Behaviour,
    Pair,
    answer,
    open_pair,
    record_argv,
    record_url_argv,
)
from tests.firefly_proxy.behaviours_everything import FENCE, HELLO, ROWS
from tests.wire import BOUND_S, open_http, open_stdio

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def stdio_pair(everything: list[str], tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("stdio")
    server = [*everything, "stdio"]
    start = partial(open_stdio, answer=answer, env=ENV, cwd=directory)
    proxied = record_argv(directory / "recording.db", "everything", server)
    async with open_pair(partial(start, server), partial(start, proxied), fence=FENCE, hello=HELLO) as pair:
        yield pair


@pytest.fixture(scope="module")
async def http_pair(everything: list[str], tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("http")
    async with (
        serving_everything(everything, directory) as url,
        serving_everything(everything, directory) as other,
    ):
        direct = partial(open_http, url, answer, {})
        proxied = partial(
            open_stdio, record_url_argv(directory / "recording.db", other), answer, ENV, directory
        )
        async with open_pair(direct, proxied, fence=FENCE, hello=HELLO) as pair:
            yield pair


@asynccontextmanager
async def serving_everything(everything: list[str], directory: Path) -> AsyncIterator[str]:
    """Serve it over streamable HTTP on a port that was free a moment ago; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = ENV | {"PORT": str(port)}
    async with await anyio.open_process(
        [*everything, "streamableHttp"], stdout=DEVNULL, stderr=DEVNULL, env=env, cwd=directory
    ) as process:
        try:
            with anyio.fail_after(BOUND_S):
                while not await accepts(port):
                    await anyio.sleep(0.05)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            process.kill()


async def accepts(port: int) -> bool:
    try:
        async with await anyio.connect_tcp("127.0.0.1", port):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("behaviour", ROWS, ids=str)
async def test_stdio(behaviour: Behaviour, stdio_pair: Pair) -> None:
    await stdio_pair.compare(behaviour)


@pytest.mark.parametrize("behaviour", [row for row in ROWS if row.http], ids=str)
async def test_http(behaviour: Behaviour, http_pair: Pair) -> None:
    await http_pair.compare(behaviour)
