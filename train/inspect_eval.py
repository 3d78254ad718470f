"""`firefly eval` under Inspect AI: its models, its limits on connections, its logs and their viewer.

A rollout is played as `train.rollout.play` plays every other, and scored alike; Inspect asks the model and
keeps the log. It does not make the calls: it would refuse arguments that do not fit a tool's schema, which a
recorded server answered in its own words, and cut long results off.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pydantic import PrivateAttr, ValidationError

from recorder.canonical import readable_json
from recorder.claude_api import one_line, sendable
from recorder.errors import FireflyError

try:
    from inspect_ai import Epochs
    from inspect_ai import Task as Evaluation
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.log import EvalLog, transcript
    from inspect_ai.model import (
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        GenerateConfig,
        Model,
        ModelOutput,
        ModelUsage,
        get_model,
    )
    from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
    from inspect_ai.solver import Generate, Solver, TaskState, solver
    from inspect_ai.tool import ToolInfo, ToolParam, ToolParams
    from inspect_ai.util import LimitExceededError
except ImportError as error:
    raise FireflyError(
        "Inspect AI is not installed: pip install 'firefly-proxy[inspect]', in an environment of its own"
    ) from error

from recorder.exchange import Json, ToolRef
from synth.export.conversation import Function
from synth.task import Task
from train.environment import Environment, Message, World, final_text, prompt_of
from train.policy import PolicyFailed, Reply, Seat
from train.rollout import Limits, Rollout, play
from train.turns import call_of, from_model


@dataclass(frozen=True, slots=True)
class Inspected:
    """What came of a run."""

    rollouts: list[Rollout]
    """By task, in the order given, and by sample; also those that failed."""
    log: Path
    """For `inspect view`."""
    stopped: str | None = None
    """Why it is not all of them."""


def run_inspect(
    tasks: Sequence[Task],
    world: World,
    functions: Mapping[ToolRef, Function],
    *,
    model: str | Model,
    split: str,
    samples: int = 1,
    limits: Limits | None = None,
    log_dir: Path,
    base_url: str | None = None,
    temperature: float | None = None,
    concurrency: int | None = None,
    display: str = "none",
) -> Inspected:
    """Let a model try every task under Inspect AI, and write its log.

    A rollout whose model gave no answer is an error of its sample there, and one that met a miss is not
    scored; the others go on.

    Args:
        world: Answers at once, as a recording does.
        functions: Every tool of the data set by the name that models call it by.
        model: As Inspect names it: `anthropic/claude-sonnet-5-5`, `vllm/Qwen/Qwen3-4B-Instruct-2507`,
            `openai-api/PROVIDER/NAME`.
        split: What the log is called by.
        samples: Tries of each task; Inspect calls them epochs.
        concurrency: Rollouts at once; by default as many as Inspect opens connections to the model.
        display: As Inspect's option of that name: `none`, `plain`, `rich`, `full`.

    Raises:
        FireflyError: there is no such model, it answered nobody, or the run ended with an error.
    """
    found = _model(model, base_url, temperature)
    player = _Player(tasks, world, functions, limits or Limits(), found)
    made = inspect_eval(
        Evaluation(
            name=f"firefly_{split}",
            dataset=MemoryDataset([_sample(task) for task in tasks], name=split),
            solver=played(player),
            scorer=rewarded(player),
            epochs=Epochs(samples, "mean"),
        ),
        model=found,
        log_dir=str(log_dir),
        log_format="eval",
        fail_on_error=False,
        max_samples=concurrency,
        display=display,
        # Nothing is asked of a run from outside.
        ctl_server=False,
    )
    log: EvalLog = made[0]
    if log.status == "error":
        reason = log.error.message if log.error is not None else "no reason is given"
        raise FireflyError(one_line(f"Inspect AI ended with an error: {reason}"))
    keys = [(task.task_id, sample) for task in tasks for sample in range(samples)]
    rollouts = [player.rollouts[key] for key in keys if key in player.rollouts]
    if rollouts and all(rollout.stop == "failed" for rollout in rollouts):
        raise FireflyError(f"no rollout got an answer: {rollouts[0].failure}")
    return Inspected(
        rollouts,
        _path(log.location),
        None if log.status == "success" else f"Inspect AI's run was {log.status}",
    )


def _model(model: str | Model, base_url: str | None, temperature: float | None) -> Model:
    if not isinstance(model, str):
        return model
    try:
        return get_model(model, base_url=base_url, config=GenerateConfig(temperature=temperature))
    except Exception as error:
        # What it raises is its providers' matter: ValueError, PrerequisiteError, an import that failed.
        why = _MARKUP.sub("", str(error)) or type(error).__name__
        raise FireflyError(one_line(f"Inspect AI has no model {model}: {why}")) from error


_MARKUP = re.compile(r"\[/?[a-z]+\]")
"""Bold and blue, as rich prints it."""


def _sample(task: Task) -> Sample:
    return Sample(
        input=[_inspects(message) for message in prompt_of(task)],
        target=readable_json(task.answer),
        id=task.task_id,
        metadata={
            "answer_schema": task.answer_schema,
            "split": task.split,
            "servers": task.servers,
            "difficulty": task.difficulty.model_dump(mode="json"),
        },
    )


def _path(location: str) -> Path:
    return Path(unquote(urlparse(location).path)) if location.startswith("file:") else Path(location)


# --- playing ------------------------------------------------------------------------------------------------


class _Player:
    def __init__(
        self,
        tasks: Sequence[Task],
        world: World,
        functions: Mapping[ToolRef, Function],
        limits: Limits,
        model: Model,
    ) -> None:
        self._tasks = {task.task_id: task for task in tasks}
        self._world, self._functions, self._limits, self._model = world, functions, limits, model
        self.rollouts: dict[tuple[str, int], Rollout] = {}

    async def play(self, state: TaskState) -> Rollout:
        task, sample = self._tasks[str(state.sample_id)], state.epoch - 1
        policy = InspectPolicy(self._model, state)
        with self._world(task) as caller:
            environment = _Shown(task, self._functions, caller)
            seat = Seat(number=0, seed=0, max_tokens=self._limits.tokens, environment=environment)
            made = await play(environment, policy, seat, self._limits, sample)
        # The results of a last message whose answer is not asked for any more.
        policy.take(made.messages)
        self.rollouts[task.task_id, sample] = made
        return made


# Inspect AI is not installed where this is type-checked, so its decorators and classes have no type.
@solver  # type: ignore[untyped-decorator]
def played(player: _Player) -> Solver:
    async def solve(state: TaskState, generate: Generate) -> TaskState:
        made = await player.play(state)
        state.completed = True
        if made.failure is not None:
            raise PolicyFailed(made.failure)
        return state

    return solve


@scorer(metrics=[mean(), stderr()])  # type: ignore[untyped-decorator]  # as above
def rewarded(player: _Player) -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        made = player.rollouts[str(state.sample_id), state.epoch - 1]
        details: dict[str, Any] = {
            "answer": final_text(made.messages),
            "metadata": {
                "stop": made.stop,
                "right": made.right,
                "fields": made.fields,
                "trust": made.trust,
                "calls": [call.model_dump(mode="json") for call in made.calls],
            },
        }
        if made.reward is None:
            return Score.unscored(reason=made.stop, **details)
        return Score(value=made.reward, **details)

    return score


class _Shown(Environment):
    """An environment whose calls are seen in the transcript."""

    def call(self, name: str, arguments: Json) -> str:
        text = super().call(name, arguments)
        shown = self.calls[-1].model_dump(mode="json")
        transcript().info(sendable({**shown, "arguments": arguments, "result": text}), source="firefly")
        return text


class InspectPolicy:
    """A model of Inspect AI as a policy, for one rollout.

    Args:
        state: Of the sample, whose messages begin with the task's prompt; the rollout's are added to them.
    """

    batched = False

    def __init__(self, model: Model, state: TaskState) -> None:
        self.name = str(model)
        self._model, self._state = model, state
        self._taken = len(state.messages)

    def under_way(self, rollouts: int) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self, messages: Sequence[Message]) -> None:
        """Add what is new to the sample's messages. What the model wrote is there, as it wrote it."""
        self._state.messages += [_inspects(message) for message in messages[self._taken :]]
        self._taken = len(messages)

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        self.take(messages)
        room = seat.max_tokens - seat.spent_tokens
        if room < 1:
            return Reply(None)
        output = await self._generate([_tool(tool) for tool in tools], room)
        usage = output.usage or ModelUsage()
        cached = usage.input_tokens_cache_read or 0
        spent: dict[str, Any] = {
            "prompt_tokens": usage.input_tokens + cached + (usage.input_tokens_cache_write or 0),
            "cached_tokens": cached,
            "completion_tokens": usage.output_tokens,
            "cost_usd": usage.total_cost,
        }
        if output.stop_reason == "model_length":
            # Its text is the API's, which says that the context is full.
            return Reply(None, **spent)
        self._state.output = output
        self._state.messages.append(output.message)
        self._taken += 1
        return Reply(_ours(output.message), truncated=output.stop_reason == "max_tokens", **spent)

    async def _generate(self, tools: list[ToolInfo], room: int) -> ModelOutput:
        try:
            output: ModelOutput = await self._model.generate(
                self._state.messages, tools=tools, config=GenerateConfig(max_tokens=room)
            )
        except LimitExceededError:
            raise
        except Exception as error:
            # Inspect has tried again as often as it wants to; what is raised is its providers' matter.
            raise self._failed(f"{type(error).__name__}: {error}") from error
        if output.error is not None:
            raise self._failed(output.error)
        return output

    def _failed(self, why: str) -> PolicyFailed:
        return PolicyFailed(one_line(f"{self.name} gave no answer: {why}"))


