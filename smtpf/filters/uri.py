"""Tests of the links and mail addresses in messages.

Links are found while the body comes, and tested in their order: the ``Body:`` tag first, then what the DNS says of host and
addresses, then the DNS lists, then where the link leads, then the name servers. The look-ups of several links run at the same time, but
the first link that fails in the order of the message decides. Source: spec chapter filters-content, 12 and 13.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from smtpf.dns.domains import Domains, is_address
from smtpf.filters import uri_hosts
from smtpf.filters.mime_pass import listen
from smtpf.filters.uri_hosts import URI_VALID_SOA, HostTests
from smtpf.filters.uri_links import LOOP, URI_LINKS_POLICY, Links
from smtpf.filters.uri_lists import (
    DISCARDED,
    DOMAIN_BL,
    URI_BL,
    URI_DNS_BL,
    URI_SUB_DOMAINS,
    WHITE,
    WHITE_ELSEWHERE,
    Finding,
    Found,
    UriLists,
    listed_text,
    policy,
    reason,
    tell,
)
from smtpf.journal.message import Message
from smtpf.message.header import HeaderList
from smtpf.message.uri import Uri, UriListener, embedded_uris, scan_text
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, discard, reject
from smtpf.reply import Reply
from smtpf.settings.option import AnyOption, Flag, Number, Words
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

URI_BL_HEADERS = Words(
    "uri-bl-headers",
    "",
    "Header fields in which links are looked for; they are tested like those in the text.",
    choices='header names; "" disables',
    since="later",
    area="uri",
)
URI_MAX_TEST = Number("uri-max-test", 10, "Links of one message that are tested.", choices="URIs; 0 = no limit", area="uri")
URI_REQUIRE_DOMAIN = Flag("uri-require-domain", False, "Refuse messages with a link to a bare IP address.", area="uri")

IS_IP = Reply(765, 'host is an IP in URL "%s"', with_session=False, meaning="Reason in #895, of uri-require-domain.")
BROKEN = Reply(766, 'broken URL "%s": %s', with_session=False, meaning="Reason in #895, of uri-links-policy: the link leads in a circle.")
NS_REFUSED = Reply(894, "550 5.7.1 rejected URI NS, %s", meaning="A name server of a linked domain is listed in ns-bl or ns-a-bl.")

DOMAIN_BL_HIT = Counter("domain-bl-body", Group.MSG, "Messages with a host found in domain-bl.")
URI_BL_HIT = Counter("uri-bl", Group.MSG, "Messages with a host found in uri-bl.")
URI_DNS_BL_HIT = Counter("uri-dns-bl", Group.MSG, "Messages with a host found in uri-dns-bl.")
NS_HIT = Counter("ns-bl-body", Group.MSG, "Messages with a host whose name servers were found in ns-bl or ns-a-bl.", since="later")
IMPLICIT = Counter("uri-implicit", Group.MSG, "Messages with a listed host that stood there without http or the like.", since="later")
LINKS_HIT = Counter("uri-links-policy", Group.MSG, "Messages with a link that leads in a circle.")
MAX_TEST = Counter("uri-max-test", Group.MSG, "Messages with more links than uri-max-test.")
REQUIRE_DOMAIN = Counter("uri-require-domain", Group.MSG, "Messages with a link to a bare IP address.")

AT_ONCE = 10
"""Links of one message that are looked up at the same time."""
MAX_SHOWN = 200
"""Characters of a link in log and reply."""

_LIST_HITS: dict[AnyOption, Counter] = {DOMAIN_BL: DOMAIN_BL_HIT, URI_BL: URI_BL_HIT, URI_DNS_BL: URI_DNS_BL_HIT}


class MailAddresses:
    """Mail addresses in the text of a message that passed, for the test of addresses behind this one."""

    def __init__(self) -> None:
        self.wanted = False
        self.found: list[str] = []


class _Own:
    """What has been done for a message."""

    def __init__(self) -> None:
        self.listener: UriListener | None = None
        self.seen: set[str] = set()
        """Hosts, and mail addresses, that have had their turn."""
        self.count = 0
        self.over = False
        """A verdict has fallen, or uri-max-test is reached."""


@attrs.define(eq=False)
class _Turn:
    """One link whose turn has come: what is known at once, or the look-ups under way."""

    uri: Uri
    finding: Finding | None = None
    white: tuple[Message, str] | None = None
    passed: bool = False
    works: list[Deferred[Finding | None]] = attrs.field(factory=list)


class UriTests(Filter):
    """Tests links in headers and text."""

    def __init__(self, lists: UriLists, hosts: HostTests, links: Links) -> None:
        self._lists = lists
        self._hosts = hosts
        self._links = links
        self._domains: Domains = lists.domains
        self._active: tuple[Settings | None, bool] = None, False
        """Whether these settings ask for a test: most messages come under the same ones."""

    def configure(self, settings: Settings) -> None:
        self._lists.configure(settings)
        self._active = None, False

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Listen to the text if there is something to test; links in the fields of uri-bl-headers at once."""
        settings = session.settings
        mail = transaction.own(MailAddresses).wanted
        if not mail and not self._lists.body_entries and not self._tests_in(settings):
            return None
        own = transaction.own(_Own)
        own.listener = UriListener(self._known)
        listen(transaction, own.listener)
        names = settings[URI_BL_HEADERS]
        if not names or session.usual_suspect:
            return None
        wanted = {name.lower().rstrip(":") for name in names}
        found: list[Uri] = []
        for field in HeaderList(transaction.original_headers):
            if field.name.lower() in wanted:
                found += scan_text(field.text, self._known)
        return self._test(session, transaction, own, found, in_header=True) if found else None

    def _tests_in(self, settings: Settings) -> bool:
        """Some option asks for a test."""
        known, active = self._active
        if known is not settings:
            lists = self._lists.any and policy(settings) != "n"
            active = lists or bool(settings[URI_REQUIRE_DOMAIN]) or _follows(settings) or uri_hosts.wanted(settings)
            self._active = settings, active
        return active

    def _known(self, host: str) -> bool:
        return self._domains.known(host)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """The links that this chunk completed."""
        own = transaction.owned(_Own)
        if own is None or own.listener is None:
            return None
        found = own.listener.take()
        return self._test(session, transaction, own, found, in_header=False) if found and not own.over else None

    async def _test(self, session: Session, transaction: Transaction, own: _Own, uris: list[Uri], *, in_header: bool) -> Verdict | None:
        """All of ``uris`` in order, the look-ups of the next ones already under way."""
        turns: list[_Turn] = []
        waiting = iter(uris)
        ended = False
        try:
            while True:
                while not ended and len(turns) < AT_ONCE:
                    uri = next(waiting, None)
                    if uri is None or self._limit(session, own):
                        ended = True
                        break
                    if uri.host and self._domains.testable(uri.host):
                        turns += await self._turns(session, own, uri, in_header)
                if not turns:
                    return None
                turn = turns[0]
                finding = await self._outcome(session, turn)
                del turns[0]
                if finding is not None:
                    own.over = True
                    return _verdict(session, transaction, turn.uri, finding)
                if turn.passed and turn.uri.mail and not in_header:
                    transaction.own(MailAddresses).found.append(turn.uri.address)
        finally:
            for turn in turns:
                for work in turn.works:
                    work.addErrback(lambda cancelled: None)
                    work.cancel()

    def _limit(self, session: Session, own: _Own) -> bool:
        """uri-max-test: no more links of this message."""
        most = session.settings[URI_MAX_TEST]
        if own.over or not 0 < most <= own.count:
            return own.over
        session.count(MAX_TEST)
        own.over = True
        return True

    async def _turns(self, session: Session, own: _Own, uri: Uri, in_header: bool) -> list[_Turn]:
        """``uri`` with the URIs embedded in it; each once."""
        white = WHITE_ELSEWHERE if in_header else WHITE
        first = await self._turn(session, own, uri, white, embedded=False)
        if first is None:
            return []
        turns = [first]
        if first.finding is None and not uri.mail:
            for inner in embedded_uris(uri, self._known):
                if inner.host and self._domains.testable(inner.host):
                    turn = await self._turn(session, own, inner, white, embedded=True)
                    if turn is not None:
                        turns.append(turn)
        if first.passed and not is_address(uri.host) and session.settings[URI_VALID_SOA]:
            turns.append(_Turn(uri, works=[ensureDeferred(self._hosts.start_of_authority(session, uri.host))]))
        return turns

    async def _turn(self, session: Session, own: _Own, uri: Uri, white: Message, *, embedded: bool) -> _Turn | None:
        """Ask the access map about ``uri``, and start its look-ups. None: it has had its turn."""
        key = uri.address.lower() if uri.mail else uri.host
        if key in own.seen:
            return None
        own.seen.add(key)
        word = await self._lists.body(session, uri.host, uri.address if uri.mail else "", white)
        if word is not None:
            return _Turn(uri, Finding(word.refuses, policy=None)) if word.refuses else _Turn(uri)
        turn = _Turn(uri, passed=True)
        if uri.mail:
            if uri.host in own.seen:
                return turn
            own.seen.add(uri.host)
        own.count += 1
        if session.settings[URI_REQUIRE_DOMAIN] and not uri.implicit and is_address(uri.host):
            turn.finding = Finding(reason(IS_IP, uri.decoded[:MAX_SHOWN]), REQUIRE_DOMAIN)
            return turn
        turn.works = [ensureDeferred(work) for work in self._works(session, uri, embedded)]
        return turn

    def _works(self, session: Session, uri: Uri, embedded: bool) -> Iterable[Any]:
        """Address tests, lists, the link followed, name servers: in this order."""
        settings, host = session.settings, uri.host
        numeric = is_address(host)
        if not numeric:
            yield self._hosts.addresses(settings, host, uri.mail)
        listing = self._lists.any and policy(settings) != "n"
        if listing:
            yield self._listed(session, host)
        if _follows(settings) and uri.scheme in ("http", "https"):
            yield self._followed(session, uri)
        if not embedded and not numeric:
            yield self._hosts.name_servers(session, host)
            if listing and self._lists.any_of_servers:
                yield self._servers(session, host)

    async def _outcome(self, session: Session, turn: _Turn) -> Finding | None:
        """What becomes of a link."""
        for work in turn.works:
            finding = await work
            if finding is not None:
                return finding
        return turn.finding

    async def _listed(self, session: Session, host: str) -> Finding | None:
        found = await self._lists.host(host, session.settings[URI_SUB_DOMAINS])
        return None if found is None else _listing(session.settings, host, found)

    async def _servers(self, session: Session, host: str) -> Finding | None:
        found = await self._lists.name_servers(host)
        if found is None:
            return None
        return Finding(listed_text(session.settings, host, found), NS_HIT, found, NS_REFUSED)

    async def _followed(self, session: Session, uri: Uri) -> Finding | None:
        """The host at the end of the link is tested too."""
        origin = await self._links.origin(session, uri)
        if origin.error:
            if origin.error != LOOP:
                return None
            return Finding(reason(BROKEN, uri.decoded[:MAX_SHOWN], origin.error), LINKS_HIT, policy=URI_LINKS_POLICY)
        if not origin.host or origin.host == uri.host or not self._domains.testable(origin.host):
            return None
        word = await self._lists.body(session, origin.host, "", WHITE_ELSEWHERE)
        if word is not None:
            return Finding(word.refuses, policy=None) if word.refuses else None
        return await self._listed(session, origin.host) if self._lists.any and policy(session.settings) != "n" else None


def _follows(settings: Settings) -> bool:
    return settings[URI_LINKS_POLICY][:1].lower() in ("r", "d")


def _listing(settings: Settings, host: str, found: Found) -> Finding:
    return Finding(listed_text(settings, host, found), _LIST_HITS[found.option], found)


def _verdict(session: Session, transaction: Transaction, uri: Uri, finding: Finding) -> Verdict:
    """Log and count a finding, and do what its policy says."""
    if finding.found is not None:
        tell(session, finding.found)
        if finding.found.option in _LIST_HITS:
            transaction.flags.add(MsgFlag.URI_BL)
            if uri.implicit:
                transaction.flags.add(MsgFlag.URI_IMPLICIT)
                session.count(IMPLICIT)
    if finding.counter is not None:
        session.count(finding.counter)
        if finding.counter is uri_hosts.VALID_SOA_HIT and session.settings[URI_VALID_SOA] > 1:
            transaction.flags.add(MsgFlag.SAVE)
    transaction.flags.add(MsgFlag.POLICY)
    if finding.policy is not None and session.settings[finding.policy][:1].lower() == "d":
        session.log(DISCARDED, finding.text)
        return discard(uri.host)
    return reject(finding.reply, finding.text, fact=uri.host)
