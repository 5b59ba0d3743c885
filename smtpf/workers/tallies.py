"""What the limits on clients count with in a node of several processes.

A client whose connections all come to one worker is counted there. One that several workers may meet, because it is behind a front
end or at this machine, is counted by the coordinator, and so is what an entry of the access map counts for the whole node.
Source: spec chapter filters-envelope, 3.2, 3.3 and 13.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpf.filters.counting import Key, OwnTallies, Presence, Rates
from smtpf.workers.channel import Channel, ChannelError

if TYPE_CHECKING:
    from smtpf.smtp.session import Session

_CONNECTION, _BOUNCE, _ENTER, _LEAVE = "count-connection", "count-bounce", "enter", "leave"
"""Questions to the coordinator; the last is news."""


class _AskedRates:
    """``Rates`` of the coordinator. When it cannot be asked, ``own`` are better than none."""

    def __init__(self, channel: Channel, question: str, own: Rates) -> None:
        self._channel = channel
        self._question = question
        self._own = own

    async def add(self, key: Key) -> int:
        try:
            return int(await self._channel.call(self._question, key))
        except ChannelError:
            count = self._own.add(key)
            return count if isinstance(count, int) else await count


class _AskedPresence:
    """``Presence`` of the coordinator. Who comes while it cannot be asked is not counted."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._uncounted: Counter[Key] = Counter()

    async def enter(self, key: Key) -> int:
        try:
            return int(await self._channel.call(_ENTER, key))
        except ChannelError:
            self._uncounted[key] += 1
            return 0

    def leave(self, key: Key) -> None:
        if self._uncounted[key]:
            _take(self._uncounted, key)
        else:
            self._channel.tell(_LEAVE, key)


class WorkerTallies:
    """``Tallies`` of a worker."""

    def __init__(self, channel: Channel, now: Callable[[], float], spreads: Callable[[str], bool]) -> None:
        """``now`` gives Unix seconds; ``spreads`` tells whether connections from an address come to any worker."""
        own = self._own = OwnTallies.make(now)
        self._spreads = spreads
        self._connections = _AskedRates(channel, _CONNECTION, own.rates)
        self._present = _AskedPresence(channel)
        self.bounces = _AskedRates(channel, _BOUNCE, own.bounces)

    def connections(self, session: Session) -> Rates:
        return self._connections if self._anywhere(session) else self._own.rates

    def present(self, session: Session) -> Presence:
        return self._present if self._anywhere(session) else self._own.presence

    def _anywhere(self, session: Session) -> bool:
        return session.spoken_for or self._spreads(session.address)


class CrewTallies:
    """The coordinator's side: counts for all workers in its ``own`` tables, and knows whom each worker has entered."""

    def __init__(self, own: OwnTallies) -> None:
        self._own = own
        self._entered: dict[int, Counter[Key]] = {}

    def handlers(self, worker: int) -> dict[str, Callable[..., Any]]:
        """What the worker of this number may ask for."""
        own = self._own
        entered = self._entered[worker] = Counter()

        def enter(key: Key) -> int:
            if self._entered.get(worker) is not entered:
                # Said before it ended, and read behind that.
                return 0
            entered[key] += 1
            return own.presence.enter(key)

        def leave(key: Key) -> None:
            if not entered[key]:
                return
            _take(entered, key)
            own.presence.leave(key)

        return {_CONNECTION: own.rates.add, _BOUNCE: own.bounces.add, _ENTER: enter, _LEAVE: leave}

    def forget(self, worker: int) -> None:
        """The worker is no more, and nobody that it had entered is there."""
        entered = self._entered.pop(worker, Counter())
        for key in entered.elements():
            self._own.presence.leave(key)
        entered.clear()


def _take(tally: Counter[Key], key: Key) -> None:
    """One less of a key that is there."""
    tally[key] -= 1
    if not tally[key]:
        del tally[key]
