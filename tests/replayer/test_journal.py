"""What is kept beside a recording: what was learned of it, and what replays missed. The recording stays."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recorder.importer import import_sessions
from recorder.store import Store
from replayer.fidelity import held_from_recording, measure, split
from replayer.journal import Journal
from replayer.learn import learn
from replayer.learned import Learned, NotLearned, learned_path
from replayer.replayer import Replayer, ensure_learned, journal_beside, journalled
from replayer.session import Answer, Miss

ROOT = Path(__file__).parents[2]
Call = dict[str, Any]


def call(tool: str, output: str = "", /, **arguments: Any) -> Call:
    return {"server": "s", "tool": tool, "arguments": arguments, "output": output}


PUT = call("put", "stored", key="aa", value="1")
SESSIONS = {
    "one": [call("get", "A", key="aa"), call("get", "B", key="bb"), PUT, call("get", "1", key="aa")],
    "two": [call("get", "A", key="aa"), call("list", "aa bb")],
}


def add(db: Path, session_id: str, calls: Sequence[Call], group: str = "g") -> None:
    document = {"session_id": session_id, "group": group, "calls": list(calls)}
    assert import_sessions(db, [document]).problems == []


@pytest.fixture
def db(tmp_path: Path) -> Path:
    for session_id, calls in SESSIONS.items():
        add(tmp_path / "world.db", session_id, calls)
    return tmp_path / "world.db"


def opened(db: Path) -> Replayer:
    store = Store(db)
    return Replayer(store, ensure_learned(store), journal=journal_beside(store))


def ask(replayer: Replayer, *calls: Call, group: str | None = "g") -> list[bool]:
    """Whether each call of a conversation was answered."""
    session = replayer.session(group)
    return [
        isinstance(
            session.ask("s", "tools/call", {"name": each["tool"], "arguments": each["arguments"]}), Answer
        )
        for each in calls
    ]


def missed(db: Path) -> list[tuple[int, str | None, str | None, Any, Any]]:
    """Times, group, tool, arguments and what came before, of all misses that are kept."""
    return [
        (each.times, each.group, each.name, each.params.get("arguments"), each.before)
        for each in journalled(Store(db))
    ]


OTHER, THIRD = call("get", key="zz"), call("get", key="bz")


def test_a_miss_is_counted_once_for_each_request_state_and_group(db: Path) -> None:
    replayer = opened(db)
    assert ask(replayer, OTHER, call("get", key="aa"), OTHER, THIRD) == [False, True, False, False]
    assert ask(replayer, PUT, OTHER) == [True, False]
    assert ask(replayer, OTHER) == [False]
    assert ask(replayer, OTHER, THIRD, group=None) == [False, False]
    assert ask(replayer, call("get", key="zz", page=None)) == [False]
    before = [("put", {"key": "aa", "value": "1"})]
    assert sorted(missed(db), key=repr) == sorted(
        [
            (4, "g", "get", {"key": "zz"}, []),
            (1, "g", "get", {"key": "bz"}, []),
            (1, "g", "get", {"key": "zz"}, before),
            (1, None, "get", {"key": "zz"}, []),
            (1, None, "get", {"key": "bz"}, []),
        ],
        key=repr,
    )
    assert missed(db)[0] == (4, "g", "get", {"key": "zz"}, [])


def test_a_miss_names_the_nearest_and_when_it_was_asked(db: Path) -> None:
    replayer = opened(db)
    ask(replayer, THIRD)
    ask(replayer, THIRD)
    ask(replayer, call("frobnicate", x=1))
    session = replayer.session("g")
    session.ask("s", "resources/read", {"uri": "file:///a", "_meta": {"progressToken": 1}})
    first, *others = journalled(Store(db))
    exchange = next(iter(Store(db).exchanges())).id
    assert first.model_dump(exclude={"first_at", "last_at"}) == {
        "server": "s",
        "method": "tools/call",
        "name": "get",
        "params": {"name": "get", "arguments": {"key": "bz"}},
        "group": "g",
        "before": [],
        "nearest": first.nearest,
        "times": 2,
    }
    assert 0 < first.first_at < first.last_at
    assert len(first.nearest) == 2
    assert first.nearest[0]["differs_at"] == ["/key"]
    assert {near["exchange"] for near in first.nearest} == {exchange, exchange + 2}
    assert sorted((other.method, other.name, other.nearest, other.params) for other in others) == [
        ("resources/read", None, [], {"uri": "file:///a"}),
        ("tools/call", "frobnicate", [], {"name": "frobnicate", "arguments": {"x": 1}}),
    ]


def test_what_is_answered_is_not_journalled(db: Path) -> None:
    assert ask(opened(db), call("get", key="aa"), PUT, call("list")) == [True, True, True]
    assert missed(db) == []


def test_without_a_journal_nothing_is_kept(db: Path) -> None:
    store = Store(db)
    assert ask(Replayer(store, learn(store)), OTHER) == [False]
    assert missed(db) == []


def test_misses_outlive_what_is_learned(db: Path) -> None:
    ask(opened(db), OTHER, OTHER)
    kept = journalled(Store(db))
    learn(Store(db))
    assert journalled(Store(db)) == kept
    add(db, "three", [call("get", "C", key="cc")])
    ensure_learned(Store(db))
    assert journalled(Store(db)) == kept
    with closing(sqlite3.connect(learned_path(db))) as connection, connection:
        connection.execute("UPDATE learned SET version = version - 1")
    with pytest.raises(NotLearned, match=r"holds nothing learned by this version: run firefly-proxy learn$"):
        Learned(learned_path(db))
    ensure_learned(Store(db))
    assert journalled(Store(db)) == kept
    ask(opened(db), OTHER)
    assert missed(db) == [(3, "g", "get", {"key": "zz"}, [])]


def test_a_miss_that_is_forgotten_leaves_the_others(db: Path) -> None:
    ask(opened(db), OTHER, THIRD, PUT, OTHER)
    for each in journalled(Store(db)):
        if each.before == [] and each.params["arguments"] == {"key": "zz"}:
            Journal(learned_path(db)).forget(each)
    assert sorted(missed(db), key=repr) == [
        (1, "g", "get", {"key": "bz"}, []),
        (1, "g", "get", {"key": "zz"}, [("put", {"key": "aa", "value": "1"})]),
    ]


def test_secrets_are_not_in_the_journal(db: Path) -> None:
    token = "ghp_" + "x1" * 18
    ask(opened(db), call("get", key=token))
    assert [arguments for *_, arguments, _ in missed(db)] != [{"key": token}]
    files = [path for path in db.parent.iterdir() if token.encode() in path.read_bytes()]
    assert files == []


# A folder that cannot be written

REPLAY = """
import os, sys
from pathlib import Path
from recorder.store import Store
from replayer.replayer import Replayer, ensure_learned, journal_beside
if os.geteuid() == 0:  # whom no permission holds back
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
store = Store(Path(sys.argv[1]))
learned, journal = ensure_learned(store), journal_beside(store)
session = Replayer(store, learned, journal=journal).session("g")
for key in ("aa", "zz"):
    answer = session.ask("s", "tools/call", {"name": "get", "arguments": {"key": key}})
    print(type(answer).__name__)
