"""Msg-Limit-Connect:, -From: and -To: of the access map: how many messages a client, sender or recipient may have in a time.

Counted at RCPT, so a message to three recipients counts three. Counters live in the cache, with the cluster if there is
one. Source: spec chapters filters-envelope, 13.3; maps, 14.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpf.cache.store import Cache
from smtpf.journal.journal import Journal
from smtpf.journal.message import warn
from smtpf.maps.access import AccessMap, Limit
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, discard, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Text, Words
from smtpf.smtp.session import Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group
from smtpf.waiting import in_background

if TYPE_CHECKING:
    from smtpf.smtp.submit import Submitter

TEMPFAIL, TEMPFAIL_REPORT, REPORT_ONLY, REPORT_DISCARD = "tempfail", "tempfail-report", "report-only", "report-discard"
MSG_LIMIT_REPORT = Text(
    "msg-limit-report",
    TEMPFAIL,
    "What follows when a message limit is exceeded: the client is told to come again, that and one report by mail for each time "
    "window, only the report, or the report while the message is accepted and thrown away.",
    words=(TEMPFAIL, TEMPFAIL_REPORT, REPORT_ONLY, REPORT_DISCARD),
    choices="tempfail|tempfail-report|report-only|report-discard",
    since="later",
    area="msg-limit",
)
REPORT_TO = Words(
    "report-to",
    "postmaster",
    "Mail addresses that get reports of this node, over the local route. Empty: no reports.",
    choices='mail addresses; "" = none',
    since="later",
    area="report",
)
REPORT_LOST = warn(
    1166,
    "report to <%s> not sent: %s",
    "A report that a message limit was exceeded could not be handed to the local route.",
    fields=("recipients", "error"),
    since="later",
)
EXCEEDED = Reply(
    475,
    "451 4.7.1 %s has exceeded %ld message%s per %ld %s%s",
    meaning="A Msg-Limit- entry: the client, sender or recipient has had its messages for this time.",
)
MESSAGE_LIMIT = Counter("message-limit", Group.MSG, "Recipients over a Msg-Limit-.")

CACHE_FAMILY = "msg-limit:"
MAX_REPORTS = 20
"""Reports being sent at the same time; one more is lost."""

_TO, _FROM, _CONNECT = "msg-limit-to:", "msg-limit-from:", "msg-limit-connect:"
_UNITS = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}
_UNSAFE = re.compile(r"[^\x20-\x7e]")


@attrs.frozen
class _Counted:
    """One entry that speaks of this recipient."""

    subject: str
    limit: Limit
    count: int

    @property
    def key(self) -> str:
        return CACHE_FAMILY + self.subject.lower()

    @property
    def sentence(self) -> tuple[str, int, str, int, str, str]:
        """Arguments of #475."""
        limit = self.limit
        return (
            self.subject,
            limit.count,
            "" if limit.count == 1 else "s",
            limit.amount,
            _UNITS[limit.unit],
            "" if limit.amount == 1 else "s",
        )


class MsgLimit(Filter):
    """Counts messages and keeps the limits."""

    def __init__(self, access: AccessMap, cache: Cache, journal: Journal, submitter: Submitter | None, now: Callable[[], float]) -> None:
        self._access = access
        self._cache = cache
        self._journal = journal
        self._submitter = submitter
        self._now = now
        self._reports = 0

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> MaybeVerdict:
        """Count under every entry; the recipient's limit decides before the sender's, and that before the client's."""
        return self._rcpt(session, transaction, recipient) if self._access.holds(_TO, _FROM, _CONNECT) else None

    async def _rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        access, sid = self._access, session.sid
        to, sender = recipient.path.address, transaction.sender
        entries = [(to, await access.lookup_mail_limit(_TO, to, sid))]
        if not sender.is_null:
            entries.append((sender.address, await access.lookup_mail_limit(_FROM, sender.address, sid)))
        by_client = await access.lookup_client_limit(_CONNECT, session.name, session.address, sid)
        entries.append((session.address, by_client))
        counted = [await self._count(session, subject, limit) for subject, limit in entries if limit is not None and limit.count > 0]
        if not counted or counted[0].count <= counted[0].limit.count:
            return None
        return self._exceeded(session, counted[0])

    async def _count(self, session: Session, subject: str, limit: Limit) -> _Counted:
        found = self._cache.increment(CACHE_FAMILY + subject.lower(), limit.seconds, session=session.sid)
        return _Counted(subject, limit, await found if isinstance(found, Deferred) else found)

    def _exceeded(self, session: Session, over: _Counted) -> Verdict | None:
        session.count(MESSAGE_LIMIT)
        reaction = session.settings[MSG_LIMIT_REPORT]
        if reaction != TEMPFAIL and over.count == over.limit.count + 1:
            self._report(session, over)
        if reaction == REPORT_ONLY:
            return None
        if reaction == REPORT_DISCARD:
            return discard(over.key)
        return tempfail(EXCEEDED, *over.sentence, fact=over.key)

    def _report(self, session: Session, over: _Counted) -> None:
        recipients = session.settings[REPORT_TO]
        if not recipients or self._submitter is None:
            return
        if self._reports >= MAX_REPORTS:
            session.log(REPORT_LOST, ", ".join(recipients), "too many under way")
            return
        self._reports += 1
        in_background(self._send(session, self._submitter, recipients, over), self._broken)

    def _broken(self, failure: Failure) -> None:
        self._reports -= 1
        self._journal.failure(failure, doing="message limit report")

    async def _send(self, session: Session, submitter: Submitter, recipients: tuple[str, ...], over: _Counted) -> None:
        record = await self._cache.fetch(over.key, session.sid)
        ends = record.e if record is not None else self._now() + over.limit.seconds
        name = session.interface_name
        message = compose(over.sentence, recipients, name, f"{session.sid}.{over.count}", self._now(), ends)
        problem = await submitter.submit(session.settings, name, "", recipients, message)
        if problem:
            session.log(REPORT_LOST, ", ".join(recipients), problem)
        self._reports -= 1


def compose(
    sentence: tuple[str, int, str, int, str, str], recipients: tuple[str, ...], name: str, identity: str, now: float, ends: float
) -> bytes:
    """The report as a message. ``now`` and ``ends`` are Unix seconds; ``identity`` begins its Message-ID."""
    words = EXCEEDED.text.partition(" ")[2].partition(" ")[2] % sentence
    lines = [
        f"Date: {_date(now)}",
        f'From: "smtpf" <postmaster@{name}>',
        f"To: {', '.join(f'<{recipient}>' for recipient in recipients)}",
        f"Message-ID: <{identity}@{name}>",
        "Subject: message limit exceeded",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "Auto-Submitted: auto-generated",
        "",
        f"{words}.",
        f"The time window ends at {_date(ends)}.",
        "",
    ]
    return "\r\n".join(_UNSAFE.sub("?", line) for line in lines).encode("ascii")


def _date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(seconds)).astimezone())
