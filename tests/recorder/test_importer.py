import gzip
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recorder.errors import FireflyError
from recorder.exchange import NoReply, ToolResult
from recorder.importer import ImportReport, Problem, import_files, import_sessions
from recorder.redact import Redactor
from recorder.store import Store
from recorder.writer import RecordingWriter

TOKEN = "ghp_" + "a1B2" * 9


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


def call(tool: str = "get", output: object = "ok", server: str = "shop", **more: object) -> dict[str, Any]:
    return {"server": server, "tool": tool, "arguments": {}, "output": output, "is_error": False, **more}


def session(session_id: str | None = "s1", *calls: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"session_id": session_id, "group": "g", "run": "r", "calls": list(calls or [call()]), **more}


def lines(path: Path, *documents: object) -> Path:
    path.write_text("".join(f"{d if isinstance(d, str) else json.dumps(d)}\n" for d in documents))
    return path


def imported(db: Path, *documents: object) -> ImportReport:
    """Import a file with these lines; a string is a line as it is."""
    return import_files(db, [lines(db.with_suffix(".jsonl"), *documents)])


def reasons(report: ImportReport) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.reason) for problem in report.problems]


def text(*texts: str, is_error: bool = False) -> ToolResult:
    content = [{"type": "text", "text": text} for text in texts]
    return ToolResult(result={"content": content, "isError": is_error})


def shown(db: Path) -> list[tuple[str, object]]:
    return [(str(exchange.call), exchange.outcome) for exchange in Store(db).exchanges()]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
def test_a_session_reads_back_as_it_was_recorded(zipped: bool, db: Path) -> None:
    found = call("find", '{"n": 1}', arguments={"city": "Köln", "n": [1, None]})
    path = lines(
        db.with_name("a.jsonl"), session("s1", found, call("pay", "no", "bank", is_error=True), call())
    )
    if zipped:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert import_files(db, [path]) == ImportReport(1, 0, 3, 0, [])
    (session_,) = Store(db).sessions()
    assert (session_.id, session_.group, session_.run, session_.exchanges) == ("s1", "g", "r", 3)
    assert (session_.status, session_.ending) == ("complete", "imported")
    assert [(s.name, s.config) for s in session_.servers] == [
        ("shop", {"imported": "a.jsonl"}),
        ("bank", {"imported": "a.jsonl"}),
    ]
    assert shown(db) == [
        ('shop/find({"city":"K\\u00f6ln","n":[1,null]})', text('{"n": 1}')),
        ("bank/pay({})", text("no", is_error=True)),
        ("shop/get({})", text("ok")),
    ]


def test_its_frames_are_those_of_mcp(db: Path) -> None:
    imported(db, session("s1", call(), call("pay", "é")))
    frames = sqlite3.connect(db).execute("SELECT kind, direction, method, text FROM frame ORDER BY id")
    assert [(*row, json.loads(message)) for *row, message in frames][2:] == [
        (
            *("request", "to_server", "tools/call"),
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "pay", "arguments": {}}},
        ),
        (
            *("response", "to_client", None),
            {"jsonrpc": "2.0", "id": 2, "result": text("é").result},
        ),
    ]
    view = sqlite3.connect(db).execute("SELECT session_id, tool, outcome FROM call").fetchall()
    assert view == [("s1", "get", "result"), ("s1", "pay", "result")]


@pytest.mark.parametrize(
    ("output", "stored"), [({"a": 1.5}, '{"a": 1.5}'), (None, "null"), ([], "[]"), (7, "7"), ("", "")]
)
def test_an_output_that_is_no_string_is_its_json_text(output: object, stored: str, db: Path) -> None:
    imported(db, session("s1", call(output=output)))
    assert [outcome for _, outcome in shown(db)] == [text(stored)]


def test_sessions_keep_the_order_of_their_files(db: Path) -> None:
    names = [f"s{number}" for number in (3, 1, 2)]
    import_files(
        db, [lines(db.with_name(name), session(name, call()), session(f"{name}b", call())) for name in names]
    )
    assert [s.id for s in Store(db).sessions()] == ["s3", "s3b", "s1", "s1b", "s2", "s2b"]


