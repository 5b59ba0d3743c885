"""Connections to next hops that carry one message after the other, against scripted hops on loopback sockets."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from smtpf.settings.store import Settings
from smtpf.smtp import replies
from smtpf.smtp.forward import combine
from smtpf.smtp.kept import (
    FORWARD_REUSE_IDLE,
    FORWARD_REUSE_LIMIT,
    FORWARD_REUSE_MESSAGES,
    FORWARD_REUSE_TOTAL,
    KeptConnections,
    Reached,
    place_of,
)
from test.support.scripted_hop import CLOSE, DEFAULTS, ScriptedHop
from test.support.sending import TID, Desk, hop_host, mail_path

ANN = mail_path("ann@example.com")
HEAD = b"Subject: hi\r\nFrom: <joe@example.org>\r\n"
PIPELINING = {"EHLO": b"250-hop.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n"}


class Sender:
    """Sends messages one after the other to one hop, as sessions of one node would."""

    def __init__(self, reactor_run, folder, script=None, settings=None, tls_context=None, tls=None):
        self.run = reactor_run
        self.folder = folder
        self.desk = Desk(reactor, settings, tls=tls)
        self.hop = ScriptedHop(script, tls_context)
        self.hosts = [hop_host(self.hop.listen(reactor))]

    @property
    def kept(self):
        return self.desk.forwarder.kept

    def begin(self):
        transaction = self.desk.transaction()
        connection = self.desk.connection(transaction, self.hosts)
        outcome = self.run(connection.open(ANN)) or self.run(connection.rcpt(ANN))
        return transaction, connection, outcome

    def message(self, body=b"hello\r\n"):
        """One whole transaction; the client's answer."""
        transaction, connection, outcome = self.begin()
        if outcome is not None:
            connection.close()
            return outcome.reply
        self.desk.fill(transaction, HEAD, body, self.folder)
        outcomes = self.run(self.desk.forwarder.deliver(self.desk.session, transaction, [connection]))
        connection.close()
        return combine(outcomes, TID).reply

    def verbs(self):
        return [[line.split(" ")[0] for line in session.lines] for session in self.hop.sessions]

    def counted(self):
        return self.desk.counted("forward-reused"), self.desk.counted("forward-reuse-replaced")

    def settle(self):
        self.run(deferLater(reactor, 0.02))

    def end(self):
        self.run(lambda: self.desk.forwarder.close())
        self.run(self.hop.stop())


@pytest.fixture
def sender(reactor_run, tmp_path):
    made = []

    def make(*args, **named):
        made.append(Sender(reactor_run, tmp_path, *args, **named))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.mark.parametrize("script", [None, PIPELINING])
def test_messages_share_a_connection_with_rset_between_them(sender, script):
    here = sender(script)
    for number in range(3):
        assert here.message(b"%d\r\n" % number) is replies.MESSAGE_ACCEPTED
    assert here.verbs() == [["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT", "DATA"]]
    assert here.hop.contents == [HEAD + b"\r\n%d\r\n" % number for number in range(3)]
    assert here.counted() == (2, 0)
    assert here.desk.numbers == []


def test_rset_mail_and_rcpt_are_sent_together_where_that_is_offered(sender):
    seen = []
    here = sender({**PIPELINING, "RSET": lambda line: seen.append(here.hop.sessions[0]._buffer) or b"250 ok\r\n"})
    here.message()
    here.message()
    assert seen == [b"MAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@example.com>\r\n"]


@pytest.mark.parametrize(("answer", "heard"), [(b"550 5.1.1 who\r\n", "550"), (b"452 4.2.2 full\r\n", "452")])
def test_recipient_that_is_refused_on_a_kept_connection_is_refused_to_the_client(sender, answer, heard):
    here = sender(PIPELINING)
    here.message()
    here.hop.script["RCPT"] = answer
    _, connection, verdict = here.begin()
    assert verdict.args == (f"{heard} {answer.decode()[4:9]} ", "ann@example.com")
    assert here.verbs() == [["EHLO", "MAIL", "RCPT", "DATA", "RSET", "MAIL", "RCPT"]]
    connection.close()


def test_second_recipient_is_named_for_itself(sender, reactor_run):
    here = sender(PIPELINING)
    here.message()
    _, connection, verdict = here.begin()
    assert verdict is None
    bob = mail_path("bob@example.com")
    assert reactor_run(connection.rcpt(bob)) is None
    assert here.hop.sessions[0].lines[-2:] == ["RCPT TO:<ann@example.com>", "RCPT TO:<bob@example.com>"]
    connection.close()


def test_sender_that_is_refused_on_a_kept_connection_names_nobody(sender):
    here = sender(PIPELINING)
    here.message()
    here.hop.script |= {"MAIL": b"550 5.7.1 not you\r\n", "RCPT": b"503 5.5.1 sender first\r\n"}
    _, connection, verdict = here.begin()
    assert verdict.fact == "550 5.7.1 not you"
    connection.close()
    here.settle()
    assert here.verbs()[0][-1] == "QUIT"


