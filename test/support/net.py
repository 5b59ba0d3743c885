"""A network in memory with its own clock: connections are pairs of transports, and nothing moves until it is pumped.

``MemoryNet`` has the parts of a reactor that the engine uses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure


class MemoryTransport:
    """One end of a connection."""

    def __init__(self, net: MemoryNet, host: Any, peer: Any) -> None:
        self._net = net
        self._host, self._peer = host, peer
        self.other: MemoryTransport = self
        self.protocol: Any = None
        self.incoming: deque[bytes | Failure] = deque()
        self.paused = False
        self.closing = False
        self.closed = False
        self.disconnecting = False
        self.half_closed = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        if not self.closing and not self.closed and data:
            self.other.incoming.append(bytes(data))

    def writeSomeData(self, data: bytes) -> int:
        self.write(data)
        return len(data)

    def writeSequence(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def loseConnection(self) -> None:
        if not self.closing and not self.closed:
            self.closing = self.disconnecting = True
            self.other.incoming.append(Failure(ConnectionDone()))

    def loseWriteConnection(self) -> None:
        """The other end reads the end of the stream, and closes."""
        if not self.half_closed and not self.closing and not self.closed:
            self.half_closed = True
            self.other.incoming.append(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        if not self.closed:
            self.other.incoming.append(Failure(ConnectionLost()))
            self.lost(Failure(ConnectionLost()))

    def lost(self, reason: Failure) -> None:
        if not self.closed:
            self.closed = True
            self.protocol.connectionLost(reason)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def setTcpNoDelay(self, on: bool) -> None: ...
    def setTcpKeepAlive(self, on: bool) -> None: ...

    def getHost(self) -> Any:
        return self._host

    def getPeer(self) -> Any:
        return self._peer

    def step(self) -> bool:
        """Hand over the next thing that came; whether there was one."""
        if self.closed:
            self.incoming.clear()
            return False
        if self.closing:
            self.incoming.clear()
            self.lost(Failure(ConnectionDone()))
            return True
        if not self.incoming or (self.paused and isinstance(self.incoming[0], bytes)):
            return False
        item = self.incoming.popleft()
        if isinstance(item, bytes):
            self.protocol.dataReceived(item)
        elif self.other.half_closed and not self.other.closed and IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.lost(item)
            if self.other.half_closed:
                self.other.incoming.append(Failure(ConnectionDone()))
        return True


class _Connector:
    def __init__(self, host: str, port: int) -> None:
        self._address = _address(host, port)

    def stopConnecting(self) -> None: ...
    def disconnect(self) -> None: ...

    def getDestination(self) -> Any:
        return self._address


class MemoryNet(Clock):
    """Clock, listeners and connections."""

    threadpool = None

    def __init__(self) -> None:
        super().__init__()
        self.listeners: dict[tuple[str, int], Callable[[], IProtocol]] = {}
        self.transports: list[MemoryTransport] = []

    def listen(self, host: str, port: int, make: Callable[[], IProtocol]) -> None:
        self.listeners[host, port] = make

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        connector = _Connector(host, port)
        factory.doStart()
        factory.startedConnecting(connector)
        make = self.listeners.get((host, port))
        if make is None:
            self.callLater(0, factory.clientConnectionFailed, connector, Failure(ConnectionRefusedError()))
            return connector
        client = factory.buildProtocol(_address(host, port))
        self.join(make(), client, ("127.0.0.1", 40000), (host, port))
        return connector

    def connectUNIX(self, path: str, factory: Any, timeout: float = 30) -> Any:
        """A listener of a socket path has port 0."""
        return self.connectTCP(path, 0, factory, timeout)

    def join(self, server: Any, client: Any, client_at: tuple[str, int], server_at: tuple[str, int]) -> MemoryTransport:
        """Connect two protocols; the client's transport."""
        here, there = _address(*client_at), _address(*server_at)
        near, far = MemoryTransport(self, here, there), MemoryTransport(self, there, here)
        near.other, far.other = far, near
        near.protocol, far.protocol = client, server
        self.transports += [near, far]
        client.makeConnection(near)
        server.makeConnection(far)
        return near

    def pump(self) -> None:
        """Until nothing moves without time passing."""
        moved = True
        while moved:
            self.advance(0)
            moved = False
            for transport in list(self.transports):
                while transport.step():
                    moved = True
            self.transports = [each for each in self.transports if not each.closed]

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps of a tenth of a second, and everything move meanwhile."""
        self.pump()
        while seconds > 0:
            step = min(seconds, 0.1)
            self.advance(step)
            self.pump()
            seconds -= step


def _address(host: str, port: int) -> Any:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)
