"""What `synth` and `synth check` print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from firefly_proxy.tables import cell, console, table
from synth.check import Audit

MOST_SHOWN = 20


def print_made(out: Path, told: Mapping[str, Any]) -> None:
    """Print the funnel and the figures of a data set."""
    shown = console()
    funnel = table("gate", "came", "dropped", right=("came", "dropped"))
    for name, count in told["funnel"].items():
        funnel.add_row(name, str(count["came"]), str(count["dropped"]))
    shown.print(funnel)
    found = told["figures"]
    splits = ", ".join(f"{count} {name}" for name, count in found["by_split"].items())
    lines = [
        f"{found['tasks']} tasks from {found['servers']} servers ({splits or 'none'})",
        f"{found['mean_calls']:.2f} calls a task, {100 * found['multi_call']:.0f} % with several; of these"
        f" {100 * found['with_flow_of_multi_call']:.0f} % take an argument from an earlier output;"
        f" {100 * found['across_servers']:.0f} % cross servers",
        f"{found['mean_fields']:.2f} fields an answer; the most frequent kind has"
        f" {100 * found['largest_kind']:.1f} % of the tasks",
        f"written to {out}",
    ]
    for line in lines:
        shown.print(cell(line), soft_wrap=True)


def print_audit(found: Audit) -> None:
    shown = console()
    if found.findings:
        rows = table("task", "gate", "what differs", folding=("what differs",))
        for finding in found.findings[:MOST_SHOWN]:
            rows.add_row(finding.task_id, finding.gate, cell(finding.reason))
        shown.print(rows)
        if len(found.findings) > MOST_SHOWN:
            shown.print(f"and {len(found.findings) - MOST_SHOWN} more")
    if found.live_checked:
        shown.print(
            f"{found.live_same} of {found.live_checked} answers came out the same from the real servers"
        )
    wrong = len({finding.task_id for finding in found.findings})
    shown.print(f"{found.tasks - wrong} of {found.tasks} tasks hold")
