"""Where the body of a message waits until the next hops may have it: memory first, then a file in ``save-dir``.

The session writes the content chunk by chunk, any number of forward connections read it back at their own pace, and
scanners that want a file get its path; it holds the header section and the body. SAVE and TRAP are hard links to that
file. File work happens in threads; what goes wrong comes back as a ``SpoolError`` with its log message, and the client
is answered 451 (#550): nothing is accepted that could not be kept. Source: spec chapters session, 7.5 and 10, and
filters-content, 22.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred

from smtpf.journal.message import Message, err
from smtpf.settings.option import Flag, Text

SAVE_DATA = Flag(
    "save-data",
    False,
    "Keep a copy of every message in save-dir when its transaction is over. Meant for collecting samples: nothing removes the copies.",
    area="save",
)
SAVE_DIR = Text(
    "save-dir",
    "/tmp",
    "Folder of the files in which large messages wait while they are filtered, and of messages kept by save-data or by SAVE. "
    "Scanners on this machine must be able to read it. It must not be empty.",
    choices="directory (manual: /var/tmp)",
    area="save",
    aliases=("spamd-save-dir",),
)
TRAP_DIR = Text(
    "trap-dir",
    "/tmp",
    "Folder of messages caught by the access word TRAP. It must be on the same file system as save-dir.",
    choices="directory (manual: /var/tmp)",
    area="save",
    since="later",
)

OPEN_ERROR = err(310, 'open error "%s": %s (%d)', "The spool file could not be opened again to read it. The client is asked to try later.")
SEEK_ERROR = err(311, 'seek error "%s": %s (%d)', "The body could not be found in the spool file. The client is asked to try later.")
READ_ERROR = err(
    313,
    'read error "%s": %s (%d)',
    "The spool file could not be read back, or it is shorter than what was written. The client is asked to try later.",
)
MISSING_NAME = err(309, "missing temp. file name", "The message is wanted as a file, but its spool is closed already.")
DELETE_ERROR = err(
    577, 'delete error "%s": %s (%d)', "A spool file could not be removed. Remove it by hand and look at the rights of save-dir."
)
NAME_ERROR = err(
    579, 'temp. file name "%s": %s (%d)', "No spool file can have this name: save-dir is missing, is no folder, or its path is too long."
)
CREATE_ERROR = err(
    580, 'create error "%s": %s (%d)', "A spool file could not be created or written: the disk is full, or save-dir does not allow it."
)
TRAP_ERROR = err(876, "hard link(%s, %s) failed: %s (%d)", "A trapped message could not be kept in trap-dir.", since="later")
SAVE_ERROR = err(877, "hard link(%s, %s) failed: %s (%d)", "A message marked SAVE could not be kept.", since="later")

MEMORY = 256 * 1024
"""Octets of a body that stay in memory."""
LARGEST = 4 * 1024 * 1024
"""Octets of a body that stay in memory while there is room."""
ROOM = 64 * 1024 * 1024
"""Octets that all bodies of a process may have in memory beyond MEMORY each."""
BACKLOG = 256 * 1024
"""Octets that may wait for the disk before the writer is asked to wait."""
BATCH = 128 * 1024
"""Octets that are gathered for one write: each costs a change of threads."""
PIECE = 256 * 1024
"""Octets read from the file at a time."""
MODE = 0o660

T = TypeVar("T")

_NO_NAME = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})


class InThread(Protocol):
    """Runs a function in a thread; its result by a Deferred. ``partial(deferToThreadPool, reactor, pool)`` is one."""

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]: ...


@attrs.frozen
class SpoolError:
    """What went wrong with a file, as the log says it: ``session.log(error.message, *error.args)``."""

    message: Message
    args: tuple[Any, ...] = ()

    @classmethod
    def of(cls, message: Message, error: OSError, *names: str) -> SpoolError:
        return cls(message, (*names, error.strerror or str(error), error.errno or 0))


@attrs.define(eq=False)
class Room:
    """What is left of ROOM. All spools of a process share one."""

    left: int = ROOM


class Spool:
    """The body of one message, and its file if it has one.

    ``tid`` names the file, ``suffix`` is random text, so that nobody can put a file in its place first. ``headers`` is
    the encoded header section for the file; ``sender`` becomes its Return-Path field.
    """

    def __init__(self, tid: str, directory: str, suffix: str, sender: str, headers: bytes, in_thread: InThread, room: Room) -> None:
        self.size = 0
        """Octets of the body so far."""
        self.error: SpoolError | None = None
        """The first thing that went wrong; what is written after it is lost."""
        self.checked = False
        """All that has been written is out of content that a DotReader called ``plain``."""
        self._tid = tid
        self._path = os.path.join(directory, f"{tid}.{suffix}.tmp")
        self._head = f"Return-Path: <{sender}>\r\n".encode("utf-8", "replace") + headers + b"\r\n"
        self._in_thread = in_thread
        self._room = room
        self._taken = 0
        """Octets taken of the room."""
        self._memory: list[bytes] | None = []
        self._pending: list[bytes] = []
        self._pending_octets = 0
        self._flushing = False
        self._waiting: list[Deferred[None]] = []
        self._file = -1
        self._created = False
        self._closed = False
        self._readers: list[SpoolReader] = []

    def write(self, chunk: bytes) -> Deferred[None] | None:
        """Keep the next chunk of the body. A Deferred asks the writer to wait until the disk has caught up."""
        self.size += len(chunk)
        if self.error is not None:
            return None
        if self._memory is not None:
            self._memory.append(chunk)
            if not self._created and (self.size <= MEMORY or self._find_room()):
                return None
            if self._created:
                self._pending.append(chunk)
            else:
                self._pending += self._memory
                self._pending_octets = self.size - len(chunk)
            if self.size > MEMORY:
                self._leave_memory()
            self._created = True
        else:
            self._pending.append(chunk)
        self._pending_octets += len(chunk)
        if self._pending_octets >= BATCH:
            self._flush()
        return self._idle() if self._pending_octets > BACKLOG else None

    def _find_room(self) -> bool:
        """Whether what is beyond MEMORY may stay in memory."""
        more = self.size - MEMORY - self._taken
        if self.size > LARGEST or more > self._room.left:
            return False
        self._room.left -= more
        self._taken += more
        return True

    def _leave_memory(self) -> None:
        self._memory = None
        self._room.left += self._taken
        self._taken = 0

    @property
    def plain(self) -> bool:
        """Known to need no dots and no line ends on the wire. Nothing is known of a file: others can write to it."""
        return self.checked and self._memory is not None

    def finish(self) -> Deferred[None] | None:
        """The body is complete. A Deferred when the disk has not caught up; afterwards ``error`` is final."""
        self._flush()
        return self._idle()

    async def path(self) -> str | SpoolError:
        """Path of a file with header section, empty line and the body so far; it is written when there is none yet."""
        if self._closed:
            return SpoolError(MISSING_NAME)
        if not self._created and self._memory is not None:
            self._created = True
            self._pending += self._memory or [b""]
        self._flush()
        waiting = self._idle()
        if waiting is not None:
            await waiting
        return self.error or self._path

    def reader(self) -> SpoolReader:
        """A new reader of the whole body, after ``finish``. Several may read at the same time."""
        reader = SpoolReader(self, self._memory, self._path, len(self._head), self._in_thread)
        self._readers.append(reader)
        return reader

    async def save(self, directory: str) -> SpoolError | None:
        """Keep the message as ``DIRECTORY/TID.msg``."""
        return await self._link(directory, "msg", SAVE_ERROR)

    async def trap(self, directory: str) -> SpoolError | None:
        """Keep the message as ``DIRECTORY/TID.trap``."""
        return await self._link(directory, "trap", TRAP_ERROR)

    async def _link(self, directory: str, ending: str, message: Message) -> SpoolError | None:
        path = await self.path()
        if isinstance(path, SpoolError):
            return path
        target = os.path.join(directory, f"{self._tid}.{ending}")
        return await self._in_thread(partial(_hard_link, path, target, message))

    async def close(self, keep: bool = False) -> SpoolError | None:
        """The transaction is over: end all readers, and remove the file unless ``keep``, which makes one of a message in memory."""
        if self._closed:
            return None
        if keep and self.error is None:
            kept = await self.path()
            if isinstance(kept, SpoolError):
                await self.close()
                return kept
        self._closed = True
        waiting = self._idle()
        if waiting is not None:
            await waiting
        self._leave_memory()
        for reader in self._readers:
            ended = reader.close()
            if ended is not None:
                await ended
        if self._file < 0:
            return None
        return await self._in_thread(partial(self._close_file, keep))

    def _close_file(self, keep: bool) -> SpoolError | None:
        os.close(self._file)
        self._file = -1
        if keep:
            return None
        try:
            os.unlink(self._path)
        except OSError as error:
            return SpoolError.of(DELETE_ERROR, error, self._path)
        return None

    def _flush(self) -> None:
        if self._flushing or not self._pending:
            return
        self._flushing = True
        chunks, self._pending, self._pending_octets = self._pending, [], 0
        self._in_thread(partial(self._append, chunks)).addCallback(self._flushed)

    def _flushed(self, error: SpoolError | None) -> None:
        self._flushing = False
        if error is not None:
            self.error = error
            self._pending.clear()
            self._pending_octets = 0
        if self._pending:
            self._flush()
            return
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def _idle(self) -> Deferred[None] | None:
        if not self._flushing:
            return None
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def _append(self, chunks: list[bytes]) -> SpoolError | None:
        """In a thread, one call at a time."""
        try:
            if self._file < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._path, flags, MODE)
                os.fchmod(self._file, MODE)
                chunks = [self._head, *chunks]
            octets = memoryview(b"".join(chunks))
            while octets:
                octets = octets[os.write(self._file, octets) :]
        except OSError as error:
            nameless = self._file < 0 and error.errno in _NO_NAME
            return SpoolError.of(NAME_ERROR if nameless else CREATE_ERROR, error, self._path)
        return None


class SpoolReader:
    """Reads a body from its beginning to its end, once."""

    def __init__(self, spool: Spool, memory: list[bytes] | None, path: str, start: int, in_thread: InThread) -> None:
        self._spool = spool
        self._memory = memory
        self._path = path
        self._start = start
        self._in_thread = in_thread
        self._at = 0
        self._file = -1
        self._busy: Deferred[Any] | None = None

    def read(self) -> bytes | SpoolError | Deferred[bytes | SpoolError]:
        """The next piece of the body, empty at its end. At once from memory, else through a thread."""
        if self._memory is not None:
            while self._at < len(self._memory):
                piece = self._memory[self._at]
                self._at += 1
                if piece:
                    return piece
            return b""
        if self._spool.error is not None:
            return self._spool.error
        if self._spool._closed:
            return SpoolError(MISSING_NAME)
        if self._at == self._spool.size:
            return b""
        self._busy = self._in_thread(self._read_file)
        return self._busy

    def _read_file(self) -> bytes | SpoolError:
        if self._file < 0:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as error:
                return SpoolError.of(OPEN_ERROR, error, self._path)
            try:
                os.lseek(self._file, self._start, os.SEEK_SET)
            except OSError as error:
                return SpoolError.of(SEEK_ERROR, error, self._path)
        try:
            piece = os.read(self._file, PIECE)
        except OSError as error:
            return SpoolError.of(READ_ERROR, error, self._path)
        if not piece:
            return SpoolError(READ_ERROR, (self._path, "the file is too short", errno.EIO))
        self._at += len(piece)
        return piece

    def close(self) -> Deferred[Any] | None:
        """Give up reading; a Deferred while a thread still reads."""
        waiting = self._busy
        if waiting is not None and not waiting.called:
            done: Deferred[None] = Deferred()
            waiting.addBoth(self._ended, done)
            return done
        self._release()
        return None

    def _ended(self, result: Any, done: Deferred[None]) -> Any:
        self._release()
        done.callback(None)
        return result

    def _release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _hard_link(path: str, target: str, message: Message) -> SpoolError | None:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        return SpoolError.of(message, error, path, target)
    return None
