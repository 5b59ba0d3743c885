"""A node on real sockets: the engine of ``Talk`` on the real reactor, with a scripted next hop, and a client that waits.

For what only the operating system and OpenSSL can show: segments, handshakes, closed connections. All addresses are
loopback, so the client is localhost; the resolver has an empty zone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import CertificateOptions

from smtpf.smtp.tls import TlsContexts
from test.support.certificates import Authority
from test.support.scripted_hop import ScriptedHop
from test.support.talk import Talk


class LiveNode(Talk):
    """Listens on a free port of 127.0.0.1. ``next_hop`` is where example.com goes."""

    def __init__(self, folder: Path, options: dict[Any, str] | None = None, *, access: str = "", **script: Any) -> None:
        from twisted.internet import reactor

        certificate, key = Authority(folder).issue("mx.test")
        self.next_hop = ScriptedHop(script)
        port = self.next_hop.listen(reactor)
        files = {"tls-server-cert": str(certificate), "tls-server-key": str(key)}
        route = f"route:example.com FORWARD: 127.0.0.1:{port}\nroute:local FORWARD: 127.0.0.1:{port}\n"
        super().__init__({**files, **(options or {})}, access=access, route=route, net=reactor)
        self.engine.tls = TlsContexts(self.settings.current, self.journal)
        self.engine.tls.start(reactor)
        self.listening = self.net.listenTCP(0, self.reception.factory("mx.test"), interface="127.0.0.1")
        self.port = self.listening.getHost().port

    async def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor work."""
        done: Deferred[None] = Deferred()
        self.net.callLater(seconds, done.callback, None)
        await done

    async def stop(self) -> None:
        await self.listening.stopListening()
        for conversation in list(self.engine.conversations.values()):
            conversation.wire.abort()
        while self.engine.conversations:
            await self.turn(0.01)
        assert self.engine.tls is not None
        self.engine.tls.stop()
        await self.next_hop.stop()
        self.cache.stop()


class LiveClient(Protocol):
    """A client on a real socket."""

    def __init__(self) -> None:
        self.heard = b""
        self.gone = False
        self._waiting: Deferred[None] | None = None

    @classmethod
    async def connect(cls, node: LiveNode, first: bytes = b"") -> LiveClient:
        """A client whose banner has come."""
        client: LiveClient = await connectProtocol(TCP4ClientEndpoint(node.net, "127.0.0.1", node.port), cls())
        client.transport.setTcpNoDelay(True)
        if first:
            client.write(first)
        await client.reply()
        return client

    def write(self, octets: bytes) -> None:
        self.transport.write(octets)

    async def say(self, line: bytes) -> list[str]:
        self.write(line + b"\r\n")
        return await self.reply()

    async def starttls(self) -> None:
        assert (await self.say(b"STARTTLS"))[-1].startswith("220")
        self.transport.startTLS(CertificateOptions(verify=False))

    async def reply(self) -> list[str]:
        """The next whole reply; what there is when the connection ends before."""
        while True:
            lines = self.heard.split(b"\r\n")
            for at, line in enumerate(lines[:-1]):
                if line[3:4] == b" ":
                    self.heard = b"\r\n".join(lines[at + 1 :])
                    return [each.decode("latin-1") for each in lines[: at + 1]]
            if self.gone:
                heard, self.heard = self.heard, b""
                return [heard.decode("latin-1")] if heard else []
            await self._more()

    async def ended(self) -> None:
        while not self.gone:
            await self._more()

    def close(self) -> None:
        self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self._wake()

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True
        self._wake()

    async def _more(self) -> None:
        self._waiting = Deferred()
        await self._waiting

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
