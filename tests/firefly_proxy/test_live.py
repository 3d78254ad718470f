"""A live server answers, or says in one line why it does not; and it never outlives its client."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from firefly_proxy.live import LiveError, LiveServer, live_servers
from firefly_proxy.server_config import ConfigError
from recorder.store import Store
from tests.promise.conversation import ECHO, FICKLE, ROOT
from tests.promise.lifeline import Lifeline

LEDGER = [sys.executable, str(ROOT / "tests" / "servers" / "ledger.py")]
SOON_S = 0.5
"""A timeout that a test waits for."""


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    lifeline = Lifeline()
    yield lifeline
    lifeline.close()


def call(server: LiveServer, tool: str, **arguments: object) -> Any:
    """Call a tool and return its text, or the whole reply where it has none."""
    reply = server.ask("tools/call", {"name": tool, "arguments": arguments})
    try:
        return reply["result"]["content"][0]["text"]
    except (KeyError, IndexError):
        return reply


@contextmanager
def serving(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start an HTTP server that prints its URL, or its port, first."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode().strip()
        try:
            yield (said if said.startswith("http") else f"http://127.0.0.1:{said}/mcp"), process
        finally:
            process.kill()


def write_config(path: Path, **servers: object) -> Path:
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def test_a_server_keeps_its_state_from_request_to_request() -> None:
    with LiveServer("ledger", LEDGER) as server:
        assert call(server, "get", key="a") == "nothing is stored under 'a'"
        assert call(server, "put", key="a", value="1") == "stored a"
        assert call(server, "get", key="a") == "1"
        created = json.loads(call(server, "create", name="Ada"))
        assert json.loads(call(server, "fetch", id=created["id"])) == created
        assert call(server, "put", key="a") == "Input validation error: 'value' is a required property"
        refused = server.ask("tools/call", {"name": "nope"})["error"]
        assert refused == {"code": -32602, "message": "Unknown tool: nope"}


def test_what_is_asked_is_recorded_where_that_is_wanted(tmp_path: Path) -> None:
    db = tmp_path / "live.db"
    with LiveServer("ledger", LEDGER, db=db, group="g", run="7") as server:
        call(server, "list")
    (session,) = Store(db).sessions()
    assert (session.group, session.run, session.status, session.client["name"]) == (
        "g",
        "7",
        "complete",
        "firefly",
    )
    methods = [exchange.method for exchange in Store(db).exchanges()]
    assert methods == ["initialize", "tools/call"]


def test_otherwise_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with LiveServer("ledger", LEDGER) as server:
        assert list(tmp_path.iterdir()) == []  # not started yet
        call(server, "list")
        assert [path.name for path in tmp_path.rglob("*.db")] == ["session.db"]
    assert list(tmp_path.iterdir()) == []


def test_a_secret_of_a_name_that_does_not_sound_like_it_is_not_recorded(tmp_path: Path) -> None:
    db = tmp_path / "live.db"
    start = json.dumps({"entries": {"a": "quite secret"}})
    entry = {
        "command": LEDGER[0],
        "args": LEDGER[1:],
        "env": {"LEDGER_START": start, "PLAIN": "quite secret"},
    }
    config = write_config(tmp_path / "mcp.json", ledger=entry)
    with LiveServer("ledger", config, db=db, redact=["PLAIN"]) as server:
        assert call(server, "get", key="a") == "quite secret"
    assert b"quite secret" not in b"".join(path.read_bytes() for path in tmp_path.glob("live.db*"))


@pytest.mark.parametrize("framing", ["json", "sse"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_an_http_server_of_either_era_answers(era: str, framing: str, tmp_path: Path) -> None:
    front = [sys.executable, "-m", "tests.servers.http_front", era, framing]
    with serving(front) as (url, _):
        config = write_config(tmp_path / "mcp.json", odd={"url": url})
        with LiveServer("odd", config) as server:
            arguments = {"region": "é", "zone": {"number": 3}}
            tool = "regional" if era == "modern" else "echo"
            reply = server.ask("tools/call", {"name": tool, "arguments": arguments})
            assert reply["result"]["structuredContent"]["arguments"] == arguments


def test_a_modern_server_that_refuses_initialize_gets_its_envelope_with_each_request() -> None:
    with LiveServer("odd", [sys.executable, "-m", "tests.servers.odd_modern"]) as server:
        result = server.ask("tools/call", {"name": "echo", "_meta": {"x": 1}})["result"]
        assert result["structuredContent"]["_meta"] == {
            "x": 1,
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "firefly", "version": version("firefly-proxy")},
            "io.modelcontextprotocol/clientCapabilities": {},
        }


def test_what_a_server_asks_is_answered() -> None:
    asked = [
        {"jsonrpc": "2.0", "id": f"q{position}", "method": method}
        for position, method in enumerate(["ping", "roots/list", "sampling/createMessage"])
    ]
    with LiveServer("odd", [sys.executable, "-m", "tests.servers.odd_legacy"]) as server:
        arguments = {"requests": [json.dumps(request) for request in asked]}
        reply = server.ask("tools/call", {"name": "ask", "arguments": arguments})
    answers = [json.loads(text) for text in reply["result"]["structuredContent"]]
    refusal = {"code": -32601, "message": "firefly answers no sampling/createMessage"}
    assert answers == [
        {"jsonrpc": "2.0", "id": "q0", "result": {}},
        {"jsonrpc": "2.0", "id": "q1", "result": {"roots": []}},
        {"jsonrpc": "2.0", "id": "q2", "error": refusal},
    ]


def test_notifications_and_noise_are_passed_over() -> None:
    note = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}'
    with LiveServer("fickle", FICKLE) as server:
        assert call(server, "noise", lines=["hello", note, "", "{", "[1]"]) == "said"
        assert call(server, "echo", message="é\u2028") == "é\u2028"


def test_after_a_timeout_the_server_may_be_asked_again_and_a_late_answer_confuses_nobody() -> None:
    with LiveServer("fickle", FICKLE) as server:
        assert call(server, "echo", message="first") == "first"
        server.timeout_s = SOON_S
        with pytest.raises(LiveError) as failed:
            call(server, "later", message="late", ms=SOON_S * 1000 + 300)
        assert str(failed.value) == "live server 'fickle', tools/call: no answer within 0.5 s"
        assert (failed.value.server, failed.value.method) == ("fickle", "tools/call")
        time.sleep(0.5)
        assert call(server, "echo", message="next") == "next"


def test_a_request_that_a_frozen_server_does_not_read_times_out() -> None:
    with LiveServer("fickle", FICKLE) as server:
        call(server, "echo", message="here")
        server.timeout_s = SOON_S
        with pytest.raises(LiveError, match="no answer within"):
            call(server, "freeze")
        with pytest.raises(LiveError, match="no answer within"):
            call(server, "echo", message="x" * 4_000_000)


def test_a_large_answer_is_whole() -> None:
    with LiveServer("echo", ECHO) as server:
        message = "é" * 3_000_000
        assert call(server, "echo", message=message) == message


def test_a_server_that_dies_stays_dead_and_its_last_line_is_told() -> None:
    with LiveServer("fickle", FICKLE) as server:
        with pytest.raises(LiveError) as failed:
            call(server, "crash", stderr=["Traceback", "Boom: it broke"], code=3)
        assert str(failed.value) == (
            f"live server 'fickle', tools/call: upstream `{sys.executable}` exited with code 3; its last"
            " lines on standard error: Boom: it broke"
        )
        with pytest.raises(LiveError, match="exited with code 3"):
            call(server, "echo", message="hello?")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (
            ["no-such-server"],
            "no-such-server could not be started: No such file or directory: no-such-server",
        ),
        (["echo", "hello"], "upstream `echo` exited with code 0"),
        (
            ["sh", "-c", "echo listening; echo no licence >&2; exit 9"],
            "upstream `sh` exited with code 9; its last lines on standard error: no licence",
        ),
        (["sleep", "60"], "no answer within 0.5 s"),
    ],
    ids=["absent", "noise", "failing", "silent"],
)
def test_a_server_that_does_not_start_is_told_in_one_line(command: list[str], reason: str) -> None:
    started = time.monotonic()
    with LiveServer("bad", command, timeout_s=SOON_S if command[0] == "sleep" else 20) as server:
        for _ in range(2):
            with pytest.raises(LiveError) as failed:
                server.ask("tools/list")
            assert failed.value.reason == reason
    assert time.monotonic() - started < 10


def test_an_http_server_that_fails_is_no_answer(tmp_path: Path) -> None:
    with serving([*FICKLE, "--http"]) as (url, process):
        config = write_config(tmp_path / "mcp.json", fickle={"url": url}, away={"url": "http://127.0.0.1:9/"})
        with LiveServer("fickle", config) as server, LiveServer("away", config) as away:
            assert call(server, "echo", message="hi") == "hi"
            with pytest.raises(LiveError, match="the answer is not JSON-RPC"):
                call(server, "hang")
            assert server.ask("no/such")["error"]["message"] == "no method no/such"
            process.kill()
            process.wait()
            with pytest.raises(LiveError, match=r"tools/call: http://127.0.0.1:.* cannot be reached: "):
                call(server, "echo", message="hi")
            with pytest.raises(LiveError, match=r"'away', initialize: .* cannot be reached: "):
                away.ask("tools/list")


def test_a_configuration_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path / "mcp.json", a={"command": "x"}, b={"command": "${FIREFLY_UNSET}"})
    assert live_servers(config) == ["a", "b"]
    with pytest.raises(ConfigError, match="cannot read"):
        live_servers(tmp_path / "none.json")
    for name, reason in (
        ("c", "has no server 'c'; it has: a, b"),
        ("b", "uses FIREFLY_UNSET, which is not set"),
    ):
        with LiveServer(name, config) as server, pytest.raises(LiveError, match=reason):
            server.ask("tools/list")


@pytest.mark.parametrize("stubborn", [False, True])
def test_nothing_that_was_started_is_left(stubborn: bool, lifeline: Lifeline) -> None:
    options = ["--lifeline", str(lifeline.port), *(["--stubborn"] if stubborn else [])]
    with LiveServer("fickle", [*FICKLE, *options]) as server:
        call(server, "spawn")
        lifeline.wait_for("upstream", "child", "orphan")
        server.timeout_s = SOON_S
        if stubborn:
            with pytest.raises(LiveError):
                call(server, "freeze")
    assert lifeline.survivors(timeout_s=1) == []


def test_it_ends_with_a_client_that_is_killed(lifeline: Lifeline) -> None:
    command = [*FICKLE, "--lifeline", str(lifeline.port)]
    script = (
        "import os; from firefly_proxy.live import LiveServer\n"
        f"LiveServer('fickle', {command!r}).ask('ping')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=30)
    lifeline.wait_for("upstream")
    assert lifeline.survivors(timeout_s=10) == []


def test_threads_take_turns() -> None:
    answers: dict[int, str] = {}
    with LiveServer("echo", ECHO) as server:

        def ask(number: int) -> None:
            answers[number] = call(server, "echo", message=str(number))

        threads = [threading.Thread(target=ask, args=[number]) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert answers == {number: str(number) for number in range(20)}


def test_it_is_not_asked_after_it_was_closed() -> None:
    server = LiveServer("echo", ECHO)
    server.close()
    server.close()
    with pytest.raises(ValueError, match="live server 'echo' is closed"):
        server.ask("ping")