print(journal, learned.path)
"""


@pytest.fixture
def read_only(db: Path) -> Iterator[Path]:
    """The recording in a folder that anybody may read and nobody write; root could."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "world.db"
        copy.write_bytes(db.read_bytes())
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        yield copy
        Path(folder).chmod(0o755)


@pytest.mark.parametrize("learned_before", [False, True])
def test_in_a_folder_that_cannot_be_written_replay_works_and_nothing_is_kept(
    db: Path, read_only: Path, learned_before: bool
) -> None:
    if learned_before:
        learn(Store(db))
        read_only.parent.chmod(0o755)
        learned_path(read_only).write_bytes(learned_path(db).read_bytes())
        learned_path(read_only).chmod(0o444)
        read_only.parent.chmod(0o555)
    files = {path.name: path.read_bytes() for path in read_only.parent.iterdir()}
    command = [sys.executable, "-c", REPLAY, str(read_only)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    answer, miss, where = ended.stdout.splitlines()
    assert (answer, miss) == ("Answer", "Miss")
    assert where.startswith("None ")
    assert (where == f"None {learned_path(read_only)}") == learned_before
    assert not learned_before or Path(where.removeprefix("None ")).exists()
    assert {path.name: path.read_bytes() for path in read_only.parent.iterdir()} == files
    assert learned_before or not Path(where.removeprefix("None ")).exists()


# Several at once

LEARN_AND_MISS = """
import sys
from pathlib import Path
from recorder.store import Store
from replayer.learn import learn
from replayer.replayer import Replayer, journal_beside
store = Store(Path(sys.argv[1]))
for turn in range(int(sys.argv[2])):
    replayer = Replayer(store, learn(store), journal=journal_beside(store))
    for key in ("zz", f"{sys.argv[3]}-{turn}"):
        session = replayer.session("g")
        assert hasattr(session.ask("s", "tools/call", {"name": "get", "arguments": {"key": key}}), "nearest")
        assert hasattr(session.ask("s", "tools/call", {"name": "get", "arguments": {"key": "aa"}}), "outcome")
"""


def test_processes_learn_and_miss_at_the_same_time(db: Path) -> None:
    reader = opened(db)
    processes, turns = 3, 8
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LEARN_AND_MISS, str(db), str(turns), f"process{number}"],
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for number in range(processes)
    ]
    while any(process.poll() is None for process in running):
        assert ask(reader, call("get", key="aa"), PUT, call("get", key="aa")) == [True, True, True]
    ended = [process.communicate(timeout=60)[1] for process in running]
    assert ([process.returncode for process in running], ended) == ([0] * processes, [b""] * processes)
    counted = missed(db)
    assert counted[0] == (processes * turns, "g", "get", {"key": "zz"}, [])
    assert [times for times, *_ in counted[1:]] == [1] * processes * turns
    assert Learned(learned_path(db)).is_current(Store(db))
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in db.parent.iterdir()} == {
        "world.db",
        "world.db.replay.db",
    }


