"""The pid file: says which process serves, and its lock proves that the process still does.

The server holds an exclusive lock as long as it lives, so a file that can be locked is stale, whatever number is in
it, and no signal is ever sent to a process that merely inherited the number. Source: spec chapter operations, 6.2 and 6.4.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from smtpf.journal.message import err
from smtpf.process.ending import CannotStart

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

MODE = 0o660
MAX_SIZE = 32
"""Octets read of a pid file; what is longer is none."""


CREATE_FAILED = err(
    598,
    'create "%s" failed: %s (%d)',
    "The pid file could not be written, so the node did not start. Check that its folder exists and may be written to.",
    fields=("path", "error", "errno"),
)
LOCK_FAILED = err(
    905,
    'lock "%s" failed: %s (%d)',
    "Another process holds the pid file: most likely this node is running already. Stop it first, or start with +restart.",
    fields=("path", "error", "errno"),
    since="later",
)
UNLINK_FAILED = err(
    731,
    'unlink("%s"): %s (%d)',
    "The pid file could not be removed at the end. It is emptied and unlocked, and does no harm; the folder should belong to run-user.",
    fields=("path", "error", "errno"),
)


class PidFile:
    """The file at ``path``; an empty path means that there is none."""

    def __init__(self, path: str, journal: Journal) -> None:
        self.path = path
        self._journal = journal
        self._file: int | None = None
        self._folder: int | None = None

    def holder(self) -> int | None:
        """Process id of the server that holds the file locked, or None. The caller must not hold it itself."""
        if not self.path:
            return None
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _number(os.read(file, MAX_SIZE))
        except OSError:
            return None
        finally:
            os.close(file)
        return None

    def claim(self) -> None:
        """Create, lock and fill the file. Raises CannotStart (#598, #905)."""
        if not self.path:
            return
        try:
            self._folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(os.path.basename(self.path), flags, MODE, dir_fd=self._folder)
        except OSError as error:
            self._journal.write(CREATE_FAILED, self.path, error.strerror, error.errno)
            raise CannotStart from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            self._journal.write(LOCK_FAILED, self.path, error.strerror, error.errno)
            raise CannotStart from error
        self._file = file
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            self._journal.write(CREATE_FAILED, self.path, error.strerror, error.errno)
            raise CannotStart from error

    def release(self) -> None:
        """Remove the file if it is still ours, and unlock it. #731 when it cannot be removed."""
        file, folder = self._file, self._folder
        if file is None or folder is None:
            return
        self._file = self._folder = None
        try:
            if _number(os.pread(file, MAX_SIZE, 0)) == os.getpid():
                os.ftruncate(file, 0)
                # By its folder, so that a jail or a changed working directory does not hide it.
                os.unlink(os.path.basename(self.path), dir_fd=folder)
        except OSError as error:
            self._journal.write(UNLINK_FAILED, self.path, error.strerror, error.errno)
        finally:
            os.close(file)
            os.close(folder)


def _number(text: bytes) -> int | None:
    digits = text.strip()
    return int(digits) or None if digits.isdigit() else None
