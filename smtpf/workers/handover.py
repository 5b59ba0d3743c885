"""Accepted connections on their way from the coordinator to a worker: descriptors, sent over a pair of Unix sockets.

The coordinator keeps both ends. So connections that a worker had not taken up when it died are still there for the one that
takes its place. Source: unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from zope.interface import implementer

MOST_WAITING = 256
"""Connections that wait for one worker beyond what its socket holds."""
MAX_WORDS = 1024
"""Octets that go with a connection."""
TAKES = 20
"""Connections that a worker takes up before its other clients get their turn."""


@attrs.frozen
class Passed:
    """One connection with what is known of it."""

    connection: socket.socket
    interface: int
    """Its place in ``interfaces``."""
    peer: tuple[Any, ...]
    this_second: int
    throttled: bool

    def words(self) -> bytes:
        """All but the connection."""
        return json.dumps([self.interface, self.peer, self.this_second, self.throttled]).encode()


@attrs.frozen
class Lost:
    """A connection that could not be received because no descriptor was free. The system has closed it."""


@implementer(IWriteDescriptor)
class Giving:
    """The coordinator's end towards one worker, whichever process that is now."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """``far`` is for the worker to read from."""
        for each in (self._near, self.far):
            each.setblocking(False)
        self._waiting: deque[Passed] = deque()

    def give(self, passed: Passed) -> bool:
        """Send a connection; False, and it is still the caller's, when too many wait."""
        if self._waiting:
            if len(self._waiting) >= MOST_WAITING:
                return False
            self._waiting.append(passed)
        elif not self._send(passed):
            self._waiting.append(passed)
            self._reactor.addWriter(self)
        return True

    def take_back(self) -> list[Passed]:
        """All connections that have been given and that no worker has taken up. No worker may be reading."""
        left = []
        while (passed := take(self.far)) is not None:
            if isinstance(passed, Passed):
                left.append(passed)
        left += self._waiting
        self._waiting.clear()
        self._reactor.removeWriter(self)
        return left

    def close(self) -> None:
        """Close both ends, and what is between them."""
        for passed in self.take_back():
            passed.connection.close()
        self._near.close()
        self.far.close()

    def fileno(self) -> int:
        return self._near.fileno()

    def logPrefix(self) -> str:
        return "handover"

    def doWrite(self) -> None:
        while self._waiting:
            if not self._send(self._waiting[0]):
                return
            self._waiting.popleft()
        self._reactor.removeWriter(self)

    def connectionLost(self, reason: Any) -> None:
        """The reactor disconnects what it writes when it ends."""

    def _send(self, passed: Passed) -> bool:
        try:
            socket.send_fds(self._near, [passed.words()], [passed.connection.fileno()])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # ETOOMANYREFS and its like pass when the worker takes up some.
            return False
        passed.connection.close()
        return True


def take(end: socket.socket) -> Passed | Lost | None:
    """The next connection at ``end``; None when there is none now."""
    try:
        words, descriptors, _, _ = socket.recv_fds(end, MAX_WORDS, 1)
    except (BlockingIOError, InterruptedError):
        return None
    if not words:
        return None
    if not descriptors:
        return Lost()
    connection = socket.socket(fileno=descriptors[0])
    connection.setblocking(False)
    connection.set_inheritable(False)
    interface, peer, this_second, throttled = json.loads(words)
    return Passed(connection, interface, tuple(peer), this_second, throttled)


@implementer(IReadDescriptor)
class Taking:
    """The worker's end. ``use`` gets each connection."""

    def __init__(self, reactor: Any, end: socket.socket, use: Callable[[Passed], None], lost: Callable[[], None]) -> None:
        """``lost`` hears of connections that could not be received because descriptors ran out."""
        self._reactor = reactor
        self._end = end
        self._use = use
        self._lost = lost

    def start(self) -> None:
        self._reactor.addReader(self)

    def stop(self) -> None:
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._end.fileno()

    def logPrefix(self) -> str:
        return "handover"

    def doRead(self) -> None:
        for _ in range(TAKES):
            passed = take(self._end)
            if passed is None:
                return
            if isinstance(passed, Lost):
                self._lost()
            else:
                self._use(passed)

    def connectionLost(self, reason: Any) -> None:
        """The reactor disconnects what it reads when it ends."""
        self.stop()
