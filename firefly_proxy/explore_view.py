"""What `firefly explore` shows: a line of progress, and the coverage in the end."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from firefly_proxy.tables import cell, console, table
from recorder.explore.campaign import Campaign, Limits
from recorder.explore.coverage import CoverageReport, ServerCoverage

STEP_S, LOG_STEP_S = 0.2, 15.0
"""Between two lines of progress: on a terminal, which are written over, and in a file."""

ENDINGS = {
    "calls": "all calls are made",
    "sub-DAGs": "all sub-DAGs are walked",
    "minutes": "the time is over",
    "budget": "the budget is used up",
    "exhausted": "nothing new is left to call",
    "interrupted": "interrupted; --resume goes on",
}


@contextmanager
def progress_line(limits: Limits) -> Iterator[Callable[[Campaign, float], None]]:
    """Tell of a campaign's progress on standard error."""
    terminal = sys.stderr.isatty()
    lock = threading.Lock()
    last = time.monotonic()
    shown = False

    def tell(campaign: Campaign, cost_usd: float) -> None:
        nonlocal last, shown
        with lock:
            now = time.monotonic()
            if now - last < (STEP_S if terminal else LOG_STEP_S):
                return
            last, shown = now, True
            line = _line(campaign, limits, cost_usd)
            sys.stderr.write(f"\r\x1b[K{line[:150]}" if terminal else f"{line}\n")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if terminal and shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _line(campaign: Campaign, limits: Limits, cost_usd: float) -> str:
    tallies = list(campaign.tallies.values())
    calls = campaign.calls + campaign.under_way
    distinct = sum(tally.distinct for tally in tallies)
    effective = sum(tally.effective for tally in tallies)
    reached = sum(bool(v["effective"]) for tally in tallies for v in list(tally.verdicts.values()))
    tools = sum(len(server.tools) for server in list(campaign.known.values()))
    confirmed = sum(edge.seen >= 2 for edge in campaign.graph.edges)
    parts = [
        f"{calls} calls",
        f"{100 * effective // distinct} % effective" if distinct else "",
        f"{reached} of {tools} tools reached" if tools else "",
        f"{confirmed} edges confirmed",
        f"${cost_usd:.2f}" if cost_usd else "",
        _time_left(campaign, limits, calls),
    ]
    return " · ".join(part for part in parts if part)


def _time_left(campaign: Campaign, limits: Limits, calls: int) -> str:
    """Guess from what was done so far when the first limit is reached."""
    spent_s = time.monotonic() - campaign.started
    shares = []
    most = limits.calls
    if limits.calls_per_server is not None:
        in_all = limits.calls_per_server * len(campaign.servers)
        most = in_all if most is None else min(most, in_all)
    if most:
        shares.append(calls / most)
    if limits.minutes is not None:
        shares.append(spent_s / (60 * limits.minutes))
    if limits.sub_dags is not None:
        shares.append(sum(walk.kind == "sub-dag" for walk in campaign.walks) / limits.sub_dags)
    share = max(shares, default=0.0)
    if not 0.02 < share < 1:
        return ""
    left_s = int(spent_s * (1 - share) / share)
    return f"about {left_s // 60}:{left_s % 60:02} left"


def print_coverage(report: CoverageReport) -> None:
    """Print each server's figures, then the tools that were not reached and what they wait for."""
    out = console()
    numbers = ("calls", "effective", "tools reached", "open", "restarts")
    listing = table(
        "server", *numbers, "why the rest failed", folding=("why the rest failed",), right=numbers
    )
    for server in report.servers:
        rate = "" if server.effective_rate is None else f"{100 * server.effective_rate:.0f} %"
        reached = f"{server.reached} of {len(server.tools)}"
        why = _why(server)
        listing.add_row(
            cell(server.server),
            str(server.calls),
            rate,
            reached,
            str(server.open),
            str(server.restarts),
            cell(why),
        )
    out.print(listing)
    missing = [(server, tool) for server in report.servers for tool in server.tools if tool.waits_for]
    if missing:
        waiting = table("not reached", "calls", "waits for", folding=("waits for",), right=("calls",))
        for server, tool in missing:
            waiting.add_row(cell(f"{server.server}/{tool.tool}"), str(tool.calls), cell(tool.waits_for or ""))
        out.print(waiting)
    rate = "none" if report.effective_rate is None else f"{100 * report.effective_rate:.1f} %"
    edges = ", ".join(f"{count} {evidence}" for evidence, count in report.edges.items() if count)
    lines = [
        f"{report.calls} calls in {report.seconds:.0f} s: {rate} effective (mean of the servers),"
        f" {report.reached} of {report.listed} tools reached ({report.open} may be called)",
        f"graph: {edges or 'no'} edges, {report.edges_confirmed} seen to flow twice",
        f"walks: {', '.join(f'{count} {kind}' for kind, count in report.walks.items())}"
        + (f"; ${report.cost_usd:.4f}" if report.cost_usd else ""),
        f"{report.campaign} ended: {ENDINGS[report.ending]}",
    ]
    for line in lines:
        out.print(cell(line), soft_wrap=True)


def _why(server: ServerCoverage) -> str:
    if server.problem:
        return server.problem
    counts: dict[str, int] = {}
    for tool in server.tools:
        for why, count in tool.failed.items():
            counts[why] = counts.get(why, 0) + count
    return ", ".join(f"{count} {why}" for why, count in sorted(counts.items(), key=lambda item: -item[1]))
