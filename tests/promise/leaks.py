"""Finds a secret in a recording, however it is spelled there."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.promise.recording import all_values, files_of

ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
SHORT_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
DEPTH = 6
"""Strings in strings in strings … that are looked through."""


def leaked(db: Path, secrets: Mapping[str, str]) -> list[str]:
    """Return the names of the secrets that some byte of the files or some stored value gives away.

    Half of a secret gives it away, too.
    """
    texts = [path.read_bytes().decode("utf-8", "replace") for path in files_of(db)]
    # A value may lie across pages of the file, so the values are looked at as values, too.
    texts.append("\n".join(all_values(db)))
    seen = [spelling for text in texts for spelling in unescaped(text)]
    return [
        name
        for name, secret in secrets.items()
        if any(part in text for part in traces(secret) for text in seen)
    ]


def traces(secret: str) -> set[str]:
    middle = len(secret) // 2
    parts = [secret, secret[:middle], secret[middle:]] if len(secret) >= 16 else [secret]
    return {spelling for part in parts for spelling in unescaped(part)}


def unescaped(text: str) -> Iterator[str]:
    """Yield the text, and what is left when JSON's escapes are undone once, twice and so on."""
    for _ in range(DEPTH):
        yield text
        simpler = joined_surrogates(ESCAPE.sub(_character, text))
        if simpler == text:
            return
        text = simpler


def joined_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def modes(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in paths}


def _character(escape: re.Match[str]) -> str:
    code, char = escape.groups()
    return chr(int(code, 16)) if code else SHORT_ESCAPES.get(char, char)
