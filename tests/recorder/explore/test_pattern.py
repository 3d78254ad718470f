"""Texts that are made to match a pattern."""

from __future__ import annotations

import re
from random import Random

import pytest

from recorder.explore.pattern import matching

PATTERNS = [
    r"^[A-Z]{2}\d{3}$", r"^\d{4}-\d{2}-\d{2}$", r"^(?:red|green)$", r"^#[0-9a-fA-F]{6}$", r"^[^/\s]+$", r"^(a|b)\1$",
    r"^.{5}$", r"^\w+@\w+\.\w{2,3}$", r"^[a-z0-9]+(?:-[a-z0-9]+)*$", r"x*", r"^\S+\s\W$", r"^[^a]$", r"^a?b{2,}$",
    r"^ab*?c++$", r"\bword\b", r"^[\w.-]+/[\w.-]+$", r"^(?P<year>\d{4})$", r"(?i)^ok$", "^[ä-ü]$", "^日本$", "", r"^\D\d$",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_made_matches_as_a_whole(pattern: str) -> None:
    made = [matching(pattern, Random(seed)) for seed in range(30)]
    assert all(text is not None and re.search(pattern, text) for text in made)
    assert made == [matching(pattern, Random(seed)) for seed in range(30)]


def test_different_seeds_make_different_texts_that_are_short() -> None:
    made = {matching(r"^[a-z]+\d*$", Random(seed)) or "" for seed in range(30)}
    assert len(made) > 20
    assert max(map(len, made)) <= 12


@pytest.mark.parametrize("pattern", ["(", "[z-a]", r"\p{L}+", "^(?!a)a$", "a{2,1}", "(" * 300 + ")" * 300])
def test_where_none_can_be_made_there_is_none(pattern: str) -> None:
    assert matching(pattern, Random(0)) is None


def test_look_around_is_met_or_refused_but_never_answered_wrongly() -> None:
    for pattern in (r"^(?=.*\d)[a-z0-9]{8}$", r"(?<=a)b", r"^(?!\.)[a-z.]+$"):
        for seed in range(20):
            text = matching(pattern, Random(seed))
            assert text is None or re.search(pattern, text)


@pytest.mark.parametrize(
    "pattern", [r"^a{100000000}$", r"^(?:a{1000}){1000}$", r"^(?:){10000000}$", r"^(?:(?:(?:a*)*)*)*$"]
)
def test_a_pattern_that_asks_for_too_much_is_refused_or_met_in_little_space(pattern: str) -> None:
    text = matching(pattern, Random(0))
    assert text is None or len(text) <= 100_000
