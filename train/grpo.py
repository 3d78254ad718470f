"""GRPO in replay: thin over TRL's GRPOTrainer, with recorded tools and the reward that evaluation uses."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from trl import GRPOConfig

from recorder.errors import FireflyError
from train.chat import Chat, load_tokenizer
from train.environment import Message, World, prompt_of
from train.local_policy import LocalPolicy
from train.models import trainable
from train.policy import Policy
from train.recorded_tools import RecordedToolsTrainer, TrlEnvironment, environment_of, tool_set
from train.reward import RewardKind, Score, score
from train.rollout import Limits
from train.samples import SAMPLES, SampleLog
from train.suite import Suite
from train.training import (
    METRICS,
    Every,
    RunLog,
    arguments,
    checked,
    is_main,
    last_checkpoint,
    lora_config,
    processes,
    refused,
    run_to_end,
)

GROUP, PROMPTS = 8, 16
"""Rollouts of a task that are compared with each other, and tasks in a step. The multi-turn DAPO script of
verl for Qwen3-4B takes 8 and 32."""

TrainingReward = Literal["binary", "tier-aware", "permuted"]
"""`permuted` is a control: rewards are shuffled among a batch's rollouts, so that nothing can be learned."""

logger = logging.getLogger(__name__)

HeldOut = Callable[[Policy, int], Mapping[str, float]]
"""Evaluates a policy after some step, and returns what is to be logged."""


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    model: str
    limits: Limits = field(default_factory=Limits)
    reward: TrainingReward = "binary"
    min_trust_in_loss: float = 0.0
    """See `RecordedToolsTrainer`."""
    lora: bool = False
    seed: int = 0
    steps: int = 300
    eval_every: int = 0
    """Steps between evaluations on held-out tasks; 0: only after the last."""


