import json
import subprocess
import sys
from pathlib import Path

import pytest

from recorder.writer import RecordingWriter

SHOW = [sys.executable, "-m", "firefly_proxy.cli", "show", "--db"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recording full of names that a terminal, a table or an encoder could stumble over."""
    writer = RecordingWriter(tmp_path / "odd.db", group="[/g]", run="[bold]")
    server = writer.add_server("n[/x]", {"command": "[/c]"})
    hello = {"protocolVersion": "x", "clientInfo": {"name": "c[/red]\ud800"}, "capabilities": {}}
    for position, (method, params) in enumerate(
        [
            ("initialize", hello),
            ("x[/red]", {}),
            ("tools/call", {"name": "t[/red]", "arguments": {"a": "\ud800"}}),
        ]
    ):
        request = {"jsonrpc": "2.0", "id": position, "method": method, "params": params}
        writer.record(server, "to_server", [json.dumps(request).encode()])
        writer.record(server, "to_client", [json.dumps({"id": position, "result": {}}).encode()])
    writer.record(server, "to_server", [b'{"jsonrpc":"2.0","id":9,"method":"tools/list"}'])
    writer.record(server, "to_client", [b'{"jsonrpc":"2.0","id":9,"result":{"tools":[null,1,{"name":"u"}]}}'])
    writer.end("done")
    return writer.path


def test_any_name_is_shown(path: Path) -> None:
    shown = subprocess.run([*SHOW, str(path)], capture_output=True, check=True, text=True).stdout
    assert all(name in shown for name in ("n[/x]", "c[/red]", "t[/red]"))
    view = json.loads(subprocess.run([*SHOW, str(path), "--json"], capture_output=True, check=True).stdout)
    assert (len(view["sessions"]), len(view["servers"]), view["exchanges"]) == (1, 1, 4)
    assert [(tool["name"], tool["calls"]) for tool in view["tools"]] == [("u", 0), ("t[/red]", 1)]
    one = [*SHOW, str(path), "--session", view["sessions"][0]["id"]]
    assert "x[/red]" in subprocess.run(one, capture_output=True, check=True, text=True).stdout
    calls = json.loads(subprocess.run([*one, "--json"], capture_output=True, check=True).stdout)["calls"]
    assert [line["method"] for line in calls] == ["initialize", "x[/red]", "tools/call", "tools/list"]


def test_a_session_that_is_not_there_is_named(path: Path) -> None:
    failed = subprocess.run(
        [*SHOW, str(path), "--session", "nope"], check=False, capture_output=True, text=True
    )
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.strip() == f"firefly-proxy: {path} has no session 'nope'"
