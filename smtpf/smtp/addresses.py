"""Client addresses as they are logged, looked up and classed. Source: spec chapter session, 1.1 and 1.4."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

REMEMBERED = 4096
"""Addresses whose form and class are remembered."""
_LOCAL_NETWORKS = tuple(ipaddress.ip_network(network) for network in ("127.0.0.0/8", "0.0.0.0/32", "::1/128", "::/128"))


@lru_cache(maxsize=REMEMBERED)
def plain_address(text: str) -> str:
    """An address as it is logged and looked up: IPv4-mapped as IPv4, IPv6 as RFC 5952 has it, without a zone."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "127.0.0.1"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@lru_cache(maxsize=REMEMBERED)
def is_local(address: str) -> bool:
    """127/8, ::1, 0.0.0.0 or ::."""
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in _LOCAL_NETWORKS if network.version == ip.version)


def networks(texts: tuple[str, ...]) -> list[Network]:
    """The addresses and CIDR networks of an option; what is neither is left out."""
    found: list[Network] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text.strip("[]"), strict=False))
        except ValueError:
            continue
    return found
