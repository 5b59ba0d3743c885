"""The cache as filters, administration commands and the cluster see it.

A bounded front in memory holds the records in use, so most reads are answered at once; others are read from the
file on its own thread. A put changes the front at once and is written behind the back of the session: no mail waits
for the disk, and none is refused because the cache is broken. ``Cache`` is what all caches have in common,
``FileCache`` the one with a file; the one kept by a server is in ``shared``. Source: spec chapter operations, 1.3 to 1.8.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
from twisted.internet.defer import Deferred

from smtpf.cache import opening, ttl
from smtpf.cache.database import Database, buried, counted, incremented, successor
from smtpf.cache.opening import Opener
from smtpf.cache.operations import Increment, Operation, Put, Read, Remove
from smtpf.cache.records import Record, storable
from smtpf.cache.worker import FromThread, Inline, Job, NotTaken, Thread, Workplace
from smtpf.journal.message import debug, err

if TYPE_CHECKING:
    from smtpf.cache.presence import Presence
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

T = TypeVar("T")

FRONT_LIMIT = 100_000
"""Records, and keys known to be absent, held in memory; the least used go first."""

GOT = debug(541, "cache get key={%s} value={%s} h=%lu c=%lu t=%lu e=%lu %s(%lu)", "cache", "A record was found in the cache.")
GET_ERROR = err(
    542,
    "cache get error key={%s} %s(%lu)",
    "The cache could not be read: its file is broken, its server away, or too much work waits. The record counts as not found;"
    " mail goes on.",
)
PUTTING = debug(543, "cache put key={%s} value={%s} e=%lu %s(%lu)", "cache", "A record is about to be put into the cache.")
PUT_ERROR = err(
    544,
    "cache put error key={%s} value={%s} %s(%lu)",
    "A record could not be stored: disk full, file locked, server away, key or value longer than 1024 octets, or too much work waiting."
    " Mail goes on.",
)
DELETING = debug(545, "cache delete key={%s} %s(%lu)", "cache", "A record is about to be removed from the cache.")
DELETE_ERROR = err(546, "cache delete error key={%s} %s(%lu)", "A record could not be removed from the cache. Mail goes on.")


class CacheError(Exception):
    """The cache could not be read or written, for a caller who must know. Filters never see it."""


class _Unknown(Enum):
    UNKNOWN = 0


_UNKNOWN: Literal[_Unknown.UNKNOWN] = _Unknown.UNKNOWN


@attrs.frozen
class Change:
    """A local change that has been committed."""

    record: Record
    """As stored; a tombstone for a removal."""
    forced: bool = False
    """An operator's override, which wins on every node."""
    added: int = 0
    """Not 0: a counter moved by this amount."""


Observer = Callable[[Sequence[Change]], None]
Done = Callable[[Any, Exception | None], None]
"""Hears the result of an operation, or why there is none, in the reactor's thread."""
Where = tuple[str, int]


