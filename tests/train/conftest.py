"""What tests share: a data set; the tiny model of `make demo-train`, with three seeds and one control."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.train.command import planted

DEMO = Path(__file__).parents[2] / "examples" / "training" / "demo.py"
SEEDS = (0, 1, 2)
LIMIT_S = 1500
"""All of them take six minutes on two cores."""


@dataclass(frozen=True)
class Learned:
    folder: Path
    """What the demo leaves: the recording, tasks, models, evaluations."""
    figures: Mapping[str, Any]
    """Its last line."""


@pytest.fixture(scope="session")
def learned(tmp_path_factory: pytest.TempPathFactory) -> list[Learned]:
    """Run the demo with each seed, all at once."""
    folders = [tmp_path_factory.mktemp(f"learned-{seed}") for seed in SEEDS]
    running = [
        subprocess.Popen(
            [
                *[sys.executable, str(DEMO), "--folder", str(folder), "--seed", str(seed)],
                *(["--without-control"] if seed else []),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, folder in zip(SEEDS, folders, strict=True)
    ]
    try:
        ended = [process.communicate(timeout=LIMIT_S) for process in running]
    finally:
        for process in running:
            process.kill()
    found = []
    for folder, (printed, errors) in zip(folders, ended, strict=True):
        lines = printed.splitlines()
        assert lines, errors
        assert lines[-1].startswith("{"), f"{printed}\n{errors}"
        found.append(Learned(folder, json.loads(lines[-1])))
    return found


@pytest.fixture(scope="session")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording, `world.db`, and tasks of all splits made of it, `tasks/`."""
    return planted(tmp_path_factory.mktemp("garden"))
