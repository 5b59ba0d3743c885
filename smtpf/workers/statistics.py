"""The counters of a worker: kept until the coordinator, whose counters are the node's, takes them over each second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from smtpf.stats.counter import Counter
from smtpf.stats.tables import Statistics

PERIOD = 1.0
"""Seconds between two reports."""


class WorkerStatistics(Statistics):
    """Counts without tables, hours or marks. What has been reported is forgotten."""

    __slots__ = ("_marks", "_shown")

    def __init__(self, clock: IReactorTime, counters: Iterable[Counter]) -> None:
        super().__init__(clock, None, counters)
        self._marks: dict[Counter, int] = {}
        self._shown: dict[Counter, int] = {}

    def raise_to(self, counter: Counter, value: int) -> None:
        if value > self._marks.get(counter, -1):
            self._marks[counter] = value

    def set(self, counter: Counter, value: int) -> None:
        self._shown[counter] = value

    def fold(self) -> None:
        """There are no tables here."""

    def report(self) -> list[dict[str, int]]:
        """Events, marks and gauges since the last report, by name."""
        events = {}
        for counter, n in self._pending.items():
            if n:
                events[counter.name] = n
                self._pending[counter] = 0
        marks, self._marks = self._marks, {}
        shown, self._shown = self._shown, {}
        return [events, *({counter.name: value for counter, value in each.items()} for each in (marks, shown))]


def add_report(stats: Statistics, report: Iterable[Mapping[str, Any]]) -> None:
    """Take a worker's report into the node's counters."""
    known = {counter.name: counter for counter in stats.counters}
    actions: tuple[Callable[[Counter, int], None], ...] = (stats.add, stats.raise_to, stats.set)
    for action, values in zip(actions, report, strict=True):
        for name, value in values.items():
            action(known[name], value)
