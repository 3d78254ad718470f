"""Tasks as NeMo Gym reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import Conversation, Function
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use tasks for NeMo Gym

A line is a task: `responses_create_params` (`input`, `tools`, `parallel_tool_calls`) and
`verifier_metadata` for the `verify` of a resources server: `task_id`, `answer`, `answer_schema`,
`aliases` (tool name → [server, name]), `reference_calls`, `servers`, `world`, `group` and, where it was
given, `replay_url`: the MCP server to which a resources server passes the calls; {server} in it stands
for a server's name.

    ng_collect_rollouts +agent_name=AGENT +input_jsonl_fpath=train.jsonl +output_jsonl_fpath=out.jsonl
    # reward: synth.answers.is_right(answer_schema, answer, answer_in(the text of the last output message)),
    # with answer_in of synth.export.conversation
"""


def write(folder: Path, data: Dataset) -> None:
    def row(conversation: Conversation) -> dict[str, Any]:
        task = conversation.task
        calls = [
            {"name": step.name, "arguments": readable_json(dict(step.arguments))}
            for step in conversation.steps
        ]
        return {
            "responses_create_params": {
                "input": conversation.prompt,
                "tools": [_tool(function) for function in conversation.functions],
                "parallel_tool_calls": False,
            },
            "verifier_metadata": {
                "task_id": task.task_id,
                "answer": task.answer,
                "answer_schema": task.answer_schema,
                "aliases": {function.name: list(function.ref) for function in conversation.functions},
                "reference_calls": calls,
                "servers": task.servers,
                "world": task.world,
                "group": task.group,
                **({"replay_url": data.replay_url} if data.replay_url is not None else {}),
            },
        }

    write_jsonl(folder, data, row)


def _tool(function: Function) -> dict[str, Any]:
    # Strict schemas have all properties required; those of MCP servers do not.
    return {"type": "function", **function.as_json(), "strict": False}
