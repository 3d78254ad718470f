"""Texts that match a regular expression."""

from __future__ import annotations

import re
import string
from random import Random
from typing import Any

MOST_REPEATS = 4
"""Beyond the least, of what may be repeated without end."""

MOST_CHARACTERS = 10_000
"""Of a text; a pattern that asks for more is not met."""

_ANY = string.ascii_lowercase + string.digits
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_WORD": _ANY,
    "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": string.ascii_lowercase,
    "CATEGORY_NOT_WORD": "-",
    "CATEGORY_NOT_SPACE": _ANY,
}


def matching(pattern: str, rng: Random) -> str | None:
    """Return a text in which the whole pattern matches; `None` where that is beyond us (look-around, say)."""
    try:
        parser = re._parser  # type: ignore[attr-defined]  # the module's own reading of a pattern
        text = _made(parser.parse(pattern), rng, {})
        return text if re.search(pattern, text) else None
    except (re.error, KeyError, ValueError, RecursionError, OverflowError):
        return None


def _made(parsed: Any, rng: Random, groups: dict[int, str]) -> str:
    return "".join(_part(str(op), argument, rng, groups) for op, argument in parsed)


def _part(op: str, argument: Any, rng: Random, groups: dict[int, str]) -> str:
    match op:
        case "LITERAL":
            return chr(argument)
        case "NOT_LITERAL":
            return "a" if argument != ord("a") else "b"
        case "ANY":
            return _one(_ANY, rng)
        case "AT":
            return ""
        case "IN":
            return _one(_members(argument), rng)
        case "BRANCH":
            return _made(argument[1][rng.randrange(len(argument[1]))], rng, groups)
        case "SUBPATTERN":
            text = _made(argument[3], rng, groups)
            if argument[0] is not None:
                groups[argument[0]] = text
            return text
        case "GROUPREF":
            return groups[argument]
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = argument
            times = rng.randint(least, max(least, min(int(most), least + MOST_REPEATS)))
            text = ""
            for _ in range(times):
                text += _made(inner, rng, groups)
                if max(times, len(text)) > MOST_CHARACTERS:
                    raise ValueError(f"no text is made of more than {MOST_CHARACTERS} characters")
            return text
    raise ValueError(f"no text is made for {op}")


def _members(items: Any) -> str:
    found, negated = "", False
    for op, argument in items:
        match str(op):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found += chr(argument)
            case "RANGE":
                low, high = argument
                found += "".join(map(chr, range(low, min(high, low + 100) + 1)))
            case "CATEGORY":
                found += _CATEGORIES[str(argument)]
    return "".join(c for c in _ANY + "-_ A" if c not in found) if negated else found


def _one(letters: str, rng: Random) -> str:
    return letters[rng.randrange(len(letters))]
