"""Which of two versions of a record survives: the rule by which all nodes end with the same row.

A pure function of the local row, the received one and the time. Between two living records the order is total, so
neither the order of arrival nor repetition matters. Source: spec chapter operations, 2.10.5 and 2.10.6.
"""

from __future__ import annotations

from enum import Enum

from smtpf.cache.records import Record, encoded

COUNTER_PREFIX = "msg-limit:"
"""Keys of records that hold a number which several nodes add to."""
SAME_WINDOW = 5
"""Seconds by which the window ends of one counter may differ between nodes."""


class Ruling(Enum):
    ACCEPTED = "accepted"
    """The received record is to be stored as it came."""
    IGNORED = "ignored"
    """Nothing to do: it is expired, or what is here already."""
    CORRECTED = "corrected"
    """The local row is better; the sender should have it."""


def is_counter(key: str) -> bool:
    return key.startswith(COUNTER_PREFIX)


def same(one: Record, other: Record) -> bool:
    """Equal in all that travels, except for who wrote it."""
    return (one.value, one.h, one.c, one.t, one.e, one.x) == (other.value, other.h, other.c, other.t, other.e, other.x)


def judge(local: Record | None, received: Record, now: int, *, forced: bool = False, override: Record | None = None) -> Ruling:
    """What becomes of ``received`` where ``local`` (tombstones included) is. The first line that decides, decides.

    ``forced``: an operator's record. ``override`` is the last such record known of this key.
    """
    if received.e <= now and not received.x:
        return Ruling.IGNORED
    if local is not None and same(local, received):
        return Ruling.IGNORED
    if local is None or local.e <= now:
        return Ruling.ACCEPTED
    if forced:
        return _won(override is None or not outranks(override, received))
    if received.x != local.x:
        # Both ends must come to the same answer: a record put after the removal lives, by whichever side it is judged.
        return _won(received.t >= local.t if received.x else received.t > local.t)
    return _won(_better(received, local))


def outranks(one: Record, other: Record) -> bool:
    """Of two records set by hand: whether ``one`` is to be kept. The later one, else that of the larger value."""
    return _rank_by_hand(one) > _rank_by_hand(other)


def _rank_by_hand(record: Record) -> tuple[int, bytes, int, int, int, bool]:
    # All that travels is in it: only equal records have equal ranks.
    return record.t, encoded(record.value), record.h, record.e, -record.c, record.x


def _won(received: bool) -> Ruling:
    return Ruling.ACCEPTED if received else Ruling.CORRECTED


def _better(received: Record, local: Record) -> bool:
    if received.x and received.t != local.t:
        return received.t > local.t
    if received.c != local.c:
        return received.c < local.c
    if is_counter(received.key) and abs(received.e - local.e) <= SAME_WINDOW:
        more, less = _number(received), _number(local)
        if more != less:
            return more > less
    return _rank(received) > _rank(local)


def _rank(record: Record) -> tuple[int, int, int, bytes]:
    return record.h, record.t, record.e, encoded(record.value)


def _number(record: Record) -> int:
    try:
        return int(record.value)
    except ValueError:
        return -1
