"""Settings of TRL's out of a YAML file, and what training makes of what a model writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl")

import torch
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig, SFTConfig

from recorder.errors import FireflyError
from recorder.yaml_file import read_settings
from synth.export.dataset import Dataset
from tests.synth.model_tasks import make_task, open_world, record
from tests.train.scripted_model import Script, byte_tokenizer, call, tiny_model
from train import sft
from train.chat import checked as with_parser
from train.environment import replayed
from train.grpo import GrpoSettings, TrainingReward, Verified, _check_saving, _check_tasks, _defaults, _rows
from train.recorded_tools import RecordedToolsTrainer, TrlEnvironment
from train.rollout import Limits
from train.samples import SAMPLES, SampleLog
from train.suite import Suite
from train.training import COMPLETE, METRICS, RunLog, arguments, checked, explained, last_checkpoint

RIGHT = '{"name": "plums", "amount": 7319}'
LIST, GET = call("list", "{}"), call("get", '{"key": "plums"}')


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    record(path)
    world = open_world(path)
    task = make_task(world)
    return Suite((task,), world, Dataset(world, [task]).functions)


def read(path: Path, text: str) -> dict[str, Any]:
    path = path / "c.yaml"
    path.write_text(text)
    return read_settings(path)


# The file


def test_a_date_is_the_text_that_it_is(tmp_path: Path) -> None:
    found = read(
        tmp_path, "run_name: 2026-01-01\nlearning_rate: 1e-6\nbf16: no\nnothing:\nlist: [1, {a: 2.5}]"
    )
    assert found == {
        "run_name": "2026-01-01",
        "learning_rate": "1e-6",
        "bf16": False,
        "nothing": None,
        "list": [1, {"a": 2.5}],
    }


@pytest.mark.parametrize(
    "text", [".nan", "!!binary aGVsbG8=", "!!set {a, b}", "&a [*a]", "{1: 2}", "[[.nan]]", "{a: {2: 3}}"]
)
def test_what_json_has_no_form_for_is_no_setting(tmp_path: Path, text: str) -> None:
    with pytest.raises(FireflyError, match=r"c\.yaml: run_name must be a number, text, list or mapping"):
        read(tmp_path, f"run_name: {text}")


# Values


def test_values_become_what_trl_declares(tmp_path: Path) -> None:
    text = "\n".join(
        [
            *("learning_rate: 1e-6", "epsilon_high: 3e-1", "max_steps: 1e3", "warmup_steps: 5"),
            *("save_strategy: no", "disable_tqdm: yes", "report_to: [tensorboard]", "run_name: 7"),
            *("generation_kwargs: {top_k: 5}", "top_k: '20'", "vllm_max_model_length:", "min_p: 0"),
        ]
    )
    found = checked(GRPOConfig, read(tmp_path, text))
    assert found == {
        "learning_rate": 1e-6,
        "epsilon_high": 0.3,
        "max_steps": 1000,
        "warmup_steps": 5,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": ["tensorboard"],
        "run_name": "7",
        "generation_kwargs": {"top_k": 5},
        "top_k": 20,
        "vllm_max_model_length": None,
        "min_p": 0,
    }
    assert isinstance(found["max_steps"], int)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learning_rate: fast", "learning_rate 'fast': it must be a number"),
        ("learning_rate: 'nan'", "learning_rate 'nan': it must be a number"),
        ("learning_rate:", "learning_rate None: it must be a number"),
        ("learning_rate: yes", "learning_rate True: it must be a number"),
        ("max_steps: 2.5", "max_steps 2.5: it must be a whole number"),
        ("max_steps: ten", "max_steps 'ten': it must be a whole number"),
        ("disable_dropout: 'true'", "disable_dropout 'true': it must be true or false"),
        ("learning_rate: [1]", r"learning_rate \[1\]: it must be a number"),
        ("learning_rat: 1", "learning_rat, which GRPOConfig of TRL does not know: learning_rate?"),
        ("xyz: 1", "xyz, which GRPOConfig of TRL does not know$"),
        ("output_dir: elsewhere", "output_dir: that is --out"),
        ("seed: 3", "seed: that is --seed"),
        ("max_completion_length: 9", "max_completion_length: that is --max-tokens"),
        ("max_tool_calling_iterations: 9", "max_tool_calling_iterations: that is --max-turns"),
        ("eval_strategy: steps", "eval_strategy 'steps', which cannot be: evaluation is ours"),
        ("load_best_model_at_end: true", "load_best_model_at_end True, which cannot be"),
        ("save_only_model: true", "save_only_model True, which cannot be"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(FireflyError, match=f"--config has {told}"):
        checked(GRPOConfig, read(tmp_path, text))


def test_what_is_as_it_has_to_be_may_be_said(tmp_path: Path) -> None:
    assert checked(SFTConfig, read(tmp_path, "eval_strategy: no\nload_best_model_at_end: false")) == {
        "eval_strategy": "no",
        "load_best_model_at_end": False,
    }


def made(folder: Path, *, tasks: int = 1000, **given: Any) -> GRPOConfig:
    settings = GrpoSettings("m")
    return arguments(GRPOConfig, folder, _defaults(settings, given, tasks), given)


@pytest.mark.parametrize(
    ("tasks", "given", "accumulated", "at_once"),
    [
        (1000, {}, 128, 16),
        (1000, {"per_device_train_batch_size": 4}, 32, 16),
        (1000, {"num_generations": 16}, 128, 8),
        (1000, {"num_generations": 6, "per_device_train_batch_size": 4}, 30, 20),
        (5, {}, 40, 5),
        (1, {"num_generations": 4, "per_device_train_batch_size": 2}, 2, 1),
    ],
)
def test_a_step_takes_128_rollouts_of_as_many_tasks_as_there_are(
    tmp_path: Path, tasks: int, given: dict[str, Any], accumulated: int, at_once: int
) -> None:
    found = made(tmp_path, tasks=tasks, **given)
    assert found.gradient_accumulation_steps == accumulated
    assert found.generation_batch_size // found.num_generations == at_once
    _check_tasks(found, tasks)


def test_tasks_that_are_fewer_than_are_tried_at_once_would_never_be_tried(tmp_path: Path) -> None:
    found = made(tmp_path, tasks=5, gradient_accumulation_steps=64)
    with pytest.raises(FireflyError, match="8 tasks are tried at once, 8 times each, and there are 5: lower"):
        _check_tasks(found, 5)


def test_passes_over_the_tasks_count_where_they_are_asked_for(tmp_path: Path) -> None:
    assert made(tmp_path).max_steps == 300
    assert made(tmp_path, num_train_epochs=2).max_steps == -1
    assert made(tmp_path, num_train_epochs=2, max_steps=7).max_steps == 7


@pytest.mark.parametrize(
    ("given", "multiple"),
    [
        ({}, 0),
        # Several times in a step.
        ({"steps_per_generation": 32}, 0),
        ({"num_iterations": 2, "save_steps": 24}, 0),
        ({"num_iterations": 2}, 2),
        ({"steps_per_generation": 192}, 3),
        ({"num_iterations": 2, "save_strategy": "no"}, 0),
        ({"num_iterations": 2, "save_steps": 0.1, "max_steps": 40}, 0),
        ({"num_iterations": 2, "save_steps": 0.1, "max_steps": 50}, 2),
    ],
)
def test_a_checkpoint_falls_where_rollouts_are_made(
    tmp_path: Path, given: dict[str, Any], multiple: int
) -> None:
    found = made(tmp_path, **given)
    if multiple:
        with pytest.raises(FireflyError, match=f"it must be a multiple of {multiple} steps"):
            _check_saving(found)
    else:
        _check_saving(found)


# What stops training


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU has no room"),
        (ImportError("pip install bitsandbytes"), "need a package: pip install bitsandbytes"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space is left for "),
        (OSError(28, "No space left on device"), "no space is left for "),
    ],
)
def test_what_this_machine_lacks_is_one_line(tmp_path: Path, error: Exception, told: str) -> None:
    with pytest.raises(FireflyError, match=told), explained(tmp_path):
        raise error


def test_a_bug_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained(tmp_path):
        raise RuntimeError("shapes")


# What is written


def log_of(folder: Path, started: Path | None) -> tuple[RunLog, Callable[[str, int], None]]:
    log, control = RunLog(folder, started, (METRICS, SAMPLES)), TrainerControl()
    arguments_ = TrainingArguments(str(folder), report_to="none")

    def on(event: str, step: int) -> None:
        (folder / f"checkpoint-{step}").mkdir(exist_ok=True)
        getattr(log, f"on_{event}")(arguments_, TrainerState(global_step=step), control, logs={"loss": step})

    return log, on


def test_what_a_killed_run_wrote_after_its_checkpoint_is_written_once(tmp_path: Path) -> None:
    log, on = log_of(tmp_path, None)
    on("train_begin", 0)
    on("log", 2)
    (tmp_path / SAMPLES).write_text("two\n")
    on("save", 2)
    # Of the same step, but after the checkpoint.
    log.write(2, {"held_out/pass@1": 0.5})
    on("log", 3)
    (tmp_path / SAMPLES).write_text("two\nthree\n")
    (tmp_path / "checkpoint-3" / f"{COMPLETE}.new").write_text("{ha")
    started = last_checkpoint(tmp_path)
    assert started == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-3").exists()
    _, on = log_of(tmp_path, started)
    on("train_begin", 2)
    assert (tmp_path / METRICS).read_text() == '{"step": 2, "loss": 2}\n'
    assert (tmp_path / SAMPLES).read_text() == "two\n"
    _, on = log_of(tmp_path, None)
    on("train_begin", 0)
    assert (tmp_path / METRICS).read_text() == (tmp_path / SAMPLES).read_text() == ""


# Demonstrations


def demonstration(*arguments: Any, content: str = "q") -> dict[str, Any]:
    calls = [{"type": "function", "function": {"name": "f", "arguments": each}} for each in arguments]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    return {"messages": messages, "tools": "[]", "task_id": "", "source": "test"}


def test_arguments_stay_what_they_are() -> None:
    odd: list[dict[str, Any]] = [
        {"a": 1},
        {"a": 1.5},
        {"a": "x", "b": None},
        {"a": [1, "x", None]},
        {"a": {"deep": {}}},
        {"a": True},
        {"b": 2**64 - 1, "c": -(2**63)},
        {"b": 0.1 + 0.2, "é\u2028": []},
        {},
    ]
    rows = [demonstration(each) for each in odd]
    assert json.dumps(list(sft._dataset(rows))) == json.dumps(rows)
    alike = [demonstration({"a": 1}, {"a": 0.5})]
    assert json.dumps(list(sft._dataset(alike))) == json.dumps(alike)


def test_what_cannot_be_kept_is_left_out_or_replaced(caplog: pytest.LogCaptureFixture) -> None:
    rows = [demonstration({"a": [{"b": 2**64}]}), demonstration({"a\ud800": "\udfff"}, content="q\ud800")]
    assert list(sft._dataset(rows)) == [demonstration({"a?": "?"}, content="q?")]
    assert "1 demonstrations have too large numbers" in caplog.text
    with pytest.raises(FireflyError, match="whole numbers of more than 64 bits"):
        sft._dataset(rows[:1])


# Rollouts


class Scripted(RecordedToolsTrainer):
    """A script stands in the model's place."""

    def __init__(self, *, script: Script, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._script = script

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        return self._script.write(prompt_ids), None


def scripted(
    suite: Suite, folder: Path, turns: list[list[str]], *, kind: TrainingReward = "binary", **more: Any
) -> Scripted:
    tokenizer, limits = byte_tokenizer(), Limits(turns=3, tokens=12_000)
    with_parser(tokenizer, "the test's")
    settings = GRPOConfig(
        str(folder),
        per_device_train_batch_size=len(turns),
        num_generations=len(turns),
        max_completion_length=limits.tokens,
        max_tool_calling_iterations=limits.turns,
        gradient_accumulation_steps=1,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
    )
    return Scripted(
        script=Script(tokenizer, turns, limits.tokens),
        suite=suite,
        world=replayed(suite.world.replayer),
        model=tiny_model(tokenizer),
        reward_funcs=Verified(suite, limits, kind, 0),
        args=settings,
        train_dataset=_rows(suite),
        processing_class=tokenizer,
        **more,
    )


def scored(found: Scripted, suite: Suite, rollouts: int) -> dict[str, Any]:
    """Let TRL generate and score a batch, as it does in training."""
    found.model.train()
    batch: dict[str, Any] = found._generate_and_score_completions([dict(_rows(suite)[0])] * rollouts)
    return batch


SOLVED, WRONG = [LIST, GET, RIGHT], [GET, '{"name": "plums", "amount": 1}']
MISSED, GUESSED = [call("get", '{"key": "kiwis"}'), f"{RIGHT} "], [f" {RIGHT}"]


def test_a_miss_has_no_advantage_and_is_in_no_mean(suite: Suite, tmp_path: Path) -> None:
    found = scripted(suite, tmp_path, [SOLVED, MISSED, WRONG, [*GUESSED]])
    batch = scored(found, suite, 4)
    assert [each[3] for each in found.reward_funcs[0].last] == [1.0, None, 0.0, 1.0]
    # Of 1, 0 and 1: mean 2/3, standard deviation 1/√3.
    expected = torch.tensor([1 / 3, 0, -2 / 3, 1 / 3]) * 3**0.5
    assert torch.allclose(batch["advantages"], expected, atol=1e-3)
    assert batch["advantages"][1] == 0
    assert found._metrics["train"]["rollouts/right"] == [0.5]
    assert found._metrics["train"]["rollouts/missed"] == [0.25]


def test_the_control_gives_the_same_rewards_to_others(suite: Suite, tmp_path: Path) -> None:
    turns = [SOLVED, MISSED, WRONG, GUESSED, [f"  {RIGHT}"], ["no"], ["none"], [f"   {RIGHT}"]]
    plain, control = (scripted(suite, tmp_path, turns, kind=kind) for kind in ("binary", "permuted"))
    for found in (plain, control):
        scored(found, suite, len(turns))
    given, shuffled = ([each[3] for each in found.reward_funcs[0].last] for found in (plain, control))
    assert sorted(map(str, given)) == sorted(map(str, shuffled))
    assert given != shuffled


class Distrusted(TrlEnvironment):
    """What `get` answers is trusted little."""

    def _call(self, attempt: int, name: str, arguments: Any) -> str:
        text = super()._call(attempt, name, arguments)
        made = self._attempts[attempt]
        if name == "get" and made is not None and self._environment is not None:
            made = made.model_copy(update={"trust": 0.4})
            self._attempts[attempt] = self._environment.calls[-1] = made
        return text


def test_what_follows_an_untrusted_answer_is_not_in_the_loss(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.recorded_tools.TrlEnvironment", Distrusted)
    turns = [SOLVED, WRONG, ["no"]]
    learned = []
    for min_trust in (0.0, 0.5):
        found = scripted(suite, tmp_path, turns, kind="tier-aware", min_trust_in_loss=min_trust)
        batch = scored(found, suite, 3)
        assert [each[3] for each in found.reward_funcs[0].last] == [0.4, 0.0, 0.0]
        mask = batch["completion_mask"] * batch["tool_mask"]
        assert batch["num_items_in_batch"] == mask.sum()
        learned.append(
            [
                found._tokenizer.decode(ids[kept.bool()])
                for ids, kept in zip(batch["completion_ids"], mask, strict=True)
            ]
        )
    end = "<|im_end|>"
    assert learned[0] == [end.join([*turn, ""]) for turn in turns]
    assert learned[1] == [f"{LIST}{end}{GET}{end}", f"{GET}{end}", f"no{end}"]


@pytest.mark.parametrize("depth", [90, 300, 3000])
def test_a_model_that_repeats_a_bracket_goes_on(suite: Suite, tmp_path: Path, depth: int) -> None:
    deep = call("get", f'{{"key": {"[" * depth}{"]" * depth}}}')
    found = scripted(suite, tmp_path, [[deep, "no"], SOLVED])
    scored(found, suite, 2)
    (_, completion, _, reward), _ = found.reward_funcs[0].last
    assert reward == (None if depth == 90 else 0.0)
    invalid = found._metrics["train"]["calls/valid"][0]
    # The deepest is read as text, the next one as a call whose arguments are no object.
    assert invalid == pytest.approx({90: 1, 300: 2 / 3, 3000: 1}[depth])
    assert len(completion) == (1 if depth == 3000 else 3)


def test_worlds_are_closed_before_the_next_batch(suite: Suite, tmp_path: Path) -> None:
    found = scripted(suite, tmp_path, [SOLVED, GUESSED, WRONG, ["no"]])
    scored(found, suite, 4)
    first = list(found.environments)
    assert [rollout._environment is not None for rollout in first] == [True] * 4
    found._script, found.num_generations = Script(byte_tokenizer(), [GUESSED, ["no"]], 100), 2
    scored(found, suite, 2)
    assert found.environments == first[:2]
    assert [rollout._environment is not None for rollout in first] == [True, True, False, False]
    # TRL compares each tool with all others: one stands for them.
    assert len(found.tools) == 1


def test_samples_are_shown_once_a_step(suite: Suite, tmp_path: Path) -> None:
    found = scripted(suite, tmp_path, [SOLVED, MISSED])
    scored(found, suite, 2)
    log = SampleLog(tmp_path, suite, found.reward_funcs[0])
    for step in (1, 2, 2):
        log.on_log(found.args, TrainerState(global_step=step), TrainerControl())
    text = (tmp_path / SAMPLES).read_text()
    assert [line.partition(":")[0] for line in text.splitlines() if line.startswith("#")] == [
        *["## Step 1"] * 2,
        *["## Step 2"] * 2,
    ]
