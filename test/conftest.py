"""Fixtures that every test may use: one real reactor, driven until a piece of work is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred


@pytest.fixture
def reactor_run() -> Callable[..., Any]:
    """``reactor_run(work, timeout=30)``: spin the real reactor until ``work`` ends; its result, or its exception.

    ``work`` is a coroutine, a Deferred, or a function that returns either.
    """
    from twisted.internet import reactor

    def run(work: Awaitable[Any] | Callable[[], Any], timeout: float = 30.0) -> Any:
        outcome: list[tuple[bool, Any]] = []
        if asyncio.iscoroutine(work):
            deferred: Deferred[Any] = ensureDeferred(work)
        elif isinstance(work, Deferred):
            deferred = work
        else:
            deferred = maybeDeferred(lambda: _awaited(work()))  # type: ignore[operator]
        deferred.addTimeout(timeout, reactor)
        deferred.addCallbacks(lambda result: outcome.append((True, result)), lambda failure: outcome.append((False, failure)))
        if not reactor.running:  # type: ignore[attr-defined]
            reactor.startRunning(installSignalHandlers=False)  # type: ignore[call-arg]
        while not outcome:
            reactor.runUntilCurrent()  # type: ignore[attr-defined]
            if outcome:
                break
            wait = reactor.timeout()  # type: ignore[attr-defined]
            reactor.doIteration(0.5 if wait is None else min(wait, 0.5))  # type: ignore[attr-defined]
        good, value = outcome[0]
        if good:
            return value
        value.raiseException()
        return None

    return run


def _awaited(value: Any) -> Any:
    return ensureDeferred(value) if asyncio.iscoroutine(value) else value


def pytest_sessionfinish() -> None:
    """End the reactor's worker threads, so that the test process can end."""
    from twisted.internet import reactor

    if reactor.running:  # type: ignore[attr-defined]
        reactor.fireSystemEvent("shutdown")  # type: ignore[attr-defined]
        reactor.threadpool and reactor.threadpool.stop()  # type: ignore[attr-defined]
