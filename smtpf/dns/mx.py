"""The mail exchanges of a domain with their addresses: explicit, implicit or null; all of them, and those that can be real.

Used by the sender tests, call-back, the secondary-MX test and routing. Source: RFC 5321 5.1, RFC 7505; spec chapters
filters-envelope, 9.3 and 9.4; session, 5.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from smtpf.dns.answer import Answer, Status
from smtpf.dns.classes import is_unreachable
from smtpf.dns.domains import is_address

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

MAX_HOSTS = 20
"""Mail exchanges whose addresses are asked for, best preference first."""
MAX_ADDRESSES = 20
"""Addresses kept of one mail exchange."""


@attrs.frozen
class MxHost:
    """One mail exchange."""

    preference: int
    host: str
    addresses: tuple[str, ...] = ()
    """As the DNS gives them, IPv4 first."""
    failed: bool = False
    """Its A or AAAA query failed (neither NOERROR nor NXDOMAIN)."""

    @property
    def usable(self) -> tuple[str, ...]:
        """Without addresses at which no public mail exchange can be."""
        return tuple(address for address in self.addresses if not is_unreachable(address))


@attrs.frozen
class MxList:
    """The outcome of looking for the mail exchanges of ``domain``."""

    domain: str
    answer: Answer
    """Of the MX query."""
    hosts: tuple[MxHost, ...] = ()
    """By preference, duplicates removed; of the implicit MX the domain itself. Empty when the MX query failed."""
    implicit: bool = False
    """The domain has no MX record, so it is its own mail exchange."""
    null: bool = False
    """The domain takes no mail (RFC 7505)."""

    @property
    def nxdomain(self) -> bool:
        """The domain does not exist."""
        return self.answer.status is Status.NXDOMAIN

    @property
    def failed(self) -> bool:
        """The MX query itself failed; ``answer`` says how."""
        return self.answer.failed

    @property
    def not_implemented(self) -> bool:
        """The server does not know how to answer: not held against the domain."""
        return self.answer.status is Status.NOTIMP

    @property
    def usable(self) -> tuple[MxHost, ...]:
        """The pruned list: hosts that have an address left, with those addresses only."""
        pruned = (attrs.evolve(host, addresses=host.usable) for host in self.hosts)
        return tuple(host for host in pruned if host.addresses)

    @property
    def incomplete(self) -> bool:
        """An address query failed: what is missing may be there later."""
        return any(host.failed for host in self.hosts)

    def preference_of(self, address: str) -> int | None:
        """Preference of the first host of the pruned list that has ``address``, None when there is none."""
        return next((host.preference for host in self.usable if address in host.addresses), None)

    def lists(self, address: str) -> bool:
        """``address`` is a mail exchange, pruning aside."""
        return any(address in host.addresses for host in self.hosts)


async def mx_list(resolver: Resolver, domain: str, timeout: float | None = None) -> MxList:
    """MX records of ``domain`` and the addresses of each host. ``timeout`` seconds bound all look-ups together."""
    deadline = resolver.seconds() + (resolver.timeout if timeout is None else timeout)
    answer = await resolver.lookup(domain, "MX", timeout)
    if answer.status is Status.NODATA:
        wanted, implicit = [(0, answer.name)], True
    elif answer.ok:
        wanted, implicit = _by_preference(answer), False
    else:
        return MxList(answer.name, answer)
    if not wanted:
        return MxList(answer.name, answer, null=True)
    left = max(0.001, deadline - resolver.seconds())
    questions = [(host, rtype) for _, host in wanted for rtype in ("A", "AAAA")]
    found = await resolver.lookup_all(questions, left)
    hosts = []
    for index, (preference, host) in enumerate(wanted):
        four, six = found[2 * index], found[2 * index + 1]
        addresses = (four.addresses + six.addresses)[:MAX_ADDRESSES]
        hosts.append(MxHost(preference, host, addresses, four.failed or six.failed))
    return MxList(answer.name, answer, tuple(hosts), implicit)


def _by_preference(answer: Answer) -> list[tuple[int, str]]:
    """Preference and host, best first, each host once; null entries dropped."""
    best: dict[str, int] = {}
    for exchange in sorted(answer.exchanges, key=lambda exchange: exchange.preference):
        if exchange.host and not is_address(exchange.host):
            best.setdefault(exchange.host, exchange.preference)
    return [(preference, host) for host, preference in best.items()][:MAX_HOSTS]
