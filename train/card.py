"""What a trained model says of itself: README.md beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from train.models import name_of

CARD = "README.md"

HEADLINES = (
    "held_out/pass@1",
    "held_out/pass@1_low",
    "held_out/pass@1_high",
    "held_out/missed",
    "reward",
    "rollouts/right",
    "rollouts/missed",
    "loss",
)
"""Metrics of the first and the last step that the card shows, where there are any."""


def write_card(
    folder: Path,
    *,
    method: str,
    settings: Mapping[str, Any],
    came_of_it: Mapping[str, Any],
    metrics: Sequence[Mapping[str, float]],
) -> None:
    """Write the card: the base, the world by its hash, settings, and first and last figures."""
    lines = [
        f"# {name_of(str(settings['model']))}, trained with {method}",
        "",
        f"Trained by `firefly train {method.lower()}` from `{settings['model']}`, offline, in the replay of"
        " recorded MCP servers. The model, or the adapter, is in `model/`.",
        "",
        "| what | value |",
        "|---|---|",
        f"| world (hash of the recorded sessions) | `{settings['world']}` |",
        f"| tasks (hash of their ids) | `{settings['tasks']}` |",
        *(f"| {name} | `{readable_json(value)}` |" for name, value in came_of_it.items()),
        "",
        "## Figures",
        "",
        "| metric | first | last |",
        "|---|---|---|",
    ]
    for name in HEADLINES:
        rows = [row for row in metrics if name in row]
        if rows:
            first, last = rows[0], rows[-1]
            ends = (f"{row[name]:.4g} (step {row['step']})" for row in (first, last))
            lines.append(f"| {name} | {' | '.join(ends)} |")
    lines += ["", "All of them are in metrics.jsonl, and drawn in curves.png.", "", "## Settings", ""]
    lines += ["```json", readable_json(dict(settings)).replace("```", "` ` `"), "```", ""]
    (folder / CARD).write_text("\n".join(lines), encoding="utf-8", errors="backslashreplace")
