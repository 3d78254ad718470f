"""A question in words, from templates: which calls lead to the answer, said without their tools' names.

The wording is varied by the random source, so that no phrase gives the task away. What a call is for is
said as its tool's description says it; what its arguments are, value by value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from recorder.exchange import Json
from recorder.explore.names import subject_of
from recorder.verbs import CHANGING, OPEN_ENDED, READING
from synth.aspects import shown, spoken
from synth.values import Address

LONGEST_PURPOSE = 110
"""Characters of a description's first sentence that are said."""


@dataclass(frozen=True, slots=True)
class Step:
    """A call, as a question tells of it."""

    purpose: str
    """What it is for, in the imperative."""
    arguments: Mapping[str, Json]
    bound: Sequence[tuple[Address, str]] = ()
    """Arguments that come out of earlier steps, and what they are."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be reported of a step."""

    step: int
    words: str


def purpose(tool: str, entry: Mapping[str, Json], rng: Random) -> str:
    """Return what a tool is for as an imperative, from its description or from its name."""
    subject = " ".join(subject_of(tool))
    said = _imperative(str(entry.get("description") or ""), tool)
    if said and (not subject or rng.random() < 0.6):
        return said
    if subject:
        return rng.choice(
            ("Look up the {0}", "Get the {0}", "Check the {0}", "Find out about the {0}")
        ).format(subject)
    if said:
        return said
    sentence = _clause(_SENTENCE.split(str(entry.get("description") or "").strip(), maxsplit=1)[0].split())
    return f"Get this: {_lowered(sentence)}" if sentence and tool not in sentence else "Ask for what is known"


def question(steps: Sequence[Step], asked: Sequence[Asked], rng: Random) -> str:
    """Return the whole question.

    Args:
        steps: In the order of the calls.
        asked: In the order of the answer's fields.
    """
    told = [_told(step, rng) for step in steps]
    if len(steps) == 1:
        lead = rng.choice(
            ("{0}.", "{0}, please.", "Please {1}.", "I need something looked up: {1}.", "Could you {1}?")
        )
        opening = lead.format(told[0], _lowered(told[0]))
        request = rng.choice(
            (
                "Report {0}.",
                "Tell me {0}.",
                "I want to know {0}.",
                "Give {0}.",
                "From that, state {0}.",
                "What I need: {0}.",
            )
        )
        return f"{opening} {request.format(_listed([each.words for each in asked]))}"
    style = rng.choice(("numbered", "then", "parts"))
    if style == "numbered":
        opening = " ".join(f"({number}) {text}." for number, text in enumerate(told, 1))
    elif style == "then":
        links = ("First, ", *rng.sample(("Then ", "Next, ", "After that, "), 3))
        opening = " ".join(f"{links[min(number, 3)]}{_lowered(text)}." for number, text in enumerate(told))
    else:
        opening = f"Work in {_count(len(told))} steps. " + " ".join(
            f"Step {number}: {_lowered(text)}." for number, text in enumerate(told, 1)
        )
    return f"{opening} {_requests(asked, len(steps), style, rng)}"


def _requests(asked: Sequence[Asked], steps: int, style: str, rng: Random) -> str:
    by_step: dict[int, list[str]] = {}
    for each in asked:
        by_step.setdefault(each.step, []).append(each.words)
    verb = rng.choice(("Report", "Tell me", "Give", "State"))
    parts = []
    for step, words in by_step.items():
        if step < 0:
            parts.append(_listed(words))
        elif style == "then":
            where = _ORDINALS[step] if steps > 1 else "only"
            parts.append(f"from the {where} result {_listed(words)}")
        else:
            name = f"({step + 1})" if style == "numbered" else f"step {step + 1}"
            parts.append(f"from {name} {_listed(words)}")
    return f"{verb} {'; '.join(parts)}."


_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def _told(step: Step, rng: Random) -> str:
    bound = {path[0]: words for path, words in step.bound if path}
    said = []
    for name, value in step.arguments.items():
        inner = {path[1:]: words for path, words in step.bound if path and path[0] == name}
        if name in bound and list(inner) == [()]:
            said.append(f"{spoken(name)}: {bound[name]}")
        elif name in bound:
            said.append(f"{spoken(name)}: {_with_bound(value, inner)}")
        else:
            said.append(f"{spoken(name)}: {shown(value)}")
    if not said:
        return step.purpose
    form = rng.choice(("{0} ({1})", "{0} with {1}", "{0}, given {1}"))
    return form.format(step.purpose, "; ".join(said))


def _with_bound(value: Json, inner: Mapping[Address, str]) -> str:
    if () in inner:
        return inner[()]
    if isinstance(value, list):
        parts = [
            _with_bound(item, {path[1:]: words for path, words in inner.items() if path[0] == number})
            if any(path[0] == number for path in inner)
            else shown(item)
            for number, item in enumerate(value)
        ]
        return ", ".join(parts)
    if isinstance(value, dict):
        parts = []
        for name, item in value.items():
            mine = {path[1:]: words for path, words in inner.items() if path[0] == name}
            parts.append(f"{spoken(str(name))} {_with_bound(item, mine) if mine else shown(item)}")
        return ", ".join(parts)
    return shown(value)


_THIRD_PERSON = re.compile(r"^([A-Z][a-z]+?)(es|s)$")
_SENTENCE = re.compile(r"(?<=[a-z)\]\"'`\d])[.!?](?:\s|$)|\n|:\s*$")


def _imperative(description: str, tool: str) -> str:
    """Return the first sentence of a description if it begins with a verb, cut to a clause."""
    sentence = (
        _SENTENCE.split(" ".join(description.strip().split("\n")[:1]), maxsplit=1)[0].strip().rstrip(".:")
    )
    words = sentence.split()
    if len(words) < 3 or tool in sentence:
        return ""
    verbs = READING | CHANGING | OPEN_ENDED
    first = words[0].strip(",")
    if first.lower() not in verbs:
        found = _THIRD_PERSON.match(first)
        stems = [] if found is None else [first[:-1], first[: -len(found[2])]]
        stem = next((stem for stem in stems if stem.lower() in verbs), None)
        if stem is None:
            return ""
        words[0] = stem
    return _clause(words)


def _clause(words: Sequence[str]) -> str:
    """Return the beginning of a sentence, cut where a clause ends."""
    said = ""
    for word in words:
        if len(said) + len(word) + 1 > LONGEST_PURPOSE:
            break
        said = f"{said} {word}".strip()
    said = re.sub(r"\s*[(,;][^),;]*$", "", said) if len(said) < len(" ".join(words)) else said
    return re.sub(r"\s+(?:and|or|the|a|an|of|in|with|for|to|by|on|from|as|that|using)$", "", said)


def _lowered(text: str) -> str:
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _listed(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return (
        "; ".join(words[:-1]) + "; and " + words[-1]
        if any("," in w for w in words)
        else (", ".join(words[:-1]) + " and " + words[-1])
    )


def _count(number: int) -> str:
    return ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")[min(number, 8)]
