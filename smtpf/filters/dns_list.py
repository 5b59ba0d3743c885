"""DNS lists of client addresses: ``dns-wl`` white-lists, ``dns-gl`` lets by the tests before content, ``dns-bl`` refuses.

Asked behind the access map, whose ``Connect:`` entry wins. All lists of one option are asked at the same time, and while the
client's name is being confirmed; a list that does not answer lists nobody. ``dns-bl-headers`` looks addresses up that stand in
header fields, such as those of webmail users.
Source: spec chapter filters-envelope, 5 and 18.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from smtpf.dns.classes import is_lan, is_restricted
from smtpf.dns.lists import DnsListOption, DnsLists, Listing, MaybeFound, parse_lists
from smtpf.filters.access import CONNECT_TAG
from smtpf.filters.idle_retest import IDLE_RETEST_FOUND
from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, info
from smtpf.maps.access import AccessMap
from smtpf.maps.routes import Route, RouteMap
from smtpf.message.header import HeaderList
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, accept, drop, grey, reject
from smtpf.reply import Reply
from smtpf.settings.option import Words
from smtpf.settings.store import Settings
from smtpf.smtp.session import ClientFlag, MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

_CHOICES = "DNS suffix[/mask]; default mask 0x00FFFFFE"
DNS_BL = DnsListOption(
    "dns-bl",
    "",
    "Black lists in the DNS. A client listed in one is refused and the connection closed.",
    choices=_CHOICES,
    runtime=False,
    area="dnsbl",
)
DNS_GL = DnsListOption(
    "dns-gl",
    "",
    "Grey lists in the DNS. For a client listed in one only the tests of message content apply.",
    choices=_CHOICES,
    runtime=False,
    area="dnsbl",
)
DNS_WL = DnsListOption(
    "dns-wl", "", "White lists in the DNS. A client listed in one is white-listed.", choices=_CHOICES, runtime=False, area="dnsbl"
)
DNS_BL_HEADERS = Words(
    "dns-bl-headers",
    "",
    "Header fields in which IP addresses are looked for; a message with an address listed in dns-bl is refused.",
    choices='header names; "" disables',
    since="later",
    area="dnsbl",
)

FOUND = info(
    523,
    "%s found %s %s",
    "The address or name was found in a DNS list of that option.",
    fields=("option", "subject", "list"),
)
FOUND_AGAIN = info(
    527,
    "%s found %s %s",
    "The client was found in a DNS list of that option when it was tested again during its session.",
    fields=("option", "subject", "list"),
)

CLIENT_LISTED = Reply(
    525, "550 5.7.0 %s [%s] black listed by %s", meaning="The client's address is in a list of dns-bl; the list's operator can remove it."
)
HEADER_LISTED = Reply(
    873,
    "550 5.7.0 IP [%s] in header black listed by %s",
    meaning="A header field named by dns-bl-headers holds an address that dns-bl lists.",
)

DNS_BL_HIT = Counter("dns-bl", Group.CONNECT, "Clients found in dns-bl.")
DNS_GL_HIT = Counter("dns-gl", Group.CONNECT, "Clients found in dns-gl.")
DNS_WL_HIT = Counter("dns-wl", Group.CONNECT, "Clients found in dns-wl.")
DNS_BL_HEADERS_HIT = Counter("dns-bl-headers", Group.MSG, "Messages with a header address found in dns-bl.", since="later")

MAX_HEADER_ADDRESSES = 20
"""Addresses of one message that are looked up."""
LONGEST_ADDRESS = 45
"""Characters of an IPv6 address with an IPv4 address in it."""
_TOKEN = re.compile(r"[\w.:-]+", re.ASCII)


@attrs.define
class _Known:
    """What the lists said of the client when it connected."""

    white: bool = False
    grey: bool = False


class ClientLists(Filter):
    """Asks the three options' lists about clients, and the black lists about addresses in headers."""

    def __init__(self, resolver: Resolver, access: AccessMap, routes: RouteMap, journal: Journal) -> None:
        self._resolver = resolver
        self._access = access
        self._routes = routes
        self._journal = journal
        self._white = self._grey = self._black = DnsLists(resolver, (), journal.write)

    def configure(self, settings: Settings) -> None:
        self._white, self._grey, self._black = (
            DnsLists(self._resolver, parse_lists(elements), self._journal.write)
            for elements in (settings[DNS_WL], settings[DNS_GL], settings[DNS_BL])
        )

    # The client

    async def begin(self, session: Session, name: str) -> None:
        """Ask beside the confirmation of the client's ``name`` what connect will want to know: only what it will really ask for."""
        black = bool(self._black) and not session.usual_suspect
        if not (self._white or self._grey or black):
            return
        hit = await self._access.lookup_client(CONNECT_TAG, name, session.address, session.sid)
        if hit is not None:
            return
        self._white.begin(session.ip)
        self._grey.begin(session.ip)
        if not black or self._white or self._grey:
            return
        route = await self._routes.for_client_name(name)
        if not isinstance(route, Route) or not route.relay:
            self._black.begin(session.ip)

    def white(self, session: Session) -> MaybeVerdict:
        """dns-wl, asked about every client that Connect: does not know."""
        return self._white_again(session, FOUND) if self._white else None

    def grey(self, session: Session) -> MaybeVerdict:
        """dns-gl, asked next."""
        return self._grey_again(session, FOUND) if self._grey else None

    def connect(self, session: Session) -> MaybeVerdict:
        """dns-bl, for clients that nothing speaks for."""
        return self._refuse(session, FOUND)

    def idle(self, session: Session) -> MaybeVerdict:
        """The black lists once more, and before them those to which the client owes its good name."""
        return self._idle(session) if self._white or self._grey or self._black else None

    async def _idle(self, session: Session) -> Verdict | None:
        verdict: Verdict | None = None
        if self._white or self._grey:
            known = session.own(_Known)
            if known.white:
                verdict = await self._white_again(session, FOUND_AGAIN)
            if verdict is None and known.grey:
                verdict = await self._grey_again(session, FOUND_AGAIN)
        if verdict is None:
            waiting = self._refuse(session, FOUND_AGAIN)
            verdict = waiting if waiting is None or isinstance(waiting, Verdict) else await waiting
        if verdict is not None:
            session.count(IDLE_RETEST_FOUND)
        return verdict

    async def _white_again(self, session: Session, message: Message) -> Verdict | None:
        found = await _settled(self._white.address(session.ip))
        if found is None:
            return None
        session.log(message, DNS_WL.name, session.address, found.name)
        session.count(DNS_WL_HIT)
        session.flags.add(ClientFlag.WHITE)
        session.own(_Known).white = True
        return accept(_fact(found))

    async def _grey_again(self, session: Session, message: Message) -> Verdict | None:
        found = await _settled(self._grey.address(session.ip))
        if found is None:
            return None
        session.log(message, DNS_GL.name, session.address, found.name)
        session.count(DNS_GL_HIT)
        session.flags.add(ClientFlag.GREY)
        session.own(_Known).grey = True
        return grey(_fact(found))

    def _refuse(self, session: Session, message: Message) -> MaybeVerdict:
        if not self._black or session.usual_suspect or session.grey:
            return None
        found = self._black.address(session.ip)
        if found is None or isinstance(found, Listing):
            return _refused(session, message, found)
        return self._refuse_later(session, message, found)

    async def _refuse_later(self, session: Session, message: Message, found: MaybeFound) -> Verdict | None:
        return _refused(session, message, await _settled(found))

    # The header

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """dns-bl-headers: addresses in the order in which they stand; the first one listed refuses the message."""
        names = session.settings[DNS_BL_HEADERS]
        if not names or not self._black or session.usual_suspect or transaction.headers is None:
            return None
        addresses = addresses_in(transaction.headers, names)
        return self._headers(session, transaction, addresses) if addresses else None

    async def _headers(self, session: Session, transaction: Transaction, addresses: list[str]) -> Verdict | None:
        asked = [_started(self._black.address(address)) for address in addresses]
        try:
            for at, address in enumerate(addresses):
                waiting = asked[at]
                found = await waiting if isinstance(waiting, Deferred) else waiting
                asked[at] = None
                if found is not None:
                    session.log(FOUND, DNS_BL.name, address, found.name)
                    session.count(DNS_BL_HEADERS_HIT)
                    transaction.flags.add(MsgFlag.URI_DNS_BL)
                    return reject(HEADER_LISTED, address, found.name, fact=_fact(found))
            return None
        finally:
            for rest in asked:
                if isinstance(rest, Deferred):
                    rest.addErrback(lambda cancelled: None)
                    rest.cancel()


