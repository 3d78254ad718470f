"""Calls whose prose means the same are answered by one another, where recordings show that to be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.embedder import SentenceEmbedder
from recorder.importer import import_sessions
from recorder.store import Store
from replayer.learn import learn
from replayer.learned import Learned, learned_path, tool_id
from replayer.mask import output_text
from replayer.replayer import Replayer, ensure_learned
from replayer.semantic import SemanticTier
from replayer.session import Answer, Miss
from tests.tiny_embedder import build_tiny_embedder

pytest.importorskip("sentence_transformers", reason="pip install 'firefly-proxy[semantic]'")

GROUPS = 10
ASKED = ("the weather forecast for the city today", "weather forecast today for the city")
"""How the recorded sessions ask; each group asks a tool of its own, so that its nearest call is the other."""

ANOTHER = "forecast the weather for the city today"


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> SentenceEmbedder:
    return SentenceEmbedder(build_tiny_embedder(tmp_path_factory.mktemp("models") / "tiny"))


def record(db: Path, answer: Callable[[int, int], str]) -> None:
    """Record two sessions of each group, which ask in different words.

    Args:
        answer: Of the group and the way it is asked.
    """

    def call(tool: str, output: str, **arguments: Any) -> dict[str, Any]:
        return {"server": "s", "tool": tool, "arguments": arguments, "output": output}

    documents = [
        {
            "session_id": f"{group} {way}",
            "group": f"g{group}",
            "calls": [
                call("get_name", f"name {group}"),
                call("get_size", f"size {group}"),
                call(f"find_{group}", answer(group, way), question=text, days=2),
            ],
        }
        for group in range(GROUPS)
        for way, text in enumerate(ASKED)
    ]
    assert import_sessions(db, documents).problems == []


def record_one(db: Path, tool: str, question: str) -> None:
    call = {"server": "s", "tool": tool, "arguments": {"question": question, "days": 2}, "output": "yes"}
    assert import_sessions(db, [{"session_id": "1", "group": "g3", "calls": [call]}]).problems == []


def replayer(db: Path, embedder: SentenceEmbedder, learned: Learned, **options: Any) -> Replayer:
    return Replayer(Store(db), learned, tiers=[SemanticTier(learned, embedder)], **options)


def ask(replayer: Replayer, tool: str = "find_3", group: str = "g3", **arguments: Any) -> Answer | Miss:
    params = {"name": tool, "arguments": {"question": ANOTHER, "days": 2, **arguments}}
    return replayer.session(group).ask("s", "tools/call", params)


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory, embedder: SentenceEmbedder) -> tuple[Path, Learned]:
    """A recording whose tools answer alike however they are asked."""
    db = tmp_path_factory.mktemp("alike") / "world.db"
    record(db, lambda group, way: f"sun over {group}")
    return db, learn(Store(db), embedder=embedder)


def test_what_means_the_same_is_served_where_it_is_trusted(
    alike: tuple[Path, Learned], embedder: SentenceEmbedder
) -> None:
    answer = ask(replayer(alike[0], embedder, alike[1], min_trust=0.9))
    assert isinstance(answer, Answer), answer.rejected
    assert (answer.tier, output_text(answer.outcome)) == ("semantic", "sun over 3")
    assert answer.trust is not None
    assert answer.trust >= 0.9
    assert answer.score is not None
    assert 0.5 < answer.score < 1


def test_it_is_missed_where_more_trust_is_asked_for(
    alike: tuple[Path, Learned], embedder: SentenceEmbedder
) -> None:
    missed = ask(replayer(alike[0], embedder, alike[1], min_trust=1))
    assert isinstance(missed, Miss)
    assert missed.tiers == ("exact", "near", "semantic")
    assert missed.rejected is not None
    assert missed.rejected.tier == "semantic"


def test_without_the_tier_it_is_missed(alike: tuple[Path, Learned]) -> None:
    missed = ask(Replayer(Store(alike[0]), alike[1], min_trust=0.1))
    assert isinstance(missed, Miss)
    assert (missed.tiers, missed.rejected) == (("exact", "near"), None)


def test_an_equal_call_is_answered_by_the_exact_tier(
    alike: tuple[Path, Learned], embedder: SentenceEmbedder
) -> None:
    answer = ask(replayer(alike[0], embedder, alike[1], min_trust=0.5), question=ASKED[1])
    assert isinstance(answer, Answer)
    assert answer.tier.startswith("exact")


def test_an_embedder_that_is_often_wrong_is_not_trusted(tmp_path: Path, embedder: SentenceEmbedder) -> None:
    db = tmp_path / "world.db"
    record(db, lambda group, way: f"sun over {group}" if way else f"rain over {group}")
    learned = learn(Store(db), embedder=embedder)
    for least in (None, 0.5):
        missed = ask(replayer(db, embedder, learned, min_trust=least))
        assert isinstance(missed, Miss)
        assert missed.rejected is not None
        assert missed.rejected.tier == "semantic"
        assert missed.rejected.trust is not None
        assert missed.rejected.trust < 0.3


def test_where_too_little_was_compared_it_is_missed(tmp_path: Path, embedder: SentenceEmbedder) -> None:
    db = tmp_path / "world.db"
    record_one(db, "find_3", ASKED[0])
    learned = learn(Store(db), embedder=embedder)
    missed = ask(replayer(db, embedder, learned))
    assert isinstance(missed, Miss)
    assert missed.rejected is not None
    assert (missed.rejected.tier, missed.rejected.trust) == ("semantic", None)


NAMES = {
    "an id": ("cancel the order W123 today", "cancel the order W124 today"),
    "a number": ("book the train for 2 of the order", "book the train for 3 of the order"),
    "a date": ("the weather in paris 2026-11-03", "the weather in paris 2026-11-04"),
    "a time": ("book a train at 9:30 today", "book a train at 9:35 today"),
    "a version": ("read the file v1.2 today", "read the file v1.3 today"),
    "a number that is missing": ("cancel the order 17 today", "cancel the order today"),
    "a sign": ("the temperature is -5 in oslo", "the temperature is 5 in oslo"),
    "two ids in another order": ("move the order W1 to order W2", "move the order W2 to order W1"),
}


@pytest.mark.parametrize(("recorded", "asked"), NAMES.values(), ids=list(NAMES))
def test_what_names_another_thing_is_never_served(
    tmp_path: Path, embedder: SentenceEmbedder, recorded: str, asked: str
) -> None:
    db = tmp_path / "world.db"
    record_one(db, "find", recorded)
    learned = learn(Store(db), embedder=embedder)
    everything = replayer(db, embedder, learned, min_trust=0)
    answer = ask(everything, "find", question=asked)
    assert isinstance(answer, Answer)
    assert answer.tier == "nearest"
    # In other words, but of the same things, it is.
    answer = ask(everything, "find", question=f"{recorded} a")
    assert isinstance(answer, Answer)
    assert answer.tier == "semantic"


@pytest.mark.parametrize(
    "differing", [{"days": 3}, {"city": "oslo"}, {"question": "weather forecast"}, {"tags": [1]}], ids=str
)
def test_only_prose_may_differ(
    alike: tuple[Path, Learned], embedder: SentenceEmbedder, differing: dict[str, Any]
) -> None:
    answer = ask(replayer(alike[0], embedder, alike[1], min_trust=0), **differing)
    assert isinstance(answer, Answer)
    assert answer.tier == "nearest"


def test_vectors_are_made_where_they_are_missing_and_only_there(
    tmp_path: Path, embedder: SentenceEmbedder
) -> None:
    db = tmp_path / "world.db"
    record_one(db, "find_3", ASKED[0])
    store, tool = Store(db), tool_id("s", "find_3")
    assert ensure_learned(store).vectors(tool) is None
    learned = ensure_learned(store, embedder=embedder)
    found = learned.vectors(tool)
    assert found is not None
    assert (len(found[0]), learned.embedder) == (1, embedder.name)
    steps: list[str] = []
    ensure_learned(store, lambda what, done, of: steps.append(what), embedder)
    ensure_learned(store, lambda what, done, of: steps.append(what))
    assert steps == []
    assert Learned(learned_path(db)).embedder == embedder.name
