"""Files and folders that a server was told of: what its path parameters may name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MOST_FILES, MOST_DEPTH = 2000, 5
"""Files that are looked at in one folder, and how deep."""

_SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", "venv", ".cache", ".mypy_cache"})


MOST_READ, LARGEST_READ = 30, 50_000
TEXT_ENDINGS = (
    ".py",
    ".js",
    ".ts",
    ".md",
    ".txt",
    ".json",
    ".yaml",
    ".toml",
    ".html",
    ".sql",
    ".log",
    ".go",
    ".rs",
)

_WORD = re.compile(r"[A-Za-z_]\w{3,24}")


@dataclass(frozen=True, slots=True)
class Roots:
    """Folders that a server works on, and what lies in them, as they were when the campaign began."""

    folders: tuple[str, ...] = ()
    """Absolute; the first is the one where new files go."""
    files: tuple[str, ...] = ()
    """Absolute paths, shallow ones first."""
    subfolders: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    """Files that the configuration names itself."""
    words: tuple[str, ...] = ()
    """Words of the texts among the files, frequent ones first: what a search should find."""

    def with_endings(self, endings: Iterable[str]) -> list[str]:
        """Return the files with one of these endings, such as `.csv`."""
        ends = tuple(ending.lower() for ending in endings)
        return [name for name in (*self.named, *self.files) if name.lower().endswith(ends)] if ends else []

    def relative(self, name: str) -> str | None:
        """Return a path as seen from the folder it lies in, if it lies in one."""
        for folder in self.folders:
            if name.startswith(folder + os.sep):
                return os.path.relpath(name, folder)
        return None

    def knows(self, name: str) -> bool:
        """Whether there was such a file or folder, as named from the root or from one of the folders."""
        known = _known(self)
        return name in known or any(
            os.path.join(folder, name.rstrip("/")) in known for folder in self.folders
        )

    def holds(self, name: str) -> bool:
        """Whether a path lies in one of the folders, links followed."""
        try:
            real = os.path.realpath(name)
        except ValueError:  # null bytes, lone surrogates: no path at all
            return False
        return any(
            real == folder or real.startswith(folder.rstrip(os.sep) + os.sep)
            for folder in map(os.path.realpath, self.folders)
        ) or real in map(os.path.realpath, self.named)


@lru_cache(maxsize=64)
def _known(roots: Roots) -> frozenset[str]:
    return frozenset((*roots.folders, *roots.files, *roots.subfolders, *roots.named))


def look(folders: Sequence[Path], named: Sequence[Path] = ()) -> Roots:
    """Look into folders; what cannot be read is left out."""
    files: list[str] = []
    subfolders: list[str] = []
    for folder in folders:
        base = os.path.abspath(folder)
        found: list[str] = []
        for at, inner, names in os.walk(base):
            depth = at[len(base) :].count(os.sep)
            inner[:] = sorted(name for name in inner if name not in _SKIPPED and depth < MOST_DEPTH)
            if at != base:
                subfolders.append(at)
            found += [os.path.join(at, name) for name in sorted(names)]
            if len(found) >= MOST_FILES:
                break
        files += sorted(found[:MOST_FILES], key=lambda name: (name.count(os.sep), name))
    return Roots(
        tuple(dict.fromkeys(os.path.abspath(folder) for folder in folders)),
        tuple(dict.fromkeys(files)),
        tuple(dict.fromkeys(subfolders)),
        tuple(dict.fromkeys(os.path.abspath(name) for name in named)),
        _words(files),
    )


def _words(files: Sequence[str]) -> tuple[str, ...]:
    """Read the words of the first texts, small ones alone."""
    counts: Counter[str] = Counter()
    read = 0
    for name in files:
        try:
            if (
                read >= MOST_READ
                or not name.lower().endswith(TEXT_ENDINGS)
                or os.path.getsize(name) > LARGEST_READ
            ):
                continue
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        read += 1
        counts.update(set(_WORD.findall(text)))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:200])


def joined(roots: Sequence[Roots]) -> Roots:
    """Return several as one, in order."""
    return Roots(
        tuple(dict.fromkeys(name for each in roots for name in each.folders)),
        tuple(dict.fromkeys(name for each in roots for name in each.files)),
        tuple(dict.fromkeys(name for each in roots for name in each.subfolders)),
        tuple(dict.fromkeys(name for each in roots for name in each.named)),
        tuple(dict.fromkeys(word for each in roots for word in each.words)),
    )
