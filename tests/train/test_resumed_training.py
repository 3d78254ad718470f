"""Training that is killed and resumed ends as one that was not; and evaluation says what training said."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.train.conftest import Learned
from train.evaluate import read_rollouts
from train.rollout import Rollout

FIREFLY = [sys.executable, "-m", "firefly_proxy.main"]
LIMIT_S = 240
COMMON = """
per_device_train_batch_size: 16
gradient_accumulation_steps: 1
warmup_steps: 0
save_steps: 2
report_to: none
"""
CLOCKS = ("runtime", "per_second", "step_time", "total_flos")


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def run(command: list[str]) -> None:
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, env=environment(), check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def killed_after(command: list[str], metrics: Path, step: int) -> None:
    """Start a command, and kill it and all that it started once a step was logged."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + LIMIT_S
    while not (metrics.is_file() and f'"step": {step},' in metrics.read_text(encoding="utf-8")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    return [
        {name: value for name, value in row.items() if not any(clock in name for clock in CLOCKS)}
        for row in found
    ]


def method_options(method: str, learned: Learned) -> list[str]:
    if method == "grpo":
        return ["--max-turns", "3", "--max-tokens", "128", "--eval-every", "4", "--eval-samples", "1"]
    return ["--demos", str(learned.folder / "demonstrations.jsonl"), "--max-tokens", "512"]


@pytest.mark.parametrize(("method", "lora"), [("sft", False), ("grpo", False), ("grpo", True)])
def test_a_killed_run_is_gone_on_with_exactly(
    method: str, lora: bool, learned: list[Learned], tmp_path: Path
) -> None:
    world = learned[0]
    config = tmp_path / "config.yaml"
    config.write_text(f"learning_rate: {'1e-2' if lora else '2e-4'}\n{COMMON}", encoding="utf-8")
    command = [
        *[*FIREFLY, "train", method, "--tasks", str(world.folder / "tasks")],
        *["--db", str(world.folder / "recording.db"), "--model", str(world.folder / "sft" / "model")],
        *["--steps", "7", "--config", str(config), *method_options(method, world)],
        *(["--lora"] if lora else []),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run([*command, "--out", str(whole)])
    killed_after([*command, "--out", str(killed)], killed / "metrics.jsonl", 5)
    # As a kill in the midst of saving would leave it: the newest checkpoint is not whole.
    (killed / "checkpoint-6").mkdir(exist_ok=True)
    (killed / "checkpoint-6" / "firefly-complete").unlink(missing_ok=True)
    run([*command, "--out", str(killed), "--resume"])
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    ours, theirs = (load_file(folder / "model" / name) for folder in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[key] - theirs[key]).abs().max()) for key in ours) == 0.0
    assert rows(killed) == rows(whole)
    assert any(row.get("grad_norm", 0) > 0 for row in rows(whole)), "nothing was learned: nothing is tested"


def without_times(rollouts: list[Rollout]) -> list[Rollout]:
    return [rollout.model_copy(update={"seconds": 0.0}) for rollout in rollouts]


def test_evaluation_during_training_and_firefly_eval_agree_to_the_word(
    learned: list[Learned], tmp_path: Path
) -> None:
    world = learned[0]
    config = tmp_path / "config.yaml"
    config.write_text(f"learning_rate: 2e-4\n{COMMON}", encoding="utf-8")
    about = ["--tasks", str(world.folder / "tasks"), "--db", str(world.folder / "recording.db")]
    limits = ["--max-turns", "3", "--max-tokens", "128", "--seed", "5"]
    out, told = tmp_path / "grpo", tmp_path / "eval"
    train = ["train", "grpo", *about, "--model", str(world.folder / "sft" / "model"), *limits]
    run([*FIREFLY, *train, "--steps", "2", "--eval-samples", "2", "--config", str(config), "--out", str(out)])
    local = ["--policy", "local", "--model", str(out / "model"), "--samples", "2"]
    run([*FIREFLY, "eval", *about, *limits, *local, "--out", str(told)])
    during = read_rollouts(out / "held_out" / "step-000002.jsonl")
    after = read_rollouts(told)
    assert without_times(after) == without_times(during)
    assert any(rollout.calls for rollout in after)
    assert any(rollout.right for rollout in after)
    summary = json.loads((told / "summary.json").read_text(encoding="utf-8"))
    (row,) = [row for row in rows(out) if "held_out/pass@1" in row]
    assert row["held_out/pass@1"] == summary["pass_at"]["1"]["value"]
