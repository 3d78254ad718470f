"""Progress of long work, on standard error, where somebody is there to see it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

QUIET_S = 1.0
"""Work that is done by then says nothing."""

STEP_S = 0.2


def progress_to_stderr() -> Callable[[str, int, int], None] | None:
    """Return what tells of progress on one line, or `None` where standard error is no terminal."""
    if not sys.stderr.isatty():
        return None
    began = last = time.monotonic()

    def tell(what: str, done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - began < QUIET_S or now - last < STEP_S:
            return
        last = now
        share = f"{100 * done // of} %" if of else f"{done}"
        sys.stderr.write(f"\r\x1b[K{what}: {share}")
        sys.stderr.flush()

    return tell
