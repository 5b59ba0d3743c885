"""Row Z: nobody relays through us who may not, in whatever spelling; and mail that goes round is stopped."""

from __future__ import annotations

import pytest

from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:local FORWARD: 127.0.0.1:26\nroute:10 RELAY\n"
FOREIGN = (
    "<x@elsewhere.net>",
    "<x%elsewhere.net@example.com>",
    "<x%elsewhere.net>",
    '<"x@elsewhere.net"@example.com>',
    '<"x@elsewhere.net">',
    "<x\\@elsewhere.net@example.com>",
    "<elsewhere.net!x@example.com>",
    "<elsewhere.net!x>",
    "<@example.com:x@elsewhere.net>",
    "<@example.com,@a.example:x@elsewhere.net>",
    "<x@elsewhere.net@example.com>",
    "<x@example.com@elsewhere.net>",
    "<x@[198.51.100.1]>",
    "<x@[IPv6:2001:db8::1]>",
    "<x@[127.0.0.1]>",
    "<x@example.com.elsewhere.net>",
    "<x@notexample.com>",
    "<x@example.com.>",
    "<x@example.com%elsewhere.net>",
    "<x@elsewhere.net> <y@example.com>",
    "<y@example.com><x@elsewhere.net>",
    "x@elsewhere.net",
    "<>",
)


@pytest.mark.parametrize("sender", ["<joe@example.org>", "<>", "<ann@example.com>", "<postmaster@localhost.example>"])
@pytest.mark.parametrize("recipient", FOREIGN)
def test_a_stranger_does_not_relay(recipient: str, sender: str) -> None:
    talk = Talk(route=ROUTE)
    hops = [talk.hop("192.0.2.1"), talk.hop("127.0.0.1", 26)]
    client = talk.greeted(name="client.example.edu")
    assert codes(client.say(f"MAIL FROM:{sender}")) == ["250 #283"]
    answer = client.say(f"RCPT TO:{recipient}")
    assert answer[-1].startswith("5"), answer
    assert codes(client.say("DATA")) == ["503 #251"]
    assert all(hop.lines == [] for hop in hops)


def test_a_source_route_is_stripped_before_it_is_forwarded() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted(name="client.example.edu")
    client.say("MAIL FROM:<@a.example:joe@example.org>")
    assert codes(client.say("RCPT TO:<@elsewhere.net:ann@example.com>")) == ["250 #297"]
    assert hop.lines[1:] == ["MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>"]


def test_one_recipient_for_bounces() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted(name="client.example.edu")
    client.say("MAIL FROM:<>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]
    assert codes(client.say("RCPT TO:<bob@example.com>")) == ["550 #441"]


@pytest.mark.parametrize(("fields", "code"), [(99, "250 #554"), (100, "250 #554"), (101, "554 #1154"), (5000, "554 #1154")])
@pytest.mark.parametrize("access", ["", "connect:192.0.2.7 OK\n"])
def test_mail_that_goes_round_is_stopped(fields: int, code: str, access: str) -> None:
    talk = Talk(route=ROUTE, access=access)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted(name="client.example.edu")
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        client.say(line)
    head = b"".join(b"received: from a by b; Sat, 04 Jul 2026 09:05:03 +0200\r\n" for _ in range(fields))
    assert codes(client.send(head + b"\r\nhi\r\n.\r\n")) == [code]
    assert len(hop.contents) == (code[0] == "2")


def test_the_host_that_queues_our_mail_gets_none_of_it_back() -> None:
    talk = Talk(route="route:local FORWARD: 10.0.0.5\nroute:10 RELAY\n")
    hop = talk.hop("10.0.0.5")
    client = talk.greeted("10.0.0.5", "client.example.edu")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<x@elsewhere.net>")) == ["451 #295"]
    assert len(talk.logged(568)) == 1
    assert hop.lines == []
