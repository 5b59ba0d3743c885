"""Recipient addresses that end by themselves: ``john$20270101@example.com`` is john's until the first of January 2027.

The date field is taken out before the recipient is routed, so everybody behind sees the plain address; an address whose
time is over is refused. The time zone is this host's. Source: spec chapter filters-envelope, 13.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

import attrs

from smtpf.pipeline import Filter, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Text
from smtpf.smtp.grammar import Path, PathError, PathRules, Role, parse_path
from smtpf.smtp.session import Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

TIME_LIMIT_DELIMITERS = Text(
    "time-limit-delimiters",
    "",
    "Characters that begin an expiry date in the local part of a recipient, such as $. What follows is an optional word and "
    "the date as YYYY, YYYYMM, YYYYMMDD, YYYYMMDDhh or YYYYMMDDhhmm.",
    choices='atext characters; "" disables',
    since="later",
    area="time-limit",
)
EXPIRED = Reply(886, "550 5.7.1 recipient <%s> black listed", meaning="The date in the recipient's address has passed.")
TIME_LIMITED = Counter("time-limited-rcpt", Group.RCPT, "Recipients whose expiry date has passed.", since="later")


@attrs.frozen
class Limited:
    """A local part that has a date field."""

    local: str
    """Without the field."""
    until: float
    """Unix seconds of the expiry."""


@lru_cache(maxsize=16)
def _field(delimiters: str) -> re.Pattern[str]:
    marks = re.escape(delimiters)
    return re.compile(rf"(?P<before>[^{marks}]*)[{marks}][^0-9]*(?P<date>[0-9]+)(?P<after>.*)", re.DOTALL)


def limited(local: str, delimiters: str) -> Limited | None:
    """``local`` taken apart at the first of ``delimiters``; None when no possible date follows it."""
    found = _field(delimiters).fullmatch(local)
    if found is None:
        return None
    digits = found["date"]
    if not 4 <= len(digits) <= 12 or len(digits) % 2:
        return None
    parts = [int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, len(digits), 2))]
    year, month, day, hour, minute = (*parts, *(1, 1, 0, 0)[len(parts) - 1 :])
    try:
        until = datetime(year, month, day, hour, minute).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return Limited(found["before"] + found["after"], until)


class TimeLimit(Filter):
    """Takes the date out of a recipient's address, and refuses one that has passed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def address(self, session: Session, transaction: Transaction, recipient: Recipient) -> None:
        """Before the recipient is routed."""
        delimiters = session.settings[TIME_LIMIT_DELIMITERS]
        path = recipient.path
        if not delimiters or not path.qualified:
            return
        found = limited(path.local, delimiters)
        plain = _with_local(session, path, found.local) if found is not None else None
        if found is None or plain is None:
            return
        recipient.path = plain
        if found.until <= self._now():
            recipient.expired = path

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """The verdict on an address whose time is over; it is logged and refused as the client wrote it."""
        if recipient.expired is None:
            return None
        recipient.path = recipient.expired
        session.count(TIME_LIMITED)
        return reject(EXPIRED, recipient.path.address)


def _with_local(session: Session, path: Path, local: str) -> Path | None:
    """The path with another local part; None when that cannot be one."""
    domain = path.address[len(path.local) :]
    found = parse_path(f"<{local}{domain}>", Role.RECIPIENT, PathRules.of(session.settings))
    return None if isinstance(found, PathError) or found.domain != path.domain else found
