"""The commands `firefly eval` and `firefly eval compare`, as they are run."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synth.task import Task, read_tasks, write_tasks
from tests.servers.chat_endpoint import MODEL, ChatEndpoint, completion, error, tool_calls
from tests.servers.messages_endpoint import Received, Reply
from tests.synth.garden import Garden, record
from tests.train.command import Ran, ended, firefly, refused, started
from tests.train.made_rollouts import rollout
from train.environment import Environment
from train.evaluate import read_rollouts, write_sorted
from train.suite import open_suite

TESTS = ("test", "test_unseen_servers")
FILES = {"rollouts.jsonl", "summary.json", "settings.json", "report.html", "report.md"}


def on(garden: Path) -> list[object]:
    return ["eval", "--tasks", garden / "tasks", "--db", garden / "world.db"]


def run(garden: Path, *options: object) -> Ran:
    return firefly(*on(garden), *options)


def lines_in(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(folder: Path) -> tuple[list[Any], Any]:
    """Return what a run wrote, its times aside."""
    rollouts = [line | {"seconds": 0.0} for line in lines_in(folder / "rollouts.jsonl")]
    summary = json.loads((folder / "summary.json").read_text())
    summary["cost"]["seconds"] = 0.0
    return rollouts, summary


# Results


def test_help_has_examples() -> None:
    told = firefly("eval", "--help")
    assert told.returncode == 0
    assert "firefly eval --tasks tasks/ --db world.db --policy oracle" in told.stdout
    assert "compare" in told.stdout


@pytest.mark.parametrize(("policy", "right"), [("oracle", 1.0), ("do-nothing", 0.0), ("random", 0.0)])
def test_baselines_are_right_as_they_should(garden: Path, tmp_path: Path, policy: str, right: float) -> None:
    out = tmp_path / "run"
    ran = run(garden, "--policy", policy, "--samples", 3, "--out", out, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    told = ran.json
    assert told["pass_at"]["1"]["value"] == pytest.approx(right, abs=0.05)
    assert set(told["pass_at"]) == {"1", "2", "3"}
    assert (told["policy"], told["stopped"]) == (policy, None)
    assert {file.name for file in out.iterdir()} >= FILES
    assert json.loads((out / "summary.json").read_text()) == told
    assert json.loads((out / "settings.json").read_text()) == told["settings"]
    tasks = [task.task_id for task in read_tasks(garden / "tasks") if task.split in TESTS]
    written = [(each.task_id, each.sample) for each in read_rollouts(out)]
    assert written == [(task, sample) for task in tasks for sample in range(3)]


def test_results_are_shown_and_the_report_is_named(garden: Path, tmp_path: Path) -> None:
    ran = run(garden, "--policy", "oracle", "--out", tmp_path / "run")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "100.0 %" in ran.stdout
    assert ran.stdout.splitlines()[-1] == f"wrote {tmp_path / 'run' / 'report.html'}"
    without = run(garden, "--policy", "oracle")
    assert "wrote" not in without.stdout


def test_splits_are_chosen(garden: Path) -> None:
    everything = read_tasks(garden / "tasks")
    for splits in (("train",), ("test",), ("train", "test_unseen_servers")):
        options = [part for split in splits for part in ("--split", split)]
        told = run(garden, "--policy", "oracle", *options, "--json").json
        assert told["tasks"] == sum(task.split in splits for task in everything)
        assert told["settings"]["splits"] == list(splits)


def test_limits_reach_the_rollouts(garden: Path, tmp_path: Path) -> None:
    cut = run(garden, "--policy", "oracle", "--split", "train", "--max-turns", 1, "--json").json
    calls = {task.task_id: len(task.calls) for task in read_tasks(garden / "tasks") if task.split == "train"}
    assert cut["stops"]["turns"] == sum(count > 1 for count in calls.values()) > 0
    kept = run(garden, "--policy", "random", "--samples", 4, "--miss", "keep", "--json").json
    assert kept["counts"]["missed"] > 0
    assert kept["counts"]["scored"] == kept["counts"]["rollouts"]
    strict = run(garden, "--policy", "oracle", "--min-trust", 1, "--json").json
    assert strict["counts"]["missed"] == strict["counts"]["rollouts"]


def test_misses_are_noted_beside_the_recording(garden: Path, tmp_path: Path) -> None:
    record(tmp_path / "again.db", Garden.grown())
    again = ["--tasks", garden / "tasks", "--db", tmp_path / "again.db"]
    told = firefly("eval", *again, "--policy", "random", "--samples", 3, "--json").json
    noted = firefly("misses", "--db", tmp_path / "again.db", "--json").json["misses"]
    assert len(noted) > 0
    assert told["calls"]["misses"] >= len(noted)


def test_the_same_again_is_the_same(garden: Path, tmp_path: Path) -> None:
    for name, concurrency in (("a", 1), ("b", 32)):
        options = ["--samples", 4, "--seed", 5, "--concurrency", concurrency, "--out", tmp_path / name]
        assert run(garden, "--policy", "random", *options).returncode == 0
    assert untimed(tmp_path / "a") == untimed(tmp_path / "b")
    assert (
        run(garden, "--policy", "random", "--samples", 4, "--seed", 6, "--out", tmp_path / "c").returncode
        == 0
    )
    assert untimed(tmp_path / "a")[0] != untimed(tmp_path / "c")[0]


# What cannot be


def test_what_is_missing_is_named(garden: Path, tmp_path: Path) -> None:
    tasks, db = ["--tasks", garden / "tasks"], ["--db", garden / "world.db"]
    refused(firefly("eval", *db, "--policy", "oracle"), "Missing option '--tasks'", code=2)
    refused(firefly("eval", *tasks, "--policy", "oracle"), "Missing option '--db'", code=2)
    refused(firefly("eval", *tasks, *db), "Missing option '--policy'", code=2)
    refused(run(garden, "--policy", "oracle", "--resume"), "--resume needs --out", code=2)
    refused(run(garden, "--policy", "gpt"), "'gpt' is not one of", code=2)
    refused(run(garden, "--policy", "oracle", "--split", "dev"), "'dev' is not one of", code=2)
    refused(run(garden, "--policy", "oracle", "--samples", 0), "--samples", code=2)
    none = tmp_path / "none"
    refused(firefly("eval", "--tasks", none, *db, "--policy", "oracle"), none, "is not there: firefly synth")
    refused(firefly("eval", *tasks, "--db", none, "--policy", "oracle"), none)
    assert not none.exists()


def test_tasks_of_another_recording_are_refused(garden: Path, tmp_path: Path) -> None:
    record(tmp_path / "other.db", Garden.grown(8))
    other = ["--tasks", garden / "tasks", "--db", tmp_path / "other.db"]
    ran = firefly("eval", *other, "--policy", "oracle", "--out", tmp_path / "run")
    refused(ran, "6 of 6 tasks", "cite sessions that", tmp_path / "other.db", "--db must name the recording")
    assert not (tmp_path / "run").exists()


def test_a_split_without_tasks_is_refused(garden: Path, tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks.jsonl", [t for t in read_tasks(garden / "tasks") if t.split == "train"])
    ran = firefly("eval", "--tasks", tmp_path, "--db", garden / "world.db", "--policy", "oracle")
    refused(ran, "has no task in test or test_unseen_servers; splits with tasks: train")


def test_policies_and_models_go_together(garden: Path) -> None:
    refused(run(garden, "--policy", "oracle", "--model", "m"), "--policy oracle has no model")
    for policy in ("local", "openai", "anthropic"):
        refused(run(garden, "--policy", policy), f"--policy {policy} needs --model")
    url = ["--base-url", "http://127.0.0.1:9/v1"]
    refused(run(garden, "--policy", "openai", "--model", "m"), "OPENAI_API_KEY is not set")
    refused(run(garden, "--policy", "openai", "--model", "m", *url, "--price", "cheap"), "a price is IN,OUT")
    refused(
        run(garden, "--policy", "openai", "--model", "m", *url, "--max-usd", "1"), "a budget needs a price"
    )


def test_a_folder_of_something_else_is_left_alone(garden: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for more in ([], ["--resume"]):
        ran = run(garden, "--policy", "oracle", "--out", tmp_path, *more)
        refused(ran, tmp_path, "holds notes.txt, which is of no run")
    refused(run(garden, "--policy", "oracle", "--out", tmp_path / "notes.txt"), "is a file")
    # Before the model is looked for, which may take long to load.
    absent = ["--policy", "local", "--model", tmp_path / "none"]
    refused(run(garden, *absent, "--out", tmp_path), "holds notes.txt")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_model_that_is_not_there_leaves_no_folder(garden: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    absent = ["--policy", "local", "--model", tmp_path / "none"]
    refused(run(garden, *absent, "--out", tmp_path / "run"), f"no model {tmp_path / 'none'}: ")
    (tmp_path / "empty").mkdir()
    refused(run(garden, "--policy", "local", "--model", tmp_path / "empty"), f"no model {tmp_path / 'empty'}")
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_call_tools_is_refused(garden: Path, tmp_path: Path, tiny: Path) -> None:
    def with_template(name: str, template: str | None) -> Path:
        shutil.copytree(tiny, tmp_path / name)
        (tmp_path / name / "chat_template.jinja").unlink()
        if template is not None:
            (tmp_path / name / "chat_template.jinja").write_text(template)
        return tmp_path / name

    for model, told in (
        (with_template("bare", None), "no chat template"),
        (with_template("plain", "{% for m in messages %}{{ m.content }}{% endfor %}"), "without tools"),
    ):
        ran = run(garden, "--policy", "local", "--model", model)
        refused(ran, f"{model} has", told, "a model for tool use is needed, such as Qwen/Qwen3-4B")


def test_a_large_model_without_a_gpu_is_refused_before_its_weights_are_looked_for(
    garden: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    from tests.train.test_local_policy import LARGE

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    ran = run(garden, "--policy", "local", "--model", tmp_path)
    refused(
        ran, f"{tmp_path} has 4.0 billion parameters, and this machine has no GPU that torch", "take a GPU"
    )


WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in {blocked!r}:
            return PathFinder.find_spec(name, path, target)
sys.meta_path = [Without if each is PathFinder else each for each in sys.meta_path]
from firefly_proxy.main import main
main()
"""
TRAINING = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "matplotlib", "openai")


