"""How many clients come: the rates of the whole node, and the throttle that follows from them.

They are counted where connections are accepted, once for each. Source: spec chapter session, 1.4; filters-envelope, 3.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs

from smtpf.stats import general
from smtpf.stats.tables import Statistics

_TICK = 6
"""Seconds of one of the ten intervals of connections-per-minute."""


@attrs.frozen
class Arrival:
    """What a connection met when it came."""

    this_second: int
    """Connections accepted in the same clock second so far, this one included (``cs=``)."""
    throttled: bool = False
    """It is more than ``rate-throttle`` allows for one second."""


class Elsewhere(Protocol):
    """Connections that other processes of the node accept."""

    def note(self, second: int, count: int) -> None:
        """This process has accepted ``count`` so far in the clock second ``second``."""

    def others(self, second: int) -> int:
        """What the others have accepted in that second."""


class Arrivals:
    """Counts the connections of all interfaces of a node."""

    def __init__(self, stats: Statistics, now: Callable[[], float], elsewhere: Elsewhere | None = None) -> None:
        """``now`` gives Unix seconds."""
        self._stats = stats
        self._now = now
        self._elsewhere = elsewhere
        self._second = -1
        self._this_second = 0
        self._ticks: deque[list[int]] = deque(maxlen=10)
        self._minute = 0

    @property
    def now(self) -> int:
        """Connections accepted in this very second."""
        second = int(self._now())
        own = self._this_second if self._second == second else 0
        return own if self._elsewhere is None else own + self._elsewhere.others(second)

    def arrived(self, limit: int) -> Arrival:
        """Count one connection; ``limit`` is that of ``rate-throttle``, 0 for none."""
        second = int(self._now())
        first = second != self._second
        self._second = second
        count = self._this_second = 1 if first else self._this_second + 1
        if self._elsewhere is not None:
            self._elsewhere.note(second, count)
            count += self._elsewhere.others(second)
        self.count(1)
        self._stats.raise_to(general.HIGH_CONNECTIONS_PER_SECOND, count)
        return Arrival(count, not first and 0 < limit <= count)

    def count(self, arrived: int) -> None:
        """Take ``arrived`` connections into those of the last minute."""
        tick = int(self._now()) // _TICK
        if self._ticks and self._ticks[-1][0] == tick:
            self._ticks[-1][1] += arrived
            self._minute += arrived
        else:
            self._ticks.append([tick, arrived])
            self._minute = sum(count for at, count in self._ticks if at > tick - 10)
        self._stats.set(general.CONNECTIONS_PER_MINUTE, self._minute)
        self._stats.raise_to(general.HIGH_CONNECTIONS_PER_MINUTE, self._minute)
