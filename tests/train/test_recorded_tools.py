"""TRL's loop and ours: the same checkpoint says the same, and is scored the same."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
from trl import GRPOConfig

from recorder.exchange import ToolRef
from synth.export.dataset import Dataset
from tests.synth.model_tasks import make_task, open_world, record
from tests.train.scripted_model import Script, byte_tokenizer, call, tiny_model
from train.chat import Chat, checked
from train.environment import CallMade, Message, replayed
from train.evaluate import Plan, evaluate
from train.grpo import TrainingReward, Verified, _rows
from train.local_policy import LocalPolicy
from train.recorded_tools import (
    RecordedToolsTrainer,
    environment_of,
    first_untrusted,
    masked_after,
)
from train.rollout import Limits, Rollout
from train.suite import Suite

RIGHT = '{"name": "plums", "amount": 7319}'
LIST, GET = call("list", "{}"), call("get", '{"key": "plums"}')
SCRIPTS = {
    "solved": [LIST, GET, RIGHT],
    "at once": [f"{LIST}\n{GET}", f"```json\n{RIGHT}\n```"],
    "wrong": [GET, '{"name": "plums", "amount": 1}'],
    "no call": ["I do not know."],
    "no such tool": [call("steal", '{"key": "plums"}'), RIGHT],
    "no object": [call("get", '"plums"'), f"Well: {RIGHT}"],
    "a list": [call("get", '["plums"]'), "{}"],
    "no JSON": ['<tool_call>\n{"name": "get", "arguments": {"key": plums}}\n</tool_call>'],
    "no end of it": [f"{LIST} ", f"{LIST}  ", f"{LIST}   ", f"{LIST}    ", f"{LIST}     "],
    "never recorded": [call("get", '{"key": "kiwis"}'), RIGHT + " "],
    "without arguments": ['<tool_call>\n{"name": "list"}\n</tool_call>', RIGHT + "  "],
    "cut off": [GET + " ", "x" * 900],
    "words with it": ["Let me see.\n" + GET, RIGHT + "   "],
}
LIMITS = Limits(turns=3, tokens=900)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    record(path)
    world = open_world(path)
    task = make_task(world)
    return Suite((task,), world, Dataset(world, [task]).functions)


class ScriptedTrainer(RecordedToolsTrainer):
    """TRL's trainer with a script in the model's place; keeps what the reward function was given."""

    def __init__(self, *, script: Script, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._script = script
        self.masks: list[list[int]] = []

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        return self._script.write(prompt_ids), None

    def _tool_call_loop(self, *arguments: Any, **named: Any) -> Any:
        found = super()._tool_call_loop(*arguments, **named)
        self.masks = found[0]
        return found


class ScriptedPolicy(LocalPolicy):
    """Our policy with a script in the model's place."""

    script: Script

    def _generate(self, batch: list[Any]) -> list[list[int]]:
        written = self.script.write([[*each.kept.prompt, *each.kept.completion] for each in batch])
        return [ids[: each.room] for ids, each in zip(written, batch, strict=True)]


def trainer(suite: Suite, folder: Path, *, kind: TrainingReward = "binary", **more: Any) -> ScriptedTrainer:
    tokenizer = checked(byte_tokenizer(), "the test's")
    settings = GRPOConfig(
        str(folder),
        per_device_train_batch_size=2,
        per_device_eval_batch_size=len(SCRIPTS),
        num_generations=2,
        num_generations_eval=1,
        max_completion_length=LIMITS.tokens,
        max_tool_calling_iterations=LIMITS.turns,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
    )
    rows = _rows(Suite(suite.tasks * len(SCRIPTS), suite.world, suite.functions))
    return ScriptedTrainer(
        script=Script(tokenizer, list(SCRIPTS.values()), LIMITS.tokens),
        suite=suite,
        world=more.pop("world", replayed(suite.world.replayer)),
        model=tiny_model(tokenizer),
        reward_funcs=more.pop("reward", Verified(suite, LIMITS, kind, 0)),
        args=settings,
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tokenizer,
        **more,
    )


def ours(suite: Suite) -> list[Rollout]:
    tokenizer = checked(byte_tokenizer(), "the test's")
    policy = ScriptedPolicy(tiny_model(tokenizer), Chat(tokenizer), name="scripted", temperature=0)
    policy.script = Script(tokenizer, list(SCRIPTS.values()), LIMITS.tokens)
    plan = Plan(samples=len(SCRIPTS), concurrency=len(SCRIPTS), limits=LIMITS)
    return evaluate(suite, replayed(suite.world.replayer), policy, plan).rollouts


def said(messages: list[Message]) -> list[Message]:
    return [
        {name: message[name] for name in ("role", "name", "content", "tool_calls") if message.get(name)}
        for message in messages
    ]


def test_training_and_evaluation_play_and_score_alike(suite: Suite, tmp_path: Path) -> None:
    found = trainer(suite, tmp_path)
    reward = found.reward_funcs[0]
    found.evaluate()
    for name, (_, theirs, score, given), mine in zip(SCRIPTS, reward.last, ours(suite), strict=True):
        after = mine.messages[2:]
        if mine.stop == "miss":
            # Ours ends there; TRL's goes on, and is not scored either.
            assert said(theirs)[: len(after)] == said(after), name
        elif mine.stop == "tokens":
            # TRL takes back results that have no room; what the model wrote is the same.
            wrote = [message for message in said(after) if message["role"] == "assistant"]
            assert [message for message in said(theirs) if message["role"] == "assistant"] == wrote, name
        else:
            assert said(theirs) == said(after), name
        assert given == score.reward == mine.reward, name
        if mine.stop != "miss":
            assert (score.right, score.fields) == (mine.right, mine.fields), name


