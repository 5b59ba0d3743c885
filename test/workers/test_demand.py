"""When a node starts further processes."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from smtpf.workers.demand import BUSY, PERIOD, Demand


class Process:
    """One whose use of the processor is told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.used = 0.0
        self.asked = 0
        self.demand = Demand(self.clock, self._enough, lambda: self.used)

    def _enough(self) -> None:
        self.asked += 1

    def pass_(self, *shares: float) -> None:
        """Let periods pass with these shares of a processor used."""
        for share in shares:
            self.used += share * PERIOD
            self.clock.advance(PERIOD)


@pytest.fixture
def process():
    made = Process()
    made.demand.start()
    made.clock.advance(0)
    return made


def test_a_busy_process_asks_once(process):
    process.pass_(BUSY, 1.0)
    assert process.asked == 1
    process.pass_(1.0, 1.0, 1.0)
    assert process.asked == 1
    assert process.clock.getDelayedCalls() == []


def test_a_moment_of_work_is_not_enough(process):
    process.pass_(1.0, 0.1, 1.0, 0.4, 0.9)
    assert process.asked == 0


def test_it_may_be_tried_anew_later(process):
    process.pass_(1.0, 1.0)
    process.demand.start(300.0)
    process.used += 200.0
    process.clock.advance(300.0)
    process.pass_(1.0)
    assert process.asked == 1
    process.pass_(1.0)
    assert process.asked == 2


def test_nothing_is_asked_after_the_end(process):
    process.demand.stop()
    process.pass_(1.0, 1.0, 1.0)
    assert process.asked == 0
