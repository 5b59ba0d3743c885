"""Rows Q and L7: a claimed address is believed of those only who are named for it, and never makes anybody local.

PROXY headers are read before a session exists; XCLIENT is for localhost and smtp-xclient-from.
"""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpf.smtp.proxy_protocol import MAX_V1, MAX_V2, Header, Malformed, read_header
from test.support.talk import Client, Talk, codes

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ROUTE = "route:127.0.0.1 FORWARD: 127.0.0.1:26; RELAY\nroute:10 RELAY\nroute:example.com FORWARD: 192.0.2.1\n"
FROM = {"proxy-protocol-from": "192.0.2.100;127.0.0.0/8;2001:db8::/32"}


def v1(source: str, destination: str = "192.0.2.25", kind: str = "TCP4") -> bytes:
    return f"PROXY {kind} {source} {destination} 40000 25\r\n".encode()


def v2(source: str, destination: str = "192.0.2.25", tlvs: bytes = b"", command: int = 0x21, family: int = 0) -> bytes:
    kind = socket.AF_INET6 if ":" in source else socket.AF_INET
    places = socket.inet_pton(kind, source) + socket.inet_pton(kind, destination) + struct.pack("!HH", 40000, 25)
    family = family or (0x21 if ":" in source else 0x11)
    return SIGNATURE + struct.pack("!BBH", command, family, len(places + tlvs)) + places + tlvs


def proxied(talk: Talk, first: bytes, peer: str = "192.0.2.100", at: str = "192.0.2.25") -> Client:
    return talk.connect(peer, at=at, first=first)


@pytest.mark.parametrize("size", [0, 1, 2, 7])
@pytest.mark.parametrize(
    ("head", "address"),
    [
        (v1("198.51.100.9"), "198.51.100.9"),
        (v1("2001:db8:1::9", "2001:db8::25", "TCP6"), "2001:db8:1::9"),
        (v2("198.51.100.9"), "198.51.100.9"),
        (v2("2001:db8:1::9", "2001:db8::25"), "2001:db8:1::9"),
        (v2("::ffff:198.51.100.9", "::ffff:192.0.2.25"), "198.51.100.9"),
        (v2("198.51.100.9", tlvs=b"\x04\x00\x03abc"), "198.51.100.9"),
        (b"PROXY UNKNOWN\r\n", "192.0.2.100"),
        (b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n", "192.0.2.100"),
        (v2("198.51.100.9", command=0x20), "192.0.2.100"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0, 0), "192.0.2.100"),
    ],
)
def test_a_named_balancer_is_believed(head: bytes, address: str, size: int) -> None:
    talk = Talk(FROM, route=ROUTE)
    client = Client(talk)
    wire = talk.reception.factory("mx.test").buildProtocol(None)
    near = talk.net.join(wire, client, ("192.0.2.100", 50000), ("192.0.2.25", 25))
    for at in range(0, len(head), size or len(head)):
        assert talk.engine.conversations == {}
        near.write(head[at : at + (size or len(head))])
        talk.net.pump()
    client.wait()
    assert codes(client.banner) == ["220"]
    assert codes(client.say("EHLO x.example.org"))[-1] == "250"
    client.say("QUIT")
    assert talk.logged(721)[0].startswith(f"end i={address} ")
    assert talk.logged(540) == []


