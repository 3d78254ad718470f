"""Several proxies write one file at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.promise.conversation import ECHO, Conversation, record, replay, result_of, show
from tests.promise.recording import is_intact, query, texts_to_client

RECORDERS = 8
CALLS = 400
IN_FLIGHT = 8
VISITORS, VISITS = 4, 4


def test_eight_recorders_on_one_new_file_lose_nothing(db: Path) -> None:
    clients = [record(db, ECHO, "--name", "echo", "--run", str(number)) for number in range(RECORDERS)]
    with ThreadPoolExecutor(RECORDERS) as pool:
        list(pool.map(converse, clients, range(RECORDERS)))
    assert [(client.wait(), client.errors) for client in clients] == [(0, [])] * RECORDERS

    received = {line.decode().strip() for client in clients for line in client.lines}
    assert len(received) >= RECORDERS * CALLS
    assert received - texts_to_client(db) == set()
    assert is_intact(db)
    shown = show(db)
    assert len(shown["sessions"]) == RECORDERS
    assert shown["exchanges"] == RECORDERS * (CALLS + 1)
    per_session = query(db, "SELECT count(*), count(reply) FROM call GROUP BY session_id")
    assert per_session == [(CALLS, CALLS)] * RECORDERS


@pytest.mark.parametrize("attempt", range(3))
def test_recorders_that_start_at_the_same_moment_on_a_new_file_all_start(attempt: int, db: Path) -> None:
    clients = [record(db, ECHO) for _ in range(RECORDERS)]
    for client in clients:
        with client:
            assert "result" in client.initialize()
    assert [(client.wait(), client.errors) for client in clients] == [(0, [])] * RECORDERS
    assert len(show(db)["sessions"]) == RECORDERS


def test_recorders_that_come_and_go_do_not_disturb_each_other(db: Path) -> None:
    def come_and_go(number: int) -> list[tuple[int, list[str]]]:
        endings = []
        for visit in range(VISITS):
            with record(db, ECHO) as client:
                client.initialize()
                assert "result" in client.call("echo", message=f"{number}: {visit}")
            endings.append((client.wait(), client.errors))
        return endings

    with ThreadPoolExecutor(VISITORS) as pool:
        endings = [ending for visits in pool.map(come_and_go, range(VISITORS)) for ending in visits]
    assert endings == [(0, [])] * (VISITORS * VISITS)
    assert show(db)["exchanges"] == 2 * VISITORS * VISITS


def test_a_recording_is_replayed_while_others_still_write_it(db: Path) -> None:
    with record(db, ECHO) as first:
        first.initialize()
        first.call("echo", message="early")
        with record(db, ECHO) as second, replay(db) as again:
            second.initialize()
            second.call("echo", message="late")
            again.initialize()
            assert result_of(again.call("echo", message="early"))["content"][0]["text"] == "early"
    assert [session["status"] for session in show(db)["sessions"]].count("interrupted") == 0


def converse(client: Conversation, number: int) -> None:
    with client:
        client.initialize()
        calls: list[int] = []
        for call in range(CALLS):
            calls.append(client.start_call("echo", message=f"{number}: {call}"))
            if len(calls) >= IN_FLIGHT:
                client.reply(calls[-IN_FLIGHT])
        texts = [client.reply(call)["result"]["content"][0]["text"] for call in calls]
        assert texts == [f"{number}: {call}" for call in range(CALLS)]
