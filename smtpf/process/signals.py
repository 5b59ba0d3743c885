"""Signals, and the way a node ends: TERM and INT at once but without losing mail, QUIT after the last session, HUP reloads.

A signal handler only wakes the reactor; everything else happens there. Source: spec chapter operations, 6.6.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from smtpf.journal.message import info
from smtpf.process.notify import STOPPING, notify
from smtpf.settings.option import Number
from smtpf.waiting import in_background

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

GRACE = 15.0
"""Seconds that stopping the sessions may take in all: five for clients, ten for messages that a next hop has in full."""

OTHERS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ") if hasattr(signal, name))
"""Signals that are only told of (#724)."""

SLOW_QUIT_TIMEOUT = Number(
    "slow-quit-timeout",
    600,
    "How long a slow quit waits for the last session before the rest is stopped as by quit.",
    choices="seconds",
    least=0,
    since="new",
    area="process",
)

SLOW_QUIT = info(
    722,
    "signal %d, slow quit cn=%u",
    "A slow quit: nobody new is accepted, and the node ends when the last of cn sessions has. Repeated whenever their number changes.",
    fields=("signal", "connections"),
    always=True,
)
STOPPING_SESSIONS = info(
    722,
    "signal %d, stopping sessions, cn=%u",
    "The node was told to end and stops its cn sessions. Messages whose end a next hop has been told are still finished.",
    fields=("signal", "connections"),
    always=True,
)
TERMINATING = info(
    723,
    "signal %d, terminating process",
    "All sessions have ended; statistics and cache are saved now.",
    fields=("signal",),
    always=True,
)
RECEIVED = info(
    724,
    "signal %d received, cn=%u",
    "A signal that does not end the node. Signal 1 (HUP) reloads options, maps and files.",
    fields=("signal", "connections"),
    always=True,
)
AT_ONCE = info(
    725,
    "signal %d, terminating process",
    "A second signal while the node was ending: the sessions left are cut without waiting.",
    fields=("signal",),
    always=True,
)


class Sessions(Protocol):
    """What the end of a node needs of its sessions."""

    def __len__(self) -> int:
        """How many there are now."""

    def stop(self) -> Awaitable[None]:
        """End each as soon as mail allows, saying 421 to its client; done when the last has gone."""

    def abort(self) -> None:
        """Cut all that are left."""


class Signals:
    """Hears the signals of this process from ``install`` on, and ends or reloads the node.

    ``stop_accepting`` closes the listening sockets, ``reload`` rereads the configuration, ``slow_quit_timeout`` gives seconds. Call
    ``session_ended`` whenever a session has ended.
    """

    def __init__(
        self,
        reactor: Any,
        journal: Journal,
        sessions: Sessions,
        stop_accepting: Callable[[], None],
        reload: Callable[[], Awaitable[None] | None],
        slow_quit_timeout: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._journal = journal
        self._sessions = sessions
        self._stop_accepting = stop_accepting
        self._reload = reload
        self._slow_quit_timeout = slow_quit_timeout
        self._slow: int | None = None
        self._told = -1
        self._ending = False
        self._over = False
        self._timer: IDelayedCall | None = None

    def install(self) -> None:
        """Take over the process's signal handlers. Call it when the reactor runs, behind the reactor's own."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, *OTHERS):
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: object) -> None:
        self._reactor.callFromThread(self.received, signum)

    def received(self, signum: int) -> None:
        """Do what ``signum`` asks for."""
        if signum in (signal.SIGTERM, signal.SIGINT):
            self._terminate(signum)
        elif signum == signal.SIGQUIT:
            self._begin_slow_quit()
        else:
            self._journal.write(RECEIVED, signum, len(self._sessions))
            if signum == signal.SIGHUP and not self._ending:
                in_background(self._reloading(), self._unexpected)

    def session_ended(self) -> None:
        """Look whether a slow quit has come to its end."""
        if self._slow is not None and not self._ending:
            self._look()

    def _begin_slow_quit(self) -> None:
        if self._slow is not None or self._ending:
            return
        self._slow = signal.SIGQUIT
        notify(os.environ, STOPPING)
        self._stop_accepting()
        self._timer = self._reactor.callLater(self._slow_quit_timeout(), self._terminate, signal.SIGQUIT)
        self._look()

    def _look(self) -> None:
        count = len(self._sessions)
        if count != self._told:
            self._told = count
            self._journal.write(SLOW_QUIT, signal.SIGQUIT, count)
        if not count:
            self._terminate(signal.SIGQUIT)

    def _terminate(self, signum: int) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._ending:
            if not self._over:
                self._journal.write(AT_ONCE, signum)
                self._sessions.abort()
                self._finish()
            return
        self._ending = True
        notify(os.environ, STOPPING)
        self._stop_accepting()
        self._journal.write(STOPPING_SESSIONS, signum, len(self._sessions))
        in_background(self._stop_sessions(signum), self._unexpected)

    async def _stop_sessions(self, signum: int) -> None:
        stopped = Deferred.fromCoroutine(_awaited(self._sessions.stop()))
        try:
            await stopped.addTimeout(GRACE, self._reactor)
        except TimeoutError:
            self._sessions.abort()
        if not self._over:
            self._journal.write(TERMINATING, signum)
            self._finish()

    def _finish(self) -> None:
        self._over = True
        self._reactor.stop()

    async def _reloading(self) -> None:
        work = self._reload()
        if work is not None:
            await work

    def _unexpected(self, failure: Failure) -> None:
        self._journal.failure(failure)
        if self._ending and not self._over:
            self._finish()


async def _awaited(work: Awaitable[None]) -> None:
    await work