@pytest.mark.parametrize("claimed", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("peer", ["192.0.2.100", "127.0.0.1"])
def test_a_claimed_loopback_is_neither_localhost_nor_relay_nor_administrator(claimed: str, peer: str) -> None:
    talk = Talk(FROM, route=ROUTE)
    client = proxied(talk, v2(claimed, "::1" if ":" in claimed else "127.0.0.1"), peer, at="127.0.0.1")
    assert codes(client.banner) == ["220"]
    assert "localhost" not in talk.logged(637)[0]
    assert "relay" not in talk.logged(637)[0]
    (conversation,) = talk.engine.conversations.values()
    assert conversation.session.really_local is False
    assert not any("XCLIENT" in line for line in client.say("EHLO x.example.org"))
    assert codes(client.say("XCLIENT ADDR=10.0.0.1")) == ["503 #251"]


def test_a_header_that_says_nothing_does_not_make_the_balancer_local() -> None:
    talk = Talk(FROM, route=ROUTE)
    client = proxied(talk, b"PROXY UNKNOWN\r\n", "127.0.0.1", at="127.0.0.1")
    assert "localhost" not in talk.logged(637)[0]
    client.say("EHLO x.example.org")
    assert codes(client.say("XCLIENT ADDR=10.0.0.1")) == ["503 #251"]


@pytest.mark.parametrize("delay", ["-", "+"])
@pytest.mark.parametrize("head", [v1("10.0.0.1"), v2("10.0.0.1")])
@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.5"])
def test_a_header_of_an_unlisted_peer_is_dropped(head: bytes, delay: str, peer: str) -> None:
    talk = Talk({**FROM, "smtp-delay-checks": delay}, route=ROUTE)
    client = proxied(talk, head + b"EHLO x.example.org\r\nMAIL FROM:<joe@example.org>\r\n", peer)
    heard = codes(client.banner) + codes(client.take())
    assert heard[-1][0] == "5"
    assert client.gone
    assert talk.logged(717) == []
    assert "i=10.0.0.1" not in talk.logged(721)[0]


def test_a_header_of_an_unlisted_peer_after_the_banner_is_dropped_and_logged() -> None:
    talk = Talk(FROM, route=ROUTE)
    client = talk.connect("192.0.2.7")
    assert codes(client.send(v1("10.0.0.1") + b"EHLO x\r\n")) == ["500 #248"]
    assert client.gone
    assert talk.logged(1149) == ["PROXY header from [192.0.2.7]: peer is not in proxy-protocol-from"]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"EHLO x.example.org\r\n", "no header"),
        (b"GET / HTTP/1.1\r\n", "no header"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n", "version 1 port"),
        (b"PROXY TCP4 1.2.3.4 5.6.7 1 25\r\n", "version 1 address"),
        (b"PROXY TCP4 ::1 ::2 1 25\r\n", "version 1 address"),
        (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 25\r\n", "version 1 address"),
        (b"PROXY TCP4 1.2.3.4  5.6.7.8 1 25\r\n", "version 1 syntax"),
        (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 25\r\n", "version 1 syntax"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 25\n\r\n", "version 1 syntax"),
        (b"PROXY " + b"x" * 200, "version 1 line too long"),
        (SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + bytes(12), "version 2 command"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x12, 12) + bytes(12), "version 2 family"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + bytes(12), "version 2 length"),
        (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 60000), "version 2 length"),
    ],
)
def test_a_balancer_that_sends_no_proper_header_is_cut_before_a_session_exists(octets: bytes, reason: str) -> None:
    talk = Talk(FROM)
    client = proxied(talk, octets)
    assert client.gone
    assert client.banner == []
    assert talk.logged(1149) == [f"PROXY header from [192.0.2.100]: {reason}"]
    assert talk.logged(637) == talk.logged(721) == []


@pytest.mark.parametrize("part", [b"", b"PROXY TCP4 1.2", SIGNATURE[:5], SIGNATURE, v2("198.51.100.9")[:-1]])
def test_a_header_must_come_in_time(part: bytes) -> None:
    talk = Talk(FROM)
    client = proxied(talk, part)
    talk.net.pass_time(8)
    assert not client.gone
    talk.net.pass_time(2)
    assert client.gone
    assert talk.logged(1149) == ["PROXY header from [192.0.2.100]: timeout"]


def test_interfaces_may_be_chosen() -> None:
    options = {**FROM, "proxy-protocol-interfaces": "192.0.2.26;[192.0.2.27]:25;192.0.2.28:2525"}
    for at, demanded in (("192.0.2.25", False), ("192.0.2.26", True), ("192.0.2.27", True), ("192.0.2.28", False)):
        talk = Talk(options)
        client = proxied(talk, v1("198.51.100.9") if demanded else b"", at=at)
        assert codes(client.banner) == ["220"]
        client.say("QUIT")
        assert talk.logged(721)[0].startswith(f"end i={'198.51.100.9' if demanded else '192.0.2.100'} ")


def test_what_follows_the_header_too_early_is_early_talk() -> None:
    talk = Talk(FROM)
    client = proxied(talk, v1("198.51.100.9") + b"EHLO x.example.org\r\n")
    assert codes(client.banner) == ["220", "550 #643"]
    assert client.gone


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=1200),
        st.binary(max_size=1100).map(lambda tail: b"PROXY " + tail),
        st.binary(max_size=1100).map(lambda tail: SIGNATURE + tail),
    )
)
def test_the_parser_gives_a_value_whatever_comes(octets: bytes) -> None:
    whole = read_header(octets)
    assert isinstance(whole, Header | Malformed | None)
    if whole is None:
        assert len(octets) < max(MAX_V1, MAX_V2 + 16)
    elif isinstance(whole, Header):
        assert 0 < whole.octets <= len(octets)
        for cut in range(whole.octets):
            assert read_header(octets[:cut]) is None


