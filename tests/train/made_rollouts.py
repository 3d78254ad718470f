"""Tasks and rollouts as values, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from recorder.exchange import ToolRef
from synth.answers import answer_schema, field_schema
from synth.program import AnswerProgram
from synth.task import Difficulty, ReferenceCall, Task, Tool
from train.environment import CallMade, Message
from train.rollout import Rollout, Stop


def task(
    task_id: str,
    *servers: str,
    level: Literal["easy", "medium", "hard"] = "easy",
    calls: int = 1,
    question: str = "",
) -> Task:
    """Make a task whose answer is `{"x": 1, "y": 2}`."""
    servers = servers or ("shop",)
    return Task(
        task_id=task_id,
        question=question or f"What is {task_id}?",
        answer_schema=answer_schema({name: field_schema("number", name, whole=True) for name in "xy"}),
        answer={"x": 1, "y": 2},
        program=AnswerProgram(
            fields={name: {"op": "extract", "call": 0, "path": [name], "as": "number"} for name in "xy"}
        ),
        calls=[
            ReferenceCall(server=servers[number % len(servers)], tool="read", arguments={}, exchange=number)
            for number in range(calls)
        ],
        tools=[Tool(server=server, name="read") for server in servers],
        distractors=[],
        servers=sorted(servers),
        group="g",
        template="t",
        entities=[],
        difficulty=Difficulty(
            level=level, calls=calls, servers=len(servers), operations=0, depth=1, fields=2
        ),
        gates=[],
        split="test",
        world=[],
    )


READ = ToolRef("shop", "read")
ANSWERED = CallMade(name="read", tool=READ, outcome="answered", tier="exact", trust=0.9)
MISS = CallMade(name="read", tool=READ, outcome="miss")


def rollout(
    task_id: str,
    right: bool | None = True,
    *,
    sample: int = 0,
    calls: Sequence[CallMade] = (ANSWERED,),
    messages: Sequence[Message] = (),
    **changes: Any,
) -> Rollout:
    """Make a rollout that was right, wrong, or met a miss (`None`)."""
    stop: Stop = "miss" if right is None else "answer"
    given: dict[str, Any] = {
        "task_id": task_id,
        "sample": sample,
        "reward": None if right is None else float(right),
        "right": bool(right),
        "stop": stop,
        "failure": None,
        "fields": {"x": bool(right), "y": bool(right)},
        "trust": 0.9,
        "calls": [MISS] if right is None else list(calls),
        "messages": list(messages),
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 10,
        "cost_usd": 0.25,
        "seconds": 1.5,
    }
    return Rollout(**{**given, **changes})


def failed(task_id: str, reason: str) -> Rollout:
    return rollout(task_id, False, reward=None, stop="failed", failure=reason, calls=())
