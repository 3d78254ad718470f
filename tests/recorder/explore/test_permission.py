"""What an explorer may call: by what a call does, by what the user allowed, and by where its paths lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.explore.permission import Effect, Permission, effect_of
from recorder.explore.roots import Roots
from recorder.tool import ToolSpec


def tool(name: str, description: str = "", **annotations: bool) -> ToolSpec:
    entry: dict[str, Any] = {"name": name, "description": description, "annotations": annotations}
    return ToolSpec(server="shop", name=name, version="v", entry=entry)


@pytest.mark.parametrize(
    ("name", "annotations", "effect"),
    [
        ("delete_all", {"readOnlyHint": True}, "read"),
        ("write_file", {"readOnlyHint": True, "destructiveHint": True}, "read"),
        ("list_orders", {"destructiveHint": True}, "destructive"),
        ("list_orders", {"readOnlyHint": False}, "write"),
        ("list_orders", {"readOnlyHint": False, "destructiveHint": False}, "write"),
        ("frobnicate", {"readOnlyHint": False, "destructiveHint": True}, "destructive"),
        ("delete_order", {"readOnlyHint": False}, "destructive"),
    ],
)
def test_annotations_count_before_names(name: str, annotations: dict[str, bool], effect: Effect) -> None:
    assert effect_of(tool(name, **annotations)) == effect


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        ("get_order", "read"),
        ("listOrders", "read"),
        ("search-code", "read"),
        ("get_deleted_orders", "read"),
        ("list_reset_tokens", "read"),
        ("create_item", "write"),
        ("write_file", "write"),
        ("createItem", "write"),
        ("git_commit", "write"),
        ("delete_order", "destructive"),
        ("deleteOrder", "destructive"),
        ("bulk_remove", "destructive"),
        ("cancel_order", "destructive"),
        ("send_message", "destructive"),
        ("publish_post", "destructive"),
        ("move_file", "destructive"),
        ("git_reset", "destructive"),
        ("wipe", "destructive"),
        ("frobnicate", "write"),
        ("", "write"),
    ],
)
def test_else_verbs_tell_and_what_is_unknown_changes_the_world(name: str, effect: Effect) -> None:
    assert effect_of(tool(name)) == effect


@pytest.mark.parametrize(
    ("name", "description", "effect"),
    [
        ("area", "Calculates the area of a circle.", "read"),
        ("weather", "Returns the weather.", "read"),
        ("forecast", "Get the forecast", "read"),
        ("area", "**Compute** the area", "read"),
        ("note", "Stores a note and returns its id", "write"),
        ("note", "", "write"),
        ("delete_note", "Gets rid of a note", "destructive"),
        ("create_note", "Returns the id of the note it creates", "write"),
        ("weather", None, "write"),
    ],
)
def test_a_description_that_begins_with_a_read_makes_one_of_a_name_that_tells_nothing(
    name: str, description: str, effect: Effect
) -> None:
    assert effect_of(tool(name, description)) == effect


@pytest.mark.parametrize(
    ("statement", "effect"),
    [
        ("SELECT * FROM pets", "read"),
        ("  select 1 + 1", "read"),
        ("-- all\nSELECT * FROM pets", "read"),
        ("EXPLAIN SELECT 1", "read"),
        ("SHOW TABLES", "read"),
        ("INSERT INTO pets VALUES (1)", "write"),
        ("UPDATE pets SET a = 1", "write"),
        ("CREATE TABLE a (b)", "write"),
        ("WITH a AS (SELECT 1) INSERT INTO b SELECT * FROM a", "write"),
        ("DELETE FROM pets", "destructive"),
        ("DROP TABLE pets", "destructive"),
        ("TRUNCATE pets", "destructive"),
        ("SELECT 1; DROP TABLE pets", "destructive"),
        ("INSERT INTO pets VALUES (1); DROP TABLE pets", "destructive"),
        ("ALTER TABLE pets DROP COLUMN a", "destructive"),
        ("/* x */ DELETE FROM pets", "destructive"),
        ("PRAGMA writable_schema = 1", "write"),
    ],
)
def test_a_statement_tells_what_a_call_does(statement: str, effect: Effect) -> None:
    assert effect_of(tool("execute_sql"), {"sql": statement}) == effect


@pytest.mark.parametrize(
    ("command", "effect"),
    [("ls -la", "read"), ("cat a.txt", "read"), ("touch a.txt b", "write"), ("rm -rf a", "destructive"),
     ("mv a b", "destructive"), ("ls; rm -rf a", "destructive"), ("touch a; rm b", "destructive"),
     ("import shutil; shutil.rmtree('a')", "destructive"), ("import os\nos.remove('a')", "destructive"),
     ("format a.py", "destructive"), ("touch format.py", "write")],
)  # fmt: skip
def test_a_command_tells_what_a_call_does(command: str, effect: Effect) -> None:
    assert effect_of(tool("run_command"), {"command": command}) == effect


READ, WRITE, DELETE = tool("get_order"), tool("create_item"), tool("delete_order")


@pytest.mark.parametrize(
    ("permission", "may"),
    [
        (Permission(), (True, False, False)),
        (Permission(writes=True), (True, True, False)),
        (Permission(writes=True, allow=("delete_order",)), (True, True, True)),
        (Permission(allow=("delete_*",)), (True, False, True)),
        (Permission(allow=("shop/*",)), (True, True, True)),
        (Permission(allow=("other/*", "DELETE_order", "delete")), (True, False, False)),
        (Permission(writes=True, allow=("*",), deny=("shop/*_*e*",)), (False, False, False)),
        (Permission(deny=("get_order",)), (False, False, False)),
        (Permission(writes=True, deny=("other/*",)), (True, True, False)),
    ],
)
def test_reads_are_free_writes_need_leave_and_what_destroys_has_to_be_named(
    permission: Permission, may: tuple[bool, ...]
) -> None:
    assert tuple(permission.permits_tool(spec) for spec in (READ, WRITE, DELETE)) == may
    assert tuple(permission.permits(spec, {}, Roots()) for spec in (READ, WRITE, DELETE)) == may


def test_a_tool_that_runs_what_it_is_given_is_open_and_each_call_is_judged() -> None:
    run, reads, writes = tool("execute_sql"), Permission(), Permission(writes=True)
    select, insert, drop = ({"sql": f"{verb} pets x"} for verb in ("SELECT", "INSERT", "DROP"))
    assert reads.permits_tool(run)
    assert [reads.permits(run, each, Roots()) for each in (select, insert, drop)] == [True, False, False]
    assert [writes.permits(run, each, Roots()) for each in (select, insert, drop)] == [True, True, False]
    named = Permission(allow=("execute_sql",))
    assert [named.permits(run, each, Roots()) for each in (select, insert, drop)] == [True, True, True]


@pytest.fixture
def world(tmp_path: Path) -> tuple[Roots, Path]:
    """A server's folder, beside another one that it must not touch."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here / "inner", there):
        folder.mkdir(parents=True)
    (here / "a.txt").write_text("a")
    (there / "b.txt").write_text("b")
    (here / "out").symlink_to(there)
    (here / "out.txt").symlink_to(there / "b.txt")
    (here / "in.txt").symlink_to(here / "a.txt")
    return Roots(folders=(str(here),), named=(str(there / "named.txt"),)), here


