"""SMTPUTF8 (RFC 6531): who may say what in UTF-8, and where such mail goes."""

from __future__ import annotations

import pytest

from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:xn--bcher-kva.example FORWARD: 192.0.2.1\n"
WITH = b"250-hop.example\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n"


def node(ehlo: bytes = WITH, access: str = "", options: dict[str, str] | None = None) -> tuple[Talk, Client]:
    talk = Talk(options, route=ROUTE, access=access)
    talk.hop_1 = talk.hop("192.0.2.1", EHLO=ehlo)  # type: ignore[attr-defined]
    return talk, talk.connect()


def test_it_is_offered_with_8bitmime_only() -> None:
    _, client = node()
    assert "250-SMTPUTF8" in client.say("EHLO mail.example.org")
    for options in ({"rfc6531-smtputf8": "-"}, {"rfc1652-8bitmime": "-"}):
        _, client = node(options=options)
        assert "250-SMTPUTF8" not in client.say("EHLO mail.example.org")
        assert codes(client.say("MAIL FROM:<joe@example.org> SMTPUTF8")) == ["555 #1016"]


def test_mail_in_utf8_reaches_a_next_hop_that_offers_it() -> None:
    talk, client = node()
    client.say("EHLO mail.example.org")
    (line,) = client.say("MAIL FROM:<jörg@bücher.example> SMTPUTF8 BODY=8BITMIME")
    assert line.startswith("250 2.1.0 sender <j?rg@b?cher.example> accepted #283 ")
    assert codes(client.say("RCPT TO:<änn@example.com>")) == ["250 #297"]
    assert codes(client.message("Subject: grüße\r\n\r\nJa.\r\n")) == ["250 #554"]
    hop = talk.hop_1  # type: ignore[attr-defined]
    assert hop.lines[1].encode("latin-1").decode() == "MAIL FROM:<jörg@bücher.example> BODY=8BITMIME SMTPUTF8"
    assert hop.lines[2].encode("latin-1").decode() == "RCPT TO:<änn@example.com>"
    assert b" with UTF8SMTP id " in hop.contents[0].replace(b"\r\n\t", b" ")
    assert talk.logged(717)[0].startswith("sender <jörg@bücher.example> ")


def test_a_next_hop_without_it_refuses_the_recipient() -> None:
    talk, client = node(ehlo=b"250-hop.example\r\n250 8BITMIME\r\n")
    client.say("EHLO mail.example.org")
    client.say("MAIL FROM:<joe@example.org> SMTPUTF8")
    (line,) = client.say("RCPT TO:<ann@example.com>")
    assert line.startswith("550 5.6.7 recipient <ann@example.com> denied #300 ")
    assert talk.hop_1.verbs[:1] == ["EHLO"]  # type: ignore[attr-defined]
    assert "MAIL" not in talk.hop_1.verbs  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "lines",
    [
        ["EHLO x.example.org", "MAIL FROM:<jörg@example.org>"],
        ["EHLO x.example.org", "MAIL FROM:<joe@example.org>", "RCPT TO:<änn@example.com>"],
        ["HELO x.example.org", "MAIL FROM:<jörg@example.org> SMTPUTF8"],
        ["EHLO bücher.example"],
        ["EHLO x.example.org", "NOOP grüße"],
        ["EHLO x.example.org", "MAIL FROM:<j\u0085rg@example.org> SMTPUTF8"],
        ["EHLO x.example.org", "MAIL FROM:<j\u2028rg@example.org> SMTPUTF8"],
        ["EHLO x.example.org", "MÄIL FROM:<joe@example.org> SMTPUTF8"],
    ],
)
def test_utf8_elsewhere_is_not_printable(lines: list[str]) -> None:
    _, client = node()
    for line in lines[:-1]:
        client.say(line)
    assert codes(client.say(lines[-1])) == ["500 #641"]
    assert client.gone


@pytest.mark.parametrize("octets", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"])
def test_octets_that_are_no_utf8_are_not_printable(octets: bytes) -> None:
    _, client = node()
    client.say("EHLO x.example.org")
    assert codes(client.send(b"MAIL FROM:<j" + octets + b"@example.org> SMTPUTF8\r\n")) == ["500 #641"]
    assert client.gone


@pytest.mark.parametrize("blank", ["\u00a0", "\u3000", "\u2003"])
def test_a_wide_blank_is_no_separator(blank: str) -> None:
    _, client = node()
    client.say("EHLO x.example.org")
    assert codes(client.say(f"MAIL FROM:<joe@example.org>{blank}SMTPUTF8"))[0] in ("500 #641", "501 #280", "553 #279")


def test_both_forms_of_a_domain_hit_the_same_key() -> None:
    for recipient in ("ann@bücher.example", "ann@xn--bcher-kva.example", "ann@BÜCHER.example"):
        talk, client = node(access="to:xn--bcher-kva.example REJECT\n")
        client.say("EHLO mail.example.org")
        client.say("MAIL FROM:<joe@example.org> SMTPUTF8")
        assert codes(client.say(f"RCPT TO:<{recipient}>")) == ["550 #139"]
        assert not talk.hop_1.lines  # type: ignore[attr-defined]
