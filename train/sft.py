"""Supervised fine-tuning on demonstrations: thin over TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from trl import SFTConfig, SFTTrainer

from recorder.errors import FireflyError
from train.chat import load_tokenizer
from train.demonstrations import Row
from train.models import trainable
from train.training import (
    MODEL,
    RunLog,
    arguments,
    is_main,
    last_checkpoint,
    lora_config,
    processes,
    quiet,
    step_of,
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


class _Trainer(SFTTrainer):  # type: ignore[misc, unused-ignore]
    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing: the run's own card says more, and stands in the same place."""


def train_sft(
    rows: Sequence[Row], settings: SftSettings, folder: Path, config: Mapping[str, Any]
) -> dict[str, Any]:
    """Train on demonstrations, going on from the folder's last checkpoint, and return what came of it.

    The loss is on what the assistant says alone. The model, or the adapter, is in `folder/model`.

    Args:
        rows: See `demonstrations`.
        config: SFTConfig's own names, over our defaults.

    Raises:
        FireflyError: nothing to learn from, or a model or settings that cannot be used.
    """
    if not rows:
        raise FireflyError("there is no demonstration to learn from")
    disable_progress_bars()
    model = trainable(settings.model, lora=settings.lora)
    tokenizer = load_tokenizer(settings.model)
    started = last_checkpoint(folder)
    log = RunLog(folder, step_of(started))
    per_device = min(4, BATCH)
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": max(1, BATCH // (per_device * processes())),
        # Full fine-tuning of a 4B model in published tool-use recipes 1e-5; adapters take ten times that.
        "learning_rate": 1e-4 if settings.lora else 1e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 10,
        "max_length": settings.max_tokens,
        "assistant_only_loss": True,
        "seed": settings.seed,
        "save_steps": 100,
        **({"max_steps": settings.steps} if settings.steps else {"num_train_epochs": 2}),
    }
    made = arguments(SFTConfig, folder, defaults, config)
    # Arguments of different tools have no common Arrow type; as JSON they stay what they are.
    data = Dataset.from_list([dict(row) for row in rows], on_mixed_types="use_json")
    trainer = _Trainer(
        model,
        args=made,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[log],
        peft_config=lora_config(model, lora=settings.lora),
    )
    quiet(trainer)
    trainer.train(resume_from_checkpoint=str(started) if started else None)
    trainer.save_model(str(folder / MODEL))
    if is_main():
        tokenizer.save_pretrained(str(folder / MODEL))
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "steps": trainer.state.global_step,
        "demonstrations": len(rows),
        "loss": losses[-1] if losses else None,
        "tokens": trainer.state.num_input_tokens_seen,
    }