def test_end_of_the_node_says_quit(sender, reactor_run):
    here = sender()
    here.message()
    assert len(here.kept) == 1
    reactor_run(lambda: here.desk.forwarder.close())
    assert here.verbs()[0][-1] == "QUIT"
    here.message()
    assert len(here.kept) == 0


def test_end_of_the_node_does_not_wait_for_a_hop_that_ignores_quit(sender, reactor_run):
    here = sender({"QUIT": None})
    here.message()
    reactor_run(lambda: here.desk.forwarder.close(), timeout=5)


def test_transaction_without_data_leaves_the_connection_usable(sender):
    here = sender()
    _, connection, _ = here.begin()
    connection.close()
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert here.verbs() == [["EHLO", "MAIL", "RCPT", "RSET", "MAIL", "RCPT", "DATA"]]


@pytest.mark.parametrize(
    "script",
    [
        {"MAIL": b"550 no\r\n"}, {"MAIL": b"450 no\r\n"}, {"RCPT": b"550 no\r\n"}, {"RCPT": b"450 no\r\n"}, {"DATA": b"550 no\r\n"},
        {"DATA": b"450 no\r\n"}, {"CONTENT": b"550 no\r\n"}, {"CONTENT": b"450 no\r\n"},
    ],
)  # fmt: skip
def test_connection_on_which_anything_was_refused_is_ended(sender, script):
    here = sender(script)
    here.message()
    here.settle()
    assert here.verbs()[0][-1] == "QUIT"
    assert len(here.kept) == 0


def test_connection_inside_data_is_cut(sender, reactor_run):
    here = sender({"CONTENT": None})
    transaction, connection, _ = here.begin()
    here.desk.fill(transaction, HEAD, b"x\r\n", here.folder)
    ended = here.hop.one_ended()
    here.desk.forwarder.deliver(here.desk.session, transaction, [connection]).send(None)
    here.settle()
    connection.close()
    reactor_run(ended)
    assert len(here.kept) == 0
    assert "QUIT" not in here.verbs()[0]


@pytest.mark.parametrize("script", [None, PIPELINING])
def test_connection_that_the_host_has_closed_is_replaced(sender, script):
    here = sender(script)
    here.message()
    here.hop.sessions[0].transport.loseConnection()
    here.settle()
    assert len(here.kept) == 0
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert len(here.hop.contents) == 2
    assert here.desk.numbers == []


def test_connection_that_was_closed_and_not_yet_noticed_is_replaced(sender):
    here = sender()
    here.message()
    ours = next(iter(here.kept._idle))
    ours.transport.stopReading()
    here.hop.sessions[0].transport.loseConnection()
    here.settle()
    assert len(here.kept) == 1
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert here.counted() == (0, 0)
    assert len(here.hop.sessions) == 2


LATE = {
    "closes at RSET": {"RSET": CLOSE},
    "says 421 at RSET": {"RSET": b"421 4.3.2 tired\r\n"},
    "refuses RSET": {"RSET": b"502 no\r\n"},
    "closes at MAIL": {"MAIL": [b"250 ok\r\n", CLOSE]},
    "says 421 at MAIL": {"MAIL": [b"250 ok\r\n", b"421 4.7.0 too many messages\r\n"]},
    "says 452 at MAIL": {"MAIL": [b"250 ok\r\n", b"452 4.5.3 too many messages\r\n"]},
}


@pytest.mark.parametrize("extensions", [{}, PIPELINING])
@pytest.mark.parametrize("script", LATE.values(), ids=LATE)
def test_host_that_gives_up_at_the_next_mail_is_reached_anew(sender, script, extensions):
    here = sender({**script, **extensions})
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert [len(session.content) > 0 for session in here.hop.sessions] == [True, True]
    assert here.desk.numbers == []
    assert here.counted() == (0, 1)


def test_fresh_connection_that_fails_too_is_the_answer(sender):
    here = sender({"MAIL": [b"250 ok\r\n", b"421 no\r\n"]})
    here.message()
    here.hop.script["MAIL"] = b"421 no\r\n"
    transaction = here.desk.transaction()
    connection = here.desk.connection(transaction, here.hosts)
    verdict = here.run(connection.open(ANN))
    assert verdict.fact == "421 no"
    assert len(here.hop.sessions) == 2
    connection.close()


def test_slow_answer_to_rset_is_waited_for(sender):
    here = sender({"RSET": None})
    here.message()
    reactor.callLater(0.1, lambda: here.hop.sessions[0].transport.write(DEFAULTS["RSET"]))
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert len(here.hop.sessions) == 1


def test_silence_at_rset_costs_a_bounded_time(sender, monkeypatch):
    monkeypatch.setattr("smtpf.smtp.forward.RSET_TIMEOUT", 0.1)
    here = sender({"RSET": None})
    here.message()
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert here.counted() == (0, 1)


