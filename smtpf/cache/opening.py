"""Opening the cache file at start, and what happens when it turns out to be damaged.

Source: spec chapter operations, 1.1, 1.2 and 1.8.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from smtpf.cache.database import Database, code_of, discard_file, is_corruption, move_aside
from smtpf.cache.schema import ForeignTable
from smtpf.journal.message import err, warn
from smtpf.settings.option import Text

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

CACHE_PATH = Text(
    "cache-path",
    "/var/cache/smtpf/cache.sq3",
    "File of the cache, an SQLite database. Its directory must be writable by run-user, because log files appear beside it."
    " Or a Valkey or Redis server that the nodes of a fleet share, which then need no replication.",
    choices="file path | redis://[user@]host[:port][/db] | rediss://... | valkey://... | valkeys://... | unix:///path",
    runtime=False,
    area="cache",
)
SYNC_MODES = ("off", "normal", "full")


@attrs.frozen(eq=False, kw_only=True)
class SyncMode(Text):
    """The node tells of an unknown word by a message of its own (#173), and does not start."""

    def fits(self, value: str) -> bool:
        return value.lower() in SYNC_MODES


CACHE_SYNC_MODE = SyncMode(
    "cache-sync-mode",
    "off",
    "How carefully changes are brought to the disk: off is fastest, full survives a power failure."
    " The cache can be lost without harm to mail.",
    choices="off|normal|full",
    runtime=False,
    area="cache",
)
CACHE_ON_CORRUPT = Text(
    "cache-on-corrupt",
    "replace",
    "What to do when the cache file is found damaged: exit ends the node, rename keeps the file under another name, replace deletes it."
    " After the last two the node goes on with an empty cache.",
    choices="exit|rename|replace",
    words=("exit", "rename", "replace"),
    runtime=False,
    area="cache",
)

OPEN_ERROR = err(
    172,
    "cache-path=%s open error: %s (%d)",
    "The cache file could not be opened or made, so the node does not start."
    " Check that the directory exists and that run-user may write in it.",
)
SYNC_MODE_ERROR = err(173, "cache-sync-mode=%s error", "The option takes off, normal or full. The node does not start.")
CORRUPT = warn(
    1110,
    "cache-path=%s corrupt, %s",
    "The cache file is damaged. The second argument tells what was done about it (cache-on-corrupt)."
    " Look for a failing disk or a full file system.",
    since="modern",
)

MEMORY = ":memory:"


class CacheOpenError(Exception):
    """The cache cannot be used; the reason has been logged."""


def location(cache_path: str) -> str:
    """The file of ``cache-path``, without its optional ``sql!``. Raises CacheOpenError for another kind of map."""
    kind, mark, rest = cache_path.partition("!")
    if not mark or not kind.isalnum():
        return cache_path
    if kind.lower() == "sql":
        return rest
    raise CacheOpenError(f"{kind}! is no type of cache")


class Opener:
    """Opens the file, and repairs it by ``cache-on-corrupt``. ``repair`` is called on the cache's thread.

    ``adopt`` is called with the path after each opening, to set owner and mode. ``say`` logs from any thread.
    ``give_up`` ends the node.
    """

    def __init__(
        self,
        journal: Journal,
        on_corrupt: str,
        *,
        adopt: Callable[[str], None],
        say: Callable[[Callable[[], None]], None],
        give_up: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._journal = journal
        self._policy = on_corrupt
        self._adopt = adopt
        self._say = say
        self._give_up = give_up
        self._now = now
        self._retry_at = 0.0

    def open(self, database: Database) -> None:
        """At start. Raises CacheOpenError when there will be no cache."""
        try:
            self._open(database)
        except (sqlite3.Error, OSError, ForeignTable) as error:
            # At start "cannot open" is a wrong path or missing permission, and no reason to delete anything.
            if self._policy == "exit" or not is_corruption(error) or code_of(error) == sqlite3.SQLITE_CANTOPEN:
                raise self._refuse(database, error) from error
            try:
                self._replace(database, error, keep=self._policy == "rename" or code_of(error) == sqlite3.SQLITE_NOTADB)
            except (sqlite3.Error, OSError) as second:
                raise self._refuse(database, second) from second

    def repair(self, database: Database, error: Exception) -> bool:
        """Whether ``database`` is usable again. While it is not, one attempt a second is made."""
        if database.is_open and self._policy == "exit":
            database.close()
            self._say(lambda: self._journal.write(CORRUPT, database.path, "the node ends"))
            self._say(self._give_up)
            return False
        if self._policy == "exit" or self._now() < self._retry_at:
            return False
        try:
            if database.is_open:
                self._replace(database, error, keep=self._policy == "rename")
            else:
                self._open(database)
        except (sqlite3.Error, OSError, ForeignTable):
            self._retry_at = self._now() + 1.0
            return False
        return True

    def _open(self, database: Database) -> None:
        database.open()
        if database.path != MEMORY:
            self._adopt(database.path)

    def _replace(self, database: Database, error: Exception, keep: bool) -> None:
        database.close()
        if keep:
            stamp = time.strftime("%Y%m%d%H%M%S", time.localtime(self._now()))
            move_aside(database.path, stamp)
            deed = f"moved to {database.path}.corrupt-{stamp}: {error}"
        else:
            discard_file(database.path)
            deed = f"replaced by an empty one: {error}"
        self._say(lambda: self._journal.write(CORRUPT, database.path, deed))
        self._open(database)

    def _refuse(self, database: Database, error: Exception) -> CacheOpenError:
        number = error.errno if isinstance(error, OSError) else code_of(error)
        self._journal.write(OPEN_ERROR, database.path, str(error), number or 0)
        return CacheOpenError(str(error))


def check_sync_mode(mode: str, journal: Journal) -> str:
    """``cache-sync-mode`` in lower case. Raises CacheOpenError, logged, for an unknown word."""
    folded = mode.lower()
    if folded not in SYNC_MODES:
        journal.write(SYNC_MODE_ERROR, mode)
        raise CacheOpenError(f"cache-sync-mode={mode}")
    return folded


def check_directory(path: str) -> None:
    """Raises OSError when the directory of ``path`` cannot take the file: SQLite's own words for it say less."""
    if path == MEMORY:
        return
    if os.path.isdir(path):
        raise IsADirectoryError(21, os.strerror(21), path)
    os.stat(os.path.dirname(os.path.abspath(path)))
