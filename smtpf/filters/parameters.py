"""ESMTP parameters of a client that said HELO, which does not know them, and binary content, which nobody here takes.

Runs behind the lists at MAIL and RCPT, first of the sender's and the recipient's tests. Source: RFC 5321 4.1.1.11;
spec chapters filters-envelope, 9.2; session, 5.5 and 5.6.
"""

from __future__ import annotations

from smtpf.pipeline import Filter, Verdict, reject
from smtpf.smtp.replies import BAD_PARAMETERS_MAIL, BAD_PARAMETERS_RCPT
from smtpf.smtp.session import MailFlag, Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

HELO_MAIL_PARAMS = Counter("helo-mail-params", Group.MAIL, "MAIL with parameters after HELO, or with BODY=BINARYMIME.", since="later")
HELO_RCPT_PARAMS = Counter("helo-rcpt-params", Group.RCPT, "RCPT with parameters after HELO.", since="later")


class Parameters(Filter):
    """Refuses parameters that were never offered."""

    def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        after_helo = transaction.parameters and not session.esmtp
        if not after_helo and MailFlag.BINARY_MIME not in transaction.mail_flags:
            return None
        session.count(HELO_MAIL_PARAMS)
        return reject(BAD_PARAMETERS_MAIL)

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        if session.esmtp or not recipient.parameters:
            return None
        session.count(HELO_RCPT_PARAMS)
        return reject(BAD_PARAMETERS_RCPT)
