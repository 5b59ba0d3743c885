"""The wire of a cache server: octets in any cutting, bounds, and answers that belong to nobody."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from smtpf.cache.resp import (
    ANSWER_SECONDS,
    MAX_ELEMENTS,
    MAX_LINE,
    MAX_STRING,
    NotSpoken,
    RespConnection,
    ServerAway,
    ServerError,
    parse,
    request,
)

Heard = list[tuple[Any, Any]]


class Wire:
    """A connection on a transport of the test's own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.lost: list[str] = []
        self.connection = RespConnection(self.clock, self.lost.append)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)
        self.heard: Heard = []

    def ask(self, *words: bytes) -> bool:
        return self.connection.ask(words or (b"PING",), lambda reply, error: self.heard.append((reply, error)))

    @property
    def aborted(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)


def test_request_is_an_array_of_strings_whatever_octets_they_hold() -> None:
    assert request((b"SET", b"a\r\nb", b"")) == b"*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n"


@pytest.mark.parametrize(
    ("octets", "reply"),
    [(b"+OK\r\n", b"OK"), (b":-7\r\n", -7), (b"$-1\r\n", None), (b"$4\r\na\r\nb\r\n", b"a\r\nb"), (b"*-1\r\n", None),
     (b"*3\r\n$1\r\n1\r\n$-1\r\n:3\r\n", [b"1", None, 3]), (b"*0\r\n", [])],
)  # fmt: skip
def test_answers_come_in_any_cutting(octets: bytes, reply: Any) -> None:
    for cut in range(len(octets)):
        wire = Wire()
        wire.ask()
        wire.connection.dataReceived(octets[:cut])
        assert wire.heard == []
        wire.connection.dataReceived(octets[cut:])
        assert wire.heard == [(reply, None)]


def test_error_answer_is_that_requests_own() -> None:
    wire = Wire()
    wire.ask()
    wire.ask()
    wire.connection.dataReceived(b"-OOM no memory\r\n+OK\r\n")
    assert [type(error) for _, error in wire.heard] == [ServerError, type(None)]
    assert not wire.aborted


@pytest.mark.parametrize(
    "octets",
    [b"+" + b"x" * MAX_LINE, b"$%d\r\n" % (MAX_STRING + 1), b"*%d\r\n" % (MAX_ELEMENTS + 1), b"*1\r\n*1\r\n:1\r\n", b"HTTP/1.1 400 Bad\r\n",
     b"$2\r\nabc\r\n", b":x\r\n", b"$-2\r\n"],
)  # fmt: skip
def test_what_is_no_answer_or_too_long_is_not_read(octets: bytes) -> None:
    with pytest.raises(NotSpoken):
        parse(octets)
    wire = Wire()
    wire.ask()
    wire.connection.dataReceived(octets)
    assert wire.aborted and not wire.ask()


def test_answer_without_a_request_ends_the_connection_before_it_is_given_to_the_next() -> None:
    wire = Wire()
    wire.ask()
    wire.connection.dataReceived(b"+one\r\n+two\r\n")
    assert wire.heard == [(b"one", None)]
    assert wire.aborted and not wire.ask()


def test_each_request_has_its_own_time() -> None:
    wire = Wire()
    wire.ask()
    wire.clock.advance(ANSWER_SECONDS - 1)
    wire.ask()
    wire.connection.dataReceived(b"+one\r\n")
    wire.clock.advance(1)
    assert not wire.aborted
    wire.clock.advance(ANSWER_SECONDS - 1)
    assert wire.aborted


def test_lost_connection_answers_all_that_wait_and_leaves_no_timer() -> None:
    from twisted.internet.error import ConnectionLost
    from twisted.python.failure import Failure

    wire = Wire()
    wire.ask()
    wire.ask()
    wire.connection.connectionLost(Failure(ConnectionLost()))
    assert [type(error) for _, error in wire.heard] == [ServerAway, ServerAway]
    assert wire.lost and not wire.ask() and wire.clock.getDelayedCalls() == []
