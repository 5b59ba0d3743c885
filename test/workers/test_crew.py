"""The coordinator's side, with processes that are none."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpf.journal.journal import Journal
from smtpf.settings.store import Settings
from smtpf.smtp.arrivals import Arrivals
from smtpf.smtp.identifiers import SessionIds
from smtpf.stats.tables import Statistics
from smtpf.workers.crew import LONGEST_PAUSE, SHORT_LIFE, SILENT_SECONDS, START_SECONDS, Crew, Shared
from smtpf.workers.distribution import place_of
from smtpf.workers.handover import MOST_WAITING, take


class Process:
    def __init__(self, protocol: Any, pid: int) -> None:
        self.protocol = protocol
        self.pid = pid
        self.killed = False

    def signalProcess(self, name: str) -> None:
        self.killed = True


class Reactor(Clock):
    """Starts nothing; ``processes`` are those asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Process] = []

    def spawnProcess(self, protocol: Any, *args: Any, **kwargs: Any) -> Process:
        self.processes.append(Process(protocol, 1000 + len(self.processes)))
        return self.processes[-1]

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None: ...
    def addWriter(self, writer: Any) -> None: ...
    def removeWriter(self, writer: Any) -> None: ...


class Place:
    """Two workers. ``go`` lets the newest process of a worker be ready, ``die`` ends it."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.entries: list[Any] = []
        self.crew = Crew(2, self.reactor, Journal(self.entries.append))
        self.ended = 0
        engine = SimpleNamespace(ids=SessionIds(1), now=self.reactor.seconds)
        stats = Statistics(self.reactor)
        shared = Shared(
            settings=Settings.of, engine=engine, stats=stats, routes=None, cache=SimpleNamespace(followers=[], presence=None),
            arrivals=Arrivals(stats, self.reactor.seconds), administration=None, hold=lambda seconds: None,
            session_ended=self._ended, greeting={},
        )  # fmt: skip
        self.start = self.crew.start(shared)
        self.start.send(None)
        self.workers = self.crew._workers

    def _ended(self) -> None:
        self.ended += 1

    def go(self, number: int) -> None:
        self.workers[number]._is_ready(None)

    def die(self, number: int) -> None:
        self.workers[number].processEnded(Failure(ProcessTerminated(signal=9)))

    def client(self, number: int) -> socket.socket:
        """A client of worker ``number``."""
        address = next(f"192.0.2.{last}" for last in range(256) if place_of(f"192.0.2.{last}", 2) == number)
        ours, theirs = socket.socketpair()
        ours.settimeout(1)
        self.crew.hand_over(0, theirs, (address, 40000))
        return ours

    def waiting(self, number: int) -> int:
        """Connections that lie ready for worker ``number``; they are closed."""
        count = 0
        while (passed := take(self.workers[number].giving.far)) is not None:
            passed.connection.close()
            count += 1
        return count

    @property
    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self.entries]


@pytest.fixture
def place():
    made = Place()
    yield made
    for worker in made.workers:
        worker.giving.close()


def test_clients_go_to_their_worker(place):
    place.go(0)
    place.go(1)
    clients = [place.client(0), place.client(1), place.client(1)]
    assert len(place.crew) == 3
    assert (place.waiting(0), place.waiting(1)) == (1, 2)
    for client in clients:
        client.close()


def test_ended_sessions_are_told(place):
    place.go(0)
    clients = [place.client(0), place.client(0)]
    place.crew.handlers(place.workers[0])["ended"](1)
    assert len(place.crew) == 1
    assert place.ended == 1
    for client in clients:
        client.close()


def test_dead_worker_is_replaced_at_once_and_keeps_who_waits_for_it(place):
    place.go(0)
    place.go(1)
    clients = [place.client(0) for _ in range(3)]
    take(place.workers[0].giving.far).connection.close()
    place.die(0)
    assert len(place.crew) == 2
    assert place.entries[-1].body == "worker 1 pid=1000 ended: signal 9; cn=1"
    place.reactor.advance(0)
    assert [process.pid for process in place.reactor.processes] == [1000, 1001, 1002]
    place.go(0)
    assert place.waiting(0) == 2
    assert place.numbers == [1137, 1137, 1138, 1137]
    for client in clients:
        client.close()


def test_worker_that_keeps_dying_is_tried_at_growing_intervals_and_its_clients_go_to_the_next(place):
    place.go(0)
    place.go(1)
    pauses = []
    for _ in range(9):
        place.die(0)
        before, count = place.reactor.seconds(), len(place.reactor.processes)
        while len(place.reactor.processes) == count:
            place.reactor.advance(0.5)
        pauses.append(place.reactor.seconds() - before)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert LONGEST_PAUSE == 30
    client = place.client(0)
    assert place.waiting(1) == 1
    place.go(0)
    other = place.client(0)
    assert place.waiting(0) == 1
    client.close()
    other.close()


def test_worker_that_lived_for_a_while_is_replaced_at_once(place):
    place.go(0)
    for _ in range(5):
        place.reactor.advance(SHORT_LIFE)
        place.workers[0].heard(10)
        place.die(0)
        place.reactor.advance(0)
        place.go(0)
    assert place.workers[0].usable
    assert len(place.reactor.processes) == 7


def test_nobody_takes_a_client(place):
    for number in (0, 1):
        place.go(number)
    for _ in range(2):
        for number in (0, 1):
            place.die(number)
        place.reactor.advance(0)
    client = place.client(0)
    assert client.recv(200).startswith(b"421 ")
    assert client.recv(200) == b""
    assert place.numbers[-1] == 1139
    client.close()


def test_too_many_wait_for_a_worker(place):
    place.go(0)
    place.go(1)
    clients = []
    while 1139 not in place.numbers:
        clients.append(place.client(0))
    assert len(place.crew) == len(clients) - 1 > MOST_WAITING
    assert clients[-1].recv(200).startswith(b"421 ")
    for client in clients:
        client.close()


def test_worker_that_hangs_is_killed(place):
    place.go(0)
    for _ in range(100):
        place.reactor.advance(1)
        place.workers[0].heard(10)
    assert not place.reactor.processes[0].killed
    place.reactor.advance(SILENT_SECONDS)
    assert place.reactor.processes[0].killed


def test_worker_that_is_never_ready_is_killed(place):
    place.reactor.advance(START_SECONDS)
    assert [process.killed for process in place.reactor.processes] == [True, True]
