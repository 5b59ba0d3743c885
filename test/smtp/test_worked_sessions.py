"""The worked sessions of chapter session, 18, the identifiers of 1.3 and the summary lines of 11."""

from __future__ import annotations

import os
import time

import pytest

from smtpf.smtp import counters
from smtpf.smtp.identifiers import SessionIds, TransactionIds
from smtpf.smtp.session import ClientFlag, MailFlag, MsgFlag, RcptFlag, flag_text
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
NAMED = "7.2.0.192.in-addr.arpa PTR mail.example.org\nmail.example.org A 192.0.2.7\n"
CLIENT = "mail.example.org [192.0.2.7]"


def test_2_delayed_black_list() -> None:
    talk = Talk({"smtp-delay-checks": "+"}, access="connect:192.0.2 REJECT\nto:postmaster@ OK\n", route=ROUTE, zone=NAMED)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    for _ in range(2):
        assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
        (line,) = client.say("RCPT TO:<ann@example.com>")
        assert line.startswith(f"550 5.7.1 host {CLIENT} black listed #120 ")
        assert codes(client.say("DATA")) == ["503 #251"]
        assert codes(client.say("RCPT TO:<postmaster@example.com>")) == ["250 #297"]
        assert codes(client.message()) == ["250 #554"]
    assert len(hop.contents) == 2
    assert "RCPT TO:<ann@example.com>" not in hop.lines
    assert talk.logged(1034)[0].startswith(f"delayed: 550 5.7.1 host {CLIENT} black listed #120")


def test_3_the_same_without_delay_checks() -> None:
    talk = Talk(access="connect:192.0.2 REJECT\nto:postmaster@ OK\n", route=ROUTE, zone=NAMED)
    client = talk.connect()
    assert codes(client.banner) == ["550 #120"]
    assert client.gone
    assert 'f="black,local_black"' in talk.logged(721)[0]


def test_4_early_talker() -> None:
    talk = Talk(zone=NAMED)
    client = talk.connect()
    answer = client.send(b"HELO x.org\r\nMAIL FROM:<joe@example.org>\r\n")
    assert codes(answer) == ["250 #256", "550 #643"]
    assert client.gone
    assert talk.logged(540)[0].startswith("pipeline input=29:MAIL FROM:<joe@example.org>")
    assert "pipelining" in talk.logged(721)[0]


def test_5_five_errors() -> None:
    talk = Talk({"smtp-drop-after": "5"}, route=ROUTE, zone=NAMED)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    for count in range(5):
        assert not client.gone
        assert codes(client.say(f"RCPT TO:<x{count}@elsewhere.net>")) == ["550 #288"]
    assert client.gone
    assert talk.logged(644) == [f"dropping {CLIENT} after 5 errors"]


def test_6_relay() -> None:
    talk = Talk(route="route:10 RELAY\nroute:127.0.0.1 FORWARD: 127.0.0.1:26\n")
    hop = talk.hop("127.0.0.1", 26)
    client = talk.greeted("10.0.0.5")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<x@elsewhere.net>")) == ["250 #297"]
    assert talk.logged(294) == ["queuing message on 127.0.0.1:26 [127.0.0.1] for <x@elsewhere.net>"]
    assert codes(client.message()) == ["250 #554"]
    assert 'f="queued"' in talk.logged(720)[0]
    assert len(hop.contents) == 1


def test_7_open_relay_attempt() -> None:
    talk = Talk(route=ROUTE, zone=NAMED)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    (line,) = client.say("RCPT TO:<x@elsewhere.net>")
    assert line.startswith("550 5.7.1 recipient <x@elsewhere.net> relaying denied #288 ")
    assert talk.counted(counters.RCPT_RELAY_DENIED) == 1
    assert codes(client.say("DATA")) == ["503 #251"]


def test_8_next_hop_down() -> None:
    talk = Talk(route=ROUTE, zone=NAMED)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    (line,) = client.say("RCPT TO:<ann@example.com>")
    assert line.startswith("451 4.0.0 cannot forward mail for <ann@example.com> at this time #295 ")
    assert 'f="failed"' in talk.logged(718)[0]


