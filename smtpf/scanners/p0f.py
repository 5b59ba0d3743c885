"""The query protocols of p0f, which tells the operating system of a client from its packets: versions 2 and 3.

Wire only: packing a query, checking and unpacking a response, and the text of a report. The filter of the same name decides what
is done with it. Integers are in this machine's byte order, for the daemon runs on it. Source: p0f 2 and 3 README; spec
chapter filters-envelope, 4.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from datetime import UTC, datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IConnector
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

MAGIC_2 = 0x0DEFACED
MAGIC_3_QUERY = 0x50304601
MAGIC_3_RESPONSE = 0x50304602
STATUS_3_OK = 0x10
STATUS_3_NO_MATCH = 0x20
STATUSES_2_FINE = frozenset({0, 2})
NO_MATCH_2 = 2
LONGEST_PATH = 107
"""Octets of a UNIX socket's path."""
UNKNOWN = "?"
_QUALITIES = ("ok", "fuzzy", "generic", "fuzzy-generic")
_SUSPECTS = {1: "proxy", 2: "bad"}

_QUERY_3 = struct.Struct("=IB16s")
_RESPONSE_3 = struct.Struct("=9IhBB32s32s32s32s32s32s")
_QUERY_2 = struct.Struct("@IB3xI4s4sHH")
_RESPONSE_2 = struct.Struct("@IIB20s40sb30s30sBBBxhHxxi")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


class Fault(Enum):
    """Where a query failed."""

    ADDRESS = "address"
    OPEN = "open"
    CONNECT = "connection"
    WRITE = "write"
    TIMEOUT = "timeout"
    READ = "read"
    MAGIC = "magic number"
    QUERY = "query"


@attrs.frozen
class P0fError:
    """A query that came to nothing."""

    fault: Fault
    number: int = 0
    """An error number of the system, or the status of the response."""

    @property
    def text(self) -> str:
        return os.strerror(self.number) if self.number else "connection closed"


@attrs.frozen
class Fingerprint:
    """What p0f knows of a client."""

    report: str
    """One line of printable text."""
    os: str = ""
    """Name of the operating system, empty when p0f cannot tell."""


NOT_KNOWN = Fingerprint(f"{UNKNOWN} {UNKNOWN}")


@attrs.frozen
class Query:
    """Octets to write, how long the response is, and how to read it."""

    octets: bytes
    size: int
    version: int

    def read(self, response: bytes) -> Fingerprint | P0fError:
        """The response's meaning; it has ``size`` octets."""
        return _read_2(response) if self.version == 2 else _read_3(response)


def query_3(client: IPv4Address | IPv6Address) -> Query:
    """The query of version 3 for a client."""
    return Query(_QUERY_3.pack(MAGIC_3_QUERY, client.version, client.packed), _RESPONSE_3.size, 3)


def query_2(identity: int, client: IPv4Address, port: int, local: IPv4Address, local_port: int) -> Query:
    """The query of version 2 for one connection. ``identity`` comes back in the response."""
    return Query(_QUERY_2.pack(MAGIC_2, 1, identity, client.packed, local.packed, port, local_port), _RESPONSE_2.size, 2)


