"""Asks DNS servers: UDP with repetition, TCP after truncation, one server after the other or all at once.

An answer is believed only when it comes from the server asked (the sockets are connected), carries the random
identifier of the query and repeats its question (RFC 5452). Source ports are chosen by the system and change often.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientFactory, DatagramProtocol
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

from smtpf.dns import wire
from smtpf.dns.servers import Server

QUERIES_PER_PORT = 64
"""Queries sent from one source port before another is taken."""
PORTS_PER_SERVER = 8
"""Source ports in use towards one server at a time; each query takes one of them at random."""
MAX_FORGERIES = 8
"""Wrong answers to one source port before it is given up."""
TRY_TIMEOUTS = (2.0, 3.0, 5.0, 8.0, 13.0, 21.0)
"""Seconds to wait at each repetition; the last one goes on."""
PAUSE_WHEN_REFUSED = 1.0
"""Seconds before the second and last attempt when no server could be reached at all."""
TURN = 512
"""Octets of answers taken from one source port before others have their turn: a few answers, each of which may set a session going."""
MAX_SENT = 20_000
"""Queries waiting for an answer on the wire."""


Heard = Callable[["wire.Response | None"], None]
"""Called once with the response, or None when the server cannot be reached."""


@attrs.define(eq=False)
class _Sent:
    """One query on the wire."""

    name: bytes
    rtype: int
    heard: Heard


class _Port(DatagramProtocol):
    """A source port towards one server."""

    noisy = False
    transport: Any = None

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waiting: dict[int, _Sent] = {}
        self._forgeries = 0
        self._closing = False
        self.left = QUERIES_PER_PORT

    @property
    def usable(self) -> bool:
        return self.left > 0 and not self._closing

    def startProtocol(self) -> None:
        self.transport.connect(*self._server)

    def send(self, chance: random.Random, sent: _Sent, edns: bool) -> int | None:
        """The identifier of the query, drawn by ``chance``; None when the system refuses to send."""
        ident = chance.getrandbits(16)
        while ident in self._waiting:
            ident = chance.getrandbits(16)
        self.left -= 1
        try:
            self.transport.write(wire.question(ident, sent.name, sent.rtype, edns))
        except OSError:
            self.retire()
            return None
        self._waiting[ident] = sent
        return ident

    def forget(self, ident: int) -> None:
        """The answer to ``ident`` is no longer wanted."""
        self._waiting.pop(ident, None)
        if not self._waiting and not self.usable:
            self.retire()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        ident = int.from_bytes(datagram[:2], "big")
        sent = self._waiting.get(ident)
        got = wire.response(datagram, ident, sent.name, sent.rtype) if sent is not None else None
        if sent is None or got is None:
            self._forgeries += 1
            if self._forgeries >= MAX_FORGERIES:
                self.left = 0
            return
        self.forget(ident)
        sent.heard(got)

    def connectionRefused(self) -> None:
        self.retire()
        self._unreachable()

    def stopProtocol(self) -> None:
        """The socket is closed: by us, or by the reactor, as epoll makes it do when the server's host refuses."""
        self._closing = True
        self._unreachable()

    def _unreachable(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for sent in waiting.values():
            sent.heard(None)

    def retire(self) -> None:
        if not self._closing and self.transport is not None:
            self._closing = True
            self.transport.stopListening()


class _Stream(Int16StringReceiver):
    """One query over TCP (RFC 7766)."""

    MAX_LENGTH = 65535

    def __init__(self, factory: _StreamFactory) -> None:
        self._query = factory

    def connectionMade(self) -> None:
        query = self._query
        self.sendString(  # type: ignore[no-untyped-call]
            wire.question(query.ident, query.sent.name, query.sent.rtype)
        )

    def stringReceived(self, string: bytes) -> None:
        query = self._query
        got = wire.response(string, query.ident, query.sent.name, query.sent.rtype)
        query.done(got)


class _StreamFactory(ClientFactory):
    noisy = False

    def __init__(self, ident: int, sent: _Sent) -> None:
        self.ident = ident
        self.sent = sent
        self.connector: Any = None
        self._done = False

    def buildProtocol(self, addr: Any) -> _Stream:
        return _Stream(self)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.done(None)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.done(None)

    def done(self, got: wire.Response | None) -> None:
        if not self._done:
            self._done = True
            self.connector.disconnect()
            self.sent.heard(got)

    def forget(self) -> None:
        self._done = True
        self.connector.disconnect()


class Client:
    """Puts questions to the servers until one answers or the time is over."""

    def __init__(self, reactor: Any, servers: Sequence[Server], chance: random.Random) -> None:
        self._reactor = reactor
        self._servers = tuple(servers)
        self._chance = chance
        self._ports: dict[Server, list[_Port]] = {}
        self._first = 0
        self._sent = 0
        self.round_robin = False
        self.stopped = False

    def ask(self, name: bytes, rtype: int, timeout: float) -> Deferred[wire.Response | int]:
        """The response, or an errno (``ETIMEDOUT``, ``ECONNREFUSED``, ``EAGAIN``) when there is none within ``timeout`` seconds."""
        return _Asking(self, self._reactor, name, rtype, timeout).result

    def stop(self) -> None:
        """Close all sockets. Queries under way end without an answer."""
        self.stopped = True
        everything, self._ports = self._ports, {}
        for ports in everything.values():
            for port in ports:
                port.retire()

    def order(self) -> tuple[Server, ...]:
        """All servers; with round-robin another one first each time."""
        if not self.round_robin or len(self._servers) < 2:
            return self._servers
        self._first = (self._first + 1) % len(self._servers)
        return self._servers[self._first :] + self._servers[: self._first]

    def send(self, server: Server, sent: _Sent, edns: bool = True) -> Callable[[], None] | None:
        """Send by UDP. Returns what forgets the query, None when it could not be sent."""
        if self._sent >= MAX_SENT or self.stopped:
            return None
        port = self._port(server)
        ident = None if port is None else port.send(self._chance, sent, edns)
        if port is None or ident is None:
            return None
        self._sent += 1
        over = False

        def forget() -> None:
            nonlocal over
            if not over:
                over = True
                self._sent -= 1
                port.forget(ident)

        return forget

    def send_stream(self, server: Server, sent: _Sent, timeout: float) -> Callable[[], None]:
        """Send by TCP. Returns what forgets the query."""
        factory = _StreamFactory(self._chance.getrandbits(16), sent)
        factory.connector = self._reactor.connectTCP(*server, factory, timeout=timeout)
        return factory.forget

    def _port(self, server: Server) -> _Port | None:
        ports = self._ports.setdefault(server, [])
        if any(not port.usable for port in ports):
            ports[:] = [port for port in ports if port.usable]
        if len(ports) < PORTS_PER_SERVER:
            port = _Port(server)
            try:
                self._reactor.listenUDP(0, port, interface="::" if ":" in server[0] else "", maxPacketSize=65535).maxThroughput = TURN
            except OSError:
                return None
            ports.append(port)
            return port
        return ports[self._chance.randrange(len(ports))]


class _Asking:
    """One question on its way: its repetitions, and which servers have said what."""

    def __init__(self, client: Client, reactor: IReactorTime, name: bytes, rtype: int, timeout: float) -> None:
        self._client = client
        self._reactor = reactor
        self._name = name
        self._rtype = rtype
        self._deadline = reactor.seconds() + timeout
        self._servers = client.order()
        self._errors: dict[Server, wire.Response] = {}
        self._plain: set[Server] = set()
        self._pending: dict[Server, Callable[[], None]] = {}
        self._tries = 0
        self._unreachable = 0
        self._timer: Any = None
        self.result: Deferred[wire.Response | int] = Deferred(self._cancelled)
        self._start_try()

    def _start_try(self) -> None:
        self._timer = None
        self._forget_all()
        left = self._deadline - self._reactor.seconds()
        open_servers = [server for server in self._servers if server not in self._errors]
        if left <= 0 or not open_servers:
            self._finish(self._worst())
            return
        targets = [open_servers[self._tries % len(open_servers)]] if self._client.round_robin else open_servers
        wait = min(TRY_TIMEOUTS[min(self._tries, len(TRY_TIMEOUTS) - 1)], left)
        self._tries += 1
        self._timer = self._reactor.callLater(wait, self._start_try)
        unsent = 0
        for server in targets:
            forget = self._client.send(server, self._sent(server), server not in self._plain)
            if forget is None:
                unsent += 1
            else:
                self._pending[server] = forget
        if unsent == len(targets):
            self._all_unreachable()

    def _sent(self, server: Server) -> _Sent:
        return _Sent(self._name, self._rtype, lambda got: self._heard(server, got))

    def _heard(self, server: Server, got: wire.Response | None) -> None:
        if self.result.called:
            return
        forget = self._pending.pop(server, None)
        if forget is not None:
            forget()
        if got is None:
            if not self._pending:
                self._all_unreachable()
            return
        if got.truncated:
            left = max(0.1, self._deadline - self._reactor.seconds())
            self._pending[server] = self._client.send_stream(server, self._sent(server), min(left, TRY_TIMEOUTS[2]))
            self._extend(min(left, TRY_TIMEOUTS[2]))
            return
        if got.rcode in (0, 3):
            self._finish(got)
            return
        if got.rcode in (1, 4) and server not in self._plain:
            self._plain.add(server)  # perhaps it does not know EDNS0 (RFC 6891 7)
            again = self._client.send(server, self._sent(server), False)
            if again is not None:
                self._pending[server] = again
                return
        self._errors[server] = got
        if not self._pending:
            self._next_try(0)

    def _all_unreachable(self) -> None:
        """Nobody is left to wait for in this try."""
        if self._client.stopped or len(self._errors) == len(self._servers):
            self._finish(self._worst())
            return
        self._unreachable += 1
        reachable = len(self._servers) - len(self._errors)
        if self._client.round_robin and self._unreachable % reachable:
            self._next_try(0)
        elif self._unreachable < 2 * (reachable if self._client.round_robin else 1):
            self._next_try(min(PAUSE_WHEN_REFUSED, max(0.0, self._deadline - self._reactor.seconds())))
        else:
            self._finish(next(iter(self._errors.values()), errno.ECONNREFUSED))

    def _worst(self) -> wire.Response | int:
        """What to report when no server has settled the question."""
        return next(iter(self._errors.values()), errno.ETIMEDOUT)

    def _next_try(self, delay: float) -> None:
        self._drop_timer()
        self._timer = self._reactor.callLater(delay, self._start_try)

    def _extend(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)

    def _finish(self, outcome: wire.Response | int) -> None:
        self._drop_timer()
        self._forget_all()
        if not self.result.called:
            self.result.callback(outcome)

    def _forget_all(self) -> None:
        pending, self._pending = self._pending, {}
        for forget in pending.values():
            forget()

    def _drop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _cancelled(self, result: Deferred[Any]) -> None:
        self._drop_timer()
        self._forget_all()
