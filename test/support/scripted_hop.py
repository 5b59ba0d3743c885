"""A next hop that follows a script, on a real loopback socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone

Script = dict[str, Any]
"""Verb (``GREETING``, ``CONTENT`` for what follows the final dot) to bytes, a list of bytes used one after the other (the
last for ever), a function of the line that gives bytes, or None for silence. ``CLOSE`` as bytes closes the connection."""

CLOSE = b"\0close"
DEFAULTS: Script = {
    "GREETING": b"220 hop.example ESMTP\r\n",
    "EHLO": b"250-hop.example\r\n250-8BITMIME\r\n250 SIZE 1000000\r\n",
    "HELO": b"250 hop.example\r\n",
    "MAIL": b"250 2.1.0 ok\r\n",
    "RCPT": b"250 2.1.5 ok\r\n",
    "DATA": b"354 go on\r\n",
    "CONTENT": b"250 2.0.0 taken\r\n",
    "RSET": b"250 ok\r\n",
    "NOOP": b"250 ok\r\n",
    "QUIT": b"221 bye\r\n",
    "AUTH": b"235 2.7.0 ok\r\n",
    "ETRN": b"250 queuing\r\n",
}


class HopSession(Protocol):
    def connectionMade(self) -> None:
        self.factory.sessions.append(self)
        self.transport.setTcpNoDelay(True)
        self.lines: list[str] = []
        self.content = b""
        self._data = False
        self._body = b""
        self._buffer = b""
        self._used: dict[str, int] = {}
        self.tls = False
        self.answer("GREETING", "")

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while True:
            if self._data:
                end = self._buffer.find(b"\r\n.\r\n") if not self._buffer.startswith(b".\r\n") else -2
                if end == -1:
                    return
                self.content, self._buffer = self._buffer[: end + 2], self._buffer[end + 5 :]
                self._data = False
                self.factory.contents.append(self.content)
                self.answer("CONTENT", "")
                continue
            if b"\n" not in self._buffer:
                return
            raw, self._buffer = self._buffer.split(b"\n", 1)
            line = raw.rstrip(b"\r").decode("latin-1")
            self.lines.append(line)
            self.factory.lines.append(line)
            self.answer(line.split(" ")[0].upper(), line)

    def answer(self, verb: str, line: str) -> None:
        given = self.factory.script.get(verb, b"500 what\r\n")
        if isinstance(given, list):
            used = self._used.get(verb, 0)
            self._used[verb] = used + 1
            given = given[min(used, len(given) - 1)]
        if callable(given):
            given = given(line)
        if given is None:
            return
        if given == CLOSE:
            self.transport.loseConnection()
            return
        if verb == "DATA" and given[:3] == b"354":
            self._data = True
        self.transport.write(given)
        if verb == "QUIT":
            self.transport.loseConnection()
        if verb == "STARTTLS" and given[:3] == b"220" and self.factory.tls_context is not None:
            self.tls = True
            self.transport.startTLS(self.factory.tls_context)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.factory.ended += 1
        waiting, self.factory.waiting = self.factory.waiting, []
        for deferred in waiting:
            deferred.callback(None)


class ScriptedHop(Factory):
    protocol = HopSession
    noisy = False

    def __init__(self, script: Script | None = None, tls_context: Any = None) -> None:
        self.script = {**DEFAULTS, **(script or {})}
        self.sessions: list[HopSession] = []
        self.lines: list[str] = []
        self.contents: list[bytes] = []
        self.ended = 0
        self.tls_context = tls_context
        self.waiting: list[Deferred[None]] = []
        self._listening: list[Any] = []

    def listen(self, reactor: Any, interface: str = "127.0.0.1") -> int:
        port = reactor.listenTCP(0, self, interface=interface)
        self._listening.append(port)
        return int(port.getHost().port)

    def listen_unix(self, reactor: Any, path: str) -> None:
        self._listening.append(reactor.listenUNIX(path, self))

    def one_ended(self) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self.waiting.append(deferred)
        return deferred

    async def stop(self) -> None:
        for port in self._listening:
            await maybeDeferred(port.stopListening)
        for session in self.sessions:
            if session.transport.connected:
                ended = self.one_ended()
                session.transport.abortConnection()
                await ended


Work = Callable[..., Any]
