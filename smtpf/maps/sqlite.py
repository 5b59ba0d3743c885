"""Maps compiled into an SQLite database.

A database of ordinary size is read whole into memory and watched like a text file. A very large one stays on disk and is
asked in a thread, one look-up at a time. It is only ever opened for reading. Source: spec chapter maps, section 4.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred, DeferredLock, TimeoutError, ensureDeferred
from twisted.internet.interfaces import IReactorTime

from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.maps.keys import has_control
from smtpf.maps.source import FAILED, Found, InThread, LookupFailed, Walk, table_of
from smtpf.maps.watched import Content

MEMORY_ROWS = 200_000
"""Rows up to which a database is kept in memory."""

BUSY_SECONDS = 20.0
"""How long a look-up waits while somebody else has locked the database."""

MAX_WAITING = 1000
"""Look-ups that may wait for the thread; further ones fail."""

ALL = "SELECT k, v FROM kvm"
ONE = "SELECT v FROM kvm WHERE k=?1"
TAGS = "SELECT DISTINCT substr(k, 1, instr(k, ':')) FROM kvm"
FORWARDS = "SELECT k, v FROM kvm WHERE k >= 'route:' AND k < 'route;' AND instr(v, 'FORWARD') > 0"
COMBINATIONS = ("connect:", "from:"), ("connect:", "to:"), ("from:", "to:")

STEP_ERROR = err(
    1143,
    'kvm "%s" step error (%ld): %s; %s',
    "A look-up in a map database failed, for instance because it was locked for too long. The look-up counts as a temporary failure.",
    fields=("map", "code", "reason", "statement"),
    since="later",
)


def connect(path: Path, check_same_thread: bool = True) -> sqlite3.Connection:
    """The database at ``path``, for reading only. Octets that are not UTF-8 are kept. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_SECONDS, check_same_thread=check_same_thread)
    connection.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
    return connection


class SqliteReader:
    """Reads a database, whole or as far as is needed to ask it later."""

    def __init__(self, journal: Journal, clock: IReactorTime, in_thread: InThread, memory_rows: int = MEMORY_ROWS) -> None:
        self._journal = journal
        self._clock = clock
        self._in_thread = in_thread
        self._memory_rows = memory_rows

    def __call__(self, path: Path) -> Content:
        connection = connect(path, check_same_thread=False)
        try:
            rows = connection.execute(f"{ALL} LIMIT {self._memory_rows + 1}").fetchall()
            if len(rows) <= self._memory_rows:
                connection.close()
                return Content(table_of((str(key), "" if value is None else str(value)) for key, value in rows))
            view = LargeDatabase(path, connection, self._journal, self._clock, self._in_thread)
        except BaseException:
            connection.close()
            raise
        return Content(view)


class LargeDatabase:
    """A view that asks the database for each key."""

    def __init__(self, path: Path, connection: sqlite3.Connection, journal: Journal, clock: IReactorTime, in_thread: InThread) -> None:
        self._path = path
        self._connection = connection
        self._journal = journal
        self._clock = clock
        self._in_thread = in_thread
        self._turn = DeferredLock()
        self.tags: frozenset[str] | None = frozenset(_tags(connection))
        self.walk: Walk | None = self._walk

    def get(self, key: str, /) -> Found | Deferred[Found]:
        if has_control(key):
            return None
        if len(self._turn.waiting) >= MAX_WAITING:
            return FAILED
        return ensureDeferred(self._get(key))

    async def _get(self, key: str) -> Found:
        try:
            await self._turn.acquire().addTimeout(BUSY_SECONDS, self._clock)
        except (TimeoutError, CancelledError):
            return FAILED
        try:
            found: Found | sqlite3.Error = await self._in_thread(self._select, key)
        finally:
            self._turn.release()
        if isinstance(found, sqlite3.Error):
            self._journal.write(STEP_ERROR, self._path, getattr(found, "sqlite_errorcode", 0), found, ONE)
            return FAILED
        return found

    def _select(self, key: str) -> Found | sqlite3.Error:
        try:
            row = self._connection.execute(ONE, (key,)).fetchone()
        except sqlite3.Error as error:
            return error
        except UnicodeEncodeError:
            # Octets that are no UTF-8 came in a name of the outside world.
            return None
        if row is None:
            return None
        return "" if row[0] is None else str(row[0])

    def _walk(self) -> Iterable[tuple[str, str]] | LookupFailed:
        try:
            connection = connect(self._path)
            try:
                return [(str(key), str(value)) for key, value in connection.execute(FORWARDS)]
            finally:
                connection.close()
        except sqlite3.Error as error:
            return LookupFailed(str(error))

    def close(self) -> None:
        """Close the connection after the look-ups that already wait."""
        self._turn.run(self._in_thread, _quietly(self._connection.close))


def _quietly(function: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        try:
            function()
        except sqlite3.Error:
            pass

    return run


def _tags(connection: sqlite3.Connection) -> Iterable[str]:
    for (tag,) in connection.execute(TAGS):
        yield str(tag)
    for first, second in COMBINATIONS:
        like = f"{first}*:{second}*"
        if connection.execute("SELECT 1 FROM kvm WHERE k GLOB ?1 LIMIT 1", (like,)).fetchone():
            yield first + second
