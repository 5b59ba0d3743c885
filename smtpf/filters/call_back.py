"""Call-back: ask the sender's own mail exchange whether it would take mail for the sender.

Runs at DATA, directly before grey-listing, which a sender that passes may skip. A definite answer is remembered; a host that
takes any address says nothing, and that is remembered too. Off by default: networks list hosts that call back often, so no
domain is called more than once a minute. Source: spec chapter filters-envelope, 15.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred

from smtpf.cache.records import Record
from smtpf.cache.store import Cache
from smtpf.dns.classes import is_unreachable
from smtpf.dns.domains import is_address, is_host_name
from smtpf.dns.mx import MxHost, MxList, mx_list
from smtpf.filters.uri_lists import BLACK, URI_SUB_DOMAINS, UriLists, reason
from smtpf.journal.message import err, info
from smtpf.maps.hosts import Host
from smtpf.pipeline import SKIP_NEXT, Filter, MaybeVerdict, Verdict, reject, tempfail
from smtpf.reply import Reply, render
from smtpf.settings.option import Flag
from smtpf.smtp import options, probe
from smtpf.smtp.client import FailureKind, HopFailure, NextHopProtocol
from smtpf.smtp.connect import connect
from smtpf.smtp.forward import SMTP_CONNECT_TIMEOUT
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

CALL_BACK = Flag(
    "call-back",
    False,
    "Ask a mail exchange of the sender's domain whether it takes mail for the sender, and refuse the message when it does not.",
    area="call-back",
)
CALL_BACK_PASS_GREY = Flag("call-back-pass-grey", False, "Senders that a call-back has verified are not grey-listed.", area="call-back")
CALL_BACK_STRICT_GREETING = Flag(
    "call-back-strict-greeting",
    False,
    "Refuse senders whose mail exchange greets without its full host name or address.",
    since="later",
    area="call-back",
)
CALL_BACK_URI_GREETING = Flag(
    "call-back-uri-greeting",
    False,
    "Refuse senders whose mail exchange greets with a name that the URI lists have.",
    since="later",
    area="call-back",
)
CALL_BACK_NULL_SENDER = Flag(
    "call-back-null-sender",
    True,
    "Call back with the null sender, so that the other host cannot call back in its turn. When off: postmaster at this host.",
    since="later",
    area="call-back",
)

MX_ERROR = err(
    490,
    "MX %s error %s",
    "The name server of a sender's domain answered with an error when asked for its mail exchanges. The sender is told to try again.",
    fields=("domain", "error"),
)
MX_NO_ANSWER = err(
    497,
    "%s %s",
    "No name server answered when asked for the mail exchanges of a sender's domain. The sender is told to try again.",
    fields=("domain", "error"),
)
GREETS_LISTED = err(
    830,
    "%s",
    "call-back-uri-greeting: the mail exchange of a sender's domain greets with a name that a URI list has. The sender is refused.",
    fields=("reason",),
    since="later",
)
CALLED = info(
    573,
    'call-back mail=<%s> rc=%d reply="%s"',
    "What became of a call-back: rc 0 the message goes on, 4 and 5 it was refused, 8 it also skips grey-listing.",
    always=True,
    fields=("sender", "rc", "reply"),
)

NO_ANSWER = Reply(
    488, "451 4.4.4 no answer from %s MX", meaning="Reason in #573: no mail exchange of the sender's domain could be reached."
)
NO_DOMAIN = Reply(489, "553 5.4.4 %s does not exist", meaning="Reason in #573: the sender's domain does not exist.")
LOOKUP_ERROR = Reply(491, "451 4.4.3 %s MX lookup error", meaning="Reason in #573: the DNS gave no mail exchange for now.")
NO_MX = Reply(493, "550 5.4.4 no acceptable MX for %s", meaning="Reason in #573: the sender's domain has no usable mail exchange.")
FAILED = Reply(
    572,
    "%d %d.7.0 sender <%s> verification failed",
    meaning="A mail exchange of the sender's domain does not take mail for the sender, or cannot say so now; see #573.",
)

MADE = Counter("call-back-made", Group.DATA, "Call-backs made.")
SKIP = Counter("call-back-skip", Group.DATA, "Call-backs not made because the domain's host takes any address.")
CACHED = Counter("call-back-cache", Group.DATA, "Call-backs not made because the answer was known.")
ACCEPTED = Counter("call-back-accept", Group.DATA, "Senders that a call-back found to be good.")
REJECTED = Counter("call-back-reject", Group.DATA, "Messages refused because of a call-back.")
TEMPFAILED = Counter("call-back-tempfail", Group.DATA, "Messages refused for now because of a call-back.")
STRICT_GREETING = Counter("call-back-strict-greeting", Group.DATA, "Mail exchanges that greeted without their full name.", since="later")
URI_GREETING = Counter("call-back-uri-greeting", Group.DATA, "Mail exchanges that greeted with a name in the URI lists.", since="later")

PORT = 25
MAX_ATTEMPTS = 8
"""Addresses of one domain that are tried for a connection."""
MAX_REMEMBERED = 10_000
"""Domains whose last call-back is remembered."""
INTERVAL = 60.0
"""Seconds between two call-backs to one domain."""

GOOD, TEMPORARY, BAD, GOOD_BEYOND_GREY = 0, 4, 5, 8


@attrs.frozen
class Outcome:
    """What a call-back came to."""

    rc: int
    text: str
    """For the log."""
    verified: bool = False
    """The host knows the sender, as opposed to nothing speaking against it."""


@attrs.define(eq=False)
class _Call:
    """The last call-back to one domain."""

    sender: str
    begun: float
    outcome: Outcome | None = None
    waiting: list[Deferred[Outcome]] = attrs.field(factory=list)


class CallBack(Filter):
    """Verifies senders."""

    def __init__(
        self, reactor: Any, resolver: Resolver, cache: Cache, rng: random.Random, uri_lists: UriLists | None = None, port: int = PORT
    ) -> None:
        self._reactor = reactor
        self._uri_lists = uri_lists
        self._resolver = resolver
        self._cache = cache
        self._rng = rng
        self._port = port
        self._calls: OrderedDict[str, _Call] = OrderedDict()

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not session.settings[CALL_BACK]:
            return None
        sender = transaction.sender
        if session.usual_suspect or session.auth or session.grey or sender.is_null or not sender.qualified:
            return self._conclude(session, transaction, Outcome(GOOD, "null sender, white, auth, or relay, skipping"))
        if not sender.address.isascii():
            return self._conclude(session, transaction, Outcome(GOOD, "needs SMTPUTF8, skipping"))
        if sender.mailbox == "postmaster":
            return self._conclude(session, transaction, Outcome(GOOD, "postmaster, skipping"))
        return self._verify(session, transaction)

    async def _verify(self, session: Session, transaction: Transaction) -> Verdict | None:
        domain, address = transaction.sender.domain, transaction.sender.address.lower()
        of_domain = await self._known(session, domain)
        if of_domain is not None and of_domain.code == "2":
            session.count(SKIP)
            return self._conclude(session, transaction, Outcome(GOOD, "dumb mail host, skipping"))
        of_sender = await self._known(session, address)
        if of_sender is not None:
            session.count(CACHED)
            rc = int(of_sender.code) if of_sender.code in ("4", "5") else GOOD
            return self._conclude(session, transaction, Outcome(rc, "cached", verified=True))
        outcome = await self._call_once(session, transaction, of_domain is not None)
        return self._conclude(session, transaction, outcome)

    async def _known(self, session: Session, subject: str) -> Record | None:
        """The record of a domain or sender, its life prolonged."""
        record = await self._cache.fetch(f"sav:{subject}", session.sid)
        if record is not None:
            self._cache.touch(record, session=session.sid)
        return record

    def _conclude(self, session: Session, transaction: Transaction, outcome: Outcome) -> Verdict | None:
        """Log, count, and give the verdict."""
        rc, sender = outcome.rc, transaction.sender.address
        if rc == GOOD and outcome.verified:
            session.count(ACCEPTED)
            if session.settings[CALL_BACK_PASS_GREY]:
                rc = GOOD_BEYOND_GREY
        session.log(CALLED, sender, rc, outcome.text)
        if rc == TEMPORARY:
            session.count(TEMPFAILED)
            return tempfail(FAILED, 451, 4, sender, fact=outcome.text)
        if rc == BAD:
            session.count(REJECTED)
            return reject(FAILED, 550, 5, sender, fact=outcome.text)
        return SKIP_NEXT if rc == GOOD_BEYOND_GREY else None

    async def _call_once(self, session: Session, transaction: Transaction, selective: bool) -> Outcome:
        """Call, unless the domain has been called within the last minute."""
        domain, sender = transaction.sender.domain, transaction.sender.address
        now = self._reactor.seconds()
        last = self._calls.get(domain)
        if last is not None and (last.outcome is None or now - last.begun < INTERVAL):
            if last.sender != sender:
                return Outcome(GOOD, f"{domain} called a moment ago, skipping")
            if last.outcome is not None:
                return last.outcome
            waiting: Deferred[Outcome] = Deferred()
            last.waiting.append(waiting)
            return await waiting
        call = self._calls[domain] = _Call(sender, now)
        self._calls.move_to_end(domain)
        outcome = Outcome(GOOD, "interrupted")
        try:
            outcome = await self._call(session, transaction, call, selective)
        finally:
            call.outcome = outcome
            for waiter in call.waiting:
                waiter.callback(outcome)
            call.waiting.clear()
            self._forget_oldest()
        return outcome

    def _forget_oldest(self) -> None:
        for domain in list(self._calls)[: max(0, len(self._calls) - MAX_REMEMBERED)]:
            if self._calls[domain].outcome is not None:
                del self._calls[domain]

    async def _call(self, session: Session, transaction: Transaction, call: _Call, selective: bool) -> Outcome:
        """Find a mail exchange that answers, and ask it."""
        domain = transaction.sender.domain
        if domain.startswith("["):
            hosts = [MxHost(0, domain, (transaction.sender.literal,))]
        else:
            exchanges = await mx_list(self._resolver, domain)
            fault = _fault(session, exchanges)
            if fault is not None:
                self._calls.pop(domain, None)
                return fault
            hosts = self._in_order(exchanges, session.address)
        reached = await self._reach(session, hosts)
        if isinstance(reached, HopFailure):
            if reached.reply is not None:
                session.count(MADE)
                return _refusal(reached.reply.code, reached.text)
            self._calls.pop(domain, None)
            return Outcome(TEMPORARY, _line(NO_ANSWER, session, domain))
        session.count(MADE)
        try:
            return await self._ask(session, transaction, reached, selective)
        finally:
            reached.quit()

    def _in_order(self, exchanges: MxList, client: str) -> list[MxHost]:
        """Best preference first, equal ones shuffled. A client that is a secondary exchange is no reason to ask its equals."""
        hosts = list(exchanges.usable)
        own = exchanges.preference_of(client)
        if own:
            hosts = [host for host in hosts if host.preference < own] or hosts
        self._rng.shuffle(hosts)
        return sorted(hosts, key=lambda host: host.preference)

    async def _reach(self, session: Session, hosts: list[MxHost]) -> NextHopProtocol | HopFailure:
        """The first host that can be connected to; a banner other than 220 ends the search."""
        settings = session.settings
        failure: HopFailure | None = None
        addresses = [address for host in hosts for address in host.addresses if _may_call(session, address)]
        for address in addresses[:MAX_ATTEMPTS]:
            made = await connect(
                self._reactor, self._resolver, Host(address, address, self._port, is_literal=True),
                settings[SMTP_CONNECT_TIMEOUT], settings[options.SMTP_COMMAND_TIMEOUT],
            )  # fmt: skip
            if isinstance(made, NextHopProtocol) or made.reply is not None:
                return made
            failure = made
        return failure or _NOBODY

    async def _greets_listed(self, session: Session, banner: str) -> bool:
        """The name in the banner, or one of its name servers, is in a URI list."""
        name = banner.partition(" ")[0].lower().strip("[].")
        if self._uri_lists is None or not ("." in name and (is_host_name(name) or is_address(name))):
            return False
        found = await self._uri_lists.host(name, session.settings[URI_SUB_DOMAINS]) or await self._uri_lists.name_servers(name)
        if found is None:
            return False
        session.log(GREETS_LISTED, reason(BLACK, found.subject, found.list))
        session.count(URI_GREETING)
        return True

    async def _ask(self, session: Session, transaction: Transaction, protocol: NextHopProtocol, selective: bool) -> Outcome:
        """The dialogue with the mail exchange, and what is remembered of it."""
        settings, sender = session.settings, transaction.sender
        timeout = settings[options.SMTP_COMMAND_TIMEOUT]
        if settings[CALL_BACK_STRICT_GREETING] and not _names_host(protocol.banner):
            session.count(STRICT_GREETING)
            return Outcome(BAD, "220 response missing FQDN host name")
        if settings[CALL_BACK_URI_GREETING] and await self._greets_listed(session, protocol.banner):
            return Outcome(BAD, "220 response hostname URI BL listed")
        own = session.interface_name.encode()
        reverse_path = b"" if settings[CALL_BACK_NULL_SENDER] else b"postmaster@" + own
        for command in (b"HELO " + own, b"MAIL FROM:<" + reverse_path + b">"):
            answer = await protocol.command(command, timeout)
            if isinstance(answer, HopFailure):
                return self._lost(session, protocol, answer)
            if answer.code != 250:
                return _refusal(answer.code, answer.last)
        answer = await probe.ask(protocol, sender.address, timeout)
        if isinstance(answer, HopFailure):
            return self._lost(session, protocol, answer)
        rc = GOOD if answer.positive else BAD if answer.permanent else TEMPORARY
        outcome = Outcome(rc, answer.last, verified=rc == GOOD)
        if rc != BAD and not selective:
            found = await self._ask_for_nobody(session, transaction, protocol, outcome)
            if found is not None:
                return found
        self._remember(session, sender.address, outcome.rc)
        return outcome

    async def _ask_for_nobody(
        self, session: Session, transaction: Transaction, protocol: NextHopProtocol, outcome: Outcome
    ) -> Outcome | None:
        """Does the host take any address? The outcome when that settles it."""
        sender = transaction.sender
        answer = await probe.ask(protocol, probe.false_address(sender), session.settings[options.SMTP_COMMAND_TIMEOUT])
        if isinstance(answer, HopFailure):
            probe.log_failure(session, protocol.address, answer)
        elif answer.positive:
            self._cache.put(f"sav:{sender.domain}", "2", session=session.sid)
            return Outcome(GOOD, "dumb mail host found")
        elif not answer.permanent:
            self._remember(session, sender.address, TEMPORARY)
            return Outcome(TEMPORARY, "dumb mail host inconclusive")
        self._cache.put(f"sav:{sender.domain}", "5", session=session.sid)
        return None

    def _remember(self, session: Session, address: str, rc: int) -> None:
        self._cache.put(f"sav:{address.lower()}", "2" if rc == GOOD else str(rc), session=session.sid)

    @staticmethod
    def _lost(session: Session, protocol: NextHopProtocol, failure: HopFailure) -> Outcome:
        """A connection that breaks says nothing of the sender."""
        probe.log_failure(session, protocol.address, failure)
        return Outcome(GOOD, failure.text)


def _fault(session: Session, exchanges: MxList) -> Outcome | None:
    """Why there is nobody to ask."""
    domain = exchanges.domain
    if exchanges.nxdomain:
        return Outcome(BAD, _line(NO_DOMAIN, session, domain))
    if exchanges.failed:
        if exchanges.answer.no_answer:
            session.log(MX_NO_ANSWER, domain, exchanges.answer.error_text)
        else:
            session.log(MX_ERROR, domain, exchanges.answer.rcode_text)
        return Outcome(TEMPORARY, _line(LOOKUP_ERROR, session, domain))
    if exchanges.usable:
        return None
    if exchanges.incomplete:
        return Outcome(TEMPORARY, _line(LOOKUP_ERROR, session, domain))
    return Outcome(BAD, _line(NO_MX, session, domain))


def _may_call(session: Session, address: str) -> bool:
    """Never an address of the inside, nor this host, whatever a stranger's zone says."""
    return not is_unreachable(address) and address != session.interface_address


def _refusal(code: int, text: str) -> Outcome:
    """HELO, MAIL or the connection itself refused: its class is the result."""
    return Outcome(BAD if code >= 500 else TEMPORARY if code >= 400 else GOOD, text)


def _line(reply: Reply, session: Session, domain: str) -> str:
    return render(reply, (domain,), session.sid).first


def _names_host(banner: str) -> bool:
    """The banner begins with a host name of several labels or an address in brackets."""
    word = banner.partition(" ")[0]
    if word.startswith("["):
        return word.endswith("]") and is_address(word)
    return "." in word and is_host_name(word.lower().rstrip("."))


_NOBODY = HopFailure(FailureKind.CONNECT, "address not permitted")
