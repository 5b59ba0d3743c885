"""Route rows, by the vectors of the statistics chapter."""

import calendar

import pytest

from smtpf.journal.journal import Journal
from smtpf.journal.verbose import Verbose
from smtpf.stats.routes import DAYS, Counts, Outcome, RouteCounts, RouteRow

ZEROS = " 0:0:0"


def on_day(day, year=2008):
    """Noon UTC of day ``day`` (from 0) of ``year``."""
    return calendar.timegm((year, 1, 1, 12, 0, 0)) + day * 86400


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def full(head, triples):
    return head + ZEROS * (DAYS - triples)


THREE = Counts(3, 0, 6)


@pytest.mark.parametrize(
    ("old", "now", "new"),
    [
        (full("38 2:1:14", 1), on_day(38), full("38 5:1:1a", 1)),
        (full("38 2:1:14", 1), on_day(39), full("39 3:0:6 2:1:14", 2)),
        (full("38 2:1:14", 1), on_day(41), full("41 3:0:6 0:0:0 0:0:0 2:1:14", 4)),
        (full("38 2:1:14", 1), on_day(80), full("80 3:0:6", 1)),
        (full("365 2:1:14", 1), on_day(0, 2009), full("0 3:0:6 2:1:14", 2)),
        (full("364 2:1:14", 1), on_day(0, 2010), full("0 3:0:6 2:1:14", 2)),
        (full("364 2:1:14", 1), on_day(1, 2009), full("1 3:0:6 0:0:0 0:0:0 2:1:14", 4)),
        ("38" + " 1:0:1" * DAYS, on_day(39), "39 3:0:6" + " 1:0:1" * (DAYS - 1)),
        ("38 2:1:14", on_day(39), full("39 3:0:6 2:1:14", 2)),
    ],
)
def test_todays_counts_join_the_row(old, now, new):
    assert str(RouteRow.parse(old).with_today(THREE, now)) == new


def test_new_row_has_31_triples():
    row = str(RouteRow().with_today(THREE, on_day(38)))
    assert row == full("38 3:0:6", 1)
    assert len(row.split()) == DAYS + 1


@pytest.mark.parametrize("text", ["", "x 1:2:3", "38 1:2:3:4", "38 1:2:g"])
def test_damaged_row_is_none(text):
    assert RouteRow.parse(text) is None


def test_three_messages_of_1500_octets():
    routes = RouteCounts(Journal(lambda entry: None))
    for _ in range(3):
        routes.add("route:example.com", Outcome.ACCEPTED, 1500)
    assert routes.take() == {"route:example.com": THREE}
    assert routes.take() == {}


def test_volume_of_undecided_routes_waits_for_its_next_save():
    routes = RouteCounts(Journal(lambda entry: None))
    routes.add("route:a", Outcome.NEITHER, 2048)
    assert routes.take() == {}
    routes.add("route:a", Outcome.REJECTED, 0)
    assert routes.take() == {"route:a": Counts(0, 1, 4)}


def test_counts_given_back_are_added():
    routes = RouteCounts(Journal(lambda entry: None))
    routes.add("route:a", Outcome.ACCEPTED, 0)
    taken = routes.take()
    routes.add("route:a", Outcome.ACCEPTED, 0)
    routes.give_back(taken)
    assert routes.take() == {"route:a": Counts(2, 0, 2)}


def test_changes_are_shown_with_verbose_stats():
    lines = []
    routes = RouteCounts(Journal(lambda entry: lines.append(entry.text), Verbose("stats")))
    routes.add("route:a", Outcome.ACCEPTED, 1500)
    assert lines == ["#704 route stats before route:a 0:0:0", "#705 route stats after route:a 1:0:2"]
