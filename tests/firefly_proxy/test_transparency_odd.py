"""An odd server looks the same through `firefly-proxy record` as it does directly (stdio)."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.firefly_proxy.behaviours_compare import (
    ENV,
    Behaviour,
    Pair,
    answer,
    open_pair,
    record_argv,
)
from tests.firefly_proxy.behaviours_odd import (
    LEGACY,
    LEGACY_FENCE,
    LEGACY_HELLO,
    MODERN_FENCE,
    MODERN_HELLO,
    MODERN_ROWS,
)
from tests.wire import open_stdio

pytestmark = pytest.mark.anyio

ODD_LEGACY = [sys.executable, "-m", "tests.servers.odd_legacy", "--flag", "é 1", ""]
ODD_MODERN = [sys.executable, "-m", "tests.servers.odd_modern", "--flag", "é 1", ""]


def stdio_pair(server: list[str], directory: Path, fence: str, hello: Behaviour):
    proxied = record_argv(directory / "recording.db", "odd", server)
    start = partial(open_stdio, answer=answer, env=ENV, cwd=directory)
    return open_pair(partial(start, server), partial(start, proxied), fence=fence, hello=hello)


@pytest.fixture(scope="module")
async def legacy_pair(tmp_path_factory: pytest.TempPathFactory):
    async with stdio_pair(ODD_LEGACY, tmp_path_factory.mktemp("é dir"), LEGACY_FENCE, LEGACY_HELLO) as pair:
        yield pair


@pytest.fixture(scope="module")
async def modern_pair(tmp_path_factory: pytest.TempPathFactory):
    async with stdio_pair(ODD_MODERN, tmp_path_factory.mktemp("é dir"), MODERN_FENCE, MODERN_HELLO) as pair:
        yield pair


@pytest.mark.parametrize("behaviour", LEGACY, ids=str)
async def test_legacy(behaviour: Behaviour, legacy_pair: Pair) -> None:
    await legacy_pair.compare(behaviour)


@pytest.mark.parametrize("behaviour", MODERN_ROWS, ids=str)
async def test_modern(behaviour: Behaviour, modern_pair: Pair) -> None:
    await modern_pair.compare(behaviour)
