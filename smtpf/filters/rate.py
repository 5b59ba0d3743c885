"""``Rate-Connect:`` limits how many connections a client makes in a minute.

The first test of a connection, before anything is asked in the DNS on its behalf. Refused connections count too, so a client
that keeps knocking stays out. An IPv6 client is counted by its /64 network. Source: spec chapter filters-envelope, 3.2.
"""

from __future__ import annotations

from smtpf.filters.counting import Tallies, client_key, counted
from smtpf.maps.access import AccessMap, number_of
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, drop, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Number
from smtpf.smtp import replies
from smtpf.smtp.session import ClientFlag, Session
from smtpf.stats.counter import Counter, Group

RATE_DROP = Flag(
    "rate-drop", True, "Close the connection of a client over its Rate-Connect: limit; when off, the client may only say QUIT.", area="rate"
)
RATE_421_DELAY = Number(
    "rate-421-delay",
    15,
    "How long a client over its Rate-Connect: limit waits for its 421.",
    choices="seconds",
    least=0,
    since="later",
    area="rate",
)
RATE_CLIENT = Counter("rate-client", Group.CONNECT, "Connections over the limit of Rate-Connect:.")

EXCEEDED = Reply(
    522,
    "421 4.3.2 client %s [%s] connections %ld exceed %ld/60s",
    meaning="The client made more connections in the last minute than its Rate-Connect: entry allows. It may come back later.",
)
RATE_TAG = "rate-connect:"


class Rate(Filter):
    """Counts the connections of clients that have an entry."""

    def __init__(self, access: AccessMap, tallies: Tallies) -> None:
        self._access = access
        self._tallies = tallies

    def connect(self, session: Session) -> MaybeVerdict:
        """Count this connection and compare."""
        return None if session.localhost else self._connect(session)

    async def _connect(self, session: Session) -> Verdict | None:
        hit = await self._access.lookup_client(RATE_TAG, session.name, session.address, session.sid)
        if hit is None:
            return None
        if hit.failed:
            return refusal(session, RATE_DROP, replies.NOT_AVAILABLE, fact=hit.key)
        limit = number_of(hit)
        if limit is None or limit <= 0:
            return None
        rate = await counted(self._tallies.connections(session).add(client_key(session.ip)))
        if rate <= limit:
            return None
        session.flags.add(ClientFlag.RATE_LIMIT)
        session.count(RATE_CLIENT)
        await session.wait(session.settings[RATE_421_DELAY])
        return refusal(session, RATE_DROP, EXCEEDED, session.name, session.address, rate, limit, fact=hit.key)


def refusal(session: Session, closing: Flag, reply: Reply, *args: object, fact: str) -> Verdict:
    """The verdict on a client over a limit: the connection ends, or only QUIT is taken. Never delayed to RCPT."""
    return drop(reply, *args, fact=fact) if session.settings[closing] else tempfail(reply, *args, fact=fact)
