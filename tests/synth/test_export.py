"""What `firefly export` writes, read back as JSON."""

import json
import py_compile
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from recorder.errors import FireflyError
from recorder.exchange import ToolRef
from synth.export import FORMATS
from synth.export.conversation import SYSTEM, aliases, answer_in, user_text
from synth.export_cli import export
from synth.task import Split, Task
from synth.world import World
from tests.synth.export_sample import CALLS, SCHEMAS, SHOP_READ, record, tasks_of, written

FILES = [name for name in FORMATS if name != "verl"]
"""Formats that need no library."""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return record(tmp_path / "world.db")


@pytest.fixture
def tasks(world: World) -> list[Task]:
    return tasks_of(world)


@pytest.fixture
def folder(tmp_path: Path, tasks: list[Task]) -> Path:
    return written(tmp_path / "tasks", tasks)


def run(folder: Path, format: str, out: Path, *options: object) -> str:
    words = [
        "--tasks",
        folder,
        "--db",
        folder.parent / "world.db",
        "--format",
        format,
        "--out",
        out,
        *options,
    ]
    ended = CliRunner().invoke(export, list(map(str, words)))
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.output


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tool(name: str, ref: ToolRef) -> dict[str, Any]:
    """A function as the chat APIs have it."""
    parameters = {"type": "object", "properties": {}, **SCHEMAS[ref]}
    return {"name": name, "description": f"Does {ref.name}.", "parameters": parameters}


PROMPT_ROLES = ["system", "user"]


# Names


def test_a_tool_keeps_its_name_unless_another_has_it_or_an_api_refuses_it() -> None:
    long = "x" * 70
    named = aliases(
        [
            ToolRef("a", "read"),
            ToolRef("b", "read"),
            ToolRef("a", "list-issues"),
            ToolRef("a", "reset"),
            ToolRef("a", "get_reward"),
            ToolRef("a", "_hidden"),
            ToolRef("a b", "files.list"),
            ToolRef("a/b", "files.list"),
            ToolRef("a", long),
            ToolRef("a", long + "y"),
            ToolRef("c", "a__read"),
            ToolRef("é", "ü"),
        ]
    )
    assert {tuple(ref): name for ref, name in named.items()} == {
        ("a", "read"): "a__read_2",  # c's tool has that name by right
        ("b", "read"): "b__read",
        ("c", "a__read"): "a__read",
        ("a", "list-issues"): "list-issues",
        ("a", "reset"): "a__reset",
        ("a", "get_reward"): "a__get_reward",
        ("a", "_hidden"): "a___hidden",
        ("a b", "files.list"): "a_b__files_list",
        ("a/b", "files.list"): "a_b__files_list_2",
        ("a", long): f"a__{'x' * 61}",
        ("a", long + "y"): f"a__{'x' * 59}_2",
        ("é", "ü"): "tool",
    }


def test_names_do_not_depend_on_the_order_of_tools() -> None:
    refs = [ToolRef(server, name) for server in "cab" for name in ("read", "x.y", "x_y")]
    assert aliases(refs) == aliases(reversed(refs))


def test_a_tool_has_one_name_in_all_tasks_and_splits(folder: Path, tmp_path: Path) -> None:
    run(folder, "openai", tmp_path / "all")
    run(folder, "openai", tmp_path / "some", "--split", "test")
    assert contents(tmp_path / "all")["test.jsonl"] == contents(tmp_path / "some")["test.jsonl"]
    (chair,) = [
        row for row in rows(tmp_path / "all" / "train.jsonl") if "p-8" in row["messages"][1]["content"]
    ]
    assert chair["tools"] == [{"type": "function", "function": tool("shop__read", SHOP_READ)}]


# Formats


def test_trl_sft_has_arguments_as_objects(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    run(folder, "trl-sft", tmp_path / "out")
    lamp, _ = rows(tmp_path / "out" / "train.jsonl")

    def called(name: str, call: int) -> list[dict[str, Any]]:
        _, arguments, output = CALLS["lamp"][call]
        function = {"name": name, "arguments": arguments}
        return [
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
            {"role": "tool", "name": name, "content": output},
        ]

    assert lamp == {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": user_text(tasks[0])},
            *called("find", 0),
            *called("shop__read", 1),
            *called("stock__read", 2),
            {"role": "assistant", "content": '{"price": 12.5, "items": 3}'},
        ],
        "tools": lamp["tools"],
        "task_id": "task-lamp",
        "source": "reference",
    }
    assert json.loads(lamp["tools"]) == [
        {"type": "function", "function": tool(name, ref)}
        for name, ref in zip(["find", "shop__read", "stock__read", "stock__reset"], SCHEMAS, strict=True)
    ]


