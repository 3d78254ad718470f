"""Rollouts out of training, readable: what the numbers are about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recorder.canonical import readable_json
from train.environment import Message
from train.suite import Suite
from train.training import is_main

if TYPE_CHECKING:
    from train.grpo import Verified

SAMPLES = "samples.md"

PER_LOG = 2
"""Rollouts that are written each time."""

LONGEST = 1500
"""Characters of a message that are shown."""


class SampleLog(TrainerCallback):
    """Appends some rollouts of the last batch to `samples.md` whenever metrics are logged."""

    def __init__(self, folder: Path, suite: Suite, reward: Verified) -> None:
        self._path, self._suite, self._reward = folder / SAMPLES, suite, reward
        self._shown = -1
        """The step whose rollouts were written last."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The last step is logged twice, the second time with sums of all.
        if not is_main() or not self._reward.last or state.global_step == self._shown:
            return
        self._shown = state.global_step
        # One that was right and one that was not, where there are both.
        best = sorted(self._reward.last, key=lambda each: not each[2].right)
        shown = [best[0], best[-1]][: min(PER_LOG, len(best))]
        with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            for task_id, messages, score, reward in shown:
                task = self._suite.by_id[task_id]
                told = "not scored" if reward is None else f"reward {reward:g}"
                file.write(f"## Step {state.global_step}: task {task_id}, {told}\n\n")
                file.write(conversation([{"role": "user", "content": task.question}, *messages]))
                file.write(f"The answer is `{readable_json(task.answer)}`; right: {score.right}\n\n")


def conversation(messages: Sequence[Message]) -> str:
    """Return messages as Markdown that no text in them can break out of."""
    parts = []
    for message in messages:
        text = str(message.get("content") or "")
        for call in message.get("tool_calls") or []:
            function = call["function"]
            text += f"\n→ {function['name']} {readable_json(function['arguments'])}"
        cut = text.strip()[:LONGEST] + ("…" if len(text) > LONGEST else "")
        parts.append(
            f"*{message['role']}*\n\n" + "".join(f"    {line}\n" for line in cut.splitlines() or [""])
        )
    return "\n".join(parts) + "\n"
