"""dns-wl, dns-gl, dns-bl and dns-bl-headers, seen by clients and log readers."""

from __future__ import annotations

from typing import Any

import pytest

from smtpf.filters import dns_list
from smtpf.filters.dns_list import (
    DNS_BL,
    DNS_BL_HEADERS,
    DNS_BL_HEADERS_HIT,
    DNS_BL_HIT,
    DNS_GL,
    DNS_GL_HIT,
    DNS_WL,
    DNS_WL_HIT,
    addresses_in,
)
from smtpf.message.header import HeaderList
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import OURS, Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:198.51.100.3 RELAY\n"
LISTED = "9.2.0.192.bl.lists.net A 127.0.0.2\n"


def test_a_black_listed_client_is_dropped_in_place_of_the_banner() -> None:
    talk = Talk({DNS_BL: ".bl.lists.net."}, zone=LISTED)
    client = talk.connect("192.0.2.9")
    assert client.banner[0].startswith("550 5.7.0  [192.0.2.9] black listed by bl.lists.net #525 ")
    assert client.gone
    assert talk.logged(523) == ["dns-bl found 192.0.2.9 bl.lists.net"]
    assert talk.counted(DNS_BL_HIT) == 1
    assert 'f="forged,black,no_ptr"' in talk.logged(721)[0]


def test_the_list_first_in_the_option_is_the_one_reported() -> None:
    talk = Talk(
        {DNS_BL: "one.lists.net;two.lists.net,three.lists.net"},
        zone="9.2.0.192.three.lists.net A 127.0.0.2\n9.2.0.192.two.lists.net A 127.0.0.2\n",
    )
    assert "black listed by two.lists.net" in talk.connect("192.0.2.9").banner[0]


@pytest.mark.parametrize(
    ("item", "answer", "hit"),
    [
        ("bl.example", "127.0.0.2", True),
        ("bl.example", "127.0.0.1", False),
        ("bl.example/0x0C", "127.0.0.6", True),
        ("bl.example/0x0C", "127.0.0.2", False),
        ("bl.example/8", "127.0.0.10", True),
        ("bl.example", "203.0.113.5", False),
        ("bl.example:127.0.0.2,127.0.0.4", "127.0.0.10", False),
        ("bl.example:127.0.0.2,127.0.0.4", "127.0.0.4", True),
        ("bl.example", "127.255.255.254", False),
    ],
)
def test_what_counts_as_a_hit(item: str, answer: str, hit: bool) -> None:
    talk = Talk({DNS_BL: item}, zone=f"9.2.0.192.bl.example A {answer}\n")
    assert codes(talk.connect("192.0.2.9").banner) == (["550 #525"] if hit else ["220"])


def test_a_list_that_does_not_answer_lists_nobody() -> None:
    talk = Talk({DNS_BL: "bl.lists.net"}, zone="9.2.0.192.bl.lists.net A SERVFAIL\n")
    assert codes(talk.connect("192.0.2.9").banner) == ["220"]


def test_delayed_refusals_are_told_at_each_recipient() -> None:
    talk = Talk({DNS_BL: "bl.lists.net", SMTP_DELAY_CHECKS: "+"}, zone=LISTED, route=ROUTE, access="to:ann@example.com OK\n")
    talk.hop("192.0.2.1")
    client = talk.greeted("192.0.2.9")
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<bob@example.com>")) == ["550 #525"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]


def test_a_white_list_comes_before_the_others() -> None:
    zone = LISTED + "9.2.0.192.wl.lists.net A 127.0.0.2\n9.2.0.192.gl.lists.net A 127.0.0.2\n"
    talk = Talk({DNS_BL: "bl.lists.net", DNS_GL: "gl.lists.net", DNS_WL: "wl.lists.net"}, zone=zone)
    assert codes(talk.connect("192.0.2.9").banner) == ["220 #632"]
    assert talk.logged(523) == ["dns-wl found 192.0.2.9 wl.lists.net"]
    assert [talk.counted(counter) for counter in (DNS_WL_HIT, DNS_GL_HIT, DNS_BL_HIT)] == [1, 0, 0]
    asked = [name for name, _ in talk.resolver.asked]
    assert not any(name.endswith(("gl.lists.net", "bl.lists.net")) for name in asked)


