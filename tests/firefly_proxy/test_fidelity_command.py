"""`firefly-proxy fidelity`: its figures are those that anybody can count from its rows and the truth."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from recorder.importer import import_sessions
from recorder.store import Store

ROOT = Path(__file__).parents[2]
GROUPS, RUNS = 14, 3
Json = dict[str, Any]


def firefly(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firefly_proxy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def measured(*arguments: object) -> Json:
    """The one JSON object that it prints."""
    ended = firefly("fidelity", "--json", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    return dict(json.loads(line))


def call(server: str, tool: str, output: str, /, **arguments: Any) -> Json:
    return {"server": server, "tool": tool, "arguments": arguments, "output": output, "is_error": False}


def session(group: int, run: int) -> Json:
    """One of a task's runs: what it is told depends on the group, `get_odds` also on the run."""
    calls = [
        call("shop", "get_user", f"user of {group} at 2026-11-{run + 1:02}T10:00:00Z", id=f"U{group}"),
        call("shop", "list_items", "desk, chair"),
        call("shop", "get_odds", f"{group} {run if group % 3 == 0 else 0}"),
        call("post", "get_letter", f"letter {group}-{run}", id=f"L{group}-{run}"),
        call("shop", "book_item", "booked", item="desk", group=group),
        call("shop", "list_items", "chair"),
    ]
    return {"session_id": f"{group}.{run}", "group": f"g{group}", "run": str(run), "calls": calls}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fidelity") / "world.db"
    sessions = [session(group, run) for group in range(GROUPS) for run in range(RUNS)]
    assert import_sessions(path, sessions).problems == []
    return path


HELD = [
    *(session(group, RUNS) for group in range(5)),
    {
        "session_id": "unseen",
        "group": "never recorded",
        "calls": [
            call("shop", "list_items", "desk, chair"),
            call("shop", "get_user", "somebody else", id="U3"),
            call("shop", "never_called", "?"),
        ],
    },
]


class Measured(NamedTuple):
    view: Json
    rows: list[Json]
    plot: Path


@pytest.fixture(scope="module")
def holdout(db: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Measured]:
    """Measures `HELD`, with further options."""
    folder = tmp_path_factory.mktemp("holdout")
    file = folder / "held.jsonl.gz"
    file.write_bytes(gzip.compress("".join(f"{json.dumps(each)}\n" for each in HELD).encode()))
    found: dict[tuple[object, ...], Measured] = {}

    def measure(*options: object) -> Measured:
        if options not in found:
            rows, plot = folder / f"{len(found)}.jsonl", folder / f"{len(found)}.svg"
            view = measured("--db", db, "--holdout", file, "--rows", rows, "--plot", plot, *options)
            assert (view["recording"], view["holdout"], view["split"]) == (str(db), str(file), None)
            lines = [json.loads(line) for line in rows.read_text().splitlines()]
            found[options] = Measured(view, lines, plot)
        return found[options]

    return measure


def truths() -> list[Json]:
    """Each held-out call, in the order of the rows."""
    return [
        {**each, "session_id": held["session_id"], "index": index}
        for held in HELD
        for index, each in enumerate(held["calls"])  # type: ignore[arg-type, call-overload]
    ]


def agrees(output: str, truth: str) -> bool:
    """Whether texts are equal but for their times, the one volatile thing here."""
    time = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z")
    return time.sub("#", output) == time.sub("#", truth)


def counted(rows: Iterable[tuple[bool, bool]]) -> Json:
    """The figures of calls, of each whether it was answered and whether that was right."""
    counts = Counter(rows)
    calls = sum(counts.values())
    answered = counts[True, True] + counts[True, False]
    return {
        "calls": calls,
        "answered": answered,
        "agreed": counts[True, True],
        "coverage": round(answered / calls, 4),
        "wrong_rate": round(counts[True, False] / answered, 4) if answered else None,
    }


FIGURES = ("calls", "answered", "agreed", "coverage", "wrong_rate")


@pytest.mark.parametrize("options", [(), ("--min-trust", 0), ("--min-trust", 0.9)], ids=str)
def test_the_figures_are_those_of_the_rows(
    holdout: Callable[..., Measured], options: tuple[object, ...]
) -> None:
    view, rows, _ = holdout(*options)
    truth = truths()
    assert [(row["session_id"], row["index"]) for row in rows] == [
        (each["session_id"], each["index"]) for each in truth
    ]
    assert {frozenset(row) for row in rows} == {
        frozenset({"session_id", "index", "tier", "trust", "answered", "source", "output"})
    }
    results = [
        (row["answered"], row["output"] is not None and agrees(row["output"], each["output"]))
        for row, each in zip(rows, truth, strict=True)
    ]
    assert {name: view[name] for name in FIGURES} == counted(results)
    assert view["sessions"] == len(HELD)
    tiers = {row["tier"] for row in rows if row["answered"]}
    assert view["by_tier"] == {
        tier: counted(
            result
            for row, result in zip(rows, results, strict=True)
            if row["answered"] and row["tier"] == tier
        )
        for tier in tiers
    }
    assert view["by_server"] == {
        server: counted(
            result for each, result in zip(truth, results, strict=True) if each["server"] == server
        )
        for server in ("shop", "post")
    }
    low, high = view["interval"]
    assert 0 <= low <= view["wrong_rate"] <= high <= 1
    assert view["calibration"]["candidates"] == sum(row["trust"] is not None for row in rows)


