"""What the processes of a node count for each other."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from smtpf.smtp.arrivals import Arrivals
from smtpf.stats.general import CONNECTIONS_PER_MINUTE, HIGH_CONNECTIONS_PER_SECOND
from smtpf.stats.tables import Statistics
from smtpf.workers.board import Board, WorkerArrivals


@pytest.fixture
def boards():
    """The coordinator's, and those of two workers."""
    first = Board.make(3)
    return [first, Board(first.descriptor, 3, 1), Board(first.descriptor, 3, 2)]


def test_each_process_sees_the_sessions_of_the_others(boards):
    boards[0].put_sessions(4)
    for _ in range(3):
        boards[1].began()
    boards[1].ended()
    boards[2].began()
    assert [board.sessions_elsewhere() for board in boards] == [3, 5, 6]
    assert [boards[0].sessions(place) for place in range(3)] == [4, 2, 1]


def test_a_row_is_cleared_for_the_next_process(boards):
    boards[1].began()
    boards[1].took()
    boards[1].note(5, 1)
    assert boards[0].taken(1) == 1
    boards[0].clear(1)
    assert (boards[0].sessions(1), boards[0].taken(1), boards[0].arrived(1), boards[0].others(5)) == (0, 0, 0, 0)


def test_connections_of_a_second_are_those_of_all_processes(boards):
    clock = Clock()
    clock.advance(1_780_000_000)
    stats = [Statistics(clock) for _ in boards]
    kinds = (Arrivals, WorkerArrivals, WorkerArrivals)
    arrivals = [kind(each, clock.seconds, board) for kind, each, board in zip(kinds, stats, boards, strict=True)]
    assert [each.arrived(3).this_second for each in (arrivals[1], arrivals[2], arrivals[0])] == [1, 2, 3]
    assert [each.now for each in arrivals] == [3, 3, 3]
    fourth = arrivals[1].arrived(3)
    assert (fourth.this_second, fourth.throttled) == (4, True)
    assert stats[1].value(HIGH_CONNECTIONS_PER_SECOND) == 4
    assert boards[0].arrived(1) == 2
    clock.advance(1)
    assert [each.now for each in arrivals] == [0, 0, 0]
    assert arrivals[2].arrived(3).this_second == 1


def test_the_minute_is_the_coordinators(boards):
    clock = Clock()
    stats = Statistics(clock)
    arrivals = Arrivals(stats, clock.seconds, boards[0])
    arrivals.arrived(0)
    arrivals.count(5)
    clock.advance(30)
    arrivals.count(2)
    assert stats.value(CONNECTIONS_PER_MINUTE) == 8
    clock.advance(31)
    arrivals.count(0)
    assert stats.value(CONNECTIONS_PER_MINUTE) == 2
    worker = Statistics(clock)
    WorkerArrivals(worker, clock.seconds, boards[1]).arrived(0)
    assert worker.value(CONNECTIONS_PER_MINUTE) == 0
