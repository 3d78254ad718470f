"""What `make demo-train` runs: a recorded shop, tasks of it, and a tiny model that learns to solve them.

    python examples/training/demo.py [--folder DIR] [--seed 0]

1. An MCP server over an SQLite file is recorded, and `firefly synth` makes tasks of the recording.
2. A model of random weights, in Qwen3's architecture, imitates an agent that mostly gives up (`train sft`).
3. It tries the training tasks in a replay of the recording (`train grpo`); nothing but this process answers.
   Beside it runs a control whose rewards are shuffled.
4. Each is evaluated on tasks about articles that training never asked about, sampled at temperature 1.

The last line that it prints is JSON. It ends with 1 if the model did not learn, or the control did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FIREFLY = [sys.executable, "-m", "firefly_proxy.main"]
SAMPLES = 4
"""Tries of each held-out task."""
MOST_AFTER_SFT, LEAST_GAIN, MOST_CONTROL_GAIN = 0.6, 0.25, 0.05
"""Held-out success: what is left to learn after SFT, what what GRPO adds, what a control may by chance."""


def environment() -> dict[str, str]:
    """One thread a process: two processes share two cores better than four threads do."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **threads, "HF_HUB_OFFLINE": "1"}


def started(command: Sequence[object], log: Path) -> subprocess.Popen[str]:
    words = [str(word) for word in command]
    with log.open("w", encoding="utf-8") as errors:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment())


def told(process: subprocess.Popen[str], log: Path) -> str:
    """Wait for a command, and return what it printed.

    Raises:
        SystemExit: it failed.
    """
    printed, _ = process.communicate()
    if process.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        sys.exit(f"{' '.join(map(str, process.args))} failed: {''.join(last)} (all of it: {log})")
    return printed


def run(command: Sequence[object], log: Path) -> str:
    return told(started(command, log), log)


class Demo:
    """The commands over one folder.

    Args:
        seed: Of everything: the shop, the tasks, the weights, what is sampled.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._about = ["--tasks", folder / "tasks", "--db", folder / "recording.db"]

    def world(self) -> dict[str, int]:
        """Record the shop, make tasks, demonstrations and the model; return the tasks by split."""
        for script in ("world.py", "noisy_agent.py", "tiny_model.py"):
            run([sys.executable, HERE / script, self._folder, "--seed", self._seed], self._log("world"))
        made = json.loads((self._folder / "tasks" / "manifest.json").read_text(encoding="utf-8"))
        return dict(made["figures"]["by_split"])

    def sft(self) -> None:
        demos = ["--demos", self._folder / "demonstrations.jsonl"]
        run(self._train("sft", "model", "sft", demos), self._log("sft"))

    def grpo(self, *, control: bool) -> None:
        """Train the model, and its control at the same time."""
        runs = {"grpo": "binary", **({"control": "permuted"} if control else {})}
        under_way = {
            name: started(self._train("grpo", "sft/model", name, ["--reward", reward]), self._log(name))
            for name, reward in runs.items()
        }
        for name, process in under_way.items():
            told(process, self._log(name))

    def success(self, model: str) -> float:
        """Return the share of right answers on held-out tasks, and keep the report beside the model."""
        command = [*FIREFLY, "eval", *self._about, "--policy", "local", "--model", self._folder / model]
        limits = ["--max-turns", 3, "--max-tokens", 160, "--concurrency", 128]
        out = [
            "--samples",
            SAMPLES,
            "--seed",
            self._seed,
            "--out",
            self._folder / f"eval-{model.split('/')[0]}",
        ]
        printed = run([*command, *limits, *out, "--json"], self._log("eval"))
        return float(json.loads(printed)["pass_at"]["1"]["value"])

    def _train(self, method: str, model: str, out: str, more: Sequence[object]) -> list[object]:
        return [
            *[*FIREFLY, "train", method, *self._about, "--model", self._folder / model],
            *["--config", HERE / f"{method}.yaml", "--seed", self._seed, "--out", self._folder / out],
            *(["--max-tokens", 160, "--max-turns", 3, "--eval-samples", 0] if method == "grpo" else []),
            *more,
        ]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def learned(folder: Path, seed: int, *, with_control: bool) -> dict[str, Any]:
    """Run all of it in a new folder and return the figures."""
    began = time.monotonic()
    demo = Demo(folder, seed)

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

    say("recording a shop's server, making tasks of the recording")
    tasks = demo.world()
    say(f"{tasks} tasks; learning from demonstrations of an agent that mostly gives up")
    demo.sft()
    after_sft = demo.success("sft/model")
    say(f"after SFT {after_sft:.3f} of the held-out tries are right; now GRPO in replay")
    demo.grpo(control=with_control)
    after_grpo = demo.success("grpo/model")
    say(f"after GRPO {after_grpo:.3f}")
    control = demo.success("control/model") if with_control else None
    if control is not None:
        say(f"with shuffled rewards {control:.3f}")
    figures: dict[str, Any] = {
        "seed": seed,
        "tasks": tasks,
        "after_sft": round(after_sft, 4),
        "after_grpo": round(after_grpo, 4),
        "control": None if control is None else round(control, 4),
        "seconds": round(time.monotonic() - began),
    }
    return {**figures, "learned": is_learned(figures)}


def is_learned(figures: Mapping[str, Any]) -> bool:
    before, after, control = (figures[name] for name in ("after_sft", "after_grpo", "control"))
    gained = before < MOST_AFTER_SFT and after >= before + LEAST_GAIN
    return gained and (control is None or control <= before + MOST_CONTROL_GAIN)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".demo-train", help="[.demo-train]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-control", action="store_true", help="do not train with shuffled rewards")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    if folder.exists() and any(folder.iterdir()):
        parser.error(f"{folder} is not empty; name another --folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    figures = learned(folder, options.seed, with_control=not options.without_control)
    print(json.dumps(figures))
    sys.exit(not figures["learned"])


if __name__ == "__main__":
    main()
