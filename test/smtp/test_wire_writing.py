"""Replies go straight to the socket, in order, and never past TLS."""

from __future__ import annotations

from twisted.internet.task import Clock

from smtpf.smtp.wire import Wire


class Transport:
    """Its socket takes ``room`` octets at once; keeps what it is given to send later apart."""

    def __init__(self, room: int) -> None:
        self.socket = self
        self.room = room
        self.sent = b""
        self.buffered = b""
        self.secured: object = None
        self.broken = False

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def send(self, data: bytes) -> int:
        if self.broken:
            raise BrokenPipeError
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def write(self, data: bytes) -> None:
        self.buffered += data

    def startTLS(self, context: object) -> None:
        self.secured = context


class Talker:
    def connected(self) -> None: ...
    def disconnected(self) -> None: ...


def wire_on(transport: object) -> Wire:
    wire = Wire(Clock(), lambda wire: Talker())
    wire.makeConnection(transport)
    return wire


def test_a_reply_leaves_at_once_while_there_is_room():
    transport = Transport(100)
    wire_on(transport).write(b"250 fine\r\n")
    assert (transport.sent, transport.buffered) == (b"250 fine\r\n", b"")


def test_once_anything_waits_everything_waits_behind_it():
    transport = Transport(4)
    wire = wire_on(transport)
    wire.write(b"250 one\r\n")
    transport.room = 100
    wire.write(b"250 two\r\n")
    assert (transport.sent, transport.buffered) == (b"250 ", b"one\r\n250 two\r\n")


def test_what_a_full_socket_does_not_take_waits():
    transport = Transport(0)
    wire_on(transport).write(b"250 fine\r\n")
    assert (transport.sent, transport.buffered) == (b"", b"250 fine\r\n")


def test_a_lost_connection_is_left_to_the_transport():
    transport = Transport(100)
    transport.broken = True
    wire_on(transport).write(b"250 fine\r\n")
    assert transport.buffered == b"250 fine\r\n"


def test_nothing_is_written_past_tls():
    transport = Transport(100)
    wire = wire_on(transport)
    wire.write(b"220 ready\r\n")
    wire.start_tls("context")
    wire.write(b"secret")
    assert (transport.sent, transport.buffered, transport.secured) == (b"220 ready\r\n", b"secret", "context")
