"""Tools and reward for verl, called as its agent loop and its reward workers call them.

Where verl is not installed, `stand_ins` has the few classes of it; where it is, its agent loop is run, too.
"""

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
import yaml

from recorder.importer import import_files, import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.learned import NotLearned
from replayer.replayer import Replayer
from synth.export.conversation import user_text
from synth.export.dataset import Dataset, export
from synth.task import Task
from synth.world import World
from tests.synth.export_sample import FIND, RESET, SHOP_READ, STOCK_READ, record, tasks_of
from train.environment import Environment, replayed

STAND_INS = Path(__file__).parent / "stand_ins"


@pytest.fixture(scope="module")
def ours() -> Iterator[ModuleType]:
    """`train.verl_tool`, with verl or what stands in for it."""
    if find_spec("verl") is not None:
        yield import_module("train.verl_tool")
        return
    sys.path.insert(0, str(STAND_INS))
    yield import_module("train.verl_tool")
    sys.path.remove(str(STAND_INS))
    for name in [name for name in sys.modules if name.split(".")[0] == "verl" or name == "train.verl_tool"]:
        del sys.modules[name]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return record(tmp_path / "world.db")


@pytest.fixture
def lamp(world: World) -> Task:
    return tasks_of(world)[0]


class AgentData:
    """A rollout, as verl 0.9.1 has it for tools."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.messages = list(row["prompt"])
        self.request_id = "det-0"
        self.tools_kwargs = row["extra_info"]["tools_kwargs"]
        self.extra_fields: dict[str, Any] = {"min_global_steps": 3}
        self.tool_rewards: list[float] = []


def tools_in(folder: Path) -> dict[str, Any]:
    """Make the tools of a `tool_config.yaml`, as verl's tool registry does."""
    try:
        from omegaconf import OmegaConf

        found = OmegaConf.to_container(OmegaConf.load(folder / "tool_config.yaml"), resolve=True)
    except ImportError:
        found = yaml.safe_load((folder / "tool_config.yaml").read_text(encoding="utf-8"))
        for entry in found["tools"]:
            assert entry["config"]["db"] == "${recording.db}"
            entry["config"]["db"] = found["recording"]["db"]
    made = []
    for entry in found["tools"]:
        module, _, name = entry["class_name"].rpartition(".")
        assert entry["config"]["type"] == "native"
        assert "tool_schema" not in entry
        made.append(getattr(import_module(module), name)(config=entry["config"], tool_schema=None))
    return {tool.name: tool for tool in made}


def call(tools: dict[str, Any], rollout: AgentData, name: str, arguments: object) -> tuple[str, Any]:
    """Make a call, as verl's `ToolAgentLoop._call_tool` does; return the text and the metrics."""

    async def made() -> tuple[Any, float, Any]:
        tool, instance = tools[name], None
        try:
            kwargs = rollout.tools_kwargs.get(name, {})
            instance, _ = await tool.create(create_kwargs=kwargs.get("create_kwargs", {}))
            found: tuple[Any, float, Any] = await tool.execute(
                instance, json.loads(json.dumps(arguments)), agent_data=rollout
            )
            return found
        finally:
            if instance:
                await tool.release(instance)

    response, reward, metrics = anyio.run(made)
    rollout.tool_rewards.append(reward)
    return response.text, metrics


def exported(world: World, tasks: list[Task], out: Path) -> dict[str, dict[str, Any]]:
    """Export tasks, and return the rows by task."""
    parquet = pytest.importorskip("pyarrow.parquet")
    export(world, tasks, "verl", out)
    rows = [row for file in sorted(out.glob("*.parquet")) for row in parquet.read_table(file).to_pylist()]
    return {row["extra_info"]["task_id"]: row for row in rows}


def scored(ours: ModuleType, row: dict[str, Any], rollout: AgentData, solution: str, **kwargs: Any) -> Any:
    """Score a rollout, as verl's `NaiveRewardManager.run_single` does."""
    turns = solution.count("<|im_start|>assistant") + 1
    info = {
        **row["extra_info"],
        **rollout.extra_fields,
        "turn_scores": [],
        "tool_rewards": rollout.tool_rewards,
        "num_turns": 2 * turns,
        "rollout_reward_scores": {},
    }
    return ours.compute_score(
        data_source=row["data_source"],
        solution_str=solution.replace("<|im_start|>", "").replace("<|im_end|>", ""),
        ground_truth=row["reward_model"]["ground_truth"],
        extra_info=json.loads(json.dumps(info)),
        **kwargs,
    )


