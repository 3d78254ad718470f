import json
import sqlite3
import threading
from pathlib import Path

import pytest

from recorder.errors import RecordingError
from recorder.exchange import NoReply, OtherResult, RpcError, ToolResult
from recorder.schema import MIGRATIONS, connect_for_writing
from recorder.store import Store
from recorder.writer import RecordingWriter

INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"roots": {}},
    "clientInfo": {"name": "client", "version": "1"},
}


def request(request_id: object, method: str, params: object = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


def result(request_id: object, value: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": value}).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


def test_a_session_is_kept_whole(path: Path) -> None:
    writer = RecordingWriter(path, group="g", run="2")
    server = writer.add_server("shop", {"command": "shop"})
    hello = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}}
    writer.record(server, "to_server", [request(1, "initialize", INITIALIZE)])
    assert writer.record(
        server, "to_client", [b"starting", result(1, {**hello, "instructions": "be kind"})]
    ) == [
        False,
        True,
    ]
    call = {"name": "buy", "arguments": {"n": 1}}
    writer.record(
        server, "to_server", [request(2, "tools/call", call), request(3, "x/y"), request(4, "ping")]
    )
    writer.record(server, "to_client", [result(3, [1, 2])])
    writer.record(server, "to_client", [b'{"jsonrpc":"2.0","id":2,"error":{"code":-1,"message":"no"}}'])
    writer.end_server(server, "exit code 0")
    writer.end("the client closed")

    store = Store(path)
    (session,) = store.sessions()
    assert (session.group, session.run, session.status, session.ending) == (
        "g",
        "2",
        "complete",
        "the client closed",
    )
    assert (session.client, session.era, session.protocol_version) == (
        INITIALIZE["clientInfo"],
        "legacy",
        "2025-06-18",
    )
    (upstream,) = session.servers
    assert (upstream.name, upstream.config, upstream.instructions) == ("shop", {"command": "shop"}, "be kind")
    assert upstream.ending == "exit code 0"
    exchanges = list(store.exchanges())
    assert [(exchange.method, type(exchange.outcome)) for exchange in exchanges] == [
        ("initialize", OtherResult),
        ("tools/call", RpcError),
        ("x/y", OtherResult),
        ("ping", NoReply),
    ]
    assert str(exchanges[1].call) == 'shop/buy({"n":1})'
    assert exchanges[3].outcome == NoReply(reason="disconnected")
    assert exchanges == [store.exchange(exchange.id) for exchange in exchanges]
    assert sqlite3.connect(path).execute("SELECT text FROM frame WHERE kind = 'noise'").fetchall() == [
        ("starting",)
    ]


@pytest.mark.parametrize(
    "value",
    [
        {"content": [], "structuredContent": [1, {"a": None}]},
        {"content": [{"type": "text", "text": "x"}], "structuredContent": 3},
        {"content": [{"type": "hologram", "beam": 1.0}], "x-unknown": {}},
        {"content": None},
        {},
        {"content": [{"type": "text", "text": "half a \ud83d pair, \u20ac"}]},
        [1],
        "text",
        None,
    ],
)
def test_a_result_is_kept_whatever_its_shape(path: Path, value: object) -> None:
    writer = RecordingWriter(path, group="g")
    server = writer.add_server("s", {})
    writer.record(server, "to_server", [request(1, "tools/call", {"name": "t"})])
    writer.record(server, "to_client", [result(1, value)])
    writer.end("done")
    (exchange,) = Store(path).exchanges()
    assert exchange.outcome == ToolResult(result=value)  # type: ignore[arg-type]


def test_versions_of_a_tool_are_kept_once_each(path: Path) -> None:
    old, new = {"name": "t", "inputSchema": {"type": "object"}}, {"name": "t", "inputSchema": {}, "x": 1}
    for pages in ([[old]], [[old]], [[old, {"name": "u"}], [new]]):
        writer = RecordingWriter(path, group="g")
        server = writer.add_server("s", {})
        for position, tools in enumerate(pages):
            params = {"cursor": "2"} if position else {}
            writer.record(server, "to_server", [request(position, "tools/list", params)])
            writer.record(server, "to_client", [result(position, {"tools": tools})])
        writer.end("done")
    assert [tool.entry for tool in Store(path).tools("s")] == [old, {"name": "u"}, new]
    listed = [json.loads(text) for (text,) in sqlite3.connect(path).execute("SELECT listed FROM server")]
    assert listed == [{"tool": [1]}, {"tool": [1]}, {"tool": [1, 2, 3]}]


def test_the_client_of_a_modern_conversation_is_known_without_a_handshake(path: Path) -> None:
    writer = RecordingWriter(path, group="g")
    server = writer.add_server("s", {})
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "modern"},
        "io.modelcontextprotocol/clientCapabilities": {"sampling": {}},
    }
    writer.record(server, "to_server", [request(1, "tools/list", {"_meta": meta})])
    writer.end("done")
    (session,) = Store(path).sessions()
    assert (session.era, session.protocol_version) == ("modern", "2026-07-28")
    assert (session.client, session.client_capabilities) == ({"name": "modern"}, {"sampling": {}})


