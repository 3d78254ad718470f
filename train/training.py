"""What SFT and GRPO have in common: their settings, checkpoints to go on from, and what they log."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recorder.errors import FireflyError

METRICS, COMPLETE = "metrics.jsonl", "firefly-complete"
"""A line for each time that something was logged; the file that ends a checkpoint."""

MODEL = "model"
"""The folder of the trained model, or adapter."""

TOLD = ("loss", "reward", "rollouts/right", "rollouts/missed", "tools/call_frequency", "entropy", "step_time")
"""Metrics that are told while training goes on."""

Arguments = TypeVar("Arguments", bound=TrainingArguments)

LORA = {"r": 32, "lora_alpha": 64, "lora_dropout": 0.0, "target_modules": "all-linear"}
"""Low ranks suffice for RL where every linear layer has one (TRL's documentation, "LoRA Without Regret")."""


def is_main() -> bool:
    """Whether this process writes; of several that train together, one does."""
    return int(os.environ.get("RANK", "0")) == 0


def processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def arguments(
    kind: type[Arguments], folder: Path, defaults: Mapping[str, Any], config: Mapping[str, Any]
) -> Arguments:
    """Return TRL's settings: ours, and over them those of a file.

    Raises:
        FireflyError: a name is none of TRL's, or TRL refuses a value.
    """
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f": {close[0]}?" if close else ""
            raise FireflyError(f"--config has {name}, which {kind.__name__} of TRL does not know{meant}")
    given = {name: _as_declared(known[name].type, value) for name, value in config.items()}
    on_gpu = torch.cuda.is_available()
    ours = {
        "output_dir": str(folder),
        "use_cpu": not on_gpu,
        "bf16": on_gpu,
        "activation_checkpointing": on_gpu,
        "logging_steps": 1,
        "save_total_limit": 3,
        "report_to": "tensorboard",
        "disable_tqdm": True,
        **defaults,
    }
    try:
        made = kind(**{**ours, **given})
    except (TypeError, ValueError) as error:
        raise FireflyError(f"TRL refuses the settings: {' '.join(str(error).split()):.300}") from error
    if made.save_total_limit is not None and made.save_total_limit < 2:
        raise FireflyError(
            "save_total_limit must be 2 or more: one alone is deleted before the next is whole"
        )
    return made


def _as_declared(declared: Any, value: Any) -> Any:
    # YAML reads 1e-6 as a text.
    if isinstance(value, str) and "float" in str(declared):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def lora_config(model: Any, *, lora: bool) -> Any:
    """Return the adapter that is put into a model by name; `None` where there is none, or one already."""
    if not lora or not isinstance(model, str):
        return None
    from peft import LoraConfig

    return LoraConfig(base_model_name_or_path=model, task_type="CAUSAL_LM", **LORA)


# --- checkpoints --------------------------------------------------------------------------------------------


def last_checkpoint(folder: Path) -> Path | None:
    """Return the last checkpoint that was written to its end, and delete what was begun after it."""
    found = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    while found and not (found[-1] / COMPLETE).is_file():
        broken = found.pop()
        if is_main():
            shutil.rmtree(broken)
    return found[-1] if found else None


def step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0


def quiet(trainer: Any) -> None:
    """Keep standard output for what the command prints."""
    trainer.remove_callback(PrinterCallback)


class RunLog(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Writes metrics as JSON lines, and marks checkpoints that are whole.

    Args:
        step: That the run goes on from: later lines are of a run that was killed, and come again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / METRICS
        rows = [row for row in read_metrics(folder) if row["step"] <= step]
        if is_main():
            _write_rows(self._path, rows)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        kept = {name: value for name, value in values.items() if _is_number(value)}
        if kept and is_main():
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **kept}) + "\n")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if is_main():
            values = logs or {}
            told = "  ".join(f"{name} {values[name]:.3g}" for name in TOLD if _is_number(values.get(name)))
            sys.stderr.write(f"step {state.global_step} of {state.max_steps}  {told}\n")
        self.write(
            state.global_step, {name: value for name, value in (logs or {}).items() if name != "epoch"}
        )

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if is_main():
            (Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return what was logged, in order; a line that was not written to its end is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)


class Every(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Does something every so many steps, and after the last one.

    Args:
        do: Gets the step.
        steps: 0: only after the last one.
    """

    def __init__(self, steps: int, do: Callable[[int], None]) -> None:
        self._steps, self._do = steps, do
        self._done = -1

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._steps and state.global_step % self._steps == 0:
            self._run(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._run(state.global_step)

    def _run(self, step: int) -> None:
        if step != self._done:
            self._done = step
            self._do(step)