class Verified:
    """The reward function: scores each rollout by its last message, and logs the parts.

    A bug in it raises, and so stops training.
    """

    __name__ = "verified"

    def __init__(self, suite: Suite, limits: Limits, kind: TrainingReward, seed: int) -> None:
        self._suite, self._limits, self._kind, self._seed = suite, limits, kind, seed
        self.last: list[tuple[str, list[Message], Score, float | None]] = []
        """Of the last batch: task, messages after the prompt, score and the reward that was given."""

    def __call__(
        self,
        completions: Sequence[list[Message]],
        environments: Sequence[TrlEnvironment],
        task_id: Sequence[str],
        trainer_state: Any,
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        kind: RewardKind = "tier-aware" if self._kind == "tier-aware" else "binary"
        scores = [
            score(
                self._suite.by_id[task],
                completion,
                environment_of(environment).calls,
                miss=self._limits.miss,
                kind=kind,
            )
            for task, completion, environment in zip(task_id, completions, environments, strict=True)
        ]
        rewards = [each.reward for each in scores]
        if self._kind == "permuted":
            random.Random(f"{self._seed}/{trainer_state.global_step}").shuffle(rewards)
        self.last = list(zip(task_id, completions, scores, rewards, strict=True))
        for name, value in _parts(scores, environments).items():
            log_metric(name, value)
        return rewards


def _parts(scores: Sequence[Score], environments: Sequence[TrlEnvironment]) -> dict[str, float]:
    """Return what the rewards of a batch are made of. The same names each time, as processes are averaged."""
    fields = [right for each in scores for right in each.fields.values()]
    played = list(map(environment_of, environments))
    calls = [call for environment in played for call in environment.calls]
    made = Counter(call.outcome for call in calls)
    # Those whose arguments were no object never came to the environment.
    made["invalid"] += sum(environment._attempts.count(None) for environment in environments)
    tiers = Counter(call.tier for call in calls)
    attempted = sum(len(environment._attempts) for environment in environments)
    of_calls = max(1, attempted)
    return {
        # One that met a miss goes on in TRL, and is no success all the same.
        "rollouts/right": sum(each.right and each.reward is not None for each in scores) / len(scores),
        "rollouts/missed": sum(environment.missed for environment in played) / len(scores),
        "rollouts/fields_right": sum(fields) / max(1, len(fields)),
        "rollouts/trust": sum(each.trust for each in scores) / len(scores),
        "rollouts/calls": attempted / len(scores),
        "calls/valid": 1 - made["invalid"] / of_calls,
        "calls/error": made["error"] / of_calls,
        "calls/missed": made["miss"] / of_calls,
        "calls/exact": tiers["exact"] / of_calls,
    }


def train_grpo(
    suite: Suite,
    world: World,
    settings: GrpoSettings,
    folder: Path,
    config: Mapping[str, Any],
    held_out: HeldOut | None = None,
    begin: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train on the suite's tasks, going on from the folder's last checkpoint, and return what came of it.

    The model, or the adapter, is in `folder/model`.

    Args:
        config: GRPOConfig's own names, over our defaults.
        held_out: Called with the model as it is; not where it is sharded over processes.
        begin: Called before anything is written, once nothing stands against it.

    Raises:
        FireflyError: a model or settings that cannot be used.
    """
    given = checked(GRPOConfig, config)
    model = trainable(settings.model, lora=settings.lora)
    tokenizer = load_tokenizer(settings.model)
    started = last_checkpoint(folder)
    log = RunLog(folder, started, (METRICS, SAMPLES))
    made = arguments(GRPOConfig, folder, _defaults(settings, given, len(suite.tasks)), given)
    _check_saving(made)
    _check_tasks(made, len(suite.tasks))
    if made.use_vllm and find_spec("vllm") is None:
        raise FireflyError("use_vllm needs vLLM, which is not installed: pip install vllm")
    if made.remove_unused_columns:
        raise FireflyError("remove_unused_columns would remove what says which task a row is: leave it out")
    reward = Verified(suite, settings.limits, settings.reward, settings.seed)
    with refused():
        trainer = RecordedToolsTrainer(
            suite=suite,
            world=world,
            miss=settings.limits.miss,
            min_trust_in_loss=settings.min_trust_in_loss,
            model=model,
            reward_funcs=reward,
            args=made,
            train_dataset=_rows(suite),
            processing_class=tokenizer,
            callbacks=[log],
            peft_config=lora_config(model, lora=settings.lora),
        )
    trainer.add_callback(SampleLog(folder, suite, reward))
    if held_out is not None and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        logger.warning(
            "the model is sharded: it is not evaluated during training; firefly eval does it after"
        )
    elif held_out is not None and is_main():
        policy_name = settings.model

        def look(step: int) -> None:
            model = trainer.accelerator.unwrap_model(trainer.model)
            chat = Chat(tokenizer, made.chat_template_kwargs)
            policy = LocalPolicy(model, chat, name=policy_name, temperature=made.temperature)
            log.write(step, held_out(policy, step))

        trainer.add_callback(Every(settings.eval_every, look))
    begin()
    run_to_end(trainer, tokenizer, folder, started)
    return {"steps": trainer.state.global_step, "tokens": trainer.state.num_input_tokens_seen}


def _rows(suite: Suite) -> Dataset:
    return Dataset.from_list(
        [
            {"prompt": prompt_of(task), "task_id": task.task_id, "environment": tool_set(task)}
            for task in suite.tasks
        ]
    )


def _defaults(settings: GrpoSettings, given: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    """Return our settings, beside those that are given."""
    group = max(1, given.get("num_generations", GROUP))
    at_once = max(1, given.get("per_device_train_batch_size", 1) * processes())
    # The fewest micro-steps whose rollouts, of all processes, are whole groups.
    whole_groups = group // math.gcd(group, at_once)
    rollouts = min(GROUP * PROMPTS, group * tasks)
    return {
        # One long conversation at a time; the rest of a step is accumulated.
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": whole_groups * max(1, rollouts // (whole_groups * at_once)),
        "num_generations": GROUP,
        "learning_rate": 1e-5 if settings.lora else 1e-6,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 10,
        "beta": 0.0,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "loss_type": "dapo",
        "temperature": 1.0,
        "max_completion_length": settings.limits.tokens,
        "max_tool_calling_iterations": settings.limits.turns,
        "max_steps": settings.steps,
        "save_steps": 25,
        "seed": settings.seed,
        # An adapter is trained beside weights that do not change: half the memory, and nothing lost.
        **(
            {"model_init_kwargs": {"dtype": "bfloat16"}}
            if settings.lora and torch.cuda.is_available()
            else {}
        ),
    }


def _check_saving(made: GRPOConfig) -> None:
    """Refuse settings whose checkpoints would fall between two generations, as those are not kept.

    Raises:
        FireflyError: they would.
    """
    if made.save_strategy != "steps":
        return
    every = made.steps_per_generation * made.num_iterations
    # Below 1 it is a share of all steps.
    saved = made.save_steps if made.save_steps >= 1 else math.ceil(made.save_steps * max(0, made.max_steps))
    if saved * made.gradient_accumulation_steps % every:
        steps = every // math.gcd(every, made.gradient_accumulation_steps)
        raise FireflyError(
            f"save_steps is {made.save_steps:g}, and rollouts are made every {every} micro-steps: it must be"
            f" a multiple of {steps} steps, or a resumed run would not be the run that was interrupted"
        )


def _check_tasks(made: GRPOConfig, tasks: int) -> None:
    """Make sure that there are tasks for the rollouts that are made at once: TRL drops what is less.

    Raises:
        FireflyError: there are not.
    """
    needed = made.generation_batch_size // made.num_generations
    if needed > tasks:
        raise FireflyError(
            f"{needed} tasks are tried at once, {made.num_generations} times each, and there are {tasks}:"
            " lower per_device_train_batch_size, gradient_accumulation_steps or generation_batch_size"
            " in --config"
        )
