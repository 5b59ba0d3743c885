"""Whole clusters without sockets, by a clock of the test's own: timeouts, partitions and histories drawn by chance."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionAborted, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump

from smtpf.cache import link as linking
from smtpf.cache import peers, replica
from smtpf.cache.cluster import CACHE_SECRET, DROPPED, Cluster
from smtpf.cache.link import Link
from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.records import Record
from smtpf.cache.store import Cache, CacheError, cache_from
from smtpf.journal.journal import Entry, Journal
from smtpf.settings.store import Settings
from smtpf.stats.tables import Statistics

NOW = 1_000_000
SECRET = "a secret of some length"


class Wire(FakeTransport):
    """A transport in memory which counts how often reading was paused."""

    paused = 0

    aborted = False

    def abortConnection(self) -> None:
        """Like TCP's: this end knows at once, whatever the network does."""
        self.aborted = True

    def report_abort(self) -> bool:
        if not self.aborted or self.disconnected:
            return False
        self.disconnected = True
        self.protocol.connectionLost(Failure(ConnectionAborted()))
        return True

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.paused -= 1 if self.paused else 0


class Air:
    """The network between the nodes of one test; ``cut`` holds pairs of addresses that cannot reach each other."""

    def __init__(self) -> None:
        self.factories: dict[str, Any] = {}
        self.cut: set[frozenset[str]] = set()
        self.wires: list[tuple[frozenset[str], IOPump]] = []

    def at(self, address: str) -> Place:
        return Place(self, address)

    def flush(self) -> bool:
        moved = False
        for ends, pump in self.wires:
            near, far = pump.clientIO, pump.serverIO
            moved |= near.report_abort() | far.report_abort()
            if ends not in self.cut:
                if near.disconnected or far.disconnected:
                    near.aborted = far.aborted = True
                    moved |= near.report_abort() | far.report_abort()
                elif pump.pump():
                    moved = True
        return moved


class Place:
    """The network as one node sees it."""

    tls = False

    def __init__(self, air: Air, address: str) -> None:
        self._air = air
        self.address = address

    async def listen(self, port: int, factory: Any) -> Any:
        self._air.factories[self.address] = factory
        return Listening(self._air, self.address, port)

    async def dial(self, address: str, port: int, factory: Any) -> Any:
        ends = frozenset({self.address, address})
        listening = self._air.factories.get(address)
        if ends in self._air.cut or listening is None:
            raise ConnectionRefusedError
        server = listening.buildProtocol(Peer(self.address))
        if server is None:
            raise ConnectionRefusedError
        client = factory.buildProtocol(None)
        near, far = Wire(client, isServer=False), Wire(server, isServer=True)
        near.hostAddr = far.hostAddr = None
        self._air.wires.append((ends, IOPump(client, server, near, far, False)))
        server.makeConnection(far)
        client.makeConnection(near)
        return client


class Peer:
    def __init__(self, host: str) -> None:
        self.host = host


class Listening:
    def __init__(self, air: Air, address: str, port: int) -> None:
        self._air, self._address, self.port = air, address, port

    def getHost(self) -> Any:
        return self

    def stopListening(self) -> None:
        del self._air.factories[self._address]


class Names:
    async def addresses(self, host: str) -> tuple[Sequence[str], int]:
        raise OSError(2, host)

    async def mail_exchangers(self, domain: str) -> tuple[Sequence[str], int]:
        raise OSError(2, domain)


class Node:
    def __init__(self, world: World, number: int, folder: Path) -> None:
        self.address = f"192.0.2.{number}"
        self.lines: list[Entry] = []
        texts = {
            CACHE_PATH: str(folder / f"{number}.sq3"),
            CACHE_SECRET: SECRET,
            peers.CACHE_UNICAST_HOSTS: " ".join(f"192.0.2.{other}" for other in range(1, world.size + 1)),
        }
        journal, settings = Journal(self.lines.append, pid=1), Settings.of(texts)
        self.stats = Statistics(world.clock)
        self.cache: Cache = cache_from(settings, journal, None, now=world.clock.seconds)
        self.cluster = Cluster(
            self.cache,
            settings,
            journal,
            self.stats,
            world.clock,
            Names(),
            name=f"node{number}.example",
            own_addresses={self.address},
            network=world.air.at(self.address),
            random=Random(number),
        )
        self.cache.start()

    def start(self) -> None:
        ensureDeferred(self.cluster.start())

    @property
    def link(self) -> Link:
        return next(iter(self.cluster._primary.values()))

    def rows(self) -> list[Any]:
        found = self.cache.in_thread(
            lambda database: database.connection.execute("SELECT k, d, h, c, t, e, x FROM mcc ORDER BY k").fetchall(), writes=False
        )
        return found.result  # type: ignore[no-any-return, attr-defined]

    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self.lines]


