"""The coordinator's side, with processes that are none."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpf.filters.counting import OwnTallies
from smtpf.journal.journal import Journal
from smtpf.process.steering import Steering
from smtpf.serving import StartRefused
from smtpf.settings.store import Settings
from smtpf.smtp.arrivals import Arrivals
from smtpf.smtp.identifiers import SessionIds
from smtpf.stats.general import CONNECTIONS_PER_MINUTE
from smtpf.stats.routes import RouteCounts
from smtpf.stats.tables import Statistics
from smtpf.workers.board import Board
from smtpf.workers.crew import LONGEST_PAUSE, SHORT_LIFE, SILENT_SECONDS, START_SECONDS, Crew, Shared
from smtpf.workers.handover import MOST_WAITING, take
from smtpf.workers.tallies import CrewTallies

STEERING = Steering(2)


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
        self.own: list[str] = []
        self.crew = Crew(STEERING, self.reactor, Journal(self.entries.append), self.own)
        self.ended = 0
        self.doors: list[tuple[str, Any]] = []
        listening = SimpleNamespace(
            bound=[], hold=lambda seconds: None, leave=lambda doors: self.doors.append(("leave", doors)),
            stand_in=lambda doors: self.doors.append(("stand in", doors)),
        )  # fmt: skip
        engine = SimpleNamespace(ids=SessionIds(1), now=self.reactor.seconds)
        stats = Statistics(self.reactor)
        shared = Shared(
            settings=Settings.of, engine=engine, stats=stats, routes=RouteCounts(Journal(self.entries.append)),
            cache=SimpleNamespace(followers=[], presence=None),
            arrivals=Arrivals(stats, self.reactor.seconds),
            tallies=CrewTallies(OwnTallies.make(self.reactor.seconds)), administration=None, listening=listening,
            session_ended=self._ended, greeting={},
        )  # fmt: skip
        self.crew.prepare(shared)
        self.start = self.crew.start()
        self.start.send(None)
        self.boards = [Board(self.crew.board.descriptor, 3, number) for number in (1, 2)]
        self.workers = self.crew._workers

    def _ended(self) -> None:
        self.ended += 1

    def go(self, number: int) -> None:
        self.workers[number]._is_ready(None)

    def die(self, number: int) -> None:
        self.workers[number].processEnded(Failure(ProcessTerminated(signal=9)))

    def client(self, number: int) -> socket.socket:
        """A client of worker ``number``."""
        address = next(f"192.0.2.{last}" for last in range(256) if STEERING.place_of(f"192.0.2.{last}", 40000) == number)
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


def test_sessions_are_counted_from_being_given_to_their_end(place):
    place.go(0)
    clients = [place.client(0), place.client(0)]
    board = place.boards[0]
    board.began()
    board.took()
    assert len(place.crew) == 2
    board.ended()
    assert len(place.crew) == 1
    board.began()
    place.own.append("a session of the coordinator")
    assert len(place.crew) == 3
    place.crew.handlers(place.workers[0])["ended"]()
    assert place.ended == 1
    for client in clients:
        client.close()


def test_coordinator_leaves_the_clients_of_a_worker_to_it_and_takes_them_while_there_is_none(place):
    for number in (0, 1):
        place.go(number)
        place.workers[number].channel = SimpleNamespace(tell=lambda name, number=number: place.doors.append((name, number)))
    assert place.doors == []
    place.crew.begin()
    assert place.doors == [("leave", (0, 2, 3)), ("accept", 0), ("leave", (1, 3, 2)), ("accept", 1)]
    place.doors.clear()
    place.die(1)
    assert place.doors == [("stand in", {1})]
    place.reactor.advance(0)
    place.workers[1].channel = SimpleNamespace(tell=lambda name: place.doors.append((name, 1)))
    place.go(1)
    assert place.doors[1:] == [("leave", (1, 3, 2)), ("accept", 1)]
    place.doors.clear()
    place.die(1)
    place.die(0)
    assert place.doors == [("stand in", {1}), ("stand in", {0, 2, 3})]


def test_what_a_dead_worker_counted_is_forgotten(place):
    place.go(0)
    for _ in range(3):
        place.boards[0].began()
    place.die(0)
    assert place.entries[-1].body == "worker 1 pid=1000 ended: signal 9; cn=3"
    assert len(place.crew) == 0


def test_arrivals_that_workers_count_are_taken_over(place):
    place.go(0)
    place.boards[0].note(7, 1)
    place.boards[0].note(7, 2)
    report = place.crew.handlers(place.workers[0])["report"]
    report([{}, {}, {}], {}, 5)
    report([{}, {}, {}], {}, 5)
    assert place.crew.shared.stats.value(CONNECTIONS_PER_MINUTE) == 2


def test_workers_that_could_not_be_started_may_be_started_later(place):
    place.go(1)
    place.die(0)
    with pytest.raises(StartRefused):
        place.start.send(None)
    dismissing = place.crew.dismiss()
    dismissing.send(None)
    assert place.reactor.processes[1].killed
    place.die(1)
    with pytest.raises(StopIteration):
        dismissing.send(None)
    again = place.crew.start()
    again.send(None)
    place.go(0)
    place.go(1)
    with pytest.raises(StopIteration):
        again.send(None)
    assert [process.pid for process in place.reactor.processes] == [1000, 1001, 1002, 1003]


def test_dead_worker_is_replaced_at_once_and_keeps_who_waits_for_it(place):
    place.go(0)
    place.go(1)
    clients = [place.client(0) for _ in range(3)]
    take(place.workers[0].giving.far).connection.close()
    place.boards[0].began()
    place.boards[0].took()
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
