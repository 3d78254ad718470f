"""An audit of a data set: every answer derived anew, every trajectory replayed, every executable gate run
again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from synth.gates import GATES, SET_GATES, Gate
from synth.task import Task, task_id
from synth.world import World, WorldError

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    task_id: str
    gate: str
    reason: str


@dataclass(slots=True)
class Audit:
    tasks: int = 0
    findings: list[Finding] = field(default_factory=list)
    live_checked: int = 0
    live_same: int = 0


def audit(
    tasks: Sequence[Task],
    world: World,
    live: Gate | None = None,
    progress: Progress | None = None,
    *,
    most_live: int | None = None,
) -> Audit:
    """Check a whole data set against a recording that holds the sessions that it cites.

    Args:
        live: Also asked, of all tasks or of `most_live` of them, spread evenly.
    """
    found = Audit(len(tasks))
    asked = min(len(tasks), len(tasks) if most_live is None else most_live)
    sampled = {place * len(tasks) // asked for place in range(asked)}
    located: list[Task] = []
    for number, task in enumerate(tasks):
        if progress is not None:
            progress("checking tasks", number, len(tasks))
        if task.task_id != task_id(task.question, task.program, task.calls):
            found.findings.append(
                Finding(task.task_id, "identity", "the id is not that of the question and program")
            )
        try:
            here = world.located(task)
        except WorldError as error:
            found.findings.append(Finding(task.task_id, "world", str(error)))
            continue
        located.append(here)
        for name, gate in GATES.items():
            verdict = gate(here, world)
            if not verdict.passed:
                found.findings.append(Finding(task.task_id, name, verdict.reason))
                break
        if live is not None and number in sampled:
            verdict = live(here, world)
            found.live_checked += 1
            found.live_same += verdict.passed
            if not verdict.passed:
                found.findings.append(Finding(task.task_id, verdict.gate, verdict.reason))
    for name, set_gate in SET_GATES.items():
        for task, verdict in zip(located, set_gate(located, world), strict=True):
            if not verdict.passed:
                found.findings.append(Finding(task.task_id, name, verdict.reason))
    found.findings += _split_findings(tasks)
    return found


def _split_findings(tasks: Sequence[Task]) -> list[Finding]:
    """Return tests that training has seen the server or the entity of."""
    train = [task for task in tasks if task.split == "train"]
    servers = {server for task in train for server in task.servers}
    entities = {entity for task in train for entity in task.entities}
    found = []
    for task in tasks:
        if task.split == "test_unseen_servers" and (seen := sorted(servers & set(task.servers))):
            found.append(Finding(task.task_id, "split", f"training has server {seen[0]}, too"))
        if task.split == "test" and (seen := sorted(entities & set(task.entities))):
            found.append(Finding(task.task_id, "split", f"training is about {seen[0]!r:.60}, too"))
    return found