def test_right_and_wrong_answers_and_misses_are_all_among_what_is_counted(
    holdout: Callable[..., Measured],
) -> None:
    everything, usual = holdout("--min-trust", 0).view, holdout().view
    assert 0 < usual["answered"] < everything["answered"] < everything["calls"]
    assert 0 < everything["agreed"] < everything["answered"]
    assert set(everything["by_tier"]) >= {"exact", "nearest"}
    assert "nearest" not in usual["by_tier"]


def test_a_source_is_the_recorded_exchange_that_the_output_is_of(
    db: Path, holdout: Callable[..., Measured]
) -> None:
    store = Store(db)
    sourced = [row for row in holdout("--min-trust", 0).rows if row["source"] is not None]
    for row in sourced:
        exchange = store.exchange(row["source"]["exchange"])
        assert exchange.session_id == row["source"]["session"]
        assert exchange.outcome.result["content"][0]["text"] == row["output"]  # type: ignore[union-attr]
    assert len(sourced) == sum(row["answered"] for row in holdout("--min-trust", 0).rows)


def test_a_call_without_any_candidate_has_an_empty_row(holdout: Callable[..., Measured]) -> None:
    assert holdout("--min-trust", 0).rows[-1] == {
        "session_id": "unseen",
        "index": 2,
        "tier": None,
        "trust": None,
        "answered": False,
        "source": None,
        "output": None,
    }


def test_the_baseline_answers_whatever_tool_was_called(holdout: Callable[..., Measured]) -> None:
    baseline = holdout().view["baseline"]
    recorded = [
        each for group in range(GROUPS) for run in range(RUNS) for each in session(group, run)["calls"]
    ]
    results: list[tuple[bool, bool]] = []
    for truth in truths():
        alike = [
            each
            for each in recorded
            if (each["tool"], each["arguments"]) == (truth["tool"], truth["arguments"])
        ]
        if alike:
            results.append((True, agrees(alike[0]["output"], truth["output"])))
    assert baseline["by_tier"]["exact"] == counted(results)
    assert sum(tally["answered"] for tally in baseline["by_tier"].values()) == baseline["answered"]
    assert (baseline["calls"], baseline["answered"]) == (len(truths()), len(truths()) - 1)
    assert baseline == holdout("--min-trust", 0).view["baseline"]


