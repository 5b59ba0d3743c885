"""Sweeps of the cache, by a clock of the test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from smtpf.cache.collector import CACHE_GC_INTERVAL, GREY_TEMP_EXPIRE, Collector
from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.store import Cache, cache_from
from smtpf.journal.journal import Entry, Journal
from smtpf.settings.store import Settings
from smtpf.stats.tables import Statistics, Table

NOW = 1_000_000


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.advance(NOW)
    return clock


@pytest.fixture
def lines() -> list[Entry]:
    return []


@pytest.fixture
def journal(lines: list[Entry]) -> Journal:
    return Journal(lines.append, now=lambda: 0.0, pid=1)


@pytest.fixture
def cache(tmp_path: Path, journal: Journal, clock: Clock) -> Any:
    made = cache_from(Settings.of({CACHE_PATH: str(tmp_path / "c.sq3")}), journal, None, now=clock.seconds)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def stats(clock: Clock) -> Statistics:
    return Statistics(clock)


def collector(cache: Cache, clock: Clock, journal: Journal, stats: Statistics, interval: int = 300) -> Collector:
    return Collector(cache, clock, journal, stats, Settings.of({CACHE_GC_INTERVAL: str(interval)}))


def test_runs_at_start_and_every_interval(cache: Cache, clock: Clock, journal: Journal, stats: Statistics) -> None:
    runs: list[float] = []
    sweeps = collector(cache, clock, journal, stats)
    sweeps.saving.append(lambda: runs.append(clock.seconds() - NOW))
    sweeps.start()
    clock.pump([100] * 7)
    assert runs == [0, 300, 600]
    ensureDeferred(sweeps.stop())
    clock.pump([300] * 3)
    assert len(runs) == 3


def test_changed_interval_moves_the_pause_under_way_and_is_at_least_ten_seconds(
    cache: Cache, clock: Clock, journal: Journal, stats: Statistics
) -> None:
    runs: list[float] = []
    sweeps = collector(cache, clock, journal, stats)
    sweeps.saving.append(lambda: runs.append(clock.seconds() - NOW))
    sweeps.start()
    clock.advance(5)
    sweeps.configure(Settings.of({CACHE_GC_INTERVAL: "1"}))
    clock.pump([1] * 16)
    assert runs == [0, 10, 20]
    ensureDeferred(sweeps.stop())


def test_a_long_run_delays_the_next_and_stop_waits_for_it(cache: Cache, clock: Clock, journal: Journal, stats: Statistics) -> None:
    slow: list[Deferred[None]] = []

    def hook() -> Deferred[None]:
        slow.append(Deferred())
        return slow[-1]

    sweeps = collector(cache, clock, journal, stats, 10)
    sweeps.saving.append(hook)
    sweeps.start()
    clock.advance(35)
    assert len(slow) == 1
    slow[0].callback(None)
    clock.advance(0)
    assert len(slow) == 2
    stopped = ensureDeferred(sweeps.stop())
    assert not stopped.called
    slow[1].callback(None)
    assert stopped.called


def test_grey_tuples_that_never_came_back_are_counted(
    cache: Cache, clock: Clock, journal: Journal, stats: Statistics, lines: list[Entry]
) -> None:
    cache.put("grey:192.0.2.1,a@b,c@d", "4", ttl=10)
    cache.put("grey:192.0.2.2,a@b,c@d", "4 aa bb", ttl=10)
    cache.put("grey:192.0.2.3", "0", ttl=10)
    cache.put("sav:a@b", "4", ttl=10)
    clock.advance(10)
    ensureDeferred(collector(cache, clock, journal, stats).collect())
    assert [entry.text for entry in lines] == ["#910 greyGcExpire count=2"]
    assert stats.value(GREY_TEMP_EXPIRE, Table.RUNTIME) == 2
    assert [found for found in (cache.get("sav:a@b"),) if found] == []


def test_steps_are_logged_with_their_verbose_words(
    cache: Cache, clock: Clock, journal: Journal, stats: Statistics, lines: list[Entry]
) -> None:
    journal.verbose.levels["cache"] = 1
    journal.verbose.levels["timers"] = 2
    order: list[str] = []
    sweeps = collector(cache, clock, journal, stats)
    sweeps.before.append(lambda: order.append("before"))
    sweeps.saving.append(lambda: order.append("saving"))
    sweeps.after.append(lambda: order.append("after"))
    ensureDeferred(sweeps.collect())
    assert order == ["before", "saving", "after"]
    assert [entry.message.number for entry in lines] == [165, 166, 167, 168, 169, 170, 171]
    lines.clear()
    journal.verbose.levels["timers"] = 1
    sweeps.saving.append(lambda: clock.advance(1.5))
    ensureDeferred(sweeps.collect())
    assert [entry.message.number for entry in lines] == [165, 167, 168, 169, 171]


def test_a_failing_hook_or_file_does_not_end_the_run(
    cache: Cache, clock: Clock, journal: Journal, stats: Statistics, lines: list[Entry]
) -> None:
    ran: list[bool] = []
    sweeps = collector(cache, clock, journal, stats)
    sweeps.before.append(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    sweeps.after.append(lambda: ran.append(True))
    cache.in_thread(lambda database: database.connection.execute("ALTER TABLE mcc RENAME TO gone"))
    ensureDeferred(sweeps.collect())
    assert ran == [True]
    assert [entry.message.number for entry in lines] == [539, 378, 378]


def test_read_only_file_is_a_statement_error(cache: Cache, clock: Clock, journal: Journal, stats: Statistics, lines: list[Entry]) -> None:
    cache.put("a:b", "2", ttl=0)
    cache.in_thread(lambda database: database.connection.execute("PRAGMA query_only = ON"), writes=False)
    ensureDeferred(collector(cache, clock, journal, stats).collect())
    assert [entry.message.number for entry in lines] == [379]
