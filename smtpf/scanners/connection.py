"""The wire under every scanner: connect to a daemon, write, read lines, and never wait without end.

A postmaster meets this module in the texts behind ``connect error`` and ``read error``. For the programmer it is the
shared ground of the protocols beside it: it knows sockets, bounds and time-outs, and nothing of what is said. What goes
wrong between two processes is a value (``Trouble``), never an exception. Source: spec chapter filters-content, 1.4.
"""

from __future__ import annotations

import errno
import os
from enum import Enum
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError, ConnectionDone
from twisted.internet.error import TimeoutError as ConnectTimedOut
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpf.maps.hosts import Host, parse_host

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

MAX_LINE = 4096
"""Octets of a line that a daemon may write; paths and names of viruses are shorter."""
MAX_BUFFER = 65536
"""Octets read ahead; past that the daemon is not read until they are used."""


class Step(Enum):
    """At what a conversation with a daemon failed."""

    ADDRESS = "address"
    """The option names no host, or one that does not resolve."""
    OPEN = "open"
    """No socket could be had."""
    CONNECT = "connect"
    READ = "read"
    WRITE = "write"


@attrs.frozen
class Trouble:
    """Why there is no answer. ``text`` is the system's or ours; ``errno`` is 0 when the system gave none."""

    step: Step
    text: str
    errno: int = 0

    @classmethod
    def of(cls, step: Step, number: int) -> Trouble:
        """The system's text for ``number``."""
        return cls(step, os.strerror(number), number)

    @property
    def out_of_descriptors(self) -> bool:
        return self.errno in (errno.EMFILE, errno.ENFILE)


CLOSED = Trouble(Step.READ, "connection closed")
TOO_LONG = Trouble.of(Step.READ, errno.EMSGSIZE)


def place_of(text: str, port: int) -> Host | None:
    """``/path`` or ``host[:port]`` of a socket option; None when it is neither. A slash anywhere makes it a path."""
    if "/" in text:
        return Host(text, "", 0, unix=text)
    return parse_host(text.strip(), port)


def is_on_this_host(place: Host) -> bool:
    """A Unix socket, or a loopback address: a daemon there sees the same files."""
    return bool(place.unix) or place.host.lower() == "localhost" or place.host.startswith("127.") or place.host == "::1"


@attrs.frozen(eq=False)
class Network:
    """What it takes to reach a daemon."""

    reactor: Any
    resolver: Resolver

    async def connect(self, text: str, port: int, timeout: float) -> Connection | Trouble:
        """Connect to the daemon at ``text`` within ``timeout`` seconds; so long may each later read and write take, too."""
        place = place_of(text, port)
        if place is None:
            return Trouble.of(Step.ADDRESS, errno.EINVAL)
        if place.unix:
            return await self._open(lambda factory: self.reactor.connectUNIX(place.unix, factory, timeout=timeout), timeout)
        found = await self.resolver.host_addresses(place.host, timeout)
        outcome: Connection | Trouble = Trouble(Step.ADDRESS, "host not found")
        deadline = self.reactor.seconds() + timeout
        for address in found.addresses:
            left = deadline - self.reactor.seconds()
            if left <= 0:
                break
            outcome = await self._tcp(address, place.port, left, timeout)
            if isinstance(outcome, Connection) or outcome.out_of_descriptors:
                break
        return outcome

    async def _tcp(self, address: str, port: int, left: float, timeout: float) -> Connection | Trouble:
        return await self._open(lambda factory: self.reactor.connectTCP(address, port, factory, timeout=left), timeout)

    async def _open(self, begin: Any, timeout: float) -> Connection | Trouble:
        factory = _Connector(self.reactor, timeout)
        begin(factory)
        return await factory.outcome


class _Connector(ClientFactory):
    """Makes one connection, or tells why there is none."""

    noisy = False

    def __init__(self, clock: Any, timeout: float) -> None:
        self._clock = clock
        self._timeout = timeout
        self.outcome: Deferred[Connection | Trouble] = Deferred()

    def buildProtocol(self, addr: Any) -> Connection:
        return Connection(self._clock, self._timeout, self.outcome)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        error = reason.value
        number = getattr(error, "osError", None)
        if isinstance(error, ConnectTimedOut):
            number = errno.ETIMEDOUT
        step = Step.OPEN if isinstance(error, ConnectBindError) else Step.CONNECT
        if isinstance(number, int) and number:
            self.outcome.callback(Trouble.of(step, number))
        else:
            self.outcome.callback(Trouble(step, reason.getErrorMessage()))


