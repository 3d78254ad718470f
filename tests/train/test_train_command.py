"""`firefly train` as it is typed: what it refuses, what it leaves, and how it goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl")

import torch
from safetensors.torch import load_file

from synth.task import write_tasks
from tests.synth.model_tasks import QUESTION, make_task, open_world, record
from tests.train.command import Ran, firefly, refused
from tests.train.scripted_model import call
from tests.train.tiny_chat_model import saved
from train.training import COMPLETE, METRICS, read_metrics

RIGHT = '{"name": "plums", "amount": 7319}'
PHRASES = [call("get", '{"key": "plums"}'), RIGHT, f"So: {RIGHT}", "No."]
TASKS = 6
SMALL = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "num_generations": 2,
    "learning_rate": "1e-3",
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "report_to": "none",
}
SFT = {name: value for name, value in SMALL.items() if name != "num_generations"}
SHORT = ["--max-turns", 2, "--max-tokens", 200]
CLOCKS = ("step_time", "runtime", "per_second")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, tasks of two splits, and a model that makes calls and answers by chance."""
    folder = tmp_path_factory.mktemp("train")
    record(folder / "world.db")
    world = open_world(folder / "world.db")
    tasks = [make_task(world, f"{QUESTION} ({number})") for number in range(TASKS + 1)]
    tasks[-1] = tasks[-1].model_copy(update={"split": "test"})
    for name, kept in (("tasks", tasks), ("test_only", tasks[-1:])):
        (folder / name).mkdir()
        write_tasks(folder / name / "tasks.jsonl", kept)
    saved(folder / "model", PHRASES)
    torch.set_num_threads(1)
    return folder


def run(
    stage: Path,
    method: str,
    out: Path,
    config: Mapping[str, Any] | str | None,
    *options: object,
    **other: Path,
) -> Ran:
    named: dict[str, object] = {
        "tasks": stage / "tasks",
        "db": stage / "world.db",
        "model": stage / "model",
        **other,
    }
    about = [part for name, value in named.items() for part in (f"--{name}", value)]
    if config is not None:
        file = out.with_suffix(".yaml")
        file.write_text(config if isinstance(config, str) else json.dumps(config))
        about += ["--config", file]
    return firefly("train", method, *about, "--out", out, *options)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def alike(first: Path, second: Path) -> bool:
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def untimed(out: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if not any(clock in name for clock in CLOCKS)}
        for row in read_metrics(out)
    ]


# What is refused


@pytest.mark.parametrize(
    ("method", "config", "told"),
    [
        ("sft", "- 1", "must hold names and values"),
        ("sft", "learning_rat: 1", "does not know: learning_rate?"),
        ("sft", "learning_rate: fast", "learning_rate 'fast': it must be a number"),
        ("sft", "report_to: foo", "TRL refuses the settings: foo is not supported"),
        ("sft", "report_to: wandb", "TRL refuses the settings: WandbCallback requires wandb"),
        ("sft", "optim: foo", "TRL refuses the settings: foo is not a valid OptimizerNames"),
        ("sft", "eval_strategy: steps", "which cannot be: evaluation is ours"),
        ("sft", "save_total_limit: 1", "save_total_limit must be 2 or more"),
        ("sft", "output_dir: elsewhere", "output_dir: that is --out"),
        ("sft", "model_init_kwargs: {attn_implementation: flash_attention_2}", "FlashAttention2"),
        (
            "grpo",
            "num_generations: 3\ngradient_accumulation_steps: 1",
            "must be divisible by num_generations",
        ),
        ("grpo", "num_generations: 1", "GRPO requires at least 2 generations"),
        (
            "grpo",
            "gradient_accumulation_steps: 64",
            "8 tasks are tried at once, 8 times each, and there are 6",
        ),
        ("grpo", "num_iterations: 2", "it must be a multiple of 2 steps"),
        ("grpo", "remove_unused_columns: true", "remove_unused_columns would remove"),
        ("grpo", "use_vllm: true", "use_vllm needs vLLM"),
    ],
)
def test_settings_that_cannot_be_leave_no_run(
    stage: Path, tmp_path: Path, method: str, config: str, told: str
) -> None:
    out = tmp_path / "out"
    refused(run(stage, method, out, config), told)
    assert not out.exists() or not list(out.iterdir())


def test_what_is_not_there_is_named(stage: Path, tmp_path: Path) -> None:
    out, none = tmp_path / "out", tmp_path / "none"
    refused(run(stage, "sft", out, None, "--config", none), f"cannot read {none}")
    refused(run(stage, "sft", out, None, model=none), f"no model {none}")
    refused(run(stage, "sft", out, None, db=none), f"no recording at {none}")
    refused(run(stage, "grpo", out, None, tasks=none), f"{none} is not there")
    refused(run(stage, "grpo", out, None, tasks=stage / "test_only"), "has no task in train")
    for option in ("--rollouts", "--demos", "--pass-rates"):
        method = "grpo" if option == "--pass-rates" else "sft"
        refused(run(stage, method, out, None, option, none), none)
    refused(
        run(stage, "sft", out, SFT, "--max-tokens", 10), "none of 6 demonstrations has a word", "10 tokens"
    )
    assert not out.exists() or not list(out.iterdir())


