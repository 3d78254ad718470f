"""What `firefly-proxy fidelity` shows: a table, and the curve of risk over coverage as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firefly_proxy.tables import cell, console, table
from recorder.errors import FireflyError

SIZE, MARGIN = 480, 56


def print_fidelity(view: dict[str, Any]) -> None:
    """Print the numbers of `Fidelity.as_json`."""
    out = console()
    counts = ("calls", "answered", "agreed", "coverage", "wrong")
    listing = table("", *counts, right=counts)
    baseline = view["baseline"]
    listing.add_row("replay", *_numbers(view))
    for tier, tally in view["by_tier"].items():
        listing.add_row(f"  {tier}", *_numbers(tally))
    listing.add_row("baseline, always answering", *_numbers(baseline))
    for tier, tally in baseline["by_tier"].items():
        listing.add_row(f"  {tier}", *_numbers(tally))
    if len(view["by_server"]) > 1:
        for server, tally in view["by_server"].items():
            listing.add_row(cell(f"server {server}"), *_numbers(tally))
    out.print(listing)
    low, high = view["interval"] or (None, None)
    calibration = view["calibration"]
    lines = [
        f"{view['sessions']} sessions held out. 95 % interval of the wrong rate over them: "
        f"{_percent(low)} to {_percent(high)}",
        f"wrong under the learned mask, too: {_percent(view['wrong_rate_learned'])}",
        f"expected calibration error {_plain(calibration['expected_calibration_error'])}, area under the "
        f"risk-coverage curve {_plain(calibration['area_under_risk_coverage'])}",
        "served from a trust of "
        + ", ".join(
            f"{_plain(value)} ({name.replace('_', ' ')})" for name, value in view["thresholds"].items()
        ),
    ]
    for line in lines:
        out.print(cell(line), soft_wrap=True)


def write_plot(view: dict[str, Any], path: Path) -> None:
    """Draw the curve of risk over coverage as SVG, with the baseline as a point.

    Raises:
        FireflyError: the file cannot be written.
    """
    points = [
        (point["coverage"], point["wrong_rate"])
        for point in view["curve"]
        if point["coverage"] and point["wrong_rate"] is not None
    ]
    marks = [("baseline", view["baseline"], "#b3261e"), ("default", view, "#1f5fbf")]
    shown = [
        (name, tally["coverage"], tally["wrong_rate"], colour)
        for name, tally, colour in marks
        if tally["wrong_rate"] is not None
    ]
    top = (
        max(0.05, *(risk for _, risk in points), *(risk for _, _, risk, _ in shown)) * 1.1 if points else 1.0
    )
    try:
        path.write_text(_svg(points, shown, top), encoding="utf-8")
    except OSError as error:
        raise FireflyError(f"cannot write {path}: {error.strerror}") from error


def _svg(
    points: Sequence[tuple[float, float]], marks: Sequence[tuple[str, float, float, str]], top: float
) -> str:
    def at(coverage: float, risk: float) -> tuple[float, float]:
        inner = SIZE - 2 * MARGIN
        return MARGIN + coverage * inner, SIZE - MARGIN - risk / top * inner

    line = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in sorted(points))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{SIZE}" height="{SIZE}" fill="white"/>',
    ]
    for step in range(6):
        share = step / 5
        x, y = at(share, share * top)
        parts += [
            f'<line x1="{x:.1f}" y1="{MARGIN}" x2="{x:.1f}" y2="{SIZE - MARGIN}" stroke="#ddd"/>',
            f'<line x1="{MARGIN}" y1="{y:.1f}" x2="{SIZE - MARGIN}" y2="{y:.1f}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{SIZE - MARGIN + 18}" text-anchor="middle">{share:.0%}</text>',
            f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{share * top:.1%}</text>',
        ]
    parts.append(f'<polyline points="{line}" fill="none" stroke="#1f5fbf" stroke-width="2"/>')
    for name, coverage, risk, colour in marks:
        x, y = at(coverage, risk)
        side = ("end", x - 9) if coverage > 0.5 else ("start", x + 9)
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>',
            f'<text x="{side[1]:.1f}" y="{y - 8:.1f}" text-anchor="{side[0]}" fill="{colour}">{name}</text>',
        ]
    middle = SIZE / 2
    parts += [
        f'<text x="{middle}" y="{SIZE - 12}" text-anchor="middle">calls answered</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        "answers that are wrong</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _numbers(tally: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(tally["calls"]),
        str(tally["answered"]),
        str(tally["agreed"]),
        _percent(tally["coverage"]),
        _percent(tally["wrong_rate"]),
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _plain(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