def test_without_the_extra_baselines_run_and_a_local_model_names_it(garden: Path, tmp_path: Path) -> None:
    python = ("-c", WITHOUT.format(blocked=TRAINING))
    oracle = started(*on(garden), "--policy", "oracle", "--out", tmp_path / "run", "--json", python=python)
    local = started(*on(garden), "--policy", "local", "--model", "m", "--out", tmp_path / "no", python=python)
    openai = started(
        *on(garden),
        "--policy",
        "openai",
        "--model",
        "m",
        "--base-url",
        "http://127.0.0.1:9/v1",
        python=python,
    )
    ran = ended(oracle)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.json["pass_at"]["1"]["value"] == 1.0
    assert "matplotlib" in (tmp_path / "run" / "report.md").read_text()
    refused(ended(local), "--policy local needs torch: pip install 'firefly-proxy[train]'")
    refused(ended(openai), "pip install 'firefly-proxy[eval]'")
    assert not (tmp_path / "no").exists()


# A model behind an API


class Model:
    """Answers like a model that knows the tasks and errs at every third; each request has one answer.

    Args:
        seen: Called with each request's task, before it is answered.
    """

    def __init__(self, garden: Path) -> None:
        suite = open_suite(garden / "tasks", garden / "world.db")
        self._tasks = list(suite.tasks)
        self._names: dict[str, list[str]] = {}
        for task in suite.tasks:
            class_names = Environment(task, suite.functions, caller=None).names  # type: ignore[arg-type]
            self._names[task.task_id] = [class_names[call.ref] for call in task.calls]
        self.seen: Callable[[Task], Reply | None] = lambda task: None

    def __call__(self, received: Received) -> Reply:
        messages = received.body["messages"]
        question = messages[1]["content"].partition("\n\nJSON Schema")[0]
        [number] = [n for n, task in enumerate(self._tasks) if task.question == question]
        task = self._tasks[number]
        if (instead := self.seen(task)) is not None:
            return instead
        done = sum(message["role"] == "tool" for message in messages)
        if done < len(task.calls):
            name, arguments = self._names[task.task_id][done], json.dumps(task.calls[done].arguments)
            return tool_calls((f"call_{done}", name, arguments), text=f"Step {done}.")
        answer = dict(task.answer) if number % 3 else {}
        return completion(f"It is\n```json\n{json.dumps(answer)}\n```")


