"""Which process of a node answers a client: that of its IPv4 address, or of its IPv6 /64 network, as the limits on clients count them.

Clients of this machine have no limits. As long as they cannot speak for others they are spread over all processes, each connection by
its port. Where the kernel can it sends each connection to the listening socket of the right process itself (SO_REUSEPORT with a filter
program), so that handing it over costs nothing. The program computes what ``place_of`` does. Source: socket(7),
SO_ATTACH_REUSEPORT_CBPF; bpf(2).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, ip_address

import attrs

_FACTOR = 0x9E3779B1
"""2**32 divided by the golden ratio, an odd number: neighbouring addresses come far apart."""
_ATTACH_REUSEPORT_CBPF = 51
"""SO_ATTACH_REUSEPORT_CBPF, which Python's socket module does not name."""

# Instructions of the classic filter language, as in linux/bpf_common.h and linux/filter.h.
_LOAD_WORD = 0x20
_LOAD_HALF = 0x28
_JUMP = 0x05
_JUMP_EQUAL = 0x15
_MULTIPLY = 0x24
_REMAINDER = 0x94
_SHIFT_RIGHT = 0x74
_XOR_X = 0xAC
_A_TO_X = 0x07
_X_TO_A = 0x87
_ANSWER = 0x16
_INSTRUCTION = struct.Struct("@HBBI")
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are in the IP header."""
_SOURCE_V4 = _NETWORK_HEADER + 12
_SOURCE_V6 = _NETWORK_HEADER + 8
_PORT_V4 = _NETWORK_HEADER + 20
"""Behind a header without options, as it is within a machine."""
_PORT_V6 = _NETWORK_HEADER + 40
_LOOPBACK_V4 = 127
"""First octet."""


@attrs.frozen
class Steering:
    """``places`` processes that answer clients; ``local_by_port`` when clients of this machine are spread over them."""

    places: int
    local_by_port: bool = False

    def place_of(self, address: str, port: int) -> int:
        """The place of the process, from 0, for a connection from ``port`` of the client at ``address``."""
        client = ip_address(address.partition("%")[0])
        if not isinstance(client, IPv4Address) and client.ipv4_mapped is not None:
            client = client.ipv4_mapped
        words: Iterable[int] = (word for (word,) in struct.iter_unpack(">I", client.packed[:8]))
        if self.local_by_port and client.is_loopback:
            words = (port,)
        mixed = 0
        for word in words:
            mixed = (mixed ^ word) * _FACTOR & 0xFFFFFFFF
        return (mixed >> 16) % self.places

    def share_out(self, listener: socket.socket, backlog: int) -> tuple[socket.socket, ...]:
        """``listener``, which listens, and a socket on the same address for each further place, with every client steered to its own.

        ``listener`` alone where the system cannot do that.
        """
        if listener.family == socket.AF_INET6 and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            # IPv4 comes here too, and the program would look for the address in the wrong place.
            return (listener,)
        group = [listener]
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            for _ in range(1, self.places):
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
        """What the kernel runs for each connection. It answers with the number of a socket, in the order in which they began to listen."""
        if family == socket.AF_INET:
            chosen = _by_port_v4 if self.local_by_port else [(_LOAD_WORD, 0, _SOURCE_V4)]
        else:
            chosen = _by_port_v6 if self.local_by_port else _mix_v6
        steps = [*chosen, (_MULTIPLY, 0, _FACTOR), (_SHIFT_RIGHT, 0, 16), (_REMAINDER, 0, self.places), (_ANSWER, 0, 0)]
        return b"".join(_INSTRUCTION.pack(code, 0, otherwise, value) for code, otherwise, value in steps)


# Instructions as code, steps to pass over when a comparison fails, and value. They end with the last word to be mixed in A.
_mix_v6 = [
    (_LOAD_WORD, 0, _SOURCE_V6), (_MULTIPLY, 0, _FACTOR), (_A_TO_X, 0, 0), (_LOAD_WORD, 0, _SOURCE_V6 + 4), (_XOR_X, 0, 0),
]  # fmt: skip
_by_port_v4 = [
    (_LOAD_WORD, 0, _SOURCE_V4), (_A_TO_X, 0, 0), (_SHIFT_RIGHT, 0, 24), (_JUMP_EQUAL, 2, _LOOPBACK_V4),
    (_LOAD_HALF, 0, _PORT_V4), (_JUMP, 0, 1),
    (_X_TO_A, 0, 0),
]  # fmt: skip
# The /64 network of ::1 has no other address that a client can have.
_by_port_v6 = [
    (_LOAD_WORD, 0, _SOURCE_V6), (_JUMP_EQUAL, 4, 0), (_LOAD_WORD, 0, _SOURCE_V6 + 4), (_JUMP_EQUAL, 2, 0),
    (_LOAD_HALF, 0, _PORT_V6), (_JUMP, 0, len(_mix_v6)),
    *_mix_v6,
]  # fmt: skip


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
