"""Child processes that end when we do, with all of their own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from recorder.errors import FireflyError

TERM_GRACE_S = 1.0
"""Time to end by itself after SIGTERM; clients give a server about two seconds in all before they kill it."""

KILL_GRACE_S = 2.0
"""Time for the kernel to take a killed process away."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class StartError(FireflyError):
    """An upstream server's command could not be started."""


def start(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in a process session of its own, its three streams piped to us.

    On Linux it dies with us even when we are killed, and what it leaves behind becomes our child.

    Raises:
        StartError: there is no such command, or it may not be run.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        return subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # Safe here: it calls no Python but ctypes, and a recorder has one thread when it starts a server.
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    except ValueError as error:  # a NUL in an argument, or "=" in a variable's name
        raise StartError(f"{command[0]} could not be started: {error}") from error
    except OSError as error:
        name = cwd if cwd is not None and not Path(cwd).is_dir() else command[0]
        raise StartError(f"{command[0]} could not be started: {error.strerror}: {name}") from error


def reap(process: subprocess.Popen[bytes]) -> int | None:
    """Take away children that ended, inherited orphans too; return the exit code of `process` if it did."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def end_descendants(term_grace_s: float = TERM_GRACE_S) -> None:
    """End every process below this one: SIGTERM, a grace, SIGKILL."""
    for number, grace_s in ((signal.SIGTERM, term_grace_s), (signal.SIGKILL, KILL_GRACE_S)):
        deadline = time.monotonic() + grace_s
        signalled: set[int] = set()
        while alive := _descendants(os.getpid()):
            for pid in alive - signalled:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            signalled |= alive
            if time.monotonic() > deadline:
                break
            time.sleep(0.005)


def _descendants(root: int) -> set[int]:
    """Return the pids of all live processes below `root`, reaping those of ours that ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    children = defaultdict(set)
    for pid, parent in _processes():
        children[parent].add(pid)
    found: set[int] = set()
    frontier = children[root]
    while frontier:
        found |= frontier
        frontier = set().union(*(children[pid] for pid in frontier)) - found
    return found


def _processes() -> list[tuple[int, int]]:
    """Return (pid, parent) of every process that is not a zombie."""
    if sys.platform == "linux":
        pairs = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        pairs.append((int(entry), int(parent)))
        return pairs
    listing = subprocess.Popen(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE)
    output, _ = listing.communicate()
    rows = (tuple(map(int, line.split())) for line in output.decode().splitlines())
    return [(pid, parent) for pid, parent in rows if pid != listing.pid]


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    _LIBC.prctl(option, value, 0, 0, 0)


_LIBC = ctypes.CDLL(None)
