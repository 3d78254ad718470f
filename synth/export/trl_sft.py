"""Conversations as `trl.SFTTrainer` reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import Conversation
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use conversations for TRL's SFTTrainer

A line is a conversation: `messages` (the arguments of a call are an object), `tools` (a JSON string:
schemas of different tools have no common Arrow type, and SFTTrainer reads the string), `task_id`,
`source` (`reference`, or `rollout` of a model). Needs datasets 4.7 or newer, which keeps arguments as
they are:

    from datasets import load_dataset
    data = load_dataset("json", data_files={"train": "train.jsonl"})["train"]
    SFTTrainer(model, train_dataset=data, args=SFTConfig(assistant_only_loss=True))
"""


def write(folder: Path, data: Dataset) -> None:
    write_jsonl(folder, data, row)


def row(conversation: Conversation) -> dict[str, Any]:
    return {
        "messages": [*conversation.prompt, *_turns(conversation)],
        "tools": readable_json([function.as_tool() for function in conversation.functions]),
        "task_id": conversation.task.task_id,
        "source": conversation.source,
    }


def _turns(conversation: Conversation) -> Iterator[dict[str, Any]]:
    for step in conversation.steps:
        call = {"type": "function", "function": {"name": step.name, "arguments": dict(step.arguments)}}
        yield {"role": "assistant", "content": step.text, "tool_calls": [call]}
        yield {"role": "tool", "name": step.name, "content": step.result}
    yield {"role": "assistant", "content": conversation.answer}
