"""What recording costs: one echo tool on stdio, called directly, through Firefly and through FastMCP's proxy.

    python tests/bench/proxy_overhead.py [--calls 2000] [--rounds 9] [--json FILE]

Every round starts each route afresh, one after the other, so that a slow moment of the machine meets all of
them: which cores two processes get alone changes a call by half. Figures are medians over the rounds, and
ratios and differences are taken within a round. Prints a table, then one JSON line.
"""

import argparse
import asyncio
import itertools
import json
import os
import platform
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ECHO = [sys.executable, str(ROOT / "tests" / "servers" / "echo.py")]
RECORD = [sys.executable, "-m", "firefly_proxy.cli", "record", "--db"]
IN_FLIGHT = 32
WARM_UP_CALLS = 100

# The least that any proxy process does: two threads that copy bytes, nothing parsed, nothing kept.
BYTE_PUMP = """
import os, subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def pump(source, target):
    while data := os.read(source, 1 << 16):
        os.write(target, data)
    os.close(target)
threading.Thread(target=pump, args=(0, server.stdin.fileno())).start()
pump(server.stdout.fileno(), 1)
"""

FASTMCP_PROXY = """
import sys
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy
create_proxy(StdioTransport(sys.argv[1], sys.argv[2:])).run(show_banner=False, log_level="CRITICAL")
"""

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "proxy_overhead", "version": "1"},
}


