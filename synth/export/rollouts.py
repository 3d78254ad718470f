"""Rollouts that succeeded, read from a file and checked once more."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from recorder.canonical import readable_json
from recorder.errors import FireflyError
from recorder.exchange import Json, Record
from synth.answers import is_right
from synth.export.conversation import Step, answer_in
from synth.task import Task

logger = logging.getLogger(__name__)


class Rollout(Record):
    """A line of the file: one try of a policy at a task."""

    # Whoever makes them may write down more: a seed, tokens, times.
    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: str
    reward: float | None
    """1 for the right answer; whatever is less, or was not scored, is not exported."""
    messages: list[dict[str, Json]]
    """As the chat API of OpenAI writes them, with the final message; arguments may also be an object.

    Those of the system and the user may begin it, and are replaced by ours.
    """


Trajectory = tuple[tuple[Step, ...], str]
"""The calls of a rollout in order, and its final message."""


class _Unusable(Exception):
    """A rollout cannot be exported."""


class _Malformed(_Unusable):
    """A rollout has a call whose arguments were no object: a right answer came of it, and no example."""


def read_rollouts(path: Path, tasks: Mapping[str, Task]) -> dict[str, list[Trajectory]]:
    """Return the rollouts of reward 1 by task, in the order of the file.

    Those with a call that could not be made are left out, and said to be.

    Raises:
        FireflyError: a line is no rollout, is of no task, or has reward 1 and a wrong answer.
    """
    found: defaultdict[str, list[Trajectory]] = defaultdict(list)
    if not path.is_file():
        raise FireflyError(f"{path} is not there: it should be the rollouts that firefly eval wrote")
    malformed = 0
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                rollout = Rollout.model_validate(json.loads(line))
                if rollout.task_id not in tasks:
                    raise _Unusable(f"task {rollout.task_id!r} is not among the {len(tasks)} tasks")
                if rollout.reward == 1:
                    found[rollout.task_id].append(_checked(rollout, tasks[rollout.task_id]))
            except _Malformed:
                malformed += 1
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise FireflyError(f"{path}, line {number}: {where}: {first['msg']}") from error
            except (_Unusable, ValueError) as error:
                raise FireflyError(f"{path}, line {number}: {error}") from error
    if malformed:
        logger.warning("%d right rollouts of %s have a malformed call and are left out", malformed, path)
    return dict(found)


def _checked(rollout: Rollout, task: Task) -> Trajectory:
    steps, answer = trajectory(rollout.messages)
    if not is_right(task.answer_schema, task.answer, answer_in(answer)):
        expected = readable_json(task.answer)
        raise _Unusable(f"reward 1, but the final message is {answer!r:.200}; the answer is {expected:.200}")
    return steps, answer


def trajectory(messages: Sequence[Mapping[str, Any]]) -> Trajectory:
    """Return what a model did, one call a step: calls made at once follow each other, in their order.

    Raises:
        _Unusable: it does not go from calls to their results and so on to a final message.
    """
    steps: list[Step] = []
    position = 0
    while position < len(messages) and messages[position].get("role") in ("system", "user"):
        position += 1
    while position < len(messages):
        message = messages[position]
        if message.get("role") != "assistant":
            raise _Unusable(f"message {position} is of {message.get('role')!r}, where 'assistant' goes on")
        calls, text = message.get("tool_calls") or [], _text(message, position)
        if not calls:
            if position + 1 < len(messages):
                raise _Unusable(f"message {position} ends it without a call, and {position + 1} follows")
            return tuple(steps), text
        results = messages[position + 1 : position + 1 + len(calls)]
        if len(results) < len(calls) or any(result.get("role") != "tool" for result in results):
            raise _Unusable(f"message {position} makes {len(calls)} calls; not all have a result")
        by_id = {result.get("tool_call_id"): result for result in results}
        for number, call in enumerate(calls):
            result = by_id.get(_id(call), results[number]) if len(by_id) == len(calls) else results[number]
            name, arguments = _called(call, position)
            steps.append(Step(name, arguments, _text(result, position + 1 + number), "" if number else text))
        position += 1 + len(calls)
    raise _Unusable("it has no final message")


def _id(call: Json) -> Json:
    return call.get("id") if isinstance(call, dict) else None


def _called(call: Json, position: int) -> tuple[str, dict[str, Json]]:
    function = call.get("function") if isinstance(call, dict) else None
    name, arguments = (
        (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, {})
    )
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            raise _Malformed(
                f"message {position} has arguments that are no JSON: {arguments!r:.100}"
            ) from None
    if not isinstance(name, str):
        raise _Unusable(f"message {position} has a call without a name")
    if not isinstance(arguments, dict):
        raise _Malformed(f"message {position} has arguments that are no object: {arguments!r:.100}")
    return name, arguments


def _text(message: Mapping[str, Any], position: int) -> str:
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise _Unusable(f"message {position} has content that is no text: {content!r:.100}")
    return content
