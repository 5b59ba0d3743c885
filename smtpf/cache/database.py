"""The cache file, seen from the one thread that works on it. Everything here blocks.

One statement per operation, each on an index: what an operation costs does not grow with the number of records, and
opening reads no records. Source: spec chapter operations, 1.3, 1.4 and 1.8.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

from smtpf.cache import schema
from smtpf.cache.overrides import Overrides
from smtpf.cache.records import TOMBSTONE_LIFE, Record, decoded, encoded

BUSY_SECONDS = 15.0
"""How long an operation waits for another process that holds the file locked."""
WAL_LIMIT = 64 * 1024 * 1024
"""Octets to which the write-ahead log is cut back after a checkpoint."""
SLICE = 1000
"""Records deleted in one transaction of a collection."""

COLUMNS = "k, d, h, c, t, e, o, x, n"
_READ = f"SELECT {COLUMNS} FROM mcc WHERE k = CAST(? AS TEXT)"
_WRITE = (
    f"INSERT INTO mcc ({COLUMNS}) VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT(k) DO UPDATE SET d = excluded.d, h = excluded.h, c = excluded.c, t = excluded.t, e = excluded.e,"
    " o = excluded.o, x = excluded.x, n = excluded.n"
)
COUNT_ENDED = "SELECT count(*) FROM mcc WHERE e <= ? AND k LIKE ? AND substr(d,1,1) = ? AND x = 0"
_EXPIRE = "DELETE FROM mcc WHERE rowid IN (SELECT rowid FROM mcc WHERE e <= ? LIMIT ?)"

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


def code_of(error: BaseException) -> int:
    """SQLite's primary result code of an error, 0 when it has none."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def is_corruption(error: BaseException) -> bool:
    """The file is damaged, is no database, or can no longer be opened."""
    return isinstance(error, sqlite3.Error) and code_of(error) in _CORRUPT


def is_busy(error: BaseException) -> bool:
    """Another process held the file for longer than the busy time."""
    return isinstance(error, sqlite3.Error) and code_of(error) in _BUSY


def record_of(row: tuple[Any, ...]) -> Record:
    key, value, h, c, t, e, o, x, n = row
    return Record(
        decoded(key),
        decoded(value) if isinstance(value, bytes) else "" if value is None else str(value),
        h or 0,
        c or 0,
        t or 0,
        e or 0,
        o.decode("ascii", "replace") if o else "",
        bool(x),
        n or 0,
    )


