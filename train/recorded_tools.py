"""Recorded tools as TRL's GRPOTrainer takes them: one environment class for each set of tools.

TRL finds tools as methods of an environment, and describes them by their signatures. Ours are recorded: the
trainer is given their schemas as they were listed, and each call goes to the rollout's own world. What it
reaches into (`_env_tools`, `_sync_tool_dicts`, `_tool_call_loop`) is TRL 1.16's own and tested against it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from trl import GRPOTrainer

from recorder.canonical import content_hash
from recorder.exchange import Json
from synth.export.conversation import Function, offered
from synth.task import Task
from train.environment import CallMade, Environment, Message, World, tools_of
from train.suite import Suite


def tool_set(task: Task) -> str:
    """Return what the tools of a task are known by; tasks that offer the same tools share it."""
    return content_hash([list(ref) for ref in offered(task)])[:16]


class TrlEnvironment:
    """What a rollout of TRL's plays in: reset with a task, then asked by name.

    Subclasses have a method for each tool, as TRL looks for such; calls do not pass through them. So nothing
    here but `reset` may have a name that a tool could have.
    """

    _suite: Suite
    _world: World

    def __init__(self) -> None:
        self._opened = ExitStack()
        self._environment: Environment | None = None
        self._attempts: list[CallMade | None] = []
        """A call each, in order; `None` where it never reached the world, as its arguments were no object."""
        self._failure: Exception | None = None

    def reset(self, task_id: str, **_: Any) -> None:
        self._opened.close()
        task = self._suite.by_id[task_id]
        caller = self._opened.enter_context(self._world(task))
        self._environment = Environment(task, self._suite.functions, caller)
        self._attempts, self._failure = [], None

    def _call(self, attempt: int, name: str, arguments: Mapping[str, Json]) -> str:
        environment = environment_of(self)
        try:
            text = environment.call(name, dict(arguments))
        except Exception as error:
            # TRL would tell the model of it and go on; it is our own bug, and stops training.
            self._failure = error
            raise
        self._attempts[attempt] = environment.calls[-1]
        return text


def environment_of(rollout: TrlEnvironment) -> Environment:
    """Return the environment of the task that a rollout was last reset with."""
    assert rollout._environment is not None
    return rollout._environment


class _ToolCall:
    """A tool, as TRL calls it: with the arguments as keywords."""

    def __init__(self, rollout: TrlEnvironment, attempt: int, name: str) -> None:
        self._rollout, self._attempt, self._name = rollout, attempt, name

    def __call__(self, /, **arguments: Json) -> str:
        return self._rollout._call(self._attempt, self._name, arguments)

    def __str__(self) -> str:
        # What the interpreter calls it where the arguments are no object.
        return f"{self._name}()"


class _Tools(dict[str, Any]):
    """To TRL every name is a tool: the environment knows what to say of one that is none."""

    def __init__(self, rollout: TrlEnvironment) -> None:
        super().__init__()
        self._rollout = rollout

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> _ToolCall:
        self._rollout._attempts.append(None)
        return _ToolCall(self._rollout, len(self._rollout._attempts) - 1, name)


def factories(suite: Suite, world: World) -> dict[str, Callable[[], TrlEnvironment]]:
    """Return an environment class for each set of tools that a task offers."""
    found: dict[str, Callable[[], TrlEnvironment]] = {}
    for task in suite.tasks:
        name = tool_set(task)
        if name not in found:
            methods = {suite.functions[ref].name: _method(suite.functions[ref]) for ref in offered(task)}
            found[name] = type(
                "Recorded", (TrlEnvironment,), {**methods, "_suite": suite, "_world": staticmethod(world)}
            )
    return found


def _method(function: Function) -> Callable[..., str]:
    def tool(self: TrlEnvironment, **arguments: Json) -> str:
        raise NotImplementedError("calls go to the environment")

    tool.__name__, tool.__doc__ = function.name, function.description
    return tool


class RecordedToolsTrainer(GRPOTrainer):  # type: ignore[misc, unused-ignore]
    """GRPOTrainer whose tools are recorded ones.

    Args:
        min_trust_in_loss: What the model writes after an answer of less trust is left out of the loss. (The
            answers themselves always are.) 0 keeps all.
        arguments: As for GRPOTrainer.
    """

    def __init__(
        self, *, suite: Suite, world: World, min_trust_in_loss: float = 0.0, **arguments: Any
    ) -> None:
        super().__init__(environment_factory=factories(suite, world), **arguments)
        self._min_trust_in_loss = min_trust_in_loss
        for task in suite.tasks:
            self._env_tools[tool_set(task)] = tools_of(task, suite.functions)
        logging.getLogger(GRPOTrainer.__module__).addFilter(_is_news)

    def _tool_call_loop(self, *arguments: Any, **named: Any) -> Any:
        self._sync_tool_dicts = [_Tools(rollout) for rollout in self.environments]
        mask, completions, *rest = super()._tool_call_loop(*arguments, **named)
        for rollout in self.environments:
            if rollout._failure is not None:
                raise rollout._failure
        if self._min_trust_in_loss:
            for number, rollout in enumerate(self.environments):
                round_ = first_untrusted(completions[number], rollout._attempts, self._min_trust_in_loss)
                if round_ is not None:
                    mask[number] = masked_after(mask[number], round_)
        return (mask, completions, *rest)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write nothing: the run's own card says more, and stands in the same place."""


def _is_news(record: logging.LogRecord) -> bool:
    # A rollout that met a miss is unscored by design, and counted; TRL would log all of it each time.
    return "All reward functions returned None" not in str(record.msg)


def first_untrusted(
    completion: Sequence[Message], attempts: Sequence[CallMade | None], min_trust: float
) -> int | None:
    """Return the first round of calls, from 0, of which an answer has less trust; `None` if there is none.

    An answer whose trust could not be measured counts as trusted.
    """
    done = 0
    rounds = [len(message["tool_calls"]) for message in completion if message.get("tool_calls")]
    for number, calls in enumerate(rounds):
        for made in attempts[done : done + calls]:
            if made is not None and made.trust is not None and made.trust < min_trust:
                return number
        done += calls
    return None


def masked_after(mask: Sequence[int], round_: int) -> list[int]:
    """Return a mask without what follows the results of a round of calls.

    Args:
        mask: 1 for tokens that the model wrote, 0 for results of tools: a run of zeros a round.
        round_: From 0.
    """
    runs = 0
    for place, own in enumerate(mask):
        if not own and (place == 0 or mask[place - 1]):
            if runs == round_:
                return [*mask[:place], *[0] * (len(mask) - place)]
            runs += 1
    return list(mask)
