"""What a rollout is worth."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recorder.exchange import Json
from synth.answers import answer_schema, field_schema, list_schema
from synth.task import Task
from tests.train import made_rollouts
from tests.train.made_rollouts import ANSWERED, MISS, READ
from train.environment import CallMade
from train.reward import Score, score

FIELDS = {
    "name": field_schema("text", "what it is called"),
    "count": field_schema("number", "how many", whole=True),
    "price": field_schema("number", "what it costs", "EUR"),
    "due": field_schema("date", "when it is due"),
    "sent": field_schema("date", "when it was sent"),
    "open": field_schema("boolean", "whether it is open"),
    "tags": list_schema("text", "what it is filed under", ordered=False),
    "steps": list_schema("number", "in order", ordered=True, whole=True),
}
ANSWER: dict[str, Json] = {
    "name": "Café Nord",
    "count": 12,
    "price": 99.5,
    "due": "2024-03-01",
    "sent": "2024-03-01T12:00:00Z",
    "open": True,
    "tags": ["red", "blue", "red"],
    "steps": [3, 1, 2],
}


@pytest.fixture(scope="module")
def task() -> Task:
    return made_rollouts.task("typed").model_copy(
        update={"answer_schema": answer_schema(FIELDS), "answer": ANSWER}
    )


def of_answer(task: Task, answer: Json, **settings: Any) -> Score:
    return of_text(task, json.dumps(answer), **settings)


def of_text(task: Task, text: str, calls: list[CallMade] | None = None, **settings: Any) -> Score:
    return score(task, [{"role": "assistant", "content": text}], calls or [ANSWERED], **settings)


def test_the_right_answer_is_worth_one(task: Task) -> None:
    assert of_answer(task, ANSWER) == Score(
        reward=1.0, right=True, fields=dict.fromkeys(ANSWER, True), trust=0.9
    )


SAME: list[tuple[str, Json]] = [
    ("name", " café  NORD\n"),
    ("name", '"Cafe\u0301 Nord"'),
    ("count", 12.0),
    ("count", "12"),
    ("price", 99.51),
    ("price", 99.49),
    ("price", "99.50"),
    ("due", "2024-03-01 "),
    ("sent", "2024-03-01T13:00:00+01:00"),
    ("tags", ["RED", "red", "Blue"]),
    ("steps", [3, 1.0, 2]),
]
OTHER: list[tuple[str, Json]] = [
    ("name", "Cafe Nord"),
    ("name", "Café Nord, Oslo"),
    ("name", ["Café Nord"]),
    ("name", None),
    ("count", 12.005),
    ("count", 13),
    ("count", True),
    ("count", None),
    ("count", 10**400),
    ("count", float("inf")),
    ("count", float("nan")),
    ("price", 99.52),
    ("price", "99.5 EUR or so"),
    ("price", 10**60),
    ("due", "2024-03-02"),
    ("due", "2024-03-01T00:00:00Z"),
    ("due", 20240301),
    ("sent", "2024-03-01T13:00:00Z"),
    ("sent", "2024-03-01"),
    ("open", "true"),
    ("open", 1),
    ("open", False),
    ("tags", ["red", "blue"]),
    ("tags", ["red", "blue", "blue"]),
    ("tags", "red"),
    ("steps", [1, 2, 3]),
    ("steps", [3, 1]),
    ("steps", {"0": 3, "1": 1, "2": 2}),
]


@pytest.mark.parametrize(("field", "value"), SAME)
def test_a_value_may_be_written_otherwise(task: Task, field: str, value: Json) -> None:
    assert of_answer(task, {**ANSWER, field: value}).reward == 1.0


@pytest.mark.parametrize(("field", "value"), OTHER)
def test_another_value_is_wrong_in_its_field_alone(task: Task, field: str, value: Json) -> None:
    found = of_answer(task, {**ANSWER, field: value})
    assert (found.reward, found.right) == (0.0, False)
    assert found.fields == {name: name != field for name in ANSWER}


def test_a_field_that_is_missing_or_was_not_asked_for_is_wrong(task: Task) -> None:
    less = of_answer(task, {name: value for name, value in ANSWER.items() if name != "open"})
    assert (less.reward, less.fields["open"]) == (0.0, False)
    more = of_answer(task, {**ANSWER, "note": "sure"})
    assert (more.reward, more.fields) == (0.0, {**dict.fromkeys(ANSWER, True), "note": False})


@pytest.mark.parametrize(
    ("form", "reward"),
    [
        ("{}", 1.0),
        ("```json\n{}\n```", 1.0),
        ("```\n{}\n```", 1.0),
        ("I looked it up. The answer is {} as asked.", 1.0),
        ('Not {{"name": 1}}, but:\n```json\n{}\n```\nin the schema {{"type": "object"}}.', 1.0),
        ('{} or {{"name": "x"}}', 0.0),
        ("[{}]", 0.0),
        ("Café Nord", 0.0),
        ("", 0.0),
    ],
)
def test_the_answer_may_be_bare_fenced_or_within_prose(task: Task, form: str, reward: float) -> None:
    text = form.replace("{}", json.dumps(ANSWER)).replace("{{", "{").replace("}}", "}")
    assert of_text(task, text).reward == reward


def test_only_the_last_message_counts(task: Task) -> None:
    right = {"role": "assistant", "content": json.dumps(ANSWER)}
    result = {"role": "tool", "name": "read", "content": json.dumps(ANSWER)}
    calling = {**right, "tool_calls": [{"function": {"name": "read", "arguments": {}}}]}
    for messages in ([], [right, result], [calling], [right, {"role": "assistant", "content": "Hm."}]):
        found = score(task, messages, [])
        assert (found.reward, found.right) == (0.0, False)
        assert not any(found.fields.values())
    assert score(task, [calling, result, right], []).reward == 1.0


def test_a_rollout_that_met_a_miss_is_not_scored_unless_it_is_kept(task: Task) -> None:
    for answer, right in ((ANSWER, True), ({}, False)):
        left = of_text(task, json.dumps(answer), [ANSWERED, MISS])
        assert (left.reward, left.right) == (None, right)
        assert of_text(task, json.dumps(answer), [ANSWERED, MISS], miss="keep").reward == float(right)


def seen(trust: float | None, outcome: str = "answered") -> CallMade:
    return CallMade(name="read", tool=READ, outcome=outcome, tier="near", trust=trust)


@pytest.mark.parametrize(
    ("calls", "trust"),
    [
        ([], 1.0),
        ([seen(0.9), seen(0.6), seen(0.95)], 0.6),
        ([seen(None)], 1.0),
        ([seen(None), seen(0.7)], 0.7),
        ([seen(0.8), seen(0.5, "error")], 0.5),
        ([seen(0.0)], 0.0),
    ],
)
def test_a_tier_aware_reward_is_weighed_by_the_least_trust(
    task: Task, calls: list[CallMade], trust: float
) -> None:
    message = [{"role": "assistant", "content": json.dumps(ANSWER)}]
    assert score(task, message, calls).reward == 1.0
    aware = score(task, message, calls, kind="tier-aware")
    assert (aware.reward, aware.right, aware.trust) == (trust, True, trust)
    assert score(task, [], calls, kind="tier-aware").reward == 0.0
    missed = score(task, message, [*calls, MISS], kind="tier-aware")
    assert (missed.reward, missed.trust) == (None, trust)
    assert score(task, message, [*calls, MISS], kind="tier-aware", miss="keep").reward == trust
