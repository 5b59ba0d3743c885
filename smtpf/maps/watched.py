"""Maps kept whole in memory and read again when their file changes.

Once a second the file's device, inode, size and time of modification are looked at, and a changed file is read, both in
a thread. A file that cannot be read leaves the old content in force and is reported once. Source: spec chapter maps,
section 8.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.journal.journal import Journal
from smtpf.journal.message import err, warn
from smtpf.maps.source import EMPTY, InThread, MapError, View, table_of
from smtpf.maps.text import parse_text

CHECK_EVERY = 1.0
"""Seconds between two looks at a file."""

NOT_RELOADED = err(
    1140,
    "map %s not reloaded: %s",
    "A map file has changed and cannot be read. Look-ups go on with the old content until it can; mend the file.",
    fields=("map", "reason"),
    since="later",
)
NO_KEY = warn(
    1141,
    "map %s line %lu begins with a blank, ignored",
    "A line of a map file begins with a blank and so has no key. Lines may not be folded; mend the file.",
    fields=("map", "line"),
    since="later",
)

Signature = tuple[int, ...]


@attrs.frozen(eq=False)
class Content:
    """What one reading of a file gave."""

    view: View
    keyless: tuple[int, ...] = ()


class Reader(Protocol):
    """Reads a map file whole. Raises OSError, ValueError or sqlite3.Error; runs in a thread."""

    def __call__(self, path: Path, /) -> Content: ...


def read_text(path: Path) -> Content:
    """A text file as a table."""
    text = parse_text(path.read_bytes())
    return Content(table_of((line.key, line.value) for line in text.lines), text.keyless)


class WatchedSource:
    """A map file in memory."""

    def __init__(self, path: Path, read: Reader, journal: Journal, clock: IReactorTime, in_thread: InThread) -> None:
        self._path = path
        self._read = read
        self._journal = journal
        self._clock = clock
        self._in_thread = in_thread
        self._view: View = EMPTY
        self._signature: Signature | None = None
        self._told_of = ""
        self._listeners: list[Callable[[], None]] = []
        self._next: IDelayedCall | None = None
        self._running = False

    @property
    def view(self) -> View:
        return self._view

    def open(self) -> MapError | None:
        """Read the file now, before the start; waits for the disk."""
        try:
            outcome = self._look(None)
        except Exception as error:
            return MapError(str(getattr(error, "strerror", None) or error), getattr(error, "errno", None) or 0)
        if outcome is not None:
            self._take(*outcome)
        return None

    def start(self) -> None:
        if not self._running:
            self._running = True
            self._schedule()

    def stop(self) -> None:
        self._running = False
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._view.close()

    def reload(self) -> Deferred[None]:
        return self._check(None)

    def when_loaded(self, told: Callable[[], None]) -> None:
        self._listeners.append(told)

    def _schedule(self) -> None:
        self._next = self._clock.callLater(CHECK_EVERY, self._tick)

    def _tick(self) -> None:
        self._next = None
        self._check(self._signature).addBoth(lambda _: self._schedule() if self._running else None)

    @inlineCallbacks
    def _check(self, known: Signature | None) -> Any:
        try:
            outcome = yield self._in_thread(self._look, known)
        except Exception as error:
            self._broken(str(error))
            return
        if outcome is not None:
            self._take(*outcome)
            for told in self._listeners:
                told()

    def _look(self, known: Signature | None) -> tuple[Signature, Content] | None:
        """Content of the file when its signature is not ``known``. None, too, while somebody is writing it."""
        before = _signature(self._path)
        if before == known:
            return None
        content = self._read(self._path)
        return (before, content) if known is None or _signature(self._path) == before else None

    def _take(self, signature: Signature, content: Content) -> None:
        self._signature = signature
        old, self._view = self._view, content.view
        old.close()
        self._told_of = ""
        if content.keyless:
            self._journal.write(NO_KEY, self._path, content.keyless[0])

    def _broken(self, reason: str) -> None:
        if self._told_of != reason:
            self._told_of = reason
            self._journal.write(NOT_RELOADED, self._path, reason)


def _signature(path: Path) -> Signature:
    """The database's write-ahead log counts too: a commit may stand there alone."""
    found = os.stat(path)
    try:
        log = os.stat(f"{path}-wal")
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, log.st_size, log.st_mtime_ns
    except FileNotFoundError:
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
