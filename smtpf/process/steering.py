"""Which process of a node answers a client: that of its IPv4 address, or of its IPv6 /64 network, as the limits on clients count them.

Where the kernel can it sends each connection to the listening socket of the right process itself (SO_REUSEPORT with a filter program),
so that handing it over costs nothing. The program computes what ``place_of`` does. Source: socket(7), SO_ATTACH_REUSEPORT_CBPF; bpf(2).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from ipaddress import IPv4Address, ip_address

_FACTOR = 0x9E3779B1
"""2**32 divided by the golden ratio, an odd number: neighbouring addresses come far apart."""
_ATTACH_REUSEPORT_CBPF = 51
"""SO_ATTACH_REUSEPORT_CBPF, which Python's socket module does not name."""

# Instructions of the classic filter language, as in linux/bpf_common.h and linux/filter.h.
_LOAD_WORD = 0x20
_MULTIPLY = 0x24
_REMAINDER = 0x94
_SHIFT_RIGHT = 0x74
_XOR_X = 0xAC
_A_TO_X = 0x07
_ANSWER = 0x16
_NETWORK_HEADER = 0xFFF00000
"""SKF_NET_OFF: offsets from here on are in the IP header."""
_SOURCE_V4 = _NETWORK_HEADER + 12
_SOURCE_V6 = _NETWORK_HEADER + 8


def place_of(address: str, places: int) -> int:
    """The place of the process, 0 to ``places`` - 1, for a client at ``address``."""
    client = ip_address(address.partition("%")[0])
    if not isinstance(client, IPv4Address) and client.ipv4_mapped is not None:
        client = client.ipv4_mapped
    mixed = 0
    for (word,) in struct.iter_unpack(">I", client.packed[:8]):
        mixed = (mixed ^ word) * _FACTOR & 0xFFFFFFFF
    return (mixed >> 16) % places


def share_out(listener: socket.socket, places: int, backlog: int) -> tuple[socket.socket, ...]:
    """``listener``, which listens, and a socket on the same address for each further place, with every client steered to its own.

    ``listener`` alone where the system cannot do that.
    """
    if listener.family == socket.AF_INET6 and not listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        # IPv4 comes here too, and the program would look for the address in the wrong place.
        return (listener,)
    group = [listener]
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(1, places):
            group.append(_companion(listener, backlog))
        program = _program(listener.family, places)
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


_INSTRUCTION = struct.Struct("@HBBI")


def _program(family: int, places: int) -> bytes:
    """What the kernel runs for each new connection. Its answer is the number of a socket, in the order in which they began to listen."""
    if family == socket.AF_INET:
        mix = [(_LOAD_WORD, _SOURCE_V4)]
    else:
        mix = [(_LOAD_WORD, _SOURCE_V6), (_MULTIPLY, _FACTOR), (_A_TO_X, 0), (_LOAD_WORD, _SOURCE_V6 + 4), (_XOR_X, 0)]
    steps = [*mix, (_MULTIPLY, _FACTOR), (_SHIFT_RIGHT, 16), (_REMAINDER, places), (_ANSWER, 0)]
    return b"".join(_INSTRUCTION.pack(code, 0, 0, value) for code, value in steps)