def said(calls: list[tuple[str, object, str]], last: str) -> str:
    """Return a rollout as the chat template of Qwen has it, from where the prompt ends."""
    turns = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call><|im_end|>\n'
        f"<|im_start|>user\n<tool_response>\n{result}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        for name, arguments, result in calls
    ]
    return "".join(turns) + last + "<|im_end|>"


def environment_of(world: World, task: Task) -> Environment:
    opened = replayed(Replayer.open(world.store.path))(task)
    return Environment(task, Dataset(world, tasks_of(world)).functions, opened.__enter__())


ALIASES = {FIND: "find", SHOP_READ: "shop__read", STOCK_READ: "stock__read", RESET: "stock__reset"}


# --- tools --------------------------------------------------------------------------------------------------


def test_a_right_rollout_reads_what_it_reads_in_evaluation(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools, rollout, expected = tools_in(tmp_path / "out"), AgentData(row), environment_of(world, lamp)
    done = []
    for each in lamp.calls:
        name = ALIASES[each.ref]
        text, metrics = call(tools, rollout, name, each.arguments)
        assert text == expected.call(name, each.arguments)
        assert metrics == expected.calls[-1].model_dump(mode="json")
        done.append((name, each.arguments, text))
    answer = json.dumps(lamp.answer)
    assert scored(ours, row, rollout, said(done, f"```json\n{answer}\n```")) == {
        "score": 1.0,
        "acc": 1.0,
        "missed": 0.0,
        "trust": rollout.extra_fields["extras"]["firefly"]["trust"],
    }
    assert scored(ours, row, rollout, said(done, '{"price": 1, "items": 3}'))["score"] == 0.0
    assert scored(ours, row, rollout, said(done, f"It is {answer}"))["score"] == 1.0


def test_a_rollout_with_a_miss_reads_it_and_gets_nothing_unless_misses_are_kept(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools, rollout, expected = tools_in(tmp_path / "out"), AgentData(row), environment_of(world, lamp)
    unheard = {"id": "no such thing was ever read"}
    text, metrics = call(tools, rollout, "shop__read", unheard)
    assert text == expected.call("shop__read", unheard)
    assert text.startswith("no recorded answer for shop/read(")
    assert metrics == expected.calls[-1].model_dump(mode="json")
    assert metrics["outcome"] == "miss"
    # What a tool of another kind is answered afterwards does not take it back.
    found, _ = call(tools, rollout, "find", {"name": "lamp"})
    assert found == expected.call("find", {"name": "lamp"})
    solution = said([("shop__read", unheard, text)], json.dumps(lamp.answer))
    whole = {"acc": 1.0, "missed": 1.0, "trust": rollout.extra_fields["extras"]["firefly"]["trust"]}
    assert scored(ours, row, rollout, solution) == {"score": 0.0, **whole}
    assert scored(ours, row, rollout, solution, miss="keep") == {"score": 1.0, **whole}
    assert rollout.extra_fields["min_global_steps"] == 3


def test_arguments_that_are_no_object_are_answered_as_in_evaluation(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools, expected = tools_in(tmp_path / "out"), environment_of(world, lamp)
    text, metrics = call(tools, AgentData(row), "find", ["lamp"])
    assert text == expected.call("find", ["lamp"])
    assert metrics["outcome"] == "invalid"


def test_tools_of_a_rollout_share_its_world_and_rollouts_do_not(ours: ModuleType, tmp_path: Path) -> None:
    calls = [("get_balance", {}, "10"), ("set_balance", {"to": 7}, "ok"), ("get_balance", {}, "7")]
    session = {
        "session_id": "s",
        "group": "g",
        "calls": [
            {"server": "till", "tool": tool, "arguments": arguments, "output": output}
            for tool, arguments, output in calls
        ],
    }
    db = tmp_path / "till.db"
    assert import_sessions(db, [session]).problems == []
    learn(Store(db))
    refs = {name: {"server": "till", "name": name, "task_id": "t", "group": "g"} for name, _, _ in calls}
    kwargs = {name: {"create_kwargs": created} for name, created in refs.items()}
    tools = {
        name: ours.FireflyReplayTool(
            {"db": str(db), "tool_schema": json.dumps(schema(name, {"type": "object"}))}, None
        )
        for name in refs
    }
    row = {"prompt": [], "extra_info": {"tools_kwargs": kwargs}}
    one, other = AgentData(row), AgentData(row)
    assert one.request_id == other.request_id
    assert call(tools, one, "get_balance", {})[0] == "10"
    assert call(tools, one, "set_balance", {"to": 7})[0] == "ok"
    assert call(tools, other, "get_balance", {})[0] == "10"
    assert call(tools, one, "get_balance", {})[0] == "7"


def schema(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "description": "", "parameters": parameters}
    return {"type": "function", "function": function}


def test_nothing_keeps_a_rollout_that_verl_has_let_go(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools, rollout = tools_in(tmp_path / "out"), AgentData(row)
    call(tools, rollout, "find", {"name": "lamp"})
    kept = weakref.ref(rollout)
    del rollout
    gc.collect()
    assert kept() is None


def test_a_model_is_shown_the_schemas_as_they_were_recorded(
    ours: ModuleType, world: World, tmp_path: Path
) -> None:
    """verl's own classes would cut them, or refuse them; OmegaConf would fill in what looks like its own."""
    odd: dict[str, Any] = {
        "type": "object",
        "properties": {
            "where": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}], "default": None},
            "how": {"type": "array", "items": {"enum": ["it's", 'a "${way}"', "\\${x} \x7f 🐝"]}},
            "any": True,
        },
        "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number"}}}},
        "additionalProperties": False,
    }
    entry = {"server": "shop", "name": "find", "description": "Costs ${price}: 'é'\n", "inputSchema": odd}
    listed = tmp_path / "odd.jsonl"
    listed.write_text(json.dumps(entry) + "\n")
    assert import_files(world.store.path, [], tools=[listed]).problems == []
    store = Store(world.store.path)
    world = World(store, Replayer(store, learn(store)))
    exported(world, tasks_of(world), tmp_path / "out")
    functions = Dataset(world, tasks_of(world)).functions
    assert functions[FIND].parameters["properties"] == odd["properties"]
    shown = {
        name: tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True)
        for name, tool in tools_in(tmp_path / "out").items()
    }
    assert shown == {function.name: function.as_tool() for function in functions.values()}


