"""The one thread that works on the cache file, fed by a bounded queue, and its counterpart without a thread.

Jobs are done in the order in which they were given. Those that wait are done together in one transaction, so many
small puts cost one commit; when the transaction fails each job is tried alone, so one bad job harms no other.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import attrs

from smtpf.cache.database import Database, is_busy, is_corruption

QUEUE_LIMIT = 20_000
"""Jobs that may wait. A put beyond it fails at once."""
BATCH = 256
"""Jobs done in one transaction."""
AT_ONCE = 32
"""Results given to those who wait in one turn of the reactor."""
LINGER = 0.02
"""Seconds that a job nobody waits for may wait for company: waking the thread costs more than most jobs."""


@attrs.frozen(eq=False)
class Job:
    """``work`` runs on the thread; ``done`` hears its result, or the exception, in the reactor's thread."""

    work: Callable[[Database], Any]
    done: Callable[[Any, Exception | None], None]
    writes: bool
    urgent: bool = True
    """Somebody waits for it."""


class FromThread(Protocol):
    def callFromThread(self, callable: Callable[..., Any], *args: Any) -> Any: ...
    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any) -> Any: ...


class Workplace(Protocol):
    """Where jobs are done."""

    def start(self) -> None: ...

    def submit(self, job: Job) -> bool:
        """False: too many jobs wait; the job is not taken and ``done`` is not called."""

    def stop(self) -> None:
        """Do what waits, then close the file. Blocks."""


Repair = Callable[[Database, Exception], bool]
"""Called on the thread after a corruption error: whether the file is usable again."""

Outcome = tuple[Job, Any, Exception | None]


def perform(database: Database, jobs: list[Job], repair: Repair) -> list[Outcome]:
    """Do ``jobs`` in order in one transaction. Results only of what is really committed."""
    try:
        return _together(database, jobs)
    except Exception as error:
        database.rollback()
        if is_corruption(error) or not database.is_open:
            if not repair(database, error):
                return [(job, None, error) for job in jobs]
        elif is_busy(error):
            # Waiting once more for each job would hold everything behind them back for minutes.
            return [(job, None, error) if job.writes else _alone(database, job) for job in jobs]
    return [_alone(database, job) for job in jobs]


def _together(database: Database, jobs: list[Job]) -> list[Outcome]:
    if not any(job.writes for job in jobs):
        return [(job, job.work(database), None) for job in jobs]
    database.begin()
    outcomes: list[Outcome] = [(job, job.work(database), None) for job in jobs]
    database.commit()
    return outcomes


def _alone(database: Database, job: Job) -> Outcome:
    try:
        return _together(database, [job])[0]
    except Exception as error:
        database.rollback()
        return job, None, error


class Thread:
    """The thread of a running node."""

    def __init__(self, reactor: FromThread, database: Database, repair: Repair, limit: int = QUEUE_LIMIT) -> None:
        self._reactor = reactor
        self._database = database
        self._repair = repair
        self._limit = limit
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._outcomes: deque[Outcome] = deque()
        self._stopping = False
        self._lingering = False
        self._thread = threading.Thread(target=self._run, name="smtpf-cache", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> bool:
        with self._wake:
            if self._stopping or len(self._jobs) >= self._limit:
                return False
            self._jobs.append(job)
            if job.urgent:
                self._wake.notify()
                return True
        if not self._lingering:
            self._lingering = True
            self._reactor.callLater(LINGER, self._linger_no_more)
        return True

    def _linger_no_more(self) -> None:
        self._lingering = False
        with self._wake:
            self._wake.notify()

    def _hear(self, outcomes: list[Outcome]) -> None:
        idle = not self._outcomes
        self._outcomes.extend(outcomes)
        if idle:
            self._deliver_some()

    def _deliver_some(self) -> None:
        """Deliver in order, in short turns of the reactor: each outcome may set a session going."""
        outcomes = self._outcomes
        try:
            for _ in range(min(AT_ONCE, len(outcomes))):
                job, result, error = outcomes.popleft()
                job.done(result, error)
        finally:
            if outcomes:
                self._reactor.callLater(0, self._deliver_some)

    def stop(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._database.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._stopping:
                    self._wake.wait()
                if not self._jobs:
                    return
                batch = [self._jobs.popleft() for _ in range(min(BATCH, len(self._jobs)))]
            self._reactor.callFromThread(self._hear, perform(self._database, batch, self._repair))


class Inline:
    """Does each job at once where it is given: for tools that have no reactor, and for tests."""

    def __init__(self, database: Database, repair: Repair) -> None:
        self._database = database
        self._repair = repair

    def start(self) -> None:
        """There is nothing to start."""

    def submit(self, job: Job) -> bool:
        deliver(perform(self._database, [job], self._repair))
        return True

    def stop(self) -> None:
        self._database.close()


def deliver(outcomes: list[Outcome]) -> None:
    for job, result, error in outcomes:
        job.done(result, error)


class NotTaken(sqlite3.OperationalError):
    """Too many jobs wait for the cache, or it is out of reach."""

    def __init__(self) -> None:
        super().__init__("cache is away or overloaded")
