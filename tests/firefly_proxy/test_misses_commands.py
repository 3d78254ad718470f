"""From a miss to a recorded answer: replays journal it, `misses` lists it, `--from-misses` asks for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recorder.exchange import NoReply
from recorder.importer import import_sessions
from recorder.store import Store
from replayer.learned import learned_path
from tests.promise.conversation import ROOT, record, replay, result_of
from tests.servers.messages_endpoint import MessagesEndpoint, error, message

LEDGER = [sys.executable, str(ROOT / "tests" / "servers" / "ledger.py")]
START = {"apples": "3", "pears": "4", "plums": "5"}
Json = dict[str, Any]
Call = tuple[str, Json]


def firefly(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firefly_proxy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A client's configuration of a ledger that starts with some entries."""
    server = {
        "command": LEDGER[0],
        "args": LEDGER[1:],
        "env": {"LEDGER_START": json.dumps({"entries": START})},
    }
    (tmp_path / "mcp.json").write_text(json.dumps({"mcpServers": {"ledger": server}}))
    return tmp_path / "mcp.json"


@pytest.fixture
def db(tmp_path: Path, config: Path) -> Path:
    """A conversation with that ledger, recorded."""
    path = tmp_path / "world.db"
    options = ("--config", str(config), "--group", "g")
    with record(path, [], *options) as client:
        client.initialize()
        client.ask("tools/list")
        client.call("get", key="apples")
        client.call("put", key="apples", value="9")
    return path


def said(result: Json) -> tuple[str, bool]:
    """Text and error flag of a tool's result; the text of a miss is cut after its first words."""
    text = result["content"][0]["text"]
    return ("a miss" if text.startswith("no recorded answer for ") else text), result.get("isError", False)


def replayed(db: Path, *calls: Call, options: Sequence[object] = ("--group", "g")) -> list[tuple[str, bool]]:
    """Ask a replay in one conversation."""
    with replay(db, *map(str, options)) as client:
        client.initialize()
        return [said(result_of(client.call(tool, **arguments))) for tool, arguments in calls]


