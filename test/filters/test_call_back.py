"""Call-back in whole sessions, against scripted mail exchanges."""

from __future__ import annotations

import pytest

from smtpf.filters.call_back import (
    ACCEPTED,
    CALL_BACK,
    CALL_BACK_NULL_SENDER,
    CALL_BACK_PASS_GREY,
    CALL_BACK_STRICT_GREETING,
    CALL_BACK_URI_GREETING,
    MADE,
    REJECTED,
    SKIP,
    TEMPFAILED,
)
from smtpf.filters.grey import GREY_KEY
from smtpf.filters.uri_lists import URI_BL
from test.support.scripted_hop import CLOSE
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\n"
ZONE = """
kestrel.net MX 10 mx.kestrel.net
mx.kestrel.net A 81.2.69.25
inside.net MX 10 mx.inside.net
mx.inside.net A 10.0.0.25
nothing.net MX 0 .
broken.net MX SERVFAIL
silent.net MX TIMEOUT
two.net MX 20 second.two.net
two.net MX 10 first.two.net
first.two.net A 81.2.69.31
second.two.net A 81.2.69.32
myself.net MX 10 mx.myself.net
mx.myself.net A 81.2.69.99
"""


def only_ada(line):
    return b"250 2.1.5 ok\r\n" if line.lower().startswith(("rcpt to:<ada@", "rcpt to:<ada+")) else b"550 5.1.1 unknown\r\n"


class Here:
    def __init__(self, options=None, access="", **script):
        self.talk = Talk({CALL_BACK: "+", **(options or {})}, access=access, route=ROUTE, zone=ZONE)
        self.hop = self.talk.hop("192.0.2.1")
        self.mx = self.talk.hop("81.2.69.25", **script)

    def attempt(self, sender="ada@kestrel.net", address="81.2.69.10"):
        client = self.talk.connect(address)
        client.say("EHLO x.kestrel.net")
        client.say(f"MAIL FROM:<{sender}>")
        client.say("RCPT TO:<bob@hill.org>")
        answer = codes(client.message())
        client.say("QUIT")
        return answer

    def record(self, subject):
        found = self.talk.cache.get(f"sav:{subject}")
        return found.value if found is not None else None

    @property
    def reports(self):
        return [line.partition(" rc=")[2] for line in self.talk.logged(573)]


TABLE = [
    ({"RCPT": only_ada}, "250 #554", "2", "5", '0 reply="250 2.1.5 ok"'),
    ({}, "250 #554", None, "2", '0 reply="dumb mail host found"'),
    ({"RCPT": b"550 5.1.1 no\r\n"}, "550 #572", "5", None, '5 reply="550 5.1.1 no"'),
    ({"RCPT": [b"451 later\r\n", b"550 no\r\n"]}, "451 #572", "4", "5", '4 reply="451 later"'),
    ({"RCPT": [b"250 ok\r\n", b"451 hm\r\n"]}, "451 #572", "4", None, '4 reply="dumb mail host inconclusive"'),
    ({"RCPT": [b"250 ok\r\n", CLOSE]}, "250 #554", "2", "5", '0 reply="250 ok"'),
    ({"RCPT": CLOSE}, "250 #554", None, None, '0 reply="connection closed by host"'),
    ({"GREETING": b"554 go away\r\n"}, "550 #572", None, None, '5 reply="554 go away"'),
    ({"GREETING": b"421 busy\r\n"}, "451 #572", None, None, '4 reply="421 busy"'),
    ({"HELO": b"550 no\r\n"}, "550 #572", None, None, '5 reply="550 no"'),
    ({"MAIL": b"451 later\r\n"}, "451 #572", None, None, '4 reply="451 later"'),
]


@pytest.mark.parametrize(("script", "answer", "of_sender", "of_domain", "report"), TABLE)
def test_outcome(script, answer, of_sender, of_domain, report):
    here = Here(**script)
    assert here.attempt() == [answer]
    assert (here.record("ada@kestrel.net"), here.record("kestrel.net")) == (of_sender, of_domain)
    assert here.reports == [report]
    assert here.talk.counted(MADE) == 1


def test_dialogue():
    here = Here(RCPT=only_ada)
    here.attempt("Ada+x@kestrel.net")
    assert here.mx.lines == [
        "HELO mx.test", "MAIL FROM:<>", "RCPT TO:<Ada+x@kestrel.net>", "RCPT TO:<ada1@kestrel.net>", "QUIT",
    ]  # fmt: skip


def test_with_a_sender_of_our_own():
    here = Here({CALL_BACK_NULL_SENDER: "-"}, RCPT=only_ada)
    here.attempt()
    assert here.mx.lines[1] == "MAIL FROM:<postmaster@mx.test>"


@pytest.mark.parametrize(
    ("sender", "answer", "report", "number"),
    [
        ("a@nowhere.net", "550 #572", "553 5.4.4 nowhere.net does not exist #489", None),
        ("a@nothing.net", "550 #572", "550 5.4.4 no acceptable MX for nothing.net #493", None),
        ("a@inside.net", "550 #572", "550 5.4.4 no acceptable MX for inside.net #493", None),
        ("a@broken.net", "451 #572", "451 4.4.3 broken.net MX lookup error #491", 490),
        ("a@two.net", "451 #572", "451 4.4.4 no answer from two.net MX #488", None),
    ],
)
def test_nobody_to_ask(sender, answer, report, number):
    here = Here()
    assert here.attempt(sender) == [answer]
    assert here.reports[0].startswith(f'{answer[0]} reply="{report} ' if answer[0] == "5" else f'4 reply="{report} ')
    if number:
        assert here.talk.logged(number) == ["MX broken.net error SERVER"]
    assert here.talk.counted(MADE) == 0


