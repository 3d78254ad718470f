"""Prompts as verl reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from synth.export.conversation import Conversation
from synth.export.dataset import Dataset

README = """
# Tool-use prompts for verl

A row of the parquet files is a task: `data_source`, `agent_name`, `prompt`, `ability`, `reward_model`
(`ground_truth` is the answer as a JSON string) and `extra_info`, where `tool_selection` names the tools
of this task, and `tools_kwargs` has for each tool its `create_kwargs`. `tool_config.yaml` offers the
tools, answered in verl's workers by the recording: nothing else runs. Where the recording lies stands in
its first lines; the file beside it, RECORDING.replay.db, must be there, too.

For verl 0.9. Every machine that runs workers needs `pip install firefly-proxy` beside verl.

    python -m verl.trainer.main_ppo algorithm.adv_estimator=grpo \\
      data.train_files=$PWD/train.parquet data.val_files=$PWD/test.parquet \\
      data.max_prompt_length=4096 data.max_response_length=8192 data.truncation=error \\
      actor_rollout_ref.model.path=Qwen/Qwen3-4B-Instruct-2507 \\
      actor_rollout_ref.rollout.name=vllm actor_rollout_ref.rollout.n=8 \\
      actor_rollout_ref.rollout.multi_turn.enable=True \\
      actor_rollout_ref.rollout.multi_turn.format=hermes \\
      actor_rollout_ref.rollout.multi_turn.tool_config_path=$PWD/tool_config.yaml \\
      actor_rollout_ref.rollout.multi_turn.max_assistant_turns=13 \\
      actor_rollout_ref.rollout.multi_turn.max_parallel_calls=16 \\
      actor_rollout_ref.rollout.multi_turn.max_tool_response_length=100000 \\
      reward.reward_manager.name=naive \\
      reward.custom_reward_function.path=pkg://train.verl_tool \\
      reward.custom_reward_function.name=compute_score

- `max_tool_response_length` counts characters. At verl's 256 most results come without their middle; 16
  calls of one message instead of 1, as else all after the first are dropped without a word.
- `format=hermes` and the reward go with models that write calls as `<tool_call>` and read results as
  `<tool_response>`: Qwen 2.5, Qwen 3, Hermes.
- The reward is 1 for an answer that is right in every field, else 0. A rollout that met a miss gets 0, as
  verl cannot leave one out of its group; watch `missed` in the metrics, or add
  `+reward.custom_reward_function.reward_kwargs.miss=keep` to score it by its answer.
  `+reward.custom_reward_function.reward_kwargs.reward=tier-aware` weighs by the trust in the answers.
- Leave `data.filter_overlong_prompts` off where the data set has many tools: verl counts all of them in
  every prompt there, though a prompt shows those of its task alone.
- With a tool of your own, `create_kwargs` has what it needs: `server`, `name`, `task_id`, `group` and,
  where it was given, `replay_url`, the MCP server of a replay.
"""

ROWS_AT_ONCE = 1000

DOLLAR = r"\u0024"


def write(folder: Path, data: Dataset) -> None:
    """Write a file a split, and the tools.

    Raises:
        FireflyError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise FireflyError("the format verl needs pyarrow: pip install 'firefly-proxy[export]'") from error
    schema = _schema(pyarrow, data)
    for split in data.tasks:
        with pyarrow.parquet.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
            rows: list[dict[str, Any]] = []
            for index, conversation in enumerate(data.conversations(split)):
                rows.append(_row(data, conversation, index))
                if len(rows) == ROWS_AT_ONCE:
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema))
                    rows = []
            if rows:
                writer.write_table(pyarrow.Table.from_pylist(rows, schema))
    (folder / "tool_config.yaml").write_text(_tool_config(data), encoding="utf-8")


def _tool_config(data: Dataset) -> str:
    """Return the YAML that verl makes its tools from, by OmegaConf.

    A tool's schema is a JSON text in `config`, not verl's own `tool_schema`: verl cuts off what is nested
    there, and refuses a property without a type.
    """
    lines = ["recording:", f"  db: {_quoted(str(data.world.store.path.resolve()))}", "tools:"]
    for function in data.functions.values():
        lines += [
            "  - class_name: train.verl_tool.FireflyReplayTool",
            "    config:",
            "      type: native",
            "      db: ${recording.db}",
            # A `$` would be the start of what OmegaConf fills in; within JSON it can be written otherwise.
            f"      tool_schema: {_quoted(json.dumps(function.as_tool()).replace('$', DOLLAR))}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a text as YAML writes it between single quotes."""
    return "'" + text.replace("'", "''") + "'"


def _schema(pyarrow: Any, data: Dataset) -> Any:
    """Return the Arrow schema: the same for every split, as verl puts files together."""
    text = pyarrow.string()
    created = {"server": text, "name": text, "task_id": text, "group": text}
    if data.replay_url is not None:
        created["replay_url"] = text
    # Parquet has no form for an empty object, so `execute_kwargs` and the others are not there.
    kwargs = pyarrow.struct({"create_kwargs": pyarrow.struct(created)})
    return pyarrow.schema(
        {
            "data_source": text,
            "agent_name": text,
            "prompt": pyarrow.list_(pyarrow.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pyarrow.struct({"style": text, "ground_truth": text}),
            "extra_info": pyarrow.struct(
                {
                    "split": text,
                    "index": pyarrow.int64(),
                    "task_id": text,
                    "answer_schema": text,
                    "need_tools_kwargs": pyarrow.bool_(),
                    "tools_kwargs": pyarrow.struct(
                        {function.name: kwargs for function in data.functions.values()}
                    ),
                    "tool_selection": pyarrow.list_(text),
                }
            ),
        }
    )


def _row(data: Dataset, conversation: Conversation, index: int) -> dict[str, Any]:
    task = conversation.task
    return {
        "data_source": "firefly",
        "agent_name": "tool_agent",
        "prompt": conversation.prompt,
        "ability": "tool_use",
        "reward_model": {"style": "rule", "ground_truth": readable_json(task.answer)},
        "extra_info": {
            "split": task.split,
            "index": index,
            "task_id": task.task_id,
            "answer_schema": readable_json(task.answer_schema),
            "need_tools_kwargs": True,
            # Of all tools, as a column has one type, and a null where a tool is not offered would break verl.
            "tools_kwargs": {
                function.name: {
                    "create_kwargs": {
                        "server": function.ref.server,
                        "name": function.ref.name,
                        "task_id": task.task_id,
                        "group": task.group,
                        **({"replay_url": at} if (at := data.at(function.ref.server)) is not None else {}),
                    }
                }
                for function in data.functions.values()
            },
            "tool_selection": [function.name for function in conversation.functions],
        },
    }
