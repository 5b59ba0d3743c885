"""Rows A, D and L3: what a client sends as one message is one message or a refusal, never two.

Every odd end of a line and every cut of the octets around it, in the clear and inside TLS, with a scripted next hop that
counts messages; and lines of every length around every limit, which must never leave DATA.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test.support.live import LiveClient, LiveNode
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
ENDS = {
    "LF.LF": b"\n.\n",
    "CR.CR": b"\r.\r",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
}
SMUGGLED = b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n"
HEAD = b"Subject: honest\r\n\r\nhones"
TRUST = {"stranger": "", "relay": "route:192.0.2.7 RELAY\nroute:local FORWARD: 192.0.2.1\n"}
BEGIN = ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA")


def ready(talk: Talk) -> Client:
    client = talk.greeted()
    for line in BEGIN:
        client.say(line)
    return client


def segmentations(octets: bytes) -> list[tuple[bytes, ...]]:
    """Every way to cut ``octets`` into segments."""
    places = [cut for count in range(len(octets)) for cut in itertools.combinations(range(1, len(octets)), count)]
    return [tuple(octets[a:b] for a, b in itertools.pairwise((0, *cut, len(octets)))) for cut in places]


def clean(content: bytes) -> bool:
    """Every CR is followed by LF and every LF preceded by CR."""
    rest = content.replace(b"\r\n", b"")
    return b"\r" not in rest and b"\n" not in rest


@pytest.mark.parametrize("trust", TRUST)
@pytest.mark.parametrize("name", ENDS)
def test_no_cut_of_an_odd_end_makes_two_messages(name: str, trust: str) -> None:
    critical = (b"t" + ENDS[name] + b"MAIL FRO")[:8]
    behind = (HEAD + b"t" + ENDS[name] + SMUGGLED)[len(HEAD) + 8 :]
    talk = Talk(route=ROUTE + TRUST[trust])
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    for count, pieces in enumerate(segmentations(critical), 1):
        heard = client.send(HEAD)
        for piece in pieces:
            heard += client.send(piece)
        heard += client.send(behind)
        assert heard == [], pieces
        (answer,) = client.send(b".\r\n")
        assert answer[:3] in ("250", "550"), pieces
        assert len(hop.contents) <= count
        for line in BEGIN:
            client.say(line)
    assert not [line for line in hop.lines if "evil" in line]
    assert all(clean(content) and content.count(b"Received: from ") == 1 for content in hop.contents)


@pytest.mark.parametrize("name", ENDS)
def test_a_stranger_is_refused_and_the_session_goes_on(name: str) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    answer = codes(client.send(HEAD + ENDS[name] + SMUGGLED + b".\r\n"))
    assert answer == (["250 #554"] if b"\0" in ENDS[name] else ["550 #1145"])
    assert len(hop.contents) == (b"\0" in ENDS[name])
    assert codes(client.say("NOOP")) == ["250 #547"]


@pytest.mark.parametrize("secured", [False, True])
def test_on_real_sockets_in_the_clear_and_inside_tls(reactor_run: Callable[..., Any], tmp_path: Path, secured: bool) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            for octets in ENDS.values():
                client = await LiveClient.connect(node)
                await client.say(b"EHLO mail.example.org")
                if secured:
                    await client.starttls()
                    await client.say(b"EHLO mail.example.org")
                for line in BEGIN:
                    assert (await client.say(line.encode()))[-1][:1] in "23"
                before = len(node.next_hop.contents)
                client.write(HEAD)
                for octet in octets:
                    client.write(bytes([octet]))
                    await node.turn()
                (answer,) = await client.say(SMUGGLED + b".")
                assert answer[:3] in ("250", "550")
                assert len(node.next_hop.contents) - before <= 1
                assert (await client.say(b"NOOP"))[-1].startswith("250")
                client.close()
                await client.ended()
        finally:
            await node.stop()
        assert not [line for line in node.next_hop.lines if "evil" in line]

    reactor_run(work())


# D and L3


@pytest.mark.parametrize("size", [998, 1000, 1001, 16384, 16385, 16386, 65535, 65536, 65537, 131072, (1 << 20) - 1, (1 << 20) + 3])
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_line_of_any_length_stays_in_data(size: int, cut: int) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    line = b"x" * (size - 2) + b"\r\n"
    octets = b"S: x\r\n\r\n" + line
    edge = len(octets) - cut
    assert client.send(octets[:edge]) + client.send(octets[edge:] + b"NOOP\r\nRSET\r\nQUIT\r\n") == []
    assert codes(client.send(b".\r\n")) == ["250 #554"]
    assert hop.contents[0].endswith(line + b"NOOP\r\nRSET\r\nQUIT\r\n")


def test_a_line_without_end_is_content_and_bounded() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.send(b"S: x\r\n\r\n")
    for _ in range(64):
        assert client.send(b"y" * 65536) == []
    (conversation,) = talk.engine.conversations.values()
    assert conversation.wire.pending == 0
    client.transport.loseConnection()
    talk.net.pump()
    assert hop.contents == []
    assert talk.engine.conversations == {}
