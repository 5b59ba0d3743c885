"""What an infected message leads to: marks, a count, a log line, and what the scanner's policy says.

Shared by all scanners, so that a virus is treated alike whoever finds it. Source: spec chapter filters-content, 1.5.
"""

from __future__ import annotations

import re

import attrs

from smtpf.journal.message import Level, Message
from smtpf.pipeline import Verdict, discard, reject
from smtpf.reply import Reply
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

VIRUS_INFECTED = Counter("virus-infected", Group.MSG, "Messages in which a scanner found a virus, whatever became of them.")

MAX_NAME = 100
"""Characters of a virus' name."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IGNORED = ", but ignored because OK+AV"


def virus_name(text: str) -> str:
    """The name as it may stand in a reply."""
    return _CONTROL.sub("?", text.strip())[:MAX_NAME].strip()


def infected(session: Session, transaction: Transaction, words: str, policy: str, log: Message, reply: Reply) -> Verdict | None:
    """A scanner found something; ``words`` follow ``message MID`` in the text."""
    session.count(VIRUS_INFECTED)
    transaction.flags.add(MsgFlag.INFECTED)
    return by_policy(session, transaction, words, policy, log, reply)


def by_policy(session: Session, transaction: Transaction, words: str, policy: str, log: Message, reply: Reply) -> Verdict | None:
    """Refuse, discard or deliver by the first letter of ``policy``; OK+AV delivers always."""
    transaction.flags.add(MsgFlag.POLICY)
    text = f"message {transaction.tid} {words}"
    if MsgFlag.OK_AV in transaction.flags:
        session.log(_as_information(log), text + _IGNORED)
        return None
    match policy[:1].lower():
        case "r":
            session.log(_as_information(log), text)
            return reject(reply, text, fact=words)
        case "d":
            session.log(log, text)
            transaction.flags.add(MsgFlag.DISCARD)
            return discard(words)
    session.log(log, text)
    return None


def _as_information(log: Message) -> Message:
    """The same message where nothing is to be done about it."""
    return attrs.evolve(log, level=Level.INFO, word="info", always=False)
