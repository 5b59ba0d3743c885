"""Reading what a peer changed while this node was not listening, page by page.

Live changes flow meanwhile; each page may be repeated without harm, and where reading stopped is kept after each
page. Source: spec chapter operations, 2.10.7.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs

from smtpf.cache.amp_commands import Busy, Sync, received_from
from smtpf.cache.conflict import Ruling
from smtpf.cache.link import BUSY_TRIES, Link
from smtpf.cache.outbox import Item
from smtpf.cache.replica import PAGE_RECORDS, Applied, Position, Received


@attrs.define
class Tally:
    records: int = 0
    accepted: int = 0
    corrected: int = 0


async def resync(
    link: Link,
    reached: Position,
    epoch: int,
    *,
    apply: Callable[[Link, Sequence[Received]], Awaitable[list[Applied]]],
    remember: Callable[[Position], Awaitable[None]],
    pause: Callable[[], Awaitable[None]],
) -> Tally:
    """Read all changes of the peer behind ``link`` after ``reached``; ``epoch`` is the peer's of now.

    ``pause`` waits a second when the peer is busy. Raises Busy when it stays so, CacheError, or what ended the connection.
    """
    tally = Tally()
    since = reached.n if reached.epoch == epoch else 0
    tries = 0
    while True:
        try:
            answer = await link.call(Sync, epoch=epoch, since=since, limit=PAGE_RECORDS)
        except Busy:
            tries += 1
            if tries > BUSY_TRIES:
                raise
            await pause()
            continue
        tries = 0
        if answer["epoch"] != epoch:
            # The peer's file was replaced: its numbers begin anew.
            epoch, since = answer["epoch"], 0
            continue
        boxes = answer["records"]
        received = [item for item in map(received_from, boxes) if item is not None]
        for item, outcome in zip(received, await apply(link, received), strict=True):
            tally.records += 1
            tally.accepted += outcome.ruling is Ruling.ACCEPTED
            if outcome.better is not None and outcome.better.key == item.record.key:
                tally.corrected += 1
                link.offer(Item(outcome.better))
        progressed = answer["next"] > since
        since = max(since, answer["next"])
        await remember(Position(epoch, since))
        if not answer["more"] or not progressed:
            return tally
