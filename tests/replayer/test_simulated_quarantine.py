"""A made-up answer is asked for by name, says what it is, and is never taken for a recorded one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from recorder.completer import BudgetError, Completion, CompletionError
from recorder.exchange import ToolResult
from recorder.importer import import_sessions
from recorder.store import Store
from replayer.fidelity import HeldCall, HeldSession, held_from_recording, measure, split
from replayer.learn import learn
from replayer.learned import learned_path, tool_id
from replayer.replayer import Replayer, ensure_learned, journal_beside, journalled
from replayer.session import Answer, Miss
from tests.scripted_completer import ScriptedCompleter

MADE_UP = '{"is_error": false, "output": "snow, -2 °C"}'
RECORDED = {"Bergen": "rain, 8 °C", "Paris": "sun, 21 °C"}


def forecast(city: str) -> tuple[str, str, dict[str, Any]]:
    return "weather", "tools/call", {"name": "get_forecast", "arguments": {"city": city}}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    for number in range(2):
        calls = [
            {"server": "weather", "tool": "get_forecast", "arguments": {"city": city}, "output": output}
            for city, output in RECORDED.items()
        ]
        document = {"session_id": f"s{number}", "group": "g", "calls": calls}
        assert import_sessions(tmp_path / "world.db", [document]).problems == []
    return tmp_path / "world.db"


def replayer(db: Path, completer: ScriptedCompleter | None) -> Replayer:
    store = Store(db)
    return Replayer(store, ensure_learned(store), journal=journal_beside(store), completer=completer)


def kept(db: Path) -> list[tuple[Any, ...]]:
    """The made-up answers, without the time."""
    with closing(sqlite3.connect(learned_path(db))) as connection:
        return connection.execute(
            "SELECT server, name, arguments, is_error, output, model, input_tokens, output_tokens, cost_usd"
            " FROM simulated ORDER BY id"
        ).fetchall()


SNOW = ("weather", "get_forecast", '{"city": "Oslo"}', 0, "snow, -2 °C", "scripted-1", 100, 20, 0.01)


def test_without_a_completer_nothing_is_made_up(db: Path) -> None:
    assert isinstance(replayer(db, None).session("g").ask(*forecast("Oslo")), Miss)
    assert kept(db) == []


def test_what_is_recorded_is_not_made_up(db: Path) -> None:
    completer = ScriptedCompleter([])
    answer = replayer(db, completer).session("g").ask(*forecast("Paris"))
    assert isinstance(answer, Answer)
    assert answer.tier == "exact"
    assert (completer.asked, kept(db)) == ([], [])


def test_a_made_up_answer_says_so_and_lies_apart(db: Path) -> None:
    completer, before = ScriptedCompleter([MADE_UP]), db.read_bytes()
    answer = replayer(db, completer).session("g").ask(*forecast("Oslo"))
    assert answer == Answer(
        outcome=ToolResult(result={"content": [{"type": "text", "text": "snow, -2 °C"}], "isError": False}),
        tier="simulated",
        trust=None,
        exchange=None,
        score=None,
    )
    assert kept(db) == [SNOW]
    assert db.read_bytes() == before
    # It was a miss all the same.
    assert [(each.times, each.params["arguments"]) for each in journalled(Store(db))] == [
        (1, {"city": "Oslo"})
    ]


def test_the_model_is_shown_the_nearest_recordings_and_this_conversation(db: Path) -> None:
    completer = ScriptedCompleter([MADE_UP, '{"is_error": true, "output": "no such city"}'])
    session = replayer(db, completer).session("g")
    session.ask(*forecast("Paris"))
    session.ask(*forecast("Oslo"))
    answer = session.ask(*forecast("Atlantis"))
    assert isinstance(answer, Answer)
    assert isinstance(answer.outcome, ToolResult)
    assert answer.outcome.is_error
    prompt = completer.asked[1].prompt
    for line in (
        '{"arguments": {"city": "Bergen"}, "output": "rain, 8 °C"}',
        '{"tool": "get_forecast", "arguments": {"city": "Paris"}, "output": "sun, 21 °C"}',
        '{"tool": "get_forecast", "arguments": {"city": "Oslo"}, "output": "snow, -2 °C"}',
        '{"server": "weather", "tool": "get_forecast", "arguments": {"city": "Atlantis"}}',
    ):
        assert line in prompt.splitlines()
    recorded = prompt.partition("Recorded calls of the tool")[2].partition("What the agent called")[0]
    assert "snow" not in recorded


def test_a_made_up_answer_is_not_among_the_recorded_ones_later(db: Path) -> None:
    replayer(db, ScriptedCompleter([MADE_UP])).session("g").ask(*forecast("Oslo"))
    learned = learn(Store(db))
    assert kept(db) == [SNOW]
    assert learned.summary["exchanges"] == len(list(Store(db).exchanges())) == 4
    distinct = learned.distinct_calls(tool_id("weather", "get_forecast"), 100)
    assert sorted(json.loads(text)["city"] for _, _, text in distinct) == ["Bergen", "Paris"]
    missed = Replayer(Store(db), learned).session("g").ask(*forecast("Oslo"))
    assert isinstance(missed, Miss)
    assert missed.rejected is None
    everything = Replayer(Store(db), learned, min_trust=0).session("g").ask(*forecast("Oslo"))
    assert isinstance(everything, Answer)
    assert everything.tier == "nearest"
    assert everything.exchange is not None


def test_fidelity_never_counts_a_made_up_answer(db: Path) -> None:
    replayer(db, ScriptedCompleter([MADE_UP])).session("g").ask(*forecast("Oslo"))
    store = Store(db)
    truth = [HeldCall("weather", "get_forecast", {"city": city}, output) for city, output in RECORDED.items()]
    oslo = HeldCall("weather", "get_forecast", {"city": "Oslo"}, "snow, -2 °C")
    held = [HeldSession("held", "g", (*truth, oslo))]
    view = measure(store, ensure_learned(store), held).as_json()
    assert (view["calls"], view["answered"], view["agreed"]) == (3, 2, 2)
    assert sorted(view["by_tier"]) == ["exact"]
    everything = measure(store, ensure_learned(store), held, min_trust=0)
    assert (everything.total().answered, everything.total().agreed) == (3, 2)
    assert everything.results[2].output in RECORDED.values()
    sources = {row.source["session"] for row in everything.results if row.source}
    assert sources <= {"s0", "s1"}
    ids = split(store, "leave-run")
    assert [len(session.calls) for session in held_from_recording(store, ids)] == [2]


@pytest.mark.parametrize(
    "reply",
    [
        CompletionError("the model is not to be had"),
        BudgetError("the call might cost more than is left"),
        "no JSON at all",
        '{"is_error": false}',
        Completion(MADE_UP, "m", 1, 1, None, "max_tokens"),
    ],
    ids=["no reply", "no money", "no JSON", "no output", "cut off"],
)
def test_a_completer_that_fails_is_a_miss(
    db: Path, reply: str | Completion | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    completer = ScriptedCompleter([reply, MADE_UP])
    session = replayer(db, completer).session("g")
    missed = session.ask(*forecast("Oslo"))
    assert isinstance(missed, Miss)
    assert len(missed.nearest) == 2
    assert kept(db) == []
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == ["no simulated answer"]
    # The conversation goes on, and the next one may be made up.
    answers = [session.ask(*forecast(city)) for city in ("Paris", "Oslo")]
    assert [each.tier for each in answers if isinstance(each, Answer)] == ["exact", "simulated"]
    assert kept(db) == [SNOW]


def test_only_tool_calls_are_made_up(db: Path) -> None:
    completer = ScriptedCompleter([])
    session = replayer(db, completer).session("g")
    asked: Sequence[tuple[str, dict[str, Any]]] = (
        ("resources/read", {"uri": "file:///a"}),
        ("tools/list", {}),
        ("tools/call", {"name": "get_forecast", "arguments": {}, "requestState": "S", "inputResponses": {}}),
    )
    assert [isinstance(session.ask("weather", *each), Miss) for each in asked] == [True] * 3
    assert completer.asked == []
