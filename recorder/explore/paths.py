"""Paths for parameters that name files or folders: of the type that the tool works on, existing or new."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from random import Random
from typing import Literal

from recorder.explore.names import Words
from recorder.explore.roots import Roots

PathKind = Literal["file", "directory", "new file", "new directory", "any"]

MADE = "firefly_"
"""What stands in the names of what we make ourselves."""

_FOLDER = frozenset("directory dir folder root workspace project repo repository cwd vault base".split())
_FILE = frozenset(
    "file filename document workbook spreadsheet presentation image pdf video audio notebook".split()
)
_NEW = frozenset("output destination dest save out new export to".split())
_PLACES = frozenset(
    "source input template from repo repository project workspace root base cwd vault".split()
)
"""Words for what has to be there already, also where something is made."""

_MADE_AS_FILES = _FILE | _FOLDER | {"note", "report", "diagram", "archive", "database", "page"}
"""What is a file or folder itself, so that a tool that makes one takes a new path; others take an existing
one."""

_ENDS = frozenset("source src destination dest target from to".split())
_MAKING = frozenset("create write save make new init".split())
_PATH_TEXT = re.compile(
    r"\b(?:file ?path|path (?:to|of)|absolute path|directory|folder|file ?name)\b", re.IGNORECASE
)

_TYPES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"excel|workbook|spreadsheet|worksheet|\bxlsx?\b", (".xlsx", ".xls")),
    (r"\bword\b|docx|word document", (".docx",)),
    (r"power ?point|presentation|pptx|\bslides?\b", (".pptx",)),
    (r"\bpdfs?\b", (".pdf",)),
    (r"\bcsv\b|data ?frame|tabular", (".csv", ".tsv")),
    (r"\bparquet\b", (".parquet",)),
    (r"\bjsonl?\b", (".json", ".jsonl")),
    (r"\bya?ml\b", (".yaml", ".yml")),
    (r"\btoml\b", (".toml",)),
    (r"\bxml\b", (".xml",)),
    (r"\bhtml?\b", (".html", ".htm")),
    (r"markdown|\bmd\b|\bnotes?\b|vault|obsidian", (".md",)),
    (r"\bimages?\b|picture|photo|\bpng\b|\bjpe?g\b|thumbnail", (".png", ".jpg", ".jpeg", ".gif")),
    (r"\baudio\b|\bwav\b|\bmp3\b", (".wav", ".mp3")),
    (r"\bmedia\b", (".png", ".jpg", ".wav", ".mp3")),
    (r"sqlite|duckdb|\bdatabase\b", (".db", ".sqlite", ".sqlite3", ".duckdb")),
    (r"\bpython\b", (".py",)),
    (r"javascript|typescript", (".js", ".ts")),
    (r"source code|\bcode\b|symbols?|\bast\b|syntax tree|functions?|complexity|dependenc", (".py", ".js", ".ts", ".go", ".rs", ".java")),
    (r"\blogs?\b", (".log",)),
    (r"mermaid|diagram", (".mmd", ".svg")),
    (r"open ?api|swagger", (".json", ".yaml")),
    (r"\bzip\b|archive", (".zip", ".tar.gz")),
    (r"\bics\b|calendar", (".ics",)),
    (r"notebook", (".ipynb",)),
    (r"\bsvg\b", (".svg",)),
    (r"\btext file|\btxt\b", (".txt", ".md")),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern, re.IGNORECASE), endings) for pattern, endings in _TYPES)
_ENDING = re.compile(r"(?<![\w/.])\*?(\.[a-z][a-z0-9]{1,5})\b")


def path_kind(words: Words, text: str, tool: Words, schema_format: str | None) -> PathKind | None:
    """Say what kind of path a parameter takes; `None` if it takes none.

    Args:
        words: The parameter's qualified name.
        text: Its description.
        tool: The words of the tool's name.
    """
    own, verbs = set(words), set(tool)
    names_path = "path" in own or schema_format in ("path", "file-path", "directory-path")
    moves = bool(own & _ENDS) and bool(verbs & (_FILE | _FOLDER))
    hinted = names_path or moves or own & _FILE or (own & _FOLDER and _PATH_TEXT.search(text or "path to"))
    named_otherwise = own & {"content", "text", "pattern", "query", "name", "glob"}
    if not hinted and (named_otherwise or not _PATH_TEXT.search(text)):
        return None
    if own & {"pattern", "content", "type", "size", "count", "glob", "id"}:
        return None
    folder = bool(own & _FOLDER) or (bool(verbs & _FOLDER) and not own & _FILE)
    if not folder and not own & _FILE and re.search(r"\b(?:directory|folder)\b", text, re.IGNORECASE):
        folder = not re.search(r"\bfile\b", text, re.IGNORECASE)
    new = bool(own & _NEW) or bool(verbs & _MAKING and verbs & _MADE_AS_FILES and not own & _PLACES)
    if new:
        return "new directory" if folder else "new file"
    if folder:
        return "directory"
    return "file" if own & _FILE or re.search(r"\bfile\b", text, re.IGNORECASE) or "file" in verbs else "any"


def endings_for(words: Words, text: str, tool: Words, about: str, server: str = "") -> list[str]:
    """Return the endings of the files that a parameter takes, likeliest first; none if nothing says."""
    named = _ENDING.findall(text.lower())
    for clue in (" ".join(words), text, " ".join(tool), about[:400], server):
        for pattern, endings in _COMPILED:
            if pattern.search(clue):
                named += endings
        if named:
            break
    return list(dict.fromkeys(named))


def path_values(
    kind: PathKind, endings: Sequence[str], roots: Roots, rng: Random, *, absolute: bool | None
) -> list[str]:
    """Return paths of a kind, the best first.

    Args:
        endings: What a file's name should end in.
        absolute: Whether they have to be; both, absolute ones first, if it is not known.
    """
    match kind:
        case "new file":
            ending = endings[0] if endings else ".txt"
            found = [
                os.path.join(folder, f"{MADE}{rng.randrange(100_000)}{ending}")
                for folder in roots.folders[:2]
            ]
            found = found or [f"{MADE}{rng.randrange(100_000)}{ending}"]
        case "new directory":
            found = [os.path.join(folder, f"{MADE}{rng.randrange(100_000)}") for folder in roots.folders[:2]]
            found += roots.folders
        case "directory":
            found = [*roots.folders, *_some(roots.subfolders, rng)]
        case "file":
            found = roots.with_endings(endings) or [*roots.named, *_some(roots.files, rng)]
        case "any":
            found = roots.with_endings(endings)
            if found:
                return _both(found, roots, absolute)
            found = [*roots.folders, *roots.named, *_some(roots.files, rng)]
            found += _some(roots.subfolders, rng)
    return _both(found, roots, absolute)


def _both(found: list[str], roots: Roots, absolute: bool | None) -> list[str]:
    """Return absolute paths, relative ones, or both."""
    relative = [short for name in found if (short := roots.relative(name)) is not None]
    if absolute is None:
        return [*found, *relative[: len(found)]]
    return found if absolute else relative or found


def _some(names: Sequence[str], rng: Random, most: int = 12) -> list[str]:
    """Return a few, in random order, shallow ones being likelier as they come first."""
    pool = list(names[:60])
    rng.shuffle(pool)
    return pool[:most]