def test_openai_has_arguments_as_text_and_ids(folder: Path, tmp_path: Path) -> None:
    run(folder, "openai", tmp_path / "out")
    (town,) = rows(tmp_path / "out" / "test.jsonl")
    assert town["parallel_tool_calls"] is False
    assert town["messages"][2:] == [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_0",
                    "type": "function",
                    "function": {"name": "stock__read", "arguments": '{"sku": 8}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": '{"town": "Zürich"}'},
        {"role": "assistant", "content": '{"town": "Zürich"}'},
    ]


def test_sharegpt_alternates_as_its_reader_demands(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    run(folder, "sharegpt", tmp_path / "out")
    lamp, chair = rows(tmp_path / "out" / "train.jsonl")
    for row in (lamp, chair):
        turns = [turn["from"] for turn in row["conversations"]]
        assert set(turns[::2]) <= {"human", "observation"}
        assert set(turns[1::2]) <= {"function_call", "gpt"}
        assert len(turns) % 2 == 0
    assert chair["conversations"] == [
        {"from": "human", "value": user_text(tasks[2])},
        {"from": "function_call", "value": '{"name": "shop__read", "arguments": {"id": "p-8"}}'},
        {"from": "observation", "value": '{"price": 40}'},
        {"from": "gpt", "value": '{"price": 40}'},
    ]
    assert (chair["system"], json.loads(chair["tools"])) == (SYSTEM, [tool("shop__read", SHOP_READ)])
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    columns = {"messages": "conversations", "system": "system", "tools": "tools"}
    assert info == {
        f"firefly_{split}": {"file_name": f"{split}.jsonl", "formatting": "sharegpt", "columns": columns}
        for split in ("train", "test")
    }


def test_trl_grpo_has_columns_of_one_type(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    run(folder, "trl-grpo", tmp_path / "out", "--replay-url", "http://h/{server}")
    (town,) = rows(tmp_path / "out" / "test.jsonl")
    texts = {name: json.loads(town.pop(name)) for name in ("answer", "answer_schema", "tools", "aliases")}
    assert texts["answer"] == {"town": "Zürich"}
    assert texts["answer_schema"] == tasks[1].answer_schema
    assert texts["aliases"] == {"shop__read": ["shop", "read"], "stock__read": ["stock", "read"]}
    assert [each["function"]["name"] for each in texts["tools"]] == ["shop__read", "stock__read"]
    assert town == {
        "prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user_text(tasks[1])}],
        "task_id": "task-town",
        "servers": ["stock"],
        "world": tasks[1].world,
        "group": "g",
        "replay_url": "http://h/{server}",
    }


def test_nemo_gym_has_flat_tools_that_are_not_strict(folder: Path, tasks: list[Task], tmp_path: Path) -> None:
    run(folder, "nemo-gym", tmp_path / "out")
    _, chair = rows(tmp_path / "out" / "train.jsonl")
    assert chair == {
        "responses_create_params": {
            "input": [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": user_text(tasks[2])},
            ],
            "tools": [{"type": "function", **tool("shop__read", SHOP_READ), "strict": False}],
            "parallel_tool_calls": False,
        },
        "verifier_metadata": {
            "task_id": "task-chair",
            "answer": {"price": 40},
            "answer_schema": tasks[2].answer_schema,
            "aliases": {"shop__read": ["shop", "read"]},
            "reference_calls": [{"name": "shop__read", "arguments": '{"id": "p-8"}'}],
            "servers": ["shop"],
            "world": tasks[2].world,
            "group": "g",
        },
    }


def test_inspect_has_samples_and_a_task_that_compiles(
    folder: Path, tasks: list[Task], tmp_path: Path
) -> None:
    run(folder, "inspect", tmp_path / "out")
    (town,) = rows(tmp_path / "out" / "test.jsonl")
    assert town == {
        "input": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user_text(tasks[1])}],
        "target": '{"town": "Zürich"}',
        "id": "task-town",
        "metadata": {
            "answer_schema": tasks[1].answer_schema,
            "tools": [
                {"server": "shop", "name": "read", "alias": "shop__read"},
                {"server": "stock", "name": "read", "alias": "stock__read"},
            ],
            "group": "g",
        },
    }
    py_compile.compile(str(tmp_path / "out" / "task.py"), str(tmp_path / "task.pyc"), doraise=True)
    assert f"DB = {str(tmp_path / 'world.db')!r}\n" in (tmp_path / "out" / "task.py").read_text()


def test_a_long_description_is_cut_for_openai_only(tmp_path: Path, world: World, folder: Path) -> None:
    from recorder.importer import import_files

    listed = tmp_path / "long.jsonl"
    listed.write_text(
        json.dumps(
            {"server": "stock", "name": "read", "description": "d" * 2000, "inputSchema": {"type": "object"}}
        )
    )
    import_files(tmp_path / "world.db", [], tools=[listed])
    run(folder, "openai", tmp_path / "openai")
    run(folder, "trl-sft", tmp_path / "trl")
    (cut,) = rows(tmp_path / "openai" / "test.jsonl")
    (whole,) = rows(tmp_path / "trl" / "test.jsonl")
    assert cut["tools"][1]["function"]["description"] == "d" * 1023 + "…"
    assert json.loads(whole["tools"])[1]["function"]["description"] == "d" * 2000


# Rollouts


def rollout(answer: str, **changes: Any) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "shop__read", "arguments": '{"id": "p-8"}'}}
    return {
        "task_id": "task-chair",
        "reward": 1.0,
        "seed": 7,
        "messages": [
            {"role": "user", "content": "whatever"},
            {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": '{"price": 40}'},
            {"role": "assistant", "content": answer},
        ],
        **changes,
    }


def rollouts(tmp_path: Path, *records: dict[str, Any]) -> Path:
    path = tmp_path / "rollouts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_successful_rollouts_follow_the_reference(folder: Path, tmp_path: Path) -> None:
    given = rollouts(tmp_path, rollout('{"price": 40.001}'), rollout('{"price": 1}', reward=0.0))
    counted = json.loads(run(folder, "trl-sft", tmp_path / "out", "--rollouts", given, "--json"))
    assert counted["splits"] == {"train": {"tasks": 2, "rollouts": 1}, "test": {"tasks": 1, "rollouts": 0}}
    lamp, reference, tried = rows(tmp_path / "out" / "train.jsonl")
    assert [row["source"] for row in (lamp, reference, tried)] == ["reference", "reference", "rollout"]
    assert tried["tools"] == reference["tools"]
    assert tried["messages"][:2] == reference["messages"][:2]
    function = {"name": "shop__read", "arguments": {"id": "p-8"}}
    assert tried["messages"][2:] == [
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"type": "function", "function": function}],
        },
        {"role": "tool", "name": "shop__read", "content": '{"price": 40}'},
        {"role": "assistant", "content": '{"price": 40.001}'},
    ]


