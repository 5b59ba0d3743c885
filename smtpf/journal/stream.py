"""Log lines to standard error or to a file.

Lines of one turn of the reactor are written together. What cannot be written, because the disk is full or the reader of a pipe is slow, is
kept up to a bound and tried again each second; lines beyond the bound are counted, and the count is logged (#1190).
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.journal.datagram import LINES_LOST
from smtpf.journal.journal import Entry
from smtpf.journal.layout import Layout

BATCH = 65_536
"""Octets that are written at once without waiting for the end of the turn."""

KEPT_OCTETS = 4_194_304
"""Octets kept while nothing can be written."""

PIPE_SLICE = 4096
"""Octets that a pipe which is ready takes without blocking (PIPE_BUF on Linux)."""

RETRY_PAUSE = 1.0
"""Seconds until the next try after a failed write."""

FILE_MODE = 0o660


class StreamTarget:
    """A journal target that writes lines to the open descriptor ``descriptor``."""

    def __init__(self, clock: IReactorTime, descriptor: int, layout: Layout, *, kept: int = KEPT_OCTETS) -> None:
        self._clock: Any = clock
        self._descriptor = descriptor
        self._layout = layout
        self._kept = kept
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._last: Entry | None = None
        self._timer: IDelayedCall | None = None
        self._stuck = False

    def __call__(self, entry: Entry) -> None:
        line = self._layout(entry)
        if self._size + len(line) > self._kept:
            self._lost += 1
            self._last = entry
            return
        self._lines.append(line)
        self._size += len(line)
        if self._stuck:
            return
        # Before the reactor runs nobody would come back for the line, and start-up may end in an error.
        if self._size > BATCH or not getattr(self._clock, "running", True):
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.callLater(0, self._flush_later)

    def flush(self) -> None:
        """Write what is kept, as far as it can be written now."""
        self._cancel()
        self._stuck = False
        while self._lines:
            chunk = b"".join(self._lines)
            written = self._write(chunk)
            self._lines.clear()
            self._size = len(chunk) - written
            if self._size:
                self._lines.append(chunk[written:])
                self._stuck = True
                self._timer = self._clock.callLater(RETRY_PAUSE, self._flush_later)
                return
            if self._lost and self._last is not None:
                lost, self._lost = self._lost, 0
                line = self._layout(Entry(self._last.time, self._last.pid, LINES_LOST, (lost,), None, LINES_LOST.format % lost, {}))
                self._lines.append(line)
                self._size = len(line)

    def close(self) -> None:
        """Write what is kept; the descriptor stays open."""
        self.flush()
        self._cancel()

    def _flush_later(self) -> None:
        self._timer = None
        self.flush()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self, chunk: bytes) -> int:
        """Octets of ``chunk`` that were taken."""
        done = 0
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        while done < len(chunk):
            try:
                if not ready.poll(0):
                    break
                done += os.write(self._descriptor, chunk[done : done + PIPE_SLICE])
            except OSError:
                break
        return done


class FileTarget(StreamTarget):
    """A journal target that appends to the file ``path``."""

    def __init__(self, clock: IReactorTime, path: str, layout: Layout, *, kept: int = KEPT_OCTETS) -> None:
        """Raises OSError when the file cannot be opened."""
        super().__init__(clock, _open(path), layout, kept=kept)
        self._path = path

    def reopen(self) -> OSError | None:
        """Go on in a new file of the same name, after the old one was moved away.

        On failure the old file stays in use, and the error is returned.
        """
        self.flush()
        try:
            new = _open(self._path)
        except OSError as reason:
            return reason
        old, self._descriptor = self._descriptor, new
        os.close(old)
        return None

    def close(self) -> None:
        super().close()
        os.close(self._descriptor)

    def _write(self, chunk: bytes) -> int:
        done = 0
        while done < len(chunk):
            try:
                done += os.write(self._descriptor, chunk[done:] if done else chunk)
            except OSError:
                break
        return done


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
