"""The PROXY protocol: a load balancer in front of us tells, before anything else, whose connection it hands on.

Only peers that ``proxy-protocol-from`` names are believed, and of them a header is demanded. It is read before a session
exists; the banner, the tests and the log then know the client alone. What is claimed never makes a client
``localhost``, a relay by its loopback address, an administrator, or somebody who may use XCLIENT.
Source: The PROXY protocol, versions 1 and 2 (HAProxy, 2020-03-05), 2.1 and 2.2; security rows L7 and Q.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from smtpf.journal.message import Message, err
from smtpf.settings.option import Words
from smtpf.smtp.addresses import Network, networks, plain_address
from smtpf.smtp.wire import Claim, Talker, Wire

PROXY_PROTOCOL_FROM = Words(
    "proxy-protocol-from",
    "",
    "Load balancers in front of this node. Every connection from them begins with a PROXY header that names the real client; one "
    "without it is closed. From anybody else such a header is refused.",
    choices='addresses, CIDR; "" = none',
    runtime=False,
    since="new",
    area="smtp",
)
PROXY_PROTOCOL_INTERFACES = Words(
    "proxy-protocol-interfaces",
    "",
    "Local addresses on which proxy-protocol-from counts; on others these peers are ordinary clients.",
    choices='addresses, each with :port if wanted; "" = all interfaces',
    runtime=False,
    since="new",
    area="smtp",
)
REFUSED = err(
    1149, "PROXY header from [%s]: %s",
    "A peer named in proxy-protocol-from did not send a proper PROXY header in time, or a client that is not named there sent one. The "
    "connection was closed. See that the load balancer speaks the PROXY protocol to this interface, and that the option names it.",
    fields=("address", "reason"), since="new",
)  # fmt: skip
HEADER_TIMEOUT = 10.0
"""Seconds for the whole header."""
Refuse = Callable[[Message, str, str], None]
NOT_NAMED = "peer is not in proxy-protocol-from"

MAX_V1 = 107
"""Octets of a version 1 header, CRLF included."""
MAX_V2 = 1024
"""Octets that may follow the fixed part of a version 2 header. Addresses need 36; the rest is for TLVs, which are skipped."""
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = len(_SIGNATURE) + 4
_V1 = re.compile(rb"PROXY (?:(UNKNOWN)(?: [ -~]*)?|(TCP4|TCP6) ([0-9A-Fa-f.:]{2,45}) ([0-9A-Fa-f.:]{2,45}) (\d{1,5}) (\d{1,5}))\r\n")


@attrs.frozen
class Header:
    """A whole header."""

    claim: Claim
    octets: int
    """Its length; what follows is SMTP."""


@attrs.frozen
class Malformed:
    """What came is no header, and can become none."""

    reason: str


def read_header(octets: bytes) -> Header | Malformed | None:
    """The header at the start of ``octets``; None when more is needed. At most ``MAX_V2`` and a little is looked at."""
    if _SIGNATURE.startswith(octets[: len(_SIGNATURE)]):
        return _version_2(octets) if len(octets) >= _FIXED else None
    if not b"PROXY ".startswith(octets[:6]):
        return Malformed("no header")
    end = octets.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        return None if len(octets) < MAX_V1 else Malformed("version 1 line too long")
    found = _V1.fullmatch(octets[: end + 2])
    if found is None:
        return Malformed("version 1 syntax")
    if found[1]:
        return Header(Claim(), end + 2)
    if max(int(found[5]), int(found[6])) > 65535:
        return Malformed("version 1 port")
    version = 4 if found[2] == b"TCP4" else 6
    try:
        source, destination = (ipaddress.ip_address(found[at].decode("ascii")) for at in (3, 4))
    except ValueError:
        return Malformed("version 1 address")
    if (source.version, destination.version) != (version, version):
        return Malformed("version 1 address")
    return Header(Claim(plain_address(str(source)), plain_address(str(destination))), end + 2)


def _version_2(octets: bytes) -> Header | Malformed | None:
    command, family, length = struct.unpack_from("!BBH", octets, len(_SIGNATURE))
    if command not in (0x20, 0x21):
        return Malformed("version 2 command")
    if length > MAX_V2:
        return Malformed("version 2 length")
    if len(octets) < _FIXED + length:
        return None
    if command == 0x20 or family in (0x00, 0x31, 0x32):
        return Header(Claim(), _FIXED + length)
    size = {0x11: 4, 0x21: 16}.get(family)
    if size is None:
        return Malformed("version 2 family")
    if length < 2 * size + 4:
        return Malformed("version 2 length")
    source = ipaddress.ip_address(octets[_FIXED : _FIXED + size])
    destination = ipaddress.ip_address(octets[_FIXED + size : _FIXED + 2 * size])
    return Header(Claim(plain_address(str(source)), plain_address(str(destination))), _FIXED + length)


@attrs.frozen
class Balancers:
    """Whose PROXY headers are believed, and where."""

    peers: Sequence[Network] = ()
    interfaces: frozenset[str] = frozenset()

    @classmethod
    def of(cls, peers: tuple[str, ...], interfaces: tuple[str, ...]) -> Balancers:
        """From the values of the two options."""
        return cls(networks(peers), frozenset(_place(text) for text in interfaces))

    def demand(self, peer: Any, local: Any) -> bool:
        """A connection from ``peer`` to ``local`` must begin with a header."""
        if not self.peers:
            return False
        address = ipaddress.ip_address(plain_address(getattr(peer, "host", "127.0.0.1")))
        if not any(address in network for network in self.peers if network.version == address.version):
            return False
        host, port = plain_address(getattr(local, "host", "127.0.0.1")), getattr(local, "port", 0)
        return not self.interfaces or host in self.interfaces or f"[{host}]:{port}" in self.interfaces


def _place(text: str) -> str:
    """``192.0.2.1``, or ``[192.0.2.1]:25`` when there is a port."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (host.endswith("]") or ":" not in host):
        return f"[{plain_address(host.strip('[]'))}]:{int(port)}"
    return plain_address(text.strip("[]"))


