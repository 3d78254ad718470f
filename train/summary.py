"""The numbers of a run: how often it was right, on which tasks, and what it took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from random import Random
from typing import get_args

from recorder.canonical import encodable
from recorder.errors import FireflyError
from recorder.exchange import Record
from synth.task import Task
from train.rollout import Rollout, Stop
from train.statistics import Estimate, Paired, Tally, compare_paired, estimate, pass_at_k, pass_hat_k

GROUP_RESAMPLES = 1_000
"""For intervals of groups, of which there are many."""

REASONS = 20
"""Reasons of failures that are kept, the most frequent ones."""

LEVELS = ("easy", "medium", "hard")


class Counts(Record):
    """What became of rollouts."""

    rollouts: int
    scored: int
    """Those with a reward."""
    missed: int
    """Those that met a miss, scored all the same or not."""
    failed: int
    """Those that the policy gave no message in."""


class Group(Record):
    """Tasks that have something in common."""

    name: str
    tasks: int
    rollouts: int
    missed: int
    pass_1: Estimate


class Calls(Record):
    """What was called, over all rollouts."""

    made: int
    invalid: int
    """No such tool, or arguments that are no object."""
    errors: int
    """Of the tool, or refusals of its server."""
    misses: int
    tiers: dict[str, int]
    """Tier → answers, the most frequent first."""
    mean_trust: float | None
    """Over answers whose trust was measured; `None` where none was."""


class Cost(Record):
    """What all rollouts took together."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompts'."""
    completion_tokens: int
    usd: float | None
    """`None` where a price is not known."""
    seconds: float
    """Summed over rollouts, which may have been under way at once."""


class Summary(Record):
    """Estimates are means over tasks, with 95 % intervals; rollouts that are not scored count in none."""

    tasks: int
    """Those with a rollout."""
    untried: int
    samples: int
    """Rollouts of the task that has the most."""
    counts: Counts
    pass_at: dict[int, Estimate]
    """pass@k by k."""
    pass_all: dict[int, Estimate]
    """pass^k by k."""
    pass_1_misses_wrong: Estimate
    """pass@1 if every rollout that met a miss were wrong: what the misses could hide."""
    reward: float | None
    """Mean over scored rollouts."""
    fields_right: float | None
    """Share of the fields asked for, over scored rollouts."""
    by_server: list[Group]
    """By needed server; a task of several is in each."""
    by_difficulty: list[Group]
    by_calls: list[Group]
    """By calls of the reference trajectory."""
    by_servers: list[Group]
    """By number of needed servers."""
    stops: dict[Stop, int]
    failures: dict[str, int]
    """Reason → rollouts; the most frequent."""
    calls: Calls
    cost: Cost


def summarise(
    rollouts: Sequence[Rollout], tasks: Mapping[str, Task], ks: Iterable[int], *, seed: int = 0
) -> Summary:
    """Sum up a run. The order of its rollouts makes no difference.

    Args:
        tasks: By id; all that were to be tried.
        ks: For pass@k and pass^k; pass@1 is always there.
        seed: Of the intervals' resampling.

    Raises:
        FireflyError: a rollout is of another task.
    """
    by_task: dict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        by_task[rollout.task_id].append(rollout)
    if foreign := sorted(by_task.keys() - tasks.keys()):
        raise FireflyError(
            f"{len(foreign)} of {len(by_task)} tasks of these rollouts are not in the data set, first"
            f" {foreign[0]}: it must be the one that the run was made with"
        )
    tallies = tallies_of(rollouts)
    by_id = [tallies[task] for task in sorted(tallies)]
    wanted = sorted({1, *ks})

    def group(by: str, names: Callable[[Task], Iterable[str]]) -> list[Group]:
        members: dict[str, list[str]] = defaultdict(list)
        for task in sorted(by_task):
            for name in names(tasks[task]):
                members[name].append(task)
        return [
            Group(
                name=name,
                tasks=len(inside),
                rollouts=sum(len(by_task[task]) for task in inside),
                missed=sum(map(_missed, chain.from_iterable(by_task[task] for task in inside))),
                pass_1=estimate(
                    [tallies[task] for task in inside],
                    1,
                    _rng(seed, by, name),
                    resamples=GROUP_RESAMPLES,
                ),
            )
            for name, inside in sorted(members.items(), key=lambda found: _rank(found[0]))
        ]

    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    return Summary(
        tasks=len(by_task),
        untried=len(tasks) - len(by_task),
        samples=max(map(len, by_task.values()), default=0),
        counts=counts_of(rollouts),
        pass_at={k: estimate(by_id, k, _rng(seed, "pass@", k), of=pass_at_k) for k in wanted},
        pass_all={k: estimate(by_id, k, _rng(seed, "pass^", k), of=pass_hat_k) for k in wanted},
        pass_1_misses_wrong=estimate(
            [_with_misses(by_task[task]) for task in sorted(by_task)], 1, _rng(seed, "misses", 1)
        ),
        reward=math.fsum(rewards) / len(rewards) if rewards else None,
        fields_right=_fields_right(rollouts, tasks),
        by_server=group("server", lambda task: task.servers),
        by_difficulty=group("difficulty", lambda task: [task.difficulty.level]),
        by_calls=group("calls", lambda task: [_up_to_four(len(task.calls))]),
        by_servers=group("servers", lambda task: [_up_to_four(len(task.servers))]),
        stops=_stops(rollouts),
        failures=_most_frequent((rollout.failure for rollout in rollouts), REASONS),
        calls=_calls(rollouts),
        cost=_cost(rollouts),
    )


