"""BDAT: a message in chunks whose length is told beforehand, without a final dot (RFC 3030 2).

The chunks go the way of DATA: the same stages, the same limits, the same answers, and DATA towards the next hop. What
belongs to a chunk is always read to its last octet, whatever the answer, because none of it may ever be taken for a
command. Source: RFC 3030 2 and 4.2; security rows A, J and L3.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from smtpf.pipeline import Code, Verdict
from smtpf.smtp import counters, delivery, replies
from smtpf.smtp import options as opt
from smtpf.smtp.dot_stuffing import DotReader
from smtpf.smtp.session import Session, State, Transaction
from smtpf.smtp.wire import Disconnected, TimedOut

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

MAX_CHUNK = 10**12
"""Octets that a client may announce. More is no length that anybody means."""
PIECE = 65536
"""Octets of a chunk taken at a time."""

_ARGUMENT = re.compile(r"(\d{1,20})(?:[ \t]+(LAST))?", re.IGNORECASE)
_LINE_DOT = re.compile(rb"(?<=\n)\.")


def offered(session: Session) -> bool:
    """CHUNKING stands in the EHLO reply."""
    return session.esmtp and session.settings[opt.RFC3030_CHUNKING]


class Chunking:
    """A message that comes by BDAT, between its chunks."""

    def __init__(self) -> None:
        self.intake = delivery.Intake(DotReader())
        self.octets = 0
        """Octets of all chunks so far."""
        self.refused: Verdict | None = None
        """What further chunks of this message are told."""
        self._end = b"\r\n"

    def stuffed(self, octets: bytes) -> bytes:
        """The octets as DATA would carry them."""
        if self._end.endswith(b"\n") and octets.startswith(b"."):
            octets = b"." + octets
        octets = _LINE_DOT.sub(b"..", octets)
        self._end = (self._end + octets)[-2:]
        return octets

    def end(self) -> bytes:
        """What ends the message as DATA would."""
        return b".\r\n" if self._end == b"\r\n" else b"\r\n.\r\n"


async def bdat(talk: Conversation, argument: str, line: str) -> Verdict | None:
    """BDAT: one chunk."""
    session = talk.session
    if not offered(session):
        talk.ending = True
        return Verdict(Code.REJECT, replies.UNKNOWN_COMMAND, ("BDAT",))
    asked = _ARGUMENT.fullmatch(argument)
    if asked is None or int(asked[1]) > MAX_CHUNK:
        talk.ending = True
        return Verdict(Code.REJECT, replies.CHUNK_SYNTAX)
    length, last = int(asked[1]), asked[2] is not None
    transaction = session.transaction
    if transaction is None or session.state not in (State.RCPT, State.DATA):
        return await _past(talk, length, Verdict(Code.REJECT, replies.OUT_OF_SEQUENCE, ("BDAT",)))
    if talk.chunking is None:
        talk.chunking = Chunking()
        session.count(counters.MESSAGES)
        talk.chunking.refused = await delivery.begin(talk, transaction)
        if talk.chunking.refused is not None:
            session.state = State.DATA
            return await _past(talk, length, talk.chunking.refused)
    elif talk.chunking.refused is not None:
        return await _past(talk, length, Verdict(Code.REJECT, replies.OUT_OF_SEQUENCE, ("BDAT",)))
    return await _take(talk, transaction, talk.chunking, length, last)


async def _take(talk: Conversation, transaction: Transaction, chunking: Chunking, length: int, last: bool) -> Verdict | None:
    """Take one chunk in; the answer to it, or to the message."""
    intake = chunking.intake
    left = length
    while left:
        octets = await _octets(talk, left)
        left -= len(octets)
        chunking.octets += len(octets)
        await delivery.feed(talk, transaction, intake, chunking.stuffed(octets))
        transaction.octets = chunking.octets
        if intake.dropped is not None:
            # The rest of the chunk is no command.
            talk.ending = True
            await delivery.answered(talk, transaction, intake.dropped)
            talk.ending = True
            return None
    if not last:
        return Verdict(Code.CONTINUE, replies.CHUNK_TAKEN, (length,))
    await delivery.feed(talk, transaction, intake, chunking.end())
    await delivery.complete(talk, transaction, intake)
    outcome = await delivery.dot(talk, transaction, intake)
    await delivery.answered(talk, transaction, outcome)
    return None


async def _past(talk: Conversation, length: int, answer: Verdict) -> Verdict:
    """Read a chunk that nobody wants."""
    while length:
        length -= len(await _octets(talk, length))
    return answer


async def _octets(talk: Conversation, most: int) -> bytes:
    session = talk.session
    try:
        octets = await talk.wire.octets(session.settings[opt.SMTP_DATA_LINE_TIMEOUT], min(most, PIECE))
    except TimedOut:
        session.count(counters.CLIENT_TIMEOUT)
        session.log(delivery.LOST, session.name, session.address, os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT)
        raise delivery.LostInData(os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT) from None
    except Disconnected as gone:
        session.log(delivery.LOST, session.name, session.address, str(gone), gone.errno)
        raise delivery.LostInData(str(gone), gone.errno) from None
    session.octets += len(octets)
    return octets
