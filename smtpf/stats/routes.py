"""Counts for each route: what was accepted, what was refused, and the volume, of each of the last 31 days.

The engine reports every transaction once for the sender's route and once for each next hop; the archive moves the counts
into the route's row of the stats map. Source: spec chapter operations, 3.6.
"""

from __future__ import annotations

import time
from calendar import isleap
from collections.abc import Mapping
from enum import Enum

import attrs

from smtpf.journal.journal import Journal
from smtpf.journal.message import debug

DAYS = 31
"""Days that a row holds."""

BEFORE = debug(704, "route stats before %s %u:%u:%u", "stats", "The unsaved counts of a route before a transaction is added.")
AFTER = debug(705, "route stats after %s %u:%u:%u", "stats", "The unsaved counts of a route after a transaction was added.")

NEW_DAY = -1
"""The day of a row that does not exist yet."""


class Outcome(Enum):
    """What became of a transaction, as far as a route's counts are concerned."""

    ACCEPTED = "accepted"
    """CONTINUE or ACCEPT."""
    REJECTED = "rejected"
    """REJECT or DROP; also a next hop without recipients, or one whose connection failed."""
    NEITHER = "neither"
    """TEMPFAIL, DISCARD, or abandoned: only the volume counts."""


@attrs.frozen
class Counts:
    """One day of one route."""

    accepted: int = 0
    rejected: int = 0
    volume: int = 0
    """KB: octets of each message divided by 1024, plus one."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.accepted + other.accepted, self.rejected + other.rejected, self.volume + other.volume)

    @property
    def decided(self) -> bool:
        return self.accepted + self.rejected > 0

    def __str__(self) -> str:
        return f"{self.accepted:x}:{self.rejected:x}:{self.volume:x}"


@attrs.frozen
class RouteRow:
    """A route's row: the day of the year of its newest counts, from 0, and the counts, newest first."""

    day: int = NEW_DAY
    days: tuple[Counts, ...] = (Counts(),) * (DAYS - 1)

    @classmethod
    def parse(cls, text: str) -> RouteRow | None:
        """The row that ``text`` is; None when it is none. Missing days count as empty."""
        words = text.split()
        try:
            day = int(words[0])
            days = tuple(Counts(*(int(number, 16) for number in word.split(":"))) for word in words[1 : DAYS + 1])
        except (IndexError, ValueError, TypeError):
            return None
        return cls(day, days + (Counts(),) * (DAYS - len(days)))

    def with_today(self, counts: Counts, second: float) -> RouteRow:
        """The row with ``counts`` added to the local day of ``second``; days without mail in between are filled with zeros."""
        today = time.localtime(second)
        day = today.tm_yday - 1
        if self.day == NEW_DAY:
            return RouteRow(day, ((counts, *self.days))[:DAYS])
        gap = day - self.day
        if gap < 0:
            # The row is of last year, whose length says how many days are between.
            gap += 366 if isleap(today.tm_year - 1) else 365
        if gap <= 0:
            return RouteRow(day, (self.days[0] + counts, *self.days[1:]))
        return RouteRow(day, (counts, *(Counts(),) * min(gap - 1, DAYS), *self.days)[:DAYS])

    def __str__(self) -> str:
        return " ".join((str(self.day), *map(str, self.days)))


class RouteCounts:
    """The counts of every route since the last save, by the route-map key that routed the mail."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._counts: dict[str, Counts] = {}

    def add(self, key: str, outcome: Outcome, octets: int) -> None:
        """Count one transaction of ``octets`` message octets for route ``key``, such as ``route:example.com``."""
        before = self._counts.get(key, Counts())
        after = Counts(
            before.accepted + (outcome is Outcome.ACCEPTED),
            before.rejected + (outcome is Outcome.REJECTED),
            before.volume + octets // 1024 + 1,
        )
        self._counts[key] = after
        if self._journal.enabled(BEFORE):
            self._journal.write(BEFORE, key, before.accepted, before.rejected, before.volume)
            self._journal.write(AFTER, key, after.accepted, after.rejected, after.volume)

    def take(self) -> dict[str, Counts]:
        """Hand over the counts of routes that accepted or refused something. The volume of the others waits for its next save."""
        taken = {key: counts for key, counts in self._counts.items() if counts.decided}
        self._counts = {key: counts for key, counts in self._counts.items() if not counts.decided}
        return taken

    def take_all(self) -> dict[str, Counts]:
        """Hand over all counts, for another process that keeps them."""
        taken, self._counts = self._counts, {}
        return taken

    def give_back(self, counts: Mapping[str, Counts]) -> None:
        """Take over counts that could not be saved, or that another process has made."""
        for key, kept in counts.items():
            self._counts[key] = self._counts.get(key, Counts()) + kept