def test_times_of_calls_are_kept(db: Path) -> None:
    timed = [call(started_at=1000.5, duration_s=0.25), call(), call(started_at=1002, duration_s=2)]
    imported(db, session("s1", *timed))
    (session_,) = Store(db).sessions()
    assert (session_.started_at, session_.ended_at) == (1000.5, 1004)
    times = [(exchange.started_at, exchange.duration_s) for exchange in Store(db).exchanges()]
    assert times == [(1000.5, 0.25), (1000.5, None), (1002, 2)]


def test_importing_again_changes_nothing(db: Path) -> None:
    documents = [session("s1"), session("s2", call(), call()), {"messages": [USE, RESULT]}]
    assert imported(db, *documents) == ImportReport(3, 0, 6, 0, [])
    before = list(sqlite3.connect(db).iterdump())
    assert imported(db, *documents) == ImportReport(0, 3, 0, 0, [])
    assert list(sqlite3.connect(db).iterdump()) == before


def test_an_id_of_other_content_is_reported(db: Path) -> None:
    imported(db, session("s1"), session("s1"), session("s1", call(output="else")))
    report = imported(db, session("s1"), session("s1", call(output="new")), session("s2"))
    assert reasons(report) == [(2, "a session 's1' of other content is recorded already")]
    assert (report.already_there, report.sessions) == (1, 1)
    assert shown(db) == [("shop/get({})", text("ok"))] * 2


def test_a_session_without_id_and_group_gets_stable_ones(db: Path) -> None:
    anonymous = {"calls": [call()]}
    imported(db, anonymous, {"calls": [call(output="else")]}, {**anonymous, "run": 7, "session_id": 12})
    first, second, third = Store(db).sessions()
    assert (first.id, first.group, len(first.id)) == (first.group, first.id, 16)
    assert first.id != second.id
    assert (third.id, third.group, third.run) == ("12", "12", "7")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{no", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ('{"session_id": "x", "calls": [', "not JSON: Expecting value at column 31"),
        ("[" * 100_000, "nested too deep"),
        (
            session("x", call(arguments=json.loads("[" * 300 + "]" * 300))),
            "calls[0]: 'arguments' must be an object",
        ),
        (f'{{"calls": [], "n": {"1" * 5000}}}', "not readable: Exceeds the limit (4300 digits)"),
        ('"text"', "it must be an object, got a string"),
        ({"tools": [], "x": 1}, "neither 'calls' nor 'messages' is among its fields ['tools', 'x']"),
        (session("x", calls={}), "'calls' must be a list, got an object"),
        (session("x", calls=[call(), 3]), "calls[1]: it must be an object, got a number"),
        (session("x", {"tool": "t"}), "calls[0]: missing field "),
        (session("x", call(tool=None)), "calls[0]: 'tool' must be a string, got null"),
        (session("x", call(arguments="{}")), "calls[0]: 'arguments' must be an object, got a string"),
        (session("x", call(is_error="no")), "calls[0]: 'is_error' must be true or false, got a string"),
        (session("x", call(started_at="now")), "calls[0]: 'started_at' must be a number of seconds"),
        (session("x", call(duration_s=-1)), "calls[0]: 'duration_s' must be a number of seconds"),
        (session("x", call(arguments={"n": 1e999})), "call 1: a number in its arguments has no form in JSON"),
        (session("x", group=["g"]), "'group' must be a string, got a list"),
        ([{"content": "hi"}], "messages[0]: missing field 'role'"),
    ],
)
def test_a_bad_line_is_reported_and_the_rest_imported(line: object, reason: str, db: Path) -> None:
    report = imported(db, session("before"), "", line, session("after"))
    ((number, said),) = reasons(report)
    assert (number, said[: len(said.partition(reason)[1])]) == (3, reason)
    assert [s.id for s in Store(db).sessions()] == ["before", "after"]
    assert report.calls == 2
    # The first line also tells an indented document.
    report = imported(db, line, session("before"), session("then"))
    assert ([number for number, _ in reasons(report)], report.sessions, report.already_there) == ([1], 1, 1)


