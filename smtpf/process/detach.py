"""Into the background: what ``+daemon`` does.

The way for machines without a service manager; under one, ``-daemon`` and NOTIFY_SOCKET are better. Source: spec chapter
options, 4 step 10, and operations, 6.2 step 4.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorDaemonize

from smtpf.journal.message import err
from smtpf.process.ending import CannotStart

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal


FORK_FAILED = err(
    735,
    "fork failed: %s (%d)",
    "The system refused a new process when going into the background, so the node did not start. Processes or memory are short.",
    fields=("error", "errno"),
)
SESSION_FAILED = err(
    736,
    "set process group ID failed: %s (%d)",
    "The background process could not leave its terminal's session, so the node did not start.",
    fields=("error", "errno"),
)


def detach(
    reactor: Any,
    journal: Journal,
    fork: Callable[[], int] = os.fork,
    setsid: Callable[[], None] = os.setsid,
    leave: Callable[[int], Any] = os._exit,
) -> None:
    """Go on in a child process that has a session of its own; the parent ends with status 0. Raises CannotStart (#735, #736)."""
    if IReactorDaemonize.providedBy(reactor):
        reactor.beforeDaemonize()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        child = fork()
    except OSError as error:
        journal.write(FORK_FAILED, error.strerror, error.errno)
        raise CannotStart from error
    if child:
        leave(0)
        return
    try:
        setsid()
    except OSError as error:
        journal.write(SESSION_FAILED, error.strerror, error.errno)
        raise CannotStart from error
    _silence()
    if IReactorDaemonize.providedBy(reactor):
        reactor.afterDaemonize()


def _silence() -> None:
    """The three standard streams read and write nothing from here on."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)
