"""Sessions that have said EHLO and then nothing: how much memory each of them holds.

``python -m bench.idle ADDRESS PORT COUNT`` is one client process: it opens its sessions, says "open", and keeps them until its
input ends. There is one for each client address, because a process has only so many descriptors.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench.processes import more_descriptors

WARM = 100
"""Sessions of each client before the first look, so that what is loaded once is not counted."""


def open_sessions(address: str, port: int, count: int) -> list[socket.socket]:
    """``count`` connections that have said EHLO and heard the answer."""
    sessions = []
    for _ in range(count):
        client = socket.create_connection((address, port), timeout=30)
        sessions.append(client)
        _reply(client)
        client.sendall(b"EHLO client.elsewhere.example\r\n")
        _reply(client)
    return sessions


@contextmanager
def idle_clients(addresses: Sequence[str], port: int, count: int) -> Iterator[None]:
    """``count`` idle sessions, shared out to clients at ``addresses``. Raises RuntimeError when one is refused."""
    shares = [count // len(addresses) + (place < count % len(addresses)) for place in range(len(addresses))]
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", __name__, address, str(port), str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for address, share in zip(addresses, shares, strict=True)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline() != "open\n":
                raise RuntimeError("an idle session was refused")
        yield
    finally:
        for client in clients:
            client.communicate()


def octets_per_session(addresses: Sequence[str], port: int, count: int, resident: Callable[[], int]) -> float:
    """Growth of ``resident()`` by ``count`` idle sessions, for each. Returns a second after they have all hung up together."""
    with idle_clients(addresses, port, WARM * len(addresses)):
        pass
    time.sleep(0.5)
    before = resident()
    with idle_clients(addresses, port, count):
        time.sleep(0.5)
        grown = resident() - before
    time.sleep(1.0)
    return grown / count


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


def main() -> None:
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    more_descriptors(count + 50)
    sessions = open_sessions(address, port, count)
    sys.stdout.write("open\n")
    sys.stdout.flush()
    sys.stdin.read()
    for session in sessions:
        session.close()


if __name__ == "__main__":
    main()
