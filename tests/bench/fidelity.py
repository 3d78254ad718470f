"""How often replays are right, on every recording in a folder: replay, baseline, and a rule to compare with.

    python tests/bench/fidelity.py --corpora DIR [--json FILE]

DIR holds sessions as `firefly-proxy import` reads them, one recording a file (`*.jsonl`, `*.jsonl.gz`). Each
is imported and measured by every split that exists for it: `leave-run` holds out one session, drawn by a
hash, of each group that has several; `leave-last-run` the last one of each, in the order of the file; `task`
all sessions of 30 % of the groups; `random` 30 % of the sessions.

The rule answers where at least k recordings stand in the same state and are unanimous, for the k from 1 to 4
that covers most at no more than 2 % wrong. Prints a table, then one JSON line.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from recorder.importer import import_files
from recorder.store import Store
from replayer.evidence import Candidate
from replayer.exact import ExactTier
from replayer.fidelity import HeldSession, held_from_recording, measure, split
from replayer.keys import hash64
from replayer.learn import learn
from replayer.learned import Learned
from replayer.mask import masked
from replayer.replayer import Replayer
from replayer.tier import Asked, Keep
from tests.bench.proxy_overhead import commit, machine

MOST_WRONG = 0.02
FEWEST_ANSWERED, FEWEST_SESSIONS = 30, 5
"""A split that answers less, or holds out less, says nothing."""

GOALS = ("wrong rate", "coverage", "calibration")


@dataclass(slots=True)
class Watching(ExactTier):
    """The exact tier, which also counts what the rule would answer."""

    learned: Learned
    truth: int = 0
    answered: Counter[int] = field(default_factory=Counter)
    wrong: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        ExactTier.__init__(self, self.learned)

    def find(self, asked: Asked, keep: Keep | None = None) -> Candidate | None:
        rows = self.learned.rows(asked.key, asked.place, known=asked.known)
        rows = [row for row in rows if row.world == asked.place.world]
        if asked.known:
            rows = [row for row in rows if row.group == asked.place.group]
        if len({row.output for row in rows}) == 1:
            for least in range(1, min(len({row.conversation for row in rows}), 4) + 1):
                self.answered[least] += 1
                self.wrong[least] += rows[0].output != self.truth
        return ExactTier.find(self, asked, keep)


def rule_coverage(store: Store, learned: Learned, held: list[HeldSession]) -> float:
    """Return the share of calls that the rule answers, at no more than 2 % wrong."""
    watching = Watching(learned)
    replayer = Replayer(store, learned)
    replayer.tiers = (watching, *replayer.tiers[1:])
    calls = 0
    for session in held:
        rollout = replayer.session(session.group)
        for call in session.calls:
            calls += 1
            watching.truth = hash64(masked(call.output))
            rollout.ask(call.server, "tools/call", {"name": call.tool, "arguments": call.arguments})
    return max(
        (
            count / calls
            for least, count in watching.answered.items()
            if watching.wrong[least] <= MOST_WRONG * count
        ),
        default=0.0,
    )


def splits(store: Store) -> Iterator[tuple[str, list[str]]]:
    """Yield each way to hold sessions out that holds out enough."""
    ways = {how: split(store, how) for how in ("leave-run", "task", "random")}
    last: dict[str, list[str]] = {}
    for conversation in store.conversations():
        sessions = last.setdefault(conversation.group, [])
        if conversation.session_id not in sessions:
            sessions.append(conversation.session_id)
    ways["leave-last-run"] = [sessions[-1] for sessions in last.values() if len(sessions) > 1]
    for how in ("leave-run", "leave-last-run", "task", "random"):
        if len(ways[how]) >= FEWEST_SESSIONS:
            yield how, ways[how]


def measured(corpus: Path, folder: Path) -> Iterator[dict[str, Any]]:
    db = folder / f"{corpus.name}.db"
    import_files(db, [corpus])
    store = Store(db)
    for how, ids in splits(store):
        print(f"{corpus.name}: {how:<16}", end="\r", file=sys.stderr)
        learned = learn(store, folder / "held-out.replay.db", without=ids)
        held = list(held_from_recording(store, ids))
        view = measure(store, learned, held).as_json()
        name = corpus.name.removesuffix(".gz").removesuffix(".jsonl")
        yield {"corpus": name, "split": how, **view, "rule_coverage": rule_coverage(store, learned, held)}


def goals(row: dict[str, Any]) -> dict[str, bool | None]:
    """Say which goals a split reaches; `None` where it answers too little to say."""
    if row["answered"] < FEWEST_ANSWERED:
        return dict.fromkeys(GOALS)
    error = row["calibration"]["expected_calibration_error"]
    return {
        "wrong rate": row["interval"][0] <= MOST_WRONG,
        "coverage": row["coverage"] >= 0.9 * row["rule_coverage"],
        "calibration": None if error is None else error <= 0.05,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'corpus':<12}{'split':<16}{'calls':>6}{'covered':>9}{'wrong':>8}  {'95 % interval':<16}", end="")
    print(f"{'rule':>7}{'baseline wrong':>16}{'ECE':>7}  not reached")
    for row in rows:
        low, high = row["interval"] or (0, 0)
        error = row["calibration"]["expected_calibration_error"]
        missed = [goal for goal, reached in goals(row).items() if reached is False]
        print(f"{row['corpus']:<12}{row['split']:<16}{row['calls']:>6}{row['coverage']:>9.1%}", end="")
        print(
            f"{row['wrong_rate'] or 0:>8.1%}  {f'{low:.1%} to {high:.1%}':<16}{row['rule_coverage']:>7.1%}",
            end="",
        )
        print(f"{row['baseline']['wrong_rate'] or 0:>16.1%}{error or 0:>7.3f}  {', '.join(missed)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how often replays are right.")
    parser.add_argument("--corpora", type=Path, required=True, metavar="DIR", help="where the recordings are")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the JSON object to this file, too")
    options = parser.parse_args()
    corpora = sorted([*options.corpora.glob("*.jsonl"), *options.corpora.glob("*.jsonl.gz")])
    if not corpora:
        parser.error(f"no *.jsonl or *.jsonl.gz in {options.corpora}")
    rows = []
    with tempfile.TemporaryDirectory(prefix="fidelity-") as folder:
        for corpus in corpora:
            rows += measured(corpus, Path(folder))
    print_table(rows)
    table = [{**row, "goals": goals(row)} for row in rows]
    line = json.dumps({"bench": "fidelity", "rows": table, "machine": machine(), "commit": commit()})
    if options.json:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