# XCLIENT


@pytest.mark.parametrize("peer", ["192.0.2.7", "10.0.0.5", "192.0.2.99"])
def test_xclient_of_others_is_out_of_sequence(peer: str) -> None:
    talk = Talk({"smtp-xclient-from": "198.51.100.0/24"}, access="connect:192.0.2.99 OK\n", route=ROUTE)
    client = talk.greeted(peer)
    assert codes(client.say("XCLIENT ADDR=127.0.0.1 NAME=localhost")) == ["503 #251"]
    assert codes(client.say("NOOP")) == ["250 #547"]


@pytest.mark.parametrize("claimed", ["127.0.0.1", "IPV6:::1", "0.0.0.0", "IPV6:::ffff:127.0.0.1"])
@pytest.mark.parametrize("peer", ["127.0.0.1", "198.51.100.7"])
def test_xclient_never_makes_anybody_local(claimed: str, peer: str) -> None:
    talk = Talk({"smtp-xclient-from": "198.51.100.0/24"}, route=ROUTE + "route:localhost RELAY\n")
    client = talk.greeted(peer)
    client.say(f"XCLIENT ADDR={claimed} NAME=localhost.localhost")
    talk.net.pass_time(1)
    (conversation,) = talk.engine.conversations.values()
    assert not {"localhost", "relay"} & {str(flag) for flag in conversation.session.flags}
    assert conversation.session.really_local is False


def test_xclient_forgets_the_delayed_refusal_and_auth_of_the_client_before() -> None:
    talk = Talk(
        {"smtp-auth-enable": "+", "smtp-auth-tls": "-", "smtp-delay-checks": "+"}, access="connect:127 REJECT\n",
        route="route:local FORWARD: 127.0.0.1:26\nroute:example.com FORWARD: 192.0.2.1\n",
    )  # fmt: skip
    talk.hop("127.0.0.1", 26)
    talk.hop("192.0.2.1")
    client = talk.greeted("127.0.0.1")
    assert codes(client.say("AUTH PLAIN AGpvZQBzZWNyZXQ=")) == ["235 #274"]
    client.say("XCLIENT ADDR=192.0.2.7 NAME=mail.example.org")
    talk.net.pass_time(1)
    assert codes(client.take()) == ["220"]
    client.say("EHLO mail.example.org")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<x@elsewhere.net>")) == ["550 #288"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]
    client.say("QUIT")
    assert "auth" not in talk.logged(721)[0]


def test_xclient_forgets_what_the_lists_said_of_the_client_before() -> None:
    talk = Talk(access="connect:127 OK+AV\ntls-connect:127 REQUIRE\n", route=ROUTE)
    client = talk.greeted("127.0.0.1")
    client.say("XCLIENT ADDR=192.0.2.7 NAME=mail.example.org")
    talk.net.pass_time(1)
    (conversation,) = talk.engine.conversations.values()
    assert (conversation.session.ok_av, conversation.session.tls_connect) == (False, "")


@pytest.mark.parametrize(("words", "number"), [("ADDR=192.0.2.7", 288), ("ADDR=192.0.2.7 NAME=mail.example.org", 297)])
def test_only_a_name_that_xclient_tells_makes_a_relay(words: str, number: int) -> None:
    zone = "7.2.0.192.in-addr.arpa PTR mail.example.org\nmail.example.org A 192.0.2.7\n"
    talk = Talk(route="route:local FORWARD: 127.0.0.1:26\nroute:example.org RELAY\n", zone=zone)
    talk.hop("127.0.0.1", 26)
    client = talk.greeted("127.0.0.1")
    client.say(f"XCLIENT {words}")
    talk.net.pass_time(1)
    client.say("EHLO mail.example.org")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<x@elsewhere.net>"))[0].endswith(f"#{number}")


@pytest.mark.parametrize("word", ["FOO=1", "ADDR=300.1.1.1", "ADDR=", "NAME=a+0D+0Ab", "HELO=a+0Ab", "HELO=+C3+A9", "PROTO=LMTP", "ADDR"])
def test_a_malformed_attribute_is_refused(word: str) -> None:
    talk = Talk()
    client = talk.greeted("127.0.0.1")
    assert codes(client.say(f"XCLIENT NAME=x.example {word}")) == ["501 #928"]
    assert codes(client.say("NOOP")) == ["250 #547"]
