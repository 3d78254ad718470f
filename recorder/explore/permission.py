"""Which calls an explorer may make: reads, and of what changes the world only what the user allowed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from recorder.exchange import Json
from recorder.explore.roots import Roots
from recorder.tool import ToolSpec
from recorder.verbs import CHANGING, OPEN_ENDED, READING, kind_of, suggested, words_of

Effect = Literal["read", "write", "destructive"]

DESTRUCTIVE = frozenset(
    """
    delete remove drop clear reset purge truncate wipe destroy erase kill terminate shutdown uninstall format
    overwrite cancel revoke send publish submit pay purchase order book transfer refund move rename prune
    """.split()  # noqa: SIM905
)
"""Words of what cannot be taken back, or reaches people."""

_DESTROYS = re.compile(
    r"\b(?:rm|rmdir|rmtree|mv|dd|shred|unlink|mkfs|kill|pkill|killall|shutdown|reboot|delete|remove|drop|truncate)\b",
    re.IGNORECASE,
)
"""Commands, statements and functions that do so, anywhere in what a tool is to run."""

_FIRST_WORD = re.compile(r"\W*([A-Za-z]+)")


def effect_of(spec: ToolSpec, arguments: Mapping[str, Json] | None = None) -> Effect:
    """Say what a tool does to the world: as its annotations declare, else as its name and description
    suggest.

    Nothing known counts as a write. Of tools that run what they are given, what they are given counts, where
    there are arguments; without them, they may be read-only.
    """
    annotations = spec.entry.get("annotations")
    hints = annotations if isinstance(annotations, dict) else {}
    if hints.get("readOnlyHint") is True:
        return "read"
    kind = kind_of(spec.name, arguments or {})
    words = words_of(kind)
    changes = suggested(kind)
    destroys = bool(words & DESTRUCTIVE) or (
        bool(words & OPEN_ENDED) and any(map(_DESTROYS.search, _texts(dict(arguments or {}))))
    )
    if hints.get("destructiveHint") is True or (destroys and changes is not False):
        return "destructive"
    if hints.get("readOnlyHint") is False:
        return "write"
    if changes is None:
        if arguments is None and words & OPEN_ENDED:
            return "read"  # it depends on what it is given
        changes = not _described_as_read(spec) or bool(words & CHANGING) or bool(words & OPEN_ENDED)
    return "write" if changes else "read"


def _described_as_read(spec: ToolSpec) -> bool:
    """Whether a description begins with the verb of a read: "Calculates …", "Returns …"."""
    description = spec.entry.get("description")
    found = _FIRST_WORD.match(description) if isinstance(description, str) else None
    if found is None:
        return False
    word = found[1].lower()
    stems = {word, word.removesuffix("s"), word.removesuffix("es"), word.removesuffix("ing")}
    return bool(stems & (READING | {"return", "evaluate", "solve", "render", "parse", "generate", "echo"}))


@dataclass(frozen=True, slots=True)
class Permission:
    """What the user allowed.

    `allow` and `deny` hold names of tools with globs, `tool` or `server/tool`. A destructive tool has to be
    named in `allow`, by a glob at least; other writes need `writes` or `allow`; what `deny` names is never
    called.
    """

    writes: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    confined: bool = True
    """Whether paths in the arguments of writes have to lie in the server's folders."""

    def permits_tool(self, spec: ToolSpec) -> bool:
        """Whether some call of a tool may be made."""
        return self._permits(spec, effect_of(spec))

    def permits(self, spec: ToolSpec, arguments: Mapping[str, Json], roots: Roots) -> bool:
        """Whether this call may be made."""
        effect = effect_of(spec, arguments)
        if not self._permits(spec, effect):
            return False
        return effect == "read" or not self.confined or not _leaves_folders(spec, arguments, roots)

    def _permits(self, spec: ToolSpec, effect: Effect) -> bool:
        if named(spec, self.deny):
            return False
        if effect == "read" or named(spec, self.allow):
            return True
        return effect == "write" and self.writes


def named(spec: ToolSpec, patterns: Sequence[str]) -> bool:
    both = (spec.name, f"{spec.server}/{spec.name}")
    return any(fnmatchcase(name, pattern) for name in both for pattern in patterns)


def _leaves_folders(spec: ToolSpec, arguments: Mapping[str, Json], roots: Roots) -> bool:
    """Whether an argument names a place outside the folders that the servers were given.

    Of tools that run what they are given, every path within it counts.
    """
    runs = bool(words_of(spec.name) & OPEN_ENDED)
    for text in _texts(dict(arguments)):
        if runs and any(_steps_out(word, roots) for word in _WORDS.split(text)):
            return True
        for word in _ABSOLUTE.findall(text) if runs else [text.strip().strip("\"'")]:
            if len(word) > MOST_PATH or "\n" in word:
                continue  # content, and no path
            if re.match(r"~|\$|%|file:|[A-Za-z]:\\|\\\\", word, re.IGNORECASE):
                return True
            if word.startswith("/"):
                if not roots.holds(word):
                    return True
            elif _steps_out(word, roots):
                return True
    return False


def _steps_out(word: str, roots: Roots) -> bool:
    """Whether a relative path goes up, or a variable may stand for anything."""
    return (
        ".." in word.split("/")
        or _VARIABLE.match(word) is not None
        or any(_leads_out(folder, word, roots) for folder in roots.folders)
    )


_WORDS = re.compile(r"[\s\"'`;|&<>()=,:]+")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_]")


MOST_PATH = 4096
"""Characters of the longest path there can be (Linux, PATH_MAX)."""

_ABSOLUTE = re.compile(r"(?<![\w.*/])(?:/|~|\.\./|\$\w*/|file:)[^\s\"'`;|&<>()]*|\S*/\.\./\S*", re.IGNORECASE)


def _texts(value: Json) -> Iterator[str]:
    """Yield every string within a value, names of members too."""
    stack = [value]
    while stack:
        match stack.pop():
            case str() as text:
                yield text
            case list() as items:
                stack.extend(items)
            case dict() as members:
                yield from (name for name in members if "/" in name)
                stack.extend(members.values())


def _leads_out(folder: str, value: str, roots: Roots) -> bool:
    """Whether a relative path follows a link to somewhere else."""
    if not value or value.startswith("/") or "\0" in value:
        return False  # it is no relative path
    if not os.path.lexists(os.path.join(folder, value.split("/")[0])):
        return False  # nothing is there yet
    return not roots.holds(os.path.join(folder, value))
