"""A recording as its files and SQLite tell it, without a line of Firefly's own code."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any


def query(db: Path, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(statement, values).fetchall()


def texts_to_client(db: Path) -> set[str]:
    """Return the text of every message from a server that the recording holds."""
    return {text for (text,) in query(db, "SELECT text FROM frame WHERE direction = 'to_client'")}


def is_intact(db: Path) -> bool:
    return query(db, "PRAGMA integrity_check") == [("ok",)]


def all_values(db: Path) -> list[str]:
    """Return every value of every table, as text."""
    tables = [name for (name,) in query(db, "SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = [row for table in tables for row in query(db, f"SELECT * FROM {table}")]
    return [
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        for row in rows
        for value in row
    ]


def files_of(db: Path) -> list[Path]:
    """Return every file beside the recording, itself included."""
    return sorted(db.parent.iterdir())
