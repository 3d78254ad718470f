"""Conversations as the fine-tuning API of OpenAI reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import Conversation, Function
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use conversations for OpenAI fine-tuning

A line is a conversation: `messages` (calls with ids, their arguments a JSON string), `tools`, and
`parallel_tool_calls`, which is false. Descriptions of tools are cut at 1024 characters, the most that
the API takes.

    client.files.create(file=open("train.jsonl", "rb"), purpose="fine-tune")
"""

LONGEST_DESCRIPTION = 1024


def write(folder: Path, data: Dataset) -> None:
    write_jsonl(folder, data, row)


def row(conversation: Conversation) -> dict[str, Any]:
    return {
        "messages": [*conversation.prompt, *_turns(conversation)],
        "tools": [_tool(function) for function in conversation.functions],
        "parallel_tool_calls": False,
    }


def _turns(conversation: Conversation) -> Iterator[dict[str, Any]]:
    for number, step in enumerate(conversation.steps):
        name = f"call_{number}"
        function = {"name": step.name, "arguments": readable_json(dict(step.arguments))}
        said = {"content": step.text} if step.text else {}
        call = {"id": name, "type": "function", "function": function}
        yield {"role": "assistant", **said, "tool_calls": [call]}
        yield {"role": "tool", "tool_call_id": name, "content": step.result}
    yield {"role": "assistant", "content": conversation.answer}


def _tool(function: Function) -> dict[str, Any]:
    tool, text = function.as_tool(), function.description
    if len(text) > LONGEST_DESCRIPTION:
        tool["function"]["description"] = text[: LONGEST_DESCRIPTION - 1] + "…"
    return tool
