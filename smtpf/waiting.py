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

    def resume(result: Any) -> None:
        _step(work, result, done, failed)

    waiting.addBoth(resume)
    return waiting


def in_background(work: Coroutine[Deferred[Any], Any, Any], failed: Callable[[Failure], None]) -> None:
    """Start ``work`` and go on; only its failure is heard."""
    run(work, lambda result: None, failed)
