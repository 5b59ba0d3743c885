"""Rows I, L8 and X: whatever octets a client, the DNS or a next hop sends, a log entry is one line, a reply one group, and no raw
control octet gets anywhere; addresses are parsed in linear time, and both forms of a domain are one key."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smtpf.smtp.grammar import PathError, PathRules, Role, domain_key, parse_mail_argument, parse_path
from test.support.talk import Client, Talk

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
REPLY = re.compile(rb"(?:(\d{3})-[\x20-\x7e\t]*\r\n)*(\d{3}) [\x20-\x7e\t]*\r\n")
octets = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet="\r\n\0 <>@\"'%\\;,.ab\t\x7f\x85\u2028é", max_size=30).map(lambda text: text.encode()),
)


def sent(client: Client, raw: bytes) -> bytes:
    """The octets of the replies."""
    if not client.gone:
        client.transport.write(raw)
    client.talk.net.pump()
    heard, client.heard = client.heard, b""
    return heard


def check(talk: Talk, heard: bytes) -> None:
    at = 0
    while at < len(heard):
        found = REPLY.match(heard, at)
        assert found, heard[at:]
        assert found[1] is None or found[1] == found[2]
        assert max(map(len, found[0].split(b"\r\n"))) <= 510
        at = found.end()
    for entry in talk.entries:
        assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", entry.text), repr(entry.text)
        for value in entry.fields.values():
            assert not isinstance(value, str) or not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(helo=octets, sender=octets, recipient=octets, other=octets)
def test_from_the_client(helo: bytes, sender: bytes, recipient: bytes, other: bytes) -> None:
    talk = Talk({"smtp-helo-schizo": "0", "rfc2821-strict-helo": "-"}, route=ROUTE, access="connect:192.0.2.8 OK\n")
    hop = talk.hop("192.0.2.1")
    heard = b""
    for address in ("192.0.2.7", "192.0.2.8"):
        client = talk.connect(address)
        for line in (
            b"EHLO " + helo,
            b"EHLO client.example.edu",
            other,
            b"MAIL FROM:<" + sender + b"@example.org>",
            b"MAIL FROM:" + sender,
            b"MAIL FROM:<joe@example.org> SMTPUTF8",
            b"RCPT TO:<" + recipient + b"@example.com>",
            b"RCPT TO:" + recipient,
            b"XCLIENT NAME=" + other,
            b"VRFY " + other,
            b"QUIT",
        ):
            heard += sent(client, line + b"\r\n")
    check(talk, heard)
    assert all(not re.search(r"[\x00-\x1f\x7f]", line) for line in hop.lines)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=octets, relay_reply=st.booleans(), step=st.sampled_from(["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"]))
def test_from_a_next_hop(words: bytes, relay_reply: bool, step: str) -> None:
    talk = Talk({"relay-reply": "+" if relay_reply else "-"}, route=ROUTE)
    talk.hop("192.0.2.1", **{step: b"550 " + words + b"\r\n", "HELO": b"550 " + words + b"\r\n"})
    client = talk.greeted(name="client.example.edu")
    heard = b""
    for line in (b"MAIL FROM:<joe@example.org>", b"RCPT TO:<ann@example.com>", b"DATA", b"S: x\r\n\r\nhi\r\n.", b"QUIT"):
        heard += sent(client, line + b"\r\n")
    check(talk, heard)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=octets)
def test_from_a_message(text: bytes) -> None:
    talk = Talk(route=ROUTE)
    talk.journal.use_words("info,warn,subject")
    hop = talk.hop("192.0.2.1")
    client = talk.greeted(name="client.example.edu")
    heard = b""
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        heard += sent(client, line.encode() + b"\r\n")
    safe = text.replace(b"\r", b"").replace(b"\n", b"")
    heard += sent(client, b"Subject: " + safe + b"\r\nMessage-ID: <" + safe + b">\r\n\r\n" + safe + b"\r\n.\r\n")
    check(talk, heard)
    assert len(hop.contents) <= 1


@pytest.mark.parametrize("name", ["a\\013\\010b.example.org", "a b.example.org", "<x>.example.org", '"q".example.org', "é.example.org"])
def test_from_the_reverse_dns(name: str) -> None:
    raw = name.replace("\\013", "\r").replace("\\010", "\n").replace(" ", "\u00a0")
    talk = Talk(route=ROUTE, zone=f"7.2.0.192.in-addr.arpa PTR {name.replace(' ', '_ _') if ' ' in name else name}\n")
    client = talk.connect()
    heard = b"".join(line.encode() + b"\r\n" for line in client.banner)
    heard += sent(client, b"HELO client.example.edu\r\nQUIT\r\n")
    check(talk, heard)
    assert raw not in talk.logged(721)[0]


# L8


@pytest.mark.parametrize(
    "text",
    [
        "<" * 900,
        "a." * 450,
        '"' + "\\a" * 450,
        "<" + "@a," * 300 + ":b@c>",
        "<" + "a" * 900 + "@b.c>",
        "<a@" + "b." * 450 + "c>",
        "<a@[" + "1" * 900,
    ],
)
@pytest.mark.parametrize("role", list(Role))
def test_addresses_are_parsed_in_linear_time(text: str, role: Role) -> None:
    def calls(factor: int) -> int:
        made = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        long = text * factor
        sys.setprofile(count)
        try:
            parse_path(long, role, PathRules())
            parse_mail_argument("FROM:" + long)
        finally:
            sys.setprofile(None)
        return made

    # Twice the text, twice the steps; a search that began anew at each octet would take four times as many.
    assert calls(32) < 3 * calls(16) + 200


@pytest.mark.parametrize("address", ["a@[127.0.0.1]", "a@[IPv6:2001:db8::1]", "jörg@bücher.example", "a@xn--p1ai.example"])
def test_addresses_that_the_stock_class_refuses(address: str) -> None:
    assert not isinstance(parse_path(f"<{address}>", Role.RECIPIENT, PathRules(utf8=True)), PathError)


# X


@pytest.mark.parametrize(
    ("wide", "key"), [("bücher.example", "xn--bcher-kva.example"), ("БЮХЕР.example", None), ("straße.de", "xn--strae-oqa.de")]
)
def test_u_label_and_a_label_are_one_key(wide: str, key: str | None) -> None:
    found: Any = domain_key(wide)
    assert found is not None
    assert found.isascii()
    assert key is None or found == key
    assert domain_key(found) == found == domain_key(wide.upper() if "ß" not in wide else wide)
