"""Counters and their three tables."""

import pytest
from twisted.internet.task import Clock

from smtpf.journal.journal import Journal
from smtpf.stats.counter import Counter, Group, Kind
from smtpf.stats.general import HIGH_CONNECTIONS, HIGH_CONNECTIONS_PER_SECOND, LOAD_AVG_1, TOTAL_KB
from smtpf.stats.tables import INTERVAL, Statistics, Table, order

CLIENTS = Counter("CLIENTS", Group.CONNECT, "")
DROPPED = Counter("dropped", Group.CONNECT, "")
MAIL = Counter("MAIL", Group.MAIL, "")
R, H, W = Table.RUNTIME, Table.HOURLY, Table.WINDOW


@pytest.fixture
def clock():
    clock = Clock()
    clock.advance(1202448484)
    return clock


@pytest.fixture
def lines():
    return []


@pytest.fixture
def stats(clock, lines):
    stats = Statistics(clock, Journal(lambda entry: lines.append(entry.text)), [CLIENTS, DROPPED])
    stats.begin()
    return stats


def values(stats, counter):
    return [stats.value(counter, table) for table in (R, H, W)]


def test_event_counts_in_all_three_tables(stats):
    stats.add(CLIENTS)
    stats.add(CLIENTS, 4)
    assert values(stats, CLIENTS) == [5, 5, 5]


def test_window_forgets_after_ten_intervals_and_no_sooner(stats, clock):
    stats.add(CLIENTS, 3)
    clock.pump([INTERVAL] * 9)
    stats.add(CLIENTS, 4)
    assert stats.value(CLIENTS, W) == 7
    clock.advance(INTERVAL)
    assert values(stats, CLIENTS) == [7, 7, 4]
    clock.advance(20 * INTERVAL)
    assert values(stats, CLIENTS) == [7, 7, 0]


def test_events_belong_to_the_interval_in_which_they_happened(stats, clock):
    stats.add(CLIENTS, 3)
    clock.advance(INTERVAL - 1202448484 % INTERVAL)
    stats.add(CLIENTS, 1)
    clock.advance(9 * INTERVAL - 1)
    assert stats.value(CLIENTS, W) == 4
    clock.advance(1)
    assert stats.value(CLIENTS, W) == 1


def test_high_water_keeps_the_largest_value_of_each_table(stats, clock):
    for value in (3, 9, 5):
        stats.raise_to(HIGH_CONNECTIONS, value)
    assert values(stats, HIGH_CONNECTIONS) == [9, 9, 9]
    stats.begin_hour()
    clock.advance(10 * INTERVAL)
    stats.raise_to(HIGH_CONNECTIONS, 4)
    assert values(stats, HIGH_CONNECTIONS) == [9, 4, 4]


def test_new_marks_are_logged_hourly_first(stats, lines):
    stats.raise_to(HIGH_CONNECTIONS, 3)
    stats.begin_hour()
    stats.raise_to(HIGH_CONNECTIONS, 2)
    stats.raise_to(HIGH_CONNECTIONS, 2)
    stats.raise_to(HIGH_CONNECTIONS, 7)
    assert lines == [
        "#715 hourly high-connections was=0 now=3",
        "#716 runtime high-connections was=0 now=3",
        "#715 hourly high-connections was=0 now=2",
        "#715 hourly high-connections was=2 now=7",
        "#716 runtime high-connections was=3 now=7",
    ]


def test_marks_of_accept_rates_are_not_logged(stats, lines):
    stats.raise_to(HIGH_CONNECTIONS_PER_SECOND, 30)
    assert values(stats, HIGH_CONNECTIONS_PER_SECOND) == [30, 30, 30] and lines == []


def test_gauge_shows_the_last_value_and_the_largest_of_the_window(stats):
    stats.set(LOAD_AVG_1, 900)
    stats.set(LOAD_AVG_1, 250)
    assert values(stats, LOAD_AVG_1) == [250, 250, 250]


def test_events_before_ready_and_after_shutdown_are_ignored(clock):
    stats = Statistics(clock, None, [CLIENTS], counting=False)
    stats.add(CLIENTS)
    stats.set(LOAD_AVG_1, 5)
    assert values(stats, CLIENTS) == [0, 0, 0] and stats.value(LOAD_AVG_1) == 0
    stats.begin()
    assert stats.value(LOAD_AVG_1) == 5
    stats.add(CLIENTS)
    stats.end()
    stats.add(CLIENTS)
    assert values(stats, CLIENTS) == [1, 1, 1]
    assert not clock.getDelayedCalls()


def test_counter_never_used_is_zero_and_one_not_declared_is_taken_in(stats):
    assert values(stats, MAIL) == [0, 0, 0]
    stats.add(MAIL, 2)
    assert values(stats, MAIL) == [2, 2, 2]
    assert stats.counters == [CLIENTS, DROPPED, MAIL]


def test_order_is_by_group_then_divisor_then_declaration():
    late = Counter("late", Group.GENERAL, "")
    assert [counter.name for counter in order([MAIL, DROPPED, CLIENTS, late, TOTAL_KB])] == [
        "late",
        "total-KB",
        "CLIENTS",
        "dropped",
        "MAIL",
    ]


def test_percentages_are_of_the_first_counter_of_the_group_in_the_same_table(stats):
    stats.add(CLIENTS, 1700)
    stats.add(DROPPED, 170)
    stats.add(TOTAL_KB, 3)
    stats.begin_hour()
    stats.add(CLIENTS, 55)
    stats.add(DROPPED, 11)
    shown = {standing.counter: standing.percents for standing in stats.standings()}
    assert shown[CLIENTS] == {R: 100.0, H: 100.0, W: 100.0}
    assert shown[DROPPED][H] == 20.0
    assert shown[DROPPED][R] == pytest.approx(10.313, abs=0.001)
    assert shown[TOTAL_KB] == {R: 100.0, H: 0.0, W: 100.0}


def test_percentage_of_nothing_is_zero(stats):
    stats.add(MAIL, 0)
    assert all(percent == 0.0 for standing in stats.standings() for percent in standing.percents.values())


def test_kinds_of_the_general_group():
    assert (HIGH_CONNECTIONS.kind, LOAD_AVG_1.kind, TOTAL_KB.kind) == (Kind.HIGH_WATER, Kind.GAUGE, Kind.EVENT)
