"""The SIQ protocol: ask a reputation server over UDP what is known of a client address and a sender domain.

Wire only; what follows from a score is the filter's business. All three drafts of the answer are understood, told apart by
their length. Source: spec chapter filters-envelope, 17.1.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

VERSION = 1
PORT = 6262
MAX_DATAGRAM = 512
MAX_DOMAIN = 255
HELO_MATCHES, MAIL_MATCHES = 0x80, 0x40
"""Flags: HELO resolves to the client; HELO lies below the sender domain."""
TEMPORARY = -2
"""The score by which a server says: ask again later."""
FIRST_WAIT = 5.0
"""Seconds for each answer; doubled when every server has been asked."""
ROUNDS = 2
BUDGET = 10.0
"""Seconds for all servers together."""

NO_SERVERS = "SIQ no servers specified"
DOMAIN_TOO_LONG = "SIQ domain name too long"
SOCKET_ERROR = "SIQ socket open error"
TIMED_OUT = "SIQ timeout before input from server"
VERSION_MISMATCH = "SIQ version mismatch"
ID_MISMATCH = "SIQ query ID mismatch"
READ_ERROR = "SIQ read error"

_QUERY = struct.Struct("!BBH16sBB")
_HEADS = (("!BbHbbbBHbB", 12), ("!BbHbbbBIbB", 14), ("!BbHbbbB", 8))
"""Drafts 02, 01 and 00: format and length of the part before the text."""


@attrs.frozen
class Reputation:
    """A server's answer. Scores are 0 to 100; below 0 there is none."""

    score: int
    address_score: int = -1
    domain_score: int = -1
    relationship_score: int = -1
    confidence: int = -1
    ttl: int = 0
    """Seconds."""
    text: str = ""


@attrs.frozen
class Failed:
    """No answer; ``text`` as the log says it."""

    text: str


def query(ident: int, flags: int, address: str, domain: str) -> bytes:
    """A query. ``domain`` is at most 255 octets of ASCII."""
    ip = ipaddress.ip_address(address)
    packed = ip.packed if ip.version == 6 else bytes(12) + ip.packed
    name = domain.encode("ascii", "replace")
    return _QUERY.pack(VERSION, flags, ident, packed, len(name), 0) + name


def parse(datagram: bytes, ident: int) -> Reputation | Failed:
    """An answer to the query ``ident``."""
    if len(datagram) < 8 or len(datagram) > MAX_DATAGRAM:
        return Failed(READ_ERROR)
    if datagram[0] != VERSION:
        return Failed(VERSION_MISMATCH)
    if int.from_bytes(datagram[2:4], "big") != ident:
        return Failed(ID_MISMATCH)
    for form, head in _HEADS:
        if len(datagram) < head:
            continue
        score, _, of_address, of_domain, relationship, text_length, *rest = struct.unpack(form, datagram[:head])[1:]
        ttl, confidence, extra = rest if rest else (0, -1, 0)
        if head + text_length + extra == len(datagram):
            text = datagram[head : head + text_length].decode("latin-1")
            return Reputation(score, of_address, of_domain, relationship, confidence, ttl, text)
    return Failed(READ_ERROR)


class _Exchange(DatagramProtocol):
    """One query to one server."""

    noisy = False
    transport: Any = None

    def __init__(self, server: tuple[str, int], octets: bytes, ident: int) -> None:
        self._server = server
        self._octets = octets
        self._ident = ident
        self.answer: Deferred[Reputation | Failed] = Deferred()

    def startProtocol(self) -> None:
        self.transport.connect(*self._server)
        self.transport.write(self._octets)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._done(parse(datagram, self._ident))

    def connectionRefused(self) -> None:
        self._done(Failed(READ_ERROR))

    def _done(self, outcome: Reputation | Failed) -> None:
        if not self.answer.called:
            self.answer.callback(outcome)


class SiqClient:
    """Asks servers in turn. ``reactor`` gives UDP and time, ``rng`` the query ids."""

    def __init__(self, reactor: Any, rng: random.Random) -> None:
        self._reactor = reactor
        self._rng = rng

    async def ask(self, servers: Sequence[tuple[str, int]], flags: int, address: str, domain: str) -> Reputation | Failed:
        """The first answer of one of ``servers`` (address and port); the last failure when there is none."""
        if not servers:
            return Failed(NO_SERVERS)
        if len(domain.encode("ascii", "replace")) > MAX_DOMAIN:
            return Failed(DOMAIN_TOO_LONG)
        deadline = self._reactor.seconds() + BUDGET
        wait, failed = FIRST_WAIT, Failed(TIMED_OUT)
        for _ in range(ROUNDS):
            for server in servers:
                left = deadline - self._reactor.seconds()
                if left <= 0:
                    return failed
                outcome = await self._exchange(server, flags, address, domain, min(wait, left))
                if isinstance(outcome, Reputation):
                    return outcome
                failed = outcome
            wait *= 2
        return failed

    async def _exchange(self, server: tuple[str, int], flags: int, address: str, domain: str, wait: float) -> Reputation | Failed:
        ident = self._rng.randrange(1 << 16)
        exchange = _Exchange(server, query(ident, flags, address, domain), ident)
        try:
            port = self._reactor.listenUDP(0, exchange, interface="::" if ":" in server[0] else "")
        except OSError:
            return Failed(SOCKET_ERROR)
        exchange.answer.addTimeout(wait, self._reactor, lambda result, seconds: Failed(TIMED_OUT))
        try:
            return await exchange.answer
        finally:
            port.stopListening()
