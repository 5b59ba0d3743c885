"""The SMTP commands: which verb is allowed in which state, and where each is carried out.

Source: RFC 5321 4.1; spec chapter session, 3.1 and 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from smtpf.journal.message import warn
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Answer, Reply
from smtpf.smtp import auth, chunking, counters, delivery, envelope, greeting, proxy_protocol, replies, starttls, xclient
from smtpf.smtp import options as opt
from smtpf.smtp.administration import may_administer
from smtpf.smtp.idle import idle
from smtpf.smtp.session import ClientFlag, Session, State

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

_LINE = re.compile(rb"([\t\x20-\x7e]*)\r?\n")

HTTP_REQUEST = warn(
    1148,
    "%s [%s] sent an HTTP request: %s",
    "A browser or a program that takes this port for a web server. From localhost it may be a web page that tries to reach into the node. "
    "The connection was closed at that line.",
    fields=("client", "address", "verb"), since="new",
)  # fmt: skip
_HTTP_VERBS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PRI"})
_HTTP_LINE = re.compile(r"\S+ \S.* HTTP/\d(?:\.\d)?", re.IGNORECASE)
_BLANKS = " \t"
_BLANK = re.compile("[ \t]")

Run = Callable[["Conversation", str, str], Awaitable[Verdict | Answer | None]]


@attrs.frozen
class _Rule:
    """How one verb is treated. ``states`` are those in which ``run`` is called; ``wrong`` is the reply in the others."""

    run: Run | None
    states: frozenset[State]
    needs_argument: bool = False
    wrong: dict[State, Reply] = attrs.field(factory=dict)


def is_known(talk: Conversation, verb: str) -> bool:
    """Whether ``verb`` is a command, for whomever."""
    return verb in _RULES or verb in talk.engine.administration


async def run(talk: Conversation, verb: str, argument: str, line: str) -> Verdict | Answer | None:
    """Carry out one command; its reply, or None when it has replied itself."""
    session = talk.session
    state = session.state
    if verb == "AUTH":
        session.said_auth = True
    if state is State.SINK and verb != "QUIT":
        return Verdict(Code.CONTINUE, replies.NOT_AVAILABLE)
    if state is State.CONN and (verb in _HTTP_VERBS or _HTTP_LINE.fullmatch(line)):
        session.log(HTTP_REQUEST, session.name, session.address, verb)
        talk.ending = True
        return Verdict(Code.DROP, replies.UNKNOWN_COMMAND, (verb,))
    if state is State.CONN and verb == "PROXY":
        session.log(proxy_protocol.REFUSED, talk.transport_address, proxy_protocol.NOT_NAMED)
        talk.ending = True
        return Verdict(Code.DROP, replies.UNKNOWN_COMMAND, (verb,))
    forced = _forced(session, verb)
    if forced is not None:
        return forced
    administration = talk.engine.administration.get(verb)
    if administration is not None:
        if state in (State.MAIL, State.RCPT, State.DATA):
            return Verdict(Code.CONTINUE, replies.OUT_OF_SEQUENCE, (verb,))
        return await administration(talk, argument, line)
    rule = _RULES.get(verb)
    if rule is None:
        return await unknown(talk, verb)
    if state not in rule.states:
        return Verdict(Code.CONTINUE, rule.wrong.get(state, replies.OUT_OF_SEQUENCE), (verb,))
    if rule.needs_argument and not argument:
        return await missing_argument(talk, line)
    assert rule.run is not None
    return await rule.run(talk, argument, line)


def decode(line: bytes) -> str | None:
    """A command line without its end; None when it holds anything but printable US-ASCII and TAB."""
    match = _LINE.fullmatch(line)
    return match[1].decode("ascii") if match else None


def split(text: str) -> tuple[str, str]:
    """Verb and argument; the verb ends at the first white space."""
    if text[:1] in _BLANKS:
        return "", text.strip(_BLANKS)
    verb, *behind = _BLANK.split(text, maxsplit=1)
    return verb, behind[0].strip(_BLANKS) if behind else ""


async def missing_argument(talk: Conversation, line: str) -> Verdict:
    refused = await idle(talk)
    return refused or Verdict(Code.CONTINUE, replies.MISSING_ARGUMENT, (line,))


def _forced(session: Session, verb: str) -> Verdict | None:
    """``test-on-command``."""
    asked = session.settings[opt.TEST_ON_COMMAND]
    if not asked:
        return None
    action, _, command = asked.partition(",")
    if command.strip().upper() != verb:
        return None
    return {
        "temp-fail": Verdict(Code.TEMPFAIL, replies.TRY_AGAIN),
        "reject": Verdict(Code.REJECT, replies.MESSAGE_REJECTED, (session.sid,)),
        "drop": Verdict(Code.DROP, replies.MESSAGE_REJECTED, (session.sid,)),
    }.get(action.strip().lower())


async def unknown(talk: Conversation, verb: str) -> Verdict:
    """The answer to a verb that does not exist, or not for this client (#248)."""
    session = talk.session
    code = Code.REJECT
    said_helo = session.helo != "" and not session.esmtp
    if session.settings[opt.SMTP_DROP_UNKNOWN] and not session.trusted and (not verb.startswith("X") or said_helo):
        session.count(counters.DROP_UNKNOWN)
        code = Code.DROP
    else:
        refused = await idle(talk)
        if refused is not None:
            return refused
    return Verdict(code, replies.UNKNOWN_COMMAND, (verb,))


async def _noop(talk: Conversation, argument: str, line: str) -> Verdict:
    return await idle(talk) or Verdict(Code.CONTINUE, replies.OK)


async def _help(talk: Conversation, argument: str, line: str) -> Verdict | Answer:
    refused = await idle(talk)
    if refused is not None:
        return refused
    lines = [
        "214-2.0.0 ESMTP commands:",
        "214-2.0.0   AUTH DATA EHLO ETRN HELO HELP NOOP MAIL RCPT RSET QUIT STARTTLS",
        "214-2.0.0 Not implemented:",
        "214-2.0.0   EXPN TURN VRFY",
    ]
    if talk.engine.administration and may_administer(talk.session):
        lines += ["214-2.0.0 Administration:", "214-2.0.0   " + " ".join(sorted({*talk.engine.administration, "XCLIENT"}))]
    return Answer((*lines, "214 2.0.0 End"))


async def _rset(talk: Conversation, argument: str, line: str) -> Verdict:
    session = talk.session
    if session.state is not State.CONN:
        await talk.end_transaction()
        if talk.queue is not None:
            await talk.queue.reset()
        session.state = State.EHLO if session.esmtp else State.HELO
    return Verdict(Code.CONTINUE, replies.OK)


async def _quit(talk: Conversation, argument: str, line: str) -> Verdict:
    session = talk.session
    after = {State.RCPT: counters.QUIT_AFTER_RCPT, State.EHLO: counters.QUIT_AFTER_EHLO, State.HELO: counters.QUIT_AFTER_HELO}.get(
        session.state
    )
    if after is not None:
        session.count(after)
    session.slots.delayed = None
    session.state = State.QUIT
    session.count(counters.CLEAN_QUIT)
    session.flags.add(ClientFlag.QUIT)
    talk.ending = True
    return Verdict(Code.CONTINUE, replies.CLOSING, (session.interface_name,))


_EVERYWHERE = frozenset(State)
_GREETED = frozenset({State.HELO, State.EHLO})
_EHLO = frozenset({State.EHLO})
_NOT_IN_MAIL = dict.fromkeys((State.HELO, State.EHLO, State.MAIL, State.RCPT), replies.NOT_IMPLEMENTED)

_RULES: dict[str, _Rule] = {
    "EHLO": _Rule(greeting.ehlo, _EVERYWHERE, needs_argument=True),
    "HELO": _Rule(greeting.helo, _EVERYWHERE, needs_argument=True),
    "MAIL": _Rule(envelope.mail, _GREETED, needs_argument=True),
    "RCPT": _Rule(envelope.rcpt, frozenset({State.MAIL, State.RCPT}), needs_argument=True),
    "DATA": _Rule(delivery.data, frozenset({State.RCPT})),
    "BDAT": _Rule(chunking.bdat, _EVERYWHERE),
    "RSET": _Rule(_rset, _EVERYWHERE),
    "NOOP": _Rule(_noop, _EVERYWHERE),
    "HELP": _Rule(_help, _EVERYWHERE),
    "QUIT": _Rule(_quit, _EVERYWHERE),
    "AUTH": _Rule(auth.auth, _EHLO, needs_argument=True),
    "STARTTLS": _Rule(starttls.starttls, _EHLO),
    "ETRN": _Rule(envelope.etrn, _EHLO, needs_argument=True, wrong={State.HELO: replies.NOT_IMPLEMENTED}),
    "XCLIENT": _Rule(xclient.xclient, frozenset({State.CONN, *_GREETED}), needs_argument=False),
    "VRFY": _Rule(None, frozenset(), wrong=_NOT_IN_MAIL),
    "EXPN": _Rule(None, frozenset(), wrong=_NOT_IN_MAIL),
    "TURN": _Rule(None, frozenset(), wrong=_NOT_IN_MAIL),
}
