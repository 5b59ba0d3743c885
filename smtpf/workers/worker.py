"""A worker: the process that talks with the clients given to it. ``crew`` starts it as ``python -m smtpf.workers.worker``.

It has maps, filters, resolver and next hops of its own, and asks the coordinator for all that a node has once. When the coordinator
is gone it ends its sessions as a node does, and itself. Signals are the coordinator's business.
"""

from __future__ import annotations

import signal
import socket
import time
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from smtpf.admin.configuration import Configuration
from smtpf.admin.roster import OwnSessions
from smtpf.cache.opening import CacheOpenError
from smtpf.cache.presence import Presence
from smtpf.cache.records import Record
from smtpf.cache.shared import node_cache_from
from smtpf.cache.store import Cache
from smtpf.filters.extension import extension_modules
from smtpf.filters.save import SaveDirMissing
from smtpf.journal.journal import Journal
from smtpf.journal.observer import FailureObserver
from smtpf.journal.targets import LOG_FORMAT, choose_target, open_target
from smtpf.journal.verbose import VERBOSE, Verbose
from smtpf.pipeline import FilterNotReady, settled
from smtpf.process.collection import settle_collector
from smtpf.process.ending import FAILED, leave
from smtpf.process.listening import ACCEPTS, SHARED_ACCEPTS, Answering, Bound, Listening
from smtpf.process.reactor import install
from smtpf.process.sessions import SessionsInProgress
from smtpf.process.steering import Steering
from smtpf.process.unix_clock import UnixClock
from smtpf.serving import Serving, StartRefused
from smtpf.settings.catalogue import instances
from smtpf.settings.option import Option
from smtpf.settings.process_options import DAEMON
from smtpf.settings.store import Settings, SettingsHolder
from smtpf.smtp.arrivals import Arrival
from smtpf.smtp.reception import Reception
from smtpf.stats.counter import Counter
from smtpf.stats.routes import RouteCounts
from smtpf.stats.sampling import PERIOD as SAMPLING_PERIOD
from smtpf.stats.sampling import open_files
from smtpf.waiting import in_background
from smtpf.workers.administration import RemoteAdministration
from smtpf.workers.board import Board, WorkerArrivals
from smtpf.workers.cache import WorkerCache
from smtpf.workers.channel import Channel, Handler
from smtpf.workers.crew import BOARD, CHANNEL, HANDOVER, LISTENERS, PRESENCE, refuse
from smtpf.workers.handover import Passed, Taking
from smtpf.workers.statistics import PERIOD, WorkerStatistics
from smtpf.workers.tallies import WorkerTallies

