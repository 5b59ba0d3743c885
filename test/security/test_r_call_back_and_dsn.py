"""Row R: mail hosts that a stranger names are asked at public addresses only, and what they say is bounded (L5)."""

from __future__ import annotations

import pytest

from smtpf.filters.call_back import CALL_BACK
from test.support.talk import Hop, Talk, codes

INSIDE = (
    "127.0.0.1",
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "::1",
    "fe80::1",
    "::ffff:127.0.0.1",
)
ROUTE = "route:hill.org FORWARD: 192.0.2.1\nroute:dale.org FORWARD: 192.0.2.2\n"


def zone(address: str) -> str:
    kind = "AAAA" if ":" in address else "A"
    return f"evil.net MX 10 mx.evil.net\nmx.evil.net {kind} {address}\n"


def inner(talk: Talk, address: str) -> Hop:
    talk.hop("192.0.2.1")
    return talk.hop(address)


@pytest.mark.parametrize("address", [*INSIDE, "192.0.2.25"])
def test_a_call_back_stays_outside(address: str) -> None:
    talk = Talk({CALL_BACK: "+"}, route=ROUTE, zone=zone(address))
    hop = inner(talk, address)
    client = talk.greeted("81.2.69.10", "client.example.edu")
    client.say("MAIL FROM:<ada@evil.net>")
    client.say("RCPT TO:<bob@hill.org>")
    assert codes(client.message())[0][:3] in ("250", "451", "550")
    assert hop.sessions == []


@pytest.mark.parametrize("address", INSIDE)
def test_a_delivery_status_notification_stays_outside(address: str) -> None:
    talk = Talk(route=ROUTE, zone=zone(address))
    hop = inner(talk, address)
    talk.hop("192.0.2.2", CONTENT=b"554 no\r\n")
    client = talk.greeted("81.2.69.10", "client.example.edu")
    client.say("MAIL FROM:<ada@evil.net>")
    client.say("RCPT TO:<bob@hill.org>")
    client.say("RCPT TO:<bob@dale.org>")
    assert codes(client.message()) == ["250 #554"]
    talk.net.pass_time(5)
    assert talk.logged(331)
    assert hop.sessions == []


@pytest.mark.parametrize("greeting", [b"220-x\r\n" * 100_000, b"220-" + b"x" * 200_000, b"x" * 200_000, b"220 \0\r\n" * 1000])
def test_an_endless_greeting_is_bounded(greeting: bytes) -> None:
    talk = Talk({CALL_BACK: "+"}, route=ROUTE, zone=zone("81.2.69.25"))
    talk.hop("192.0.2.1")
    hop = talk.hop("81.2.69.25", GREETING=greeting)
    client = talk.greeted("81.2.69.10", "client.example.edu")
    client.say("MAIL FROM:<ada@evil.net>")
    client.say("RCPT TO:<bob@hill.org>")
    assert codes(client.message())[0][:3] in ("250", "451", "550")
    assert len(hop.sessions) == 1
    assert hop.ended == 1
