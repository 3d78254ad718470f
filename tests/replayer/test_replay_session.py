import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.exchange import OtherResult, RpcError, ToolResult
from recorder.store import Store
from recorder.writer import RecordingWriter
from replayer.learn import learn
from replayer.replayer import Replayer
from replayer.selection import SelectionError, select_sessions
from replayer.session import Answer, Miss, ReplaySession

Exchanges = list[tuple[str, dict[str, Any], Any]]
Recorder = Callable[..., None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


@pytest.fixture
def recorded(path: Path) -> Recorder:
    """Record one session: method, params and result of each exchange in order; `...` for no reply."""

    def record(
        exchanges: Exchanges, group: str = "g", server: str = "s", secrets: tuple[str, ...] = ()
    ) -> None:
        writer = RecordingWriter(path, group=group, secrets=secrets)
        server_id = writer.add_server(server, {})
        for position, (method, params, result) in enumerate(exchanges):
            message = {"jsonrpc": "2.0", "id": position, "method": method, "params": params}
            writer.record(server_id, "to_server", [json.dumps(message).encode()])
            if result is not ...:
                key = "error" if isinstance(result, RpcError) else "result"
                value = result.error if isinstance(result, RpcError) else result
                writer.record(
                    server_id,
                    "to_client",
                    [json.dumps({"jsonrpc": "2.0", "id": position, key: value}).encode()],
                )
        writer.end_server(server_id, "done")
        writer.end("done")

    return record


def call(tool: str, text: Any, **arguments: Any) -> tuple[str, dict[str, Any], Any]:
    return "tools/call", {"name": tool, "arguments": arguments}, text


def replay(path: Path, group: str | None = "g", session_id: str | None = None) -> ReplaySession:
    store = Store(path)
    return Replayer(store, learn(store), session_id=session_id).session(group)


def answers(session: ReplaySession, *calls: tuple[str, dict[str, Any], Any], server: str = "s") -> list[Any]:
    """Ask each call in turn; `None` for a miss."""
    replies = []
    for method, params, _ in calls:
        reply = session.ask(server, method, params)
        if isinstance(reply, Answer):
            assert isinstance(reply.outcome, ToolResult | OtherResult)
            replies.append(reply.outcome.result)
        else:
            replies.append(None)
    return replies


READ, WRITE = call("read", None), call("write", None, x=1)


def test_reads_after_a_write_come_in_order(path: Path, recorded: Recorder) -> None:
    recorded([call("read", "before"), call("write", "ok", x=1), call("read", "after"), call("read", "later")])
    assert answers(replay(path), READ, WRITE, READ, READ, READ) == ["before", "ok", "after", "later", "later"]


def test_a_replay_follows_the_session_that_began_the_same_way(path: Path, recorded: Recorder) -> None:
    recorded([call("write", "ok", x=1), call("read", "one")])
    recorded([call("write", "ok", x=2), call("read", "two")])
    assert answers(replay(path), call("write", None, x=2), READ) == ["ok", "two"]
    assert answers(replay(path), call("write", None, x=1), READ) == ["ok", "one"]


def test_a_replay_that_no_session_began_like_takes_the_earliest(path: Path, recorded: Recorder) -> None:
    recorded([call("write", "ok", x=1), call("read", "one")])
    recorded([call("write", "ok", x=2), call("read", "two")])
    assert answers(replay(path), READ) == ["one"]


def test_a_replay_that_leaves_a_session_stays_in_its_world(path: Path, recorded: Recorder) -> None:
    recorded([call("ls", "empty"), call("write", "ok", x=1), call("ls", "one"), call("only", "first")])
    recorded([call("ls", "empty"), call("write", "ok", x=2), call("ls", "two")])
    asked = [call("ls", None), call("write", None, x=2), call("ls", None), call("ls", None), call("ls", None)]
    assert answers(replay(path), *asked) == ["empty", "ok", "two", "two", "two"]
    assert answers(replay(path), *asked[:2], call("write", None, x=2), call("ls", None)) == [
        "empty",
        "ok",
        "ok",
        "two",
    ]
    assert answers(replay(path), *asked, call("only", None))[-1] == "first"


def test_a_call_that_was_missed_and_may_change_the_world_leaves_the_recorded_states(
    path: Path, recorded: Recorder
) -> None:
    recorded([call("read", "first"), call("write", "ok", x=2), call("read", "two")])
    session = replay(path)
    asked = [session.ask("s", *request[:2]) for request in (call("write", None, x=2), READ)]
    assert [answer.tier for answer in asked if isinstance(answer, Answer)] == ["exact", "exact"]
    session = replay(path)
    asked = [session.ask("s", *request[:2]) for request in (call("write", None, x=9), READ)]
    assert isinstance(asked[0], Miss)
    assert isinstance(asked[1], Answer)
    assert asked[1].tier == "exact-other-state"


def test_lists_are_answered_as_in_the_same_state_and_do_not_move_it_on(
    path: Path, recorded: Recorder
) -> None:
    recorded([("tools/list", {}, {"tools": [1]}), call("read", "one")])
    recorded(
        [("tools/list", {}, {"tools": [2]}), call("write", "ok", x=2), ("tools/list", {}, {"tools": [3]})]
    )
    session = replay(path)
    assert answers(session, call("write", None, x=2), ("tools/list", {}, None), ("tools/list", {}, None)) == [
        "ok",
        {"tools": [3]},
        {"tools": [3]},
    ]


@pytest.mark.parametrize(
    ("asked", "hits"),
    [
        ({"name": "t", "arguments": {"b": 2.0, "a": "x"}}, True),
        ({"arguments": {"a": "x", "b": 2}, "name": "t", "_meta": {"progressToken": 1}}, True),
        ({"name": "t", "arguments": {"a": "x", "b": True}}, False),
        ({"name": "t", "arguments": {"a": "x", "b": "2"}}, False),
        ({"name": "t", "arguments": {"a": "x", "b": 2, "c": None}}, True),
        ({"name": "t", "arguments": {"a": "x", "b": 2, "c": ""}}, False),
        ({"name": "T", "arguments": {"a": "x", "b": 2}}, False),
    ],
)
def test_what_counts_as_the_same_call(
    path: Path, recorded: Recorder, asked: dict[str, Any], hits: bool
) -> None:
    recorded([("tools/call", {"name": "t", "arguments": {"a": "x", "b": 2}, "_meta": {"x": 1}}, "yes")])
    assert answers(replay(path), ("tools/call", asked, None)) == ["yes" if hits else None]


@pytest.mark.parametrize(
    "params", [{"name": "t"}, {"name": "t", "arguments": {}}, {"name": "t", "arguments": None}]
)
def test_no_arguments_are_empty_arguments(path: Path, recorded: Recorder, params: dict[str, Any]) -> None:
    recorded([("tools/call", {"name": "t"}, "yes")])
    assert answers(replay(path), ("tools/call", params, None)) == ["yes"]


def test_unanswered_calls_are_never_replayed(path: Path, recorded: Recorder) -> None:
    recorded([call("read", ...)])
    recorded([call("read", "yes")])
    assert answers(replay(path), READ, READ) == ["yes", "yes"]


def ask_again(state: str, reply: str) -> dict[str, Any]:
    return {"name": "t", "arguments": {}, "inputResponses": {"q": reply}, "requestState": state}


def test_a_later_leg_of_a_chain_is_answered_only_after_the_legs_before_it(
    path: Path, recorded: Recorder
) -> None:
    question = {"resultType": "input_required", "inputRequests": {}, "requestState": "S"}
    recorded(
        [
            ("tools/call", {"name": "t", "arguments": {}}, question),
            ("tools/call", ask_again("S", "yes"), "done"),
            ("tools/call", {"name": "other"}, {**question, "requestState": "O"}),
        ]
    )
    first = ("tools/call", {"name": "t"}, None)
    assert answers(replay(path), ("tools/call", ask_again("S", "yes"), None)) == [None]
    assert answers(replay(path), first, ("tools/call", ask_again("S", "yes"), None)) == [question, "done"]
    assert answers(replay(path), first, ("tools/call", ask_again("S", "no"), None)) == [question, None]
    assert answers(replay(path), first, ("tools/call", ask_again("O", "yes"), None)) == [question, None]


def test_chains_with_one_state_are_told_apart_by_how_they_began(path: Path, recorded: Recorder) -> None:
    question = {"resultType": "input_required", "inputRequests": {}, "requestState": "S"}
    for answer in ("a", "b"):
        recorded(
            [
                ("tools/call", {"name": "t"}, question),
                ("tools/call", ask_again("S", answer), question),
                ("tools/call", ask_again("S", "end"), answer * 3),
            ]
        )
    legs = [("tools/call", {"name": "t"}, None), ("tools/call", ask_again("S", "b"), None)]
    assert answers(replay(path), *legs, ("tools/call", ask_again("S", "end"), None)) == [
        question,
        question,
        "bbb",
    ]


def test_a_miss_names_the_nearest_calls_and_where_they_differ(path: Path, recorded: Recorder) -> None:
    recorded([call("t", 1, a={"b/c": 1, "d": [1, 2]}), call("t", 1, z="far"), call("u", 1, a=1)])
    miss = replay(path).ask(
        "s", "tools/call", {"name": "t", "arguments": {"a": {"b/c": 2, "d": [1, 3]}, "e": 1}}
    )
    assert isinstance(miss, Miss)
    assert miss.tiers == ("exact", "near")
    assert [str(difference) for difference in miss.nearest[0].differences] == [
        "/a/b~1c: 1 recorded, 2 asked",
        "/a/d/1: 2 recorded, 3 asked",
        "/e: nothing recorded, 1 asked",
    ]
    assert [near.exchange.call and near.exchange.call.tool.name for near in miss.nearest] == ["t", "t"]


def test_calls_that_carry_a_secret_match_without_knowing_it(path: Path, recorded: Recorder) -> None:
    odd = 'pass"word\\1'
    token = "ghp_" + "x1" * 18
    recorded(
        [
            call("t", "secret", password=f"my {odd}!", body=json.dumps({"p": odd})),
            call("t", "token", token=token),
        ],
        secrets=(odd,),
    )
    assert token.encode() not in path.read_bytes()
    session = replay(path)
    asked = [
        call("t", None, password=f"my {odd}!", body=json.dumps({"p": odd})),
        call("t", None, token=token),
        call("t", None, password="my guess!", body=""),
    ]
    assert answers(session, *asked) == ["secret", "token", None]


def test_sessions_are_chosen_by_server_session_and_group(path: Path, recorded: Recorder) -> None:
    recorded([call("read", "a")], group="A")
    recorded([call("read", "b")], group="B")
    recorded([call("read", "other")], group="B", server="t")
    recorded([call("read", ...)], group="C", server="never-answered")
    store = Store(path)
    second = store.sessions()[1].id
    assert answers(replay(path, group="B"), READ) == ["b"]
    assert answers(replay(path, group="B"), READ, server="t") == ["other"]
    assert answers(replay(path, session_id=second), READ) == ["b"]
    assert answers(replay(path, group="A"), READ) == ["a"]
    for selection, message in (
        ({}, r"has several servers: choose one with --server \(s, t\)"),
        ({"server": "x"}, "has no server 'x'; it has: s, t"),
        ({"session_id": "Z"}, "has no session 'Z'; it has: "),
    ):
        with pytest.raises(SelectionError, match=message):
            select_sessions(store, **selection)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def test_what_cannot_be_compared_does_not_spoil_the_rest(path: Path, recorded: Recorder) -> None:
    recorded(
        [
            call("t", "too deep to ask for", x=nested(900)),
            call("t", nested(300), x="a deep answer"),
            ({"odd": "method"}, {}, "answered"),  # type: ignore[list-item]
            call("t", "yes", x=1),
        ]
    )
    session = replay(path)
    assert answers(session, call("t", None, x=1), call("t", None, x="a deep answer")) == ["yes", nested(300)]
    with pytest.raises(RecursionError):
        session.ask("s", "tools/call", {"name": "t", "arguments": {"x": nested(900)}})
    assert len(list(Store(path).exchanges())) == 4


def test_other_empty_values_are_no_empty_arguments(path: Path, recorded: Recorder) -> None:
    recorded(
        [("tools/call", {"name": "t", "arguments": []}, RpcError(error={"code": -32602, "message": "no"}))]
    )
    assert answers(replay(path), call("t", None)) == [None]


def test_a_recording_of_one_group_is_trusted_by_what_its_sessions_repeat(
    path: Path, recorded: Recorder
) -> None:
    """An exploration is one group: what can be trusted is for its other sessions to say."""
    steady = [call("read", f"page {number}", page=number) for number in range(10)]
    for session in range(6):
        recorded([*steady, call("now", f"at {session}")])
    recorded([call("read", "page 77", page=77)])
    session = replay(path)
    assert answers(session, *steady) == [f"page {number}" for number in range(10)]
    assert answers(session, call("read", None, page=77), call("now", None)) == ["page 77", None]
