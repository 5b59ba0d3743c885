"""HELO and EHLO. Source: RFC 5321 4.1.1.1; spec chapter session, 3.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.pipeline import Code, Stage, Verdict
from smtpf.reply import Answer, Reply, render
from smtpf.smtp import chunking, counters, replies, starttls, utf8, xclient
from smtpf.smtp import options as opt
from smtpf.smtp.session import ClientFlag, State

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation


async def helo(talk: Conversation, argument: str, line: str) -> Verdict | Answer:
    """HELO: the plain greeting."""
    session = talk.session
    refused = await _greeted(talk, argument, replies.SCHIZOPHRENIC_HELO)
    if refused is not None:
        return refused
    session.flags.discard(ClientFlag.EHLO_NO_HELO)
    session.esmtp = False
    session.state = State.HELO
    return Verdict(Code.CONTINUE, replies.HELO_HELLO, (session.interface_name, session.name, session.address))


async def ehlo(talk: Conversation, argument: str, line: str) -> Verdict | Answer:
    """EHLO: the greeting that is answered with a list of extensions."""
    session = talk.session
    session.said_ehlo = True
    refused = await _greeted(talk, argument, replies.SCHIZOPHRENIC_EHLO, esmtp=True)
    if refused is not None:
        return refused
    session.esmtp = True
    session.state = State.EHLO
    hello = render(replies.EHLO_HELLO, (session.interface_name, session.name, session.address), session.sid)
    extensions = await _extensions(talk)
    lines = tuple(f"250{' ' if word == 'HELP' else '-'}{word}" for word in (*extensions, "HELP"))
    return Answer((*hello.lines, *lines), hello.number)


async def _greeted(talk: Conversation, argument: str, schizophrenic: Reply, *, esmtp: bool = False) -> Verdict | None:
    """What HELO and EHLO have in common: a refusal, or None with the transaction before it ended."""
    session = talk.session
    level = session.settings[opt.SMTP_HELO_SCHIZO]
    if level and session.helo and session.helo.lower() != argument.lower():
        session.count(counters.HELO_SCHIZOPHRENIC)
        session.flags.add(ClientFlag.SCHIZO)
        return Verdict(Code.DROP if level == 2 else Code.REJECT, schizophrenic, (session.name, session.address))
    session.helo = argument
    if esmtp and not _ehlo_allowed(talk):
        session.flags.add(ClientFlag.EHLO_NO_HELO)
        return Verdict(Code.REJECT, replies.EHLO_NOT_SUPPORTED)
    verdict = await talk.engine.pipeline.run(Stage.HELO, session)
    session.slots.immediate = None
    if verdict.negative:
        return verdict
    await talk.end_transaction()
    return None


def _ehlo_allowed(talk: Conversation) -> bool:
    session = talk.session
    return (
        session.settings[opt.SMTP_ENABLE_ESMTP]
        or session.usual_suspect
        or session.grey
        or ClientFlag.PASSED_GREY_LIST in session.flags
        or starttls.demanded(session)
    )


async def _extensions(talk: Conversation) -> list[str]:
    """Keywords of the EHLO reply but the last one, in order (RFC 5321 4.1.1.1)."""
    session = talk.session
    settings = session.settings
    offered = []
    if starttls.offered(talk):
        offered.append("STARTTLS")
    if settings[opt.SMTP_AUTH_ENABLE] and (not settings[opt.SMTP_AUTH_TLS] or session.tls is not None):
        offered.append("AUTH PLAIN LOGIN")
    offered.append("ENHANCEDSTATUSCODES")
    pause = None if session.known else session.command_pause
    if settings[opt.RFC2920_PIPELINING] if pause is None else pause == 0:
        offered.append("PIPELINING")
    if settings[opt.RFC1652_8BITMIME]:
        offered.append("8BITMIME")
    if chunking.offered(session):
        offered.append("CHUNKING")
    if utf8.offered(session):
        offered.append("SMTPUTF8")
    if xclient.allowed(talk):
        offered.append("XCLIENT ADDR HELO NAME PROTO")
    if talk.engine.queue_request is not None and await talk.engine.routes.local_route() is not None:
        offered.append("ETRN")
    offered.append(f"SIZE {session.size_limit}")
    return offered
