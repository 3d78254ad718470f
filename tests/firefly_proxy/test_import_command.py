"""`firefly-proxy import`: what can be used of a file is recorded, and what cannot is said by the line."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recorder.store import Store

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


def firefly(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firefly_proxy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


def session(session_id: str, *outputs: str, **more: object) -> Json:
    calls = [
        {
            "server": "shop",
            "tool": "get",
            "arguments": {"n": number},
            "output": output,
            "is_error": output == "no",
        }
        for number, output in enumerate(outputs)
    ]
    return {"session_id": session_id, "group": "g", "run": "r", "calls": calls, **more}


def lines(path: Path, *documents: object) -> Path:
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in documents))
    return path


def recorded(db: Path) -> list[tuple[str, str, Any, str, bool]]:
    """Session, call and answer of everything in the recording."""
    found = []
    for exchange in Store(db).exchanges():
        assert exchange.call is not None
        result = exchange.outcome.result  # type: ignore[union-attr]
        text = result["content"][0]["text"]
        found.append(
            (
                exchange.session_id,
                str(exchange.call.tool.name),
                exchange.call.arguments,
                text,
                result["isError"],
            )
        )
    return found


ONE = [("one", "get", {"n": 0}, "a", False), ("one", "get", {"n": 1}, "no", True)]
TWO = [("two", "get", {"n": 0}, "b", False)]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_sessions_are_imported_and_counted(db: Path, tmp_path: Path, zipped: bool) -> None:
    file = lines(tmp_path / "in.jsonl", session("one", "a", "no"), session("two", "b"))
    if zipped:
        file.write_bytes(gzip.compress(file.read_bytes()))
    ended = firefly("import", file, "--db", db, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {"sessions": 2, "already_there": 0, "calls": 3, "tools": 0, "problems": []}
    ]
    assert recorded(db) == [*ONE, *TWO]


def test_importing_again_changes_nothing(db: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "in.jsonl", session("one", "a", "no"), session("two", "b"))
    tools = lines(
        tmp_path / "tools.jsonl", {"server": "shop", "name": "get", "inputSchema": {"type": "object"}}
    )
    first = firefly("import", file, "--tools", tools, "--db", db)
    assert first.stdout == "2 sessions with 3 calls imported, 1 tools\n"
    before, contents = recorded(db), db.read_bytes()
    again = firefly("import", file, file, "--tools", tools, "--db", db)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "0 sessions with 0 calls imported, 4 already there, 0 tools\n"
    assert (recorded(db), db.read_bytes()) == (before, contents)


def test_a_bad_line_is_reported_and_the_rest_imported(db: Path, tmp_path: Path) -> None:
    bad_call = session("three", "c")
    del bad_call["calls"][0]["output"]
    file = lines(
        tmp_path / "in.jsonl", session("one", "a", "no"), "{broken", "", "[1", bad_call, session("two", "b")
    )
    more = lines(tmp_path / "more.jsonl", "3")
    ended = firefly("import", file, more, "--db", db, "--json")
    assert ended.returncode == 1
    problems = [
        (file, 2, "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (file, 4, "not JSON: Expecting ',' delimiter at column 3"),
        (file, 5, "calls[0]: missing field 'output'"),
        (more, 1, "it must be an object, got a number"),
    ]
    assert ended.stderr.splitlines() == [
        f"firefly-proxy: {path}:{line}: {reason}" for path, line, reason in problems
    ]
    assert json.loads(ended.stdout) == {
        "sessions": 2,
        "already_there": 0,
        "calls": 3,
        "tools": 0,
        "problems": [{"file": str(path), "line": line, "reason": reason} for path, line, reason in problems],
    }
    assert recorded(db) == [*ONE, *TWO]


def test_a_session_of_other_content_under_a_known_id_is_reported(db: Path, tmp_path: Path) -> None:
    firefly("import", lines(tmp_path / "in.jsonl", session("one", "a", "no")), "--db", db)
    other = lines(tmp_path / "other.jsonl", session("one", "another"), session("two", "b"))
    ended = firefly("import", other, "--db", db)
    assert (ended.returncode, ended.stdout) == (1, "1 sessions with 1 calls imported\n")
    assert ended.stderr == (
        f"firefly-proxy: {other}:1: a session 'one' of other content is recorded already\n"
    )
    assert recorded(db) == [*ONE, *TWO]


def test_a_file_that_is_cut_off_leaves_nothing_and_the_others_are_imported(db: Path, tmp_path: Path) -> None:
    whole = lines(tmp_path / "whole.jsonl", session("one", "a", "no"))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(session("two", "b" * 5000)).encode())[:-20])
    ended = firefly("import", cut, whole, "--db", db)
    assert (ended.returncode, ended.stdout) == (1, "1 sessions with 2 calls imported\n")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"firefly-proxy: {cut}: cannot be read, nothing imported: ")
    assert recorded(db) == ONE


def test_what_was_imported_is_replayed(db: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "in.jsonl", session("one", "a", "no"), session("two", "a"))
    assert firefly("import", file, "--db", db).returncode == 0
    requests = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": "get", "arguments": {"n": number}},
        }
        for number in range(2)
    ]
    command = [sys.executable, "-m", "firefly_proxy.cli", "replay", "--db", str(db)]
    replayed = subprocess.run(
        command,
        input="".join(f"{json.dumps(each)}\n" for each in requests),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=True,
    )
    results = [json.loads(line)["result"] for line in replayed.stdout.splitlines()]
    assert [(each["content"][0]["text"], each["isError"]) for each in results] == [("a", False), ("no", True)]


def test_wrong_usage_and_missing_files_are_told_in_one_line(db: Path, tmp_path: Path) -> None:
    file = lines(tmp_path / "in.jsonl", session("one", "a"))
    for arguments, status, told in (
        (("--db", db), 2, "Error: name at least one FILE to import"),
        ((file,), 2, "Error: Missing option '--db'."),
        ((file, "--db", tmp_path), 2, "Error: Invalid value for '--db': File "),
        ((file, "--db", db, "--what"), 2, "Error: No such option"),
        (
            (file, tmp_path / "none", "--db", db),
            1,
            f"firefly-proxy: no file to import at {tmp_path / 'none'}",
        ),
        ((file, "--db", tmp_path / "no" / "world.db"), 1, "firefly-proxy: "),
        ((file, "--db", file), 1, "firefly-proxy: "),
    ):
        ended = firefly("import", *arguments)
        assert (ended.returncode, ended.stdout) == (status, "")
        assert ended.stderr.splitlines()[-1].startswith(told)
        assert status == 2 or len(ended.stderr.splitlines()) == 1
    assert not db.exists()
    assert json.loads(file.read_text()) == session("one", "a")
