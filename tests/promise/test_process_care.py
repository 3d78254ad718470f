"""The proxy starts what it was told to, ends all of it, and adds nothing to what it says."""

import contextlib
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.promise.conversation import FICKLE, INITIALIZE, WAIT_S, Conversation, record
from tests.promise.lifeline import Lifeline
from tests.promise.recording import texts_to_client

END_S = 8
"""A polite request to end, some patience, and the end."""

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
DISCOVER = {
    "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "promise", "version": "1"},
    }
}


@pytest.mark.parametrize("ending", ["EOF", *SIGNALS], ids=str)
def test_the_whole_upstream_tree_ends_with_the_conversation(
    ending: str | signal.Signals, db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    with record(db, fickle) as client:
        client.initialize()
        client.call("spawn")
        lifeline.wait_for("upstream", "child", "orphan")
        end(client, ending)
        client.wait(END_S)
        assert lifeline.survivors(timeout_s=1) == []


@pytest.mark.parametrize("ending", ["EOF", *SIGNALS], ids=str)
def test_an_upstream_that_ignores_every_request_to_end_is_ended(
    ending: str | signal.Signals, db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    with record(db, [*fickle, "--stubborn"]) as client:
        client.initialize()
        client.start_call("freeze")
        lifeline.wait_for("upstream")
        end(client, ending)
        client.wait(END_S)
        assert lifeline.survivors(timeout_s=1) == []


def test_children_that_hold_the_output_open_do_not_keep_the_session_open(
    db: Path, fickle: list[str], lifeline: Lifeline
) -> None:
    with record(db, fickle) as client:
        client.initialize()
        client.call("spawn")
        lifeline.wait_for("child", "orphan")
        client.start_call("crash", code=9, stderr=["gone"])
        assert client.wait(END_S) == 9
        assert lifeline.survivors(timeout_s=1) == []


def test_a_crash_is_mirrored_in_exit_code_and_stderr(db: Path, fickle: list[str]) -> None:
    last_words = [f"Traceback line {number}" for number in range(30)]
    with record(db, fickle) as client:
        client.initialize()
        call = client.start_call("crash", code=7, stderr=last_words)
        with pytest.raises(EOFError):
            client.reply(call)
        assert client.wait() == 7
    assert client.errors[-5:] == last_words[-5:]
    assert any("code 7" in line for line in client.errors)


@pytest.mark.parametrize(
    ("command", "named", "code"),
    [
        (["no-such-command-anywhere", "--flag"], "no-such-command-anywhere", None),
        (["sh", "-c", "echo no database here >&2; exit 3"], "sh", 3),
        ([sys.executable, "no/such/server.py"], sys.executable, 2),
    ],
    ids=["missing command", "exits at once", "missing script"],
)
@pytest.mark.parametrize("opening", ["initialize", "server/discover"])
def test_an_upstream_that_cannot_start_fails_the_handshake_by_name(
    opening: str, command: list[str], named: str, code: int | None, db: Path
) -> None:
    with record(db, command) as client:
        if opening == "server/discover":
            refusal = client.ask("server/discover", DISCOVER)
            assert named in refusal["error"]["message"]
        reply = client.ask("initialize", INITIALIZE)
        assert named in reply["error"]["message"]
        client.close_input()
        assert client.wait() == code if code is not None else client.wait() != 0
    if code == 3:
        assert "no database here" in "\n".join(client.errors)


def test_lines_of_25_megabytes_pass_both_ways(db: Path, fickle: list[str]) -> None:
    message = "0123456789abcdef" * (25 * 2**16)
    with record(db, fickle) as client:
        client.initialize()
        assert client.call("echo", message=message)["result"]["content"][0]["text"] == message
        assert client.call("echo", message="small")["result"]["content"][0]["text"] == "small"
    assert client.wait() == 0
    assert client.lines[1].decode().strip() in texts_to_client(db)


def test_replies_still_come_when_input_ends_right_after_the_requests(db: Path, fickle: list[str]) -> None:
    with record(db, fickle) as client:
        calls = [client.request("initialize", INITIALIZE)]
        calls += [client.start_call("later", ms=300, message="slow")]
        calls += [client.start_call("echo", message=f"message {number}") for number in range(50)]
        client.close_input()
        assert all("result" in client.reply(call) for call in calls)
        assert client.wait() == 0


def test_a_request_without_a_line_end_before_the_end_of_input_is_answered(
    db: Path, fickle: list[str]
) -> None:
    with record(db, fickle) as client:
        assert client.process.stdin is not None
        client.process.stdin.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
        client.close_input()
        assert client.reply(1)["result"] == {}


def test_the_client_gets_the_server_s_lines_and_no_byte_more(db: Path, fickle: list[str]) -> None:
    odd_lines = [
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}',
        b'{"jsonrpc": "2.0", "id": "1", "method": "ping"}',
        b'{"jsonrpc":"2.0","method":"notifications/unheard-of","params":{"x":1}}',
        b'{"id":1.50,"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo","arguments":{"message":"\\u00e9\\/"}}}',
        b'{"jsonrpc":"2.0","id":null,"method":"no/such/method"}',
        b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"reveal","arguments":{"value":"a\\"b\\\\c"}}}',
    ]
    with Conversation(fickle) as direct, record(db, fickle) as proxied:
        for client in (direct, proxied):
            for line in odd_lines:
                client.send(line)
            client.close_input()
            assert client.wait() == 0
    assert proxied.lines == [line for line in direct.lines if is_object(line)]
    assert len(proxied.lines) < len(direct.lines), "the server said nothing that had to be kept back"
    assert proxied.errors == []


def test_the_upstream_gets_the_environment_and_arguments_of_the_command_line(db: Path) -> None:
    with record(db, [*FICKLE, "first", "--second=2 3"]) as client:
        client.initialize()
        revealed = client.call("reveal", position=2)["result"]["content"][0]["text"]
        assert revealed == "--second=2 3"
        assert client.call("reveal", variable="PATH")["result"]["content"][0]["text"] != "unset"


def end(client: Conversation, ending: str | signal.Signals) -> None:
    if isinstance(ending, signal.Signals):
        client.process.send_signal(ending)
    else:
        client.close_input()


def is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_server_that_is_not_there_is_said_once_to_each_request(db: Path) -> None:
    dying = ["sh", "-c", "for i in 1 2 3; do (sleep 0.$i &); done; exit 3"]
    with record(db, dying) as client:
        client.ask("server/discover", DISCOVER)
        time.sleep(0.6)  # the orphans end meanwhile, one after the other
        assert "error" in client.ask("initialize", INITIALIZE)
    assert len(client.lines) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; elsewhere orphans are not ours to inherit")
def test_orphans_that_end_are_taken_away_while_the_session_goes_on(db: Path) -> None:
    orphans = "import subprocess; [subprocess.Popen('true & exit', shell=True).wait() for _ in range(20)]"
    server = [
        sys.executable,
        "-c",
        f"{orphans}; import runpy; runpy.run_path({FICKLE[-1]!r}, run_name='__main__')",
    ]
    with record(db, server) as client:
        client.initialize()
        deadline = time.monotonic() + WAIT_S
        while (zombies := zombie_children(client.process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert zombies == []


def zombie_children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(ppid) == parent:
                found.append(int(stat.parent.name))
    return found
