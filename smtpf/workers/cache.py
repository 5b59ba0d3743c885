"""The cache as a worker sees it: a memory of its own before the coordinator's cache, which has the file and the cluster.

The coordinator tells every worker of what others write. Counters are always asked for, so that a limit on what several workers'
clients do together holds exactly. Source: spec chapter operations, 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpf.cache.operations import Increment, Operation, Put, Read, Remove
from smtpf.cache.records import Record
from smtpf.cache.store import FRONT_LIMIT, Cache, Done

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings
    from smtpf.workers.channel import Channel

ASK = "cache"
"""The question of a worker: an operation."""


class WorkerCache(Cache):
    """Asks the coordinator over ``channel``. ``node`` is the coordinator cache's id."""

    counts_in_memory = False

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        channel: Channel,
        node: str,
        *,
        now: Callable[[], float] = time.time,
        front_limit: int = FRONT_LIMIT,
    ) -> None:
        super().__init__(settings, journal, now=now, front_limit=front_limit)
        self._channel = channel
        self._node = node

    def start(self) -> None:
        """It is the coordinator's to start."""

    def stop(self) -> None:
        """It is the coordinator's to stop."""

    @property
    def node(self) -> str:
        return self._node

    def _submit(self, operation: Operation, done: Done) -> bool:
        def answered(result: Any, error: Exception | None) -> None:
            done(None if error is not None else _result(operation, result), error)

        return self._channel.ask(answered, ASK, *written(operation))


def written(operation: Operation) -> tuple[Any, ...]:
    """``operation`` as plain values."""
    match operation:
        case Read():
            return ("R", operation.key)
        case Put():
            return ("P", operation.key, operation.value, operation.now, operation.e)
        case Increment():
            return ("I", operation.key, operation.amount, operation.now, operation.window)
        case Remove():
            return ("D", operation.key, operation.now)


_KINDS: dict[str, Callable[..., Operation]] = {"R": Read, "P": Put, "I": Increment, "D": Remove}


def read(kind: str, *fields: Any) -> Operation:
    """The operation that :func:`written` wrote."""
    return _KINDS[kind](*fields)


def row(record: Record | None) -> tuple[Any, ...] | None:
    """A record as plain values."""
    if record is None:
        return None
    return record.key, record.value, record.h, record.c, record.t, record.e, record.o, record.x, record.n


def rows(result: Any) -> Any:
    """The result of an operation as plain values."""
    return [row(each) for each in result] if isinstance(result, tuple) else row(result)


def _result(operation: Operation, result: Any) -> Any:
    if result is None:
        return None
    if isinstance(operation, Remove):
        return tuple(None if each is None else Record(*each) for each in result)
    return Record(*result)
