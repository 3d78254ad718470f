"""What SFT and GRPO have in common: their settings, checkpoints to go on from, and what they log."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recorder.errors import FireflyError
from train.models import MODEL

METRICS, COMPLETE = "metrics.jsonl", "firefly-complete"
"""A line for each time that something was logged; the file that ends a checkpoint: how many bytes each file
that is appended to had then."""

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


OPTIONS = {
    "output_dir": "--out",
    "seed": "--seed",
    "max_completion_length": "--max-tokens",
    "max_tool_calling_iterations": "--max-turns",
    "resume_from_checkpoint": "--resume",
}
"""Settings of TRL's that are options of ours: what we do besides training goes by them, too."""

KEPT = {
    "eval_strategy": ("no", "evaluation is ours: --eval-every, or firefly eval"),
    "eval_on_start": (False, "evaluation is ours: --eval-every, or firefly eval"),
    "load_best_model_at_end": (False, "checkpoints are not compared"),
    "save_only_model": (False, "a run could not go on from such checkpoints"),
}
"""Settings that have one value here, and why."""


def checked(kind: type[Arguments], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a file with values of the types that TRL declares.

    Raises:
        FireflyError: a name is none of TRL's or is an option of ours, or a value is of another type.
    """
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    types = get_type_hints(kind)
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f": {close[0]}?" if close else ""
            raise FireflyError(f"--config has {name}, which {kind.__name__} of TRL does not know{meant}")
        if name in OPTIONS:
            raise FireflyError(f"--config has {name}: that is {OPTIONS[name]}")
    given = {name: _as_declared(name, types[name], value) for name, value in config.items()}
    for name, (value, why) in KEPT.items():
        if given.get(name, value) != value:
            raise FireflyError(f"--config has {name} {given[name]!r}, which cannot be: {why}")
    return given


def arguments(
    kind: type[Arguments], folder: Path, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> Arguments:
    """Return TRL's settings: ours, and over them those of a file, as `checked` returns them.

    Raises:
        FireflyError: TRL refuses a value.
    """
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
    if "num_train_epochs" in given and "max_steps" not in given:
        # Which would count for more than it.
        ours.pop("max_steps", None)
    with refused():
        made = kind(**{**ours, **given})
    if made.save_total_limit is not None and made.save_total_limit < 2:
        raise FireflyError(
            "save_total_limit must be 2 or more: one alone is deleted before the next is whole"
        )
    return made


_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", dict: "a mapping"}


def _as_declared(name: str, declared: Any, value: Any) -> Any:
    """Return a value of YAML as what it was meant for.

    Raises:
        FireflyError: it is of no type that is declared.
    """
    kinds = [get_origin(each) or each for each in get_args(declared) or [declared]]
    if get_origin(declared) in (list, dict):
        kinds = [get_origin(declared)]
    if type(None) in kinds and value is None:
        return None
    if type(value) in kinds or (isinstance(value, int) and not isinstance(value, bool) and float in kinds):
        return value
    if value is False and bool not in kinds and str in kinds:
        # As YAML reads `no`, which is a value of some settings.
        return "no"
    if not isinstance(value, bool):
        for number in (float, int):
            # YAML reads 1e-6 as a text.
            if number in kinds and isinstance(value, str | float):
                try:
                    found = float(value)
                except ValueError:
                    continue
                if number is float and not math.isnan(found):
                    return found
                if number is int and found.is_integer():
                    return int(found)
        if isinstance(value, int | float) and str in kinds:
            return str(value)
    words = [_WORDS.get(each, "a list") for each in kinds if each in _WORDS or each is list]
    needed = " or ".join(dict.fromkeys(words)) or "left out"
    raise FireflyError(f"--config has {name} {value!r:.100}: it must be {needed}")


@contextmanager
def refused() -> Iterator[None]:
    """Say in one line why TRL does not take settings, or misses a package for them.

    Raises:
        FireflyError: it does not.
    """
    try:
        yield
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise FireflyError(f"TRL refuses the settings: {' '.join(str(error).split()):.300}") from error


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say in one line what stopped training where that is this machine, and no bug.

    Raises:
        FireflyError: the GPU or the disk is full, or a package is missing.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FireflyError(
            "the GPU has no room: take a lower per_device_train_batch_size (in --config), a lower"
            " --max-tokens, or --lora"
        ) from error
    except ImportError as error:
        raise FireflyError(f"the settings need a package: {' '.join(str(error).split()):.300}") from error
    except Exception as error:
        # What writes tensors has errors of its own, and some do not tell the reason.
        untold = isinstance(error, RuntimeError) and shutil.disk_usage(folder).free < FULL
        if os.strerror(errno.ENOSPC) not in str(error) and not untold:
            raise
        raise FireflyError(f"no space is left for {folder}: make room, and --resume goes on") from error


FULL = 1 << 16
"""Free bytes of a disk that is full."""


class Run:
    """What our trainers have in common, over a trainer of TRL."""

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        trainer: Any = self
        if trainer.state.global_step >= trainer.state.max_steps:
            # It goes on with a run that was at its end: transformers would take one step more.
            trainer.control.should_training_stop = True
            return
        above: Any = super()
        above._run_epoch(*arguments, **named)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing: the run's own card says more, and stands in the same place."""


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
            shutil.rmtree(broken, ignore_errors=True)
    return found[-1] if found else None


def run_to_end(trainer: Any, tokenizer: Any, folder: Path, started: Path | None) -> None:
    """Train, from a checkpoint on if there is one, and leave the model with its tokenizer in `folder/model`.

    Raises:
        FireflyError: this machine stopped it.
    """
    # Standard output is for what the command prints.
    trainer.remove_callback(PrinterCallback)
    with explained(folder):
        trainer.train(resume_from_checkpoint=str(started) if started else None)
        trainer.save_model(str(folder / MODEL))
        if is_main():
            tokenizer.save_pretrained(str(folder / MODEL))


class RunLog(TrainerCallback):
    """Writes metrics as JSON lines, and marks checkpoints that are whole.

    Args:
        started: The checkpoint that the run goes on from: what was appended to files after it is of a run
            that was killed, and comes again.
        appended: Names of the files.
    """

    def __init__(self, folder: Path, started: Path | None, appended: Sequence[str] = (METRICS,)) -> None:
        self._folder, self._path, self._started, self._appended = folder, folder / METRICS, started, appended

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if not is_main():
            return
        sizes = json.loads((self._started / COMPLETE).read_text(encoding="utf-8")) if self._started else {}
        for path in (self._folder / name for name in self._appended):
            if path.is_file():
                os.truncate(path, min(sizes.get(path.name, 0), path.stat().st_size))

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
        if "train_runtime" in (logs or {}):
            # Sums of this process, which may have gone on with a run.
            return
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
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Each process has a part of its own.
            torch.distributed.barrier()
        if is_main():
            paths = [self._folder / name for name in self._appended]
            sizes = {path.name: path.stat().st_size for path in paths if path.is_file()}
            mark = Path(args.output_dir or "") / f"checkpoint-{state.global_step}" / COMPLETE
            beside = mark.with_name(f"{COMPLETE}.new")
            beside.write_text(json.dumps(sizes), encoding="utf-8")
            beside.replace(mark)


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Return what was logged, in order; a line that was not written to its end is left out."""
    path = folder / METRICS
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Every(TrainerCallback):
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
