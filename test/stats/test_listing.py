"""What STAT prints and what is posted."""

import time

import pytest
from twisted.internet.task import Clock

from smtpf.stats.counter import Counter, Group, Kind
from smtpf.stats.listing import COLUMNS, Facts, age, form, memory, stat_lines
from smtpf.stats.sampling import OpenFilesSampler, open_files, sample_load
from smtpf.stats.sqlite_memory import memory_used
from smtpf.stats.tables import Statistics, Table

ROUTE_ACCOUNTS = Counter("route-accounts", Group.GENERAL, "", Kind.GAUGE)
CLIENTS = Counter("CLIENTS", Group.CONNECT, "")
DROPPED = Counter("dropped", Group.CONNECT, "")


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def stats():
    clock = Clock()
    clock.advance(1202448484)
    stats = Statistics(clock, None, [ROUTE_ACCOUNTS, CLIENTS, DROPPED])
    stats.add(CLIENTS, 1645)
    stats.add(DROPPED, 159)
    clock.advance(7200)
    stats.begin_hour()
    stats.fold()
    stats.add(CLIENTS, 55)
    stats.add(DROPPED, 11)
    return stats


FACTS = Facts("2.1.2", 1202448484, 1202452389, 12, (312 * 1024, 2 * 1024 * 1024 + 5))


def test_stat_prints_head_and_three_columns(stats):
    assert stat_lines(stats, FACTS) == [
        "smtpf/2.1.2",
        "start-time=Fri, 08 Feb 2008 05:28:04 +0000",
        "age=3905 (00 01:05:05)",
        "active-connections=12",
        "sqlite-memory=312KB",
        "sqlite-high-memory=2MB",
        "000 route-accounts=0 0.00%; 0 0.00%; 0 0.00%",
        "001 CLIENTS=1700 100.00%; 55 100.00%; 55 100.00%",
        "002 dropped=170 10.00%; 11 20.00%; 11 20.00%",
    ]


@pytest.mark.parametrize(
    ("word", "line"), [("H", "002 dropped=11 20.00%"), ("W", "002 dropped=11 20.00%"), ("R", "002 dropped=170 10.00%")]
)
def test_stat_with_a_letter_prints_that_column(stats, word, line):
    assert stat_lines(stats, FACTS, COLUMNS[word])[-1] == line


def test_form_for_the_web(stats):
    assert form(stats, FACTS) == (
        b"smtpf=2.1.2&start-time=0x47abe864&age=3905&active-connections=12&sqlite-memory=312KB&sqlite-high-memory=2MB"
        b"&route-accounts=0%200.00%25%3B0%200.00%25%3B0%200.00%25"
        b"&CLIENTS=1700%20100.00%25%3B55%20100.00%25%3B55%20100.00%25"
        b"&dropped=170%2010.00%25%3B11%2020.00%25%3B11%2020.00%25"
    )


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0B"), (1024, "1024B"), (1025, "1KB"), (312 * 1024, "312KB"), (2 * 1024**2, "2MB"), (3 * 1024**3, "3GB"), (5 * 1024**4, "5120GB")],
)
def test_memory_is_divided_while_it_is_more_than_1024(octets, text):
    assert memory(octets) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 (00 00:00:00)"), (3905, "3905 (00 01:05:05)"), (8640000, "8640000 (100 00:00:00)")])
def test_age(seconds, text):
    assert age(seconds) == text


def test_sqlite_memory_is_a_pair_of_octets():
    used, most = memory_used()
    assert 0 <= used <= most


def test_load_averages_are_kept_in_thousandths(stats):
    sample_load(stats, lambda: (0.5, 1.25, 2.0))
    sample_load(stats, lambda: (0.25, 1.5, 2.0))
    values = {standing.counter.name: standing.values[Table.RUNTIME] for standing in stats.standings()}
    assert [values[f"load-avg-{minutes}"] for minutes in (1, 5, 15)] == [250, 1500, 2000]
    assert [values[f"high-load-avg-{minutes}"] for minutes in (1, 5, 15)] == [500, 1500, 2000]


def test_machine_without_load_average_is_passed_over(stats):
    def unknown():
        raise OSError

    sample_load(stats, unknown)


def test_open_files_are_looked_at_each_minute():
    clock, counts = Clock(), [5, 9, 7]
    stats = Statistics(clock)
    sampler = OpenFilesSampler(clock, stats, lambda: counts.pop(0))
    sampler.start()
    clock.pump([60, 60])
    values = {standing.counter.name: standing.values[Table.RUNTIME] for standing in stats.standings()}
    assert values == {"open-files": 7, "high-open-files": 9}
    sampler.stop()
    assert not clock.getDelayedCalls()


def test_open_files_of_this_process():
    before = open_files()
    with open("/dev/null"):
        assert open_files() == before + 1
