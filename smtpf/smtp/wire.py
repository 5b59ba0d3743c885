"""The wire of the server side: octets in and out of one client connection, and nothing of what they mean.

Derived from Twisted's ESMTP protocol, but every octet goes through the ``dataReceived`` below: command lines are bounded, a
pipelined command stays in the buffer until its predecessor has been answered, and message data is handed on in
bulk. The conversation asks for the next line or the next data and waits; a disconnect or a timeout ends the
wait with an exception. Source: RFC 5321 4.5.3; spec chapter session, 1.7; security rows L1, L3, L4, K.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener
from twisted.mail import smtp
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpf.smtp.straight import StraightWriter
from smtpf.waiting import Signal

MAX_LINE = 1000
"""Octets of a command line, line end included."""
MAX_BUFFER = 65536
"""Octets read ahead; past that the client is not read until they are used. Twisted reads as many at once."""
LARGE_READ = MAX_BUFFER * 4
"""Octets read at once of a message that comes faster than it is read."""
MAX_LINES_AT_ONCE = 50
"""Lines taken from the buffer before the other sessions have their turn."""
CLOSE_TIMEOUT = 30.0
"""Seconds for the client to read the last reply; then the connection is cut."""
ALARM_SLACK = 0.05
"""Seconds by which a wait may end too late."""
_CLOSED = Failure(ConnectionDone())


class Disconnected(Exception):
    """The client has gone; ``str()`` is the transport's reason."""

    def __init__(self, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.errno = errno

    def again(self) -> Disconnected:
        """One to raise: what is raised refers to all that was under way, and what is kept must not."""
        return Disconnected(str(self), self.errno)


class NotWritten(Disconnected):
    """A reply could not be written because the client has gone."""


class TimedOut(Exception):
    """The client was silent for too long."""


class LineTooLong(Exception):
    """More than MAX_LINE octets without a line end."""


@attrs.frozen
class Claim:
    """What a PROXY header says of a connection: the client's address and the one it connected to, both empty when it says nothing."""

    source: str = ""
    destination: str = ""


class Talker(Protocol):
    """What drives a connection: told of its begin and its end."""

    def connected(self) -> None: ...
    def disconnected(self) -> None: ...


@implementer(IHandshakeListener)
class Wire(StraightWriter, smtp.ESMTP):
    """One client connection."""

    noisy = False
    transport: Any

    def __init__(self, clock: Any, talker: Callable[[Wire], Talker]) -> None:
        # The stock class's __init__ is left out: what it makes serves a reader that never runs here, and every idle session would hold it.
        self._clock = clock
        self._make_talker = talker
        self._talker: Talker | None = None
        self._received = bytearray()
        self._waiting: Signal | None = None
        self._in_bulk = False
        """Who waits takes whatever comes, as it comes."""
        self._at_once = MAX_BUFFER
        self._resting: Deferred[bool] | None = None
        self._draining: Deferred[None] | None = None
        self._rest_call: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._alarm_at = 0.0
        self._deadline = 0.0
        self._reading = True
        self._write_full = False
        self._discarding = False
        self._until_input = False
        self._lines_at_once = 0
        self.claim: Claim | None = None
        """Set when a PROXY header spoke for the client."""
        self.gone: Disconnected | None = None
        """Set when the client has gone or the connection has been aborted."""
        self.handshake: Deferred[None] | None = None

    # From the transport.

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.begin_straight()
        self._talker = self._make_talker(self)
        self._talker.connected()

    def dataReceived(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._in_bulk and self._waiting is not None:
            self._wake(data)
            return
        self._received += data
        if self._waiting is not None:
            self._wake()
        elif self._resting is not None:
            self._end_rest(True)
        # What is awaited has been used by now, for most of a message.
        if self._reading and len(self._received) >= MAX_BUFFER:
            self._reading = False
            self.transport.pauseProducing()

    def connectionLost(self, reason: Failure = ConnectionDone()) -> None:  # type: ignore[assignment]  # noqa: B008
        if self.gone is None:
            self.gone = _disconnection(reason)
        self._stop_alarm()
        if self._waiting is not None:
            self._wake()
        if self._resting is not None:
            self._end_rest(True)
        if self._draining is not None:
            self.resumeProducing()
        if self.handshake is not None:
            handshake, self.handshake = self.handshake, None
            handshake.errback(Failure(self.gone))
        if self._talker is not None:
            talker, self._talker = self._talker, None
            talker.disconnected()

    def handshakeCompleted(self) -> None:
        if self.handshake is not None:
            handshake, self.handshake = self.handshake, None
            handshake.callback(None)

    def pauseProducing(self) -> None:
        """The client does not read what we write."""
        self._write_full = True

    def resumeProducing(self) -> None:
        self._write_full = False
        if self._draining is not None:
            draining, self._draining = self._draining, None
            draining.callback(None)

    def stopProducing(self) -> None:
        self._write_full = False

    # To the conversation.

    @property
    def pending(self) -> int:
        """Octets received and not yet used."""
        return len(self._received)

    @property
    def congested(self) -> bool:
        """The client does not read: what is written now would wait."""
        return self._write_full

    @property
    def idle(self) -> bool:
        """The conversation waits for the client."""
        return self._waiting is not None

    def abort_read(self) -> None:
        """End a wait for the client as if it had gone; what has been written still goes out."""
        if self.gone is None:
            self.gone = Disconnected("node stops")
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        if self._waiting is not None:
            self._wake()

    def peek(self, count: int) -> bytes:
        return bytes(self._received[:count])

    def forget(self) -> None:
        """Throw away what has been received and not used."""
        self._received.clear()
        self._read_on()

    async def line(self, timeout: float) -> bytes:
        """The next line with its line end, complete within ``timeout`` seconds. Raises LineTooLong, TimedOut, Disconnected."""
        received = self._received
        until = 0.0
        while (end := received.find(b"\n", 0, MAX_LINE) + 1) == 0:
            if len(received) >= MAX_LINE:
                raise LineTooLong
            now = self._clock.seconds()
            until = until or now + timeout
            if now >= until:
                raise TimedOut
            await self._more(until)
        self._lines_at_once += 1
        if self._lines_at_once > MAX_LINES_AT_ONCE:
            await self._give_way()
        line = bytes(received[:end])
        del received[:end]
        self._read_on()
        return line

    async def _give_way(self) -> None:
        """Let the reactor serve others before the next of many lines that came at once."""
        turn: Deferred[None] = Deferred()
        self._clock.callLater(0, turn.callback, None)
        await turn
        self._lines_at_once = 0

    async def octets(self, timeout: float, most: int = LARGE_READ) -> bytes:
        """Whatever has been received, at least one octet, at ``most`` so many. Raises TimedOut (seconds), Disconnected."""
        if not self._received:
            data = await self._more(self._clock.seconds() + timeout, in_bulk=True)
            if len(data) <= most:
                if len(data) == MAX_BUFFER:
                    self._read_at_once(LARGE_READ)
                return data
            self._received += data
        if len(self._received) <= most:
            data = bytes(self._received)
            self._received.clear()
        else:
            data = bytes(self._received[:most])
            del self._received[:most]
        self._read_on()
        return data

    def unread(self, data: bytes) -> None:
        """The message has ended: put back what came behind it."""
        self._received[:0] = data
        self._read_at_once(MAX_BUFFER)

    async def rest(self, seconds: float, *, until_input: bool = False) -> bool:
        """Wait. True when it ended early: the client went or, with ``until_input``, sent something."""
        if self.gone is not None or (until_input and self._received):
            return True
        self._resting = Deferred()
        self._until_input = until_input
        self._rest_call = self._clock.callLater(seconds, self._end_rest, False)
        return await self._resting

    def send(self, data: bytes, timeout: float) -> Awaitable[None] | None:
        """Write. Raises NotWritten when the client has gone.

        While the client does not read, what is returned is to be awaited, for ``timeout`` seconds: TimedOut, Disconnected.
        """
        if self.gone is not None:
            raise NotWritten(str(self.gone), self.gone.errno)
        self.write(data)
        return self._drained(timeout) if self._write_full else None

    async def _drained(self, timeout: float) -> None:
        self._draining = Deferred()
        self._set_alarm(self._clock.seconds() + timeout)
        await self._draining
        self._deadline = 0.0
        if self.gone is not None:
            raise NotWritten(str(self.gone), self.gone.errno)
        if self._write_full:
            raise TimedOut

    def start_tls(self, context: Any) -> None:
        """What is written from now on goes through TLS."""
        self.end_straight()
        self.transport.startTLS(context)

    def close(self, linger: float) -> None:
        """End the connection so that the last reply is read: octets still coming are thrown away, not answered by RST."""
        if self.gone is not None:
            return
        self._stop_alarm()
        self.transport.unregisterProducer()
        if self._received and linger > 0 and hasattr(self.transport, "loseWriteConnection"):
            self._discarding = True
            self._received.clear()
            self._reading = True
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
            self._alarm = self._clock.callLater(linger, self.abort)
        elif self._socket is not None:
            # Nothing waits to be written.
            self.transport.connectionLost(_CLOSED)
        else:
            self.transport.loseConnection()
            self._alarm = self._clock.callLater(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Cut the connection at once."""
        self.transport.abortConnection()

    # Inside.

    async def _more(self, until: float, *, in_bulk: bool = False) -> bytes:
        """Wait for input up to reactor second ``until``. What comes is put into the buffer, or ``in_bulk`` handed over: two copies less."""
        if self.gone is not None:
            raise self.gone.again()
        self._lines_at_once = 0
        self._in_bulk = in_bulk
        signal = self._waiting = Signal()
        self._set_alarm(until)
        data: bytes = await signal
        if self.gone is not None and not data and not self._received:
            raise self.gone.again()
        return data

    def _wake(self, data: bytes = b"") -> None:
        waiting, self._waiting = self._waiting, None
        self._deadline = 0.0
        if waiting is not None:
            waiting.fire(data)

    def _end_rest(self, early: bool) -> None:
        if early and not (self.gone is not None or self._until_input):
            return
        resting, self._resting = self._resting, None
        if self._rest_call is not None and self._rest_call.active():
            self._rest_call.cancel()
        self._rest_call = None
        if resting is not None:
            resting.callback(early)

    def _read_at_once(self, most: int) -> None:
        if self._at_once != most:
            self._at_once = self.transport.bufferSize = most

    def _read_on(self) -> None:
        if not self._reading and self.gone is None and len(self._received) < MAX_BUFFER:
            self._reading = True
            self.transport.resumeProducing()

    def _set_alarm(self, until: float) -> None:
        """One delayed call serves all waits. It is left where it is when it fires too early, and replaced when it would fire too late.

        Replaced, not moved: the reactor looks through all its delayed calls for one that is to fire sooner.
        """
        self._deadline = until
        if self._alarm is not None:
            if self._alarm_at <= until + ALARM_SLACK:
                return
            self._alarm.cancel()
        self._alarm_at = until
        self._alarm = self._clock.callLater(max(0.0, until - self._clock.seconds()), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._deadline == 0.0:
            return
        left = self._deadline - self._clock.seconds()
        if left > 0.001:
            self._alarm_at = self._deadline
            self._alarm = self._clock.callLater(left, self._ring)
            return
        self._deadline = 0.0
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.fire(Failure(TimedOut()))
        elif self._draining is not None:
            draining, self._draining = self._draining, None
            draining.callback(None)

    def _stop_alarm(self) -> None:
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        self._deadline = 0.0


def _disconnection(reason: Failure) -> Disconnected:
    """The reactor tells a reset without its number: a connection lost is one that was not closed by either side."""
    if isinstance(reason.value, ConnectionDone):
        return Disconnected("connection closed")
    if isinstance(reason.value, ConnectionLost):
        number = getattr(reason.value, "osError", None) or errno.ECONNRESET
        return Disconnected(os.strerror(number), number)
    return Disconnected((reason.getErrorMessage() or "connection lost").rstrip("."))
