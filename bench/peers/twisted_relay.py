"""Twisted's own SMTP classes: message in memory, relayed before the answer. ``ADDRESS PORT NEXT-HOP-PORT``.

Nothing is added but TCP_NODELAY, without which each message would wait for acknowledgements.
"""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, SMTPSender, SMTPSenderFactory
from zope.interface import implementer

HOST = "127.0.0.1"


class Server(ESMTP):
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        super().connectionMade()


class Sender(SMTPSender):
    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        super().connectionMade()


class SenderFactory(SMTPSenderFactory):
    noisy = False
    protocol = Sender


@implementer(IMessage)
class Relayed:
    """Gathers a message and sends it on."""

    def __init__(self, hop: int, sender: bytes, recipient: bytes) -> None:
        self._hop, self._sender, self._recipient = hop, sender, recipient
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        content = BytesIO(b"\n".join(self._lines) + b"\n")
        factory = SenderFactory(self._sender, [self._recipient], content, done, retries=0, timeout=60)
        reactor.connectTCP(HOST, self._hop, factory)
        return done

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(IMessageDelivery)
class Everything:
    """Takes every sender and every recipient."""

    def __init__(self, hop: int) -> None:
        self._hop = hop
        self._sender = b""

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by proxy.bench.example with ESMTP"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        self._sender = bytes(origin)
        return origin

    def validateTo(self, user: Any) -> Any:
        return lambda: Relayed(self._hop, self._sender, bytes(user.dest))


def main() -> None:
    address, listen, hop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

    def protocol() -> Server:
        made = Server()
        made.delivery = Everything(hop)
        return made

    loop: Any = reactor
    loop.listenTCP(listen, Factory.forProtocol(protocol), backlog=1024, interface=address)
    loop.run()


if __name__ == "__main__":
    main()
