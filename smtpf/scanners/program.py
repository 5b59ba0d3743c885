"""A program of this site as a child process: input through a pipe, lines of output, an exit status, and an end in every case.

It is started without a shell, with nothing but PATH in its environment and no descriptor of ours, as the leader of a session of
its own, so that ``kill`` reaches what it has started, too. Source: spec chapter filters-content, 9; security row Y.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

ENVIRONMENT = {"PATH": "/bin:/usr/bin"}
MAX_LINE = 512
"""Octets of a line of output; a longer one counts as several."""
MAX_LINES = 100
"""Lines of output that are kept; the rest is read and dropped."""
CANNOT_EXECUTE = 71
"""Exit status that stands for a program that could not be executed (EX_OSERR of sysexits.h)."""
GRACE = 1.0
"""Seconds a program has to end after it has closed its input or output."""
_POLL = 0.005
_MAX_POLL = 0.2


@attrs.frozen
class Ending:
    """How a program ended; ``signal`` is 0 when it exited by itself."""

    status: int
    lines: tuple[str, ...] = ()
    signal: int = 0
    core_dumped: bool = False
    unfed: int = 0
    """Error number when it closed its input without ending, and was killed for it."""


def start(reactor: Any, argv: Sequence[str], timeout: float) -> Program | Ending | OSError:
    """Start ``argv``, whose first word is the path of the program.

    An Ending when it cannot be executed, the error when there are no pipes or processes left. ``timeout`` seconds may pass
    without a line of output once the input is complete, and without progress while it is not.
    """
    ends: list[int] = []
    try:
        ends += os.pipe()
        ends += os.pipe()
        child = subprocess.Popen(
            list(argv), stdin=ends[0], stdout=ends[3], stderr=ends[3], env=ENVIRONMENT, close_fds=True, start_new_session=True
        )
    except OSError as error:
        for end in ends:
            os.close(end)
        return Ending(CANNOT_EXECUTE) if error.filename is not None else error
    os.close(ends[0])
    os.close(ends[3])
    program = Program(reactor, child, timeout, ends[1], ends[2])
    StandardIO(program, ends[2], ends[1], reactor)  # type: ignore[call-arg]
    return program


@implementer(IHalfCloseableProtocol, IPushProducer)
class Program(Protocol):
    """A program that runs. ``write`` its input, then ``finish``; or ``kill`` it at any time."""

    transport: Any

    def __init__(self, reactor: Any, child: subprocess.Popen[bytes], timeout: float, input_pipe: int, output_pipe: int) -> None:
        self.pid = child.pid
        self._reactor = reactor
        self._child = child
        self._timeout = timeout
        self._input_pipe = input_pipe
        self._output_pipe = output_pipe
        """Our ends; -1 once closed. StandardIO leaves closing to its user."""
        self._partial = b""
        self._lines: list[str] = []
        self._output_ended = False
        self._input_ended = False
        self._input_broken = False
        self._full = False
        self._status: int | None = None
        """As of wait(2), once the child has been waited for."""
        self._waiting: Deferred[None] | None = None
        self._heard = 0
        """Lines of output so far, dropped ones included."""

    # From the pipes

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        while len(self._partial) >= MAX_LINE:
            lines.append(self._partial[:MAX_LINE])
            self._partial = self._partial[MAX_LINE:]
        for line in lines:
            self._take(line)
        if lines:
            self._wake()

    def _take(self, line: bytes) -> None:
        self._heard += 1
        for start in range(0, max(1, len(line)), MAX_LINE):
            if len(self._lines) < MAX_LINES:
                self._lines.append(line[start : start + MAX_LINE].rstrip(b"\r").decode("utf-8", "replace"))

    def readConnectionLost(self) -> None:
        if self._partial:
            self._take(self._partial)
            self._partial = b""
        self._output_ended = True
        self._output_pipe = _closed(self._output_pipe)
        self._wake()

    def writeConnectionLost(self) -> None:
        self._input_broken = not self._input_ended
        self._input_pipe = _closed(self._input_pipe)
        self.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._input_pipe = _closed(self._input_pipe)
        self.readConnectionLost()
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self._wake()

    def stopProducing(self) -> None:
        self.resumeProducing()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _event(self, seconds: float) -> bool:
        """Wait for anything to happen; False when nothing did."""
        late: list[bool] = []
        waiting = self._waiting = Deferred()

        def ring() -> None:
            late.append(True)
            self._wake()

        alarm = self._reactor.callLater(seconds, ring)
        await waiting
        if not late:
            alarm.cancel()
        return not late

    # To the filter

    @property
    def flowing(self) -> bool:
        """The program keeps up with its input."""
        return not self._full

    def write(self, data: bytes) -> None:
        """Give it input. What it does not want to read any more is dropped."""
        if not self._input_broken and self.transport is not None:
            self.transport.write(data)

    async def drained(self) -> bool:
        """Wait until the program has caught up with its input; False when it has not moved for the timeout."""
        deadline = self._reactor.seconds() + self._timeout
        while self._full and not self._input_broken:
            left = deadline - self._reactor.seconds()
            if left <= 0 or not await self._event(left):
                return not self._full
        return True

    async def finish(self) -> Ending:
        """End its input, read its output and wait for its end. A program that does not end is killed."""
        unfed = 0
        if self._input_broken:
            if not await self._exited(GRACE):
                unfed = errno.EPIPE
                self._signal()
        else:
            self._input_ended = True
            if self.transport is not None:
                self.transport.unregisterProducer()
                self.transport.loseWriteConnection()
        await self._output()
        if not self._output_ended or not await self._exited(GRACE):
            self._signal()
            await self._exited(self._timeout)
        self._close()
        return self._ending(unfed)

    async def _output(self) -> None:
        """Read to the end of the output, or until no line has come for too long."""
        deadline = self._reactor.seconds() + self._timeout
        while not self._output_ended:
            heard = self._heard
            if not await self._event(max(0.0, deadline - self._reactor.seconds())):
                return
            if self._heard > heard and self._heard <= MAX_LINES:
                deadline = self._reactor.seconds() + self._timeout

    def _ending(self, unfed: int) -> Ending:
        status, lines = self._status, tuple(self._lines)
        if status is None:
            return Ending(0, lines, signal.SIGKILL, unfed=unfed)
        if os.WIFSIGNALED(status):
            return Ending(0, lines, os.WTERMSIG(status), os.WCOREDUMP(status), unfed)
        return Ending(os.WEXITSTATUS(status), lines, unfed=unfed)

    def kill(self) -> None:
        """Nobody wants its answer any more: end it with all it has started, and wait for it in the background."""
        self._signal()
        self._close()
        self._reap(_POLL)

    def _reap(self, pause: float) -> None:
        if not self._wait():
            self._reactor.callLater(pause, self._reap, min(2 * pause, _MAX_POLL))

    async def _exited(self, seconds: float) -> bool:
        """Whether the program ends within so many seconds."""
        deadline = self._reactor.seconds() + seconds
        pause = _POLL
        while not self._wait():
            if self._reactor.seconds() >= deadline:
                return False
            self._reactor.callLater(pause, self._wake)
            await self._event(pause + 1)
            pause = min(2 * pause, _MAX_POLL)
        return True

    def _wait(self) -> bool:
        """Whether the program has ended; it is waited for then."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, signal.SIGKILL
            if pid == 0:
                return False
            self._status = status
            self._child.returncode = status
        return True

    def _signal(self) -> None:
        """SIGKILL to the program and its group, as long as its number cannot stand for another one."""
        if self._status is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

    def _close(self) -> None:
        """Close both pipes."""
        if self.transport is not None and not self.transport.disconnected:
            self.transport.connectionLost(Failure(CONNECTION_DONE))


def _closed(pipe: int) -> int:
    if pipe >= 0:
        os.close(pipe)
    return -1
