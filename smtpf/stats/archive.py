"""Saving the counters to the stats map and finding them again at the next start.

The archive saves when it is told to: at each garbage collection of the cache and when the process ends. Disk work is done in a
thread; what could not be written is kept for the next time. Source: spec chapter operations, 3.5 and 3.6.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime

from smtpf.journal.journal import Journal
from smtpf.journal.message import debug, err
from smtpf.settings.option import Number
from smtpf.settings.store import Settings
from smtpf.stats.counter import Counter
from smtpf.stats.routes import Counts, RouteCounts, RouteRow
from smtpf.stats.rows import STATS_MAP, Rows
from smtpf.stats.sampling import sample_load
from smtpf.stats.tables import Statistics

T = TypeVar("T")

LONGEST_ROW = 65_536
"""Octets of one row."""

UNSAVED_ROWS = 64
"""Rows kept of saves that failed: more than two days of hours."""

STATS_RETAIN_DAYS = Number(
    "stats-retain-days",
    0,
    "Days that the hourly rows of the stats map are kept; older ones are removed once a day. 0 keeps them for ever.",
    choices="days; 0 keeps all",
    least=0,
    most=36_500,
    area="stats",
    since="new",
)

GET_FAILED = err(
    706,
    "stats-map get key={%s} failed",
    "A route's row could not be read. Its counts are kept in memory and added at the next save.",
    fields=("key",),
)
ROUTE_TRUNCATED = err(
    708,
    "stats-map key={%s} value={%s} truncated",
    "A route's new row was too long and was cut; the line shows the old one, which probably was damaged.",
    fields=("key", "value"),
)
NAMES_OVERFLOW = err(
    710,
    "statsSave() field name buffer overflow caught",
    "The row with the names of all counters is longer than 64 KiB. It is not written, so the hourly rows cannot be read back.",
)
VALUES_OVERFLOW = err(711, "statsSave() buffer overflow caught", "The row of an hour is longer than 64 KiB and was cut.")
ROUTE_READ = debug(707, "route stat get %s %d %u:%u:%u", "stats", "A route's row as it was read: its day, and the newest counts.")
ROUTE_WRITTEN = debug(709, "route stat put %s %d %u:%u:%u", "stats", "A route's row as it was written: its day, and the newest counts.")
SAVE_FAILED = err(
    1191,
    "stats-map=%s save error: %s (%d)",
    "The statistics could not be written to the stats map. They are kept in memory and written at the next save.",
    fields=("map", "reason", "errno"),
    since="new",
)

InThread = Callable[[Callable[[], Any]], Deferred[Any]]
"""Does a piece of work in a thread, one piece after the other, and fires with its result."""


@attrs.define
class _RoutesSaved:
    """What the thread found out about the routes of one save."""

    rows: dict[str, str] = attrs.field(factory=dict)
    unread: list[str] = attrs.field(factory=list)
    changes: list[tuple[str, RouteRow, RouteRow]] = attrs.field(factory=list)
    cut: list[tuple[str, str]] = attrs.field(factory=list)


class Archive:
    """Keeps the counters of one process in the stats map."""

    def __init__(
        self,
        clock: IReactorTime,
        journal: Journal,
        stats: Statistics,
        routes: RouteCounts,
        rows: Rows | None,
        in_thread: InThread,
        settings: Callable[[], Settings],
        version: str,
        *,
        post: Callable[[], object] | None = None,
        sample: Callable[[Statistics], None] = sample_load,
    ) -> None:
        """``rows`` None: nothing is saved, and the hourly table is still turned. ``post`` starts the HTTP post and returns at once."""
        self._clock = clock
        self._journal = journal
        self._stats = stats
        self._routes = routes
        self._rows = rows
        self._in_thread = in_thread
        self._settings = settings
        self._version = version
        self._post = post
        self._sample = sample
        self._hour = hour_key(clock.seconds())
        self._day = ""
        self._names: tuple[str, ...] = ()
        self._unsaved: dict[str, str] = {}
        self._lock = DeferredLock()

    async def load(self) -> None:
        """Continue the hourly table of the process before, if it has saved one in this hour."""
        rows = self._rows
        if rows is None:
            return
        key = self._hour
        try:
            found = await self._in_thread(lambda: _read_hour(rows, key))
        except (OSError, sqlite3.Error):
            self._journal.write(GET_FAILED, key)
            return
        self._stats.restore_hourly(found)

    async def save(self) -> None:
        """Sample the load, post, turn the hour, and write all rows. Saves never overlap: a second one waits for the first."""
        await self._lock.acquire()
        try:
            await self._save()
        finally:
            self._lock.release()

    async def close(self) -> None:
        """The last save, then the end of the map."""
        await self.save()
        if self._rows is not None:
            await self._in_thread(self._rows.close)

    async def _save(self) -> None:
        self._sample(self._stats)
        if self._post is not None:
            self._post()
        now = self._clock.seconds()
        rows = self._turn_hour(now)
        if self._rows is None:
            return
        routes = self._routes.take()
        names = tuple(counter.name for counter in self._stats.counters)
        if names != self._names:
            rows = {**self._fields_row(names), **rows}
        pending = {**self._unsaved, **rows}
        if not await self._write_routes(self._rows, routes, pending, now):
            self._unsaved = dict(list({**self._unsaved, **rows}.items())[-UNSAVED_ROWS:])
            return
        self._unsaved = {}
        self._names = names
        await self._delete_old(self._rows, now)

    def _turn_hour(self, now: float) -> dict[str, str]:
        """The rows of the hourly table: of the hour that has ended, if one has, and of this hour."""
        rows = {}
        hour = hour_key(now)
        if hour != self._hour:
            rows[self._hour] = self._hourly_row(self._stats.hourly(), now)
            self._stats.begin_hour()
            self._hour = hour
        rows[hour] = self._hourly_row(self._stats.hourly(), now)
        return rows

    def _hourly_row(self, values: Mapping[Counter, int], now: float) -> str:
        numbers = (int(self._stats.started), int(now), *(values.get(counter, 0) for counter in self._stats.counters))
        row = " ".join((self._version, *(f"{number:x}" for number in numbers)))
        if len(row) > LONGEST_ROW:
            self._journal.write(VALUES_OVERFLOW)
            row = row[:LONGEST_ROW].rpartition(" ")[0]
        return row

    def _fields_row(self, names: Sequence[str]) -> dict[str, str]:
        row = " ".join((self._version, "start-time", "touch-time", *names))
        if len(row) > LONGEST_ROW:
            self._journal.write(NAMES_OVERFLOW)
            return {}
        return {f"fields:{self._version}": row}

    async def _write_routes(self, map: Rows, routes: Mapping[str, Counts], others: dict[str, str], now: float) -> bool:
        """Write ``others`` and the rows of ``routes`` in one transaction. Whether that worked."""
        try:
            saved: _RoutesSaved = await self._in_thread(lambda: _write(map, routes, others, now))
        except (OSError, sqlite3.Error) as error:
            self._routes.give_back(routes)
            self._tell_failure(error)
            return False
        self._routes.give_back({key: routes[key] for key in saved.unread})
        for key in saved.unread:
            self._journal.write(GET_FAILED, key)
        for key, old in saved.cut:
            self._journal.write(ROUTE_TRUNCATED, key, old)
        for key, before, after in saved.changes:
            for message, row in ((ROUTE_READ, before), (ROUTE_WRITTEN, after)):
                newest = row.days[0]
                self._journal.write(message, key, row.day, newest.accepted, newest.rejected, newest.volume)
        return True

    async def _delete_old(self, map: Rows, now: float) -> None:
        """Once a day remove the hourly rows that are older than ``stats-retain-days``."""
        days = self._settings()[STATS_RETAIN_DAYS]
        today = self._hour[:8]
        if not days or self._day == today:
            return
        oldest = hour_key(now - days * 86_400)
        try:
            await self._in_thread(lambda: map.delete_hours_before(oldest))
        except (OSError, sqlite3.Error) as error:
            self._tell_failure(error)
            return
        self._day = today

    def _tell_failure(self, error: OSError | sqlite3.Error) -> None:
        number = error.errno if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", 0)
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self._journal.write(SAVE_FAILED, self._settings()[STATS_MAP], reason, number or 0)


def hour_key(second: float) -> str:
    """``2008020805``: the local hour, by which an hourly row is found."""
    return time.strftime("%Y%m%d%H", time.localtime(second))


def _read_hour(rows: Rows, key: str) -> dict[str, int]:
    """The values of the hourly row ``key`` by counter name; empty when the row or its names are missing or damaged."""
    row = (rows.get(key) or "").split()
    if not row:
        return {}
    names = (rows.get(f"fields:{row[0]}") or "").split()
    try:
        numbers = [int(number, 16) for number in row[1:]]
    except ValueError:
        return {}
    return dict(zip(names[3:], numbers[2:], strict=False))


def _write(map: Rows, routes: Mapping[str, Counts], others: Mapping[str, str], now: float) -> _RoutesSaved:
    saved = _RoutesSaved()
    for key, counts in routes.items():
        try:
            old = map.get(key)
        except (OSError, sqlite3.Error):
            saved.unread.append(key)
            continue
        before = (RouteRow.parse(old) if old is not None else None) or RouteRow()
        after = before.with_today(counts, now)
        row = str(after)
        if len(row) > LONGEST_ROW:
            saved.cut.append((key, old or ""))
            row = row[:LONGEST_ROW].rpartition(" ")[0]
        saved.rows[key] = row
        saved.changes.append((key, before, after))
    map.put({**others, **saved.rows})
    return saved
