"""When a node that may have several processes needs them: as soon as its only one has been busy for a while.

Most nodes are idle most of the time, and need neither the memory nor the time that further processes take to start.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

PERIOD = 0.5
"""Seconds between two looks."""
BUSY = 0.5
"""Share of a processor from which on a process is busy."""
LOOKS = 2
"""How many looks in a row must find it so."""
AGAIN = 300.0
"""Seconds after which it is tried anew when workers could not be started."""


class Demand:
    """Calls ``enough`` once this process has been busy."""

    def __init__(self, clock: IReactorTime, enough: Callable[[], None], used: Callable[[], float] = time.process_time) -> None:
        """``used`` gives the processor's seconds that this process has taken."""
        self._clock = clock
        self._enough = enough
        self._used = used
        self._call: IDelayedCall | None = None
        self._busy = 0
        self._before = 0.0

    def start(self, after: float = 0.0) -> None:
        """Begin to look, ``after`` seconds from now."""
        self._call = self._clock.callLater(after, self._begin)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _begin(self) -> None:
        self._busy, self._before = 0, self._used()
        self._call = self._clock.callLater(PERIOD, self._look)

    def _look(self) -> None:
        before, self._before = self._before, self._used()
        self._busy = self._busy + 1 if self._before - before >= BUSY * PERIOD else 0
        if self._busy >= LOOKS:
            self._enough()
        else:
            self._call = self._clock.callLater(PERIOD, self._look)
