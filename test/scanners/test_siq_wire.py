"""SIQ on the wire: the published vectors, the three drafts, and a server that is lame."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol

from smtpf.scanners.siq import HELO_MATCHES, ID_MISMATCH, READ_ERROR, VERSION_MISMATCH, Failed, Reputation, SiqClient, parse, query

ANSWER = bytes.fromhex("012a1234 0a141e02 0e10 5a00 6f6b".replace(" ", ""))
FULL = Reputation(42, 10, 20, 30, 90, 3600, "ok")


def test_query_is_the_published_vector() -> None:
    octets = query(0x1234, HELO_MATCHES, "192.0.2.9", "example.com")
    expected = "01801234 000000000000000000000000 c0000209 0b00 6578616d706c652e636f6d"
    assert octets == bytes.fromhex(expected.replace(" ", ""))


@pytest.mark.parametrize(
    ("datagram", "answer"),
    [
        (ANSWER, FULL),
        (ANSWER[:11] + b"\x03ok" + b"abc", FULL),
        (struct.pack("!BbHbbbBIbB", 1, 42, 0x1234, 10, 20, 30, 2, 3600, 90, 0) + b"ok", FULL),
        (struct.pack("!BbHbbbB", 1, -3, 0x1234, 10, 20, 30, 9) + b"elsewhere", Reputation(-3, 10, 20, 30, -1, 0, "elsewhere")),
        (b"\x02" + ANSWER[1:], Failed(VERSION_MISMATCH)),
        (ANSWER[:2] + b"\x00\x00" + ANSWER[4:], Failed(ID_MISMATCH)),
        (ANSWER[:-1], Failed(READ_ERROR)),
        (b"", Failed(READ_ERROR)),
    ],
)
def test_answers(datagram: bytes, answer: Any) -> None:
    assert parse(datagram, 0x1234) == answer


class Server(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(ANSWER[:2] + datagram[2:4] + ANSWER[4:], addr)


def test_client_goes_on_to_the_next_server(reactor_run: Any) -> None:
    lame = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")  # type: ignore[attr-defined]
    closed = lame.getHost().port
    lame.stopListening()

    async def ask() -> Any:
        port = reactor.listenUDP(0, Server(), interface="127.0.0.1")  # type: ignore[attr-defined]
        client = SiqClient(reactor, random.Random(1))
        servers = [("127.0.0.1", closed), ("127.0.0.1", port.getHost().port)]
        try:
            return await client.ask(servers, 0, "192.0.2.9", "example.com")
        finally:
            await port.stopListening()

    assert reactor_run(ask) == FULL
