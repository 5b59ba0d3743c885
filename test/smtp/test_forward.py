"""Forward connections against scripted next hops on loopback sockets."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import reactor

from smtpf.pipeline import Code
from smtpf.reply import render
from smtpf.smtp import options, replies
from smtpf.smtp.client import FailureKind, HopFailure, HopReply
from smtpf.smtp.forward import RELAY_REPLY, SMTP_CONNECT_TIMEOUT, SMTP_DOT_TIMEOUT, HostOutcome, combine, undelivered, without_detail
from smtpf.smtp.session import MailFlag
from test.support.scripted_hop import CLOSE, ScriptedHop
from test.support.sending import SID, TID, Desk, hop_host, mail_path

HEAD = b"Subject: hi\r\nFrom: <joe@example.org>\r\n"
ANN = mail_path("ann@example.com")


class Line:
    """Desk, one scripted hop and one connection to it."""

    def __init__(self, reactor_run, script=None, settings=None, sender="joe@example.org", **parameters):
        self.run = reactor_run
        self.desk = Desk(reactor, settings)
        self.hop = ScriptedHop(script)
        self.transaction = self.desk.transaction(sender, **parameters)
        self.connection = self.desk.connection(self.transaction, [hop_host(self.hop.listen(reactor))])

    def open(self, path=ANN):
        return self.run(self.connection.open(path))

    def rcpt(self, path=ANN):
        return self.run(self.connection.rcpt(path))

    def answer(self, verdict):
        return render(verdict.reply, verdict.args, SID).first

    def end(self):
        self.connection.close()
        self.run(self.hop.stop())


@pytest.fixture
def line(reactor_run):
    made: list[Line] = []

    def make(*args: Any, **named: Any) -> Line:
        made.append(Line(reactor_run, *args, **named))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_recipient_is_named_at_once(line):
    here = line()
    assert here.open() is None
    assert here.rcpt() is None
    assert here.hop.lines == ["EHLO mx.test", "MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>"]
    assert here.connection.recipients == [ANN]
    assert here.connection.address == "127.0.0.1"
    assert here.desk.numbers == []


def test_helo_when_ehlo_is_refused(line):
    here = line({"EHLO": b"500 no\r\n"})
    assert here.open() is None
    assert here.hop.lines[:2] == ["EHLO mx.test", "HELO mx.test"]


def test_any_2xy_is_success(line):
    here = line({"MAIL": b"252 maybe\r\n", "RCPT": b"251 elsewhere\r\n"})
    assert here.open() is None
    assert here.rcpt() is None


def test_8bitmime_and_size_are_passed_on_where_they_are_offered(line):
    here = line(SIZE="1234", BODY="8BITMIME")
    here.transaction.mail_flags.add(MailFlag.EIGHT_BIT_MIME)
    here.open()
    assert here.hop.lines[-1] == "MAIL FROM:<joe@example.org> BODY=8BITMIME SIZE=1234"


def test_8bitmime_and_size_are_kept_from_hosts_that_do_not_offer_them(line):
    here = line({"EHLO": b"250 hop\r\n"}, SIZE="1234", BODY="8BITMIME")
    here.transaction.mail_flags.add(MailFlag.EIGHT_BIT_MIME)
    here.open()
    assert here.hop.lines[-1] == "MAIL FROM:<joe@example.org>"


def test_8bitmime_switched_off(line):
    here = line(settings={options.RFC1652_8BITMIME: "-"})
    here.transaction.mail_flags.add(MailFlag.EIGHT_BIT_MIME)
    here.open()
    assert here.hop.lines[-1] == "MAIL FROM:<joe@example.org>"


def test_null_sender(line):
    here = line(sender="")
    here.open()
    assert here.hop.lines[-1] == "MAIL FROM:<>"


REFUSALS = [
    (b"550 5.1.1 No such user\r\n", "-", Code.REJECT, f"550 5.1.1 recipient <ann@example.com> denied #300 {SID}"),
    (b"550 unknown\r\n", "-", Code.REJECT, f"550 recipient <ann@example.com> denied #300 {SID}"),
    (b"550 5.1.1 No such user\r\n", "+", Code.REJECT, f"550 5.1.1 No such user #299 {SID}"),
    (b"550-first\r\n550 last\r\n", "+", Code.REJECT, f"550 last #299 {SID}"),
    (b"451 4.7.1 later\r\n", "-", Code.TEMPFAIL, f"451 4.7.1 recipient <ann@example.com> denied #300 {SID}"),
    (b"354 what\r\n", "-", Code.TEMPFAIL, f"451 recipient <ann@example.com> denied #300 {SID}"),
    (b"354 what\r\n", "+", Code.TEMPFAIL, f"451 what #299 {SID}"),
    (CLOSE, "-", Code.TEMPFAIL, f"451 4.4.2 recipient <ann@example.com> denied #300 {SID}"),
    (CLOSE, "+", Code.TEMPFAIL, f"451 4.4.2 internal network error for route:example.com #485 {SID}"),
]


@pytest.mark.parametrize(("reply", "relay", "code", "expected"), REFUSALS)
@pytest.mark.parametrize(("verb", "counter"), [("RCPT", "forward-rcpt"), ("MAIL", "forward-mail"), ("HELO", "forward-helo")])
def test_refusal_of_the_next_hop(line, verb, counter, reply, relay, code, expected):
    script = {verb: reply}
    if verb == "HELO":
        script["EHLO"] = b"500 no\r\n"
    here = line(script, {RELAY_REPLY: relay})
    verdict = here.open()
    if verb == "RCPT":
        assert verdict is None
        verdict = here.rcpt()
    assert verdict.code is code
    assert here.answer(verdict) == expected
    assert here.desk.counted(f"{counter}-{'reject' if code is Code.REJECT else 'tempfail'}") == 1
    assert here.desk.numbers == ([486] if reply == CLOSE else [])
    assert here.connection.recipients == []


def test_read_error_is_logged_with_route_key(line):
    here = line({"RCPT": CLOSE})
    here.open()
    here.rcpt()
    assert here.desk.lines == ["route:example.com read error: connection closed by host (0)"]


def test_connection_stays_open_for_other_recipients(line):
    here = line({"RCPT": [b"550 no\r\n", b"250 ok\r\n"]})
    here.open()
    assert here.rcpt().code is Code.REJECT
    assert here.rcpt(mail_path("bob@example.com")) is None
    assert [path.address for path in here.connection.recipients] == ["bob@example.com"]


def test_connection_lost_after_a_recipient_refuses_later_ones_temporarily(line):
    here = line({"RCPT": [b"250 ok\r\n", CLOSE]})
    here.open()
    assert here.rcpt() is None
    for name in ("bob@example.com", "cid@example.com"):
        verdict = here.rcpt(mail_path(name))
        assert here.answer(verdict) == f"451 4.4.2 recipient <{name}> denied #300 {SID}"
    assert here.desk.numbers == [486]


def test_plus_detail_is_left_out_when_refused_with_it(line):
    here = line({"RCPT": lambda text: b"550 no\r\n" if "+" in text else b"250 ok\r\n"})
    here.open()
    path = mail_path("Joe+list@Example.com")
    assert here.rcpt(path) is None
    assert here.hop.lines[-2:] == ["RCPT TO:<Joe+list@Example.com>", "RCPT TO:<Joe@Example.com>"]


@pytest.mark.parametrize(("address", "bare"), [("joe+x@example.com", "joe@example.com"), ("joe+x+y@e.org", "joe@e.org"), ("joe+x", "joe")])
def test_without_detail(address, bare):
    assert without_detail(mail_path(address)) == bare


def test_next_host_when_the_first_refuses_or_greets_badly(reactor_run):
    desk = Desk(reactor)
    bad, good = ScriptedHop({"GREETING": b"554 go away\r\n"}), ScriptedHop()
    closed = ScriptedHop()
    port = closed.listen(reactor)
    reactor_run(closed.stop())
    transaction = desk.transaction()
    hosts = [hop_host(port), hop_host(bad.listen(reactor)), hop_host(good.listen(reactor))]
    connection = desk.connection(transaction, hosts)
    assert reactor_run(connection.open(ANN)) is None
    assert connection.host == hosts[2]
    assert bad.lines in ([], ["QUIT"])
    connection.close()
    reactor_run(bad.stop)
    reactor_run(good.stop)


def test_no_host_answers(reactor_run):
    desk = Desk(reactor)
    closed = ScriptedHop()
    port = closed.listen(reactor)
    reactor_run(closed.stop())
    failure = reactor_run(desk.connection(desk.transaction(), [hop_host(port)]).open(ANN))
    assert failure == HopFailure(FailureKind.CONNECT, "Connection refused", 111)


def test_host_name_is_tried_at_all_its_addresses(reactor_run):
    desk = Desk(reactor, zone="hop.example A 127.0.0.2\nhop.example A 127.0.0.1")
    hop = ScriptedHop()
    port = hop.listen(reactor)
    connection = desk.connection(desk.transaction(), [hop_host(port, "hop.example")])
    assert reactor_run(connection.open(ANN)) is None
    assert connection.address == "127.0.0.1"
    assert connection.host_text == f"hop.example:{port}"
    connection.close()
    reactor_run(hop.stop)


def test_unknown_host_name(reactor_run):
    desk = Desk(reactor)
    failure = reactor_run(desk.connection(desk.transaction(), [hop_host(25, "nobody.example")]).open(ANN))
    assert failure.text == "host has no address"


def test_unix_socket(reactor_run, tmp_path):
    from smtpf.maps.hosts import parse_host

    desk = Desk(reactor)
    hop = ScriptedHop()
    path = str(tmp_path / "s")
    hop.listen_unix(reactor, path)
    connection = desk.connection(desk.transaction(), [parse_host(path)])
    assert reactor_run(connection.open(ANN)) is None
    assert connection.host_text == path
    connection.close()
    reactor_run(hop.stop)


def test_silent_greeting_is_given_up(reactor_run):
    desk = Desk(reactor, {options.SMTP_COMMAND_TIMEOUT: "1", SMTP_CONNECT_TIMEOUT: "1"})
    hop = ScriptedHop({"GREETING": None})
    connection = desk.connection(desk.transaction(), [hop_host(hop.listen(reactor))])
    failure = reactor_run(connection.open(ANN))
    assert failure.kind is FailureKind.TIMEOUT
    reactor_run(hop.stop)


# The message


def deliver(here, head=HEAD, body=b"hello\r\n", folder=None):
    here.desk.fill(here.transaction, head, body, folder)
    return here.run(here.desk.forwarder.deliver(here.desk.session, here.transaction, [here.connection]))


def test_message_arrives(line, tmp_path):
    here = line()
    here.open()
    here.rcpt()
    (outcome,) = deliver(here, body=b".first\r\nsecond", folder=tmp_path)
    assert outcome.accepted
    assert here.hop.contents == [HEAD + b"\r\n..first\r\nsecond\r\n"]
    assert here.desk.numbers == []


def test_large_message_arrives_from_the_file(line, tmp_path):
    body = b"".join(b"%07d some text to fill a line with\r\n" % number for number in range(60000))
    here = line()
    here.open()
    here.rcpt()
    (outcome,) = deliver(here, body=body, folder=tmp_path)
    assert outcome.accepted
    assert here.hop.contents == [HEAD + b"\r\n" + body]


def test_message_that_cannot_be_read_back_is_withdrawn(line, tmp_path):
    here = line()
    here.open()
    here.rcpt()
    here.desk.fill(here.transaction, HEAD, b"x" * 78 + b"\r\n" + b"y" * 400000 + b"\r\n", tmp_path)
    here.run(_finished(here.transaction.spool))
    for file in tmp_path.iterdir():
        file.unlink()
    outcomes = here.run(here.desk.forwarder.deliver(here.desk.session, here.transaction, [here.connection]))
    verdict = combine(outcomes, TID)
    assert (verdict.code, verdict.reply) == (Code.TEMPFAIL, replies.INTERNAL_ERROR_LATER)
    assert here.hop.contents == []
    assert here.desk.numbers[0] == 310


async def _finished(spool):
    waiting = spool.finish()
    if waiting is not None:
        await waiting


ONE_HOST = [
    ({}, Code.CONTINUE, f"250 2.0.0 message {TID} accepted #554 {SID}", []),
    ({"CONTENT": b"251 fine\r\n"}, Code.CONTINUE, f"250 2.0.0 message {TID} accepted #554 {SID}", []),
    ({"CONTENT": b"554 no\r\n"}, Code.REJECT, f"554 5.7.0 transaction failed #306 {SID}", [331]),
    ({"DATA": b"554 no\r\n"}, Code.REJECT, f"554 5.7.0 transaction failed #306 {SID}", [331]),
    ({"CONTENT": b"452 full\r\n"}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [331]),
    ({"DATA": b"452 full\r\n"}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [331]),
    ({"DATA": b"250 hm\r\n"}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [331]),
    ({"CONTENT": b"354 again\r\n"}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [331]),
    ({"CONTENT": CLOSE}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [486]),
    ({"DATA": CLOSE}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [486]),
    ({"CONTENT": None}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [486]),
    ({"DATA": None}, Code.TEMPFAIL, f"451 4.4.0 transaction aborted #307 {SID}", [486]),
]


@pytest.mark.parametrize(("script", "code", "reply", "numbers"), ONE_HOST)
def test_what_the_client_hears_of_one_host(line, tmp_path, script, code, reply, numbers):
    here = line(script, {SMTP_DOT_TIMEOUT: "1", options.SMTP_COMMAND_TIMEOUT: "1"})
    here.open()
    here.rcpt()
    outcomes = deliver(here, folder=tmp_path)
    verdict = combine(outcomes, TID)
    assert (verdict.code, here.answer(verdict)) == (code, reply)
    assert here.desk.numbers == numbers
    assert undelivered(outcomes) == []


@pytest.mark.parametrize("verb", ["EHLO", "MAIL", "RCPT", "DATA", "CONTENT"])
def test_reply_injected_behind_a_reply_never_becomes_an_acceptance(line, tmp_path, verb):
    from test.support.scripted_hop import DEFAULTS

    here = line({verb: DEFAULTS[verb] + b"250 2.0.0 injected\r\n"})
    verdict = here.open()
    if verdict is None:
        verdict = here.rcpt()
    if verdict is None:
        verdict = combine(deliver(here, folder=tmp_path), TID)
    assert verdict.code is Code.TEMPFAIL
    assert here.answer(verdict).startswith("451 ")
    assert here.desk.numbers == [486]


def test_8_bit_content_is_kept_from_a_host_without_8bitmime(line, tmp_path):
    here = line({"EHLO": b"250 hop\r\n"})
    here.open()
    here.rcpt()
    (outcome,) = deliver(here, body="Grüße\r\n".encode(), folder=tmp_path)
    assert not outcome.opened
    assert outcome.text.startswith("554 5.6.3 ")
    assert "DATA" not in here.hop.lines


def test_plain_content_goes_to_a_host_without_8bitmime(line, tmp_path):
    here = line({"EHLO": b"250 hop\r\n"})
    here.open()
    here.rcpt()
    (outcome,) = deliver(here, folder=tmp_path)
    assert outcome.accepted


def test_closing_without_content_sends_quit(line):
    here = line()
    here.open()
    here.rcpt()
    ended = here.hop.one_ended()
    here.connection.close()
    here.run(ended)
    assert here.hop.lines[-1] == "QUIT"


def several(reactor_run, tmp_path, *scripts):
    desk = Desk(reactor, {SMTP_DOT_TIMEOUT: "1"})
    transaction = desk.transaction()
    desk.fill(transaction, HEAD, b"hi\r\n", tmp_path)
    hops = [ScriptedHop(script) for script in scripts]
    connections = [
        desk.connection(transaction, [hop_host(hop.listen(reactor))], f"route:{name}.com") for hop, name in zip(hops, "xyz", strict=False)
    ]

    async def all_of_it():
        for connection, name in zip(connections, "xyz", strict=False):
            path = mail_path(f"a@{name}.com")
            assert await connection.open(path) is None
            assert await connection.rcpt(path) is None
        outcomes = await desk.forwarder.deliver(desk.session, transaction, connections)
        for connection in connections:
            connection.close()
        for hop in hops:
            await hop.stop()
        return outcomes

    return desk, hops, reactor_run(all_of_it())


def test_one_host_accepting_is_enough_and_the_other_needs_a_dsn(reactor_run, tmp_path):
    desk, _, outcomes = several(reactor_run, tmp_path, {}, {"CONTENT": b"554 no\r\n"})
    assert combine(outcomes, TID).code is Code.CONTINUE
    assert [outcome.connection.route_key for outcome in undelivered(outcomes)] == ["route:y.com"]
    assert desk.lines == ["route:y.com rejected message: 554 no"]


def test_temporary_failure_of_one_of_several_makes_the_answer_temporary(reactor_run, tmp_path):
    desk, _, outcomes = several(reactor_run, tmp_path, {"CONTENT": b"451 x\r\n"}, {"CONTENT": b"554 no\r\n"})
    verdict = combine(outcomes, TID)
    assert (verdict.code, verdict.reply) == (Code.TEMPFAIL, replies.TRANSACTION_ABORTED)
    assert undelivered(outcomes) == []
    assert desk.numbers == [331, 331]


def test_nobody_wants_the_content(reactor_run, tmp_path):
    desk, _, outcomes = several(reactor_run, tmp_path, {"DATA": b"554 x\r\n"}, {"DATA": b"550 y\r\n"})
    assert combine(outcomes, TID).reply is replies.TRANSACTION_FAILED
    assert desk.numbers == [312, 331, 331]


def test_only_hosts_that_said_354_get_content(reactor_run, tmp_path):
    _, hops, outcomes = several(reactor_run, tmp_path, {"DATA": b"554 x\r\n"}, {})
    assert [outcome.accepted for outcome in outcomes] == [False, True]
    assert hops[0].contents == []
    assert hops[0].lines[3:] in (["DATA"], ["DATA", "QUIT"])


def test_slow_host_does_not_take_the_time_of_the_others(reactor_run, tmp_path):
    desk, _, outcomes = several(reactor_run, tmp_path, {"CONTENT": None}, {})
    assert [outcome.accepted for outcome in outcomes] == [False, True]
    assert desk.numbers == [486, 331]


def outcome(text, opened=True):
    answer = HopReply(int(text[:3]), (text,)) if text[:3].isdigit() else HopFailure(FailureKind.READ, text)
    return HostOutcome(None, answer, opened)


@pytest.mark.parametrize(
    ("texts", "reply"),
    [
        ((), replies.MESSAGE_ACCEPTED),
        (("250 ok",), replies.MESSAGE_ACCEPTED),
        (("250 ok", "550 no", "lost"), replies.MESSAGE_ACCEPTED),
        (("550 no",), replies.TRANSACTION_FAILED),
        (("550 no", "554 no"), replies.TRANSACTION_FAILED),
        (("550 no", "451 later"), replies.TRANSACTION_ABORTED),
        (("550 no", "lost"), replies.TRANSACTION_ABORTED),
        (("421 bye",), replies.TRANSACTION_ABORTED),
    ],
)
def test_combined_answer(texts, reply):
    assert combine([outcome(text) for text in texts], TID).reply is reply


def test_250_to_data_is_no_acceptance():
    assert combine([outcome("250 ok", opened=False)], TID).reply is replies.TRANSACTION_ABORTED
