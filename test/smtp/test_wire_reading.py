"""Message data is handed on as it comes; what nobody waits for is bounded."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpf.smtp.wire import LARGE_READ, MAX_BUFFER, Disconnected, TimedOut, Wire
from smtpf.waiting import run


class Transport:
    """Remembers how much it is to read at once, and whether."""

    bufferSize = MAX_BUFFER
    paused = False

    def registerProducer(self, producer: object, streaming: bool) -> None: ...

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False


class Talker:
    def connected(self) -> None: ...
    def disconnected(self) -> None: ...


class Client:
    """What a client sends, and what who waits for it has heard."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        self.wire = Wire(self.clock, lambda wire: Talker())
        self.wire.makeConnection(self.transport)
        self.heard: list[Any] = []

    def awaits(self, work: Coroutine[Any, Any, bytes]) -> None:
        run(work, self.heard.append, lambda failure: self.heard.append(failure.value))

    def says(self, data: bytes) -> None:
        self.wire.dataReceived(data)


def test_awaited_data_is_handed_on_as_it_came():
    client = Client()
    client.awaits(client.wire.octets(10))
    data = b"x" * MAX_BUFFER
    client.says(data)
    assert client.heard[0] is data
    assert (client.wire.pending, client.transport.paused) == (0, False)


def test_more_than_is_asked_for_waits_for_the_next():
    client = Client()
    client.awaits(client.wire.octets(10, 3))
    client.says(b"abcde")
    client.awaits(client.wire.octets(10, 3))
    assert client.heard == [b"abc", b"de"]


def test_data_behind_a_line_is_kept_in_order():
    client = Client()
    client.awaits(client.wire.line(10))
    client.says(b"BDAT 4\r\nab")
    client.awaits(client.wire.octets(10))
    client.awaits(client.wire.octets(10))
    client.says(b"cd")
    assert client.heard == [b"BDAT 4\r\n", b"ab", b"cd"]


def test_a_line_awaited_after_data_comes_in_pieces():
    client = Client()
    client.awaits(client.wire.octets(10))
    client.says(b"data")
    client.awaits(client.wire.line(10))
    client.says(b"QU")
    client.says(b"IT\r\n")
    assert client.heard == [b"data", b"QUIT\r\n"]


def test_a_client_is_not_read_while_nobody_uses_what_it_sends():
    client = Client()
    client.says(b"x" * MAX_BUFFER)
    assert client.transport.paused
    client.awaits(client.wire.octets(10))
    assert (client.heard, client.transport.paused) == ([b"x" * MAX_BUFFER], False)


def test_reads_are_large_while_a_message_comes_fast_and_no_longer():
    client = Client()
    client.awaits(client.wire.octets(10))
    client.says(b"x" * (MAX_BUFFER - 1))
    assert client.transport.bufferSize == MAX_BUFFER
    client.awaits(client.wire.octets(10))
    client.says(b"x" * MAX_BUFFER)
    assert client.transport.bufferSize == LARGE_READ
    client.wire.unread(b"QUIT\r\n")
    assert client.transport.bufferSize == MAX_BUFFER
    client.awaits(client.wire.line(10))
    assert client.heard[-1] == b"QUIT\r\n"


@pytest.mark.parametrize("silent", [True, False])
def test_who_waits_for_data_hears_that_none_will_come(silent: bool):
    client = Client()
    client.awaits(client.wire.octets(10))
    if silent:
        client.clock.advance(11)
    else:
        client.wire.connectionLost(Failure(ConnectionResetError()))
    assert [type(each) for each in client.heard] == [TimedOut if silent else Disconnected]
