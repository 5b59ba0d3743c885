"""Maps asked of a server over the socketmap protocol.

Question and answer are netstrings on a stream connection; one question at a time, a few connections at once. A
connection that broke is replaced and its question asked once more. Source: spec chapter maps, section 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.maps.hosts import Host
from smtpf.maps.keys import has_control
from smtpf.maps.source import FAILED, Found, LookupFailed, View, Walk

DEFAULT_PORT = 7953
WAIT_SECONDS = 10.0
"""For a free connection, for connecting, and for each reply."""

MAX_CONNECTIONS = 8
MAX_WAITING = 1000
"""Look-ups that may wait for a free connection; further ones fail."""

MAX_REPLY = 100_000
"""Octets of a reply."""

MAX_KEY = 1000
"""Octets of a key; a longer one is in no map."""

SERVER_FAILED = err(
    1142,
    "socketmap %s failed: %s",
    "A map server cannot be reached or does not answer as it should. Look-ups in its map are temporary failures until it does. "
    "Written once, and again only after it has answered in between.",
    fields=("server", "reason"),
    since="later",
)

_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,5}):")
_PART_OF_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,5})?")


class Trouble(Enum):
    """Why a question got no reply."""

    CLOSED = "connection closed"
    UNFRAMED = "reply is not a netstring"
    SLOW = "no reply in time"


class Framing(Enum):
    """What octets that are no whole netstring are."""

    INCOMPLETE = 0
    WRONG = 1


def netstring(octets: bytes) -> bytes:
    return b"%d:%s," % (len(octets), octets)


def read_netstring(octets: bytes | bytearray) -> tuple[bytes, int] | Framing:
    """Content of the netstring that ``octets`` begin with, and its whole length."""
    found = _LENGTH.match(octets)
    if found is None:
        return Framing.INCOMPLETE if _PART_OF_LENGTH.fullmatch(octets) else Framing.WRONG
    length = int(found[1])
    if length > MAX_REPLY:
        return Framing.WRONG
    end = found.end() + length
    if len(octets) <= end:
        return Framing.INCOMPLETE
    return (bytes(octets[found.end() : end]), end + 1) if octets[end] == 0x2C else Framing.WRONG


class Conversation(Protocol):
    """One connection to a map server."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._buffer = bytearray()
        self._asked: Deferred[bytes | Trouble] | None = None
        self._timer: IDelayedCall | None = None
        self.open = False

    def connectionMade(self) -> None:
        self.open = True

    def ask(self, request: bytes) -> Deferred[bytes | Trouble]:
        """Send one question; content of its reply, or why there is none (the connection is closed then)."""
        self._asked = Deferred()
        asked = self._asked
        self._timer = self._clock.callLater(WAIT_SECONDS, self._end, Trouble.SLOW)
        assert self.transport is not None
        self.transport.write(netstring(request))
        return asked

    def dataReceived(self, data: bytes) -> None:
        if self._asked is None:
            self._end(Trouble.UNFRAMED)
            return
        self._buffer += data
        found = read_netstring(self._buffer)
        if found is Framing.INCOMPLETE:
            return
        if isinstance(found, Framing):
            self._end(Trouble.UNFRAMED)
            return
        content, length = found
        if len(self._buffer) > length:
            # What nobody asked for would be taken for the answer to the next question.
            self._end(Trouble.UNFRAMED)
            return
        self._buffer.clear()
        self._answer(content)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.open = False
        self._answer(Trouble.CLOSED)

    def _end(self, trouble: Trouble) -> None:
        self.close()
        self._answer(trouble)

    def close(self) -> None:
        self.open = False
        self._buffer.clear()
        if self.transport is not None:
            transport: Any = self.transport
            transport.abortConnection()

    def _answer(self, outcome: bytes | Trouble) -> None:
        asked, self._asked = self._asked, None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if asked is not None:
            asked.callback(outcome)


class SocketMap:
    """A map on a server: its own source and its own view, since nothing is kept here."""

    tags: frozenset[str] | None = None
    walk: Walk | None = None

    def __init__(
        self, table: str, server: Host, journal: Journal, reactor: Any, endpoint: Callable[[Any, Host], IStreamClientEndpoint] | None = None
    ) -> None:
        self._table = table
        self._server = server
        self._journal = journal
        self._clock: IReactorTime = reactor
        self._endpoint = (endpoint or endpoint_of)(reactor, server)
        self._slots = DeferredSemaphore(MAX_CONNECTIONS)
        self._idle: list[Conversation] = []
        self._told = False
        self._stopped = False

    @property
    def view(self) -> View:
        return self

    def get(self, key: str, /) -> Found | Deferred[Found]:
        octets = key.encode("utf-8", "surrogateescape")
        if has_control(key) or len(octets) > MAX_KEY:
            return None
        if len(self._slots.waiting) >= MAX_WAITING:
            return FAILED
        return ensureDeferred(self._get(octets))

    def start(self) -> None:
        """Connections are made when they are needed."""
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self.close()

    def close(self) -> None:
        idle, self._idle = self._idle, []
        for conversation in idle:
            conversation.close()

    def reload(self) -> None:
        """Every look-up is live."""

    def when_loaded(self, told: Callable[[], None]) -> None:
        """There is no loading."""

    async def _get(self, key: bytes) -> Found:
        try:
            await self._slots.acquire().addTimeout(WAIT_SECONDS, self._clock)
        except (TimeoutError, CancelledError):
            return self._failed("all connections are busy")
        try:
            reply = await self._reply(self._table.encode("ascii") + b" " + key)
        finally:
            self._slots.release()
        if isinstance(reply, str):
            return self._failed(reply)
        self._told = False
        return interpret(reply)

    async def _reply(self, request: bytes) -> bytes | str:
        """The reply to a question, or why there is none."""
        outcome: bytes | Trouble = Trouble.CLOSED
        for _ in range(2):
            conversation = await self._connected()
            if isinstance(conversation, str):
                return conversation
            outcome = await conversation.ask(request)
            if isinstance(outcome, bytes):
                if self._stopped or not conversation.open:
                    conversation.close()
                else:
                    self._idle.append(conversation)
                return outcome
            if outcome is not Trouble.CLOSED:
                break
        assert isinstance(outcome, Trouble)
        return outcome.value

    async def _connected(self) -> Conversation | str:
        while self._idle:
            conversation = self._idle.pop()
            if conversation.open:
                return conversation
        factory = Factory.forProtocol(lambda: Conversation(self._clock))
        factory.noisy = False
        try:
            made: Any = await self._endpoint.connect(factory).addTimeout(WAIT_SECONDS, self._clock)
        except Exception as error:
            return f"cannot connect: {error}" if str(error) else "cannot connect"
        assert isinstance(made, Conversation)
        return made

    def _failed(self, reason: str) -> LookupFailed:
        if not self._told:
            self._told = True
            self._journal.write(SERVER_FAILED, self._server.text, reason)
        return LookupFailed(reason)


def interpret(reply: bytes) -> Found:
    """What the content of a reply says."""
    status, _, rest = reply.partition(b" ")
    if status == b"OK":
        return rest.decode("utf-8", "surrogateescape")
    if status == b"NOTFOUND":
        return None
    return LookupFailed(reply[:100].decode("utf-8", "replace"))


def endpoint_of(reactor: Any, server: Host) -> IStreamClientEndpoint:
    if server.unix:
        return UNIXClientEndpoint(reactor, server.unix, timeout=int(WAIT_SECONDS))
    return HostnameEndpoint(reactor, server.host, server.port, timeout=WAIT_SECONDS)
