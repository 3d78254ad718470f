"""Tells which of a server's processes live: each keeps a connection here open until it dies."""

import os
import signal
import socket
import threading
import time

from tests.promise.conversation import WAIT_S


class Lifeline:
    """Listens on `port` for the processes of one or more `fickle.py --lifeline PORT`."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._connected: list[tuple[str, int, socket.socket]] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            role, pid = connection.makefile().readline().split()
            with self._changed:
                self._connected.append((role, int(pid), connection))
                self._changed.notify_all()

    def wait_for(self, *roles: str) -> None:
        """Wait until processes of all these roles have connected."""
        with self._changed:
            here = self._changed.wait_for(
                lambda: set(roles) <= {role for role, *_ in self._connected}, WAIT_S
            )
            assert here, f"of {roles} only {self._connected} started"

    def survivors(self, timeout_s: float) -> list[str]:
        """Wait for all processes to die and return the roles of those that have not within the time."""
        deadline = time.monotonic() + timeout_s
        return [
            role
            for role, _, connection in self._connected
            if not _closed(connection, deadline - time.monotonic())
        ]

    def close(self) -> None:
        """Kill what is still there; nothing that a test started may outlive it."""
        self._listener.close()
        for _, pid, connection in self._connected:
            if not _closed(connection, 0.001):
                os.kill(pid, signal.SIGKILL)
            connection.close()


def _closed(connection: socket.socket, timeout_s: float) -> bool:
    connection.settimeout(max(timeout_s, 0.001))
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