def asking(endpoint: ChatEndpoint, *more: object) -> list[object]:
    return ["--policy", "openai", "--model", MODEL, "--base-url", endpoint.url, "--samples", 2, *more]


def test_a_run_that_was_killed_goes_on_to_what_it_would_have_been(garden: Path, tmp_path: Path) -> None:
    """The API answers some rollouts to their end and then never again, so that others are under way."""
    model = Model(garden)
    with ChatEndpoint(model) as endpoint:
        whole = run(garden, *asking(endpoint, "--out", tmp_path / "whole"))
        assert (whole.returncode, endpoint.refused) == (0, [])
        served = len(endpoint.received)
        hang, count = threading.Event(), iter(range(1000))

        def seen(_: Task) -> Reply | None:
            if next(count) >= served // 2:
                hang.wait(60)
            return None

        model.seen = seen
        process = started(*on(garden), *asking(endpoint, "--out", tmp_path / "cut", "--concurrency", 3))
        file = tmp_path / "cut" / "rollouts.jsonl"
        deadline = time.monotonic() + 30
        while not file.exists() or file.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline, process.poll()
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
        assert ended(process).returncode == -signal.SIGKILL
        hang.set()
        cut = lines_in(file)
        assert 3 <= len(cut) < 12
        assert not (tmp_path / "cut" / "summary.json").exists()
        with file.open("ab") as half:
            half.write(file.read_bytes()[:150])
        model.seen = lambda task: None
        before = len(endpoint.received)
        again = run(garden, *asking(endpoint, "--out", tmp_path / "cut", "--resume"))
        assert (again.returncode, again.stderr, endpoint.refused) == (0, "", [])
        # Only what was missing was asked for.
        turns = [sum(m["role"] == "assistant" for m in line["messages"]) for line in cut]
        assert len(endpoint.received) - before == served - sum(turns)
    assert untimed(tmp_path / "cut") == untimed(tmp_path / "whole")
    rewards = {each.reward for each in read_rollouts(tmp_path / "whole")}
    assert rewards == {0.0, 1.0}


