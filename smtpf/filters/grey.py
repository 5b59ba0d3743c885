"""Grey-listing: an unknown sender is asked to come back, because real mail servers do and most senders of junk do not.

Runs at DATA, behind call-back. The first attempt is refused for some minutes; who comes back after that has proved to have
a queue, and so has its host, which is not delayed again as long as it sends mail. With ``grey-content`` the decision about
an attempt that may pass is left to ``grey_content``, which has seen the message. Source: spec chapter filters-envelope, 16.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import attrs

from smtpf.cache.records import Record
from smtpf.cache.store import Cache
from smtpf.cache.ttl import CACHE_ACCEPT_TTL
from smtpf.dns.domains import Domains
from smtpf.filters.grey_key import ELEMENTS, OF_THE_HOST, GreyKey, chosen, host_elements, make_key
from smtpf.journal.message import err, info, warn
from smtpf.maps.access import AccessMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, drop, tempfail
from smtpf.settings.option import Flag, Number, Text, Words
from smtpf.settings.store import Settings
from smtpf.smtp.replies import TRY_AGAIN
from smtpf.smtp.session import ClientFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

GREY_KEY = Words(
    "grey-key",
    "ptr,mail,rcpt",
    "Which facts together make up an attempt to deliver: client address, its name without the first label (ptr) or without digits "
    "(ptrn), HELO name or its domain (helos), operating system, sender, recipient. Empty: no grey-listing.",
    choices='ip|ptr|ptrn|helo|helos|p0f|mail|rcpt; "" disables',
    words=ELEMENTS,
    signs="+-!",
    area="grey",
)
GREY_TEMP_FAIL_PERIOD = Number(
    "grey-temp-fail-period",
    600,
    "How long a new attempt is refused. Grey-Connect: and Grey-To: entries of the access map say otherwise for some.",
    choices="seconds; <=0 disables",
    area="grey",
)
GREY_TEMP_FAIL_TTL = Number(
    "grey-temp-fail-ttl",
    90000,
    "How long an attempt that was refused is remembered; who comes back later than this starts anew.",
    choices="seconds",
    area="grey",
)
GREY_REPORT_HEADER = Text(
    "grey-report-header",
    "X-Grey-Report",
    "Name of the header field that tells how long a message was delayed by grey-listing.",
    choices='header name; "" disables',
    since="later",
    area="grey",
)
GREY_CONTENT = Flag(
    "grey-content",
    False,
    "Look at the content too: after the delay only the message that was refused before is let in, not another one from the same sender.",
    area="grey",
)

OVERFLOW = err(
    383,
    "greyMakeKey() overflow caught, key={%s} truncated",
    "A grey-list key was too long because of a very long address or HELO name. Its end was replaced by a digest; nothing to do.",
    fields=("key",),
)
LISTED = info(
    387,
    "grey listed {%s} for %ld seconds",
    "A message was refused for now because its sender is not known yet. It will be taken when it comes again after that time.",
    fields=("key", "seconds"),
)
UNEXPECTED = warn(
    937,
    "WARNING grey list {%s} rc=%d unexpected, check cache",
    "The record of this key holds a value that grey-listing never writes. The message passes; delete the record with CACHE DELETE.",
    fields=("key", "rc"),
    since="later",
)

GREY_CONTINUE = Counter("grey-continue", Group.DATA, "Messages that grey-listing let through.")
GREY_TEMPFAIL = Counter("grey-tempfail", Group.DATA, "Messages that grey-listing refused for now.")
GREY_REJECT = Counter("grey-reject", Group.DATA, "Grey-list records with an unexpected value.")

WAITING = "4"
PASSED = "0"


@attrs.define
class Delay:
    """What grey-listing knows of one message at DATA, for the stages that follow."""

    reports: list[str] = attrs.field(factory=list)
    """Values of the report header."""
    keys: list[GreyKey] = attrs.field(factory=list)
    """Keys whose attempt the content decides."""
    period: int = 0


@attrs.frozen
class Found:
    """What the cache says of one key."""

    record: Record | None
    unknown: bool = False
    """The cache could not be asked."""


class Grey(Filter):
    """Refuses first attempts."""

    def __init__(self, access: AccessMap, domains: Domains, cache: Cache) -> None:
        self._access = access
        self._domains = domains
        self._cache = cache
        self.elements: tuple[str, ...] = ()
        """Of the key; none: no grey-listing."""

    def configure(self, settings: Settings) -> None:
        self.elements = chosen(settings[GREY_KEY])

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not self.elements or session.usual_suspect or session.auth or session.grey or ClientFlag.SECOND_MX in session.flags:
            return None
        return self._judge(session, transaction)

    async def _judge(self, session: Session, transaction: Transaction) -> Verdict | None:
        period = await self._period(session, transaction)
        if period <= 0:
            return None
        content = session.settings[GREY_CONTENT] and not transaction.sender.is_null
        delay = transaction.own(Delay)
        delay.period = period
        refused: list[tuple[GreyKey, int]] = []
        for key in self.keys(session, transaction):
            found = await self.look_up(session, key)
            wait = self._wait(session, delay, key, found, content)
            if wait is None:
                session.count(GREY_CONTINUE)
                delay.keys.clear()
                return None
            refused.append((key, wait))
        if any(wait == 0 for _, wait in refused):
            delay.keys = [key for key, _ in refused]
            return None
        return self.refuse(session, refused)

    def _wait(self, session: Session, delay: Delay, key: GreyKey, found: Found, content: bool) -> int | None:
        """Seconds that the attempt still has to wait; 0: its content decides; None: it passes."""
        record = found.record
        if record is None:
            self._cache.put(key.full, WAITING, session.settings[GREY_TEMP_FAIL_TTL], session=session.sid)
            if found.unknown:
                return None
            return 0 if content else delay.period
        if record.code == PASSED:
            self.passed(session, record.key)
        elif record.code == WAITING:
            wait = record.c + delay.period - self._cache.now()
            if wait > 0:
                self._cache.put(record.key, record.value, expires=record.e, session=session.sid)
                return wait
            delay.reports.append(self._report(key, record))
            if content:
                return 0
            self.passed(session, key.host or key.full)
        else:
            session.log(UNEXPECTED, record.key, int(record.code) if record.code.isdigit() else -1)
            session.count(GREY_REJECT)
        return None

    def refuse(self, session: Session, refused: list[tuple[GreyKey, int]]) -> Verdict:
        """The refusal of these keys, each with its seconds to wait."""
        for key, wait in refused:
            session.log(LISTED, key.full, wait)
        session.count(GREY_TEMPFAIL)
        return self.later(refused[0][0])

    def later(self, key: GreyKey) -> Verdict:
        """``451 try again later``; a host that is to come back need not stay."""
        ends = any(element in OF_THE_HOST for element in self.elements)
        return drop(TRY_AGAIN, fact=key.full) if ends else tempfail(TRY_AGAIN, fact=key.full)

    def keys(self, session: Session, transaction: Transaction) -> list[GreyKey]:
        """One key for each recipient, or one alone when recipients are no part of it."""
        paths = [recipient.path for recipient in transaction.recipients] if "rcpt" in self.elements else [None]
        made = [make_key(self.elements, self._domains, session, transaction, path) for path in paths]
        for key in made:
            if key.truncated:
                session.log(OVERFLOW, key.full)
        return made

    async def look_up(self, session: Session, key: GreyKey) -> Found:
        """The host's record, else that of the full key. Nothing may wait between this and the put that follows from it."""
        record = await self._cache.fetch(key.host, session.sid) if key.host else None
        if record is None:
            record = await self._cache.fetch(key.full, session.sid)
        return Found(record, record is None and self._cache.failing)

    def passed(self, session: Session, key: str) -> None:
        """``key`` needs no proof any more, for as long as it stays active."""
        self._cache.put(key, PASSED, session.settings[CACHE_ACCEPT_TTL], session=session.sid)

    async def _period(self, session: Session, transaction: Transaction) -> int:
        """Seconds of delay; 0 or less: none."""
        period = session.settings[GREY_TEMP_FAIL_PERIOD]
        of_client = await self._access.lookup_client_number("grey-connect:", session.name, session.address, session.sid)
        if of_client is not None:
            period = of_client
        for recipient in transaction.recipients:
            of_recipient = await self._access.lookup_mail_number("grey-to:", recipient.path.address, session.sid)
            if of_recipient is not None:
                period = min(period, of_recipient)
        return period

    def _report(self, key: GreyKey, record: Record) -> str:
        age = max(0, self._cache.now() - record.c)
        hours, rest = divmod(age, 3600)
        minutes, seconds = divmod(rest, 60)
        begun = format_datetime(datetime.fromtimestamp(record.c, UTC))
        return f'age={age} ({hours:02}:{minutes:02}:{seconds:02}) key={key.full} at="{begun}"'

    def headers(self, session: Session, transaction: Transaction) -> None:
        """Tell of the delay in the message's header."""
        name = session.settings[GREY_REPORT_HEADER]
        if name and self.elements:
            assert transaction.headers is not None
            for report in transaction.own(Delay).reports:
                transaction.headers.append(name, report)

    async def has_passed(self, session: Session) -> bool:
        """The client, as far as it is known before MAIL, has passed before."""
        if not host_elements(self.elements):
            return False
        key = make_key(self.elements[: host_elements(self.elements)], self._domains, session, None, None)
        record = await self._cache.fetch(key.full, session.sid)
        return record is not None and record.code == PASSED
