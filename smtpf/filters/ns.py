"""The name servers of the sender's domain: do their names look generated, and do their own domains exist?

Domains of throw-away senders are often served from pools of customer addresses, or by name servers that are gone. Both
tests are off by default. Source: spec chapter filters-envelope, 9.5 and 9.6.
"""

from __future__ import annotations

from smtpf.dns.answer import Status
from smtpf.dns.domains import Domains
from smtpf.dns.ip_in_name import ip_in_name
from smtpf.dns.resolver import Resolver
from smtpf.dns.soa import Existence, Walk, walk
from smtpf.journal.message import err
from smtpf.maps.routes import RouteMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.counter import Counter, Group

MAIL_IP_IN_NS = Flag(
    "mail-ip-in-ns", False, "Refuse senders whose domain has a name server with its own IP address in its name.", area="mail"
)
MAIL_NS_NXDOMAIN = Flag(
    "mail-ns-nxdomain",
    False,
    "Refuse senders whose domain has a name server in a domain that does not exist.",
    area="mail",
    aliases=("mail-ns-nx-domain",),
)

UNKNOWN_TLD = err(
    465,
    "domain %s does not exist",
    "The name of a sender's name server ends in no known top-level domain, or is nothing more than one.",
    fields=("domain",),
)
NXDOMAIN = err(467, "domain %s does not exist", "The DNS does not know the name of a sender's name server.", fields=("domain",))
SOA_ERROR = err(
    468,
    "SOA for %s lookup error: %s",
    "Whether the domain of a sender's name server exists could not be found out. Nothing follows from it.",
    fields=("domain", "error"),
)
NO_SOA = err(469, "SOA for %s does not exist", "No zone was found for the name of a sender's name server.", fields=("host",))

IP_IN_NS = Reply(
    449, "553 5.1.8 sender <%s> NS %s contains IP %s in name", meaning="mail-ip-in-ns: a name server's name holds its own address."
)
NS_NXDOMAIN = Reply(
    450,
    "553 5.1.8 sender <%s> NS %s in non-existant domain",
    meaning="mail-ns-nxdomain: a name server of the sender's domain lies in a domain that does not exist.",
)
COUNT_IP_IN_NS = Counter("mail-ip-in-ns", Group.MAIL, "Senders whose name servers have generated names.")
COUNT_NS_NXDOMAIN = Counter("mail-ns-nxdomain", Group.MAIL, "Senders whose name servers lie in domains that do not exist.")

MAX_SERVERS = 8
"""Name servers looked at."""
MAX_ADDRESSES = 20
"""Addresses of one name server looked at."""


class Ns(Filter):
    """Judges the sender by the name servers of its domain."""

    def __init__(self, resolver: Resolver, domains: Domains, routes: RouteMap) -> None:
        self._resolver = resolver
        self._domains = domains
        self._routes = routes

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        settings, sender = session.settings, transaction.sender
        if not settings[MAIL_IP_IN_NS] and not settings[MAIL_NS_NXDOMAIN]:
            return None
        if session.trusted or sender.is_null or not sender.domain or sender.literal:
            return None
        return self._judge(session, transaction)

    async def _judge(self, session: Session, transaction: Transaction) -> Verdict | None:
        sender, settings = transaction.sender, session.settings
        if await self._routes.is_ours(sender.domain):
            return None
        servers = await self._servers(sender.domain)
        if settings[MAIL_IP_IN_NS]:
            for host, addresses in zip(servers, await self._addresses(servers), strict=True):
                for address in addresses:
                    if ip_in_name(host, address):
                        session.count(COUNT_IP_IN_NS)
                        return reject(IP_IN_NS, sender.address, host, address, delay=True, fact=f"NS {host}")
        if settings[MAIL_NS_NXDOMAIN]:
            for host in servers:
                found = await walk(self._resolver, self._domains, host)
                _tell(session, found)
                if found.missing:
                    session.count(COUNT_NS_NXDOMAIN)
                    return reject(NS_NXDOMAIN, sender.address, host, delay=True, fact=f"NS {host}")
        return None

    async def _servers(self, domain: str) -> tuple[str, ...]:
        """Name servers of the zone that holds ``domain``; none when the DNS does not say."""
        registered = self._domains.registered(domain)
        while True:
            answer = await self._resolver.lookup(domain, "NS")
            if answer.status is not Status.NODATA or registered is None or domain == registered:
                return tuple(name for name in answer.names if name)[:MAX_SERVERS]
            domain = domain.partition(".")[2]

    async def _addresses(self, hosts: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = await self._resolver.lookup_all([(host, rtype) for host in hosts for rtype in ("A", "AAAA")])
        return [(found[at].addresses + found[at + 1].addresses)[:MAX_ADDRESSES] for at in range(0, len(found), 2)]


def _tell(session: Session, found: Walk) -> None:
    """The log line of a walk that did not find the domain."""
    if found.existence is Existence.UNKNOWN_TLD:
        session.log(UNKNOWN_TLD, found.name)
    elif found.existence is Existence.NXDOMAIN:
        session.log(NXDOMAIN, found.name)
    elif found.existence is Existence.FAILED:
        session.log(SOA_ERROR, found.name, found.answer.rcode_text if found.answer is not None else "")
    elif found.existence is Existence.NO_SOA:
        session.log(NO_SOA, found.name)
