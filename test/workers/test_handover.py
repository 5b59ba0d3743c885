"""Connections on their way to a worker."""

from __future__ import annotations

import resource
import socket

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from smtpf.workers.handover import MOST_WAITING, Giving, Passed, Taking, take

PEER4 = ("192.0.2.1", 40000)
PEER6 = ("2001:db8::1", 40000, 0, 0)


@pytest.fixture
def giving():
    made = Giving(reactor)
    yield made
    made.close()


def pair():
    ours, theirs = socket.socketpair()
    return ours, theirs


@pytest.mark.parametrize("peer", [PEER4, PEER6])
def test_a_connection_arrives_with_what_is_known_of_it(giving, peer):
    client, server = pair()
    assert giving.give(Passed(server, 1, peer, 7, True))
    passed = take(giving.far)
    assert (passed.interface, passed.peer, passed.this_second, passed.throttled) == (1, peer, 7, True)
    passed.connection.send(b"220 hello\r\n")
    assert client.recv(100) == b"220 hello\r\n"
    passed.connection.close()
    assert client.recv(100) == b""
    client.close()
    assert take(giving.far) is None


def test_what_no_worker_took_up_can_be_taken_back(giving):
    clients = []
    for number in range(5):
        client, server = pair()
        clients.append(client)
        giving.give(Passed(server, 0, PEER4, number, False))
    left = giving.take_back()
    assert [passed.this_second for passed in left] == [0, 1, 2, 3, 4]
    for passed in left:
        assert giving.give(passed)
    assert take(giving.far).this_second == 0
    for client in clients:
        client.close()


def test_connections_wait_in_order_when_the_socket_is_full_and_are_bounded(giving, reactor_run):
    clients, given = [], 0
    while True:
        client, server = pair()
        clients.append(client)
        if not giving.give(Passed(server, 0, PEER4, given, False)):
            server.close()
            break
        given += 1
    assert given > MOST_WAITING
    taken = []
    taking = Taking(reactor, giving.far, lambda passed: (taken.append(passed.this_second), passed.connection.close()), lambda: None)
    taking.start()

    async def all_taken():
        for _ in range(500):
            if len(taken) == given:
                return
            await deferLater(reactor, 0.01)

    reactor_run(all_taken)
    taking.stop()
    assert taken == list(range(given))
    for client in clients:
        client.close()


def test_a_connection_that_a_worker_has_no_descriptor_for_is_counted_and_closed(giving):
    client, server = pair()
    giving.give(Passed(server, 0, PEER4, 1, False))
    lost = []
    taking = Taking(reactor, giving.far, lambda passed: None, lambda: lost.append(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = giving.far.fileno()
    filler = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, highest + 1), hard))
    try:
        while True:
            try:
                filler.append(socket.socket())
            except OSError:
                break
        taking.doRead()
    finally:
        for each in filler:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert lost == [1]
    assert client.recv(10) == b""
    client.close()
