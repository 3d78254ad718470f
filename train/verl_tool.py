"""Recorded tools and the reward, as verl loads them; `firefly export --format verl` names both.

Needs verl 0.9, which is installed apart from what `train` needs otherwise: each pins another transformers.

What verl 0.9.1 does (verl/experimental/agent_loop/tool_agent_loop.py and verl/tools):

- Every worker process makes one tool object an entry of `tool_config_path`, and shares it among its rollouts.
- For each call of a model it runs `create(create_kwargs=...)`, `execute(instance_id, arguments,
  agent_data=...)` and `release(instance_id)`: an instance is as long as a call. What lasts as long as the
  rollout is `agent_data`, one object for all of its tools.
- Calls of one message are started in their order, and nothing waits in ours, so they run in it.
- An exception becomes a text that the model reads. The metrics that `execute` returns are dropped.
- The reward is computed in another process. Of the rollout it gets the decoded text after the prompt, and the
  reward managers `naive`, `limited` and `remote` hand on `agent_data.extra_fields`, too, as part of
  `extra_info`. Rows of all workers must have the same extra fields; `extras` is one that verl adds to all.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, get_args

from pydantic import PrivateAttr

try:
    from verl.tools.base_tool import BaseTool
    from verl.tools.schemas import (
        OpenAIFunctionParametersSchema,
        OpenAIFunctionPropertySchema,
        OpenAIFunctionSchema,
        OpenAIFunctionToolSchema,
        ToolResponse,
    )
except ImportError as error:
    raise ImportError("train.verl_tool is loaded by verl: pip install 'verl>=0.9.1,<0.10'") from error

from recorder.errors import FireflyError
from recorder.exchange import Json, ToolRef
from replayer.replayer import Replayer
from synth.answers import is_right
from synth.export.conversation import Function, answer_in
from synth.task import Task, Tool
from train.environment import Environment, replayed
from train.reward import MissRule, RewardKind, least_trust

EXTRAS, OURS = "extras", "firefly"
"""Where in a rollout's extra fields the reward finds what its tools saw."""


class VerlError(FireflyError):
    """Something in verl's configuration does not go with ours."""


# --- tools --------------------------------------------------------------------------------------------------


class AgentData(Protocol):
    """A rollout, as verl shows it to tools."""

    tools_kwargs: dict[str, Any]
    """Of the row: for every tool of the data set its `create_kwargs`."""
    extra_fields: dict[str, Any]


