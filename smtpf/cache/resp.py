"""The wire to a Valkey or Redis server: requests go out in order, answers come back in order, and nothing waits without end.

A postmaster meets this module in the texts behind #1116. For the programmer it is one connection and no policy; ``server``
keeps it up, ``shared`` knows what is said. It is our own because none of the kept libraries fits a node. redis-py and
valkey-py block or want asyncio's reactor. txredisapi (1.6.0, Apache-2.0, kept up) is made for Twisted, but stops connecting
for ever when the server once refuses AUTH or SELECT, lets any number of requests wait for a lost server, reads values of any
announced length, and keeps an answer that nobody asked for as the answer to the next request: from then on each key would
be given another key's record. Source: RESP2, https://valkey.io/topics/protocol/; spec chapter operations, 1.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

QUEUE_LIMIT = 5000
"""Requests that may wait for their answers on one connection."""
ANSWER_SECONDS = 2.0
"""For one answer; a server that takes longer is given up, because mail waits."""
MAX_LINE = 512
"""Octets of a line, such as an error."""
MAX_STRING = 65536
"""Octets of one string."""
MAX_ELEMENTS = 64
"""Elements of one array; arrays in arrays are not asked for."""

Reply = Any
"""``int``, ``bytes``, None, a list of these, or ``ServerError``."""
Done = Callable[[Reply, Exception | None], None]


class ServerError(Exception):
    """The server answered with an error. ``str()`` is its text."""


class ServerAway(Exception):
    """There is no connection, or it ended before the answer. ``str()`` says why."""


class NotSpoken(Exception):
    """The octets are no RESP, or beyond the bounds."""


def request(words: Sequence[bytes]) -> bytes:
    """One command as an array of strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


def parse(octets: bytes | bytearray, at: int = 0, nested: bool = False) -> tuple[Reply, int] | None:
    """The reply at ``at`` and where it ends; None when it has not wholly come. Raises NotSpoken."""
    end = octets.find(b"\r\n", at, at + MAX_LINE)
    if end < 0:
        if len(octets) - at >= MAX_LINE:
            raise NotSpoken("line too long")
        return None
    kind, rest, after = octets[at : at + 1], bytes(octets[at + 1 : end]), end + 2
    if kind == b"+":
        return rest, after
    if kind == b"-":
        return ServerError(rest.decode("utf-8", "replace")), after
    if kind not in (b":", b"$", b"*"):
        raise NotSpoken("answer is no RESP")
    try:
        number = int(rest)
    except ValueError:
        raise NotSpoken("answer is no RESP") from None
    if kind == b":":
        return number, after
    if number == -1:
        return None, after
    if kind == b"$":
        return _string(octets, after, number)
    return _array(octets, after, number, nested)


def _string(octets: bytes | bytearray, at: int, size: int) -> tuple[bytes, int] | None:
    if not 0 <= size <= MAX_STRING:
        raise NotSpoken("string too long")
    end = at + size
    if len(octets) < end + 2:
        return None
    if octets[end : end + 2] != b"\r\n":
        raise NotSpoken("answer is no RESP")
    return bytes(octets[at:end]), end + 2


def _array(octets: bytes | bytearray, at: int, size: int, nested: bool) -> tuple[list[Reply], int] | None:
    if nested or not 0 <= size <= MAX_ELEMENTS:
        raise NotSpoken("array too long")
    elements: list[Reply] = []
    for _ in range(size):
        found = parse(octets, at, True)
        if found is None:
            return None
        element, at = found
        elements.append(element)
    return elements, at


class RespConnection(Protocol):
    """One connection. ``lost`` hears its end once, with the reason."""

    transport: Any

    def __init__(self, clock: Any, lost: Callable[[str], None]) -> None:
        self._clock = clock
        self._lost = lost
        self._octets = bytearray()
        self._waiting: deque[tuple[float, Done]] = deque()
        self._alarm: IDelayedCall | None = None
        self._reason = ""
        self._ended = False
        self._idle: Deferred[None] | None = None

    def ask(self, words: Sequence[bytes], done: Done) -> bool:
        """Send a command; ``done`` hears the answer, or ServerError or ServerAway. False: too many wait, or the connection has ended."""
        if self._ended or self._reason or len(self._waiting) >= QUEUE_LIMIT:
            return False
        self._waiting.append((self._clock.seconds() + ANSWER_SECONDS, done))
        self.transport.write(request(words))
        if self._alarm is None:
            self._alarm = self._clock.callLater(ANSWER_SECONDS, self._late)
        return True

    def answer(self, words: Sequence[bytes]) -> Deferred[Reply]:
        """The answer to a command. The Deferred fails with ServerError or ServerAway."""
        answer: Deferred[Reply] = Deferred()

        def done(reply: Reply, error: Exception | None) -> None:
            if error is None:
                answer.callback(reply)
            else:
                answer.errback(error)

        if not self.ask(words, done):
            done(None, ServerAway(self._reason or "connection closed"))
        return answer

    def finished(self) -> Deferred[None]:
        """Fires when nothing waits any more, be it because the connection has ended."""
        idle: Deferred[None] = Deferred()
        if self._waiting:
            self._idle = idle
        else:
            idle.callback(None)
        return idle

    def give_up(self, reason: str) -> None:
        """End the connection at once."""
        if not self._ended and not self._reason:
            self._reason = reason
            self.transport.abortConnection()

    def connectionMade(self) -> None:
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:
            no_delay(True)

    def dataReceived(self, data: bytes) -> None:
        if self._reason:
            return
        self._octets += data
        at = 0
        try:
            while at < len(self._octets):
                found = parse(self._octets, at)
                if found is None:
                    break
                reply, at = found
                if not self._waiting:
                    # Taken for the next request's answer it would shift all that follow.
                    raise NotSpoken(str(reply) if isinstance(reply, ServerError) else "answer without a request")
                done = self._waiting.popleft()[1]
                if isinstance(reply, ServerError):
                    done(None, reply)
                else:
                    done(reply, None)
                if self._reason:
                    return
        except NotSpoken as problem:
            self.give_up(str(problem))
            return
        del self._octets[:at]
        if not self._waiting:
            self._all_answered()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = True
        if not self._reason:
            self._reason = "connection closed" if reason.check(ConnectionDone) else reason.getErrorMessage()
        self._octets.clear()
        self._lost(self._reason)
        waiting, self._waiting = self._waiting, deque()
        away = ServerAway(self._reason)
        for _, done in waiting:
            done(None, away)
        self._all_answered()

    def _all_answered(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.callback(None)

    def _late(self) -> None:
        self._alarm = None
        left = self._waiting[0][0] - self._clock.seconds()
        if left <= 0:
            self.give_up(f"no answer in {ANSWER_SECONDS:g} seconds")
        else:
            self._alarm = self._clock.callLater(left, self._late)
