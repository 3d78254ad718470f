"""Gate "closed book": no model knows the answer without tools."""

from __future__ import annotations

from collections.abc import Sequence

from recorder.canonical import readable_json
from synth.answers import is_right
from synth.export.conversation import answer_in
from synth.model import Models, read_spec
from synth.task import Task, Verdict
from synth.world import World

GATE = "closed book"

SYSTEM = """\
Answer the question as well as you can. You have no tools and cannot look anything up: answer from what you
know and from the question itself, and where you do not know, guess. Do not refuse, and leave no field out.

Reply with the answer as one JSON object that follows the schema. In the schema, `x-unit` is the unit of a
number, and `x-order` says whether the order of a list matters."""


class ClosedBook:
    """Asks models the question alone. A task fails if any answer is right.

    Args:
        specs: Models, as `Models` takes them.
        samples: Answers of each.
    """

    def __init__(self, models: Models, specs: Sequence[str], samples: int = 3) -> None:
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        self._models, self._specs, self._samples = models, tuple(dict.fromkeys(specs)), samples

    def __call__(self, task: Task, world: World) -> Verdict:
        """Return the verdict; a refusal, and an answer that is none, are not right.

        Raises:
            BudgetError, CompletionError: as `Models.ask` says.
        """
        if not self._specs:
            return Verdict(gate=GATE, passed=True, reason="not asked: no models")
        right = {read_spec(spec).name: self._right(spec, task) for spec in self._specs}
        counts = ", ".join(f"{name}: {count} of {self._samples}" for name, count in right.items())
        total = sum(right.values())
        reason = f"right in {total} of {self._samples * len(right)} answers without tools ({counts})"
        return Verdict(gate=GATE, passed=total == 0, reason=reason)

    def _right(self, spec: str, task: Task) -> int:
        """Return how many of a model's answers are right."""
        prompt = f"{task.question}\n\nThe schema of the answer:\n{readable_json(task.answer_schema)}"
        messages = [{"role": "user", "content": prompt}]
        replies = (
            self._models.ask(spec, messages, system=SYSTEM, sample=sample) for sample in range(self._samples)
        )
        return sum(is_right(task.answer_schema, task.answer, answer_in(reply.text)) for reply in replies)