def test_9_discarded_recipient() -> None:
    talk = Talk(access="to:bin@example.com DISCARD\n", route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<bin@example.com>")) == ["250 #290"]
    assert codes(client.message()) == ["250 #554"]
    assert hop.lines == []
    assert 'f="discard"' in talk.logged(720)[0]
    assert talk.counted(counters.MSG_DISCARD) == 1


def test_10_auth() -> None:
    talk = Talk({"smtp-auth-enable": "+", "smtp-auth-tls": "-"}, route="route:127.0.0.1 FORWARD: 127.0.0.1:26\n" + ROUTE, zone=NAMED)
    hop = talk.hop("127.0.0.1", 26)
    client = talk.greeted()
    assert codes(client.say("AUTH PLAIN AGpvZQBzZWNyZXQ=")) == ["235 #274"]
    assert len(talk.logged(272)) == 1
    assert talk.logged(273) == ["auth-id=<joe> relay=0"]
    for _ in range(2):
        client.say("MAIL FROM:<joe@example.org>")
        assert codes(client.say("RCPT TO:<x@elsewhere.net>")) == ["250 #297"]
        assert codes(client.message()) == ["250 #554"]
    assert len(hop.sessions) == 1
    assert len(hop.contents) == 2
    client.say("QUIT")
    assert 'f="relay,helo_host,auth,quit"' in talk.logged(721)[0]


def test_11_silent_next_hop() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1", CONTENT=None)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    assert client.message() == []
    talk.net.pass_time(599)
    assert client.take() == []
    talk.net.pass_time(2)
    assert codes(client.take()) == ["451 #307"]
    assert talk.logged(486)[0].startswith("route:example.com read error: ")
    assert 'x="451 4.4.0 transaction aborted #307 ' in talk.logged(720)[0]


def test_12_client_times_out_in_data() -> None:
    talk = Talk(route=ROUTE, zone=NAMED)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    client.say("DATA")
    client.send(b"Subject: x\r\n\r\nhalf")
    talk.net.pass_time(181)
    assert client.take() == []
    assert client.gone
    assert talk.logged(320) == [f"client {CLIENT} I/O error: Connection timed out (110)"]
    assert talk.logged(720)[0].endswith('x=""')
    assert "io_error" in talk.logged(721)[0]
    assert hop.contents == []
    assert "DATA" not in hop.verbs


# Identifiers


@pytest.fixture
def utc() -> object:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("utc")
def test_the_examples_of_identifiers() -> None:
    assert SessionIds(3118, 41733).next(1224761207) == "k9MBQl031184173400"
    sid = SessionIds(4711, 16).next(1783155903)
    assert sid == "263953047110001700"
    assert TransactionIds(sid, 99).next(1783155903) == "26395304711000171c"


def test_counters_of_identifiers_wrap_past_zero() -> None:
    ids = SessionIds(1_234_567, 65534)
    assert [ids.next(0.0)[6:] for _ in range(2)] == ["34567" + "65535" + "00", "34567" + "00001" + "00"]
    made = TransactionIds("263953047110001700", 3842)
    assert [made.next(0.0)[16:] for _ in range(3)] == ["zz", "01", "02"]


# Summary lines


def test_the_summary_lines_of_a_delivery() -> None:
    talk = Talk(route=ROUTE, zone=NAMED, access="to:ann@example.com OK\n")
    talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    client.message("Message-ID: <m1@example.org>\r\nSubject: x\r\n\r\nhi\r\n..\r\n")
    client.say("QUIT")
    sid = next(iter({entry.session for entry in talk.entries if entry.message.number == 721}))
    assert talk.logged(637) == [f'start {CLIENT} f="" th=1 cn=1 cs=1']
    mail = next(entry for entry in talk.entries if entry.message.number == 717)
    tid = mail.extra["tid"]
    assert (
        mail.body == f'sender <joe@example.org> f="" spf-mail=None spf-helo=None x="250 2.1.0 sender <joe@example.org> accepted #283 {sid}"'
    )
    assert talk.logged(718) == [f'recipient <ann@example.com> f="white" x="250 2.1.5 recipient <ann@example.com> accepted #297 {sid}"']
    octets = len("Message-ID: <m1@example.org>\r\nSubject: x\r\n\r\nhi\r\n..\r\n")
    assert talk.logged(720) == [f'message <m1@example.org> f="" b={octets} m={tid} x="250 2.0.0 message {tid} accepted #554 {sid}"']
    heard = len("EHLO mail.example.org\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@example.com>\r\nDATA\r\n.\r\nQUIT\r\n") + octets
    assert talk.logged(721) == [f'end i=192.0.2.7 p="mail.example.org" f="helo_host,quit" h="mail.example.org" b={heard} t=0 ']
    assert tid[6:16] == sid[6:16]
    assert tid[16:] != "00"


def test_quotes_in_quoted_fields_become_apostrophes() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    talk.journal.use_words("info,warn,subject")
    client = talk.greeted()
    client.say('MAIL FROM:<"a b"@example.org>')
    client.say('RCPT TO:<"ann"@example.com>')
    client.message('Subject: say "hi"\r\n\r\nx\r\n')
    client.say("QUIT")
    assert "x=\"250 2.1.0 sender <'a b'@example.org> accepted #283 " in talk.logged(717)[0]
    assert "x=\"250 2.1.5 recipient <'ann'@example.com> accepted #297 " in talk.logged(718)[0]
    assert " s=\"say 'hi'\" x=" in talk.logged(720)[0]


def test_quotes_in_the_helo_argument_become_apostrophes() -> None:
    talk = Talk()
    client = talk.connect()
    client.say('HELO a"b')
    client.say("QUIT")
    assert 'h="a\'b"' in talk.logged(721)[0]


def test_flags_stand_in_table_order() -> None:
    for order, first, last in (
        (ClientFlag, "mx", "ipv6"),
        (MailFlag, "black", "binarymime"),
        (RcptFlag, "black", "failed"),
        (MsgFlag, "grey_content", "ok"),
    ):
        every = flag_text(set(order), order).split(",")
        assert every == [flag.value for flag in order]
        assert (every[0], every[-1]) == (first, last)
    assert flag_text({ClientFlag.IPV6}, ClientFlag) == "ipv6"
    assert flag_text(set(), ClientFlag) == ""
    assert flag_text({ClientFlag.QUIT, ClientFlag.AUTH, ClientFlag.RELAY, ClientFlag.IPV6}, ClientFlag) == "relay,auth,quit,ipv6"


def test_no_summary_of_a_session_refused_at_accept() -> None:
    talk = Talk()
    talk.engine.descriptor_limit = 18
    client = talk.connect()
    assert codes(client.banner) == ["421 #551"]
    assert client.gone
    assert talk.logged(637) == []
    assert len(talk.logged(556)) == len(talk.logged(721)) == 1
