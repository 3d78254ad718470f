"""A model of transformers as a policy: what it draws, what it is shown, and who waits for whom."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import anyio
import pytest

torch = pytest.importorskip("torch")

from recorder.errors import FireflyError  # noqa: E402
from tests.train.ledger_rollouts import LISTED, RIGHT, Stage, staged  # noqa: E402
from tests.train.scripted_model import TEMPLATE, byte_tokenizer, call  # noqa: E402
from tests.train.tiny_chat_model import chat_model, chat_tokenizer, saved  # noqa: E402
from train.chat import Chat, checked, load_tokenizer  # noqa: E402
from train.environment import TOO_DEEP, Environment, replayed, tools_of  # noqa: E402
from train.evaluate import Plan, evaluate  # noqa: E402
from train.local_policy import LocalPolicy, _Sampled  # noqa: E402
from train.models import base_of, check_size, load, parameters  # noqa: E402
from train.policies import make  # noqa: E402
from train.policy import Reply, Seat  # noqa: E402
from train.rollout import Limits, Rollout  # noqa: E402
from train.suite import Suite  # noqa: E402

T = TypeVar("T")

WRONG = '{"name": "figs", "amount": 0}'
PHRASES = [
    call("list", "{}"),
    call("get", '{"key": "plums"}'),
    call("get", '{"key": "figs"}'),
    call("get", '{"key": "quinces"}'),
    call("lookup", "{}"),
    call("get", "[1]"),
    call("list", "{}") + "\n" + call("get", '{"key": "plums"}'),
    "<tool_call>\n{broken\n</tool_call>",
    RIGHT,
    WRONG,
]
LIMITS = Limits(turns=4, tokens=900)
SAMPLES = 16


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("ledger") / "world.db")


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(checked(chat_tokenizer(PHRASES), "tiny"))


@pytest.fixture(scope="module")
def model(chat: Chat) -> Any:
    return chat_model(chat.tokenizer, PHRASES)


def in_time(played: Callable[[], T], seconds: float = 60) -> T:
    """Return what a function does, and fail where it does not end."""
    found: list[T | BaseException] = []

    def run() -> None:
        try:
            found.append(played())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def rollouts(
    stage: Stage, policy: LocalPolicy, *, limits: Limits = LIMITS, **plan: Any
) -> tuple[list[Rollout], list[Rollout]]:
    """Return the rollouts of the task in their order, and as they ended."""
    suite = Suite((stage.task,), stage.world, stage.functions)
    ended: list[Rollout] = []
    how = Plan(**{"samples": SAMPLES, "limits": limits, **plan})
    played = in_time(lambda: evaluate(suite, replayed(stage.world.replayer), policy, how, keep=ended.append))
    assert played.stopped is None
    return untimed(played.rollouts), untimed(ended)


def untimed(found: Sequence[Rollout]) -> list[Rollout]:
    return [rollout.model_copy(update={"seconds": 0.0}) for rollout in found]


def seats(stage: Stage, seeds: Sequence[int], max_tokens: int) -> list[Seat]:
    class Nobody:
        def call(self, _: object) -> None:
            return None

    return [
        Seat(number, seed, max_tokens, Environment(stage.task, stage.functions, Nobody()))
        for number, seed in enumerate(seeds)
    ]


def first_messages(
    policy: LocalPolicy, taken: Sequence[Seat], said: Callable[[Seat], str] = lambda seat: "Hi"
) -> list[Reply | BaseException]:
    """Return the first message of each seat, all asked for at once, or what was raised instead."""
    found: dict[int, Reply | BaseException] = {}

    async def ask(seat: Seat) -> None:
        try:
            found[seat.number] = await policy.act([{"role": "user", "content": said(seat)}], [], seat)
        except BaseException as error:
            found[seat.number] = error

    async def all_of_them() -> None:
        policy.under_way(len(taken))
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                for seat in taken:
                    group.start_soon(ask, seat)

    anyio.run(all_of_them)
    return [found[seat.number] for seat in taken]


# What others are under way makes no difference


def test_a_rollout_does_not_depend_on_its_batch(stage: Stage, chat: Chat, model: Any) -> None:
    policy = LocalPolicy(model, chat, name="tiny")
    alone, ended = rollouts(stage, policy, concurrency=1)
    assert ended == alone
    # Rollouts of all kinds: ones with several turns, and ones that end in each way.
    assert {rollout.stop for rollout in alone} == {"answer", "miss", "turns"}
    assert {call.outcome for rollout in alone for call in rollout.calls} == {
        "answered",
        "error",
        "invalid",
        "miss",
    }
    assert len({len(rollout.messages) for rollout in alone}) > 2
    assert len({json.dumps(rollout.messages) for rollout in alone}) > SAMPLES // 3
    for concurrency in (5, 100):
        together, _ = rollouts(stage, policy, concurrency=concurrency)
        assert together == alone, concurrency


def test_tokens_do_not_depend_on_what_stands_in_other_rows(stage: Stage, chat: Chat, model: Any) -> None:
    """So warm that all bytes are drawn, on prompts of very different lengths."""
    policy = LocalPolicy(model, chat, name="tiny", temperature=20)
    together, alone = seats(stage, range(6), 40), seats(stage, range(6), 40)

    def said(seat: Seat) -> str:
        return "Hi" * (1 + 60 * seat.number)

    first_messages(policy, together, said)
    for seat in alone:
        first_messages(policy, [seat], said)
    assert [seat.kept for seat in together] == [seat.kept for seat in alone]
    assert len({tuple(seat.kept.completion) for seat in together}) == 6


def test_each_turn_has_a_chance_of_its_own(stage: Stage, chat: Chat, model: Any) -> None:
    """With a temperature that makes all tokens alike, the same chance would be the same tokens."""
    policy = LocalPolicy(model, chat, name="tiny", temperature=1e6)
    [seat] = seats(stage, [3], 8)
    first_messages(policy, [seat])
    first = list(seat.kept.completion)
    seat.max_tokens = 300
    result = {"role": "tool", "name": "list", "content": LISTED}
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x"}, result]
    anyio.run(policy.act, said, [], seat)
    between = chat.suffix_ids([result])
    assert seat.kept.completion[:8] == first
    assert seat.kept.completion[8 : 8 + len(between)] == between
    assert seat.kept.completion[8 + len(between) :][:8] != first


def test_another_seed_is_another_chance(stage: Stage, chat: Chat, model: Any) -> None:
    policy = LocalPolicy(model, chat, name="tiny")
    first, second = (rollouts(stage, policy, seed=seed, samples=6)[0] for seed in (0, 1))
    assert first != second
    again, _ = rollouts(stage, LocalPolicy(model, chat, name="tiny"), seed=1, samples=6)
    assert again == second


def test_without_temperature_chance_has_no_part(stage: Stage, chat: Chat, model: Any) -> None:
    policy = LocalPolicy(model, chat, name="tiny", temperature=0)
    found, _ = rollouts(stage, policy, samples=4)
    assert len({json.dumps(rollout.messages) for rollout in found}) == 1
    [prompt] = {tuple(chat.prompt_ids([{"role": "user", "content": "Hi"}], []))}
    expected = model.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    [seat] = seats(stage, [1], 20)
    first_messages(policy, [seat])
    assert seat.kept.completion == expected[0, len(prompt) :].tolist()
    with pytest.raises(ValueError, match="temperature must not be negative, got -1"):
        LocalPolicy(model, chat, name="tiny", temperature=-1)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_tokens_are_drawn_as_often_as_the_model_gives_them(
    stage: Stage, chat: Chat, model: Any, temperature: float
) -> None:
    """Pearson's chi-square over the tokens of which five or more are expected, the others put together."""
    draws = 2000
    policy = LocalPolicy(model, chat, name="tiny", temperature=temperature)
    taken = seats(stage, [2**40 + 977 * number for number in range(draws)], 1)
    first_messages(policy, taken)
    drawn = Counter(seat.kept.completion[0] for seat in taken)
    prompt = chat.prompt_ids([{"role": "user", "content": "Hi"}], [])
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    expected = (torch.softmax(logits / temperature, -1) * draws).tolist()
    often = [token for token, count in enumerate(expected) if count >= 5]
    assert len(often) >= 5
    pairs = [(drawn[token], expected[token]) for token in often]
    seldom = draws - sum(count for count, _ in pairs), draws - sum(count for _, count in pairs)
    pairs += [seldom] if seldom[1] > 1 else []
    chi_square = sum((seen - meant) ** 2 / meant for seen, meant in pairs)
    # Far in the tail for each number of cells: mean plus five standard deviations.
    freedom = len(pairs) - 1
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5


