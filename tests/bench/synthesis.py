"""What making tasks of a recording costs: reading calls, proposing, each gate; and how it grows.

    python tests/bench/synthesis.py --db FILE [--counts 100 200 400] [--json FILE]

What was learned from the recording is loaded before the clock starts. Each count is made from the beginning,
one after the other, in one process. Prints a table, then one JSON line.
"""

import argparse
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from recorder.store import Store
from replayer.replayer import Replayer, ensure_learned
from synth import pipeline
from synth.gates import GATES, Gate
from synth.pipeline import Wanted, synthesise
from synth.task import Task, Verdict
from synth.world import World
from tests.bench.proxy_overhead import commit, machine


def timed(name: str, gate: Gate, spent: Counter[str]) -> Gate:
    def judge(task: Task, world: World) -> Verdict:
        started = time.perf_counter()
        try:
            return gate(task, world)
        finally:
            spent[name] += time.perf_counter() - started

    return judge


def measure(db: Path, count: int) -> dict[str, Any]:
    store = Store(db)
    world = World(store, Replayer(store, ensure_learned(store)))
    spent: Counter[str] = Counter()
    kept = dict(GATES)
    pipeline.GATES.update({name: timed(name, gate, spent) for name, gate in kept.items()})
    started = time.perf_counter()
    try:
        made = synthesise(world, Wanted(count))
    finally:
        pipeline.GATES.update(kept)
    whole = time.perf_counter() - started
    return {
        "count": count,
        "kept": len(made.tasks),
        "candidates": next(iter(made.funnel.values()))[0],
        "attempts": made.attempts,
        "calls_read": made.observed,
        "seconds": round(whole, 2),
        "kept_per_s": round(len(made.tasks) / whole, 1),
        "gates_s": {name: round(seconds, 2) for name, seconds in spent.items()},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'wanted':>7}{'kept':>7}{'candidates':>12}{'seconds':>9}{'kept/s':>8}{'MB':>6}  slowest gates")
    for row in rows:
        slowest = sorted(row["gates_s"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in slowest)
        print(
            f"{row['count']:>7}{row['kept']:>7}{row['candidates']:>12}{row['seconds']:>9}{row['kept_per_s']:>8}"
            f"{row['peak_mb']:>6}  {shown}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--db", type=Path, required=True, help="a recording, made by firefly explore for example"
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 200, 400])
    parser.add_argument("--json", type=Path, help="also write the JSON line here")
    options = parser.parse_args()
    rows = [measure(options.db, count) for count in options.counts]
    print_table(rows)
    line = json.dumps({"bench": "synthesis", "machine": machine(), "commit": commit(), "rows": rows})
    print(line)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