def listed(db: Path) -> list[tuple[int, str | None, Json, list[Any]]]:
    """Times, tool, arguments and what came before, as `misses --json` says it."""
    ended = firefly("misses", "--db", db, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    value = json.loads(line)
    assert value["asked"] == sum(each["times"] for each in value["misses"])
    return [
        (each["times"], each["name"], each["params"]["arguments"], each["before"]) for each in value["misses"]
    ]


def sessions(db: Path) -> list[tuple[str, str | None, Counter[str]]]:
    """Group, run and called tools of each session with a call."""
    found = []
    store = Store(db)
    for each in store.sessions():
        calls = [
            exchange.call.tool.name
            for exchange in store.exchanges(session_id=each.id)
            if exchange.call and not isinstance(exchange.outcome, NoReply)
        ]
        found.append((each.group, each.run, Counter(calls)))
    return found


MISS = ("a miss", True)
APPLES, PEARS, PLUMS = (("get", {"key": key}) for key in START)
PUT: Call = ("put", {"key": "apples", "value": "9"})
RECORDED = ("g", None, Counter({"get": 1, "put": 1}))


def test_misses_are_listed_by_how_often_they_were_asked(db: Path) -> None:
    assert firefly("misses", "--db", db).stdout == "Nothing was missed.\n"
    assert listed(db) == []
    assert replayed(db, PEARS, PLUMS, PLUMS, APPLES) == [MISS, MISS, MISS, ("3", False)]
    assert replayed(db, PLUMS, PUT, PEARS) == [MISS, ("stored apples", False), MISS]
    assert listed(db)[0] == (3, "get", {"key": "plums"}, [])
    assert sorted(listed(db)[1:], key=str) == sorted(
        [
            (1, "get", {"key": "pears"}, [["put", {"key": "apples", "value": "9"}]]),
            (1, "get", {"key": "pears"}, []),
        ],
        key=str,
    )
    ended = firefly("misses", "--db", db)
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["3", "g", 'ledger/get({"key":"plums"})', "/key"] in rows
    assert rows[-1][:5] == ["3", "requests,", "asked", "5", "times."]


def test_what_was_missed_is_asked_recorded_and_answered_by_the_next_replay(db: Path, config: Path) -> None:
    assert replayed(db, PEARS, ("get", {"key": "figs"}), PLUMS) == [MISS, MISS, MISS]
    ended = firefly("record", "--db", db, "--from-misses", "--config", config, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [json.loads(line) for line in ended.stdout.splitlines()] == [
        {"recorded": 3, "failed": [], "skipped": {}}
    ]
    assert listed(db) == []
    assert sessions(db) == [RECORDED, ("g", "from-misses", Counter({"get": 3}))]
    assert replayed(db, PEARS, ("get", {"key": "figs"}), PLUMS, APPLES) == [
        ("4", False),
        ("nothing is stored under 'figs'", True),
        ("5", False),
        ("3", False),
    ]
    assert listed(db) == []


def test_what_changes_the_world_or_came_after_is_asked_only_where_that_is_wanted(
    db: Path, config: Path
) -> None:
    change: Call = ("put", {"key": "pears", "value": "8"})
    assert replayed(db, PUT, PLUMS) == [("stored apples", False), MISS]
    assert replayed(db, change) == [MISS]
    kept = listed(db)
    ended = firefly("record", "--db", db, "--from-misses", "--config", config)
    assert (ended.returncode, ended.stdout) == (0, "0 misses asked and recorded\n")
    assert ended.stderr == (
        "not asked: 2: it changes the world, or came after a call that does (see --with-changes)\n"
    )
    assert (listed(db), sessions(db)) == (kept, [RECORDED])
    ended = firefly("record", "--db", db, "--from-misses", "--config", config, "--with-changes", "--json")
    assert json.loads(ended.stdout) == {"recorded": 2, "failed": [], "skipped": {}}
    assert listed(db) == []
    runs = sessions(db)
    assert sorted(runs[1:], key=str) == sorted(
        [("g", "from-misses", Counter({"put": 1, "get": 1})), ("g", "from-misses", Counter({"put": 1}))],
        key=str,
    )
    assert replayed(db, PUT, PLUMS) == [("stored apples", False), ("5", False)]
    assert replayed(db, change) == [("stored pears", False)]


def test_a_server_that_is_not_configured_is_not_asked(db: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"mcpServers": {"another": {"command": "true"}}}))
    assert replayed(db, PEARS) == [MISS]
    kept = listed(db)
    ended = firefly("record", "--db", db, "--from-misses", "--config", other, "--json")
    assert json.loads(ended.stdout) == {
        "recorded": 0,
        "failed": [],
        "skipped": {f"server ledger is not in {other}": 1},
    }
    assert listed(db) == kept


def test_a_server_that_does_not_start_leaves_the_misses(db: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"mcpServers": {"ledger": {"command": sys.executable, "args": ["-c", ""]}}}))
    assert replayed(db, PEARS, PLUMS) == [MISS, MISS]
    kept = listed(db)
    ended = firefly("record", "--db", db, "--from-misses", "--config", broken, "--json")
    value = json.loads(ended.stdout)
    assert (ended.returncode, value["recorded"], value["skipped"]) == (1, 0, {})
    assert ended.stderr.splitlines() == [f"firefly-proxy: {failure}" for failure in value["failed"]]
    assert len(value["failed"]) == 1
    assert sorted(listed(db), key=str) == sorted(kept, key=str)


@pytest.mark.parametrize("on_miss", ["live", "record"])
def test_a_miss_can_be_answered_by_the_real_server(db: Path, config: Path, on_miss: str) -> None:
    options = ("--group", "g", "--on-miss", on_miss, "--config", config)
    with replay(db, *map(str, options)) as client:
        client.initialize()
        replies = [
            client.call(tool, **arguments) for tool, arguments in (APPLES, PEARS, ("get", {"key": "figs"}))
        ]
    assert [said(result_of(reply)) for reply in replies] == [
        ("3", False),
        ("4", False),
        ("nothing is stored under 'figs'", True),
    ]
    sources = [reply["result"]["_meta"]["io.firefly/replay"] for reply in replies]
    assert [source["tier"] for source in sources] == ["exact", "live", "live"]
    assert sources[1] == {"tier": "live", "score": None, "trust": None, "source": None}
    if on_miss == "live":
        assert sessions(db) == [RECORDED]
        assert replayed(db, PEARS) == [MISS]
    else:
        assert sessions(db) == [RECORDED, ("g", "on-miss", Counter({"get": 2}))]
        assert replayed(db, PEARS, ("get", {"key": "figs"})) == [
            ("4", False),
            ("nothing is stored under 'figs'", True),
        ]


