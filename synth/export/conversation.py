"""A task as a conversation of a model with tools, in no format yet."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import Exchange, Json, NoReply, OtherResult, RpcError, ToolRef, ToolResult
from recorder.explore.outputs import text_of
from synth.model import last_object
from synth.task import Task
from synth.world import World

SYSTEM = (
    "Answer the user's question with the tools that you are given. Take facts from what the tools return, not"
    " from memory. Your final message must be the JSON object that the question's schema describes, and"
    " nothing else. In the schema, x-unit is the unit of a number, x-tolerance is how far a number may be off"
    ", and x-order says whether the order of a list matters."
)
"""The system prompt, in every format and in training alike."""


def user_text(task: Task) -> str:
    """Return the user's message: the question, and the schema of its answer."""
    return f"{task.question}\n\nJSON Schema of the answer:\n{readable_json(task.answer_schema)}"


_FENCE = re.compile(r"```[ \t]*(\w*)")


def answer_in(text: str) -> dict[str, Json] | None:
    """Return the answer that a final message gives: the JSON object that it is, or that is in it.

    That is the last fenced block of JSON where there is one, else the last object that is not within another.
    Whatever scores an answer reads it with this. `None`: there is none, or a list stands in its place.
    """
    for candidate in (text, *reversed(_fenced(text))):
        try:
            # Not strict: models leave line ends in strings as they are.
            found = json.loads(candidate, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict | list):
            return found if isinstance(found, dict) else None
    return last_object(text)


def _fenced(text: str) -> list[str]:
    """Return what is in fenced blocks of JSON, or of no language by name, in order."""
    blocks: list[str] = []
    language, inside = "", None
    for line in text.split("\n"):
        if inside is None:
            if fence := _FENCE.fullmatch(line.strip()):
                language, inside = fence[1].lower(), list[str]()
        elif line.strip() == "```":
            if language in ("", "json"):
                blocks.append("\n".join(inside))
            inside = None
        else:
            inside.append(line)
    return blocks


# --- tools --------------------------------------------------------------------------------------------------

LONGEST = 64
"""Characters of a tool's name; what the OpenAI API takes, and the others with it."""

RESERVED = frozenset({"reset", "get_reward"})
"""Methods of an environment of TRL's `environment_factory`: a tool of such a name is swallowed there, as
is one that begins with `_`."""

_LEGAL = re.compile(r"[a-zA-Z0-9-][a-zA-Z0-9_-]{0,63}")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")


def aliases(tools: Iterable[ToolRef]) -> dict[ToolRef, str]:
    """Return the name under which each tool is offered to a model: one name a tool, whatever their order.

    That is its own name where no other tool has it and an API takes it; else `SERVER__NAME`, shortened and
    with `_` for what is not allowed; else that with a number.
    """
    refs = sorted(set(tools))
    shared = Counter(ref.name for ref in refs)
    found = {
        ref: ref.name
        for ref in refs
        if shared[ref.name] == 1 and _LEGAL.fullmatch(ref.name) and ref.name not in RESERVED
    }
    # Names that are kept come first: no made one may take the name of a tool that has it by right.
    taken = set(found.values())
    for ref in refs:
        if ref not in found:
            found[ref] = next(name for name in _made(ref) if name not in taken)
            taken.add(found[ref])
    return {ref: found[ref] for ref in refs}


def _made(ref: ToolRef) -> Iterator[str]:
    name = _ILLEGAL.sub("_", f"{ref.server}__{ref.name}").lstrip("_") or "tool"
    yield name[:LONGEST]
    number = 2
    while True:
        ending = f"_{number}"
        yield name[: LONGEST - len(ending)] + ending
        number += 1


def offered(task: Task) -> list[ToolRef]:
    """Return the tools that a task offers, sorted: their order must not tell which are needed."""
    return sorted({ToolRef(tool.server, tool.name) for tool in [*task.tools, *task.distractors]})


@dataclass(frozen=True, slots=True)
class Function:
    """A tool as a model is offered it."""

    ref: ToolRef
    name: str
    """The alias."""
    description: str
    parameters: dict[str, Any]
    """JSON Schema of an object."""

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "description": self.description, "parameters": self.parameters}

    def as_tool(self) -> dict[str, Any]:
        """Return it in the form of the chat APIs."""
        return {"type": "function", "function": self.as_json()}


def function_of(world: World, ref: ToolRef, name: str) -> Function:
    entry = world.entry(ref)
    description = entry.get("description")
    # An empty schema where the tool was never listed; both keys are there, as some APIs ask for them.
    parameters = {"type": "object", "properties": {}, **world.input_schema(ref)}
    return Function(ref, name, description if isinstance(description, str) else "", parameters)


# --- turns --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """A call with what came of it."""

    name: str
    """The tool's alias."""
    arguments: Mapping[str, Json]
    result: str
    """As a model reads it."""
    text: str = ""
    """What the model wrote before the call."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A task with the tools that it offers and one way to answer it: one call a turn, then the answer."""

    task: Task
    functions: tuple[Function, ...]
    steps: tuple[Step, ...]
    answer: str
    """The final message."""
    source: str = "reference"
    """`reference`, or `rollout` where a model made it."""

    @property
    def prompt(self) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": user_text(self.task)},
        ]


def reference(world: World, task: Task, functions: Mapping[ToolRef, Function]) -> Conversation:
    """Return a task's reference trajectory.

    Args:
        world: A recording that holds the task's calls, whatever it numbers them.
        functions: All that the task offers, and perhaps more.

    Raises:
        WorldError: the recording does not hold them.
        FireflyError: one of them has no answer.
    """
    steps = [
        Step(functions[call.ref].name, call.arguments, result_text(task, world.exchange(call.exchange)))
        for call in world.located(task).calls
    ]
    return Conversation(
        task, tuple(functions[ref] for ref in offered(task)), tuple(steps), readable_json(task.answer)
    )


def result_text(task: Task, exchange: Exchange) -> str:
    match exchange.outcome:
        case ToolResult(result=result) | OtherResult(result=result):
            return text_of(result)
        case RpcError() as refused:
            return refused.message
        case NoReply(reason=reason):
            raise FireflyError(
                f"task {task.task_id} cites exchange {exchange.id}, which has no answer: {reason}"
            )
