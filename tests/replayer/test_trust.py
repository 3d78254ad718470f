"""What recordings say together, how often that is right, and so what is served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from recorder.database import open_beside
from recorder.importer import import_sessions
from recorder.store import Store
from replayer.evidence import LEVELS, Candidate, Row, weigh
from replayer.keys import call_key
from replayer.learn import learn
from replayer.mask import output_text
from replayer.policy import Policy
from replayer.replayer import Replayer
from replayer.session import Answer, Miss
from replayer.state import Place, group_id
from replayer.trust import (
    LEAST_TRUST,
    MIN_COMPARISONS,
    Calibration,
    Cell,
    Comparison,
    calibrate,
    default_threshold,
    rates_of,
    upper_bound,
)

PLACE = Place(group=1, world=40, prefix=10, earlier=(9, 8), related=20, history=30)
FAR = Row(exchange=1, conversation=1, group=2, world=41, prefix=11, related=21, history=31, output=5, loose=5)
AT: dict[str, Row] = {
    "same history": FAR._replace(group=1, world=40, history=30),
    "same state": FAR._replace(group=1, world=40),
    "same server history": FAR._replace(group=1, history=30),
    "same server state": FAR._replace(group=1, prefix=10),
    "same related": FAR._replace(group=1, related=20),
    "earlier state": FAR._replace(group=1, prefix=8),
    "like history": FAR._replace(world=40, history=30),
    "like state": FAR._replace(world=40),
    "like server history": FAR._replace(history=30),
    "like server state": FAR._replace(prefix=10),
    "like related": FAR._replace(related=20),
    "same group": FAR._replace(group=1),
    "any": FAR,
}
"""A row of each level, where the group is known."""


def rows(*found: tuple[Row, int, int]) -> list[Row]:
    """Make rows like these, each with an answer and of a conversation; exchanges are numbered from 1."""
    return [
        row._replace(exchange=number, output=answer, loose=answer, conversation=conversation)
        for number, (row, answer, conversation) in enumerate(found, 1)
    ]


def weighed(found: Iterable[Row], *, known: bool = True) -> Candidate:
    candidate = weigh(found, PLACE, "exact", known=known)
    assert candidate is not None
    return candidate


def test_nothing_recorded_says_nothing() -> None:
    assert weigh([], PLACE, "exact", known=True) is None


def test_every_level_has_its_name() -> None:
    assert list(AT) == list(LEVELS)
    assert {level: weighed([row]).level for level, row in AT.items()} == {level: level for level in LEVELS}


def test_of_an_unknown_group_nothing_is_the_own_groups() -> None:
    assert {level: weighed([row], known=False).level for level, row in AT.items()} == {
        "same history": "like history",
        "same state": "like state",
        "same server history": "like server history",
        "same server state": "like server state",
        "same related": "like related",
        "earlier state": "any",
        "same group": "any",
        **{level: level for level in LEVELS if level.startswith("like") or level == "any"},
    }


@pytest.mark.parametrize(("nearer", "farther"), [*pairwise(LEVELS)])
def test_the_nearest_level_answers_whatever_the_others_say(nearer: str, farther: str) -> None:
    others = [(AT[farther], 6, conversation) for conversation in (2, 3, 4, 5)]
    assert weighed(rows(*others, (AT[nearer], 5, 1))) == Candidate(
        exchange=5,
        conversation=1,
        output=5,
        loose=5,
        tier="exact",
        level=nearer,
        agree=1,
        conflict=0,
        wide=2,
        stale=nearer in ("earlier state", "same group"),
    )


def test_of_earlier_states_the_latest_answers() -> None:
    earlier, latest = AT["earlier state"], AT["earlier state"]._replace(prefix=9)
    found = weighed(rows((earlier, 6, 2), (earlier, 6, 3), (latest, 5, 1)))
    assert (found.exchange, found.output, found.agree, found.wide) == (3, 5, 1, 2)


def test_most_recordings_of_the_level_have_their_way_and_of_a_tie_the_earliest() -> None:
    same = AT["same state"]
    assert weighed(rows((same, 5, 1), (same, 6, 2), (same, 6, 3))).exchange == 2
    assert weighed(rows((same, 5, 1), (same, 6, 2))).exchange == 1
    assert weighed(reversed(rows((same, 5, 1), (same, 6, 2)))).exchange == 1


@pytest.mark.parametrize(
    ("answers", "agree", "conflict"),
    [
        ("a", 1, 0),
        ("aa", 2, 0),
        ("aaa", 3, 0),
        ("aaaaa", 3, 0),
        ("ab", 1, 2),
        ("aab", 2, 2),
        ("aaab", 3, 2),
        ("aaaab", 3, 1),
        ("aaaaaaaabb", 3, 1),
        ("aaaaaabb", 3, 2),
    ],
)
def test_sessions_that_agree_and_that_conflict_are_counted(answers: str, agree: int, conflict: int) -> None:
    found = weighed(rows(*[(AT["same state"], ord(answer), number) for number, answer in enumerate(answers)]))
    assert (found.output, found.agree, found.conflict, found.wide) == (ord("a"), agree, conflict, conflict)


def test_one_session_is_one_vote_and_of_an_unknown_group_one_group_is() -> None:
    same = AT["like state"]
    found = rows((same, 5, 1), (same, 5, 1), (same, 5, 1), (same, 6, 2), (same, 6, 3))
    assert (weighed(found).output, weighed(found).agree) == (6, 2)
    groups = [row._replace(group=group) for row, group in zip(found, (2, 3, 4, 5, 5), strict=True)]
    assert (weighed(groups, known=False).output, weighed(groups, known=False).agree) == (5, 3)


def test_answers_that_differ_only_in_what_is_volatile_agree() -> None:
    same = AT["same state"]
    found = [
        same._replace(exchange=1, conversation=1, output=51, loose=5),
        same._replace(exchange=2, conversation=2, output=52, loose=5),
    ]
    assert weighed(found) == Candidate(1, 1, 51, 5, "exact", "same state", 2, 0, 0)


# Rates

CELLS: tuple[Cell, ...] = (
    ("exact",),
    ("exact", 0, 0),
    ("exact", 0, 0, "same state"),
    ("exact", 0, 0, "same state", 1),
)


def compared(
    kind: str,
    right: int,
    wrong: int = 0,
    *,
    server: str = "s",
    cells: tuple[Cell, ...] = CELLS,
    group: int = 1,
) -> list[Comparison]:
    return [Comparison(server, kind, cells, number < right, 1.0, group) for number in range(right + wrong)]


def test_without_any_comparison_trust_is_even() -> None:
    assert rates_of([]).trust("s", "t", CELLS) == 0.5


def test_each_count_is_shrunk_towards_the_one_around_it() -> None:
    rates = rates_of([*compared("t", 3, 1), *compared("u", 4, cells=(*CELLS[:2], ("x",), ("x", 1)))])
    trust = 0.5
    for right, all_ in [
        (7, 8),
        (3, 4),
        (3, 4),
        (3, 4),
    ]:  # over all tools: conflict, level, agreement; then `t`
        trust = (right + 4 * trust) / (all_ + 4)
    assert rates.trust("s", "t", CELLS) == pytest.approx(trust)


def test_a_tool_that_was_seldom_compared_is_judged_as_the_others_are() -> None:
    good = rates_of([c for number in range(10) for c in compared(f"t{number}", 10)])
    bad = rates_of([c for number in range(10) for c in compared(f"t{number}", 0, 10)])
    assert good.trust("s", "new", CELLS) > 0.95
    assert bad.trust("s", "new", CELLS) < 0.05
    assert 0 < bad.trust("s", "new", CELLS) < good.trust("s", "new", CELLS) < 1


def test_a_tool_that_was_compared_often_is_judged_by_itself() -> None:
    others = [c for number in range(10) for c in compared(f"t{number}", 10)]
    rates = rates_of([*others, *compared("odd", 0, 40)])
    assert rates.trust("s", "odd", CELLS) < 0.1
    assert rates.trust("s", "new", CELLS) > 0.85
    others = [c for number in range(10) for c in compared(f"t{number}", 0, 10)]
    rates = rates_of([*others, *compared("odd", 40)])
    assert rates.trust("s", "odd", CELLS) > 0.9
    assert rates.trust("s", "new", CELLS) < 0.15


def test_one_tool_speaks_for_the_others_no_louder_than_any_other() -> None:
    others = [c for number in range(10) for c in compared(f"t{number}", 10)]
    few, many = (rates_of([*others, *compared("odd", 0, wrong)]) for wrong in (10, 5000))
    assert many.trust("s", "new", CELLS) == pytest.approx(few.trust("s", "new", CELLS))


def test_a_new_tool_is_judged_by_its_server_before_the_others() -> None:
    rates = rates_of(
        [
            c
            for number in range(5)
            for c in [*compared(f"t{number}", 10), *compared(f"t{number}", 0, 10, server="bad")]
        ]
    )
    assert (
        rates.trust("bad", "new", CELLS) < rates.trust("third", "new", CELLS) < rates.trust("s", "new", CELLS)
    )


def test_conflict_is_judged_by_itself() -> None:
    conflicting: tuple[Cell, ...] = (
        ("exact",),
        ("exact", 2, 2),
        ("exact", 2, 2, "same state"),
        ("exact", 2, 2, "same state", 1),
    )
    rates = rates_of([*compared("t", 50), *compared("t", 0, 50, cells=conflicting)])
    assert rates.trust("s", "t", CELLS) > 0.9
    assert rates.trust("s", "t", conflicting) < 0.1


# The default threshold

Scored = list[tuple[float, Comparison]]


def scored(trust: float, right: int, wrong: int = 0, *, first: int = 1) -> Scored:
    """Comparisons of one trust, each of a group of its own, numbered from `first`."""
    both = [*compared("t", right), *compared("t", 0, wrong)]
    return [(trust, replace(each, group=first + number)) for number, each in enumerate(both)]


def test_the_bound_is_wilsons() -> None:
    assert upper_bound(0, 81) == pytest.approx(0.0199, abs=1e-4)
    assert upper_bound(0, 80) > 0.02 > upper_bound(0, 81)
    assert upper_bound(1, 165) > 0.02 > upper_bound(1, 166)
    assert upper_bound(5, 10) == pytest.approx(0.6880, abs=1e-3)


def test_the_threshold_is_the_lowest_trust_whose_bound_is_two_percent() -> None:
    best = scored(0.99, 81)
    assert default_threshold([*best, *scored(0.97, 84, 1, first=100), *scored(0.95, 0, 9, first=200)]) == 0.96
    assert default_threshold([*best, *scored(0.97, 83, 1, first=100)]) == 0.98


def test_what_lies_between_is_served_as_far_as_half_the_way_to_what_is_not() -> None:
    assert default_threshold([*scored(0.99, 100), *scored(0.93, 0, 9, first=500)]) == 0.96
    assert default_threshold(scored(0.99, 100)) == LEAST_TRUST


def test_answers_of_equal_trust_are_served_together_or_not_at_all() -> None:
    assert default_threshold([*scored(0.99, 100), *scored(0.99, 0, 9, first=500)]) is None


def test_too_few_to_bound_count_as_they_are() -> None:
    assert default_threshold([*scored(0.99, 30), *scored(0.97, 0, 5, first=100)]) == 0.98
    assert default_threshold([*scored(0.99, 29), *scored(0.97, 0, 5, first=100)]) is None
    assert default_threshold(scored(0.99, 29)) is None
    assert default_threshold([*scored(0.99, 20), *scored(0.97, 20, first=100)]) == LEAST_TRUST
    assert default_threshold(scored(0.99, 99, 1)) == LEAST_TRUST
    assert default_threshold(scored(0.99, 98, 1)) is None


def test_what_is_wrong_one_time_in_ten_is_not_served_however_right_the_rest_is() -> None:
    assert default_threshold(scored(LEAST_TRUST - 0.01, 200)) is None
    assert default_threshold([*scored(0.99, 100), *scored(0.5, 200, first=500)]) == LEAST_TRUST


def test_no_trust_may_be_enough() -> None:
    assert default_threshold([]) is None
    assert default_threshold([*scored(0.99, 0, 100), *scored(0.97, 100, first=500)]) is None


def test_answers_that_go_wrong_together_are_fewer_pieces_of_evidence() -> None:
    best, more = scored(0.99, 100), scored(0.97, 694, first=200)
    apart = scored(0.97, 0, 6, first=2000)
    together = [(trust, replace(each, group=2000)) for trust, each in apart]
    assert default_threshold([*best, *more, *apart]) == LEAST_TRUST
    assert default_threshold([*best, *more, *together]) == 0.98


def test_comparisons_count_by_their_weight() -> None:
    light = [(0.99, replace(each, weight=0.5)) for _, each in scored(0.99, 59)]
    assert default_threshold(light) is None
    assert default_threshold([*light, *scored(0.99, 1, first=100)]) == LEAST_TRUST
    assert calibrate([each for _, each in light]).compared == 29.5


def test_a_calibration_takes_thirty_comparisons_of_answers_that_may_be_served() -> None:
    others = [compared("t", 100, cells=((tier,), (tier, 0, 0))) for tier in ("nearest", "schema")]
    assert not calibrate([*compared("t", MIN_COMPARISONS - 1), *others[0], *others[1]]).enough
    assert calibrate([*compared("t", MIN_COMPARISONS), *others[0], *others[1]]).enough


# What is served

Call = dict[str, Any]


def call(tool: str, output: str = "", /, **arguments: Any) -> Call:
    return {"server": "s", "tool": tool, "arguments": arguments, "output": output}


def record(db: Path, sessions: Iterable[tuple[str, Sequence[Call]]]) -> None:
    documents = [
        {"session_id": f"{number}", "group": group, "calls": list(calls)}
        for number, (group, calls) in enumerate(sessions)
    ]
    assert import_sessions(db, documents).problems == []


def opened(db: Path, policy: Policy | None = None, **options: Any) -> Replayer:
    store = Store(db)
    return Replayer(store, learn(store, policy=policy), **options)


def asked(replayer: Replayer, group: str | None, *calls: Call) -> Answer | Miss:
    """Ask in one conversation, and return what the last call is answered."""
    session, answer = replayer.session(group), None
    for each in calls:
        params = {"name": each["tool"], "arguments": each["arguments"]}
        answer = session.ask(each["server"], "tools/call", params)
    assert answer is not None
    return answer


def told(answer: Answer | Miss) -> tuple[str, str, float | None] | None:
    """Tier, text and trust of an answer; `None` for a miss."""
    if isinstance(answer, Miss):
        return None
    return answer.tier, output_text(answer.outcome), answer.trust


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "world.db"


def test_where_too_little_was_compared_equal_calls_are_served_and_others_missed(db: Path) -> None:
    record(db, [("A", [call("get", "one", id="x")]), ("B", [call("get", "two", id="y")])])
    policy = Policy({"s/get": {"insensitive": ["limit"]}})
    replayer = opened(db, policy)
    assert told(asked(replayer, "A", call("get", id="x"))) == ("exact", "one", None)
    assert told(asked(replayer, "B", call("get", id="x"))) == ("exact-other-state", "one", None)
    assert told(asked(replayer, None, call("get", id="x"))) == ("exact-other-state", "one", None)
    near = asked(replayer, "A", call("get", id="x", limit=3))
    assert isinstance(near, Miss)
    assert near.rejected is not None
    assert (near.rejected.tier, near.rejected.trust) == ("near", None)
    assert told(asked(replayer, "A", call("get", id="z"))) is None
    everything = opened(db, policy, min_trust=0)
    assert told(asked(everything, "A", call("get", id="x", limit=3))) == ("near", "one", None)
    assert told(asked(everything, "A", call("get", id="yy"))) == ("nearest", "two", None)


def groups_that_differ(groups: int = 20, runs: int = 2) -> list[tuple[str, list[Call]]]:
    """Sessions of a group agree; each group has a world of its own."""
    return [
        (f"g{group}", [call("get", f"{item} of g{group}", item=item) for item in ("desk", "chair")])
        for group in range(groups)
        for _ in range(runs)
    ]


DESK, CHAIR = call("get", item="desk"), call("get", item="chair")


def calibrations(replayer: Replayer) -> tuple[Calibration, Calibration]:
    return replayer.learned.known_group, replayer.learned.unknown_group


def test_where_groups_differ_a_known_group_is_served_and_an_unknown_one_missed(db: Path) -> None:
    record(db, groups_that_differ())
    replayer = opened(db)
    known, unknown = calibrations(replayer)
    assert (known.compared, unknown.compared, unknown.threshold) == (80.0, pytest.approx(40.0), None)
    for group in ("g0", "g7", "g19"):
        answer = asked(replayer, group, DESK, CHAIR)
        assert isinstance(answer, Answer)
        assert (answer.tier, output_text(answer.outcome)) == ("exact", f"chair of {group}")
        assert answer.trust is not None
        assert answer.trust > 0.95
    for unseen in (None, "g20"):
        missed = asked(replayer, unseen, DESK, CHAIR)
        assert isinstance(missed, Miss)
        assert missed.rejected is not None
        assert missed.rejected.tier == "exact-other-state"
        assert missed.rejected.trust is not None
        assert missed.rejected.trust < 0.1


def test_a_group_among_very_many_is_answered_from_its_own_recording(db: Path) -> None:
    record(db, groups_that_differ(groups=100, runs=1))
    replayer = opened(db, min_trust=0)
    for group in ("g0", "g64", "g99"):
        answer = asked(replayer, group, DESK)
        assert isinstance(answer, Answer)
        assert (answer.tier, output_text(answer.outcome)) == ("exact", f"desk of {group}")


def test_where_groups_agree_an_unknown_group_is_served(db: Path) -> None:
    record(
        db,
        [
            (f"g{group}", [call("convert", str(number * 2), number=number) for number in (100, 200)])
            for group in range(20)
            for _ in range(2)
        ],
    )
    replayer = opened(db)
    for group in (None, "unseen"):
        answer = asked(replayer, group, call("convert", number=100), call("convert", number=200))
        assert isinstance(answer, Answer)
        assert (answer.tier, output_text(answer.outcome)) == ("exact-other-state", "400")
        assert answer.trust is not None
        assert answer.trust > 0.95


def test_what_sessions_of_one_group_contradict_each_other_in_is_missed(db: Path) -> None:
    record(
        db,
        [
            (f"g{group}", [call("read_clock", f"now {group} {run}"), call("read_name", f"name {group}")])
            for group in range(20)
            for run in range(3)
        ],
    )
    replayer = opened(db)
    assert isinstance(asked(replayer, "g3", call("read_clock")), Miss)
    name = asked(replayer, "g3", call("read_clock"), call("read_name"))
    assert isinstance(name, Answer)
    assert output_text(name.outcome) == "name 3"


def test_a_read_is_trusted_without_the_reads_that_came_before_it(db: Path) -> None:
    """Of 80 comparisons none was wrong; that the agent leaves out or reorders a read is no news."""
    record(db, groups_that_differ())
    replayer = opened(db)
    for calls in ([CHAIR], [CHAIR, DESK], [DESK, DESK, CHAIR]):
        answer = asked(replayer, "g0", *calls)
        assert isinstance(answer, Answer), answer.rejected
        assert output_text(answer.outcome) == f"{calls[-1]['arguments']['item']} of g0"


def test_min_trust_serves_what_is_trusted_that_much(db: Path) -> None:
    tools = [call("read_good"), call("read_fair"), call("read_bad")]

    def answers(group: int, run: int) -> list[Call]:
        fair = "another" if run == 0 and group % 8 == 0 else f"fair {group}"
        return [call("read_good", f"{group}"), call("read_fair", fair), call("read_bad", f"{group} {run}")]

    record(db, [(f"g{group}", answers(group, run)) for group in range(40) for run in range(2)])
    store, learned = Store(db), learn(Store(db))

    def trust_at(least: float) -> list[tuple[bool, float | None]]:
        replayer = Replayer(store, learned, min_trust=least)
        found = [asked(replayer, "g1", *tools[: number + 1]) for number in range(3)]
        return [
            (True, each.trust) if isinstance(each, Answer) else (False, each.rejected and each.rejected.trust)
            for each in found
        ]

    good, fair, bad = trusts = [trust or 0.0 for _, trust in trust_at(0)]
    assert 1 > good > 0.95 > fair > 0.6 > 0.4 > bad > 0
    for least in (0.0, bad, 0.5, fair, 0.95, good, 1.0):
        assert trust_at(least) == [(trust >= least, trust) for trust in trusts]


def test_only_at_least_trust_0_is_the_nearest_call_served(db: Path) -> None:
    record(db, groups_that_differ())
    unlike = call("get", item="chairs")
    assert isinstance(asked(opened(db), "g3", unlike), Miss)
    assert isinstance(asked(opened(db, min_trust=0.0001), "g3", unlike), Miss)
    answer = asked(opened(db, min_trust=0), "g3", unlike)
    assert isinstance(answer, Answer)
    assert (answer.tier, output_text(answer.outcome)) == ("nearest", "chair of g3")
    assert answer.score is not None
    assert 0.8 < answer.score < 1


@pytest.mark.parametrize("least", [-0.1, 1.1])
def test_a_least_trust_is_a_probability(db: Path, least: float) -> None:
    record(db, [("A", [call("get", "one")])])
    with pytest.raises(ValueError, match=f"min_trust must be in .0, 1., got {least}"):
        opened(db, min_trust=least)


def test_a_busy_call_is_looked_up_by_the_indexes_made_for_it(tmp_path: Path) -> None:
    db = tmp_path / "world.db"
    record(db, [(f"g{number}", [call("get", f"desk of g{number}", key="desk")]) for number in range(65)])
    learned = learn(Store(db))
    connection = open_beside(learned.path, read_only=True)
    asked: list[str] = []
    learned._database.connection().set_trace_callback(asked.append)
    key = call_key("s", "get", '{"key":"desk"}')
    for known in (True, False):
        # Stands where nothing recorded does, so that every way to stand near is tried.
        learned.rows(key, Place(group_id("g64"), 1, 2, (3,), 4, 5), known=known)
    looks = [statement for statement in asked if "busy AND" in statement]
    plans = [connection.execute(f"EXPLAIN QUERY PLAN {look}").fetchall()[0][3] for look in looks]
    assert {plan.split(" INDEX ")[1].split(" ")[0] for plan in plans} == {
        f"busy_by_{column}" for column in ("world", "history", "prefix", "related", "group")
    }
    connection.close()
