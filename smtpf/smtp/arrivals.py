"""How many clients come: the rates of the whole node, and the throttle that follows from them.

They are counted where connections are accepted, once for each. Source: spec chapter session, 1.4; filters-envelope, 3.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

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


class Arrivals:
    """Counts the connections of all interfaces of a node."""

    def __init__(self, stats: Statistics, now: Callable[[], float]) -> None:
        """``now`` gives Unix seconds."""
        self._stats = stats
        self._now = now
        self._second = -1
        self._this_second = 0
        self._ticks: deque[list[int]] = deque(maxlen=10)
        self._minute = 0

    @property
    def now(self) -> int:
        """Connections accepted in this very second."""
        return self._this_second if self._second == int(self._now()) else 0

    def arrived(self, limit: int) -> Arrival:
        """Count one connection; ``limit`` is that of ``rate-throttle``, 0 for none."""
        now = int(self._now())
        same = now == self._second
        self._second = now
        self._this_second = self._this_second + 1 if same else 1
        tick = now // _TICK
        if self._ticks and self._ticks[-1][0] == tick:
            self._ticks[-1][1] += 1
            self._minute += 1
        else:
            self._ticks.append([tick, 1])
            self._minute = sum(count for at, count in self._ticks if at > tick - 10)
        minute = self._minute
        self._stats.set(general.CONNECTIONS_PER_MINUTE, minute)
        self._stats.raise_to(general.HIGH_CONNECTIONS_PER_MINUTE, minute)
        self._stats.raise_to(general.HIGH_CONNECTIONS_PER_SECOND, self._this_second)
        return Arrival(self._this_second, same and 0 < limit <= self._this_second)