@pytest.mark.parametrize("octets", [b"250 ok\r\n", b"421 4.4.2 closing\r\n", b"x"])
def test_unsolicited_octets_end_a_kept_connection(sender, octets):
    here = sender()
    here.message()
    here.hop.sessions[0].transport.write(octets)
    here.settle()
    assert len(here.kept) == 0
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert len(here.hop.sessions) == 2


def test_octets_that_wait_unread_are_not_taken_for_a_reply(sender):
    here = sender()
    here.message()
    next(iter(here.kept._idle)).transport.stopReading()
    here.hop.sessions[0].transport.write(b"250 injected\r\n")
    here.settle()
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert len(here.hop.sessions) == 2
    assert "RSET" not in here.verbs()[0]


def test_reply_injected_behind_a_pipelined_one_ends_the_connection(sender):
    here = sender({**PIPELINING, "RSET": b"250 ok\r\n" * 3 + b"550 extra\r\n"})
    here.message()
    assert here.message() is replies.MESSAGE_ACCEPTED
    assert len(here.hop.sessions) == 2
    assert here.counted() == (0, 1)


def test_messages_of_one_connection_are_bounded(sender):
    here = sender(settings={FORWARD_REUSE_MESSAGES: "2"})
    for _ in range(5):
        here.message()
    here.settle()
    assert [verbs.count("MAIL") for verbs in here.verbs()] == [2, 2, 1]
    assert [verbs[-1] for verbs in here.verbs()] == ["QUIT", "QUIT", "DATA"]


@pytest.mark.parametrize("option", [FORWARD_REUSE_LIMIT, FORWARD_REUSE_IDLE, FORWARD_REUSE_MESSAGES, FORWARD_REUSE_TOTAL])
def test_zero_switches_it_off(sender, option):
    here = sender(settings={option: "0"})
    here.message()
    here.message()
    here.settle()
    assert here.verbs() == [["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]] * 2


@pytest.mark.parametrize("option", [FORWARD_REUSE_LIMIT, FORWARD_REUSE_TOTAL])
def test_idle_connections_are_bounded(sender, option):
    here = sender(settings={option: "2"})
    open_ones = [here.begin()[1] for _ in range(4)]
    for connection in open_ones:
        connection.close()
    here.settle()
    assert len(here.kept) == 2
    assert sum(verbs[-1] == "QUIT" for verbs in here.verbs()) == 2


def test_another_name_in_ehlo_gets_another_connection(sender):
    here = sender()
    here.message()
    here.desk.session.interface_name = "other.test"
    here.message()
    assert [session.lines[0] for session in here.hop.sessions] == ["EHLO mx.test", "EHLO other.test"]


def test_connection_that_was_to_be_encrypted_and_is_not_is_ended(sender):
    class NoTls:
        def client(self, name, verify):
            raise ValueError("no")

    here = sender({"EHLO": b"250-hop.example\r\n250 STARTTLS\r\n"}, tls=NoTls())
    here.message()
    here.settle()
    assert len(here.kept) == 0


class _Hop:
    """A connection that is not one."""

    broken = None
    at_rest = True
    transactions = 1

    def __init__(self):
        from twisted.internet.defer import Deferred

        self.lost = Deferred()
        self.quits = 0

    def is_silent(self):
        return True

    def stay_idle(self): ...

    def quit(self):
        self.quits += 1


def reached_over(hop, name="mx.test", port=25):
    host = hop_host(port)
    return Reached(host, hop, None, place_of(host, name, "may", False))


def test_idle_connection_is_ended_when_its_time_has_come():
    clock = Clock()
    kept, settings = KeptConnections(clock), Settings.of({FORWARD_REUSE_IDLE: "5"})
    first, second = _Hop(), _Hop()
    assert kept.keep(reached_over(first), settings)
    clock.advance(3)
    assert kept.keep(reached_over(second), settings)
    clock.advance(2)
    assert (first.quits, second.quits) == (1, 0)
    clock.advance(3)
    assert (first.quits, second.quits) == (1, 1)
    assert clock.getDelayedCalls() == []


def test_the_connection_used_last_is_used_next():
    kept, settings = KeptConnections(Clock()), Settings.of()
    first, second = _Hop(), _Hop()
    kept.keep(reached_over(first), settings)
    kept.keep(reached_over(second), settings)
    place = reached_over(first).place
    assert kept.take(place).protocol is second
    assert kept.take(place).protocol is first
    assert kept.take(place) is None


@pytest.mark.parametrize("other", [{"name": "b.test"}, {"port": 26}])
def test_only_the_same_place_is_served(other):
    kept = KeptConnections(Clock())
    kept.keep(reached_over(_Hop()), Settings.of())
    assert kept.take(reached_over(_Hop(), **other).place) is None


def test_tls_policies_do_not_share():
    kept = KeptConnections(Clock())
    kept.keep(reached_over(_Hop()), Settings.of())
    host = hop_host(25)
    assert kept.take(place_of(host, "mx.test", "verify", False)) is None
    assert kept.take(place_of(host, "mx.test", "may", True)) is None
