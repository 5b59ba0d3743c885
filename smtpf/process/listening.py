"""The listening sockets: bound first, while the process may still bind port 25, and served last, when all is ready.

Accepting is done here and not by Twisted's own port, because a node that has no descriptors left must say so once and
pause, and because ``server-max-threads`` bounds the sessions: further clients wait in the listen queue. Source: spec
chapter session, 1.1 and 1.2, and operations, 6.7.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocolFactory, IReadDescriptor
from twisted.internet.tcp import Server
from zope.interface import implementer

from smtpf.journal.message import err, info, warn
from smtpf.process.ending import CannotStart
from smtpf.process.interfaces import interface_name, parse_interface
from smtpf.process.steering import Steering
from smtpf.settings.process_options import INTERFACE_NAME, INTERFACES, SERVER_MAX_THREADS, SMTP_SERVER_QUEUE, TEST_MODE

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Failures of accept that pass when something ends."""
PAUSE = 1.0
"""Seconds without accepting after a shortage, unless a session ends before."""
LOOK = 0.1
"""Seconds after which a process of several looks again whether there is room: sessions end in others, too."""
ACCEPTS = 20
"""Connections taken from one socket before others get their turn."""
SHARED_ACCEPTS = 2
"""The same where another process may be there first: each takes as many as it comes round to."""
FIRST_PASSED = 3
"""Number of the first descriptor that a service manager passes (sd_listen_fds(3))."""


INTERFACE_READY = info(
    595,
    "interface=%s ready",
    "The node listens on this address. It answers clients after #599.",
    fields=("interface",),
    always=True,
)
INTERFACE_ERROR = err(
    596,
    "interface=%s error: %s (%d)",
    "An address of option interfaces cannot be listened on: it is not this machine's, in use by another program, or needs root.",
    fields=("interface", "error", "errno"),
)
INTERFACE_DISABLED = warn(
    597, "interface=%s disabled", "The node goes on without this address; #596 before it tells why.", fields=("interface",)
)
NO_INTERFACES = err(
    812,
    'no matching interfaces="%s"',
    "None of the addresses of option interfaces can be listened on, so the node does not start.",
    fields=("interfaces",),
)
ACCEPT_ERROR = err(
    602,
    "socket accept: %s (%d); th=%u cn=%u",
    "No connection could be accepted, usually because descriptors ran out. Accepting pauses for a second or until a session ends. "
    "Raise run-open-file-limit, or bound the sessions with server-max-threads.",
    fields=("error", "errno", "threads", "connections"),
)
THREAD_RETIRED = err(
    603,
    "terminating excess thread th=%u cn=%u",
    "After a shortage of descriptors or memory an idle thread of the worker pool was ended to free what it held.",
    fields=("threads", "connections"),
)


@attrs.frozen(eq=False)
class Bound:
    """An address that the node listens on, and how it calls itself there."""

    text: str
    """The item of ``interfaces``."""
    sockets: tuple[socket.socket, ...]
    """As ``Steering.share_out`` has it; a single one for all processes where clients cannot be steered."""
    name: str
    """The interface name: greeting, HELO replies, Received."""
    accepts: int = ACCEPTS
    """Connections taken from one socket before others get their turn."""

    @property
    def steered(self) -> bool:
        """Each process has a socket of its own here."""
        return len(self.sockets) > 1


