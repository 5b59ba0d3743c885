"""Writing straight to the socket, on both sides: a reply or a command does not wait for the next turn of the reactor.

That saves a turn and two system calls for each, several times a message, and all copies of its content. The order is kept because
nothing passes what waits in the transport's buffer: once anything has gone there, everything does, until the buffer has drained.
"""

from __future__ import annotations

from typing import Any


class StraightWriter:
    """A protocol that writes so. ``begin_straight`` at the begin of the connection, ``end_straight`` before TLS."""

    transport: Any
    _socket: Any = None
    """None when the transport writes."""
    _encrypted = False

    def begin_straight(self) -> None:
        """Nothing waits in the transport's buffer. Without effect under TLS, and for a transport without a socket, as in a test."""
        if not self._encrypted:
            self._socket = getattr(self.transport, "socket", None)

    def end_straight(self) -> None:
        """Whatever follows is for the transport, which encrypts it."""
        self._encrypted = True
        self._socket = None

    def write(self, data: bytes) -> None:
        """Write without waiting. What the socket does not take is left to the transport; so is an error, which it meets again and tells."""
        if self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
            self._socket = None
        self.transport.write(data)

    def write_all(self, pieces: list[bytes]) -> None:
        """The same for what lies in several pieces."""
        if self._socket is not None:
            try:
                sent = self._socket.sendmsg(pieces)
            except OSError:
                sent = 0
            pieces = _behind(sent, pieces)
            if not pieces:
                return
            self._socket = None
        self.transport.writeSequence(pieces)


def _behind(sent: int, pieces: list[bytes]) -> list[bytes]:
    """What is left of ``pieces`` behind the first ``sent`` octets."""
    for place, piece in enumerate(pieces):
        if sent < len(piece):
            return [piece[sent:], *pieces[place + 1 :]]
        sent -= len(piece)
    return []
