"""The coordinator's side: starts the workers, gives each its clients, keeps what they share, and replaces one that dies.

Sessions of a worker that dies are cut, and their clients come again: nothing was accepted that a next hop had not accepted. Those
that it had not taken up yet wait for the worker in its place. Source: spec chapter operations, 6.6.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from smtpf.admin.asker import Asker
from smtpf.journal.message import err, info
from smtpf.reply import render
from smtpf.serving import StartRefused
from smtpf.smtp import commands, replies
from smtpf.smtp import options as opt
from smtpf.smtp.reception import THROTTLE_PAUSE
from smtpf.stats.routes import Counts
from smtpf.workers import cache as wire
from smtpf.workers.channel import Channel, ChannelError, news
from smtpf.workers.distribution import place_of
from smtpf.workers.handover import Giving, Passed
from smtpf.workers.statistics import add_report

if TYPE_CHECKING:
    from smtpf.admin.commands import Administration
    from smtpf.cache.records import Record
    from smtpf.cache.store import Cache
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings
    from smtpf.smtp.arrivals import Arrivals
    from smtpf.smtp.engine import Engine
    from smtpf.stats.routes import RouteCounts
    from smtpf.stats.tables import Statistics

CHANNEL = 3
"""Descriptor of a worker's channel, in the worker."""
HANDOVER = 4
"""Descriptor at which a worker takes up connections, in the worker."""
PRESENCE = 5
"""Descriptor of the bitmap of the cache's keys, in the worker of a node that has one."""
START_SECONDS = 60.0
"""How long a worker may take to be ready."""
SILENT_SECONDS = 60.0
"""How long a worker that is ready may say nothing. It reports each second, so it hangs by then, and is killed and replaced."""
END_SECONDS = 10.0
"""How long a worker may take to end in order."""
ANSWER_SECONDS = 5.0
"""How long a command of the postmaster waits for a worker."""
SHORT_LIFE = 30.0
"""Seconds; a worker that lives less long counts as one that cannot start."""
LONGEST_PAUSE = 30.0
"""Seconds between two attempts at starting a worker."""

WORKER_READY = info(
    1137,
    "worker %d ready pid=%d",
    "A worker process answers clients from now on. A second line for the same worker tells that it has been replaced.",
    fields=("worker", "pid"),
    always=True,
    since="new",
)
WORKER_ENDED = err(
    1138,
    "worker %d pid=%d ended: %s; cn=%lu",
    "A worker process died, and its cn sessions with it. Their clients come again; nothing that was accepted is lost. Another worker is "
    "started in its place. Look for #539 before this line; a kernel short of memory kills processes too.",
    fields=("worker", "pid", "reason", "connections"),
    since="new",
)
NO_WORKER = err(
    1139,
    "client [%s] refused: no worker takes it",
    "A client was told to come back, because its worker has too many clients waiting or no worker can be started.",
    fields=("address",),
    since="new",
)


@attrs.frozen(kw_only=True)
class Shared:
    """What the coordinator keeps for all workers."""

    settings: Callable[[], Settings]
    engine: Engine
    stats: Statistics
    routes: RouteCounts
    cache: Cache
    arrivals: Arrivals
    administration: Administration
    hold: Callable[[float], None]
    """Pauses accepting for so many seconds."""
    session_ended: Callable[[], None]
    greeting: Mapping[str, Any]
    """What a worker is told beside the options when it starts."""


