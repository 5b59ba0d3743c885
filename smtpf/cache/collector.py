"""The regular sweep: expired records go, statistics are saved, and whoever else has a slow duty gets its turn.

One run at start, then one every ``cache-gc-interval`` seconds, never two at a time. What other rooms do in a run is
hung in by them (``before``, ``saving``, ``after``). Source: spec chapter operations, 1.7.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from smtpf.cache.database import COUNT_ENDED, code_of
from smtpf.cache.store import Cache, CacheError
from smtpf.journal.message import debug, err, info
from smtpf.settings.option import Number
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.journal.message import Message
    from smtpf.settings.store import Settings
    from smtpf.stats.tables import Statistics

SHORTEST_INTERVAL = 10
"""Seconds; a smaller ``cache-gc-interval`` counts as this."""
SLOW = 1.0
"""Seconds from which a step's time is logged with ``verbose=timers``."""

CACHE_GC_INTERVAL = Number(
    "cache-gc-interval",
    300,
    "Pause between two sweeps, which remove expired records from the cache and save the statistics. At least 10.",
    choices="seconds",
    least=0,
    area="cache",
)

GREY_TEMP_EXPIRE = Counter(
    "grey-temp-expire", Group.GENERAL, "Grey-listed senders that never came back: most of them would have sent junk.", since="later"
)

COLLECTING = debug(165, "garbage collecting cache", "cache", "A sweep of the cache begins.")
COLLECTED_IN = debug(166, "timer: cache gc expire=%.3f", "timers", "Seconds that the removal of expired records took.")
SAVING = debug(167, "updating stats", "cache", "The sweep now saves the statistics.")
SAVED_IN = debug(168, "timer: cache gc stats=%.3f", "timers", "Seconds that saving the statistics took.")
DONE = debug(169, "gc run done", "cache", "A sweep of the cache has ended.")
AFTER_IN = debug(170, "timer: cache gc checks=%.3f", "timers", "Seconds that the checks at the end of a sweep took.")
RUN_IN = debug(171, "timer: cache gc run=%.3f", "timers", "Seconds that the whole sweep took.")
SQL_CREATE = err(
    378,
    "sql=%s create error: %s %s",
    "A statement of the cache sweep could not be prepared; the cache file's tables are not what they should be.",
)
SQL_ERROR = err(
    379,
    "sql=%s statement error: %s %s",
    "A statement of the cache sweep failed: disk full, file locked or damaged. The next sweep tries again.",
)
GREY_EXPIRED = info(
    910,
    "greyGcExpire count=%d",
    "So many grey-listed senders have not come back in time and were forgotten.",
    always=True,
    since="later",
)

EXPIRE = "DELETE FROM mcc WHERE e <= ?"

Hook = Callable[[], Awaitable[None] | None]


class Collector:
    """Runs the sweeps. ``before`` is called ahead of the removal, ``saving`` and ``after`` behind it."""

    def __init__(self, cache: Cache, clock: IReactorTime, journal: Journal, stats: Statistics, settings: Settings) -> None:
        self.before: list[Hook] = []
        self.saving: list[Hook] = []
        self.after: list[Hook] = []
        self._cache = cache
        self._clock = clock
        self._journal = journal
        self._stats = stats
        self._interval = SHORTEST_INTERVAL
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None
        self._began = 0.0
        self._stopped = True
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """New options: the running pause becomes the new one."""
        self._interval = max(SHORTEST_INTERVAL, settings[CACHE_GC_INTERVAL])
        if self._timer is not None:
            self._timer.cancel()
            self._schedule()

    def start(self) -> None:
        """Run once now, then regularly."""
        self._stopped = False
        self._run()

    async def stop(self) -> None:
        """No further runs; waits for one under way."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is not None:
            ended: Deferred[None] = Deferred()
            self._running.addBoth(lambda result: ended.callback(None))
            await ended

    def _run(self) -> None:
        self._timer = None
        self._began = self._clock.seconds()
        running = ensureDeferred(self.collect())
        self._running = running

        def over(result: object) -> None:
            if isinstance(result, Failure):
                self._journal.failure(result, doing="cache gc")
            self._running = None
            self._schedule()

        running.addBoth(over)

    def _schedule(self) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(max(0.0, self._began + self._interval - self._clock.seconds()), self._run)

    async def collect(self) -> None:
        """One run."""
        began = self._clock.seconds()
        self._journal.write(COLLECTING)
        await self._call(self.before)
        now = self._cache.now()
        await self._count_grey(now)
        try:
            await self._cache.expire(now)
        except CacheError as error:
            self._sql_failed(EXPIRE, error)
        expired = self._clock.seconds()
        self._took(COLLECTED_IN, expired - began)
        self._journal.write(SAVING)
        await self._call(self.saving)
        saved = self._clock.seconds()
        self._took(SAVED_IN, saved - expired)
        await self._call(self.after)
        self._journal.write(DONE)
        ended = self._clock.seconds()
        self._took(AFTER_IN, ended - saved)
        self._took(RUN_IN, ended - began)

    async def _count_grey(self, now: int) -> None:
        try:
            found = await self._cache.count_ended("grey", "4", now)
        except CacheError as error:
            self._sql_failed(COUNT_ENDED, error)
            return
        if found:
            self._stats.add(GREY_TEMP_EXPIRE, found)
            self._journal.write(GREY_EXPIRED, found)

    def _sql_failed(self, sql: str, error: CacheError) -> None:
        cause = error.__cause__
        unprepared = cause is not None and code_of(cause) == sqlite3.SQLITE_ERROR
        self._journal.write(SQL_CREATE if unprepared else SQL_ERROR, sql, error, type(cause).__name__)

    async def _call(self, hooks: list[Hook]) -> None:
        for hook in hooks:
            try:
                work = hook()
                if work is not None:
                    await work
            except Exception:
                self._journal.failure(Failure(), doing="cache gc")

    def _took(self, message: Message, seconds: float) -> None:
        if seconds >= SLOW or self._journal.verbose.levels.get("timers", 0) >= 2:
            self._journal.write(message, seconds)