class Cache(ABC):
    """Records by key, wherever they are kept. ``start`` opens it.

    ``session`` arguments take the session id for log lines. ``observers`` hear committed local changes.
    """

    counts_in_memory = True
    """A counter that memory knows need not be asked for: nobody else counts with it."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        *,
        now: Callable[[], float] = time.time,
        front_limit: int = FRONT_LIMIT,
    ) -> None:
        self.settings = settings
        self.observers: list[Observer] = []
        self.followers: list[Callable[[Sequence[Record]], None]] = []
        """Other memories of this cache: each hears of records that have changed, and of none when it is to forget all it knows."""
        self._journal = journal
        self._now = now
        self._front: OrderedDict[str, Record | None] = OrderedDict()
        self._front_limit = front_limit
        self._pending: dict[str, Record] = {}
        self._read_failed = False
        self._write_failed = False
        self.presence: Presence | None = None
        """Knows most keys that are not kept, where somebody keeps it."""

    def configure(self, settings: Settings) -> None:
        """New options: life times apply from the next put on."""
        self.settings = settings

    @abstractmethod
    def start(self) -> Awaitable[None] | None:
        """Make the cache ready; await what is returned. Raises ``opening.CacheOpenError``, logged, when the node must not start."""

    @abstractmethod
    def stop(self) -> Awaitable[None] | None:
        """Finish what waits, within a bound, and close; await what is returned. Nothing may be asked afterwards."""

    @property
    @abstractmethod
    def node(self) -> str:
        """Id of this node as writer of records, 32 hex digits."""

    @abstractmethod
    def _submit(self, operation: Operation, done: Done) -> bool:
        """Begin ``operation``. False: it cannot be taken now, and ``done`` is not called."""

    def _submit_behind(self, operation: Operation, done: Done) -> bool:
        """``_submit`` for an operation whose result nobody waits for."""
        return self._submit(operation, done)

    @property
    def failing(self) -> bool:
        """The last read or the last write was an error: that a record is not found says nothing."""
        return self._read_failed or self._write_failed

    def now(self) -> int:
        """Unix seconds by the cache's clock."""
        return int(self._now())

    def precise_now(self) -> float:
        """Unix seconds with their fraction."""
        return self._now()

    def ttl_for(self, code: str | int) -> int:
        """Seconds of life of a value that starts with this result code."""
        return ttl.ttl_for(code, self.settings)

    def get(self, key: str, session: str | None = None) -> Record | Deferred[Record | None] | None:
        """The living record of ``key``, or None; a Deferred of that when memory does not know.

        Never fails: an error is logged (#542) and counts as not found.
        """
        found = self._held(key)
        if found is _UNKNOWN:
            return None if self._absent(key) else self._look_up(key, session, _caller())
        self._front.move_to_end(key)
        if found is None or found.x or found.e <= self._now():
            return None
        if self._journal.enabled(GOT):
            self._tell_got(found, session, _caller())
        return found

    async def fetch(self, key: str, session: str | None = None) -> Record | None:
        """``get`` for code that can wait."""
        found = self.get(key, session)
        return await found if isinstance(found, Deferred) else found

    def put(
        self,
        key: str,
        value: str,
        ttl: int | None = None,
        *,
        expires: int | None = None,
        session: str | None = None,
    ) -> None:
        """Store ``value``; it ends ``ttl`` seconds from now, or at ``expires`` (Unix seconds), else by its result code.

        Returns at once. An error is logged (#544), and then it is as if nothing had been put.
        """
        now = int(self._now())
        e = expires if expires is not None else now + (self.ttl_for(value) if ttl is None else ttl)
        where = _caller()
        self._journal.write(PUTTING, shown(key), shown(value), e, *where, session=session)
        if not storable(key, value):
            self._journal.write(PUT_ERROR, shown(key[:256]), shown(value[:256]), *where, session=session)
            return
        guess = successor(self._known(key), key, value, now, e, self.node)
        self._write_behind(guess, Put(key, value, now, e), partial(self._put_failed, key, value, session, where))

    def touch(self, record: Record, ttl: int | None = None, *, session: str | None = None) -> None:
        """Put the same value again, so that it lives on: ``ttl`` seconds from now, else by its result code."""
        self.put(record.key, record.value, ttl, session=session)

    def delete(self, key: str, *, session: str | None = None) -> None:
        """Remove ``key``, here and on other nodes; a key that is not there is no error. Errors are logged (#546)."""
        where = _caller()
        self._journal.write(DELETING, shown(key), *where, session=session)
        if not storable(key, ""):
            self._journal.write(DELETE_ERROR, shown(key[:256]), *where, session=session)
            return
        now = int(self._now())
        guess = buried(self._known(key), key, now, self.node)
        self._write_behind(
            guess,
            Remove(key, now),
            lambda error: self._journal.write(DELETE_ERROR, shown(key), *where, session=session),
        )

    def increment(self, key: str, window: int, amount: int = 1, *, session: str | None = None) -> int | Deferred[int]:
        """Add to the counter ``key`` and return its new value; at once when it is in memory.

        A counter lives ``window`` seconds from its first increment, whatever follows, and then starts anew.
        When the cache fails the answer is ``amount``, as for a counter just begun (#544 is logged).
        """
        now = int(self._now())
        where = _caller()
        known = self._held(key) if self.counts_in_memory else _UNKNOWN
        work = Increment(key, amount, now, window)
        failed = partial(self._put_failed, key, str(amount), session, where)
        if not storable(key, ""):
            failed(ValueError(key))
            return amount
        if known is _UNKNOWN and self.counts_in_memory and self._absent(key):
            known = None
        if known is not _UNKNOWN:
            guess = incremented(known, key, amount, now, window, self.node)
            self._journal.write(PUTTING, shown(key), guess.value, guess.e, *where, session=session)
            self._write_behind(guess, work, failed)
            return counted(guess)
        answer: Deferred[int] = Deferred()

        def done(record: Record | None, error: Exception | None) -> None:
            if record is None:
                failed(error)
                answer.callback(amount)
            else:
                self._settled(record)
                self._tell([_change(work, record)])
                answer.callback(counted(record))

        if not self._submit(work, done):
            done(None, NotTaken())
        return answer

    put_counter = increment

    def read(self, key: str) -> Deferred[Record | None]:
        """The living record, from where it is kept. The Deferred fails with CacheError."""
        now = self._now()
        return self._ask(Read(key)).addCallback(lambda record: record if record is not None and record.alive(now) else None)

    def write(self, key: str, value: str, ttl: int | None = None) -> Deferred[Record]:
        """An operator's put, which wins on every node. The Deferred gives the record as stored or fails with CacheError."""
        now = int(self._now())
        if not storable(key, value):
            return _failing(CacheError("key or value too long"))

        def done(record: Record) -> Record:
            self._overridden(record)
            return record

        return self._ask(Put(key, value, now, now + (self.ttl_for(value) if ttl is None else ttl), forced=True)).addCallback(done)

    def remove(self, key: str) -> Deferred[Record | None]:
        """An operator's removal, which wins on every node. Gives the record that was there or fails with CacheError."""
        if not storable(key, ""):
            return _failing(CacheError("key too long"))

        def done(found: tuple[Record | None, Record]) -> Record | None:
            self._overridden(found[1])
            return found[0]

        return self._ask(Remove(key, int(self._now()), forced=True)).addCallback(done)

    async def expire(self, now: int | None = None) -> int:
        """Delete the records that ended at or before ``now``; how many. None where they end by themselves. Raises CacheError."""
        return 0

    async def count_ended(self, family: str, code: str, now: int) -> int:
        """How many records of ``family`` whose value begins with ``code`` the next ``expire`` will delete. Raises CacheError."""
        return 0

    def _ask(self, operation: Operation) -> Deferred[Any]:
        """The result of ``operation``. The Deferred fails with CacheError."""
        answer: Deferred[Any] = Deferred()
        done = partial(_answered, answer)
        if not self._submit(operation, done):
            done(None, NotTaken())
        return answer

    def perform(self, operation: Operation) -> Deferred[Any]:
        """Carry out what another process of this node asks for; its result as :class:`Operation` gives it. Fails with CacheError."""

        def done(result: Any) -> Any:
            if not isinstance(operation, Read):
                record: Record = result[1] if isinstance(result, tuple) else result
                self.absorb([record])
                self._tell([_change(operation, record)])
            return result

        return self._ask(operation).addCallback(done)

    def absorb(self, records: Sequence[Record]) -> None:
        """Take records that somebody else wrote, already stored, into memory where the key is held there."""
        for record in records:
            if record.key in self._front and record.key not in self._pending:
                self._front[record.key] = record
        self._lead(records)

    def _lead(self, records: Sequence[Record]) -> None:
        for follower in self.followers:
            follower(records)

    def forget(self) -> None:
        """Empty the memory, not the file; what still waits to be written stays."""
        self._front = OrderedDict((key, record) for key, record in self._front.items() if key in self._pending)
        self._lead(())

    def _held(self, key: str) -> Record | Literal[_Unknown.UNKNOWN] | None:
        """What memory knows of ``key``."""
        return self._front.get(key, _UNKNOWN)

    def _absent(self, key: str) -> bool:
        """``key``, of which memory holds nothing, is certainly not kept elsewhere either."""
        return self.presence is not None and storable(key, "") and not self.presence.may_hold(key)

    def _known(self, key: str) -> Record | None:
        found = self._held(key)
        return None if found is _UNKNOWN else found

    def _look_up(self, key: str, session: str | None, where: Where) -> Deferred[Record | None]:
        answer: Deferred[Record | None] = Deferred()

        def done(record: Record | None, error: Exception | None) -> None:
            self._read_failed = error is not None
            if error is not None:
                self._journal.write(GET_ERROR, shown(key), *where, session=session)
                answer.callback(None)
                return
            if key not in self._front:
                self._hold(key, record)
            if record is not None and record.alive(self._now()):
                self._tell_got(record, session, where)
                answer.callback(record)
            else:
                answer.callback(None)

        if not storable(key, ""):
            done(None, ValueError(key))
        elif not self._submit(Read(key), done):
            done(None, NotTaken())
        return answer

    def _hold(self, key: str, record: Record | None) -> None:
        front = self._front
        front[key] = record
        front.move_to_end(key)
        if len(front) > self._front_limit:
            front.popitem(last=False)

    def _write_behind(self, guess: Record, work: Put | Remove | Increment, failed: Callable[[Exception | None], None]) -> None:
        key = guess.key
        before, earlier = self._front.get(key, _UNKNOWN), self._pending.get(key)
        self._pending[key] = guess
        self._hold(key, guess)

        def done(result: Any, error: Exception | None) -> None:
            self._write_failed = error is not None
            latest = self._pending.get(key) is guess
            if latest:
                del self._pending[key]
            if error is not None:
                if latest:
                    self._front.pop(key, None)
                failed(error)
                return
            record: Record = result[1] if isinstance(result, tuple) else result
            if latest and key in self._front:
                self._front[key] = record
            self._tell([_change(work, record)])

        if not self._submit_behind(work, done):
            if earlier is not None:
                self._pending[key] = earlier
            else:
                del self._pending[key]
            if before is not _UNKNOWN:
                self._front[key] = before
            else:
                del self._front[key]
            self._write_failed = True
            failed(NotTaken())

    def _overridden(self, record: Record) -> None:
        self._settled(record)
        self._lead([record])
        self._tell([Change(record, forced=True)])

    def _settled(self, record: Record) -> None:
        if record.key not in self._pending:
            self._hold(record.key, record)

    def _tell(self, changes: Sequence[Change]) -> None:
        for observer in self.observers:
            observer(changes)

    def _tell_got(self, record: Record, session: str | None, where: Where) -> None:
        self._journal.write(GOT, shown(record.key), shown(record.value), record.h, record.c, record.t, record.e, *where, session=session)

    def _put_failed(self, key: str, value: str, session: str | None, where: Where, error: Exception | None) -> None:
        self._journal.write(PUT_ERROR, shown(key), shown(value), *where, session=session)