class Worker(ProcessProtocol):
    """One place among the workers, and the process that holds it now."""

    def __init__(self, crew: Crew, number: int, reactor: Any, journal: Journal) -> None:
        self._crew = crew
        self.number = number
        """From 1."""
        self._reactor = reactor
        self._journal = journal
        self.giving = Giving(reactor)
        self.channel: Channel | None = None
        self.sessions = 0
        """Clients given to it whose session has not ended."""
        self.open_files = 0
        self.ready = False
        self.failures = 0
        """How often in a row it has lived for a short time only."""
        self.pid = 0
        self.first: Deferred[None] = Deferred()
        """Fires when a process was ready for the first time; fails when it ended before."""
        self._began = 0.0
        self._process: Any = None
        self._pause: Any = None
        self._timer: Any = None
        self.ended: Deferred[None] | None = None
        """Fires when the process that is told to end has ended."""

    @property
    def usable(self) -> bool:
        """It takes clients, or will at once."""
        return self.ready or self.failures < 2

    def spawn(self) -> None:
        """Start a process for this place."""
        self._pause = None
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with near, far:
            descriptors = {0: 0, 1: 1, 2: 2, CHANNEL: far.fileno(), HANDOVER: self.giving.far.fileno()}
            presence = self._crew.shared.cache.presence
            if presence is not None:
                descriptors[PRESENCE] = presence.descriptor
            self._process = self._reactor.spawnProcess(
                self, sys.executable, [sys.executable, "-m", "smtpf.workers.worker"], env=_environment(), childFDs=descriptors
            )
            self.pid = self._process.pid
            self._began = self._reactor.seconds()
            factory = Factory.forProtocol(self._make_channel)
            factory.noisy = False
            self._reactor.adoptStreamConnection(near.fileno(), socket.AF_UNIX, factory)
        self._timer = self._reactor.callLater(START_SECONDS, self.cut)

    def _make_channel(self) -> Channel:
        made = self.channel = Channel(self._reactor, self._crew.handlers(self), made=self._greet, failed=self._journal.failure)
        return made

    def _greet(self) -> None:
        assert self.channel is not None
        self.channel.call("begin", self._crew.greeting()).addCallbacks(self._is_ready, lambda failure: failure.trap(ChannelError))

    def _is_ready(self, nothing: None) -> None:
        self._cancel()
        self.ready = True
        self._timer = self._reactor.callLater(SILENT_SECONDS, self.cut)
        self._journal.write(WORKER_READY, self.number, self.pid)
        if not self.first.called:
            self.first.callback(None)

    def processEnded(self, reason: Failure) -> None:
        self._cancel()
        self.ready, self.channel, self._process = False, None, None
        if self.ended is not None:
            self.ended.callback(None)
            return
        left = self.giving.take_back()
        lost = max(0, self.sessions - len(left))
        self.sessions = len(left)
        for passed in left:
            self.giving.give(passed)
        self._journal.write(WORKER_ENDED, self.number, self.pid, _how(reason), lost)
        short = self._reactor.seconds() - self._began < SHORT_LIFE
        self.failures = self.failures + 1 if short else 1
        if not self.first.called:
            self.first.errback(StartRefused())
            return
        pause = 0.0 if self.failures < 2 else min(LONGEST_PAUSE, 2.0 ** (self.failures - 2))
        self._pause = self._reactor.callLater(pause, self.spawn)
        self._crew.sessions_ended()

    def heard(self, open_files: int) -> None:
        """It has reported."""
        self.open_files = open_files
        if self.ready and self._timer is not None and self._timer.active():
            self._timer.reset(SILENT_SECONDS)

    def cut(self) -> None:
        """Kill the process."""
        if self._process is not None:
            try:
                self._process.signalProcess("KILL")
            except ProcessExitedAlready:
                # Its end is about to be told.
                pass

    def end(self) -> Deferred[None] | None:
        """Let the process end in order; done when it has."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._process is None:
            return None
        self.ended = Deferred()
        if self.ready and self.channel is not None:
            self.channel.tell("end")
        else:
            self.cut()
        return self.ended

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


class Crew:
    """All workers of a node. It is the node's sessions, for its end, and its roster, for its administration."""

    def __init__(self, count: int, reactor: Any, journal: Journal) -> None:
        self._reactor = reactor
        self._journal = journal
        self._workers = [Worker(self, number, reactor, journal) for number in range(1, count + 1)]
        self._shared: Shared | None = None

    @property
    def shared(self) -> Shared:
        """Set by ``start``."""
        assert self._shared is not None
        return self._shared

    async def start(self, shared: Shared) -> None:
        """Start all workers. Raises StartRefused when one of them cannot."""
        self._shared = shared
        shared.engine.elsewhere = self.__len__
        shared.cache.followers.append(self._written)
        for worker in self._workers:
            worker.spawn()
        for worker in self._workers:
            await worker.first

    async def close(self) -> None:
        """End all workers, with their last counts taken over."""
        for each in self._workers:
            # Nobody waits for a start that is given up.
            each.first.addErrback(lambda failure: failure.trap(StartRefused))
        ending = [ended for worker in self._workers if (ended := worker.end()) is not None]
        timer = self._reactor.callLater(END_SECONDS, self._cut)
        for ended in ending:
            await ended
        if timer.active():
            timer.cancel()
        for worker in self._workers:
            worker.giving.close()

    def _cut(self) -> None:
        for worker in self._workers:
            worker.cut()

    # Connections

    def taker(self, place: int) -> HandingOver:
        """Takes the connections of interface ``place``."""
        return HandingOver(self, place)

    def hand_over(self, interface: int, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        """Give a connection to the worker of its client."""
        shared = self.shared
        arrival = shared.arrivals.arrived(shared.settings()[opt.RATE_THROTTLE])
        if arrival.throttled:
            shared.hold(THROTTLE_PAUSE)
        worker = self._worker_for(peer[0])
        passed = Passed(connection, interface, peer, arrival.this_second, arrival.throttled, len(self) + 1)
        if worker is not None and worker.giving.give(passed):
            worker.sessions += 1
            return
        self._journal.write(NO_WORKER, peer[0])
        refuse(connection, shared.engine)

    def _worker_for(self, address: str) -> Worker | None:
        """The worker of ``address``; while that one cannot be started, the next that can."""
        workers = self._workers
        place = place_of(address, len(workers))
        return next((worker for worker in (*workers[place:], *workers[:place]) if worker.usable), None)

    # What workers ask for and tell.

    def greeting(self) -> dict[str, Any]:
        """What a worker needs to begin."""
        shared = self.shared
        return {**shared.greeting, "settings": texts_of(shared.settings()), "presence": shared.cache.presence is not None}

    def handlers(self, worker: Worker) -> dict[str, Callable[..., Any]]:
        """What ``worker`` may ask for."""

        def ended(count: int) -> None:
            worker.sessions = max(0, worker.sessions - count)
            self.sessions_ended()

        def report(counts: list[dict[str, int]], routes: dict[str, list[int]], files: int) -> None:
            worker.heard(files)
            self._take_over(counts, routes)

        return {wire.ASK: self._operate, "ended": ended, "report": report, "admin": self._administer}

    def sessions_ended(self) -> None:
        """Some session has ended, or several."""
        self.shared.session_ended()

    def _operate(self, kind: str, *fields: Any) -> Deferred[Any]:
        return self.shared.cache.perform(wire.read(kind, *fields)).addCallback(wire.rows)

    def _written(self, records: Sequence[Record]) -> None:
        self._tell_all("absorb", [wire.row(record) for record in records])

    def _take_over(self, counts: list[dict[str, int]], routes: dict[str, list[int]]) -> None:
        add_report(self.shared.stats, counts)
        self.shared.routes.give_back({key: Counts(*values) for key, values in routes.items()})

    async def _administer(self, sid: str, line: str) -> list[Any] | None:
        """A command that was given to a worker on the SMTP port, by somebody who may."""
        administration = self.shared.administration
        verb, argument = commands.split(line)
        answer = await administration.carry_out(administration.commands[verb.upper()], Asker(sid), argument, line)
        return None if answer is None else [list(answer.lines), answer.number]

    # The sessions, for the end of the node.

    def __len__(self) -> int:
        return sum(worker.sessions for worker in self._workers)

    async def stop(self) -> None:
        """Let every worker end its sessions as a node ends them."""
        await self._ask_all("stop")

    def abort(self) -> None:
        """Cut all sessions."""
        self._tell_all("abort")

    # The roster, for the administration.

    async def listing(self) -> tuple[int, list[str]]:
        threads, lines = self.shared.engine.workers, list[str]()
        for more, sessions in await self._ask_all("list", seconds=ANSWER_SECONDS):
            threads += more
            lines += sessions
        return threads, lines

    async def kill(self, sid: str) -> bool:
        return any(await self._ask_all("kill", sid, seconds=ANSWER_SECONDS))

    async def bring_up_to_date(self) -> None:
        for counts, routes in await self._ask_all("report", seconds=ANSWER_SECONDS):
            self._take_over(counts, routes)

    # Options and files.

    def configure(self, settings: Settings) -> None:
        """Tell all workers of changed options."""
        self._tell_all("settings", texts_of(settings))

    async def read_sources(self) -> None:
        """Let all workers read maps, certificates and texts again."""
        await self._ask_all("reload")

    @property
    def open_files(self) -> int:
        """Open descriptors of all workers."""
        return sum(worker.open_files for worker in self._workers)

    def _tell_all(self, name: str, *arguments: Any) -> None:
        line = news(name, *arguments)
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.tell_line(line)

    async def _ask_all(self, name: str, *arguments: Any, seconds: float = 0.0) -> list[Any]:
        """The answers of those that are ready. Who does not answer, within ``seconds`` if given, is left out."""
        asked = [worker.channel.call(name, *arguments) for worker in self._workers if worker.ready and worker.channel is not None]
        if seconds:
            asked = [each.addTimeout(seconds, self._reactor) for each in asked]
        results = await DeferredList(asked, consumeErrors=True)
        return [answer for good, answer in results if good]


class HandingOver:
    """Takes the connections of one interface by giving them to workers."""

    def __init__(self, crew: Crew, interface: int) -> None:
        self._crew = crew
        self._interface = interface

    def begin(self) -> None:
        """Nothing is to be begun."""

    def take(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        self._crew.hand_over(self._interface, connection, peer)

    def end(self) -> None:
        """Nothing is to be ended."""


def refuse(connection: socket.socket, engine: Engine) -> None:
    """Tell a client to come back, if it takes that at once, and close."""
    answer = render(replies.NOT_AVAILABLE, (), engine.ids.next(engine.now()))
    try:
        connection.send(answer.encode())
    except OSError:
        # It hears the connection close.
        pass
    connection.close()


def texts_of(settings: Settings) -> dict[str, str]:
    """The text of every option by name."""
    return {option.name: settings.text(option) for option in settings.options}


def _environment() -> dict[str, str]:
    """That of this process, with its module path: a worker must find the same code wherever it starts."""
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
    return {**os.environ, "PYTHONPATH": path}


def _how(reason: Failure) -> str:
    signal, status = getattr(reason.value, "signal", None), getattr(reason.value, "exitCode", None)
    return f"signal {signal}" if signal is not None else f"exit status {status}"
