"""Cuts a stream of bytes into lines."""

from __future__ import annotations


class LineSplitter:
    """Keeps the beginning of a line until its end has come; a last line may lack its newline."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes; an empty chunk is the end."""
        newline = chunk.find(b"\n")
        if newline == len(chunk) - 1 >= 0 and not self._parts:
            return [chunk]  # one whole line, as nearly always
        if chunk and newline < 0:
            self._parts.append(chunk)
            return []
        *lines, rest = b"".join([*self._parts, chunk]).split(b"\n")
        complete = [line + b"\n" for line in lines]
        if not chunk and rest:
            complete.append(rest)
            rest = b""
        self._parts = [rest] if rest else []
        return complete
