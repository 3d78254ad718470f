"""What cannot be written is not passed on: the session ends, with one line that says why."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.promise.conversation import FIREFLY, ROOT, WAIT_S, Conversation, record, replay, result_of
from tests.promise.lifeline import Lifeline
from tests.promise.recording import is_intact, texts_to_client

# Each takes folders, then the command; the file system is gone with the command.
SMALL_FILES = 'trap "" XFSZ; ulimit -f 8000; exec "$@"'
SMALL_DISK = """
    folder=$1 kept=$2; shift 2
    mount -t tmpfs -o size=4m tmpfs "$folder"
    "$@" && code=0 || code=$?
    cp "$folder"/* "$kept"
    exit $code
"""
READ_ONLY_DISK = """
    folder=$1; shift
    mount --bind "$folder" "$folder"
    mount -o remount,ro,bind "$folder"
    exec "$@"
"""


def test_a_file_that_may_not_grow_ends_the_session(db: Path, fickle: list[str], lifeline: Lifeline) -> None:
    with Conversation(shell(SMALL_FILES, recorder(db, fickle))) as client:
        call_until_refused(client)
        assert_ended_with_one_line(client, db)
    assert_all_received_is_recorded(client, db)
    assert lifeline.survivors(timeout_s=5) == []


@pytest.mark.parametrize("durable", [False, True], ids=["normal", "durable"])
def test_a_full_disk_ends_the_session(
    durable: bool, db: Path, fickle: list[str], tmp_path: Path, private_mounts: list[str]
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    command = [str(db.parent), str(kept), *recorder(db, fickle, *(["--durable"] if durable else []))]
    with Conversation([*private_mounts, *shell(SMALL_DISK, command)]) as client:
        call_until_refused(client)
        assert_ended_with_one_line(client, db)
    assert_all_received_is_recorded(client, kept / db.name)


def test_several_calls_in_flight_on_a_full_disk_get_no_unrecorded_reply(db: Path, fickle: list[str]) -> None:
    with Conversation(shell(SMALL_FILES, recorder(db, fickle))) as client:
        client.initialize()
        for number in range(4000):
            client.start_call("echo", message=f"{number}: {'x' * 1000}")
        assert_ended_with_one_line(client, db)
    assert_all_received_is_recorded(client, db)


def test_a_read_only_recording_is_refused(
    db: Path, fickle: list[str], lifeline: Lifeline, private_mounts: list[str]
) -> None:
    with record(db, fickle) as client:
        client.initialize()
    command = [str(db.parent), *recorder(db, fickle)]
    with Conversation([*private_mounts, *shell(READ_ONLY_DISK, command)]) as client:
        client.request("initialize")
        assert_ended_with_one_line(client, db)
    assert client.lines == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write a file without permission")
def test_a_recording_without_write_permission_is_refused(db: Path, fickle: list[str]) -> None:
    with record(db, fickle) as client:
        client.initialize()
    db.chmod(0o400)
    with record(db, fickle) as client:
        client.request("initialize")
        assert_ended_with_one_line(client, db)
    assert client.lines == []


def test_nothing_passes_once_the_folder_is_deleted(db: Path, fickle: list[str], lifeline: Lifeline) -> None:
    with record(db, fickle) as client:
        client.initialize()
        client.call("echo", message="before")
        shutil.rmtree(db.parent)
        assert_refused(client)
        assert_ended_with_one_line(client, db)
    assert lifeline.survivors(timeout_s=5) == []


def test_nothing_passes_once_the_file_is_replaced(db: Path, fickle: list[str], tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    shutil.copy(new_recording(tmp_path / "new.db", fickle), other)
    with record(db, fickle) as client:
        client.initialize()
        client.call("echo", message="before")
        os.replace(other, db)
        assert_refused(client)
        assert_ended_with_one_line(client, db)


def test_a_recording_of_a_newer_version_is_refused_by_name(
    db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    new_recording(db, fickle)
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = db.read_bytes()
    with record(db, fickle) as client:
        client.request("initialize")
        assert_ended_with_one_line(client, db)
        assert "999" in client.errors[0]
    assert client.lines == []
    assert db.read_bytes() == before
    for command in ("show", "replay"):
        refused = subprocess.run(
            [*FIREFLY, command, "--db", str(db)], check=False, capture_output=True, text=True, cwd=ROOT
        )
        assert refused.returncode != 0
        assert refused.stdout == ""
        assert "999" in refused.stderr
        assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", ["text", "foreign database"])
def test_a_file_that_is_no_recording_is_refused_and_left_alone(
    kind: str, db: Path, fickle: list[str]
) -> None:
    if kind == "text":
        db.write_text("Dear diary, this is not a database.\n" * 200)
    else:
        with closing(sqlite3.connect(db)) as connection:
            connection.execute("CREATE TABLE diary (entry TEXT)")
    before = db.read_bytes()
    with record(db, fickle) as client:
        client.request("initialize")
        assert_ended_with_one_line(client, db)
    assert client.lines == []
    assert db.read_bytes() == before
    assert list(db.parent.iterdir()) == [db]


@pytest.fixture
def private_mounts() -> list[str]:
    """The command that gives another one mounts of its own, where this machine lets us."""
    for command in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        try:
            mounting = [*command, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
            if subprocess.run(mounting, check=False, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            break
    pytest.skip("needs the right to mount in a namespace of its own")


def shell(script: str, arguments: list[str]) -> list[str]:
    return ["sh", "-ec", script, "sh", *arguments]


def recorder(db: Path, upstream: list[str], *options: str) -> list[str]:
    return [*FIREFLY, "record", "--db", str(db), *options, "--", *upstream]


def new_recording(db: Path, upstream: list[str]) -> Path:
    with record(db, upstream) as client:
        client.initialize()
    assert client.wait() == 0
    return db


def call_until_refused(client: Conversation) -> None:
    client.initialize()
    try:
        for number in range(20_000):
            client.call("echo", message=f"{number}: {'x' * 1000}")
    except EOFError:
        return
    pytest.fail("20 MB fitted into less")


def assert_refused(client: Conversation) -> None:
    call = client.start_call("echo", message="after")
    with pytest.raises(EOFError):
        client.reply(call, WAIT_S)


def assert_ended_with_one_line(client: Conversation, db: Path) -> None:
    """The process has ended by itself, its input still open, and said why in one line that names the file."""
    assert client.wait() != 0
    assert len(client.errors) == 1, client.errors
    assert str(db) in client.errors[0]


def assert_all_received_is_recorded(client: Conversation, db: Path) -> None:
    received = {line.decode().strip() for line in client.lines}
    assert len(received) > 20
    assert received - texts_to_client(db) == set()
    assert is_intact(db)
    with replay(db) as again:
        again.initialize()
        assert not result_of(again.call("echo", message=f"0: {'x' * 1000}")).get("isError")
