"""An SQLite file that many threads read, also after a fork, each with a connection of its own."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recorder.errors import RecordingError

Connection = sqlite3.Connection
Row = sqlite3.Row

CACHE_KIB = 8192
"""Pages that a connection keeps: the upper ones of a large file's trees. Every thread has a connection."""

MAPPED_BYTES = 1 << 28
"""Of a file beside a recording: all that is learned from a million exchanges and more."""

LOCK_TIMEOUT_S = 60.0
"""How long a writer waits for another process's transaction; those take microseconds."""


def create_private(path: Path) -> None:
    """Make the file, readable by its owner alone; SQLite gives its side files the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return


def open_for_reading(path: Path) -> Connection:
    """Open an SQLite file read-only; works in a folder that cannot be written, too.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    # A file closed cleanly has no write-ahead log, or an empty one, and SQLite needs to make one unless told
    # that nobody writes; that is certain only where nobody can.
    log = path.with_name(path.name + "-wal")
    alone = not os.access(path.parent, os.W_OK) and (not log.exists() or log.stat().st_size == 0)
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro{'&immutable=1' if alone else ''}",
        uri=True,
        timeout=LOCK_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def open_beside(path: Path, *, read_only: bool = False, lasting: bool = True) -> Connection:
    """Open a file that stands beside a recording; made where there is none.

    Args:
        lasting: Whether it outlives this process; one that does not needs no journal and no sync.

    Raises:
        RecordingError: it cannot be opened.
    """
    try:
        if read_only:
            connection = open_for_reading(path)
            # Its pages are then read where the system keeps them, once for all threads and processes.
            connection.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")
            return connection
        create_private(path)
        connection = sqlite3.connect(
            path.absolute(), timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # Taking up a write-ahead log does not wait for others as a statement does.
        retry_locked(lambda: connection.execute(f"PRAGMA journal_mode = {'WAL' if lasting else 'OFF'}"))
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if lasting else 'OFF'}")
    except (OSError, sqlite3.Error) as error:
        raise RecordingError(f"cannot open {path}: {error}") from error
    return connection


def retry_locked(execute: Callable[[], object]) -> None:
    """Do it again, after short random pauses, until no other process has the file locked."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            execute()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.0001, 0.0005))


@contextmanager
def transaction(connection: Connection, path: Path) -> Iterator[None]:
    """Commit what the block writes, or nothing of it.

    Raises:
        RecordingError: it cannot be written.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise RecordingError(f"cannot write {path}: {error}") from error


class Database:
    """Opens a connection where a thread has none.

    Args:
        connect: Opens one; called once for each thread and process.
    """

    def __init__(self, path: Path, connect: Callable[[], Connection]) -> None:
        self.path = path
        self._connect = connect
        self._local = threading.local()

    def connection(self) -> Connection:
        held: tuple[int, Connection] | None = getattr(self._local, "held", None)
        if held is None or held[0] != os.getpid():
            # SQLite connections must not cross a fork.
            held = self._local.held = (os.getpid(), self._connect())
        return held[1]

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a statement.

        Raises:
            RecordingError: the file cannot be read.
        """
        try:
            yield from self.connection().execute(statement, values)
        except sqlite3.Error as error:
            raise RecordingError(f"cannot read {self.path}: {error}") from error

    def all(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a statement at once; for the few that a lookup finds."""
        try:
            return self.connection().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RecordingError(f"cannot read {self.path}: {error}") from error