# --- messages and tools -------------------------------------------------------------------------------------


def _inspects(message: Message) -> Any:
    """Return a message of a prompt or of a tool as Inspect has it."""
    content = sendable(message["content"])
    match message["role"]:
        case "system":
            return ChatMessageSystem(content=content)
        case "user":
            return ChatMessageUser(content=content)
    return ChatMessageTool(
        content=content, function=message["name"], tool_call_id=message.get("tool_call_id")
    )


def _ours(message: Any) -> Message:
    """Return a model's message, without what it thought.

    Arguments that were no JSON are what Inspect says of them, a text; it does not keep what the model wrote.
    """
    calls = [
        call_of(call.id, call.function, call.arguments if call.parse_error is None else call.parse_error)
        for call in message.tool_calls or []
    ]
    return from_model(message.text, calls)


class WholeParams(ToolParams):  # type: ignore[misc]  # as above
    """The parameters of a tool as they were recorded, with all that JSON Schema can say."""

    _recorded: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        # A copy, as some providers take from it what their API refuses.
        return deepcopy(self._recorded)


def _tool(tool: Json) -> ToolInfo:
    function = tool["function"]
    recorded: dict[str, Any] = function["parameters"]
    # Fields that Inspect knows, for providers that put a tool into a prompt as a whole.
    params = WholeParams(
        properties={name: _param(schema) for name, schema in recorded.get("properties", {}).items()},
        required=recorded.get("required", []),
        additionalProperties=None,
    )
    params._recorded = recorded
    return ToolInfo(name=function["name"], description=function["description"], parameters=params)


def _param(schema: Json) -> ToolParam:
    try:
        return ToolParam.model_validate(schema)
    except ValidationError:
        return ToolParam()
