"""An odd server behind streamable HTTP looks the same through `firefly-proxy record --url` as directly."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.firefly_proxy.behaviours_compare import ENV, Behaviour, Pair, answer, open_pair, record_url_argv
from tests.firefly_proxy.behaviours_odd import (
    LEGACY,
    LEGACY_HELLO,
    LEGACY_HTTP_FENCE,
    MODERN_HELLO,
    MODERN_HTTP_FENCE,
    MODERN_ROWS,
)
from tests.wire import open_http, open_stdio, serving

pytestmark = pytest.mark.anyio

FRONT = [sys.executable, "-m", "tests.servers.http_front"]

MIRRORED = {"regional": {"mcp-param-region": ("region",), "mcp-param-zone": ("zone", "number")}}


@asynccontextmanager
async def http_pair(
    directory: Path, era: str, framing: str, fence: str, hello: Behaviour
) -> AsyncIterator[Pair]:
    """Two fronts, so that neither client sees what the other did."""
    front = partial(serving, [*FRONT, era, framing], ENV, directory)
    async with front() as direct_url, front() as proxied_url:
        proxy = record_url_argv(directory / "recording.db", proxied_url)
        direct = partial(open_http, direct_url, answer, MIRRORED)
        proxied = partial(open_stdio, proxy, answer, ENV, directory)
        async with open_pair(direct, proxied, fence=fence, hello=hello) as pair:
            yield pair


@pytest.fixture(scope="module", params=["json", "sse"])
async def legacy_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("legacy")
    async with http_pair(directory, "legacy", request.param, LEGACY_HTTP_FENCE, LEGACY_HELLO) as pair:
        yield pair


@pytest.fixture(scope="module", params=["json", "sse"])
async def modern_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("modern")
    async with http_pair(directory, "modern", request.param, MODERN_HTTP_FENCE, MODERN_HELLO) as pair:
        yield pair


@pytest.mark.parametrize("behaviour", [row for row in LEGACY if "legacy" in row.http], ids=str)
async def test_legacy(behaviour: Behaviour, legacy_pair: Pair) -> None:
    await legacy_pair.compare(behaviour)


@pytest.mark.parametrize("behaviour", [row for row in MODERN_ROWS if "modern" in row.http], ids=str)
async def test_modern(behaviour: Behaviour, modern_pair: Pair) -> None:
    await modern_pair.compare(behaviour)
