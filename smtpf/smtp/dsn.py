"""Delivery status notifications: tell the sender which recipients a next hop refused after another had taken the message.

Only then is one due; when no next hop has taken a message, the client still has it and hears so itself. A DSN is sent
beside the session, over the local route or else to the sender's mail exchange, and is lost when neither takes it.
Source: RFC 3464, RFC 3834, spec chapter session, 8.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING

import attrs
from twisted.python.failure import Failure

from smtpf.dns.classes import is_unreachable
from smtpf.dns.mx import mx_list
from smtpf.journal.message import err
from smtpf.maps.hosts import Host
from smtpf.settings.option import Text
from smtpf.smtp.client import HopReply
from smtpf.smtp.forward import HostOutcome, undelivered
from smtpf.smtp.session import MsgFlag, SpfResult
from smtpf.smtp.submit import Submitter
from smtpf.stats.counter import Counter, Group
from smtpf.waiting import in_background

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver
    from smtpf.journal.journal import Journal
    from smtpf.smtp.session import Session, Transaction

SMTP_DSN_REPLY_TO = Text(
    "smtp-dsn-reply-to",
    "",
    "Mail address for the Reply-To field of delivery status notifications, where senders reach a person.",
    choices='mail address; "" = none',
    area="smtp",
)
LOST = err(
    1172,
    "DSN to <%s> not sent: %s",
    "Some recipients were refused at the end of a message that others got, and the sender could not be told.",
    fields=("sender", "error"),
    since="later",
)
DSN_SENT = Counter("dsn-sent", Group.MSG, "Delivery status notifications handed over.")

MAX_UNDER_WAY = 100
"""DSNs being sent at the same time; one more is lost."""
MAX_LINE = 998
"""Octets of a line without CRLF (RFC 5322 2.1.1)."""

_UNSAFE = re.compile(r"[^\x20-\x7e]")
_UNSAFE_OCTETS = bytes(octet if octet in (9, 10, 13) or 32 <= octet < 127 else ord("?") for octet in range(256))


@attrs.frozen
class Report:
    """What one DSN tells."""

    tid: str
    sid: str
    sender: str
    reply_to: str
    name: str
    """This host's, for the interface on which the message came."""
    client: str
    """Name of the client, or its address in brackets."""
    recipients: tuple[str, ...]
    lines: tuple[str, ...]
    """The next hop's reply; empty when there was none."""
    permanent: bool
    code: str
    """Last line of the reply, or why there was none."""
    headers: tuple[bytes, ...]
    """Fields as the client sent them."""

    @classmethod
    def of(cls, session: Session, transaction: Transaction, outcome: HostOutcome) -> Report:
        answer = outcome.answer
        return cls(
            transaction.tid,
            session.sid,
            transaction.sender.address,
            session.settings[SMTP_DSN_REPLY_TO],
            session.interface_name,
            session.name or f"[{session.address}]",
            tuple(path.address for path in outcome.connection.recipients),
            answer.lines if isinstance(answer, HopReply) else (),
            outcome.permanent,
            outcome.text,
            transaction.original_headers,
        )


def compose(report: Report, number: int, now: float) -> bytes:
    """The message. ``number`` tells the DSNs of one transaction apart; ``now`` is in Unix seconds."""
    boundary = f"--=_{report.tid}"
    date = format_datetime(datetime.fromtimestamp(now).astimezone())
    head = [
        f"Date: {date}",
        f"To: <{_safe(report.sender)}>",
        f'From: "smtpf" <postmaster@{_safe(report.name)}>',
        *([f"Reply-To: <{_safe(report.reply_to)}>"] if report.reply_to else []),
        f"Message-ID: <{report.tid}.{number}@{_safe(report.name)}>",
        "Subject: Mail delivery failed.",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "Auto-Submitted: auto-replied",
        "Precedence: first-class",
        "Priority: normal",
    ]
    lines = [
        *head,
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        *_words(report),
        f"--{boundary}",
        "Content-Type: message/delivery-status",
        "",
        f"Reporting-MTA: dns; {_safe(report.name)}",
        f"Received-From-MTA: dns; {_safe(report.client)}",
        f"X-Reporting-Envelope-Id: {report.tid} ({report.sid})",
        "",
    ]
    for recipient in report.recipients:
        lines += [
            f"Final-Recipient: rfc822; {_safe(recipient)}",
            "Action: failed",
            f"Status: {'5.0.0' if report.permanent else '4.0.0'}",
            f"Diagnostic-Code: smtp; {_safe(report.code)}",
            "",
        ]
    lines += [f"--{boundary}", "Content-Type: text/rfc822-headers", ""]
    body = "\r\n".join(line[:MAX_LINE] for line in lines).encode("ascii", "replace") + b"\r\n"
    return body + _headers(report.headers) + f"\r\n--{boundary}--\r\n".encode("ascii")