class FileCache(Cache):
    """Records in an SQLite file. Made by :func:`cache_from`."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        database: Database,
        workplace: Workplace,
        opener: Opener,
        *,
        now: Callable[[], float] = time.time,
        front_limit: int = FRONT_LIMIT,
    ) -> None:
        super().__init__(settings, journal, now=now, front_limit=front_limit)
        self._database = database
        self._workplace = workplace
        self._opener = opener
        self.key_added: Callable[[str], None] = ignore
        """Hears of each key before it is written, and of those that others have written."""

    def start(self) -> None:
        """Open the file. Blocks; raises ``opening.CacheOpenError`` when there is no usable file (logged as #172)."""
        self._opener.open(self._database)
        self._workplace.start()

    def stop(self) -> None:
        """Write what waits and close the file. Blocks for that long; nothing may be asked afterwards."""
        self._workplace.stop()

    @property
    def node(self) -> str:
        return self._database.node

    @property
    def epoch(self) -> int:
        """Changes when the file is made anew."""
        return self._database.epoch

    @property
    def last(self) -> int:
        """Highest change number given so far."""
        return self._database.last

    async def expire(self, now: int | None = None) -> int:
        """Other writers get their turn in between."""
        moment = self.now() if now is None else now
        total = 0
        while count := await self.in_thread(lambda database: database.expire_slice(moment)):
            total += count
        return total

    async def count_ended(self, family: str, code: str, now: int) -> int:
        return await self.in_thread(lambda database: database.count_ended(family, code, now), writes=False)

    def in_thread(self, work: Callable[[Database], T], *, writes: bool = True) -> Deferred[T]:
        """Run ``work`` on the cache's thread, in order with all other work. The Deferred fails with CacheError."""
        answer: Deferred[T] = Deferred()
        done = partial(_answered, answer)
        if not self._workplace.submit(Job(work, done, writes)):
            done(None, NotTaken())
        return answer

    def absorb(self, records: Sequence[Record]) -> None:
        for record in records:
            self.key_added(record.key)
        super().absorb(records)

    def _submit(self, operation: Operation, done: Done) -> bool:
        if operation.writes:
            self.key_added(operation.key)
        return self._workplace.submit(Job(operation.on, done, operation.writes))

    def _submit_behind(self, operation: Operation, done: Done) -> bool:
        self.key_added(operation.key)
        return self._workplace.submit(Job(operation.on, done, operation.writes, urgent=False))

    def _ask(self, operation: Operation) -> Deferred[Any]:
        if operation.writes:
            self.key_added(operation.key)
        return self.in_thread(operation.on, writes=operation.writes)


def _change(work: Operation, record: Record) -> Change:
    return Change(record, added=work.amount if isinstance(work, Increment) else 0)


def ignore(key: str) -> None:
    """Nobody wants to know of ``key``."""


def _failing(error: CacheError) -> Deferred[Any]:
    answer: Deferred[Any] = Deferred()
    answer.errback(error)
    return answer


def _answered(answer: Deferred[Any], result: Any, error: Exception | None) -> None:
    if error is None:
        answer.callback(result)
    else:
        failure = CacheError(str(error))
        failure.__cause__ = error
        answer.errback(failure)


def shown(text: str) -> str:
    """``text`` for a log line: binary values are not written out."""
    return text if text.isprintable() else "(mixed)"


def _caller() -> Where:
    """Module and line of the code that called the cache, for log lines."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") == __name__ and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_globals.get("__name__", "?"), frame.f_lineno


def cache_from(
    settings: Settings,
    journal: Journal,
    reactor: FromThread | None,
    *,
    adopt: Callable[[str], None] = lambda path: None,
    give_up: Callable[[], None] = lambda: None,
    now: Callable[[], float] = time.time,
    front_limit: int = FRONT_LIMIT,
    busy_seconds: float | None = None,
) -> FileCache:
    """The cache file that ``settings`` describe, not yet open. Without a reactor it works in the calling thread, for tools.

    Raises ``opening.CacheOpenError``, logged (#172, #173), when the options make no sense. ``adopt`` sets owner and
    mode of the file; ``give_up`` ends the node (``cache-on-corrupt=exit``).
    """
    mode = opening.check_sync_mode(settings[opening.CACHE_SYNC_MODE], journal)
    configured = settings[opening.CACHE_PATH]
    try:
        path = opening.location(configured)
        opening.check_directory(path)
    except (opening.CacheOpenError, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        journal.write(opening.OPEN_ERROR, configured, text, getattr(error, "errno", 0) or 0)
        raise opening.CacheOpenError(str(error)) from error

    def say(what: Callable[[], None]) -> None:
        if reactor is None:
            what()
        else:
            reactor.callFromThread(what)

    opener = Opener(journal, settings[opening.CACHE_ON_CORRUPT], adopt=adopt, say=say, give_up=give_up, now=now)
    database = Database(path, mode) if busy_seconds is None else Database(path, mode, busy_seconds=busy_seconds)
    workplace: Workplace = Inline(database, opener.repair) if reactor is None else Thread(reactor, database, opener.repair)
    return FileCache(settings, journal, database, workplace, opener, now=now, front_limit=front_limit)
