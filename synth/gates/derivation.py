"""G1: the answer is what the program says of the recorded outputs."""

from __future__ import annotations

from recorder.canonical import canonical_json
from synth.answers import fits
from synth.program import ProgramError, run
from synth.task import Task, Verdict
from synth.world import World

NAME = "program re-derivation"


def derivation(task: Task, world: World) -> Verdict:
    """Fail where the program has no answer, another one than is stored, or one that its schema does not
    allow."""
    try:
        derived = run(task.program, world.trees(task.calls)).answer
    except ProgramError as error:
        return Verdict(gate=NAME, passed=False, reason=f"the program has no answer: {error}"[:200])
    for name in task.answer.keys() | derived.keys():
        if name not in derived:
            return Verdict(gate=NAME, passed=False, reason=f"field {name} comes out of no output")
        stored = task.answer.get(name)
        if name not in task.answer or canonical_json(stored) != canonical_json(derived[name]):
            reason = f"field {name} is {derived[name]!r:.60}, and {stored!r:.60} is stored"
            return Verdict(gate=NAME, passed=False, reason=reason)
    if (wrong := fits(task.answer_schema, task.answer)) is not None:
        return Verdict(gate=NAME, passed=False, reason=wrong)
    return Verdict(gate=NAME, passed=True, reason=f"{len(derived)} fields re-derived")
