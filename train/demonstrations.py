"""What SFT learns from: conversations with calls, each a row of TRL's SFTTrainer.

A row has `messages`, `tools` (a JSON text), `task_id` (empty where there is no task) and `source`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import Exchange, NoReply, ToolRef
from recorder.store import Store
from replayer.replayer import Replayer, ensure_learned
from synth.export import trl_sft
from synth.export.conversation import Function, aliases, function_of, reference
from synth.export.rollouts import Rollout
from synth.world import World
from train.environment import Message, prompt_of, text_of_outcome, tools_of
from train.evaluate import ROLLOUTS
from train.suite import Suite

Row = dict[str, Any]

EXPLORING = (
    "Work with the tools that you are given. Make calls that tell something, and use in later calls what"
    " earlier ones returned."
)
"""What stands in the user's place before a session of an explorer, which nobody asked anything."""

MOST_CALLS = 12
"""Of a conversation that an explorer's walk is made into: as many as a rollout has rounds."""

MOST_TOOLS = 40
"""Of the servers of an explorer's session, that are offered besides those it called."""


def references(suite: Suite) -> Iterator[Row]:
    """Yield each task's reference trajectory: one call a turn, each right, then the answer."""
    for task in suite.tasks:
        yield trl_sft.row(reference(suite.world, task, suite.functions))


def from_rollouts(suite: Suite, path: Path, *, only_right: bool) -> Iterator[Row]:
    """Yield rollouts of the suite's tasks as they went, in the order of the file.

    Rollouts of other tasks are left out, and those that have no message of the model, or a call whose
    arguments are no object.

    Args:
        path: As `firefly eval` writes it, or the folder that holds it. A last line that a killed run wrote
            half is left out.
        only_right: Only those of reward 1.

    Raises:
        FireflyError: there are none, or a line is no rollout.
    """
    path = path / ROLLOUTS if path.is_dir() else path
    if not path.is_file():
        raise FireflyError(f"{path} is not there: it should be rollouts as firefly eval writes them")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rollout = Rollout.model_validate(json.loads(line))
            except (ValidationError, ValueError, RecursionError) as error:
                if not line.endswith("\n"):
                    break
                raise FireflyError(f"{path}, line {number}, is no rollout: {error!s:.100}") from error
            task = suite.by_id.get(rollout.task_id)
            if task is None or (only_right and rollout.reward != 1):
                continue
            messages = _own(rollout.messages)
            if messages:
                yield _row(
                    [*prompt_of(task), *messages], tools_of(task, suite.functions), task.task_id, "rollout"
                )


def from_explorer(path: Path) -> Iterator[Row]:
    """Yield the walks of an explorer as conversations: its calls with what they returned, failures included.

    Sessions of one run belong together, as a walk speaks to several servers. A long walk is several
    conversations, each going on where the one before it ended: most of it would be cut off otherwise.

    Raises:
        FireflyError: it is no recording.
    """
    store = Store(path)
    world = World(store, Replayer(store, ensure_learned(store)))
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for session in store.sessions():
        runs[session.run or session.id].append(session.id)
    for sessions in runs.values():
        made = sorted(
            (
                exchange
                for session in sessions
                for exchange in store.exchanges(session_id=session, method="tools/call")
                if exchange.call is not None and not isinstance(exchange.outcome, NoReply)
            ),
            key=lambda exchange: exchange.id,
        )
        for start in range(0, len(made), MOST_CALLS):
            yield _walk(world, made[start : start + MOST_CALLS])


def is_recording(path: Path) -> bool:
    """Whether a file is a recording, and not rollouts; a folder is none.

    Raises:
        FireflyError: it cannot be read.
    """
    if path.is_dir():
        return False
    try:
        with path.open("rb") as file:
            return file.read(15) == b"SQLite format 3"
    except OSError as error:
        raise FireflyError(f"cannot read {path}: {error.strerror}") from error


def _walk(world: World, made: Sequence[Exchange]) -> Row:
    called = {exchange.call.tool for exchange in made if exchange.call is not None}
    servers = {ref.server for ref in called}
    others = sorted(ref for ref in world.tools if ref.server in servers and ref not in called)
    names = aliases([*called, *others[:MOST_TOOLS]])
    functions: dict[ToolRef, Function] = {ref: function_of(world, ref, name) for ref, name in names.items()}
    messages: list[Message] = [{"role": "user", "content": EXPLORING}]
    for exchange in made:
        assert exchange.call is not None
        assert not isinstance(exchange.outcome, NoReply)
        name = names[exchange.call.tool]
        function = {"name": name, "arguments": exchange.call.arguments}
        messages.append(
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
        )
        messages.append({"role": "tool", "name": name, "content": text_of_outcome(exchange.outcome)})
    return _row(messages, [function.as_tool() for function in functions.values()], "", "explorer")


def _own(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Return what follows the prompt, in the form that chat templates take; empty where they cannot."""
    found: list[Message] = []
    for message in messages:
        role = message.get("role")
        if role in ("system", "user"):
            continue
        kept: Message = {"role": role, "content": _text(message.get("content"))}
        if role == "tool":
            kept["name"] = message.get("name", "")
        if calls := message.get("tool_calls"):
            functions = [_function(call) for call in calls]
            if None in functions:
                return []
            kept["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        found.append(kept)
    return found


def _function(call: Any) -> dict[str, Any] | None:
    """Return what a call calls; `None` where its arguments are no object, nor the JSON text of one."""
    match call:
        case {"function": {"name": str(name), "arguments": arguments}}:
            if isinstance(arguments, str):
                try:
                    arguments = json.loads(arguments or "{}")
                except (ValueError, RecursionError):
                    return None
            return {"name": name, "arguments": arguments} if isinstance(arguments, dict) else None
    return None


def _text(content: Any) -> str:
    """Return the text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _row(messages: Sequence[Message], tools: Sequence[Any], task_id: str, source: str) -> Row:
    return {
        "messages": list(messages),
        "tools": readable_json(list(tools)),
        "task_id": task_id,
        "source": source,
    }