class ProxiedWire(Wire):
    """A wire that waits for the header of a balancer before its conversation begins."""

    def __init__(self, clock: Any, talker: Callable[[Wire], Talker], balancers: Balancers, refuse: Refuse) -> None:
        """``refuse(message, *arguments)`` logs, and gives the place of the connection free."""
        super().__init__(clock, talker)
        self._balancers = balancers
        self._refuse = refuse
        self._head: bytearray | None = bytearray()
        """What has come of the header; None when it has been read."""
        self._overdue: IDelayedCall | None = None

    def connectionMade(self) -> None:
        if not self._balancers.demand(self.transport.getPeer(), self.transport.getHost()):
            self._head = None
            super().connectionMade()
            return
        self._overdue = self._clock.callLater(HEADER_TIMEOUT, self._fail, "timeout")

    def dataReceived(self, data: bytes) -> None:
        if self._head is None:
            super().dataReceived(data)
            return
        if self._overdue is None:
            return
        self._head += data
        found = read_header(bytes(self._head[: MAX_V2 + _FIXED]))
        if isinstance(found, Malformed):
            self._fail(found.reason)
        elif found is not None:
            behind = bytes(self._head[found.octets :])
            self._head = None
            self._stop_waiting()
            self.claim = found.claim
            super().connectionMade()
            if behind:
                super().dataReceived(behind)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._overdue is not None:
            self._fail("connection closed")
        super().connectionLost(*(() if reason is None else (reason,)))

    def _fail(self, reason: str) -> None:
        self._stop_waiting()
        self._refuse(REFUSED, plain_address(getattr(self.transport.getPeer(), "host", "")), reason)
        self.transport.abortConnection()

    def _stop_waiting(self) -> None:
        overdue, self._overdue = self._overdue, None
        if overdue is not None and overdue.active():
            overdue.cancel()
