"""What `firefly-proxy learn` shows: what calls change, what may differ, and how far answers are trusted."""

from __future__ import annotations

from typing import Any

from firefly_proxy.tables import cell, console, table
from replayer.learned import Learned
from replayer.trust import MIN_COMPARISONS, Calibration


def learned_json(learned: Learned) -> dict[str, Any]:
    """Return one JSON object: counts, `tools`, `effects` and `trust`."""
    return {
        "path": str(learned.path),
        **learned.summary,
        "embedder": learned.embedder,
        "policy": learned.policy.as_json(),
        "tools": [
            {"server": server, "name": name, "calls": calls, **facts.as_json()}
            for server, name, calls, facts in learned.tools()
            if not name.endswith("\0")
        ],
        "effects": [
            {
                "server": server,
                "kind": kind,
                "changes_state": changes,
                "reason": reason,
                "changed": round(changed, 2),
                "unchanged": unchanged,
            }
            for server, kind, changes, reason, changed, unchanged in learned.effects()
        ],
        "trust": {
            "known_group": _trust_json(learned.known_group),
            "unknown_group": _trust_json(learned.unknown_group),
        },
    }


def print_learned(learned: Learned) -> None:
    out = console()
    view = learned_json(learned)
    facts = {(tool["server"], tool["name"]): tool for tool in view["tools"]}
    listing = table(
        "server", "call", "changes the world", "because of", "may differ", "volatile", folding=["volatile"]
    )
    for effect in view["effects"]:
        tool = facts.get((effect["server"], effect["kind"].partition(" ")[0]), {})
        prose = [f"{name} (spelling)" for name in tool.get("prose", ())]
        listing.add_row(
            cell(effect["server"]),
            cell(effect["kind"]),
            "yes" if effect["changes_state"] else "no",
            _because(effect),
            cell(", ".join([*tool.get("insensitive", ()), *prose])),
            cell(", ".join(tool.get("volatile", ()))),
        )
    if view["effects"]:
        out.print(listing)
    out.print(
        cell(f"{view['calls']} calls of {view['distinct_tools']} tools in {view['sessions']} sessions.")
    )
    for where, calibration in (("recorded", learned.known_group), ("not recorded", learned.unknown_group)):
        out.print(cell(f"Where a rollout's group is {where}: {_in_words(calibration)}"), soft_wrap=True)


def _because(effect: dict[str, Any]) -> str:
    if effect["reason"] == "recording":
        return f"recording ({effect['changed']:g} changes, {effect['unchanged']:g} none)"
    return "nothing known" if effect["reason"] == "unknown" else str(effect["reason"])


def _in_words(calibration: Calibration) -> str:
    compared = f"{calibration.compared:.0f} recorded calls could be answered from the others"
    if not calibration.enough:
        return (
            f"{compared}, fewer than {MIN_COMPARISONS}, so trust is not measured: equal calls are answered, "
            "others missed."
        )
    if calibration.threshold is None:
        return f"{compared}, and no trust was enough: all are missed."
    return f"{compared}; what is trusted {calibration.threshold:.3f} or more is served."


def _trust_json(calibration: Calibration) -> dict[str, Any]:
    return {
        "compared": round(calibration.compared, 2),
        "calibrated": calibration.enough,
        "threshold": calibration.threshold,
    }
