"""Look mail addresses up in lists of addresses at free-mail providers that are known from fraud.

The lists hold digests, so addresses do not travel. Asked about the sender, about addresses in header fields, and about those in the text
that the link tests let pass. Source: spec chapter filters-content, 14.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred

from smtpf.dns.lists import DnsLists, Listing, MaybeFound, parse_lists
from smtpf.filters.dns_list import FOUND
from smtpf.filters.uri import MailAddresses
from smtpf.filters.uri_lists import DISCARDED
from smtpf.journal.journal import Journal
from smtpf.maps.patterns import glob
from smtpf.message.header import HeaderList
from smtpf.message.uri import scan_text
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, discard, reject
from smtpf.reply import Reply
from smtpf.settings.option import Number, OptionError, Policy, Words
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.domains import Domains
    from smtpf.dns.resolver import Resolver

DIGESTS = ("md5", "sha1", "sha256")


class _MailLists(Words):
    """DNS lists, each with a digest and an exclamation mark in front if it is not MD5."""

    def parse(self, text: str) -> tuple[str, ...]:
        elements = super().parse(text)
        try:
            by_digest(elements)
        except ValueError as wrong:
            raise OptionError(f"takes a list of suffix, suffix/mask or digest!suffix; {wrong}") from None
        return elements


MAIL_BL = _MailLists(
    "mail-bl",
    "",
    "Lists of mail addresses in the DNS, asked by MD5 digest. sha1!suffix and sha256!suffix ask by another digest.",
    choices="DNS suffix[/mask]; default mask 0x00FFFFFE",
    runtime=False,
    since="later",
    area="uri",
)
MAIL_BL_DOMAINS = Words(
    "mail-bl-domains",
    "gmail.*;hotmail.*;live.*;yahoo.*;aol.*;aim.com;cantv.net;centrum.cz;centrum.sk;googlemail.com;inmail24.com;jmail.co.za;libero.it;"
    "luckymail.com;mail2world.com;msn.com;rocketmail.com;she.com;shuf.com;sify.com;terra.es;tiscali.it;tom.com;ubbi.com;virgilio.it;"
    "voila.fr;walla.com;wanadoo.fr;windowslive.com;y7mail.com;yeah.net;ymail.com",
    "Only addresses in these domains are looked up.",
    choices='domain globs; * = all; "" disables',
    runtime=False,
    since="later",
    area="uri",
)
MAIL_BL_HEADERS = Words(
    "mail-bl-headers",
    "From;Reply-To",
    "Header fields whose addresses are looked up.",
    choices='header names; "" disables',
    since="later",
    area="uri",
)
MAIL_BL_MAX = Number(
    "mail-bl-max", 10, "Addresses of one message that are looked up.", choices="addresses; 0 = no limit", since="later", area="uri"
)
MAIL_BL_POLICY = Policy(
    "mail-bl-policy",
    "reject",
    "What becomes of a message with a listed address. With none the lists are not asked; only the first letter counts.",
    since="later",
    area="uri",
)

LISTED = Reply(
    940, "550 5.7.1 rejected mail address, <%s> black listed by %s", meaning="mail-bl: the sender or an address in the message is listed."
)

SENDER_HIT = Counter("mail-bl-mail", Group.MAIL, "Senders found in mail-bl.", since="later")
HEADER_HIT = Counter("mail-bl-hdr", Group.MSG, "Messages with a header address found in mail-bl.")
BODY_HIT = Counter("mail-bl-body", Group.MSG, "Messages with an address in the text found in mail-bl.")

IGNORED = (
    "abuse@*", "contact@*", "helpdesk@*", "info@*", "kontakt@*", "sales@*", "support@*", "*master@*", "bounce*@*", "request*@*",
    "no-reply@*",
)  # fmt: skip
"""Addresses that many people share."""
NO_LIMIT = 1000
"""Addresses of one message that are looked up at most, whatever mail-bl-max says."""


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> Any:
    return glob(pattern.lower())


def by_digest(elements: Iterable[str]) -> list[tuple[str, tuple[Any, ...]]]:
    """The lists of an option, those with the same digest together. Raises ValueError."""
    groups: list[tuple[str, list[str]]] = []
    for element in elements:
        digest, mark, suffix = element.partition("!")
        digest, suffix = (digest.lower(), suffix) if mark else ("md5", element)
        if digest not in DIGESTS:
            raise ValueError(f"no digest {digest!r}")
        code = bool(groups) and not mark and suffix.replace(".", "").isdigit()
        if groups and (code or groups[-1][0] == digest):
            groups[-1][1].append(suffix)
        else:
            groups.append((digest, [suffix]))
    return [(digest, parse_lists(suffixes)) for digest, suffixes in groups]


def spellings(address: str) -> tuple[str, ...]:
    """``address`` in lower case, and without what its provider ignores if that is different."""
    plain = address.lower()
    local, _, domain = plain.rpartition("@")
    local = local.partition("+")[0]
    if domain in ("gmail.com", "googlemail.com"):
        local = local.replace(".", "")
    short = f"{local}@{domain}"
    return (plain,) if short == plain or not local else (plain, short)


def label(digest: str, address: str) -> str:
    """What is asked for: the digest in hexadecimal; SHA-256, too long for a label of a name, in base 32 without padding."""
    made = hashlib.new(digest, address.encode("utf-8"), usedforsecurity=False)
    return base64.b32encode(made.digest()).decode("ascii").rstrip("=").lower() if digest == "sha256" else made.hexdigest()


class _Own:
    """Addresses of a message that have been looked up."""

    def __init__(self) -> None:
        self.seen: set[str] = set()


class MailBl(Filter):
    """Judges mail addresses."""

    def __init__(self, resolver: Resolver, domains: Domains, journal: Journal) -> None:
        self._resolver = resolver
        self._domains = domains
        self._journal = journal
        self._lists: list[tuple[str, DnsLists]] = []

    def configure(self, settings: Settings) -> None:
        elements: tuple[str, ...] = settings[MAIL_BL]
        self._lists = [(digest, DnsLists(self._resolver, lists, self._journal.write)) for digest, lists in by_digest(elements)]

    def _off(self, settings: Settings) -> bool:
        return not self._lists or settings[MAIL_BL_POLICY][:1].lower() not in ("r", "d")

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The sender."""
        if self._off(session.settings) or session.trusted or not transaction.sender.domain:
            return None
        return self._sender(session, transaction)

    async def _sender(self, session: Session, transaction: Transaction) -> Verdict | None:
        hit = await self._first(session, transaction, [transaction.sender.address])
        if hit is None:
            return None
        session.count(SENDER_HIT)
        return reject(LISTED, *hit, delay=True, fact=hit[0])

    def want(self, session: Session, transaction: Transaction) -> None:
        """At the headers stage: addresses in the text are wanted."""
        if not self._off(session.settings):
            transaction.own(MailAddresses).wanted = True

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Addresses in the fields of mail-bl-headers."""
        names = session.settings[MAIL_BL_HEADERS]
        if self._off(session.settings) or not names or session.usual_suspect:
            return None
        wanted = {name.lower().rstrip(":") for name in names}
        addresses = [
            uri.address
            for field in HeaderList(transaction.original_headers)
            if field.name.lower() in wanted
            for uri in scan_text(field.text, self._domains.known)
            if uri.mail
        ]
        return self._judge(session, transaction, addresses, HEADER_HIT) if addresses else None

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """Addresses in the text that passed as links."""
        if not self._lists:
            return None
        waiting = transaction.own(MailAddresses)
        addresses, waiting.found = waiting.found, []
        return self._judge(session, transaction, addresses, BODY_HIT) if addresses else None

    async def _judge(self, session: Session, transaction: Transaction, addresses: list[str], counter: Counter) -> Verdict | None:
        hit = await self._first(session, transaction, addresses)
        if hit is None:
            return None
        session.count(counter)
        transaction.flags.add(MsgFlag.POLICY)
        if session.settings[MAIL_BL_POLICY][:1].lower() == "d":
            session.log(DISCARDED, f"{LISTED.text.partition(' ')[2].partition(' ')[2] % hit} #{LISTED.number}")
            return discard(hit[0])
        return reject(LISTED, *hit, fact=hit[0])

    async def _first(self, session: Session, transaction: Transaction, addresses: list[str]) -> tuple[str, str] | None:
        """The first address that is listed, and the list. All are looked up at the same time."""
        begun = [(address, ensureDeferred(self._listed(address))) for address in self._due(session, transaction, addresses)]
        try:
            while begun:
                address, waiting = begun[0]
                found = await waiting
                del begun[0]
                if found is not None:
                    session.log(FOUND, MAIL_BL.name, address, found.name)
                    return address, found.name
            return None
        finally:
            for _, rest in begun:
                rest.addErrback(lambda cancelled: None)
                rest.cancel()

    def _due(self, session: Session, transaction: Transaction, addresses: list[str]) -> list[str]:
        """Those to look up: of the domains of the option, shared ones left out, each once, no more than the limit."""
        own = transaction.own(_Own)
        most = session.settings[MAIL_BL_MAX]
        most = most if 0 < most < NO_LIMIT else NO_LIMIT
        due = []
        for address in addresses:
            plain = address.lower()
            domain = plain.rpartition("@")[2]
            if plain in own.seen or any(_glob(pattern)(plain) for pattern in IGNORED):
                continue
            if len(own.seen) >= most or not any(_glob(pattern)(domain) for pattern in session.settings[MAIL_BL_DOMAINS]):
                continue
            own.seen.add(plain)
            due.append(address)
        return due

    async def _listed(self, address: str) -> Listing | None:
        for digest, lists in self._lists:
            for spelling in spellings(address):
                search: MaybeFound = lists.name(label(digest, spelling))
                found: Listing | None = search if search is None or isinstance(search, Listing) else await search
                if found is not None:
                    return found
        return None
