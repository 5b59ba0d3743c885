"""``Concurrent-Connect:`` limits how many connections a client holds at the same time.

Runs behind ``Rate-Connect:``. Only clients with a limit are counted, from this test until their session is over. An IPv6
client is counted by its /64 network. Source: spec chapter filters-envelope, 3.3.
"""

from __future__ import annotations

from smtpf.filters.counting import Key, Presence, Tallies, client_key, counted
from smtpf.filters.rate import refusal
from smtpf.maps.access import AccessMap, number_of
from smtpf.pipeline import Filter, MaybeVerdict, Verdict
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Number
from smtpf.smtp import replies
from smtpf.smtp.session import ClientFlag, Session
from smtpf.stats.counter import Counter, Group

CONCURRENT_DROP = Flag(
    "concurrent-drop",
    True,
    "Close the connection of a client over its Concurrent-Connect: limit; when off, the client may only say QUIT.",
    area="concurrency",
)
CONCURRENT_421_DELAY = Number(
    "concurrent-421-delay",
    15,
    "How long a client over its Concurrent-Connect: limit waits for its 421.",
    choices="seconds",
    least=0,
    since="later",
    area="concurrency",
)
CONCURRENT = Counter("concurrent", Group.CONNECT, "Connections over the limit of Concurrent-Connect:.")

TOO_MANY = Reply(
    329,
    "421 4.3.2 client %s [%s] too many concurrent connections, max=%ld",
    meaning="The client holds more connections than its Concurrent-Connect: entry allows. Its other sessions go on.",
)
CONCURRENT_TAG = "concurrent-connect:"


class Concurrent(Filter):
    """Counts the sessions in progress of clients that have an entry."""

    def __init__(self, access: AccessMap, tallies: Tallies) -> None:
        self._access = access
        self._tallies = tallies
        self._counted: dict[str, tuple[Presence, Key]] = {}
        """Session id to where and under which key it is counted."""

    def connect(self, session: Session) -> MaybeVerdict:
        """Count this session and compare."""
        return None if session.localhost else self._connect(session)

    async def _connect(self, session: Session) -> Verdict | None:
        hit = await self._access.lookup_client(CONCURRENT_TAG, session.name, session.address, session.sid)
        if hit is None:
            return None
        if hit.failed:
            return refusal(session, CONCURRENT_DROP, replies.NOT_AVAILABLE, fact=hit.key)
        limit = number_of(hit)
        if limit is None or limit <= 0:
            return None
        if await self._enter(session) <= limit:
            return None
        session.flags.add(ClientFlag.CONCURRENCY_LIMIT)
        session.count(CONCURRENT)
        await session.wait(session.settings[CONCURRENT_421_DELAY])
        return refusal(session, CONCURRENT_DROP, TOO_MANY, session.name, session.address, limit, fact=hit.key)

    async def _enter(self, session: Session) -> int:
        """Count the session under its address; under this one alone, should XCLIENT have named another before."""
        self.close(session)
        present, key = self._counted[session.sid] = self._tallies.present(session), client_key(session.ip)
        return await counted(present.enter(key))

    def close(self, session: Session) -> None:
        """The session is over: give its place free."""
        present, key = self._counted.pop(session.sid, (None, 0))
        if present is not None:
            present.leave(key)
