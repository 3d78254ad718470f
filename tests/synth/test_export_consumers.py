"""What `firefly export` writes, read by the libraries that it is for; each test needs its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from synth.answers import is_right
from synth.export.dataset import Dataset, export
from synth.task import Task
from synth.world import World
from tests.synth.export_sample import CALLS, record, tasks_of

TEMPLATE = (
    "{{ tools | tojson }}"
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content }}{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
    "<end>{% endgeneration %}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
"""A chat template that prints a call's arguments as JSON, as those of Qwen do."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return record(tmp_path / "world.db")


@pytest.fixture
def tasks(world: World) -> list[Task]:
    return tasks_of(world)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "WANDB_MODE": "offline",
    }.items():
        monkeypatch.setenv(name, value)


def load(path: Path, kind: str = "json") -> Any:
    datasets = pytest.importorskip("datasets", minversion="4.7")
    return datasets.load_dataset(
        kind, data_files={"train": str(path)}, cache_dir=str(path.parent.parent / "cache")
    )["train"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def tiny(text: list[str]) -> tuple[Any, Any]:
    """A model of two layers with random weights, and a tokenizer of single characters."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = ["<pad>", "<eos>", "<unk>", *sorted(set("".join(text) + TEMPLATE))]
    words = {word: number for number, word in enumerate(vocabulary)}
    model = tokenizers.models.WordLevel(words, unk_token="<unk>")
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    raw.decoder = tokenizers.decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    config = transformers.Qwen2Config(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8192,
        pad_token_id=0,
        eos_token_id=1,
    )
    return transformers.Qwen2ForCausalLM(config), tokenizer


@pytest.mark.parametrize("format", ["trl-sft", "trl-grpo", "sharegpt", "openai", "nemo-gym"])
def test_datasets_loads_every_line_as_it_was_written(
    format: str, world: World, tasks: list[Task], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(world, tasks, format, out)
    assert list(load(out / "train.jsonl")) == rows(out / "train.jsonl")


def test_datasets_keeps_arguments_where_other_ones_come_much_later(
    world: World, tasks: list[Task], tmp_path: Path
) -> None:
    """It infers types from the first 10 MB."""
    lamp, town, chair = (task.model_copy(update={"split": "train"}) for task in tasks)
    long = chair.model_copy(update={"question": "What? " * 20_000})
    export(world, [*([long] * 100), town, lamp], "trl-sft", tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").stat().st_size > 11_000_000
    assert list(load(tmp_path / "out" / "train.jsonl"))[-2:] == rows(tmp_path / "out" / "train.jsonl")[-2:]


def test_trl_trains_on_what_the_assistant_says(world: World, tasks: list[Task], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    export(world, tasks, "trl-sft", tmp_path / "out")
    data = load(tmp_path / "out" / "train.jsonl")
    model, tokenizer = tiny([(tmp_path / "out" / "train.jsonl").read_text()])
    trainer = trl.SFTTrainer(
        model,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "model"),
            assistant_only_loss=True,
            max_length=None,
            max_steps=1,
            per_device_train_batch_size=2,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    (lamp, _) = trainer.train_dataset
    whole = tokenizer.decode(lamp["input_ids"])
    assert whole.startswith(json.dumps(json.loads(data[0]["tools"])))
    learnt = [label for label in lamp["labels"] if label != -100]
    said = tokenizer.decode(learnt)
    names = ["find", "shop__read", "stock__read"]
    calls = [
        json.dumps({"name": name, "arguments": arguments}) + "<end>"
        for name, (_, arguments, _) in zip(names, CALLS["lamp"], strict=True)
    ]
    assert said == "".join(calls) + '{"price": 12.5, "items": 3}<end>'
    assert trainer.train().training_loss > 0


def test_trl_passes_the_columns_to_rewards(world: World, tasks: list[Task], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    export(world, tasks, "trl-grpo", tmp_path / "out", replay_url="http://h/mcp")
    model, tokenizer = tiny([(tmp_path / "out" / "train.jsonl").read_text()])
    seen: dict[str, tuple[str, dict[str, Any]]] = {}

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        for number, task_id in enumerate(columns["task_id"]):
            seen[task_id] = (
                columns["replay_url"][number],
                {name: json.loads(columns[name][number]) for name in ("answer", "answer_schema", "aliases")},
            )
        return [float(len(completion[-1]["content"])) for completion in completions]

    trainer = trl.GRPOTrainer(
        model,
        reward_funcs=reward,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "model"),
            num_generations=2,
            per_device_train_batch_size=4,
            max_completion_length=4,
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
        ),
        train_dataset=load(tmp_path / "out" / "train.jsonl"),
        processing_class=tokenizer,
    )
    trainer.train()
    assert {task_id: values["aliases"] for task_id, (_, values) in seen.items()} == {
        "task-lamp": {
            "find": ["shop", "find"],
            "shop__read": ["shop", "read"],
            "stock__read": ["stock", "read"],
            "stock__reset": ["stock", "reset"],
        },
        "task-chair": {"shop__read": ["shop", "read"]},
    }
    for url, values in seen.values():
        assert url == "http://h/mcp"
        assert is_right(values["answer_schema"], values["answer"], values["answer"])


@pytest.mark.parametrize("replay_url", [None, "http://h/{server}/mcp"])
def test_verl_rows_have_its_fields(
    replay_url: str | None, world: World, tasks: list[Task], tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    export(world, tasks, "verl", out, replay_url=replay_url)
    (town,) = parquet.read_table(out / "test.parquet").to_pylist()
    names = {
        "find": ("shop", "find"),
        "shop__read": ("shop", "read"),
        "stock__read": ("stock", "read"),
        "stock__reset": ("stock", "reset"),
    }
    assert town == {
        "data_source": "firefly",
        "agent_name": "tool_agent",
        "prompt": town["prompt"],
        "ability": "tool_use",
        "reward_model": {"style": "rule", "ground_truth": '{"town": "Zürich"}'},
        "extra_info": {
            "split": "test",
            "index": 0,
            "task_id": "task-town",
            "answer_schema": json.dumps(tasks[1].answer_schema),
            "need_tools_kwargs": True,
            "tools_kwargs": {
                alias: {
                    "create_kwargs": {
                        "server": server,
                        "name": name,
                        "task_id": "task-town",
                        "group": "g",
                        **({"replay_url": f"http://h/{server}/mcp"} if replay_url else {}),
                    }
                }
                for alias, (server, name) in names.items()
            },
            "tool_selection": ["shop__read", "stock__read"],
        },
    }
    assert [message["role"] for message in town["prompt"]] == ["system", "user"]
    config = yaml.safe_load((out / "tool_config.yaml").read_text(encoding="utf-8"))
    assert config["recording"] == {"db": str(tmp_path / "world.db")}
    schemas = [json.loads(tool["config"].pop("tool_schema")) for tool in config["tools"]]
    assert schemas == [function.as_tool() for function in Dataset(world, tasks).functions.values()]
    assert {schema["function"]["name"] for schema in schemas} == set(names)
    assert config["tools"] == [
        {
            "class_name": "train.verl_tool.FireflyReplayTool",
            "config": {"type": "native", "db": "${recording.db}"},
        }
    ] * len(names)


def test_verl_files_are_loaded_and_put_together_as_verl_does(
    world: World, tasks: list[Task], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets")
    export(world, tasks, "verl", tmp_path / "out")
    files = [load(tmp_path / "out" / f"{split}.parquet", "parquet") for split in ("train", "test")]
    together = datasets.concatenate_datasets(files)
    assert [row["extra_info"]["task_id"] for row in together] == ["task-lamp", "task-chair", "task-town"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    export(world, tasks, "verl", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_types_of_the_openai_client_accept_it(world: World, tasks: list[Task], tmp_path: Path) -> None:
    pytest.importorskip("openai")
    from openai.types.chat import completion_create_params as chat
    from openai.types.responses import response_create_params as responses
    from pydantic import TypeAdapter

    export(world, tasks, "openai", tmp_path / "chat")
    export(world, tasks, "nemo-gym", tmp_path / "gym")
    for row in rows(tmp_path / "chat" / "train.jsonl"):
        TypeAdapter(chat.CompletionCreateParamsNonStreaming).validate_python({"model": "m", **row})
    for row in rows(tmp_path / "gym" / "train.jsonl"):
        TypeAdapter(responses.ResponseCreateParamsNonStreaming).validate_python(
            row["responses_create_params"]
        )


INSPECT = """
import json, sys
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

sys.path.insert(0, {out!r})
import task

answer = ModelOutput.from_content("mockllm/model", json.dumps({answer!r}))
call = ModelOutput.for_tool_call("mockllm/model", "stock__read", {{"sku": 8}})
for output in (call, answer):
    output.usage = ModelUsage()  # else it is counted by an encoding that is fetched from the network
model = get_model("mockllm/model", custom_outputs=[call, answer])
(log,) = eval(task.firefly(split="test"), model=model, log_dir={logs!r}, display="none")
assert log.status == "success", log.error
(sample,) = log.samples
print(json.dumps({{
    "score": sample.scores["answer_is_right"].value,
    "roles": [message.role for message in sample.messages],
    "result": next(message.text for message in sample.messages if message.role == "tool"),
}}))
"""


@pytest.mark.parametrize(("town", "score"), [("zürich", "C"), ("Bern", "I")])
def test_inspect_asks_a_replay_and_scores_the_answer(
    town: str, score: str, world: World, tasks: list[Task], tmp_path: Path
) -> None:
    pytest.importorskip("inspect_ai", minversion="0.3.150")
    out = tmp_path / "out"
    export(world, tasks, "inspect", out)
    program = INSPECT.format(out=str(out), answer={"town": town}, logs=str(tmp_path / "logs"))
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == {
        "score": score,
        "roles": ["system", "user", "assistant", "tool", "assistant"],
        "result": '{"town": "Zürich"}',
    }
