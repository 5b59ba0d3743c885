"""The header tests by the published examples."""

from __future__ import annotations

import pytest

from smtpf.filters.header_date import is_date
from smtpf.filters.header_tests import COUNT_MIN, MIN_HEADERS, MISSING_EOH, SEVEN_BIT_HEADERS, STRICT_DATE, HeaderTests
from test.support.sending import Desk
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\n"
FULL = "From: a@x.org\r\nDate: Sat, 04 Jul 2026 09:05:03 +0200\r\nMessage-ID: <m@x.org>\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "Sat, 04 Jul 2026 09:05:03 +0200",
        "4 Jul 26 09:05",
        "4 Jul 2026",
        "sat, 4 JUL 2026 09:05:03 GMT",
        "04 Jul 2026 09:05:03 +0200 (CEST)",
        "Sat, 04 Jul (a (nested) comment) 2026 09:05:03 nowhere",
        "2026-07-04T09:05:03Z",
        "2026-07-04T09:05:03+02:00",
        "Sat Jul  4 09:05:03 2026",
        "Sat Jul  4 09:05:03 CEST 2026",
        "29 Feb 2028 00:00:00 +0000",
        "31 Dec 2016 23:59:60 +0000",
        "1 Jan 70 12:00",
        "1 Jan 1970 00:00:00 +0000",
    ],
)
def test_dates(text):
    assert is_date(text)


@pytest.mark.parametrize(
    "text",
    [
        "yesterday", "", "Fri, 31 Feb 2026 00:00:00 +0000", "29 Feb 2026", "4 Jul", "4 Jly 2026", "0 Jul 2026", "4 Jul 2026 25:00",
        "4 Jul 1969", "4 Jul 2026 09:61", "4 Jul 2026 09:05:03 +0299", "1 Jan 1970 00:00:00 +0100", "Xyz, 4 Jul 2026", "2026-13-04",
        "4 Jul 2026 09:05 " + "x" * 200, "(" * 150,
    ],
)  # fmt: skip
def test_no_dates(text):
    assert not is_date(text)


def answer(option, head, address="81.2.69.10", access=""):
    talk = Talk({option: "+"}, route=ROUTE, access=access)
    talk.hop("192.0.2.1")
    client = talk.greeted(address)
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    answers = client.message(head if head == "" else f"{head}\r\ntext\r\n")
    return answers[-1] if answers[-1][:3] != "250" else codes(answers)[0]


@pytest.mark.parametrize(
    ("option", "head", "reply"),
    [
        (STRICT_DATE, "Date: yesterday\r\n", "invalid RFC 2822 date-time in Date: header #457"),
        (STRICT_DATE, "Date: 4 Jul 26 09:05\r\nDate: yesterday\r\n", None),
        (STRICT_DATE, "Received: from a by b; soon\r\n", "date-time in Received: header #459"),
        (STRICT_DATE, "Received: from a by b\r\n", "date-time in Received: header #459"),
        (STRICT_DATE, "Received: from a by b;\r\n\tSat, 04 Jul 2026 09:05:03 +0200\r\n", None),
        (STRICT_DATE, "Resent-Date: soon\r\nDate: yesterday\r\n", "date-time in Resent-Date: header #460"),
        (SEVEN_BIT_HEADERS, "Subject: caf\u00e9\r\n", "headers must be US-ASCII, found 0xC3; RFC 2822 section 2.2 #456"),
        (SEVEN_BIT_HEADERS, "Subject: a\tb\f\b\r\n", None),
        (SEVEN_BIT_HEADERS, "Subject: a\x01\r\n", "found 0x01"),
        (MIN_HEADERS, FULL, None),
        (MIN_HEADERS, "From: a@x.org\r\nMessage-ID: <m@x.org>\r\n", "missing RFC 2822 required headers #462"),
        (MIN_HEADERS, FULL.replace("<m@x.org>", "m@x.org"), "invalid RFC 2822 Message-ID: header #458"),
        (MIN_HEADERS, FULL.replace("a@x.org", "a@x.org,\r\n b@x.org"), "#462"),
        (MIN_HEADERS, FULL.replace("a@x.org", "a@x.org, b@x.org") + "Sender: a@x.org\r\n", None),
        (MIN_HEADERS, FULL.replace("a@x.org", '"a, b" <a@x.org>'), None),
    ],
)
def test_headers(option, head, reply):
    given = answer(option, head)
    assert given == "250 #554" if reply is None else f"554 5.6.0 {reply}" in given or reply in given


def test_announced_utf8_headers_pass():
    desk = Desk(None, {SEVEN_BIT_HEADERS: "+"})
    transaction = desk.transaction(SMTPUTF8="")
    transaction.original_headers = ("Subject: caf\u00e9\r\n".encode(),)
    assert HeaderTests().headers(desk.session, transaction) is None
    transaction.parameters.clear()
    assert HeaderTests().headers(desk.session, transaction) is not None


@pytest.mark.parametrize(("address", "access"), [("127.0.0.1", ""), ("81.2.69.10", "connect:81.2.69.10\tOK\n")])
def test_known_clients_are_spared(address, access):
    assert answer(MIN_HEADERS, "Subject: x\r\n", address, access=access) == "250 #554"


def test_end_of_header_spares_nobody():
    talk = Talk({MISSING_EOH: "+"}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted("127.0.0.1")
    for text, wanted in (
        ("Subject: x\r\n", ["550 #927"]),
        ("Subject: x\r\n\r\n", ["250 #554"]),
        ("Subject: x\r\nno field\r\n", ["250 #554"]),
    ):
        client.say("MAIL FROM:<ada@kestrel.net>")
        client.say("RCPT TO:<bob@hill.org>")
        assert codes(client.message(text)) == wanted


def test_refusals_are_counted():
    talk = Talk({MIN_HEADERS: "+"}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted("81.2.69.10")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    assert codes(client.message()) == ["554 #462"]
    assert talk.counted(COUNT_MIN) == 1
