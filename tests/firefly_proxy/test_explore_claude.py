"""`firefly explore --explorer claude`: a model behind an endpoint that speaks the real wire format walks."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exploration import WAIT_S, command, configure, environment, nowhere, recorded_calls, report_of
from tests.promise.recording import query
from tests.servers.messages_endpoint import MessagesEndpoint, Received, Reply, error, message, tool_use

LEDGER = Path(__file__).parents[1] / "servers" / "ledger.py"
SECRET = "s3cret-0f-the-ledger"


class Model:
    """Asks for each tool it is offered once, with what a key or a name may be, and then is done."""

    def __init__(self) -> None:
        self._ids = itertools.count()

    def __call__(self, asked: Received) -> Reply:
        if len(asked.body["messages"]) > 1:
            return message("Done.")
        inputs = {"key": "apples", "value": "3", "name": "Ada", "id": "1", "a": 6, "b": 3}
        calls = []
        for tool in asked.body["tools"]:
            given = {name: inputs[name] for name in tool["input_schema"]["properties"]}
            calls.append((f"toolu_{next(self._ids)}", tool["name"], given))
        return tool_use(*calls)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    start = json.dumps({"entries": {"apples": SECRET}})
    env = {"LEDGER_START": start, "LEDGER_TOKEN": SECRET}
    return configure(tmp_path, {"ledger": {"command": sys.executable, "args": [str(LEDGER)], "env": env}})


def explore(config: Path, db: Path, *options: object) -> subprocess.CompletedProcess[str]:
    wanted = command(config, db, "--explorer", "claude", "--model", "claude-haiku-4-5", *options)
    env = {**environment(), "ANTHROPIC_API_KEY": "sk-ant-test-key"}
    return subprocess.run(
        wanted, capture_output=True, text=True, timeout=WAIT_S, env=env, cwd=nowhere(config), check=False
    )


def test_a_model_walks_and_its_prompts_are_kept_without_secrets(tmp_path: Path, config: Path) -> None:
    db = tmp_path / "world.db"
    options = ("--allow-writes", "--sub-dags", 3)
    with MessagesEndpoint(Model()) as endpoint:
        report = report_of(explore(config, db, *options, "--base-url", endpoint.url, "--json"))

    assert not endpoint.refused
    assert report["walks"]["sub-dag"] == 3
    assert report["calls"] == len(recorded_calls(db))
    kept = query(db, "SELECT model, request, response, input_tokens, output_tokens, cost_usd FROM completion")
    assert len(kept) == len(endpoint.received) >= 6
    assert report["cost_usd"] > 0
    assert report["cost_usd"] == pytest.approx(sum(row[5] for row in kept))
    assert "messages" in json.loads(kept[0][1])
    assert json.loads(kept[0][2])["content"]
    sent = json.dumps([asked.body for asked in endpoint.received])
    assert "apples" in sent
    assert SECRET not in sent
    assert SECRET not in json.dumps(kept)


def test_a_key_that_is_refused_ends_it_with_one_line(tmp_path: Path, config: Path) -> None:
    with MessagesEndpoint(lambda _: error(401, "authentication_error", "invalid x-api-key")) as endpoint:
        ended = explore(config, tmp_path / "world.db", "--base-url", endpoint.url, "--sub-dags", 2)

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert [
        line for line in ended.stderr.splitlines() if line.startswith("firefly:")
    ] == ended.stderr.splitlines()
    assert "authentication_error" in ended.stderr


def test_the_budget_ends_the_campaign(tmp_path: Path, config: Path) -> None:
    options = (
        "--explorer",
        "claude",
        "--model",
        "claude-haiku-4-5",
        "--budget-usd",
        "0.000001",
        "--sub-dags",
        2,
    )
    with MessagesEndpoint(Model()) as endpoint:
        report = report_of(
            explore(config, tmp_path / "world.db", *options, "--base-url", endpoint.url, "--json")
        )

    assert report["ending"] == "budget"
    assert not endpoint.received
