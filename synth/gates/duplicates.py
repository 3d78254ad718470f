"""G11: no task is another one over again, and no kind of task crowds out the others."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from recorder.canonical import canonical_json
from synth.program import renumbered
from synth.task import Task, Verdict
from synth.world import World

NAME = "near-duplicates"

MOST_OF_A_KIND = 0.03
"""Share of the set that tasks with the same tools and the same template may have."""

LEAST_OF_A_KIND = 2
"""Tasks that each kind may have, however small the set."""

ALIKE = 0.8
"""Similarity (Jaccard, over fields and calls, or over three words of the question) of what is the same
task."""


def duplicates(tasks: Sequence[Task], world: World) -> list[Verdict]:
    """Fail tasks that repeat an earlier one, then the last ones of kinds that are too frequent."""
    verdicts = _repeated(tasks)
    kept = [n for n, verdict in enumerate(verdicts) if verdict.passed]
    spread = set(well_spread([tasks[n] for n in kept]))
    for place, n in enumerate(kept):
        if place not in spread:
            reason = "there are enough tasks with the same tools and template already"
            verdicts[n] = Verdict(gate=NAME, passed=False, reason=reason)
    return verdicts


def well_spread(tasks: Sequence[Task], most: int | None = None) -> list[int]:
    """Return the numbers of the first tasks, at most `most`, of which no kind has more than its share."""
    total = len(tasks) if most is None else min(most, len(tasks))
    while True:
        each = max(LEAST_OF_A_KIND, int(MOST_OF_A_KIND * total))
        counts: Counter[str] = Counter()
        chosen: list[int] = []
        for n, task in enumerate(tasks):
            if len(chosen) < total and counts[kind_of(task)] < each:
                counts[kind_of(task)] += 1
                chosen.append(n)
        if len(chosen) == total or each == LEAST_OF_A_KIND:
            return chosen
        total = len(chosen)


def kind_of(task: Task) -> str:
    """Return what tasks of the same tools and template have in common."""
    tools = sorted(f"{tool.server}/{tool.name}" for tool in task.tools)
    return f"{task.template} | {' '.join(tools)}"


def _repeated(tasks: Sequence[Task]) -> list[Verdict]:
    verdicts = []
    questions: set[str] = set()
    by_calls: dict[str, list[tuple[frozenset[str], str]]] = defaultdict(list)
    buckets: dict[tuple[int, int], list[tuple[frozenset[str], str]]] = defaultdict(list)
    for task in tasks:
        text = " ".join(task.question.lower().split())
        made = [canonical_json([c.server, c.tool, c.arguments]) for c in task.calls]
        calls = canonical_json(sorted(made))
        # Numbered by what is called, so that the order of the calls does not matter.
        numbers = {n: sorted(made).index(call) for n, call in enumerate(made)}
        fields = frozenset(
            canonical_json(renumbered(expression, numbers)) for expression in task.program.fields.values()
        )
        shingles = _shingles(text)
        reason = ""
        if text in questions:
            reason = "the question is there already"
        for other, name in by_calls[calls]:
            if not reason and _jaccard(fields, other) > 0.5:
                reason = f"task {name} asks the same of the same calls"
        bands = list(enumerate(_bands(shingles)))
        for band in bands:
            for other, name in buckets[band]:
                if not reason and _jaccard(shingles, other) >= ALIKE + 0.1:
                    reason = f"task {name} is worded alike"
        if not reason:
            questions.add(text)
            by_calls[calls].append((fields, task.task_id))
            for band in bands:
                buckets[band].append((shingles, task.task_id))
        verdicts.append(Verdict(gate=NAME, passed=not reason, reason=reason or "no other task is like it"))
    return verdicts


def _shingles(text: str) -> frozenset[str]:
    words = re.findall(r"\w+|[^\w\s]", text)
    return frozenset(" ".join(words[n : n + 3]) for n in range(max(1, len(words) - 2)))


_HASHES, _ROWS = 24, 4


def _bands(shingles: frozenset[str]) -> list[int]:
    """Return hashes that sets as alike as `ALIKE` most likely share one of (MinHash; A. Broder, 1997)."""
    lowest = [2**64] * _HASHES
    for shingle in shingles:
        digest = hashlib.blake2b(shingle.encode("utf-8", "replace"), digest_size=64).digest()
        base, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big") | 1
        for n in range(_HASHES):
            lowest[n] = min(lowest[n], (base + n * step) % 2**64)
    return [hash(tuple(lowest[n : n + _ROWS])) for n in range(0, _HASHES, _ROWS)]


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left or right else 1.0