# verl is not installed where this is type-checked, so its classes have no type.
class FireflyReplayTool(BaseTool):  # type: ignore[misc]
    """A tool that is answered by a recording. All tools of a rollout are answered in one conversation.

    What the model reads is what it reads in evaluation, a miss included. Nothing here can end a rollout, so
    after a miss it goes on.

    Args:
        config: `db`, the recording, learned from; `tool_schema`, a JSON text: the tool in the form of the
            chat APIs.
        tool_schema: What verl read at its own `tool_schema`; left out as a rule, as verl cuts nested schemas
            off there, and refuses properties without a type.

    Raises:
        NotLearned, RecordingError: there is no recording to answer from. Said here, as verl would later turn
            it into a text for the model.
    """

    def __init__(self, config: dict[str, Any], tool_schema: OpenAIFunctionToolSchema | None) -> None:
        super().__init__(config, tool_schema)
        self._replayer = _opened(Path(config["db"]).resolve())

    def get_openai_tool_schema(self) -> OpenAIFunctionToolSchema:
        return WholeSchema.of(json.loads(self.config["tool_schema"]))

    async def execute(
        self, instance_id: str, parameters: Json, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Answer a call.

        Args:
            parameters: The arguments; what the model wrote in their place, if that is no object.
            kwargs: `agent_data`.

        Returns:
            What the model reads; no reward; how it was answered, as `CallMade` has it.
        """
        agent_data: AgentData = kwargs["agent_data"]
        try:
            environment = self._environment(agent_data)
            text = environment.call(self.name, parameters)
        except Exception as error:
            # The model is told of it, and would be rewarded for what it makes of that.
            _tell(agent_data, failure=f"{self.name}: {error!r}")
            raise
        _tell(agent_data, missed=environment.missed, trust=least_trust(environment.calls))
        return ToolResponse(text=text), 0.0, environment.calls[-1].model_dump(mode="json")

    def _environment(self, agent_data: AgentData) -> Environment:
        """Return the rollout's environment, which its first call opens."""
        found = _environments.get(agent_data)
        if found is None:
            task, functions = _offered(agent_data.tools_kwargs, self.name)
            world = replayed(self._replayer)(task)
            found = _environments[agent_data] = Environment(task, functions, world.__enter__())
            # Nobody says when a rollout is over, but then verl lets go of it.
            weakref.finalize(agent_data, world.__exit__, None, None, None)
        return found


_environments: weakref.WeakKeyDictionary[AgentData, Environment] = weakref.WeakKeyDictionary()
"""Of the rollouts under way in this process. By the object and not by its `request_id`, which comes again in
every step where verl is to be deterministic."""


@cache
def _opened(db: Path) -> Replayer:
    return Replayer.open(db)


def _offered(tools_kwargs: Mapping[str, Any], name: str) -> tuple[Task, dict[ToolRef, Function]]:
    """Return as much of the task as an environment looks at, and the names of its tools.

    Those are all of the data set: verl itself refuses calls of what a task does not offer.
    """
    if name not in tools_kwargs:
        raise VerlError(f"the row has no create_kwargs for {name}: export data and tools together")
    created = {alias: kwargs["create_kwargs"] for alias, kwargs in tools_kwargs.items()}
    refs = {alias: ToolRef(each["server"], each["name"]) for alias, each in created.items()}
    task = Task.model_construct(
        task_id=created[name]["task_id"],
        group=created[name]["group"],
        tools=[Tool(server=ref.server, name=ref.name) for ref in refs.values()],
        distractors=[],
    )
    return task, {ref: Function(ref, alias, "", {}) for alias, ref in refs.items()}


def _tell(agent_data: AgentData, **seen: Any) -> None:
    extras = agent_data.extra_fields.get(EXTRAS) or {}
    ours = {"missed": False, "trust": 1.0, "failure": None, **extras.get(OURS, {}), **seen}
    agent_data.extra_fields[EXTRAS] = {**extras, OURS: ours}


# As above: it comes with verl.
class WholeSchema(OpenAIFunctionToolSchema):  # type: ignore[misc]
    """A tool's schema that a model is shown as it was recorded."""

    _recorded: dict[str, Any] = PrivateAttr(default_factory=dict)

    @staticmethod
    def of(tool: dict[str, Any]) -> WholeSchema:
        function, parameters = tool["function"], tool["function"]["parameters"]
        properties = {
            # What parsers of calls look at, to know a number from a text.
            name: OpenAIFunctionPropertySchema.model_construct(
                **{key: schema[key] for key in ("type", "enum") if key in schema}
            )
            for name, schema in parameters.get("properties", {}).items()
            if isinstance(schema, dict)
        }
        made: WholeSchema = WholeSchema.model_construct(
            type="function",
            function=OpenAIFunctionSchema.model_construct(
                name=function["name"],
                description=function["description"],
                parameters=OpenAIFunctionParametersSchema.model_construct(
                    type="object", properties=properties, required=parameters.get("required", [])
                ),
            ),
        )
        made._recorded = tool
        return made

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return self._recorded


# --- reward -------------------------------------------------------------------------------------------------


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any],
    *,
    miss: MissRule = "exclude",
    reward: RewardKind = "binary",
    **_: Any,
) -> dict[str, float]:
    """Score a rollout by its final message.

    verl needs a number for every rollout and cannot leave one out of its group. So where `miss` is `exclude`,
    a rollout that met a miss gets 0, however it answered; `missed` is its share in verl's metrics.

    Args:
        solution_str: All after the prompt, see `final_message`.
        ground_truth: The answer, a JSON text.
        extra_info: Of the row: `answer_schema`, a JSON text. Of verl: `num_turns`, and what the tools saw.
        miss, reward: As for `train.reward.score`; `reward_kwargs` in verl's configuration.

    Returns:
        `score`, which verl trains on; `acc`, whether the answer is right; `missed`; `trust`.

    Raises:
        VerlError: a tool broke, or verl does not say what is needed. The rollout is not worth anything then.
    """
    if miss not in get_args(MissRule):
        raise ValueError(f"miss must be one of {', '.join(get_args(MissRule))}, got {miss!r}")
    if reward not in get_args(RewardKind):
        raise ValueError(f"reward must be one of {', '.join(get_args(RewardKind))}, got {reward!r}")
    if "tool_rewards" not in extra_info and (miss, reward) != ("keep", "binary"):
        raise VerlError(
            "this reward manager does not say what the tools saw: set reward.reward_manager.name=naive, or"
            " +reward.custom_reward_function.reward_kwargs.miss=keep"
        )
    seen = (extra_info.get(EXTRAS) or {}).get(OURS, {})
    if seen.get("failure") is not None:
        raise VerlError(f"a tool could not be answered at all: {seen['failure']}")
    text = final_message(solution_str, extra_info.get("num_turns"))
    given = None if text is None else answer_in(text)
    right = is_right(json.loads(extra_info["answer_schema"]), json.loads(ground_truth), given)
    missed, trust = bool(seen.get("missed", False)), float(seen.get("trust", 1.0))
    worth = float(right) * (trust if reward == "tier-aware" else 1.0)
    return {
        "score": 0.0 if missed and miss == "exclude" else worth,
        "acc": float(right),
        "missed": float(missed),
        "trust": trust,
    }


_BETWEEN = re.compile(r"</tool_response>\s*assistant\n")
"""What is left between results and the model's next message of the templates of Qwen and Hermes, as verl
decodes without special tokens."""

_THOUGHT = re.compile(r"\s*(?:<think>)?.*?</think>", re.DOTALL)


def final_message(solution: str, num_turns: int | None) -> str | None:
    """Return the last message of a decoded rollout, without its thoughts; `None` where none can be told.

    Args:
        solution: The model's messages and the tools' results, in turn.
        num_turns: As verl counts: the prompt, the model's messages, and the turns with results. With it, a
            message that only looks as if a result stood in it is not taken apart.

    Raises:
        VerlError: the results of tools are not to be seen in it.
    """
    messages = _BETWEEN.split(solution)
    if num_turns is not None and len(messages) != num_turns // 2:
        if len(messages) < num_turns // 2:
            raise VerlError(
                "the chat template does not write the results of tools as <tool_response>, as those of Qwen"
                " and Hermes do (multi_turn.format=hermes): the final message cannot be found"
            )
        return None
    last = messages[-1]
    thought = _THOUGHT.match(last)
    return last[thought.end() :] if thought else last