WRITES = Permission(writes=True)


@pytest.mark.parametrize(
    "path",
    [
        "{here}/new.txt", "{here}/inner/new/deeper.txt", "{here}/a.txt", "{here}", "{here}/", "new.txt",
        "inner/new.txt", "./new.txt", "{here}/in.txt", "in.txt", "{here}/inner/../new.txt", "named", "a..b.txt",
        "{there}/named.txt", "", ".", "a note of 3/4 and more", "line\n/etc/passwd\n", "x" * 5000,
    ],
)  # fmt: skip
def test_a_write_within_the_folders_is_permitted(world: tuple[Roots, Path], path: str) -> None:
    roots, here = world
    given = path.format(here=here, there=here.parent / "there")
    assert WRITES.permits(tool("write_file"), {"path": given, "content": "x"}, roots)


OUTSIDE = [
    "/etc/passwd", "/", "{there}", "{there}/b.txt", "{there}/new.txt", "{here}x/a.txt", "{here}/../there/b.txt",
    "../there/b.txt", "..", "inner/../../there/b.txt", "a/..", "~/x.txt", "~root/x", "$HOME/x.txt", "%TEMP%/x",
    "file:///etc/passwd", "FILE:///etc/passwd", "C:\\Windows\\x", "\\\\host\\share", "{here}/out/b.txt", "out/new.txt",
    "out", "out.txt", "{here}/out.txt", " /etc/passwd ", "'/etc/passwd'", '"/etc/passwd"', "/etc/./passwd",
    "{here}/inner/../../there/new.txt", "./out/b.txt", ".//../there/b.txt",
    "/\0", "{here}/\0", "/\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_write_elsewhere_is_not_permitted_however_the_place_is_written(
    world: tuple[Roots, Path], path: str
) -> None:
    roots, here = world
    given = path.format(here=here, there=here.parent / "there")
    spec = tool("write_file")
    assert not WRITES.permits(spec, {"path": given}, roots)
    assert not WRITES.permits(spec, {"files": [{"at": {"path": given}}]}, roots)
    assert not WRITES.permits(spec, {"path": "a.txt", "to": given}, roots)


def test_where_names_of_members_are_paths_they_count(world: tuple[Roots, Path]) -> None:
    roots, _ = world
    assert not WRITES.permits(tool("write_files"), {"files": {"/etc/passwd": "x"}}, roots)
    assert WRITES.permits(tool("write_files"), {"files": {"inner/a": "x"}}, roots)


def test_reads_may_look_elsewhere_and_so_may_writes_that_are_not_confined(world: tuple[Roots, Path]) -> None:
    roots, _ = world
    elsewhere = {"path": "/etc/hostname"}
    assert WRITES.permits(tool("read_file"), elsewhere, roots)
    assert Permission(writes=True, confined=False).permits(tool("write_file"), elsewhere, roots)
    assert not Permission(allow=("*",)).permits(tool("delete_file"), elsewhere, roots)


@pytest.mark.parametrize(
    "command",
    [
        "touch /etc/x", "touch a && touch /etc/x", "echo a >/etc/x; touch b", "touch ../x", "touch ~/x",
        "touch $HOME/x", "touch '/etc/x'", "touch inner/../../x", "touch out/x", "cd .. && touch x",
        "cd $HOME && touch x", "touch ${HOME}/x", "cd out; touch x", "touch a --output=/etc/x", "cp a out.txt", "touch /",
    ],
)  # fmt: skip
def test_every_path_within_a_command_that_writes_counts(world: tuple[Roots, Path], command: str) -> None:
    roots, _ = world
    named = Permission(allow=("run_command",))
    assert not named.permits(tool("run_command"), {"command": command}, roots)


def test_a_command_within_the_folders_is_permitted(world: tuple[Roots, Path]) -> None:
    roots, here = world
    named = Permission(allow=("run_command", "execute_sql"))
    assert named.permits(tool("run_command"), {"command": f"touch {here}/x inner/y"}, roots)
    assert named.permits(tool("execute_sql"), {"sql": "UPDATE t SET a = 4/2 WHERE b = '*/3'"}, roots)
