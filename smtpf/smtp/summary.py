"""The lines by which a postmaster follows a session: start, sender, recipient, data, message, end.

Formats never change; what later versions added to them goes to the structured log as named fields.
Source: spec chapter session, 11.
"""

from __future__ import annotations

from smtpf.journal.message import info
from smtpf.reply import Answer
from smtpf.smtp.session import ClientFlag, MailFlag, MsgFlag, RcptFlag, Recipient, Session, Transaction, flag_text

START = info(
    637, 'start %s [%s] f="%s" th=%u cn=%u cs=%lu', "A client has connected.", fields=("client", "address", "flags", "th", "cn", "cs")
)
SENDER = info(
    717, 'sender <%s> f="%s" spf-mail=%s spf-helo=%s x="%s"', "MAIL FROM was answered with x=.", always=True,
    fields=("sender", "flags", "spf_mail", "spf_helo", "reply"),
)  # fmt: skip
RECIPIENT = info(718, 'recipient <%s> f="%s" x="%s"', "RCPT TO was answered with x=.", always=True, fields=("recipient", "flags", "reply"))
DATA = info(719, 'data x="%s"', "DATA was refused before the message was sent.", always=True, fields=("reply",))
MESSAGE = info(
    720, 'message <%s> f="%s" b=%lu m=%s %sx="%s"', "A message was answered with x=; m= is its id, b= its size in octets.", always=True,
    fields=("message_id", "flags", "octets", "tid", "subject", "reply"),
)  # fmt: skip
END = info(
    721, 'end i=%s p="%s" f="%s" h="%s" b=%lu t=%lu %s', "A session is over: octets received in b=, seconds in t=.", always=True,
    fields=("address", "client", "flags", "helo", "octets", "seconds", "p0f"),
)  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace('"', "'")


def client_flags(session: Session) -> str:
    return flag_text(session.flags, ClientFlag)


def start(session: Session, workers: int, sessions: int, this_second: int) -> None:
    session.log(START, session.name, session.address, client_flags(session), workers, sessions, this_second)


def sender(session: Session, transaction: Transaction, answer: Answer) -> None:
    session.journal.write(
        SENDER,
        transaction.sender.address,
        flag_text(transaction.mail_flags, MailFlag),
        transaction.spf_mail.value,
        transaction.spf_helo.value,
        _quoted(answer.first),
        session=session.sid,
        tid=transaction.tid,
    )


def recipient(session: Session, transaction: Transaction, recipient: Recipient, answer: Answer) -> None:
    session.journal.write(
        RECIPIENT,
        recipient.path.address,
        flag_text(recipient.flags, RcptFlag),
        _quoted(answer.first),
        session=session.sid,
        tid=transaction.tid,
    )


def data(session: Session, transaction: Transaction, answer: Answer) -> None:
    session.journal.write(DATA, _quoted(answer.first), session=session.sid, tid=transaction.tid)


def message(session: Session, transaction: Transaction, answer: Answer | None) -> None:
    subject = ""
    if session.journal.verbose.levels.get("subject"):
        subject = f's="{_quoted(transaction.subject[:60])}" '
    session.journal.write(
        MESSAGE,
        transaction.message_id,
        flag_text(transaction.flags, MsgFlag),
        transaction.octets,
        transaction.tid,
        subject,
        _quoted(answer.first) if answer is not None else "",
        session=session.sid,
        tid=transaction.tid,
        accepted_recipients=transaction.accepted_count,
        refused_recipients=transaction.refused_recipients,
        rejects=session.reject_count,
    )


def end(session: Session, seconds: int) -> None:
    session.journal.write(
        END,
        session.address,
        session.name,
        client_flags(session),
        _quoted(session.helo),
        session.octets,
        max(0, seconds),
        session.p0f,
        session=session.sid,
        forwarded=session.forwarded_count,
        mails=session.mail_count,
        rejects=session.reject_count,
        last_reject=_quoted(session.last_reject),
    )
