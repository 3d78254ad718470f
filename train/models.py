"""A model's weights: found, small enough for this machine, and loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from recorder.errors import FireflyError

MODEL = "model"
"""The folder of a trained model, or adapter, in that of its run."""

MOST_WITHOUT_GPU = 1_000_000_000
"""Parameters of a model that runs without a GPU: a token of a larger one takes seconds there."""


def load(model: str) -> PreTrainedModel:
    """Return a model for evaluation: on the GPU in the type that it is stored in, else in float32.

    A folder with a LoRA adapter gives its base model with the adapter merged in.

    Raises:
        FireflyError: there is no such model, or it is large and there is no GPU.
    """
    base = base_of(model)
    check_size(model)
    on_gpu = torch.cuda.is_available()
    no_bars()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(base, dtype="auto" if on_gpu else torch.float32)
        if base != model:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, model).merge_and_unload()
    except (OSError, ValueError) as error:
        raise _absent(model, error) from error
    whole: Any = loaded
    found: PreTrainedModel = whole.to("cuda" if on_gpu else "cpu").eval()
    return found


def trainable(model: str, *, lora: bool) -> Any:
    """Return what a trainer of TRL takes as its model: a name, or a model with an adapter to go on with.

    Raises:
        FireflyError: there is no such model, it is too large for this machine, or it is an adapter and `lora`
            is not meant.
    """
    no_bars()
    base = base_of(model)
    check_size(model)
    if base == model:
        # Whole, as an adapter keeps it for whoever loads it from another folder.
        return str(Path(model).resolve()) if Path(model).is_dir() else model
    if not lora:
        raise FireflyError(f"{model} is a LoRA adapter of {base}: --lora goes on with it")
    from peft import PeftModel

    weights = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32
    )
    return PeftModel.from_pretrained(weights, model, is_trainable=True)


def no_bars() -> None:
    """Keep transformers from drawing progress bars."""
    logs: Any = logging
    logs.disable_progress_bar()


def name_of(model: str) -> str:
    """Return what a model is called: the run's folder, where it is a run's `model`."""
    path = Path(model).resolve() if Path(model).is_dir() else Path(model)
    return path.parent.name if path.name == MODEL else path.name


def base_of(model: str) -> str:
    """Return the model that an adapter is for, or the model itself.

    Raises:
        FireflyError: the adapter does not say.
    """
    adapter = Path(model) / "adapter_config.json"
    if not adapter.is_file():
        return model
    try:
        match json.loads(adapter.read_text(encoding="utf-8")):
            case {"base_model_name_or_path": str(base)}:
                return base
    except ValueError:
        pass
    raise FireflyError(f"{adapter} does not name the model that the adapter is for")


def check_size(model: str) -> None:
    """Make sure that this machine can run a model, before its weights are fetched.

    Raises:
        FireflyError: there is no such model, or it is large and there is no GPU.
    """
    size = parameters(base_of(model))
    if size > MOST_WITHOUT_GPU and not torch.cuda.is_available():
        raise FireflyError(
            f"{model} has {size / 1e9:.1f} billion parameters, and this machine has no GPU that torch"
            f" {torch.__version__} can use: take a GPU, or a model below {MOST_WITHOUT_GPU / 1e9:.0f} billion"
        )


def parameters(model: str) -> int:
    """Return how many parameters a model has, by its configuration alone.

    Raises:
        FireflyError: there is no such model.
    """
    make: Any = AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(model)
        with torch.device("meta"):
            empty = make.from_config(config)
    except (OSError, ValueError) as error:
        raise _absent(model, error) from error
    return sum(weight.numel() for weight in empty.parameters())


def _absent(model: str, error: Exception) -> FireflyError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    where = "a folder with a checkpoint" if Path(model).exists() or model.startswith((".", "/")) else "it"
    return FireflyError(
        f"no model {model}: {where} cannot be loaded ({first:.200}); name a folder, or a model of the Hub"
    )
