"""Row S: a web page must not reach into the node through a browser on the same machine.

Whatever verb an HTTP request begins with, the connection ends at its first line: nothing that follows, headers or
body, is carried out as a command.
"""

from __future__ import annotations

import pytest

from test.support.talk import Talk, codes

VERBS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "get", "Post")
BODY = "Host: 127.0.0.1:25\r\nContent-Length: 60\r\n\r\nEHLO x.example.org\r\nMAIL FROM:<a@example.org>\r\nNOOP\r\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "192.0.2.7", "10.0.0.5"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_http_request_is_dropped_at_its_first_line(verb: str, address: str) -> None:
    talk = Talk(
        {"smtp-delay-checks": "+"} if address != "127.0.0.1" else None, route="route:10 RELAY\nroute:example.com FORWARD: 192.0.2.1\n"
    )
    client = talk.connect(address)
    answers = client.send(f"{verb} / HTTP/1.1\r\n{BODY}".encode())
    assert codes(answers) == ["500 #248"]
    assert client.gone
    assert len(talk.logged(1148)) == 1
    assert not talk.logged(717)
    assert not talk.engine.conversations


@pytest.mark.parametrize("verb", ["NOOP", "RSET", "HELP", "EHLO", "HELO", "QUIT", "STARTTLS", "XCLIENT", "CONN", "KILL", "FOO"])
def test_a_page_may_name_any_method_and_is_dropped_all_the_same(verb: str) -> None:
    talk = Talk()
    client = talk.connect("127.0.0.1")
    answers = client.send(f"{verb} /path?x=1 HTTP/1.1\r\n{BODY}".encode())
    assert codes(answers) == ["500 #248"]
    assert client.gone
    assert talk.logged(1148) == [f"localhost.localhost [127.0.0.1] sent an HTTP request: {verb}"]


def test_the_request_may_come_in_single_octets() -> None:
    talk = Talk()
    client = talk.connect("127.0.0.1")
    heard: list[str] = []
    for octet in f"POST / HTTP/1.1\r\n{BODY}".encode():
        heard += client.send(bytes([octet]))
    assert codes(heard) == ["500 #248"]
    assert client.gone


def test_the_request_may_come_before_the_banner() -> None:
    talk = Talk()
    client = talk.connect("192.0.2.7", first=b"POST / HTTP/1.1\r\n" + BODY.encode())
    assert codes(client.banner) == ["220", "550 #643"]
    assert client.gone


def test_a_mail_program_may_speak_of_http_later() -> None:
    talk = Talk()
    client = talk.greeted("127.0.0.1")
    assert codes(client.say("GET / HTTP/1.1")) == ["500 #248"]
    assert not client.gone
