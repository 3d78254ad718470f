"""From a recording to a data set: proposals through the gates, and a count of what each lets through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from recorder.canonical import canonical_json
from recorder.errors import FireflyError
from recorder.exchange import Record
from synth.claude_phraser import PhraseError
from synth.gates import GATES, SET_GATES, Gate
from synth.gates.duplicates import LEAST_OF_A_KIND, MOST_OF_A_KIND, kind_of, well_spread
from synth.propose import Proposer
from synth.split import NAME as SPLIT
from synth.split import split
from synth.task import Task, Verdict, task_id
from synth.trace import observations
from synth.world import World

PATIENCE, LEAST_OF_PATIENCE = 2000, 10
"""Attempts of which at least so many have to come to a task, or all that the recording supports is taken as
proposed."""

RARE = 0.05
"""Share of the tasks that a server has few of."""

MOST_ROUNDS = 5
"""Times that more tasks are proposed, after those that look at the whole set dropped some."""

Progress = Callable[[str, int, int], None]


class Phraser(Protocol):
    """Words the question of a task that has one from templates."""

    def question(self, task: Task, world: World) -> str: ...


class Dropped(Record):
    """A candidate that a gate, or the split, did not let through."""

    gate: str
    reason: str
    task: Task


@dataclass(slots=True)
class Synthesised:
    tasks: list[Task] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    funnel: dict[str, list[int]] = field(default_factory=dict)
    """Gate → tasks that came to it, and that it dropped, in order."""
    observed: int = 0
    attempts: int = 0
    stopped: str = ""
    """Why not all is done; empty where it is."""


@dataclass(frozen=True, slots=True)
class Wanted:
    count: int
    seed: int = 0
    test_servers: Sequence[str] | None = None
    phraser: Phraser | None = None
    model_gates: Mapping[str, Gate] = field(default_factory=dict)
    """Asked after all others, in order."""


def synthesise(world: World, wanted: Wanted, progress: Progress | None = None) -> Synthesised:
    """Make tasks of a recording. Same recording and wishes, same tasks, unless a model answers otherwise."""
    made = Synthesised(funnel={name: [0, 0] for name in GATES})
    seen = observations(world, progress)
    made.observed = len(seen)
    pool = _Pool(world, Proposer(world, seen, wanted.seed), wanted, made, progress)
    enough = wanted.count
    for _ in range(MOST_ROUNDS):
        more = pool.fill(enough)
        dropped: list[Dropped] = []
        kept = pool.tasks
        for name, set_gate in SET_GATES.items():
            kept = _through(made, name, kept, set_gate(kept, world), dropped)
        left, _ = _split(made, kept, wanted)
        if not more or len(well_spread(left, wanted.count)) >= wanted.count:
            break
        # As many more as were lost of those that there are.
        enough = int(enough * min(2.0, 1.1 * wanted.count / max(1, len(left)))) + 1
    made.dropped += dropped
    kept = _modelled(world, wanted, made, kept, progress)
    kept, spanning = _split(made, kept, wanted)
    made.dropped += spanning
    made.tasks = _settled(world, made, kept, wanted.count)
    return made


def _settled(world: World, made: Synthesised, tasks: list[Task], count: int) -> list[Task]:
    """Return the first tasks that pass the gates over whole sets as the set that they are, with those
    verdicts.

    A set is judged by itself, so that whoever has only the set can judge it again.
    """
    tasks = _rare_first(tasks)
    while True:
        chosen = [tasks[n] for n in well_spread(tasks, count)]
        verdicts = {name: set_gate(chosen, world) for name, set_gate in SET_GATES.items()}
        failed: set[str] = set()
        for name, judged in verdicts.items():
            for task, verdict in zip(chosen, judged, strict=True):
                if not verdict.passed and task.task_id not in failed:
                    failed.add(task.task_id)
                    made.dropped.append(Dropped(gate=name, reason=verdict.reason, task=task))
                    made.funnel[name][1] += 1
        if not failed:
            break
        tasks = [task for task in tasks if task.task_id not in failed]
    return [
        task.model_copy(
            update={
                "gates": [
                    verdicts[verdict.gate][number] if verdict.gate in verdicts else verdict
                    for verdict in task.gates
                ]
            }
        )
        for number, task in enumerate(chosen)
    ]


class _Pool:
    """Tasks that passed the executable gates, filled up as more are needed."""

    def __init__(
        self, world: World, proposer: Proposer, wanted: Wanted, made: Synthesised, progress: Progress | None
    ) -> None:
        self._world, self._made, self._progress = world, made, progress
        self._proposer, self._proposals = proposer, proposer.proposals()
        self._most = max(LEAST_OF_A_KIND, int(MOST_OF_A_KIND * wanted.count)) + 1
        self._kinds: Counter[str] = Counter()
        self._told: set[str] = set()
        self.tasks: list[Task] = []

    def fill(self, enough: int) -> bool:
        """Propose until there are enough; return whether there may be still more."""
        idle, before = 0, len(self.tasks)
        while len(self.tasks) < enough:
            if (idle := idle + 1) > PATIENCE:
                if len(self.tasks) - before < LEAST_OF_PATIENCE:
                    return False
                idle, before = 0, len(self.tasks)
            self._made.attempts += 1
            if self._progress is not None:
                self._progress("proposing tasks", len(self.tasks), enough)
            task = next(self._proposals, None)
            if task is None or self._is_known(task):
                continue
            judged, failed = judge(task, self._world, GATES, self._made.funnel)
            if failed is not None:
                self._made.dropped.append(Dropped(gate=failed.gate, reason=failed.reason, task=judged))
                continue
            self.tasks.append(judged)
            self._kinds[kind_of(judged)] += 1
            self._told.add(canonical_json(judged.answer))
            self._proposer.passed[judged.template.partition(":")[0]] += 1
        return True

    def _is_known(self, task: Task) -> bool:
        """Whether a proposal would be dropped in the end, as its answer or its kind is there already."""
        if self._kinds[kind_of(task)] >= self._most or task.question in self._told:
            return True
        self._told.add(task.question)
        return canonical_json(task.answer) in self._told


def judge(
    task: Task, world: World, gates: Mapping[str, Gate], funnel: dict[str, list[int]]
) -> tuple[Task, Verdict | None]:
    """Run gates until one fails; return the task with the verdicts, and the one that failed."""
    verdicts = list(task.gates)
    failed = None
    for name, gate in gates.items():
        count = funnel.setdefault(name, [0, 0])
        count[0] += 1
        verdict = gate(task, world)
        verdicts.append(verdict)
        if not verdict.passed:
            count[1] += 1
            failed = verdict
            break
    return task.model_copy(update={"gates": verdicts}), failed


def _through(
    made: Synthesised,
    name: str,
    tasks: Sequence[Task],
    verdicts: Sequence[Verdict],
    dropped: list[Dropped],
) -> list[Task]:
    made.funnel[name] = [len(tasks), sum(not verdict.passed for verdict in verdicts)]
    kept = []
    for task, verdict in zip(tasks, verdicts, strict=True):
        judged = task.model_copy(update={"gates": [*task.gates, verdict]})
        if verdict.passed:
            kept.append(judged)
        else:
            dropped.append(Dropped(gate=name, reason=verdict.reason, task=judged))
    return kept


def _rare_first(tasks: list[Task]) -> list[Task]:
    """Put tasks of servers that have few to the front, so that none of them is cut off."""
    counts = Counter(server for task in tasks for server in task.servers)
    most = RARE * len(tasks)
    return sorted(tasks, key=lambda task: min(counts[server] for server in task.servers) > most)


PHRASING = "phrasing"


def _modelled(
    world: World, wanted: Wanted, made: Synthesised, tasks: list[Task], progress: Progress | None
) -> list[Task]:
    """Have models word and judge the tasks, and check the new wording like the old."""
    if wanted.phraser is None and not wanted.model_gates:
        return tasks
    kept: list[Task] = []
    for number, task in enumerate(tasks):
        if len(kept) >= int(1.1 * wanted.count) + 2:
            break
        if progress is not None:
            progress("asking models", number, len(tasks))
        try:
            if wanted.phraser is not None:
                count = made.funnel.setdefault(PHRASING, [0, 0])
                count[0] += 1
                try:
                    text = wanted.phraser.question(task, world)
                except PhraseError as error:
                    count[1] += 1
                    made.dropped.append(Dropped(gate=PHRASING, reason=str(error), task=task))
                    continue
                task = reworded(task, text)
                checked, failed = judge(task, world, GATES, {})
                if failed is not None:
                    count[1] += 1
                    made.dropped.append(Dropped(gate=failed.gate, reason=failed.reason, task=checked))
                    continue
                old = [verdict for verdict in task.gates if verdict.gate not in GATES]
                task = checked.model_copy(update={"gates": [*checked.gates[-len(GATES) :], *old]})
            judged, failed = judge(task, world, wanted.model_gates, made.funnel)
        except FireflyError as error:
            # Models are asked task by task: what is finished is kept, and the rest is for another run.
            made.stopped = f"{error} ({len(kept)} of {len(tasks)} tasks are finished)"
            break
        if failed is None:
            kept.append(judged)
        else:
            made.dropped.append(Dropped(gate=failed.gate, reason=failed.reason, task=judged))
    return kept


def reworded(task: Task, question: str) -> Task:
    """Return a task with another question, and so with another id."""
    return task.model_copy(
        update={"question": question, "task_id": task_id(question, task.program, task.calls)}
    )


def _split(made: Synthesised, tasks: list[Task], wanted: Wanted) -> tuple[list[Task], list[Dropped]]:
    sides = split(tasks, wanted.seed, wanted.test_servers)
    made.funnel[SPLIT] = [len(tasks), sum(side is None for side, _ in sides)]
    kept, dropped = [], []
    for task, (side, why) in zip(tasks, sides, strict=True):
        if side is None:
            dropped.append(Dropped(gate=SPLIT, reason=why, task=task))
        else:
            kept.append(task.model_copy(update={"split": side}))
    return kept, dropped
