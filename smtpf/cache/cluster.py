"""The cluster: this node and the others, each with a cache of its own, all of them told of every change.

Nothing here is ever waited for by mail: each node reads its own cache only, changes are told afterwards, and what a
node missed it reads when it is connected again. Source: spec chapter operations, section 2.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory, Factory
from twisted.python.failure import Failure

from smtpf.cache import replica
from smtpf.cache.activity import OURSELVES, Activity, Row
from smtpf.cache.amp_commands import PROTOCOL_VERSION, Busy, ClockSkew, DuplicateNode, NotAuthorised
from smtpf.cache.conflict import Ruling
from smtpf.cache.dialler import Dialler
from smtpf.cache.discovery import Beacon, Discovery, beacon, read_beacon
from smtpf.cache.link import Greeting, Link
from smtpf.cache.network import Network, NetworkError, network_of, shows_one_of
from smtpf.cache.outbox import Damping, Item
from smtpf.cache.peers import (
    CACHE_MULTICAST_TTL,
    DOMAIN_ERROR,
    MOST_PEERS,
    Member,
    Names,
    PeersError,
    Plan,
    members_of,
    plan_of,
)
from smtpf.cache.records import TOMBSTONE_LIFE
from smtpf.cache.replica import Applied, Page, Position, Received
from smtpf.cache.resync import Tally, resync
from smtpf.cache.signing import SHORTEST_SECRET
from smtpf.cache.store import CacheError, Change, FileCache
from smtpf.journal.message import err, info, warn
from smtpf.settings.option import Number, Text
from smtpf.stats.counter import Counter, Group, Kind

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings
    from smtpf.stats.tables import Statistics

CACHE_SECRET = Text(
    "cache-secret",
    "",
    "Secret that all nodes of a cluster share, at least 16 characters. It proves who belongs to it; it does not hide what they say.",
    choices="shared secret",
    area="cache",
    secret=True,
)
CLUSTER_QUEUE_LIMIT = Number(
    "cluster-queue-limit",
    10000,
    "Changes that may wait to be sent to one node. When there are more they are dropped and the node reads what it missed.",
    choices="records",
    least=1,
    runtime=False,
    since="modern",
    area="cache",
)
CLUSTER_MAX_SKEW = Number(
    "cluster-max-skew",
    60,
    "By how much the clocks of two nodes may differ. A node that is further off is refused and works alone.",
    choices="seconds",
    least=0,
    since="modern",
    area="cache",
)

PEER_UP = info(1100, "cluster peer %s [%s] up node=%s", "Another node of the cluster is connected.", since="modern")
PEER_DOWN = warn(
    1101,
    "cluster peer %s [%s] down: %s",
    "The connection to another node ended. It is tried again, and what was missed is read then.",
    since="modern",
)
PEER_REJECTED = err(
    1102,
    "cluster peer [%s] rejected: %s",
    "Somebody on the cluster port is no member of this cluster, or not as it should be. Check cache-secret and certificates on both nodes.",
    since="modern",
)
PEER_SKEW = warn(
    1103,
    "cluster peer %s [%s] clock skew %ld seconds",
    "The clocks of the two nodes differ. Have both set their clocks by NTP; beyond cluster-max-skew the node is refused.",
    since="modern",
)
SYNCED = info(
    1104,
    "cluster sync from %s records=%lu accepted=%lu corrected=%lu",
    "This node has read what it missed from another one.",
    since="modern",
)
OVERFLOW = warn(
    1105,
    "cluster queue overflow for %s, resync scheduled",
    "More changes waited for a node than cluster-queue-limit. They were dropped; the node will read them from the cache.",
    since="modern",
)
GROUP_ERROR = err(
    1111,
    "cache-multicast-ip=%s error: %s (%d)",
    "The multicast group could not be joined. The node does not start.",
    since="modern",
)
SECRET_TOO_SHORT = err(
    1113,
    "cache-secret too short for clustering",
    "Without certificates, and for announcements, a secret of 16 or more characters is needed. The node does not start.",
    since="modern",
)

SENT = Counter("cluster-sent", Group.GENERAL, "Records told to other nodes.", since="modern")
RECEIVED = Counter("cluster-received", Group.GENERAL, "Records told by other nodes.", since="modern")
ACCEPTED = Counter("cluster-accepted", Group.GENERAL, "Records of other nodes that replaced or added a row here.", since="modern")
CORRECTED = Counter("cluster-corrected", Group.GENERAL, "Records of other nodes that were answered with a better one.", since="modern")
DROPPED = Counter("cluster-dropped", Group.GENERAL, "Records dropped from a full queue; a resync makes up for them.", since="modern")
PEERS = Counter("cluster-peers", Group.GENERAL, "Nodes connected now.", Kind.GAUGE, since="modern")

TELL_SECONDS = 60.0
"""Between two Status, and between two notes of who is there."""
READ_ON_SECONDS = 10.0
"""Between two readings of what peers changed, most of which they have told. The shorter, the less there is to read after an interruption;
it costs the same, since each change is read once."""
SKEW_WORTH_TELLING = 5
RESOLVE_SECONDS = 300
"""Shortest time between two look-ups of the members."""
STRANGERS = 128
"""Connections that have not said Hello yet."""
SOURCES = 1024
"""Addresses whose last attempt, or announcement, is remembered."""
REDUNDANT = "another connection to this node is kept"


class ClusterStartError(Exception):
    """The cluster cannot work as configured; the reason has been logged."""


@attrs.frozen
class Load:
    """How busy this node is, in the words of Status (spec chapter operations, 2.8)."""

    la: str = "0,0,0"
    ut: int = 0
    tc: int = 0
    arv: str = "0/0/0"
    of: str = "0/0"
    cap: int = 0


class Cluster:
    """This node's part of the cluster. Without peers in the options it does nothing at all."""

    def __init__(
        self,
        cache: FileCache,
        settings: Settings,
        journal: Journal,
        stats: Statistics,
        reactor: Any,
        names: Names,
        *,
        name: str,
        own_addresses: Collection[str] = (),
        load: Callable[[], Load] = Load,
        network: Network | None = None,
        random: Random | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """``name`` is this node's host name. ``network`` None: by the options."""
        self.activity = Activity()
        self._cache = cache
        self._settings = settings
        self._journal = journal
        self._stats = stats
        self._reactor = reactor
        self._names = names
        self._name = name
        self._own = frozenset(own_addresses)
        self._load = load
        self._network = network
        self._random = random or Random()
        self._random_bytes = random_bytes
        self._damping = Damping()
        self._plan = Plan()
        self._links: dict[str, list[Link]] = {}
        self._primary: dict[str, Link] = {}
        self._open: set[Link] = set()
        self._diallers: dict[tuple[str, int], Dialler] = {}
        self._reached: dict[str, Position] = {}
        self._syncing: dict[Link, bool] = {}
        self._members: tuple[Member, ...] = ()
        self._discovered: OrderedDict[str, None] = OrderedDict()
        self._attempts: OrderedDict[str, float] = OrderedDict()
        self._discovery: Discovery | None = None
        self._listening: Any = None
        self._timers: dict[str, IDelayedCall] = {}
        self._epoch = 0
        self._refreshed = 0.0
        self._stopped = False

    # Starting and stopping

    async def start(self) -> None:
        """Listen, and connect to the members. The cache is open. Raises ClusterStartError, logged."""
        try:
            self._plan = plan_of(self._settings, self._journal)
            if self._network is None:
                self._network = self._made_network()
        except (PeersError, NetworkError) as error:
            raise ClusterStartError(str(error)) from error
        if not self._plan.wanted:
            return
        if (not self._network.tls or self._plan.group) and len(self._secret()) < SHORTEST_SECRET:
            self._journal.write(SECRET_TOO_SHORT)
            raise ClusterStartError("cache-secret")
        self._epoch = self._cache.epoch
        if self._plan.group:
            self._start_discovery(self._plan.group)
        await self._start_listening()
        self._cache.observers.append(self._changed)
        for member in self._members:
            self._dial(member)
        self._later("tell", TELL_SECONDS, self._tell)
        self._later("read on", READ_ON_SECONDS, self._read_on)

    def configure(self, settings: Settings) -> None:
        """New options: secret and skew count for new connections."""
        self._settings = settings

    async def stop(self) -> None:
        """Close all connections."""
        self._stopped = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for dialler in self._diallers.values():
            dialler.stop()
        if self._changed in self._cache.observers:
            self._cache.observers.remove(self._changed)
        if self._discovery is not None:
            await _maybe(self._discovery.stop())
        if self._listening is not None:
            await _maybe(self._listening.stopListening())
        for link in list(self._open):
            link.abort("this node stops")

    @property
    def port(self) -> int:
        """TCP port listened on; 0 when there is no cluster."""
        return int(self._listening.getHost().port) if self._listening is not None else 0

    @property
    def peers(self) -> tuple[str, ...]:
        """Ids of the nodes connected now."""
        return tuple(self._primary)

    def active(self) -> list[Row]:
        """The table of CACHE ACTIVE."""
        now = self._reactor.seconds()
        for link in self._primary.values():
            self.activity.note(link.address, now, q=str(len(link.outbox)), skew=str(link.skew))
        return self.activity.rows(now)

    def _made_network(self) -> Network:
        try:
            return network_of(self._settings, self._journal, self._reactor)
        except NetworkError:
            raise
        except Exception as error:
            # Unreadable PEM files: OSError, ValueError, or one of OpenSSL's own.
            self._journal.write(self._plan.message, str(error) or type(error).__name__, getattr(error, "errno", 0) or 0)
            raise NetworkError(str(error)) from error

    def _start_discovery(self, group: tuple[str, int]) -> None:
        discovery = Discovery(self._reactor, group, self._settings[CACHE_MULTICAST_TTL], self._announcement, self._read_beacon, self._found)
        try:
            discovery.start()
        except (OSError, CannotListenError) as error:
            self._journal.write(GROUP_ERROR, group[0], error, getattr(error, "errno", 0) or 0)
            raise ClusterStartError(str(error)) from error
        self._discovery = discovery

    async def _start_listening(self) -> None:
        assert self._network is not None
        try:
            await self._look_up_members()
            self._listening = await self._network.listen(self._plan.port, _Inbound(self))
        except (OSError, CannotListenError) as error:
            number = getattr(error, "errno", 0) or getattr(getattr(error, "socketError", None), "errno", 0) or 0
            self._journal.write(self._plan.message, getattr(error, "strerror", None) or str(error), number)
            if self._discovery is not None:
                await _maybe(self._discovery.stop())
            raise ClusterStartError(str(error)) from error

    def _secret(self) -> bytes:
        return self._settings[CACHE_SECRET].encode("utf-8", "surrogateescape")

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if not self._stopped:
            self._timers[name] = self._reactor.callLater(seconds, call)

    def _background(self, work: Any) -> None:
        ensureDeferred(work).addErrback(self.failed)

    # Members

    async def _look_up_members(self) -> None:
        self._refreshed = self._reactor.seconds()
        members, ttl = await members_of(self._plan, self._names, self._own)
        self._members = members
        self._later("members", max(RESOLVE_SECONDS, ttl), self._refresh)

    def _refresh(self) -> None:
        timer = self._timers.pop("members", None)
        if timer is not None and timer.active():
            timer.cancel()
        if not self._stopped:
            self._background(self._refresh_members())

    async def _refresh_members(self) -> None:
        try:
            await self._look_up_members()
        except OSError as error:
            self._journal.write(DOMAIN_ERROR if self._plan.domain else self._plan.message, error.strerror or str(error), error.errno or 0)
            self._later("members", RESOLVE_SECONDS, self._refresh)
            return
        wanted = {(member.address, member.port) for member in self._members}
        for place, dialler in list(self._diallers.items()):
            if place not in wanted and not dialler.discovered:
                del self._diallers[place]
                dialler.stop()
                for link in list(self._open):
                    if link.dialled is dialler or link.address == place[0]:
                        link.abort("no longer a member")
        for member in self._members:
            if (member.address, member.port) not in self._diallers and not self._stopped:
                self._dial(member)

    def _dial(self, member: Member, discovered: bool = False) -> None:
        dialler = Dialler(
            member,
            self._reactor,
            self._random,
            self._connect,
            lambda dialler: not dialler.node or dialler.node not in self._primary,
            discovered=discovered,
            gave_up=self._gave_up,
        )
        self._diallers[member.address, member.port] = dialler
        dialler.start()

    def _gave_up(self, dialler: Dialler) -> None:
        self._diallers.pop((dialler.member.address, dialler.member.port), None)

    def _connect(self, dialler: Dialler) -> Awaitable[object]:
        assert self._network is not None
        return self._network.dial(dialler.member.address, dialler.member.port, _Outbound(self, dialler))

    def make_link(self, address: str, dialler: Dialler | None) -> Link | None:
        """A link for a new connection; None when it is not wanted."""
        if self._stopped or (dialler is None and not self._admitted(address)):
            return None
        assert self._network is not None
        link = Link(
            self,
            self._reactor,
            address=address,
            is_client=dialler is not None,
            secret=None if self._network.tls else self._secret(),
            random_bytes=self._random_bytes,
            queue_limit=self._settings[CLUSTER_QUEUE_LIMIT],
            dialled=dialler,
        )
        self._open.add(link)
        return link

    def _admitted(self, address: str) -> bool:
        now = self._reactor.seconds()
        last = self._attempts.get(address)
        if last is not None and now - last < 1.0:
            return False
        self._attempts[address] = now
        self._attempts.move_to_end(address)
        if len(self._attempts) > SOURCES:
            self._attempts.popitem(last=False)
        return sum(not link.ready for link in self._open) < STRANGERS

    # Announcements

    def _announcement(self) -> bytes:
        return beacon(self._cache.node, self._name, self.port or self._plan.port, self._cache.now(), self._secret())

    def _read_beacon(self, datagram: bytes) -> Beacon | None:
        return read_beacon(datagram, self._secret(), self._cache.now(), self._settings[CLUSTER_MAX_SKEW], self._cache.node)

    def _found(self, heard: Beacon, source: str) -> None:
        self._discovered[source] = None
        self._discovered.move_to_end(source)
        if len(self._discovered) > SOURCES:
            self._discovered.popitem(last=False)
        place = (source, heard.port)
        if heard.node not in self._primary and place not in self._diallers and len(self._diallers) < MOST_PEERS and not self._stopped:
            self._dial(Member(source, source, heard.port), discovered=True)

    # What links ask (link.Host)

    def greeting(self, node: str) -> Greeting:
        reached = self._reached.get(node, Position())
        clock = int(self._cache.precise_now() * 1000)
        return Greeting(
            PROTOCOL_VERSION, self._cache.node, self._name, self._cache.epoch, clock, self._cache.last, reached.epoch, reached.n
        )

    def judge(self, link: Link, greeting: Greeting) -> None:
        assert self._network is not None
        if greeting.node == self._cache.node:
            if link.is_client:
                if isinstance(link.dialled, Dialler):
                    link.dialled.ourselves = True
                link.abort("ourselves")
            return
        if self._network.tls and not shows_one_of(link.transport, self._names_of(link)):
            raise NotAuthorised("certificate has none of the names of the cluster")
        skew = round(greeting.clock / 1000 - self._cache.precise_now())
        link.skew = skew
        if abs(skew) > SKEW_WORTH_TELLING:
            self._journal.write(PEER_SKEW, greeting.name, link.address, skew)
        if abs(skew) > self._settings[CLUSTER_MAX_SKEW]:
            raise ClockSkew(f"{skew} seconds")
        there = self._primary.get(greeting.node)
        if there is not None and there.peer is not None and there.peer.name != greeting.name:
            raise DuplicateNode(greeting.node)
        if there is None and len(self._primary) >= MOST_PEERS:
            raise NotAuthorised("too many nodes")

    def _names_of(self, link: Link) -> set[str]:
        if isinstance(link.dialled, Dialler):
            return {link.dialled.member.name}
        return {name for member in self._members for name in (member.name, member.address)} | set(self._discovered)

    def up(self, link: Link) -> None:
        assert link.peer is not None
        node = link.peer.node
        if node == self._cache.node:
            # The dialling end, also ours, ends it.
            self._reactor.callLater(1.0, link.abort, "ourselves")
            return
        if isinstance(link.dialled, Dialler):
            link.dialled.up(node)
        links = self._links.setdefault(node, [])
        links.append(link)
        before = self._primary.get(node)
        kept, closed = self._chosen(node, links)
        self._primary[node] = kept
        for other in closed:
            other.abort(REDUNDANT)
        self._stats.set(PEERS, len(self._primary))
        self.activity.note(link.address, self._reactor.seconds(), node=node)
        if before is None:
            self._journal.write(PEER_UP, link.peer.name, link.address, node)
        if kept is not before:
            self._background(self._first_contact(kept) if len(self._primary) == 1 else self._resync(kept))

    def _chosen(self, node: str, links: list[Link]) -> tuple[Link, list[Link]]:
        """Which connection to ``node`` is used, and which of ours are closed. Only who opened a connection closes it."""
        mine = [link for link in links if link.is_client]
        theirs = [link for link in links if not link.is_client]
        if not mine:
            return theirs[-1], []
        if theirs and node < self._cache.node:
            return theirs[-1], mine
        return mine[0], mine[1:]

    def greeted_again(self, link: Link) -> None:
        self._background(self._resync(link))

    def down(self, link: Link, reason: str) -> None:
        self._open.discard(link)
        peer = link.peer
        node = peer.node if peer is not None else ""
        links = self._links.get(node, [])
        if link in links:
            links.remove(link)
        if not links:
            self._links.pop(node, None)
        if self._primary.get(node) is link:
            del self._primary[node]
            if links:
                self._primary[node] = links[-1]
                links[-1].ask_for_resync()
            else:
                assert peer is not None
                self._journal.write(PEER_DOWN, peer.name, link.address, reason)
                self._lost(node)
            self._stats.set(PEERS, len(self._primary))
        if isinstance(link.dialled, Dialler):
            link.dialled.retry()

    def _lost(self, node: str) -> None:
        for dialler in list(self._diallers.values()):
            if dialler.node == node:
                dialler.wake()
        if (self._plan.domain or self._plan.hosts) and self._reactor.seconds() - self._refreshed > TELL_SECONDS:
            self._refresh()

    def rejected(self, link: Link, reason: str) -> None:
        self._journal.write(PEER_REJECTED, link.address, reason)

    def received(self, link: Link, records: Sequence[Received]) -> Deferred[list[Applied]]:
        self._stats.add(RECEIVED, len(records))
        now = self._cache.now()
        return self._cache.in_thread(lambda database: replica.apply(database, records, now)).addCallback(self._applied)

    def _applied(self, applied: list[Applied]) -> list[Applied]:
        stored = [outcome.stored for outcome in applied if outcome.stored is not None]
        self._cache.absorb(stored)
        for outcome in applied:
            if outcome.to_tell and outcome.stored is not None:
                self._tell_all(Item(outcome.stored, True))
        self._stats.add(ACCEPTED, len(stored))
        self._stats.add(CORRECTED, sum(outcome.ruling is Ruling.CORRECTED for outcome in applied))
        return applied

    def add(self, key: str, delta: int, e: int, origin: str) -> Deferred[tuple[int, bool]]:
        self._stats.add(RECEIVED)
        now = self._cache.now()

        def done(result: tuple[int, Any]) -> tuple[int, bool]:
            value, row = result
            if row is not None:
                self._cache.absorb([row])
                self._stats.add(ACCEPTED)
            return value, row is not None

        return self._cache.in_thread(lambda database: replica.add(database, key, delta, e, origin, now)).addCallback(done)

    def page(self, link: Link, since: int, limit: int) -> Deferred[Page]:
        assert link.peer is not None
        node, now = link.peer.node, self._cache.now()
        return self._cache.in_thread(lambda database: replica.page(database, since, limit, node, now), writes=False)

    def overflow(self, link: Link) -> None:
        assert link.peer is not None
        self._stats.add(DROPPED, link.outbox.dropped)
        link.outbox.dropped = 0
        self._journal.write(OVERFLOW, link.peer.name)

    def answered(self, link: Link, sent: int, corrected: int) -> None:
        self._stats.add(SENT, sent)

    def heard(self, link: Link) -> None:
        self.activity.count(link.address, self._reactor.seconds())

    def said(self) -> None:
        self.activity.count(OURSELVES, self._reactor.seconds())

    def status(self, link: Link, notes: dict[str, str]) -> None:
        harmless = {name: "".join(letter for letter in text if letter in "0123456789.,/%-")[:64] for name, text in notes.items()}
        self.activity.note(link.address, self._reactor.seconds(), **harmless)

    def round_trip(self, link: Link, seconds: float) -> None:
        self.activity.note(link.address, self._reactor.seconds(), ly=f"{seconds:.6f}")

    def failed(self, failure: Failure) -> None:
        self._journal.failure(failure, doing="cluster")

    # Changes and resync

    def _changed(self, changes: Sequence[Change]) -> None:
        if not self._primary:
            return
        now = self._reactor.seconds()
        for change in changes:
            if change.added:
                item = Item(change.record, added=change.added)
            elif change.forced or self._damping.worth_sending(change.record, now):
                item = Item(change.record, change.forced)
            else:
                continue
            self._tell_all(item)

    def _tell_all(self, item: Item) -> None:
        for link in list(self._primary.values()):
            link.offer(item)

    async def _first_contact(self, link: Link) -> None:
        """A node that was alone for longer than removals are remembered must not bring back what others removed."""
        try:
            last = await self._cache.in_thread(replica.last_contact, writes=False)
            if last and self._cache.now() - last > TOMBSTONE_LIFE:
                await self._cache.in_thread(lambda database: replica.forget_until(database, last))
                self._cache.forget()
        except CacheError as error:
            link.abort(str(error))
            return
        await self._resync(link)

    async def _resync(self, link: Link) -> None:
        if link in self._syncing:
            self._syncing[link] = True
            return
        try:
            while link.ready:
                self._syncing[link] = False
                await self._resync_once(link)
                if not self._syncing[link]:
                    return
        finally:
            self._syncing.pop(link, None)

    async def _resync_once(self, link: Link) -> None:
        assert link.peer is not None
        try:
            tally = await self._read(link)
        except (Busy, CacheError) as error:
            link.abort(f"resync: {error}")
            return
        except Exception:
            if link.ready:
                raise
            return
        self._journal.write(SYNCED, link.peer.name, tally.records, tally.accepted, tally.corrected)

    async def _keep_up(self, link: Link) -> None:
        """Read on from where reading stopped, though most of it was told already.

        So a resync after an interruption has seconds to read and not everything since the last one, and touches that were not
        worth telling arrive.
        """
        if link in self._syncing:
            return
        self._syncing[link] = False
        try:
            await self._read(link)
        except (Busy, CacheError):
            pass
        except Exception:
            if link.ready:
                raise
        finally:
            asked_for = self._syncing.pop(link)
        if asked_for:
            await self._resync(link)

    async def _read(self, link: Link) -> Tally:
        """All changes of the peer after those read last. Raises Busy, CacheError, or what ended the connection."""
        peer = link.peer
        assert peer is not None

        async def remember(reached: Position) -> None:
            now = self._cache.now()
            self._reached[peer.node] = reached
            await self._cache.in_thread(lambda database: replica.remember(database, peer.node, peer.name, reached, now))

        reached = await self._cache.in_thread(lambda database: replica.position(database, peer.node), writes=False)
        return await resync(link, reached, peer.epoch, apply=self.received, remember=remember, pause=self._second)

    async def _second(self) -> None:
        passed: Deferred[None] = Deferred()
        self._reactor.callLater(1.0, passed.callback, None)
        await passed

    def _read_on(self) -> None:
        self._later("read on", READ_ON_SECONDS, self._read_on)
        for link in list(self._primary.values()):
            self._background(self._keep_up(link))

    def _tell(self) -> None:
        self._later("tell", TELL_SECONDS, self._tell)
        load = attrs.asdict(self._load())
        for link in list(self._primary.values()):
            link.tell(**load)
        if self._cache.epoch != self._epoch:
            # The cache file was replaced: everything is to be read again.
            self._epoch = self._cache.epoch
            self._reached.clear()
            for link in list(self._primary.values()):
                link.ask_for_resync()
        if self._primary:
            nodes, now = list(self._primary), self._cache.now()
            self._cache.in_thread(lambda database: replica.seen(database, nodes, now)).addErrback(lambda failure: failure.trap(CacheError))


class _Inbound(Factory):
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def buildProtocol(self, addr: IAddress | None) -> Link | None:
        return self._cluster.make_link(_host_of(addr), None)


class _Outbound(ClientFactory):
    noisy = False

    def __init__(self, cluster: Cluster, dialler: Dialler) -> None:
        self._cluster = cluster
        self._dialler = dialler

    def buildProtocol(self, addr: IAddress | None) -> Link | None:
        return self._cluster.make_link(self._dialler.member.address, self._dialler)


def _host_of(addr: Any) -> str:
    host = str(getattr(addr, "host", ""))
    return host[7:] if host.startswith("::ffff:") and "." in host else host


async def _maybe(work: Any) -> None:
    if isinstance(work, Deferred):
        await work
