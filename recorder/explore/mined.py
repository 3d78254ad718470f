"""Values that a description mentions: examples, choices and defaults, in prose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Mined:
    choices: tuple[str, ...] = ()
    """What it says the value is one of."""
    examples: tuple[str, ...] = ()
    default: str | None = None


MOST_VALUES = 24
"""Of each kind, from one description."""

LONGEST = 200
"""Characters of an example."""

_QUOTED = r"(?<!\w)[\"'`“‘「]([^\"'`“”‘’」\n]{1,200}?)\\?[\"'`”’」](?![A-Za-z])"
"""Without apostrophes, and with the quotation marks of JSON within JSON."""
_ALL_QUOTED = re.compile(_QUOTED)

_EXAMPLE = re.compile(
    r"(?:\be\.?\s?g\.?|\bfor (?:example|instance)|\bexamples?|\bsuch as|\blike|\bi\.e\.|例如|比如"
    r"|如)[\s:：,=]*"
    r"(?=(?P<rest>[^\n]{1,300}))",
    re.IGNORECASE,
)
_CHOICE = re.compile(
    r"(?:\bone of|\beither|\boptions?(?: are)?|\bchoices?|\ballowed(?: values)?(?: are)?"
    r"|\bvalid [a-z]+(?: are)?"
    r"|\bsupported [a-z]+(?: are)?|\bsupports?|\bvalues?(?: are)?|\bcan be|\bmust be"
    r"|\bavailable [a-z]+(?: are)?"
    r"|支持[^:：]{0,8}|可选[^:：]{0,4})(?: of)?\s*[:：(=]?\s*(?=(?P<rest>[^\n]{1,400}))",
    re.IGNORECASE,
)
_DEFAULT = re.compile(
    rf"\bdefaults?(?: value)?(?:(?: is| to)?\s*[:=]?\s*(?:{_QUOTED}|(-?\d(?:[\w.:-]*\w)?|true\b|false\b))"
    r"|(?:(?: is| to):?\s+|\s*[:=]\s*)(?!(?:the|an?|no|none|null|undefined|empty|current|your|all of)\b)"
    r"(~?[\w./+:-]*\w))",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\(([^()\n]{3,200})\)")
_BULLET = re.compile(r"^\s*(?:[-*•]\s*)?[\"'`]?([A-Za-z][\w.+/-]{0,39})[\"'`]?\s*(?:—|–|--|:|：|\s-|=)\s+\S")
_PLAIN_LIST = re.compile(r"[\w.+/:-]+(?:\s*(?:,|\||/|、|\bor\b|\band\b)+\s*[\w.+/:-]+)+")
_SEPARATOR = re.compile(r"\s*(?:,\s*(?:or|and)\b|,|\||、|\bor\b|\band\b)\s*")
_PLAIN = re.compile(r"[\w@#$%+~/*.-][^\s,;()\[\]\"'`]*")


@lru_cache(maxsize=20_000)
def mined(text: str) -> Mined:
    """Read the values out of a parameter's description."""
    choices: list[str] = []
    for match in _CHOICE.finditer(text):
        choices += _listed(match["rest"])
    for match in _PARENTHESES.finditer(text):
        inner = match[1]
        if not _EXAMPLE.match(inner) and not _DEFAULT.match(inner):
            alternatives = [part.strip(" \"'`") for part in re.split(r"\s*\|\s*|\s*/\s*", inner)]
            if len(alternatives) > 1 and all(re.fullmatch(r"[\w.+-]{1,30}", part) for part in alternatives):
                choices += alternatives
    bullets = [line[1] for line in map(_BULLET.match, text.splitlines()) if line is not None]
    if len(bullets) >= 3:
        choices += bullets
    examples: list[str] = []
    for given in _EXAMPLE.finditer(text):
        rest = given["rest"]
        quoted = _ALL_QUOTED.findall(rest)
        examples += quoted or [plain for part in _SEPARATOR.split(rest)[:4] if (plain := _plain(part))]
    if not choices and not examples:
        examples = _ALL_QUOTED.findall(text)
    default = _DEFAULT.search(text)
    return Mined(
        _distinct(choices), _distinct(examples), default and next(filter(None, default.groups()), None)
    )


@lru_cache(maxsize=20_000)
def section(description: str, parameter: str) -> str:
    """Return what a tool's description says of one parameter: its line under `Args:`, and what belongs to
    it."""
    lines = description.splitlines()
    opening = re.compile(
        rf"^(\s*)(?:[-*•]\s*)?[\"'`*]*{re.escape(parameter)}[\"'`*]*\s*(?:\([^)]*\))?\s*(?::|：|—|–|\s-\s|=)\s*(.*)$"
    )
    for number, line in enumerate(lines):
        opened = opening.match(line)
        if opened is None:
            continue
        depth, found = len(opened[1]), [opened[2]]
        for later in lines[number + 1 :]:
            if later.strip() and len(later) - len(later.lstrip()) <= depth:
                break
            found.append(later)
        return "\n".join(found).strip()
    return ""


def quoted(text: str) -> list[str]:
    """Return what stands in quotation marks, in order."""
    return _ALL_QUOTED.findall(text)


def listed(text: str) -> list[str]:
    """Return the items of the list that a text begins with: quoted ones, or words between commas."""
    return _listed(text)


def _listed(rest: str) -> list[str]:
    rest = re.split(r"(?<=[\w\"'`\]])[.;](?:\s|$)|。", rest, maxsplit=1)[0]
    found = _ALL_QUOTED.findall(rest)
    if len(found) > 1:
        return found
    match = _PLAIN_LIST.match(rest.lstrip(" [({"))
    if match is None:
        return found
    items = [
        item.strip(" .") for item in re.split(r"\s*(?:,\s*(?:or|and)\b|,|\||、|\bor\b|\band\b)\s*", match[0])
    ]
    return [item for item in items if item and len(item) <= 40]


def _plain(part: str) -> str | None:
    match = _PLAIN.match(part.strip().lstrip("("))
    if match is None:
        return None
    word = match[0].rstrip(".:")
    # An ordinary word after "like" or "such as" is prose; a value has a digit, a sign or a capital in it.
    return word if re.search(r"[\d_/@.:-]|[A-Z]", word) and len(word) > 1 else None


def _distinct(values: list[str]) -> tuple[str, ...]:
    kept = [value.strip() for value in values if 0 < len(value.strip()) <= LONGEST]
    return tuple(dict.fromkeys(kept))[:MOST_VALUES]
