"""How a reply is dressed before it leaves: padding, the reject file, slow sending. Source: spec chapter session, 2.3 and 2.4."""

from __future__ import annotations

from smtpf.reply import MAX_LINE, Answer
from smtpf.smtp import options as opt
from smtpf.smtp.session import ClientFlag, Session, State
from smtpf.smtp.wire import Wire

MAX_REJECT_DELAY = 300.0
"""Seconds: the longest single wait of smtp-reject-delay."""
SLOW_PIECE = 10
"""Octets that leave at once under smtp-slow-reply."""
SLOW_REST = 12
"""A rest of so many octets goes in one piece, so that CRLF is never alone."""
SLOW_PAUSE = 0.5
"""Seconds between the pieces."""


def decorate(session: Session, answer: Answer, reject_lines: tuple[str, ...]) -> Answer:
    """Pad the reply, or add the reject file's lines to a permanent refusal."""
    if session.state is State.CONN:
        octet = session.settings[opt.RFC2821_PAD_REPLY_OCTET]
        if octet and len(answer.lines) == 1 and not session.usual_suspect and not session.grey and not _passed(session):
            fill = octet[0] if octet[0].isprintable() and octet[0].isascii() else " "
            return Answer((answer.first.ljust(MAX_LINE - 2, fill),), answer.number)
        return answer
    if reject_lines and answer.first.startswith("5") and not session.usual_suspect:
        return with_lines(answer, reject_lines)
    return answer


def with_words(answer: Answer, words: str) -> Answer:
    """The reply with ``words`` behind its last line, if they fit there."""
    last = answer.lines[-1] + words
    if not words or len(last) > MAX_LINE - 2:
        return answer
    return Answer((*answer.lines[:-1], last), answer.number)


def with_lines(answer: Answer, more: tuple[str, ...]) -> Answer:
    """The reply with further lines of the same code and enhanced code."""
    last = answer.lines[-1]
    code, _, rest = last.partition(" ")
    enhanced = rest.split(" ", 1)[0]
    prefix = enhanced + " " if enhanced.count(".") == 2 and enhanced.replace(".", "").isdigit() else ""
    between = (f"{code}-{prefix}{line}" for line in more[:-1])
    return Answer((*answer.lines[:-1], f"{code}-{rest}", *between, f"{code} {prefix}{more[-1]}"), answer.number)


async def send_slowly(wire: Wire, octets: bytes, timeout: float) -> None:
    """Write in pieces of ten octets with half a second between them."""
    at = 0
    while len(octets) - at > SLOW_REST:
        await _sent(wire, octets[at : at + SLOW_PIECE], timeout)
        at += SLOW_PIECE
        await wire.rest(SLOW_PAUSE)
    await _sent(wire, octets[at:], timeout)


async def _sent(wire: Wire, octets: bytes, timeout: float) -> None:
    waiting = wire.send(octets, timeout)
    if waiting is not None:
        await waiting


def _passed(session: Session) -> bool:
    return ClientFlag.PASSED_GREY_LIST in session.flags