class Listening:
    """All listening sockets of the node, or those of one of its processes.

    ``sessions`` gives the number of sessions now; ``host_name`` is the machine's full name. Call ``session_ended`` whenever
    a session of this process has ended. ``steering`` is given where several processes may answer; sessions end unheard in the others.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        reactor: Any,
        host_name: str,
        sessions: Callable[[], int],
        reverse: Callable[[str], str] | None = None,
        steering: Steering | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._reactor = reactor
        self._host_name = host_name
        self._sessions = sessions
        self._reverse = reverse
        self._most = most_sessions(settings)
        self._acceptors: list[Acceptor] = []
        self._takers: list[Taker] = []
        self._pause: Any = None
        self._full = False
        self._steering = steering
        self._left: set[int] = set()
        self.bound: list[Bound] = []
        self.closing: Callable[[], None] = lambda: None
        """Called when nothing more is to be accepted."""

    def bind(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Bind every interface, or take the sockets that the service manager passed. Raises CannotStart (#812)."""
        passed = passed_sockets(environment) if environment is not None else []
        backlog = 1 if self._settings[TEST_MODE] else self._settings[SMTP_SERVER_QUEUE]
        if passed:
            for each in passed:
                text = _address_text(each)
                self._keep(text, each, backlog)
                self._journal.write(INTERFACE_READY, text)
            return
        for text in self._settings[INTERFACES]:
            self._bind(text, backlog)
        if not self.bound:
            self._journal.write(NO_INTERFACES, self._settings.text(INTERFACES))
            raise CannotStart

    def adopt(self, bound: Iterable[Bound]) -> None:
        """Take addresses that another process has bound."""
        self.bound = list(bound)

    def start(self, factory: Callable[[Bound], IProtocolFactory]) -> None:
        """Accept connections from now on; ``factory`` makes the protocol factory of each interface."""
        self.hand_over(lambda bound: Answering(factory(bound), self._reactor))

    def hand_over(self, taker: Callable[[Bound], Taker]) -> None:
        """Accept connections from now on, and give those of each interface to its taker."""
        for bound in self.bound:
            one = taker(bound)
            one.begin()
            self._takers.append(one)
            self._acceptors += [
                Acceptor(each, door if bound.steered else None, bound.accepts, one, self, self._reactor)
                for door, each in enumerate(bound.sockets)
            ]
        self._read()

    def leave(self, doors: Iterable[int]) -> None:
        """Leave the sockets of these numbers to other processes, where clients are steered to them."""
        self._left.update(doors)
        for acceptor in self._acceptors:
            if acceptor.door in self._left:
                acceptor.pause()

    def stand_in(self, doors: Iterable[int]) -> None:
        """Accept at the sockets of these numbers: no other process does."""
        self._left.difference_update(doors)
        if self._pause is None and not self._full:
            self._read()

    def configure(self, settings: Settings) -> None:
        """Take over a changed ``server-max-threads``."""
        self._most = most_sessions(settings)
        self.session_ended()

    def stop(self) -> None:
        """Accept nothing more, for good: the sockets are closed."""
        self._cancel_pause()
        for acceptor in self._acceptors:
            acceptor.end()
        for taker in self._takers:
            taker.end()
        self._acceptors, self._takers = [], []
        for bound in self.bound:
            for each in bound.sockets:
                each.close()
        if self.bound:
            self.bound = []
            self.closing()

    def session_ended(self) -> None:
        """A session has ended: there may be room again."""
        if self._pause is not None or self._full:
            self._resume()

    def room(self) -> bool:
        """Whether one more session may begin; False pauses accepting until one ends."""
        if not self._most or self._sessions() < self._most:
            return True
        self._full = True
        self._stop_reading()
        if self._steering is not None and self._pause is None:
            self._pause = self._reactor.callLater(LOOK, self._resume)
        return False

    def hold(self, seconds: float) -> None:
        """Accept nothing for so long; a session that ends does not shorten it by more than a shortage's pause."""
        if self._pause is None:
            self._stop_reading()
            self._pause = self._reactor.callLater(seconds, self._resume)

    def failed(self, error: OSError) -> None:
        """Accepting failed. A shortage pauses all interfaces; anything else concerned that one client only."""
        if error.errno not in SHORTAGE:
            return
        if self._pause is None:
            self._journal.write(ACCEPT_ERROR, error.strerror, error.errno, self._threads(), self._sessions())
            self._retire_thread()
            self._stop_reading()
            self._pause = self._reactor.callLater(PAUSE, self._resume)

    def _bind(self, text: str, backlog: int) -> None:
        interface = parse_interface(text)
        if interface is None:
            self._refuse(text, OSError(errno.EINVAL, os.strerror(errno.EINVAL)))
            return
        try:
            found = socket.getaddrinfo(interface.host, interface.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            self._refuse(text, error)
            return
        problem: OSError | None = None
        before = len(self.bound)
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            try:
                listener = _listen(family, address, backlog)
            except OSError as error:
                problem = problem or error
            else:
                self._keep(text, listener, backlog)
        if len(self.bound) > before:
            self._journal.write(INTERFACE_READY, text)
        elif problem is not None:
            self._refuse(text, problem)

    def _keep(self, text: str, listener: socket.socket, backlog: int) -> None:
        name = interface_name(self._settings[INTERFACE_NAME], listener.getsockname()[0], self._host_name, self._reverse)
        sockets = (listener,) if self._steering is None else self._steering.share_out(listener, backlog)
        for each in sockets:
            # Accepted connections inherit both. Without the first each reply would wait for the client's acknowledgement of the one before.
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.bound.append(Bound(text, sockets, name))

    def _refuse(self, text: str, error: OSError) -> None:
        self._journal.write(INTERFACE_ERROR, text, error.strerror or str(error), error.errno or 0)
        self._journal.write(INTERFACE_DISABLED, text)

    def _stop_reading(self) -> None:
        for acceptor in self._acceptors:
            acceptor.pause()

    def _resume(self) -> None:
        self._cancel_pause()
        self._full = False
        self._read()

    def _read(self) -> None:
        for acceptor in self._acceptors:
            if acceptor.door not in self._left:
                acceptor.resume()

    def _cancel_pause(self) -> None:
        pause, self._pause = self._pause, None
        if pause is not None and pause.active():
            pause.cancel()

    def _threads(self) -> int:
        pool = self._reactor.getThreadPool()
        return max(1, len(pool.threads))

    def _retire_thread(self) -> None:
        """End one idle thread of the pool; its stack and descriptors are worth more elsewhere now."""
        pool = self._reactor.getThreadPool()
        threads = len(pool.threads)
        if threads <= max(1, pool.min) or not pool.waiters:
            return
        most = pool.max
        pool.adjustPoolsize(maxthreads=threads - 1)
        pool.adjustPoolsize(maxthreads=most)
        self._journal.write(THREAD_RETIRED, threads - 1, self._sessions())


class Taker(Protocol):
    """What becomes of the connections of one interface."""

    def begin(self) -> None: ...

    def take(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        """``connection`` has been accepted from ``peer``, and is the taker's to close."""

    def end(self) -> None: ...


class Answering:
    """Takes connections by answering them here, with the protocols of ``factory``."""

    def __init__(self, factory: IProtocolFactory, reactor: Any) -> None:
        self._factory = factory
        self._reactor = reactor
        self._number = 0

    def begin(self) -> None:
        self._factory.doStart()

    def take(self, connection: socket.socket, peer: tuple[Any, ...]) -> None:
        address = IPv4Address("TCP", *peer) if len(peer) == 2 else IPv6Address("TCP", *peer)
        protocol = self._factory.buildProtocol(address)
        if protocol is None:
            connection.close()
            return
        self._number += 1
        transport = Server(connection, protocol, peer, None, self._number, self._reactor)  # type: ignore[arg-type]
        transport.repstr = f"<smtp connection {self._number} of {peer[0]}>"
        protocol.makeConnection(transport)

    def end(self) -> None:
        self._factory.doStop()


@implementer(IReadDescriptor)
class Acceptor:
    """Accepts on one socket while the reactor finds it readable."""

    def __init__(self, listener: socket.socket, door: int | None, accepts: int, taker: Taker, listening: Listening, reactor: Any) -> None:
        """``door`` is the number of the socket among those to which clients are steered; None: all come here."""
        self.door = door
        self._accepts = accepts
        self._reactor = reactor
        self._socket = listener
        self._taker = taker
        self._listening = listening
        self._open = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "accept"

    def end(self) -> None:
        self.pause()
        self._open = False

    def pause(self) -> None:
        self._reactor.removeReader(self)

    def resume(self) -> None:
        self._reactor.addReader(self)

    def doRead(self) -> None:
        for _ in range(self._accepts):
            if not self._open or not self._listening.room():
                return
            try:
                connection, peer = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._listening.failed(error)
                return
            self._taker.take(connection, peer)

    def connectionLost(self, reason: Any) -> None:
        """The reactor disconnects what it reads when it ends."""
        self.pause()
        self._open = False


def service_manager(environment: Mapping[str, str], first: Path = Path("/proc/self/environ")) -> dict[str, str]:
    """What the service manager said of passed sockets: LISTEN_* of ``environment``, or of the one this process was started with.

    Twisted takes the variables out when its endpoints are imported, for endpoints of its own that no node uses.
    """
    found = {name: value for name, value in environment.items() if name.startswith("LISTEN_")}
    try:
        words = os.fsdecode(first.read_bytes()).split("\0")
    except OSError:
        words = []
    return dict(word.split("=", 1) for word in words if word.startswith("LISTEN_") and "=" in word) | found


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Listening sockets inherited from a service manager (LISTEN_FDS and LISTEN_PID); the variables are taken out."""
    count, pid = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(count)):
        listener = socket.socket(fileno=descriptor)
        listener.set_inheritable(False)
        listener.setblocking(False)
        if listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM:
            sockets.append(listener)
    return sockets


def fully_qualified_name() -> str:
    """This machine's full name, in lower case. Raises OSError."""
    own = socket.gethostname()
    if not own:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    return socket.getfqdn(own).rstrip(".").lower()


def most_sessions(settings: Settings) -> int:
    """Sessions at the same time, by ``server-max-threads`` and ``test-mode``; 0 without bound."""
    return settings[SERVER_MAX_THREADS] if settings[SERVER_MAX_THREADS] > 0 else int(settings[TEST_MODE])


def _listen(family: int, address: Any, backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that [::0] leaves the IPv4 side to 0.0.0.0, and no peer appears as an IPv4-mapped address.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


def _address_text(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
