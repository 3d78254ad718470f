"""Supervised fine-tuning on demonstrations: thin over TRL's SFTTrainer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Json, List, Value, disable_progress_bars
from trl import SFTConfig, SFTTrainer

from recorder.canonical import encodable
from recorder.errors import FireflyError
from train.chat import load_tokenizer
from train.demonstrations import Row
from train.models import trainable
from train.training import (
    Run,
    RunLog,
    arguments,
    checked,
    last_checkpoint,
    lora_config,
    processes,
    refused,
    run_to_end,
)

BATCH = 64
"""Conversations in a step, over all processes."""


@dataclass(frozen=True, slots=True)
class SftSettings:
    model: str
    lora: bool = False
    seed: int = 0
    max_tokens: int = 8192
    """Of a conversation; the rest of a longer one is cut off."""
    steps: int | None = None
    """`None`: two passes over the demonstrations."""


FEATURES = Features(
    # Arguments of different tools have no common Arrow type; as JSON they stay what they are.
    {
        "messages": List(Json()),
        "tools": Value("string"),
        "task_id": Value("string"),
        "source": Value("string"),
    }
)

logger = logging.getLogger(__name__)


# mypy does not follow TRL, so its trainer has no type.
class _Trainer(Run, SFTTrainer):  # type: ignore[misc]
    pass


def train_sft(
    rows: Sequence[Row],
    settings: SftSettings,
    folder: Path,
    config: Mapping[str, Any],
    begin: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train on demonstrations, going on from the folder's last checkpoint, and return what came of it.

    The loss is on what the assistant says alone. The model, or the adapter, is in `folder/model`.

    Args:
        rows: See `demonstrations`.
        config: SFTConfig's own names, over our defaults.
        begin: Called before anything is written, once nothing stands against it.

    Raises:
        FireflyError: nothing to learn from, or a model or settings that cannot be used.
    """
    if not rows:
        raise FireflyError("there is no demonstration to learn from")
    given = checked(SFTConfig, config)
    disable_progress_bars()
    model = trainable(settings.model, lora=settings.lora)
    tokenizer = load_tokenizer(settings.model)
    started = last_checkpoint(folder)
    per_device = given.get("per_device_train_batch_size", 4)
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": max(1, BATCH // max(1, per_device * processes())),
        # A choice that was not measured. Adapters take about ten times the rate of full fine-tuning (TRL's
        # documentation, "LoRA Without Regret").
        "learning_rate": 1e-4 if settings.lora else 1e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "max_length": settings.max_tokens,
        "assistant_only_loss": True,
        "seed": settings.seed,
        "save_steps": 100,
        **({"max_steps": settings.steps} if settings.steps else {"num_train_epochs": 2}),
    }
    made = arguments(SFTConfig, folder, defaults, given)
    data = _dataset(rows)
    with refused():
        trainer = _Trainer(
            model,
            args=made,
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[RunLog(folder, started)],
            peft_config=lora_config(model, lora=settings.lora),
        )
    if not len(trainer.train_dataset):
        raise FireflyError(
            f"within {made.max_length} tokens none of {len(data)} demonstrations has a word of the assistant:"
            " --max-tokens must be higher"
        )
    if started is not None:
        # TRL begins to count anew.
        state = json.loads((started / "trainer_state.json").read_text(encoding="utf-8"))
        trainer._total_train_tokens = max([row.get("num_tokens", 0) for row in state["log_history"]] or [0])
    begin()
    run_to_end(trainer, tokenizer, folder, started)
    losses, tokens = (
        [row[name] for row in trainer.state.log_history if name in row] for name in ("loss", "num_tokens")
    )
    return {
        "steps": trainer.state.global_step,
        "demonstrations": len(rows),
        "loss": losses[-1] if losses else None,
        "tokens": int(tokens[-1]) if tokens else 0,
    }


def _dataset(rows: Sequence[Row]) -> Dataset:
    """Return rows as they are, but for those with numbers that Arrow's JSON has no form for.

    Raises:
        FireflyError: none is left.
    """
    kept = [_encodable(dict(row)) for row in rows if _is_storable(row["messages"])]
    if not kept:
        raise FireflyError("each demonstration has whole numbers of more than 64 bits, which cannot be kept")
    if len(kept) < len(rows):
        logger.warning("%d demonstrations have too large numbers and are left out", len(rows) - len(kept))
    return Dataset.from_list(kept, features=FEATURES)


def _is_storable(value: object) -> bool:
    match value:
        case list():
            return all(map(_is_storable, value))
        case dict():
            return all(map(_is_storable, value.values()))
        case int():
            return -(1 << 63) <= value < 1 << 64
        case _:
            return True


def _encodable(value: Any) -> Any:
    """Return a value without lone surrogates, which no tokenizer takes."""
    match value:
        case str():
            return encodable(value)
        case list():
            return [_encodable(each) for each in value]
        case dict():
            return {encodable(name): _encodable(each) for name, each in value.items()}
        case _:
            return value
