"""Recorded tools as TRL's GRPOTrainer takes them: one environment for each set of tools.

TRL finds tools as methods of an environment, and describes them by their signatures. Ours are recorded: the
trainer is given their schemas as they were listed, and each call goes to the rollout's own world. What it
reaches into (`_env_tools`, `_sync_tool_dicts`, `_tool_call_loop`, `_generate_and_score_completions`) is TRL
1.16's own and tested against it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from trl import GRPOTrainer

from recorder.canonical import content_hash
from recorder.exchange import Json
from synth.export.conversation import offered
from synth.task import Task
from train.environment import TOO_DEEP, CallMade, Environment, Message, World, is_deep, tools_of
from train.reward import MissRule
from train.suite import Suite
from train.training import Run


def tool_set(task: Task) -> str:
    """Return what the tools of a task are known by; tasks that offer the same tools share it."""
    return content_hash([list(ref) for ref in offered(task)])[:16]


class TrlEnvironment:
    """What a rollout of TRL's plays in: reset with a task, then asked by name."""

    def __init__(self, suite: Suite, world: World) -> None:
        self._suite, self._world = suite, world
        self._opened = ExitStack()
        self._environment: Environment | None = None
        self._attempts: list[CallMade | None] = []
        """A call each, in order; `None` where it never reached the world, as its arguments were no object."""
        self._failure: Exception | None = None

    @staticmethod
    def recorded() -> str:
        """Stand for all tools: TRL wants to find one, and compares each that it finds with all others."""
        raise NotImplementedError("calls go to the environment")

    def reset(self, task_id: str, **_: Any) -> None:
        self._close()
        task = self._suite.by_id[task_id]
        caller = self._opened.enter_context(self._world(task))
        self._environment = Environment(task, self._suite.functions, caller)
        self._attempts, self._failure = [], None

    def _close(self) -> None:
        self._opened.close()
        self._environment = None

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


# mypy does not follow TRL, so its trainer has no type.
class RecordedToolsTrainer(Run, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose tools are recorded ones.

    Args:
        miss: `exclude` leaves all tokens of a rollout that met a miss out of the loss: it has no advantage,
            and they would still count in what the loss is divided by.
        min_trust_in_loss: What the model writes after an answer of less trust is left out of the loss. (The
            answers themselves always are.) 0 keeps all.
        arguments: As for GRPOTrainer.
    """

    def __init__(
        self,
        *,
        suite: Suite,
        world: World,
        miss: MissRule = "exclude",
        min_trust_in_loss: float = 0.0,
        **arguments: Any,
    ) -> None:
        first = {tool_set(task): task for task in reversed(suite.tasks)}
        one: Callable[[], TrlEnvironment] = partial(TrlEnvironment, suite, world)
        super().__init__(environment_factory=dict.fromkeys(first, one), **arguments)
        self._miss, self._min_trust_in_loss = miss, min_trust_in_loss
        for name, task in first.items():
            self._env_tools[name] = tools_of(task, suite.functions)
        # A method of the instance: TRL's loop and ours read what a model writes with it.
        self._tokenizer.parse_response = shallow(self._tokenizer.parse_response)
        logging.getLogger(GRPOTrainer.__module__).addFilter(_is_news)

    def _get_train_sampler(self, *arguments: Any) -> Any:
        self._order = super()._get_train_sampler(*arguments)
        return self._order

    def _run_epoch(self, *arguments: Any, epoch: int, **named: Any) -> None:
        # TRL draws the order of each pass after that of the one before it, which a resumed run does not draw.
        if (generator := getattr(self._order, "generator", None)) is not None:
            generator.manual_seed(self.args.seed + epoch)
        super()._run_epoch(*arguments, epoch=epoch, **named)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        # They are many, and come again only when their tools do.
        for rollout in self.environments or ():
            rollout._close()
        return super()._generate_and_score_completions(inputs)

    def _tool_call_loop(self, *arguments: Any, **named: Any) -> Any:
        self._sync_tool_dicts = [_Tools(rollout) for rollout in self.environments]
        mask, completions, *rest = super()._tool_call_loop(*arguments, **named)
        for rollout in self.environments:
            if rollout._failure is not None:
                raise rollout._failure
        for number, rollout in enumerate(self.environments):
            if self._miss == "exclude" and environment_of(rollout).missed:
                mask[number] = [0] * len(mask[number])
            elif self._min_trust_in_loss:
                round_ = first_untrusted(completions[number], rollout._attempts, self._min_trust_in_loss)
                if round_ is not None:
                    mask[number] = masked_after(mask[number], round_)
        return (mask, completions, *rest)


def shallow(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Return a tokenizer's parser of messages that survives a model which repeats a bracket."""

    def parsed(*arguments: Any, **named: Any) -> Any:
        try:
            found = parse(*arguments, **named)
        except RecursionError as error:
            # What TRL takes for a malformed call, and so for plain text.
            raise ValueError("nested too deeply") from error
        calls = found.get("tool_calls") if isinstance(found, dict) else None
        for call in calls if isinstance(calls, list) else []:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and is_deep(function.get("arguments")):
                function["arguments"] = TOO_DEEP
        return found

    return parsed


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
