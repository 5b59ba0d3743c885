"""How large a message may be: Length-Connect:, Length-From: and Length-To: of the access map, and what SIZE= declares.

The largest Length-To: of the recipients counts, else the sender's entry, else the client's. Nobody is exempt, because the
limits are looked up before the lists. Source: RFC 1870; spec chapters filters-envelope, 13.4; maps, 14.
"""

from __future__ import annotations

import attrs

from smtpf.maps.access import AccessMap, Hit, size_of
from smtpf.pipeline import Filter, Verdict, reject
from smtpf.reply import Reply
from smtpf.smtp.replies import MAIL_SYNTAX
from smtpf.smtp.session import Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

MAX_DIGITS = 20
"""Digits of a SIZE= value (RFC 1870 6.1)."""
UNLIMITED = -1

SIZE_TOO_LONG = Reply(903, "501 5.5.4 <%s> SIZE exceeds RFC 1870 max. length", meaning="The number behind SIZE= has more than 20 digits.")
DECLARED_TOO_LARGE = Reply(
    901,
    "552 5.3.4 <%s> (%lu bytes) exceeded max. message size of %lu bytes",
    meaning="The size declared by SIZE= is over the Length- limit that holds for this recipient.",
)
TOO_LARGE = Reply(
    625,
    "550 5.3.4 %s [%s] (%lu bytes) exceeded max. message size of %lu bytes",
    meaning="The message is larger than its Length- limit.",
)
MESSAGE_SIZE = Counter("message-size", Group.MSG, "Recipients and messages refused for the size of the message.")


@attrs.define
class _Limits:
    """Of one transaction, in octets; below 1 there is no limit."""

    message: int = UNLIMITED
    recipients: int = UNLIMITED
    declared: int = 0

    @property
    def effective(self) -> int:
        return self.recipients if self.recipients > 0 else self.message


class Size(Filter):
    """Looks the limits up and keeps them."""

    def __init__(self, access: AccessMap) -> None:
        self._access = access

    async def connect(self, session: Session) -> Verdict | None:
        """Length-Connect: for EHLO, and for senders without entry."""
        found = _octets(await self._access.lookup_client("length-connect:", session.name, session.address, session.sid))
        session.size_limit = max(0, found or 0)
        return None

    async def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        """Length-From:, and the declared size."""
        limits = transaction.own(_Limits)
        found = _octets(await self._access.lookup_mail("length-from:", transaction.sender.address, session.sid))
        limits.message = session.size_limit if found is None else found
        declared = transaction.parameters.get("SIZE")
        if declared is None:
            return None
        if not declared.isascii() or not declared.isdigit():
            return reject(MAIL_SYNTAX)
        if len(declared) > MAX_DIGITS:
            return reject(SIZE_TOO_LONG, transaction.sender.address)
        limits.declared = int(declared)
        return None

    async def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """Length-To:, and whether the declared size keeps it."""
        limits = transaction.own(_Limits)
        address = recipient.path.address
        found = _octets(await self._access.lookup_mail("length-to:", address, session.sid))
        if found is not None:
            limits.recipients = max(limits.recipients, found)
        limit = limits.effective
        if 0 < limit < limits.declared:
            session.count(MESSAGE_SIZE)
            return reject(DECLARED_TOO_LARGE, address, limits.declared, limit)
        return None

    def dot(self, session: Session, transaction: Transaction) -> Verdict | None:
        """The size that the message really has."""
        limit = transaction.own(_Limits).effective
        if not 0 < limit < transaction.octets:
            return None
        session.count(MESSAGE_SIZE)
        return reject(TOO_LARGE, session.name, session.address, transaction.octets, limit)


def _octets(hit: Hit | None) -> int | None:
    """An entry without text is no limit; None without entry."""
    if hit is not None and not hit.failed and hit.text == "":
        return UNLIMITED
    return size_of(hit)