def test_a_recording_that_nothing_was_learned_from_stops_verl_at_the_start(
    ours: ModuleType, tmp_path: Path
) -> None:
    assert import_sessions(tmp_path / "new.db", [{"session_id": "s", "calls": []}]).problems == []
    config = {"db": str(tmp_path / "new.db"), "tool_schema": json.dumps(schema("t", {"type": "object"}))}
    with pytest.raises(NotLearned):
        ours.FireflyReplayTool(config, None)


def test_a_tool_that_breaks_is_no_mistake_of_the_model(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools, rollout = tools_in(tmp_path / "out"), AgentData(row)
    rollout.tools_kwargs = {}
    # verl makes of it a text for the model.
    with pytest.raises(ours.VerlError, match="no create_kwargs for find"):
        call(tools, rollout, "find", {"name": "lamp"})
    with pytest.raises(ours.VerlError, match="could not be answered at all: find"):
        scored(ours, row, rollout, json.dumps(lamp.answer))


def test_without_verl_the_module_says_what_it_needs() -> None:
    program = "import sys; sys.modules['verl'] = None; import train.verl_tool"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stderr.splitlines()[-1] == (
        "ImportError: train.verl_tool is loaded by verl: pip install 'verl>=0.9.1,<0.10'"
    )


# --- reward -------------------------------------------------------------------------------------------------

RESULT = "<tool_call>\n{}\n</tool_call>\nuser\n<tool_response>\n{}\n</tool_response>\nassistant\n"


@pytest.mark.parametrize(
    ("solution", "num_turns", "expected"),
    [
        ('{"a": 1}', 2, '{"a": 1}'),
        (RESULT + '{"a": 1}', 4, '{"a": 1}'),
        (RESULT + RESULT + '{"a": 1}', 6, '{"a": 1}'),
        (RESULT + '{"a": 1}', None, '{"a": 1}'),
        (RESULT + '<think>\nOr {"a": 2}?\n</think>\n\n{"a": 1}', 4, '\n\n{"a": 1}'),
        (RESULT + 'Or {"a": 2}?\n</think>\n\n{"a": 1}', 4, '\n\n{"a": 1}'),
        # Two results in one turn, as Qwen's template has them.
        (RESULT.replace("</tool_r", "</tool_response>\n<tool_response>\n{}\n</tool_r") + "{}", 4, "{}"),
        # Of a template that has a turn for each.
        ("c\ntool\n<tool_response>\n1\n</tool_response>\nassistant\n{}", 4, "{}"),
        # The model made up a result.
        (RESULT + '{"a": 1}', 2, None),
        (RESULT + RESULT + '{"a": 1}', 4, None),
        # It ended with a call that could not be made any more.
        (RESULT + "<tool_call>\n{}\n</tool_call>", 4, "<tool_call>\n{}\n</tool_call>"),
    ],
)
def test_the_final_message_is_what_follows_the_last_results(
    ours: ModuleType, solution: str, num_turns: int | None, expected: str | None
) -> None:
    assert ours.final_message(solution, num_turns) == expected


def test_a_chat_template_that_shows_results_otherwise_is_refused(ours: ModuleType) -> None:
    with pytest.raises(ours.VerlError, match=r"multi_turn\.format=hermes"):
        ours.final_message('call\nipython\n\n{"x": 1}assistant\n\n{"a": 1}', 4)


def test_a_reward_manager_that_hides_misses_is_refused_where_they_matter(ours: ModuleType) -> None:
    given: dict[str, Any] = {
        "data_source": "firefly",
        "solution_str": "{}",
        "ground_truth": "{}",
        "extra_info": {"answer_schema": "{}", "num_turns": 2},
    }
    with pytest.raises(ours.VerlError, match=r"reward_manager\.name=naive"):
        ours.compute_score(**given)
    kept = ours.compute_score(**given, miss="keep")
    assert kept == {"score": 1.0, "acc": 1.0, "missed": 0.0, "trust": 1.0}


def test_the_reward_weighs_by_trust_where_that_is_asked_for(ours: ModuleType) -> None:
    seen = {"firefly": {"missed": False, "trust": 0.9, "failure": None}}
    info = {"answer_schema": "{}", "num_turns": 2, "tool_rewards": [0.0], "extras": seen}
    found = ours.compute_score("firefly", "{}", "{}", info, reward="tier-aware")
    assert found == {"score": 0.9, "acc": 1.0, "missed": 0.0, "trust": 0.9}
    with pytest.raises(ValueError, match="miss must be one of exclude, keep, got 'drop'"):
        ours.compute_score("firefly", "{}", "{}", info, miss="drop")


# --- verl itself --------------------------------------------------------------------------------------------


def test_verls_own_loop_and_reward_manager_come_to_the_same(
    ours: ModuleType, world: World, lamp: Task, tmp_path: Path
) -> None:
    loops = pytest.importorskip("verl.experimental.agent_loop.tool_agent_loop")
    managers = pytest.importorskip("verl.experimental.reward_loop.reward_manager.naive")
    protocol = import_module("verl.protocol")
    registry = import_module("verl.tools.tool_registry")
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from tensordict import TensorDict

    row = exported(world, tasks_of(world), tmp_path / "out")[lamp.task_id]
    tools = registry.load_all_tools(str(tmp_path / "out" / "tool_config.yaml"), None)
    tokenizer = qwen()
    multi_turn = {
        "max_user_turns": None,
        "max_assistant_turns": 13,
        "max_parallel_calls": 16,
        "max_tool_response_length": 100_000,
        "tool_response_truncate_side": "middle",
        "format": "hermes",
    }
    rollout = {
        "multi_turn": multi_turn,
        "prompt_length": 9000,
        "response_length": 9000,
        "full_determinism": False,
    }
    config = OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}, "data": {}})

    async def played(messages: list[str]) -> tuple[str, dict[str, Any], Any]:
        waiting = iter(messages)

        class Server:
            async def generate(self, **_: Any) -> Any:
                ids = tokenizer.encode(next(waiting) + "<|im_end|>", add_special_tokens=False)
                return loops.TokenOutput(token_ids=ids, extra_fields={})

        class Wrapped:
            def __init__(self, config: Any) -> None:
                self.config = config

        loop = loops.ToolAgentLoop(
            Wrapped(config),
            Server(),
            tokenizer,
            None,
            None,
            Wrapped(config.data),
            hf_model_type="qwen3",
            tools=loops.ToolListWrap(tools),
        )
        output = await loop.run(
            {},
            raw_prompt=row["prompt"],
            tools_kwargs=row["extra_info"]["tools_kwargs"],
            extra_info=row["extra_info"],
        )
        prompt, response = torch.tensor(output.prompt_ids), torch.tensor(output.response_ids)
        whole = torch.cat([prompt, response]).unsqueeze(0)
        batch = TensorDict(
            {
                "prompts": prompt.unsqueeze(0),
                "responses": response.unsqueeze(0),
                "attention_mask": torch.ones_like(whole),
            },
            batch_size=1,
        )
        data = protocol.DataProto(
            batch=batch,
            non_tensor_batch={
                "data_source": np.array([row["data_source"]]),
                "reward_model": np.array([row["reward_model"]]),
                "extra_info": np.array([dict(row["extra_info"])]),
                "__num_turns__": np.array([output.num_turns]),
                "tool_extra_fields": np.array([output.extra_fields], dtype=object),
            },
        )
        manager = managers.NaiveRewardManager(OmegaConf.create({}), tokenizer, ours.compute_score)
        return tokenizer.decode(output.response_ids), output.extra_fields, await manager.run_single(data)

    def called(name: str, arguments: object) -> str:
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"

    expected = environment_of(world, lamp)
    calls = [(ALIASES[each.ref], each.arguments) for each in lamp.calls]
    texts = [expected.call(*each) for each in calls]
    last = json.dumps(lamp.answer)
    solution, fields, result = anyio.run(played, [*(called(*each) for each in calls), last])
    assert solution.split("<|im_end|>")[-2].endswith(f"assistant\n{last}")
    assert [part.split("\n</tool_response>")[0] for part in solution.split("<tool_response>\n")[1:]] == texts
    assert result["reward_score"] == 1.0
    assert fields["extras"]["firefly"]["missed"] is False

    both = "\n".join(called(*each) for each in calls[:2])
    _, _, result = anyio.run(played, [both, called(*calls[2]), f"<think>\nHm.\n</think>\n\n{last}"])
    assert result["reward_score"] == 1.0

    unheard = {"id": "no such thing was ever read"}
    solution, _, result = anyio.run(played, [called("shop__read", unheard), last])
    assert expected.call("shop__read", unheard) in solution
    found = result["reward_extra_info"]
    assert (result["reward_score"], found["acc"], found["missed"]) == (0.0, 1.0, 1.0)

    _, fields, result = anyio.run(played, [last])
    assert result["reward_score"] == 1.0
    assert "extras" not in fields
    # verl refuses what the row does not select.
    solution, _, result = anyio.run(played, [called("no_such_tool", {}), last])
    assert "Unknown function 'no_such_tool'" in solution
    assert result["reward_score"] == 1.0
    _, _, result = anyio.run(played, [f"<tool_response>\n3\n</tool_response>\nassistant\n{last}"])
    assert result["reward_score"] == 0.0
    assert user_text(lamp) in row["prompt"][1]["content"]


def qwen() -> Any:
    """A tokenizer of bytes, with the special tokens and the chat template of Qwen3-Instruct-2507."""
    import tokenizers
    import transformers
    import trl

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({each: n for n, each in enumerate(alphabet)}, []))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = tokenizers.decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
    )
    template = Path(trl.__file__).parent / "chat_templates" / "qwen3_instruct_2507.jinja"
    made.chat_template = template.read_text(encoding="utf-8")
    return made
