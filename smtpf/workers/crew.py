"""The coordinator's side: starts the workers, gives each its clients, keeps what they share, and replaces one that dies.

A worker accepts on sockets of its own where the kernel steers clients to them; where it cannot, and while a worker is missing, the
coordinator accepts and hands over. Sessions of a worker that dies are cut, and their clients come again: nothing was accepted that a
next hop had not accepted. Those that it had not taken up yet wait for the worker in its place. Source: spec chapter operations, 6.6.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from smtpf.admin.asker import Asker
from smtpf.admin.roster import OwnSessions
from smtpf.journal.message import err, info
from smtpf.process.steering import Steering
from smtpf.reply import render
from smtpf.serving import StartRefused
from smtpf.smtp import commands, replies
from smtpf.smtp import options as opt
from smtpf.smtp.reception import THROTTLE_PAUSE
from smtpf.stats.routes import Counts
from smtpf.workers import cache as wire
from smtpf.workers.board import Board
from smtpf.workers.channel import Channel, ChannelError, news
from smtpf.workers.handover import Giving, Passed
from smtpf.workers.statistics import add_report
from smtpf.workers.tallies import CrewTallies

if TYPE_CHECKING:
    from smtpf.admin.commands import Administration
    from smtpf.cache.records import Record
    from smtpf.cache.store import Cache
    from smtpf.journal.journal import Journal
    from smtpf.process.listening import Listening, Taker
    from smtpf.process.sessions import SessionsInProgress
    from smtpf.settings.store import Settings
    from smtpf.smtp.arrivals import Arrivals
    from smtpf.smtp.engine import Engine
    from smtpf.stats.routes import RouteCounts
    from smtpf.stats.tables import Statistics

PROGRAM = "smtpf.workers.worker"
"""The module that a worker runs."""
CHANNEL = 3
"""Descriptor of a worker's channel, in the worker."""
HANDOVER = 4
"""Descriptor at which a worker takes up connections, in the worker."""
PRESENCE = 5
"""Descriptor of the bitmap of the cache's keys, in the worker of a node that has one."""
BOARD = 6
"""Descriptor of the board, in the worker."""
LISTENERS = 7
"""First of the descriptors at which a worker accepts, in the worker: its doors at each interface whose clients are steered."""
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
    tallies: CrewTallies
    administration: Administration
    listening: Listening
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
        self.given = 0
        """Connections handed to this process."""
        self._arrived = 0
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
    def doors(self) -> tuple[int, ...]:
        """The numbers of the sockets at which it accepts."""
        return self._crew.steering.doors(self.number - 1)

    @property
    def sessions(self) -> int:
        """Clients that it answers, or has been given to answer."""
        board = self._crew.board
        return board.sessions(self.number) + max(0, self.given - board.taken(self.number))

    @property
    def usable(self) -> bool:
        """It takes clients, or will at once."""
        return self.ready or self.failures < 2

    def spawn(self) -> None:
        """Start a process for this place."""
        self._pause = None
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        crew = self._crew
        with near, far:
            descriptors = {0: 0, 1: 1, 2: 2, CHANNEL: far.fileno(), HANDOVER: self.giving.far.fileno(), BOARD: crew.board.descriptor}
            presence = crew.shared.cache.presence
            if presence is not None:
                descriptors[PRESENCE] = presence.descriptor
            sockets = (crew.shared.listening.bound[interface].sockets[door] for interface in crew.steered for door in self.doors)
            descriptors |= {LISTENERS + number: each.fileno() for number, each in enumerate(sockets)}
            self._process = self._reactor.spawnProcess(
                self, sys.executable, [sys.executable, "-m", PROGRAM], env=_environment(), childFDs=descriptors
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
        self.channel.call("begin", self._crew.greeting(self)).addCallbacks(self._is_ready, lambda failure: failure.trap(ChannelError))

    def _is_ready(self, nothing: None) -> None:
        self._cancel()
        self.ready = True
        self._timer = self._reactor.callLater(SILENT_SECONDS, self.cut)
        self._journal.write(WORKER_READY, self.number, self.pid)
        if self._crew.open:
            self.take_clients()
        if not self.first.called:
            self.first.callback(None)

    def take_clients(self) -> None:
        """Let the process, which is ready, accept where its clients are steered to it."""
        if self.channel is not None and self.ready:
            self._crew.shared.listening.leave(self.doors)
            self.channel.tell("accept")

    def processEnded(self, reason: Failure) -> None:
        self._cancel()
        self.ready, self.channel, self._process = False, None, None
        if self.ended is not None:
            self._forget(0)
            self.ended.callback(None)
            return
        left = self.giving.take_back()
        lost = max(0, self.sessions - len(left))
        self._forget(len(left))
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
        self._crew.stand_in(self)
        self._crew.sessions_ended()

    def _forget(self, given: int) -> None:
        """The process is no more; ``given`` connections wait for the next one."""
        self._crew.board.clear(self.number)
        self._crew.shared.tallies.forget(self.number)
        self.given, self._arrived = given, 0

    def dismissed(self) -> None:
        """Be as before the first start. There is no process."""
        self.first, self.ended, self.failures = Deferred(), None, 0

    def arrived(self) -> int:
        """Connections that it has accepted since this was asked last."""
        before, self._arrived = self._arrived, self._crew.board.arrived(self.number)
        return self._arrived - before

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
    """All workers of a node, and the sessions that the coordinator itself may have: for the end of the node, and for its administration."""

    def __init__(self, steering: Steering, reactor: Any, journal: Journal, own: SessionsInProgress) -> None:
        """One worker for each place of ``steering``. ``own`` are the sessions that this process answers, as long as no worker does."""
        self._reactor = reactor
        self._journal = journal
        self._own = own
        self.steering = steering
        self.board = Board.make(steering.places + 1)
        """Row 0 is the coordinator's, row N that of worker N."""
        self._workers = [Worker(self, number, reactor, journal) for number in range(1, steering.places + 1)]
        self._shared: Shared | None = None
        self.steered: list[int] = []
        """Interfaces whose clients the kernel brings to their worker, by their place in ``interfaces``."""
        self.open = False
        """Workers answer clients."""

    @property
    def shared(self) -> Shared:
        """Set by ``prepare``."""
        assert self._shared is not None
        return self._shared

    def prepare(self, shared: Shared) -> None:
        """Hear what there is to share, before anything is accepted."""
        self._shared = shared
        self.steered = [number for number, bound in enumerate(shared.listening.bound) if bound.steered]
        shared.listening.closing = self._close_doors
        shared.engine.elsewhere = self._in_workers
        shared.cache.followers.append(self._written)

    async def start(self) -> None:
        """Start all workers. Raises StartRefused when one of them cannot; then ``dismiss`` ends the others."""
        for worker in self._workers:
            worker.spawn()
        for worker in self._workers:
            await worker.first

    def begin(self) -> None:
        """All workers are ready: let them answer clients from now on. Sessions of this process go on."""
        self.open = True
        for worker in self._workers:
            worker.take_clients()

    async def dismiss(self) -> None:
        """End those that have been started, and be as before."""
        await self._end_all()
        for worker in self._workers:
            worker.dismissed()

    async def close(self) -> None:
        """End all workers, with their last counts taken over."""
        await self._end_all()
        for worker in self._workers:
            worker.giving.close()

    async def _end_all(self) -> None:
        for each in self._workers:
            # Nobody waits for a start that is given up.
            each.first.addErrback(lambda failure: failure.trap(StartRefused))
        ending = [ended for worker in self._workers if (ended := worker.end()) is not None]
        timer = self._reactor.callLater(END_SECONDS, self._cut)
        for ended in ending:
            await ended
        if timer.active():
            timer.cancel()

    def _cut(self) -> None:
        for worker in self._workers:
            worker.cut()

    # Connections

    def taker(self, interface: int, own: Taker) -> HandingOver:
        """Takes the connections of ``interface``; ``own`` answers them in this process, as long as no worker does."""
        return HandingOver(self, interface, own)

    def stand_in(self, worker: Worker) -> None:
        """Accept at the doors at which nobody does now that ``worker`` does not."""
        open_still = {door for each in self._workers if each.ready for door in each.doors}
        self.shared.listening.stand_in(set(worker.doors) - open_still)

    def hand_over(self, interface: int, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        """Give a connection to the worker of its client."""
        shared = self.shared
        arrival = shared.arrivals.arrived(shared.settings()[opt.RATE_THROTTLE])
        if arrival.throttled:
            shared.listening.hold(THROTTLE_PAUSE)
        worker = self._worker_for(peer[0], peer[1])
        passed = Passed(connection, interface, peer, arrival.this_second, arrival.throttled)
        if worker is not None and worker.giving.give(passed):
            worker.given += 1
            return
        self._journal.write(NO_WORKER, peer[0])
        refuse(connection, shared.engine)

    def _worker_for(self, address: str, port: int) -> Worker | None:
        """The worker of a client; while that one cannot be started, the next that can."""
        workers = self._workers
        place = self.steering.place_of(address, port)
        return next((worker for worker in (*workers[place:], *workers[:place]) if worker.usable), None)

    # What workers ask for and tell.

    def greeting(self, worker: Worker) -> dict[str, Any]:
        """What ``worker`` needs to begin."""
        shared = self.shared
        return {
            **shared.greeting, "settings": texts_of(shared.settings()), "presence": shared.cache.presence is not None,
            "number": worker.number, "workers": len(self._workers), "steered": self.steered,
            "spread": [str(network) for network in self.steering.spread],
        }  # fmt: skip

    def handlers(self, worker: Worker) -> dict[str, Callable[..., Any]]:
        """What ``worker`` may ask for."""

        def report(counts: list[dict[str, int]], routes: dict[str, list[int]], files: int) -> None:
            worker.heard(files)
            self.board.put_sessions(len(self._own))
            self.shared.arrivals.count(worker.arrived())
            self._take_over(counts, routes)

        return {
            wire.ASK: self._operate, "ended": self.sessions_ended, "report": report, "admin": self._administer,
            **self.shared.tallies.handlers(worker.number),
        }  # fmt: skip

    def sessions_ended(self) -> None:
        """Some session has ended, or several."""
        self.shared.session_ended()

    def _operate(self, kind: str, *fields: Any) -> Deferred[Any]:
        return self.shared.cache.perform(wire.read(kind, *fields)).addCallback(wire.rows)

    def _written(self, records: Sequence[Record]) -> None:
        if any(worker.channel is not None for worker in self._workers):
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
        return len(self._own) + self._in_workers()

    def _in_workers(self) -> int:
        return sum(worker.sessions for worker in self._workers)

    def _close_doors(self) -> None:
        """Nothing is accepted any more. From now on workers tell of each session that ends."""
        self._tell_all("close")

    async def stop(self) -> None:
        """Let every process end its sessions as a node ends them."""
        own = ensureDeferred(self._own.stop())
        await self._ask_all("stop")
        await own

    def abort(self) -> None:
        """Cut all sessions."""
        self._own.abort()
        self._tell_all("abort")

    # The roster, for the administration.

    async def listing(self) -> tuple[int, list[str]]:
        threads, lines = await OwnSessions(self.shared.engine).listing()
        for more, sessions in await self._ask_all("list", seconds=ANSWER_SECONDS):
            threads += more
            lines += sessions
        return threads, lines

    async def kill(self, sid: str) -> bool:
        return await OwnSessions(self.shared.engine).kill(sid) or any(await self._ask_all("kill", sid, seconds=ANSWER_SECONDS))

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

    def _ask_all(self, name: str, *arguments: Any, seconds: float = 0.0) -> Deferred[list[Any]]:
        """The answers of those that are ready. Who does not answer, within ``seconds`` if given, is left out."""
        asked = [worker.channel.call(name, *arguments) for worker in self._workers if worker.ready and worker.channel is not None]
        if seconds:
            asked = [each.addTimeout(seconds, self._reactor) for each in asked]
        return DeferredList(asked, consumeErrors=True).addCallback(lambda results: [answer for good, answer in results if good])


class HandingOver:
    """Takes the connections of one interface by giving them to workers; before they answer clients, by answering."""

    def __init__(self, crew: Crew, interface: int, own: Taker) -> None:
        self._crew = crew
        self._interface = interface
        self._own = own

    def begin(self) -> None:
        self._own.begin()

    def take(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        if self._crew.open:
            self._crew.hand_over(self._interface, connection, peer)
        else:
            self._own.take(connection, peer)

    def end(self) -> None:
        self._own.end()


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