def test_bytes_that_are_not_utf8_are_reported(db: Path) -> None:
    path = db.with_name("a.jsonl")
    path.write_bytes(b'\xef\xbb\xbf{"calls": []}\n{"calls": ["\xff"]}\n')
    report = import_files(db, [path])
    assert report.sessions == 1
    ((line, reason),) = reasons(report)
    assert line == 2
    assert "can't decode byte 0xff in position 12" in reason


def test_what_json_lets_in_is_kept(db: Path) -> None:
    odd, long, deep = "\ud800 \0 \u2028", "x" * 20_000_000, json.loads("[" * 300 + "]" * 300)
    arguments = {"odd": odd, "deep": deep, "n": 10**30}
    report = imported(db, session(odd, call(odd, odd, odd, arguments=arguments), call(output=long)))
    assert report == ImportReport(1, 0, 2, 0, [])
    first, second = Store(db).exchanges()
    assert first.params == {"name": "? \0 \u2028", "arguments": arguments}
    assert (first.server, first.outcome, second.outcome) == ("? \0 \u2028", text(odd), text(long))


USE = {
    "role": "assistant",
    "content": [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "u1", "name": "mcp__shop__find_it", "input": {"q": "tea"}},
        {"type": "tool_use", "id": "u2", "name": "bank__pay", "input": {}},
        {"type": "tool_use", "id": "u3", "name": "__odd__", "input": {}},
    ],
}
RESULT = {
    "role": "user",
    "content": [
        {"type": "tool_result", "tool_use_id": "u2", "content": "broke", "is_error": True},
        {
            "type": "tool_result",
            "tool_use_id": "u1",
            "content": [{"type": "text", "text": "green"}, {"n": 1}],
        },
    ],
}
ANTHROPIC = [
    ('shop/find_it({"q":"tea"})', text("green", '{"n": 1}')),
    ("bank/pay({})", text("broke", is_error=True)),
    ("imported/__odd__({})", NoReply(reason="disconnected")),
]


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "indented"])
@pytest.mark.parametrize("form", ["object", "list", "list of sessions"])
def test_an_anthropic_conversation_is_read(form: str, indent: int | None, db: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, USE, RESULT]
    document = {"object": {"id": "m", "messages": messages}, "list": messages}
    other = {"id": "other", "group": "o", "run": 1, "messages": []}
    listed = [document["object"], other]
    path = db.with_name("a.json")
    path.write_text(json.dumps(document.get(form, listed), indent=indent))
    report = import_files(db, [path])
    assert (report.calls, report.problems) == (3, [])
    assert shown(db) == ANTHROPIC
    ids = [(s.id, s.group, s.run) for s in Store(db).sessions()]
    assert form == "list" or ids == [("m", "m", None), ("other", "o", "1")][: len(ids)]


def test_images_and_nothing_are_kept_as_mcp_has_them(db: Path) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    results = [
        {"type": "tool_result", "tool_use_id": "u1", "content": [image]},
        {"type": "tool_result", "tool_use_id": "u2", "is_error": None},
    ]
    imported(db, [USE, {"role": "user", "content": results}])
    assert [outcome.result["content"] for _, outcome in shown(db)[:2] if isinstance(outcome, ToolResult)] == [
        [{"type": "image", "data": "aGk=", "mimeType": "image/png"}],
        [],
    ]


def test_an_openai_conversation_is_read(db: Path) -> None:
    def used(*names: str, arguments: str) -> dict[str, Any]:
        calls = [{"id": "c", "function": {"name": name, "arguments": arguments}} for name in names]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def answer(content: object) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": "c", "content": content}

    messages = [
        {"role": "system", "content": "be kind", "tool_calls": None},
        used("get", "shop__get", arguments='{"n": 1}'),
        *(answer("one"), answer([{"type": "text", "text": "two"}])),
        *(used("other__get", arguments=""), answer("three")),
    ]
    assert imported(db, {"messages": messages, "server": "shop"}).problems == []
    assert shown(db) == [
        ('shop/get({"n":1})', text("one")),
        ('shop/get({"n":1})', text("two")),
        ("shop/other__get({})", text("three")),
    ]


