"""Plots of runs, as SVG text for reports, and learning curves as files. They need matplotlib."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recorder.errors import FireflyError
from train.rollout import Stop
from train.statistics import Estimate
from train.summary import Group, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, LINE, PAPER = "#3a414a", "#d9dde2", "#fffffe"
"""Of text, of the grid and behind all: colours that nothing else has, so that a page can put its own."""

FIRST, SECOND = "#2f6fd0", "#c9650a"
"""Of what is measured: legible on light and dark pages, and to those who see red and green alike."""

WIDTH = 5.4
"""Inches, of every plot of a report."""

MOST_GROUPS = 20

LONGEST_LABEL = 34


class NoPlots(FireflyError):
    """matplotlib is not installed."""


def summary_plots(summary: Summary) -> dict[str, str]:
    """Return the plots of a report, by file name without its ending, as whole SVG documents.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    worst = worst_first(summary.by_server)[:MOST_GROUPS]
    grouped = {
        "servers": worst,
        "difficulty": summary.by_difficulty,
        "calls": summary.by_calls,
        "number_of_servers": summary.by_servers,
    }
    with _style():
        return {
            "pass_at_k": _pass_curve(summary),
            **{name: _by_group(groups) for name, groups in grouped.items() if _drawn(groups)},
            "stops": _stops(summary.stops),
        }


def worst_first(groups: Sequence[Group]) -> list[Group]:
    """Return those groups that have a pass@1, the lowest first; the one with more tasks where they tie."""
    known = [(group.pass_1.value, group) for group in groups if group.pass_1.value is not None]
    return [group for _, group in sorted(known, key=lambda found: (found[0], -found[1].tasks, found[1].name))]


def _drawn(groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if group.pass_1.value is not None]


def _pass_curve(summary: Summary) -> str:
    figure, axes = _figure(3.1)
    for name, estimates, colour, marker in (
        ("pass@k: one of k tries is right", summary.pass_at, FIRST, "o"),
        ("pass^k: all of them are", summary.pass_all, SECOND, "s"),
    ):
        points = [(k, *bounds) for k, found in estimates.items() if (bounds := _bounds(found))]
        if not points:
            continue
        ks, values, lows, highs = zip(*points, strict=True)
        axes.fill_between(ks, lows, highs, color=colour, alpha=0.16, linewidth=0)
        axes.plot(ks, values, color=colour, marker=marker, markersize=5, linewidth=1.8, label=name)
    shown = {k: found for k, found in summary.pass_at.items() if found.value is not None}
    if len(shown) > 1:
        axes.set_xscale("log", base=2)
    # Points over fewer tasks are over others, too: those that are scored most.
    axes.set_xticks(
        list(shown),
        [f"{k}\n{found.tasks:,} tasks" if found.left_out else str(k) for k, found in shown.items()],
    )
    axes.set_xticks([], minor=True)
    axes.set_xlabel("k")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(_percent)
    if shown:
        axes.legend(frameon=False, loc="best", fontsize=9)
    return _svg(figure)


