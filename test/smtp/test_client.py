"""The wire towards a next hop: replies in every segmentation, limits, injected replies, time-outs, content."""

from __future__ import annotations

import errno

import pytest
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from smtpf.smtp.client import MAX_REPLY_LINES, WRITE_SIZE, FailureKind, HopFailure, HopReply, NextHopProtocol

PIECE = b"x" * (WRITE_SIZE - 2) + b"\r\n"


class Wire(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Hop:
    """A protocol on a fake wire and clock, banner heard."""

    def __init__(self, banner: bytes | None = b"220 hop\r\n", keep_alive: float = 0.0, wire: Wire | None = None) -> None:
        self.clock = Clock()
        self.protocol = NextHopProtocol(self.clock, 300.0)
        self.protocol.keep_alive = keep_alive
        self.wire = wire or Wire()
        self.protocol.makeConnection(self.wire)
        self.banner = []
        self.protocol.greeting.addCallback(self.banner.append)
        if banner is not None:
            self.protocol.dataReceived(banner)
            self.wire.clear()

    def command(self, line: bytes = b"NOOP", timeout: float = 300.0) -> list:
        heard: list = []
        self.protocol.command(line, timeout).addCallback(heard.append)
        return heard

    def sent(self) -> bytes:
        sent = self.wire.value()
        self.wire.clear()
        return sent


REPLIES = [
    (b"250 ok\r\n", HopReply(250, ("250 ok",))),
    (b"250\r\n", HopReply(250, ("250",))),
    (b"250-one\r\n250-two\r\n250 three\r\n", HopReply(250, ("250-one", "250-two", "250 three"))),
    (b"550 5.1.1 No such user\n", HopReply(550, ("550 5.1.1 No such user",))),
    (b"421-a\r\n421\r\n", HopReply(421, ("421-a", "421"))),
]


@pytest.mark.parametrize(("octets", "expected"), REPLIES)
def test_a_reply_is_the_same_in_every_segmentation(octets, expected):
    for first in range(1, len(octets)):
        for second in range(first, len(octets)):
            hop = Hop()
            heard = hop.command()
            for piece in (octets[:first], octets[first:second], octets[second:]):
                if piece:
                    hop.protocol.dataReceived(piece)
            assert heard == [expected]
            assert not hop.wire.aborted


def test_parts_of_a_reply():
    reply = HopReply(550, ("550-5.1.1 first", "550 5.1.1 No such user"))
    assert (reply.last, reply.enhanced, reply.text, reply.positive, reply.permanent) == (
        "550 5.1.1 No such user", "5.1.1", "No such user", False, True,
    )  # fmt: skip
    assert HopReply(550, ("550 unknown",)).enhanced == ""
    assert HopReply(550, ("550 4.1.1 mixed",)).enhanced == ""
    assert HopReply(250, ("250",)).text == ""


@pytest.mark.parametrize("octets", [b"250 a\0b\x07\x1b[1m\xff\rc\r\n"])
def test_control_octets_of_a_reply_become_question_marks(octets):
    hop = Hop()
    heard = hop.command()
    hop.protocol.dataReceived(octets)
    assert heard[0].last == "250 a?b??[1m??c"


@pytest.mark.parametrize("octets", [b"HTTP/1.1 400\r\n", b"\r\n", b"25\r\n", b"250_x\r\n", b"150 x\r\n", b"650 x\r\n", b"2\xb25 x\r\n"])
def test_what_is_no_reply_ends_the_connection(octets):
    hop = Hop()
    heard = hop.command()
    hop.protocol.dataReceived(octets)
    assert heard[0].kind is FailureKind.PROTOCOL
    assert hop.wire.aborted


def test_reply_with_different_codes_ends_the_connection():
    hop = Hop()
    heard = hop.command()
    hop.protocol.dataReceived(b"250-a\r\n550 b\r\n")
    assert heard[0].kind is FailureKind.PROTOCOL


def test_endless_line_is_cut():
    hop = Hop()
    heard = hop.command()
    for _ in range(100):
        hop.protocol.dataReceived(b"2" * 100)
    assert heard[0] == HopFailure(FailureKind.PROTOCOL, "reply line too long")
    assert hop.wire.aborted
    assert len(hop.protocol._buffer) == 0


def test_long_line_in_one_segment_is_refused():
    hop = Hop()
    heard = hop.command()
    hop.protocol.dataReceived(b"250 " + b"x" * 1200 + b"\r\n")
    assert heard[0].kind is FailureKind.PROTOCOL


def test_endless_reply_is_cut():
    hop = Hop()
    heard = hop.command()
    for _ in range(MAX_REPLY_LINES + 5):
        hop.protocol.dataReceived(b"250-more\r\n")
    assert heard[0] == HopFailure(FailureKind.PROTOCOL, "reply with too many lines")
    assert hop.wire.aborted


@pytest.mark.parametrize("extra", [b"250 more\r\n", b"2", b"\r\n", b"\0"])
def test_octets_behind_the_reply_end_the_connection(extra):
    hop = Hop()
    heard = hop.command()
    hop.protocol.dataReceived(b"250 ok\r\n" + extra)
    assert heard[0].kind is FailureKind.PROTOCOL
    assert hop.wire.aborted


def test_reply_to_nothing_ends_the_connection_and_next_command_hears_why():
    hop = Hop()
    hop.protocol.dataReceived(b"250 ok\r\n")
    assert hop.wire.aborted
    assert hop.command()[0] == HopFailure(FailureKind.PROTOCOL, "unsolicited reply: 250 ok")
    assert hop.sent() == b""


def test_unasked_421_is_kept_as_the_reason():
    hop = Hop()
    hop.protocol.dataReceived(b"421 4.4.2 idle\r\n")
    assert hop.command()[0] == HopFailure(FailureKind.READ, "421 4.4.2 idle")


def test_command_is_one_write():
    hop = Hop()
    hop.command(b"MAIL FROM:<a@b.example>")
    assert hop.sent() == b"MAIL FROM:<a@b.example>\r\n"


@pytest.mark.parametrize("line", [b"NOOP\r\nRSET", b"NOOP\n", b"NO\0OP", b"\r"])
def test_command_with_line_ends_is_a_bug(line):
    with pytest.raises(ValueError):
        Hop().command(line)


def test_second_command_waits_for_the_first():
    hop = Hop()
    first, second = hop.command(b"NOOP"), hop.command(b"RSET")
    assert hop.sent() == b"NOOP\r\n"
    hop.protocol.dataReceived(b"250 one\r\n")
    assert hop.sent() == b"RSET\r\n"
    hop.protocol.dataReceived(b"250 two\r\n")
    assert (first[0].last, second[0].last) == ("250 one", "250 two")


def test_silence_is_a_timeout():
    hop = Hop()
    hop.clock.advance(10)
    heard = hop.command(timeout=20.0)
    hop.clock.advance(19.9)
    assert heard == []
    hop.clock.advance(0.2)
    assert heard[0] == HopFailure(FailureKind.TIMEOUT, "Connection timed out", 110)
    assert hop.wire.aborted


def test_short_timeout_behind_a_long_one():
    hop = Hop()
    hop.command(timeout=300.0)
    hop.protocol.dataReceived(b"250 ok\r\n")
    heard = hop.command(timeout=5.0)
    hop.clock.advance(5.1)
    assert heard[0].kind is FailureKind.TIMEOUT


def test_no_timer_fires_for_a_quiet_connection():
    hop = Hop()
    hop.clock.pump([100] * 20)
    assert hop.protocol.broken is None


def test_slow_octets_do_not_extend_the_timeout():
    hop = Hop()
    heard = hop.command(timeout=30.0)
    for octet in b"250-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa":
        hop.clock.advance(1)
        hop.protocol.dataReceived(bytes([octet]))
    assert heard[0].kind is FailureKind.TIMEOUT


def test_banner_may_be_a_refusal():
    hop = Hop(b"554 no service\r\n")
    assert hop.banner == [HopReply(554, ("554 no service",))]


def test_banner_that_never_comes():
    hop = Hop(None)
    hop.clock.advance(301)
    assert hop.banner[0].kind is FailureKind.TIMEOUT


@pytest.mark.parametrize(
    ("reason", "kind", "number"),
    [(ConnectionDone(), FailureKind.READ, 0), (ConnectionLost(), FailureKind.READ, 104)],
)
def test_lost_connection_is_a_value(reason, kind, number):
    hop = Hop()
    heard = hop.command()
    hop.protocol.connectionLost(Failure(reason))
    assert (heard[0].kind, heard[0].errno) == (kind, number)
    assert hop.command() == heard
    assert hop.clock.getDelayedCalls() == []


def test_keep_alive_sends_noop_when_idle():
    hop = Hop(keep_alive=60.0)
    hop.command()
    hop.protocol.dataReceived(b"250 ok\r\n")
    hop.sent()
    hop.clock.advance(59)
    assert hop.sent() == b""
    hop.clock.advance(2)
    assert hop.sent() == b"NOOP\r\n"
    heard = hop.command(b"RSET")
    hop.protocol.dataReceived(b"250 alive\r\n")
    assert hop.sent() == b"RSET\r\n"
    hop.protocol.dataReceived(b"250 reset\r\n")
    assert heard[0].last == "250 reset"


def test_keep_alive_without_answer_ends_the_connection():
    hop = Hop(keep_alive=60.0)
    hop.command()
    hop.protocol.dataReceived(b"250 ok\r\n")
    hop.clock.advance(61)
    hop.clock.advance(11)
    assert hop.command()[0].kind is FailureKind.TIMEOUT


def test_quit_waits_for_the_answer_and_closes():
    hop = Hop()
    hop.protocol.quit()
    assert hop.sent() == b"QUIT\r\n"
    assert not hop.wire.disconnecting
    hop.protocol.dataReceived(b"221 bye\r\n")
    assert hop.wire.disconnecting


def test_quit_inside_data_aborts():
    hop = Hop()
    ensureDeferred(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.sent()
    hop.protocol.quit()
    assert hop.wire.aborted
    assert hop.sent() == b""


def run(work):
    heard: list = []
    ensureDeferred(work).addCallback(heard.append)
    return heard


def test_ehlo_keeps_the_extensions():
    hop = Hop()
    heard = run(hop.protocol.ehlo(b"mx.test", 10))
    assert hop.sent() == b"EHLO mx.test\r\n"
    hop.protocol.dataReceived(b"250-hop\r\n250-size 1000\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n")
    assert heard[0].code == 250
    assert hop.protocol.extensions == {"SIZE": "1000", "AUTH": "PLAIN LOGIN", "STARTTLS": ""}


def test_helo_follows_a_refused_ehlo():
    hop = Hop()
    heard = run(hop.protocol.ehlo(b"mx.test", 10))
    hop.sent()
    hop.protocol.dataReceived(b"502 no\r\n")
    assert hop.sent() == b"HELO mx.test\r\n"
    hop.protocol.dataReceived(b"250 hop\r\n")
    assert heard[0].code == 250
    assert hop.protocol.extensions == {}


def pieces(chunks):
    given = iter(chunks)
    return lambda: next(given, b"")


def content(hop, *chunks):
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.sent()
    return run(hop.protocol.send_content(b"", pieces(chunks), 10, 600))


def test_content_is_one_write_with_the_dot():
    hop = Hop()
    heard = content(hop, b"A: b\r\n\r\n", b".dot\r\n", b"last")
    assert hop.sent() == b"A: b\r\n\r\n..dot\r\nlast\r\n.\r\n"
    hop.protocol.dataReceived(b"250 2.0.0 taken\r\n")
    assert heard[0].last == "250 2.0.0 taken"
    assert not hop.protocol.in_data
    assert hop.wire.producer is None


def test_reply_before_the_dot_ends_the_connection():
    hop = Hop()
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.protocol.dataReceived(b"250 taken already\r\n")
    assert run(hop.protocol.send_content(b"", pieces((b"x",)), 10, 600))[0].kind is FailureKind.PROTOCOL


def test_reply_injected_behind_354_is_never_taken_for_the_answer_to_the_dot():
    hop = Hop()
    heard = run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n250 taken\r\n")
    assert heard[0].kind is FailureKind.PROTOCOL
    assert hop.wire.aborted


def test_full_buffer_stops_the_writing_until_it_has_drained():
    hop = Hop()
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.sent()
    taken = []

    def chunks():
        for _ in range(4):
            taken.append(1)
            if len(taken) == 2:
                hop.wire.producer.pauseProducing()
            yield PIECE

    heard = run(hop.protocol.send_content(b"", pieces(chunks()), 10, 600))
    assert len(taken) == 2
    hop.wire.producer.resumeProducing()
    assert len(taken) == 4
    assert hop.sent().endswith(b"\r\n.\r\n")
    hop.protocol.dataReceived(b"250 ok\r\n")
    assert heard[0].code == 250


def test_host_that_takes_nothing_more_has_failed():
    hop = Hop()
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")

    def chunks():
        yield PIECE
        hop.wire.producer.pauseProducing()
        for _ in range(3):
            yield PIECE

    heard = run(hop.protocol.send_content(b"", pieces(chunks()), 10, 600))
    hop.clock.advance(10.1)
    assert heard[0].kind is FailureKind.TIMEOUT


def test_dot_without_answer_is_a_timeout_after_the_whole_budget():
    hop = Hop()
    heard = content(hop, b"a\r\n")
    hop.clock.advance(599)
    assert heard == []
    hop.clock.advance(2)
    assert heard[0].kind is FailureKind.TIMEOUT


def test_connection_lost_while_writing_is_a_write_error():
    hop = Hop()
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")

    def chunks():
        yield PIECE
        hop.wire.producer.pauseProducing()
        for _ in range(3):
            yield PIECE

    heard = run(hop.protocol.send_content(b"", pieces(chunks()), 10, 600))
    hop.protocol.connectionLost(Failure(ConnectionLost()))
    assert heard[0] == HopFailure(FailureKind.WRITE, "Broken pipe", 32)


def test_message_that_cannot_be_read_is_withdrawn():
    hop = Hop()
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.sent()
    heard = run(hop.protocol.send_content(b"A: b\r\n\r\n", lambda: None, 10, 600))
    assert heard[0].kind is FailureKind.CONTENT
    assert hop.wire.aborted
    assert hop.sent() == b""


class Socket:
    """Takes ``room`` octets, then none."""

    def __init__(self, room: int, gone: bool = False) -> None:
        self.room = room
        self.gone = gone
        self.writes: list[bytes] = []

    def send(self, data: bytes) -> int:
        return self.sendmsg([data])

    def sendmsg(self, pieces: list[bytes]) -> int:
        if self.gone:
            raise BrokenPipeError(errno.EPIPE, "")
        if self.room == 0:
            raise BlockingIOError(errno.EAGAIN, "")
        taken = b"".join(pieces)[: self.room]
        self.room -= len(taken)
        self.writes.append(taken)
        return len(taken)


class SocketWire(Wire):
    """A transport with a socket of its own; ``value`` is what its buffer holds."""

    pauses = False
    """The first octet fills the buffer."""

    def __init__(self, socket: Socket) -> None:
        super().__init__()
        self.socket = socket
        self.secured: object = None

    def getHandle(self) -> Socket:
        return self.socket

    def writeSequence(self, data: list[bytes]) -> None:
        super().writeSequence(data)
        if self.producer is not None and self.value() and self.pauses:
            self.producer.pauseProducing()

    def startTLS(self, context: object) -> None:
        self.secured = context


def hop_on(socket: Socket) -> Hop:
    hop = Hop(wire=SocketWire(socket))
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    socket.writes.clear()
    return hop


def test_content_goes_straight_to_the_socket_in_large_writes():
    socket = Socket(10_000_000)
    hop = hop_on(socket)
    run(hop.protocol.send_content(b"A: b\r\n\r\n", pieces((PIECE, PIECE, b".\r\n")), 10, 600))
    assert socket.writes == [b"A: b\r\n\r\n" + PIECE + PIECE, b"..\r\n.\r\n"]
    assert hop.sent() == b""


@pytest.mark.parametrize("room", [0, 1, 5, 8, 9, WRITE_SIZE - 1, WRITE_SIZE + 1, WRITE_SIZE + 8, WRITE_SIZE + 9])
def test_what_the_socket_does_not_take_waits_and_all_else_waits_behind_it(room):
    socket = Socket(6 + room)
    hop = hop_on(socket)
    run(hop.protocol.send_content(b"A: b\r\n\r\n", pieces((PIECE, b"last\r\n")), 10, 600))
    socket.room = 1000
    hop.protocol.dataReceived(b"250 taken\r\n")
    hop.command(b"QUIT")
    whole = b"A: b\r\n\r\n" + PIECE + b"last\r\n.\r\n" + b"QUIT\r\n"
    assert b"".join(socket.writes) == whole[:room]
    assert hop.sent() == whole[room:]


def test_a_drained_buffer_opens_the_socket_again():
    socket = Socket(6)
    hop = hop_on(socket)
    hop.wire.pauses = True
    heard = run(hop.protocol.send_content(b"", pieces((PIECE, PIECE, PIECE, b"last\r\n")), 10, 600))
    assert (socket.writes, hop.sent()) == ([], PIECE + PIECE)
    socket.room = 10_000_000
    hop.wire.producer.resumeProducing()
    assert (socket.writes, hop.sent()) == ([PIECE, b"last\r\n.\r\n"], b"")
    assert heard == []


def test_a_lost_connection_is_left_to_the_transport():
    hop = hop_on(Socket(10_000_000))
    hop.wire.socket.gone = True
    run(hop.protocol.send_content(b"A: b\r\n\r\n", pieces((b"last\r\n",)), 10, 600))
    assert hop.sent() == b"A: b\r\n\r\nlast\r\n.\r\n"


def test_nothing_goes_past_tls_even_when_the_buffer_drains():
    socket = Socket(10_000_000)
    hop = Hop(wire=SocketWire(socket))
    run(hop.protocol.starttls("context", b"mx.test", 10))
    hop.protocol.dataReceived(b"220 go\r\n")
    assert (hop.wire.secured, socket.writes) == ("context", [b"STARTTLS\r\n"])
    hop.protocol.handshakeCompleted()
    hop.protocol.dataReceived(b"250 hop\r\n")
    run(hop.protocol.data(10))
    hop.protocol.dataReceived(b"354 go\r\n")
    hop.wire.pauses = True
    run(hop.protocol.send_content(b"", pieces((PIECE, PIECE)), 10, 600))
    hop.wire.producer.resumeProducing()
    hop.command(b"QUIT")
    assert socket.writes == [b"STARTTLS\r\n"]
    assert hop.sent().startswith(b"EHLO mx.test\r\nDATA\r\n" + PIECE + PIECE)
