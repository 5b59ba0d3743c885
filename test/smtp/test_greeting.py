"""Banner, HELO and EHLO (chapter session, 1.6 and 3.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpf.smtp import counters
from test.support.talk import Talk, codes

NAMED = "7.2.0.192.in-addr.arpa PTR mail.example.org\nmail.example.org A 192.0.2.9\n"
CLIENT = "mail.example.org [192.0.2.7]"


@pytest.mark.parametrize("entry", ["connect:192.0.2.7 OK", "connect:192.0.2.7 CONTENT"])
@pytest.mark.parametrize(("esmtp", "word"), [("+", "ESMTP"), ("-", "SMTP")])
def test_a_known_client_gets_one_line(entry: str, esmtp: str, word: str) -> None:
    talk = Talk({"smtp-enable-esmtp": esmtp}, access=entry + "\n")
    (line,) = talk.connect().banner
    assert line.startswith(f"220 mx.test {word} #632 ")


def test_others_get_the_built_in_text() -> None:
    first, second = Talk().connect().banner
    assert first.startswith("220-mx.test Welcome to smtpf ESMTP #633 ")
    assert second.startswith("220 ")
    assert "#" not in second


@pytest.mark.parametrize("text", ["Hello", "Hello\nNo spam\nPlease", "", None])
def test_the_welcome_file(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "welcome"
    if text is not None:
        file.write_text(text)
    lines = Talk({"smtp-welcome-file": str(file)}).connect().banner
    if not text:
        assert lines[0].startswith("220-mx.test Welcome to smtpf ESMTP #633 ")
        return
    wanted = text.split("\n")
    assert lines[0].startswith(f"220{'-' if len(wanted) > 1 else ' '}mx.test Hello ESMTP #633 ")
    assert lines[1:] == [f"220{'-' if line != wanted[-1] else ' '}{line}" for line in wanted[1:]]


def test_equal_lines_of_the_welcome_file_are_one_banner(tmp_path: Path) -> None:
    (tmp_path / "welcome").write_text("x\n\nx\n\n")
    lines = Talk({"smtp-welcome-file": str(tmp_path / "welcome")}).connect().banner
    assert [line[:4] for line in lines] == ["220-", "220-", "220-", "220 "]


def test_the_ehlo_reply_in_its_order() -> None:
    talk = Talk({"smtp-auth-enable": "+", "smtp-auth-tls": "-"}, route="route:local FORWARD: 192.0.2.66\n", zone=NAMED)
    lines = talk.connect().say("EHLO mail.example.org")
    assert lines[0].startswith(f"250-mx.test Hello {CLIENT} #254 ")
    order = ["AUTH PLAIN LOGIN", "ENHANCEDSTATUSCODES", "PIPELINING", "8BITMIME", "ETRN", "SIZE 0", "HELP"]
    offered = [line[4:] for line in lines[1:]]
    assert [word for word in offered if word in order] == order
    assert lines[-1] == "250 HELP"
    assert not any("XCLIENT" in line or "STARTTLS" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"rfc2920-pipelining": "-"}, "PIPELINING"),
        ({"rfc1652-8bitmime": "-"}, "8BITMIME"),
        ({"smtp-auth-enable": "-"}, "AUTH PLAIN LOGIN"),
        ({"smtp-auth-enable": "+"}, "AUTH PLAIN LOGIN"),
    ],
)
def test_what_is_not_offered(options: dict[str, str], missing: str) -> None:
    assert missing not in [line[4:] for line in Talk(options).connect().say("EHLO mail.example.org")]


def test_xclient_is_offered_to_localhost_and_to_named_peers_only() -> None:
    word = "250-XCLIENT ADDR HELO NAME PROTO"
    talk = Talk({"smtp-xclient-from": "192.0.2.0/29"}, access="connect:192.0.2.99 OK\n", route="route:10 RELAY\n")
    assert word in talk.connect("127.0.0.1").say("EHLO x.example.org")
    assert word in talk.connect("192.0.2.7").say("EHLO x.example.org")
    for other in ("192.0.2.8", "192.0.2.99", "10.0.0.5"):
        client = talk.connect(other)
        assert word not in client.say("EHLO x.example.org")
        assert codes(client.say("XCLIENT ADDR=192.0.2.1")) == ["503 #251"]
        assert codes(client.say("NOOP")) == ["250 #547"]


def test_helo() -> None:
    talk = Talk(zone=NAMED)
    (line,) = talk.connect().say("HELO mail.example.org")
    assert line.startswith(f"250 mx.test Hello {CLIENT} #256 ")


def test_a_client_without_a_name_keeps_its_blank() -> None:
    (line,) = Talk().connect().say("HELO mail.example.org")
    assert line.startswith("250 mx.test Hello  [192.0.2.7] #256 ")


@pytest.mark.parametrize(("level", "gone"), [("0", None), ("1", False), ("2", True)])
@pytest.mark.parametrize(("verb", "number"), [("EHLO", 252), ("HELO", 255)])
def test_a_client_of_two_names(level: str, gone: bool | None, verb: str, number: int) -> None:
    talk = Talk({"smtp-helo-schizo": level}, zone=NAMED)
    client = talk.greeted(name="mail.example.org")
    assert codes(client.say("EHLO MAIL.example.ORG"))[-1] == "250"
    answer = client.say(f"{verb} other.example.org")
    if gone is None:
        assert codes(answer)[-1].startswith("250")
        return
    assert answer[0].startswith(f"550 5.7.1 client {CLIENT} is schizophrenic #{number} ")
    assert client.gone is gone
    assert talk.counted(counters.HELO_SCHIZOPHRENIC) == 1
    client.say("QUIT")
    assert "schizo" in talk.logged(721)[0]


def test_ehlo_without_esmtp() -> None:
    talk = Talk({"smtp-enable-esmtp": "-"})
    client = talk.connect()
    (line,) = client.say("EHLO mail.example.org")
    assert line.startswith("502 5.5.1 EHLO not supported #253 ")
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["503 #251"]
    client.say("QUIT")
    assert "ehlo_no_helo" in talk.logged(721)[0]
    assert talk.counted(counters.EHLO_NO_HELO) == 1


def test_helo_after_a_refused_ehlo_clears_the_flag() -> None:
    talk = Talk({"smtp-enable-esmtp": "-"})
    client = talk.connect()
    client.say("EHLO mail.example.org")
    assert codes(client.say("HELO mail.example.org")) == ["250 #256"]
    client.say("QUIT")
    assert "ehlo_no_helo" not in talk.logged(721)[0]
    assert talk.counted(counters.EHLO_NO_HELO) == 0


def test_a_refused_helo_leaves_state_and_transaction_as_they_are() -> None:
    talk = Talk({"smtp-helo-schizo": "0"})
    client = talk.connect()
    assert codes(client.say("EHLO a'b.example.org")) == ["501 #423"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["503 #251"]
    assert codes(client.say("EHLO ab.example.org"))[-1] == "250"
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("HELO a'b.example.org")) == ["501 #423"]
    assert codes(client.say("RCPT TO:<joe@example.org>")) == ["550 #288"]


def test_the_whole_argument_is_the_helo_name() -> None:
    talk = Talk()
    client = talk.connect()
    (line,) = client.say("HELO two words")
    assert line.startswith("501 5.5.4 invalid HELO two words #423 ")


def test_start_and_end_frame_a_session() -> None:
    talk = Talk(zone=NAMED)
    client = talk.greeted()
    client.say("QUIT")
    numbers = [entry.message.number for entry in talk.entries if entry.message.number in (637, 721)]
    assert numbers == [637, 721]
    assert talk.logged(637) == [f'start {CLIENT} f="forged" th=1 cn=1 cs=1']


def test_rate_throttle_holds_the_connection_that_reaches_it() -> None:
    talk = Talk({"rate-throttle": "3"})
    clients = [talk.connect("127.0.0.1") for _ in range(2)]
    assert all(client.banner for client in clients)
    assert talk.logged(519) == []
    third = talk.connect("127.0.0.1")
    assert talk.logged(519) == ["3 connections exceeds 3 per second"]
    assert third.banner
    assert talk.net.seconds() >= 1.0
    assert talk.counted(counters.RATE_THROTTLE) == 1
    assert talk.connect("127.0.0.1").banner
    assert len(talk.logged(519)) == 1


@pytest.mark.parametrize(
    ("address", "shown"), [("::ffff:192.0.2.7", "192.0.2.7"), ("2001:DB8::0007", "2001:db8::7"), ("fe80::1%eth0", "fe80::1")]
)
def test_addresses_are_shown_in_one_form(address: str, shown: str) -> None:
    talk = Talk()
    client = talk.connect(address)
    client.say("QUIT")
    assert talk.logged(721)[0].startswith(f"end i={shown} ")
    assert ("ipv6" in talk.logged(721)[0]) is (":" in shown)
