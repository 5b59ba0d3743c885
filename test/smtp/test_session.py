"""The worked sessions of the chapter, and the command table."""

from __future__ import annotations

from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"


def test_plain_delivery() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.connect()
    assert codes(client.banner) == ["220"]
    assert client.banner[0].startswith("220-mx.test Welcome to smtpf ESMTP #633 ")
    assert client.say("EHLO mail.example.org")[-1] == "250 HELP"
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]
    assert hop.verbs == ["EHLO", "MAIL", "RCPT"]
    assert codes(client.message()) == ["250 #554"]
    assert codes(client.say("QUIT")) == ["221 #247"]
    assert client.gone
    assert [entry.message.number for entry in talk.entries if entry.message.number in (637, 717, 718, 720, 721)] == [
        637,
        717,
        718,
        720,
        721,
    ]
    assert 'f="forged,no_ptr,quit"' in talk.logged(721)[0]
    assert hop.contents[0].endswith(b"Subject: hello\r\nX-smtpf-Report: " + hop.contents[0].split(b"X-smtpf-Report: ")[1])
