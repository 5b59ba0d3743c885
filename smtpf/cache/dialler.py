"""Keeps trying to be connected to one address: at once, then after pauses that double, with a little chance in them.

A node that was connected a moment ago is mostly back soon, so in the first minute of its absence the pauses stay short.

Source: spec chapter operations, 2.10.2 and 2.10.8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.cache.peers import Member

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds."""
RECENT_SECONDS, RECENT_PAUSE = 60.0, 1.0
"""For so long after a connection was lost pauses are no longer than this."""
SPREAD = 0.2
"""Share by which a pause may be shorter or longer, so that nodes do not move in step."""


class Dialler:
    """``connect`` is called for each attempt; it fails when there is no connection. ``wanted`` says whether one is needed."""

    def __init__(
        self,
        member: Member,
        clock: IReactorTime,
        random: Random,
        connect: Callable[[Dialler], Awaitable[object]],
        wanted: Callable[[Dialler], bool],
        *,
        discovered: bool = False,
        gave_up: Callable[[Dialler], None] = lambda dialler: None,
    ) -> None:
        self.member = member
        self.discovered = discovered
        """Found by announcement: one failure ends it, the next announcement makes another."""
        self.node = ""
        """Node that answered at this address last."""
        self.ourselves = False
        self._clock = clock
        self._random = random
        self._connect = connect
        self._wanted = wanted
        self._gave_up = gave_up
        self._pause = FIRST_PAUSE
        self._was_up = False
        self._recent_until = 0.0
        self._timer: IDelayedCall | None = None
        self._busy = False
        self._stopped = False

    def start(self) -> None:
        self._attempt()

    def stop(self) -> None:
        self._stopped = True
        self._cancel()

    def up(self, node: str) -> None:
        """The connection is good."""
        self.node = node
        self._pause = FIRST_PAUSE
        self._was_up = True

    def retry(self) -> None:
        """The connection ended, or none came about."""
        self._busy = False
        if self._stopped or self.ourselves:
            return
        if self.discovered:
            self._stopped = True
            self._gave_up(self)
            return
        self._cancel()
        if self._was_up:
            self._was_up = False
            self._recent_until = self._clock.seconds() + RECENT_SECONDS
        self._timer = self._clock.callLater(self._pause * self._random.uniform(1 - SPREAD, 1 + SPREAD), self._attempt)
        recent = self._clock.seconds() < self._recent_until
        self._pause = min(RECENT_PAUSE if recent else LONGEST_PAUSE, self._pause * 2)

    def wake(self) -> None:
        """The node at this address is connected no longer: do not sit out a long pause."""
        if not self._busy and not self._stopped and not self.ourselves:
            self._pause = FIRST_PAUSE
            self._was_up = True
            self.retry()

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _attempt(self) -> None:
        self._timer = None
        if not self._wanted(self):
            self._timer = self._clock.callLater(LONGEST_PAUSE, self._attempt)
            return
        self._busy = True
        ensureDeferred(self._dial())

    async def _dial(self) -> None:
        try:
            await self._connect(self)
        except Exception:
            # Refused, unreachable, timed out: all that matters is that there is no connection.
            self.retry()
