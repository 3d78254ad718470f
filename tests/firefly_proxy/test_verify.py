"""Recorded answers are compared with what the servers say now, and nothing is changed by asking."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from firefly_proxy.live import LiveServer
from firefly_proxy.server_config import ConfigError
from firefly_proxy.verify import DriftReport, print_drift, verify
from recorder.store import Store
from tests.promise.conversation import FICKLE, ROOT

LEDGER = str(ROOT / "tests" / "servers" / "ledger.py")
CHANGING = {"put", "create", "crash"}
READING = {"get", "list", "now"}
Call = tuple[str, Mapping[str, object]]


def ledger(start: Mapping[str, str], **env: str) -> dict[str, Any]:
    """A configuration of the ledger that starts with these entries."""
    env = {"LEDGER_START": json.dumps({"entries": start}), **env}
    return {"command": sys.executable, "args": [LEDGER], "env": env}


class World:
    """A configuration that may change, and a recording of what was asked under it."""

    def __init__(self, folder: Path) -> None:
        self.config, self.db = folder / "mcp.json", folder / "world.db"

    def configure(self, **servers: object) -> None:
        self.config.write_text(json.dumps({"mcpServers": servers}))

    def record(self, calls: Sequence[Call], server: str = "ledger") -> None:
        with LiveServer(server, self.config, db=self.db) as live:
            for tool, arguments in calls:
                live.ask("tools/call", {"name": tool, "arguments": arguments})

    def verify(self, *, only_read: bool = False, timeout_s: float = 20) -> DriftReport:
        return verify(
            Store(self.db),
            self.config,
            only_read=only_read,
            reads=lambda call: call.tool.name in READING,
            changes=lambda call: call.tool.name in CHANGING,
            same=lambda recorded, live: recorded == live,
            timeout_s=timeout_s,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def counts(report: DriftReport) -> dict[str, tuple[int, int, int, int]]:
    return {tool.tool: (tool.asked, tool.same, tool.drifted, tool.failed) for tool in report.tools}


def differences(report: DriftReport) -> list[str]:
    return [example.difference for tool in report.tools for example in tool.examples]


def test_a_world_that_did_not_change_answers_the_same(world: World) -> None:
    world.configure(ledger=ledger({"a": "1"}))
    world.record(
        [("get", {"key": "a"}), ("get", {"key": "b"}), ("list", {}), ("nope", {}), ("get", {"key": "a"})]
    )
    report = world.verify()
    assert counts(report) == {"get": (2, 2, 0, 0), "list": (1, 1, 0, 0), "nope": (1, 1, 0, 0)}
    assert (report.unknown_servers, report.skipped, report.total("asked")) == ([], {}, 4)


def test_what_drifted_is_shown_where_it_differs(world: World) -> None:
    text = "The quick brown fox jumps over the lazy dog and the rest of the story is here, too."
    world.configure(ledger=ledger({"a": "1", "long": f"{text} {text}", "gone": "x"}))
    world.record([("get", {"key": key}) for key in ("a", "long", "gone", "never")] + [("list", {})])
    world.configure(ledger=ledger({"a": "2", "long": f"{text} {text.replace('fox', 'cat')}"}))
    report = world.verify()
    assert counts(report) == {"get": (4, 1, 3, 0), "list": (1, 0, 1, 0)}
    assert differences(report) == [
        'recorded "1", now "2"',
        'recorded "…he quick brown fox jumps over the lazy dog and the rest of t…",'
        ' now "…he quick brown cat jumps over the lazy dog and the rest of t…"',
        'recorded result "x", now tool error "nothing is stored under \'gone\'"',
        'recorded "[\\"a\\", \\"gone\\", \\"long\\"]", now "[\\"a\\", \\"long\\"]"',
    ]
    assert report.tools[0].examples[0].arguments == {"key": "a"}


def test_only_the_state_before_the_first_change_is_asked_for_and_nothing_is_changed(world: World) -> None:
    world.configure(ledger=ledger({"a": "1"}))
    world.record(
        [("get", {"key": "a"}), ("put", {"key": "b", "value": "2"}), ("get", {"key": "b"}), ("list", {})]
    )
    before = world.db.read_bytes()
    report = world.verify()
    assert counts(report) == {"get": (1, 1, 0, 0)}
    assert world.db.read_bytes() == before


def test_of_equal_calls_the_latest_counts(world: World) -> None:
    world.configure(ledger=ledger({"a": "old"}))
    world.record([("get", {"key": "a"})])
    world.configure(ledger=ledger({"a": "new"}))
    world.record([("get", {"key": "a"})])
    assert counts(world.verify()) == {"get": (1, 1, 0, 0)}


def test_only_declared_reads_are_asked_where_that_is_wanted(world: World) -> None:
    world.configure(ledger=ledger({}))
    world.record([("divide", {"a": 1, "b": 0}), ("list", {})])
    assert counts(world.verify()) == {"divide": (1, 1, 0, 0), "list": (1, 1, 0, 0)}
    assert counts(world.verify(only_read=True)) == {"list": (1, 1, 0, 0)}


def test_servers_that_are_not_configured_are_named(world: World) -> None:
    world.configure(ledger=ledger({}), other=ledger({}))
    world.record([("list", {})])
    world.record([("list", {})], "other")
    world.configure(ledger=ledger({}))
    report = world.verify()
    assert ([tool.server for tool in report.tools], report.unknown_servers) == (["ledger"], ["other"])


def test_no_placeholder_is_sent_and_no_secret_is_reported(world: World) -> None:
    secret, rotated = "hunter2-hunter2", "swordfish-swordfish"
    world.configure(ledger=ledger({"a": secret, "b": f"it is {secret}!"}, LEDGER_TOKEN=secret))
    world.record([("get", {"key": "a"}), ("get", {"key": "b"}), ("get", {"key": f"under {secret}"})])
    report = world.verify()
    assert (counts(report), report.skipped) == ({"get": (2, 2, 0, 0)}, {"secret": 1})
    world.configure(ledger=ledger({"a": rotated, "b": f"not {secret}, {rotated}"}, LEDGER_TOKEN=rotated))
    report = world.verify()
    assert counts(report) == {"get": (2, 0, 2, 0)}
    shown = json.dumps(report.as_json())
    assert secret not in shown
    assert rotated not in shown


def test_a_server_that_gives_no_answer_is_left_alone_after_a_few(world: World) -> None:
    """What is recorded are refusals: the ledger has no such tools."""
    world.configure(odd=ledger({}))
    hanging: list[Call] = [("hang", {"number": number}) for number in range(5)]
    world.record([("echo", {"message": "1"}), *hanging, ("echo", {"message": "2"})], "odd")
    world.configure(odd={"command": FICKLE[0], "args": FICKLE[1:]})
    report = world.verify(timeout_s=0.5)
    assert counts(report) == {"echo": (1, 0, 1, 0), "hang": (3, 0, 0, 3)}
    assert report.skipped == {"gave up": 3}
    assert differences(report) == [
        'recorded error "Unknown tool: echo", now result "1"',
        *["no answer within 0.5 s"] * 3,
    ]


def test_a_call_that_ends_its_server_fails_alone(world: World) -> None:
    world.configure(odd=ledger({}))
    world.record(
        [("echo", {"message": "1"}), ("exit", {"code": 4, "lines": []}), ("echo", {"message": "2"})], "odd"
    )
    world.configure(odd={"command": sys.executable, "args": ["-m", "tests.servers.odd_legacy"]})
    report = world.verify()
    assert counts(report) == {"echo": (2, 0, 2, 0), "exit": (1, 0, 0, 1)}
    ended = f"upstream `{sys.executable}` exited with code 4"
    assert differences(report)[-1] == f"{ended}; its last lines on standard error: the odd server leaves"


def test_a_result_is_the_same_in_either_era(world: World) -> None:
    """A recorded client may have asked a server of both eras in the newer one."""
    world.configure(odd={"command": sys.executable, "args": ["-m", "tests.servers.odd_modern"]})
    world.record([("large", {"chars": 4}), ("interview", {})], "odd")
    world.configure(odd={"command": sys.executable, "args": ["-m", "tests.servers.odd_legacy"]})
    report = world.verify()
    assert (counts(report), report.skipped) == ({"large": (1, 1, 0, 0)}, {"chain": 1})


def test_our_own_recorder_in_the_configuration_is_refused(world: World) -> None:
    world.configure(ledger=ledger({}))
    world.record([("list", {})])
    command = ["record", "--db", str(world.db), "--", sys.executable, LEDGER]
    world.configure(ledger={"command": "/opt/firefly/bin/firefly-proxy", "args": command})
    with pytest.raises(ConfigError, match="'ledger' is firefly-proxy record"):
        world.verify()


def test_the_report_is_told_and_printed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.configure(ledger=ledger({"a": "[/red]"}), away=ledger({}))
    world.record([("get", {"key": "a"}), ("list", {})])
    world.record([("list", {})], "away")
    world.configure(ledger=ledger({"a": "[bold]"}))
    told: list[tuple[int, int]] = []
    report = verify(
        Store(world.db),
        world.config,
        only_read=False,
        reads=lambda call: True,
        changes=lambda call: False,
        same=lambda recorded, live: recorded == live,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]
    assert report.as_json() == {
        "recording": str(world.db),
        "config": str(world.config),
        "only_read": False,
        "tools": [
            {
                "server": "ledger",
                "tool": "get",
                "asked": 1,
                "same": 0,
                "drifted": 1,
                "failed": 0,
                "examples": [{"arguments": {"key": "a"}, "difference": 'recorded "[/red]", now "[bold]"'}],
            },
            {
                "server": "ledger",
                "tool": "list",
                "asked": 1,
                "same": 1,
                "drifted": 0,
                "failed": 0,
                "examples": [],
            },
        ],
        "unknown_servers": ["away"],
        "skipped": {},
    }
    print_drift(report)
    printed = capsys.readouterr().out
    assert 'ledger/get({"key": "a"})\n    recorded "[/red]", now "[bold]"\n' in printed
    assert printed.endswith(f"not in {world.config}: away\n2 asked: 1 same, 1 drifted, 0 failed\n")
