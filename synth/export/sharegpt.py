"""Conversations as LLaMA-Factory reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import SYSTEM, Conversation, user_text
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use conversations for LLaMA-Factory (sharegpt)

A line is a conversation: `conversations` (human, then function_call and observation by turns, then gpt),
`system`, `tools` (a JSON string). A function_call is a JSON string of `name` and `arguments`, whose
arguments are an object: LLaMA-Factory encodes them itself. What a model wrote before a call is left out:
this format has no place for it. Copy the entries of `dataset_info.json` into LLaMA-Factory's, or name
this folder as `dataset_dir`:

    llamafactory-cli train … --dataset_dir . --dataset firefly_train
"""


def write(folder: Path, data: Dataset) -> None:
    write_jsonl(folder, data, row)
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    entries = {
        f"firefly_{split}": {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": columns}
        for split in data.tasks
    }
    (folder / "dataset_info.json").write_text(readable_json(entries) + "\n", encoding="utf-8")


def row(conversation: Conversation) -> dict[str, Any]:
    return {
        "conversations": [{"from": who, "value": value} for who, value in _turns(conversation)],
        "system": SYSTEM,
        "tools": readable_json([function.as_json() for function in conversation.functions]),
    }


def _turns(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Yield the turns; human and observation are first, third, …, as the reader demands."""
    yield "human", user_text(conversation.task)
    for step in conversation.steps:
        yield "function_call", readable_json({"name": step.name, "arguments": dict(step.arguments)})
        yield "observation", step.result
    yield "gpt", conversation.answer