# A recording that grows, and one that stays


def test_nothing_is_replayed_before_anything_is_learned(db: Path) -> None:
    with pytest.raises(NotLearned) as refused:
        Replayer.open(db)
    assert str(refused.value) == f"nothing is learned at {learned_path(db)}: run firefly-proxy learn"
    assert not learned_path(db).exists()
    learn(Store(db))
    assert ask(Replayer.open(db), call("get", key="aa")) == [True]


def test_what_was_learned_of_a_recording_that_has_grown_is_stale(db: Path) -> None:
    learn(Store(db))
    add(db, "three", [call("get", "C", key="cc")])
    with pytest.raises(NotLearned) as refused:
        Replayer.open(db)
    assert str(refused.value) == (
        f"{db} has changed since it was learned from: run firefly-proxy learn --db {db}"
    )
    ensure_learned(Store(db))
    assert ask(Replayer.open(db), call("get", key="cc")) == [True]


def test_what_was_learned_of_another_recording_of_the_same_size_is_stale(db: Path, tmp_path: Path) -> None:
    learn(Store(db))
    other = tmp_path / "other.db"
    for session_id, calls in SESSIONS.items():
        add(other, session_id, [{**each, "output": "another"} for each in calls])
    os.replace(other, db)
    with pytest.raises(NotLearned, match="has changed since it was learned from"):
        Replayer.open(db)


def test_what_is_current_is_not_learned_again(db: Path) -> None:
    steps: list[str] = []

    def tell(what: str, done: int, of: int) -> None:
        steps.append(what)

    ensure_learned(Store(db), tell)
    assert steps
    steps.clear()
    ensure_learned(Store(db), tell)
    assert steps == []
    add(db, "three", [call("get", "C", key="cc")])
    ensure_learned(Store(db), tell)
    assert steps


def test_a_recording_is_only_ever_read(db: Path) -> None:
    before, store = db.read_bytes(), Store(db)
    ask(opened(db), OTHER, PUT, OTHER, call("get", key="aa"))
    held = split(store, "leave-run")
    learned = learn(store, db.parent / "held-out.replay.db", without=held)
    measured = measure(store, learned, held_from_recording(store, held))
    assert measured.total().calls > 0
    journal = journal_beside(store)
    assert journal is not None
    journal.forget(journal.misses()[0])
    assert db.read_bytes() == before


def test_a_quiet_miss_is_no_news(db: Path) -> None:
    session = opened(db).session("g")
    params = {"name": "get", "arguments": {"key": "zz"}}
    assert isinstance(session.ask("s", "tools/call", params, quiet=True), Miss)
    assert missed(db) == []
    assert isinstance(session.ask("s", "tools/call", params), Miss)
    assert missed(db) == [(1, "g", "get", {"key": "zz"}, [])]