# Who waits for whom


@pytest.mark.parametrize("tokens", [1, 40, 120, 900])
def test_a_batch_completes_whatever_ends_first(stage: Stage, chat: Chat, model: Any, tokens: int) -> None:
    policy = LocalPolicy(model, chat, name="tiny")
    found, ended = rollouts(stage, policy, limits=Limits(turns=2, tokens=tokens), concurrency=7)
    assert len(found) == len(ended) == SAMPLES
    assert all(rollout.completion_tokens <= tokens for rollout in found)
    if tokens == 1:
        assert {rollout.stop for rollout in found} == {"tokens"}


def test_a_rollout_without_room_keeps_nobody_waiting(stage: Stage, chat: Chat) -> None:
    """The prompt alone is longer than what the model can take."""
    policy = LocalPolicy(chat_model(chat.tokenizer, PHRASES, longest=200), chat, name="tiny")
    found, _ = rollouts(stage, policy, samples=3)
    assert {(rollout.stop, rollout.reward, len(rollout.messages)) for rollout in found} == {
        ("tokens", 0.0, 2)
    }


def test_the_context_of_the_model_is_a_limit_too(stage: Stage, chat: Chat) -> None:
    prompt = len(chat.prompt_ids([{"role": "user", "content": "Hi"}], []))
    policy = LocalPolicy(chat_model(chat.tokenizer, PHRASES, longest=prompt + 1), chat, name="tiny")
    [seat] = seats(stage, [3], 50)
    [reply] = first_messages(policy, [seat])
    assert isinstance(reply, Reply)
    assert (reply.completion_tokens, reply.truncated) == (1, True)


