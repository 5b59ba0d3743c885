"""What limits count with in a node of several processes: who counts whom, and what becomes of it when a process ends."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, fail, succeed

from smtpf.filters.counting import OwnTallies, counted
from smtpf.process.steering import Steering
from smtpf.workers.channel import ChannelError
from smtpf.workers.tallies import CrewTallies, WorkerTallies


class Line:
    """A channel to the coordinator's side in the same process."""

    def __init__(self, handlers: dict[str, Any]) -> None:
        self.handlers = handlers
        self.up = True

    def call(self, name: str, *arguments: Any) -> Deferred[Any]:
        return succeed(self.handlers[name](*arguments)) if self.up else fail(ChannelError("gone"))

    def tell(self, name: str, *arguments: Any) -> None:
        self.handlers[name](*arguments)


class Node:
    """A coordinator and two workers."""

    def __init__(self) -> None:
        self.own = OwnTallies.make(lambda: 600.0)
        self.crew = CrewTallies(self.own)
        self.lines = [Line(self.crew.handlers(number)) for number in (1, 2)]
        self.workers = [WorkerTallies(line, lambda: 600.0, Steering(2).spreads) for line in self.lines]


@pytest.fixture
def node() -> Node:
    return Node()


def session(address: str = "192.0.2.7", spoken_for: bool = True) -> Any:
    return SimpleNamespace(address=address, spoken_for=spoken_for)


def result(count: Any) -> int:
    found: list[int] = []
    ensureDeferred(counted(count)).addCallback(found.append)
    return found[0]


def test_clients_whom_any_worker_meets_are_counted_once(node: Node) -> None:
    one, other = node.workers
    assert result(one.connections(session()).add(7)) == 1
    assert result(other.connections(session()).add(7)) == 2
    assert result(other.connections(session("127.0.0.1", spoken_for=False)).add(7)) == 3
    assert result(one.present(session()).enter("7/64")) == 1
    assert result(other.present(session()).enter("7/64")) == 2
    one.present(session()).leave("7/64")
    assert result(one.present(session()).enter("7/64")) == 2
    assert [result(worker.bounces.add("null-rate-to:x")) for worker in node.workers] == [1, 2]


def test_a_client_whom_one_worker_meets_is_counted_there(node: Node) -> None:
    for worker in node.workers:
        client = session(spoken_for=False)
        assert worker.connections(client).add(7) == 1
        assert worker.present(client).enter(7) == 1
    assert len(node.own.rates) == len(node.own.presence) == 0


def test_with_a_worker_go_those_whom_it_has_entered(node: Node) -> None:
    one, other = (worker.present(session()) for worker in node.workers)
    for present in (one, one, other):
        result(present.enter(7))
    node.crew.forget(1)
    # Said before it ended, heard behind that.
    one.leave(7)
    assert result(one.enter(7)) == 0
    assert result(other.enter(7)) == 2
    other.leave(7)
    other.leave(7)
    other.leave(7)
    assert len(node.own.presence) == 0
    node.crew.forget(9)


def test_without_an_answer_of_the_coordinator_a_worker_counts_alone(node: Node) -> None:
    worker, line = node.workers[0], node.lines[0]
    present = worker.present(session())
    result(present.enter(7))
    line.up = False
    assert [result(worker.connections(session()).add(7)) for _ in range(2)] == [1, 2]
    assert result(worker.bounces.add("a")) == 1
    assert result(present.enter(7)) == 0
    line.up = True
    present.leave(7)
    assert result(present.enter(7)) == 2
    present.leave(7)
    present.leave(7)
    assert len(node.own.presence) == 0
