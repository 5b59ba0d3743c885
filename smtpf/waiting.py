"""Run code that may wait, and pay for the wait only when there is one.

Engine and filters are written as ``async def`` over Deferreds. Most of the time nothing
waits: every look-up is answered from memory. A coroutine that never waits is driven to its
end here by one plain call, and no Deferred is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
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
    return _Run(work, done, failed).step(None)


class Signal:
    """Something one coroutine under :func:`run` waits for, once: a Deferred without a chain, for what happens many times a message."""

    __slots__ = ("_answer", "_heard", "_hears")

    def __init__(self) -> None:
        self._hears: Callable[[Any], Any] | None = None
        self._answer: Any = None
        self._heard = False

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)

    def addBoth(self, hears: Callable[[Any], Any]) -> None:
        """Called by the one who drives the coroutine."""
        if self._heard:
            hears(self._answer)
        else:
            self._hears = hears

    def fire(self, answer: Any = None) -> None:
        """The wait is over; a Failure raises where it is waited."""
        self._heard = True
        self._answer = answer
        if self._hears is not None:
            self._hears(answer)


class _Run:
    """Work under way. Answers that are there already are taken in a loop: work that meets many of them must not grow the stack."""

    __slots__ = ("_answer", "_come", "_done", "_failed", "_stepping", "_work")

    def __init__(self, work: Coroutine[Deferred[Any], Any, T], done: Callable[[T], None], failed: Callable[[Failure], None]) -> None:
        self._work = work
        self._done = done
        self._failed = failed
        self._stepping = False
        self._come = False
        self._answer: Any = None

    def step(self, value: Any) -> Deferred[Any] | None:
        """Go on with the answer ``value``, until the work ends or waits."""
        work = self._work
        self._stepping = True
        while True:
            try:
                if isinstance(value, Failure):
                    waiting: Deferred[Any] = value.throwExceptionIntoGenerator(work)
                else:
                    waiting = work.send(value)
            except StopIteration as stop:
                self._done(stop.value)
                return None
            except BaseException:
                self._failed(Failure())
                return None
            waiting.addBoth(self._take)
            if not self._come:
                self._stepping = False
                return waiting
            value, self._answer = self._answer, None
            self._come = False

    def _take(self, value: Any) -> None:
        if self._stepping:
            self._answer = value
            self._come = True
        else:
            self.step(value)


def in_background(work: Coroutine[Deferred[Any], Any, Any], failed: Callable[[Failure], None]) -> None:
    """Start ``work`` and go on; only its failure is heard."""
    run(work, lambda result: None, failed)
