"""What becomes of p0f's answer: log, header, end line; and of its failures."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from twisted.internet.protocol import Protocol

from smtpf.filters.p0f import P0F_MUTEX, P0F_REPORT_HEADER, P0F_SOCKET, P0F_TIMEOUT, P0F_VERSION, P0f
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:198.51.100.3 RELAY\nroute:127.0.0.1 FORWARD: 192.0.2.1\n"
PATH = "/run/p0f"


def answer_3(status: int = 0x10, magic: int = 0x50304602) -> bytes:
    head = struct.pack("=9IhBB", magic, status, 1, 2, 3, 0, 0, 0, 0, 4, 0, 0)
    return head + b"".join(text.ljust(32, b"\0") for text in (b"Linux", b'2.6 "x"', b"", b"", b"", b""))


class Daemon:
    """p0f in memory: answers each query with ``answer``, or keeps it waiting."""

    def __init__(self, talk: Talk, answer: bytes | None) -> None:
        self.answer = answer
        self.queries: list[bytes] = []
        self.waiting: list[Any] = []
        talk.net.listen(PATH, 0, self._make)

    def _make(self) -> Protocol:
        daemon = self

        class Session(Protocol):
            def dataReceived(self, data: bytes) -> None:
                daemon.queries.append(data)
                if daemon.answer is None:
                    daemon.waiting.append(self.transport)
                else:
                    self.transport.write(daemon.answer)
                    self.transport.loseConnection()

        return Session()


def talking(**options: str) -> Talk:
    given = {P0F_SOCKET: PATH, P0F_TIMEOUT: "5"}
    named = {"version": P0F_VERSION, "mutex": P0F_MUTEX, "header": P0F_REPORT_HEADER, "timeout": P0F_TIMEOUT}
    given.update({named[name]: value for name, value in options.items()})
    talk = Talk(given, route=ROUTE)
    talk.journal.verbose.reset("info,warn,p0f")
    return talk


def deliver(talk: Talk, address: str = "192.0.2.9") -> bytes:
    hop = talk.hop("192.0.2.1")
    client = talk.greeted(address)
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    assert codes(client.message()) == ["250 #554"]
    client.say("QUIT")
    return hop.contents[0]


def test_the_report_goes_into_log_header_and_end_line() -> None:
    talk = talking()
    Daemon(talk, answer_3())
    report = 'Linux 2.6 "x" conn 3 hops 4 quality ok'
    assert f"X-p0f-Report: [192.0.2.9] (forged) {report}\r\n".encode() in deliver(talk)
    assert talk.logged(517) == [f"p0f {report}"]
    assert talk.logged(721)[0].endswith("p0f=\"Linux 2.6 'x' conn 3 hops 4 quality ok\"")


def test_the_report_line_needs_its_verbose_word() -> None:
    talk = talking()
    talk.journal.verbose.reset("info,warn")
    Daemon(talk, answer_3())
    deliver(talk)
    assert talk.logged(517) == []


def test_trusted_clients_get_no_header() -> None:
    talk = talking()
    Daemon(talk, answer_3())
    assert b"X-p0f-Report" not in deliver(talk, "198.51.100.3")
    assert "p0f=" in talk.logged(721)[0]


def test_no_header_without_a_name_for_it() -> None:
    talk = talking(header="")
    Daemon(talk, answer_3())
    assert b"p0f" not in deliver(talk)


def test_no_match_is_reported_as_unknown() -> None:
    talk = talking()
    Daemon(talk, answer_3(status=0x20))
    assert b"X-p0f-Report: [192.0.2.9] (forged) ? ?\r\n" in deliver(talk)
    assert talk.logged(516) == []


@pytest.mark.parametrize(
    ("answer", "number", "text"),
    [
        (b"short", 512, "p0f read error: connection closed (0)"),
        (answer_3(magic=1), 515, "p0f magic number error"),
        (answer_3(status=0), 516, "p0f query error (0)"),
    ],
)
def test_a_failure_is_logged_and_forgotten(answer: bytes, number: int, text: str) -> None:
    talk = talking()
    Daemon(talk, answer)
    assert b"X-p0f-Report" not in deliver(talk)
    assert talk.logged(number) == [text]
    assert talk.logged(721)[0].endswith(" ")


def test_no_daemon() -> None:
    talk = talking()
    deliver(talk)
    assert talk.logged(508) == ["p0f connection error: Connection refused (111)"]


def test_a_silent_daemon_keeps_the_first_message_waiting_but_not_the_banner() -> None:
    talk = talking()
    Daemon(talk, None)
    client = talk.greeted("192.0.2.9")
    assert client.say("MAIL FROM:<joe@example.org>") == []
    talk.net.pass_time(5)
    assert codes(client.take()) == ["250 #283"]
    assert talk.logged(511) == ["p0f timeout error: Connection timed out (110)"]


def test_a_relative_socket_path_is_told() -> None:
    talk = Talk({P0F_SOCKET: "p0f"}, route=ROUTE)
    deliver(talk)
    assert talk.logged(506) == ["p0f address error: Invalid argument (22)"]


def test_version_2_is_asked_about_the_connection() -> None:
    talk = talking(version="2")
    daemon = Daemon(talk, None)
    talk.connect("192.0.2.9", at="192.0.2.25")
    assert struct.unpack("@IB3x4x4s4sHH", daemon.queries[0])[2:] == (bytes([192, 0, 2, 9]), bytes([192, 0, 2, 25]), 50000, 25)
    talk.connect("2001:db8::9", at="2001:db8::25")
    assert len(daemon.queries) == 1


def test_version_3_is_asked_about_ipv6_clients_too() -> None:
    talk = talking()
    daemon = Daemon(talk, None)
    talk.connect("2001:db8::9", at="2001:db8::25")
    assert daemon.queries[0][4] == 6


def test_the_mutex_asks_one_question_at_a_time() -> None:
    talk = talking(version="2", mutex="+")
    daemon = Daemon(talk, None)
    talk.connect("192.0.2.9")
    talk.connect("192.0.2.10")
    assert len(daemon.queries) == 1
    daemon.waiting[0].loseConnection()
    talk.net.pump()
    assert len(daemon.queries) == 2


def test_turns_that_were_mixed_up_are_told() -> None:
    talk = talking(version="2", mutex="+")
    daemon = Daemon(talk, None)
    talk.connect("192.0.2.9")
    filter = next(each for each in talk.filters if isinstance(each, P0f))
    filter._turn.release()
    daemon.waiting[0].loseConnection()
    talk.net.pump()
    assert talk.logged(513) == ["p0f mutex unlock failed: not locked (0)"]
