"""What a user says of tools, over what a recording shows: a small TOML file.

[tools."shop/search_*"]
changes_state = false        # these calls do not change the world
insensitive = ["limit"]      # arguments that may differ
sensitive = ["query"]        # arguments that may not, whatever was learned
volatile = ["/generated_at"] # places in the output that change from one moment to the next
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from recorder.errors import FireflyError

LISTS = ("insensitive", "sensitive", "volatile")


class PolicyError(FireflyError):
    """A policy file that says nothing we understand."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules by pattern (`server/tool`, `*` and `?` as in a shell); of several that match, the last wins."""

    rules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def changes(self, server: str, kind: str) -> bool | None:
        """Return whether a kind of call changes the world, if a rule says so.

        A rule for a tool covers all its kinds: `db/execute_sql` also `db/execute_sql SELECT`.
        """
        verdict: bool | None = None
        for pattern, rule in self.rules.items():
            if "changes_state" in rule and any(
                fnmatchcase(f"{server}/{name}", pattern) for name in (kind, kind.partition(" ")[0])
            ):
                verdict = rule["changes_state"]
        return verdict

    def names(self, server: str, tool: str, what: str) -> set[str]:
        """Return all that the rules list for a tool under `what`, one of `LISTS`."""
        return {
            name
            for pattern, rule in self.rules.items()
            if fnmatchcase(f"{server}/{tool}", pattern)
            for name in rule.get(what, ())
        }

    def as_json(self) -> dict[str, Any]:
        return {pattern: dict(rule) for pattern, rule in self.rules.items()}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Policy:
        return Policy(dict(value))

    @staticmethod
    def read(path: Path) -> Policy:
        """
        Raises:
            PolicyError: the file cannot be read, or holds something else than rules.
        """
        try:
            value = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PolicyError(f"cannot read {path}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyError(f"{path} is not TOML: {error}") from error
        tools = value.get("tools", {})
        if set(value) - {"tools"} or not isinstance(tools, dict):
            raise PolicyError(f'{path}: rules stand under [tools."server/tool"], got {", ".join(value)}')
        for pattern, rule in tools.items():
            _check(path, pattern, rule)
        return Policy(tools)


def _check(path: Path, pattern: str, rule: object) -> None:
    where = f'{path}: tools."{pattern}"'
    if "/" not in pattern:
        raise PolicyError(f'{where}: a pattern names server and tool, as in "shop/search_*"')
    if not isinstance(rule, dict):
        raise PolicyError(f"{where} must be a table, got {rule!r}")
    for name, value in rule.items():
        if name == "changes_state":
            if not isinstance(value, bool):
                raise PolicyError(f"{where}: changes_state must be true or false, got {value!r}")
        elif name not in LISTS:
            raise PolicyError(f"{where}: unknown rule {name!r}; there are changes_state, {', '.join(LISTS)}")
        elif not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"{where}: {name} must be a list of strings, got {value!r}")
