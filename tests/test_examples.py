"""The README's walk works: the demo, the two session examples and the client configuration."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from examples.demo import Answer, Walk, call, compare

EXAMPLES = Path(__file__).parents[1] / "examples"
BIN = Path(sys.executable).parent


def run(example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def test_the_demo_replays_every_call_identically_and_can_run_again(tmp_path: Path) -> None:
    servers = ["time", "git"]
    if shutil.which("node") and shutil.which("npm"):
        servers += ["filesystem", "memory", "everything"]
    for _ in range(2):
        ended = run("demo.py", "--folder", str(tmp_path / "demo"), "--json")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        report = json.loads(ended.stdout)
        assert [server["server"] for server in report["servers"]] == servers
        assert report["identical"] is True
        for server in report["servers"]:
            assert server["identical"] == server["calls"] * report["clients"]
            assert (server["missed"], server["different"]) == (0, [])
        assert "get_current_time" in report["miss"]


def test_the_demo_tells_a_miss_from_a_different_answer() -> None:
    walk = Walk("time", [], [call("get_current_time", timezone="UTC")] * 3)
    noon = Answer({"content": ["12:00"]}, missed=False, text="12:00")
    one = Answer({"content": ["13:00"]}, missed=False, text="13:00")
    miss = Answer({"content": ["no recorded answer"]}, missed=True, text="no recorded answer")
    report = compare(walk, [noon] * 3, [[noon, one, miss]])
    assert (report["calls"], report["asked_again"]) == (3, 3)
    assert (report["identical"], report["missed"], len(report["different"])) == (1, 1, 1)


def test_the_demo_does_not_clear_a_folder_that_holds_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear to me", encoding="utf-8")
    ended = run("demo.py", "--folder", str(tmp_path))
    assert ended.returncode == 2
    assert "thesis.txt" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_recorded_session_is_replayed(tmp_path: Path) -> None:
    recording = str(tmp_path / "session.db")
    recorded = run("record_session.py", recording)
    assert recorded.returncode == 0, recorded.stderr
    replayed = run("replay_session.py", recording)
    assert replayed.returncode == 0, replayed.stderr
    now = recorded.stdout.partition("now in Tokyo: ")[2].partition("}")[0]
    assert "datetime" in now
    assert now == replayed.stdout.partition("recorded answer: ")[2].partition("}")[0]
    assert "Asia/Seoul" in replayed.stdout.partition("never recorded: ")[2]


@pytest.mark.anyio
async def test_the_example_configuration_records_and_replays(tmp_path: Path) -> None:
    """As a client would start them, with this environment's commands on the PATH."""
    text = (EXAMPLES / "mcp.json").read_text(encoding="utf-8")
    servers = json.loads(text.replace("/absolute/path/to", str(tmp_path)))["mcpServers"]
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    answers = []
    for name in ("time", "time-replayed"):
        server = StdioServerParameters(**servers[name], env=env)
        async with Client(server) as client:
            answer = await client.call_tool("get_current_time", {"timezone": "Asia/Tokyo"})
            answers.append(answer.content)
    assert answers[0] == answers[1]
