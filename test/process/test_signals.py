"""How signals end or reload a node: order of messages, bounds of time, and that nothing ends twice."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from smtpf.journal.journal import Journal
from smtpf.process.signals import GRACE, Signals


class Reactor(Clock):
    stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class Sessions:
    def __init__(self, count: int) -> None:
        self.count = count
        self.aborted = False
        self.all_gone: Deferred[None] = Deferred()

    def __len__(self) -> int:
        return self.count

    def stop(self) -> Deferred[None]:
        if not self.count:
            self.all_gone.callback(None)
        return self.all_gone

    def abort(self) -> None:
        self.aborted = True
        self.count = 0


class Node:
    def __init__(self, sessions: int) -> None:
        self.reactor = Reactor()
        self.sessions = Sessions(sessions)
        self.log: list[str] = []
        self.accepting = True
        self.reloads = 0
        self.signals = Signals(
            self.reactor, Journal(lambda entry: self.log.append(entry.text)), self.sessions, self._close, self._reload, lambda: 600
        )

    def _close(self) -> None:
        self.accepting = False

    def _reload(self) -> None:
        self.reloads += 1


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_quit_waits_for_the_sessions_to_stop(signum: int) -> None:
    node = Node(3)
    node.signals.received(signum)
    assert node.log == [f"#722 signal {int(signum)}, stopping sessions, cn=3"]
    assert not node.accepting
    assert not node.reactor.stopped
    node.sessions.all_gone.callback(None)
    assert node.log[1:] == [f"#723 signal {int(signum)}, terminating process"]
    assert node.reactor.stopped == 1
    assert not node.sessions.aborted


def test_sessions_that_do_not_stop_are_cut_after_the_grace() -> None:
    node = Node(1)
    node.signals.received(signal.SIGTERM)
    node.reactor.advance(GRACE - 0.1)
    assert not node.reactor.stopped
    node.reactor.advance(0.2)
    assert node.sessions.aborted
    assert node.reactor.stopped == 1


def test_second_signal_cuts_at_once() -> None:
    node = Node(2)
    node.signals.received(signal.SIGTERM)
    node.signals.received(signal.SIGTERM)
    assert node.sessions.aborted
    assert node.log[1:] == ["#725 signal 15, terminating process"]
    node.reactor.advance(GRACE + 1)
    node.signals.received(signal.SIGTERM)
    assert node.reactor.stopped == 1


def test_slow_quit_tells_each_change_and_ends_after_the_last_session() -> None:
    node = Node(2)
    node.signals.received(signal.SIGQUIT)
    assert not node.accepting
    for left in (1, 1, 0):
        node.sessions.count = left
        node.signals.session_ended()
    assert node.log == [
        "#722 signal 3, slow quit cn=2",
        "#722 signal 3, slow quit cn=1",
        "#722 signal 3, slow quit cn=0",
        "#722 signal 3, stopping sessions, cn=0",
        "#723 signal 3, terminating process",
    ]
    assert node.reactor.stopped == 1
    assert not node.reactor.getDelayedCalls()


def test_slow_quit_becomes_quit_when_it_takes_too_long() -> None:
    node = Node(1)
    node.signals.received(signal.SIGQUIT)
    node.reactor.advance(600)
    assert node.log[-1] == "#722 signal 3, stopping sessions, cn=1"


def test_term_during_a_slow_quit_ends_the_sessions() -> None:
    node = Node(1)
    node.signals.received(signal.SIGQUIT)
    node.signals.received(signal.SIGTERM)
    assert node.log[-1] == "#722 signal 15, stopping sessions, cn=1"
    node.sessions.all_gone.callback(None)
    assert node.reactor.stopped == 1


def test_hup_reloads_and_other_signals_are_only_told() -> None:
    node = Node(4)
    node.signals.received(signal.SIGHUP)
    node.signals.received(signal.SIGXCPU)
    assert node.log == ["#724 signal 1 received, cn=4", f"#724 signal {int(signal.SIGXCPU)} received, cn=4"]
    assert node.reloads == 1
    assert node.accepting


def test_failed_reload_is_logged_and_the_node_goes_on() -> None:
    node = Node(0)

    def broken() -> Any:
        raise RuntimeError("no such luck")

    node.signals._reload = broken
    node.signals.received(signal.SIGHUP)
    assert "#539" in node.log[-1]
    assert not node.reactor.stopped
