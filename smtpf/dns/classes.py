"""Address classes: which addresses are this machine, a local network, documentation, or no place to send mail to.

Source: spec chapter filters-envelope, 19; RFC 6890 for the special-purpose blocks. IPv4-mapped IPv6 addresses are
judged as IPv4, and 64:ff9b::/96 by the IPv4 address inside.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(word) for word in text.split())


LOCAL = _networks("0.0.0.0/32 127.0.0.0/8 ::/128 ::1/128")
LAN = _networks("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 fe80::/10 fc00::/7")
TEST = _networks("198.18.0.0/15 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 2001:db8::/32")
RESTRICTED = LOCAL + TEST + _networks("169.254.0.0/16 224.0.0.0/4 240.0.0.0/4 255.255.255.255/32 fe80::/10 ff00::/8")
THIS_NET = _networks("0.0.0.0/8")
UNREACHABLE = RESTRICTED + LAN + _networks("0.0.0.0/8 100.64.0.0/10 192.0.0.0/24 192.88.99.0/24 fc00::/7 fec0::/10 100::/64 2001::/23")
"""No mail exchange of the public Internet lives here."""

_NAT64 = IPv6Network("64:ff9b::/96")


def judged(address: Address | str) -> Address:
    """The address to judge: the IPv4 address inside a mapped or NAT64 one. Raises ValueError for a text that is none."""
    given = ip_address(address) if isinstance(address, str) else address
    if isinstance(given, IPv6Address):
        if given.ipv4_mapped is not None:
            return given.ipv4_mapped
        if given in _NAT64:
            return IPv4Address(int(given) & 0xFFFFFFFF)
    return given


def within(address: Address | str, networks: tuple[Network, ...]) -> bool:
    """``address`` lies in one of ``networks``."""
    given = judged(address)
    return any(given in network for network in networks if network.version == given.version)


def is_local(address: Address | str) -> bool:
    """This machine: 127/8, ::1, or the unspecified address."""
    return within(address, LOCAL)


def is_lan(address: Address | str) -> bool:
    """A private or link-local network."""
    return within(address, LAN)


def is_restricted(address: Address | str) -> bool:
    """Loopback, documentation, link-local, multicast or reserved."""
    return within(address, RESTRICTED)


def is_this_net(address: Address | str) -> bool:
    """0.0.0.0/8."""
    return within(address, THIS_NET)


def is_unreachable(address: Address | str) -> bool:
    """Not an address that a stranger's mail exchange can have: pruned from MX lists, never connected to on a stranger's word."""
    return within(address, UNREACHABLE)
