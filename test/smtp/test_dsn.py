"""Delivery status notifications: what they say, when there is one, and which way they go."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from twisted.internet import reactor

from smtpf.smtp.client import FailureKind, HopFailure, HopReply
from smtpf.smtp.dsn import SMTP_DSN_REPLY_TO, DsnSender, Report, compose
from smtpf.smtp.forward import HostOutcome
from smtpf.smtp.session import MsgFlag, SpfResult
from smtpf.smtp.submit import Submitter
from test.support.scripted_hop import ScriptedHop
from test.support.sending import SID, TID, Desk, hop_host, mail_path


class Due:
    """A message taken by one host and refused by another."""

    def __init__(self, reactor_run, *, script=None, sender="joe@example.org", routes="route:local FORWARD: HOP", options=None, zone=""):
        self.run = reactor_run
        self.hop = ScriptedHop(script)
        port = self.hop.listen(reactor)
        self.desk = Desk(reactor, options, routes=routes.replace("HOP", f"127.0.0.1:{port}"), zone=zone)
        self.transaction = self.desk.transaction(sender)
        self.transaction.original_headers = (b"Subject: hi\r\n", b"X-Odd: caf\xe9\x00\r\n")
        good = self.desk.connection(self.transaction, [hop_host(1)], "route:x.com")
        self.bad = self.desk.connection(self.transaction, [hop_host(2)], "route:y.com")
        self.bad.recipients = [mail_path("b@y.com"), mail_path("c@y.com")]
        self.outcomes = [HostOutcome(good, HopReply(250, ("250 ok",)), True), self.outcome("554 no")]
        self.sender = DsnSender(
            Submitter(self.desk.routes, self.desk.forwarder), self.desk.resolver, self.desk.journal, lambda: 1_000_000_000.0
        )

    def outcome(self, *lines):
        return HostOutcome(self.bad, HopReply(int(lines[0][:3]), lines), True)

    def report(self, until=lambda due: due.sender._under_way == 0):
        self.sender.report(self.desk.session, self.transaction, self.outcomes)

        async def wait():
            from twisted.internet.task import deferLater

            while not until(self):
                await deferLater(reactor, 0.01)

        self.run(wait())


@pytest.fixture
def due(reactor_run):
    made = []

    def make(**named):
        made.append(Due(reactor_run, **named))
        return made[-1]

    yield make
    for each in made:
        reactor_run(each.hop.stop())


def test_dsn_goes_over_the_local_route_with_the_null_sender(due):
    here = due()
    here.report()
    assert here.hop.lines[:4] == ["EHLO mx.test", "MAIL FROM:<>", "RCPT TO:<joe@example.org>", "DATA"]
    assert here.desk.counted("dsn-sent") == 1
    (content,) = here.hop.contents
    assert b"Final-Recipient: rfc822; b@y.com\r\n" in content


def test_its_parts():
    report = Report(
        TID, SID, "joe@example.org", "help@example.com", "mx.test", "mail.example.org", ("b@y.com", "c@y.com"),
        ("554-5.7.1 first", "554 5.7.1 last"), True, "554 5.7.1 last", (b"Subject: hi\r\n", b"X-Odd: caf\xe9\r\n"),
    )  # fmt: skip
    octets = compose(report, 1, 1_000_000_000.0)
    assert octets.isascii()
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    message = message_from_bytes(octets, policy=policy.default)
    assert b"\r\nTo: <joe@example.org>\r\n" in octets
    assert b'\r\nFrom: "smtpf" <postmaster@mx.test>\r\n' in octets
    assert b"\r\nReply-To: <help@example.com>\r\n" in octets
    assert message["Subject"] == "Mail delivery failed."
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Precedence"] == "first-class"
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message.get_boundary() == f"--=_{TID}"
    text, status, headers = message.iter_parts()
    words = text.get_content().replace("\r\n", "\n")
    assert "<b@y.com>" in words
    assert "help@example.com" in words
    assert "For the following reason:\n\n\t554-5.7.1 first\n\t554 5.7.1 last\n" in words
    overall, first, second = status.get_payload()[:3]
    assert overall["Reporting-MTA"] == "dns; mx.test"
    assert overall["Received-From-MTA"] == "dns; mail.example.org"
    assert overall["X-Reporting-Envelope-Id"] == f"{TID} ({SID})"
    assert (first["Final-Recipient"], first["Action"], first["Status"]) == ("rfc822; b@y.com", "failed", "5.0.0")
    assert first["Diagnostic-Code"] == "smtp; 554 5.7.1 last"
    assert second["Final-Recipient"] == "rfc822; c@y.com"
    assert headers.get_content_type() == "text/rfc822-headers"
    assert "Subject: hi\nX-Odd: caf?\n" in headers.get_payload().replace("\r\n", "\n")


def test_lost_connection_has_no_reply_lines(due):
    here = due()
    here.outcomes[1] = HostOutcome(here.bad, HopFailure(FailureKind.READ, "connection closed by host"), True)
    here.report()
    (content,) = here.hop.contents
    assert b"\t(unknown)\r\n" in content
    assert b"Status: 4.0.0\r\n" in content


@pytest.mark.parametrize(
    "change",
    [
        lambda due: setattr(due.transaction, "sender", mail_path("")),
        lambda due: setattr(due.transaction, "spf_mail", SpfResult.FAIL),
        lambda due: due.transaction.flags.add(MsgFlag.TAG),
        lambda due: due.outcomes.pop(0),
        lambda due: due.outcomes.pop(1),
    ],
)
def test_no_dsn(due, change):
    here = due()
    change(here)
    here.report()
    assert here.hop.sessions == []
    assert here.desk.numbers == []


def test_reply_lines_with_odd_octets_stay_harmless():
    report = Report(
        TID,
        SID,
        "joe@example.org",
        "",
        "mx.test",
        "c",
        ("b\r\nX: y@y.com",),
        ("554 a\r\nInjected: b",),
        True,
        "554 \n.",
        (b"A: b\r\n.\r\n",),
    )
    octets = compose(report, 1, 0.0)
    assert b"\r\nInjected" not in octets
    assert b"\r\nX: y" not in octets


def test_nobody_takes_it(due):
    here = due(routes="")
    here.report()
    assert here.desk.lines == ["DSN to <joe@example.org> not sent: no mail exchange"]
    assert here.desk.counted("dsn-sent") == 0


def test_never_sent_to_an_exchange_inside(due):
    here = due(routes="", zone="example.org MX 10 mx.example.org\nmx.example.org A 127.0.0.1")
    here.report()
    assert here.desk.lines == ["DSN to <joe@example.org> not sent: no mail exchange"]
    assert here.hop.sessions == []


def test_refused_by_the_local_route(due):
    here = due(script={"RCPT": b"550 5.1.1 no\r\n"}, zone="example.org MX TIMEOUT")
    here.report()
    assert here.desk.numbers == [1172]


def test_reply_to(due):
    here = due(options={SMTP_DSN_REPLY_TO: "help@example.com"})
    here.report()
    assert b"\r\nReply-To: <help@example.com>\r\n" in here.hop.contents[0]