@implementer(IPushProducer)
class Connection(Protocol):
    """One connection to a daemon: ``send`` and ``line`` until one of them gives a Trouble, then ``close``.

    Input that comes while nobody reads is kept, within a bound, also after the daemon has hung up.
    """

    transport: Any

    def __init__(self, clock: Any, timeout: float, made: Deferred[Connection | Trouble]) -> None:
        self._clock = clock
        self._timeout = timeout
        self._made = made
        self._received = bytearray()
        self._reader: Deferred[None] | None = None
        self._writer: Deferred[None] | None = None
        self._full = False
        self._reading = True
        self.gone: Trouble | None = None
        """Why nothing more comes: the daemon closed the connection, or it broke."""

    # From the transport

    def connectionMade(self) -> None:
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:
            no_delay(True)
        self.transport.registerProducer(self, True)
        self._made.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if self._reading and len(self._received) >= MAX_BUFFER:
            self._reading = False
            self.transport.pauseProducing()
        self._wake_reader()

    def connectionLost(self, reason: Failure = ConnectionDone()) -> None:  # type: ignore[assignment]  # noqa: B008
        if self.gone is None:
            number = getattr(reason.value, "osError", None)
            if reason.check(ConnectionDone):
                self.gone = CLOSED
            else:
                self.gone = Trouble.of(Step.READ, number if isinstance(number, int) and number else errno.ECONNRESET)
        self._wake_reader()
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.callback(None)

    def stopProducing(self) -> None:
        self.resumeProducing()

    def _wake_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    # To the protocols

    @property
    def flowing(self) -> bool:
        """What is written now would not have to wait for the daemon."""
        return not self._full

    def write(self, data: bytes) -> Trouble | None:
        """Hand ``data`` to the system without waiting; call ``drained`` when ``flowing`` has become false."""
        if self.gone is not None:
            return self._not_written()
        self.transport.write(data)
        return None

    async def drained(self) -> Trouble | None:
        """Wait until the daemon has taken what was written."""
        if self._full and self.gone is None:
            self._writer = Deferred()
            if not await self._in_time(self._writer):
                self._writer = None
                return Trouble.of(Step.WRITE, errno.ETIMEDOUT)
        return self._not_written() if self.gone is not None else None

    def _not_written(self) -> Trouble:
        assert self.gone is not None
        return Trouble.of(Step.WRITE, self.gone.errno or errno.EPIPE)

    async def send(self, data: bytes) -> Trouble | None:
        """``write`` and ``drained``."""
        return self.write(data) or (None if self.flowing else await self.drained())

    def end_of_input(self) -> None:
        """Tell the daemon that nothing more will be written; its answer can still be read."""
        if self.gone is None:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    async def line(self, ends: bytes = b"\n") -> bytes | Trouble:
        """The next line without its end and CR; what stands before the end of input counts as a line.

        ``ends`` are the octets of which each ends a line.
        """
        while True:
            end = min((found for found in (self._received.find(mark, 0, MAX_LINE) for mark in ends) if found >= 0), default=-1)
            if end >= 0:
                return self._take(end, end + 1)
            if len(self._received) >= MAX_LINE:
                return TOO_LONG
            if self.gone is not None:
                if self._received and self.gone is CLOSED:
                    return self._take(len(self._received), len(self._received))
                return self.gone
            self._reader = Deferred()
            if not await self._in_time(self._reader):
                self._reader = None
                return Trouble.of(Step.READ, errno.ETIMEDOUT)

    def _take(self, end: int, after: int) -> bytes:
        line = bytes(self._received[:end])
        del self._received[:after]
        if not self._reading and len(self._received) < MAX_BUFFER and self.gone is None:
            self._reading = True
            self.transport.resumeProducing()
        return line.rstrip(b"\r")

    async def _in_time(self, waiting: Deferred[None]) -> bool:
        """Wait for the deferred; False when the time is over."""
        late: list[bool] = []

        def ring() -> None:
            late.append(True)
            waiting.callback(None)

        alarm = self._clock.callLater(self._timeout, ring)
        await waiting
        if not late:
            alarm.cancel()
        return not late

    def close(self) -> None:
        """End the connection; what has been written still goes out, unless the daemon has stopped reading."""
        if self._full:
            self.abort()
        elif self.gone is None:
            self.gone = CLOSED
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """End the connection at once: what was sent must not be taken for a whole message."""
        if self.gone is None:
            self.gone = CLOSED
            self._wake_reader()
            self.resumeProducing()
            self.transport.abortConnection()
