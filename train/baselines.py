"""Policies without a model: what is known to be right, what does nothing, and chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from recorder.canonical import readable_json
from recorder.exchange import Json
from synth.program import ProgramError, arguments_of, run, tree_of
from train.environment import Message
from train.policy import Reply, Seat


class Baseline:
    """What all of them share: no costs, and nothing to close."""

    batched = False

    def under_way(self, rollouts: int) -> None:
        pass

    def close(self) -> None:
        pass


class DoNothing(Baseline):
    """Answers at once, with an empty object."""

    name = "do-nothing"

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        return Reply({"role": "assistant", "content": "{}"})


class Oracle(Baseline):
    """Makes the reference calls, each with arguments out of what it was answered, and runs the program."""

    name = "oracle"

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        environment = seat.environment
        task, done = environment.task, len(environment.calls)
        trees = [tree_of(outcome) for outcome in environment.outcomes]
        try:
            if done < len(task.calls):
                call = task.calls[done]
                arguments = arguments_of(task.program, done, call.arguments, trees)
                return Reply(_call(environment.names[call.ref], arguments, done))
            answer = run(task.program, trees).answer
        except ProgramError:
            answer = {}
        return Reply({"role": "assistant", "content": readable_json(answer)})


class Random(Baseline):
    """Calls up to four tools at random, with values that fit their schemas, and answers at random.

    Strings are words of the question, so that it is not hopeless by construction.
    """

    name = "random"

    async def act(self, messages: Sequence[Message], tools: Sequence[Json], seat: Seat) -> Reply:
        done = len(seat.environment.calls)
        chance = random.Random(f"{seat.seed}/{done}")
        words = seat.environment.task.question.split()
        if tools and done < 4 and chance.random() < 0.7:
            function = chance.choice(list(tools))["function"]
            properties = function["parameters"].get("properties", {})
            arguments = {name: _value(schema, words, chance) for name, schema in properties.items()}
            return Reply(_call(function["name"], arguments, done))
        schema = seat.environment.task.answer_schema["properties"]
        answer = {name: _value(field, words, chance) for name, field in schema.items()}
        return Reply({"role": "assistant", "content": readable_json(answer)})


def _call(name: str, arguments: Json, number: int) -> Message:
    function = {"name": name, "arguments": arguments}
    calls = [{"id": f"call_{number}", "type": "function", "function": function}]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _value(schema: Json, words: list[str], chance: random.Random) -> Json:
    declared: dict[str, Any] = schema if isinstance(schema, dict) else {}
    if options := declared.get("enum"):
        return chance.choice(options)
    match declared.get("type"):
        case "boolean":
            return chance.random() < 0.5
        case "integer" | "number":
            return chance.randrange(100)
        case "array":
            return [_value(declared.get("items"), words, chance)]
        case "object":
            return {}
    return chance.choice(words).strip("\"'`?.,:") if words else ""