def test_a_real_server_that_cannot_be_had_leaves_a_miss(db: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps({"mcpServers": {"ledger": {"command": sys.executable, "args": ["-c", ""]}}}))
    options = ("--group", "g", "--on-miss", "live", "--config", broken)
    assert replayed(db, PEARS, APPLES, options=options) == [MISS, ("3", False)]


def test_a_model_may_answer_and_is_said_to_have(db: Path) -> None:
    before = db.read_bytes()
    replies = [message('{"is_error": false, "output": "about 4"}'), error(400, "invalid_request_error", "no")]
    with MessagesEndpoint(replies) as endpoint:
        environment = {"ANTHROPIC_API_KEY": "key", "PATH": "/usr/bin:/bin", "HOME": str(db.parent)}
        options = ("--group", "g", "--simulate", "--model", "claude-haiku-4-5", "--base-url", endpoint.url)
        with replay(db, *options, environment=environment) as client:
            client.initialize()
            made_up, missed, real = (
                client.call(tool, **arguments) for tool, arguments in (PEARS, PLUMS, APPLES)
            )
    assert said(result_of(made_up)) == ("about 4", False)
    assert made_up["result"]["_meta"]["io.firefly/replay"]["tier"] == "simulated"
    assert (said(result_of(missed)), said(result_of(real))) == (MISS, ("3", False))
    assert len(endpoint.received) == 2
    assert db.read_bytes() == before
    assert replayed(db, PEARS) == [MISS]
    assert sorted(listed(db), key=str) == [(1, "get", {"key": "plums"}, []), (2, "get", {"key": "pears"}, [])]


def test_wrong_usage_has_exit_status_2_and_nothing_on_standard_output(db: Path, config: Path) -> None:
    with_config = "--on-miss live and record need --config, and --config goes with them"
    with_simulate = "--model, --base-url and --max-usd go with --simulate"
    alone = "--from-misses takes --config, and besides it --redact and --with-changes"
    for arguments, told in (
        (("replay", "--on-miss", "live"), with_config),
        (("replay", "--on-miss", "record"), with_config),
        (("replay", "--config", config), with_config),
        (("replay", "--on-miss", "guess"), "Invalid value for '--on-miss': 'guess' is not one of"),
        (("replay", "--model", "m"), with_simulate),
        (("replay", "--max-usd", "1"), with_simulate),
        (("replay", "--simulate"), "--simulate needs --model NAME"),
        (("replay", "--min-trust", "-0.1"), "Invalid value for '--min-trust': -0.1 is not in the range"),
        (("record", "--from-misses"), alone),
        (("record", "--from-misses", "--config", config, "--group", "g"), alone),
        (("record", "--from-misses", "--config", config, "--", "true"), alone),
        (("record", "--with-changes", "--", "true"), "--with-changes and --json go with --from-misses"),
        (("record", "--json", "--", "true"), "--with-changes and --json go with --from-misses"),
    ):
        command, *options = arguments
        ended = firefly(command, "--db", db, *options)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.splitlines()[-1].startswith(f"Error: {told}")
    assert not learned_path(db).exists()


def test_what_is_not_there_is_told_in_one_line(tmp_path: Path, config: Path, db: Path) -> None:
    none, other = tmp_path / "none.db", tmp_path / "none.json"
    for arguments, told in (
        (("misses", "--db", none), f"no recording at {none}"),
        (("record", "--from-misses", "--config", config, "--db", none), f"no recording at {none}"),
        (("replay", "--db", none), f"no recording at {none}"),
        (("record", "--from-misses", "--config", other, "--db", db), ""),
        (("replay", "--on-miss", "live", "--config", other, "--db", db), ""),
        (("replay", "--session", "nobody", "--db", db), f"{db} has no session 'nobody'; it has: "),
    ):
        ended = firefly(*arguments)
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"firefly-proxy: {told}")
        assert ended.returncode in (1, 2)
        assert ended.stdout == ""
    assert not none.exists()


def test_an_imported_group_that_is_not_recorded_is_said_to_be_unknown(tmp_path: Path) -> None:
    call = {"server": "s", "tool": "get", "arguments": {}, "output": "x"}
    db = tmp_path / "world.db"
    import_sessions(db, [{"session_id": "1", "group": "a", "calls": [call]}])
    with replay(db, "--group", "b") as client:
        assert said(result_of(client.call("get"))) == ("x", False)
    assert client.errors == ["firefly-proxy: group 'b' is not recorded: answering as for an unseen task"]
