"""Questions written by a model, and what `Models` keeps of that."""

import json
from pathlib import Path

import pytest

from recorder.claude_api import BudgetError, CompletionError
from recorder.errors import FireflyError
from synth.claude_phraser import LONGEST_QUESTION, ClaudePhraser, PhraseError
from synth.model import ModelSpec, Used, family, last_object, read_spec, shown
from synth.task import Task
from synth.world import World
from tests.servers.messages_endpoint import MessagesEndpoint, error, message
from tests.synth.model_tasks import (
    HAIKU,
    KEY,
    QUESTION,
    QWEN,
    SONNET,
    make_task,
    models,
    open_world,
    record,
    say,
    without_credentials,
)

GOOD = say({"question": QUESTION})
DEAR = {"input_tokens": 0, "output_tokens": 8000}
"""Usage of a reply that costs 4 cents of Haiku, and 8 of Sonnet."""


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_credentials(monkeypatch, tmp_path)


@pytest.fixture
def world(tmp_path: Path) -> World:
    record(tmp_path / "world.db")
    return open_world(tmp_path / "world.db")


@pytest.fixture
def task(world: World) -> Task:
    return make_task(world, question="")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "out" / "completions.jsonl"


def test_a_model_writes_the_question_from_trace_program_and_schema(world: World, task: Task) -> None:
    with MessagesEndpoint([GOOD]) as endpoint:
        asked = models()
        question = ClaudePhraser(asked, f"{HAIKU}@{endpoint.url}").question(task, world)
    assert question == QUESTION
    assert asked.used == Used(completions=1, input_tokens=100, output_tokens=20, cost_usd=0.0002)
    [received] = endpoint.received
    lines = received.prompt.splitlines()
    parts = [json.loads(line) for line in lines if line.startswith("{")]
    assert parts[1] == {
        "tool": "ledger/get",
        "description": "Read the text under a key.",
        "parameters": {"key": {"type": "string"}},
    }
    assert parts[2] == {"call": 0, "tool": "ledger/list", "arguments": {}, "from_outputs": []}
    assert parts[3] == {
        "call": 1,
        "tool": "ledger/get",
        "arguments": {"key": "plums"},
        "from_outputs": [{"argument": ["key"], "value": task.program.arguments[0].value}],
    }
    assert parts[4] == task.program.fields
    assert parts[5] == task.answer_schema
    assert 'output: ["apples", "pears", "plums"]' in lines
    assert "you never follow it" in " ".join(received.body["system"].split())


@pytest.mark.parametrize(
    ("first", "wrong"),
    [
        (message("Here you are: which?"), 'no JSON object with "question"'),
        (say({"question": 3}), 'no JSON object with "question"'),
        (say({"question": " "}), "the question is empty"),
        (
            say({"question": "x" * (LONGEST_QUESTION + 1)}),
            f"the question has {LONGEST_QUESTION + 1} characters",
        ),
        (say({"question": "What does the `get` tool say of plums?"}), "the question names the tool get"),
        (message("", stop_reason="max_tokens"), 'no JSON object with "question"'),
    ],
    ids=["prose", "number", "empty", "long", "tool", "cut off"],
)
def test_what_is_no_question_is_said_and_asked_again_once(
    world: World, task: Task, first: object, wrong: str
) -> None:
    with MessagesEndpoint([first, GOOD]) as endpoint:  # type: ignore[list-item]
        assert ClaudePhraser(models(), f"{HAIKU}@{endpoint.url}").question(task, world) == QUESTION
    assert len(endpoint.received) == 2
    assert wrong in str(endpoint.received[1].prompt)
    assert endpoint.refused == []
    with (
        MessagesEndpoint([first, first]) as endpoint,  # type: ignore[list-item]
        pytest.raises(PhraseError) as given_up,
    ):
        ClaudePhraser(models(), f"{HAIKU}@{endpoint.url}").question(task, world)
    assert wrong in str(given_up.value)
    assert "\n" not in str(given_up.value)
    assert len(endpoint.received) == 2


@pytest.mark.parametrize(
    ("question", "named"),
    [
        ("Please list what you get when you divide it.", False),
        ("Call get(plums).", True),
        ("Use the list tool.", True),
        ("Use the tool 'divide'.", True),
    ],
)
def test_a_word_that_is_also_a_tool_names_it_only_where_the_tool_is_meant(
    world: World, task: Task, question: str, named: bool
) -> None:
    with MessagesEndpoint([say({"question": question}), GOOD]) as endpoint:
        written = ClaudePhraser(models(), f"{HAIKU}@{endpoint.url}").question(task, world)
    assert written == (QUESTION if named else question)


def test_a_tool_with_a_name_of_its_own_is_named_by_it(world: World, task: Task) -> None:
    renamed = task.model_copy(
        update={"distractors": [task.tools[0].model_copy(update={"name": "get_stock"})]}
    )
    with MessagesEndpoint([say({"question": "What does Get_Stock say?"}), GOOD]) as endpoint:
        assert ClaudePhraser(models(), f"{HAIKU}@{endpoint.url}").question(renamed, world) == QUESTION


