"""The transparency tests would notice a proxy that is not transparent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.firefly_proxy.behaviours_compare import ENV, Pair, answer, open_pair
from tests.firefly_proxy.behaviours_odd import LEGACY, LEGACY_FENCE, LEGACY_HELLO
from tests.wire import open_stdio

pytestmark = pytest.mark.anyio

SERVER = [sys.executable, "-m", "tests.servers.odd_legacy"]

ROWS = {row.name: row for row in LEGACY}

FAULTS = {
    "re-serialise": ["whitespace inside", "a key that comes twice", "numbers", "escaped text"],
    "drop unknown envelope fields": ["unknown fields in the envelope", "an unknown method"],
    "drop unknown result fields": ["unknown fields in a result", "resources/read"],
    "integer ids become strings": ["ping", "requests 7 and '7' at once"],
    "drop notifications": ["an unknown notification, then the reply", "logging/setLevel"],
    "drop server requests": ["the server asks sampling/createMessage", "the client answers with null"],
    "notifications after the reply": ["progress for a token that is a string"],
    "swap pairs of replies": ["replies in reverse order"],
    "forward noise": ["noise: a line of plain text"],
    "re-serialise requests": ["numbers in a request", "unknown fields in a request"],
    "drop cancellations": ["cancelling '7' leaves 7"],
    "truncate long lines": ["a reply of 3 MB"],
    "truncate long requests": ["a request of 3 MB"],
}


@asynccontextmanager
async def pair_with(fault: str, directory: Path) -> AsyncIterator[Pair]:
    broken = [sys.executable, "-m", "tests.servers.broken_tunnel", fault, "--", *SERVER]
    start = partial(open_stdio, answer=answer, env=ENV, cwd=directory)
    direct, proxied = partial(start, SERVER), partial(start, broken)
    async with open_pair(direct, proxied, fence=LEGACY_FENCE, hello=LEGACY_HELLO, bound_s=1) as pair:
        await pair.open()
        yield pair


@pytest.mark.parametrize(
    ("fault", "row"), [(fault, row) for fault, rows in FAULTS.items() for row in rows], ids=str
)
async def test_a_broken_proxy_is_noticed(fault: str, row: str, tmp_path: Path) -> None:
    async with pair_with(fault, tmp_path) as pair:
        with pytest.raises(AssertionError, match="through the proxy"):
            await pair.compare(ROWS[row])


async def test_a_proxy_without_a_fault_passes(tmp_path: Path) -> None:
    async with pair_with("none", tmp_path) as pair:
        for row in {row for rows in FAULTS.values() for row in rows}:
            await pair.compare(ROWS[row])
