"""Killed at any moment, the proxy has written down every reply that its client received."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.promise.conversation import Conversation, record, replay, result_of, show
from tests.promise.lifeline import Lifeline
from tests.promise.recording import is_intact, texts_to_client

SEED = int(os.environ.get("PROMISE_SEED", random.randrange(10**6)))
"""Of the moments; set PROMISE_SEED to see the same ones again."""

CALLS = 2000
LAST_REPLY_LAG_S = 0.004


@pytest.mark.parametrize("in_flight", [1, 32])
@pytest.mark.parametrize("moment", range(10))
def test_every_reply_received_before_a_kill_is_recorded_and_replayed(
    moment: int, in_flight: int, db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    rng = random.Random(f"{SEED} {moment} {in_flight}")
    replies, lag_s = rng.randrange(CALLS), rng.uniform(0, LAST_REPLY_LAG_S)
    print(f"PROMISE_SEED={SEED}: killed {lag_s * 1000:.1f} ms after reply {replies}, {in_flight} in flight")

    with record(db, fickle) as client:
        client.initialize()
        killer = threading.Thread(target=kill_after, args=(client, replies, lag_s))
        killer.start()
        calls = call_until_the_end(client, in_flight)
        killer.join()
        client.wait()

    assert lifeline.survivors(timeout_s=5) == []
    received = {line.decode().strip() for line in client.lines if line.endswith(b"\n")}
    assert len(received) >= replies
    assert received - texts_to_client(db) == set()
    assert is_intact(db)
    assert [session["status"] for session in show(db)["sessions"]] == ["interrupted"]
    answered = calls[: client.received() - 1]
    with replay(db) as again:
        again.initialize()
        replayed = [again.start_call("echo", message=f"message {number}") for number in range(len(answered))]
        assert [result_of(again.reply(call)) for call in replayed] == [
            result_of(client.reply(call)) for call in answered
        ]


@pytest.mark.parametrize("moment", range(4))
def test_a_recorder_killed_while_it_starts_leaves_a_file_that_the_next_one_can_use(
    moment: int, db: Path, fickle: list[str]
) -> None:
    delay_s = random.Random(f"{SEED} start {moment}").uniform(0, 0.3)
    print(f"PROMISE_SEED={SEED}: killed {delay_s * 1000:.0f} ms after the start")
    with record(db, fickle) as client:
        client.request("initialize")
        time.sleep(delay_s)
        client.process.kill()

    with record(db, fickle) as client:
        client.initialize()
        assert client.call("echo", message="here")["result"]["content"][0]["text"] == "here"
    assert client.wait() == 0
    assert is_intact(db)
    assert show(db)["sessions"][-1]["status"] != "interrupted"


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_an_upstream_that_ignores_everything_does_not_outlive_a_killed_proxy(
    busy: bool, db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    with record(db, [*fickle, "--stubborn"]) as client:
        client.initialize()
        if busy:
            client.start_call("freeze")
        lifeline.wait_for("upstream")
        client.process.kill()
    assert lifeline.survivors(timeout_s=5) == []


def kill_after(client: Conversation, replies: int, lag_s: float) -> None:
    client.wait_until_received(replies)
    time.sleep(lag_s)
    client.process.kill()


def call_until_the_end(client: Conversation, in_flight: int) -> list[int]:
    """Call up to `CALLS` times, that many at once, and return the ids of the calls."""
    calls: list[int] = []
    try:
        for number in range(CALLS):
            calls.append(client.start_call("echo", message=f"message {number}"))
            if len(calls) >= in_flight:
                client.reply(calls[-in_flight])
    except EOFError:
        pass
    return calls
