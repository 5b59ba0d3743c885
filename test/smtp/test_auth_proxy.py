"""AUTH and ETRN by proxy against scripted hosts."""

from __future__ import annotations

import base64

import pytest
from twisted.internet import reactor

from smtpf.pipeline import Code
from smtpf.reply import render
from smtpf.smtp.auth_proxy import AuthProxy, _is_loopback
from smtpf.smtp.etrn import QueueRequest
from smtpf.smtp.session import ClientFlag
from test.support.scripted_hop import CLOSE, ScriptedHop
from test.support.sending import SID, Desk, mail_path


def plain(user: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{user}\0secret".encode()).decode()


class Ask:
    def __init__(self, reactor_run, script, routes, others=()):
        self.run = reactor_run
        self.hop = ScriptedHop(script)
        port = self.hop.listen(reactor)
        self.desk = Desk(reactor, routes=routes.replace("HOP", f"127.0.0.1:{port}"))

    def auth(self, user):
        return self.run(AuthProxy(self.desk.routes, self.desk.forwarder).authenticate(self.desk.session, user, b"secret"))

    def etrn(self, argument="example.com"):
        verdict = self.run(QueueRequest(self.desk.routes, self.desk.forwarder).ask(self.desk.session, argument))
        return verdict.code, render(verdict.reply, verdict.args, SID).first

    @property
    def tried(self):
        return [line for line in self.hop.lines if line.startswith("AUTH")]


@pytest.fixture
def ask(reactor_run):
    made = []

    def make(script=None, routes="route:local FORWARD: HOP"):
        made.append(Ask(reactor_run, script, routes))
        return made[-1]

    yield make
    for each in made:
        reactor_run(each.hop.stop())


def test_unqualified_user_keeps_the_local_route(ask, reactor_run):
    here = ask()
    result = here.auth("joe")
    assert result.accepted
    assert here.hop.lines == ["EHLO mx.test", plain("joe")]
    kept = result.kept
    assert (kept.route_key, kept.address, kept.queued) == ("route:local", "127.0.0.1", True)
    transaction = here.desk.transaction()
    assert reactor_run(kept.mail(transaction)).positive
    assert reactor_run(kept.rcpt(mail_path("ann@example.com"))) is None
    reactor_run(kept.reset())
    assert kept.recipients == []
    assert here.hop.lines[-3:] == ["MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "RSET"]
    reactor_run(kept.reset())
    assert here.hop.lines[-1] == "RSET"
    assert here.hop.lines.count("RSET") == 1
    kept.close()


def test_user_with_a_route_is_not_kept(ask):
    here = ask(routes="route:example.com FORWARD: HOP")
    result = here.auth("joe@example.com")
    assert (result.accepted, result.kept) == (True, None)


def test_rcpt_list_comes_first_and_is_never_kept(ask):
    here = ask(routes="route:local FORWARD: 127.0.0.1:1; RCPT: HOP")
    result = here.auth("joe")
    assert (result.accepted, result.kept) == (True, None)


def test_second_try_without_the_domain(ask):
    here = ask({"AUTH": [b"535 no\r\n", b"235 yes\r\n"]}, "route:example.com FORWARD: HOP")
    assert here.auth("joe@example.com").accepted
    assert here.tried == [plain("joe@example.com"), plain("joe")]


@pytest.mark.parametrize("script", [{"AUTH": b"535 no\r\n"}, {"AUTH": CLOSE}, {"EHLO": b"500 no\r\n"}, {"GREETING": b"554 no\r\n"}])
@pytest.mark.parametrize("relay", [False, True])
def test_failure_is_accepted_from_a_relay_only(ask, script, relay):
    here = ask(script, "route:example.com FORWARD: HOP")
    if relay:
        here.desk.session.flags.add(ClientFlag.RELAY)
    result = here.auth("joe@example.com")
    assert (result.accepted, result.kept) == (relay, None)


def test_qualified_user_without_route_is_not_asked_for(ask):
    here = ask()
    assert not here.auth("joe@elsewhere.example").accepted
    assert here.hop.sessions == []


def test_qualified_user_of_this_host_when_local(ask):
    here = ask()
    here.desk.session.flags.add(ClientFlag.LOCALHOST)
    assert here.auth("joe@mx.test").accepted


@pytest.mark.parametrize(("address", "expected"), [("127.0.0.1", True), ("::1", True), ("192.0.2.1", False), ("", False)])
def test_where_a_password_may_be_told_in_the_clear(address, expected):
    assert _is_loopback(address) is expected


ETRN = [
    ({}, Code.CONTINUE, f"250 queuing #277 {SID}"),
    ({"ETRN": b"250-a\r\n250 2.0.0 last\r\n"}, Code.CONTINUE, f"250 2.0.0 last #277 {SID}"),
    ({"ETRN": b"550 5.1.1 who\r\n"}, Code.REJECT, f"550 5.1.1 who #277 {SID}"),
    ({"ETRN": b"459 no\r\n"}, Code.TEMPFAIL, f"459 no #277 {SID}"),
    ({"ETRN": CLOSE}, Code.TEMPFAIL, f"458 4.4.0 unable to queue messages for example.com #276 {SID}"),
    ({"GREETING": b"554 no\r\n"}, Code.TEMPFAIL, f"458 4.4.0 unable to queue messages for example.com #276 {SID}"),
]


@pytest.mark.parametrize(("script", "code", "reply"), ETRN)
def test_etrn(ask, script, code, reply):
    assert ask(script).etrn() == (code, reply)


def test_etrn_greets_first(ask):
    here = ask()
    here.etrn("@example.com")
    assert here.hop.lines[:2] == ["EHLO mx.test", "ETRN @example.com"]


def test_etrn_without_local_route(ask):
    assert ask(routes="route:x.example FORWARD: HOP").etrn()[0] is Code.TEMPFAIL