class World:
    """Some nodes, the air between them, and the time."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        self.clock = Clock()
        self.clock.advance(NOW)
        self.air = Air()
        self.nodes = [Node(self, number, folder) for number in range(1, size + 1)]

    def start(self) -> None:
        for node in self.nodes:
            node.start()
            self.go(1.5)

    def go(self, seconds: float) -> None:
        """Let everything happen that happens within ``seconds``."""
        end = self.clock.seconds() + seconds
        while True:
            self.clock.advance(0)
            while self.air.flush():
                self.clock.advance(0)
            left = end - self.clock.seconds()
            if left <= 1e-6:
                return
            self.clock.advance(min(0.5, left))

    def settle(self) -> None:
        self.go(150)


@pytest.fixture
def world(tmp_path: Path) -> Callable[[int], World]:
    def make(size: int) -> World:
        made = World(tmp_path, size)
        made.start()
        return made

    return make


def test_nodes_meet_and_keep_one_connection_for_each_pair(world: Callable[[int], World]) -> None:
    three = world(3)
    three.settle()
    for node in three.nodes:
        assert len(node.cluster.peers) == 2
        assert len(node.cluster._open) == 2
    assert not {539, 1102} & {number for node in three.nodes for number in node.numbers()}


def test_silence_of_a_peer_ends_the_connection_within_a_minute(world: Callable[[int], World]) -> None:
    two = world(2)
    one = two.nodes[0]
    two.air.cut.add(frozenset(node.address for node in two.nodes))
    two.go(60)
    assert one.cluster.peers == ()
    down = [entry.text for entry in one.lines if entry.message.number == 1101]
    assert down == ["#1101 cluster peer node2.example [192.0.2.2] down: no answer to Sync"]


def test_hello_must_come_within_ten_seconds(world: Callable[[int], World]) -> None:
    lonely = world(2)
    lonely.settle()
    one = lonely.nodes[0]
    silent = one.cluster.make_link("192.0.2.99", None)
    assert silent is not None
    wire = Wire(silent, isServer=True)
    silent.makeConnection(wire)
    lonely.clock.advance(9.9)
    assert not wire.aborted
    lonely.clock.advance(0.2)
    assert wire.aborted
    assert one.lines[-1].text == "#1102 cluster peer [192.0.2.99] rejected: no Hello in time"


def test_connections_from_one_address_are_taken_once_a_second(world: Callable[[int], World]) -> None:
    one = world(2).nodes[0]
    assert one.cluster.make_link("192.0.2.98", None) is not None
    assert one.cluster.make_link("192.0.2.98", None) is None
    assert one.cluster.make_link("192.0.2.97", None) is not None


def test_busy_peer_is_tried_five_times_and_then_resynced(world: Callable[[int], World]) -> None:
    two = world(2)
    two.settle()
    one, other = two.nodes
    asked: list[float] = []
    received = other.cluster.received

    def busy(link: Link, records: Any) -> Deferred[Any]:
        asked.append(two.clock.seconds())
        failed: Deferred[Any] = Deferred()
        failed.errback(Failure(CacheError("locked")))
        return failed

    other.cluster.received = busy  # type: ignore[method-assign]
    one.cache.put("a:b", "2")
    two.go(5.8)
    other.cluster.received = received  # type: ignore[method-assign]
    assert len(asked) == linking.BUSY_TRIES + 1
    assert 1105 in one.numbers()
    assert one.stats.value(DROPPED) == 1
    two.go(3)
    assert [row[0] for row in other.rows()] == [b"a:b"]


def test_reading_pauses_while_too_much_waits_to_be_applied(world: Callable[[int], World]) -> None:
    two = world(2)
    one, other = two.nodes
    waiting: list[tuple[Any, Any, Deferred[Any]]] = []
    received = other.cluster.received

    def slow(link: Link, records: Any) -> Deferred[Any]:
        waiting.append((link, records, Deferred()))
        return waiting[-1][2]

    other.cluster.received = slow  # type: ignore[method-assign]
    boxes = [{"k": b"k", "v": b"", "h": 1, "c": 1, "t": 1, "e": 2**40, "o": b"", "x": False, "f": False}]
    wire: Any = other.link.transport
    for _ in range(40):
        other.link._put(boxes * 50)
    assert wire.paused == 0
    other.link._put(boxes * 50)
    assert wire.paused == 1
    for link, records, answer in waiting:
        received(link, records).chainDeferred(answer)
    assert wire.paused == 0
    del one


def test_a_peer_that_sends_too_fast_is_read_more_slowly(world: Callable[[int], World]) -> None:
    two = world(2)
    other = two.nodes[1]
    wire: Any = other.link.transport
    two.clock.advance(5)
    other.link._took(4000)
    other.link._applied(4000)
    assert wire.paused == 0
    other.link._took(1000)
    other.link._applied(1000)
    assert wire.paused == 1
    two.clock.advance(0.51)
    assert wire.paused == 0


def test_a_repeated_add_is_counted_once(world: Callable[[int], World]) -> None:
    two = world(2)
    other = two.nodes[1]
    key = b"msg-limit:x"
    for sequence in (1, 1, 2, 1):
        ensureDeferred(other.link._added(key.decode(), 1, NOW + 600, "11" * 16, sequence))
    assert [(row[0], row[1]) for row in other.rows()] == [(key, b"2")]


def test_a_node_alone_for_more_than_a_day_does_not_bring_back_what_was_removed(world: Callable[[int], World]) -> None:
    two = world(2)
    one, other = two.nodes
    one.cache.put("a:b", "2", ttl=10 * 86400)
    one.cache.put("c:d", "2", ttl=10 * 86400)
    two.go(70)
    assert len(other.rows()) == 2
    ends = frozenset({one.address, other.address})
    two.air.cut.add(ends)
    two.go(70)
    one.cache.delete("a:b")
    two.clock.advance(100_000)
    two.go(1)
    ensureDeferred(one.cache.expire())
    assert len(one.rows()) == 1
    other.cache.get("a:b")
    assert isinstance(other.cache.get("a:b"), Record)
    two.air.cut.clear()
    two.settle()
    assert one.cluster.peers == (other.cache.node,)
    assert [row[0] for row in one.rows()] == [row[0] for row in other.rows()]
    other.cache.get("a:b")
    assert other.cache.get("a:b") is None


def test_connected_nodes_read_on_so_that_a_resync_begins_there(world: Callable[[int], World]) -> None:
    two = world(2)
    two.settle()
    one, other = two.nodes
    for number in range(20):
        one.cache.put(f"k:{number}", "2")
    for _ in range(3):
        one.cache.put("k:0", "2")
    two.go(1)
    assert other.rows() != one.rows()
    two.go(11)
    assert other.rows() == one.rows()
    reached = other.cache.in_thread(lambda database: replica.position(database, one.cache.node), writes=False).result
    assert reached.n == one.cache.last
    assert not any("records=20" in entry.text for entry in other.lines)


def test_replaced_cache_file_is_read_again_from_the_others(world: Callable[[int], World]) -> None:
    two = world(2)
    one, other = two.nodes
    for number in range(10):
        one.cache.put(f"k:{number}", "2")
    two.go(1)
    assert len(other.rows()) == 10
    database: Any = other.cache._database
    other.cache._opener._replace(database, OSError("test"), keep=False)
    assert len(other.rows()) == 0
    two.go(61)
    assert other.rows() == one.rows()


def test_second_node_with_the_same_id_is_refused(world: Callable[[int], World], tmp_path: Path) -> None:
    three = world(2)
    one, other = three.nodes
    three.size = 3
    (tmp_path / "twin").mkdir()
    twin = Node(three, 3, tmp_path / "twin")
    twin.cache._database.node = other.cache.node
    twin.start()
    three.go(5)
    assert one.cluster.peers == (other.cache.node,)
    assert any(f"DuplicateNode {other.cache.node}" in entry.text for entry in one.lines)


def test_what_two_operators_put_at_once_is_the_same_everywhere(world: Callable[[int], World]) -> None:
    three = world(3)
    three.settle()
    first, second, third = three.nodes
    for value, other in (("5 one", "2 other"), ("2 one", "5 other")):
        first.cache.write("grey:k", value)
        second.cache.write("grey:k", other)
        three.go(2)
        assert first.rows() == second.rows() == third.rows()
        assert first.rows()[0][1].startswith(b"5")
    first.cache.write("grey:k", "5")
    second.cache.remove("grey:k")
    three.go(2)
    assert first.rows() == second.rows() == third.rows()


def test_what_an_operator_puts_again_in_the_same_second_counts_everywhere(world: Callable[[int], World]) -> None:
    two = world(2)
    two.settle()
    one, other = two.nodes
    for value in ("5", "2", "0"):
        one.cache.write("grey:k", value)
        two.go(0)
    assert one.rows() == other.rows()
    assert one.rows()[0][1] == b"0"
    other.cache.remove("grey:k")
    two.go(0)
    assert one.rows() == other.rows()
    assert one.rows()[0][-1]


def test_what_an_operator_puts_wins_over_what_a_filter_puts_elsewhere_at_the_same_time(world: Callable[[int], World]) -> None:
    three = world(3)
    three.settle()
    first, second, third = three.nodes
    for number in range(3):
        second.cache.put("grey:k", f"4 {number}")
    first.cache.write("grey:k", "2 by hand")
    three.go(2)
    assert first.rows() == second.rows() == third.rows()
    assert first.rows()[0][1] == b"2 by hand"


@pytest.mark.parametrize("seed", range(4))
def test_operators_at_once_on_all_nodes_leave_equal_rows(world: Callable[[int], World], seed: int) -> None:
    random = Random(seed)
    three = world(3)
    three.settle()
    for number in range(40):
        for _ in range(random.randrange(5)):
            cache = random.choice(three.nodes).cache
            if random.random() < 0.3:
                cache.remove("grey:k")
            else:
                cache.write("grey:k", f"{random.choice('025')} {number}")
        three.go(random.choice([0.5, 2, 70]))
        first, second, third = (node.rows() for node in three.nodes)
        assert first == second == third


@pytest.mark.parametrize("seed", range(4))
def test_an_operator_here_and_filters_there_leave_equal_rows(world: Callable[[int], World], seed: int) -> None:
    random = Random(seed)
    three = world(3)
    three.settle()
    for number in range(40):
        here, there, _ = random.sample(three.nodes, 3)
        deeds = [there] * random.randrange(3) + [here] * random.randrange(2)
        random.shuffle(deeds)
        for place, node in enumerate(deeds):
            if node is there:
                node.cache.put("grey:k", f"{random.choice('045')} {number}.{place}")
            elif random.random() < 0.3:
                node.cache.remove("grey:k")
            else:
                node.cache.write("grey:k", f"{random.choice('025')} {number}.{place}")
        three.go(random.choice([0.5, 2, 70]))
        first, second, third = (node.rows() for node in three.nodes)
        assert first == second == third


@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_changes_cuts_and_restarts_ends_with_equal_nodes(seed: int) -> None:
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        some = World(Path(folder), 3)
        some.start()
        keys = [f"grey:{number}" for number in range(6)]
        pairs = [frozenset({a.address, b.address}) for a in some.nodes for b in some.nodes if a is not b]
        for _ in range(120):
            node = random.choice(some.nodes)
            deed = random.random()
            if deed < 0.55:
                node.cache.put(random.choice(keys), random.choice("0245"))
            elif deed < 0.75:
                node.cache.delete(random.choice(keys))
            elif deed < 0.85:
                some.air.cut.add(random.choice(pairs))
            elif deed < 0.93:
                some.air.cut.clear()
            elif node.cluster._primary:
                random.choice(list(node.cluster._open)).abort("cut")
            some.go(random.choice([0, 0.5, 3, 40]))
        some.air.cut.clear()
        some.settle()
        assert all(len(node.cluster.peers) == 2 for node in some.nodes)
        for node in some.nodes:
            for link in list(node.cluster._primary.values()):
                link.ask_for_resync()
            some.go(2)
        first, second, third = (node.rows() for node in some.nodes)
        assert first == second == third
        assert not {539, 1102} & {number for node in some.nodes for number in node.numbers()}
        for node in some.nodes:
            node.cache.stop()
