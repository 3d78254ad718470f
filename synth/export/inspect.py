"""Samples as Inspect AI reads them, with the task that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from synth.export.conversation import Conversation
from synth.export.dataset import Dataset, write_jsonl

README = """
# Tool-use tasks for Inspect AI

A line is a sample: `input` (system and user message), `target` (the answer, a JSON string), `id`,
`metadata` (`answer_schema`, the `tools` with their servers, `group`). `task.py` loads them, connects
each sample to the replayed servers that it needs, and scores the final message. Needs inspect_ai and
firefly-proxy in one environment:

    inspect eval task.py --model YOUR/MODEL -T split=test

`-T db=FILE` names the recording where it has moved. With a `replay_url` the tools are those of the MCP
server there ({server} in it stands for a server's name), else `firefly-proxy replay` is started for each
sample and server.
"""


def write(folder: Path, data: Dataset) -> None:
    write_jsonl(folder, data, row)
    default = "test" if "test" in data.tasks else next(iter(data.tasks))
    settings = (
        f"DB = {str(data.world.store.path.resolve())!r}\n"
        f"REPLAY_URL: str | None = {data.replay_url!r}\n"
        f"SPLIT = {default!r}\n"
    )
    (folder / "task.py").write_text(TASK.replace("SETTINGS\n", settings), encoding="utf-8")


def row(conversation: Conversation) -> dict[str, Any]:
    task = conversation.task
    return {
        "input": conversation.prompt,
        "target": readable_json(task.answer),
        "id": task.task_id,
        "metadata": {
            "answer_schema": task.answer_schema,
            "tools": [
                {"server": function.ref.server, "name": function.ref.name, "alias": function.name}
                for function in conversation.functions
            ],
            "group": task.group,
        },
    }


TASK = '''"""Tool-use tasks over recorded MCP servers: inspect eval task.py --model MODEL -T split=test"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Target, accuracy, scorer, stderr
from inspect_ai.solver import Generate, TaskState, solver
from inspect_ai.tool import ToolDef, mcp_connection, mcp_server_http, mcp_server_stdio, mcp_tools, tool_with
from synth.answers import is_right
from synth.export.conversation import answer_in

SETTINGS
MOST_MESSAGES = 60


@task
def firefly(split: str = SPLIT, db: str = DB, replay_url: str | None = REPLAY_URL) -> Task:
    return Task(
        dataset=json_dataset(str(Path(__file__).resolve().parent / f"{split}.jsonl")),
        solver=with_recorded_tools(db, replay_url),
        scorer=answer_is_right(),
        message_limit=MOST_MESSAGES,
    )


def replayed(server: str, group: str, db: str, replay_url: str | None):
    if replay_url is not None:
        return mcp_server_http(name=server, url=replay_url.replace("{server}", server))
    command = ["-m", "firefly_proxy.cli", "replay", "--db", db, "--server", server, "--group", group]
    return mcp_server_stdio(name=server, command=sys.executable, args=command)


@solver
def with_recorded_tools(db: str, replay_url: str | None):
    """Offer a sample its own tools, under the names that its data set has for them."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        aliases = defaultdict(dict)
        for tool in state.metadata["tools"]:
            aliases[tool["server"]][tool["name"]] = tool["alias"]
        sources = {
            server: mcp_tools(replayed(server, state.metadata["group"], db, replay_url)) for server in aliases
        }
        async with mcp_connection(list(sources.values())):
            for server, source in sources.items():
                for tool in await source.tools():
                    listed = ToolDef(tool)
                    if alias := aliases[server].get(listed.name):
                        # A new name without the description would take the description away.
                        state.tools.append(tool_with(tool, name=alias, description=listed.description))
            return await generate(state, tool_calls="loop")

    return solve


@scorer(metrics=[accuracy(), stderr()])
def answer_is_right():
    async def score(state: TaskState, target: Target) -> Score:
        given = answer_in(state.output.completion)
        right = is_right(state.metadata["answer_schema"], json.loads(target.text), given)
        return Score(value=CORRECT if right else INCORRECT, answer=state.output.completion)

    return score
'''
