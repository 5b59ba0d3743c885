"""lint in whole sessions."""

from __future__ import annotations

from smtpf.filters.header_tests import MIN_HEADERS
from smtpf.smtp.lint import LINT
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\nroute:127.0.0.1\tFORWARD: 192.0.2.9\n"


class Here:
    def __init__(self, options=None, access=""):
        self.talk = Talk({LINT: "+", **(options or {})}, route=ROUTE, access=access)
        self.hop = self.talk.hop("192.0.2.1")
        self.queue = self.talk.hop("192.0.2.9")

    def send(self, client, sender="ada@kestrel.net"):
        client.say(f"MAIL FROM:<{sender}>")
        client.say("RCPT TO:<bob@hill.org>")
        answer = codes(client.message())
        self.talk.net.pump()
        return answer


def test_refused_client_is_answered_positively_and_reported():
    here = Here(access="connect:81.2.69.10\tREJECT\n")
    client = here.talk.greeted("81.2.69.10")
    assert here.send(client) == ["250 #554"]
    assert here.hop.contents == []
    (report,) = [content.decode() for content in here.queue.contents]
    assert "RCPT TO:<postmaster>" in here.queue.lines
    assert "Subject: smtpf lint report message " in report
    assert (
        "\r\nSENDER: <ada@kestrel.net>\r\nRECIPIENT: <bob@hill.org>\r\n\r\nHEADERS:\r\nSubject: hello\r\n\r\nREPORT:\r\n550 5.7.1 host "
        in report
    )
    assert here.send(client, "eve@kestrel.net") == ["250 #554"]
    assert len(here.queue.contents) == 2


def test_record_of_a_message_ends_with_it():
    here = Here(access="from:ada@kestrel.net\tREJECT\n")
    client = here.talk.greeted("81.2.69.10")
    assert here.send(client) == ["250 #554"]
    assert here.send(client, "eve@kestrel.net") == ["250 #554"]
    assert len(here.hop.contents) == 1
    assert len(here.queue.contents) == 1


def test_session_without_message_is_reported_at_its_end():
    here = Here(access="connect:81.2.69.10\tREJECT\n")
    here.talk.greeted("81.2.69.10").say("QUIT")
    here.talk.net.pump()
    assert b"Subject: smtpf lint report session " in here.queue.contents[0]
    assert b"SENDER" not in here.queue.contents[0]


def test_refusals_at_the_end_of_a_message_stand_and_are_reported():
    here = Here({MIN_HEADERS: "+"})
    assert here.send(here.talk.greeted("81.2.69.10")) == ["554 #462"]
    assert b"554 5.6.0 missing RFC 2822 required headers #462" in here.queue.contents[0]


def test_good_mail_is_delivered_without_report():
    here = Here()
    assert here.send(here.talk.greeted("81.2.69.10")) == ["250 #554"]
    assert len(here.hop.contents) == 1
    assert here.queue.contents == []


def test_report_that_nobody_takes_is_logged():
    here = Here(access="from:ada@kestrel.net\tREJECT\n")
    here.queue.script["MAIL"] = b"451 later\r\n"
    here.send(here.talk.greeted("81.2.69.10"))
    assert here.talk.logged(1168)[0].endswith(" not sent: 451 later")


def test_off_by_default():
    here = Here({LINT: "-"}, access="from:ada@kestrel.net\tREJECT\n")
    client = here.talk.greeted("81.2.69.10")
    assert codes(client.say("MAIL FROM:<ada@kestrel.net>")) == ["550 #127"]