def test_what_failed_is_tried_again(garden: Path, tmp_path: Path) -> None:
    model = Model(garden)
    [first, *_] = [task for task in read_tasks(garden / "tasks") if task.split == "test"]
    with ChatEndpoint(model) as endpoint:
        assert run(garden, *asking(endpoint, "--out", tmp_path / "whole")).returncode == 0
        model.seen = lambda task: (
            error(503, None, "overloaded", retry_after_ms="1") if task.task_id == first.task_id else None
        )
        ran = run(garden, *asking(endpoint, "--out", tmp_path / "run", "--json"))
        assert ran.returncode == 0
        assert ran.json["counts"]["failed"] == 2
        assert [each.failure for each in read_rollouts(tmp_path / "run") if each.reward is None] == [
            f"{MODEL} gave no answer: HTTP 503 invalid_request_error overloaded"
        ] * 2
        model.seen = lambda task: None
        before = len(endpoint.received)
        ran = run(garden, *asking(endpoint, "--out", tmp_path / "run", "--resume", "--json"))
        assert ran.json["counts"]["failed"] == 0
        assert len(endpoint.received) - before == 2 * (len(first.calls) + 1)
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")


def test_a_budget_that_is_used_up_is_gone_on_from(garden: Path, tmp_path: Path) -> None:
    with ChatEndpoint(Model(garden)) as endpoint:
        priced = asking(endpoint, "--price", "1,1", "--max-tokens", 100, "--concurrency", 1)
        assert run(garden, *priced, "--out", tmp_path / "whole").returncode == 0
        ran = run(garden, *priced, "--out", tmp_path / "run", "--max-usd", 0.0065, "--json")
        assert ran.returncode == 1
        assert ran.stderr.startswith("firefly: the budget of $0.0065")
        assert ran.stderr.endswith("; go on with --resume\n")
        told = ran.json
        assert 0 < told["counts"]["rollouts"] < 12
        assert told["stopped"] in ran.stderr
        nowhere = run(garden, *priced, "--max-usd", 0)
        assert "resume" not in nowhere.stderr
        rest = run(garden, *priced, "--out", tmp_path / "run", "--resume")
        assert (rest.returncode, rest.stderr) == (0, "")
    assert untimed(tmp_path / "run") == untimed(tmp_path / "whole")