def test_a_session_nobody_ended_shows_as_running_and_then_as_interrupted(path: Path) -> None:
    writer = RecordingWriter(path, group="g")
    server = writer.add_server("s", {})
    writer.record(server, "to_server", [request(1, "tools/call", {"name": "t"})])
    writer.flush()
    store = Store(path)
    assert [session.status for session in store.sessions()] == ["running"]
    assert [exchange.outcome for exchange in store.exchanges()] == [NoReply(reason="interrupted")]
    writer.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE session SET process = process || '1'")
    assert [(session.status, session.exchanges) for session in store.sessions()] == [("interrupted", 1)]


def test_a_newer_recording_and_another_kind_of_file_are_refused_by_name(path: Path, tmp_path: Path) -> None:
    connect_for_writing(path).execute("PRAGMA user_version = 999")
    for opening in (Store, lambda path: RecordingWriter(path, group="g")):
        with pytest.raises(
            RecordingError, match=rf"world.db is a recording of version 999, .* up to {len(MIGRATIONS)}"
        ):
            opening(path)
    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE t (x)")
    with pytest.raises(RecordingError, match="it is an SQLite file, but not a recording"):
        RecordingWriter(other, group="g")
    with pytest.raises(RecordingError, match="is not a recording"):
        Store(other)
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(RecordingError, match="file is not a database"):
        RecordingWriter(text, group="g")
    with pytest.raises(RecordingError, match="no recording at"):
        Store(tmp_path / "none.db")


def test_opening_for_reading_writes_nothing(path: Path) -> None:
    RecordingWriter(path, group="g").end("done")
    before = path.read_bytes()
    assert len(Store(path).sessions()) == 1
    assert path.read_bytes() == before
    path.parent.chmod(0o500)
    try:
        assert len(Store(path).sessions()) == 1
    finally:
        path.parent.chmod(0o700)


def test_a_request_waits_for_the_next_commit_and_a_durable_one_does_not(path: Path) -> None:
    for durable, frames in ((False, [0, 2]), (True, [1, 2])):
        writer = RecordingWriter(path, group="g", durable=durable)
        server = writer.add_server("s", {})
        counted = []
        for direction, line in (("to_server", request(1, "ping")), ("to_client", result(1, {}))):
            writer.record(server, direction, [line])  # type: ignore[arg-type]
            with sqlite3.connect(path) as other:
                counted += other.execute(
                    "SELECT count(*) FROM frame WHERE server_id = ?", (server,)
                ).fetchone()
        assert counted == frames
        writer.end("done")


def test_a_name_that_sqlite_cannot_store_is_kept_all_the_same(path: Path) -> None:
    writer = RecordingWriter(path, group="g")
    server = writer.add_server("s", {})
    half = "\ud83d"
    for position, (method, params) in enumerate(
        [("tools/call", {"name": half}), ("resources/read", {"uri": half}), (half, {}), ("tools/list", {})]
    ):
        writer.record(server, "to_server", [request(position, method, params)])
        writer.record(server, "to_client", [result(position, {"tools": [{"name": half}, None, 7]})])
    writer.end("done")
    store = Store(path)
    assert [exchange.params for exchange in store.exchanges()] == [{"name": half}, {"uri": half}, {}, {}]
    assert [tool.name for tool in store.tools()] == ["?"]


def test_what_the_proxy_itself_answers_is_no_reply_of_the_server(path: Path) -> None:
    writer = RecordingWriter(path, group="g")
    server = writer.add_server("s", {})
    writer.record(server, "to_server", [request(1, "tools/call", {"name": "first"})])
    writer.record_own(server, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"gone"}}\n')
    assert writer.unanswered(server) == []
    writer.record(server, "to_server", [request(1, "tools/call", {"name": "second"})])
    writer.record(server, "to_client", [result(1, "the second's")])
    writer.end("done")
    assert [exchange.outcome for exchange in Store(path).exchanges()] == [
        NoReply(reason="disconnected"),
        ToolResult(result="the second's"),
    ]


def test_recorders_that_make_a_file_at_the_same_moment_all_succeed(tmp_path: Path) -> None:
    failures: list[Exception] = []

    def open_each(start: threading.Barrier) -> None:
        for number in range(40):
            start.wait(20)
            try:
                connect_for_writing(tmp_path / f"{number}.db").close()
            except RecordingError as error:
                failures.append(error)

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=open_each, args=(barrier,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_name_that_sqlite_reads_as_memory_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RecordingWriter(Path(":memory:"), group="g").end("done")
    assert len(Store(tmp_path / ":memory:").sessions()) == 1
