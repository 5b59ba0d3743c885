"""Sessions that have said EHLO and then nothing: how much memory each of them holds."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from bench.processes import HOST

WARM = 100
"""Sessions before the first look, so that what is loaded once is not counted."""


def open_sessions(port: int, count: int) -> list[socket.socket]:
    """``count`` connections that have said EHLO and heard the answer."""
    sessions = []
    for _ in range(count):
        client = socket.create_connection((HOST, port), timeout=30)
        sessions.append(client)
        _reply(client)
        client.sendall(b"EHLO client.elsewhere.example\r\n")
        _reply(client)
    return sessions


def octets_per_session(port: int, count: int, resident: Callable[[], int], opened: Callable[[], None] = lambda: None) -> float:
    """Growth of ``resident()`` by ``count`` idle sessions, for each. ``opened`` is called while they all are there."""
    close(open_sessions(port, WARM))
    time.sleep(0.5)
    before = resident()
    sessions = open_sessions(port, count)
    try:
        time.sleep(0.5)
        opened()
        return (resident() - before) / count
    finally:
        close(sessions)


def close(sessions: list[socket.socket]) -> None:
    for client in sessions:
        client.close()


def _reply(client: socket.socket) -> None:
    """Read to the end of a reply. Raises RuntimeError when it is none of success."""
    data = b""
    while not data.endswith(b"\n") or data[data.rfind(b"\n", 0, -1) + 4 :][:1] == b"-":
        more = client.recv(4096)
        if not more:
            break
        data += more
    if data[:1] != b"2":
        raise RuntimeError(f"an idle session was answered {data!r}")
