"""Who is the client by name: reverse look-up, forward confirmation, and the flags that follow from them.

Asked once for each connection, before the banner. Source: spec chapters session, 1.5; filters-envelope, 2.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

import attrs

from smtpf.dns.answer import Answer, Status
from smtpf.dns.classes import is_lan, is_local
from smtpf.dns.domains import Domains, is_host_name
from smtpf.dns.ip_in_name import ip_in_name

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

LOCALHOST_NAME = "localhost.localhost"
MAX_TARGETS = 10
"""PTR records, and addresses of the name, that are looked at."""


@attrs.frozen
class ClientName:
    """What the DNS says of a client address. The fields are named as the client flags."""

    name: str = ""
    """Lower case, no final dot; empty when there is no PTR."""
    no_ptr: bool = False
    no_ptr_error: bool = False
    """The PTR query failed: SERVFAIL, timeout and the like."""
    forged: bool = False
    """Not confirmed by an address record of the name. Never set for private addresses."""
    ptr_multidomain: bool = False
    ip_in_ptr: bool = False
    """The name looks generated from the address (not asked for relays)."""
    delegations: tuple[str, ...] = ()
    """CNAME targets met on the way to the PTR (RFC 2317), as the server wrote them."""


def reverse_name(address: str | IPv4Address | IPv6Address) -> str:
    """The name that holds the PTR records of ``address`` (RFC 1035 3.5, RFC 3596 2.5)."""
    return (ip_address(address) if isinstance(address, str) else address).reverse_pointer


async def identify(
    resolver: Resolver,
    address: str,
    domains: Domains | None = None,
    *,
    relay: bool = False,
    timeout: float | None = None,
    meanwhile: Callable[[str], None] | None = None,
) -> ClientName:
    """The client's name and flags. ``timeout`` seconds bound all look-ups together; no failure is an exception.

    ``domains`` tells public suffixes apart; without it only a bare top-level domain counts as one. ``meanwhile`` is called with the
    name when its confirmation must be waited for, so that further look-ups can be begun beside it.
    """
    ip = ip_address(address)
    if is_local(ip):
        return ClientName(LOCALHOST_NAME)
    deadline = resolver.seconds() + (resolver.timeout if timeout is None else timeout)
    suspected = not is_lan(ip)
    answer = await resolver.lookup(reverse_name(ip), "PTR", timeout)
    delegations = tuple(target.original for target in answer.chain)
    names = [name for name in answer.names[:MAX_TARGETS] if is_host_name(name)]
    if not names:
        failed = answer.failed
        return ClientName(no_ptr=True, no_ptr_error=failed, forged=suspected, delegations=delegations)
    name = names[0]
    return ClientName(
        name,
        forged=suspected and not await _confirmed(resolver, name, ip, deadline - resolver.seconds(), meanwhile),
        ptr_multidomain=_several_domains(domains, names),
        ip_in_ptr=not relay and ip_in_name(name, ip) != 0,
        delegations=delegations,
    )


async def _confirmed(
    resolver: Resolver, name: str, ip: IPv4Address | IPv6Address, left: float, meanwhile: Callable[[str], None] | None
) -> bool:
    if left <= 0:
        return False
    answer = resolver.query(name, "A" if ip.version == 4 else "AAAA", left)
    if not isinstance(answer, Answer):
        if meanwhile is not None:
            meanwhile(name)
        answer = await answer
    return answer.status is Status.OK and str(ip) in answer.addresses[:MAX_TARGETS]


def _several_domains(domains: Domains | None, names: list[str]) -> bool:
    first = names[0]
    rest = first.partition(".")[2]
    suffix = domains.ptr_suffix(first) if domains is not None else rest if "." in rest else first
    return any(name != suffix and not name.endswith("." + suffix) for name in names[1:])
