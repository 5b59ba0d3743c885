"""The parts of a worker that need no process: distribution, cache, statistics, the number of workers."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.operations import Increment, Put, Read, Remove
from smtpf.cache.store import cache_from
from smtpf.journal.journal import Journal
from smtpf.process.steering import MOST_NETWORKS, Steering
from smtpf.settings.process_options import RUN_JAILED, TEST_MODE
from smtpf.settings.store import Settings
from smtpf.smtp.options import SMTP_XCLIENT_FROM
from smtpf.smtp.proxy_protocol import PROXY_PROTOCOL_FROM
from smtpf.stats.counter import Counter, Group, Kind
from smtpf.stats.tables import Statistics
from smtpf.workers import cache as wire
from smtpf.workers.cache import WorkerCache
from smtpf.workers.options import WORKERS, steering_of, usable_cores, worker_count
from smtpf.workers.statistics import WorkerStatistics, add_report


class Line:
    """A channel to a coordinator's cache in the same process."""

    def __init__(self, cache):
        self.cache = cache
        self.up = True
        self.asked = []

    def ask(self, done, name, *words):
        if not self.up:
            return False
        self.asked.append(words)
        answer = self.cache.perform(wire.read(*words)).addCallback(wire.rows)
        answer.addCallbacks(lambda result: done(result, None), lambda failure: done(None, failure.value))
        return True


@pytest.fixture
def caches():
    """The coordinator's cache, and those of two workers that hear of each other's changes."""
    journal, settings = Journal(lambda entry: None), Settings.of({CACHE_PATH: ":memory:"})
    now = Clock()
    now.advance(1_780_000_000)
    whole = cache_from(settings, journal, None, now=now.seconds)
    whole.start()
    workers = [WorkerCache(settings, journal, Line(whole), whole.node, now=now.seconds) for _ in range(2)]
    for worker in workers:
        whole.followers.append(lambda records, worker=worker: worker.absorb(list(records)) if records else worker.forget())
    yield whole, *workers
    whole.stop()


def value(found):
    if isinstance(found, Deferred):
        results = []
        found.addCallback(results.append)
        found = results[0]
    return found.value if found is not None else None


@pytest.mark.parametrize("operation", [Read("k"), Put("k", "v", 1, 2), Increment("k", 1, 2, 3), Remove("k", 9)])
def test_an_operation_survives_the_way(operation):
    assert wire.read(*wire.written(operation)) == operation


def test_what_one_worker_puts_another_finds(caches):
    whole, one, two = caches
    one.put("grey:a", "4 1 2")
    assert value(two.get("grey:a")) == "4 1 2"
    assert value(whole.get("grey:a")) == "4 1 2"
    assert value(one.get("grey:a")) == "4 1 2"
    assert one.get("grey:a").o == whole.node


def test_a_change_reaches_the_memory_of_the_others(caches):
    _, one, two = caches
    one.put("k", "2")
    assert value(two.get("k")) == "2"
    one.put("k", "5")
    assert two.get("k").value == "5"
    two.delete("k")
    assert one.get("k") is None


def test_absence_is_remembered_until_somebody_writes(caches):
    _, one, two = caches
    assert value(two.get("k")) is None
    assert two.get("k") is None
    one.put("k", "2")
    assert two.get("k").value == "2"


def test_an_operators_change_and_forgetting_reach_all(caches):
    whole, one, _ = caches
    assert value(one.get("k")) is None
    whole.write("k", "2")
    assert one.get("k").value == "2"
    whole.forget()
    assert isinstance(one.get("k"), Deferred)


def test_counters_are_exact_over_all_workers(caches):
    _, one, two = caches
    seen = []
    for _ in range(3):
        for worker in (one, two):
            worker.increment("limit:a", 60).addCallback(seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_without_a_coordinator_nothing_is_found_and_nothing_stored(caches):
    _, one, _ = caches
    one._channel.up = False
    one.put("k", "2")
    assert value(one.get("k")) is None
    assert one.failing


EVENTS = Counter("EVENTS", Group.MAIL, "Events.")
MARK = Counter("mark", Group.MAIL, "A mark.", Kind.HIGH_WATER)
GAUGE = Counter("gauge", Group.MAIL, "A gauge.", Kind.GAUGE)


def test_reports_add_up():
    clock = Clock()
    node = Statistics(clock, None, [EVENTS, MARK, GAUGE])
    workers = [WorkerStatistics(clock, [EVENTS, MARK, GAUGE]) for _ in range(2)]
    for number, worker in enumerate(workers, 1):
        worker.add(EVENTS, number)
        worker.raise_to(MARK, 10 * number)
        worker.raise_to(MARK, 1)
        worker.set(GAUGE, number)
        add_report(node, worker.report())
    workers[0].add(EVENTS)
    add_report(node, workers[0].report())
    add_report(node, workers[0].report())
    assert (node.value(EVENTS), node.value(MARK), node.value(GAUGE)) == (4, 20, 2)


def test_number_of_workers():
    entries = []
    journal = Journal(entries.append)
    assert worker_count(Settings.of(), journal) == usable_cores()
    assert worker_count(Settings.of({WORKERS: "1"}), journal) == 1
    assert worker_count(Settings.of({WORKERS: "3"}), journal) == 3
    assert worker_count(Settings.of({WORKERS: "3", TEST_MODE: "+"}), journal) == 1
    assert worker_count(Settings.of({RUN_JAILED: "+"}), journal) == 1
    assert entries == []
    assert worker_count(Settings.of({WORKERS: "3", RUN_JAILED: "+"}), journal) == 1
    assert [entry.message.number for entry in entries] == [1144]


def test_who_may_speak_for_others_meets_any_worker():
    journal = Journal(lambda entry: None)

    def steering(workers="3", xclient="", proxies=""):
        return steering_of(Settings.of({WORKERS: workers, SMTP_XCLIENT_FROM: xclient, PROXY_PROTOCOL_FROM: proxies}), journal)

    assert steering() == Steering(3)
    assert steering().spreads("127.0.0.1")
    fronts = steering(xclient="192.0.2.1", proxies="198.51.100.0/24;2001:db8::/32")
    assert all(fronts.spreads(each) for each in ("::1", "192.0.2.1", "198.51.100.9", "2001:db8:9::1"))
    assert not any(fronts.spreads(each) for each in ("192.0.2.2", "198.51.101.1", "2001:db9::1"))
    assert len(steering(proxies=";".join(f"10.0.{number}.0/24" for number in range(200))).spread) == MOST_NETWORKS
    assert steering(workers="1") is None