@dataclass(frozen=True, slots=True)
class Round:
    """One route in one round; calls a second with `IN_FLIGHT` of them on the way at any time."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    calls_per_s: float
    first_reply_s: float
    """From the start of the process to the reply to `initialize`."""


class Client:
    """A JSON-RPC client that does little enough not to hide what it measures."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> "Client":
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd=ROOT
        )
        self._input, self._output = self._process.stdin, self._process.stdout
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._input.close()
        await self._reading
        await self._process.wait()

    async def _read(self) -> None:
        while line := await self._output.readline():
            message = json.loads(line)
            if "method" not in message:
                self._waiting.pop(message["id"]).set_result(message)
        for waiting in self._waiting.values():
            waiting.set_exception(EOFError(f"{self._argv} closed its output"))

    async def ask(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        request_id = next(self._ids)
        reply = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        self._input.write(json.dumps(message).encode() + b"\n")
        return await reply

    async def initialize(self) -> None:
        await self.ask("initialize", INITIALIZE)
        self._input.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')

    async def echo(self, message: str) -> None:
        reply = await self.ask("tools/call", {"name": "echo", "arguments": {"message": message}})
        assert reply["result"]["content"][0]["text"] == message, reply


async def measure(argv: list[str], calls: int) -> Round:
    started = time.perf_counter()
    async with asyncio.timeout(300), Client(argv) as client:
        await client.initialize()
        first_reply_s = time.perf_counter() - started
        for number in range(WARM_UP_CALLS):
            await client.echo(f"warm-up {number}")
        latencies_ms = await one_by_one(client, calls)
        calls_per_s = await many_at_once(client, calls)
    cuts = statistics.quantiles(latencies_ms, n=100)
    return Round(cuts[49], cuts[89], cuts[98], calls_per_s, first_reply_s)


async def one_by_one(client: Client, calls: int) -> list[float]:
    latencies_ms = []
    for number in range(calls):
        started = time.perf_counter()
        await client.echo(f"message {number}")
        latencies_ms.append((time.perf_counter() - started) * 1000)
    return latencies_ms


async def many_at_once(client: Client, calls: int) -> float:
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            await client.echo(f"message {number}")

    started = time.perf_counter()
    async with asyncio.TaskGroup() as callers:
        for _ in range(IN_FLIGHT):
            callers.create_task(caller())
    return calls / (time.perf_counter() - started)


def routes(folder: Path, fastmcp_python: str) -> dict[str, list[str]]:
    """Each route's command; FastMCP's only where it can be imported."""
    found = {
        "direct": ECHO,
        "byte pump": [sys.executable, "-c", BYTE_PUMP, *ECHO],
        "record": [*RECORD, str(folder / "normal.db"), "--", *ECHO],
        "record --durable": [*RECORD, str(folder / "durable.db"), "--durable", "--", *ECHO],
    }
    importable = [fastmcp_python, "-c", "import fastmcp"]
    if subprocess.run(importable, check=False, capture_output=True).returncode == 0:
        found["fastmcp proxy"] = [fastmcp_python, "-c", FASTMCP_PROXY, *ECHO]
    return found


def summarise(rounds: Mapping[str, list[Round]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds for each route, and what it adds to the direct one in the same round."""
    summary = {}
    for route, measured in rounds.items():
        pairs = list(zip(measured, rounds["direct"], strict=True))
        row = {key: statistics.median(asdict(one)[key] for one in measured) for key in asdict(measured[0])}
        row["p50_ratio"] = statistics.median(one.p50_ms / direct.p50_ms for one, direct in pairs)
        row["added_p50_ms"] = statistics.median(one.p50_ms - direct.p50_ms for one, direct in pairs)
        later = [one.first_reply_s - direct.first_reply_s for one, direct in pairs]
        row["first_reply_later_s"] = statistics.median(later)
        summary[route] = {key: round(value, 4) for key, value in row.items()}
    return summary


def goals(summary: Mapping[str, Mapping[str, float]]) -> dict[str, bool | None]:
    """Whether recording is as cheap as promised; None where there was nothing to compare with."""
    record, fastmcp = summary["record"], summary.get("fastmcp proxy")
    return {
        "p50 at most 4 times direct": record["p50_ratio"] <= 4,
        "at least 5 times less added latency than FastMCP's proxy": (
            record["added_p50_ms"] * 5 <= fastmcp["added_p50_ms"] if fastmcp else None
        ),
        "first reply at most 0.3 s later than direct": record["first_reply_later_s"] <= 0.3,
    }


def print_table(summary: Mapping[str, Mapping[str, float]]) -> None:
    print(f"{'route':<18}{'p50 ms':>8}{'p90':>8}{'p99':>8}{'x direct':>10}{'added ms':>10}", end="")
    print(f"{'calls/s':>9}{'first reply s':>15}{'later s':>9}")
    for route, row in summary.items():
        print(f"{route:<18}{row['p50_ms']:8.3f}{row['p90_ms']:8.3f}{row['p99_ms']:8.3f}", end="")
        print(f"{row['p50_ratio']:10.2f}{row['added_p50_ms']:10.3f}{row['calls_per_s']:9.0f}", end="")
        print(f"{row['first_reply_s']:15.3f}{row['first_reply_later_s']:9.3f}")
    print(f"\ncalls/s: {IN_FLIGHT} in flight. first reply: from process start to the reply to initialize.")
    print("byte pump: stands for proxying without recording, which firefly-proxy has no mode for.")
    if "fastmcp proxy" not in summary:
        print("fastmcp proxy: left out, fastmcp cannot be imported (pip install '.[bench]').")


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def commit() -> str | None:
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(describe, check=False, capture_output=True, text=True).stdout.strip() or None


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what recording adds to a call.")
    parser.add_argument("--calls", type=int, default=2000, help="per route and round, one by one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the JSON object to this file, too")
    parser.add_argument("--fastmcp-python", default=sys.executable, help="a Python that has fastmcp")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="proxy_overhead-") as folder:
        commands = routes(Path(folder), options.fastmcp_python)
        rounds: dict[str, list[Round]] = {route: [] for route in commands}
        for number in range(options.rounds):
            for route, argv in commands.items():
                print(f"round {number + 1} of {options.rounds}: {route:<18}", end="\r", file=sys.stderr)
                rounds[route].append(asyncio.run(measure(argv, options.calls)))
    summary = summarise(rounds)
    met = goals(summary)
    print_table(summary)
    for goal, reached in met.items():
        print(f"{goal}: {'not measured' if reached is None else 'yes' if reached else 'NO'}")
    settings = {"calls": options.calls, "rounds": options.rounds, "in_flight": IN_FLIGHT}
    origin = {"machine": machine(), "commit": commit()}
    line = json.dumps({"bench": "proxy_overhead", **settings, "routes": summary, "goals": met, **origin})
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
