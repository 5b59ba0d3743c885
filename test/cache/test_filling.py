"""The bitmap of the cache's keys beside real cache files, filled by a clock that the test drives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from smtpf.cache import filling as rules
from smtpf.cache.filling import AGAIN, REST, Filling, remember_keys
from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.presence import PAGE, Presence, fingerprint
from smtpf.cache.records import Record
from smtpf.cache.store import CacheError, FileCache, cache_from
from smtpf.journal.journal import Journal
from smtpf.settings.store import Settings


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[FileCache]:
    made = cache_from(Settings.of({CACHE_PATH: str(tmp_path / "cache.sq3")}), Journal([].append), None)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def remembering(cache: FileCache, clock: Clock) -> Iterator[Filling]:
    """Filled by ``_fill``."""
    made = remember_keys(cache, clock)
    yield made
    made.stop()


def _fill(filling: Filling, clock: Clock) -> None:
    while not filling.full:
        clock.advance(REST)


def _asked(cache: FileCache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that the file is asked for from now on."""
    asked: list[str] = []
    real = cache._database.read

    def read(key: str) -> Record | None:
        asked.append(key)
        return real(key)

    monkeypatch.setattr(cache._database, "read", read)
    return asked


def test_a_key_that_was_never_written_is_answered_without_the_file(
    cache: FileCache, remembering: Filling, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(remembering, clock)
    asked = _asked(cache, monkeypatch)
    assert [cache.get(f"dupmsg:{number}") for number in range(100)] == [None] * 100
    assert asked == []


def test_while_it_is_being_filled_the_file_is_asked(cache: FileCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2 * rules.SLICE):
        cache.put(f"key:{number}", "2", 3600)
    filling = remember_keys(cache, clock)
    asked = _asked(cache, monkeypatch)
    assert not filling.full
    cache.get("absent:1")
    assert asked == ["absent:1"]
    _fill(filling, clock)
    cache.get("absent:2")
    assert asked == ["absent:1"]
    filling.stop()


def test_what_lay_in_the_file_before_is_found(tmp_path: Path, clock: Clock) -> None:
    options = Settings.of({CACHE_PATH: str(tmp_path / "cache.sq3")})
    first = cache_from(options, Journal([].append), None)
    first.start()
    for number in range(1200):
        first.put(f"grey:{number}", f"4 {number}", 3600)
    first.stop()
    cache = cache_from(options, Journal([].append), None)
    cache.start()
    filling = remember_keys(cache, clock)
    _fill(filling, clock)
    for number in range(1200):
        found = _now(cache.get(f"grey:{number}"))
        assert found is not None and found.value == f"4 {number}"
    filling.stop()
    cache.stop()


def test_what_is_written_while_it_is_being_filled_is_found(cache: FileCache, clock: Clock) -> None:
    for number in range(3 * rules.SLICE):
        cache.put(f"key:{number}", "2", 3600)
    filling = remember_keys(cache, clock)
    clock.advance(REST)
    cache.put("late:1", "5 late", 3600)
    cache.increment("late:2", 3600)
    cache.absorb([Record("late:3", "1", 1, 0, 0, 2**33)])
    assert not filling.full
    _fill(filling, clock)
    for key in ("late:1", "late:2", "late:3"):
        assert filling.presence.may_hold(key)
    filling.stop()


@pytest.mark.parametrize("way", ["put", "increment", "absorb", "override", "another process"])
def test_what_is_written_afterwards_is_found(cache: FileCache, remembering: Filling, clock: Clock, way: str) -> None:
    _fill(remembering, clock)
    assert not remembering.presence.may_hold("new:1")
    match way:
        case "put":
            cache.put("new:1", "2", 3600)
        case "increment":
            assert cache.increment("new:1", 3600) == 1
        case "absorb":
            cache.absorb([Record("new:1", "2", 1, 0, 0, 2**33)])
        case "override":
            cache.write("new:1", "2", 3600)
        case "another process":
            from smtpf.cache.operations import Put

            cache.perform(Put("new:1", "2", cache.now(), cache.now() + 60))
    assert remembering.presence.may_hold("new:1")
    cache.forget()
    if way != "absorb":
        assert _now(cache.get("new:1")) is not None


def test_a_counter_that_is_not_there_begins_at_once(cache: FileCache, remembering: Filling, clock: Clock) -> None:
    _fill(remembering, clock)
    assert [cache.increment("rate:1", 60) for _ in range(3)] == [1, 2, 3]
    cache.forget()
    found = _now(cache.get("rate:1"))
    assert found is not None and found.value == "3"


def test_it_is_made_anew_when_many_keys_have_been_added(cache: FileCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "SPARE_KEYS", 10)
    filling = remember_keys(cache, clock)
    _fill(filling, clock)
    for number in range(25):
        cache.put(f"key:{number}", "2", 3600)
        clock.advance(REST)
        assert all(filling.presence.may_hold(f"key:{each}") for each in range(number + 1))
    filling.stop()


def test_a_file_that_cannot_be_read_is_asked_again_later(cache: FileCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(work: Any, *, writes: bool = True) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        answer.errback(CacheError("disk I/O error"))
        return answer

    with monkeypatch.context() as broken:
        broken.setattr(cache, "in_thread", fails)
        filling = remember_keys(cache, clock)
        clock.advance(REST)
        assert not filling.full
        assert filling.presence.may_hold("any:1")
    clock.advance(AGAIN)
    _fill(filling, clock)
    assert not filling.presence.may_hold("any:1")
    filling.stop()


def test_writes_do_not_begin_a_second_filling_beside_the_one_that_waits(
    cache: FileCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "SPARE_KEYS", 10)
    filling = remember_keys(cache, clock)
    _fill(filling, clock)

    def fails_in_the_middle(work: Any, *, writes: bool = True) -> Deferred[Any]:
        asked.append(work)
        if len(asked) == 1:
            return real(work, writes=writes)
        answer: Deferred[Any] = Deferred()
        answer.errback(CacheError("disk I/O error"))
        return answer

    real = cache.in_thread
    asked: list[Any] = []
    with monkeypatch.context() as broken:
        broken.setattr(cache, "in_thread", fails_in_the_middle)
        for number in range(2000):
            cache.put(f"key:{number}", "2", 3600)
        assert len(asked) == 2
    clock.advance(AGAIN)
    for _ in range(10):
        clock.advance(REST)
    assert all(filling.presence.may_hold(f"key:{number}") for number in range(2000))
    filling.stop()


def test_an_answer_that_comes_after_the_end_is_passed_over(cache: FileCache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Deferred[Any]] = []

    def slow(work: Any, *, writes: bool = True) -> Deferred[Any]:
        late.append(Deferred())
        return late[-1]

    monkeypatch.setattr(cache, "in_thread", slow)
    filling = remember_keys(cache, clock)
    late[0].callback(100)
    filling.stop()
    failures: list[Any] = []
    late[1].addErrback(failures.append)
    late[1].callback((1, [5]))
    assert failures == []


def test_a_key_that_no_file_can_hold_is_an_error_as_before(cache: FileCache, remembering: Filling, clock: Clock) -> None:
    _fill(remembering, clock)
    assert _now(cache.get("k" * 2000)) is None
    assert _now(cache.get("lone:\ud800")) is None
    assert cache.failing


def test_a_second_process_reads_the_same_bitmap(cache: FileCache, remembering: Filling, clock: Clock) -> None:
    _fill(remembering, clock)
    other = Presence(remembering.presence.descriptor)
    assert not other.may_hold("any:1")
    cache.put("any:1", "2", 60)
    assert other.may_hold("any:1")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()), max_size=60), st.integers(8, 20))
def test_a_key_that_was_set_is_never_denied(keys: set[str], width: int) -> None:
    presence = Presence.make()
    mask = (1 << width) - 1
    presence.set(PAGE, mask, [fingerprint(key.encode()) for key in keys])
    presence.use(PAGE, mask)
    assert all(presence.may_hold(key) for key in keys)
    presence.close()


def test_before_anything_is_known_every_key_may_be_there() -> None:
    presence = Presence.make()
    assert presence.may_hold("any:1")
    presence.close()


def test_few_absent_keys_are_taken_for_present_ones() -> None:
    presence = Presence.make()
    count = 10_000
    mask = (1 << 17) - 1  # thirteen bits for a key, as at the least after filling
    presence.set(PAGE, mask, [fingerprint(b"there:%d" % number) for number in range(count)])
    presence.use(PAGE, mask)
    wrong = sum(presence.may_hold(f"not-there:{number}") for number in range(count))
    assert wrong < count * 0.04
    presence.close()


def _now(found: Record | Deferred[Record | None] | None) -> Record | None:
    if not isinstance(found, Deferred):
        return found
    results: list[Record | None] = []
    found.addCallback(results.append)
    return results[0]
