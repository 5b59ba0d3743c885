"""The addresses of this machine's interfaces, as the kernel knows them. Source: spec chapter operations, 2.3 and 6.2 step 8."""

from __future__ import annotations

import ipaddress
import re
import socket
from pathlib import Path

_LOCAL_4 = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)\s+/32 host LOCAL")
FORWARDING_TABLE = "/proc/net/fib_trie"
ADDRESSES_6 = "/proc/net/if_inet6"


def own_addresses(host_name: str, table: str = FORWARDING_TABLE, addresses_6: str = ADDRESSES_6) -> tuple[str, ...]:
    """IPv4 first, loopback last of each family; where the kernel's tables cannot be read, what ``host_name`` resolves to."""
    try:
        four = {ipaddress.IPv4Address(text) for text in _LOCAL_4.findall(Path(table).read_text("ascii"))}
        six = set()
        if Path(addresses_6).exists():
            six = {ipaddress.IPv6Address(int(line.split()[0], 16)) for line in Path(addresses_6).read_text("ascii").splitlines()}
    except (OSError, ValueError):
        return _by_name(host_name)
    ordered = [*sorted(four, key=lambda each: (each.is_loopback, each)), *sorted(six, key=lambda each: (each.is_loopback, each))]
    return tuple(str(each) for each in ordered)


def _by_name(host_name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host_name, None, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    return tuple(dict.fromkeys([*(str(each[4][0]) for each in found), "127.0.0.1", "::1"]))