def test_each_rollout_of_a_batch_has_its_own_room(stage: Stage, chat: Chat, model: Any) -> None:
    policy = LocalPolicy(model, chat, name="tiny", temperature=1e6)
    taken = seats(stage, range(3), 0)
    for seat, room in zip(taken, (3, 17, 40), strict=True):
        seat.max_tokens = room
    replies = first_messages(policy, taken)
    assert [len(seat.kept.completion) for seat in taken] == [3, 17, 40]
    assert all(isinstance(reply, Reply) and reply.truncated for reply in replies)


def test_what_tools_return_counts_against_the_tokens(stage: Stage, chat: Chat, model: Any) -> None:
    found, _ = rollouts(stage, LocalPolicy(model, chat, name="tiny"), limits=Limits(tokens=60))
    cut = [rollout for rollout in found if rollout.stop == "tokens"]
    assert cut
    assert all(rollout.messages[-1]["role"] == "tool" for rollout in cut)
    assert all(rollout.completion_tokens < 20 for rollout in cut)


def test_an_exception_in_the_model_reaches_every_rollout_and_ends_the_run(
    stage: Stage, chat: Chat, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: Any) -> None:
        raise RuntimeError("the weights are on fire")

    policy = LocalPolicy(model, chat, name="tiny")
    monkeypatch.setattr(model, "generate", broken)
    raised = first_messages(policy, seats(stage, range(5), 10))
    assert [str(error) for error in raised] == ["the weights are on fire"] * 5
    with pytest.raises(RuntimeError, match="on fire"):
        rollouts(stage, policy)
    monkeypatch.undo()
    found, _ = rollouts(stage, policy)
    assert len(found) == SAMPLES


