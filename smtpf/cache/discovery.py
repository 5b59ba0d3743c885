"""Finding the other nodes of one network: short signed announcements to a multicast group.

Nothing but the announcement travels this way; records go over the connection it leads to.
Source: spec chapter operations, 2.10.1.
"""

# Twisted's datagram classes carry few types.
# mypy: disable-error-code="no-untyped-call, union-attr"

from __future__ import annotations

import hashlib
import hmac
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

INTERVAL = 30.0
"""Seconds between announcements."""
LARGEST = 512
"""Octets of an announcement."""
PER_SECOND = 10
"""Announcements heard from one source in a second; the rest are dropped unread."""
SOURCES = 1024
"""Sources whose rate is remembered."""
_MAGIC = "SMTPF1"


@attrs.frozen
class Beacon:
    """An announcement that has been proved."""

    node: str
    name: str
    port: int


def beacon(node: str, name: str, port: int, now: int, secret: bytes) -> bytes:
    """The announcement of this node."""
    word = "".join(letter for letter in name if letter.isascii() and letter.isprintable() and letter != " ")[:255] or "-"
    text = f"{_MAGIC} {node} {word} {port} {now}".encode("ascii")
    return text + b" " + hmac.digest(secret, text, hashlib.sha256).hex().encode("ascii")


def read_beacon(datagram: bytes, secret: bytes, now: int, max_skew: int, own: str) -> Beacon | None:
    """The announcement in ``datagram``; None when it is forged, stale, malformed or our own."""
    text, mark, digest = datagram.rpartition(b" ")
    if not mark or len(datagram) > LARGEST:
        return None
    if not hmac.compare_digest(digest, hmac.digest(secret, text, hashlib.sha256).hex().encode("ascii")):
        return None
    words = text.split(b" ")
    if len(words) != 5 or words[0] != _MAGIC.encode("ascii") or not text.isascii():
        return None
    node, name, port, moment = (word.decode("ascii") for word in words[1:])
    if len(node) != 32 or node == own or not port.isdigit() or not moment.isdigit():
        return None
    if not 0 < int(port) < 65536 or abs(int(moment) - now) > max_skew:
        return None
    return Beacon(node, name, int(port))


class Discovery(DatagramProtocol):
    """Announces this node to ``group`` and hears the others. ``found`` is called with a beacon and its source address."""

    def __init__(
        self,
        reactor: Any,
        group: tuple[str, int],
        hops: int,
        announce: Callable[[], bytes],
        read: Callable[[bytes], Beacon | None],
        found: Callable[[Beacon, str], None],
    ) -> None:
        self._reactor = reactor
        self._group = group
        self._hops = hops
        self._announce = announce
        self._read = read
        self._found = found
        self._timer: IDelayedCall | None = None
        self._rates: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._port: Any = None

    def start(self, interface: str = "") -> None:
        """Listen and announce. Raises OSError or ``twisted.internet.error.CannotListenError``."""
        host, port = self._group
        v6 = ":" in host
        self._port = self._reactor.listenMulticast(port, self, interface="::" if v6 else "", listenMultiple=True)
        sock = self.transport.getHandle()
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, self._hops)
            membership = socket.inet_pton(socket.AF_INET6, host) + (0).to_bytes(4, "little")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, self._hops)
            local = socket.inet_aton(interface or "0.0.0.0")
            if interface:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(host) + local)
        self._tick()

    def stop(self) -> Any:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self._port.stopListening() if self._port is not None else None

    def _tick(self) -> None:
        self._timer = self._reactor.callLater(INTERVAL, self._tick)
        try:
            self.transport.write(self._announce(), self._group)
        except OSError:
            # No route just now; the next announcement may find one.
            pass

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        source = addr[0]
        second = int(self._reactor.seconds())
        last, count = self._rates.get(source, (second, 0))
        count = count + 1 if last == second else 1
        self._rates[source] = (second, count)
        self._rates.move_to_end(source)
        if len(self._rates) > SOURCES:
            self._rates.popitem(last=False)
        if count > PER_SECOND:
            return
        heard = self._read(datagram)
        if heard is not None:
            self._found(heard, source)
