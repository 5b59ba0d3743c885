"""A bounce goes back to the one who sent the message: the null sender may name one recipient.

Source: RFC 5321 4.5.5; spec chapters filters-envelope, 13.5; session, 5.6.
"""

from __future__ import annotations

from smtpf.pipeline import Filter, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

ONE_RCPT_PER_NULL = Flag("one-rcpt-per-null", True, "Refuse a second recipient of a message from the null sender.", area="mail")
TOO_MANY_RECIPIENTS = Reply(
    441, "550 5.7.1 too many recipients for DSN or MDN", meaning="one-rcpt-per-null: a bounce named more than one recipient."
)
ONE_RCPT = Counter("one-rcpt-per-null", Group.RCPT, "Further recipients of a null sender.")


class OneRcptPerNull(Filter):
    """Lets the null sender name one recipient."""

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        if not transaction.recipients or not transaction.sender.is_null or not session.settings[ONE_RCPT_PER_NULL]:
            return None
        session.count(ONE_RCPT)
        return reject(TOO_MANY_RECIPIENTS, delay=True)
