"""Nodes with real SQLite files and real connections on loopback: what each ends up knowing."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from smtpf.cache import network as net
from smtpf.cache import peers
from smtpf.cache.cluster import (
    ACCEPTED,
    CACHE_SECRET,
    CLUSTER_QUEUE_LIMIT,
    PEERS,
    Cluster,
    ClusterStartError,
    Load,
)
from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.records import Record
from smtpf.cache.store import Cache, cache_from
from smtpf.journal.journal import Entry, Journal
from smtpf.settings.store import Settings
from smtpf.stats.tables import Statistics

SECRET = "a secret of some length"


class NoNames:
    """Knows nobody."""

    async def addresses(self, host: str) -> tuple[Sequence[str], int]:
        raise OSError(2, f"no address of {host}")

    async def mail_exchangers(self, domain: str) -> tuple[Sequence[str], int]:
        raise OSError(2, f"no MX of {domain}")


class SomeNames(NoNames):
    """Knows what it is told."""

    def __init__(self, mx: dict[str, list[str]], addresses: dict[str, list[str]]) -> None:
        self.mx = mx
        self.known = addresses

    async def addresses(self, host: str) -> tuple[Sequence[str], int]:
        return self.known[host], 600

    async def mail_exchangers(self, domain: str) -> tuple[Sequence[str], int]:
        return self.mx[domain], 600


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Node:
    """One node: its cache, its part of the cluster, and its log."""

    def __init__(
        self, folder: Path, number: int, port: int, names: Any = None, now: Callable[[], float] = time.time, **options: Any
    ) -> None:
        from twisted.internet import reactor

        self.address = f"127.0.0.{number}"
        self.lines: list[Entry] = []
        self.journal = Journal(self.lines.append, pid=1)
        texts = {
            CACHE_PATH: str(folder / f"cache{number}.sq3"),
            CACHE_SECRET: SECRET,
            peers.CACHE_UNICAST_PORT: str(port),
            peers.CACHE_UNICAST_HOSTS: "127.0.0.1 127.0.0.2 127.0.0.3",
            net.CLUSTER_LISTEN: self.address,
        } | options.pop("texts", {})
        self.settings = Settings.of(texts)
        self.stats = Statistics(reactor)  # type: ignore[arg-type]
        self.cache: Cache = cache_from(self.settings, self.journal, reactor, now=now)  # type: ignore[arg-type]
        self.cluster = Cluster(
            self.cache,
            self.settings,
            self.journal,
            self.stats,
            reactor,
            names or NoNames(),
            name=f"node{number}.example",
            own_addresses={self.address},
            random=Random(number),
            **options,
        )

    async def start(self) -> None:
        self.cache.start()
        await self.cluster.start()

    async def stop(self) -> None:
        await self.cluster.stop()
        await until(lambda: not self.cluster._open)
        self.cache.stop()
        assert 539 not in self.numbers()

    async def value(self, key: str) -> str | None:
        record = await self.cache.read(key)
        return None if record is None else record.value

    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self.lines]


async def passed(seconds: float) -> None:
    from twisted.internet import reactor

    later: Deferred[None] = Deferred()
    reactor.callLater(seconds, later.callback, None)  # type: ignore[attr-defined]
    await later


async def until(true: Callable[[], bool | Awaitable[bool]], seconds: float = 15.0) -> None:
    """Let the reactor turn until ``true()``; a test that waits for nothing fails."""
    end = time.monotonic() + seconds
    while True:
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < end, "it never came to this"
        await passed(0.02)


def met(*nodes: Node) -> Callable[[], bool]:
    """Each of ``nodes`` is connected to all others, and has read their changes."""

    def check() -> bool:
        return all(len(node.cluster.peers) == len(nodes) - 1 and not node.cluster._syncing for node in nodes)

    return check


def all_hold(nodes: Sequence[Node], key: str, value: str | None) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return [await node.value(key) for node in nodes] == [value] * len(nodes)

    return check


async def rows_of(node: Node) -> list[Any]:
    def read(database: Any) -> list[Any]:
        return list(database.connection.execute("SELECT k, d, h, c, t, e, x FROM mcc ORDER BY k"))

    return await node.cache.in_thread(read, writes=False)


def test_three_nodes_share_puts_removals_and_counters(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    nodes = [Node(tmp_path, number, port) for number in (1, 2, 3)]

    async def work() -> None:
        for node in nodes:
            await node.start()
        await until(met(*nodes))
        one, two, three = nodes
        one.cache.put("rcpt:a@b.example", "2")
        await until(all_hold(nodes, "rcpt:a@b.example", "2"))
        found = two.cache.get("rcpt:a@b.example")
        found = await found if isinstance(found, Deferred) else found
        assert isinstance(found, Record)
        assert found.o == one.cache.node
        two.cache.delete("rcpt:a@b.example")
        await until(all_hold(nodes, "rcpt:a@b.example", None))
        for _ in range(3):
            for node in nodes:
                await node.cache.fetch("msg-limit:192.0.2.1")
                node.cache.increment("msg-limit:192.0.2.1", 600)
        await until(all_hold(nodes, "msg-limit:192.0.2.1", "9"))
        assert await three.cache.write("sav:x@y", "5") is not None
        await until(all_hold(nodes, "sav:x@y", "5"))
        assert all(node.stats.value(PEERS) == 2 for node in nodes)
        assert two.stats.value(ACCEPTED) > 0
        rows = one.cluster.active()
        assert {row.ip for row in rows} == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
        assert any(f"node={two.cache.node}" in str(row) and " q=0" in str(row) and "skew=0" in str(row) for row in rows)
        for node in nodes:
            await node.stop()

    reactor_run(work(), timeout=60)
    assert all(node.numbers().count(1100) == 2 for node in nodes)
    assert not [entry.text for node in nodes for entry in node.lines if entry.message.number in (539, 1102, 1103)]


def test_a_node_that_was_down_reads_what_it_missed_and_corrects_what_it_did_alone(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    nodes = [Node(tmp_path, number, port) for number in (1, 2, 3)]

    async def work() -> None:
        for node in nodes:
            await node.start()
        await until(met(*nodes))
        one, two, three = nodes
        one.cache.put("kept:1", "2")
        one.cache.put("removed:1", "2")
        await until(all_hold(nodes, "removed:1", "2"))
        await three.stop()
        await until(met(one, two))
        one.cache.delete("removed:1")
        for number in range(600):
            two.cache.put(f"missed:{number}", "2" * 300)
        one.cache.put("grey:k", "4")
        await until(all_hold([one, two], "grey:k", "4"))
        back = Node(tmp_path, 3, port)
        back.cache.start()
        # Alone, it makes a younger record of a key the others know.
        back.cache.put("grey:k", "5", ttl=7000)
        await back.cluster.start()
        nodes[2] = back
        await until(met(*nodes))
        await until(all_hold(nodes, "removed:1", None))
        await until(all_hold(nodes, "missed:599", "2" * 300))

        async def equal() -> bool:
            first = await rows_of(one)
            return len(first) == 603 and first == await rows_of(two) == await rows_of(back)

        await until(equal)
        assert 1104 in back.numbers()
        for node in nodes:
            await node.stop()

    reactor_run(work(), timeout=60)


def test_both_sides_of_a_partition_go_on_and_agree_when_it_heals(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    nodes = [Node(tmp_path, number, port) for number in (1, 2, 3)]
    wall = [False]
    for node in nodes:
        _put_wall(node, wall)

    async def work() -> None:
        for node in nodes:
            await node.start()
        await until(met(*nodes))
        one, two, three = nodes
        two.cache.put("shared:1", "2")
        await until(all_hold(nodes, "shared:1", "2"))
        wall[0] = True
        for node in nodes:
            for link in list(node.cluster._open):
                if "127.0.0.3" in (node.address, link.address):
                    link.abort("cut")
        await until(lambda: not three.cluster.peers and len(one.cluster.peers) == 1)
        one.cache.put("left:1", "2")
        three.cache.put("right:1", "5")
        one.cache.put("both:1", "4")
        three.cache.put("both:1", "0")
        three.cache.delete("shared:1")
        await until(all_hold([one, two], "both:1", "4"))
        assert await one.value("right:1") is None
        wall[0] = False
        await until(met(*nodes), 30)

        async def equal() -> bool:
            first = await rows_of(one)
            return len(first) == 4 and first == await rows_of(two) == await rows_of(three)

        await until(equal)
        assert await one.value("shared:1") is None
        assert await three.value("left:1") == "2"
        for node in nodes:
            await node.stop()

    reactor_run(work(), timeout=90)
    assert 1101 in nodes[2].numbers()


def _put_wall(node: Node, wall: list[bool]) -> None:
    """While ``wall[0]`` no new connection crosses between node 3 and the others."""
    made = node.cluster.make_link

    def make_link(address: str, dialler: Any) -> Any:
        if wall[0] and "127.0.0.3" in (node.address, address):
            return None
        return made(address, dialler)

    node.cluster.make_link = make_link  # type: ignore[method-assign]


def test_a_node_without_the_secret_is_refused(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    one = Node(tmp_path, 1, port)
    stranger = Node(tmp_path, 2, port, texts={CACHE_SECRET: "another secret, also long"})

    async def work() -> None:
        await one.start()
        await stranger.start()
        stranger.cache.put("evil:1", "2")
        await until(lambda: 1102 in one.numbers() or 1102 in stranger.numbers())
        await passed(0.2)
        assert one.cluster.peers == ()
        assert stranger.cluster.peers == ()
        assert await one.value("evil:1") is None
        await one.stop()
        await stranger.stop()

    reactor_run(work())


def test_octets_of_a_stranger_are_bounded_and_end_the_connection(tmp_path: Path, reactor_run: Any) -> None:
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

    port = free_port()
    one = Node(tmp_path, 1, port)
    lost: list[bool] = []

    class Stranger(Protocol):
        def connectionLost(self, reason: Any = None) -> None:
            lost.append(True)

    async def attack(octets: bytes) -> None:
        lost.clear()
        stranger = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Stranger())
        stranger.transport.write(octets)  # type: ignore[union-attr]
        await until(lambda: bool(lost))
        await passed(1.1)

    async def work() -> None:
        await one.start()
        await attack(b"\x00\x01a\x00\x10" * 2000)
        await attack(b"\x00\x04_ask\x00\x011\x00\x08_command\x00\x03Put\x00\x07records\x00\x00\x00\x00")
        await attack(b"GET / HTTP/1.1\r\n\r\n")
        await one.stop()

    reactor_run(work())
    assert one.numbers().count(1102) >= 2


def test_a_clock_too_far_off_is_refused_and_one_a_little_off_is_told(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    one = Node(tmp_path, 1, port)
    two = Node(tmp_path, 2, port, now=lambda: time.time() + 3600)
    three = Node(tmp_path, 3, port, now=lambda: time.time() + 20)

    async def work() -> None:
        for node in (one, two, three):
            await node.start()
        await until(lambda: one.cluster.peers == (three.cache.node,))
        await until(lambda: 1103 in one.numbers())
        assert two.cluster.peers == ()
        for node in (one, two, three):
            await node.stop()

    reactor_run(work())


def test_a_full_queue_is_dropped_and_made_up_for_by_a_resync(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    nodes = [Node(tmp_path, number, port, texts={CLUSTER_QUEUE_LIMIT: "100"}) for number in (1, 2)]

    async def work() -> None:
        for node in nodes:
            await node.start()
        await until(met(*nodes))

        def burst(database: Any) -> list[Record]:
            now = int(time.time())
            return [database.put(f"k:{number}", "2", now, now + 1000) for number in range(1000)]

        from smtpf.cache.store import Change

        records = await nodes[0].cache.in_thread(burst)
        nodes[0].cluster._changed([Change(record) for record in records])
        await until(lambda: 1105 in nodes[0].numbers())

        async def equal() -> bool:
            return len(await rows_of(nodes[1])) == 1000

        await until(equal)
        for node in nodes:
            await node.stop()

    reactor_run(work(), timeout=60)


def test_a_node_in_its_own_list_does_not_talk_to_itself(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    one = Node(tmp_path, 1, port)
    one.cluster._own = frozenset()

    async def work() -> None:
        await one.start()
        await until(lambda: any(dialler.ourselves for dialler in one.cluster._diallers.values()))
        await passed(1.3)
        assert one.cluster.peers == ()
        await one.stop()

    reactor_run(work())
    assert 1100 not in one.numbers()
    assert 1102 not in one.numbers()


def test_members_come_from_the_mx_of_a_domain_and_are_looked_up_again(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    names = SomeNames({"nodes.example": ["a.example", "b.example"]}, {"a.example": ["127.0.0.1"], "b.example": ["127.0.0.2"]})
    texts = {peers.CACHE_UNICAST_HOSTS: "", peers.CACHE_UNICAST_DOMAIN: "nodes.example"}
    nodes = [Node(tmp_path, number, port, names=names, texts=texts) for number in (1, 2)]

    async def work() -> None:
        for node in nodes:
            await node.start()
        await until(met(*nodes))
        names.mx["nodes.example"] = ["a.example"]
        names.mx.pop("nodes.example")
        names.mx["nodes.example"] = ["c.example"]
        names.known["c.example"] = ["127.0.0.9"]
        nodes[0].cluster._refresh()
        await until(lambda: set(nodes[0].cluster._diallers) == {("127.0.0.9", port)})
        for node in nodes:
            await node.stop()

    reactor_run(work())


@pytest.mark.parametrize(
    ("texts", "number"),
    [
        ({peers.CACHE_UNICAST_DOMAIN: "x.example"}, 174),
        ({peers.CACHE_UNICAST_DOMAIN: "x.example", peers.CACHE_UNICAST_HOSTS: ""}, 175),
        ({peers.CACHE_UNICAST_HOSTS: "host:port"}, 176),
        ({peers.CACHE_UNICAST_HOSTS: "127.0.0.1"}, 177),
        ({peers.CACHE_UNICAST_HOSTS: "unknown.example"}, 177),
        ({net.CLUSTER_LISTEN: "192.0.2.1"}, 177),
        ({CACHE_SECRET: "short"}, 1113),
        ({net.CLUSTER_TLS_CERT: "/etc/x.pem"}, 1112),
        ({peers.CACHE_MULTICAST_IP: "192.0.2.1"}, 176),
    ],
)
def test_options_that_make_no_cluster_are_told_and_end_the_start(
    tmp_path: Path, reactor_run: Any, texts: dict[Any, str], number: int
) -> None:
    node = Node(tmp_path, 1, free_port(), texts=texts)
    node.cache.start()
    with pytest.raises(ClusterStartError):
        reactor_run(node.cluster.start())
    assert node.numbers() == [number]
    reactor_run(node.cluster.stop())
    node.cache.stop()


def test_a_group_that_cannot_be_joined_ends_the_start(tmp_path: Path, reactor_run: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        texts = {peers.CACHE_MULTICAST_IP: "239.255.77.1", peers.CACHE_MULTICAST_PORT: str(taken.getsockname()[1])}
        node = Node(tmp_path, 1, free_port(), texts=texts)
        node.cache.start()
        with pytest.raises(ClusterStartError):
            reactor_run(node.cluster.start())
    assert node.numbers() == [1111]
    node.cache.stop()


def test_without_peers_nothing_listens_and_no_secret_is_needed(tmp_path: Path, reactor_run: Any) -> None:
    node = Node(tmp_path, 1, free_port(), texts={peers.CACHE_UNICAST_HOSTS: "", CACHE_SECRET: ""})
    reactor_run(node.start())
    assert (node.cluster.port, node.cache.observers, node.lines) == (0, [], [])
    reactor_run(node.stop())


def _authority(folder: Path) -> tuple[Path, Callable[[str, str], tuple[Path, Path]]]:
    """A certificate authority, and a function that makes a node's certificate and key."""
    now = datetime.datetime.now(datetime.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])

    def certificate(name: x509.Name, key: Any, address: str = "") -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not address, path_length=None), True)
        )
        if address:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), False)
        return builder.sign(ca_key, hashes.SHA256())

    authority = folder / "ca.pem"
    authority.write_bytes(certificate(ca_name, ca_key).public_bytes(serialization.Encoding.PEM))

    def make(name: str, address: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        made = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, address)
        (folder / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return folder / f"{name}.pem", folder / f"{name}.key"

    return authority, make


def test_with_certificates_members_are_proved_by_their_names(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    authority, make = _authority(tmp_path)

    def secured(number: int, certified: str) -> Node:
        cert, key = make(f"n{number}", certified)
        return Node(
            tmp_path,
            number,
            port,
            texts={
                CACHE_SECRET: "",
                net.CLUSTER_TLS_CERT: str(cert),
                net.CLUSTER_TLS_KEY: str(key),
                net.CLUSTER_TLS_CA: str(authority),
            },
        )

    one, two, liar = secured(1, "127.0.0.1"), secured(2, "127.0.0.2"), secured(3, "127.0.0.77")

    async def work() -> None:
        for node in (one, two, liar):
            await node.start()
        await until(lambda: one.cluster.peers == (two.cache.node,) and two.cluster.peers == (one.cache.node,))
        one.cache.put("a:b", "2")
        await until(all_hold([one, two], "a:b", "2"))
        await until(lambda: 1102 in one.numbers() or 1102 in two.numbers())
        assert liar.cluster.peers == ()
        assert await liar.value("a:b") is None
        for node in (one, two, liar):
            await node.stop()

    reactor_run(work(), timeout=60)


def test_nodes_find_each_other_by_announcement(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    texts = {
        peers.CACHE_UNICAST_HOSTS: "",
        peers.CACHE_MULTICAST_IP: "239.255.77.1",
        peers.CACHE_MULTICAST_PORT: str(port),
        net.CLUSTER_LISTEN: "",
    }
    nodes = [Node(tmp_path, number, port, texts=texts | {peers.CACHE_UNICAST_PORT: str(free_port())}) for number in (1, 2)]

    async def work() -> None:
        try:
            for node in nodes:
                await node.start()
        except ClusterStartError:
            for node in nodes:
                await node.cluster.stop()
            pytest.skip("no multicast on this machine")
        try:
            await until(met(*nodes), 5)
        except AssertionError:
            # Where nothing carries the announcements they are handed over here, as they stand.
            nodes[1].cluster._discovery.datagramReceived(nodes[0].cluster._announcement(), ("127.0.0.1", port))  # type: ignore[union-attr]
            await until(met(*nodes))
        nodes[0].cache.put("a:b", "2")
        await until(all_hold(nodes, "a:b", "2"))
        for node in nodes:
            await node.stop()

    reactor_run(work(), timeout=60)


def test_how_busy_a_node_is_reaches_the_others_table(tmp_path: Path, reactor_run: Any) -> None:
    port = free_port()
    load = Load("10,20,30", 99, 5, "7/1/64", "3/9", 12)
    one, two = Node(tmp_path, 1, port, load=lambda: load), Node(tmp_path, 2, port)

    async def work() -> None:
        await one.start()
        await two.start()
        await until(met(one, two))
        one.cluster._timers["tell"].cancel()
        one.cluster._tell()
        next(iter(one.cluster._primary.values()))._send_ping()
        await until(lambda: any("la=10,20,30 ut=99 tc=5 arv=7/1/64 of=3/9 cap=12" in str(row) for row in two.cluster.active()))
        await until(lambda: any(" ly=0." in str(row) for row in one.cluster.active()))
        await one.stop()
        await two.stop()

    reactor_run(work())
