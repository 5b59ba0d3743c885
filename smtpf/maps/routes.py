"""The route map: which domains and mailboxes are ours, where their mail goes, and which clients are relays.

The first key found decides. A look-up gives a ``Route``, None when no key exists, or ``LookupFailed`` when the map could
not be asked, which must never be read as "not ours". Source: spec chapter maps, sections 18 to 21 and 24.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from random import Random

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info
from smtpf.maps import keys
from smtpf.maps.hosts import Host as Host
from smtpf.maps.hosts import parse_hosts
from smtpf.maps.source import FAILED, Found, InThread, Source
from smtpf.maps.source import LookupFailed as LookupFailed
from smtpf.settings.option import Text
from smtpf.stats.counter import Counter, Group, Kind
from smtpf.stats.tables import Statistics
from smtpf.waiting import in_background

ROUTE_MAP = Text(
    "route-map",
    "sql!/etc/smtpf/route.sq3",
    "Back end and place of the map of our domains, their mail servers and our relay clients: text! or file! with a text file, sql! with a "
    "compiled one, or socketmap! with the address of a server. It must be given.",
    choices="text!PATH|sql!PATH|socketmap!ADDR",
    runtime=False,
    area="route",
)
FORWARD_SELECTION = Text(
    "route-forward-selection",
    "ordered",
    "Which of several mail servers of one route is tried first: ordered takes them as written, random in a new order for every connection.",
    choices="ordered|random",
    words=("ordered", "random"),
    area="route",
)
COUNTS = info(
    557,
    "route domains=%lu addresses=%lu accounts=%lu",
    "How many domains, mail addresses and accounts the route map forwards mail for. Written at start and after each reload.",
    fields=("domains", "addresses", "accounts"),
)
OPEN_ERROR = err(
    1018,
    "route-map=%s open error: %s (%d)",
    "The route map cannot be opened after several attempts, and the program ends.",
    fields=("map", "reason", "number"),
    since="later",
)
COUNT_ERROR = err(410, "route count error", "The records of the route map cannot be counted, and the program ends.")

ROUTE_DOMAINS = Counter("route-domains", Group.GENERAL, "Domains with a FORWARD list in the route map.", Kind.GAUGE)
ROUTE_ADDRESSES = Counter("route-addresses", Group.GENERAL, "Mail addresses with a FORWARD list of their own in the route map.", Kind.GAUGE)
ROUTE_ACCOUNTS = Counter("route-accounts", Group.GENERAL, "Local parts with a FORWARD list in the route map.", Kind.GAUGE)
ROUTE_UNIQUE_DOMAINS = Counter(
    "route-unique-domains", Group.GENERAL, "Different domains among the domains and addresses of the route map.", Kind.GAUGE, since="later"
)

TAG = "route:"
COUNTS_KEY = "route:__counts__"
LOCAL_KEYS = ("local", "127.0.0.1", "127.0.0", "127.0", "127", "::1", "0:0:0:0:0:0:0:1")
TLS_WORDS = ("REQUIRE", "VERIFY")
"""Words of the attribute ``TLS:``. REQUIRE: no mail in the clear; VERIFY: only to a certificate that is valid for the host's name."""
REMEMBERED = 4096
"""Parsed values kept."""


@attrs.frozen
class Attributes:
    """What a value says."""

    forward: tuple[Host, ...] = ()
    rcpt: tuple[Host, ...] = ()
    relay: bool = False


@attrs.frozen
class Route:
    """A key of the route map and what it says. Tuples are empty when the attribute is missing or names no host."""

    key: str
    forward: tuple[Host, ...] = ()
    rcpt: tuple[Host, ...] = ()
    relay: bool = False


@attrs.frozen
class Counts:
    """Records with a FORWARD list."""

    domains: int = 0
    addresses: int = 0
    accounts: int = 0
    unique_domains: int = 0


Routed = Route | None | LookupFailed


