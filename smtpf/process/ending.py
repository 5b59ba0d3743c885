"""How a process ends that cannot start, or must not go on.

What went wrong has been logged or printed by then; only the exit status is left to tell. Exit statuses are those of
spec chapter options, 4 and 5, and operations, 6.1.
"""

from __future__ import annotations

import os
import sys
from typing import Protocol

from smtpf.journal.message import err

INIT_ERROR = err(
    537,
    "init error %s(%lu) %s: %s (%d)",
    "Part of the start failed at the named place of the program; the text names the file or option concerned. The node does not start.",
    fields=("module", "line", "what", "error", "errno"),
)
DONE = 2
"""An action such as ``+help`` has printed what it had to print."""
FAILED = 1


class CannotStart(SystemExit):
    """The start ends here, with this exit status; the reason has been told already.

    A SystemExit, so that before the reactor runs nobody has to catch it. Once it runs, catch it and ``leave``.
    """

    def __init__(self, status: int = FAILED) -> None:
        super().__init__(status)
        self.status = status


class Stoppable(Protocol):
    """The part of a reactor that ending needs."""

    def addSystemEventTrigger(self, phase: str, event: str, do: object, *args: object) -> object: ...

    def stop(self) -> None: ...


def leave(reactor: Stoppable, status: int) -> None:
    """Stop the running ``reactor`` in order, and then end the process with ``status``.

    ``twistd`` itself knows no exit status, so the process ends where the reactor does.
    """
    reactor.addSystemEventTrigger("after", "shutdown", _end, status)
    reactor.stop()


def _end(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status)
