"""`firefly explore`: nothing lost, the same calls again, limits and permissions that hold, a clean end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.exploration import (
    UNSTEADY,
    WAIT_S,
    Json,
    calls_by_server,
    calls_by_walk,
    configure,
    differences,
    exchanges,
    explore,
    has_tables,
    nowhere,
    one_object,
    recorded_calls,
    report_of,
    started,
    tools_called,
    unsteady,
    walks,
)
from tests.promise.leaks import leaked
from tests.promise.recording import is_intact, query

READS = {"list_items", "get_item", "search_items", "whoami"}
WRITES = {"create_item", "update_item"}
ALL = ("--allow-writes", "--allow", "*")
DOES_NOT_START = {"command": sys.executable, "args": ["-c", "raise SystemExit('no licence')"]}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    return folder / "world.db"


def server_of(report: Json, name: str) -> Json:
    return next(server for server in report["servers"] if server["server"] == name)


def calls_of(report: Json) -> dict[str, int]:
    return {server["server"]: server["calls"] for server in report["servers"]}


# Servers that crash, hang or do not start


def test_no_call_is_lost_of_servers_that_crash_and_hang(tmp_path: Path, db: Path) -> None:
    servers = {
        "steady": unsteady("apple"),
        "crashing": unsteady("book", crash=0.15),
        "falling": unsteady("chair", crash=0.1, seed=2),
        "hanging": unsteady("door", hang=0.04),
    }
    config = configure(tmp_path, servers)
    report = report_of(
        explore(config, db, *ALL, "--calls-per-server", 40, "--timeout", 2, "--concurrency", 2, "--json")
    )

    assert report["calls"] == sum(calls_of(report).values()) == exchanges(db) == len(recorded_calls(db))
    assert calls_of(report) == calls_by_server(db)
    assert report["ending"] == "calls"
    restarts = {server["server"]: server["restarts"] for server in report["servers"]}
    assert restarts["steady"] == 0
    assert all(restarts[name] > 0 for name in ("crashing", "falling", "hanging"))
    for server in report["servers"]:
        assert server["calls"] == sum(tool["calls"] for tool in server["tools"])
        assert all(
            tool["calls"] == tool["effective"] + sum(tool["failed"].values()) for tool in server["tools"]
        )
        assert server["reached"] > 3
    assert is_intact(db)
    assert query(db, "SELECT count(*) FROM session WHERE ended_at IS NULL") == [(0,)]


def test_a_call_that_a_crash_left_without_a_reply_is_recorded_as_such(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"crashing": unsteady("book", crash=0.3)})
    report = report_of(explore(config, db, "--calls", 30, "--json"))

    lost = query(db, "SELECT count(*) FROM exchange WHERE method = 'tools/call' AND outcome = 'disconnected'")
    (server,) = report["servers"]
    assert lost == [(sum(tool["failed"].get("no reply", 0) for tool in server["tools"]),)]
    assert lost > [(0,)]


@pytest.mark.parametrize("limit", ["--calls", "--calls-per-server"])
def test_servers_that_never_start_do_not_stop_the_others(limit: str, tmp_path: Path, db: Path) -> None:
    broken = {f"broken{number}": DOES_NOT_START for number in range(4)}
    config = configure(tmp_path, {**broken, "fine": unsteady("apple")})
    report = report_of(explore(config, db, limit, 40, "--json"))

    for name in broken:
        server = server_of(report, name)
        assert server["calls"] == 0
        assert "no licence" in server["problem"]
    assert server_of(report, "fine")["reached"] > 1
    assert server_of(report, "fine")["problem"] is None


def test_a_server_that_always_crashes_is_left_alone_in_the_end(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"broken": unsteady("book", crash=1), "fine": unsteady("apple")})
    report = report_of(explore(config, db, "--calls-per-server", 60, "--json"))

    assert server_of(report, "broken")["reached"] == 0
    assert 0 < server_of(report, "broken")["calls"] < 30
    assert server_of(report, "fine")["calls"] > server_of(report, "broken")["calls"]
    assert report["calls"] == exchanges(db)


# The same calls again


def test_the_seed_and_the_servers_decide_the_calls_and_the_concurrency_does_not(tmp_path: Path) -> None:
    servers = {
        "apples": unsteady("apple"),
        "books": unsteady("book", crash=0.1),
        "chairs": unsteady("chair", crash=0.05, seed=3),
        "doors": unsteady("door"),
    }
    config = configure(tmp_path, servers)
    (nowhere(config) / "notes.txt").write_text("words that a search may draw from, each as frequent as any")

    def calls(name: str, *options: object) -> dict[str, list[tuple[str, str, str]]]:
        db = tmp_path / f"{name}.db"
        report_of(explore(config, db, *ALL, "--calls", 240, "--json", *options))
        return calls_by_walk(db)

    alone = calls("alone", "--seed", 7, "--concurrency", 1)
    assert sum(map(len, alone.values())) == 240
    assert differences(alone, calls("four", "--seed", 7, "--concurrency", 4)) == []
    assert differences(alone, calls("other", "--seed", 8, "--concurrency", 4)) != []


# Limits


@pytest.mark.parametrize("calls", [1, 7, 100])
def test_the_campaigns_calls_are_limited_exactly(calls: int, tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    report = report_of(explore(config, db, *ALL, "--calls", calls, "--json"))

    assert (report["ending"], report["calls"], exchanges(db)) == ("calls", calls, calls)


def test_the_calls_to_each_server_are_limited_exactly(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    report = report_of(explore(config, db, *ALL, "--calls-per-server", 50, "--json"))

    assert max(calls_by_server(db).values()) <= 50
    assert calls_of(report) == calls_by_server(db)


@pytest.mark.parametrize("sub_dags", [1, 5, 20])
def test_the_sub_dags_are_limited_exactly(sub_dags: int, tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    report = report_of(explore(config, db, *ALL, "--sub-dags", sub_dags, "--json"))

    assert (report["ending"], report["walks"]["sub-dag"]) == ("sub-DAGs", sub_dags)
    assert sum(kind == "sub-dag" for _, _, kind in walks(db)) == sub_dags


def test_the_time_is_limited(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple")})
    report = report_of(
        explore(config, db, *ALL, "--calls", 100_000, "--minutes", 0.04, "--rate", 20, "--json")
    )

    assert report["ending"] == "minutes"
    assert report["calls"] == exchanges(db) > 0


# What may be called


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ((), READS),
        (("--allow-writes",), READS | WRITES),
        (("--allow", "delete_*"), READS | {"delete_item"}),
        (("--allow-writes", "--allow", "apple/delete_*"), READS | WRITES | {"delete_item"}),
        ((*ALL, "--deny", "delete_*", "--deny", "apple/create_item"), READS | {"update_item"}),
        (("--allow-writes", "--allow", "elsewhere/*"), READS | WRITES),
    ],
    ids=["reads", "writes", "one named", "all and one named", "denied", "named elsewhere"],
)
def test_only_what_is_allowed_is_called(
    options: tuple[str, ...], allowed: set[str], tmp_path: Path, db: Path
) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple")})
    report = report_of(explore(config, db, *options, "--calls-per-server", 80, "--json"))

    assert tools_called(db) == allowed
    (server,) = report["servers"]
    assert server["open"] == len(allowed)
    closed = {tool["tool"]: tool["waits_for"] for tool in server["tools"] if tool["tool"] not in allowed}
    assert set(closed) == (READS | WRITES | {"delete_item"}) - allowed
    assert all("--allow" in why or why == "denied" for why in closed.values())


# Taking a campaign up


def test_a_finished_campaign_is_taken_up_with_a_greater_limit(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple"), "book": unsteady("book")})
    first = report_of(explore(config, db, *ALL, "--calls", 60, "--json"))
    before = calls_by_walk(db)
    same = report_of(explore(config, db, *ALL, "--calls", 60, "--json", "--resume"))
    assert calls_by_walk(db) == before
    assert {**same, "seconds": 0} == {**first, "seconds": 0}

    more = report_of(explore(config, db, *ALL, "--calls", 120, "--json", "--resume"))
    assert more["campaign"] == first["campaign"]
    assert more["calls"] == exchanges(db) == 120
    assert {walk: calls_by_walk(db)[walk] for walk in before} == before


@pytest.mark.parametrize("sub_dags", range(5, 10))
def test_a_campaign_is_taken_up_after_any_number_of_sub_dags(sub_dags: int, tmp_path: Path, db: Path) -> None:
    """With a repeat among the walks of a round, too, whatever of the round the limit cuts off."""
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    report_of(explore(config, db, *ALL, "--sub-dags", sub_dags, "--json"))
    report = report_of(explore(config, db, *ALL, "--sub-dags", sub_dags + 6, "--json", "--resume"))

    assert report["walks"]["sub-dag"] == sub_dags + 6
    numbers = sorted(number for number, _, _ in walks(db))
    assert numbers == list(range(len(numbers)))


def test_a_campaign_with_other_settings_is_not_taken_up(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple")})
    report_of(explore(config, db, "--calls", 10, "--json"))
    ended = explore(config, db, "--calls", 20, "--seed", 5, "--allow-writes", "--resume")

    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"firefly: {db} holds no campaign with these settings; its last differs in: seed, writes"
    ]
    assert exchanges(db) == 10


def test_where_there_is_no_campaign_none_is_taken_up(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple")})
    ended = explore(config, db, "--resume")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [f"firefly: {db} does not exist, so there is no campaign to resume"]


def test_an_unknown_server_and_a_missing_configuration_are_said_in_one_line(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple"), "book": unsteady("book")})
    unknown = explore(config, db, "--only", "apple,pear")
    missing = explore(tmp_path / "nowhere.json", db)

    assert unknown.returncode != 0
    assert unknown.stderr.splitlines() == [
        f"firefly: {config} has no server 'pear'; it has: apple, book",
    ]
    assert missing.returncode != 0
    (line,) = missing.stderr.splitlines()
    assert "nowhere.json" in line
    assert not db.exists()


def test_only_the_chosen_servers_are_explored(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    report = report_of(explore(config, db, "--only", "chair, apple", "--calls", 30, "--json"))

    assert set(calls_by_server(db)) == {"apple", "chair"} == set(calls_of(report))


# Interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_campaign_reports_and_goes_on_when_resumed(
    number: signal.Signals, tmp_path: Path, db: Path
) -> None:
    config = configure(tmp_path, {kind: unsteady(kind) for kind in ("apple", "book", "chair")})
    options = (*ALL, "--calls", 300, "--rate", 30, "--json")
    with started(config, db, *options) as process:
        wait_for_calls(process, db, 60)
        process.send_signal(number)
        output, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    assert errors == ""
    interrupted = one_object(output)
    assert interrupted["ending"] == "interrupted"
    assert interrupted["calls"] == exchanges(db) == len(recorded_calls(db))
    finished = walks(db)
    assert query(db, "SELECT count(*) FROM session WHERE ended_at IS NULL") == [(0,)]

    report = report_of(explore(config, db, *ALL, "--calls", 300, "--json", "--resume"))
    assert report["campaign"] == interrupted["campaign"]
    assert (report["ending"], report["calls"], exchanges(db)) == ("calls", 300, 300)
    assert walks(db)[: len(finished)] == finished


def test_without_json_an_interrupted_campaign_prints_its_coverage(tmp_path: Path, db: Path) -> None:
    config = configure(tmp_path, {"apple": unsteady("apple")})
    with started(config, db, "--calls", 300, "--rate", 30) as process:
        wait_for_calls(process, db, 5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    assert "interrupted; --resume goes on" in output
    assert "Traceback" not in errors


def wait_for_calls(process: subprocess.Popen[str], db: Path, calls: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        if db.exists() and has_tables(db) and exchanges(db) >= calls:
            return
        time.sleep(0.02)
    raise AssertionError(f"fewer than {calls} calls were made")


# Secrets


def test_no_secret_of_the_configuration_is_recorded_when_a_server_tells_it(tmp_path: Path, db: Path) -> None:
    token = "tok-4c9d2e7ab81f60355d"
    server = unsteady("apple")
    server["env"]["API_TOKEN"] = token
    config = configure(tmp_path, {"apple": server, "book": unsteady("book")})
    ended = explore(config, db, *ALL, "--calls", 120, "--json")

    report_of(ended)
    assert "whoami" in tools_called(db, "apple")
    assert query(db, "SELECT count(*) > 0 FROM frame WHERE text LIKE '%[redacted:%'") == [(1,)]
    assert leaked(db, {"API_TOKEN": token}) == []
    assert token not in ended.stdout + ended.stderr


def test_the_server_that_these_tests_use_tells_its_token() -> None:
    call = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"}}\n'
    ended = subprocess.run(
        [sys.executable, str(UNSTEADY)],
        input=call,
        env={"API_TOKEN": "as it is"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    assert "as it is" in ended.stdout
