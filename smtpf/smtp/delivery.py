"""DATA: the message comes in, is filtered, and goes out; what the next hops say of it becomes the client's answer.

Nothing is sent to a next hop before the dot stage has passed, and no 250 is given that a next hop has not given before.
Source: RFC 5321 4.1.1.4; spec chapter session, 4.7, 7 and 8.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import attrs

from smtpf.journal.message import err, info
from smtpf.message.header import HeaderList, split_headers
from smtpf.message.spool import SAVE_DIR, Spool
from smtpf.message.trace import received, with_word
from smtpf.pipeline import Code, Stage, Verdict
from smtpf.reply import Answer, render
from smtpf.smtp import counters, replies, summary, utf8
from smtpf.smtp import options as opt
from smtpf.smtp.dot_stuffing import DotReader
from smtpf.smtp.forward import combine
from smtpf.smtp.session import ClientFlag, MsgFlag, Session, State, Transaction
from smtpf.smtp.wire import Disconnected, TimedOut
from smtpf.stats.counter import Counter
from smtpf.stats.routes import Outcome

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

LOST = err(
    320, "client %s [%s] I/O error: %s (%d)", "The client went away or fell silent in the middle of a message. Nothing was delivered.",
    fields=("client", "address", "error", "errno"),
)  # fmt: skip
LONE_DOT = err(
    319, "client %s [%s] timeout after DOT-LF; message must end with CRLF-DOT-CRLF",
    "The client ended its message with a dot and a lone LF or CR, and waits for an answer that it will not get. Its software is broken.",
    fields=("client", "address"),
)  # fmt: skip
GONE_BEFORE = err(
    314, "%s [%s] I/O error: %s (%d)", "The client left before its message was relayed; the message was not delivered. It will come again.",
    fields=("client", "address", "error", "errno"),
)  # fmt: skip
MORE_BEHIND = info(
    315,
    "pipelining byte=%.2x",
    "smtp-disconnect-after-dot: the client sent more before its message was answered; the first octet is shown.",
)
GONE_AFTER = err(
    316, "%s [%s] I/O error: %s (%d)", "The client left while its message was relayed. It may come again; a duplicate is recognised.",
    fields=("client", "address", "error", "errno"),
)  # fmt: skip

MAX_HEADER = 256 * 1024
"""Octets of a header section; what is longer counts as body from there."""
MAX_HOPS = 100
"""Received fields of a message that is not going round (RFC 5321 6.3)."""
MAX_LINE = 1000
"""Octets of a message line, CRLF included, under rfc2821-line-length."""


class LostInData(Disconnected):
    """The client was lost in the middle of a message; it has been logged."""


@attrs.define(eq=False)
class Intake:
    """A message while it comes in."""

    reader: DotReader
    head: bytes = b""
    in_headers: bool = True
    dropped: Verdict | None = None
    """A filter ended the message at once."""
    spool: Spool | None = None


async def data(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """DATA: the data stage, the message, the dot stage, the next hops."""
    session = talk.session
    transaction = session.transaction
    assert transaction is not None
    refused = await begin(talk, transaction)
    if refused is not None:
        return refused
    await talk.write(replies.PRELIMINARY)
    session.count(counters.DATA_354)
    session.count(counters.MESSAGES)
    try:
        intake = await _take_in(talk, transaction)
        outcome = await dot(talk, transaction, intake)
    except Exception:
        summary.message(session, transaction, None)
        raise
    await answered(talk, transaction, outcome)
    if intake.dropped is not None:
        # What comes next is the rest of the message, and no command.
        talk.ending = True
    return None


async def begin(talk: Conversation, transaction: Transaction) -> Verdict | None:
    """The data stage. Its refusal, or None with the session in state DATA."""
    session = talk.session
    session.count(counters.DATA)
    _note_recipients_without_delivery(transaction)
    verdict = await talk.engine.pipeline.run(Stage.DATA, session, transaction)
    if verdict.negative:
        session.slots.immediate = None
        session.count({Code.DROP: counters.DATA_DROP, Code.REJECT: counters.DATA_REJECT}.get(verdict.code, counters.DATA_TEMPFAIL))
        assert verdict.reply is not None
        summary.data(session, transaction, render(verdict.reply, verdict.args, session.sid))
        return verdict
    if verdict.code is Code.ACCEPT:
        session.count(counters.DATA_ACCEPT)
    session.slots.begin_data()
    session.state = State.DATA
    return None


def _note_recipients_without_delivery(transaction: Transaction) -> None:
    """When no recipient is left to forward to, the whole message is discarded or trapped."""
    if transaction.recipients and all(recipient.discarded for recipient in transaction.recipients):
        trapped = any(recipient.trapped for recipient in transaction.recipients)
        transaction.flags.add(MsgFlag.TRAP if trapped else MsgFlag.DISCARD)


# Taking the message in


async def _take_in(talk: Conversation, transaction: Transaction) -> Intake:
    """Read up to the final dot while the headers and content stages look on. Raises Disconnected, TimedOut."""
    session, wire = talk.session, talk.wire
    settings = session.settings
    reader = DotReader(settings[opt.RFC2821_STRICT_DOT], measure=bool(settings[opt.RFC2821_LINE_LENGTH]))
    intake = Intake(reader)
    clock, timeout = talk.engine.reactor, settings[opt.SMTP_DATA_LINE_TIMEOUT]
    line_began = clock.seconds()
    while not reader.finished:
        try:
            octets = await wire.octets(max(0.001, line_began + timeout - clock.seconds()))
        except TimedOut:
            session.octets += reader.octets
            _silent(session, reader)
            raise LostInData(os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT) from None
        except Disconnected as gone:
            session.octets += reader.octets
            session.log(LOST, session.name, session.address, str(gone), gone.errno)
            raise LostInData(str(gone), gone.errno) from None
        await feed(talk, transaction, intake, octets)
        if b"\n" in octets:
            line_began = clock.seconds()
        transaction.octets = reader.octets
        if intake.dropped is not None:
            session.octets += reader.octets
            return intake
    wire.unread(reader.rest)
    session.octets += reader.octets + 3
    await complete(talk, transaction, intake)
    return intake


async def feed(talk: Conversation, transaction: Transaction, intake: Intake, octets: bytes) -> None:
    """The next octets as they stand on the wire, dots stuffed."""
    session, reader = talk.session, intake.reader
    chunk = reader.feed(octets)
    if chunk or reader.finished:
        transaction.complete = reader.finished
        await _chunk(talk, transaction, intake, chunk)
    lines = session.settings[opt.RFC2821_LINE_LENGTH]
    if lines and reader.longest_line > MAX_LINE and session.slots.immediate is None:
        session.count(counters.LINE_LENGTH)
        verdict = Verdict(Code.DROP if lines == 2 else Code.REJECT, replies.LINE_TOO_LONG, (reader.longest_line,))
        session.slots.take(verdict)
        if lines == 2:
            intake.dropped = verdict


async def complete(talk: Conversation, transaction: Transaction, intake: Intake) -> None:
    """The end of the message has been read."""
    if intake.in_headers:
        await _header_section(talk, transaction, intake, end=True)
    if intake.spool is not None:
        intake.spool.checked = intake.reader.plain
        waiting = intake.spool.finish()
        if waiting is not None:
            await waiting


def _silent(session: Session, reader: DotReader) -> None:
    session.count(counters.CLIENT_TIMEOUT)
    if reader.after_lone_dot:
        session.log(LONE_DOT, session.name, session.address)
        session.count(counters.STRICT_DOT)
    else:
        session.log(LOST, session.name, session.address, os.strerror(errno.ETIMEDOUT), errno.ETIMEDOUT)


async def _chunk(talk: Conversation, transaction: Transaction, intake: Intake, chunk: bytes) -> None:
    """One piece of the message: headers until they end, then body."""
    if intake.dropped is not None:
        return
    if intake.in_headers:
        intake.head += chunk
        await _header_section(talk, transaction, intake, end=len(intake.head) >= MAX_HEADER or transaction.complete)
    else:
        await _body(talk, transaction, intake, chunk)


async def _header_section(talk: Conversation, transaction: Transaction, intake: Intake, *, end: bool) -> None:
    """Once the header section is complete: note it, add ours, and run the headers stage."""
    found = split_headers(intake.head, final=end)
    if found is None:
        return
    session = talk.session
    body = found.body
    intake.in_headers = False
    intake.head = b""
    transaction.header_end = found.end
    headers = transaction.headers = HeaderList.parse(found.headers)
    transaction.original_headers = headers.fields
    if len(headers.all("Received")) > MAX_HOPS:
        session.slots.take(Verdict(Code.REJECT, replies.TOO_MANY_HOPS))
    headers.prepend_raw(_received(session, transaction, talk.engine.now()))
    verdict = await talk.engine.pipeline.run(Stage.HEADERS, session, transaction)
    if verdict.code is Code.DROP:
        intake.dropped = verdict
        return
    if verdict.code is Code.DISCARD:
        transaction.flags.add(MsgFlag.DISCARD)
    engine = talk.engine
    suffix = f"{engine.rng.getrandbits(64):016x}"
    section = headers.encode()
    intake.spool = transaction.spool = Spool(
        transaction.tid, session.settings[SAVE_DIR], suffix, transaction.sender.address, section, engine.in_thread, engine.room
    )
    if body or transaction.complete:
        await _body(talk, transaction, intake, body, filtered=verdict.code in (Code.GREY, Code.TEMPFAIL, Code.REJECT))


def _received(session: Session, transaction: Transaction, now: float) -> bytes:
    """Our Received field (7.3)."""
    tls = session.tls
    word = with_word(session.esmtp, tls is not None, session.auth)
    return received(
        helo=session.helo,
        client_name=session.name,
        client_address=session.address,
        interface_name=session.interface_name,
        interface_address=session.interface_address,
        sender=transaction.sender.address,
        protocol=word.replace("ESMTP", "UTF8SMTP") if utf8.asked(transaction) else word,
        cipher=tls.text if tls is not None else "",
        tid=transaction.tid,
        ret_id=transaction.emew,
        when=now,
    )


async def _body(talk: Conversation, transaction: Transaction, intake: Intake, chunk: bytes, *, filtered: bool = False) -> None:
    """Spool a piece of the body and run the content stage, unless the headers stage has ``filtered`` it out already."""
    assert intake.spool is not None
    if chunk:
        waiting = intake.spool.write(chunk)
        if waiting is not None:
            await waiting
    if filtered:
        return
    verdict = await talk.engine.pipeline.run(Stage.CONTENT, talk.session, transaction, chunk)
    if verdict.code is Code.DROP:
        intake.dropped = verdict
    elif verdict.code is Code.DISCARD:
        transaction.flags.add(MsgFlag.DISCARD)


# The dot


async def dot(talk: Conversation, transaction: Transaction, intake: Intake) -> Verdict:
    """What becomes of the message: the verdict whose reply the client hears."""
    verdict = await _judged(talk, transaction, intake)
    if verdict.code is Code.REJECT and talk.session.settings[opt.SMTP_DROP_DOT]:
        return attrs.evolve(verdict, code=Code.DROP)
    return verdict


async def _judged(talk: Conversation, transaction: Transaction, intake: Intake) -> Verdict:
    """The dot stage, and the next hops where it lets the message pass (4.7)."""
    session, settings = talk.session, talk.session.settings
    if intake.dropped is not None:
        return intake.dropped
    assert intake.spool is not None
    if intake.spool.error is not None:
        session.log(intake.spool.error.message, *intake.spool.error.args)
        return Verdict(Code.TEMPFAIL, replies.INTERNAL_ERROR_LATER)
    bare = "LF" if intake.reader.bare_lf else "CR" if intake.reader.bare_cr else ""
    if bare and not session.trusted and settings[opt.RFC2821_STRICT_DOT]:
        return Verdict(Code.REJECT, replies.BARE_LINE_END, (bare,))
    verdict = await talk.engine.pipeline.run(Stage.DOT, session, transaction)
    if MsgFlag.TRAP in transaction.flags:
        return Verdict(Code.REJECT, replies.BLOCKED, fact="trap")
    if verdict.negative:
        return verdict
    if verdict.code is Code.DISCARD or MsgFlag.DISCARD in transaction.flags:
        return Verdict(Code.DISCARD, replies.MESSAGE_ACCEPTED, (transaction.tid,), fact=verdict.fact)
    return await _relay(talk, transaction)


async def _relay(talk: Conversation, transaction: Transaction) -> Verdict:
    """Send the message to every next hop with an accepted recipient."""
    session, wire = talk.session, talk.wire
    if wire.gone is not None:
        session.log(GONE_BEFORE, session.name, session.address, str(wire.gone), wire.gone.errno)
        session.count(counters.DISCONNECT_AFTER_DOT)
        raise LostInData(str(wire.gone), wire.gone.errno)
    if session.settings[opt.SMTP_DISCONNECT_AFTER_DOT] and wire.pending and not session.usual_suspect:
        session.log(MORE_BEHIND, wire.peek(1)[0])
    if talk.killed is not None:
        raise LostInData(os.strerror(errno.ECONNABORTED), errno.ECONNABORTED)
    talk.relaying = True
    try:
        outcomes = await talk.engine.forwarder.deliver(session, transaction, talk.forwards)
    finally:
        talk.relaying = False
    verdict = combine(outcomes, transaction.tid)
    transaction.delivered = any(outcome.accepted for outcome in outcomes)
    if transaction.delivered and talk.engine.dsn is not None:
        talk.engine.dsn.report(session, transaction, outcomes)
    pause = session.settings[opt.TEST_PAUSE_AFTER_DOT]
    if pause:
        await wire.rest(pause)
    if wire.gone is not None:
        session.log(GONE_AFTER, session.name, session.address, str(wire.gone), wire.gone.errno)
    return verdict


_BY_CODE: dict[Code, Counter] = {
    Code.CONTINUE: counters.MSG_ACCEPT,
    Code.ACCEPT: counters.MSG_ACCEPT,
    Code.REJECT: counters.MSG_REJECT,
    Code.TEMPFAIL: counters.MSG_TEMPFAIL,
    Code.DISCARD: counters.MSG_DISCARD,
    Code.DROP: counters.MSG_DROP,
}


async def answered(talk: Conversation, transaction: Transaction, verdict: Verdict) -> None:
    """Count and log the outcome, answer the client, and end the transaction."""
    session = talk.session
    session.state = State.EHLO if session.esmtp else State.HELO
    session.slots.immediate = None
    session.count(counters.MSG_TRAP if verdict.reply is replies.BLOCKED else _BY_CODE[verdict.code])
    if transaction.delivered:
        session.forwarded_count += 1
    transaction.outcome = verdict
    accepted = verdict.reply is replies.MESSAGE_ACCEPTED
    if not accepted:
        summary.message(session, transaction, talk.rendered(verdict))
    try:
        await talk.respond(verdict, partial(summary.message, session, transaction) if accepted else None)
    except (Disconnected, TimedOut):
        session.flags.add(ClientFlag.IO_ERROR)
        raise
    await talk.end_transaction()


def count_routes(talk: Conversation, transaction: Transaction) -> None:
    """The per-route statistics of a finished transaction (17)."""
    outcome = transaction.outcome
    became = Outcome.NEITHER
    if outcome is not None and outcome.code in (Code.CONTINUE, Code.ACCEPT):
        became = Outcome.ACCEPTED
    elif outcome is not None and outcome.code in (Code.REJECT, Code.DROP):
        became = Outcome.REJECTED
    for forward in talk.forwards:
        failed = forward.broken or not forward.recipients
        talk.engine.route_counts.add(forward.route_key, Outcome.REJECTED if failed else became, transaction.octets)
