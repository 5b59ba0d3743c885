"""Which process of a node answers a client: that of its IPv4 address, or of its IPv6 /64 network, as the limits on clients count them.

Peers that speak for others, and those of this machine, are met by any process instead: their connections are spread by their port.
Where the kernel can it sends each connection to the right listening socket itself (SO_REUSEPORT with a filter program), so that handing
it over costs nothing. The program computes what ``door_of`` does. What is spread comes to a socket that two processes have, and the one
that has less to do is there first. Source: socket(7), SO_ATTACH_REUSEPORT_CBPF; bpf(2).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from smtpf.smtp.addresses import Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1"))
MOST_NETWORKS = 64
"""Networks whose connections are spread; the program has some ten steps for each, and the kernel a limit."""

_FACTOR = 0x9E3779B1
"""2**32 divided by the golden ratio, an odd number: neighbouring addresses come far apart."""
_ATTACH_REUSEPORT_CBPF = 51
"""SO_ATTACH_REUSEPORT_CBPF, which Python's socket module does not name."""

# Instructions of the classic filter language, as in linux/bpf_common.h and linux/filter.h.
_LOAD_WORD = 0x20
_LOAD_HALF = 0x28
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_ADD = 0x04
_AND = 0x54
_MULTIPLY = 0x24
_REMAINDER = 0x94
_SHIFT_RIGHT = 0x74
_XOR_X = 0xAC
_A_TO_X = 0x07
_ANSWER = 0x16
_INSTRUCTION = struct.Struct("@HBBI")
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are in the IP header."""
_SOURCE = {4: _NETWORK_HEADER + 12, 6: _NETWORK_HEADER + 8}
"""The address of the client, by IP version."""
_PORT = {4: _NETWORK_HEADER + 20, 6: _NETWORK_HEADER + 40}
"""Behind a header without options. With options something else is met there, which spreads as well."""
_WHOLE = 0xFFFFFFFF

_Steps = list[tuple[int, int, int]]
"""Instructions as code, steps to pass over when a comparison fails, and value."""


@attrs.frozen
class Steering:
    """``places`` processes that answer clients, those in the networks of ``spread`` by their port."""

    places: int
    spread: tuple[Network, ...] = LOOPBACK

    def spreads(self, address: str) -> bool:
        """Whether a client at ``address`` meets any process."""
        client = _client(address)
        return any(client in network for network in self.spread if network.version == client.version)

    def place_of(self, address: str, port: int) -> int:
        """The place of the process, from 0, for a connection from ``port`` of the client at ``address``."""
        words: Iterable[int] = (word for (word,) in struct.iter_unpack(">I", _client(address).packed[:8]))
        if self.spreads(address):
            words = (port,)
        mixed = 0
        for word in words:
            mixed = (mixed ^ word) * _FACTOR & 0xFFFFFFFF
        return (mixed >> 16) % self.places

    def door_of(self, address: str, port: int) -> int:
        """The number of the socket of ``share_out`` to which such a connection comes."""
        return self.place_of(address, port) + (self.places if self.spreads(address) else 0)

    def doors(self, place: int) -> tuple[int, ...]:
        """The numbers of the sockets at which the process of ``place`` accepts: its own, and those that it shares with its neighbours."""
        return place, self.places + place, self.places + (place - 1) % self.places

    def share_out(self, listener: socket.socket, backlog: int) -> tuple[socket.socket, ...]:
        """``listener``, which listens, and more sockets on the same address, with every client steered to its own.

        There is one for each place, then one for each pair of neighbours. ``listener`` alone where the system cannot do that.
        """
        if listener.family == socket.AF_INET6 and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            # IPv4 comes here too, and the program would look for the address in the wrong place.
            return (listener,)
        group = [listener]
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for _ in range(1, 2 * self.places):
                group.append(_companion(listener, backlog))
            program = self._program(listener.family)
            code = ctypes.create_string_buffer(program, len(program))
            listener.setsockopt(
                socket.SOL_SOCKET, _ATTACH_REUSEPORT_CBPF, struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(code))
            )
        except (OSError, AttributeError):
            # Another system, an old kernel, or a socket that was made by another user.
            for each in group[1:]:
                each.close()
            if hasattr(socket, "SO_REUSEPORT"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
            return (listener,)
        return tuple(group)

    def _program(self, family: int) -> bytes:
        """What the kernel runs for each connection. It answers as ``door_of``: sockets are numbered in the order in which they listened."""
        version = 4 if family == socket.AF_INET else 6
        source = _SOURCE[version]
        by_address = [(_LOAD_WORD, 0, source)]
        if version == 6:
            by_address += [(_MULTIPLY, 0, _FACTOR), (_A_TO_X, 0, 0), (_LOAD_WORD, 0, source + 4), (_XOR_X, 0, 0)]
        place = [(_MULTIPLY, 0, _FACTOR), (_SHIFT_RIGHT, 0, 16), (_REMAINDER, 0, self.places)]
        steps: _Steps = [*by_address, *place, (_ANSWER, 0, 0)]
        for network in self.spread:
            if network.version == version:
                steps = [*_belongs(network, source, beyond=len(steps)), *steps]
        steps += [(_LOAD_HALF, 0, _PORT[version]), *place, (_ADD, 0, self.places), (_ANSWER, 0, 0)]
        return b"".join(_INSTRUCTION.pack(code, 0, otherwise, value) for code, otherwise, value in steps)


def _belongs(network: Network, source: int, *, beyond: int) -> _Steps:
    """Pass over ``beyond`` further steps when the client is in ``network``, none when it is not."""
    steps: _Steps = []
    masks = struct.iter_unpack(">I", network.netmask.packed)
    for number, ((word,), (mask,)) in enumerate(zip(struct.iter_unpack(">I", network.network_address.packed), masks, strict=True)):
        if mask == 0:
            break
        steps.append((_LOAD_WORD, 0, source + 4 * number))
        if mask != _WHOLE:
            steps.append((_AND, 0, mask))
        steps.append((_JUMP_EQUAL, 0, word))
    whole = len(steps) + 1
    steps = [(code, whole - at - 1 if code == _JUMP_EQUAL else 0, value) for at, (code, _, value) in enumerate(steps)]
    return [*steps, (_JUMP, 0, beyond)]


def _client(address: str) -> IPv4Address | IPv6Address:
    """Without a zone, and IPv4 when it is mapped."""
    client = ip_address(address.partition("%")[0])
    return client if isinstance(client, IPv4Address) else client.ipv4_mapped or client


def _companion(listener: socket.socket, backlog: int) -> socket.socket:
    made = socket.socket(listener.family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if listener.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(listener.getsockname())
        made.listen(backlog)
    except OSError:
        made.close()
        raise
    return made
