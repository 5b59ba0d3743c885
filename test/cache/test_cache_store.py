"""The cache against real SQLite files, in the calling thread and on its own thread."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpf.cache import opening, ttl
from smtpf.cache.opening import CACHE_ON_CORRUPT, CACHE_PATH, CACHE_SYNC_MODE, CacheOpenError
from smtpf.cache.records import MAX_KEY, MAX_VALUE, Record
from smtpf.cache.store import DELETE_ERROR, GET_ERROR, GOT, PUT_ERROR, Cache, CacheError, Change, cache_from
from smtpf.journal.journal import Entry, Journal
from smtpf.journal.verbose import Verbose
from smtpf.settings.store import Settings

NOW = 1_000_000


class Lines(list[Entry]):
    """The log lines written."""

    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self]

    def texts(self) -> list[str]:
        return [entry.text for entry in self]


class Watch:
    def __init__(self) -> None:
        self.time = float(NOW)

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def journal(lines: Lines) -> Journal:
    return Journal(lines.append, now=lambda: 0.0, pid=1)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def settings_for(path: Path | str, **more: str) -> Settings:
    names = {"sync": CACHE_SYNC_MODE, "corrupt": CACHE_ON_CORRUPT}
    return Settings.of({CACHE_PATH: str(path)} | {names[name]: text for name, text in more.items()})


@pytest.fixture
def cache(tmp_path: Path, journal: Journal, watch: Watch) -> Any:
    made = cache_from(settings_for(tmp_path / "cache.sq3"), journal, None, now=watch)
    made.start()
    yield made
    made.stop()


def now_of(answer: Any) -> Any:
    """The result of a Deferred that must have fired, or the plain value."""
    if isinstance(answer, Deferred):
        results: list[Any] = []
        answer.addCallbacks(results.append, lambda failure: results.append(failure.value))
        assert results
        return results[0]
    return answer


def row(path: Path, key: str) -> tuple[Any, ...] | None:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT d, h, c, t, e, x FROM mcc WHERE k = ?", (key,)).fetchone()  # type: ignore[no-any-return]


def test_put_of_a_new_key_makes_version_one_with_its_ttl(cache: Cache, tmp_path: Path) -> None:
    cache.put("rcpt:a@b.c", "2")
    assert row(tmp_path / "cache.sq3", "rcpt:a@b.c") == ("2", 1, 1000000, 1000000, 1604800, 0)


def test_touch_keeps_creation_and_moves_the_end(cache: Cache, watch: Watch, tmp_path: Path) -> None:
    cache.put("rcpt:a@b.c", "2")
    watch.time += 500
    found = now_of(cache.get("rcpt:a@b.c"))
    cache.touch(found)
    assert row(tmp_path / "cache.sq3", "rcpt:a@b.c") == ("2", 2, 1000000, 1000500, 1605300, 0)


@pytest.mark.parametrize(
    ("key", "value", "end"),
    [
        ("sav:x@y.z", "4", 1007200),
        ("click:example.com,a@b.c", "2", NOW + 604800),
        ("sav:a@b.c", "5", NOW + 604800),
        ("msg-limit:192.0.2.1", "7", NOW + 604800),
        ("other:", "", NOW + 604800),
    ],
)
def test_life_follows_the_first_character(cache: Cache, key: str, value: str, end: int) -> None:
    cache.put(key, value)
    assert now_of(cache.get(key)).e == end
    assert now_of(cache.write(key + "!", value)).e == end


def test_life_options_apply_to_the_next_put(cache: Cache) -> None:
    cache.put("sav:a@b", "5")
    cache.configure(cache.settings.evolve({ttl.CACHE_REJECT_TTL: "60"}))
    assert now_of(cache.get("sav:a@b")).e == NOW + 604800
    cache.put("sav:a@b", "5")
    assert now_of(cache.get("sav:a@b")).e == NOW + 60
    assert (cache.ttl_for(2), cache.ttl_for("4xyz"), cache.ttl_for(5)) == (604800, 7200, 60)


def test_a_record_is_gone_in_the_second_it_ends(cache: Cache, watch: Watch) -> None:
    cache.put("a:b", "2", expires=NOW + 1)
    assert now_of(cache.get("a:b")).value == "2"
    watch.time += 1
    assert cache.get("a:b") is None
    cache._front.clear()
    assert now_of(cache.get("a:b")) is None


def test_collection_deletes_what_ended_up_to_now(cache: Cache, tmp_path: Path) -> None:
    for end in (999_999, 1_000_000, 1_000_001):
        cache.put(f"end:{end}", "2", expires=end)
    assert _drive(cache.expire(NOW)) == 2
    assert [row(tmp_path / "cache.sq3", f"end:{end}") is None for end in (999_999, 1_000_000, 1_000_001)] == [True, True, False]


def test_collection_of_many_rows_goes_slice_by_slice(cache: Cache) -> None:
    with_rows = [(f"k:{number}", NOW - 1) for number in range(2500)]
    now_of(cache.in_thread(lambda database: database.connection.executemany("INSERT INTO mcc (k, d, e) VALUES (?, '2', ?)", with_rows)))
    assert _drive(cache.expire()) == 2500


def _drive(work: Any) -> Any:
    from twisted.internet.defer import ensureDeferred

    return now_of(ensureDeferred(work))


def test_an_ended_record_is_made_anew(cache: Cache, watch: Watch) -> None:
    cache.put("a:b", "2", ttl=10)
    watch.time += 10
    cache.put("a:b", "2", ttl=10)
    found = now_of(cache.get("a:b"))
    assert (found.h, found.c) == (1, NOW + 10)


def test_removed_record_leaves_a_tombstone_for_a_day(cache: Cache, tmp_path: Path) -> None:
    cache.put("a:b", "2")
    cache.delete("a:b")
    assert cache.get("a:b") is None
    assert row(tmp_path / "cache.sq3", "a:b") == ("", 2, NOW, NOW, NOW + 86400, 1)


def test_put_in_the_second_of_a_removal_counts_as_made_after_it(cache: Cache) -> None:
    cache.put("a:b", "2")
    cache.delete("a:b")
    cache.put("a:b", "5")
    found = now_of(cache.get("a:b"))
    assert (found.value, found.h, found.c) == ("5", 1, NOW + 1)


def test_deleting_what_is_not_there_is_no_error(cache: Cache, lines: Lines) -> None:
    cache.delete("no:such")
    assert now_of(cache.remove("no:such")) is None
    assert lines.numbers() == []


def test_counter_keeps_its_window_and_restarts_after_it(cache: Cache, watch: Watch) -> None:
    assert now_of(cache.increment("msg-limit:192.0.2.1", 60)) == 1
    watch.time += 59
    assert cache.increment("msg-limit:192.0.2.1", 60) == 2
    assert cache.get("msg-limit:192.0.2.1").e == NOW + 60  # type: ignore[union-attr]
    watch.time += 1
    assert cache.increment("msg-limit:192.0.2.1", 60) == 1
    assert cache.get("msg-limit:192.0.2.1").e == NOW + 120  # type: ignore[union-attr]


def test_known_absent_and_known_present_are_answered_without_the_file(cache: Cache) -> None:
    assert isinstance(cache.get("a:b"), Deferred)
    assert cache.get("a:b") is None
    cache.put("a:b", "2")
    assert isinstance(cache.get("a:b"), Record)


def test_memory_front_is_bounded_and_forgets_the_least_used(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    cache = cache_from(settings_for(tmp_path / "c.sq3"), journal, None, now=watch, front_limit=3)
    cache.start()
    for letter in "abc":
        cache.put(letter, "2")
    cache.get("a")
    cache.put("d", "2")
    assert isinstance(cache.get("a"), Record)
    assert isinstance(cache.get("b"), Deferred)
    assert len(cache._front) == 3
    cache.stop()


@pytest.mark.parametrize(
    ("key", "value"), [("k" * (MAX_KEY + 1), "2"), ("k", "v" * (MAX_VALUE + 1)), ("", "2"), ("é" * 600, "2"), ("\ud800", "2")]
)
def test_what_breaks_the_limits_is_refused_and_never_cut(cache: Cache, lines: Lines, key: str, value: str) -> None:
    cache.put(key, value, session="sid")
    assert lines.numbers() == [544]
    count = now_of(cache.in_thread(lambda database: database.connection.execute("SELECT count(*) FROM mcc").fetchone()))
    assert count == (0,)


@pytest.mark.parametrize("text", ["nul\0inside", "\udcff\udc80octets", "ü" * 512, "v" * MAX_VALUE, "'; DROP TABLE mcc; --"])
def test_any_octets_come_back_as_they_went(cache: Cache, text: str) -> None:
    cache.put("k:" + text[:500], text)
    cache._front.clear()
    assert now_of(cache.get("k:" + text[:500])).value == text


def test_log_names_the_caller_and_hides_binary_values(cache: Cache, lines: Lines, journal: Journal) -> None:
    journal.verbose.levels["cache"] = 1
    cache.put("siq:1", "a\x01b", session="S1")
    cache.get("siq:1", "S1")
    cache.delete("siq:1", session="S1")
    assert lines.numbers() == [543, 541, 545]
    assert all(text.startswith("S1 #") and __name__ in text for text in lines.texts())
    assert "value={(mixed)}" in lines.texts()[0]


def test_full_disk_logs_544_and_mail_goes_on_as_if_nothing_were_cached(cache: Cache, lines: Lines) -> None:
    def fill(database: Any) -> None:
        pages = database.connection.execute("PRAGMA page_count").fetchone()[0]
        database.connection.execute(f"PRAGMA max_page_count = {pages}")

    now_of(cache.in_thread(fill, writes=False))
    for number in range(200):
        cache.put(f"k:{number}", "2" * 900, session="S1")
    assert 544 in lines.numbers()
    refused = [entry.text for entry in lines if entry.message is PUT_ERROR]
    key = refused[0].partition("key={")[2].partition("}")[0]
    assert now_of(cache.get(key)) is None
    assert now_of(cache.get("k:0")).value == "2" * 900


def test_read_only_file_fails_puts_and_deletes_but_not_gets(cache: Cache, lines: Lines) -> None:
    cache.put("a:b", "2")
    now_of(cache.in_thread(lambda database: database.connection.execute("PRAGMA query_only = ON"), writes=False))
    cache.put("a:b", "5")
    cache.delete("a:b")
    assert [entry.message for entry in lines] == [PUT_ERROR, DELETE_ERROR]
    assert now_of(cache.get("a:b")).value == "2"
    assert isinstance(now_of(cache.write("a:b", "5")), CacheError)
    assert isinstance(now_of(cache.remove("a:b")), CacheError)


def test_failed_read_is_542_and_not_found(cache: Cache, lines: Lines) -> None:
    now_of(cache.in_thread(lambda database: database.connection.execute("ALTER TABLE mcc RENAME TO gone")))
    assert now_of(cache.get("a:b", "S1")) is None
    assert [entry.message for entry in lines] == [GET_ERROR]
    assert isinstance(now_of(cache.read("a:b")), CacheError)


def test_file_locked_by_another_process_is_an_error_after_the_busy_time(
    tmp_path: Path, journal: Journal, lines: Lines, watch: Watch
) -> None:
    path = tmp_path / "cache.sq3"
    cache = cache_from(settings_for(path), journal, None, now=watch, busy_seconds=0.05)
    cache.start()
    cache.put("a:b", "2")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put("a:b", "5")
    assert lines.numbers() == [544]
    assert now_of(cache.get("a:b")).value == "2"
    other.execute("ROLLBACK")
    cache.put("a:b", "5")
    assert row(path, "a:b")[:2] == ("5", 2)  # type: ignore[index]
    cache.stop()
    other.close()


def test_records_survive_a_restart(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    first = cache_from(settings_for(tmp_path / "c.sq3"), journal, None, now=watch)
    first.start()
    first.put("a:b", "2")
    identity = (first.node, first.epoch, first.last)
    first.stop()
    second = cache_from(settings_for(tmp_path / "c.sq3"), journal, None, now=watch)
    second.start()
    assert now_of(second.get("a:b")).value == "2"
    assert (second.node, second.epoch, second.last) == identity
    assert len(second.node) == 32
    second.stop()


def test_change_numbers_never_go_back_even_when_all_rows_expired(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    path = tmp_path / "c.sq3"
    cache = cache_from(settings_for(path), journal, None, now=watch)
    cache.start()
    for number in range(5):
        cache.put(f"k:{number}", "2", ttl=1)
    watch.time += 2
    assert _drive(cache.expire()) == 5
    cache.stop()
    cache = cache_from(settings_for(path), journal, None, now=watch)
    cache.start()
    assert now_of(cache.write("k:9", "2")).n == 6
    cache.stop()


def test_file_of_release_2_1_is_taken_over(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    path = tmp_path / "old.sq3"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE mcc( k VARCHAR(383) PRIMARY KEY, d VARCHAR(92), h INTEGER DEFAULT 1, c INTEGER, t INTEGER, e INTEGER )")
        old.execute("CREATE INDEX mcc_expire ON mcc(e)")
        old.execute("INSERT INTO mcc VALUES ('sav:a@b', '5', 7, 900000, 950000, 1100000)")
    cache = cache_from(settings_for(path), journal, None, now=watch)
    cache.start()
    assert now_of(cache.get("sav:a@b")) == Record("sav:a@b", "5", 7, 900000, 950000, 1100000, n=1)
    cache.put("sav:a@b", "2")
    assert row(path, "sav:a@b") == ("2", 8, 900000, NOW, NOW + 604800, 0)
    cache.stop()


def test_file_of_release_2_6_is_taken_over(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    path = tmp_path / "old.sq3"
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE mcc( k TEXT PRIMARY KEY, v TEXT, e INTEGER, c INTEGER DEFAULT (strftime('%s','now')) )")
        old.execute("CREATE INDEX mcc_expire ON mcc(e)")
        old.execute("INSERT INTO mcc (k, v, e, c) VALUES ('sav:a@b', '5', 1100000, 900000)")
    cache = cache_from(settings_for(path), journal, None, now=watch)
    cache.start()
    assert now_of(cache.get("sav:a@b")) == Record("sav:a@b", "5", 1, 900000, 900000, 1100000, n=1)
    cache.stop()
    with sqlite3.connect(path) as made:
        assert {name for (name,) in made.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")} == {
            "mcc_expire",
            "mcc_change",
        }


def test_sql_prefix_is_accepted_and_other_kinds_are_refused(tmp_path: Path, journal: Journal, lines: Lines) -> None:
    cache = cache_from(settings_for(f"sql!{tmp_path}/c.sq3"), journal, None)
    cache.start()
    cache.stop()
    assert (tmp_path / "c.sq3").exists()
    with pytest.raises(CacheOpenError):
        cache_from(settings_for("socketmap!host,7953"), journal, None)
    assert lines.numbers() == [172]


def test_path_that_cannot_be_opened_is_172(tmp_path: Path, journal: Journal, lines: Lines) -> None:
    with pytest.raises(CacheOpenError):
        cache_from(settings_for(tmp_path / "no" / "cache.sq3"), journal, None)
    with pytest.raises(CacheOpenError):
        cache_from(settings_for(tmp_path), journal, None)
    assert lines.texts() == [
        f"#172 cache-path={tmp_path}/no/cache.sq3 open error: No such file or directory (2)",
        f"#172 cache-path={tmp_path} open error: Is a directory (21)",
    ]


def test_foreign_table_of_that_name_is_172(tmp_path: Path, journal: Journal, lines: Lines) -> None:
    with sqlite3.connect(tmp_path / "x.sq3") as other:
        other.execute("CREATE TABLE mcc( fruit TEXT )")
    cache = cache_from(settings_for(tmp_path / "x.sq3"), journal, None)
    with pytest.raises(CacheOpenError):
        cache.start()
    assert lines.numbers() == [172]


def test_unknown_sync_mode_is_173_and_known_ones_have_any_case(tmp_path: Path, journal: Journal, lines: Lines) -> None:
    with pytest.raises(CacheOpenError):
        cache_from(settings_for(tmp_path / "c.sq3", sync="sometimes"), journal, None)
    assert lines.texts() == ["#173 cache-sync-mode=sometimes error"]
    cache = cache_from(settings_for(tmp_path / "c.sq3", sync="FULL"), journal, None)
    cache.start()
    assert now_of(cache.in_thread(lambda database: database.connection.execute("PRAGMA synchronous").fetchone(), writes=False)) == (2,)
    cache.stop()


def _damage(path: Path) -> None:
    """Overwrite everything behind the first page, as a failing disk does."""
    octets = bytearray(path.read_bytes())
    octets[4096:] = b"\xa5" * (len(octets) - 4096)
    path.write_bytes(octets)


def _filled(path: Path, journal: Journal, watch: Watch, **more: Any) -> Cache:
    cache = cache_from(
        settings_for(path, **{k: v for k, v in more.items() if k == "corrupt"}),
        journal,
        None,
        now=watch,
        **{k: v for k, v in more.items() if k != "corrupt"},
    )
    cache.start()
    for number in range(50):
        cache.put(f"k:{number}", "2" * 500)
    now_of(cache.in_thread(lambda database: database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), writes=False))
    return cache


@pytest.mark.parametrize("policy", ["rename", "replace"])
def test_damaged_file_is_put_away_and_work_goes_on(tmp_path: Path, journal: Journal, lines: Lines, watch: Watch, policy: str) -> None:
    path = tmp_path / "cache.sq3"
    cache = _filled(path, journal, watch, corrupt=policy)
    epoch, node = cache.epoch, cache.node
    _damage(path)
    now_of(cache.in_thread(lambda database: database.connection.execute("PRAGMA shrink_memory"), writes=False))
    cache._front.clear()
    cache.put("new:key", "2")
    assert 1110 in lines.numbers()
    assert 544 not in lines.numbers()
    assert row(path, "new:key") is not None
    assert row(path, "k:1") is None
    assert (cache.epoch != epoch, cache.node == node) == (True, True)
    kept = [name for name in tmp_path.iterdir() if ".corrupt-" in name.name and not name.name.endswith(("-wal", "-shm"))]
    assert len(kept) == (1 if policy == "rename" else 0)
    cache.stop()


def test_damaged_file_ends_the_node_when_told_so(tmp_path: Path, journal: Journal, lines: Lines, watch: Watch) -> None:
    ended: list[bool] = []
    path = tmp_path / "cache.sq3"
    cache = _filled(path, journal, watch, corrupt="exit", give_up=lambda: ended.append(True))
    _damage(path)
    now_of(cache.in_thread(lambda database: database.connection.execute("PRAGMA shrink_memory"), writes=False))
    cache.put("new:key", "2")
    cache.put("new:key", "2")
    assert ended == [True]
    assert lines.numbers() == [1110, 544, 544]
    cache.stop()


def test_file_that_is_no_database_is_moved_aside_at_start(tmp_path: Path, journal: Journal, lines: Lines, watch: Watch) -> None:
    path = tmp_path / "cache.sq3"
    path.write_bytes(b"not what you expect" * 1000)
    cache = cache_from(settings_for(path), journal, None, now=watch)
    cache.start()
    cache.put("a:b", "2")
    assert lines.numbers() == [1110]
    assert [name.read_bytes()[:3] for name in tmp_path.iterdir() if ".corrupt-" in name.name] == [b"not"]
    cache.stop()


def test_file_that_is_no_database_stops_the_start_when_told_so(tmp_path: Path, journal: Journal, lines: Lines) -> None:
    path = tmp_path / "cache.sq3"
    path.write_bytes(b"not what you expect" * 1000)
    cache = cache_from(settings_for(path, corrupt="exit"), journal, None)
    with pytest.raises(CacheOpenError):
        cache.start()
    assert lines.numbers() == [172]
    assert path.read_bytes()[:3] == b"not"


def test_owner_and_mode_are_set_after_each_opening(tmp_path: Path, journal: Journal, watch: Watch) -> None:
    adopted: list[str] = []
    cache = _filled(tmp_path / "cache.sq3", journal, watch, adopt=adopted.append)
    assert adopted == [str(tmp_path / "cache.sq3")]
    cache.stop()


def test_opening_and_looking_up_use_indexes_alone(cache: Cache) -> None:
    def plans(database: Any) -> list[str]:
        from smtpf.cache import database as module

        asked = [(module._READ, (b"k",)), ("SELECT max(n) FROM mcc", ()), (module._EXPIRE, (1, 1))]
        return [row[3].decode() for sql, args in asked for row in database.connection.execute("EXPLAIN QUERY PLAN " + sql, args)]

    assert not [plan for plan in now_of(cache.in_thread(plans, writes=False)) if plan.startswith("SCAN")]


def test_observers_hear_committed_local_changes_only(cache: Cache) -> None:
    heard: list[Change] = []
    cache.observers.append(heard.extend)
    cache.put("a:b", "2")
    now_of(cache.increment("msg-limit:x", 60))
    cache.delete("a:b")
    now_of(cache.write("a:b", "5"))
    cache.put("k" * 2000, "2")
    assert [(change.record.key, change.record.value, change.record.n, change.added, change.forced) for change in heard] == [
        ("a:b", "2", 1, 0, False),
        ("msg-limit:x", "1", 2, 1, False),
        ("a:b", "", 3, 0, False),
        ("a:b", "5", 4, 0, True),
    ]


def test_on_its_own_thread_the_cache_answers_puts_at_once_and_commits_in_order(tmp_path: Path, journal: Journal, reactor_run: Any) -> None:
    from twisted.internet import reactor

    cache = cache_from(settings_for(tmp_path / "c.sq3"), journal, reactor)  # type: ignore[arg-type]
    cache.start()
    heard: list[int] = []
    cache.observers.append(lambda changes: heard.extend(change.record.h for change in changes))

    async def work() -> None:
        assert await cache.fetch("a:b") is None
        for number in range(1000):
            cache.put("a:b", str(number))
            found = cache.get("a:b")
            assert isinstance(found, Record)
            assert found.value == str(number)
        assert await cache.increment("msg-limit:x", 60) == 1
        stored = await cache.read("a:b")
        assert stored is not None
        assert (stored.value, stored.h) == ("999", 1000)

    reactor_run(work())
    cache.stop()
    assert heard == [*range(1, 1001), 1]


def test_full_queue_fails_puts_and_gets_at_once(tmp_path: Path, journal: Journal, lines: Lines, reactor_run: Any) -> None:
    import threading

    from twisted.internet import reactor

    from smtpf.cache.worker import Thread

    cache = cache_from(settings_for(tmp_path / "c.sq3"), journal, reactor)  # type: ignore[arg-type]
    assert isinstance(cache._workplace, Thread)
    cache._workplace._limit = 3
    cache.start()
    gate = threading.Event()

    async def work() -> None:
        cache.put("first", "2")
        await cache.read("first")
        held = cache.in_thread(lambda database: gate.wait(10), writes=False)
        for number in range(10):
            cache.put(f"k:{number}", "2", session="S1")
        assert await cache.fetch("absent") is None
        gate.set()
        await held
        assert await cache.read("k:0") is not None

    reactor_run(work())
    cache.stop()
    assert set(lines.numbers()) == {542, 544}
    assert 7 <= lines.numbers().count(544) <= 8


def test_lines_of_a_get_appear_with_the_word_cache_only(tmp_path: Path, lines: Lines, watch: Watch) -> None:
    silent = cache_from(settings_for(tmp_path / "c.sq3"), Journal(lines.append, Verbose()), None, now=watch)
    silent.start()
    silent.put("a:b", "2")
    silent.get("a:b")
    silent.stop()
    assert [entry for entry in lines if entry.message is GOT] == []
    assert opening.CORRUPT.number == 1110