def test_options_that_say_two_things_are_refused(stage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in ("max_steps", "num_train_epochs"):
        refused(run(stage, "grpo", out, {name: 3}, "--steps", 4), f"--steps and {name} in --config", code=2)
    rates = ["--pass-rates", tmp_path, "--pass-rate", 0.9, 0.1]
    refused(run(stage, "grpo", out, None, *rates), "lower bound first", code=2)
    refused(run(stage, "grpo", out, None, "--pass-rate", 0.1, 0.9), "goes with --pass-rates", code=2)


def test_help_has_an_example_and_not_too_many_options() -> None:
    for method in ("sft", "grpo"):
        found = firefly("train", method, "--help")
        assert found.returncode == 0
        assert f"firefly train {method}" in found.stdout
        options = [line for line in found.stdout.splitlines() if line.startswith("  --")]
        assert len([line for line in options if "--help" not in line]) <= 20


# Demonstrations


def rollouts(path: Path, stage: Path, *, reward: float, arguments: object, task: str | None = None) -> Path:
    [first, *_] = (json.loads(line) for line in (stage / "tasks" / "tasks.jsonl").open())
    function = {"name": "get", "arguments": arguments}
    messages = [
        {"role": "user", "content": "to be replaced"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "name": "get", "content": [{"type": "text", "text": "7319"}]},
        {"role": "assistant", "content": RIGHT},
    ]
    row = {"task_id": task or first["task_id"], "reward": reward, "messages": messages}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_rollouts_of_which_nothing_can_be_learned_are_no_demonstrations(stage: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "r.jsonl"
    rollouts(path, stage, reward=0.0, arguments={})
    refused(
        run(stage, "sft", out, None, "--rollouts", path), f"{path} has no right rollout of a training task"
    )
    for made in (
        rollouts(path, stage, reward=1.0, arguments={}, task="other"),
        rollouts(path, stage, reward=1.0, arguments="no object"),
    ):
        for option in ("--rollouts", "--demos"):
            refused(run(stage, "sft", out, None, option, made), "rollout of a training task", "--split train")
    path.write_text("")
    refused(run(stage, "sft", out, None, "--demos", path), f"{path} has no rollout of a training task")


def test_arguments_may_be_the_text_of_an_object(stage: Path, tmp_path: Path) -> None:
    path = rollouts(tmp_path / "r.jsonl", stage, reward=1.0, arguments='{"key": "plums"}')
    found = run(stage, "sft", tmp_path / "out", SFT, "--steps", 1, "--rollouts", path, "--json").json
    assert found["demonstrations"] == TASKS + 1
    assert found["tokens"] > 0


# What is printed and left


def test_one_object_is_printed_whatever_trl_prints(stage: Path, tmp_path: Path) -> None:
    bars = {"disable_tqdm": False}
    found = run(stage, "sft", tmp_path / "sft", SFT | bars, "--steps", 1, "--json")
    assert (found.returncode, found.json["steps"]) == (0, 1), found
    tables = {"log_completions": True, "num_completions_to_print": 1}
    options = [*SHORT, "--steps", 1, "--eval-samples", 0, "--json"]
    found = run(stage, "grpo", tmp_path / "grpo", SMALL | bars | tables, *options)
    assert (found.returncode, found.json["steps"]) == (0, 1), found
    assert "Completion" in found.stderr


def test_a_failed_start_can_be_made_again(stage: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(run(stage, "sft", out, SFT | {"optim": "foo"}), "foo is not a valid")
    refused(run(stage, "sft", out, SFT, model=tmp_path / "none"), "no model")
    assert run(stage, "sft", out, SFT | {"save_strategy": False}, "--steps", 1).returncode == 0
    refused(run(stage, "sft", out, SFT, "--steps", 1), "holds a run already: --resume goes on with it")
    refused(run(stage, "sft", out, SFT, "--steps", 2, "--resume"), "was begun with config")


def test_few_tasks_are_all_tried_in_a_step(stage: Path, tmp_path: Path) -> None:
    config = {"per_device_train_batch_size": 24, "num_generations": 4, "report_to": "none"}
    options = ["--max-turns", 1, "--max-tokens", 60, "--steps", 1, "--eval-samples", 0, "--json"]
    found = run(stage, "grpo", tmp_path / "out", config, *options).json
    assert found["steps"] == 1
    assert found["tokens"] > 0


# Going on


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_run_that_is_gone_on_with_ends_as_one_that_was_not(
    stage: Path, tmp_path: Path, method: str
) -> None:
    config = (SMALL if method == "grpo" else SFT) | {"save_steps": 2}
    options: list[object] = ["--steps", 5]
    if method == "grpo":
        options += [*SHORT, "--eval-every", 2]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for out in (whole, cut):
        assert run(stage, method, out, config, *options).returncode == 0
    # As a run that is killed within its last checkpoint leaves it.
    (cut / "checkpoint-5" / COMPLETE).unlink()
    (cut / "README.md").unlink()
    with (cut / METRICS).open("a") as file:
        file.write('{"step": 5, "lo')
    assert run(stage, method, cut, config, *options, "--resume").returncode == 0
    assert untimed(cut) == untimed(whole)
    assert len(untimed(whole)) == (8 if method == "grpo" else 5)
    assert alike(cut, whole)
    left = ["README.md", "settings.json", *(["samples.md"] if method == "grpo" else [])]
    assert [(cut / name).read_text() for name in left] == [(whole / name).read_text() for name in left]
    # At its end there is nothing to go on with.
    before = {path.name for path in cut.iterdir()}
    assert run(stage, method, cut, config, *options, "--resume").returncode == 0
    assert {path.name for path in cut.iterdir()} == before
    assert untimed(cut) == untimed(whole)
    assert alike(cut, whole)
    if method == "grpo":
        samples = (whole / "samples.md").read_text()
        assert (cut / "samples.md").read_text() == samples
        assert samples.count("## Step") == 10
        assert [row["step"] for row in untimed(whole) if "held_out/missed" in row] == [2, 4, 5]
        assert any(row.get("grad_norm", 0) > 0 for row in untimed(whole))
