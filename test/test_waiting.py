"""Driving coroutines: with Deferreds, with signals, and with answers that are there already."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from smtpf.waiting import Signal, run


class _Heard:
    def __init__(self) -> None:
        self.results: list[Any] = []
        self.failures: list[Failure] = []

    def start(self, work: Any) -> None:
        run(work, self.results.append, self.failures.append)


@pytest.fixture
def heard() -> _Heard:
    return _Heard()


def test_work_that_never_waits_is_done_at_once(heard: _Heard) -> None:
    async def work() -> int:
        return await succeed(2) + 1

    heard.start(work())
    assert heard.results == [3]


def test_many_answers_that_are_there_do_not_grow_the_stack(heard: _Heard) -> None:
    async def work() -> int:
        total = 0
        for _ in range(20_000):
            fired = Signal()
            fired.fire(1)
            total += await fired + await succeed(1)
        return total

    heard.start(work())
    assert heard.results == [40_000]


@pytest.mark.parametrize("kind", [Signal, Deferred])
def test_work_goes_on_when_what_it_waits_for_comes(heard: _Heard, kind: Any) -> None:
    waited = kind()

    async def work() -> str:
        return f"heard {await waited}"

    heard.start(work())
    assert heard.results == []
    come = waited.fire if kind is Signal else waited.callback
    come("it")
    assert heard.results == ["heard it"]


def test_a_failure_raises_where_it_is_waited_for(heard: _Heard) -> None:
    first, second = Signal(), Signal()

    async def work() -> str:
        try:
            await first
        except KeyError as error:
            await second
            return f"mended {error}"
        return "no"

    heard.start(work())
    first.fire(Failure(KeyError("x")))
    second.fire()
    assert heard.results == ["mended 'x'"]


def test_an_exception_that_nobody_expects_is_told_as_a_failure(heard: _Heard) -> None:
    waited = Signal()

    async def work() -> None:
        await waited
        raise ValueError("odd")

    heard.start(work())
    waited.fire()
    assert [failure.type for failure in heard.failures] == [ValueError]