def test_a_grey_listed_client_passes_the_tests_before_content() -> None:
    talk = Talk({DNS_BL: "bl.lists.net", DNS_GL: "gl.lists.net"}, zone=LISTED + "9.2.0.192.gl.lists.net A 127.0.0.2\n", route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.connect("192.0.2.9")
    assert codes(client.banner) == ["220 #632"]
    assert codes(client.say("HELO nodot")) == ["250 #256"]
    assert talk.counted(DNS_GL_HIT) == 1


@pytest.mark.parametrize(
    ("address", "access"),
    [("127.0.0.1", ""), ("198.51.100.3", ""), ("192.0.2.9", "connect:192.0.2.9 OK"), ("192.0.2.9", "connect:192.0.2.9 CONTENT")],
)
def test_who_is_not_looked_up_in_black_lists(address: str, access: str) -> None:
    reverse = ".".join(reversed(address.split(".")))
    talk = Talk({DNS_BL: "bl.lists.net"}, zone=f"{reverse}.bl.lists.net A 127.0.0.2\n", route=ROUTE, access=access)
    assert codes(talk.connect(address).banner) == ["220 #632"]
    assert not any(name.endswith("bl.lists.net") for name, _ in talk.resolver.asked)


def test_an_ipv6_client_is_looked_up_by_nibbles() -> None:
    name = "8.7.6.5.4.3.2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.bl.example.net"
    talk = Talk({DNS_BL: "bl.example.net"}, zone=f"{name} A 127.0.0.2\n")
    assert codes(talk.connect("2001:db8::1234:5678", at="2001:db8::25").banner) == ["550 #525"]


# Headers


def headers(text: str) -> HeaderList:
    return HeaderList.parse(text.encode())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("45.76.10.9", ["45.76.10.9"]),
        ("[45.76.10.9]", ["45.76.10.9"]),
        ("from x ([45.76.10.9]) by y (45.76.10.10:25); Mon, 2 Mar 2026 10:20:30 +0000", ["45.76.10.9", "45.76.10.10"]),
        ("IPv6:2a01:4f8::7", ["2a01:4f8::7"]),
        ("[IPv6:2a01:4f8::7]", ["2a01:4f8::7"]),
        ("::ffff:45.76.10.9", ["45.76.10.9"]),
        ("ip=45.76.10.9;", ["45.76.10.9"]),
        ("45.76.10.9. 45.76.10.9", ["45.76.10.9"]),
        ("10.1.2.3 127.0.0.1 192.0.2.9 169.254.1.1 ::1 fe80::1", []),
        ("1.2.3 1.2.3.4.5 45.76.10.999 host45.76.10.9", []),
        ("a" * 5000 + ":" * 5000 + "1." * 5000, []),
    ],
)
def test_addresses_are_found_in_a_value(value: str, found: list[str]) -> None:
    assert addresses_in(headers(f"X-Client: {value}\r\n"), ("x-client",)) == found


def test_addresses_of_one_message_are_bounded() -> None:
    text = "".join(f"X-Client: 45.76.{number}.9\r\n" for number in range(100))
    assert len(addresses_in(headers(text), ("X-Client",))) == dns_list.MAX_HEADER_ADDRESSES


def test_a_listed_address_in_a_named_header_refuses_the_message() -> None:
    options = {DNS_BL: "bl.lists.net", DNS_BL_HEADERS: "X-Originating-IP;X-Client"}
    talk = Talk(options, zone="9.10.76.45.bl.lists.net A 127.0.0.2\n", route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted("192.0.2.9")
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    heard = client.message("Subject: x\r\nX-Originating-IP: 8.8.4.4, 45.76.10.9\r\n\r\nbody\r\n")
    assert heard[-1].startswith("550 5.7.0 IP [45.76.10.9] in header black listed by bl.lists.net #873 ")
    assert hop.contents == []
    assert talk.logged(523) == ["dns-bl found 45.76.10.9 bl.lists.net"]
    assert talk.counted(DNS_BL_HEADERS_HIT) == 1
    assert "uri_dns_bl" in talk.logged(720)[0]
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    assert codes(client.message("Subject: x\r\nX-Other: 45.76.10.9\r\n\r\nbody\r\n")) == ["250 #554"]


NAMED = "9.2.0.192.in-addr.arpa PTR mail.kestrel.net\nmail.kestrel.net A 192.0.2.9\nmail.kestrel.net A DELAY 9\n"
ASKED = ("9.2.0.192.bl.lists.net", "A")


@pytest.mark.parametrize(
    ("options", "access", "route", "asked"),
    [
        ({DNS_BL: "bl.lists.net"}, "", "", True),
        ({DNS_WL: "bl.lists.net"}, "", "route:192.0.2.9 RELAY\n", True),
        ({DNS_BL: "bl.lists.net"}, "", "route:192.0.2.9 RELAY\n", False),
        ({DNS_BL: "bl.lists.net"}, "", "route:kestrel.net RELAY\n", False),
        ({DNS_BL: "bl.lists.net"}, "connect:kestrel.net OK\n", "", False),
        ({DNS_BL: "bl.lists.net", DNS_GL: "gl.lists.net"}, "", "", False),
        ({}, "", "", False),
    ],
)
def test_lists_are_asked_beside_the_confirmation_of_the_name(options: dict[Any, str], access: str, route: str, asked: bool) -> None:
    talk = Talk(options, access=access, route=ROUTE + route, zone=NAMED)
    client = talk.connect("192.0.2.9")
    assert client.banner == []
    assert (ASKED in talk.resolver.asked) is asked
    talk.net.advance(9)
    talk.net.pump()
    assert talk.resolver.asked.count(ASKED) <= 2


def test_ten_slow_lists_take_no_longer_than_the_name() -> None:
    suffixes = [f"l{place}.lists.net" for place in range(10)]
    names = ["9.2.0.192.in-addr.arpa PTR", "mail.kestrel.net A", *(f"9.2.0.192.{suffix} A" for suffix in suffixes)]
    slow = "".join(f"{name} DELAY 0.2\n" for name in names) + "9.2.0.192.l9.lists.net A 127.0.0.2\n"
    talk = Talk({DNS_BL: ";".join(suffixes)}, zone=f"9.2.0.192.in-addr.arpa PTR mail.kestrel.net\nmail.kestrel.net A 192.0.2.9\n{slow}")
    client = Client(talk)
    talk.net.join(talk.reception.factory(OURS).buildProtocol(None), client, ("192.0.2.9", 50000), ("192.0.2.25", 25))
    for _ in range(2):
        assert client.take() == []
        talk.net.advance(0.2)
        talk.net.pump()
    assert codes(client.take()) == ["550 #525"]
