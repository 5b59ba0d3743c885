"""The composition root: builds the parts of a node, hands each what it needs, and joins them in one service.

Nothing else in the house knows how a node is put together. Source: spec chapter operations, 6.2.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from twisted.web.client import Agent

from smtpf import __version__
from smtpf.admin.commands import Administration
from smtpf.admin.configuration import Configuration, Reread
from smtpf.admin.control import CONTROL_SOCKET, ControlDoor
from smtpf.admin.health import METRICS_LISTEN, HealthServer
from smtpf.admin.licence import EXIT_INVALID, Licence
from smtpf.admin.load import load_of
from smtpf.admin.metrics import NodeFacts, exposition
from smtpf.cache.cluster import Cluster, ClusterStartError
from smtpf.cache.collector import Collector
from smtpf.cache.filling import remember_keys
from smtpf.cache.names import ResolverNames
from smtpf.cache.opening import CACHE_PATH, MEMORY, CacheOpenError, location
from smtpf.cache.server import names_server
from smtpf.cache.shared import node_cache_from
from smtpf.cache.store import FileCache
from smtpf.dns.resolver import Resolver
from smtpf.filters.counting import OwnTallies
from smtpf.filters.extension import extension_modules
from smtpf.filters.registration import counters_in_order
from smtpf.filters.save import SaveDirMissing
from smtpf.journal.journal import Journal
from smtpf.journal.observer import FailureObserver
from smtpf.journal.targets import LOG_FORMAT, choose_target, open_target
from smtpf.journal.verbose import VERBOSE, Verbose
from smtpf.pipeline import FilterNotReady, settled
from smtpf.process.announce import build_values
from smtpf.process.ending import FAILED, INIT_ERROR, CannotStart, leave
from smtpf.process.lifecycle import Lifecycle
from smtpf.process.listening import Answering, Bound, Taker
from smtpf.process.own_addresses import own_addresses
from smtpf.process.sessions import SessionsInProgress
from smtpf.process.unix_clock import UnixClock
from smtpf.serving import Serving, StartRefused
from smtpf.settings.process_options import DAEMON, TEST_LICKEY
from smtpf.settings.store import Settings, SettingsHolder
from smtpf.smtp.administration import ADMIN_COMMANDS
from smtpf.smtp.arrivals import Arrivals
from smtpf.smtp.engine import Engine
from smtpf.smtp.reception import Reception
from smtpf.stats.archive import Archive
from smtpf.stats.listing import Facts, form
from smtpf.stats.post import Poster
from smtpf.stats.routes import RouteCounts
from smtpf.stats.rows import STATS_MAP, Refused, open_stats_map
from smtpf.stats.sampling import OpenFilesSampler, open_files
from smtpf.stats.tables import Statistics
from smtpf.waiting import in_background
from smtpf.workers.crew import Crew, Shared
from smtpf.workers.demand import AGAIN, Demand
from smtpf.workers.options import WORKERS, steering_of
from smtpf.workers.tallies import CrewTallies

if TYPE_CHECKING:
    from smtpf.maps.routes import RouteMap
    from smtpf.settings.language import Problem

CONNECT_SECONDS = 20.0
"""For the connection to the server of stats-http-post."""
THREADS = 8
"""Threads for files, maps and other work that would hold the reactor."""


def make_service(settings: Settings, problems: Sequence[Problem], reactor: Any, reread: Reread | None = None) -> MultiService:
    """The node as a service. Binds the interfaces now, while the process may still do so; raises CannotStart.

    ``reread`` reads the options again, for a reload.
    """
    service = MultiService()
    node = Node(settings, reactor, reread)
    node.setServiceParent(service)  # type: ignore[no-untyped-call]
    return service


class Node(Service):
    """One node: from bound interfaces to the last saved counter."""

    def __init__(self, settings: Settings, reactor: Any, reread: Reread | None = None) -> None:
        self.setName("smtpf")  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._reread = reread
        self._ready = False
        self._ended = False
        self.settings = SettingsHolder(settings)
        self._target = open_target(reactor, choose_target(settings, settings[DAEMON]), settings[LOG_FORMAT])
        self.journal = Journal(self._target, Verbose())
        if self.journal.use_words(settings.text(VERBOSE)) is None:
            raise CannotStart
        self._observer = FailureObserver(self.journal)
        self.engine: Engine | None = None
        steering = steering_of(settings, self.journal)
        own = self._own_sessions = SessionsInProgress(reactor)
        self._crew = Crew(steering, reactor, self.journal, own) if steering is not None else None
        self.sessions: SessionsInProgress | Crew = own if self._crew is None else self._crew
        self._process = Lifecycle(settings, self.journal, reactor, self.sessions, steering)
        self._process.open()
        self._pool = ThreadPool(0, THREADS, "smtpf")
        self._stopping: list[Any] = []
        self._serving: Serving | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        globalLogPublisher.addObserver(self._observer)
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._end())

    def _begin(self) -> None:
        ensureDeferred(self._start()).addErrback(self._not_started)

    def in_thread(self, work: Any, *args: Any) -> Deferred[Any]:
        """Run ``work`` in one of the node's threads."""
        return deferToThreadPool(self._reactor, self._pool, work, *args)

    async def _start(self) -> None:
        """Steps 11 to 17 of the start sequence."""
        settings, journal, reactor = self.settings.current, self.journal, self._reactor
        self._pool.start()
        clock = UnixClock(reactor)
        stats = self.stats = Statistics(clock, journal, counters_in_order(extension_modules()), counting=False)
        self._open_health(stats)
        routes = RouteCounts(journal)
        archive = self._open_statistics(clock, stats, routes)
        cache = self.cache = node_cache_from(settings, journal, reactor, give_up=lambda: leave(reactor, FAILED))
        await settled(cache.start())
        self._stopping.append(cache.stop)
        if isinstance(cache, FileCache):
            self._stopping.append(remember_keys(cache, reactor).stop)
        collector = Collector(cache, reactor, journal, stats, settings)
        collector.saving.append(archive.save)
        serving = self._serving = Serving(
            self.settings, journal, self._target, reactor, stats, routes, self.in_thread, host_name=self._process.host_name,
            descriptors=self._process.descriptors,
        )  # fmt: skip
        self._stopping.append(serving.close)
        await serving.open_maps()
        own = own_addresses(self._process.host_name)
        licence = await self._check_licence(own, serving.route_map)
        collector.after.append(licence.daily)
        settings = self.settings.current
        tallies = OwnTallies.make(time.time)
        engine = self.engine = await serving.open(cache, tallies)
        self._own_sessions.watch(engine)
        await archive.load()
        serving.start()
        collector.start()
        sampler = OpenFilesSampler(reactor, stats, self._open_files)
        sampler.start()
        self._stopping += [archive.close, sampler.stop, collector.stop]
        # Nodes that share a cache server have nothing to tell each other.
        cluster = await self._start_cluster(cache, engine, serving.resolver, own) if isinstance(cache, FileCache) else None
        listening = self._process.listening
        assert listening is not None
        crew = self._crew
        arrivals = Arrivals(stats, engine.now, crew.board if crew is not None else None)
        reception = Reception(engine, listening.hold, self._process.session_ended, arrivals)
        configuration = self.configuration = Configuration(self.settings, journal, self.in_thread, self._reread, licence.permitted)
        configuration.follow(cache.configure, collector.configure, self._process.configure)
        if cluster is not None:
            configuration.follow(cluster.configure)
        serving.follow(configuration)
        administration = Administration(
            engine, configuration, cache, version=__version__, accepted_now=lambda: reception.accepted_now,
            active=list if cluster is None else cluster.active, licence=licence.fields, build=build_values, roster=crew,
        )  # fmt: skip
        engine.administration = administration.for_smtp()
        own_files = self._open_control(engine, administration)
        self._process.settle(*files_of(settings, own_files))
        if crew is not None:
            configuration.follow(crew.configure)
            configuration.on_reload("workers", crew.read_sources)
            greeting = {
                "host_name": self._process.host_name, "descriptors": self._process.descriptors,
                "interfaces": [bound.name for bound in listening.bound],
                "node": cache.node if isinstance(cache, FileCache) else "",
            }  # fmt: skip
            crew.prepare(
                Shared(
                    settings=self._current, engine=engine, stats=stats, routes=routes, cache=cache, arrivals=arrivals,
                    tallies=CrewTallies(tallies), administration=administration, listening=listening,
                    session_ended=self._process.session_ended, greeting=greeting,
                )
            )  # fmt: skip
            if settings[WORKERS]:
                await crew.start()
        stats.begin()
        self._process.serve(lambda bound: self._taker(bound, reception), self.reload)
        self._ready = True
        if crew is not None and settings[WORKERS]:
            crew.begin()
        elif crew is not None:
            demand = self._demand = Demand(reactor, lambda: in_background(self._more_processes(crew), self._fault))
            self._stopping.append(demand.stop)
            demand.start()

    async def _more_processes(self, crew: Crew) -> None:
        """There is work for all processes that the node may have. Without them it goes on as before."""
        try:
            await crew.start()
        except StartRefused:
            await crew.dismiss()
            if not self._ended:
                self._demand.start(AGAIN)
            return
        if not self._ended:
            crew.begin()

    def _fault(self, failure: Failure) -> None:
        self.journal.failure(failure, doing="workers")

    def _taker(self, bound: Bound, reception: Reception) -> Taker:
        """Who takes the connections of an interface."""
        listening = self._process.listening
        assert listening is not None
        own = Answering(reception.factory(bound.name), self._reactor)
        return own if self._crew is None else self._crew.taker(listening.bound.index(bound), own)

    def _open_files(self) -> int:
        return open_files() + (self._crew.open_files if self._crew is not None else 0)

    async def _start_cluster(self, cache: FileCache, engine: Engine, resolver: Resolver, own: Sequence[str]) -> Cluster:
        cluster = Cluster(
            cache, self._current(), self.journal, self.stats, self._reactor, ResolverNames(resolver), name=self._process.host_name,
            own_addresses=own, load=partial(load_of, engine),
        )  # fmt: skip
        await cluster.start()
        self._stopping.append(cluster.stop)
        return cluster

    def _open_statistics(self, clock: Any, stats: Statistics, routes: RouteCounts) -> Archive:
        settings = self.settings.current
        rows = open_stats_map(settings, self.journal)
        if isinstance(rows, Refused):
            raise StartRefused
        single = ThreadPool(0, 1, "smtpf-stats")
        single.start()
        self._stopping.append(single.stop)
        in_order = partial(deferToThreadPool, self._reactor, single)
        post = Poster(self._reactor, Agent(self._reactor, connectTimeout=CONNECT_SECONDS), self.journal, self._current, self._form)
        return Archive(clock, self.journal, stats, routes, rows, in_order, self._current, __version__, post=post)

    def _current(self) -> Settings:
        return self.settings.current

    def _form(self) -> bytes:
        return form(self.stats, Facts(__version__, self.stats.started, time.time(), len(self.sessions)))

    def _open_health(self, stats: Statistics) -> None:
        where = self._current()[METRICS_LISTEN]
        if not where:
            return

        def metrics() -> str:
            return exposition(stats, NodeFacts(__version__, stats.started, len(self.sessions), not self._not_ready()))

        server = HealthServer(self._reactor, metrics, self._not_ready)
        self._or_refuse("metrics-listen", lambda: server.listen(where))
        self._stopping.append(server.close)

    def _not_ready(self) -> str:
        listening = self._process.listening
        if not self._ready:
            return "starting"
        return "" if listening is not None and listening.bound else "stopping"

    def _open_control(self, engine: Engine, administration: Administration) -> tuple[str, ...]:
        """The control socket; its path, which must be given to run-user."""
        settings = self._current()
        path = settings[CONTROL_SOCKET]
        if not path or settings[ADMIN_COMMANDS] == "none":
            return ()
        door = ControlDoor(engine, administration)
        self._or_refuse("control-socket", lambda: door.listen(path, self._reactor))
        self._stopping.append(door.close)
        return (path,)

    def _or_refuse(self, option: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            self.journal.write(INIT_ERROR, "node", 0, option, error.strerror or str(error), error.errno or 0)
            raise StartRefused from error

    async def _check_licence(self, own: Sequence[str], routes: RouteMap) -> Licence:
        """Steps 12 and 13: the licence key, where there is one."""
        settings = self._current()
        licence = Licence(
            settings, self.journal, self.in_thread, version=__version__, now=time.time, addresses=own, routes=routes
        )  # fmt: skip
        if not await licence.check():
            raise StartRefused(EXIT_INVALID)
        if settings[TEST_LICKEY]:
            raise StartRefused(0)
        self.settings.replace(licence.permitted(settings))
        return licence

    async def reload(self) -> None:
        """SIGHUP: options, maps, certificates and texts are read again, the log is opened again."""
        await self.configuration.reload()

    def _not_started(self, failure: Failure) -> None:
        # Failure.check knows no SystemExit.
        if not isinstance(failure.value, StartRefused | FilterNotReady | CacheOpenError | ClusterStartError | SaveDirMissing | SystemExit):
            self.journal.failure(failure, doing="start")
        leave(self._reactor, getattr(failure.value, "status", FAILED))

    async def _end(self) -> None:
        """Workers, filters, statistics, cache, in the reverse order of their start."""
        self._ended = True
        if self._crew is not None:
            await self._crew.close()
        if self._serving is not None:
            await self._serving.stop_filters()
        if hasattr(self, "stats"):
            self.stats.end()
        for stop in reversed(self._stopping):
            waiting = stop()
            if waiting is not None:
                await waiting
        if self._pool.started:
            await self.in_thread(succeed, None)
            self._pool.stop()
        self._process.close()
        globalLogPublisher.removeObserver(self._observer)
        self._target.close()


def files_of(settings: Settings, more: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """Files that must belong to run-user: those the node needs, and SQLite's companions of them, which may be missing."""
    databases = []
    cache = settings[CACHE_PATH]
    if not names_server(cache) and location(cache) != MEMORY:
        databases.append(location(cache))
    kind, mark, path = settings[STATS_MAP].partition("!")
    if mark and kind.lower() in ("sql", "file"):
        databases.append(path)
    log = choose_target(settings, settings[DAEMON]).partition("!")[2]
    return [*databases, *more, *([log] if log else [])], [path + tail for path in databases for tail in ("-wal", "-shm", "-journal")]
