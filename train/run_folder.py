"""The folder of a run: whose it is, and that only the same run goes on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from recorder.errors import FireflyError

SETTINGS = "settings.json"
BEGUN = f"{SETTINGS}.new"
"""What it is called until it is whole."""


def begin(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Make a run's folder, or take one up that was begun with the same settings.

    Raises:
        FireflyError: as for `check`.
    """
    check(folder, settings, resume=resume)
    write(folder, settings)


def write(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a run's settings into its folder, which is made if need be, after a `check` of it."""
    folder.mkdir(parents=True, exist_ok=True)
    # First, and whole: a run that is killed at any time leaves a folder that can be gone on with.
    beside = folder / BEGUN
    beside.write_text(readable_json(settings) + "\n", encoding="utf-8")
    beside.replace(folder / SETTINGS)


def check(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Make sure that a run can begin in a folder, or go on in it, and change nothing.

    Raises:
        FireflyError: it holds another run, or one and `resume` is not asked for, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise FireflyError(f"{folder} is a file; --out must name a folder")
    if (folder / SETTINGS).is_file():
        if not resume:
            raise FireflyError(
                f"{folder} holds a run already: --resume goes on with it, or name another --out"
            )
        before, now = read(folder), json.loads(readable_json(settings))
        different = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if different:
            name = different[0]
            raise FireflyError(
                f"{folder} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}:"
                " --resume needs the same settings"
            )
        return
    others = sorted({each.name for each in folder.iterdir()} - {BEGUN}) if folder.exists() else []
    if others:
        raise FireflyError(
            f"{folder} holds {others[0]}, which is of no run; --out must be a new or empty folder"
        )


def read(folder: Path) -> dict[str, Any]:
    """Return the settings of a run.

    Raises:
        FireflyError: the folder holds none.
    """
    try:
        return dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise FireflyError(f"{folder} holds no run: {SETTINGS} is not there, or cannot be read") from error