class Database:
    """An open cache file. Used by one thread at a time."""

    def __init__(
        self,
        path: str,
        synchronous: str = "off",
        *,
        busy_seconds: float = BUSY_SECONDS,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.path = path
        self.node = ""
        """Node id, 32 hex digits, made once and kept as long as the file lives."""
        self.epoch = 0
        """Changes whenever the file is made anew: change numbers of another epoch mean nothing."""
        self.overrides = Overrides()
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._random = random_bytes
        self._connection: sqlite3.Connection | None = None
        self._next = 1
        self._began = 1

    @property
    def connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise sqlite3.OperationalError("cache file is not open")
        return self._connection

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def last(self) -> int:
        """Highest change number given."""
        return self._next - 1

    def open(self) -> None:
        """Open or make the file. Raises sqlite3.Error, OSError or ``schema.ForeignTable``; the file is then closed."""
        connection = sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            connection.text_factory = bytes
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            schema.prepare(connection)
            self._connection = connection
            self._identify()
        except BaseException:
            self._connection = None
            connection.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    def _identify(self) -> None:
        self.begin()
        try:
            self.node = self._kept("node", lambda: self.node or self._random(16).hex())
            self.epoch = int(self._kept("epoch", lambda: str(int.from_bytes(self._random(8), "big") >> 1 or 1)))
            counted = int(self.meta("next_n") or 1)
            stored = self.connection.execute("SELECT max(n) FROM mcc").fetchone()[0] or 0
            # Rows with high numbers may have expired: the kept number never goes back, or peers would miss changes.
            self._next = max(counted, stored + 1)
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        value = self.meta(name)
        if value is None:
            value = make()
            self.set_meta(name, value)
        return value

    def meta(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM mcc_meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0], "utf-8", "replace")

    def set_meta(self, name: str, value: str) -> None:
        self.connection.execute("INSERT OR REPLACE INTO mcc_meta (name, value) VALUES (?, ?)", (name, value))

    def begin(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = self._next

    def commit(self) -> None:
        if self._next != self._began:
            self.set_meta("next_n", str(self._next))
        self.connection.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                # A damaged file may refuse even this; the file is then closed by the corruption policy.
                pass
            self._next = self._began

    def read(self, key: str) -> Record | None:
        """The row of ``key``, be it expired or a tombstone."""
        row = self.connection.execute(_READ, (encoded(key),)).fetchone()
        return None if row is None else record_of(row)

    def write(self, record: Record) -> Record:
        """Insert or replace, with the next change number. Returns the record as stored."""
        number = self._next
        self.connection.execute(
            _WRITE,
            (
                encoded(record.key),
                encoded(record.value),
                record.h,
                record.c,
                record.t,
                record.e,
                record.o,
                int(record.x),
                number,
            ),
        )
        self._next = number + 1
        return Record(record.key, record.value, record.h, record.c, record.t, record.e, record.o, record.x, number)

    def put(self, key: str, value: str, now: int, e: int, *, forced: bool = False) -> Record:
        """Write a local change: one version more, made now unless a living record is there. ``forced``: by an operator."""
        record = successor(self.read(key), key, value, now, e, self.node)
        return self._override(record) if forced else self.write(record)

    def remove(self, key: str, now: int, *, forced: bool = False) -> tuple[Record | None, Record]:
        """Replace the row by a tombstone. Returns the living record that was there, and the tombstone."""
        old = self.read(key)
        record = buried(old, key, now, self.node)
        tombstone = self._override(record) if forced else self.write(record)
        return (old if old is not None and old.alive(now) else None), tombstone

    def _override(self, record: Record) -> Record:
        stored = self.write(self.overrides.stamped(record))
        self.overrides.remember(stored)
        return stored

    def increment(self, key: str, amount: int, now: int, window: int) -> Record:
        """Add to a counter. Its end stays until the window is over; then it starts again at ``amount``."""
        return self.write(incremented(self.read(key), key, amount, now, window, self.node))

    def expire_slice(self, now: int) -> int:
        """Delete up to ``SLICE`` rows that ended at or before ``now``; how many there were."""
        return self.connection.execute(_EXPIRE, (now, SLICE)).rowcount

    def count_ended(self, family: str, code: str, now: int) -> int:
        """Records of ``family`` whose value begins with the character ``code`` and that ended at or before ``now``."""
        return int(self.connection.execute(COUNT_ENDED, (now, f"{family}:%", code)).fetchone()[0])

    def truncate(self) -> None:
        """Delete all rows. For tools; a running node never does it."""
        self.connection.execute("DELETE FROM mcc")


def successor(old: Record | None, key: str, value: str, now: int, e: int, node: str) -> Record:
    """What a local put makes of ``old`` (spec chapter operations, 1.4: creation time is kept while the record lives)."""
    if old is not None and old.alive(now):
        # Never put earlier than before, or a removal between the two would win over the later one only.
        return Record(key, value, old.h + 1, old.c, max(now, old.t), e, node)
    # Made in the same second as a removal, it must still count as made after it.
    made = max(now, old.t + 1) if old is not None and old.x else now
    return Record(key, value, 1, made, made, e, node)


def buried(old: Record | None, key: str, now: int, node: str) -> Record:
    """The tombstone of ``old``."""
    if old is None:
        return Record(key, "", 1, now, now, now + TOMBSTONE_LIFE, node, True)
    return Record(key, "", old.h + 1, old.c, max(now, old.t), now + TOMBSTONE_LIFE, node, True)


def counted(record: Record) -> int:
    """The number in a counter's value; 0 when it holds none."""
    try:
        return int(record.value)
    except ValueError:
        return 0


def incremented(old: Record | None, key: str, amount: int, now: int, window: int, node: str) -> Record:
    """What an increment makes of ``old``."""
    if old is not None and old.alive(now):
        return successor(old, key, str(counted(old) + amount), now, old.e, node)
    return successor(old, key, str(amount), now, now + window, node)


def move_aside(path: str, stamp: str) -> None:
    """Rename a damaged cache file with its log files to ``<path>.corrupt-<stamp>``. Raises OSError."""
    os.replace(path, f"{path}.corrupt-{stamp}")
    for tail in ("-wal", "-shm", "-journal"):
        try:
            os.replace(path + tail, f"{path}.corrupt-{stamp}{tail}")
        except FileNotFoundError:
            pass


def discard_file(path: str) -> None:
    """Delete a damaged cache file with its log files. Raises OSError."""
    for tail in ("", "-wal", "-shm", "-journal"):
        try:
            os.unlink(path + tail)
        except FileNotFoundError:
            pass
