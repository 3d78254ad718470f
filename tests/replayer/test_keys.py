"""What makes two requests the same request, shown by asking one of a recording of the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recorder.importer import import_files, import_sessions
from recorder.store import Store
from recorder.writer import RecordingWriter
from replayer.learn import learn
from replayer.mask import output_text
from replayer.replayer import Replayer
from replayer.session import Answer

Json = dict[str, Any]

SCHEMA: Json = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "number", "default": 1},
        "units": {"type": "string", "default": "Ko\u0308ln"},
        "codes": {"type": "array", "default": [1, 2]},
        "flags": {"type": "array", "default": [1]},
        "strict": {"type": "boolean", "default": True},
        "none": {"default": None},
        "options": {
            "type": "object",
            "properties": {
                "wind": {"type": "boolean", "default": False},
                "deep": {"type": "object", "properties": {"level": {"type": "number", "default": 3.0}}},
            },
        },
        "place": {"type": "object", "default": {"x": 1, "y": 2.0}},
    },
}


def replayer_of(folder: Path, recorded: Mapping[str, Json], listed: bool = True) -> Replayer:
    """Record one call of `t` each, and open the recording.

    Args:
        recorded: Server → arguments.
    """
    db, entries = folder / "world.db", folder / "tools.jsonl"
    sessions = [
        {
            "session_id": server,
            "group": "g",
            "calls": [{"server": server, "tool": "t", "arguments": arguments, "output": server}],
        }
        for server, arguments in recorded.items()
    ]
    assert import_sessions(db, sessions).problems == []
    if listed:
        lines = [json.dumps({"server": server, "name": "t", "inputSchema": SCHEMA}) for server in recorded]
        entries.write_text("\n".join(lines))
        assert import_files(db, [], tools=[entries]).problems == []
    store = Store(db)
    return Replayer(store, learn(store))


def replays(replayer: Replayer, server: str, arguments: Json, tool: str = "t") -> bool:
    """Whether a call is answered as an equal one."""
    answer = replayer.session("g").ask(server, "tools/call", {"name": tool, "arguments": arguments})
    if not isinstance(answer, Answer):
        return False
    assert (answer.tier, answer.score, output_text(answer.outcome)) == ("exact", 1.0, server)
    return True


SAME: dict[str, tuple[Json, Json]] = {
    "the order of members": (
        {"city": "x", "days": 2, "options": {"a": 1, "b": {"c": 1, "d": 2}}},
        {"options": {"b": {"d": 2, "c": 1}, "a": 1}, "days": 2, "city": "x"},
    ),
    "a number's spelling": ({"days": 1000, "x": [0, {"y": 7}]}, {"days": 1e3, "x": [-0.0, {"y": 7.0}]}),
    "a large whole number": ({"x": 10**22}, {"x": 1e22}),
    "members that are null": ({"city": "x"}, {"city": "x", "days": None, "unknown": None}),
    "nested members that are null": (
        {"x": {"y": [{"z": 1}]}},
        {"x": {"w": None, "y": [{"z": 1, "v": None}]}},
    ),
    "a default": ({"city": "x"}, {"city": "x", "days": 1}),
    "a default, otherwise spelled": ({"city": "x"}, {"city": "x", "days": 1.0}),
    "a text default, otherwise composed": ({}, {"units": "K\u00f6ln"}),
    "a list default": ({}, {"codes": [1.0, 2]}),
    "an object default": ({}, {"place": {"y": 2, "x": 1.0}}),
    "true as a default": ({}, {"strict": True}),
    "a default that is null": ({}, {"none": None}),
    "a nested default": ({"options": {"speed": 5}}, {"options": {"speed": 5, "wind": False}}),
    "a default two levels deep": (
        {"options": {"deep": {"z": 1}}},
        {"options": {"wind": False, "deep": {"level": 3, "z": 1}}},
    ),
    "composed letters": ({"city": "K\u00f6ln"}, {"city": "Ko\u0308ln"}),
    "composed letters in a name": ({"x": {"o\u0308": 1}}, {"x": {"\u00f6": 1}}),
}  # fmt: skip


DIFFERENT: dict[str, tuple[Json, Json]] = {
    "true and 1": ({"x": True}, {"x": 1}),
    "false and 0": ({"x": [False]}, {"x": [0]}),
    "a number and its text": ({"x": 2}, {"x": "2"}),
    "null's text": ({"x": "null"}, {}),
    "the order of a list": ({"x": [1, 2]}, {"x": [2, 1]}),
    "null in a list": ({"x": [1, None]}, {"x": [1]}),
    "an empty text and none": ({"x": ""}, {}),
    "an empty list and none": ({"x": []}, {}),
    "an empty object and none": ({"x": {}}, {}),
    "an empty list and an empty object": ({"x": {}}, {"x": []}),
    "upper and lower case": ({"city": "Oslo"}, {"city": "oslo"}),
    "white space": ({"city": "Oslo"}, {"city": "Oslo "}),
    "compatible characters": ({"city": "\ufb01"}, {"city": "fi"}),
    "neighbouring ids": ({"city": "W123"}, {"city": "W124"}),
    "integers past 2 to the 53": ({"x": 2**53}, {"x": 2**53 + 1}),
    "nearly equal numbers": ({"x": 0.1}, {"x": 0.1000001}),
    "a fraction": ({"x": 2}, {"x": 2.5}),
    "a value that is no default": ({"city": "x"}, {"city": "x", "days": 2}),
    "true where the default is 1": ({"city": "x"}, {"city": "x", "days": True}),
    "1 where the default is true": ({"city": "x"}, {"city": "x", "strict": 1}),
    "true in a list where the default holds 1": ({"city": "x"}, {"city": "x", "flags": [True]}),
    "true in an object where the default holds 1": ({}, {"place": {"x": True, "y": 2}}),
    "a nested value at the outer default": ({"options": {}}, {"options": {"days": 1}}),
    "a text that says a default": ({}, {"days": "1"}),
    "a name's case": ({"city": "x"}, {"City": "x"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def replayer(tmp_path_factory: pytest.TempPathFactory) -> Replayer:
    """A recording of both calls of every pair, each on a server of its own."""
    recorded = {}
    for name, (one, other) in (SAME | DIFFERENT).items():
        recorded |= {f"{name}, one": one, f"{name}, other": other}
    return replayer_of(tmp_path_factory.mktemp("keys"), recorded)


@pytest.mark.parametrize("name", SAME)
def test_what_may_differ_in_the_same_call(replayer: Replayer, name: str) -> None:
    one, other = SAME[name]
    assert replays(replayer, f"{name}, one", other)
    assert replays(replayer, f"{name}, other", one)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_makes_it_another_call(replayer: Replayer, name: str) -> None:
    one, other = DIFFERENT[name]
    assert replays(replayer, f"{name}, one", one)
    assert replays(replayer, f"{name}, other", other)
    assert not replays(replayer, f"{name}, one", other)
    assert not replays(replayer, f"{name}, other", one)


def test_a_tool_that_was_never_listed_has_no_defaults(tmp_path: Path) -> None:
    replayer = replayer_of(tmp_path, {"s": {"city": "x"}}, listed=False)
    assert replays(replayer, "s", {"city": "x", "days": None})
    assert not replays(replayer, "s", {"city": "x", "days": 1})


def test_tool_and_server_are_part_of_the_call(tmp_path: Path) -> None:
    replayer = replayer_of(tmp_path, {"s": {"city": "x"}, "other": {"city": "y"}})
    assert replays(replayer, "s", {"city": "x"})
    assert not replays(replayer, "s", {"city": "x"}, tool="T")
    assert not replays(replayer, "other", {"city": "x"})


# Requests that are no plain call


def converse(db: Path, *exchanges: tuple[str, Json, Any]) -> None:
    """Record one conversation: method, params and result of each request."""
    writer = RecordingWriter(db, group="g")
    server = writer.add_server("s", {})
    for number, (method, params, result) in enumerate(exchanges):
        asked = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        writer.record(server, "to_server", [json.dumps(asked).encode()])
        reply = {"jsonrpc": "2.0", "id": number, "result": result}
        writer.record(server, "to_client", [json.dumps(reply).encode()])
    writer.end_server(server, "done")
    writer.end("done")


def answers(db: Path, *requests: tuple[str, Json]) -> list[Any]:
    """Ask in one conversation; `None` for a miss."""
    store = Store(db)
    session = Replayer(store, learn(store)).session("g")
    replies = [session.ask("s", method, params) for method, params in requests]
    return [getattr(reply.outcome, "result", ...) if isinstance(reply, Answer) else None for reply in replies]


def test_meta_is_no_part_of_a_request(tmp_path: Path) -> None:
    db = tmp_path / "world.db"
    meta = {"progressToken": 7, "io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    converse(
        db,
        ("resources/read", {"uri": "file:///a", "_meta": meta}, {"contents": ["a"]}),
        ("tools/call", {"name": "t", "arguments": {"x": 1}, "_meta": meta}, "called"),
    )
    assert answers(
        db,
        ("resources/read", {"uri": "file:///a"}),
        ("resources/read", {"_meta": {"progressToken": 8}, "uri": "file:///a"}),
        ("tools/call", {"name": "t", "arguments": {"x": 1.0}, "_meta": {"progressToken": 8}}),
        ("resources/read", {"uri": "file:///b", "_meta": meta}),
        ("tools/call", {"name": "t", "arguments": {"x": 1, "_meta": {"progressToken": 8}}}),
    ) == [{"contents": ["a"]}, {"contents": ["a"]}, "called", None, None]


def question(state: str) -> Json:
    return {"resultType": "input_required", "inputRequests": {"q": {}}, "requestState": state}


def leg(state: str, said: Any, **arguments: Any) -> tuple[str, Json]:
    return "tools/call", {
        "name": "t",
        "arguments": arguments,
        "inputResponses": {"q": said},
        "requestState": state,
    }


def test_a_leg_of_a_chain_is_keyed_on_the_legs_before_it(tmp_path: Path) -> None:
    db = tmp_path / "world.db"
    for amount in (1, 2):
        converse(
            db,
            ("tools/call", {"name": "t", "arguments": {"amount": amount}}, question("S")),
            (*leg("S", "sure", amount=amount), question("S2")),
            (*leg("S2", "yes", amount=amount), f"paid {amount}"),
        )

    def begin(amount: int) -> tuple[str, Json]:
        return "tools/call", {"name": "t", "arguments": {"amount": amount}}

    assert answers(db, begin(2), leg("S", "sure", amount=2), leg("S2", "yes", amount=2)) == [
        question("S"),
        question("S2"),
        "paid 2",
    ]
    # A leg left out, one of another chain, another state, and another answer: nothing follows on them.
    assert answers(db, begin(1), leg("S2", "yes", amount=1))[1:] == [None]
    assert answers(db, begin(1), leg("S", "sure", amount=2))[1:] == [None]
    assert answers(db, begin(1), leg("S", "sure", amount=1), leg("S", "yes", amount=1))[2:] == [None]
    assert answers(db, begin(1), leg("S", "no", amount=1), leg("S2", "yes", amount=1))[1:] == [None, None]


def test_a_leg_is_compared_as_calls_are(tmp_path: Path) -> None:
    db = tmp_path / "world.db"
    converse(
        db,
        ("tools/call", {"name": "t", "arguments": {"amount": 2}, "_meta": {"a": 1}}, question("S")),
        (*leg("S", {"n": 3, "note": None}, amount=2), "done"),
    )
    first = ("tools/call", {"arguments": {"amount": 2.0}, "name": "t"})
    method, params = leg("S", {"n": 3.0}, amount=2)
    assert answers(db, first, (method, {**params, "_meta": {"b": 2}})) == [question("S"), "done"]
    assert answers(db, first, leg("S", {"n": True}, amount=2)) == [question("S"), None]


def test_a_chain_of_one_conversation_is_not_gone_on_with_in_another(tmp_path: Path) -> None:
    db = tmp_path / "world.db"
    converse(db, ("tools/call", {"name": "t", "arguments": {}}, question("S")), (*leg("S", "yes"), "done"))
    first = ("tools/call", {"name": "t"})
    assert answers(db, first, leg("S", "yes")) == [question("S"), "done"]
    store = Store(db)
    replayer = Replayer(store, learn(store))
    here, there = replayer.session("g"), replayer.session("g")
    assert isinstance(here.ask("s", *first), Answer)
    assert not isinstance(there.ask("s", *leg("S", "yes")), Answer)
    assert isinstance(here.ask("s", *leg("S", "yes")), Answer)
