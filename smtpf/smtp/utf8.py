"""SMTPUTF8: addresses in UTF-8, when the client asks for it (RFC 6531).

A command line is US-ASCII, except MAIL that asks for SMTPUTF8 and RCPT of a transaction that did. Source: RFC 6531 3.1
and 3.3; spec chapter session, 1.7 and 3.2; security row I.
"""

from __future__ import annotations

import re

from smtpf.smtp import options as opt
from smtpf.smtp.session import Session, Transaction

KEYWORD = "SMTPUTF8"
_ASKED = re.compile(r"[ \t]SMTPUTF8(?:[ \t]|$)", re.IGNORECASE)
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def offered(session: Session) -> bool:
    """SMTPUTF8 stands in the EHLO reply: it needs 8BITMIME (RFC 6531 3.1)."""
    return session.esmtp and session.settings[opt.RFC6531_SMTPUTF8] and session.settings[opt.RFC1652_8BITMIME]


def asked(transaction: Transaction | None) -> bool:
    """MAIL of this transaction asked for it."""
    return transaction is not None and KEYWORD in transaction.parameters


def decode(session: Session, line: bytes) -> str | None:
    """A line that is not US-ASCII, without its end; None where UTF-8 may not stand, and for octets that are none.

    Control characters and line separators of Unicode are refused like those of US-ASCII.
    """
    verb = line[:5].upper()
    if not offered(session) or verb not in (b"MAIL ", b"RCPT ") or not line.endswith(b"\n"):
        return None
    try:
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        return None
    if _UNSAFE.search(text):
        return None
    wanted = _ASKED.search(text) is not None if verb == b"MAIL " else asked(session.transaction)
    return text if wanted else None
