"""Prompts as `trl.GRPOTrainer` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import Conversation
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use prompts for TRL's GRPOTrainer

A line is a task: `prompt` (system and user message) and columns that reach the reward functions and an
environment's `reset`: `task_id`; as JSON strings `answer`, `answer_schema`, `tools` and `aliases` (tool
name → [server, name]); `servers`, `world` (the recorded sessions) and `group` (the start state, for a
replay). `replay_url`, where it was given: the MCP server that answers calls; {server} in it
stands for a server's name. GRPOTrainer takes tools from `tools=` or `environment_factory=`, not from the
`tools` column.

    data = load_dataset("json", data_files={"train": "train.jsonl"})["train"]
    # reward: synth.answers.is_right(answer_schema, answer, answer_in(completion[-1]["content"])), the first
    # two read as JSON, with answer_in of synth.export.conversation
"""


def write(folder: Path, data: Dataset) -> None:
    def row(conversation: Conversation) -> dict[str, Any]:
        task, functions = conversation.task, conversation.functions
        return {
            "prompt": conversation.prompt,
            "task_id": task.task_id,
            "answer": readable_json(task.answer),
            "answer_schema": readable_json(task.answer_schema),
            "tools": readable_json([function.as_tool() for function in functions]),
            "aliases": readable_json({function.name: list(function.ref) for function in functions}),
            "servers": task.servers,
            "world": task.world,
            "group": task.group,
            **({"replay_url": data.replay_url} if data.replay_url is not None else {}),
        }

    write_jsonl(folder, data, row)
