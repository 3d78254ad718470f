"""What a session keeps beside its replies."""

from pathlib import Path

import pytest

from tests.promise.conversation import ECHO, Conversation, record, replay, result_of, show
from tests.promise.recording import query


def test_group_run_and_name_are_kept(db: Path) -> None:
    with record(db, ECHO, "--group", "task 7", "--run", "3", "--name", "parrot") as client:
        client.initialize()
        client.call("echo", message="hi")
    assert query(db, "SELECT group_id, run_id FROM session") == [("task 7", "3")]
    assert query(db, "SELECT name FROM server") == [("parrot",)]
    shown = show(db)
    assert (shown["sessions"][0]["group"], shown["sessions"][0]["run"]) == ("task 7", "3")
    assert [server["name"] for server in shown["servers"]] == ["parrot"]


def test_without_names_sessions_of_one_command_share_a_group_and_those_of_another_do_not(
    db: Path, fickle: list[str]
) -> None:
    for command in (ECHO, ECHO, fickle):
        with record(db, command) as client:
            client.initialize()
    groups = [group for (group,) in query(db, "SELECT group_id FROM session ORDER BY started_at")]
    assert groups[0] == groups[1] != groups[2]


def test_the_default_name_is_the_base_name_of_the_command(db: Path) -> None:
    with record(db, ECHO) as client:
        client.initialize()
    assert query(db, "SELECT name FROM server") == [(Path(ECHO[0]).name,)]


@pytest.mark.parametrize("options", [[], ["--durable"]], ids=["normal", "durable"])
def test_every_conversation_is_one_session(options: list[str], db: Path) -> None:
    for _ in range(3):
        with record(db, ECHO, *options) as client:
            client.initialize()
            client.ask("tools/list")
            client.call("echo", message="hi")
        assert client.wait() == 0
    shown = show(db)
    assert len(shown["sessions"]) == 3
    assert shown["exchanges"] == 9
    assert {session["status"] for session in shown["sessions"]} == {"complete"}
    assert [tool["name"] for tool in shown["tools"]] == ["echo"]


def test_a_request_without_a_reply_is_visible_as_such_and_is_never_replayed_as_an_answer(
    db: Path, fickle: list[str]
) -> None:
    with record(db, fickle) as client:
        client.initialize()
        client.start_call("hang", message="anybody?")
        cancelled = client.start_call("hang", message="never mind")
        client.send(
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": cancelled}}
        )
        client.call("echo", message="hi")
    unanswered = query(db, "SELECT tool, outcome FROM call WHERE reply IS NULL ORDER BY id")
    assert unanswered == [("hang", "disconnected"), ("hang", "cancelled")]
    with replay(db) as again:
        again.initialize()
        assert result_of(again.call("hang", message="anybody?"))["isError"] is True


def test_noise_on_stdout_is_recorded_and_kept_from_the_client(db: Path, fickle: list[str]) -> None:
    noise = ["Server starting…", "[1, 2]", '{"level": "info"}', "42", '"text"', "{broken"]
    with record(db, fickle) as client:
        client.initialize()
        assert client.call("noise", lines=noise)["result"]["content"][0]["text"] == "said"
    assert len(client.lines) == 2
    recorded = query(
        db, "SELECT text FROM frame WHERE kind = 'noise' AND direction = 'to_client' ORDER BY id"
    )
    assert [text for (text,) in recorded] == noise


def test_replay_needs_neither_the_server_nor_the_order(db: Path) -> None:
    with record(db, ECHO) as client:
        client.initialize()
        recorded = [result_of(client.call("echo", message=text)) for text in ("one", "two", "three")]
        tools = client.ask("tools/list")["result"]
    with replay(db) as again:
        assert again.initialize()["result"]["serverInfo"]["name"] == "echo"
        replayed = [result_of(again.call("echo", message=text)) for text in ("three", "two", "one")]
        assert replayed == recorded[::-1]
        assert result_of(again.ask("tools/list")) == tools
        miss = again.call("echo", message="four")
        assert result_of(miss)["isError"] is True
        assert "echo" in result_of(miss)["content"][0]["text"]


def test_two_clients_replay_one_recording_at_once(db: Path) -> None:
    with record(db, ECHO) as client:
        client.initialize()
        recorded = [result_of(client.call("echo", message=f"{number}")) for number in range(20)]
    with replay(db) as one, replay(db) as other:
        assert [replayed(one, number) for number in range(20)] == recorded
        assert [replayed(other, number) for number in range(20)] == recorded


def replayed(client: Conversation, number: int) -> dict[str, object]:
    if number == 0:
        client.initialize()
    return result_of(client.call("echo", message=f"{number}"))