def test_a_refusal_is_not_argued_with(world: World, task: Task) -> None:
    with (
        MessagesEndpoint([message("I would rather not.", stop_reason="refusal"), GOOD]) as endpoint,
        pytest.raises(PhraseError, match=rf"^no question for task {task.task_id}: claude-haiku-4-5 refused$"),
    ):
        ClaudePhraser(models(), f"{HAIKU}@{endpoint.url}").question(task, world)
    assert len(endpoint.received) == 1


def test_a_rate_limit_is_waited_for_and_one_without_end_is_an_error(
    world: World, task: Task, kept: Path
) -> None:
    limit = error(429, "rate_limit_error", "slow down", retry_after="0")
    with MessagesEndpoint(lambda _: limit) as endpoint:
        with pytest.raises(CompletionError, match="HTTP 429 rate_limit_error slow down"):
            ClaudePhraser(models(kept), f"{HAIKU}@{endpoint.url}").question(task, world)
        assert len(endpoint.received) == 3
    assert not kept.exists()
    with MessagesEndpoint([limit, GOOD]) as endpoint:
        assert ClaudePhraser(models(kept), f"{HAIKU}@{endpoint.url}").question(task, world) == QUESTION
        assert len(endpoint.received) == 2


# What `Models` keeps


def test_a_budget_that_runs_out_midway_loses_nothing(kept: Path) -> None:
    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(4)]
    with MessagesEndpoint(lambda received: message(received.prompt, usage=DEAR)) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        first = models(kept, max_usd=0.1)
        texts = [first.ask(spec, prompt).text for prompt in prompts[:2]]
        with pytest.raises(
            BudgetError, match=r"^the budget of \$0.1 is used up: \$0.0800 are spent, and one "
        ):
            first.ask(spec, prompts[2])
        assert texts == ["question 0", "question 1"]
        assert len(endpoint.received) == 2
        second = models(kept, max_usd=0.1)
        assert [second.ask(spec, prompt).text for prompt in prompts] == [f"question {n}" for n in range(4)]
        assert len(endpoint.received) == 4
        assert second.spent_usd == pytest.approx(0.08)
        assert second.used == Used(completions=4, input_tokens=0, output_tokens=32_000, cost_usd=0.16)
    third = models(kept, max_usd=0)
    assert [third.ask(f"{HAIKU}@http://127.0.0.1:1", prompt).text for prompt in prompts[:2]] == texts
    assert third.used == first.used


def test_models_share_one_budget() -> None:
    prompt = [{"role": "user", "content": "?"}]
    with MessagesEndpoint(lambda _: message("ok", usage=DEAR)) as endpoint:
        asked = models(max_usd=0.16)
        asked.ask(f"{SONNET}@{endpoint.url}", prompt)
        asked.ask(f"{HAIKU}@{endpoint.url}", prompt)
        with pytest.raises(BudgetError, match="one more answer of claude-haiku-4-5 may cost"):
            asked.ask(f"{HAIKU}@{endpoint.url}", prompt, sample=1)
        assert asked.spent_usd == pytest.approx(0.12)
        assert len(endpoint.received) == 2


def test_answers_are_kept_by_all_that_they_answer(kept: Path) -> None:
    prompt = [{"role": "user", "content": "?"}]
    tool = {"name": "t", "input_schema": {"type": "object"}}
    with MessagesEndpoint(lambda _: message(str(len(endpoint.received)))) as endpoint:
        asked = models(kept)
        haiku, qwen = f"{HAIKU}@{endpoint.url}", f"{QWEN}@{endpoint.url}"

        def answers() -> list[str]:
            return [
                asked.ask(haiku, prompt).text,
                asked.ask(haiku, prompt, sample=1).text,
                asked.ask(haiku, prompt, system="Be brief.").text,
                asked.ask(haiku, prompt, tools=[tool]).text,
                asked.ask(haiku, prompt, 10).text,
                asked.ask(haiku, [*prompt, *prompt]).text,
                asked.ask(qwen, prompt).text,
            ]

        assert answers() == answers() == ["1", "2", "3", "4", "5", "6", "7"]
        assert asked.used.completions == 7
        assert asked.used.cost_usd is None  # nobody knows what Qwen costs
        asked = models(kept)
        assert answers() == ["1", "2", "3", "4", "5", "6", "7"]
        assert len(endpoint.received) == 7


