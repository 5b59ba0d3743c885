"""The two query protocols of p0f: octets, reports, and what goes wrong on the way."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from smtpf.scanners import p0f
from smtpf.scanners.p0f import Fault, Fingerprint, P0fError, ask, query_2, query_3

little_endian = pytest.mark.skipif(sys.byteorder != "little", reason="vectors are little-endian")
CLIENT = IPv4Address("192.0.2.9")


def response_3(status: int = 0x10, **given: Any) -> bytes:
    fields: dict[str, Any] = {
        "magic": 0x50304602, "status": status, "first": 1, "last": 2, "conn": 3, "minutes": 0, "cycle": 0, "nat": 0, "change": 0,
        "distance": -1,
        "suspect": 0, "quality": 0, "os": b"", "flavour": b"", "agent": b"", "agent_flavour": b"", "link": b"", "language": b"",
    }  # fmt: skip
    fields.update(given)
    return struct.pack("=9IhBB32s32s32s32s32s32s", *fields.values())


def response_2(status: int = 0, **given: Any) -> bytes:
    fields: dict[str, Any] = {
        "magic": 0x0DEFACED, "id": 7, "status": status, "genre": b"", "detail": b"", "distance": -1, "link": b"", "service": b"",
        "firewall": 0,
        "nat": 0, "real": 0, "score": -100, "flags": 0, "uptime": -1,
    }  # fmt: skip
    fields.update(given)
    return struct.pack("@IIB20s40sb30s30sBBBxhHxxi", *fields.values())


@little_endian
def test_queries_are_packed_as_published() -> None:
    assert query_3(CLIENT).octets == bytes.fromhex("01463050 04 c0000209 000000000000000000000000")
    assert query_3(ip_address("2001:db8::9")).octets == bytes.fromhex("01463050 06 20010db8 0000000000000000 00000009")
    packed = query_2(7, CLIENT, 40000, IPv4Address("198.51.100.1"), 25).octets
    assert packed == bytes.fromhex("edacef0d 01000000 07000000 c0000209 c6336401 409c 1900")
    assert (query_3(CLIENT).size, query_2(7, CLIENT, 1, CLIENT, 2).size) == (232, 144)


@pytest.mark.parametrize(
    ("given", "report"),
    [
        ({"os": b"Linux", "flavour": b"3.11 and newer"}, "Linux 3.11 and newer conn 3 quality ok"),
        ({}, "? ? conn 3"),
        ({"os": b"Linux"}, "Linux ? conn 3 quality ok"),
        (
            {
                "os": b"Windows",
                "flavour": b"XP",
                "distance": 12,
                "quality": 3,
                "link": b"DSL",
                "agent": b"IE",
                "agent_flavour": b"6",
                "suspect": 1,
            },
            "Windows XP conn 3 hops 12 quality fuzzy-generic link DSL agent IE/6 suspect proxy",
        ),
        ({"suspect": 2, "minutes": 1440 + 125, "cycle": 49}, "? ? conn 3 suspect bad up 1d2h5m0s cycle 49d"),
        ({"nat": 1_500_000_000, "change": 86400}, "? ? conn 3 ip-shared 2017-07-14T02:40:00 os-changed 1970-01-02T00:00:00"),
        ({"os": b"L\r\ni\x00nux", "flavour": b"\xff1\x07"}, "Li 1 conn 3 quality ok"),
    ],
)
def test_reports_of_version_3(given: dict[str, Any], report: str) -> None:
    answer = query_3(CLIENT).read(response_3(**given))
    assert isinstance(answer, Fingerprint)
    assert answer.report == report


@pytest.mark.parametrize(
    ("given", "report"),
    [
        ({"genre": b"Linux", "detail": b"2.6 (newer, 3)"}, "Linux 2.6 (newer, 3)"),
        ({}, "? ?"),
        (
            {"genre": b"Windows", "detail": b"XP", "distance": 9, "link": b"ethernet/modem", "service": b"voice", "uptime": 12,
             "score": 4, "flags": 31,
             "nat": 1, "firewall": 1},
            "Windows XP hops 9 link ethernet/modem service voice up 12 score 4 flags 0x1F NAT FW",
        ),
    ],
)  # fmt: skip
def test_reports_of_version_2(given: dict[str, Any], report: str) -> None:
    assert query_2(7, CLIENT, 1, CLIENT, 2).read(response_2(**given)) == Fingerprint(report, given.get("genre", b"").decode())


def test_no_match_is_an_answer_and_other_statuses_are_errors() -> None:
    three, two = query_3(CLIENT), query_2(7, CLIENT, 1, CLIENT, 2)
    assert three.read(response_3(0x20)) == two.read(response_2(2)) == Fingerprint("? ?")
    assert three.read(response_3(0)) == P0fError(Fault.QUERY, 0)
    assert two.read(response_2(1)) == P0fError(Fault.QUERY, 1)
    assert two.read(response_2(255)) == P0fError(Fault.QUERY, 255)
    assert three.read(response_3(magic=0x0DEFACED)) == two.read(response_2(magic=0x50304602)) == P0fError(Fault.MAGIC)


class Daemon(Protocol):
    def connectionMade(self) -> None:
        self.factory.begin(self)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data  # type: ignore[attr-defined]
        self.factory.reply(self)  # type: ignore[attr-defined]


def asked(reactor_run: Callable[..., Any], folder: Path, reply: Callable[[Any], None], timeout: float = 10) -> Any:
    """What comes of a query to a daemon that does ``reply`` with its transport."""
    from twisted.internet import reactor

    factory: Any = Factory.forProtocol(Daemon)
    factory.noisy = False
    factory.heard = b""
    factory.begin = lambda protocol: None
    factory.reply = lambda protocol: reply(protocol.transport)
    path = str(folder / "p0f")
    port = reactor.listenUNIX(path, factory)  # type: ignore[attr-defined]

    async def work() -> Any:
        answer = await ask(reactor, path, query_3(CLIENT), timeout)
        await port.stopListening()
        return answer

    answer = reactor_run(work())
    assert factory.heard == query_3(CLIENT).octets
    return answer


def test_an_answer_in_pieces(reactor_run: Any, tmp_path: Path) -> None:
    from twisted.internet import reactor

    whole = response_3(os=b"Linux", flavour=b"x")

    def reply(transport: Any) -> None:
        transport.write(whole[:100])
        reactor.callLater(0.02, transport.write, whole[100:])  # type: ignore[attr-defined]

    assert asked(reactor_run, tmp_path, reply) == Fingerprint("Linux x conn 3 quality ok", "Linux")


def test_a_short_answer_is_a_read_error(reactor_run: Any, tmp_path: Path) -> None:
    def reply(transport: Any) -> None:
        transport.write(b"short")
        transport.loseConnection()

    assert asked(reactor_run, tmp_path, reply) == P0fError(Fault.READ, 0)


def test_silence_ends_with_the_timeout(reactor_run: Any, tmp_path: Path) -> None:
    assert asked(reactor_run, tmp_path, lambda transport: None, timeout=0.1) == P0fError(Fault.TIMEOUT, errno.ETIMEDOUT)


def test_nobody_listens(reactor_run: Any, tmp_path: Path) -> None:
    from twisted.internet import reactor

    assert reactor_run(ask(reactor, str(tmp_path / "none"), query_3(CLIENT), 5)) == P0fError(Fault.CONNECT, errno.ENOENT)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
        assert reactor_run(ask(reactor, str(tmp_path / "dead"), query_3(CLIENT), 5)) == P0fError(Fault.CONNECT, errno.ECONNREFUSED)


@pytest.mark.parametrize(("path", "number"), [("relative", errno.EINVAL), ("/" + "x" * 200, errno.ENAMETOOLONG)])
def test_a_path_that_is_none(reactor_run: Any, path: str, number: int) -> None:
    assert reactor_run(ask(None, path, query_3(CLIENT), 5)) == P0fError(Fault.ADDRESS, number)


def test_no_socket_left(reactor_run: Any) -> None:
    class Exhausted:
        def connectUNIX(self, *args: Any, **named: Any) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    assert reactor_run(ask(Exhausted(), "/p0f", query_3(CLIENT), 5)) == P0fError(Fault.OPEN, errno.EMFILE)


def test_a_daemon_that_has_gone_is_a_write_error() -> None:
    class Gone:
        def writeSomeData(self, data: bytes) -> Exception:
            return ConnectionError()

        def abortConnection(self) -> None: ...

    answer: Deferred[Any] = Deferred()
    protocol = p0f._Asking(query_3(CLIENT), answer)
    protocol.makeConnection(Gone())  # type: ignore[arg-type]
    assert answer.result == P0fError(Fault.WRITE, errno.EPIPE)
