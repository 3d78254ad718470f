"""A task to be solved in a world: what a model is shown, and what its calls are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from recorder.canonical import encodable, readable_json
from recorder.exchange import Json, OtherResult, Record, RpcError, ToolCall, ToolRef, ToolResult
from recorder.explore.outputs import text_of
from replayer.replayer import Replayer
from replayer.session import Answer, Outcome
from synth.export.conversation import SYSTEM, Function, offered, user_text
from synth.task import Task

Message = dict[str, Any]
"""A message as the chat API of OpenAI writes it; the arguments of a call are an object."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call was answered."""

    outcome: Outcome
    tier: str
    trust: float | None = None
    """Probability of being right; `None` where it could not be measured."""
    exchange: int | None = None
    """The recorded exchange that it comes from, if it was recorded."""


class Caller(Protocol):
    """Makes one rollout's calls, in order."""

    def call(self, call: ToolCall) -> Answered | None:
        """Return the answer; `None` for a miss."""


MOST_NESTED = 100
"""Objects or lists within each other in the arguments of a call. A model that repeats a bracket is soon
deeper than what writes its rollouts down can follow."""

TOO_DEEP = "(nested too deeply)"
"""What a policy writes down for arguments that are deeper."""

World = Callable[[Task], AbstractContextManager[Caller]]
"""Opens the world that a task begins in. Each rollout has one of its own."""


class _Replay:
    def __init__(self, replayer: Replayer, group: str) -> None:
        self._session = replayer.session(group)

    def call(self, call: ToolCall) -> Answered | None:
        params = {"name": call.tool.name, "arguments": call.arguments}
        found = self._session.ask(call.tool.server, "tools/call", params)
        if not isinstance(found, Answer):
            return None
        return Answered(found.outcome, found.tier, found.trust, found.exchange and found.exchange.id)


def replayed(replayer: Replayer) -> World:
    """Return worlds that are a recording; nothing is started, and no call leaves this process."""

    @contextmanager
    def opened(task: Task) -> Iterator[Caller]:
        yield _Replay(replayer, task.group)

    return opened


class CallMade(Record):
    """A call of a rollout, and what kind of answer it got."""

    name: str
    """What the model called."""
    tool: ToolRef | None
    """`None`: it was offered no tool of that name."""
    outcome: str
    """`answered`, `error` (the tool's own, or the server's refusal), `invalid` (no call that could be made:
    no such tool, or arguments that are no object or too deep) or `miss`."""
    tier: str | None = None
    trust: float | None = None
    exchange: int | None = None


class Environment:
    """One rollout's world: the prompt, the tools under the names that a model calls them by, and each call.

    What is returned to the model has the words that training gives it, too, where TRL's loop words it.

    Args:
        functions: All that the task offers, and perhaps more.
        caller: Of this rollout alone.
    """

    def __init__(self, task: Task, functions: Mapping[ToolRef, Function], caller: Caller) -> None:
        self.task = task
        self._caller = caller
        self.names = {ref: functions[ref].name for ref in offered(task)}
        """Tool → what a model calls it."""
        self._refs = {name: ref for ref, name in self.names.items()}
        self.tools: list[Json] = tools_of(task, functions)
        """In the form of the chat APIs, in an order that does not tell which are needed."""
        self.calls: list[CallMade] = []
        self.outcomes: list[Outcome | None] = []
        """Of `calls`."""

    @property
    def prompt(self) -> list[Message]:
        return prompt_of(self.task)

    @property
    def missed(self) -> bool:
        return any(call.outcome == "miss" for call in self.calls)

    def call(self, name: str, arguments: Json) -> str:
        """Make a call and return what the model reads of its answer."""
        ref = self._refs.get(name)
        if ref is None:
            there = ", ".join(self._refs)
            return self._invalid(name, None, f"no tool is called {name!r}; there are {there}")
        if not isinstance(arguments, dict):
            # The words of the interpreter, which says this before we could, where TRL makes the call.
            kind = type(arguments).__name__
            return self._invalid(name, ref, f"{name}() argument after ** must be a mapping, not {kind}")
        if is_deep(arguments):
            return self._invalid(name, ref, f"{name}() arguments are nested more than {MOST_NESTED} deep")
        call = ToolCall(tool=ref, arguments=arguments)
        found = self._caller.call(call)
        if found is None:
            self._note(CallMade(name=name, tool=ref, outcome="miss"), None)
            return f"no recorded answer for {ref.server}/{ref.name}({readable_json(arguments):.400})"
        failed = isinstance(found.outcome, RpcError) or (
            isinstance(found.outcome, ToolResult) and found.outcome.is_error
        )
        made = CallMade(
            name=name,
            tool=ref,
            outcome="error" if failed else "answered",
            tier=found.tier,
            trust=found.trust,
            exchange=found.exchange,
        )
        self._note(made, found.outcome)
        return text_of_outcome(found.outcome)

    def _invalid(self, name: str, ref: ToolRef | None, why: str) -> str:
        self._note(CallMade(name=name, tool=ref, outcome="invalid"), None)
        return str({"error": why})

    def _note(self, made: CallMade, outcome: Outcome | None) -> None:
        self.calls.append(made)
        self.outcomes.append(outcome)


def is_deep(value: Json) -> bool:
    """Whether a JSON value has more than `MOST_NESTED` objects or lists within each other."""
    level = [value]
    for _ in range(MOST_NESTED):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, dict | list) for each in level)


def prompt_of(task: Task) -> list[Message]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": encodable(user_text(task))}]


def tools_of(task: Task, functions: Mapping[ToolRef, Function]) -> list[Json]:
    return [functions[ref].as_tool() for ref in offered(task)]


def final_text(messages: Sequence[Message]) -> str | None:
    """Return the text of a final message; `None` where the last one is none, but a call or its answer."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        return None
    content = last.get("content")
    return content if isinstance(content, str) else ""


def text_of_outcome(outcome: Outcome) -> str:
    """Return what a model reads of an answer. No tokenizer takes a lone surrogate: a `?` stands in for it."""
    match outcome:
        case ToolResult(result=result) | OtherResult(result=result):
            return encodable(text_of(result))
        case RpcError():
            return encodable(outcome.message)