def test_items_of_the_responses_api_are_read(db: Path) -> None:
    use = {"type": "function_call", "call_id": "c", "name": "get", "arguments": "{}"}
    answer = {"type": "function_call_output", "call_id": "c", "output": "one"}
    asked = {"role": "user", "content": "hi"}
    assert imported(db, {"input": [asked, use, answer], "output": [use]}, [use, answer]).problems == []
    assert shown(db) == [
        ("imported/get({})", text("one")),
        ("imported/get({})", NoReply(reason="disconnected")),
        ("imported/get({})", text("one")),
    ]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (RESULT, "a result is for 'u2', but no open tool use has that id"),
        (3, "messages[0]: it must be an object, got a number"),
        ({"role": "tool"}, "messages[0]: missing field 'tool_call_id'"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c"}]},
            "messages[0]: tool_calls[0]: missing field 'function'",
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "x"},
            "messages[0]: 'arguments' not JSON: Expecting value at column 1",
        ),
        (
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[]"},
            "messages[0]: 'arguments' must be an object, got a list",
        ),
    ],
)
def test_a_conversation_that_makes_no_sense_is_reported(message: object, reason: str, db: Path) -> None:
    assert reasons(imported(db, {"messages": [message]})) == [(1, reason)]


def test_a_broken_indented_document_is_one_problem(db: Path) -> None:
    path = db.with_name("a.json")
    path.write_text(json.dumps({"messages": [USE, RESULT]}, indent=1)[:-20])
    ((line, reason),) = reasons(import_files(db, [path]))
    assert (line, reason[:9], " at line " in reason) == (1, "not JSON:", True)


