"""The wire under the scanners, on real sockets: bounds, time-outs, and what is left of a daemon that hangs up."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol

from smtpf.scanners.connection import CLOSED, MAX_LINE, TOO_LONG, Connection, Network, Step, Trouble, is_on_this_host, place_of
from test.support.zones import ZoneResolver


class Peer(Protocol):
    factory: Peers

    def connectionMade(self) -> None:
        self.factory.peer = self
        self.factory.begun(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.ended.callback(None)


class Peers(Factory):
    protocol = Peer
    noisy = False

    def __init__(self, begun: Callable[[Any], None]) -> None:
        self.begun = begun
        self.heard = b""
        self.peer: Any = None
        self.ended: Deferred[None] = Deferred()


async def with_peer(
    begun: Callable[[Any], None], work: Callable[[Connection, Any], Awaitable[None]], timeout: float = 5, path: str = ""
) -> None:
    """Do ``work`` with a connection to a daemon; ``begun`` is called with the daemon's side."""
    from twisted.internet import reactor

    factory = Peers(begun)
    listening: Any = reactor
    port = listening.listenUNIX(path, factory) if path else listening.listenTCP(0, factory, interface="127.0.0.1")
    network = Network(reactor, ZoneResolver("daemon.example A 127.0.0.1", reactor))
    where = path or f"daemon.example:{port.getHost().port}"
    connection = await network.connect(where, 1, timeout)
    assert isinstance(connection, Connection), connection
    try:
        await work(connection, factory)
    finally:
        connection.abort()
        if factory.peer is not None and not factory.ended.called:
            factory.peer.transport.abortConnection()
            await factory.ended
        await maybeDeferred(port.stopListening)


@pytest.mark.parametrize("unix", [False, True])
def test_lines_come_one_by_one_and_the_rest_at_the_end(unix: bool, reactor_run: Any, tmp_path: Path) -> None:
    def begun(peer: Any) -> None:
        peer.transport.write(b"one\r\ntwo\nthree\0four")
        peer.transport.loseWriteConnection()

    async def work(connection: Connection, peer: Any) -> None:
        assert [await connection.line(), await connection.line(), await connection.line(b"\0\n")] == [b"one", b"two", b"three"]
        assert await connection.line() == b"four"
        assert await connection.line() is CLOSED
        assert connection.write(b"x") == Trouble.of(Step.WRITE, errno.EPIPE)

    reactor_run(with_peer(begun, work, path=str(tmp_path / "socket") if unix else ""))


def test_a_line_without_end_is_refused(reactor_run: Any) -> None:
    def begun(peer: Any) -> None:
        peer.transport.write(b"x" * 10_000_000)

    async def work(connection: Connection, peer: Any) -> None:
        assert await connection.line() is TOO_LONG
        assert len(connection._received) < 10 * 65536

    reactor_run(with_peer(begun, work))


def test_a_line_may_have_all_octets_of_the_limit(reactor_run: Any) -> None:
    async def work(connection: Connection, peer: Any) -> None:
        assert await connection.line() == b"x" * (MAX_LINE - 1)

    reactor_run(with_peer(lambda peer: peer.transport.write(b"x" * (MAX_LINE - 1) + b"\n"), work))


def test_silence_is_a_timeout(reactor_run: Any) -> None:
    async def work(connection: Connection, peer: Any) -> None:
        assert await connection.line() == Trouble.of(Step.READ, errno.ETIMEDOUT)

    reactor_run(with_peer(lambda peer: None, work, timeout=0.2))


def test_a_daemon_that_does_not_read_is_a_timeout(reactor_run: Any) -> None:
    async def work(connection: Connection, peer: Any) -> None:
        outcome = None
        for _ in range(200):
            outcome = await connection.send(b"x" * 100_000)
            if outcome is not None:
                break
        assert outcome == Trouble.of(Step.WRITE, errno.ETIMEDOUT)

    reactor_run(with_peer(lambda peer: peer.transport.pauseProducing(), work, timeout=0.3))


def test_a_daemon_that_is_slow_gets_everything(reactor_run: Any) -> None:
    def begun(peer: Any) -> None:
        from twisted.internet import reactor

        clock: Any = reactor
        peer.transport.pauseProducing()
        clock.callLater(0.1, peer.transport.resumeProducing)

    async def work(connection: Connection, peer: Any) -> None:
        for _ in range(60):
            assert await connection.send(b"x" * 100_000) is None
        connection.end_of_input()
        assert await connection.line() is CLOSED
        assert len(peer.heard) == 6_000_000

    reactor_run(with_peer(begun, work))


def test_a_reset_is_told_apart_from_an_end(reactor_run: Any) -> None:
    async def work(connection: Connection, peer: Any) -> None:
        assert await connection.line() == Trouble.of(Step.READ, errno.ECONNRESET)

    reactor_run(with_peer(lambda peer: peer.transport.abortConnection(), work))


def outcome_of(where: str, reactor_run: Any, zone: str = "") -> Any:
    from twisted.internet import reactor

    network = Network(reactor, ZoneResolver(zone, reactor))
    return reactor_run(network.connect(where, 9, 1))


def test_nobody_there(reactor_run: Any, tmp_path: Path) -> None:
    assert outcome_of("127.0.0.1:1", reactor_run) == Trouble.of(Step.CONNECT, errno.ECONNREFUSED)
    missing = outcome_of(str(tmp_path / "none"), reactor_run)
    assert (missing.step, missing.errno) == (Step.CONNECT, errno.ENOENT)
    assert outcome_of("none.example", reactor_run).step is Step.ADDRESS
    assert outcome_of("a b", reactor_run).step is Step.ADDRESS


def test_the_next_address_is_tried(reactor_run: Any) -> None:
    zone = "two.example A 127.0.0.2\ntwo.example A 127.0.0.3"
    assert outcome_of("two.example:1", reactor_run, zone).errno == errno.ECONNREFUSED


@pytest.mark.parametrize(
    ("text", "host", "port", "unix", "here"),
    [
        ("/run/x.sock", "", 0, "/run/x.sock", True),
        ("run/x.sock", "", 0, "run/x.sock", True),
        ("127.0.0.1", "127.0.0.1", 9, "", True),
        ("localhost:7", "localhost", 7, "", True),
        ("[::1]:7", "::1", 7, "", True),
        ("[2001:db8::1]", "2001:db8::1", 9, "", False),
        ("scan.example:7", "scan.example", 7, "", False),
    ],
)
def test_a_socket_option_is_read(text: str, host: str, port: int, unix: str, here: bool) -> None:
    place = place_of(text, 9)
    assert place is not None
    assert (place.host, place.port, place.unix, is_on_this_host(place)) == (host, port, unix, here)
