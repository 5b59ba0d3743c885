"""Rows K and L4: endless lines, slow octets, floods of tiny commands, clients that do not read, many of each.

Memory and time stay bounded, other sessions have their turn, and every connection ends.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from smtpf import waiting
from smtpf.smtp.wire import CLOSE_TIMEOUT, MAX_BUFFER, MAX_LINE
from test.support.live import LiveClient, LiveNode
from test.support.net import MemoryTransport
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"


@pytest.mark.parametrize("piece", [1, 7, 999, 1000, 1001, 65536])
@pytest.mark.parametrize("octet", [b"x", b"\r", b"\0", b" "])
def test_a_command_line_without_end_gets_one_500_and_a_drop(piece: int, octet: bytes) -> None:
    talk = Talk()
    client = talk.greeted()
    heard: list[str] = []
    for _ in range(0, 3000, piece):
        heard += client.send(octet * piece)
        if client.gone:
            break
    assert codes(heard) == ["500 #640"]
    assert client.gone
    assert talk.engine.conversations == {}


def test_an_auth_line_without_end_is_refused_too() -> None:
    talk = Talk({"smtp-auth-enable": "+", "smtp-auth-tls": "-"}, route="route:local FORWARD: 192.0.2.1\n")
    client = talk.greeted()
    client.say("AUTH LOGIN")
    assert codes(client.send(b"A" * 3000)) == ["500 #640"]
    assert client.gone


def test_what_is_read_ahead_is_bounded() -> None:
    """While a command waits (here: for a host that does not answer), the client is not read past a limit."""
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1", GREETING=None)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    for _ in range(100):
        client.send(b"NOOP\r\n" * 2000)
    (conversation,) = talk.engine.conversations.values()
    assert conversation.wire.pending <= MAX_BUFFER + 12000
    assert conversation.wire.transport.paused


def test_a_flood_of_commands_gives_others_their_turn(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            flood, other = await LiveClient.connect(node), await LiveClient.connect(node)
            await flood.say(b"EHLO mail.example.org")
            flood.write(b"NOOP\r\n" * 20_000)
            while flood.heard.count(b"#547") < 100:
                await node.turn(0.001)
            assert (await other.say(b"NOOP"))[-1].startswith("250")
            assert flood.heard.count(b"#547") < 10_000
            while flood.heard.count(b"#547") < 20_000:
                await node.turn(0.01)
        finally:
            await node.stop()

    reactor_run(work())


def test_work_that_meets_many_answers_at_once_keeps_the_stack_flat() -> None:
    from twisted.internet.defer import succeed

    async def work() -> int:
        return sum([await succeed(1) for _ in range(20_000)])

    done: list[Any] = []
    waiting.run(work(), done.append, done.append)
    assert done == [20_000]


class _Stuck(MemoryTransport):
    """A client that reads nothing: its transport asks the writer to pause and never resumes, and does not close."""

    def write(self, data: bytes) -> None:
        self.producer.pauseProducing()

    def loseConnection(self) -> None:
        """The octets not yet sent keep it open."""

    def loseWriteConnection(self) -> None:
        """Likewise."""

    def abortConnection(self) -> None:
        self.lost(Failure(ConnectionLost()))


def test_a_client_that_never_reads_is_cut() -> None:
    talk = Talk({"smtp-command-timeout": "60"})
    client = Client(talk)
    wire = talk.reception.factory("mx.test").buildProtocol(None)
    transport = _Stuck(talk.net, *(_place(port) for port in (25, 50000)))
    transport.protocol = wire
    client.makeConnection(MemoryTransport(talk.net, _place(50000), _place(25)))
    wire.makeConnection(transport)
    talk.net.pass_time(1)
    assert len(talk.engine.conversations) == 1
    talk.net.pass_time(60 + CLOSE_TIMEOUT + 1)
    assert talk.engine.conversations == {}
    assert transport.closed


def _place(port: int) -> Any:
    from twisted.internet.address import IPv4Address

    return IPv4Address("TCP", "192.0.2.7", port)


def test_five_hundred_slow_clients_take_little_memory_and_end() -> None:
    talk = Talk({"smtp-command-timeout": "60"})
    talk.connect().say("QUIT")
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    clients = []
    for count in range(500):
        client = Client(talk)
        wire = talk.reception.factory("mx.test").buildProtocol(None)
        talk.net.join(wire, client, (f"192.0.{2 + count // 250}.{1 + count % 250}", 50000), ("192.0.2.25", 25))
        clients.append(client)
    talk.net.pass_time(1)
    for _ in range(5):
        for client in clients:
            client.transport.write(b"E")
        talk.net.pass_time(8)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(talk.engine.conversations) == 500
    assert used < 500 * 40_000
    talk.net.pass_time(61)
    assert talk.engine.conversations == {}
    assert all(client.gone for client in clients)


def test_sessions_leave_nothing_behind() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    sizes = []
    for _ in range(4):
        for _ in range(20):
            client = talk.greeted()
            client.say("MAIL FROM:<joe@example.org>")
            client.say("RCPT TO:<ann@example.com>")
            client.message()
            client.say("QUIT")
        talk.entries.clear()
        talk.net.pass_time(CLOSE_TIMEOUT + 1)
        gc.collect()
        sizes.append(len(talk.net.getDelayedCalls()))
    assert len(set(sizes)) == 1
    assert talk.engine.conversations == {}


def test_linear_time_for_a_long_body_without_line_ends() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    spent = []
    for size in (1 << 20, 1 << 22):
        client = talk.greeted()
        for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
            client.say(line)
        began = time.process_time()
        for _ in range(size // 4096):
            client.transport.write(b"x" * 4096)
            talk.net.pump()
        spent.append(time.process_time() - began)
        client.transport.loseConnection()
        talk.net.pump()
    assert spent[1] < 12 * spent[0] + 0.5


def test_at_the_descriptor_limit_clients_are_turned_away(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            node.engine.descriptor_limit = 8 * 2 + 10
            first = await LiveClient.connect(node)
            second = LiveClient()
            second = await LiveClient.connect(node, b"")
            await second.ended()
            assert len(node.logged(556)) == 1
            assert (await first.say(b"NOOP"))[-1].startswith("250")
            first.close()
            await first.ended()
            while node.engine.conversations:
                await node.turn(0.01)
            third = await LiveClient.connect(node)
            assert (await third.say(b"NOOP"))[-1].startswith("250")
        finally:
            await node.stop()

    reactor_run(work())


def test_limits_are_what_the_table_says() -> None:
    assert MAX_LINE == 1000
    assert MAX_BUFFER == 65536