THREADS = 8
"""Threads for files, maps and other work that would hold the reactor."""
NOT_OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that a service manager or a terminal sends to all processes of a node, and only the coordinator obeys."""


class WorkerProcess:
    """From the coordinator's greeting to the end."""

    journal: Journal
    serving: Serving
    reception: Reception
    listening: Listening
    configuration: Configuration
    cache: Cache
    stats: WorkerStatistics

    def __init__(self, reactor: Any, handover: socket.socket) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, THREADS, "smtpf")
        self._sessions = SessionsInProgress(reactor)
        self._taking = Taking(reactor, handover, self._use, lambda: self._board.took())
        self._takers: list[Answering] = []
        self._telling = False
        self._ending_told = False
        self._files = 0
        self._next_sample = 0.0
        self._stopping = False
        self._ending = False
        self._timer: IDelayedCall | None = None
        handlers: dict[str, Handler] = {
            "begin": self._begin, "settings": self._configure, "reload": self._reload, "absorb": self._absorb, "list": self._list,
            "kill": self._kill, "report": self._report, "accept": self._accept, "close": self._close, "stop": self._stop,
            "abort": self._sessions.abort, "end": self._end,
        }  # fmt: skip
        self.channel = Channel(reactor, handlers, gone=self._alone, failed=self._fault)

    def _in_thread(self, work: Any, *args: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, work, *args)

    # The beginning.

    async def _begin(self, greeting: dict[str, Any]) -> None:
        """Make ready; the answer to this question is that it is. A worker that cannot ends."""
        try:
            await self._start(greeting)
        except (StartRefused, FilterNotReady, CacheOpenError, SaveDirMissing):
            leave(self._reactor, FAILED)
            raise
        except Exception:
            if hasattr(self, "journal"):
                self.journal.failure(Failure(), doing="start")
            leave(self._reactor, FAILED)
            raise

    async def _start(self, greeting: dict[str, Any]) -> None:
        reactor = self._reactor
        self._options = {option.name: option for option in instances(Option, extension_modules())}
        holder = self._settings = SettingsHolder(self._settings_of(greeting["settings"]))
        settings = holder.current
        self._target = open_target(reactor, choose_target(settings, settings[DAEMON]), settings[LOG_FORMAT])
        journal = self.journal = Journal(self._target, Verbose(settings.text(VERBOSE)))
        self._observer = FailureObserver(journal)
        globalLogPublisher.addObserver(self._observer)
        self._pool.start()
        stats = self.stats = WorkerStatistics(UnixClock(reactor), instances(Counter, extension_modules()))
        self._routes = RouteCounts(journal)
        node = greeting["node"]
        self.cache = WorkerCache(settings, journal, self.channel, node) if node else node_cache_from(settings, journal, reactor)
        if greeting["presence"]:
            self.cache.presence = Presence(PRESENCE)
        await settled(self.cache.start())
        configuration = self.configuration = Configuration(holder, journal, self._in_thread)
        serving = self.serving = Serving(
            holder, journal, self._target, reactor, stats, self._routes, self._in_thread, host_name=greeting["host_name"],
            descriptors=greeting["descriptors"],
        )  # fmt: skip
        await serving.open_maps()
        steering = Steering(greeting["workers"], tuple(ip_network(each) for each in greeting["spread"]))
        engine = await serving.open(self.cache, WorkerTallies(self.channel, time.time, steering.spreads))
        board = self._board = Board(BOARD, greeting["workers"] + 1, greeting["number"])
        engine.elsewhere = board.sessions_elsewhere
        engine.administration = RemoteAdministration(engine, self.channel).for_smtp()
        self._sessions.watch(engine)
        serving.start()
        configuration.follow(self.cache.configure)
        serving.follow(configuration)
        if holder.current is not settings:
            # Changed while this was under way.
            configuration.apply(holder.current)
        listening = self.listening = Listening(
            holder.current, journal, reactor, greeting["host_name"], lambda: engine.sessions, steering=steering
        )
        configuration.follow(listening.configure)
        doors = [(interface, accepts) for interface in greeting["steered"] for accepts in (ACCEPTS, SHARED_ACCEPTS, SHARED_ACCEPTS)]
        listening.adopt(
            Bound("", (socket.socket(fileno=LISTENERS + number),), greeting["interfaces"][interface], accepts)
            for number, (interface, accepts) in enumerate(doors)
        )
        self.reception = Reception(engine, listening.hold, self._session_ended, WorkerArrivals(stats, engine.now, board))
        self._takers = [Answering(self.reception.factory(name), reactor) for name in greeting["interfaces"]]
        for taker in self._takers:
            taker.begin()
        self._own_doors = [Door(self._takers[interface], board) for interface, _ in doors]
        settle_collector()
        self._tell_report()
        self._taking.start()

    def _settings_of(self, texts: dict[str, str]) -> Settings:
        return Settings(self._options.values(), {self._options[name]: text for name, text in texts.items()})

    # Clients.

    def _accept(self) -> None:
        """Accept where the kernel brings this worker its clients."""
        listening, doors = self.listening, iter(self._own_doors)
        if not self._telling:
            listening.hand_over(lambda bound: next(doors))

    def _close(self) -> None:
        """Accept nothing more, and tell of sessions that end."""
        if hasattr(self, "listening"):
            self.listening.stop()
        if not self._telling:
            # One may have ended since the coordinator looked how many there are.
            self._telling = True
            self.channel.tell("ended")

    def _use(self, passed: Passed) -> None:
        """Answer a client that the coordinator has accepted."""
        self._board.began()
        self._board.took()
        if self._stopping:
            refuse(passed.connection, self.serving.engine)
            self._session_ended()
            return
        self.reception.counted = Arrival(passed.this_second, passed.throttled)
        self._takers[passed.interface].take(passed.connection, passed.peer)

    def _session_ended(self) -> None:
        self._board.ended()
        self.listening.session_ended()
        if self._telling and not self._ending_told:
            self._ending_told = True
            self._reactor.callLater(0, self._tell_ended)

    def _tell_ended(self) -> None:
        self._ending_told = False
        self.channel.tell("ended")
        self.channel.flush()

    # What the coordinator wants.

    def _configure(self, texts: dict[str, str]) -> None:
        if hasattr(self, "configuration"):
            self.configuration.apply(self._settings_of(texts))

    async def _reload(self) -> None:
        await self.configuration.read_sources()

    def _absorb(self, rows: list[list[Any]]) -> None:
        if not hasattr(self, "cache"):
            return
        if rows:
            self.cache.absorb([Record(*row) for row in rows])
        else:
            self.cache.forget()

    async def _list(self) -> tuple[int, list[str]]:
        return await OwnSessions(self.serving.engine).listing()

    async def _kill(self, sid: str) -> bool:
        return await OwnSessions(self.serving.engine).kill(sid)

    def _report(self) -> tuple[Any, Any]:
        routes = {key: [counts.accepted, counts.rejected, counts.volume] for key, counts in self._routes.take_all().items()}
        return self.stats.report(), routes

    def _tell_report(self) -> None:
        now = self._reactor.seconds()
        if now >= self._next_sample:
            self._next_sample = now + SAMPLING_PERIOD
            self._files = open_files()
        self.channel.tell("report", *self._report(), self._files)
        self._timer = self._reactor.callLater(PERIOD, self._tell_report)

    # The end.

    async def _stop(self) -> None:
        self._stopping = True
        self._close()
        await self._sessions.stop()

    async def _end(self) -> None:
        if self._ending:
            return
        self._ending = True
        self._taking.stop()
        self._close()
        if self._timer is not None:
            self._timer.cancel()
        self._sessions.abort()
        await self.serving.stop_filters()
        self.channel.tell("report", *self._report(), 0)
        for taker in self._takers:
            taker.end()
        await self.serving.close()
        await settled(self.cache.stop())
        await self._in_thread(succeed, None)
        self._pool.stop()
        globalLogPublisher.removeObserver(self._observer)
        self._target.close()
        if not self.channel.closed:
            self.channel.close()
        self._reactor.stop()

    def _alone(self) -> None:
        """There is no coordinator any more."""
        if self._ending:
            return
        if not self._takers:
            leave(self._reactor, FAILED)
            return
        self._taking.stop()
        in_background(self._give_up(), self._fault)

    async def _give_up(self) -> None:
        await self._stop()
        await self._end()

    def _fault(self, failure: Failure) -> None:
        if hasattr(self, "journal"):
            self.journal.failure(failure, doing="worker")
        if self._ending:
            leave(self._reactor, FAILED)


class Door:
    """Takes the connections that this worker accepts itself."""

    def __init__(self, answering: Answering, board: Board) -> None:
        self._answering = answering
        self._board = board

    def begin(self) -> None:
        """The one who answers has begun."""

    def take(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        self._board.began()
        self._answering.take(connection, peer)

    def end(self) -> None:
        """It goes on with the clients that are there."""


def main() -> None:
    """Be a worker until the coordinator does not want it any more."""
    reactor = install()
    handover = socket.socket(fileno=HANDOVER)
    process = WorkerProcess(reactor, handover)
    factory = Factory.forProtocol(lambda: process.channel)
    factory.noisy = False
    with socket.socket(fileno=CHANNEL) as channel:
        reactor.adoptStreamConnection(channel.fileno(), socket.AF_UNIX, factory)
    handover.set_inheritable(False)

    def leave_signals() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        for each in NOT_OURS:
            # A handler, because what is ignored would be ignored by programs of the site that a filter starts, too.
            signal.signal(each, lambda signum, frame: None)

    leave_signals()
    # Behind the reactor's own handlers, which it needs for the end of child processes.
    reactor.callWhenRunning(leave_signals)
    reactor.run()


if __name__ == "__main__":
    main()