def _refused(session: Session, message: Message, found: Listing | None) -> Verdict | None:
    if found is None:
        return None
    session.log(message, DNS_BL.name, session.address, found.name)
    session.count(DNS_BL_HIT)
    session.flags.add(ClientFlag.BLACK)
    return drop(CLIENT_LISTED, session.name, session.address, found.name, delay=True, whole_session=True, fact=_fact(found))


def _fact(found: Listing) -> str:
    return f"{found.subject}.{found.name} {found.code}"


def _started(found: MaybeFound) -> Listing | Deferred[Listing | None] | None:
    """Begin a search that must wait, so that several run at the same time."""
    return found if found is None or isinstance(found, Listing) else ensureDeferred(found)


async def _settled(found: MaybeFound) -> Listing | None:
    return found if found is None or isinstance(found, Listing) else await found


def addresses_in(headers: HeaderList, names: tuple[str, ...]) -> list[str]:
    """Public IP addresses in the fields of these names, in their order, each once, at most MAX_HEADER_ADDRESSES."""
    wanted = {name.lower().rstrip(":") for name in names}
    found: dict[str, None] = {}
    for field in headers:
        if field.name.lower() not in wanted:
            continue
        for address in _addresses(field.text):
            found[address] = None
            if len(found) == MAX_HEADER_ADDRESSES:
                return list(found)
    return list(found)


def _addresses(text: str) -> Iterator[str]:
    for token in _TOKEN.findall(text):
        candidate = token[5:] if token[:5].lower() == "ipv6:" else token
        address = _address(candidate)
        if address is None and ":" in candidate:
            pieces = (_address(piece) for piece in candidate.split(":") if piece.count(".") >= 3)
            address = next((piece for piece in pieces if piece is not None), None)
        if address is not None and not is_restricted(address) and not is_lan(address):
            yield address


def _address(text: str) -> str | None:
    bare = text.strip(".-")
    if len(bare) > LONGEST_ADDRESS:
        return None
    try:
        given = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = given.ipv4_mapped if isinstance(given, ipaddress.IPv6Address) else None
    return str(mapped or given)
