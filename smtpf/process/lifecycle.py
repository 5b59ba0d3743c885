"""The start sequence of a node as far as it concerns the process, and its end; ``node.py`` does its own steps in between.

Before the reactor: ``prepare`` (umask, predecessor, background), then ``open`` (limits, greeting lines, host name, interfaces).
In the running reactor: ``settle`` (pid file, ownership, identity) when caches, maps and filters are open, then ``serve``
(accept, #599, READY), and at the end ``close``. Source: spec chapter operations, 6.2.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from smtpf.journal.message import err, info
from smtpf.process.announce import announce
from smtpf.process.collection import settle_collector
from smtpf.process.detach import detach
from smtpf.process.ending import CannotStart
from smtpf.process.identity import UMASK, become, give_files, look_up
from smtpf.process.instance import Predecessor, seconds_of
from smtpf.process.limits import raise_limits
from smtpf.process.listening import Bound, Listening, Taker, fully_qualified_name, service_manager
from smtpf.process.notify import READY, notify
from smtpf.process.pidfile import PidFile
from smtpf.process.signals import SLOW_QUIT_TIMEOUT, Sessions, Signals
from smtpf.process.steering import Steering
from smtpf.settings.process_options import DAEMON, LENIENT, RESTART, RESTART_IF, RUN_PID_FILE

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

HOST_ERROR = err(
    734,
    "host info error: %s (%d)",
    "The machine has no host name, so the node could not name itself. Set one (hostnamectl) and start again.",
    fields=("error", "errno"),
)
NODE_READY = info(599, "ready", "The node accepts connections from now on.", always=True)
TERMINATED = info(732, "terminated", "The process ends here, in order: everything has been saved.", always=True)


def prepare(settings: Settings, journal: Journal, reactor: Any) -> None:
    """Umask, ``restart`` and ``restart-if``, and into the background. Before anything is opened; raises CannotStart.

    ``journal`` is of the process that was started; with ``+daemon`` the process id is another afterwards.
    """
    os.umask(UMASK)
    if settings[RESTART] or settings[RESTART_IF]:
        required = settings[RESTART_IF]
        text = settings.text(RESTART_IF if required else RESTART)
        Predecessor(PidFile(settings[RUN_PID_FILE], journal), journal).replace(seconds_of(text), required)
    if settings[DAEMON]:
        detach(reactor, journal)


class Lifecycle:
    """The process of one node, from limits to the last log line."""

    def __init__(self, settings: Settings, journal: Journal, reactor: Any, sessions: Sessions, steering: Steering | None = None) -> None:
        """``steering``, where several processes may answer clients."""
        self._settings = settings
        self._journal = journal
        self._reactor = reactor
        self._sessions = sessions
        self._steering = steering
        self._pid_file = PidFile(settings[RUN_PID_FILE], journal)
        self._signals: Signals | None = None
        self._serving = False
        self.descriptors = 0
        """The descriptor limit in force after ``open``."""
        self.host_name = ""
        """This machine's full name after ``open``."""
        self.listening: Listening | None = None

    def open(self) -> None:
        """Limits, #604 to #606, host name, and the interfaces bound but not read. Needs root for ports below 1024. Raises CannotStart."""
        self._identity = look_up(self._settings, self._journal, os.geteuid() == 0, lenient=self._settings[LENIENT])
        self.descriptors = raise_limits(self._settings, self._journal)
        announce(self._journal)
        try:
            self.host_name = fully_qualified_name()
        except OSError as error:
            self._journal.write(HOST_ERROR, error.strerror or str(error), error.errno or 0)
            raise CannotStart from error
        self.listening = Listening(
            self._settings, self._journal, self._reactor, self.host_name, self._sessions.__len__, steering=self._steering
        )  # fmt: skip
        self.listening.bind(service_manager(os.environ))

    def settle(self, files: Iterable[str] = (), companions: Iterable[str] = ()) -> None:
        """Pid file, owner of the files, and identity. Raises CannotStart.

        ``files`` are those of cache and statistics, ``companions`` their journals.
        """
        self._pid_file.claim()
        own = [*files, self._pid_file.path] if self._pid_file.path else files
        give_files(self._identity, self._journal, own, companions)
        become(self._settings, self._identity, self._journal)

    def serve(self, taker: Callable[[Bound], Taker], reload: Callable[[], Awaitable[None] | None]) -> None:
        """Hear signals, give accepted connections to the taker of their interface, and say so: #599, and READY to the service manager."""
        assert self.listening is not None
        self._signals = Signals(
            self._reactor,
            self._journal,
            self._sessions,
            self.listening.stop,
            reload,
            lambda: self._settings[SLOW_QUIT_TIMEOUT],
        )
        self._signals.install()
        settle_collector()
        self.listening.hand_over(taker)
        self._serving = True
        self._journal.write(NODE_READY)
        notify(os.environ, READY)

    def configure(self, settings: Settings) -> None:
        """Take over options changed at run time."""
        self._settings = settings
        if self.listening is not None:
            self.listening.configure(settings)

    def session_ended(self) -> None:
        """Call it whenever a session has ended."""
        if self.listening is not None:
            self.listening.session_ended()
        if self._signals is not None:
            self._signals.session_ended()

    def close(self) -> None:
        """The last step: no socket and no pid file stays behind; #732 when the node had been serving."""
        if self.listening is not None:
            self.listening.stop()
        self._pid_file.release()
        if self._serving:
            self._serving = False
            self._journal.write(TERMINATED)
