"""Null-Rate-To: how many messages of the null sender an address or a domain may get in a minute, against backscatter.

The key of the entry that matches is what is counted under, so one entry of a domain is one limit for all of it. Windows
live in the memory of this node. Source: spec chapter filters-envelope, 13.6.
"""

from __future__ import annotations

from smtpf.filters.counting import Tallies, counted
from smtpf.maps.access import AccessMap, number_of
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.counter import Counter, Group

TAG = "null-rate-to:"
TOO_MANY = Reply(
    505,
    "550 5.7.1 null-sender messages %ld for <%s> exceed %ld/60s",
    meaning="Null-Rate-To: the recipient, or its domain, got too many bounces within a minute.",
)
NULL_RATE_TO = Counter("null-rate-to", Group.RCPT, "Messages from the null sender over their Null-Rate-To: limit.")


class NullRate(Filter):
    """Counts the null sender's messages by entry of the access map."""

    def __init__(self, access: AccessMap, tallies: Tallies) -> None:
        self._access = access
        self._tallies = tallies

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not transaction.sender.is_null or session.usual_suspect:
            return None
        return self._count(session, transaction)

    async def _count(self, session: Session, transaction: Transaction) -> Verdict | None:
        for recipient in transaction.recipients:
            address = recipient.path.address
            hit = await self._access.lookup_mail(TAG, address, session.sid)
            limit = number_of(hit)
            if hit is None or limit is None or limit < 0:
                continue
            count = await counted(self._tallies.bounces.add(hit.key))
            if count > limit:
                session.count(NULL_RATE_TO)
                return reject(TOO_MANY, count, address, limit, fact=hit.key)
        return None
