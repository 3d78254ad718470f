"""The commands `train sft` and `train grpo`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from firefly_proxy.cli import JSON
from train.eval_cli import DB, MAX_TOKENS, MAX_TURNS, MIN_TRUST, MISS, TASKS

if TYPE_CHECKING:
    from train.grpo import HeldOut
    from train.rollout import Limits
    from train.suite import Suite

F = TypeVar("F", bound=Callable[..., Any])


def _shared(command: F) -> F:
    """Add the options that both commands have."""
    for option in reversed(
        [
            TASKS,
            DB,
            click.option("--model", metavar="M", required=True, help="A folder, or a name on the Hub."),
            click.option(
                "--out", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where to."
            ),
            click.option("--lora", is_flag=True, help="Train an adapter (rank 32, all linear layers)."),
            click.option(
                "--config",
                metavar="FILE",
                type=click.Path(dir_okay=False, path_type=Path),
                help="YAML of TRL's own settings, over our defaults.",
            ),
            click.option(
                "--steps",
                metavar="N",
                type=click.IntRange(1),
                help="Optimizer steps [default: grpo 300, sft two passes].",
            ),
            click.option(
                "--seed", metavar="S", type=int, default=0, show_default=True, help="Of all chance."
            ),
            MAX_TOKENS,
            click.option("--resume", is_flag=True, help="Go on from the last checkpoint in --out."),
            JSON,
        ]
    ):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train a model on tasks, offline: first on demonstrations (sft), then by trying (grpo).

    \b
    firefly train sft  --tasks tasks/ --db world.db --model Qwen/Qwen3-4B-Instruct-2507 --lora --out sft/
    firefly train grpo --tasks tasks/ --db world.db --model sft/model --lora --out grpo/
    firefly eval       --tasks tasks/ --db world.db --policy local --model grpo/model --samples 8 --out run/
    """


@train.command()
@_shared
@click.option(
    "--rollouts",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Also learn from the right ones of these rollouts, as firefly eval wrote them.",
)
@click.option(
    "--demos",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Learn from these demonstrations instead of the tasks' reference calls, failures included: rollouts"
    " as firefly eval writes them, or a recording of an explorer.",
)
def sft(
    tasks: Path | None,
    db: Path | None,
    model: str,
    out: Path,
    lora: bool,
    config: Path | None,
    steps: int | None,
    seed: int,
    max_tokens: int,
    resume: bool,
    as_json: bool,
    rollouts: Path | None,
    demos: Path | None,
) -> None:
    """Learn from demonstrations: the tasks' reference calls, verified rollouts, or an explorer's sessions.

    The loss is on what the assistant says. DIR gets the model, checkpoints, metrics.jsonl, learning curves
    and a card.

    \b
    firefly train sft --tasks tasks/ --db world.db --model Qwen/Qwen3-4B-Instruct-2507 --lora --out sft/
    firefly train sft --tasks tasks/ --db world.db --model M --out sft/ --rollouts run/rollouts.jsonl
    """
    suite = _suite(tasks, db, None)
    from train import demonstrations
    from train.sft import SftSettings, train_sft

    rows: list[demonstrations.Row] = []
    if demos is None:
        rows += demonstrations.references(suite)
    elif demonstrations.is_recording(demos):
        rows += demonstrations.from_explorer(demos)
    else:
        rows += _some(demonstrations.from_rollouts(suite, demos, only_right=False), demos, "")
    if rollouts is not None:
        rows += _some(demonstrations.from_rollouts(suite, rollouts, only_right=True), rollouts, " right")
    told = _config(config, steps)
    settings = SftSettings(model, lora, seed, max_tokens, steps)
    stated = {
        "method": "sft",
        "model": model,
        "lora": lora,
        "seed": seed,
        "steps": steps,
        "max_tokens": max_tokens,
        "rollouts": rollouts and str(rollouts),
        "demos": demos and str(demos),
        "config": told,
        "tasks": suite.tasks_hash,
        "world": suite.world_hash,
    }
    with redirect_stdout(sys.stderr):
        begin = _begin(out, stated, resume)
        came_of_it = train_sft(rows, settings, out, told, begin)
    _finish(out, "SFT", stated, came_of_it, as_json)


