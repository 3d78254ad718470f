"""G5: an answer cannot be had by giving what is mostly right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from recorder.canonical import canonical_json
from recorder.exchange import Json
from synth.task import Task, Verdict
from synth.world import World

NAME = "guessability"

FEWEST = 2
"""Other tasks with a value before it is known as what is mostly right."""


def guessability(tasks: Sequence[Task], world: World) -> list[Verdict]:
    """Fail tasks all of whose fields are what is most often right, or a coin's sides.

    What is most often right is counted over the other tasks: by a field's name, among tasks of the same
    template and tools, and among all.
    """
    by_field: dict[str, Counter[str]] = defaultdict(Counter)
    for task in tasks:
        for at in _places(task):
            by_field[at[0]][at[1]] += 1
    common = {place: counts.most_common(2) for place, counts in by_field.items()}
    verdicts = []
    told: set[str] = set()
    for task in tasks:
        verdicts.append(_judged(task, by_field, common, told))
        told.add(canonical_json(task.answer))
    return verdicts


Counts = dict[str, Counter[str]]
Common = dict[str, list[tuple[str, int]]]
"""The two most common values of a field."""


def _judged(task: Task, by_field: Counts, common: Common, told: set[str]) -> Verdict:
    if all(_is_coin(value) for value in task.answer.values()):
        reason = "all of the answer is true, false, or next to nothing"
        return Verdict(gate=NAME, passed=False, reason=reason)
    if canonical_json(task.answer) in told:
        return Verdict(gate=NAME, passed=False, reason="an earlier task has the same answer")
    guessed = 0
    for name, value in task.answer.items():
        text = canonical_json(value)
        guessed += any(
            _is_guess(by_field[place][text] - 1, text, common[place])
            for place in (_of_kind(task, name), _of_name(name))
        )
    if guessed == len(task.answer):
        reason = "every field is what is most often right for such a field"
        return Verdict(gate=NAME, passed=False, reason=reason)
    reason = f"{guessed} of {len(task.answer)} fields are the most common value"
    return Verdict(gate=NAME, passed=True, reason=reason)


def _is_guess(elsewhere: int, value: str, common: list[tuple[str, int]]) -> bool:
    """Whether somebody who knows the other tasks would guess this value.

    Args:
        elsewhere: How many other tasks have it.
    """
    other = next((count for most, count in common if most != value), 0)
    return elsewhere >= max(FEWEST, other)


def _places(task: Task) -> list[tuple[str, str]]:
    found = []
    for name, value in task.answer.items():
        text = canonical_json(value)
        found += [(_of_kind(task, name), text), (_of_name(name), text)]
    return found


def _of_kind(task: Task, name: str) -> str:
    return f"{task.template}\0{'+'.join(f'{tool.server}/{tool.name}' for tool in task.tools)}\0{name}"


def _of_name(name: str) -> str:
    return f"\0{name}"


def _is_coin(value: Json) -> bool:
    if isinstance(value, bool):
        return True
    return isinstance(value, int | float) and value in (0, 1)
