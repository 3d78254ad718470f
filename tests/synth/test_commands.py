"""The commands `firefly synth` and `firefly synth check`, as they are run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from firefly_proxy.command_line import run
from firefly_proxy.main import firefly
from synth.pipeline import Wanted, synthesise
from synth.task import Task, Verdict
from synth.world import World
from tests.servers.messages_endpoint import MessagesEndpoint, Received, Reply, error, message
from tests.synth.garden import Garden, opened, record
from tests.synth.model_tasks import HAIKU, LLAMA, QWEN, say

COUNT, FEW = 40, 20
"""Tasks that are made, and that models are asked of."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command") / "world.db"
    record(path, Garden.grown())
    return path


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def synth(*arguments: object) -> Ran:
    """Run `firefly synth` as the command line does, in this process: that saves seconds of imports."""
    ours = {name: None for name in os.environ if name.startswith(("ANTHROPIC_", "XDG_"))}
    runner = CliRunner(env={**ours, "NO_PROXY": "127.0.0.1", "ANTHROPIC_API_KEY": "dummy"})
    argv = ["firefly", "synth", *map(str, arguments)]
    with runner.isolation() as (out, err, _), patch.object(sys, "argv", argv):
        try:
            run(firefly, "firefly")
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(code, out.getvalue().decode(), err.getvalue().decode())