def _by_group(groups: Sequence[Group]) -> str:
    """Draw pass@1 of each group as a dot on its interval, from the top down."""
    drawn = _drawn(groups)
    figure, axes = _figure(0.7 + 0.3 * len(drawn))
    for place, group in enumerate(drawn):
        value, low, high = _bounds(group.pass_1) or (0.0, 0.0, 0.0)
        axes.plot([low, high], [place, place], color=FIRST, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
        axes.plot([value], [place], color=FIRST, marker="o", markersize=6, linestyle="none")
    axes.set_yticks(range(len(drawn)), [f"{_label(each.name)}  ({each.pass_1.tasks})" for each in drawn])
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(_percent)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return _svg(figure)


def _stops(stops: Mapping[Stop, int]) -> str:
    figure, axes = _figure(0.5 + 0.3 * len(stops))
    places, counts = range(len(stops)), list(stops.values())
    bars = axes.barh(places, counts, color=FIRST, height=0.62)
    total = sum(counts) or 1
    axes.bar_label(
        bars, [f"{count:,} ({100 * count / total:.1f} %)" for count in counts], padding=4, fontsize=9
    )
    axes.set_yticks(places, list(stops))
    axes.set_ylim(len(stops) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(counts, default=0) or 1)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    return _svg(figure)


def _bounds(found: Estimate) -> tuple[float, float, float] | None:
    if found.value is None or found.low is None or found.high is None:
        return None
    return found.value, found.low, found.high


def _distances(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Return how far intervals reach below and above; a bootstrap interval may lie beside its value by a
    rounding error."""
    below = [max(0.0, value - low) for value, low in zip(values, lows, strict=True)]
    return below, [max(0.0, high - value) for value, high in zip(values, highs, strict=True)]


# --- learning curves ----------------------------------------------------------------------------------------

CURVES = {
    "reward": "Reward",
    "held_out/pass@1": "pass@1 on held-out tasks",
    "rollouts/right": "Right rollouts",
    "rollouts/missed": "Rollouts that met a miss",
    "completions/mean_length": "Completion length, tokens",
    "entropy": "Entropy, nats",
    "kl": "KL from the reference",
    "grad_norm": "Gradient norm",
    "loss": "Loss",
    "learning_rate": "Learning rate",
}
"""Metric → its title, in the order that they are drawn in; others follow under their own names, if they ever
change."""

NOT_DRAWN = frozenset(
    {
        "step",
        "epoch",
        "num_tokens",
        "rewards/verified/mean",
        "rewards/verified/std",
        *(f"completions/{bound}_{kind}length" for bound in ("min", "max") for kind in ("", "terminated_")),
        "completions/mean_terminated_length",
    }
)
"""What only grows, or says what another one says."""

SMOOTHED_FROM = 12
"""Points; below, a smoothed line shows nothing more."""


def learning_curves(rows: Sequence[Mapping[str, float]], path: Path) -> list[Path]:
    """Draw metrics over training steps, the raw values and a smoothed line, as PNG and as SVG.

    `NAME_low` with `NAME_high` is the interval of `NAME`, and is drawn with it.

    Args:
        rows: Each with `step` and any metrics. Values that are no finite number are left out.
        path: Whose ending is replaced.

    Returns:
        The files: `.png` and `.svg`.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    curves = _curves(rows)
    bounds = {
        f"{name}_{end}" for name in curves for end in ("low", "high")
        if {f"{name}_low", f"{name}_high"} <= curves.keys()
    }  # fmt: skip
    names = [name for name in CURVES if name in curves]
    others = curves.keys() - CURVES.keys() - bounds - NOT_DRAWN
    names += sorted(name for name in others if len(set(curves[name].values())) > 1)
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with _style():
        from matplotlib.figure import Figure

        columns = min(3, max(1, len(names)))
        lines = max(1, math.ceil(len(names) / columns))
        figure = Figure(figsize=(4.2 * columns, 2.6 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        for name, axes in zip(names, grid.flat, strict=False):
            interval = (curves.get(f"{name}_low", {}), curves.get(f"{name}_high", {}))
            _curve(axes, CURVES.get(name, _label(name)), curves[name], interval)
        figure.savefig(files[0], dpi=150, metadata={"Software": None})
        files[1].write_text(_svg(figure), encoding="utf-8")
    return files


def _curves(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """Return each metric's values by step, in the order of the steps; a later row of a step wins."""
    curves: dict[str, dict[int, float]] = {}
    for row in sorted(rows, key=lambda each: each["step"]):
        for name, value in row.items():
            number: Any = value
            if isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number):
                curves.setdefault(name, {})[int(row["step"])] = float(number)
    return curves


def _curve(
    axes: Axes,
    title: str,
    curve: Mapping[int, float],
    interval: tuple[Mapping[int, float], Mapping[int, float]],
) -> None:
    steps, values = list(curve), list(curve.values())
    low, high = interval
    known = [step for step in steps if step in low and step in high]
    dense = len(steps) >= SMOOTHED_FROM and not known
    if known:
        reach = _distances([curve[s] for s in known], [low[s] for s in known], [high[s] for s in known])
        axes.errorbar(
            known, [curve[s] for s in known], yerr=reach, color=FIRST, linestyle="none", elinewidth=1.2,
            capsize=2.5,
        )  # fmt: skip
    if dense:
        axes.plot(steps, values, color=FIRST, linewidth=0.9, alpha=0.38)
        axes.plot(steps, smoothed(values), color=FIRST, linewidth=1.9)
    else:
        axes.plot(steps, values, color=FIRST, linewidth=1.6, marker="o", markersize=3.5)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("step", fontsize=9)


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the exponential moving average of a series, without its bias towards the start.

    It reaches over about a fifteenth of the series, and over five values at least.
    """
    keep = 1 - 2 / (max(5.0, len(values) / 15) + 1)
    total = weight = 0.0
    found = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        found.append(total / weight)
    return found


# --- the look -----------------------------------------------------------------------------------------------


@contextmanager
def _style() -> Iterator[None]:
    """Draw in the look of all plots; what is set for that is set back at the end.

    Raises:
        NoPlots: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise NoPlots("plots need matplotlib: pip install 'firefly-proxy[eval]'") from error
    settings: dict[Any, Any] = {
        # Text stays text, which a page sets in its own font; ids that do not change from run to run.
        "svg.fonttype": "none",
        "svg.hashsalt": "firefly",
        # A server may be called `$x`.
        "text.parse_math": False,
        "font.family": ["sans-serif"],
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "axes.facecolor": PAPER,
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.grid": True,
        "figure.constrained_layout.w_pad": 0.09,
        "figure.constrained_layout.h_pad": 0.07,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Letters that the measuring font lacks are in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    # Without a date, the same numbers make the same file.
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _percent(value: float, _place: float | None = None) -> str:
    return f"{100 * value:.0f} %"


def _label(text: str) -> str:
    """Return a name as a label: only what XML can hold, and not too long."""
    clean = "".join(char if char.isprintable() else "?" for char in text)
    return clean if len(clean) <= LONGEST_LABEL else f"{clean[: LONGEST_LABEL - 1]}…"
