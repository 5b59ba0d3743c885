"""What a numbered SMTP reply is, and how it is written on the wire.

A module declares its replies as module constants. The text carries printf conversions; `` #NUMBER SESSION-ID`` is
added when it is rendered. Nobody types a reply by hand. Source: RFC 5321 4.2, RFC 3463, spec chapter session 2.1.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

MAX_LINE = 512
"""Octets of a reply line, CRLF included (RFC 5321 4.5.3.1.5)."""

_UNPRINTABLE = re.compile(r"[^\t\x20-\x7e]")


@attrs.frozen(eq=False)
class Reply:
    """A numbered reply: ``Reply(288, "550 5.7.1 recipient <%s> relaying denied")``."""

    number: int
    text: str
    meaning: str = attrs.field(default="", kw_only=True)
    """For the postmaster: when it is sent and what to do about it."""
    with_session: bool = attrs.field(default=True, kw_only=True)
    """False: the reply carries its number, but no session id."""

    @property
    def format(self) -> str:
        """The published form, as in ``smtpf list replies``."""
        return f"{self.text} #{self.number}" + (" %s" if self.with_session else "")


@attrs.frozen
class Answer:
    """A reply as it goes out: one or more lines without CRLF."""

    lines: tuple[str, ...]
    number: int = 0

    @property
    def code(self) -> int:
        return int(self.lines[0][:3])

    @property
    def first(self) -> str:
        return self.lines[0]

    @property
    def negative(self) -> bool:
        return self.lines[0][0] in "45"

    def encode(self) -> bytes:
        return ("\r\n".join(self.lines) + "\r\n").encode("ascii", "replace")


def printable(text: str) -> str:
    """``text`` with every octet that may not stand in a reply replaced by ``?``."""
    if text.isprintable() and text.isascii():
        return text
    return _UNPRINTABLE.sub("?", text)


def render(reply: Reply, args: tuple[Any, ...], session_id: str) -> Answer:
    """The line of ``reply``, or its lines. The variable part is cut so that number and session id always fit.

    A last argument that is a tuple gives a line for each of its texts; the number stands in the last line.
    """
    tail = f" #{reply.number} {session_id}" if reply.with_session else f" #{reply.number}"
    if args and isinstance(args[-1], tuple):
        texts = [printable(reply.text % (*args[:-1], text)) for text in args[-1]]
        before = tuple(f"{text[:3]}-{text[4:]}"[: MAX_LINE - 2] for text in texts[:-1])
        return Answer((*before, texts[-1][: MAX_LINE - 2 - len(tail)] + tail), reply.number)
    body = printable(reply.text % args if args else reply.text)
    return Answer((body[: MAX_LINE - 2 - len(tail)] + tail,), reply.number)