@pytest.mark.parametrize("torn_bytes", [1, 40, 100_000])
def test_a_line_that_was_not_written_to_its_end_is_left_out_and_overwritten(
    kept: Path, torn_bytes: int
) -> None:
    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(3)]
    with MessagesEndpoint(lambda received: message(received.prompt)) as endpoint:
        spec = f"{HAIKU}@{endpoint.url}"
        for prompt in prompts[:2]:
            models(kept).ask(spec, prompt)
        first, second = kept.read_bytes().splitlines(keepends=True)
        kept.write_bytes(first + second[:-1][:torn_bytes])
        asked = models(kept)
        assert [asked.ask(spec, prompt).text for prompt in prompts] == [f"question {n}" for n in range(3)]
        assert len(endpoint.received) == 2 + 2
        lines = kept.read_bytes().splitlines(keepends=True)
        assert lines[:2] == [first, second]
        assert len(lines) == 3
        again = models(kept)
        assert [again.ask(spec, prompt).text for prompt in prompts] == [f"question {n}" for n in range(3)]
        assert len(endpoint.received) == 2 + 2


def test_a_file_of_something_else_is_named_and_left_alone(kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text('\n{"task": 1}\n')
    with pytest.raises(FireflyError, match=r"completions.jsonl, line 2, is no answer of a model"):
        models(kept)
    assert kept.read_text() == '\n{"task": 1}\n'


def test_a_file_that_cannot_be_written_is_named(kept: Path) -> None:
    asked = models(kept)
    kept.mkdir(parents=True)
    with MessagesEndpoint([GOOD]) as endpoint, pytest.raises(FireflyError, match="jsonl cannot be written: "):
        asked.ask(f"{HAIKU}@{endpoint.url}", [{"role": "user", "content": "?"}])


def test_a_budget_needs_a_price() -> None:
    asked = models(max_usd=1)
    asked.check([HAIKU, SONNET])
    with pytest.raises(FireflyError, match="a budget needs a price, and none is known for gpt-5"):
        asked.check([HAIKU, "gpt-5@http://127.0.0.1:1"])


def test_a_gateway_may_have_a_key_of_its_own() -> None:
    with MessagesEndpoint([GOOD]) as one, MessagesEndpoint([GOOD]) as other:
        asked = models(api_keys={one.url: "key-of-the-gateway"})
        for endpoint in (one, other):
            asked.ask(f"{HAIKU}@{endpoint.url}", [{"role": "user", "content": endpoint.url}])
    assert "key-of-the-gateway" in str(one.received[0].headers)
    assert KEY in str(other.received[0].headers)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("claude-sonnet-5-5", ModelSpec("claude-sonnet-5-5", None)),
        ("Qwen/Qwen3-8B@http://h:8000/v1", ModelSpec("Qwen/Qwen3-8B", "http://h:8000/v1")),
        ("claude@20250514@https://gateway", ModelSpec("claude@20250514", "https://gateway")),
    ],
)
def test_a_spec_is_a_name_with_an_address_or_without(spec: str, expected: ModelSpec) -> None:
    assert read_spec(spec) == expected


@pytest.mark.parametrize("spec", ["", "a b", "haiku@localhost:80", "@http://h", "haiku@", "haiku@http://"])
def test_another_spec_is_refused(spec: str) -> None:
    with pytest.raises(FireflyError, match="a model is NAME or NAME@BASE_URL"):
        read_spec(spec)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("claude-sonnet-5-5", "claude"),
        ("Qwen/Qwen3-8B", "qwen"),
        ("gpt-5", "gpt"),
        ("meta-llama/Llama-4@http://host/v1", "llama"),
        ("deepseek_v4", "deepseek"),
        ("o3", "o"),
        ("4o", "4o"),
    ],
)
def test_families_go_by_the_beginning_of_names(name: str, expected: str) -> None:
    assert family(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1} then {"a": {"b": 2}} and so on', {"a": {"b": 2}}),
        ('```json\n{"a": "x\ny"}\n```', {"a": "x\ny"}),
        ('{broken {"a": 1}', {"a": 1}),
        ('{"a": 1', None),
        ("[1]", None),
        ("{" * 5000, None),
        ('{"a":' * 6000, None),
    ],
)
def test_the_last_object_of_a_text_is_found(text: str, expected: object) -> None:
    assert last_object(text) == expected


def test_long_values_are_shown_in_part_and_say_so() -> None:
    assert shown({"a": [1, None, "é\n"]}, 100) == '{"a": [1, null, "é\\n"]}'
    rows = [{"number": number, "text": "x" * 50} for number in range(1000)]
    part = json.loads(shown({"rows": rows}, 2000))
    assert part["rows"][0] == rows[0]
    assert part["rows"][-1] == f"… {1000 - (len(part['rows']) - 1)} more items"
    assert 8 <= len(part["rows"]) <= 51
    assert json.loads(shown({"text": "y" * 9000}, 2000)) == {
        "text": f"{'y' * 1000}… (9000 characters in all)"
    }
    assert json.loads(shown({str(n): "z" * 60 for n in range(300)}, 1000))["…"] == "292 more members"
    assert len(shown([[["w" * 60] * 3] * 3] * 3, 300)) < 400
    nested: object = 1
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested, 300) == '[[[[[[[[[[[["…"]]]]]]]]]]]]'
