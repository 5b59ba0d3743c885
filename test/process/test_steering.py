"""Which process answers a client, as the node computes it and as the kernel does."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter as Tally
from collections.abc import Iterator

import pytest

from smtpf.process.steering import place_of, share_out

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the filter program is Linux's")


def test_clients_are_spread_and_stay_where_they_are() -> None:
    for places in (2, 3, 4, 8):
        spread = Tally(place_of(f"192.0.2.{number}", places) for number in range(256))
        assert set(spread) == set(range(places))
        assert min(spread.values()) > 256 / places * 0.6
    assert place_of("192.0.2.7", 4) == place_of("::ffff:192.0.2.7", 4)


def test_one_ipv6_network_is_one_client() -> None:
    assert len({place_of(f"2001:db8:1:2:{number:x}::9", 7) for number in range(50)}) == 1
    assert len({place_of(f"2001:db8:1:{number:x}::9", 7) for number in range(50)}) > 1
    assert place_of("fe80::1%eth0", 7) == place_of("fe80::2", 7)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    made = socket.create_server(("127.0.0.1", 0), backlog=50)
    made.setblocking(False)
    yield made
    made.close()


def accepted(group: tuple[socket.socket, ...]) -> list[int]:
    """How many connections wait at each socket."""
    counts = []
    for each in group:
        count = 0
        while True:
            try:
                connection, _ = each.accept()
            except BlockingIOError:
                break
            connection.close()
            count += 1
        counts.append(count)
    return counts


@on_linux
def test_the_kernel_brings_each_client_to_its_place(listener: socket.socket) -> None:
    group = share_out(listener, 3, 50)
    assert len(group) == 3
    seen = set()
    for number in range(1, 25):
        address = f"127.0.0.{number}"
        place = place_of(address, 3)
        seen.add(place)
        clients = [socket.create_connection(listener.getsockname(), source_address=(address, 0)) for _ in range(2)]
        assert accepted(group) == [2 if each == place else 0 for each in range(3)]
        for client in clients:
            client.close()
    assert seen == {0, 1, 2}
    for each in group[1:]:
        each.close()


@on_linux
def test_the_kernel_brings_ipv6_clients_to_their_place() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        listener.setblocking(False)
        group = share_out(listener, 4, 50)
        assert len(group) == 4
        with socket.create_connection(listener.getsockname()[:2]):
            assert accepted(group).index(1) == place_of("::1", 4)
        for each in group[1:]:
            each.close()


@on_linux
def test_nobody_else_can_listen_there(listener: socket.socket) -> None:
    group = share_out(listener, 2, 50)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(listener.getsockname())
    group[1].close()


def test_a_socket_for_both_families_is_not_shared_out() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no socket for both families here")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert share_out(listener, 2, 50) == (listener,)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="makes a socket of another user")
def test_a_socket_of_another_user_is_not_shared_out() -> None:
    os.seteuid(65534)
    try:
        listener = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(0)
    with listener:
        assert share_out(listener, 2, 50) == (listener,)
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()):
            assert accepted((listener,)) == [1]
