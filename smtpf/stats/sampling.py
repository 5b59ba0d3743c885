"""Facts that nobody reports and that have to be looked at: load averages and open file descriptors.

The load is looked at whenever statistics are saved or shown, the descriptors once a minute.
Source: spec chapter operations, 3.4.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.stats.general import (
    HIGH_LOAD_AVG_1,
    HIGH_LOAD_AVG_5,
    HIGH_LOAD_AVG_15,
    HIGH_OPEN_FILES,
    LOAD_AVG_1,
    LOAD_AVG_5,
    LOAD_AVG_15,
    OPEN_FILES,
)
from smtpf.stats.tables import Statistics

PERIOD = 60
"""Seconds between two looks at the open files."""

_LOADS = ((LOAD_AVG_1, HIGH_LOAD_AVG_1), (LOAD_AVG_5, HIGH_LOAD_AVG_5), (LOAD_AVG_15, HIGH_LOAD_AVG_15))
_FOLDERS = ("/proc/self/fd", "/dev/fd")


def sample_load(stats: Statistics, loads: Callable[[], tuple[float, float, float]] = os.getloadavg) -> None:
    """Record the three load averages, times 1000. A machine that does not know its load is passed over."""
    try:
        averages = loads()
    except OSError:
        return
    for (gauge, high), average in zip(_LOADS, averages, strict=True):
        thousandths = round(average * 1000)
        stats.set(gauge, thousandths)
        stats.raise_to(high, thousandths)


def open_files() -> int:
    """Open descriptors of this process, 0 if that cannot be found out."""
    for folder in _FOLDERS:
        try:
            # One of them is the listing's own.
            return len(os.listdir(folder)) - 1
        except OSError:
            continue
    return 0


class OpenFilesSampler:
    """Looks at the open files now, and then every minute."""

    def __init__(self, clock: IReactorTime, stats: Statistics, count: Callable[[], int] = open_files) -> None:
        self._clock = clock
        self._stats = stats
        self._count = count
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        number = self._count()
        self._stats.set(OPEN_FILES, number)
        self._stats.raise_to(HIGH_OPEN_FILES, number)
        self._timer = self._clock.callLater(PERIOD, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
