"""The report header, and the note of Message-ID and Subject for the log.

Runs first at the headers stage. An instance of the report header that came with the message is removed: only ours counts.
Source: spec chapter session, 7.4.
"""

from __future__ import annotations

import re

from smtpf.journal.message import warn
from smtpf.message.trace import report
from smtpf.pipeline import Filter
from smtpf.settings.option import Text
from smtpf.smtp.session import ClientFlag, MailFlag, RcptFlag, Session, Transaction, flag_text

SMTP_REPORT_HEADER = Text(
    "smtp-report-header",
    "X-smtpf-Report",
    "Name of the header field that tells of the session: ids, flags, recipients, refusals.",
    choices='header name; "" disables',
    since="later",
    area="smtp",
)
REMOVED = warn(
    0,
    'removed previous instance of header "%s"',
    "The message came with a header field that only this node may add. It was taken out.",
    fields=("header",),
)

_MESSAGE_ID = re.compile(r"<([^>]*)>?")


class Report(Filter):
    """Notes what the message is, and adds the report header."""

    def headers(self, session: Session, transaction: Transaction) -> None:
        headers = transaction.headers
        assert headers is not None
        identity = headers.get("Message-ID").strip()
        found = _MESSAGE_ID.search(identity)
        transaction.message_id = found[1].strip() if found else identity
        transaction.subject = headers.get("Subject").strip()
        name = session.settings[SMTP_REPORT_HEADER]
        if not name:
            return
        for old in headers.remove(name):
            session.log(REMOVED, old.line)
        headers.append_raw(
            report(
                name,
                sid=session.sid,
                tid=transaction.tid,
                client_flags=flag_text(session.flags, ClientFlag),
                mail_flags=flag_text(transaction.mail_flags, MailFlag),
                rcpt_flags=flag_text(transaction.recipient_flags, RcptFlag),
                accepted=transaction.accepted_count,
                refused=transaction.refused_recipients,
                fails=session.reject_count,
            )
        )
