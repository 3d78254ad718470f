"""Where a conversation stands, which calls move it on, and which recording answers for it then."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from recorder.importer import import_files, import_sessions
from recorder.store import Store
from recorder.verbs import names_all_it_touches
from replayer.learn import learn
from replayer.mask import output_text
from replayer.policy import Policy
from replayer.replayer import Replayer
from replayer.session import Answer
from replayer.state import MOST_WORDS, START, UNKNOWN, Place, World, group_id, names_in

Call = dict[str, Any]


def call(tool: str, output: str = "ok", /, *, failed: bool = False, **arguments: Any) -> Call:
    return {"server": "s", "tool": tool, "arguments": arguments, "output": output, "is_error": failed}


def record(db: Path, *sessions: tuple[str, Sequence[Call]]) -> None:
    """Add sessions, each of a group and its calls."""
    start = len(Store(db).sessions()) if db.exists() else 0
    documents = [
        {"session_id": f"{number}", "group": group, "calls": list(calls)}
        for number, (group, calls) in enumerate(sessions, start)
    ]
    assert import_sessions(db, documents).problems == []


def announce(db: Path, **tools: dict[str, Any] | None) -> None:
    """List tools with these annotations."""
    entries = db.with_suffix(".tools")
    lines = [json.dumps({"server": "s", "name": name, "annotations": told}) for name, told in tools.items()]
    entries.write_text("\n".join(lines))
    assert import_files(db, [], tools=[entries]).problems == []


def replayed(db: Path, group: str | None, *calls: Call, policy: Policy | None = None) -> list[Any]:
    """Ask in one conversation; tier and text of each answer, `None` for a miss."""
    store = Store(db)
    session = Replayer(store, learn(store, policy=policy)).session(group)
    answers = []
    for each in calls:
        params = {"name": each["tool"], "arguments": each["arguments"]}
        answer = session.ask(each["server"], "tools/call", params)
        answers.append((answer.tier, output_text(answer.outcome)) if isinstance(answer, Answer) else None)
    return answers


def effects(db: Path, policy: Policy | None = None) -> dict[str, tuple[bool, str]]:
    """What was learned of each kind of call: whether it changes the world, and why."""
    return {kind: (changes, why) for _, kind, changes, why, *_ in learn(Store(db), policy=policy).effects()}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


# Place


def test_a_conversation_begins_at_the_start_of_its_group() -> None:
    group = group_id("task-1")
    place = World(group).place(11, [])
    assert place == Place(
        group=group,
        world=START,
        prefix=START,
        earlier=(),
        related=START,
        history=World(group).place(11, [5]).history,
    )
    assert place.history != World(group).place(12, []).history


def test_groups_are_told_apart_and_none_is_unknown() -> None:
    assert group_id(None) == UNKNOWN
    assert len({group_id("a"), group_id("b"), group_id(""), UNKNOWN}) == 4
    assert group_id("a") == group_id("a")


def test_reads_change_the_history_alone() -> None:
    world, other = World(1), World(1)
    world.note(7, [], changes=False)
    before, after = other.place(11, []), world.place(11, [])
    assert (after.prefix, after.earlier, after.related) == (before.prefix, before.earlier, before.related)
    assert after.history != before.history


def test_world_changing_calls_change_the_prefix_in_their_order() -> None:
    def prefix(*writes: int) -> int:
        world = World(1)
        for write in writes:
            world.note(write, [], changes=True)
        return world.place(11, []).prefix

    assert len({prefix(), prefix(7), prefix(8), prefix(7, 7), prefix(7, 8), prefix(8, 7)}) == 6
    assert prefix(7, 8) == prefix(7, 8)


def test_earlier_states_are_the_last_four_latest_first() -> None:
    world, prefixes = World(1), [START]
    for write in range(6):
        world.note(write, [], changes=True)
        prefixes.append(world.place(11, []).prefix)
    assert world.place(11, []).earlier == tuple(prefixes[5:1:-1])
    assert world.place_of_other(11).earlier == tuple(prefixes[5:1:-1])


def test_related_are_the_writes_that_share_a_value_in_their_order() -> None:
    def related(values: list[int], *writes: tuple[int, list[int]]) -> int:
        world = World(1)
        for key, named in writes:
            world.note(key, named, changes=True)
        return world.place(11, values).related

    one, two, both = (71, [1]), (72, [2]), (73, [1, 2])
    assert related([1], one, two) == related([1], two, one) == related([1], one) != START
    assert related([1], two) == related([1]) == START
    assert related([1], one, both) != related([1], both, one)
    assert related([1, 2], both) == related([1], both)
    # A call that names nothing may be about everything.
    world = World(1)
    world.note(*one, changes=True)
    assert world.place(11, []).related == world.place(11, []).prefix != START


def test_other_requests_are_told_apart_by_their_turn_and_move_nothing_on() -> None:
    world = World(1)
    before, first = world.place(11, []), world.place_of_other(5)
    world.note_other(5)
    assert world.place_of_other(5).history != first.history
    assert world.place_of_other(6).history == World(1).place_of_other(6).history
    assert world.place(11, []) == before


def test_what_arguments_name() -> None:
    def named(*words: str) -> set[int]:
        return {crc32(word.encode()) for word in words}

    arguments = {
        "id": "W1",
        "n": 99,
        "yes": True,
        "path": "/srv/Notes/today.txt",
        "list": "red, 'blue'; **/*.py",
        "deep": [{"z": ["W1", -2000.5]}],
        "no": None,
    }
    assert set(names_in(arguments)) == named(
        "w1", "99", "srv", "notes", "today.txt", "red", "blue", "py", "2000.5"
    )
    assert len(names_in(" ".join(f"word{number}" for number in range(1000)))) >= MOST_WORDS
    assert names_in({"text": "Dan"}) == names_in({"other": "dan"})


def test_a_call_that_sweeps_or_runs_what_it_is_given_names_nothing() -> None:
    assert names_all_it_touches("read_file", {"path": "a.txt"})
    assert not names_all_it_touches("read_file", {"path": "*.txt"})
    assert not names_all_it_touches("search_files", {"path": "a"})
    assert not names_all_it_touches("execute_sql", {"sql": "SELECT 1"})


# Which recording answers


READ, PUT = call("get", key="aa"), call("put", key="aa", value="1")


def test_the_same_state_of_the_own_group_comes_before_another_group(db: Path) -> None:
    record(db, ("A", [call("get", "of A", key="aa")]), ("B", [call("get", "of B", key="aa")]))
    assert replayed(db, "B", READ) == [("exact", "of B")]
    assert replayed(db, "A", READ) == [("exact", "of A")]


def test_where_the_group_is_unknown_no_state_is_the_same(db: Path) -> None:
    record(db, ("A", [call("get", "of A", key="aa")]))
    assert replayed(db, "A", READ) == [("exact", "of A")]
    for group in (None, "never recorded", ""):
        assert replayed(db, group, READ) == [("exact-other-state", "of A")]


def test_the_same_state_comes_before_the_same_related_writes(db: Path) -> None:
    record(
        db,
        ("g", [call("put", key="bb"), PUT, call("get", "after both", key="aa")]),
        ("g", [PUT, call("get", "after one", key="aa")]),
    )
    assert replayed(db, "g", PUT, READ)[1] == ("exact", "after one")
    assert replayed(db, "g", call("put", key="bb"), PUT, READ)[2] == ("exact", "after both")


def test_writes_about_something_else_do_not_matter_where_the_state_is_new(db: Path) -> None:
    record(
        db,
        ("g", [call("get", "before", key="aa")]),
        ("g", [PUT, call("get", "after", key="aa")]),
        ("g", [call("put", key="bb")]),
    )
    bystander = call("put", key="bb")
    assert replayed(db, "g", bystander, READ) == [("exact", "ok"), ("exact-other-state", "before")]
    assert replayed(db, "g", bystander, PUT, READ)[2] == ("exact-other-state", "after")
    assert replayed(db, "g", PUT, bystander, READ)[2] == ("exact-other-state", "after")


def test_the_state_before_the_last_write_comes_before_any_other(db: Path) -> None:
    other = call("put", key="aa", value="2")
    record(
        db,
        ("g", [call("get", "at the start", key="aa")]),
        ("g", [PUT, call("get", "after one", key="aa"), other]),
        ("g", [other, call("get", "after another", key="aa")]),
    )
    assert replayed(db, "g", PUT, other, READ)[2] == ("exact-other-state", "after one")
    assert replayed(db, "g", other, PUT, READ)[2] == ("exact-other-state", "after another")
    assert replayed(db, "g", PUT, other, other, READ)[3] == ("exact-other-state", "after one")


def test_the_same_history_comes_before_the_same_state(db: Path) -> None:
    record(
        db,
        ("g", [call("get", "first", key="aa"), call("get", "second", key="aa")]),
        ("g", [call("list"), call("get", "after list", key="aa")]),
    )
    assert replayed(db, "g", READ, READ) == [("exact", "first"), ("exact", "second")]
    assert replayed(db, "g", call("list"), READ)[1] == ("exact", "after list")


def test_a_failed_write_does_not_count_in_what_was_recorded(db: Path) -> None:
    record(db, ("g", [call("put", "no", failed=True, key="zz"), call("get", "before", key="aa")]))
    assert replayed(db, "g", READ) == [("exact", "before")]


def test_a_failed_write_does_not_count_in_the_replay(db: Path) -> None:
    refused = call("put", "no", failed=True, key="zz")
    record(db, ("g", [refused]), ("g", [call("get", "before", key="aa")]))
    assert replayed(db, "g", refused, READ) == [("exact", "no"), ("exact", "before")]


def test_a_write_that_succeeded_does_count(db: Path) -> None:
    written = call("put", key="aa")
    record(db, ("g", [written]), ("g", [call("get", "before", key="aa")]))
    assert replayed(db, "g", written, READ) == [("exact", "ok"), ("exact-other-state", "before")]


# Which calls change the world


def test_names_suggest_what_a_call_does(db: Path) -> None:
    names = {
        "get_user": False, "listFiles": False, "search-docs": False, "pwd": False, "is_open": False,
        "create_issue": True, "deleteUser": True, "HTTPPost": True, "git_commit": True, "cd": True,
    }  # fmt: skip
    record(db, ("g", [call(name) for name in [*names, "frobnicate"]]))
    assert effects(db) == {
        **{name: (changes, "name") for name, changes in names.items()},
        "frobnicate": (True, "unknown"),
    }


def test_annotations_come_before_names(db: Path) -> None:
    record(db, ("g", [call("get_user"), call("create_issue"), call("list_files"), call("frobnicate")]))
    announce(
        db,
        get_user={"readOnlyHint": False},
        create_issue={"readOnlyHint": True},
        list_files={"destructiveHint": True, "readOnlyHint": None},
        frobnicate={"readOnlyHint": True},
    )
    assert effects(db) == {
        "get_user": (True, "annotation"),
        "create_issue": (False, "annotation"),
        "list_files": (False, "name"),
        "frobnicate": (False, "annotation"),
    }


def test_recordings_show_that_a_call_of_unknown_name_changes_nothing(db: Path) -> None:
    quiet = [call("get", "same", key="k"), call("frobnicate"), call("get", "same", key="k")]
    record(db, *[(f"g{number}", quiet) for number in range(19)])
    assert effects(db)["frobnicate"] == (True, "unknown")
    record(db, ("g19", quiet))
    assert effects(db) == {"frobnicate": (False, "recording"), "get": (False, "name")}


def test_one_change_after_it_is_enough_to_say_that_a_call_may_change_the_world(db: Path) -> None:
    def around(after: str) -> list[Call]:
        return [call("get", "same", key="k"), call("frobnicate"), call("get", after, key="k")]

    record(db, *[(f"g{number}", around("same")) for number in range(40)], ("h", around("another")))
    assert effects(db)["frobnicate"] == (True, "unknown")


def test_recordings_show_that_what_is_named_a_read_changes_the_world(db: Path) -> None:
    # Repeats of `get` alone show that it is not `get` itself that changes what it answers.
    before, after = [call("get", "0", key="k")] * 7, call("get", "1", key="k")
    record(db, *[(f"g{number}", [*before, call("check_in"), after]) for number in range(3)])
    assert effects(db) == {"check_in": (True, "recording"), "get": (False, "name")}


def test_reads_are_not_blamed_for_what_a_write_beside_them_changed(db: Path) -> None:
    around = [call("get", "0", key="k"), call("check_in"), call("put", key="k"), call("get", "1", key="k")]
    record(db, *[(f"g{number}", around) for number in range(5)])
    assert effects(db)["check_in"] == (False, "name")


def test_a_failed_call_is_not_blamed(db: Path) -> None:
    around = [call("get", "0", key="k"), call("check_in", failed=True), call("get", "1", key="k")]
    record(db, *[(f"g{number}", around) for number in range(5)])
    assert effects(db)["check_in"] == (False, "name")


def test_a_policy_comes_before_everything(db: Path) -> None:
    record(db, ("g", [call("get_user"), call("create_issue"), call("execute_sql", sql="DROP TABLE x")]))
    announce(db, get_user={"readOnlyHint": True}, create_issue={"readOnlyHint": False})
    rules = {
        "s/*": {"changes_state": True},
        "*/create_*": {"changes_state": False},
        "s/execute_sql": {"changes_state": False},
        "other/get_user": {"changes_state": False},
    }
    assert effects(db, Policy(rules)) == {
        "get_user": (True, "policy"),
        "create_issue": (False, "policy"),
        "execute_sql DROP": (False, "policy"),
    }


def test_a_policy_decides_which_state_a_replay_is_in(db: Path) -> None:
    ping = call("frobnicate", key="aa")
    record(db, ("g", [ping]), ("g", [call("get", "yes", key="aa")]))
    assert replayed(db, "g", ping, READ)[1] == ("exact-other-state", "yes")
    still = Policy({"s/frobnicate": {"changes_state": False}})
    assert replayed(db, "g", ping, READ, policy=still)[1] == ("exact", "yes")


def test_an_open_ended_tool_is_judged_by_the_first_word_it_is_to_run(db: Path) -> None:
    statements = {
        "SELECT * FROM t": ("execute_sql SELECT", False),
        "  -- all of it\n  select 1 from t": ("execute_sql SELECT", False),
        "/* all\n of it */ EXPLAIN SELECT 1": ("execute_sql EXPLAIN", False),
        "insert into t values (1)": ("execute_sql INSERT", True),
        "DELETE FROM t": ("execute_sql DELETE", True),
    }
    record(db, ("g", [call("execute_sql", sql=statement) for statement in statements]))
    assert {kind: changes for kind, (changes, _) in effects(db).items()} == dict(statements.values())


def test_an_open_ended_tool_that_is_told_one_word_is_of_one_kind(db: Path) -> None:
    record(
        db,
        (
            "g",
            [call("run_command", command="date"), call("shell", timeout=3), call("look", sql="DROP TABLE x")],
        ),
    )
    assert effects(db) == {
        "run_command": (True, "unknown"),
        "shell": (True, "unknown"),
        "look": (False, "name"),
    }


def test_only_the_statements_that_change_something_move_a_replay_on(db: Path) -> None:
    select = call("execute_sql", "1 row", sql="SELECT * FROM users")
    record(
        db,
        (
            "g",
            [
                select,
                call("execute_sql", sql="SELECT * FROM orders"),
                call("execute_sql", sql="DELETE FROM users"),
            ],
        ),
        (
            "g",
            [
                call("execute_sql", sql="DELETE FROM users"),
                call("execute_sql", "0 rows", sql="SELECT * FROM users"),
            ],
        ),
    )
    orders, delete = (
        call("execute_sql", sql="SELECT * FROM orders"),
        call("execute_sql", sql="DELETE FROM users"),
    )
    assert replayed(db, "g", orders, select) == [("exact", "ok"), ("exact", "1 row")]
    assert replayed(db, "g", orders, delete, select)[2] == ("exact", "0 rows")
