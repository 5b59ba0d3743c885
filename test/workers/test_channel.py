"""Coordinator and worker talking, over a real socket pair."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from smtpf.workers.channel import MOST_OPEN, Channel, ChannelError, news


class Pair:
    """Two ends of a channel."""

    def __init__(self, left: dict[str, Any], right: dict[str, Any]) -> None:
        self.faults: list[Any] = []
        self.gone: list[str] = []
        ends = socket.socketpair()
        self.left = Channel(reactor, left, gone=lambda: self.gone.append("left"), failed=self.faults.append)
        self.right = Channel(reactor, right, gone=lambda: self.gone.append("right"), failed=self.faults.append)
        for end, channel in zip(ends, (self.left, self.right), strict=True):
            end.setblocking(False)
            factory = Factory.forProtocol(lambda channel=channel: channel)
            factory.noisy = False
            reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)
            end.close()

    def close(self) -> None:
        for each in (self.left, self.right):
            if not each.closed:
                each.transport.abortConnection()


@pytest.fixture
def pair():
    made = []

    def make(left=None, right=None):
        made.append(Pair(left or {}, right or {}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_question_is_answered(pair, reactor_run):
    both = pair(right={"add": lambda a, b: a + b})
    assert reactor_run(both.left.call("add", 2, 3)) == 5


def test_an_answer_may_take_its_time(pair, reactor_run):
    waiting: Deferred[str] = Deferred()

    async def slow():
        return await waiting

    both = pair(right={"slow": slow, "fast": lambda: "fast"})
    slow_answer = both.left.call("slow")
    assert reactor_run(both.left.call("fast")) == "fast"
    waiting.callback("slow")
    assert reactor_run(slow_answer) == "slow"


def test_news_and_answers_keep_their_order(pair, reactor_run):
    heard = []
    both = pair(left={"news": heard.append})

    def ask():
        both.right.tell("news", 1)
        both.right.tell_line(news("news", 2))
        return len(heard)

    both.right._handlers = {"ask": ask}
    reactor_run(both.left.call("ask"))
    assert heard == [1, 2]


def test_octets_that_are_no_text_survive(pair, reactor_run):
    both = pair(right={"echo": lambda text: text})
    text = b"\xff\x00 grey \xc3\xa9".decode("utf-8", "surrogateescape")
    assert reactor_run(both.left.call("echo", text)) == text


def test_a_long_line_arrives_whole(pair, reactor_run):
    both = pair(right={"echo": lambda text: text})
    assert reactor_run(both.left.call("echo", "x" * 3_000_000)) == "x" * 3_000_000


def test_a_fault_at_the_other_end_is_told(pair, reactor_run):
    def broken():
        raise ValueError("no")

    both = pair(right={"broken": broken, "heard": broken})
    with pytest.raises(ChannelError, match="no"):
        reactor_run(both.left.call("broken"))
    both.left.tell("heard")
    both.right._handlers["good"] = lambda: None
    reactor_run(both.left.call("good"))
    assert len(both.faults) == 1


def test_the_end_is_heard_by_everybody_who_waits(pair, reactor_run):
    both = pair(right={"never": lambda: Deferred(), "now": lambda: None})
    never = both.left.call("never")
    reactor_run(both.left.call("now"))
    both.right.transport.abortConnection()
    with pytest.raises(ChannelError):
        reactor_run(never)
    assert "left" in both.gone
    with pytest.raises(ChannelError):
        reactor_run(both.left.call("now"))
    assert not both.left.ask(lambda result, error: None, "now")
    both.left.tell("now")


def test_questions_are_bounded():
    channel = Channel(reactor, {})
    channel.transport = None
    channel._open = dict.fromkeys(range(MOST_OPEN))
    assert not channel.ask(lambda result, error: None, "more")
