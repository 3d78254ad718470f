"""Tells a session that is still being recorded from one whose recorder was killed."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def this_process() -> str:
    """Name this process so that no later one can be taken for it: host, pid and start time."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid()) or ''}"


def is_alive(process: str) -> bool:
    """Whether the process that named itself so still runs; on another host it is taken to."""
    host, pid_text, start_time = process.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    pid = int(pid_text)
    if start_time:
        return _start_time(pid) == start_time
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; `None` for none, a zombie, or no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
