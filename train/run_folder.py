"""The folder of a run: whose it is, and that only the same run goes on in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recorder.canonical import readable_json
from recorder.errors import FireflyError

SETTINGS = "settings.json"


def begin(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Make a run's folder, or take one up that was begun with the same settings.

    Raises:
        FireflyError: it holds another run, or one and `resume` is not asked for, or something else.
    """
    told = folder / SETTINGS
    if folder.exists() and not folder.is_dir():
        raise FireflyError(f"{folder} is a file; --out must name a folder")
    text = readable_json(settings)
    if told.is_file():
        if not resume:
            raise FireflyError(
                f"{folder} holds a run already: --resume goes on with it, or name another --out"
            )
        before, now = json.loads(told.read_text(encoding="utf-8")), json.loads(text)
        different = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        if different:
            name = different[0]
            raise FireflyError(
                f"{folder} was begun with {name} {before.get(name)!r}, not {now.get(name)!r}:"
                " --resume needs the same settings"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        first = min(each.name for each in folder.iterdir())
        raise FireflyError(f"{folder} holds {first}, which is of no run; --out must be a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    # First, and whole: a run that is killed right after leaves a folder that can be gone on with.
    beside = told.with_name(f"{told.name}.new")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(told)


def read(folder: Path) -> dict[str, Any]:
    """Return the settings of a run.

    Raises:
        FireflyError: the folder holds none.
    """
    try:
        value = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FireflyError(f"{folder} holds no run: {SETTINGS} is not there, or cannot be read") from error
    return dict(value)
