"""Maps in files and databases: opening them, and following their changes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from smtpf.journal.journal import Entry, Journal
from smtpf.maps.access import AccessMap
from smtpf.maps.opening import Workshop, open_access_map, open_route_map, parse_specification
from smtpf.maps.routes import RouteMap
from smtpf.maps.source import MapError, Table
from smtpf.maps.sqlite import SqliteReader
from smtpf.maps.watched import CHECK_EVERY, WatchedSource, read_text


class Site:
    """A place for maps, with a clock and a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.log: list[Entry] = []
        self.journal = Journal(self.log.append)
        self.workshop = Workshop(self.journal, self.clock, maybeDeferred)
        self._touched = 1_700_000_000

    @property
    def lines(self) -> list[str]:
        return [entry.text for entry in self.log]

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        self._touched += 1
        os.utime(path, (self._touched, self._touched))
        return path

    def database(self, name: str, rows: dict[str, str | None]) -> Path:
        path = self.folder / f"{name}.new"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE kvm ( k TEXT PRIMARY KEY, v TEXT )")
            connection.executemany("INSERT INTO kvm VALUES (?, ?)", rows.items())
        connection.close()
        self._touched += 1
        os.utime(path, (self._touched, self._touched))
        return path.rename(self.folder / name)

    def word(self, access: AccessMap | MapError, name: str) -> str | None:
        assert isinstance(access, AccessMap)
        found: Any = self.now(ensureDeferred(access.lookup_client("connect:", name, "")))
        return None if found is None else found.word

    def now(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        assert results, "still waiting"
        return results[0]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_changed_file_is_read_within_a_second(site: Site) -> None:
    path = site.write("access.cf", "connect:a.example OK\n")
    access = open_access_map(f"file!{path}", site.workshop)
    assert isinstance(access, AccessMap)
    access.start()
    site.write("access.cf", "connect:a.example REJECT\n")
    assert site.word(access, "a.example") == "OK"
    site.clock.advance(CHECK_EVERY)
    assert site.word(access, "a.example") == "REJECT"
    access.stop()
    assert site.clock.getDelayedCalls() == []


def test_file_replaced_by_rename_is_noticed(site: Site) -> None:
    path = site.database("access.sq3", {"connect:a.example": "OK", "connect:empty.example": None})
    access = open_access_map(f"sql!{path}", site.workshop)
    assert isinstance(access, AccessMap)
    access.start()
    assert (site.word(access, "a.example"), site.word(access, "empty.example")) == ("OK", None)
    site.database("access.sq3", {"connect:a.example": "TAG"})
    site.clock.advance(CHECK_EVERY)
    assert site.word(access, "a.example") == "TAG"


def test_file_that_vanishes_or_breaks_keeps_old_content_and_is_told_once(site: Site) -> None:
    path = site.write("access.cf", "connect:a.example OK\n")
    access = open_access_map(f"file!{path}", site.workshop)
    assert isinstance(access, AccessMap)
    access.start()
    site.write("access.cf", "12:broken\n")
    site.clock.pump([CHECK_EVERY] * 3)
    assert site.word(access, "a.example") == "OK"
    assert len(site.lines) == 1
    assert site.lines[0].startswith(f"#1140 map {path} not reloaded: line 1")
    path.unlink()
    site.clock.pump([CHECK_EVERY] * 3)
    assert len(site.lines) == 2
    site.write("access.cf", "connect:a.example TAG\n")
    site.clock.advance(CHECK_EVERY)
    assert site.word(access, "a.example") == "TAG"


def test_file_is_left_alone_while_somebody_writes_it(site: Site) -> None:
    path = site.write("access.cf", "connect:a.example OK\n")

    def read_slowly(place: Path) -> Any:
        content = read_text(place)
        if writers:
            writers.pop()()
        return content

    writers: list[Callable[[], Any]] = []
    source = WatchedSource(path, read_slowly, site.journal, site.clock, maybeDeferred)
    assert source.open() is None
    source.start()
    writers.append(lambda: site.write("access.cf", "connect:a.example REJECT\nconnect:b.example OK\n"))
    site.write("access.cf", "connect:a.example REJECT\n")
    site.clock.advance(CHECK_EVERY)
    assert source.view.get("connect:a.example") == "OK"
    site.clock.advance(CHECK_EVERY)
    assert source.view.get("connect:b.example") == "OK"


def test_reload_reads_a_file_whose_stamps_are_unchanged(site: Site) -> None:
    path = site.write("access.cf", "connect:a.example OK\n")
    access = open_access_map(f"file!{path}", site.workshop)
    assert isinstance(access, AccessMap)
    stamps = path.stat()
    path.write_text("connect:a.example NO\n")
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    access.reload()
    assert site.word(access, "a.example") == "NO"


def test_reload_reports_faults_again(site: Site) -> None:
    path = site.write("access.cf", "connect: !!OK REJECT\n")
    access = open_access_map(f"file!{path}", site.workshop)
    assert isinstance(access, AccessMap)
    for _ in range(2):
        site.word(access, "x")
    access.reload()
    site.word(access, "x")
    assert [entry.message.number for entry in site.log] == [100, 100]


def test_keyless_line_is_told_with_its_number(site: Site) -> None:
    path = site.write("access.cf", "connect:a OK\n b\n c\n")
    open_access_map(f"file!{path}", site.workshop)
    assert site.lines == [f"#1141 map {path} line 2 begins with a blank, ignored"]


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("", "#115 access-map option disabled"),
        ("text!/x/access.cf", "#116 access-map=text!/x/access.cf text method no longer supported"),
        ("sql!/nonexistent/access.sq3", "#117 access-map=sql!/nonexistent/access.sq3 open error"),
        ("db!/x", "#117 access-map=db!/x open error"),
        ("/x/access", "#117 access-map=/x/access open error"),
        ("file!relative", "#117 access-map=file!relative open error"),
        ("socketmap!a:b:c", "#117 access-map=socketmap!a:b:c open error"),
    ],
)
def test_access_map_that_cannot_be_opened(site: Site, option: str, line: str) -> None:
    outcome = open_access_map(option, site.workshop)
    assert isinstance(outcome, MapError) == (option != "")
    assert site.lines == [line]