def synth_elsewhere(*arguments: object, **environment: str) -> Ran:
    """Run it in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "firefly_proxy.main", "synth", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def data_set(recording: Path) -> Path:
    out = recording.parent / "tasks"
    made = synth("--db", recording, "--out", out, "--count", COUNT)
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    assert f"{COUNT} tasks from 7 servers" in made.stdout
    return out


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def lines_in(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tasks_in(folder: Path) -> list[Any]:
    return lines_in(folder / "tasks.jsonl")


def dropped_in(folder: Path, gate: str) -> list[Any]:
    return [each for each in lines_in(folder / "dropped.jsonl") if each["gate"] == gate]


def manifest_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text()))


def test_help_has_an_example() -> None:
    assert "firefly synth --db world.db --out tasks/" in synth("--help").stdout
    assert "firefly synth check tasks/ --db world.db" in synth("check", "--help").stdout


# What is not asked for rightly


def assert_refused(ran: Ran, *named: object) -> None:
    """It ends with an error, in one line that names what is wrong, after how the command is used."""
    assert ran.returncode != 0
    assert ran.stdout == ""
    lines = [line for line in ran.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, ran.stderr
    for name in named:
        assert str(name) in lines[0]


def test_a_recording_and_a_folder_are_needed(recording: Path, tmp_path: Path, data_set: Path) -> None:
    out = tmp_path / "out"
    assert_refused(synth("--out", out), "--db")
    assert_refused(synth("--db", recording), "--out")
    assert_refused(synth("check", data_set), "--db")
    assert_refused(synth("--db", tmp_path / "no.db", "--out", out), tmp_path / "no.db")
    assert_refused(synth("check", data_set, "--db", tmp_path / "no.db"), tmp_path / "no.db")
    assert_refused(synth("check", tmp_path, "--db", recording), tmp_path / "tasks.jsonl")
    assert_refused(synth("--db", recording, "--out", out, "--count", 0), "--count")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_recording_is_named_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("No database.")
    assert_refused(synth("--db", tmp_path / "notes.db", "--out", tmp_path / "out"), tmp_path / "notes.db")
    assert files_in(tmp_path) == {"notes.db": b"No database."}


def test_live_needs_a_config_and_a_config_live(recording: Path, tmp_path: Path, data_set: Path) -> None:
    for ran in (
        synth("--db", recording, "--out", tmp_path / "out", "--live"),
        synth("--db", recording, "--out", tmp_path / "out", "--config", "mcp.json"),
        synth("check", data_set, "--db", recording, "--live"),
    ):
        assert_refused(ran, "--live", "--config")
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_left_alone(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("All my work.")
    assert_refused(synth("--db", recording, "--out", tmp_path), tmp_path, "thesis.txt")
    assert_refused(synth("--db", recording, "--out", tmp_path / "thesis.txt"), tmp_path / "thesis.txt")
    assert files_in(tmp_path) == {"thesis.txt": b"All my work."}


def test_a_data_set_is_not_overwritten(recording: Path, data_set: Path) -> None:
    before = files_in(data_set)
    common = ["--db", recording, "--out", data_set, "--count", COUNT]
    assert_refused(synth(*common), data_set, "--resume")
    for option, old, new in [("--seed", 0, 5), ("--count", COUNT, COUNT + 1), ("--phraser", None, "m")]:
        assert_refused(synth(*common, "--resume", option, new), option.strip("-"), repr(old), repr(new))
    assert files_in(data_set) == before
    ran = synth(*common, "--resume")
    assert ran.returncode == 0, ran.stderr
    assert files_in(data_set) == before


def test_a_data_set_of_another_recording_is_not_gone_on_with(data_set: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other.db"
    shutil.copytree(data_set, out)
    record(other, Garden.grown(8))
    ran = synth("--db", other, "--out", out, "--count", COUNT, "--resume")
    assert files_in(out) == files_in(data_set)
    assert_refused(ran, out)


def test_there_has_to_be_something_to_resume(recording: Path, tmp_path: Path) -> None:
    assert_refused(synth("--db", recording, "--out", tmp_path / "out", "--resume"), tmp_path / "out")
    assert files_in(tmp_path / "out") == {}


def test_a_server_that_is_not_there_cannot_be_held_out(recording: Path, tmp_path: Path) -> None:
    ran = synth("--db", recording, "--out", tmp_path / "out", "--test-server", "shop", "--test-server", "sho")
    assert_refused(ran, "--test-server sho ", "clock, files, flights, library, shop")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spec", ["two words", "haiku@localhost:80"])
def test_what_is_no_model_is_named(recording: Path, tmp_path: Path, spec: str) -> None:
    assert_refused(synth("--db", recording, "--out", tmp_path / "out", "--phraser", spec), repr(spec))
    assert files_in(tmp_path / "out") == {}


def test_a_budget_needs_models_whose_price_is_known(recording: Path, tmp_path: Path) -> None:
    spec = f"{QWEN}@http://127.0.0.1:1"
    ran = synth("--db", recording, "--out", tmp_path / "out", "--judge", spec, "--max-usd", 3)
    assert_refused(ran, QWEN)
    assert files_in(tmp_path / "out") == {}


# A data set


def test_a_data_set_says_what_it_was_made_from(data_set: Path) -> None:
    assert set(files_in(data_set)) == {"tasks.jsonl", "dropped.jsonl", "manifest.json", "README.md"}
    told = manifest_in(data_set)
    assert (told["complete"], told["stopped"]) == (True, "")
    assert told["cost"] == {"completions": 0, "input_tokens": 0, "output_tokens": 0, "usd": 0.0}
    assert told["options"]["count"] == told["figures"]["tasks"] == len(tasks_in(data_set)) == COUNT
    assert told["recording"] in (data_set / "README.md").read_text()
    assert len(lines_in(data_set / "dropped.jsonl")) == sum(
        count["dropped"] for count in told["funnel"].values()
    )


def test_other_processes_make_the_same(data_set: Path, recording: Path, tmp_path: Path) -> None:
    """However Python orders its sets; and `--json` prints the manifest and nothing else."""
    for number in (1, 2):
        out = tmp_path / str(number)
        common = ["--db", recording, "--out", out, "--count", COUNT, "--json"]
        ran = synth_elsewhere(*common, PYTHONHASHSEED=str(number))
        assert (ran.returncode, ran.stderr) == (0, "")
        assert files_in(out) == files_in(data_set)
        assert json.loads(ran.stdout) == {"out": str(out), **manifest_in(out)}


def test_chosen_servers_are_held_out(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = synth("--db", recording, "--out", out, "--count", COUNT, "--test-server", "staff")
    assert ran.returncode == 0, ran.stderr
    for task in tasks_in(out):
        assert (task["split"] == "test_unseen_servers") == (task["servers"] == ["staff"])
        assert task["servers"] == ["staff"] or "staff" not in task["servers"]


def test_a_recording_without_repeats_makes_no_task_and_says_why(tmp_path: Path) -> None:
    record(tmp_path / "once.db", Garden.grown(), sessions=(0,))
    ran = synth("--db", tmp_path / "once.db", "--out", tmp_path / "out", "--json")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["figures"]["tasks"] == 0
    assert len(ran.stderr.splitlines()) == 1
    assert "firefly: " in ran.stderr
    assert tasks_in(tmp_path / "out") == []


# check


def test_check_ends_with_0_where_all_holds(data_set: Path, recording: Path) -> None:
    ran = synth("check", data_set, "--db", recording)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == f"{COUNT} of {COUNT} tasks hold"
    ran = synth("check", data_set / "tasks.jsonl", "--db", recording, "--json")
    assert ran.returncode == 0
    counts = {"tasks": COUNT, "live_checked": 0, "live_same": 0}
    assert json.loads(ran.stdout) == {"ok": True, "findings": [], **counts}


def test_check_ends_with_1_where_something_does_not(data_set: Path, recording: Path, tmp_path: Path) -> None:
    tasks = tasks_in(data_set)
    tasks[4]["answer"] = dict.fromkeys(tasks[4]["answer"], 3)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    ran = synth("check", tmp_path, "--db", recording)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert tasks[4]["task_id"] in ran.stdout
    assert ran.stdout.splitlines()[-1] == f"{COUNT - 1} of {COUNT} tasks hold"
    ran = synth("check", tmp_path, "--db", recording, "--json")
    assert ran.returncode == 1
    told = json.loads(ran.stdout)
    assert told["ok"] is False
    assert [finding["gate"] for finding in told["findings"]] == ["program re-derivation"]


def test_a_line_that_is_no_task_is_named(data_set: Path, recording: Path, tmp_path: Path) -> None:
    first = (data_set / "tasks.jsonl").read_text().splitlines()[0]
    for line in ("{", '{"question": "?"}', "[]"):
        (tmp_path / "tasks.jsonl").write_text(f"{first}\n{line}\n")
        assert_refused(synth("check", tmp_path, "--db", recording), tmp_path / "tasks.jsonl", "line 2")


# Models

DEAR = {"input_tokens": 0, "output_tokens": 8000}
"""Usage of a reply that costs 4 cents of Haiku."""

WORDS = ("plainly", "kindly", "today", "again", "slowly", "really", "maybe", "somewhere", "later", "sooner",
         "north", "south", "early", "calmly", "twice", "ever", "nearly", "under", "over")  # fmt: skip


def words(received: Received) -> str:
    return " ".join(Random(str(received.prompt)).choices(WORDS, k=14))


def worded(received: Received) -> str:
    """Write a question as a model would: all arguments that come out of nowhere are in it."""
    calls = [json.loads(line) for line in str(received.prompt).splitlines() if line.startswith('{"call": ')]
    found = [
        f"`{value}`"
        for call in calls
        for name, value in call["arguments"].items()
        if [name] not in [each["argument"] for each in call["from_outputs"]]
    ]
    return f"Knowing {' and '.join(found) or 'nothing'}, what is it, asked {words(received)}?"


def phrased(received: Received) -> Reply:
    return say({"question": worded(received)})


def dear(received: Received) -> Reply:
    return message(json.dumps({"question": worded(received)}), usage=DEAR)


def test_a_model_words_the_questions(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with MessagesEndpoint(phrased) as endpoint:
        common = ["--db", recording, "--out", out, "--count", FEW, "--phraser", f"{HAIKU}@{endpoint.url}"]
        ran = synth(*common, "--json")
        assert (ran.returncode, ran.stderr, endpoint.refused) == (0, "", [])
        tasks, told, requests = tasks_in(out), manifest_in(out), len(endpoint.received)
        assert json.loads(ran.stdout) == {"out": str(out), **told}
        assert FEW / 2 < len(tasks) <= FEW
        assert {task["question"] for task in tasks} <= set(map(worded, endpoint.received))
        assert len({task["task_id"] for task in tasks}) == len(tasks)
        assert told["cost"] == {
            "completions": requests,
            "input_tokens": 100 * requests,
            "output_tokens": 20 * requests,
            "usd": pytest.approx(0.0002 * requests),
        }
        assert told["funnel"]["phrasing"]["came"] == len(lines_in(out / "completions.jsonl")) == requests
        checked = synth("check", out, "--db", recording)
        assert checked.returncode == 0, checked.stdout
        before = files_in(out)
        again = synth(*common, "--resume")
        assert again.returncode == 0, again.stderr
        assert len(endpoint.received) == requests
        assert files_in(out) == before


def test_a_budget_that_runs_out_is_gone_on_from(recording: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    with MessagesEndpoint(dear) as endpoint:
        common = ["--db", recording, "--count", FEW, "--phraser", f"{HAIKU}@{endpoint.url}"]
        first = synth(*common, "--out", out, "--max-usd", 0.4)
        assert first.returncode == 1
        [line] = first.stderr.splitlines()
        assert line.startswith("firefly: the budget of $0.4 is used up")
        assert line.endswith("tasks are finished); go on with --resume")
        told, requests = manifest_in(out), len(endpoint.received)
        assert told["complete"] is False
        assert "budget" in told["stopped"]
        assert 6 <= requests <= 10
        assert told["cost"]["usd"] == pytest.approx(0.04 * requests)
        assert 0 < len(tasks_in(out)) <= requests
        assert {task["question"] for task in tasks_in(out)} <= set(map(worded, endpoint.received))
        assert synth("check", out, "--db", recording).returncode == 0
        before = files_in(out)
        assert_refused(synth(*common, "--out", out, "--max-usd", 9), "--resume")
        assert files_in(out) == before
        second = synth(*common, "--out", out, "--max-usd", 9, "--resume")
        assert (second.returncode, second.stderr) == (0, "")
        told = manifest_in(out)
        assert (told["complete"], told["stopped"]) == (True, "")
        prompts = [str(received.prompt) for received in endpoint.received]
        assert len(set(prompts)) == len(prompts) == told["cost"]["completions"] > requests
        # As if it had been made at once.
        assert synth(*common, "--out", whole, "--max-usd", 9).returncode == 0
        for name in ("tasks.jsonl", "dropped.jsonl"):
            assert files_in(out)[name] == files_in(whole)[name]


def test_a_budget_for_nothing_makes_no_request(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with MessagesEndpoint(phrased) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        ran = synth("--db", recording, "--out", out, "--count", FEW, "--phraser", spec, "--max-usd", 0)
        assert (ran.returncode, endpoint.received, tasks_in(out)) == (1, [], [])
    assert len(ran.stderr.splitlines()) == 1
    assert manifest_in(out)["complete"] is False


def test_what_is_no_good_question_drops_the_task(recording: Path, tmp_path: Path) -> None:
    """A refusal is not argued with, what is malformed is asked again once, and the gates judge the others."""

    def kind(received: Received) -> int:
        return Random(str(received.body["messages"][0]["content"])).randrange(6)

    def reply(received: Received) -> Reply:
        match kind(received):
            case 0:
                return message("I would rather not.", stop_reason="refusal")
            case 1:
                return message("Which one is it?")
            case 2:
                return say({"question": f"What is it, asked {words(received)}?"})
        return phrased(received)

    out = tmp_path / "out"
    with MessagesEndpoint(reply) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        ran = synth("--db", recording, "--out", out, "--count", COUNT, "--phraser", spec)
        assert (ran.returncode, ran.stderr) == (0, "")
        first = [received for received in endpoint.received if len(received.body["messages"]) == 1]
        kinds = list(map(kind, first))
        assert len(endpoint.received) == len(first) + kinds.count(1)
    reasons = [each["reason"] for each in dropped_in(out, "phrasing")]
    assert sum("claude-haiku-4-5 refused" in reason for reason in reasons) == kinds.count(0) > 0
    assert sum("no usable answer in two" in reason for reason in reasons) == kinds.count(1) > 0
    assert len(reasons) == kinds.count(0) + kinds.count(1)
    assert [each for each in dropped_in(out, "provenance") if each["task"]["question"].startswith("What is")]
    assert manifest_in(out)["complete"] is True
    assert len(tasks_in(out)) > 5
    for task in tasks_in(out):
        if task["question"].startswith("What is it"):
            given = sum(len(call["arguments"]) for call in task["calls"])
            assert given == len(task["program"]["arguments"])


def test_a_rate_limit_is_waited_for_and_one_without_end_stops(recording: Path, tmp_path: Path) -> None:
    """What was there by then is kept."""
    limited = {0, 4}  # once, and once more midway
    served = iter(range(1000))

    def reply(received: Received) -> Reply:
        number = next(served)
        if number in limited or number > 6:
            return error(429, "rate_limit_error", "slow down", retry_after="0")
        return phrased(received)

    out = tmp_path / "out"
    with MessagesEndpoint(reply) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        common = ["--db", recording, "--out", out, "--count", 3, "--phraser", spec]
        ran = synth(*common)
        assert (ran.returncode, ran.stderr) == (0, "")
        answered = len(lines_in(out / "completions.jsonl"))
        assert 3 <= answered <= 5
        assert len(endpoint.received) == answered + sum(number < len(endpoint.received) for number in limited)
        assert len(tasks_in(out)) == 3
        ran = synth("--db", recording, "--out", tmp_path / "more", "--count", FEW, "--phraser", spec)
    assert ran.returncode == 1
    [line] = ran.stderr.splitlines()
    assert "429" in line
    assert line.endswith("go on with --resume")
    assert manifest_in(tmp_path / "more")["complete"] is False
    assert len(tasks_in(tmp_path / "more")) <= 2


# Judges


@pytest.fixture(scope="module")
def answers(recording: Path) -> dict[str, Any]:
    """Question → answer, of each task that may come to a judge."""
    found: dict[str, Any] = {}

    def see(task: Task, _: World) -> Verdict:
        found[task.question] = task.answer
        return Verdict(gate="seen", passed=False, reason="seen")

    synthesise(opened(recording), Wanted(FEW, model_gates={"seen": see}))
    return found


def test_two_families_give_a_verdict(recording: Path, answers: dict[str, Any], tmp_path: Path) -> None:
    """Haiku is always right, and the others as a rule: what only one of three comes to is dropped."""

    def is_hard(received: Received) -> bool:
        return Random(str(received.prompt)).randrange(3) == 0

    def reply(received: Received) -> Reply:
        if HAIKU not in received.body["model"] and is_hard(received):
            return say({"unclear": "Two readings lead to different answers."})
        question = next(line for line in str(received.prompt).splitlines() if line.startswith('"'))
        return say({"answer": answers[json.loads(question)]})

    out = tmp_path / "out"
    with MessagesEndpoint(reply) as endpoint:
        judges = [each for name in (HAIKU, QWEN, LLAMA) for each in ("--judge", f"{name}@{endpoint.url}")]
        ran = synth("--db", recording, "--out", out, "--count", FEW, *judges)
        assert (ran.returncode, ran.stderr, endpoint.refused) == (0, "", [])
        hard = sum(is_hard(received) for received in endpoint.received) // 3
    tasks, told = tasks_in(out), manifest_in(out)
    assert FEW / 3 < len(tasks) <= FEW
    for task in tasks:
        [verdict] = [verdict for verdict in task["gates"] if verdict["gate"] == "judges"]
        assert verdict["passed"] is True
        assert verdict["reason"] == f"3 of 3 agree ({HAIKU}: agrees, {QWEN}: agrees, {LLAMA}: agrees)"
    assert told["funnel"]["judges"]["dropped"] == hard > 0
    assert {each["reason"] for each in dropped_in(out, "judges")} == {
        f"1 of 3 agree ({HAIKU}: agrees, {QWEN}: unclear, {LLAMA}: unclear)"
    }
    assert told["cost"]["usd"] is None  # nobody knows what Qwen costs
    assert synth("check", out, "--db", recording).returncode == 0


def test_one_family_gives_none(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with MessagesEndpoint(lambda _: say({"unclear": "It is."})) as endpoint:
        ran = synth("--db", recording, "--out", out, "--count", 5, "--judge", f"{HAIKU}@{endpoint.url}")
        assert ran.returncode == 0, ran.stderr
    assert len(tasks_in(out)) == 5
    for task in tasks_in(out):
        assert task["gates"][-1]["reason"].startswith("no verdict: one family")
