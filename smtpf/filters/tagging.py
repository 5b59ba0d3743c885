"""Delayed refusals of messages that are to be tagged instead, and the gate that stops at a refusal already made.

With ``smtp-delay-checks`` and the word TAG a refusal becomes a header and a Subject prefix. Source: spec chapters session,
4.3 (data 1, content 2, dot 2) and maps, 17.2.
"""

from __future__ import annotations

import attrs

from smtpf.pipeline import Filter, Verdict
from smtpf.reply import render
from smtpf.settings.option import Text
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

SPAMD_FLAG_HEADER = Text(
    "spamd-flag-header", "X-Spam-Flag", "Name of the header field that says YES for spam.", choices='header name; "" disables',
    since="later", area="spamd",
)  # fmt: skip
SPAMD_SUBJECT_TAG = Text(
    "spamd-subject-tag",
    "[SPAM]",
    "Prefix of the Subject of messages that are suspected or tagged.",
    choices='text; "" disables',
    area="spamd",
)
REASON_HEADER = "X-Spam-Reason"
MSG_TAGGED = Counter("msg-tagged", Group.MSG, "Messages tagged by TAG.", since="later")


@attrs.define
class _Tagged:
    """Made only for a message that is tagged."""

    reason: str = ""


class Tagging(Filter):
    """Turns a delayed refusal of a TAG message into marks."""

    def data(self, session: Session, transaction: Transaction) -> None:
        """Note why the message would have been refused."""
        refusal = session.slots.delayed
        if refusal is None or MsgFlag.TAG not in transaction.flags:
            return
        assert refusal.reply is not None
        transaction.own(_Tagged).reason = render(refusal.reply, refusal.args, session.sid).first
        transaction.flags.add(MsgFlag.POLICY)

    def headers(self, session: Session, transaction: Transaction) -> None:
        """Add the marks for filters and mail readers behind us."""
        tagged = transaction.owned(_Tagged)
        if tagged is None:
            return
        assert transaction.headers is not None
        name = session.settings[SPAMD_FLAG_HEADER]
        if name:
            transaction.headers.append(name, "YES")
        transaction.headers.append(REASON_HEADER, tagged.reason)

    def dot(self, session: Session, transaction: Transaction) -> Verdict | None:
        """Tag the Subject, then stop if a refusal waits already."""
        tag = session.settings[SPAMD_SUBJECT_TAG]
        if tag and transaction.owned(_Tagged) is not None and transaction.headers is not None:
            transaction.headers.prefix("Subject", tag)
            transaction.flags.add(MsgFlag.TAGGED)
            session.count(MSG_TAGGED)
        return reply_gate(session)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> Verdict | None:
        return reply_gate(session)


def reply_gate(session: Session) -> Verdict | None:
    """The refusal that is queued already, if there is one: no later test changes it."""
    waiting = session.slots.immediate
    return waiting if waiting is not None and waiting.negative else None