def test_secrets_stay_out_and_can_be_found_again(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", 'hush "hush" 42')
    secret = {"key": 'hush "hush" 42', "token": TOKEN}
    report = imported(db, session(TOKEN, call(TOKEN, json.dumps(secret), arguments=secret), group=TOKEN))
    tools = lines(db.with_name("tools.jsonl"), {"server": "shop", "name": "get", "description": TOKEN})
    assert (report.calls, import_files(db, [], tools=[tools]).tools) == (1, 1)
    written = "".join(sqlite3.connect(db).iterdump())
    assert "hush" not in written
    assert TOKEN not in written
    known = Store(db).known_secrets()
    (exchange,) = Store(db).exchanges()
    assert exchange.call is not None
    stored = exchange.call.arguments["key"]
    assert stored.startswith("[redacted:")
    # A replay that was never told of the secret finds it by its digest.
    assert Store(db).redactor().redact_unknown(secret["key"], known) == stored
    assert isinstance(Store(db).redactor(), Redactor)
    assert imported(db, session(TOKEN, call(TOKEN, json.dumps(secret), arguments=secret), group=TOKEN)) == (
        ImportReport(0, 1, 0, 0, [])
    )


def test_tools_become_listings(db: Path) -> None:
    get = {"name": "get", "description": "Get it", "inputSchema": {"type": "object"}, "x": [1]}
    path = lines(
        db.with_name("tools.jsonl"),
        *({"server": "shop", **get}, {"server": "bank", **get}, {"name": "lost"}, session()),
        {"server": "shop", **get, "description": "Fetch it"},
    )
    path.write_bytes(gzip.compress(path.read_bytes()))
    report = import_files(db, [], tools=[path])
    assert (report.tools, reasons(report)) == (
        3,
        [(3, "missing field 'server'"), (4, "missing field 'server'")],
    )
    assert [(tool.server, tool.entry) for tool in Store(db).tools()] == [
        ("bank", get),
        ("shop", get),
        ("shop", {**get, "description": "Fetch it"}),
    ]
    assert import_files(db, [], tools=[path]).tools == 0


def test_a_missing_file_stops_before_anything_is_imported(db: Path) -> None:
    with pytest.raises(FireflyError, match=r"no file to import at .*gone\.jsonl"):
        import_files(db, [lines(db.with_name("a.jsonl"), session()), db.with_name("gone.jsonl")])
    assert not db.exists()


@pytest.mark.parametrize("damage", ["cut off", "scrambled", "a folder"])
def test_nothing_is_imported_of_a_file_that_cannot_be_read_to_its_end(damage: str, db: Path) -> None:
    path, good = db.with_name("a.gz"), lines(db.with_name("b.jsonl"), session("good"))
    noise = [session(f"s{n}", call(output=os.urandom(20).hex())) for n in range(2000)]
    packed = bytearray(gzip.compress("\n".join(map(json.dumps, noise)).encode()))
    if damage == "a folder":
        path.mkdir()
    else:
        half = len(packed) // 2
        path.write_bytes(packed[:half] if damage == "cut off" else packed[:half] + b"\0" * half)
    report = import_files(db, [path, good])
    assert [s.id for s in Store(db).sessions()] == ["good"]
    assert (report.sessions, report.calls) == (1, 1)
    assert [problem.line for problem in report.problems if "nothing imported" in problem.reason] == [None]


@pytest.mark.parametrize("content", [b"", b"\n \n", gzip.compress(b"")])
def test_an_empty_file_is_reported(content: bytes, db: Path) -> None:
    path = db.with_name("a.jsonl")
    path.write_bytes(content)
    report = import_files(db, [path])
    assert report.problems == [Problem(str(path), None, "empty")]
    assert str(report.problems[0]) == f"{path}: empty"


def test_a_program_hands_sessions_over_and_is_told_how_far_it_is(db: Path) -> None:
    told: list[int] = []
    sessions = (session(f"s{n}", call(), call()) for n in range(3))
    report = import_sessions(db, sessions, source="bench", progress=told.append)
    assert (report, told) == (ImportReport(3, 0, 6, 0, []), [2, 4, 6])
    assert Store(db).sessions()[2].servers[0].config == {"imported": "bench"}
    bad = import_sessions(db, [session("new"), 3], source="bench")
    assert [str(problem) for problem in bad.problems] == ["bench:2: it must be an object, got a number"]


def test_an_import_that_breaks_off_leaves_nothing_of_its_file(db: Path) -> None:
    def stop(calls: int) -> None:
        if calls == 2:
            raise KeyboardInterrupt

    done, broken = (
        lines(db.with_name("a"), session("a")),
        lines(db.with_name("b"), session("b"), session("c")),
    )
    with pytest.raises(KeyboardInterrupt):
        import_files(db, [done, broken], progress=stop)
    assert [s.id for s in Store(db).sessions()] == ["a"]


def test_a_file_that_may_not_grow_is_an_error_and_leaves_the_recording_whole(db: Path) -> None:
    imported(db, session("before"))
    big = lines(db.with_name("big"), *(session(f"s{n}", call(output="x" * 100_000)) for n in range(2000)))
    program = (
        "import sys; from pathlib import Path; from recorder.importer import import_files;"
        " from recorder.errors import RecordingError\n"
        "try: import_files(Path(sys.argv[1]), [Path(sys.argv[2])])\n"
        "except RecordingError as error: print(error)"
    )
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 8000; exec "$@"', "bash"]
    ended = subprocess.run(
        [*limited, sys.executable, "-c", program, str(db), str(big)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert ended.stdout.startswith(f"importing into {db} failed: "), ended
    assert sqlite3.connect(db).execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [s.id for s in Store(db).sessions()] == ["before"]


def test_imported_and_live_sessions_share_a_recording(db: Path) -> None:
    writer = RecordingWriter(db, group="live")
    server = writer.add_server("shop", {})
    line = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get", "arguments": {}}}
    writer.record(server, "to_server", [json.dumps(line).encode()])
    writer.flush()
    imported(db, session("s1"))
    writer.record(server, "to_client", [json.dumps({"jsonrpc": "2.0", "id": 1, "result": {}}).encode()])
    writer.end("done")
    assert shown(db) == [("shop/get({})", ToolResult(result={})), ("shop/get({})", text("ok"))]
    assert reasons(imported(db, session(writer.session_id))) == [
        (1, f"a session '{writer.session_id}' of other content is recorded already")
    ]
