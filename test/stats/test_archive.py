"""Saving and loading the counters, with real SQLite files and text files."""

import os
import sqlite3
import time

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock

from smtpf.journal.journal import Journal
from smtpf.journal.verbose import Verbose
from smtpf.settings.store import Settings
from smtpf.stats.archive import STATS_RETAIN_DAYS, Archive
from smtpf.stats.counter import Counter, Group
from smtpf.stats.routes import Outcome, RouteCounts
from smtpf.stats.rows import STATS_MAP, FileRows, Refused, SqliteRows, open_stats_map
from smtpf.stats.tables import Statistics, Table

CLIENTS = Counter("CLIENTS", Group.CONNECT, "")
DROPPED = Counter("dropped", Group.CONNECT, "")
START = 1202448484


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Process:
    """One run of the program, from ``second`` on, over the rows given."""

    def __init__(
        self, rows, second=START, version="2.1.2", counters=(CLIENTS, DROPPED), settings=None, in_thread=None, verbose="", post=None
    ):
        self.clock = Clock()
        self.clock.advance(second)
        self.lines = []
        journal = Journal(lambda entry: self.lines.append(entry.text), Verbose(verbose))
        self.stats = Statistics(self.clock, journal, counters)
        self.routes = RouteCounts(journal)
        settings = settings or Settings.of({STATS_MAP: "sql!/x"})
        self.archive = Archive(
            self.clock,
            journal,
            self.stats,
            self.routes,
            rows,
            in_thread or (lambda work: at_once(work)),
            lambda: settings,
            version,
            post=post,
            sample=lambda stats: None,
        )

    def save(self):
        self.wait(self.archive.save())

    def load(self):
        self.wait(self.archive.load())

    @staticmethod
    def wait(work):
        outcome = []
        ensureDeferred(work).addBoth(outcome.append)
        assert outcome == [None]


def at_once(work):
    try:
        return succeed(work())
    except Exception:
        deferred = Deferred()
        deferred.errback()
        return deferred


@pytest.fixture(params=["sql", "file"])
def rows(request, tmp_path):
    rows = SqliteRows(str(tmp_path / "stats.sq3")) if request.param == "sql" else FileRows(str(tmp_path / "stats.txt"))
    yield rows
    rows.close()


def test_hourly_row_of_the_worked_example(rows):
    process = Process(rows)
    process.stats.add(CLIENTS, 17)
    process.stats.add(DROPPED, 3)
    process.clock.advance(300)
    process.save()
    assert rows.get("2008020805") == "2.1.2 47abe864 47abe990 11 3"
    assert rows.get("fields:2.1.2") == "2.1.2 start-time touch-time CLIENTS dropped"


def test_counts_of_an_hour_are_written_under_that_hour_when_it_is_over(rows):
    process = Process(rows)
    process.stats.add(CLIENTS, 17)
    process.save()
    process.stats.add(CLIENTS, 1)
    process.clock.advance(3600)
    process.save()
    assert rows.get("2008020805").split()[3:] == ["12", "0"]
    assert rows.get("2008020806").split()[3:] == ["0", "0"]
    assert process.stats.value(CLIENTS, Table.HOURLY) == 0
    assert process.stats.value(CLIENTS, Table.RUNTIME) == 18
    process.stats.add(CLIENTS, 2)
    process.save()
    assert rows.get("2008020805").split()[3:] == ["12", "0"]
    assert rows.get("2008020806").split()[3:] == ["2", "0"]


def test_next_process_of_the_same_hour_goes_on_counting(rows):
    process = Process(rows)
    process.stats.add(CLIENTS, 17)
    process.stats.add(DROPPED, 3)
    process.save()
    mine = Counter("mine", Group.CONNECT, "")
    again = Process(rows, START + 60, version="2.2", counters=(mine, DROPPED))
    again.load()
    assert again.stats.value(DROPPED, Table.HOURLY) == 3
    assert [again.stats.value(DROPPED, table) for table in (Table.RUNTIME, Table.WINDOW)] == [0, 0]
    again.stats.add(DROPPED)
    again.save()
    assert rows.get("fields:2.2") == "2.2 start-time touch-time mine dropped"
    assert rows.get("2008020805").split()[0] == "2.2" and rows.get("2008020805").split()[3:] == ["0", "4"]


def test_another_hour_starts_at_zero(rows):
    process = Process(rows)
    process.stats.add(CLIENTS, 17)
    process.save()
    again = Process(rows, START + 3600)
    again.load()
    assert again.stats.value(CLIENTS, Table.HOURLY) == 0


