"""Rollouts of a policy at a task over a recording of `ledger.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from recorder.exchange import ToolRef
from synth.export.conversation import Function
from synth.export.dataset import Dataset
from synth.task import Task
from synth.world import World
from tests.synth.model_tasks import make_task, open_world, record
from train.environment import Environment, replayed
from train.policy import Policy, Seat
from train.rollout import Limits, Rollout, play

SEED = 2**40 + 7
RIGHT = '{"name": "plums", "amount": 7319}'
LISTED = '["apples", "pears", "plums"]'
"""What `list` is answered."""
AMOUNT = "7319"
"""What `get` of plums is answered."""


@dataclass(frozen=True)
class Stage:
    task: Task
    functions: Mapping[ToolRef, Function]
    world: World

    def play(self, policy: Policy, *, rollouts: int = 1, limits: Limits | None = None) -> list[Rollout]:
        """Let a policy try the task in several rollouts at once, in an event loop of their own.

        What one of them raises is raised, and how long they took is left out.
        """
        found: dict[int, Rollout] = {}

        async def one(number: int) -> None:
            with replayed(self.world.replayer)(self.task) as caller:
                environment, chosen = Environment(self.task, self.functions, caller), limits or Limits()
                seat = Seat(number, SEED, chosen.tokens, environment)
                found[number] = await play(environment, policy, seat, chosen, number)

        async def all_of_them() -> None:
            policy.under_way(rollouts)
            with anyio.fail_after(30):
                async with anyio.create_task_group() as group:
                    for number in range(rollouts):
                        group.start_soon(one, number)

        try:
            anyio.run(all_of_them)
        except ExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return [found[number].model_copy(update={"seconds": 0.0}) for number in range(rollouts)]

    def play_one(self, policy: Policy, limits: Limits | None = None) -> Rollout:
        [rollout] = self.play(policy, limits=limits)
        return rollout


def staged(path: Path) -> Stage:
    record(path)
    world = open_world(path)
    task = make_task(world)
    return Stage(task, Dataset(world, [task]).functions, world)