def test_a_gpu_that_is_full_is_said_in_a_line(
    stage: Stage, chat: Chat, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(model, "generate", full)
    with pytest.raises(FireflyError, match=r"no room for 16 rollouts at once: .*--concurrency"):
        rollouts(stage, LocalPolicy(model, chat, name="tiny"))


def test_the_model_is_put_back_as_it_was(stage: Stage, chat: Chat, model: Any) -> None:
    for training in (True, False):
        model.train(training)
        first_messages(LocalPolicy(model, chat, name="tiny"), seats(stage, [1], 5))
        assert model.training is training


def test_the_defaults_of_a_checkpoint_change_nothing(
    stage: Stage, chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as Qwen's own top_p and top_k, which training does not know of."""
    plain, tuned = (chat_model(chat.tokenizer, PHRASES) for _ in range(2))
    written = []
    tuned.generation_config.do_sample = True
    tuned.generation_config.top_k, tuned.generation_config.top_p = 1, 0.1
    tuned.generation_config.temperature, tuned.generation_config.repetition_penalty = 0.1, 5.0
    tuned.generation_config.no_repeat_ngram_size, tuned.generation_config.min_new_tokens = 1, 4
    for model in (plain, tuned):
        taken = seats(stage, range(40), 5)
        first_messages(LocalPolicy(model, chat, name="tiny"), taken)
        written.append([seat.kept.completion for seat in taken])
    assert written[0] == written[1]
    assert tuned.generation_config.top_k == 1
    assert capsys.readouterr().err == ""


# Messages


def parsed(chat: Chat, text: str) -> Any:
    prefix = chat.prompt_ids([{"role": "user", "content": "Hi"}], [])
    return chat.parse(list(chat.tokenizer(text)["input_ids"]), prefix, [])


def test_a_call_is_read_as_the_template_writes_it(chat: Chat) -> None:
    message = parsed(chat, f"Let me look.\n{call('get', json.dumps({'key': 'plums'}))}<|im_end|>")
    assert message["content"].strip() == "Let me look."
    function = {"name": "get", "arguments": {"key": "plums"}}
    assert message["tool_calls"] == [{"type": "function", "function": function}]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n{broken\n</tool_call>",
        "<tool_call>\n[1]\n</tool_call>",
        "<tool_call>\nnull\n</tool_call>",
        '<tool_call>\n{"name": 3, "arguments": {}}\n</tool_call>',
        "</tool_call>",
        "\ufffd",
        call("get", '{"key": ' + "[" * 5000 + "]" * 5000 + "}"),
        call("get", '{"key": ' + "9" * 5000 + "}"),
    ],
)
def test_a_malformed_call_is_plain_text(chat: Chat, text: str) -> None:
    message = parsed(chat, f"{text}<|im_end|>")
    assert message == {"role": "assistant", "content": text}


def test_arguments_that_are_too_deep_are_not_kept(chat: Chat) -> None:
    [made] = parsed(chat, call("get", '{"key": ' + "[" * 150 + "]" * 150 + "}"))["tool_calls"]
    assert made["function"] == {"name": "get", "arguments": TOO_DEEP}


def test_the_results_of_a_message_stand_between_it_and_the_next(chat: Chat) -> None:
    results = [{"role": "tool", "name": name, "content": name.upper()} for name in ("list", "get")]
    assert chat.tokenizer.decode(chat.suffix_ids(results)) == (
        "\n<|im_start|>user\n<tool_response>\nLIST\n</tool_response>\n<tool_response>\nGET\n</tool_response>"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_the_model_wrote_is_never_tokenised_again(stage: Stage, chat: Chat, model: Any) -> None:
    """Its tokens followed by those of the results are the whole conversation as it was generated."""
    suite = Suite((stage.task,), stage.world, stage.functions)
    policy = LocalPolicy(model, chat, name="tiny")
    kept: list[Any] = []
    act = policy.act

    async def watched(messages: Any, tools: Any, seat: Seat) -> Reply:
        reply = await act(messages, tools, seat)
        kept.append((list(messages), reply, list(seat.kept.prompt), list(seat.kept.completion)))
        return reply

    policy.act = watched  # type: ignore[method-assign]
    evaluate(suite, replayed(stage.world.replayer), policy, Plan(samples=8, limits=LIMITS))
    later = [each for each in kept if len(each[0]) > 2 and each[1].message is not None]
    assert later
    for messages, reply, prompt, completion in later:
        assert prompt == chat.prompt_ids(messages[:2], tools_of(stage.task, stage.functions))
        text = chat.tokenizer.decode(completion)
        assert text.count("<|im_start|>assistant\n") == sum(m["role"] == "assistant" for m in messages)
        for message in messages:
            if message["role"] == "tool":
                assert f"<tool_response>\n{message['content']}\n</tool_response>" in text
        assert reply.prompt_tokens == len(prompt) + len(completion) - reply.completion_tokens


# Models that cannot be used


def test_a_tokenizer_is_checked_and_can_be_loaded(tmp_path: Path) -> None:
    saved(tmp_path, PHRASES)
    tokenizer = load_tokenizer(str(tmp_path))
    assert parsed(Chat(tokenizer), PHRASES[0])["tool_calls"]
    assert parameters(str(tmp_path)) == sum(weight.numel() for weight in load(str(tmp_path)).parameters())


def test_a_template_that_knows_no_tools_cannot_be_used() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(FireflyError, match=r"^it has no chat template: a model for tool use is needed"):
        checked(tokenizer, "it")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    with pytest.raises(FireflyError, match=r"^it has a chat template without tools: a model for tool use"):
        checked(tokenizer, "it")


def test_a_template_whose_calls_nobody_can_read_says_what_to_do() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE.read_text().replace("<tool_call>", "<call>")
    with pytest.raises(FireflyError, match="not known how it writes its calls: set response_template"):
        checked(tokenizer, "it")


def test_a_model_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        FireflyError, match=f"no model {tmp_path}: a folder with a checkpoint cannot be loaded"
    ):
        check_size(str(tmp_path))
    with pytest.raises(FireflyError, match=f"no model {tmp_path / 'none'}: "):
        check_size(str(tmp_path / "none"))
    with pytest.raises(FireflyError, match=f"no tokenizer in {tmp_path}: "):
        load_tokenizer(str(tmp_path))


def test_a_large_model_is_refused_without_a_gpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "config.json").write_text(json.dumps(LARGE))
    with pytest.raises(FireflyError, match=r"has 4.0 billion parameters, and this machine has no GPU"):
        check_size(str(tmp_path))
    assert parameters(str(tmp_path)) == 4_022_468_096