@pytest.mark.parametrize("row", ["2.1.2 47abe864 47abe990 xx 3", "9.9 1 2 3", "", "2.1.2"])
def test_damaged_or_foreign_row_is_ignored(rows, row):
    rows.put({"2008020805": row, "fields:2.1.2": "2.1.2 start-time touch-time CLIENTS dropped"})
    process = Process(rows)
    process.load()
    assert process.stats.value(CLIENTS, Table.HOURLY) == 0


def test_route_rows(rows):
    rows.put({"route:example.com": "38 2:1:14" + " 0:0:0" * 30})
    process = Process(rows, verbose="stats")
    for _ in range(3):
        process.routes.add("route:example.com", Outcome.ACCEPTED, 1500)
    process.routes.add("route:skipped", Outcome.NEITHER, 1500)
    del process.lines[:]
    process.save()
    assert rows.get("route:example.com") == "38 5:1:1a" + " 0:0:0" * 30
    assert rows.get("route:skipped") is None
    assert process.lines == ["#707 route stat get route:example.com 38 2:1:20", "#709 route stat put route:example.com 38 5:1:26"]
    process.clock.advance(86400)
    for _ in range(3):
        process.routes.add("route:example.com", Outcome.ACCEPTED, 1500)
    process.save()
    assert rows.get("route:example.com") == "39 3:0:6 5:1:1a" + " 0:0:0" * 29


class Failing:
    """Rows whose disk is broken as long as asked."""

    def __init__(self, rows):
        self.rows = rows
        self.broken_get = self.broken_put = False

    def get(self, key):
        if self.broken_get and key.startswith("route:"):
            raise sqlite3.OperationalError("disk I/O error")
        return self.rows.get(key)

    def put(self, rows):
        if self.broken_put:
            raise OSError(28, "No space left on device")
        self.rows.put(rows)

    def delete_hours_before(self, key):
        self.rows.delete_hours_before(key)

    def close(self):
        pass


def test_failed_read_of_a_route_keeps_its_counts_for_the_next_save(rows):
    failing = Failing(rows)
    process = Process(failing)
    process.stats.add(CLIENTS)
    process.routes.add("route:a", Outcome.ACCEPTED, 0)
    failing.broken_get = True
    process.save()
    assert process.lines == ["#706 stats-map get key={route:a} failed"]
    assert rows.get("2008020805").split()[3] == "1"
    failing.broken_get = False
    process.routes.add("route:a", Outcome.ACCEPTED, 0)
    process.save()
    assert rows.get("route:a").startswith("38 2:0:2 ")


def test_full_disk_loses_no_hour_and_no_route(rows):
    failing = Failing(rows)
    process = Process(failing)
    process.stats.add(CLIENTS, 5)
    process.routes.add("route:a", Outcome.ACCEPTED, 0)
    failing.broken_put = True
    process.clock.advance(3600)
    process.save()
    assert process.lines == ["#1191 stats-map=sql!/x save error: No space left on device (28)"]
    failing.broken_put = False
    process.clock.advance(3600)
    process.save()
    assert rows.get("2008020805").split()[3] == "5"
    assert rows.get("fields:2.1.2") and rows.get("route:a").startswith("38 1:0:1 ")


def test_overlong_names_and_values_are_told_and_cut(rows):
    many = [Counter(f"{number:040d}", Group.CONNECT, "") for number in range(40_000)]
    process = Process(rows, counters=many)
    process.save()
    assert process.lines == ["#711 statsSave() buffer overflow caught", "#710 statsSave() field name buffer overflow caught"]
    assert rows.get("fields:2.1.2") is None
    assert len(rows.get("2008020805")) <= 65_536


def test_overlong_route_row_is_told_and_cut(rows):
    rows.put({"route:a": "38 " + "f" * 70_000 + ":0:0"})
    process = Process(rows)
    process.routes.add("route:a", Outcome.ACCEPTED, 0)
    process.save()
    assert len(process.lines) == 1 and process.lines[0].startswith("#708 stats-map key={route:a} value={38 fff")
    assert len(rows.get("route:a")) <= 65_536


