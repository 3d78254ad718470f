"""Prompts as verl reads them."""

from __future__ import annotations

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
of this task, and `tools_kwargs` has for each tool the `create_kwargs` of its `BaseTool`: `server`,
`name`, `task_id`, `group` and, where it was given, `replay_url`, the MCP server that the tool calls.
`tools.json` holds the schemas: each wants an entry in the tool configuration (`tool_config_path`) that
names your `BaseTool`. Raise verl's `max_tool_response_length` (256 characters).

    data.train_files=train.parquet data.val_files=test.parquet data.return_raw_chat=True
    # reward: synth.answers.is_right, with ground_truth and extra_info["answer_schema"] read as JSON
"""

ROWS_AT_ONCE = 1000


def write(folder: Path, data: Dataset) -> None:
    """Write a file a split, and the schemas of the tools.

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
    tools = [
        {"server": function.ref.server, "name": function.ref.name, "tool_schema": function.as_tool()}
        for function in data.functions.values()
    ]
    (folder / "tools.json").write_text(readable_json(tools) + "\n", encoding="utf-8")


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
