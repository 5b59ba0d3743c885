"""Run code that may wait, and pay for the wait only when there is one.

Engine and filters are written as ``async def`` over Deferreds. Most of the time nothing
waits: every look-up is answered from memory. A coroutine that never waits is driven to its
end here by one plain call, and no Deferred is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def run(
    work: Coroutine[Deferred[Any], Any, T],
    done: Callable[[T], None],
    failed: Callable[[Failure], None],
) -> Deferred[Any] | None:
    """Drive ``work`` until it ends or waits.

    ``done`` or ``failed`` is called exactly once: before this returns when nothing waited, else
    from the Deferred waited for. The Deferred now waited for is returned (None when ``work`` has
    ended).
    """
    return _step(work, None, done, failed)


def _step(
    work: Coroutine[Deferred[Any], Any, T],
    value: Any,
    done: Callable[[T], None],
    failed: Callable[[Failure], None],
) -> Deferred[Any] | None:
    while True:
        try:
            if isinstance(value, Failure):
                waiting: Deferred[Any] = value.throwExceptionIntoGenerator(work)
            else:
                waiting = work.send(value)
        except StopIteration as stop:
            done(stop.value)
            return None
        except BaseException:
            failed(Failure())
            return None
        answer = _Answer()
        waiting.addBoth(answer.take)
        if not answer.come:
            answer.resume = lambda result: _step(work, result, done, failed)
            return waiting
        value = answer.value


class _Answer:
    """What a Deferred gives. Answers that are there already are taken in a loop: work that meets many of them must not grow the stack."""

    __slots__ = ("come", "resume", "value")

    def __init__(self) -> None:
        self.come = False
        self.value: Any = None
        self.resume: Callable[[Any], object] | None = None

    def take(self, value: Any) -> None:
        if self.resume is not None:
            self.resume(value)
            return
        self.come = True
        self.value = value


def in_background(work: Coroutine[Deferred[Any], Any, Any], failed: Callable[[Failure], None]) -> None:
    """Start ``work`` and go on; only its failure is heard."""
    run(work, lambda result: None, failed)