def test_old_hours_are_removed_once_a_day(rows):
    rows.put({"2008020104": "x", "2008020105": "x", "2008020106": "x", "route:2008": "x", "fields:1": "x"})
    process = Process(rows, settings=Settings.of({STATS_RETAIN_DAYS: "7"}))
    process.save()
    assert (
        rows.get("2008020104") is None and rows.get("2008020105") == "x" and rows.get("route:2008") == "x" and rows.get("fields:1") == "x"
    )
    process.clock.advance(3600)
    process.save()
    assert rows.get("2008020105") == "x"
    process.clock.advance(86400)
    process.save()
    assert rows.get("2008020105") is None and rows.get("2008020106") is None


def test_hours_are_kept_for_ever_by_default(rows):
    rows.put({"1999010100": "x"})
    Process(rows).save()
    assert rows.get("1999010100") == "x"


def test_without_a_map_hours_turn_and_counters_are_posted():
    posts = []
    process = Process(None, post=lambda: posts.append(1))
    process.load()
    process.stats.add(CLIENTS)
    process.clock.advance(3600)
    process.save()
    assert process.stats.value(CLIENTS, Table.HOURLY) == 0 and posts == [1]


def test_saves_never_overlap(rows):
    waiting = []

    def slowly(work):
        deferred = Deferred()
        waiting.append((deferred, work))
        return deferred

    process = Process(rows, in_thread=slowly)
    first, second = ensureDeferred(process.archive.save()), ensureDeferred(process.archive.save())
    assert len(waiting) == 1
    deferred, work = waiting.pop()
    deferred.callback(work())
    assert first.called and not second.called and len(waiting) == 1
    deferred, work = waiting.pop()
    deferred.callback(work())
    assert second.called


def test_a_real_thread_does_the_work(tmp_path, reactor_run):
    from twisted.internet import reactor
    from twisted.internet.threads import deferToThreadPool
    from twisted.python.threadpool import ThreadPool

    pool = ThreadPool(0, 1)
    pool.start()
    path = str(tmp_path / "stats.sq3")
    process = Process(SqliteRows(path), in_thread=lambda work: deferToThreadPool(reactor, pool, work))
    process.stats.add(CLIENTS, 2)
    reactor_run(process.archive.close())
    pool.stop()
    rows = SqliteRows(path)
    assert rows.get("2008020805").split()[3] == "2"
    rows.close()


@pytest.mark.parametrize("kind", ["sql", "file"])
def test_map_is_made_when_missing_and_found_again(tmp_path, kind):
    path = tmp_path / "stats"
    settings, journal = Settings.of({STATS_MAP: f"{kind}!{path}"}), Journal(lambda entry: None)
    rows = open_stats_map(settings, journal, (os.getuid(), os.getgid()))
    rows.put({"route:a": "1 2 3", "2008020805": ""})
    rows.close()
    assert path.stat().st_mode & 0o777 == 0o664
    rows = open_stats_map(settings, journal)
    assert rows.get("route:a") == "1 2 3" and rows.get("2008020805") == "" and rows.get("none") is None
    rows.close()


def test_read_only_map_is_read_and_never_written(tmp_path):
    path = tmp_path / "stats"
    path.write_text("# by hand\n\n2008020805 2.1.2 1 2 3\n")
    rows = open_stats_map(Settings.of({STATS_MAP: f"text!{path}"}), Journal(lambda entry: None))
    rows.put({"route:a": "x"})
    assert rows.get("2008020805") == "2.1.2 1 2 3" and rows.get("route:a") is None
    assert path.read_text() == "# by hand\n\n2008020805 2.1.2 1 2 3\n"


def test_no_map_is_asked_for():
    assert open_stats_map(Settings.of(), Journal(lambda entry: None)) is None


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("sql!{0}/none/stats.sq3", "unable to open database file"),
        ("sql!{0}/text", "file is not a database"),
        ("file!{0}/none/stats", "No such file or directory (2)"),
        ("text!{0}/none", "No such file or directory (2)"),
        ("odd!{0}", "not a type of map"),
        ("{0}/stats", "not a type of map"),
    ],
)
def test_map_that_cannot_be_opened_is_refused_with_714(tmp_path, location, reason):
    (tmp_path / "text").write_text("no database, and long enough for SQLite to see that it is none. " * 20)
    lines = []
    location = location.format(tmp_path)
    refused = open_stats_map(Settings.of({STATS_MAP: location}), Journal(lambda entry: lines.append(entry.text)))
    assert isinstance(refused, Refused)
    assert len(lines) == 1 and lines[0].startswith(f"#714 stats-map={location} open error: ") and reason in lines[0]