class RouteMap:
    """Look-ups in the route map. Answers come without waiting from a map in memory."""

    def __init__(self, source: Source, journal: Journal, stats: Statistics | None = None, in_thread: InThread = maybeDeferred) -> None:
        self.source = source
        self._journal = journal
        self._stats = stats
        self._in_thread = in_thread
        source.when_loaded(self._recount)

    async def for_client_address(self, address: str) -> Routed:
        """Entry of a client address; the client is a relay when it has RELAY."""
        return await self._first(keys.address_sequence(address))

    async def for_client_name(self, name: str) -> Routed:
        """Entry of a verified client name; the client is a relay when it has RELAY."""
        return await self._first(keys.domain_sequence(name))

    async def for_domain(self, domain: str) -> Routed:
        """Entry of a domain; the domain is ours when it has a FORWARD list."""
        return await self._first(keys.domain_sequence(domain))

    async def is_ours(self, domain: str) -> bool:
        """Is mail for ``domain`` forwarded? No, when the map cannot be asked."""
        route = await self.for_domain(domain)
        return isinstance(route, Route) and bool(route.forward)

    async def for_recipient(self, path: str) -> Routed:
        """Entry of ``local@domain`` or of an unqualified ``local``."""
        return await self._first(keys.mail_sequence(path))

    async def for_auth_id(self, identity: str) -> Routed:
        """Entry of a user who authenticates, looked up like a mail address."""
        return await self._first(keys.mail_sequence(identity))

    async def local_route(self) -> Routed:
        """Entry of the queue for outbound mail. The caller checks that it has a FORWARD list and makes no loop."""
        return await self._first(LOCAL_KEYS)

    async def counts(self) -> Counts | LookupFailed:
        """Count the records with a FORWARD list. A map that cannot be walked is asked for its own count."""
        view = self.source.view
        if view.walk is None:
            answer = view.get(COUNTS_KEY)
            value: Found = await answer if isinstance(answer, Deferred) else answer
            return parse_counts(value) if isinstance(value, str) else FAILED
        walked: Counts | LookupFailed = await self._in_thread(_count_view, view.walk)
        return walked

    def announce(self, counts: Counts) -> None:
        """Log the counts and set the gauges."""
        if self._stats is not None:
            self._stats.set(ROUTE_DOMAINS, counts.domains)
            self._stats.set(ROUTE_ADDRESSES, counts.addresses)
            self._stats.set(ROUTE_ACCOUNTS, counts.accounts)
            self._stats.set(ROUTE_UNIQUE_DOMAINS, counts.unique_domains)
        self._journal.write(COUNTS, counts.domains, counts.addresses, counts.accounts)

    def start(self) -> None:
        self.source.start()

    def stop(self) -> Deferred[None] | None:
        return self.source.stop()

    def reload(self) -> Deferred[None] | None:
        """Read the map again now, for SIGHUP."""
        return self.source.reload()

    async def _first(self, texts: Iterable[str]) -> Routed:
        get = self.source.view.get
        for text in texts:
            key = TAG + text
            answer = get(key)
            if answer is None:
                continue
            # Asking for a Deferred costs more than the rest: its class is abstract.
            value: Found = answer if type(answer) is str else await answer if isinstance(answer, Deferred) else answer
            if isinstance(value, str):
                said = parse_attributes(value)
                return Route(key, said.forward, said.rcpt, said.relay)
            if isinstance(value, LookupFailed):
                return value
        return None

    def _recount(self) -> None:
        in_background(self._count_again(), lambda failure: self._journal.failure(failure, doing="counting routes"))

    async def _count_again(self) -> None:
        counts = await self.counts()
        if isinstance(counts, Counts):
            self.announce(counts)


@lru_cache(maxsize=REMEMBERED)
def parse_attributes(value: str) -> Attributes:
    """The attributes of a value. Unknown ones, and hosts that are none, are left out."""
    forward: tuple[Host, ...] = ()
    rcpt: tuple[Host, ...] = ()
    relay = False
    tls = ""
    for attribute in value.split(";"):
        word, colon, hosts = attribute.strip(" \t").partition(":")
        if word == "FORWARD" and colon:
            forward = parse_hosts(hosts)
        elif word == "RCPT" and colon:
            rcpt = parse_hosts(hosts)
        elif word == "RELAY":
            relay = True
        elif word == "TLS" and hosts.strip(" \t") in TLS_WORDS:
            tls = hosts.strip(" \t").lower()
    if tls:
        forward, rcpt = (tuple(attrs.evolve(host, tls=tls) for host in hosts) for hosts in (forward, rcpt))
    return Attributes(forward, rcpt, relay)


def in_order_of_trial(hosts: tuple[Host, ...], selection: str, rng: Random) -> tuple[Host, ...]:
    """The hosts in the order in which they are tried; ``selection`` is the value of ``route-forward-selection``."""
    if selection != "random":
        return hosts
    return tuple(rng.sample(hosts, len(hosts)))


def _count_view(walk: Callable[[], Iterable[tuple[str, str]] | LookupFailed]) -> Counts | LookupFailed:
    records = walk()
    return records if isinstance(records, LookupFailed) else count_records(records)


def count_records(records: Iterable[tuple[str, str]]) -> Counts:
    """Counts of the records whose value has a FORWARD list, by the form of their keys."""
    domains = addresses = accounts = 0
    distinct: set[str] = set()
    for key, value in records:
        if not key.startswith(TAG) or "FORWARD" not in value or not parse_attributes(value).forward:
            continue
        local, at, domain = key[len(TAG) :].rpartition("@")
        if not at:
            domains += 1
            distinct.add(domain)
        elif domain:
            addresses += 1
            distinct.add(domain)
        elif local:
            accounts += 1
    return Counts(domains, addresses, accounts, len(distinct))


def parse_counts(text: str) -> Counts | LookupFailed:
    """Four numbers: domains, accounts, addresses, different domains."""
    words = text.split()
    if len(words) != 4 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        return FAILED
    domains, accounts, addresses, unique = map(int, words)
    return Counts(domains, addresses, accounts, unique)
