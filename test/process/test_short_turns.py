"""The reactor with short turns, with real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from smtpf.process import short_turns
from smtpf.process.short_turns import MOST_EVENTS, TURN, ShortTurns


@implementer(IReadDescriptor)
class _Reader:
    """Has one octet to read."""

    def __init__(self, served: list[_Reader], act: Callable[[], None] | None = None) -> None:
        self.near, self.far = socket.socketpair()
        self.far.send(b"x")
        self._served = served
        self._act = act
        self.lost = False

    def fileno(self) -> int:
        return self.near.fileno()

    def doRead(self) -> None:
        self._served.append(self)
        self.near.recv(1)
        if self._act is not None:
            self._act()

    def logPrefix(self) -> str:
        return "test"

    def connectionLost(self, reason: object) -> None:
        self.lost = True

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def loop() -> Iterator[ShortTurns]:
    made = ShortTurns()
    yield made
    for reader in made.getReaders():
        made.removeReader(reader)
        if isinstance(reader, _Reader):
            reader.close()
    made._poller.close()


def test_a_turn_serves_a_few_sockets_and_those_that_waited_come_first(loop: ShortTurns) -> None:
    served: list[_Reader] = []
    readers = [_Reader(served) for _ in range(3 * MOST_EVENTS)]
    for reader in readers:
        loop.addReader(reader)
    for turn in (1, 2, 3):
        loop.doPoll(0)
        assert len(served) == turn * MOST_EVENTS
    assert len(set(served)) == len(readers)


def test_a_busy_socket_does_not_keep_others_waiting(loop: ShortTurns) -> None:
    served: list[_Reader] = []
    busy = [_Reader(served) for _ in range(MOST_EVENTS)]
    for reader in busy:
        reader.far.send(b"x" * 50)
        loop.addReader(reader)
    loop.doPoll(0)
    late = _Reader(served)
    loop.addReader(late)
    loop.doPoll(0)
    loop.doPoll(0)
    assert late in served


def test_a_turn_ends_after_a_short_time_and_those_that_waited_come_first(loop: ShortTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(short_turns, "monotonic", lambda: now[0])

    def work() -> None:
        now[0] += 0.6 * TURN

    served: list[_Reader] = []
    readers = [_Reader(served, work) for _ in range(6)]
    for reader in readers:
        reader.far.send(b"x" * 9)
        loop.addReader(reader)
    for turn in (1, 2, 3):
        loop.doPoll(0)
        assert len(served) == 2 * turn
    assert set(served) == set(readers)


def test_one_that_was_closed_while_it_waited_is_not_served(loop: ShortTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(short_turns, "monotonic", lambda: now[0])

    def work() -> None:
        now[0] += 2 * TURN

    served: list[_Reader] = []
    readers = [_Reader(served, work) for _ in range(3)]
    for reader in readers:
        loop.addReader(reader)
    loop.doPoll(0)
    for reader in readers:
        if reader not in served:
            loop.removeReader(reader)
    loop.doPoll(0)
    assert len(served) == 1


def test_a_socket_that_another_has_just_closed_is_not_served(loop: ShortTurns) -> None:
    served: list[_Reader] = []
    pair: list[_Reader] = []

    def close_the_other() -> None:
        for reader in pair:
            if reader not in served:
                loop.removeReader(reader)

    pair += [_Reader(served, close_the_other), _Reader(served, close_the_other)]
    for reader in pair:
        loop.addReader(reader)
    loop.doPoll(0)
    assert len(served) == 1


def test_a_fault_disconnects_its_own_socket_only(loop: ShortTurns, caplog: pytest.LogCaptureFixture) -> None:
    served: list[_Reader] = []

    def fault() -> None:
        raise ValueError("of the test")

    broken, sound = _Reader(served, fault), _Reader(served)
    loop.addReader(broken)
    loop.addReader(sound)
    loop.doPoll(0)
    assert (broken.lost, sound.lost) == (True, False)
    assert sound in served


@pytest.mark.parametrize(("words", "name"), [((), "ShortTurns"), (("--reactor", "select"), "SelectReactor")])
def test_twistd_runs_it_unless_told_otherwise(words: tuple[str, ...], name: str) -> None:
    show = (
        "import smtpf.tap as tap\n"
        "def start(words, reactor, foreground):\n    print(type(reactor).__name__)\n    raise SystemExit(0)\n"
        "tap.start = start\n"
        "from twisted.scripts.twistd import run\nrun()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", show, "-n", "--pidfile=", *words, "smtpf"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [name]
