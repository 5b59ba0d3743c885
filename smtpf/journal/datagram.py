"""Log lines as datagrams to a local daemon: syslog on ``/dev/log``, or the system journal.

Nothing here waits. When the daemon does not take a line, because its socket is full or it is being restarted, lines are kept in order, up
to a bound, and sent as soon as it does; lines beyond the bound are counted, and the count is logged (#1190).
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from smtpf.journal.journal import Entry
from smtpf.journal.layout import Layout
from smtpf.journal.message import warn

KEPT_LINES = 10_000
"""Lines kept while the daemon takes none."""

FULL_PAUSE = 0.05
"""Seconds until the next try when the daemon's socket is full."""

RECONNECT_PAUSE = 1.0
"""Seconds until the next try when there is no daemon."""

SAFE_SIZE = 2048
"""Octets to which a datagram is cut that the socket finds too long."""

LAST_WAIT = 1.0
"""Seconds that the end of the process waits for a full socket."""

LINES_LOST = warn(
    1190,
    "log lines lost=%lu",
    "The log daemon took nothing for so long, or the disk of the log file was full for so long, that lines had to be thrown away. "
    "The line stands in the log where they are missing.",
    fields=("lost",),
    since="new",
)


def _to_standard_error(lines: bytes) -> None:
    # By descriptor: twistd puts an object of its own in the place of sys.stderr.
    try:
        os.write(2, lines)
    except OSError:
        pass


class DatagramTarget:
    """A journal target that sends each entry as one datagram to the Unix socket ``path``."""

    def __init__(
        self,
        clock: IReactorTime,
        path: str,
        layout: Layout,
        *,
        kept: int = KEPT_LINES,
        spill: Callable[[bytes], object] | None = None,
    ) -> None:
        """``spill`` takes the lines that could not be sent when the process ends; by default they go to standard error."""
        self._clock = clock
        self._path = path
        self._layout = layout
        self._kept = kept
        self._spill = _to_standard_error if spill is None else spill
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._last: Entry | None = None
        self._timer: IDelayedCall | None = None

    def __call__(self, entry: Entry) -> None:
        datagram = self._layout(entry)
        if not self._waiting:
            pause = self._send(datagram)
            if not pause:
                return
            self._timer = self._clock.callLater(pause, self._retry)
        if len(self._waiting) < self._kept:
            self._waiting.append(datagram)
        else:
            self._lost += 1
            self._last = entry

    def close(self) -> None:
        """Send what is kept, waiting a second at most, and close the socket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        until = time.monotonic() + LAST_WAIT
        while self._waiting:
            if self._socket is not None:
                self._socket.settimeout(max(0.001, until - time.monotonic()))
            if self._send(self._waiting[0]):
                break
            self._waiting.popleft()
        for datagram in self._waiting:
            self._spill(datagram + b"\n")
        self._waiting.clear()
        self._disconnect()

    def _retry(self) -> None:
        self._timer = None
        while self._waiting:
            pause = self._send(self._waiting[0])
            if pause:
                self._timer = self._clock.callLater(pause, self._retry)
                return
            self._waiting.popleft()
        if self._lost and self._last is not None:
            lost, self._lost = self._lost, 0
            self(Entry(self._last.time, self._last.pid, LINES_LOST, (lost,), None, LINES_LOST.format % lost, {}))

    def _send(self, datagram: bytes) -> float:
        """Seconds to wait before the next try; 0 when the datagram is gone."""
        if self._socket is not None:
            pause = self._send_connected(self._socket, datagram)
            if pause != RECONNECT_PAUSE:
                return pause
            # The daemon may just have been restarted: its new socket is tried at once.
            self._disconnect()
        if not self._connect() or self._socket is None:
            return RECONNECT_PAUSE
        return self._send_connected(self._socket, datagram)

    def _send_connected(self, connection: socket.socket, datagram: bytes) -> float:
        try:
            connection.send(datagram)
        except (BlockingIOError, TimeoutError):
            return FULL_PAUSE
        except OSError as reason:
            if reason.errno == errno.EMSGSIZE and len(datagram) > SAFE_SIZE:
                return self._send_connected(connection, datagram[:SAFE_SIZE])
            return FULL_PAUSE if reason.errno == errno.ENOBUFS else RECONNECT_PAUSE
        return 0

    def _connect(self) -> bool:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        connection.setblocking(False)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            return False
        self._socket = connection
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
