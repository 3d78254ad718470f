"""Errors that an operator can fix; a command prints them as one line."""

from __future__ import annotations


class FireflyError(Exception):
    """Base of every error whose message is meant for the person at the terminal."""

    exit_code = 1


class RecordingError(FireflyError):
    """A recording cannot be opened, read or written."""
