"""G3: the answer is not said where a solver reads it before any call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from recorder.exchange import Json, ToolRef
from synth.answers import normalised
from synth.task import Task, Verdict
from synth.trace import argument_leaves
from synth.world import World

NAME = "answer leak"

SHORTEST_TEXT, SHORTEST_NUMBER = 4, 3
"""Characters of a text, and digits of a number, that are no coincidence where they stand again."""


def leak(task: Task, world: World) -> Verdict:
    """Fail if a value of the answer stands in the question, what is said of the tools, or the calls'
    arguments.

    Short values are let pass one by one, but not all of them: a question must not hold every field.
    """
    for place, text in _told(task, world):
        for name, value in task.answer.items():
            for item in value if isinstance(value, list) else [value]:
                if leaks(item, text):
                    return Verdict(gate=NAME, passed=False, reason=f"{name} = {item!r:.60} stands in {place}")
    given = {normalised(value) for call in task.calls for _, value in argument_leaves(call.arguments)}
    for name, value in task.answer.items():
        if isinstance(value, str) and normalised(value) in given:
            return Verdict(gate=NAME, passed=False, reason=f"{name} = {value!r:.60} is an argument")
    said = _tokens(task.question)
    if all(_is_said(value, said) for value in task.answer.values()):
        return Verdict(gate=NAME, passed=False, reason="every value of the answer stands in the question")
    return Verdict(gate=NAME, passed=True, reason="no value of the answer is said beforehand")


def leaks(value: Json, text: str) -> bool:
    """Whether a value stands in a text by more than coincidence."""
    if isinstance(value, bool) or value is None:
        return False
    wanted = normalised(value)
    if isinstance(value, int | float):
        if sum(character.isdigit() for character in wanted) < SHORTEST_NUMBER:
            return False
        plain = _ZEROS.sub(lambda found: found[1].rstrip("."), _SEPARATOR.sub("", normalised(text)))
        return re.search(rf"(?<![\d.]){re.escape(wanted)}(?!\.?\d)", plain) is not None
    if (day := _ISO_DAY.fullmatch(wanted)) is not None and _says_day(day, text):
        return True
    if len(wanted) < SHORTEST_TEXT:
        return len(wanted) > 1 and any(f"{quote}{value}{quote}" in text for quote in '`"')
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalised(text)) is not None


_SEPARATOR = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
"""Of thousands."""
_ZEROS = re.compile(r"(?<![\d.])(\d+\.\d*?)0+(?!\d)")
"""After the last digit of a fraction that counts."""
_ISO_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def _says_day(day: re.Match[str], text: str) -> bool:
    """Whether a text says a day in words or in digits: 4 May 2019, May 4th, 2019, 04/05/2019."""
    year, month, number = day[1], int(day[2]), int(day[3])
    if not 1 <= month <= 12:
        return False
    name, nth = rf"{_MONTHS[month - 1]}[a-z]*\.?", rf"0?{number}(?:st|nd|rd|th)?"
    digits = (
        rf"0?{month}[/.]0?{number}[/.]{year}|0?{number}[/.]0?{month}[/.]{year}|{year}/0?{month}/0?{number}"
    )
    found = rf"(?<!\w)(?:{nth}\.?(?: of)? {name},? {year}|{name} {nth},? {year}|{digits})(?!\w)"
    return re.search(found, normalised(text)) is not None


def _told(task: Task, world: World) -> Iterator[tuple[str, str]]:
    yield "the question", task.question
    for call in task.calls:
        for _, value in argument_leaves(call.arguments):
            yield f"an argument of {call.tool}", str(value)
    for tool in task.tools:
        for text in tool_texts(world.entry(ToolRef(tool.server, tool.name))):
            yield f"what is said of {tool.name}", text


def tool_texts(entry: Mapping[str, Json]) -> Iterator[str]:
    """Yield what a model is told of a tool before it calls it."""
    yield str(entry.get("description") or "")
    yield from _schema_values(entry.get("inputSchema"))


def _schema_values(schema: Json) -> Iterator[str]:
    """Yield the texts and values of a schema that a model is shown."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name in ("enum", "examples") and isinstance(value, list):
                yield from map(str, value)
            elif name in ("default", "const", "description", "title", "example") and not isinstance(
                value, dict | list
            ):
                yield str(value)
            else:
                yield from _schema_values(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _schema_values(value)


STEPS = re.compile(r"\bsteps? \d+(?: (?:and|or) \d+)?|\(\d\)")
"""Where a question numbers its steps."""


def _tokens(text: str) -> set[str]:
    text = STEPS.sub(" ", text)
    quoted = re.findall(r"[`\"]([^`\"]+)[`\"]", text)
    return {normalised(token) for token in [*re.findall(r"-?\d+(?:\.\d+)?|\w+", text), *quoted]}


def _is_said(value: Json, said: set[str]) -> bool:
    if isinstance(value, bool):
        return True  # a coin says it
    if isinstance(value, list):
        return all(_is_said(item, said) for item in value)
    return normalised(value) in said