def test_database_without_the_table_is_an_open_error(site: Site) -> None:
    sqlite3.connect(site.folder / "empty.sq3").execute("CREATE TABLE other (x)")
    assert isinstance(open_access_map(f"sql!{site.folder / 'empty.sq3'}", site.workshop), MapError)


@pytest.mark.parametrize("option", ["SQL!/x", "read-only!sql!/x", "Read-Only!SQL!/x"])
def test_kind_is_read_without_regard_to_case(option: str) -> None:
    found = parse_specification(option)
    assert not isinstance(found, MapError)
    assert (found.kind, found.location) == ("sql", "/x")


def test_route_map_is_tried_six_times_and_then_told(site: Site) -> None:
    opening = ensureDeferred(open_route_map(f"text!{site.folder / 'route.cf'}", site.workshop))
    site.clock.pump([4.9])
    assert site.lines == []
    site.clock.pump([5.0] * 5)
    assert isinstance(site.now(opening), MapError)
    assert site.lines == [
        f"#1018 route-map=text!{site.folder / 'route.cf'} open error: No such file or directory (2)",
        "#410 route count error",
    ]


def test_route_map_counts_at_start_and_after_each_reload(site: Site) -> None:
    path = site.write("route.cf", "route:a.example FORWARD: x\n")
    routes = site.now(ensureDeferred(open_route_map(f"text!{path}", site.workshop)))
    assert isinstance(routes, RouteMap)
    routes.start()
    site.write("route.cf", "route:a.example FORWARD: x\nroute:ann@ FORWARD: y\n")
    site.clock.advance(CHECK_EVERY)
    assert site.lines == ["#557 route domains=1 addresses=0 accounts=0", "#557 route domains=1 addresses=0 accounts=1"]


def test_empty_route_map_is_an_error_for_the_caller_to_tell(site: Site) -> None:
    outcome = site.now(ensureDeferred(open_route_map(" ", site.workshop)))
    assert isinstance(outcome, MapError)
    assert outcome.reason == "route-map undefined"
    assert site.lines == []


def test_large_database_is_asked_in_a_thread(site: Site, reactor_run: Callable[..., Any]) -> None:
    from twisted.internet import reactor

    rows = {f"connect:h{number}.example": "OK" for number in range(50)} | {"connect:10:from:x@": "TAG", "route:b.example": "FORWARD: x"}
    path = site.database("big.sq3", dict(rows))
    clock: Any = reactor
    source = WatchedSource(path, SqliteReader(site.journal, clock, deferToThread, 10), site.journal, clock, deferToThread)
    assert source.open() is None
    assert not isinstance(source.view, Table)
    assert source.view.tags == {"connect:", "connect:from:", "route:"}
    access = AccessMap(source, site.journal)
    routes = RouteMap(source, site.journal, None, deferToThread)

    async def ask() -> None:
        hit = await access.lookup_client("connect:", "mx.h7.example", "")
        assert hit is not None
        assert hit.key == "connect:h7.example"
        assert await access.lookup_client("connect:", "mx.x.example", "192.0.2.1") is None
        assert await access.lookup_client("connect:", "a\udcff.example", "") is None
        counts: Any = await routes.counts()
        assert counts.domains == 1
        await source.reload()
        hit = await access.lookup_client("connect:", "h8.example", "")
        assert hit is not None

    reactor_run(ask())
    source.stop()


def test_locked_database_is_a_failed_lookup(site: Site, reactor_run: Callable[..., Any]) -> None:
    from twisted.internet import reactor

    path = site.database("big.sq3", {"connect:a.example": "OK", "connect:b.example": "OK"})
    clock: Any = reactor
    source = WatchedSource(path, SqliteReader(site.journal, clock, deferToThread, 1), site.journal, clock, deferToThread)
    assert source.open() is None
    view: Any = source.view
    view._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    hit = reactor_run(AccessMap(source, site.journal).lookup_client("connect:", "a.example", ""))
    other.close()
    source.stop()
    assert (hit.key, hit.word) == ("connect:invalid", "TEMPFAIL")
    assert site.lines == [f'#1143 kvm "{path}" step error (5): database is locked; SELECT v FROM kvm WHERE k=?1']
