"""Call-ahead against scripted hosts, with a real cache."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults

from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.store import cache_from
from smtpf.maps.routes import Route
from smtpf.settings.store import Settings
from smtpf.smtp.call_ahead import CALL_AHEAD_AS_SENDER, CALL_AHEAD_COMMAND_TIMEOUT, CallAhead
from smtpf.smtp.grammar import Path
from smtpf.smtp.probe import false_address, false_local, luhn_digit
from test.support.scripted_hop import CLOSE, ScriptedHop
from test.support.sending import Desk, hop_host, mail_path

SENDER = mail_path("joe@example.org")
ANN = mail_path("Ann@Example.com")


@pytest.mark.parametrize(
    ("address", "false"),
    [
        ("john@x.org", "nhoj6"),
        ("joe.doe@x.org", "eod.eoj2"),
        ("ann+x@x.org", "nna3"),
        ("john.doe@x.org", "eod.nhoj7"),
        ("fred@x.org", "derf5"),
        ("John.Smith@x.org", "htims.nhoj6"),
        ("info@x.org", "ofni2"),
        ("a1b2@x.org", "2b1a2"),
        ("sales@x.org", "selas8"),
    ],
)
def test_false_address(address, false):
    assert false_local(mail_path(address)) == false
    assert false_address(mail_path(address)) == f"{false}@x.org"


def test_false_address_of_a_long_local_part_stays_within_the_limit():
    assert len(false_local(Path("", "a" * 80 + "@x.org", "a" * 80, "a" * 80, "", "x.org"))) == 64


@pytest.mark.parametrize(("text", "digit"), [("4895131", 3), ("a", 9)])
def test_check_digit(text, digit):
    assert luhn_digit(text) == digit


class Calls:
    def __init__(self, reactor_run, tmp_path, settings=None):
        self.run = reactor_run
        self.desk = Desk(reactor, settings)
        self.cache = cache_from(Settings.of({CACHE_PATH: str(tmp_path / "c.sq3")}), self.desk.journal, None)
        self.cache.start()
        self.desk.entries.clear()
        self.call_ahead = CallAhead(self.desk.forwarder, self.cache)
        self.hops: list[ScriptedHop] = []

    def route(self, *scripts):
        hosts = []
        for script in scripts:
            hop = ScriptedHop(script)
            self.hops.append(hop)
            hosts.append(hop_host(hop.listen(reactor)))
        self.hosts = hosts
        return Route("route:example.com", (hop_host(1),), tuple(hosts))

    def verify(self, route, path=ANN):
        return self.run(self.call_ahead.verify(self.desk.session, SENDER, path, route))

    def cached(self, key):
        record = self.cache.get(key)
        return record.value if record is not None else None

    @property
    def dumb(self):
        return self.cached(f"dumb:{self.hosts[-1].text},example.com")

    @property
    def reports(self):
        return [entry.body.partition(" rc=")[2] for entry in self.desk.entries if entry.message.number == 558]


@pytest.fixture
def calls(reactor_run, tmp_path):
    made = []

    def make(settings=None):
        made.append(Calls(reactor_run, tmp_path, settings))
        return made[-1]

    yield make
    for each in made:
        for hop in each.hops:
            reactor_run(hop.stop())
        each.cache.stop()


def only_ann(line):
    return b"250 2.1.5 ok\r\n" if "ann" in line.lower() else b"550 5.1.1 unknown\r\n"


TABLE = [
    ({"RCPT": only_ann}, True, "2", "5", '2 reply=""'),
    ({}, True, "2", "2", '2 reply="dumb mail host found"'),
    ({"RCPT": b"550 5.1.1 no\r\n"}, False, "5", None, '5 reply="550 5.1.1 no"'),
    ({"RCPT": b"451 later\r\n"}, True, None, None, '4 reply="451 later"'),
    ({"RCPT": b"552 full\r\n"}, True, None, None, '4 reply="552 full"'),
    ({"MAIL": b"550 no null\r\n"}, True, None, None, '4 reply="550 no null"'),
    ({"GREETING": b"554 no\r\n"}, True, None, None, '4 reply="connection error"'),
    ({"RCPT": [b"250 ok\r\n", b"451 hm\r\n"]}, True, None, None, '4 reply="dumb mail host inconclusive"'),
    ({"RCPT": [b"250 ok\r\n", CLOSE]}, True, "2", "5", '2 reply=""'),
    ({"RCPT": CLOSE}, True, None, None, '4 reply="connection closed by host"'),
]


@pytest.mark.parametrize(("script", "known", "rcpt", "dumb", "report"), TABLE)
def test_outcome(calls, script, known, rcpt, dumb, report):
    here = calls()
    assert here.verify(here.route(script)) is known
    assert here.cached("rcpt:ann@example.com") == rcpt
    assert here.dumb == dumb
    assert here.reports == [report]


def test_conversation(calls):
    here = calls()
    here.verify(here.route({"RCPT": only_ann}))
    assert here.hops[0].lines[:4] == ["EHLO mx.test", "MAIL FROM:<>", "RCPT TO:<Ann@Example.com>", "RCPT TO:<nna3@Example.com>"]


def test_real_sender(calls):
    here = calls({CALL_AHEAD_AS_SENDER: "+"})
    here.verify(here.route({}))
    assert here.hops[0].lines[1] == "MAIL FROM:<joe@example.org>"


def test_known_result_needs_no_connection_and_no_report(calls):
    here = calls()
    route = here.route({"RCPT": b"550 no\r\n"})
    assert here.verify(route) is False
    assert here.verify(route) is False
    assert len(here.hops[0].sessions) == 1
    assert len(here.reports) == 1


def test_host_that_takes_everything_is_not_asked_again(calls):
    here = calls()
    route = here.route({})
    here.verify(route)
    assert here.verify(route, mail_path("bob@example.com")) is True
    assert len(here.hops[0].sessions) == 1
    assert here.reports[1] == '2 reply="dumb mail host, skipping"'


def test_false_address_is_asked_once_per_host(calls):
    here = calls()
    route = here.route({"RCPT": lambda line: b"250 ok\r\n" if "nna3" not in line else b"550 no\r\n"})
    here.verify(route)
    here.verify(route, mail_path("bob@example.com"))
    assert sum("nna3" in line or "bob6" in line for line in here.hops[0].lines) == 1
    assert here.reports[1] == '2 reply="250 ok"'


def test_second_host_when_the_first_is_down(calls):
    here = calls()
    assert here.verify(here.route({"GREETING": CLOSE}, {"RCPT": b"550 no\r\n"})) is False
    assert here.reports == ['4 reply="connection error"', '5 reply="550 no"']


def test_plus_detail_is_left_out_on_the_second_try(calls):
    here = calls()
    route = here.route({"RCPT": lambda line: b"250 ok\r\n" if "<ann@" in line else b"550 no\r\n"})
    assert here.verify(route, mail_path("ann+x@example.com")) is True
    assert [line for line in here.hops[0].lines if "RCPT" in line][:2] == ["RCPT TO:<ann+x@example.com>", "RCPT TO:<ann@example.com>"]


def test_lost_connection_is_logged(calls):
    here = calls()
    here.verify(here.route({"RCPT": CLOSE}))
    assert here.desk.numbers == [484, 558]


def test_silent_host_is_given_up(calls):
    here = calls({CALL_AHEAD_COMMAND_TIMEOUT: "1"})
    assert here.verify(here.route({"RCPT": None})) is True
    assert here.reports == ['4 reply="Connection timed out"']


def test_same_list_as_forward_is_not_asked(calls):
    here = calls()
    route = here.route({"RCPT": b"550 no\r\n"})
    assert here.verify(Route(route.key, route.rcpt, route.rcpt)) is True
    assert here.hops[0].sessions == []


def test_one_call_at_a_time_for_a_recipient(calls):
    here = calls()
    route = here.route({"RCPT": b"550 no\r\n"})
    verify = here.call_ahead.verify
    work = [ensureDeferred(verify(here.desk.session, SENDER, ANN, route)) for _ in range(5)]
    assert here.run(gatherResults(work)) == [False] * 5
    assert len(here.hops[0].sessions) == 1
