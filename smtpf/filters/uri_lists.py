"""DNS lists of domains, of their addresses and of their name servers, and the ``Body:`` tag: what is said about one host name.

Two filters ask here: ``uri`` about links in messages, ``uri_envelope`` about the client's name, HELO and the sender's domain. The lists
of all options are asked at the same time, and the first hit in the order domain-bl, uri-bl, uri-dns-bl counts. A list that does not
answer lists nothing. Source: spec chapters filters-content, 13.2 to 13.5; filters-envelope, 12.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from smtpf.dns.answer import Answer, Status
from smtpf.dns.classes import is_lan, is_local, is_this_net
from smtpf.dns.domains import Domains, is_address
from smtpf.dns.lists import DnsListOption, DnsLists, Listing, MaybeFound, parse_lists
from smtpf.filters.dns_list import FOUND
from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, err, info
from smtpf.maps.access import AccessMap
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Option, Policy
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session
from smtpf.stats.counter import Counter

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

_CHOICES = "DNS suffix[/mask]; default mask 0x00FFFFFE"
URI_BL = DnsListOption(
    "uri-bl",
    "",
    "Lists of domains in the DNS, asked about the registered domain of every link.",
    choices=_CHOICES,
    runtime=False,
    area="uri",
)
URI_DNS_BL = DnsListOption(
    "uri-dns-bl",
    "",
    "Lists of IP addresses in the DNS, asked about the addresses of every linked host.",
    choices=_CHOICES,
    runtime=False,
    area="uri",
)
DOMAIN_BL = DnsListOption(
    "domain-bl",
    "",
    "Lists of domains in the DNS that know sub-domains by themselves; asked once, about the full name of every linked host.",
    choices="DNS suffix[/mask]",
    runtime=False,
    since="later",
    area="uri",
)
NS_BL = DnsListOption(
    "ns-bl",
    "",
    "Lists of domains in the DNS, asked about the names of the name servers of every link's domain.",
    choices=_CHOICES,
    runtime=False,
    since="later",
    area="uri",
    aliases=("uri-bl-ns",),
)
NS_A_BL = DnsListOption(
    "ns-a-bl",
    "",
    "Lists of IP addresses in the DNS, asked about the addresses of the name servers of every link's domain.",
    choices=_CHOICES,
    runtime=False,
    since="later",
    area="uri",
)
URI_BL_POLICY = Policy(
    "uri-bl-policy",
    "reject",
    "What becomes of a message with a listed link. With none the lists are not asked; only the first letter counts.",
    area="uri",
)
URI_SUB_DOMAINS = Flag("uri-sub-domains", False, "Ask uri-bl about the names below the registered domain too.", area="uri")
URI_CITE_LIST = Flag("uri-cite-list", True, "Name the list in the refusal.", since="later", area="uri")

WHITE = info(
    764,
    "URI <%s> white listed",
    "A Body: entry says OK about a link in the text of a message; it is not tested.",
    fields=("uri",),
)
WHITE_ELSEWHERE = info(
    769,
    "URI <%s> white listed",
    "A Body: entry says OK about a link in a header, a redirection, the client's name, HELO or the sender's domain.",
    fields=("uri",),
)
DISCARDED = err(
    785,
    "discarded: %s",
    "The message was discarded, not refused, because a policy option says so. The text tells what was found.",
    fields=("reason",),
)

BLACK = Reply(762, "black listed %s by %s", with_session=False, meaning="Reason in another reply: a host and the list that has it.")
BODY_BLACK = Reply(763, "URI %s %s", with_session=False, meaning="Reason in another reply: a Body: entry refuses the host or address.")
CONTENT_REFUSED = Reply(
    895, "550 5.7.1 rejected content, %s", meaning="A link in the message failed a test; the reason and its own number follow."
)

MAX_LONGER_NAMES = 16
"""Names between the registered domain and the host that are asked about."""
MAX_ADDRESSES = 20
"""Addresses of one host that are asked about."""
MAX_SERVERS = 16
"""Name servers of one domain that are asked about."""
MAX_STEPS = 20
"""NS queries for one host."""
BODY_TAG = "body:"


def reason(text: Reply, *args: Any) -> str:
    """The text of a reason with its number, to stand in another reply."""
    return f"{text.text % args} #{text.number}"


@attrs.frozen
class Found:
    """A host is in a list."""

    option: DnsListOption
    subject: str
    """What was found: a name or an address."""
    list: str


@attrs.frozen
class Finding:
    """Why a message is refused for one of its links; told and counted when it decides."""

    text: str
    counter: Counter | None = None
    found: Found | None = None
    """The hit in a list, if it is one."""
    reply: Reply = CONTENT_REFUSED
    policy: Policy | None = URI_BL_POLICY
    """The option that says what becomes of the message; None: it is refused in any case."""


@attrs.frozen
class BodyWord:
    """What a Body: entry says of a host or address."""

    refuses: str
    """The reason, empty when the word is OK."""
    key: str


def policy(settings: Settings) -> str:
    """First letter of uri-bl-policy: r, d or n."""
    word = settings[URI_BL_POLICY][:1].lower()
    return word if word in ("r", "d") else "n"


def listed_text(settings: Settings, host: str, found: Found) -> str:
    """The reason for a listed host."""
    if settings[URI_CITE_LIST]:
        return reason(BLACK, host, found.list)
    return f"black listed {host} #{BLACK.number}"


def tell(session: Session, found: Found) -> None:
    """The log line of a hit."""
    session.log(FOUND, found.option.name, found.subject, found.list)


async def first_of(works: Sequence[Coroutine[Deferred[Any], Any, Found | None]]) -> Found | None:
    """Do all at the same time; the first result in their order that is one."""
    begun = [ensureDeferred(work) for work in works]
    try:
        for at, waiting in enumerate(begun):
            found = await waiting
            begun[at] = None  # type: ignore[call-overload]
            if found is not None:
                return found
        return None
    finally:
        for rest in begun:
            if rest is not None:
                rest.addErrback(lambda cancelled: None)
                rest.cancel()


class UriLists:
    """The lists of all five options."""

    def __init__(self, resolver: Resolver, domains: Domains, access: AccessMap, journal: Journal) -> None:
        self.resolver = resolver
        self.domains = domains
        self._access = access
        self._journal = journal
        self._lists: dict[Option[tuple[str, ...]], DnsLists] = {}

    def configure(self, settings: Settings) -> None:
        options: tuple[Option[tuple[str, ...]], ...] = (DOMAIN_BL, URI_BL, URI_DNS_BL, NS_BL, NS_A_BL)
        self._lists = {}
        for option in options:
            elements: tuple[str, ...] = settings[option]
            if elements:
                self._lists[option] = DnsLists(self.resolver, parse_lists(elements), self._journal.write)

    @property
    def any(self) -> bool:
        """There is a list."""
        return bool(self._lists)

    @property
    def any_of_servers(self) -> bool:
        """There is a list of name servers."""
        return NS_BL in self._lists or NS_A_BL in self._lists

    @property
    def body_entries(self) -> bool:
        """The access map may hold a Body: entry."""
        tags = self._access.source.view.tags
        return tags is None or BODY_TAG in tags

    async def body(self, session: Session, host: str, address: str, white: Message) -> BodyWord | None:
        """The Body: entry for ``address`` of a mail URI, else for ``host``. Writes ``white`` when it says OK."""
        if not self.body_entries:
            return None
        access, sid = self._access, session.sid
        if address:
            hit = await access.lookup_mail(BODY_TAG, address, sid)
        elif is_address(host):
            hit = await access.lookup_address(BODY_TAG, host, sid)
        else:
            hit = await access.lookup_domain(BODY_TAG, host, sid)
        key = address or host
        if hit is None or hit.failed:
            return None
        if hit.word == "REJECT":
            return BodyWord(reason(BODY_BLACK, key, hit.parameter or "black listed"), key)
        if hit.word == "OK":
            session.log(white, key)
            return BodyWord("", key)
        return None

    async def host(self, host: str, sub_domains: bool) -> Found | None:
        """``host`` in domain-bl, uri-bl, uri-dns-bl."""
        works = []
        numeric = is_address(host)
        if DOMAIN_BL in self._lists and not numeric:
            works.append(self._found(DOMAIN_BL, host, self._lists[DOMAIN_BL].name(host)))
        if URI_BL in self._lists:
            works.append(self._address(URI_BL, host) if numeric else self._names(URI_BL, host, host, sub_domains))
        if URI_DNS_BL in self._lists:
            works.append(self._address(URI_DNS_BL, host) if numeric else self._addresses(URI_DNS_BL, host, host))
        return await first_of(works)

    async def name_servers(self, host: str) -> Found | None:
        """The name servers of ``host``: their addresses in ns-a-bl, then their names in ns-bl."""
        if not self.any_of_servers or is_address(host):
            return None
        works = []
        for server in await self._servers(host):
            if NS_A_BL in self._lists:
                works.append(self._addresses(NS_A_BL, server, ""))
            if NS_BL in self._lists:
                works.append(self._names(NS_BL, server, server, True))
        return await first_of(works)

    async def _servers(self, host: str) -> tuple[str, ...]:
        """Name servers at the first name from ``host`` upwards of which the DNS tells any; of an alias those of its target.

        A name server that says only "no such record" about a host, without the SOA of its zone, leaves the parent to be asked:
        else a host would have to be its own zone to be tested.
        """
        name = host
        asked: set[str] = set()
        registered = self.domains.registered(name)
        while registered is not None and name not in asked and len(asked) < MAX_STEPS:
            asked.add(name)
            answer = await self.resolver.lookup(name, "NS")
            if answer.status is Status.NODATA and answer.chain:
                name = answer.canonical
                registered = self.domains.registered(name)
                continue
            servers = _of(answer) if answer.ok or answer.status is Status.NODATA else ()
            if servers:
                return servers
            if name == registered:
                break
            name = name.partition(".")[2]
        return ()

    async def _names(self, option: DnsListOption, host: str, subject: str, longer: bool) -> Found | None:
        """The registered domain of ``host``, then with ``longer`` each name with one label more."""
        registered = self.domains.registered(host)
        if registered is None:
            return None
        for name in names_upwards(host, registered) if longer else (registered,):
            found = await self._found(option, subject, self._lists[option].name(name))
            if found is not None:
                return found
        return None

    async def _address(self, option: DnsListOption, address: str) -> Found | None:
        if option is not URI_BL and not askable(address):
            return None
        return await self._found(option, address, self._lists[option].address(address))

    async def _addresses(self, option: DnsListOption, host: str, subject: str) -> Found | None:
        """Any address of ``host``; ``subject`` is what to name in the log, empty for the address."""
        found = await self.resolver.addresses(host)
        addresses = [each for each in found.addresses if askable(each)][:MAX_ADDRESSES]
        return await first_of([self._found(option, subject or each, self._lists[option].address(each)) for each in addresses])

    async def _found(self, option: DnsListOption, subject: str, search: MaybeFound) -> Found | None:
        hit = search if search is None or isinstance(search, Listing) else await search
        return None if hit is None else Found(option, subject, hit.name)


def _of(answer: Answer) -> tuple[str, ...]:
    names = answer.names or ((answer.authority.primary,) if answer.authority is not None else ())
    return tuple(name for name in names if name)[:MAX_SERVERS]


def askable(address: str) -> bool:
    """A public address: the others say nothing about a host."""
    return not (is_local(address) or is_this_net(address) or is_lan(address))


def names_upwards(host: str, registered: str) -> tuple[str, ...]:
    """``registered`` and every longer ending of ``host``, shortest first, ``host`` last."""
    labels = host[: -len(registered)].rstrip(".").split(".") if host != registered else []
    names = [registered]
    for label in reversed(labels):
        names.append(f"{label}.{names[-1]}")
    return tuple(names if len(names) <= MAX_LONGER_NAMES else [*names[: MAX_LONGER_NAMES - 1], host])
