"""`firefly` as the command line runs it, in this process or in its own; and a data set to run it on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from click.testing import CliRunner

from firefly_proxy.command_line import run
from firefly_proxy.main import firefly as command
from tests.synth.garden import Garden, record

ROOT = Path(__file__).parents[2]
VENDORS = ("ANTHROPIC_", "OPENAI_", "XDG_")
"""What variables of who runs the tests begin with that would take part."""


class Ran(NamedTuple):
    returncode: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one object that it printed."""
        [line] = self.stdout.splitlines()
        return json.loads(line)


def firefly(*arguments: object) -> Ran:
    """Run a command in this process: that saves seconds of imports."""
    ours = {name: None for name in os.environ if name.startswith(VENDORS)}
    runner = CliRunner(env={**ours, "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "1"})
    argv = ["firefly", *map(str, arguments)]
    with runner.isolation() as (out, err, _), patch.object(sys, "argv", argv):
        try:
            run(command, "firefly")
            code = 0
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        return Ran(code, out.getvalue().decode(), err.getvalue().decode())


def started(
    *arguments: object, python: tuple[str, ...] = ("-m", "firefly_proxy.main")
) -> subprocess.Popen[str]:
    """Start it in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *python, *map(str, arguments)],
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(VENDORS)},
            "NO_PROXY": "127.0.0.1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 60) -> Ran:
    out, err = process.communicate(timeout=seconds)
    return Ran(process.returncode, out, err)


def refused(ran: Ran, *named: object, code: int = 1) -> None:
    """Make sure that a command ended with one line that names what is wrong, and printed nothing else."""
    assert (ran.returncode, ran.stdout) == (code, ""), ran
    [*usage, line] = ran.stderr.splitlines()
    assert line.startswith(("firefly: ", "Error: ")), ran.stderr
    assert not usage or usage[0].startswith("Usage: firefly"), ran.stderr
    for part in named:
        assert str(part) in line, ran.stderr


def planted(folder: Path, count: int = 24) -> Path:
    """Record the garden, make tasks of it, and return the folder: it holds `world.db` and `tasks/`."""
    record(folder / "world.db", Garden.grown())
    made = firefly("synth", "--db", folder / "world.db", "--out", folder / "tasks", "--count", count)
    assert made.returncode == 0, made.stderr
    return folder
