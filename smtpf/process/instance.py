"""The instance that runs already: ``+quit``, ``+slow-quit``, ``+restart`` and ``+restart-if``.

All of it happens before the new process listens, forks or opens anything. Source: spec chapter options, 5, and
operations, 6.5.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smtpf.journal.message import err, info
from smtpf.process.ending import CannotStart
from smtpf.process.pidfile import PidFile
from smtpf.settings.option import parse_number

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

ROUNDS = 10
"""How often an ending predecessor is waited for before it is killed."""
LEAST_WAIT = 5
"""Seconds of one round at the least."""
POLL = 0.1
"""Seconds between two looks at its pid file within a round."""


NOT_RUNNING = err(
    733,
    "no previous instance running: %s (%d)",
    "+restart-if found nothing to replace: the pid file is missing, empty or not locked by a running node. Start without it.",
    fields=("error", "errno"),
)
WAITING = info(
    968,
    "waiting for pid=%d",
    "A restart waits for the node before it, which still finishes its sessions.",
    fields=("pid",),
    always=True,
    since="later",
)
KILLING = info(
    969,
    "force kill of pid=%d",
    "The node before this one did not end in the time allowed and is killed. Messages on their way through it will be sent again.",
    fields=("pid",),
    always=True,
    since="later",
)
REPLACED = info(
    970,
    "previous instance pid=%d",
    "A restart has stopped the node with this process id and now takes its place.",
    fields=("pid",),
    always=True,
    since="later",
)


class Predecessor:
    """The node that the pid file names, if any runs. ``kill`` and ``sleep`` are those of the system unless a test says otherwise."""

    def __init__(
        self,
        pid_file: PidFile,
        journal: Journal,
        kill: Callable[[int, int], None] = os.kill,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pid_file = pid_file
        self._journal = journal
        self._kill = kill
        self._sleep = sleep

    def stop(self, signum: int) -> int | None:
        """Send ``signum`` to it. Its process id, or None when nothing runs or the signal could not be sent."""
        return self._signalled(signum)[0]

    def replace(self, seconds: int, required: bool) -> None:
        """Stop it and wait until it is gone, at most ten rounds of ``seconds``, then kill it.

        With ``required``, raises CannotStart (#733) when there is none.
        """
        pid, error = self._signalled(signal.SIGTERM)
        if pid is None:
            if required:
                self._journal.write(NOT_RUNNING, os.strerror(error), error)
                raise CannotStart
            return
        for _ in range(ROUNDS):
            if self._gone_within(max(seconds, LEAST_WAIT)):
                break
            self._journal.write(WAITING, pid)
        else:
            self._journal.write(KILLING, pid)
            if self._pid_file.holder() == pid:
                self._send(pid, signal.SIGKILL)
            self._gone_within(LEAST_WAIT)
        self._journal.write(REPLACED, pid)

    def _signalled(self, signum: int) -> tuple[int | None, int]:
        pid = self._pid_file.holder()
        if pid is None:
            return None, errno.ESRCH
        error = self._send(pid, signum)
        return (None, error) if error else (pid, 0)

    def _send(self, pid: int, signum: int) -> int:
        try:
            self._kill(pid, signum)
        except OSError as error:
            return error.errno or errno.EPERM
        return 0

    def _gone_within(self, seconds: int) -> bool:
        for _ in range(int(seconds / POLL)):
            if self._pid_file.holder() is None:
                return True
            self._sleep(POLL)
        return self._pid_file.holder() is None


def seconds_of(text: str) -> int:
    """Seconds that ``restart=SECONDS`` names; 0 for ``+restart`` and whatever is no number."""
    try:
        return parse_number(text)
    except ValueError:
        return 0