def test_a_point_of_the_curve_is_what_that_least_trust_gives(holdout: Callable[..., Measured]) -> None:
    curve = holdout().view["curve"]
    assert {frozenset(point) for point in curve} == {frozenset({"min_trust", "coverage", "wrong_rate"})}
    assert [point["min_trust"] for point in curve] == sorted({point["min_trust"] for point in curve})
    assert curve[0]["min_trust"] == 0
    assert len(curve) > 3
    for point in (curve[0], curve[1], curve[len(curve) // 2], curve[-1]):
        view = holdout("--min-trust", point["min_trust"]).view
        assert point == {
            "min_trust": point["min_trust"],
            "coverage": view["coverage"],
            "wrong_rate": view["wrong_rate"],
        }
        assert view["thresholds"] == dict.fromkeys(("known_group", "unknown_group"), point["min_trust"])


def test_a_plot_is_svg_with_the_curve_and_both_points(holdout: Callable[..., Measured]) -> None:
    view, _, plot = holdout()
    name = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(plot).getroot()
    assert root.tag == f"{name}svg"
    (line,) = root.iter(f"{name}polyline")
    drawn = [point for point in view["curve"] if point["coverage"] and point["wrong_rate"] is not None]
    assert len(line.attrib["points"].split()) == len(drawn)
    assert len(list(root.iter(f"{name}circle"))) == 2
    texts = [text.text for text in root.iter(f"{name}text")]
    assert {"baseline", "default", "calls answered", "answers that are wrong"} <= set(texts)


def groups_of(db: Path) -> dict[str, str]:
    return {each.id: each.group for each in Store(db).sessions()}


@pytest.mark.parametrize(
    ("how", "sessions"), [("leave-run", GROUPS), ("task", 4 * RUNS), ("random", round(0.3 * GROUPS * RUNS))]
)
def test_each_split_holds_recorded_sessions_out_and_learns_nothing_of_them(
    db: Path, tmp_path: Path, how: str, sessions: int
) -> None:
    rows_file, beside = tmp_path / "rows.jsonl", sorted(path.name for path in db.parent.iterdir())
    before = {name: (db.parent / name).read_bytes() for name in beside}
    view = measured("--db", db, "--split", how, "--rows", rows_file, "--min-trust", 0)
    assert {name: (db.parent / name).read_bytes() for name in beside} == before
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    group = groups_of(db)
    held = {row["session_id"] for row in rows}
    sources = {row["source"]["session"] for row in rows if row["source"]}
    assert (view["split"], view["holdout"], view["sessions"], len(held)) == (how, None, sessions, sessions)
    assert view["calls"] == len(rows) == 6 * sessions
    assert not held & sources
    held_groups = Counter(group[each] for each in held)
    if how == "leave-run":
        assert held_groups == Counter(set(group.values()))
    elif how == "task":
        assert set(held_groups.values()) == {RUNS}
        assert not set(held_groups) & {group[each] for each in sources}
    truth = {
        (each["session_id"], index): one["output"]
        for each in (session(number, run) for number in range(GROUPS) for run in range(RUNS))
        for index, one in enumerate(each["calls"])
    }
    results = [
        (row["answered"], agrees(row["output"], truth[row["session_id"], row["index"]]))
        if row["answered"]
        else (False, False)
        for row in rows
    ]
    assert {name: view[name] for name in FIGURES} == counted(results)


def test_the_same_sessions_are_held_out_each_time(db: Path) -> None:
    first, second = (measured("--db", db, "--split", "random") for _ in range(2))
    assert first == second


def test_without_json_it_prints_the_same_figures_for_people(
    db: Path, holdout: Callable[..., Measured], tmp_path: Path
) -> None:
    view = holdout("--min-trust", 0).view
    file = tmp_path / "held.jsonl"
    file.write_text("".join(f"{json.dumps(each)}\n" for each in HELD))
    ended = firefly("fidelity", "--db", db, "--holdout", file, "--min-trust", 0)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = [line.split() for line in ended.stdout.splitlines()]
    shares = [f"{100 * view['coverage']:.1f}", "%", f"{100 * view['wrong_rate']:.1f}", "%"]
    assert ["replay", str(view["calls"]), str(view["answered"]), str(view["agreed"]), *shares] in lines
    assert f"{len(HELD)} sessions held out." in ended.stdout


def test_wrong_usage_is_told_in_one_line_with_exit_status_2(db: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone.db"
    import_sessions(lone, [session(0, 0)])
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps(HELD[0]))
    what = "Error: name what to hold out: --holdout FILE or --split leave-run, task or random"
    for arguments, told in (
        (("--db", db), what),
        (("--db", db, "--split", "task", "--holdout", held), what),
        (("--db", lone, "--split", "leave-run"), f"Error: {lone} has nothing to hold out by leave-run"),
        (("--db", db, "--split", "all"), "Error: Invalid value for '--split': 'all' is not one of"),
        (
            ("--db", db, "--split", "task", "--min-trust", "1.1"),
            "Error: Invalid value for '--min-trust': 1.1 is",
        ),
        (("--split", "task"), "Error: Missing option '--db'."),
    ):
        ended = firefly("fidelity", "--json", *arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.splitlines()[-1].startswith(told)
        assert [line for line in ended.stderr.splitlines() if line.startswith("Error")] == (
            ended.stderr.splitlines()[-1:]
        )


def test_what_cannot_be_read_or_written_is_told_in_one_line(db: Path, tmp_path: Path) -> None:
    bad, held, nowhere = tmp_path / "bad.jsonl", tmp_path / "held.jsonl", tmp_path / "no" / "file"
    held.write_text(json.dumps(HELD[0]))
    bad.write_text(f'{json.dumps(HELD[0])}\n\n{{"session_id": "x", "group": "g"}}\n')
    for arguments, told in (
        (("--db", nowhere, "--split", "task"), f"firefly-proxy: no recording at {nowhere}"),
        (("--db", db, "--holdout", nowhere), f"firefly-proxy: cannot read {nowhere}: "),
        (("--db", db, "--holdout", bad), f"firefly-proxy: {bad}:3: not a session (KeyError: 'calls')"),
        (("--db", db, "--holdout", held, "--rows", nowhere), f"firefly-proxy: cannot write {nowhere}: "),
        (("--db", db, "--holdout", held, "--plot", nowhere), f"firefly-proxy: cannot write {nowhere}: "),
    ):
        ended = firefly("fidelity", "--json", *arguments)
        assert (ended.returncode, ended.stdout) == (1, "")
        (line,) = ended.stderr.splitlines()
        assert line.startswith(told)