def _words(report: Report) -> list[str]:
    """What a person reads."""
    words = ["Your message was delivered to some of its recipients, but not to these:", ""]
    words += [f"\t<{_safe(recipient)}>" for recipient in report.recipients]
    if report.reply_to:
        words += ["", f"If you need help, write to our staff at <{_safe(report.reply_to)}>, or reply to this message."]
    words += ["", "For the following reason:", ""]
    words += [f"\t{_safe(line)}" for line in report.lines] or ["\t(unknown)"]
    return [*words, ""]


def _headers(fields: Sequence[bytes]) -> bytes:
    """The client's header fields in plain ASCII, so that the DSN needs no 8BITMIME."""
    lines = b"".join(fields).translate(_UNSAFE_OCTETS).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"\r\n".join(line[:MAX_LINE] for line in lines)


def _safe(text: str) -> str:
    return _UNSAFE.sub("?", text)


class DsnSender:
    """Composes and sends DSNs, each beside the session that caused it."""

    def __init__(self, submitter: Submitter, resolver: Resolver, journal: Journal, now: Callable[[], float]) -> None:
        self._submitter = submitter
        self._resolver = resolver
        self._journal = journal
        self._now = now
        self._under_way = 0

    def report(self, session: Session, transaction: Transaction, outcomes: Sequence[HostOutcome]) -> None:
        """Start a DSN for each host of ``outcomes`` that failed while another took the message; returns at once.

        None for the null sender, for a sender that SPF says is forged, or for a message that was tagged: the sender may
        be somebody who has never heard of the message.
        """
        failed = undelivered(outcomes)
        if not failed or transaction.sender.is_null or transaction.spf_mail is SpfResult.FAIL:
            return
        if MsgFlag.TAG in transaction.flags or MsgFlag.TAGGED in transaction.flags:
            return
        for number, outcome in enumerate(failed, 1):
            report = Report.of(session, transaction, outcome)
            if self._under_way >= MAX_UNDER_WAY:
                session.log(LOST, report.sender, "too many under way")
                continue
            self._under_way += 1
            in_background(self._send(session, report, transaction.sender.domain, number), self._broken)

    def _broken(self, failure: Failure) -> None:
        self._under_way -= 1
        self._journal.failure(failure, doing="DSN")

    async def _send(self, session: Session, report: Report, domain: str, number: int) -> None:
        message = compose(report, number, self._now())
        problem = await self._submitter.submit(session.settings, report.name, "", [report.sender], message)
        if problem and not domain.startswith("["):
            problem = await self._send_to_exchange(session, report, domain, message)
        if problem:
            session.log(LOST, report.sender, problem)
        else:
            session.count(DSN_SENT)
        self._under_way -= 1

    async def _send_to_exchange(self, session: Session, report: Report, domain: str, message: bytes) -> str:
        """Send it to the sender's mail exchange, but never to an address inside."""
        exchanges = await mx_list(self._resolver, domain)
        hosts = [Host(address, address, is_literal=True) for exchange in exchanges.usable for address in exchange.addresses]
        if not hosts:
            return "no mail exchange"
        return await self._submitter.submit_to(
            session.settings, report.name, hosts, "", [report.sender], message, lambda address: not is_unreachable(address)
        )
