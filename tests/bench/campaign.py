"""A long campaign over servers that crash and hang, killed once and taken up again: what it takes, and loses.

    python tests/bench/campaign.py [--calls 5000] [--timeout 1] [--concurrency 4] [--seed 0] [--json FILE]

Ten servers of `tests/servers/unsteady.py`; two of them crash in 3 % of their calls and one hangs in 1 %.
The campaign is killed with SIGKILL after half of its calls and resumed with `--resume`. `lost` are calls of
the report that the recording lacks, or the other way round; `unfinished` are calls that have no outcome;
`repeated` are walks that had ended before the kill and were walked again; `orphans` are servers that still
ran half a minute after the kill. Prints a table, then one JSON line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.proxy_overhead import commit, machine
from tests.exploration import (
    calls_by_walk,
    configure,
    exchanges,
    has_tables,
    one_object,
    recorded_calls,
    started,
    unsteady,
    walks,
)
from tests.promise.lifeline import Lifeline
from tests.promise.recording import is_intact, query

KINDS = ("apple", "book", "chair", "door", "elm", "fish", "goat", "hat", "ink", "jar")
TROUBLES: dict[str, dict[str, float]] = {
    "chair": {"crash": 0.03},
    "fish": {"crash": 0.03},
    "hat": {"hang": 0.01},
}
LIMIT_S = 1800.0


def campaign(options: argparse.Namespace, folder: Path, lifeline: Lifeline) -> dict[str, Any]:
    db = folder / "world.db"
    config = configure(
        folder,
        {kind: unsteady(kind, lifeline=lifeline.port, **TROUBLES.get(kind, {})) for kind in KINDS},
    )
    wanted = [
        *("--allow-writes", "--allow", "*", "--calls", options.calls, "--timeout", options.timeout),
        *("--seed", options.seed, "--concurrency", options.concurrency, "--json"),
    ]
    began = time.monotonic()
    with started(config, db, *wanted) as process:
        wait_for_calls(process, db, options.calls // 2)
        process.kill()
        process.communicate()
    killed = time.monotonic()
    orphans = lifeline.survivors(timeout_s=30)
    finished, before = walks(db), calls_by_walk(db)
    resumed = time.monotonic()
    with started(config, db, *wanted, "--resume") as process:
        output, errors = process.communicate(timeout=LIMIT_S)
    if process.returncode:
        raise SystemExit(f"the resumed campaign ended with {process.returncode}: {errors}")
    ended = time.monotonic()

    report = one_object(output)
    ended_before = {run.split("/")[1] for _, run, _ in finished}
    numbers_before = {number for number, _, _ in finished}
    after = calls_by_walk(db)
    repeated = {
        walk
        for walk in after
        if (walk not in ended_before and int(walk.split(".")[0]) in numbers_before)
        or (walk in ended_before and after[walk] != before[walk])
    }
    recorded = len(recorded_calls(db))
    troubled = [server for server in report["servers"] if server["server"] in TROUBLES]
    steady = [server for server in report["servers"] if server["server"] not in TROUBLES]
    return {
        "calls": report["calls"],
        "recorded": recorded,
        "lost": abs(recorded - report["calls"]),
        "unfinished": recorded - exchanges(db),
        "ending": report["ending"],
        "walks": len(walks(db)),
        "finished_before_the_kill": len(finished),
        "repeated": len(repeated),
        "sessions": query(db, "SELECT count(*) FROM session")[0][0],
        "restarts": {server["server"]: server["restarts"] for server in troubled},
        "restarts_of_steady": sum(server["restarts"] for server in steady),
        "no_reply": query(db, "SELECT count(*) FROM exchange WHERE method = 'tools/call' AND reply IS NULL")[
            0
        ][0],
        "median_calls_a_server": statistics.median(server["calls"] for server in report["servers"]),
        "effective_rate": report["effective_rate"],
        "reached": report["reached"],
        "tools": report["listed"],
        "orphans": len(orphans),
        "intact": is_intact(db),
        "seconds_to_the_kill": killed - began,
        "seconds_after": ended - resumed,
        "seconds": killed - began + ended - resumed,
        "calls_a_second": report["calls"] / (killed - began + ended - resumed),
        "recording_mb": sum(path.stat().st_size for path in folder.glob("world.db*")) / 1e6,
    }


def wait_for_calls(process: subprocess.Popen[str], db: Path, calls: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the campaign ended before it was killed: {process.communicate()[1]}")
        if db.exists() and has_tables(db):
            made = exchanges(db)
            print(f"{made:,} calls".ljust(30), end="\r", file=sys.stderr, flush=True)
            if made >= calls:
                return
        time.sleep(0.2)
    raise SystemExit(f"{calls} calls took more than {LIMIT_S:g} s")


def goals(figures: dict[str, Any], calls: int) -> dict[str, bool]:
    return {
        f"{calls:,} calls made": figures["calls"] == calls,
        "nothing lost": figures["lost"] == 0,
        "no finished walk repeated": figures["repeated"] == 0,
        "no process left after the kill": figures["orphans"] == 0,
        "each troubled server restarted": all(figures["restarts"].values()),
        "recording intact": figures["intact"],
    }


def print_table(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{of} {count}" for of, count in value.items())
        elif isinstance(value, float):
            value = f"{value:,.2f}"
        print(f"{name.replace('_', ' '):28}{value!s:>40}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a long campaign over unsteady servers, and resume it.")
    parser.add_argument("--calls", type=int, default=5000, help="of the whole campaign")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for an answer")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to this file, too")
    options = parser.parse_args()
    lifeline = Lifeline()
    try:
        with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
            figures = campaign(options, Path(folder), lifeline)
    finally:
        lifeline.close()
    figures = {name: round(v, 3) if isinstance(v, float) else v for name, v in figures.items()}
    met = goals(figures, options.calls)
    print_table(figures)
    for goal, reached in met.items():
        print(f"{goal}: {'yes' if reached else 'NO'}")
    line = json.dumps(
        {"bench": "campaign", **figures, "goals": met, "machine": machine(), "commit": commit()}
    )
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