def tallies_of(rollouts: Iterable[Rollout]) -> dict[str, Tally]:
    """Return how each task went, be it without any scored rollout."""
    scored: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for rollout in rollouts:
        scored[rollout.task_id] += rollout.reward is not None
        right[rollout.task_id] += rollout.reward is not None and rollout.right
    return {task: Tally(scored[task], right[task]) for task in scored}


def counts_of(rollouts: Sequence[Rollout]) -> Counts:
    return Counts(
        rollouts=len(rollouts),
        scored=sum(rollout.reward is not None for rollout in rollouts),
        missed=sum(map(_missed, rollouts)),
        failed=sum(rollout.failure is not None for rollout in rollouts),
    )


def _missed(rollout: Rollout) -> bool:
    return any(call.outcome == "miss" for call in rollout.calls)


def _with_misses(tried: Sequence[Rollout]) -> Tally:
    missed = [_missed(rollout) for rollout in tried]
    counted = [
        rollout.right and not miss
        for rollout, miss in zip(tried, missed, strict=True)
        if miss or rollout.reward is not None
    ]
    return Tally(len(counted), sum(counted))


def _rng(seed: int, *what: object) -> Random:
    """Return a random source of one estimate's own, so that another k or group changes no other interval."""
    return Random(encodable(f"{seed}/{'/'.join(map(str, what))}"))


def _rank(name: str) -> tuple[int, str]:
    return (LEVELS.index(name), "") if name in LEVELS else (len(LEVELS), name)


def _up_to_four(number: int) -> str:
    return "4+" if number >= 4 else str(number)


def _fields_right(rollouts: Iterable[Rollout], tasks: Mapping[str, Task]) -> float | None:
    asked = right = 0
    for rollout in rollouts:
        if rollout.reward is not None:
            wanted = tasks[rollout.task_id].answer
            asked += len(wanted)
            right += sum(rollout.fields.get(name, False) for name in wanted)
    return right / asked if asked else None


def _stops(rollouts: Iterable[Rollout]) -> dict[Stop, int]:
    found = Counter(rollout.stop for rollout in rollouts)
    reasons: tuple[Stop, ...] = get_args(Stop)
    return {reason: found[reason] for reason in reasons}


def _most_frequent(names: Iterable[str | None], most: int | None = None) -> dict[str, int]:
    found = Counter(name for name in names if name is not None)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most])


def _calls(rollouts: Iterable[Rollout]) -> Calls:
    made = [call for rollout in rollouts for call in rollout.calls]
    outcomes = Counter(call.outcome for call in made)
    trusts = [call.trust for call in made if call.trust is not None]
    return Calls(
        made=len(made),
        invalid=outcomes["invalid"],
        errors=outcomes["error"],
        misses=outcomes["miss"],
        tiers=_most_frequent(call.tier for call in made),
        mean_trust=math.fsum(trusts) / len(trusts) if trusts else None,
    )


def _cost(rollouts: Sequence[Rollout]) -> Cost:
    prices = [rollout.cost_usd for rollout in rollouts if rollout.cost_usd is not None]
    return Cost(
        prompt_tokens=sum(rollout.prompt_tokens for rollout in rollouts),
        cached_tokens=sum(rollout.cached_tokens for rollout in rollouts),
        completion_tokens=sum(rollout.completion_tokens for rollout in rollouts),
        usd=math.fsum(prices) if len(prices) == len(rollouts) else None,
        seconds=math.fsum(rollout.seconds for rollout in rollouts),
    )


# --- two runs -----------------------------------------------------------------------------------------------


class Change(Record):
    """A task that went otherwise."""

    task_id: str
    first: float
    """Share of its scored rollouts that were right."""
    second: float


class Comparison(Record):
    first: Counts
    second: Counts
    """Where one run met many more misses, the tasks that it is scored on are easier to replay."""
    only_first: int
    """Tasks that only the first run has a scored rollout of."""
    only_second: int
    success: Paired
    changes: list[Change]
    """The greatest loss first, the greatest gain last."""


def compare(a: Sequence[Rollout], b: Sequence[Rollout], *, seed: int = 0) -> Comparison:
    """Compare two runs on the tasks that both have scored rollouts of."""
    first, second = tallies_of(a), tallies_of(b)
    in_first = {task for task, tally in first.items() if tally.scored}
    in_second = {task for task, tally in second.items() if tally.scored}
    rates = [
        (task, first[task].right / first[task].scored, second[task].right / second[task].scored)
        for task in in_first & in_second
    ]
    return Comparison(
        first=counts_of(a),
        second=counts_of(b),
        only_first=len(in_first - in_second),
        only_second=len(in_second - in_first),
        success=compare_paired(first, second, _rng(seed, "compare")),
        changes=[
            Change(task_id=task, first=before, second=after)
            for task, before, after in sorted(rates, key=lambda found: (found[2] - found[1], found[0]))
            if before != after
        ],
    )
