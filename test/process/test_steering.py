"""Which process answers a client, as the node computes it and as the kernel does."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections import Counter as Tally
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

import smtpf
from smtpf.process.steering import LOOPBACK, MOST_NETWORKS, Steering

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the filter program is Linux's")


def test_clients_are_spread_and_stay_where_they_are() -> None:
    for places in (2, 3, 4, 8):
        spread = Tally(Steering(places).place_of(f"192.0.2.{number}", 1) for number in range(256))
        assert set(spread) == set(range(places))
        assert min(spread.values()) > 256 / places * 0.6
    four = Steering(4)
    assert four.place_of("192.0.2.7", 1) == four.place_of("192.0.2.7", 2) == four.place_of("::ffff:192.0.2.7", 3)


def test_one_ipv6_network_is_one_client() -> None:
    seven = Steering(7)
    assert len({seven.place_of(f"2001:db8:1:2:{number:x}::9", 1) for number in range(50)}) == 1
    assert len({seven.place_of(f"2001:db8:1:{number:x}::9", 1) for number in range(50)}) > 1
    assert seven.place_of("fe80::1%eth0", 1) == seven.place_of("fe80::2", 1)


def test_peers_that_speak_for_others_are_spread_by_port() -> None:
    steering = Steering(3, (*LOOPBACK, ip_network("192.0.2.128/25"), ip_network("2001:db8:7::/48")))
    for address in ("127.0.0.1", "127.9.9.9", "::1", "192.0.2.200", "2001:db8:7:1::1", "::ffff:192.0.2.200"):
        assert steering.spreads(address)
        assert {steering.place_of(address, port) for port in range(40000, 40050)} == {0, 1, 2}
    for address in ("192.0.2.1", "2001:db8::1", "::2", "fe80::1%eth0"):
        assert not steering.spreads(address)
        assert len({steering.place_of(address, port) for port in range(40000, 40050)}) == 1
        assert steering.place_of(address, 1) == Steering(3, ()).place_of(address, 1)


def test_each_process_accepts_at_its_own_socket_and_at_two_that_it_shares() -> None:
    for places in (2, 3, 7):
        doors = [Steering(places).doors(place) for place in range(places)]
        assert [each[0] for each in doors] == list(range(places))
        shared = Tally(door for each in doors for door in each[1:])
        assert shared == dict.fromkeys(range(places, 2 * places), 2)


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
    steering = Steering(3, ())
    group = steering.share_out(listener, 50)
    assert len(group) == 6
    seen = set()
    for number in range(1, 25):
        address = f"127.0.0.{number}"
        place = steering.place_of(address, 0)
        seen.add(place)
        clients = [socket.create_connection(listener.getsockname(), source_address=(address, 0)) for _ in range(2)]
        assert accepted(group) == [2 if each == place else 0 for each in range(6)]
        for client in clients:
            client.close()
    assert seen == {0, 1, 2}
    for each in group[1:]:
        each.close()


@on_linux
def test_the_kernel_brings_ipv6_clients_to_their_place() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        listener.setblocking(False)
        group = Steering(4, ()).share_out(listener, 50)
        assert len(group) == 8
        with socket.create_connection(listener.getsockname()[:2]):
            assert accepted(group).index(1) == Steering(4, ()).place_of("::1", 0)
        for each in group[1:]:
            each.close()


@on_linux
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1"])
def test_the_kernel_spreads_clients_of_this_machine(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    steering = Steering(3)
    seen = set()
    with socket.create_server(("::1" if ":" in address else "127.0.0.1", 0), family=family) as listener:
        listener.setblocking(False)
        group = steering.share_out(listener, 50)
        assert len(group) == 6
        for _ in range(30):
            with socket.create_connection(listener.getsockname()[:2], source_address=(address, 0)) as client:
                door = steering.door_of(address, client.getsockname()[1])
                assert accepted(group) == [1 if each == door else 0 for each in range(6)]
                seen.add(door)
        for each in group[1:]:
            each.close()
    assert seen == {3, 4, 5}


@on_linux
def test_the_program_may_name_as_many_networks_as_are_allowed() -> None:
    networks = [ip_network(f"2001:db8:{number:x}::7:0:0:0/127") for number in range(MOST_NETWORKS)]
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        group = Steering(2, tuple(networks)).share_out(listener, 50)
        assert len(group) == 4
        for each in group[1:]:
            each.close()


@on_linux
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a private network")
def test_the_kernel_tells_who_is_spread_from_who_is_not() -> None:
    program = """if True:
        import socket
        from ipaddress import ip_network
        from smtpf.process.steering import LOOPBACK, Steering
        fronts = ("10.9.8.6", "10.9.8.8/29", "fd00:0:0:5::/64", "fd00:0:0:6::/63", "fd00:0:0:8::1", "10.10.0.0/16", "fd01::/16")
        steering = Steering(4, (*LOOPBACK, *map(ip_network, fronts)))
        spread = {f"10.9.8.{number}" for number in (6, *range(8, 13))} | {f"fd00:0:0:{number}::1" for number in (5, 6, 7, 8)}
        for family, bound, addresses in (
            (socket.AF_INET, "0.0.0.0", [f"10.9.8.{number}" for number in range(1, 13)]),
            (socket.AF_INET6, "::", [f"fd00:0:0:{number}::1" for number in range(1, 9)]),
        ):
            with socket.create_server((bound, 0), family=family) as listener:
                listener.setblocking(False)
                group = steering.share_out(listener, 50)
                assert len(group) == 8
                homes = set()
                for address in addresses:
                    seen = set()
                    for _ in range(25):
                        with socket.create_connection((address, listener.getsockname()[1]), source_address=(address, 0)) as client:
                            door = steering.door_of(address, client.getsockname()[1])
                            group[door].accept()[0].close()
                            seen.add(door)
                    assert (len(seen) > 1) == (address in spread) == steering.spreads(address), address
                    homes |= seen if address not in spread else set()
                    assert (min(seen) > 3) == (address in spread)
                assert len(homes) > 1
    """
    network = "ip link set lo up && ip addr add 10.9.8.0/24 dev lo && "
    network += " && ".join(f"ip addr add fd00:0:0:{number}::1/128 dev lo" for number in range(1, 9))
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", f'{network} && exec "$@"', "sh", sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(Path(smtpf.__file__).parent.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@on_linux
def test_nobody_else_can_listen_there(listener: socket.socket) -> None:
    group = Steering(2).share_out(listener, 50)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(listener.getsockname())
    for each in group[1:]:
        each.close()


def test_a_socket_for_both_families_is_not_shared_out() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no socket for both families here")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert Steering(2).share_out(listener, 50) == (listener,)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="makes a socket of another user")
def test_a_socket_of_another_user_is_not_shared_out() -> None:
    os.seteuid(65534)
    try:
        listener = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(0)
    with listener:
        assert Steering(2).share_out(listener, 50) == (listener,)
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname()):
            assert accepted((listener,)) == [1]
