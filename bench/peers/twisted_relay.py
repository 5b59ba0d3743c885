"""Twisted's own SMTP classes with nothing added: message in memory, relayed before the answer. ``LISTEN-PORT NEXT-HOP-PORT``."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.mail.smtp import ESMTP, ESMTPSenderFactory, IMessage, IMessageDelivery, SMTPSenderFactory
from zope.interface import implementer

HOST = "127.0.0.1"
SMTPSenderFactory.noisy = ESMTPSenderFactory.noisy = False


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
        factory = SMTPSenderFactory(self._sender, [self._recipient], content, done, retries=0, timeout=60)
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
    listen, hop = int(sys.argv[1]), int(sys.argv[2])

    def protocol() -> ESMTP:
        made = ESMTP()
        made.delivery = Everything(hop)
        return made

    loop: Any = reactor
    loop.listenTCP(listen, Factory.forProtocol(protocol), backlog=1024, interface=HOST)
    loop.run()


if __name__ == "__main__":
    main()
