"""A scripted DNS server on loopback, UDP and TCP on one port, for tests of the real resolver.

``ScriptedServer(reactor, script)``: the script is called with the decoded query (a dnspython message) and whether it came by
TCP, and returns what to send: octets, a dnspython message, a list of these, or None for silence.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from dns.message import Message
from twisted.internet.protocol import DatagramProtocol, Factory
from twisted.protocols.basic import Int16StringReceiver

from smtpf.dns.resolver import Resolver

Script = Callable[[Message, bool], Any]


def reply(query: Message, *records: str, rcode: int = 0, authority: tuple[str, ...] = (), flags: int = 0) -> Message:
    """A response to ``query``; each record is ``owner ttl TYPE data``."""
    message = dns.message.make_response(query, recursion_available=True)
    message.set_rcode(rcode)
    message.flags |= flags
    for section, lines in ((message.answer, records), (message.authority, authority)):
        for line in lines:
            owner, ttl, rtype, data = line.split(None, 3)
            section.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, data))
    return message


class ScriptedServer:
    """Listens until ``stop``. ``queries`` holds (name, type, by TCP, source port) of all that came."""

    def __init__(self, reactor: Any, script: Script) -> None:
        self.script = script
        self.queries: list[tuple[str, str, bool, int]] = []
        self.seen: list[Message] = []
        factory = Factory.forProtocol(_Stream)
        factory.server = self  # type: ignore[attr-defined]
        while True:
            self._tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.port = self._tcp.getHost().port
            try:
                self._udp = reactor.listenUDP(self.port, _Datagrams(self), interface="127.0.0.1")
                break
            except Exception:
                self._tcp.stopListening()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def asked(self) -> list[tuple[str, str]]:
        return [(name, rtype) for name, rtype, _, _ in self.queries]

    def answers(self, octets: bytes, stream: bool, port: int) -> list[bytes]:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        self.seen.append(query)
        self.queries.append((question.name.to_text(True).lower(), dns.rdatatype.to_text(question.rdtype), stream, port))
        said = self.script(query, stream)
        if said is None:
            return []
        return [one if isinstance(one, bytes) else one.to_wire(max_size=65535) for one in (said if isinstance(said, list) else [said])]

    def stop(self) -> None:
        self._udp.stopListening()
        self._tcp.stopListening()


class _Datagrams(DatagramProtocol):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for answer in self._server.answers(datagram, False, addr[1]):
            self.transport.write(answer, addr)


class _Stream(Int16StringReceiver):
    def stringReceived(self, string: bytes) -> None:
        for answer in self.factory.server.answers(string, True, self.transport.getPeer().port):
            self.transport.write(struct.pack("!H", len(answer)) + answer)


@contextmanager
def asking(script: Script, **options: Any) -> Iterator[tuple[ScriptedServer, Resolver]]:
    """A scripted server, and a real resolver that asks it."""
    from twisted.internet import reactor

    server = ScriptedServer(reactor, script)
    resolver = Resolver(reactor, [server.address], **{"timeout": 5.0, **options})
    try:
        yield server, resolver
    finally:
        resolver.stop()
        server.stop()
