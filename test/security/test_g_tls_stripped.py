"""Row G: where a route wants TLS, a next hop without it, or with the wrong certificate, gets nothing in the clear; the client hears 4yz."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpf.smtp.forward import TlsPolicy
from test.support.live import LiveClient, LiveNode
from test.support.talk import Talk, codes

OFFER = b"250-hop.example\r\n250-STARTTLS\r\n250 8BITMIME\r\n"


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
@pytest.mark.parametrize(
    "script",
    [
        {},
        {"EHLO": OFFER, "STARTTLS": b"454 not now\r\n"},
        {"EHLO": OFFER, "STARTTLS": b"220 go\r\n250 injected\r\n"},
        {"EHLO": OFFER, "STARTTLS": b"\0close"},
    ],
    ids=["stripped", "refused", "injected", "closed"],
)
def test_nothing_goes_out_in_the_clear(
    reactor_run: Callable[..., Any], tmp_path: Path, policy: TlsPolicy, script: dict[str, bytes]
) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path, **script)
        node.engine.forwarder._tls = node.engine.tls
        node.engine.forwarder._policy = lambda host: policy
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            await client.say(b"MAIL FROM:<joe@example.org>")
            answer = (await client.say(b"RCPT TO:<ann@example.com>"))[-1]
            assert answer.startswith("451 "), answer
            assert not [line for line in node.next_hop.lines if line.startswith(("MAIL", "RCPT"))]
            assert (await client.say(b"DATA"))[-1].startswith("503")
        finally:
            await node.stop()

    reactor_run(work())


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("FORWARD: 192.0.2.1; TLS: REQUIRE", "451 #295"),
        ("TLS: VERIFY; FORWARD: 192.0.2.1", "451 #295"),
        ("FORWARD: 192.0.2.1", "250 #297"),
        ("FORWARD: 192.0.2.1; TLS: perhaps", "250 #297"),
    ],
)
def test_the_route_map_demands_tls(value: str, answer: str) -> None:
    talk = Talk(route=f"route:example.com {value}")
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == [answer]
    assert ("MAIL" in hop.verbs) is (answer == "250 #297")
