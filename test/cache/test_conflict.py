"""The rule that decides between two versions of a record: the published vectors, and what must hold for any history."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpf.cache.conflict import Ruling, judge
from smtpf.cache.records import Record

NOW = 2000
END = 9000


def live(value: str, h: int, c: int, t: int = 1900, e: int = END, key: str = "grey:k") -> Record:
    return Record(key, value, h, c, t, e)


def gone(t: int, c: int = 1000, h: int = 1) -> Record:
    return Record("grey:k", "", h, c, t, t + 86400, x=True)


@pytest.mark.parametrize(
    ("local", "received", "outcome"),
    [
        (None, live("4", 1, 1000), "accepted"),
        (live("4", 3, 1000), live("4", 3, 1000), "ignored"),
        (live("0", 5, 1000), live("4", 1, 1800), "corrected"),
        (live("4", 1, 1800), live("0", 5, 1000), "accepted"),
        (live("4", 2, 1000), live("0", 3, 1000), "accepted"),
        (live("0", 4, 1000), live("4", 3, 1000), "corrected"),
        (live("0", 4, 1000, 1900), live("4", 4, 1000, 1950), "accepted"),
        (live("0", 4, 1000, 1950), live("4", 4, 1000, 1950), "accepted"),
        (gone(1500), live("2", 1, 1400, 1400), "corrected"),
        (gone(1500), live("2", 1, 1600, 1600), "accepted"),
        (live("2", 7, 1000, 1400), gone(1300), "corrected"),
        (live("2", 7, 1000, 1400), gone(1400), "accepted"),
        (gone(1500), gone(1600), "accepted"),
        (gone(1600), gone(1500), "corrected"),
        (gone(1600), gone(1600), "ignored"),
        (live("2", 1, 1000, e=NOW), live("2", 1, 1800), "accepted"),
        (None, live("2", 1, 1000, e=NOW), "ignored"),
        (live("2", 1, 1000, e=5000), live("2", 1, 1000, e=5001), "accepted"),
    ],
)
def test_published_vectors(local: Record | None, received: Record, outcome: str) -> None:
    assert judge(local, received, NOW).value == outcome


def test_an_operators_record_wins_over_an_older_one_and_a_tombstone() -> None:
    assert judge(live("0", 9, 1000), live("5", 1, 1700), NOW, forced=True) is Ruling.ACCEPTED
    assert judge(gone(1950), live("5", 1, 1700), NOW, forced=True) is Ruling.ACCEPTED
    assert judge(live("5", 1, 1700), live("5", 1, 1700), NOW, forced=True) is Ruling.IGNORED


def test_of_two_operators_records_the_later_one_stays_else_that_of_the_larger_value() -> None:
    early, late, larger = live("5", 9, 1000, 1700), live("0", 1, 1200, 1701), live("2", 1, 1200, 1701)
    assert judge(early, late, NOW, forced=True, override=early) is Ruling.ACCEPTED
    assert judge(late, early, NOW, forced=True, override=late) is Ruling.CORRECTED
    assert judge(late, larger, NOW, forced=True, override=late) is Ruling.ACCEPTED
    assert judge(larger, late, NOW, forced=True, override=larger) is Ruling.CORRECTED
    since = attrs.evolve(late, value="4", h=2, t=1900)
    assert judge(since, early, NOW, forced=True, override=late) is Ruling.CORRECTED
    assert judge(None, early, NOW, forced=True, override=late) is Ruling.ACCEPTED


def test_counters_of_one_window_merge_by_the_larger_number() -> None:
    few = live("3", 9, 1000, e=3000, key="msg-limit:192.0.2.1")
    many = live("10", 2, 1000, e=3004, key="msg-limit:192.0.2.1")
    assert judge(few, many, NOW) is Ruling.ACCEPTED
    assert judge(many, few, NOW) is Ruling.CORRECTED
    assert judge(few, attrs.evolve(many, e=3006), NOW) is Ruling.CORRECTED


LIVE = st.builds(
    Record,
    key=st.just("grey:k"),
    value=st.sampled_from(["0", "2", "4", "5", "ü", "\udcff"]),
    h=st.integers(1, 3),
    c=st.integers(1000, 1003),
    t=st.integers(1003, 1006),
    e=st.integers(1995, 2005),
)
"""Living and just expired records of one key, with few enough values to meet often."""

GONE = st.builds(gone, t=st.integers(1000, 1006), c=st.integers(1000, 1003), h=st.integers(1, 3))
"""Removals of that key."""


def merged(local: Record | None, received: Record) -> Record:
    return received if judge(local, received, NOW) is Ruling.ACCEPTED else local  # type: ignore[return-value]


@given(st.lists(LIVE, min_size=1, max_size=6), st.data())
def test_any_order_and_any_repetition_ends_with_the_same_row(records: list[Record], data: st.DataObject) -> None:
    again = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records), max_size=4))))
    one: Record | None = None
    for record in records:
        one = merged(one, record)
    other: Record | None = None
    for record in again:
        other = merged(other, record)
    assert one == other


@given(st.one_of(st.none(), LIVE, GONE), st.one_of(LIVE, GONE))
def test_applying_twice_is_applying_once_and_a_correction_is_accepted_by_the_corrected(local: Record | None, received: Record) -> None:
    ruling = judge(local, received, NOW)
    if ruling is Ruling.ACCEPTED:
        assert judge(received, received, NOW) is Ruling.IGNORED
    if ruling is Ruling.CORRECTED:
        assert local is not None
        assert judge(received, local, NOW) is Ruling.ACCEPTED


@settings(max_examples=300)
@given(st.lists(st.one_of(st.none(), LIVE, GONE), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_nodes_that_keep_reading_each_other_agree_in_the_end(rows: list[Record | None], random: object) -> None:
    nodes = list(rows)
    pairs = [(a, b) for a in range(len(nodes)) for b in range(len(nodes)) if a != b]
    for _ in range(30):
        random.shuffle(pairs)  # type: ignore[attr-defined]
        for reader, served in pairs:
            row = nodes[served]
            if row is not None and (row.x or row.e > NOW):
                nodes[reader] = merged(nodes[reader], row)
    kept = {row for row in nodes if row is not None and (row.x or row.e > NOW)}
    assert len(kept) <= 1
