"""The counters' values: since the hour began, since the process started, and over the last sixty minutes.

Whatever happens to a session or a message is counted here, several dozen times a message: adding is one dictionary update, and
the three tables are brought up to date when somebody reads them or an interval of the window ends.
Source: spec chapter operations, 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

import attrs
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.journal.journal import Journal
from smtpf.journal.message import info
from smtpf.stats.counter import Counter, Group, Kind
from smtpf.stats.general import ANNOUNCED

INTERVAL = 360
"""Seconds of one interval of the window."""

INTERVALS = 10
"""Intervals of the window: together sixty minutes."""

DIVISORS = {"CLIENTS", "MAIL", "RCPT", "DATA", "MESSAGES"}
"""The counters that percentages are of, each the first of its group."""

HOURLY_MARK = info(
    715,
    "hourly %s was=%lu now=%lu",
    "A high-water counter passed its highest value of this hour.",
    fields=("counter", "was", "now"),
)
RUNTIME_MARK = info(
    716,
    "runtime %s was=%lu now=%lu",
    "A high-water counter passed its highest value since the process started.",
    fields=("counter", "was", "now"),
)

_GROUPS = {group: place for place, group in enumerate(Group)}


class Table(Enum):
    RUNTIME = "runtime"
    HOURLY = "hourly"
    WINDOW = "window"


@attrs.frozen
class Standing:
    """What one counter stands at."""

    counter: Counter
    values: Mapping[Table, int]
    percents: Mapping[Table, float]
    """Of the first counter of the group; in group GENERAL of itself; 0.0 when that is 0."""


def order(counters: Iterable[Counter]) -> list[Counter]:
    """``counters`` by group, the divisor of each group first, otherwise as given: core first, then filter after filter."""
    return sorted(counters, key=lambda counter: (_GROUPS[counter.group], counter.name not in DIVISORS))


class Statistics:
    """All counters of this process with their three values."""

    __slots__ = (
        "_clock",
        "_counters",
        "_early",
        "_hourly",
        "_journal",
        "_pending",
        "_runtime",
        "_sorted",
        "_tick",
        "_timer",
        "_window",
        "counting",
        "started",
    )

    def __init__(
        self, clock: IReactorTime, journal: Journal | None = None, counters: Iterable[Counter] = (), *, counting: bool = True
    ) -> None:
        """``clock.seconds()`` is Unix time.

        ``counters`` in the order of their declaration; one that is not among them is taken in when first used. With ``counting`` false
        events are ignored until :meth:`begin`.
        """
        self._clock = clock
        self._journal = journal
        self._counters: dict[Counter, None] = dict.fromkeys(counters)
        self._sorted: list[Counter] | None = None
        self._pending: dict[Counter, int] = dict.fromkeys(self._counters, 0)
        self._hourly: dict[Counter, int] = dict.fromkeys(self._counters, 0)
        self._runtime: dict[Counter, int] = dict.fromkeys(self._counters, 0)
        self._window: dict[Counter, list[int]] = {counter: [0] * INTERVALS for counter in self._counters}
        self._early: dict[Counter, int] = {}
        self.started = clock.seconds()
        """Unix seconds of the process start."""
        self._tick = int(self.started) // INTERVAL
        self._timer: IDelayedCall | None = None
        self.counting = counting
        """False before the node is ready and once it is shutting down."""

    def begin(self) -> None:
        """The node is ready (#599): count, and keep the window moving. Gauges set before take effect now."""
        self.counting = True
        early, self._early = self._early, {}
        for counter, value in early.items():
            self.set(counter, value)
        self._turn()

    def end(self) -> None:
        """The node is shutting down: what happens from now on is not counted."""
        self.fold()
        self.counting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def add(self, counter: Counter, n: int = 1) -> None:
        """Count ``n`` events."""
        if self.counting:
            try:
                self._pending[counter] += n
            except KeyError:
                self._enrol(counter)
                self._pending[counter] = n

    def raise_to(self, counter: Counter, value: int) -> None:
        """A high-water counter saw ``value``: raise each table that is lower."""
        self._follow_clock()
        if counter not in self._counters:
            self._enrol(counter)
        hourly, runtime = self._hourly[counter], self._runtime[counter]
        intervals = self._window[counter]
        if value > max(intervals):
            intervals[self._tick % INTERVALS] = value
        if value > hourly:
            self._hourly[counter] = value
        if value > runtime:
            self._runtime[counter] = value
        if self._journal is not None and counter in ANNOUNCED:
            if value > hourly:
                self._journal.write(HOURLY_MARK, counter.name, hourly, value)
            if value > runtime:
                self._journal.write(RUNTIME_MARK, counter.name, runtime, value)

    def set(self, counter: Counter, value: int) -> None:
        """A gauge shows ``value`` now."""
        if not self.counting:
            self._early[counter] = value
            return
        self._follow_clock()
        if counter not in self._counters:
            self._enrol(counter)
        self._hourly[counter] = self._runtime[counter] = value
        self._window[counter][self._tick % INTERVALS] = value

    def value(self, counter: Counter, table: Table = Table.RUNTIME) -> int:
        """What ``counter`` stands at in ``table``; 0 for one never used."""
        self.fold()
        return self._read(counter, table)

    def standings(self) -> list[Standing]:
        """Every counter with its values and percentages, in the order of a STAT listing, all of the same moment."""
        self.fold()
        divisors: dict[Group, Counter] = {}
        standings = []
        for counter in self.counters:
            divisor = counter if counter.group is Group.GENERAL else divisors.setdefault(counter.group, counter)
            values = {table: self._read(counter, table) for table in Table}
            percents = {}
            for table in Table:
                whole = self._read(divisor, table)
                percents[table] = 100.0 * values[table] / whole if whole else 0.0
            standings.append(Standing(counter, values, percents))
        return standings

    @property
    def counters(self) -> list[Counter]:
        """Every counter, in the order of a STAT listing."""
        if self._sorted is None:
            self._sorted = order(self._counters)
        return self._sorted

    def hourly(self) -> dict[Counter, int]:
        """A copy of the hourly table."""
        self.fold()
        return dict(self._hourly)

    def restore_hourly(self, values: Mapping[str, int]) -> None:
        """Set the hourly value of each counter named; unknown names are passed over."""
        for counter in self._counters:
            if counter.name in values:
                self._hourly[counter] = values[counter.name]

    def begin_hour(self) -> None:
        """Zero the hourly table."""
        self.fold()
        for counter in self._hourly:
            self._hourly[counter] = 0

    def fold(self) -> None:
        """Bring the three tables up to date. Events since the last time belong to the interval that was current then."""
        slot = self._tick % INTERVALS
        for counter, n in self._pending.items():
            if n:
                self._hourly[counter] += n
                self._runtime[counter] += n
                self._window[counter][slot] += n
                self._pending[counter] = 0
        tick = int(self._clock.seconds()) // INTERVAL
        for new in range(self._tick + 1, min(tick, self._tick + INTERVALS) + 1):
            for intervals in self._window.values():
                intervals[new % INTERVALS] = 0
        self._tick = tick

    def _follow_clock(self) -> None:
        """As :meth:`fold`, but only when an interval has ended."""
        if int(self._clock.seconds()) // INTERVAL != self._tick:
            self.fold()

    def _read(self, counter: Counter, table: Table) -> int:
        if counter not in self._counters:
            return 0
        if table is Table.RUNTIME:
            return self._runtime[counter]
        if table is Table.HOURLY:
            return self._hourly[counter]
        intervals = self._window[counter]
        return sum(intervals) if counter.kind is Kind.EVENT else max(intervals)

    def _enrol(self, counter: Counter) -> None:
        self._counters[counter] = None
        self._sorted = None
        self._pending[counter] = self._hourly[counter] = self._runtime[counter] = 0
        self._window[counter] = [0] * INTERVALS

    def _turn(self) -> None:
        self.fold()
        self._timer = self._clock.callLater(INTERVAL - self._clock.seconds() % INTERVAL, self._turn)
