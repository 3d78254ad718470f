"""Bytes on their way into a descriptor, written without ever blocking on it."""

from __future__ import annotations

import os
import select
import socket
import stat
import sys
from collections import deque
from collections.abc import Callable
from functools import partial

Send = Callable[[bytes | memoryview], int]
"""Writes what there is room for and returns how much that was; raises BlockingIOError where there is none."""


class Outlet:
    """A queue in front of a descriptor.

    Args:
        send: How to write to it without blocking.
    """

    def __init__(self, fd: int, send: Send) -> None:
        self.fd = fd
        self.queued = 0
        self.broken = False
        self._send = send
        self._queue: deque[memoryview] = deque()

    def write(self, data: bytes) -> bool:
        """Write `data`, or queue what there is no room for; say whether that needs looking after."""
        if not self._queue and not self.broken:
            try:
                written = self._send(data)
            except BlockingIOError:
                written = 0
            except OSError:
                self.broken = True
                return True
            if written == len(data):
                return False
            data = data[written:]
        self._queue.append(memoryview(data))
        self.queued += len(data)
        return True

    def flush(self) -> None:
        """Write what can be written now."""
        try:
            while self._queue:
                head = self._queue[0]
                written = self._send(head)
                self.queued -= written
                if written == len(head):
                    self._queue.popleft()
                else:
                    self._queue[0] = head[written:]
        except BlockingIOError:
            return
        except OSError:
            self.broken = True
            self._queue.clear()
            self.queued = 0

    def write_some(self, data: bytes) -> None:
        """Write what there is room for and forget the rest; for what nobody may wait for."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._send(view) :]
        except OSError:
            return

    def write_all(self, data: bytes) -> None:
        """Write `data` however long it takes the reader, or until it goes away."""
        waiting = select.poll()
        waiting.register(self.fd, select.POLLOUT)
        self.write(data)
        while self.queued:
            waiting.poll()
            self.flush()


def outlet_to(fd: int) -> Outlet:
    """Return an outlet to a descriptor that is in blocking mode and stays so.

    That mode belongs to what is open, not to the descriptor, and whoever holds it too (a shell, a
    terminal's other programs) would be hit by a change. A socket takes a flag for each write; a pipe can
    be opened a second time on Linux; for anything else there is a write no larger than `poll` vouches for.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        connection = socket.socket(fileno=os.dup(fd))
        return Outlet(fd, lambda data: connection.send(data, socket.MSG_DONTWAIT))
    if stat.S_ISFIFO(mode) and sys.platform == "linux":
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return Outlet(fd, _VouchedWrite(fd))
        return Outlet(fd, partial(os.write, again))
    return Outlet(fd, _VouchedWrite(fd))


class _VouchedWrite:
    """Writes at most what a pipe takes without blocking once `poll` says that there is room."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)

    def __call__(self, data: bytes | memoryview) -> int:
        if not self._room.poll(0):
            raise BlockingIOError
        return os.write(self._fd, data[: select.PIPE_BUF])
