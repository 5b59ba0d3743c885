"""Keeps the bitmap of the cache's keys true to the file: fills it after the start and adds what is written.

It is filled slice by slice, so that neither the cache's thread nor the reactor is kept from its work: less than a minute for a
million keys. It is made anew, larger, when half as many keys again have been written, and until it is full every key may be there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from smtpf.cache.presence import AREA, PAGE, Presence, fingerprint
from smtpf.cache.records import encoded
from smtpf.cache.store import CacheError, FileCache, ignore

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from smtpf.cache.database import Database

FEWEST_BITS = 1 << 20
BITS_FOR_A_KEY = 12
OCTETS_OF_A_RECORD = 200
"""What a record with its indexes takes in the file, rather too little."""
SPARE_KEYS = 50_000
"""Keys that may be added before a small bitmap is made anew."""
SLICE = 500
"""Keys read from the file at once, and added in one turn of the reactor."""
REST = 0.02
"""Seconds between two slices."""
AGAIN = 60.0
"""Seconds after which filling begins anew when the file could not be read."""

_KEYS = "SELECT rowid, k FROM mcc WHERE rowid > ? ORDER BY rowid LIMIT ?"


def remember_keys(cache: FileCache, clock: IReactorTime) -> Filling:
    """Let ``cache``, which has been started, know its keys by a bitmap. Raises OSError when the system has no memory to share."""
    filling = Filling(Presence.make(), clock, cache)
    cache.presence, cache.key_added = filling.presence, filling.add
    filling.start()
    return filling


class Filling:
    """Keeps ``presence`` true to the file of ``cache``, which must tell it of each key that is written (``key_added``)."""

    def __init__(self, presence: Presence, clock: IReactorTime, cache: FileCache) -> None:
        self.presence = presence
        self._clock = clock
        self._cache = cache
        self._at, self._mask = PAGE, 0
        self._next_at, self._next_mask = PAGE, 0
        self._room = 0
        self._last = 0
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self.full = False
        """What is in the file is in the bitmap."""

    def start(self) -> None:
        """Begin to fill."""
        self._timer = None
        self._ask(_estimate, self._begin)

    def stop(self) -> None:
        """Fill no further, and forget all."""
        self._stopped = True
        self._cache.presence, self._cache.key_added = None, ignore
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.presence.close()

    def add(self, key: str) -> None:
        """``key`` is about to be written, or has been written by somebody else."""
        if not (self._mask or self._next_mask):
            return
        bits = (fingerprint(encoded(key)),)
        if self._mask:
            self.presence.set(self._at, self._mask, bits)
        if self._next_mask:
            self.presence.set(self._next_at, self._next_mask, bits)
        elif self._room > 0:
            self._room -= 1
            if not self._room:
                self.start()

    def _ask(self, work: Callable[[Database], Any], then: Callable[[Any], None]) -> None:
        if not self._stopped:
            # The answer may come when all has been forgotten.
            self._cache.in_thread(work, writes=False).addCallbacks(lambda answer: None if self._stopped else then(answer), self._later)

    def _later(self, failure: Failure) -> None:
        """The file cannot be read now: what it holds is not known, or is known of the bitmap in use, which goes on being filled."""
        failure.trap(CacheError)
        self._next_mask = 0
        # Writes must not begin a second filling beside the one that this timer begins.
        self._room = 0
        if not self._stopped:
            self._timer = self._clock.callLater(AGAIN, self.start)

    def _begin(self, count: int) -> None:
        keys = count + count // 2 + SPARE_KEYS
        bits = FEWEST_BITS
        while bits < keys * BITS_FOR_A_KEY and bits < AREA * 8:
            bits *= 2
        self._room = keys - count
        self._next_at = PAGE + AREA if self._mask and self._at == PAGE else PAGE
        self.presence.wipe(self._next_at)
        self._next_mask = bits - 1
        self._last = 0
        self._slice()

    def _slice(self) -> None:
        self._timer = None
        last = self._last
        self._ask(lambda database: _keys(database, last), self._take)

    def _take(self, found: tuple[int, list[int]]) -> None:
        self._last, fingerprints = found
        if fingerprints:
            self.presence.set(self._next_at, self._next_mask, fingerprints)
            if not self._stopped:
                self._timer = self._clock.callLater(REST, self._slice)
            return
        # The one before is wiped when it is filled again: a worker may be reading it at this moment.
        self._at, self._mask, self._next_mask = self._next_at, self._next_mask, 0
        self.presence.use(self._at, self._mask)
        self.full = True


def _estimate(database: Database) -> int:
    """About how many records the file has, rather too many: counting them would hold the thread for a second for ten million."""
    pages, free, octets = (
        int(database.connection.execute(f"PRAGMA {fact}").fetchone()[0]) for fact in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * octets // OCTETS_OF_A_RECORD


def _keys(database: Database, last: int) -> tuple[int, list[int]]:
    """Fingerprints of the next keys behind row ``last``, and the last row read."""
    rows = database.connection.execute(_KEYS, (last, SLICE)).fetchall()
    keys = [key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogateescape") for _, key in rows]
    return (rows[-1][0] if rows else last), [fingerprint(key) for key in keys]
