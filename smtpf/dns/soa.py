"""Does a domain exist: a walk from a host name up to its registered domain in search of a start of authority.

Source: spec chapters filters-envelope, 9.6; session, 5.5. What is found is a value; the filters log it with the numbers
of their own place (#465 to #469 for envelope names, #470 to #474 for names out of messages).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import attrs

from smtpf.dns.answer import Answer, Status
from smtpf.dns.wire import plain_name

if TYPE_CHECKING:
    from smtpf.dns.domains import Domains
    from smtpf.dns.resolver import Resolver

MAX_STEPS = 20
"""Labels taken off at most."""


class Existence(Enum):
    EXISTS = "exists"
    UNKNOWN_TLD = "unknown-tld"
    """The top-level domain is unknown, or the name is nothing but one: "domain does not exist" (#465, #470)."""
    NXDOMAIN = "nxdomain"
    """The DNS says that ``name`` does not exist (#467, #472)."""
    FAILED = "failed"
    """The query for ``name`` failed (#468, #473)."""
    NO_SOA = "no-soa"
    """No zone was found between the host and its top-level domain (#469, #474)."""


@attrs.frozen
class Walk:
    """The outcome for a host name."""

    existence: Existence
    name: str
    """What the log message names: the name at which the walk ended, or the host."""
    answer: Answer | None = None
    """The last answer."""

    @property
    def exists(self) -> bool:
        return self.existence is Existence.EXISTS

    @property
    def missing(self) -> bool:
        """Does not exist, for certain."""
        return self.existence in (Existence.UNKNOWN_TLD, Existence.NXDOMAIN, Existence.NO_SOA)

    @property
    def temporary(self) -> bool:
        """Nobody could say."""
        return self.existence is Existence.FAILED


async def walk(resolver: Resolver, domains: Domains, host: str, timeout: float | None = None) -> Walk:
    """Whether ``host`` lies in a domain that exists. ``timeout`` seconds bound the whole walk."""
    host = plain_name(host)
    registered = domains.registered(host)
    if registered is None:
        return Walk(Existence.UNKNOWN_TLD, host)
    deadline = resolver.seconds() + (resolver.timeout if timeout is None else timeout)
    name = host
    answer: Answer | None = None
    for _ in range(MAX_STEPS):
        answer = await resolver.lookup(name, "SOA", max(0.001, deadline - resolver.seconds()))
        if answer.status is Status.NXDOMAIN:
            return Walk(Existence.NXDOMAIN, name, answer)
        if answer.failed:
            return Walk(Existence.FAILED, name, answer)
        if answer.ok or _zone_within(answer, name, registered):
            return Walk(Existence.EXISTS, name, answer)
        if name == registered:
            break
        name = name.partition(".")[2]
    return Walk(Existence.NO_SOA, host, answer)


def _zone_within(answer: Answer, name: str, registered: str) -> bool:
    """The authority section names a zone that holds ``name``, at or below the registered domain: as good as its SOA."""
    if answer.authority is None:
        return False
    owner = answer.authority.owner
    return (name == owner or name.endswith("." + owner)) and (owner == registered or owner.endswith("." + registered))
