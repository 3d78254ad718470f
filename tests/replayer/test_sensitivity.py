"""What may differ without mattering: learned from recordings, and overruled by a policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from recorder.importer import import_sessions
from recorder.store import Store
from replayer.evidence import weigh
from replayer.fidelity import HeldCall, HeldSession, measure
from replayer.keys import call_key
from replayer.learn import learn
from replayer.learned import Facts, Learned, tool_id
from replayer.mask import output_text
from replayer.policy import Policy, PolicyError
from replayer.replayer import Replayer
from replayer.session import Answer, Miss
from replayer.state import World, group_id

Call = dict[str, Any]
Sessions = list[tuple[str, Sequence[Call]]]


def call(tool: str, output: object = "", /, **arguments: Any) -> Call:
    return {"server": "s", "tool": tool, "arguments": arguments, "output": output}


def learnt(db: Path, sessions: Iterable[tuple[str, Sequence[Call]]], policy: Policy | None = None) -> Learned:
    documents = [
        {"session_id": f"{number}", "group": group, "calls": list(calls)}
        for number, (group, calls) in enumerate(sessions)
    ]
    assert import_sessions(db, documents).problems == []
    return learn(Store(db), policy=policy)


def facts(learned: Learned, tool: str) -> Facts:
    return learned.facts(tool_id("s", tool))


def asked(db: Path, learned: Learned, group: str | None, each: Call, **options: Any) -> Answer | Miss:
    params = {"name": each["tool"], "arguments": each["arguments"]}
    return Replayer(Store(db), learned, **options).session(group).ask("s", "tools/call", params)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


# Arguments


FORMATS = ("json", "yaml", "xml", "text")


def searches(
    answer: Callable[[int, str], object],
    topics: int = 12,
    groups: int = 1,
    formats: Sequence[str] = FORMATS,
) -> Sessions:
    """Sessions that search for each topic of their group, all in one format.

    Args:
        answer: Of topic and format.
        formats: One for each session of a group.
    """
    return [
        (
            f"g{group}",
            [
                call("search", answer(topic, form), query=f"topic{topic}", format=form)
                for topic in range(group * topics, (group + 1) * topics)
            ],
        )
        for group in range(groups)
        for form in formats
    ]


def among(*formats: str) -> Facts:
    """What is learned of a tool whose answers do not depend on the format, among these."""
    return Facts(insensitive={"format": frozenset(json.dumps(form) for form in formats)})


def test_an_argument_in_which_recordings_differ_and_agree_is_insensitive(db: Path) -> None:
    learned = learnt(db, searches(lambda topic, form: f"found {topic}"))
    assert facts(learned, "search") == among(*FORMATS)


def test_one_whose_values_have_digits_takes_more_to_be_shown(db: Path) -> None:
    pages = ("1", "2", "3")
    few = searches(lambda topic, form: f"found {topic}", topics=49, formats=pages)
    assert facts(learnt(db, few), "search") == Facts()
    more = searches(lambda topic, form: f"found {topic}", topics=50, formats=pages)
    assert facts(learnt(db.with_name("more.db"), more), "search") == among(*pages)


def test_one_that_differed_in_very_many_ways_may_differ_in_others(db: Path) -> None:
    nonces = [f"n{number}" for number in range(60)]
    learned = learnt(db, searches(lambda topic, form: f"found {topic}", topics=4, formats=nonces))
    assert facts(learned, "search") == Facts(insensitive={"format": None})


def test_a_call_that_differs_in_it_is_served_with_the_near_tiers_own_trust(db: Path) -> None:
    sessions = searches(lambda topic, form: f"found {topic}", groups=10, formats=("json", "yaml", "xml"))
    # Of some topics nobody asked for every format.
    sparse = [
        (group, [each for number, each in enumerate(calls) if number % 3 != position % 3 or group != "g3"])
        for position, (group, calls) in enumerate(sessions)
    ]
    learned = learnt(db, sparse)
    replayer = Replayer(Store(db), learned, min_trust=0.9)
    recorded = {
        (each["arguments"]["query"], each["arguments"]["format"]) for _, calls in sparse for each in calls
    }
    missing = [
        (topic, form)
        for topic in range(36, 48)
        for form in ("json", "yaml", "xml")
        if (f"topic{topic}", form) not in recorded
    ]
    assert missing
    for topic, form in missing:
        params = {"name": "search", "arguments": {"query": f"topic{topic}", "format": form}}
        answer = replayer.session("g3").ask("s", "tools/call", params)
        assert isinstance(answer, Answer), answer.rejected
        assert (answer.tier, output_text(answer.outcome)) == ("near", f"found {topic}")
        assert answer.trust is not None
        assert answer.trust > 0.9
    for unlike in ({"query": "topic999", "format": "xml"}, {"query": "topic36", "format": "csv"}):
        answer = replayer.session("g3").ask("s", "tools/call", {"name": "search", "arguments": unlike})
        assert isinstance(answer, Miss)


def test_a_value_that_was_never_compared_may_matter(db: Path) -> None:
    learned = learnt(db, searches(lambda topic, form: f"found {topic}"))
    for unlike in ({"query": "topic0"}, {"query": "topic0", "format": "csv"}):
        answer = asked(db, learned, "g0", call("search", **unlike), min_trust=0)
        assert isinstance(answer, Answer)
        assert answer.tier == "nearest"


def test_one_disagreement_makes_it_sensitive(db: Path) -> None:
    learned = learnt(
        db, searches(lambda topic, form: f"found {topic}" if (topic, form) != (7, "xml") else "<found/>")
    )
    assert facts(learned, "search") == Facts()


def test_too_few_agreements_show_nothing(db: Path) -> None:
    # 3 comparisons a topic: 27 of them, and 30.
    assert facts(learnt(db, searches(lambda topic, form: topic, topics=9)), "search") == Facts()
    more = learnt(db.with_name("more.db"), searches(lambda topic, form: topic, topics=10))
    assert facts(more, "search") == among(*FORMATS)


def test_a_tool_that_answers_everything_alike_shows_nothing(db: Path) -> None:
    learned = learnt(db, searches(lambda topic, form: "ok", topics=20))
    assert facts(learned, "search") == Facts()


def test_answers_in_different_states_or_groups_are_not_compared(db: Path) -> None:
    other_groups = [(f"{group}{form}", calls) for form, (group, calls) in enumerate(searches(lambda t, f: t))]
    assert facts(learnt(db, other_groups), "search") == Facts()
    other_states = [
        (group, [call("put", "ok", at=f"place {number}"), *calls])
        for number, (group, calls) in enumerate(searches(lambda t, f: t))
    ]
    assert facts(learnt(db.with_name("states.db"), other_states), "search") == Facts()


# Prose


def spellings(answer: Callable[[int, int], object]) -> Sessions:
    """Six questions, each in three spellings."""
    ways = ("Where is place {}?", "where is  place {}", "WHERE is place {}!")
    return [
        (
            "g",
            [call("find", answer(place, way), text=ways[way].format("abcdef"[place])) for place in range(6)],
        )
        for way in range(3)
    ]


def test_the_spelling_of_prose_may_differ_where_recordings_show_it(db: Path) -> None:
    learned = learnt(db, spellings(lambda place, way: f"at {place}"))
    assert facts(learned, "find") == Facts(prose=("text",))
    answer = asked(db, learned, "g", call("find", text=" WHERE is\nplace C..."), min_trust=0)
    assert isinstance(answer, Answer)
    assert (answer.tier, output_text(answer.outcome)) == ("near", "at 2")
    other = asked(db, learned, "g", call("find", text="Where is the place C?"))
    assert isinstance(other, Miss)
    assert other.rejected is None


def test_white_space_before_closing_punctuation_is_spelling_too(db: Path) -> None:
    learned = learnt(db, spellings(lambda place, way: f"at {place}"))
    answer = asked(db, learned, "g", call("find", text="Where is place C ?"), min_trust=0)
    assert isinstance(answer, Answer)
    assert (answer.tier, output_text(answer.outcome)) == ("near", "at 2")


def test_spelling_matters_where_one_recording_says_so(db: Path) -> None:
    learned = learnt(
        db, spellings(lambda place, way: f"at {place}" if (place, way) != (5, 2) else "DON'T SHOUT")
    )
    assert facts(learned, "find") == Facts()


def test_spelling_shows_nothing_where_all_is_answered_alike(db: Path) -> None:
    assert facts(learnt(db, spellings(lambda place, way: "ok")), "find") == Facts()


# Volatile places


def stamped(number: int) -> dict[str, Any]:
    """An output of which everything but `name` and `size` changes by itself."""
    return {
        "name": "world",
        "size": 7,
        "at": f"2026-11-{number + 1:02}T10:00:00Z",
        "epoch": 1_790_000_000 + 977 * number,
        "request": f"00000000-0000-4000-8000-{number:012x}",
        "etag": f"W/{number:02x}ab34ef56cd7890",
        "views": 100 + number,
        "items": [{"id": "a", "seen": 10 + number}, {"id": "b", "seen": 20 + number}],
    }


def repeats(output: Callable[[int], object], sessions: int = 4, groups: int = 1) -> Sessions:
    return [
        (f"g{group}", [call("read_status", output(sessions * group + number), key="k")])
        for group in range(groups)
        for number in range(sessions)
    ]


def test_places_that_change_by_themselves_are_volatile(db: Path) -> None:
    learned = learnt(db, repeats(stamped))
    # The fixed mask hides a time and a UUID already; what it leaves is learned.
    assert facts(learned, "read_status") == Facts(volatile=("/epoch", "/etag", "/items/*/seen", "/views"))


def test_an_odd_name_is_a_pointer_too(db: Path) -> None:
    learned = learnt(db, repeats(lambda number: {"a/b": {"c~d": number}}))
    assert facts(learned, "read_status") == Facts(volatile=("/a~1b/c~0d",))


@pytest.mark.parametrize(
    "output",
    [
        lambda number: {"price": 10.5 + number},
        lambda number: {"count": [5, 3, 9, 4][number]},
        lambda number: {"status": ["open", "closed", "lost", "found"][number]},
        lambda number: {"name": ["Ada", "Bob", "Cyd", "Dee"][number]},
        lambda number: {"open": number % 2 == 0},
        lambda number: {"value": [1, None, 2, None][number]},
    ],
    ids=["fractions", "up and down", "words", "names", "true and false", "now and then null"],
)
def test_other_values_that_change_are_news(db: Path, output: Callable[[int], object]) -> None:
    assert facts(learnt(db, repeats(output)), "read_status") == Facts()


def test_one_change_is_not_enough(db: Path) -> None:
    def output(number: int) -> dict[str, Any]:
        return {"views": number, "epoch": 1_790_000_000 + 977 * number}

    assert facts(learnt(db, repeats(output, sessions=2)), "read_status") == Facts()
    more = learnt(db.with_name("more.db"), repeats(output, sessions=3))
    assert facts(more, "read_status") == Facts(volatile=("/epoch", "/views"))


def test_a_list_that_changed_once_changed_once(db: Path) -> None:
    def output(number: int) -> dict[str, Any]:
        return {"items": [{"stock": 10 + number}, {"stock": 20 + number}, {"stock": 30 + number}]}

    assert facts(learnt(db, repeats(output, sessions=2)), "read_status") == Facts()


def test_a_place_that_mostly_stays_the_same_is_not_volatile(db: Path) -> None:
    def output(number: int) -> dict[str, int]:
        return {"views": number, "rare": 2 if number == 6 else 1 if number == 5 else 0}

    assert facts(learnt(db, repeats(output, sessions=7)), "read_status") == Facts(volatile=("/views",))


def test_changes_between_states_or_groups_show_nothing(db: Path) -> None:
    groups = [(f"g{number}", [call("read_status", stamped(number), key="k")]) for number in range(6)]
    assert facts(learnt(db, groups), "read_status") == Facts()
    states = [
        ("g", [call("put", "ok", at=f"place {number}"), call("read_status", stamped(number), key="k")])
        for number in range(6)
    ]
    assert facts(learnt(db.with_name("states.db"), states), "read_status") == Facts()


def test_what_differs_only_in_volatile_places_agrees_and_counts_as_wrong_under_the_fixed_mask(
    db: Path,
) -> None:
    learned = learnt(db, repeats(stamped, sessions=4, groups=20))
    truth = HeldCall("s", "read_status", {"key": "k"}, json.dumps(stamped(98)))
    held = [HeldSession("held", "g3", (truth,))]
    (result,) = measure(Store(db), learned, held, min_trust=0).results
    assert (result.answered, result.right, result.right_learned) == (True, False, True)
    view = measure(Store(db), learned, held, min_trust=0).as_json()
    assert (view["agreed"], view["wrong_rate"], view["wrong_rate_learned"]) == (0, 1.0, 0.0)
    # By their votes they agree, which is what trust is learned of.
    place = World(group_id("g3")).place(0, [])
    rows = learned.rows(call_key("s", "read_status", '{"key":"k"}'), place, known=False)
    found = weigh(rows, place, "exact", known=False)
    assert found is not None
    assert (found.agree, found.conflict, found.wide) == (3, 0, 0)


def test_what_is_volatile_to_the_fixed_mask_is_right(db: Path) -> None:
    def output(number: int) -> str:
        made = f"00000000-0000-4000-8000-{number:012x}"
        return f"done at 2026-11-{number % 27 + 1:02}T10:00:00Z in {number} ms, id {made}"

    learned = learnt(db, repeats(output, sessions=4, groups=10))
    answer = asked(db, learned, "g3", call("read_status", key="k"))
    assert isinstance(answer, Answer), answer.rejected
    assert answer.trust is not None
    assert answer.trust > 0.9
    truth = HeldCall("s", "read_status", {"key": "k"}, output(999))
    view = measure(Store(db), learned, [HeldSession("held", "g3", (truth,))]).as_json()
    assert (view["answered"], view["agreed"], view["wrong_rate"], view["wrong_rate_learned"]) == (
        1,
        1,
        0.0,
        0.0,
    )


# Policy


def policy_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    return path


def test_a_policy_overrules_each_thing_that_is_learned(db: Path, tmp_path: Path) -> None:
    sessions = [
        *searches(lambda topic, form: f"found {topic}"),
        *spellings(lambda place, way: f"at {place}"),
        *repeats(lambda number: {"views": number}),
    ]
    assert [facts(learnt(db, sessions), tool) for tool in ("search", "find", "read_status")] == [
        among(*FORMATS),
        Facts(prose=("text",)),
        Facts(volatile=("/views",)),
    ]
    policy = Policy.read(
        policy_file(
            tmp_path,
            """
            [tools."s/*"]
            insensitive = ["page"]
            [tools."s/search"]
            sensitive = ["format"]
            [tools."?/f?nd"]
            sensitive = ["text", "page"]
            changes_state = false
            [tools."s/read_*"]
            volatile = ["/size"]
            [tools."other/*"]
            insensitive = ["query"]
            """,
        )
    )
    learned = learn(Store(db), policy=policy)
    assert [facts(learned, tool) for tool in ("search", "find", "read_status")] == [
        Facts(insensitive={"page": None}),
        Facts(),
        Facts(insensitive={"page": None}, volatile=("/size", "/views")),
    ]
    # It is kept for later, until another takes its place.
    assert facts(learn(Store(db)), "search") == Facts(insensitive={"page": None})
    assert facts(learn(Store(db), policy=Policy()), "search") == among(*FORMATS)


def test_a_policys_insensitive_argument_is_served_and_its_sensitive_one_is_not(db: Path) -> None:
    sessions: Sessions = [("g", [call("search", "found", query="x", limit=10)])]
    learned = learnt(db, sessions, Policy({"s/search": {"insensitive": ["limit"]}}))
    answer = asked(db, learned, "g", call("search", query="x", limit=20), min_trust=0)
    assert isinstance(answer, Answer)
    assert answer.tier == "near"
    more = learnt(
        db.with_name("more.db"),
        searches(lambda topic, form: topic),
        Policy({"s/*": {"sensitive": ["format"]}}),
    )
    missed = asked(db.with_name("more.db"), more, "g0", call("search", query="topic0", format="csv"))
    assert isinstance(missed, Miss)
    assert missed.rejected is None


def bad_policies() -> Iterator[tuple[str, str]]:
    yield "tools = 3", 'rules stand under [tools."server/tool"], got tools'
    yield "[tool.x]", 'rules stand under [tools."server/tool"], got tool'
    yield (
        "[tools.search]\ninsensitive = []",
        'tools."search": a pattern names server and tool, as in "shop/search_*"',
    )
    yield '[tools]\n"s/t" = 3', 'tools."s/t" must be a table, got 3'
    yield '[tools."s/t"]\nchanges_state = 1', 'tools."s/t": changes_state must be true or false, got 1'
    yield '[tools."s/t"]\nvolatile = "/x"', "tools.\"s/t\": volatile must be a list of strings, got '/x'"
    yield '[tools."s/t"]\nsensitive = [1]', 'tools."s/t": sensitive must be a list of strings, got [1]'
    yield (
        '[tools."s/t"]\nfuzzy = true',
        "tools.\"s/t\": unknown rule 'fuzzy'; there are changes_state, insensitive, sensitive, volatile",
    )


@pytest.mark.parametrize(("text", "problem"), [*bad_policies()])
def test_a_bad_policy_is_told_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = policy_file(tmp_path, text)
    with pytest.raises(PolicyError) as refused:
        Policy.read(path)
    assert str(refused.value) == f"{path}: {problem}"
    assert refused.value.exit_code == 2


def test_a_policy_that_is_no_toml_or_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    for path, problem in (
        (policy_file(tmp_path, "tools = ["), "is not TOML: "),
        (tmp_path / "none.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(PolicyError) as refused:
            Policy.read(path)
        assert str(path) in str(refused.value)
        assert problem in str(refused.value)
        assert "\n" not in str(refused.value)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="is not TOML: "):
        Policy.read(binary)


def test_an_empty_policy_says_nothing(tmp_path: Path) -> None:
    assert Policy.read(policy_file(tmp_path, "")) == Policy()
