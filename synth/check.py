"""An audit of a data set: every answer derived anew, every trajectory replayed, every executable gate run
again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recorder.exchange import ToolRef
from synth.gates import GATES, SET_GATES, Gate
from synth.task import Task, task_id
from synth.trace import argument_leaves
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
        if (wrong := _malformed(task, world)) is not None:
            found.findings.append(Finding(task.task_id, "form", wrong))
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


def _malformed(task: Task, world: World) -> str | None:
    """Say what a task tells of itself that its calls do not bear out; `None` if nothing."""
    needed = list(dict.fromkeys(call.ref for call in task.calls))
    if [ToolRef(tool.server, tool.name) for tool in task.tools] != needed:
        return "its tools are not those of its calls"
    if task.servers != sorted({ref.server for ref in needed}):
        return "its servers are not those of its calls"
    named = {value for _, value in _named(task)} | {f"{ref.server}/{ref.name}" for ref in needed}
    if foreign := sorted(set(task.entities) - named):
        return f"none of its calls names {foreign[0]!r:.60}"
    for tool in task.distractors:
        if ToolRef(tool.server, tool.name) not in world.tools:
            return f"its distractor {tool.server}/{tool.name} is no recorded tool"
    return None


def _split_findings(tasks: Sequence[Task]) -> list[Finding]:
    """Return tests that training has seen the server or the entity of, going by the calls themselves."""
    train = [task for task in tasks if task.split == "train"]
    servers = {call.server for task in train for call in task.calls}
    # Of a task that names no entity, everything counts.
    entities = {at for task in train for at in _named(task) if at[1] in task.entities or not task.entities}
    found = []
    for task in tasks:
        mine = {call.server for call in task.calls}
        if task.split == "test_unseen_servers" and (seen := sorted(servers & mine)):
            found.append(Finding(task.task_id, "split", f"training has server {seen[0]}, too"))
        if task.split == "test" and (shared := sorted(entities & _named(task))):
            found.append(Finding(task.task_id, "split", f"training is about {shared[0][1]!r:.60}, too"))
    return found


def _named(task: Task) -> set[tuple[str, str]]:
    """Return what the calls of a task name, with the server: values, and tools that are named alone."""
    found = set()
    for call in task.calls:
        found |= {(call.server, str(value).strip()) for _, value in argument_leaves(call.arguments)}
        if (tool := f"{call.server}/{call.tool}") in task.entities:
            found.add((call.server, tool))
    return found
