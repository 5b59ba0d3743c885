"""Which worker answers a client: that of its IPv4 address, or of its IPv6 /64 network, as the limits on clients count them."""

from __future__ import annotations

import zlib
from ipaddress import IPv4Address, ip_address


def place_of(address: str, places: int) -> int:
    """The place of the worker, 0 to ``places`` - 1, for a client at ``address``; the same one whichever process of the node asks."""
    client = ip_address(address.partition("%")[0])
    mapped = client if isinstance(client, IPv4Address) else client.ipv4_mapped
    return zlib.crc32(client.packed[:8] if mapped is None else mapped.packed) % places
