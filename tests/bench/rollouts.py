"""What the environment costs in training: calls answered in process, and its share of a step of a 4B model.

    python tests/bench/rollouts.py --tasks DIR --db FILE [--rounds 5] [--json FILE]

The reference calls of every task are made over and over, each task in a world of its own, as a rollout makes
them: through the environment (replay, judging, rendering), scored at the end. Replay alone is measured in the
same rounds, and the first round apart, as tools are read in it. One process, one thread. The share of
a step is arithmetic: the step's time on GPUs is not measured here. Prints a table, then one JSON line.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from recorder.canonical import readable_json
from tests.bench.proxy_overhead import commit, machine
from train.environment import Environment, replayed
from train.reward import score
from train.suite import Suite, open_suite

GOAL = 5000
"""Calls a second on one core."""
STEP_ROLLOUTS, STEP_S = 128, 60.0
"""A GRPO step of a 4B model on one H200: rather short, by the arithmetic in README. It was not measured."""


def environment_round(suite: Suite) -> tuple[int, int, float]:
    """Play every task once; return calls, rollouts and seconds."""
    world, calls, started = replayed(suite.world.replayer), 0, time.perf_counter()
    for task in suite.tasks:
        with world(task) as caller:
            environment = Environment(task, suite.functions, caller)
            messages = environment.prompt
            for call in task.calls:
                environment.call(environment.names[call.ref], call.arguments)
            messages.append({"role": "assistant", "content": readable_json(task.answer)})
            found = score(task, messages, environment.calls)
            assert found.reward == 1, task.task_id
            calls += len(environment.calls)
    return calls, len(suite.tasks), time.perf_counter() - started


def replay_round(suite: Suite) -> tuple[int, float]:
    """Ask the same of replay sessions alone."""
    calls, started = 0, time.perf_counter()
    for task in suite.tasks:
        session = suite.world.replayer.session(task.group)
        for call in task.calls:
            session.ask(call.server, "tools/call", {"name": call.tool, "arguments": call.arguments})
            calls += 1
    return calls, time.perf_counter() - started


def measure(suite: Suite, rounds: int) -> dict[str, Any]:
    calls, _, seconds = environment_round(suite)
    first = calls / seconds
    whole, alone, rollouts = [], [], []
    for _ in range(rounds):
        calls, played, seconds = environment_round(suite)
        whole.append(calls / seconds)
        rollouts.append(played / seconds)
        calls, seconds = replay_round(suite)
        alone.append(calls / seconds)
    calls_a_s = statistics.median(whole)
    calls_a_rollout = sum(len(task.calls) for task in suite.tasks) / len(suite.tasks)
    in_a_step = STEP_ROLLOUTS / statistics.median(rollouts)
    return {
        "tasks": len(suite.tasks),
        "calls_a_rollout": round(calls_a_rollout, 2),
        "environment_calls_a_s": round(calls_a_s),
        "first_round_calls_a_s": round(first),
        "replay_alone_calls_a_s": round(statistics.median(alone)),
        "environment_over_replay": round(statistics.median(alone) / calls_a_s, 2),
        "rollouts_a_s": round(statistics.median(rollouts)),
        "step": {
            "rollouts": STEP_ROLLOUTS,
            "assumed_s": STEP_S,
            "environment_s": round(in_a_step, 4),
            "share": round(in_a_step / STEP_S, 6),
        },
        "goals": {f"environment >= {GOAL} calls/s": calls_a_s >= GOAL},
        "machine": machine(),
        "commit": commit(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=Path, required=True, help="as firefly synth wrote them")
    parser.add_argument("--db", type=Path, required=True, help="the recording that they were made from")
    parser.add_argument("--rounds", type=int, default=5, help="each plays every task [%(default)s]")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    figures = measure(open_suite(options.tasks, options.db), options.rounds)
    step = figures["step"]
    print(f"{figures['tasks']} tasks, {figures['calls_a_rollout']} calls a rollout, one thread, medians")
    print(f"{'environment':<24}{figures['environment_calls_a_s']:>10,} calls/s")
    print(f"{'in the first round':<24}{figures['first_round_calls_a_s']:>10,} calls/s")
    print(f"{'replay alone':<24}{figures['replay_alone_calls_a_s']:>10,} calls/s")
    print(f"{'whole rollouts':<24}{figures['rollouts_a_s']:>10,} a second")
    print(
        f"of a step of {step['rollouts']} rollouts assumed to take {step['assumed_s']:g} s:"
        f" {step['environment_s']:.3f} s, {100 * step['share']:.3f} %"
    )
    line = json.dumps(figures)
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