def test_calls_made_at_once_are_told_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": "shop__read", "arguments": {"id": name}}}
        for name in ("p-7", "p-8")
    ]
    results = [{"role": "tool", "tool_call_id": name, "content": f"of {name}"} for name in ("p-8", "p-7")]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        *results,
        {"role": "assistant", "content": '```json\n{"price": 40}\n```'},
    ]
    run(
        folder, "sharegpt", tmp_path / "out", "--rollouts", rollouts(tmp_path, rollout("", messages=messages))
    )
    tried = rows(tmp_path / "out" / "train.jsonl")[2]["conversations"]
    assert [turn["from"] for turn in tried] == [
        "human", "function_call", "observation", "function_call", "observation", "gpt"
    ]  # fmt: skip
    assert [turn["value"] for turn in tried[1:5]] == [
        '{"name": "shop__read", "arguments": {"id": "p-7"}}',
        "of p-7",
        '{"name": "shop__read", "arguments": {"id": "p-8"}}',
        "of p-8",
    ]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (rollout('{"price": 41}'), "line 1: reward 1, but the final message is '{\"price\": 41}'"),
        (rollout("40"), "line 1: reward 1, but the final message is '40'"),
        (rollout("{}", task_id="task-x"), "line 1: task 'task-x' is not among the 3 tasks"),
        (rollout("{}", reward="good"), "line 1: reward: Input should be a valid number"),
        (rollout("{}", messages=[]), "line 1: it has no final message"),
        (
            rollout("{}", messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]),
            "line 1: message 0 makes 1 calls; not all have a result",
        ),
    ],
)
def test_a_rollout_that_is_not_right_is_an_error(
    record: dict[str, Any], told: str, folder: Path, tmp_path: Path
) -> None:
    path = rollouts(tmp_path, record)
    with pytest.raises(FireflyError) as caught:
        run(folder, "openai", tmp_path / "out", "--rollouts", path)
    assert str(caught.value).startswith(f"{path}, {told}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        (' {"a": 1}\n', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}\n```', {"a": 1}),
        ('```JSON\r\n{"a": 1}\r\n```', {"a": 1}),
        ('The answer is {"a": 1}', {"a": 1}),
        ('{"a": 0} was wrong. **Answer:** {"a": {"b": 2}}.', {"a": {"b": 2}}),
        ('First:\n```json\n{"a": 0}\n```\nBut then:\n  ```json\n  {"a": 1}\n  ```\nDone.', {"a": 1}),
        ('```json\n{"a": 1}\n```\nIts schema was {"type": "object"}.', {"a": 1}),
        ('```python\nprint({"a": 0})\n```\n```json\n{"a": 1}\n```', {"a": 1}),
        ('```json\n{"a": 1}\n```\n```python\n{"a": 0}\n```', {"a": 1}),
        ('```json\n{"a": 1}', {"a": 1}),
        ('```json {"a": 1}```', {"a": 1}),
        ('```json\n{"a": 0,}\n```\n{"a": 1}', {"a": 1}),
        ('{"text": "```json\\n{}\\n```"}', {"text": "```json\n{}\n```"}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('[{"a": 1}]', None),
        ('```json\n[{"a": 1}]\n```', None),
        ("40", None),
        ("null", None),
        ("", None),
        ("The answer is 40.", None),
        ('{"a": 1', None),
        ('{"a":' * 3000, None),
        ("```json\n" * 3000, None),
        ("1" * 5000, None),
    ],
)
def test_an_answer_is_the_object_that_a_message_is_or_ends_with(text: str, expected: object) -> None:
    assert answer_in(text) == expected