@train.command()
@_shared
@MAX_TURNS
@MISS
@MIN_TRUST
@click.option(
    "--reward",
    type=click.Choice(["binary", "tier-aware", "permuted"]),
    default="binary",
    show_default=True,
    help="tier-aware weighs by the least trust of the answers seen; permuted is a control that cannot learn.",
)
@click.option(
    "--mask-untrusted",
    metavar="T",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Leave out of the loss what the model writes after an answer of less trust.",
)
@click.option(
    "--pass-rates",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="A run of firefly eval on the training tasks: only those that it solves sometimes are kept.",
)
@click.option(
    "--pass-rate",
    metavar="LOW HIGH",
    nargs=2,
    type=click.FloatRange(0, 1),
    help="What sometimes is [default: 0.1 0.9].",
)
@click.option(
    "--eval-every",
    metavar="N",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="Steps between evaluations on the test splits; 0: only after the last.",
)
@click.option(
    "--eval-samples",
    metavar="K",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Tries of each test task; 0: no evaluation.",
)
def grpo(
    tasks: Path | None,
    db: Path | None,
    model: str,
    out: Path,
    lora: bool,
    config: Path | None,
    steps: int | None,
    seed: int,
    max_tokens: int,
    resume: bool,
    as_json: bool,
    max_turns: int,
    miss: str,
    min_trust: float | None,
    reward: str,
    mask_untrusted: float,
    pass_rates: Path | None,
    pass_rate: tuple[float, float] | None,
    eval_every: int,
    eval_samples: int,
) -> None:
    """Learn by trying the training tasks against the recording, with GRPO; no network, no servers.

    A rollout that met a miss leaves its group. DIR gets the model, checkpoints, metrics.jsonl, learning
    curves, sampled rollouts and a card. --config takes all else that TRL's GRPOConfig has, such as use_vllm.

    \b
    firefly train grpo --tasks tasks/ --db world.db --model sft/model --lora --out grpo/
    firefly train grpo --tasks tasks/ --db world.db --model sft/model --out grpo/ --config vllm.yaml --resume
    """
    suite = _suite(tasks, db, min_trust)
    from train.environment import replayed
    from train.evaluate import read_rollouts
    from train.grpo import GrpoSettings, TrainingReward, train_grpo
    from train.pass_rates import HIGHEST, LOWEST, filtered
    from train.reward import MissRule
    from train.rollout import Limits

    if pass_rate and pass_rates is None:
        raise click.UsageError("--pass-rate goes with --pass-rates")
    if pass_rate and pass_rate[0] > pass_rate[1]:
        raise click.UsageError("--pass-rate takes the lower bound first")
    if pass_rates is not None:
        suite = filtered(suite, read_rollouts(pass_rates), *(pass_rate or (LOWEST, HIGHEST)))
    limits = Limits(max_turns, max_tokens, cast(MissRule, miss))
    told = _config(config, steps)
    made = GrpoSettings(
        model,
        limits,
        cast(TrainingReward, reward),
        mask_untrusted,
        lora,
        seed,
        **({"steps": steps} if steps else {}),
        eval_every=eval_every,
    )
    stated = {
        "method": "grpo",
        "model": model,
        "lora": lora,
        "seed": seed,
        "steps": told.get("max_steps", None if "num_train_epochs" in told else made.steps),
        "max_tokens": max_tokens,
        "max_turns": max_turns,
        "miss": miss,
        "min_trust": min_trust,
        "reward": reward,
        "mask_untrusted": mask_untrusted,
        "pass_rates": pass_rates and str(pass_rates),
        "pass_rate": pass_rate and list(pass_rate),
        "eval_every": eval_every,
        "eval_samples": eval_samples,
        "config": told,
        "tasks": suite.tasks_hash,
        "world": suite.world_hash,
    }
    assert tasks is not None
    assert db is not None
    # Standard output is for what we print; TRL prints tables, too.
    with redirect_stdout(sys.stderr):
        begin = _begin(out, stated, resume)
        look = _held_out(tasks, db, min_trust, limits, eval_samples, seed, out) if eval_samples else None
        came_of_it = train_grpo(suite, replayed(suite.world.replayer), made, out, told, look, begin)
    _finish(out, "GRPO", stated, came_of_it, as_json)