def test_dns_that_is_silent():
    here = Here()
    client = here.talk.greeted("81.2.69.10")
    client.say("MAIL FROM:<a@silent.net>")
    client.say("RCPT TO:<bob@hill.org>")
    client.say("DATA")
    here.talk.net.pass_time(60)
    assert codes(client.take())[-1] == "451 #572"
    assert here.talk.logged(497) == ["silent.net Connection timed out"]


def test_second_exchange_is_asked_when_the_first_is_down():
    here = Here()
    second = here.talk.hop("81.2.69.32", RCPT=only_ada)
    assert here.attempt("ada@two.net") == ["250 #554"]
    assert second.verbs[0] == "HELO"


def test_secondary_exchange_as_client_makes_us_ask_the_first_one_only():
    here = Here()
    second = here.talk.hop("81.2.69.32", RCPT=only_ada)
    assert here.attempt("ada@two.net", "81.2.69.32") == ["451 #572"]
    assert second.lines == []


def test_only_exchange_as_client_is_asked_itself():
    here = Here()
    own = here.talk.hop("81.2.69.99", RCPT=only_ada)
    assert here.attempt("ada@myself.net", "81.2.69.99") == ["250 #554"]
    assert own.verbs[0] == "HELO"


@pytest.mark.parametrize(
    ("value", "answer"), [("0", "250 #554"), ("2", "250 #554"), ("8", "250 #554"), ("4", "451 #572"), ("5", "550 #572")]
)
def test_remembered_sender(value, answer):
    here = Here()
    here.talk.cache.put("sav:ada@kestrel.net", value)
    assert here.attempt("Ada@Kestrel.NET") == [answer]
    assert here.mx.lines == []
    assert here.reports[0].endswith('reply="cached"')


def test_remembered_domain_that_takes_anything():
    here = Here()
    here.talk.cache.put("sav:kestrel.net", "2")
    assert here.attempt() == ["250 #554"]
    assert here.talk.counted(SKIP) == 1
    assert here.mx.lines == []


def test_domain_known_to_be_selective_is_not_asked_about_nobody():
    here = Here(RCPT=only_ada)
    here.talk.cache.put("sav:kestrel.net", "5")
    here.attempt()
    assert here.mx.verbs.count("RCPT") == 1


def test_one_call_in_a_minute():
    here = Here(RCPT=only_ada)
    here.attempt()
    assert here.attempt("eve@kestrel.net") == ["250 #554"]
    assert here.mx.verbs.count("HELO") == 1
    here.talk.net.pass_time(61)
    assert here.attempt("eve@kestrel.net") == ["550 #572"]
    assert (here.talk.counted(ACCEPTED), here.talk.counted(REJECTED), here.talk.counted(TEMPFAILED)) == (1, 1, 0)


def test_uncached_refusal_holds_for_its_minute():
    here = Here(MAIL=b"550 no\r\n")
    assert here.attempt() == ["550 #572"]
    assert here.attempt() == ["550 #572"]
    assert here.mx.verbs.count("HELO") == 1


@pytest.mark.parametrize(("banner", "answer"), [
    (b"220 mx.kestrel.net ESMTP\r\n", "250 #554"), (b"220 [81.2.69.25] hi\r\n", "250 #554"),
    (b"220 localhost ESMTP\r\n", "550 #572"), (b"220 ESMTP\r\n", "550 #572"),
])  # fmt: skip
def test_greeting(banner, answer):
    here = Here({CALL_BACK_STRICT_GREETING: "+"}, GREETING=banner, RCPT=only_ada)
    assert here.attempt() == [answer]


@pytest.mark.parametrize(("banner", "answer", "logged"), [
    (b"220 mx.listed.net ESMTP\r\n", "550 #572", ["black listed mx.listed.net by bl.kestrel.net #762"]),
    (b"220 mx.kestrel.net ESMTP\r\n", "250 #554", []), (b"220 hello there\r\n", "250 #554", []),
])  # fmt: skip
def test_name_in_the_greeting_is_looked_up_in_the_lists(banner, answer, logged):
    here = Here({CALL_BACK_URI_GREETING: "+", URI_BL: "bl.kestrel.net"}, GREETING=banner, RCPT=only_ada)
    here.talk.resolver.add("listed.net.bl.kestrel.net A 127.0.0.2")
    assert here.attempt() == [answer]
    assert here.talk.logged(830) == logged


@pytest.mark.parametrize("pass_grey", ["+", "-"])
def test_verified_senders_may_skip_grey_listing(pass_grey):
    here = Here({GREY_KEY: "ip,mail,rcpt", CALL_BACK_PASS_GREY: pass_grey}, RCPT=only_ada)
    expected = ["250 #554"] if pass_grey == "+" else ["451 #552"]
    assert here.attempt() == expected
    assert here.reports[0].startswith("8" if pass_grey == "+" else "0")


@pytest.mark.parametrize(
    ("sender", "address", "text"),
    [
        ("", "81.2.69.10", "null sender, white, auth, or relay, skipping"),
        ("postmaster@kestrel.net", "81.2.69.10", "postmaster, skipping"),
        ("ada@kestrel.net", "127.0.0.1", "null sender, white, auth, or relay, skipping"),
    ],
)
def test_not_asked(sender, address, text):
    here = Here()
    assert here.attempt(sender, address) == ["250 #554"]
    assert here.reports == [f'0 reply="{text}"']
    assert here.mx.lines == []


def test_off_by_default():
    here = Here({CALL_BACK: "-"})
    here.attempt()
    assert here.talk.logged(573) == []