def test_what_becomes_of_each(suite: Suite) -> None:
    found = {
        name: (each.stop, each.reward, [call.outcome for call in each.calls])
        for name, each in zip(SCRIPTS, ours(suite), strict=True)
    }
    assert found == {
        "solved": ("answer", 1.0, ["answered", "answered"]),
        "at once": ("answer", 1.0, ["answered", "answered"]),
        "wrong": ("answer", 0.0, ["answered"]),
        "no call": ("answer", 0.0, []),
        "no such tool": ("answer", 1.0, ["invalid"]),
        "no object": ("answer", 1.0, ["invalid"]),
        "a list": ("answer", 0.0, ["invalid"]),
        "no JSON": ("answer", 0.0, []),
        "no end of it": ("turns", 0.0, ["answered"] * 3),
        "never recorded": ("miss", None, ["miss"]),
        "without arguments": ("answer", 1.0, ["answered"]),
        "cut off": ("tokens", 0.0, ["answered"]),
        "words with it": ("answer", 1.0, ["answered"]),
    }


def test_the_prompt_has_the_schemas_as_they_were_recorded(suite: Suite, tmp_path: Path) -> None:
    found = trainer(suite, tmp_path)
    (name,) = found.environment_factories
    (task,) = suite.tasks
    listed = suite.world.entry(ToolRef("ledger", "get"))
    offered = {tool["function"]["name"]: tool["function"] for tool in found._env_tools[name]}
    assert offered["get"]["parameters"] == listed["inputSchema"]
    assert offered["get"]["description"] == listed["description"]
    assert sorted(offered) == sorted(tool.name for tool in [*task.tools, *task.distractors])


def test_a_bug_in_a_reward_stops_training(suite: Suite, tmp_path: Path) -> None:
    def broken(**_: Any) -> list[float]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        trainer(suite, tmp_path, reward=broken).evaluate()


def test_a_bug_in_a_replay_stops_training(suite: Suite, tmp_path: Path) -> None:
    from contextlib import nullcontext

    class Broken:
        def call(self, call: Any) -> None:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        trainer(suite, tmp_path, world=lambda task: nullcontext(Broken())).evaluate()


def test_what_follows_an_untrusted_answer_is_masked(suite: Suite, tmp_path: Path) -> None:
    plain = trainer(suite, tmp_path)
    plain.evaluate()
    masked = trainer(suite, tmp_path, min_trust_in_loss=0.5)
    # Nothing in this recording was repeated, so trust was not measured; it counts as trusted.
    masked.evaluate()
    assert masked.masks == plain.masks
    for rollout in masked.environments:
        rollout._attempts = [
            None if each is None else each.model_copy(update={"trust": 0.4}) for each in rollout._attempts
        ]
    completion = masked.reward_funcs[0].last[0][1]
    attempts = masked.environments[0]._attempts
    assert first_untrusted(completion, attempts, 0.5) == 0
    assert first_untrusted(completion, attempts, 0.3) is None
    assert environment_of(masked.environments[0]).calls[0].trust is None


def test_a_rollout_that_met_a_miss_is_not_in_the_loss(suite: Suite, tmp_path: Path) -> None:
    missed = list(SCRIPTS).index("never recorded")
    left = trainer(suite, tmp_path)
    left.evaluate()
    kept = trainer(suite, tmp_path, miss="keep")
    kept.evaluate()
    assert set(left.masks[missed]) == {0}
    assert len(left.masks[missed]) == len(kept.masks[missed])
    assert 1 in kept.masks[missed]
    others = [row for row in range(len(SCRIPTS)) if row != missed]
    assert [left.masks[row] for row in others] == [kept.masks[row] for row in others]


def made(trust: float | None) -> CallMade:
    return CallMade(name="get", tool=ToolRef("a", "get"), outcome="answered", trust=trust)


CALLS = {"role": "assistant", "tool_calls": [{}]}
TWO_CALLS = {"role": "assistant", "tool_calls": [{}, {}]}
TOLD = {"role": "tool", "content": ""}


@pytest.mark.parametrize(
    ("attempts", "round_"),
    [
        ([made(0.9), made(0.9), made(0.9)], None),
        ([made(0.9), made(0.9), made(0.1)], 1),
        ([made(0.9), made(0.1), made(0.9)], 0),
        ([None, made(None), made(0.1)], 1),
    ],
)
def test_a_round_is_untrusted_if_one_of_its_answers_is(
    attempts: list[CallMade | None], round_: int | None
) -> None:
    completion = [TWO_CALLS, TOLD, TOLD, CALLS, TOLD, {"role": "assistant", "content": "done"}]
    assert first_untrusted(completion, attempts, 0.5) == round_


@pytest.mark.parametrize(
    ("round_", "left"),
    [(0, [1, 1, 0, 0, 0, 0, 0, 0]), (1, [1, 1, 0, 0, 1, 0, 0, 0]), (2, [1, 1, 0, 0, 1, 0, 1, 1])],
)
def test_a_mask_ends_where_an_untrusted_answer_begins(round_: int, left: list[int]) -> None:
    assert masked_after([1, 1, 0, 0, 1, 0, 1, 1], round_) == left