@train.command()
@JSON
def configs(as_json: bool) -> None:
    """Say where the configurations for several GPUs or machines are, and what each is for.

    \b
    accelerate launch --config_file FILE -m firefly_proxy.main train grpo --tasks tasks/ --db world.db …
    """
    from recorder.canonical import readable_json

    files = sorted((Path(__file__).parent / "accelerate").glob("*.yaml"))
    found = [{"file": str(path), "for": _comment(path)} for path in files]
    if as_json:
        click.echo(readable_json({"configs": found}))
        return
    for each in found:
        click.echo(f"{each['file']}\n    {each['for']}")


def _comment(path: Path) -> str:
    """Return the comment that a file begins with, on one line."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _suite(tasks: Path | None, db: Path | None, min_trust: float | None) -> Suite:
    for name, value in (("--tasks", tasks), ("--db", db)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    assert tasks is not None
    assert db is not None
    import os

    from train.policies import need_training

    need_training("firefly train")
    # What TRL says of parts that are new in it; we pin its version.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from train.suite import open_suite

    return open_suite(tasks, db, splits=("train",), min_trust=min_trust)


def _some(found: Iterable[Any], path: Path, kind: str) -> list[Any]:
    """Return what was found in a file.

    Raises:
        FireflyError: it is nothing.
    """
    from recorder.errors import FireflyError

    rows = list(found)
    if not rows:
        raise FireflyError(f"{path} has no{kind} rollout of a training task (firefly eval --split train)")
    return rows


def _config(path: Path | None, steps: int | None) -> dict[str, Any]:
    from recorder.yaml_file import read_settings

    told = read_settings(path) if path is not None else {}
    for name in ("max_steps", "num_train_epochs"):
        if steps is not None and name in told:
            raise click.UsageError(f"--steps and {name} in --config say the same: leave one of them out")
    return told


def _begin(out: Path, stated: Mapping[str, Any], resume: bool) -> Callable[[], None]:
    """Make sure that a run can begin in a folder, and return what begins it, once all else is in order."""
    from train import run_folder
    from train.training import is_main

    if not is_main():
        return lambda: None
    run_folder.check(out, stated, resume=resume)
    return lambda: run_folder.write(out, stated)


def _held_out(
    tasks: Path, db: Path, min_trust: float | None, limits: Limits, samples: int, seed: int, out: Path
) -> HeldOut | None:
    """Return what evaluates on the test splits, as `firefly eval` does; `None` where they have no task."""
    from recorder.errors import FireflyError
    from train.held_out import evaluation
    from train.suite import open_suite

    try:
        suite = open_suite(tasks, db, splits=("test", "test_unseen_servers"), min_trust=min_trust)
    except FireflyError as error:
        click.echo(f"firefly: no evaluation during training: {error}", err=True)
        return None
    return evaluation(suite, limits, samples, seed, out)


def _finish(
    out: Path, method: str, stated: Mapping[str, Any], came_of_it: Mapping[str, Any], as_json: bool
) -> None:
    from recorder.canonical import readable_json
    from train.card import write_card
    from train.models import MODEL
    from train.plots import NoPlots, learning_curves
    from train.training import is_main, read_metrics

    if not is_main():
        return
    metrics = read_metrics(out)
    write_card(out, method=method, settings=stated, came_of_it=came_of_it, metrics=metrics)
    try:
        learning_curves(metrics, out / "curves")
    except NoPlots as error:
        click.echo(f"firefly: {error}", err=True)
    last: dict[str, float] = {}
    for row in metrics:
        last.update(row)
    if as_json:
        click.echo(readable_json({"out": str(out), "model": str(out / MODEL), **came_of_it, "metrics": last}))
        return
    for name in ("loss", "reward", "rollouts/missed", "held_out/pass@1"):
        if name in last:
            click.echo(f"{name}: {last[name]:.4g}")
    click.echo(f"wrote {out / MODEL}")
