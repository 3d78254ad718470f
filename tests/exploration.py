"""Runs `firefly explore` as a user does, on servers of our own, and reads what the recording holds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.promise.recording import query

ROOT = Path(__file__).parents[1]
UNSTEADY = ROOT / "tests" / "servers" / "unsteady.py"
WAIT_S = 60
"""How long any campaign of a test may take; generous, for a slow and busy machine."""

Json = dict[str, Any]
Call = tuple[str, str, str]
"""Server, tool, and arguments as JSON."""


def unsteady(kind: str, **variables: object) -> Json:
    """An entry of a configuration: `unsteady.py` with items of this kind, and `UNSTEADY_…` variables."""
    env = {f"UNSTEADY_{name.upper()}": str(value) for name, value in variables.items()}
    return {"command": sys.executable, "args": [str(UNSTEADY)], "env": {"UNSTEADY_KIND": kind, **env}}


def configure(folder: Path, servers: Mapping[str, Json]) -> Path:
    config = folder / "mcp.json"
    config.write_text(json.dumps({"mcpServers": servers}))
    return config


def command(config: Path, db: Path, *options: object) -> list[str]:
    words = ["explore", "--config", config, "--db", db, *options]
    return [sys.executable, "-m", "firefly_proxy.main", *map(str, words)]


def started(config: Path, db: Path, *options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(config, db, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=nowhere(config),
        env=environment(),
    )


def explore(config: Path, db: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, db, *options),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        cwd=nowhere(config),
        env=environment(),
        check=False,
    )


def nowhere(config: Path) -> Path:
    """An empty folder to start in: servers that are given no folder are taken to work on this one."""
    folder = config.parent / "nowhere"
    folder.mkdir(exist_ok=True)
    return folder


def report_of(ended: subprocess.CompletedProcess[str]) -> Json:
    """The one object that `--json` prints, of a campaign that came to its end."""
    assert ended.returncode == 0, ended.stderr
    return one_object(ended.stdout)


def one_object(output: str) -> Json:
    (line,) = output.splitlines()
    return dict(json.loads(line))


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}


# What the recording holds


def recorded_calls(db: Path) -> list[tuple[str, Call]]:
    """Each call with the run it was made in, answered or not, in the order made within a run."""
    rows = query(
        db,
        "SELECT session.run_id, server.name, json_extract(frame.text, '$.params.name'),"
        " json_extract(frame.text, '$.params.arguments')"
        " FROM frame JOIN server ON server.id = frame.server_id JOIN session ON session.id = session_id"
        " WHERE frame.kind = 'request' AND frame.method = 'tools/call' ORDER BY frame.id",
    )
    return [(run, (server, tool, arguments)) for run, server, tool, arguments in rows]


def exchanges(db: Path) -> int:
    """How many calls have an outcome, be it that no answer came."""
    ((count,),) = query(db, "SELECT count(*) FROM exchange WHERE method = 'tools/call'")
    return int(count)


def has_tables(db: Path) -> bool:
    """Whether the recording has been set up, which takes a moment after its file is there."""
    return bool(query(db, "SELECT 1 FROM sqlite_master WHERE name = 'walk'"))


def tools_called(db: Path, server: str | None = None) -> set[str]:
    return {tool for _, (of, tool, _) in recorded_calls(db) if server in (None, of)}


def calls_by_server(db: Path) -> Counter[str]:
    return Counter(server for _, (server, _, _) in recorded_calls(db))


def walks(db: Path) -> list[tuple[int, str, str]]:
    """Number, run and kind of each walk that ended, in the order they were written."""
    rows = query(
        db, "SELECT number, run_id, json_extract(plan, '$.kind') FROM walk ORDER BY ended_at, number"
    )
    return [(number, run, kind) for number, run, kind in rows]


def calls_by_walk(db: Path) -> dict[str, list[Call]]:
    """The calls of each attempt at a walk, by `NUMBER.ATTEMPT`, whatever the campaign is called.

    The servers of a walk answer one at a time, so the calls have an order.
    """
    found: defaultdict[str, list[Call]] = defaultdict(list)
    for run, call in recorded_calls(db):
        found[run.split("/")[1]].append(call)
    return dict(found)


def differences(one: Mapping[str, Sequence[Call]], other: Mapping[str, Sequence[Call]]) -> list[str]:
    """The walks in which calls differ, with the first two that do."""
    return [
        f"{walk}: {next(((a, b) for a, b in zip(here, there, strict=False) if a != b), 'one is longer')}"
        for walk in sorted({*one, *other})
        if (here := list(one.get(walk, []))) != (there := list(other.get(walk, [])))
    ]