def test_the_base_of_an_adapter_is_found(tmp_path: Path) -> None:
    assert base_of(str(tmp_path)) == str(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert base_of(str(tmp_path)) == "org/base"
    for broken in ("{}", "[]", "no json"):
        (tmp_path / "adapter_config.json").write_text(broken)
        with pytest.raises(FireflyError, match="does not name the model"):
            base_of(str(tmp_path))


def test_an_adapter_is_played_merged_into_its_base(stage: Stage, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = saved(tmp_path / "base", PHRASES)
    adapted = peft.get_peft_model(
        load(str(base)), peft.LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path / "adapter")
    load_tokenizer(str(base)).save_pretrained(tmp_path / "adapter")
    taken = [seats(stage, range(20), 4) for _ in range(3)]
    expected = adapted.merge_and_unload()
    policies = [
        make("local", str(tmp_path / "adapter")),
        LocalPolicy(expected, Chat(load_tokenizer(str(base))), name="merged"),
        make("local", str(base)),
    ]
    for policy, each in zip(policies, taken, strict=True):
        assert isinstance(policy, LocalPolicy)
        first_messages(policy, each)
    merged, same, without = ([seat.kept.completion for seat in each] for each in taken)
    assert merged == same != without


LARGE = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
"""The shape of Qwen3-4B."""


def test_a_model_that_computes_no_numbers_ends_the_run() -> None:
    sampled = _Sampled(1.0, [Random(0)])
    with pytest.raises(FireflyError, match="computes no numbers"):
        sampled(torch.zeros(1, 1, dtype=torch.long), torch.tensor([[0.0, float("nan")]]))