def _read_3(response: bytes) -> Fingerprint | P0fError:
    (
        magic, status, _first, _last, connections, minutes, cycle, nat, change, distance, suspect, quality,
        name, flavour, agent, agent_flavour, link, _language,
    ) = _RESPONSE_3.unpack(response)  # fmt: skip
    if magic != MAGIC_3_RESPONSE:
        return P0fError(Fault.MAGIC)
    if status == STATUS_3_NO_MATCH:
        return NOT_KNOWN
    if status != STATUS_3_OK:
        return P0fError(Fault.QUERY, status)
    system = _text(name)
    words = [system or UNKNOWN, _text(flavour) or UNKNOWN if system else UNKNOWN, "conn", str(connections)]
    if distance >= 0:
        words += ["hops", str(distance)]
    if system:
        words += ["quality", _QUALITIES[quality & 3]]
    if _text(link):
        words += ["link", _text(link)]
    if _text(agent):
        words += ["agent", f"{_text(agent)}/{_text(agent_flavour)}"]
    if suspect in _SUSPECTS:
        words += ["suspect", _SUSPECTS[suspect]]
    if minutes:
        days, rest = divmod(minutes, 1440)
        words += ["up", f"{days}d{rest // 60}h{rest % 60}m0s", "cycle", f"{cycle}d"]
    for word, moment in (("ip-shared", nat), ("os-changed", change)):
        if moment:
            words += [word, datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S")]
    return Fingerprint(" ".join(words), system)


def _read_2(response: bytes) -> Fingerprint | P0fError:
    magic, _identity, status, genre, detail, distance, link, service, firewall, nat, _real, score, flags, uptime = _RESPONSE_2.unpack(
        response
    )
    if magic != MAGIC_2:
        return P0fError(Fault.MAGIC)
    if status not in STATUSES_2_FINE:
        return P0fError(Fault.QUERY, status)
    if status == NO_MATCH_2:
        return NOT_KNOWN
    system = _text(genre)
    words = [system or UNKNOWN, _text(detail) or UNKNOWN if system else UNKNOWN]
    if distance >= 0:
        words += ["hops", str(distance)]
    if _text(link):
        words += ["link", _text(link)]
    if _text(service):
        words += ["service", _text(service)]
    if uptime >= 0:
        words += ["up", str(uptime)]
    if score != -100:
        words += ["score", str(score), "flags", f"0x{flags:X}"]
    if nat:
        words.append("NAT")
    if firewall:
        words.append("FW")
    return Fingerprint(" ".join(words), system)


def _text(padded: bytes) -> str:
    """A field up to its first NUL, without what may not stand in a header or a log line."""
    return _UNPRINTABLE.sub("", padded.partition(b"\0")[0].decode("latin-1")).strip()


class _Asking(Protocol):
    """One query on one connection."""

    def __init__(self, query: Query, answer: Deferred[Fingerprint | P0fError]) -> None:
        self._query = query
        self._answer = answer
        self._received = b""

    def connectionMade(self) -> None:
        # Written at once, and not by way of the reactor, so that a daemon that has gone is told apart from one that does not answer.
        written = self.transport.writeSomeData(self._query.octets)  # type: ignore[union-attr]
        if written != len(self._query.octets):
            self._settle(P0fError(Fault.WRITE, errno.EPIPE))

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        size = self._query.size
        if len(self._received) >= size:
            self._settle(self._query.read(self._received[:size]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        number = getattr(reason.value, "osError", None)
        self._settle(P0fError(Fault.READ, number if isinstance(number, int) else 0))

    def give_up(self) -> None:
        """The time is over."""
        self._settle(P0fError(Fault.TIMEOUT, errno.ETIMEDOUT))

    def _settle(self, answer: Fingerprint | P0fError) -> None:
        if not self._answer.called:
            self._answer.callback(answer)
            self.transport.abortConnection()  # type: ignore[union-attr]


class _Connecting(ClientFactory):
    noisy = False

    def __init__(self, query: Query, answer: Deferred[Fingerprint | P0fError]) -> None:
        self.answer = answer
        self._query = query
        self.made: _Asking | None = None

    def buildProtocol(self, addr: IAddress | None) -> _Asking:
        self.made = _Asking(self._query, self.answer)
        return self.made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self.answer.called:
            number = getattr(reason.value, "osError", None)
            self.answer.callback(P0fError(Fault.CONNECT, number if isinstance(number, int) else errno.ECONNREFUSED))


async def ask(reactor: Any, path: str, query: Query, timeout: float) -> Fingerprint | P0fError:
    """Ask the daemon at the UNIX socket ``path``; its answer, or within ``timeout`` seconds why there is none."""
    if not path.startswith("/"):
        return P0fError(Fault.ADDRESS, errno.EINVAL)
    if len(os.fsencode(path)) > LONGEST_PATH:
        return P0fError(Fault.ADDRESS, errno.ENAMETOOLONG)
    answer: Deferred[Fingerprint | P0fError] = Deferred()
    factory = _Connecting(query, answer)
    try:
        connector = reactor.connectUNIX(path, factory, timeout=timeout + 1)
    except OSError as problem:
        return P0fError(Fault.OPEN, problem.errno or 0)

    def late() -> None:
        if factory.made is not None:
            factory.made.give_up()
        elif not answer.called:
            answer.callback(P0fError(Fault.TIMEOUT, errno.ETIMEDOUT))
            connector.disconnect()

    alarm = reactor.callLater(timeout, late)
    try:
        return await answer
    finally:
        if alarm.active():
            alarm.cancel()
