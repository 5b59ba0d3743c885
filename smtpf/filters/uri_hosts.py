"""Tests of a linked host by the DNS itself: its addresses and their names, its name servers, its start of authority.

All are off by default. Which one hits first is fixed by their order, however the answers come. Source: spec chapter
filters-content, 13.5; the walk in search of a zone: filters-envelope, 9.6.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING

from smtpf.dns.answer import Answer, HostAddresses, Status
from smtpf.dns.domains import Domains, is_host_name
from smtpf.dns.ip_in_name import ip_in_name
from smtpf.dns.reverse import reverse_name
from smtpf.dns.soa import Existence, Walk, walk
from smtpf.filters.uri_lists import Finding, reason
from smtpf.journal.message import err
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Level, Number
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

URI_REJECT_ON_TIMEOUT = Flag(
    "uri-reject-on-timeout", False, "Refuse messages with a link to a host whose addresses the DNS does not tell in time.", area="uri"
)
URI_REJECT_UNKNOWN = Flag("uri-reject-unknown", False, "Refuse messages with a link to a host that does not exist.", area="uri")
URI_IP_IN_NAME = Flag(
    "uri-ip-in-name", False, "Refuse messages with a link to a host whose name looks generated from one of its addresses.", area="uri"
)
URI_REQUIRE_PTR = Number(
    "uri-require-ptr",
    0,
    "Refuse messages with a link to a host that has at least so many addresses, one of them without a reverse name.",
    choices="least number of addresses; 0 = off",
    area="uri",
)
URI_IP_IN_PTR = Number(
    "uri-ip-in-ptr",
    0,
    "Refuse messages with a link to a host that has at least so many addresses, one of them with a generated reverse name.",
    choices="least number of addresses; 0 = off",
    area="uri",
)
URI_NS_NXDOMAIN = Flag(
    "uri-ns-nxdomain",
    False,
    "Refuse messages with a link into a domain that does not exist, or whose name servers lie in such a domain.",
    area="uri",
)
URI_IP_IN_NS = Flag(
    "uri-ip-in-ns", False, "Refuse messages with a link into a domain whose name servers have their own address in their name.", area="uri"
)
URI_VALID_SOA = Level(
    "uri-valid-soa",
    "-",
    "Refuse messages with a link into a domain whose start of authority is missing or wrong; 2 also keeps a copy of the message.",
    choices="0|1|2 (2 also keeps a copy)",
    since="later",
    area="uri",
)

UNKNOWN_TLD = err(
    470,
    "domain %s does not exist",
    "A linked host or its name server ends in no known top-level domain, or is nothing more than one.",
    fields=("domain",),
)
NXDOMAIN = err(472, "domain %s does not exist", "The DNS does not know a linked host, or the name of its name server.", fields=("domain",))
SOA_ERROR = err(
    473,
    "SOA for %s lookup error: %s",
    "Whether the domain of a linked host or of its name server exists could not be found out. Nothing follows from it.",
    fields=("domain", "error"),
)
NO_SOA = err(474, "SOA for %s does not exist", "No zone was found for a linked host or for its name server.", fields=("host",))

TIMED_OUT = Reply(744, "URI domain %s lookup timeout", with_session=False, meaning="Reason in #895, of uri-reject-on-timeout.")
UNKNOWN = Reply(745, "URI domain %s does not exist (%s)", with_session=False, meaning="Reason in #895, of uri-reject-unknown.")
IP_IN_NAME = Reply(746, "URI host %s contains IP %s in %s", with_session=False, meaning="Reason in #895, of uri-ip-in-name.")
IP_IN_PTR = Reply(747, "URI host %s has IP %s in PTR %s", with_session=False, meaning="Reason in #895, of uri-ip-in-ptr.")
NO_PTR = Reply(748, "URL host %s is missing a PTR", with_session=False, meaning="Reason in #895, of uri-require-ptr.")
NO_DOMAIN = Reply(740, "URI host %s in non-existant domain", with_session=False, meaning="Reason in #895, of uri-ns-nxdomain.")
IP_IN_NS = Reply(741, "URI domain %s where NS %s contains IP %s in name", with_session=False, meaning="Reason in #895, of uri-ip-in-ns.")
NO_NS_DOMAIN = Reply(
    743, "URI domain %s where NS %s in non-existant domain", with_session=False, meaning="Reason in #895, of uri-ns-nxdomain."
)
INVALID_SOA = Reply(
    973, "URI %s invalid SOA (%d)", with_session=False,
    meaning="Reason in #895, of uri-valid-soa: 2 no such domain, 4 bad alias, 6 another zone answers, 7 bad primary server, 8 bad contact.",
)  # fmt: skip

TIMEOUT_HIT = Counter("uri-reject-on-timeout", Group.MSG, "Messages refused because a linked host was not looked up in time.")
UNKNOWN_HIT = Counter("uri-reject-unknown", Group.MSG, "Messages refused because a linked host does not exist.")
IP_IN_NAME_HIT = Counter("uri-ip-in-name", Group.MSG, "Messages refused because a linked host has a generated name.")
IP_IN_PTR_HIT = Counter("uri-ip-in-ptr", Group.MSG, "Messages refused because a linked host has a generated reverse name.")
NO_PTR_HIT = Counter("uri-require-ptr", Group.MSG, "Messages refused because a linked host's address has no reverse name.")
IP_IN_NS_HIT = Counter("_uri-ip-in-ns", Group.MSG, "Messages refused because a linked domain's name server has a generated name.")
NXDOMAIN_HIT = Counter("_uri-ns-nxdomain", Group.MSG, "Messages refused because a linked domain or its name server does not exist.")
VALID_SOA_HIT = Counter(
    "uri-valid-soa", Group.MSG, "Messages refused because a linked domain's start of authority is wrong.", since="later"
)
SOA_ERROR_COUNT = Counter("uri-soa-error", Group.MSG, "Linked domains whose start of authority could not be had.", since="later")

MAX_ADDRESSES = 20
"""Addresses of one host that are looked at."""
MAX_SERVERS = 8
"""Name servers of one domain that are looked at."""

UNDEFINED, NOT_FOUND, BAD_ALIAS, OTHER_ZONE, BAD_PRIMARY, BAD_CONTACT = 2, 3, 4, 6, 7, 8


def wanted(settings: Settings) -> bool:
    """One of the tests is on."""
    flags = (URI_REJECT_ON_TIMEOUT, URI_REJECT_UNKNOWN, URI_IP_IN_NAME, URI_NS_NXDOMAIN, URI_IP_IN_NS)
    numbers = (URI_REQUIRE_PTR, URI_IP_IN_PTR)
    return any(settings[flag] for flag in flags) or any(settings[number] > 0 for number in numbers) or settings[URI_VALID_SOA] > 0


class HostTests:
    """The tests, each for one host name."""

    def __init__(self, resolver: Resolver, domains: Domains) -> None:
        self._resolver = resolver
        self._domains = domains

    async def addresses(self, settings: Settings, host: str, mail: bool) -> Finding | None:
        """Does it exist, and what of its addresses? The domain of a ``mail`` address needs none."""
        on_timeout, unknown, in_name = settings[URI_REJECT_ON_TIMEOUT], settings[URI_REJECT_UNKNOWN], settings[URI_IP_IN_NAME]
        require_ptr, in_ptr = settings[URI_REQUIRE_PTR], settings[URI_IP_IN_PTR]
        if not (on_timeout or unknown or in_name or require_ptr > 0 or in_ptr > 0):
            return None
        found = await self._resolver.addresses(host)
        if not found.addresses:
            return _without_address(found, host, mail, on_timeout, unknown)
        addresses = found.addresses[:MAX_ADDRESSES]
        if in_name and len(addresses) > 1:
            finding = await self._in_name(host, addresses)
            if finding is not None:
                return finding
        by_ptr = [least for least in (require_ptr, in_ptr) if least > 0]
        if by_ptr and len(found.addresses) >= min(by_ptr):
            return await self._reverse_names(host, addresses, 0 < require_ptr <= len(found.addresses), 0 < in_ptr <= len(found.addresses))
        return None

    async def _in_name(self, host: str, addresses: tuple[str, ...]) -> Finding | None:
        owner = (await self._resolver.lookup(host, "A")).canonical
        for address in addresses:
            if isinstance(ip_address(address), IPv4Address) and ip_in_name(owner, address):
                return Finding(reason(IP_IN_NAME, host, address, owner), IP_IN_NAME_HIT)
        return None

    async def _reverse_names(self, host: str, addresses: tuple[str, ...], required: bool, judged: bool) -> Finding | None:
        answers = await self._resolver.lookup_all([(reverse_name(address), "PTR") for address in addresses])
        if required and any(answer.status in (Status.NXDOMAIN, Status.NODATA) for answer in answers):
            return Finding(reason(NO_PTR, host), NO_PTR_HIT)
        if judged:
            for address, answer in zip(addresses, answers, strict=True):
                for name in answer.names[:MAX_ADDRESSES]:
                    if ip_in_name(name, address):
                        return Finding(reason(IP_IN_PTR, host, address, name), IP_IN_PTR_HIT)
        return None

    async def name_servers(self, session: Session, host: str) -> Finding | None:
        """Do host and name servers lie in domains that exist, and do the servers' names look generated?"""
        settings = session.settings
        existence, in_ns = settings[URI_NS_NXDOMAIN], settings[URI_IP_IN_NS]
        registered = self._domains.registered(host)
        if registered is None or not (existence or in_ns):
            return None
        if existence and await self._missing(session, host):
            return Finding(reason(NO_DOMAIN, host), NXDOMAIN_HIT)
        servers = [name for name in (await self._resolver.lookup(registered, "NS")).names if name][:MAX_SERVERS]
        if existence:
            for server in servers:
                if await self._missing(session, server):
                    return Finding(reason(NO_NS_DOMAIN, registered, server), NXDOMAIN_HIT)
        if in_ns:
            answers = await self._resolver.lookup_all([(server, rtype) for server in servers for rtype in ("A", "AAAA")])
            for answer in answers:
                for address in answer.addresses[:MAX_ADDRESSES]:
                    if ip_in_name(answer.name, address):
                        return Finding(reason(IP_IN_NS, registered, answer.name, address), IP_IN_NS_HIT)
        return None

    async def _missing(self, session: Session, host: str) -> bool:
        found = await walk(self._resolver, self._domains, host)
        _tell(session, found)
        return found.missing

    async def start_of_authority(self, session: Session, host: str) -> Finding | None:
        """Is there a sensible SOA record for the registered domain?"""
        if not session.settings[URI_VALID_SOA]:
            return None
        registered = self._domains.registered(host)
        if registered is None:
            return None
        code = soa_fault(await self._resolver.lookup(registered, "SOA"))
        if code == NOT_FOUND:
            session.count(SOA_ERROR_COUNT)
            return None
        return Finding(reason(INVALID_SOA, host, code), VALID_SOA_HIT, policy=None) if code else None


def _without_address(found: HostAddresses, host: str, mail: bool, on_timeout: bool, unknown: bool) -> Finding | None:
    if found.failed:
        return Finding(reason(TIMED_OUT, host), TIMEOUT_HIT) if on_timeout else None
    if not unknown or (mail and found.exists):
        return None
    return Finding(reason(UNKNOWN, host, "NODATA" if found.exists else "NXDOMAIN"), UNKNOWN_HIT)


def soa_fault(answer: Answer) -> int:
    """What is wrong with the SOA of a registered domain, by number; 0 nothing."""
    if answer.status is Status.NXDOMAIN:
        return UNDEFINED
    soa = answer.soa
    if soa is None:
        return BAD_ALIAS if answer.chain and not answer.failed else NOT_FOUND
    if soa.owner not in (answer.name, answer.canonical):
        return OTHER_ZONE
    if "." not in soa.primary or not is_host_name(soa.primary):
        return BAD_PRIMARY
    return 0 if "." in soa.mailbox else BAD_CONTACT


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
