"""`firefly-proxy learn`: what it says of a recording, as JSON and for people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recorder.importer import import_files, import_sessions
from replayer.learned import learned_path

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


def firefly(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firefly_proxy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def learned(*arguments: object) -> Json:
    """The one JSON object that it prints."""
    ended = firefly("learn", "--json", *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    return dict(json.loads(line))


def call(tool: str, output: object, /, **arguments: Any) -> Json:
    return {"server": "shop", "tool": tool, "arguments": arguments, "output": output}


def record(db: Path, groups: int = 12) -> Path:
    """Two sessions a group: reads that agree, one that changes something, and one with a clock."""
    sessions = [
        {
            "session_id": f"{group}.{run}",
            "group": f"g{group}",
            "calls": [
                call("get_user", f"user {group}", id=f"U{group}"),
                call("get_status", {"name": "shop", "epoch": 1_790_000_000 + 977 * (2 * group + run)}),
                call("book_item", "booked", item="desk"),
                call("run_sql", "1 row", sql="SELECT * FROM t"),
            ],
        }
        for group in range(groups)
        for run in range(2)
    ]
    assert import_sessions(db, sessions).problems == []
    entry = {"server": "shop", "name": "get_user", "annotations": {"readOnlyHint": True}}
    db.with_suffix(".tools").write_text(json.dumps(entry))
    import_files(db, [], tools=[db.with_suffix(".tools")])
    return db


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return record(tmp_path / "world.db")


def test_json_is_one_object_of_counts_tools_effects_and_trust(db: Path) -> None:
    view = learned("--db", db)
    seconds, trust = view.pop("seconds"), view.pop("trust")
    assert view == {
        "path": str(learned_path(db)),
        "sessions": 24,
        "exchanges": 96,
        "calls": 96,
        "distinct_tools": 4,
        "minted": 0,
        "embedder": None,
        "policy": {},
        "tools": [
            {
                "server": "shop",
                "name": name,
                "calls": 24,
                "insensitive": {},
                "prose": [],
                "volatile": volatile,
            }
            for name, volatile in (
                ("book_item", []),
                ("get_status", ["/epoch"]),
                ("get_user", []),
                ("run_sql", []),
            )
        ],
        "effects": [
            {"server": "shop", "kind": kind, "changes_state": changes, "reason": reason, **seen}
            for kind, changes, reason in (
                ("book_item", True, "name"),
                ("get_status", False, "name"),
                ("get_user", False, "annotation"),
                ("run_sql SELECT", False, "name"),
            )
            for seen in [
                next(
                    {"changed": each["changed"], "unchanged": each["unchanged"]}
                    for each in view["effects"]
                    if each["kind"] == kind
                )
            ]
        ],
    }
    assert all(value >= 0 for value in seconds.values())
    assert trust["known_group"]["calibrated"]
    assert trust["known_group"]["compared"] == 96
    assert 0.5 <= trust["known_group"]["threshold"] <= 1
    # Groups count once, and none but the own one knows its user.
    assert trust["unknown_group"]["compared"] == 36


def test_where_little_is_recorded_trust_is_not_measured(tmp_path: Path) -> None:
    db = record(tmp_path / "world.db", groups=2)
    nothing = {"compared": 16, "calibrated": False, "threshold": None}
    assert learned("--db", db)["trust"]["known_group"] == nothing
    said = firefly("learn", "--db", db).stdout
    assert (
        "Where a rollout's group is recorded: 16 recorded calls could be answered from the others, fewer than"
        " 30, so trust is not measured: equal calls are answered, others missed.\n"
    ) in said


def test_for_people_it_says_what_changes_the_world_and_why(db: Path) -> None:
    view = learned("--db", db)
    ended = firefly("learn", "--db", db)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["shop", "book_item", "yes", "name"] in rows
    assert ["shop", "get_user", "no", "annotation"] in rows
    assert ["shop", "get_status", "no", "name", "/epoch"] in rows
    assert ["shop", "run_sql", "SELECT", "no", "name"] in rows
    assert "96 calls of 4 tools in 24 sessions." in ended.stdout
    threshold = view["trust"]["known_group"]["threshold"]
    assert (
        "Where a rollout's group is recorded: 96 recorded calls could be answered from the others;"
        f" what is trusted {threshold:.3f} or more is served."
    ) in ended.stdout


def test_a_policy_is_kept_until_an_empty_file_takes_it_back(db: Path, tmp_path: Path) -> None:
    policy, empty = tmp_path / "policy.toml", tmp_path / "empty.toml"
    policy.write_text('[tools."shop/book_*"]\nchanges_state = false\nvolatile = ["/at"]\n')
    empty.write_text("")

    def said(*options: object) -> tuple[Json, Json, Json]:
        view = learned("--db", db, *options)
        effect, tool = view["effects"][0], view["tools"][0]
        return view["policy"], {effect["kind"]: effect["reason"]}, {tool["name"]: tool["volatile"]}

    ruled = (
        {"shop/book_*": {"changes_state": False, "volatile": ["/at"]}},
        {"book_item": "policy"},
        {"book_item": ["/at"]},
    )
    assert said("--policy", policy) == ruled
    assert said() == ruled
    assert said("--policy", empty) == ({}, {"book_item": "name"}, {"book_item": []})
    assert said() == ({}, {"book_item": "name"}, {"book_item": []})


def test_learning_leaves_the_recording_as_it_is_and_one_file_beside_it(db: Path) -> None:
    before, files = db.read_bytes(), {path.name for path in db.parent.iterdir()}
    learned("--db", db)
    learned("--db", db)
    assert db.read_bytes() == before
    made = {path.name.removesuffix("-wal").removesuffix("-shm") for path in db.parent.iterdir()} - files
    assert made == {"world.db.replay.db"}


def test_what_is_learned_twice_is_the_same(db: Path) -> None:
    first, second = learned("--db", db), learned("--db", db)
    assert first.pop("seconds").keys() == second.pop("seconds").keys()
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (
            ("--policy", "{tmp}/bad.toml"),
            2,
            "firefly-proxy: {tmp}/bad.toml: tools.\"s/t\": unknown rule 'fuzzy'",
        ),
        (("--policy", "{tmp}/none.toml"), 2, "firefly-proxy: cannot read {tmp}/none.toml: No such file"),
        (("--db", "{tmp}/none.db"), 1, "firefly-proxy: no recording at {tmp}/none.db"),
        (("--db", "{tmp}/bad.toml"), 1, "firefly-proxy: "),
    ],
    ids=["bad policy", "no policy", "no recording", "another file"],
)
def test_what_cannot_be_used_is_told_in_one_line(
    db: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, told: str
) -> None:
    (tmp_path / "bad.toml").write_text('[tools."s/t"]\nfuzzy = true\n')
    ended = firefly("learn", "--json", "--db", db, *(each.format(tmp=tmp_path) for each in arguments))
    assert (ended.returncode, ended.stdout) == (status, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(told.format(tmp=tmp_path))
    assert not learned_path(db).exists()


def test_wrong_usage_has_exit_status_2(db: Path) -> None:
    for arguments, told in (
        (("learn",), "Error: Missing option '--db'."),
        (("learn", "--db", db, "x"), "Error: "),
    ):
        ended = firefly(*arguments)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.splitlines()[-1].startswith(told)
