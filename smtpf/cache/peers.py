"""Who belongs to the cluster: the options that name the nodes, and their addresses.

Source: spec chapter operations, 2.1 to 2.3.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import attrs

from smtpf.journal.message import err
from smtpf.settings.option import Number, Text, Words

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.journal.message import Message
    from smtpf.settings.store import Settings

MOST_PEERS = 64
"""Other nodes of a cluster."""

CACHE_MULTICAST_IP = Text(
    "cache-multicast-ip",
    "",
    "Multicast group in which nodes on one network find each other. Empty: they are found by the cache-unicast options alone.",
    choices="IPv4|IPv6 group[:port]",
    runtime=False,
    area="cache",
)
CACHE_MULTICAST_PORT = Number(
    "cache-multicast-port",
    6920,
    "UDP port on which nodes announce themselves to the multicast group.",
    choices="UDP port",
    least=0,
    most=65535,
    runtime=False,
    area="cache",
)
CACHE_MULTICAST_TTL = Number(
    "cache-multicast-ttl",
    1,
    "Routers an announcement may cross; 1 keeps it on the local network.",
    choices="hops",
    least=0,
    most=255,
    runtime=False,
    area="cache",
)
CACHE_UNICAST_DOMAIN = Text(
    "cache-unicast-domain",
    "",
    "The MX hosts of this domain are the nodes of the cluster. Use a sub-domain made for it. Not together with cache-unicast-hosts.",
    choices="domain",
    runtime=False,
    area="cache",
)
CACHE_UNICAST_HOSTS = Words(
    "cache-unicast-hosts",
    (),
    "The nodes of the cluster by name or address. This node may be among them.",
    choices="host[:port]",
    runtime=False,
    area="cache",
)
CACHE_UNICAST_PORT = Number(
    "cache-unicast-port",
    6921,
    "TCP port on which nodes talk to each other.",
    choices="TCP port",
    least=0,
    most=65535,
    runtime=False,
    area="cache",
)
CACHE_HOSTS = Words(
    "cache-hosts",
    (),
    "Another way to name the cluster: multicast groups in this list count as cache-multicast-ip, all else as cache-unicast-hosts.",
    choices="IP|host|multicast group, each [:port]",
    runtime=False,
    since="later",
    area="cache",
)
CACHE_PORT = Number(
    "cache-port",
    6920,
    "Port of the cluster where cache-hosts is used, in place of cache-multicast-port and cache-unicast-port.",
    choices="port",
    least=0,
    most=65535,
    runtime=False,
    since="later",
    area="cache",
)

BOTH_GIVEN = err(
    174,
    "cache-unicast-domain and cache-unicast-hosts are mutually exclusive options",
    "Name the nodes of the cluster in one way. The node does not start.",
)
DOMAIN_ERROR = err(
    175,
    "cache-unicast-domain error: %s (%d)",
    "The MX hosts of the domain could not be found, or there were none. At start the node ends; later it keeps the nodes it knows.",
)
HOSTS_UNREADABLE = err(
    176, "cache-unicast-hosts error: %s (%d)", "An element of the list is no host with an optional port. The node does not start."
)
HOSTS_ERROR = err(
    177,
    "cache-unicast-hosts error: %s (%d)",
    "The list names nobody but this node, a name has no address, or the cluster port cannot be listened on. The node does not start.",
)

EINVAL, ENOENT = 22, 2


class Names(Protocol):
    """Looks names up. Each answer comes with its life time in seconds; OSError when there is none."""

    def addresses(self, host: str) -> Awaitable[tuple[Sequence[str], int]]:
        """A and AAAA of ``host``."""

    def mail_exchangers(self, domain: str) -> Awaitable[tuple[Sequence[str], int]]:
        """MX host names of ``domain``."""


@attrs.frozen
class Member:
    """One address on which a node may be."""

    name: str
    """As configured: host name, MX name or address."""
    address: str
    port: int


@attrs.frozen
class Plan:
    """What the options say about the cluster."""

    domain: str = ""
    hosts: tuple[tuple[str, int], ...] = ()
    group: tuple[str, int] | None = None
    port: int = 6921

    @property
    def wanted(self) -> bool:
        """Whether there is a cluster at all."""
        return bool(self.domain or self.hosts or self.group)

    @property
    def message(self) -> Message:
        """The message for faults of the unicast side."""
        return DOMAIN_ERROR if self.domain else HOSTS_ERROR


class PeersError(Exception):
    """The options name no usable cluster; the reason has been logged."""


def split_port(text: str, port: int) -> tuple[str, int]:
    """``host``, ``host:port``, ``[IPv6]:port`` or a bare IPv6 address. Raises ValueError."""
    host, rest = text, ""
    if text.startswith("["):
        host, mark, rest = text[1:].partition("]")
        if not mark or (rest and not rest.startswith(":")):
            raise ValueError(f"{text}: bad address")
        ipaddress.IPv6Address(host)
    elif text.count(":") == 1:
        host, _, rest = text.partition(":")
        rest = ":" + rest
    elif ":" in text:
        ipaddress.IPv6Address(text)
    if rest:
        if not rest[1:].isdecimal() or not 0 < int(rest[1:]) < 65536:
            raise ValueError(f"{text}: bad port")
        port = int(rest[1:])
    if not host or not all(letter.isalnum() or letter in "-._:" for letter in host):
        raise ValueError(f"{text}: bad host")
    return host.lower(), port


def is_group(host: str) -> bool:
    """Whether ``host`` is a multicast address."""
    try:
        return ipaddress.ip_address(host).is_multicast
    except ValueError:
        return False


def plan_of(settings: Settings, journal: Journal) -> Plan:
    """The cluster that ``settings`` describe. Raises PeersError, logged (#174, #176)."""
    hosts, group_text = settings[CACHE_UNICAST_HOSTS], settings[CACHE_MULTICAST_IP]
    listen, group_port = settings[CACHE_UNICAST_PORT], settings[CACHE_MULTICAST_PORT]
    later = settings[CACHE_HOSTS]
    if later:
        listen = group_port = settings[CACHE_PORT]
    domain = settings[CACHE_UNICAST_DOMAIN].strip().rstrip(".").lower()
    try:
        group = split_port(group_text, group_port) if group_text else None
        if group is not None and not is_group(group[0]):
            raise ValueError(f"{group_text}: no multicast group")
        unicast = []
        for text in hosts + later:
            element = split_port(text, listen)
            if is_group(element[0]):
                group = group or split_port(text, group_port)
            else:
                unicast.append(element)
    except ValueError as error:
        journal.write(HOSTS_UNREADABLE, error, EINVAL)
        raise PeersError(str(error)) from None
    if domain and unicast:
        journal.write(BOTH_GIVEN)
        raise PeersError("cache-unicast-domain and cache-unicast-hosts")
    return Plan(domain, tuple(unicast), group, listen)


async def members_of(plan: Plan, names: Names, own: Collection[str]) -> tuple[tuple[Member, ...], int]:
    """The members by address, without this node's ``own`` addresses, and for how many seconds that holds.

    Raises OSError when a look-up fails or nobody is left.
    """
    hosts, ttl = list(plan.hosts), 86_400
    if plan.domain:
        found, ttl = await names.mail_exchangers(plan.domain)
        hosts = [(host.rstrip(".").lower(), plan.port) for host in found]
    members: dict[tuple[str, int], Member] = {}
    for host, port in hosts:
        addresses, life = await _addresses(host, names)
        ttl = min(ttl, life)
        for address in addresses:
            if address not in own:
                members.setdefault((address, port), Member(host, address, port))
    if not members and (plan.domain or plan.hosts):
        raise OSError(ENOENT, "no hosts but this one")
    return tuple(members.values())[:MOST_PEERS], ttl


async def _addresses(host: str, names: Names) -> tuple[Sequence[str], int]:
    try:
        return (str(ipaddress.ip_address(host)),), 86_400
    except ValueError:
        return await names.addresses(host)
