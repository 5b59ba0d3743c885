"""The stats map: a small table of text rows in which hourly and route counters outlive the process.

Everything in this module may wait for a disk: the archive calls it in a thread of its own.
Source: spec chapter operations, 3.1.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from typing import Protocol

import attrs

from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.settings.option import Text
from smtpf.settings.store import Settings

BUSY_TIMEOUT = 15.0
"""Seconds to wait for another process that writes the same database."""

MODE = 0o664

STATS_MAP = Text(
    "stats-map",
    "",
    "Where the counters are kept when the process ends: the hourly counters by hour, and 31 days of counts for each route. "
    "`sql!PATH` is an SQLite database, `file!PATH` a text file that is kept in memory, `text!PATH` one that is read and never written.",
    choices='file!PATH|sql!PATH; "" disables',
    runtime=False,
    area="stats",
)

OPEN_ERROR = err(
    714,
    "stats-map=%s open error: %s (%d)",
    "The map that `stats-map` names cannot be opened; the program ends. Check the path, its type and who may write it.",
    fields=("map", "reason", "errno"),
)


class Rows(Protocol):
    """A stats map. Every method may wait, and raises OSError or sqlite3.Error."""

    def get(self, key: str) -> str | None: ...

    def put(self, rows: Mapping[str, str]) -> None:
        """Write all of ``rows`` or none."""

    def delete_hours_before(self, key: str) -> None:
        """Remove hourly rows (keys of ten digits) older than ``key``."""

    def close(self) -> None: ...


@attrs.frozen
class Refused:
    """The map could not be opened; #714 has been logged."""

    reason: str
    errno: int


class SqliteRows:
    """Table ``kvm`` of an SQLite file, made when it is missing."""

    def __init__(self, path: str) -> None:
        # The rows are used from one thread at a time, but opened in another than the one that works.
        self._database = sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        try:
            with self._database:
                self._database.execute("CREATE TABLE IF NOT EXISTS kvm( k TEXT PRIMARY KEY, v TEXT )")
        except sqlite3.Error:
            self._database.close()
            raise

    def get(self, key: str) -> str | None:
        row = self._database.execute("SELECT v FROM kvm WHERE k=?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, rows: Mapping[str, str]) -> None:
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO kvm(k, v) VALUES(?, ?)", list(rows.items()))

    def delete_hours_before(self, key: str) -> None:
        with self._database:
            self._database.execute("DELETE FROM kvm WHERE k GLOB ? AND k < ?", ("[0-9]" * 10, key))

    def close(self) -> None:
        self._database.close()


class FileRows:
    """A text file, ``key value`` on each line, kept in memory and replaced as a whole."""

    def __init__(self, path: str, *, writable: bool = True) -> None:
        self._path = path
        self._writable = writable
        self._rows: dict[str, str] = {}
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    words = line.strip().split(None, 1)
                    if words and not words[0].startswith("#"):
                        self._rows[words[0]] = words[1] if len(words) > 1 else ""
        except FileNotFoundError:
            if not writable:
                raise
            self._replace(self._rows)

    def get(self, key: str) -> str | None:
        return self._rows.get(key)

    def put(self, rows: Mapping[str, str]) -> None:
        self._keep({**self._rows, **rows})

    def delete_hours_before(self, key: str) -> None:
        self._keep({old: row for old, row in self._rows.items() if not (len(old) == 10 and old.isdigit() and old < key)})

    def close(self) -> None:
        """Nothing: every change is on disk already."""

    def _keep(self, rows: dict[str, str]) -> None:
        if self._writable:
            self._replace(rows)
            self._rows = rows

    def _replace(self, rows: Mapping[str, str]) -> None:
        """Readers see the old file or the new one, never a part."""
        descriptor, new = tempfile.mkstemp(prefix=".", dir=os.path.dirname(self._path) or ".")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.writelines(f"{key} {row}\n" for key, row in rows.items())
                file.flush()
                os.fchmod(descriptor, MODE)
                os.fsync(descriptor)
            os.replace(new, self._path)
        except OSError:
            os.unlink(new)
            raise


def open_stats_map(settings: Settings, journal: Journal, owner: tuple[int, int] | None = None) -> Rows | Refused | None:
    """The map that ``stats-map`` names; None when it names none. For the start of the process: it may wait for the disk.

    ``owner`` is the user and group id that the file is given to.
    """
    location = settings[STATS_MAP]
    if not location:
        return None
    kind, mark, path = location.partition("!")
    try:
        rows = _open(kind.lower() if mark else "", path)
        if kind.lower() != "text":
            _give_away(path, owner)
    except OSError as error:
        return _refuse(journal, location, error.strerror or str(error), error.errno or 0)
    except sqlite3.Error as error:
        return _refuse(journal, location, str(error), getattr(error, "sqlite_errorcode", 0))
    return rows


def _open(kind: str, path: str) -> Rows:
    if kind == "sql":
        return SqliteRows(path)
    if kind == "file":
        return FileRows(path)
    if kind == "text":
        return FileRows(path, writable=False)
    raise OSError(errno.EINVAL, "not a type of map for statistics, wanted sql!, file! or text!")


def _give_away(path: str, owner: tuple[int, int] | None) -> None:
    # A file that somebody else prepared for us stays as he left it.
    if os.geteuid() not in (0, os.stat(path).st_uid):
        return
    os.chmod(path, MODE)
    if owner is not None:
        os.chown(path, *owner)


def _refuse(journal: Journal, location: str, reason: str, number: int) -> Refused:
    journal.write(OPEN_ERROR, location, reason, number)
    return Refused(reason, number)
