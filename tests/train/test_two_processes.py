"""Training over two processes, as `accelerate launch` starts it: a tiny model, a small recording, no GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import train
from examples.training.tiny_model import tiny_model, tiny_tokenizer
from synth.task import write_tasks
from tests.synth.model_tasks import QUESTION, make_task, open_world, record
from train.demonstrations import references
from train.models import MODEL
from train.suite import open_suite
from train.training import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = Path(train.__file__).parent / "accelerate" / "two_processes_cpu.yaml"
ALONE = [sys.executable]
# Port 0: whichever is free.
TOGETHER = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
TOGETHER += ["--main_process_port", "0"]
TASKS = 16
STEPS = 12
"""Of SFT: after them the tiny model is right sometimes, so that GRPO has something to compare."""
RATE = {"learning_rate": 3e-3, "lr_scheduler_type": "constant", "warmup_steps": 0}


@dataclass(frozen=True)
class Stage:
    folder: Path

    def train(
        self, launch: list[str], method: str, model: Path, out: str, config: Mapping[str, Any], *options: str
    ) -> dict[str, Any]:
        """Run `firefly train` and return what it printed."""
        settings = self.folder / f"{out}.yaml"
        settings.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        ended = subprocess.run(
            [
                *launch,
                *("-m", "firefly_proxy.main", "train", method, "--json", *options),
                *("--tasks", str(self.folder / "tasks"), "--db", str(self.folder / "world.db")),
                *("--model", str(model), "--config", str(settings), "--out", str(self.folder / out)),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        found = json.loads(ended.stdout)  # of one process, or it would be no JSON
        assert isinstance(found, dict)
        return found

    def weights(self, out: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / out / MODEL / "model.safetensors")

    def steps(self, out: str) -> Iterator[int]:
        return (int(row["step"]) for row in read_metrics(self.folder / out) if "loss" in row)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Tasks whose questions differ in length, a model of random weights, and that model after SFT alone."""
    made = Stage(tmp_path_factory.mktemp("two_processes"))
    recording, tasks = made.folder / "world.db", made.folder / "tasks"
    record(recording)
    world = open_world(recording)
    tasks.mkdir()
    questions = (QUESTION + " Take your time." * number for number in range(TASKS))
    write_tasks(tasks / "tasks.jsonl", [make_task(world, question) for question in questions])
    rows = references(open_suite(tasks, recording))
    tokenizer = tiny_tokenizer([(row["messages"], json.loads(row["tools"])) for row in rows])
    tokenizer.save_pretrained(made.folder / "random")
    tiny_model(tokenizer, seed=0).save_pretrained(made.folder / "random")
    sft(made, ALONE, "alone", accumulated=2)
    return made


def sft(stage: Stage, launch: list[str], out: str, *, accumulated: int) -> dict[str, Any]:
    config = {**RATE, "per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulated}
    return stage.train(launch, "sft", stage.folder / "random", out, config, "--steps", str(STEPS))


def test_two_processes_learn_from_demonstrations_exactly_what_one_learns(stage: Stage) -> None:
    told = sft(stage, TOGETHER, "together", accumulated=1)
    assert told["steps"] == STEPS
    one, two = stage.weights("alone"), stage.weights("together")
    begun = load_file(stage.folder / "random" / "model.safetensors")
    assert one.keys() == two.keys()
    assert max(float((one[name] - begun[name]).abs().max()) for name in one) > 0.01
    # Sums of two, and divisions by two: nothing is rounded differently.
    assert max(float((one[name] - two[name]).abs().max()) for name in one) == 0
    assert list(stage.steps("together")) == list(stage.steps("alone")) == list(range(1, STEPS + 1))


def test_two_processes_try_tasks_and_learn_from_their_rewards(stage: Stage) -> None:
    config = {
        **RATE,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "num_generations": 8,
        "save_steps": 1,
    }
    limits = ["--max-tokens", "128", "--max-turns", "4", "--eval-samples", "0", "--steps", "2"]
    told = stage.train(TOGETHER, "grpo", stage.folder / "alone" / MODEL, "grpo", config, *limits)
    assert told["steps"] == 2
    assert list(stage.steps("grpo")) == [1, 2]
    first = next(row for row in read_metrics(stage.folder / "grpo") if row["step"] == 1)
    assert first["tools/call_frequency"] > 0
    assert first["frac_reward_zero_std"] < 1
    begun, ended = stage.weights("alone"), stage.weights("grpo")
    assert max(float((ended[name] - begun[name]).abs().max()) for name in ended) > 0
