"""What replays missed: listed, and asked of the real servers so that the recording has it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firefly_proxy.live import LiveError, LiveServer, live_servers
from firefly_proxy.tables import cell, console, table
from recorder.canonical import canonical_json
from replayer.journal import Journal, MissedRequest
from replayer.nearest import shown

PLACEHOLDER = "[redacted:"
"""How a secret stands in the journal: such a request cannot be asked again."""

logger = logging.getLogger(__name__)


def misses_json(misses: Sequence[MissedRequest]) -> dict[str, Any]:
    return {"misses": [missed.model_dump() for missed in misses], "asked": sum(m.times for m in misses)}


def print_misses(misses: Sequence[MissedRequest]) -> None:
    """Print what was missed, most often asked first."""
    out = console()
    if not misses:
        out.print("Nothing was missed.")
        return
    listing = table("times", "group", "missed", "nearest differs at", folding=["missed"], right=["times"])
    for missed in misses:
        nearest = missed.nearest[0]["differs_at"] if missed.nearest else []
        listing.add_row(
            str(missed.times),
            cell(missed.group or ""),
            cell(_asked(missed)),
            cell(", ".join(nearest[:3]) if missed.nearest else "nothing like it is recorded"),
        )
    out.print(listing)
    out.print(
        f"{len(misses)} requests, asked {sum(missed.times for missed in misses)} times. To ask the servers: "
        "firefly-proxy record --db DB --from-misses --config FILE",
        highlight=False,
        soft_wrap=True,
    )


@dataclass(slots=True)
class AskedAgain:
    """What came of asking misses of the real servers."""

    recorded: int = 0
    failed: list[str] = field(default_factory=list)
    """One line each."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason → how many."""

    def skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def as_json(self) -> dict[str, Any]:
        return {"recorded": self.recorded, "failed": self.failed, "skipped": self.skipped}


def ask_again(
    db: Path,
    journal: Journal,
    config: Path,
    *,
    changes: Callable[[MissedRequest], bool],
    with_changes: bool = False,
    redact: Collection[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> AskedAgain:
    """Ask the real servers what was missed, and record it.

    Misses of one group in one state are one session with a server started for it: first the world-changing
    calls that came before, then what was missed. What was recorded leaves the journal.

    Args:
        changes: Whether a request may change the world.
        with_changes: Ask also what may, and what was missed after such a call; else both are left alone.
    """
    names, result = set(live_servers(config)), AskedAgain()
    states: dict[str, list[MissedRequest]] = {}
    for missed in journal.misses():
        if missed.server not in names:
            result.skip(f"server {missed.server} is not in {config}")
        elif PLACEHOLDER in canonical_json(missed.params):
            result.skip("a secret stands in it")
        elif missed.before is None:
            result.skip("too many calls came before it")
        elif not with_changes and (missed.before or changes(missed)):
            result.skip("it changes the world, or came after a call that does (see --with-changes)")
        else:
            state = canonical_json([missed.server, missed.group, missed.before])
            states.setdefault(state, []).append(missed)
    done, total = 0, sum(map(len, states.values()))
    for alike in states.values():
        for part in _sessions(alike, changes):
            first = part[0]
            with LiveServer(
                first.server, config, db=db, group=first.group, run="from-misses", redact=redact
            ) as server:
                try:
                    for tool, arguments in first.before or ():
                        server.ask("tools/call", {"name": tool, "arguments": arguments})
                    for missed in part:
                        server.ask(missed.method, missed.params)
                        journal.forget(missed)
                        result.recorded += 1
                        done += 1
                        if progress:
                            progress("asking", done, total)
                except LiveError as error:
                    result.failed.append(str(error))
    return result


def _sessions(
    alike: Sequence[MissedRequest], changes: Callable[[MissedRequest], bool]
) -> list[list[MissedRequest]]:
    """Split the misses of one state: each that changes the world needs a server of its own."""
    reads = [missed for missed in alike if not changes(missed)]
    return [*([reads] if reads else []), *([missed] for missed in alike if changes(missed))]


def _asked(missed: MissedRequest) -> str:
    if missed.name is not None:
        return f"{missed.server}/{missed.name}({shown(missed.params.get('arguments') or {})})"
    return f"{missed.server} {missed.method} {shown(missed.params)}"
