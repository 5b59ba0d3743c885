"""lint: what this configuration would do to a message, told to the postmaster instead of the sender.

The reply slots record refusals; here a message with a record is discarded at DATA, and the report is sent when its transaction
ends. Source: spec chapter session, 15.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from smtpf.journal.message import err
from smtpf.pipeline import DISCARD, Filter, Verdict
from smtpf.smtp.lint import LINT, LintRecord
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.waiting import in_background

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.smtp.submit import Submitter

NOT_SENT = err(
    1168,
    "lint report %s not sent: %s",
    "The local route did not take a lint report; what would have been refused is not known.",
    fields=("id", "error"),
    since="later",
)

POSTMASTER = "postmaster"
MAX_UNDER_WAY = 50
"""Reports being sent at the same time; one more is lost."""
MAX_LINE = 990
"""Octets of a line of a report."""
_UNSAFE = re.compile(r"[^\t -~]")


class Lint(Filter):
    """Discards what would have been refused, and reports it."""

    def __init__(self, submitter: Submitter | None, journal: Journal, now: Callable[[], float]) -> None:
        self._submitter = submitter
        self._journal = journal
        self._now = now
        self._under_way = 0

    def data(self, session: Session, transaction: Transaction) -> Verdict | None:
        if not session.settings[LINT] or not session.own(LintRecord).lines:
            return None
        transaction.flags.add(MsgFlag.DISCARD)
        return DISCARD

    def rset(self, session: Session, transaction: Transaction) -> None:
        """Report the message; refusals of the session stay in the record."""
        if not session.settings[LINT]:
            return
        record = session.own(LintRecord)
        lines = record.lines
        record.of_message = []
        if lines:
            record.reported = True
            recipients = [recipient.path.address for recipient in transaction.recipients]
            text = report_of(transaction.sender.address, recipients, transaction.original_headers, lines)
            self._begin(session, f"message {transaction.tid}", transaction.tid, text)

    def close(self, session: Session) -> None:
        """Report a session that never came to a message."""
        if not session.settings[LINT]:
            return
        record = session.own(LintRecord)
        if record.lines and not record.reported:
            self._begin(session, f"session {session.sid}", session.sid, report_of(None, (), (), record.lines))

    def _begin(self, session: Session, subject: str, identity: str, text: Sequence[str]) -> None:
        if self._submitter is None or self._under_way >= MAX_UNDER_WAY:
            session.log(NOT_SENT, identity, "too many under way")
            return
        self._under_way += 1
        name = session.interface_name
        head = [
            f"Date: {formatdate(self._now(), localtime=True)}", f"From: \"smtpf\" <{POSTMASTER}@{name}>", f"To: <{POSTMASTER}>",
            f"Message-ID: <lint.{identity}@{name}>", f"Subject: smtpf lint report {subject}.", "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=us-ascii", "Auto-Submitted: auto-generated", "",
        ]  # fmt: skip
        message = "".join(f"{_UNSAFE.sub('?', line)[:MAX_LINE]}\r\n" for line in (*head, *text)).encode("ascii")
        in_background(self._send(session, self._submitter, identity, message), self._broken)

    async def _send(self, session: Session, submitter: Submitter, identity: str, message: bytes) -> None:
        problem = await submitter.submit(session.settings, session.interface_name, "", [POSTMASTER], message)
        if problem:
            session.log(NOT_SENT, identity, problem)
        self._under_way -= 1

    def _broken(self, failure: Failure) -> None:
        self._under_way -= 1
        self._journal.failure(failure, doing="lint report")


def report_of(sender: str | None, recipients: Sequence[str], headers: Sequence[bytes], lines: Sequence[str]) -> list[str]:
    """The text of a report; ``sender`` is None when there was no message."""
    text = [] if sender is None else [f"SENDER: <{sender}>", *(f"RECIPIENT: <{recipient}>" for recipient in recipients), ""]
    if headers:
        text += ["HEADERS:", *(line for raw in headers for line in raw.decode("latin-1").rstrip("\r\n").split("\r\n")), ""]
    return [*text, "REPORT:", *lines]