READERS = ("README.md", "task.py")


@pytest.mark.parametrize("format", FILES)
def test_whatever_an_export_says_of_answers_is_what_reads_them_here(
    format: str, folder: Path, tmp_path: Path
) -> None:
    run(folder, format, tmp_path / "out")
    told = "".join(
        (tmp_path / "out" / name).read_text() for name in READERS if (tmp_path / "out" / name).exists()
    )
    if "is_right" in told:
        assert "synth.export.conversation" in told
        assert "answer_in(" in told
        assert "json.loads(the text" not in told


# The folder


@pytest.mark.parametrize("format", FILES)
def test_the_same_input_gives_the_same_bytes_over_an_earlier_export(
    format: str, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    other = "openai" if format != "openai" else "sharegpt"
    run(folder, other, out)
    run(folder, format, out)
    run(folder, format, tmp_path / "again")
    assert contents(out) == contents(tmp_path / "again")
    assert {"README.md", "export.json", "train.jsonl", "test.jsonl"} <= set(contents(out))
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_folder_with_anything_else_is_refused_and_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, "openai", out)
    (out / "model.bin").write_text("precious")
    before = contents(out)
    with pytest.raises(FireflyError, match=r"out holds model\.bin, which is of no export"):
        run(folder, "openai", out)
    assert contents(out) == before
    with pytest.raises(FireflyError, match="is a file"):
        run(folder, "openai", out / "model.bin")


def test_a_failed_export_leaves_the_earlier_one(folder: Path, tmp_path: Path, tasks: list[Task]) -> None:
    out = tmp_path / "out"
    run(folder, "openai", out)
    before = contents(out)
    foreign = tasks[0].model_copy(update={"world": ["0" * 32]})
    other = written(tmp_path / "other", [*tasks[1:], foreign])
    with pytest.raises(FireflyError, match="cites session 0000"):
        run(other, "openai", out)
    assert contents(out) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_an_empty_split_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FireflyError, match="no task is in test_unseen_servers; splits with tasks: test, train"
    ):
        run(folder, "openai", tmp_path / "out", "--split", "test_unseen_servers")


# The command


def test_the_counts_are_printed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, "openai", out) == f"train: 2 tasks\ntest: 1 tasks\nwrote {out}\n"
    assert json.loads(run(folder, "openai", out, "--split", "test", "--json")) == {
        "out": str(out),
        "format": "openai",
        "splits": {"test": {"tasks": 1, "rollouts": 0}},
        "replay_url": None,
        "files": ["README.md", "test.jsonl"],
    }


@pytest.mark.parametrize("format", FORMATS)
def test_an_option_that_a_format_has_no_use_for_is_a_usage_error(
    format: str, folder: Path, tmp_path: Path
) -> None:
    takes_rollouts = format in ("trl-sft", "sharegpt", "openai")
    option = ("--replay-url", "http://h") if takes_rollouts else ("--rollouts", rollouts(tmp_path))
    told = run(folder, format, tmp_path / "out", *option)
    assert f"Error: {option[0]} goes with" in told
    assert format in told


def test_the_splits_of_the_option_are_those_of_tasks() -> None:
    (option,) = [each for each in export.params if each.name == "splits"]
    assert tuple(option.type.choices) == get_args(Split)  # type: ignore[attr-defined]


def test_verl_without_pyarrow_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    words = ["--tasks", folder, "--db", tmp_path / "world.db", "--format", "verl", "--out", tmp_path / "out"]
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from firefly_proxy.command_line import run\n"
        "from synth.export_cli import export\n"
        "run(export, 'firefly')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr == "firefly: the format verl needs pyarrow: pip install 'firefly-proxy[export]'\n"