def test_a_wrong_key_ends_the_run_in_a_line(garden: Path, tmp_path: Path) -> None:
    with ChatEndpoint(lambda _: error(401, "invalid_api_key", "Incorrect API key provided")) as endpoint:
        ran = run(garden, *asking(endpoint, "--out", tmp_path / "run"))
    refused(ran, "HTTP 401", "Incorrect API key")
    assert lines_in(tmp_path / "run" / "rollouts.jsonl") == []


# Going on


def test_a_run_goes_on_only_as_it_was_begun(garden: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    assert run(garden, "--policy", "random", *out).returncode == 0
    refused(run(garden, "--policy", "random", *out), "holds a run already: --resume goes on with it")
    for other, told in (
        (["--seed", 1], "seed 0, not 1"),
        (["--samples", 2], "samples 1, not 2"),
        (["--miss", "keep"], "miss 'exclude', not 'keep'"),
        (["--split", "train"], "splits"),
    ):
        refused(run(garden, "--policy", "random", *out, "--resume", *other), "was begun with", told)
    refused(run(garden, "--policy", "oracle", *out, "--resume"), "policy 'random', not 'oracle'")
    before = untimed(tmp_path / "run")
    # How many are under way at once makes no difference to it.
    assert run(garden, "--policy", "random", *out, "--resume", "--concurrency", 2).returncode == 0
    assert untimed(tmp_path / "run") == before


def test_a_run_goes_on_only_with_the_same_tasks_and_world(garden: Path, tmp_path: Path) -> None:
    assert run(garden, "--policy", "oracle", "--out", tmp_path / "run").returncode == 0
    write_tasks(tmp_path / "tasks.jsonl", [t for t in read_tasks(garden / "tasks") if t.split == "test"])
    fewer = ["--tasks", tmp_path, "--db", garden / "world.db"]
    ran = firefly("eval", *fewer, "--policy", "oracle", "--out", tmp_path / "run", "--resume")
    refused(ran, "was begun with tasks")


# A model on this machine

CALLS = ("list_people", "list_books", "list_stations", "list_products", "search_tickets", "nothing")

KILLED = """
import os, signal
from train import evaluate
append, left = evaluate.RolloutFile.append, [{rollouts}]
def killed(self, rollout):
    append(self, rollout)
    left[0] -= 1
    if not left[0]:
        self._file.write(b'{{"task_id": "hal')
        self._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
evaluate.RolloutFile.append = killed
from firefly_proxy.main import main
main()
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from tests.train.scripted_model import call
    from tests.train.tiny_chat_model import saved

    torch.set_num_threads(1)
    phrases = [*(call(name, "{}") for name in CALLS), "{}", "I do not know."]
    return saved(tmp_path_factory.mktemp("tiny"), phrases)


def test_a_local_run_that_was_killed_goes_on_to_what_it_would_have_been(
    garden: Path, tmp_path: Path, tiny: Path
) -> None:
    local = ["--policy", "local", "--model", tiny, "--max-turns", 3, "--max-tokens", 800]
    local += ["--split", "test", "--concurrency", 2]
    cut = ["--out", tmp_path / "cut"]
    process = started(*on(garden), *local, *cut, python=("-c", KILLED.format(rollouts=3)))
    whole = run(garden, *local, "--out", tmp_path / "whole")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert ended(process).returncode == -signal.SIGKILL
    file = tmp_path / "cut" / "rollouts.jsonl"
    *lines, half = file.read_text().split("\n")
    assert (len(lines), half) == (3, '{"task_id": "hal')
    refused(run(garden, *local, "--concurrency", 5, *cut, "--resume"), "concurrency 2, not 5")
    again = run(garden, *local, *cut, "--resume")
    assert (again.returncode, again.stderr) == (0, "")
    assert untimed(tmp_path / "cut") == untimed(tmp_path / "whole")
    found = read_rollouts(tmp_path / "whole")
    assert len(found) == 4
    assert len({each.stop for each in found}) > 1
    assert any(call.outcome == "answered" for each in found for call in each.calls)


# Two runs


def test_runs_are_compared_with_the_first(garden: Path, tmp_path: Path) -> None:
    for policy in ("oracle", "do-nothing", "random"):
        assert run(garden, "--policy", policy, "--out", tmp_path / policy).returncode == 0
    runs = [tmp_path / name for name in ("oracle", "do-nothing", "random")]
    ran = firefly("eval", "compare", *runs, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    first, second = ran.json["comparisons"]
    assert (first["runs"], second["runs"]) == (
        [str(run) for run in runs[:2]],
        [str(run) for run in runs[::2]],
    )
    assert first["success"]["difference"] == -1.0
    shown = firefly("eval", "compare", *runs)
    assert shown.returncode == 0
    heads = [line.split() for line in shown.stdout.splitlines() if line.strip().startswith("oracle")]
    assert heads == [["oracle", "do-nothing"], ["oracle", "random"]]
    markdown = firefly("eval", "compare", *runs[:2], "--markdown")
    assert markdown.returncode == 0
    assert markdown.stdout.startswith("|  | oracle | do-nothing |\n| --- |")


def test_a_run_under_way_is_compared_as_far_as_it_is_and_left_alone(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_sorted(tmp_path / name / "rollouts.jsonl", [rollout("t", name == "a"), rollout("u")])
    path = tmp_path / "b" / "rollouts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"task_id": "v"')
    before = path.read_bytes()
    told = firefly("eval", "compare", tmp_path / "a", tmp_path / "b", "--json").json
    assert [change["task_id"] for change in told["comparisons"][0]["changes"]] == ["t"]
    assert path.read_bytes() == before


def test_what_is_no_run_is_not_compared(tmp_path: Path) -> None:
    write_sorted(tmp_path / "rollouts.jsonl", [rollout("t")])
    refused(firefly("eval", "compare", tmp_path), "name two runs or more", code=2)
    refused(firefly("eval", "compare", tmp_path, tmp_path / "none"), tmp_path / "none", "is not there")
    (tmp_path / "text").write_text("no rollout\n")
    refused(firefly("eval", "compare", tmp_path, tmp_path / "text"), "line 1, is no rollout")
