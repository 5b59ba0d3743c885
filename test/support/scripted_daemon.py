"""A scanner that follows a script, on any network of a test.

Each turn answers one request; ``complete`` tells where a request ends. What the daemon heard is kept octet by octet.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from smtpf.scanners.connection import Connection, Step, Trouble

CLOSE = "close"
"""A turn: hang up, after what was said."""
ABORT = "abort"
"""A turn: cut the connection."""
Turn = bytes | str | None | tuple[bytes, str]
"""Octets to say, CLOSE, ABORT, nothing (stay silent), or octets and then CLOSE or ABORT."""


def by_line(heard: bytes) -> int:
    """A request is a line."""
    return heard.find(b"\n") + 1


def by_chunks(heard: bytes) -> int:
    """A request of clamd: the command, then counted chunks up to an empty one; or a SCAN line."""
    if heard.startswith(b"nSCAN"):
        return heard.find(b"\n") + 1
    at = heard.find(b"\0") + 1
    while at and at + 4 <= len(heard):
        size = int.from_bytes(heard[at : at + 4], "big")
        at += 4 + size
        if size == 0:
            return at
    return 0


def by_length(heard: bytes) -> int:
    """A request with a Content-Length, of spamd or HTTP."""
    head, end, _ = heard.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    total = len(head) + 4 + int(found[1]) if found else 0
    return total if end and found and len(heard) >= total else 0


def at_end(heard: bytes) -> int:
    """A request ends where the client shuts down its writing side."""
    return 0


@implementer(IHalfCloseableProtocol)
class _Hearing(Protocol):
    factory: ScriptedDaemon

    def connectionMade(self) -> None:
        self._heard = b""
        self._turns = list(self.factory.turns)
        self._silent = False
        self.factory.connections += 1
        if self.factory.greets:
            self._answer()

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data
        self._heard += data
        while (end := self.factory.complete(self._heard)) > 0:
            self.factory.requests.append(self._heard[:end])
            self._heard = self._heard[end:]
            self._answer()

    def readConnectionLost(self) -> None:
        if self._heard and self.factory.complete is at_end:
            self.factory.requests.append(self._heard)
            self._heard = b""
            self._answer()
        if not self._silent:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.ended += 1

    def _answer(self) -> None:
        turn = self._turns.pop(0) if self._turns else None
        self._silent = turn is None
        said, action = turn if isinstance(turn, tuple) else (turn, "") if isinstance(turn, bytes) else (b"", turn or "")
        if said:
            self.transport.write(said)
        if action == CLOSE:
            self.transport.loseConnection()
        elif action == ABORT:
            self.transport.abortConnection()


class ScriptedDaemon(Factory):
    """``turns`` are given to each connection anew. With ``greets`` the first one is said before anything is heard."""

    protocol = _Hearing
    noisy = False

    def __init__(self, turns: Sequence[Turn], complete: Callable[[bytes], int] = by_line, *, greets: bool = False) -> None:
        self.turns = turns
        self.complete = complete
        self.greets = greets
        self.heard = b""
        self.requests: list[bytes] = []
        self.connections = 0
        self.ended = 0

    def make(self) -> Protocol:
        """A new connection, for a network in memory."""
        made = self.buildProtocol(None)
        assert made is not None
        return made


def fail_write(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    """Let the write number ``turn`` of every connection to a scanner fail, and all that follow."""
    real = Connection.write
    calls: Counter[int] = Counter()

    def write(connection: Connection, data: bytes) -> Trouble | None:
        calls[id(connection)] += 1
        return Trouble.of(Step.WRITE, errno.EPIPE) if calls[id(connection)] >= turn else real(connection, data)

    monkeypatch.setattr(Connection, "write", write)
