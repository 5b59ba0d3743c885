"""Time-limited recipients, free-mail senders, and senders that white-list themselves."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from smtpf.filters import click, mail_strict, time_limit
from smtpf.filters.click import challenge, time_code, time_of
from smtpf.filters.mx import MAIL_REQUIRE_MX
from smtpf.filters.time_limit import limited
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import BEGINNING, Talk, codes

ROUTE = "route:hill.org FORWARD: 45.76.9.1\nroute:mx.test FORWARD: 45.76.9.1\n"
ZONE = "7.2.0.192.in-addr.arpa PTR out3.kestrel.net\nout3.kestrel.net A 192.0.2.7\n"
ADA = "MAIL FROM:<ada@kestrel.net>"


def talk(options: dict | None = None, access: str = "", zone: str = ZONE, route: str = ROUTE) -> Talk:
    made = Talk(options, access=access, route=route, zone=zone)
    made.hop("45.76.9.1")
    return made


# Time limits


@pytest.mark.parametrize(
    ("local", "plain", "until"),
    [
        ("john.smith$20270101", "john.smith", datetime(2027, 1, 1)),
        ("$list20270101john", "john", datetime(2027, 1, 1)),
        ("john$tok202612312359.smith", "john.smith", datetime(2026, 12, 31, 23, 59)),
        ("john$2026", "john", datetime(2026, 1, 1)),
        ("john$202606011200", "john", datetime(2026, 6, 1, 12)),
    ],
)
def test_date_field_is_found(local: str, plain: str, until: datetime) -> None:
    found = limited(local, "$")
    assert found is not None
    assert (found.local, found.until) == (plain, until.timestamp())


NO_DATES = "john$20270 john$abc john+20270101 john$20271301 john$20270230 john$2027010101010101 john$"


@pytest.mark.parametrize("local", NO_DATES.split())
def test_anything_else_is_no_date_field(local: str) -> None:
    assert limited(local, "$") is None


DOLLAR = {time_limit.TIME_LIMIT_DELIMITERS: "$%"}


def test_valid_address_is_forwarded_without_its_field_and_routed_by_it() -> None:
    made = talk(DOLLAR, route="route:bob@hill.org FORWARD: 45.76.9.1\n")
    hop = made.hop("45.76.9.1")
    client = made.greeted()
    client.say(ADA)
    assert client.say("RCPT TO:<bob$shop20990101@hill.org>")[0].startswith("250 2.1.5 recipient <bob@hill.org> accepted #297")
    assert "RCPT TO:<bob@hill.org>" in hop.lines


def test_expired_address_is_refused_for_everybody() -> None:
    made = talk(DOLLAR, "connect:192.0.2.7 OK\n")
    client = made.greeted()
    client.say(ADA)
    assert client.say("RCPT TO:<bob$2001@hill.org>")[0].startswith("550 5.7.1 recipient <bob$2001@hill.org> black listed #886")
    assert made.counted(time_limit.TIME_LIMITED) == 1
    assert "recipient <bob$2001@hill.org>" in made.logged(718)[0]


def test_without_delimiters_addresses_stay_as_they_are() -> None:
    client = talk().greeted()
    client.say(ADA)
    assert client.say("RCPT TO:<bob$2001@hill.org>")[0].startswith("250 2.1.5 recipient <bob$2001@hill.org>")


# Free mail


@pytest.mark.parametrize(
    ("sender", "name", "answer"),
    [
        ("x@gmail.com", "mail-1.google.com", "250 #297"),
        ("x@gmail.com", "x.google.evil.net", "550 #921"),
        ("x@gmail.com", "out3.kestrel.net", "550 #921"),
        ("x@hotmail.co.uk", "bay.live.com", "250 #297"),
        ("x@outlook.com", "p1.outbound.outlook.com", "250 #297"),
        ("x@some.groups.yahoo.com", "n1.yahoo.com", "250 #297"),
        ("x@ymail.com", "n1.google.com", "550 #921"),
        ("ada@kestrel.net", "out3.kestrel.net", "250 #297"),
    ],
)
def test_free_mail_comes_from_its_provider(sender: str, name: str, answer: str) -> None:
    made = talk({mail_strict.MAIL_STRICT: "+"}, zone=f"7.2.0.192.in-addr.arpa PTR {name}\n{name} A 192.0.2.7\n")
    client = made.greeted()
    client.say(f"MAIL FROM:<{sender}>")
    assert codes(client.say("RCPT TO:<bob@hill.org>")) == [answer]


def test_unconfirmed_name_proves_nothing() -> None:
    made = talk({mail_strict.MAIL_STRICT: "+"}, zone="7.2.0.192.in-addr.arpa PTR n1.google.com\nn1.google.com A 192.0.2.8\n")
    client = made.greeted()
    client.say("MAIL FROM:<x@gmail.com>")
    refused = client.say("RCPT TO:<bob@hill.org>")[0]
    assert refused.startswith("550 5.7.0 client n1.google.com [192.0.2.7] sender <x@gmail.com> must be sent from gmail.com #921")


# Clicks


def test_challenge_is_the_published_vector() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()
    assert time_code(moment) == "223567"
    made = challenge("click:example.com,fred@example.com", "223567", "open sesame")
    assert made == "CLICK-223567a146337023541038e55b98237dddf9e0"
    assert time_of("223567", moment + 5) == moment
    assert time_of("223567", moment - 5) == datetime(1964, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("code", ["zzzzzz", "22356", "22356?", ""])
def test_impossible_time_codes(code: str) -> None:
    assert time_of(code, BEGINNING) is None


CLICK = {click.CLICK_URL: "mailto", click.CLICK_SECRET: "shells", SMTP_DELAY_CHECKS: "+"}
OFFER = re.compile(r"White list by sending mail to <(CLICK-\w{38})@mx\.test>$")


def refused(made: Talk, sender: str = "ada@kestrel.net") -> tuple[list[str], str]:
    """The refusal of a session whose SPF fails, and the challenge in it."""
    client = made.greeted()
    client.say(f"MAIL FROM:<{sender}>")
    answer = client.say("RCPT TO:<bob@hill.org>")
    offer = OFFER.search(answer[-1])
    return answer, offer[1] if offer else ""


@pytest.fixture
def options() -> dict:
    return {**CLICK, MAIL_REQUIRE_MX: "+"}


def test_refused_sender_lets_himself_in(options: dict) -> None:
    made = talk(options)
    answer, offered = refused(made)
    assert answer[0].startswith("553 5.1.8") and offered
    client = made.greeted()
    client.say(ADA)
    assert codes(client.say(f"RCPT TO:<{offered}@mx.test>")) == ["250 #290"]
    assert codes(client.message()) == ["250 #554"]
    assert made.counted(click.CLICK_PASS) == 1
    client.say(ADA)
    assert made.logged(242) == ["host out3.kestrel.net [192.0.2.7] sender <ada@kestrel.net> white listed"]
    assert codes(client.say("RCPT TO:<bob@hill.org>")) == ["250 #297"]


def test_challenge_is_for_one_sender_and_for_a_time(options: dict) -> None:
    made = talk(options)
    _, offered = refused(made)
    client = made.greeted()
    client.say("MAIL FROM:<eve@kestrel.net>")
    assert codes([client.say(f"RCPT TO:<{offered}@mx.test>")[0].partition(" White")[0]]) == ["550 #245"]
    made.net.pass_time(90002)
    client = made.greeted()
    client.say(ADA)
    assert codes([client.say(f"RCPT TO:<{offered}@mx.test>")[0].partition(" White")[0]]) == ["550 #244"]
    assert made.counted(click.CLICK_FAIL) == made.counted(click.CLICK_EXPIRED) == 1


def test_url_takes_the_challenge_and_the_pair(options: dict) -> None:
    made = talk({**options, click.CLICK_URL: "https://click.hill.org/in"})
    answer, _ = refused(made)
    found = re.search(r" White list via https://click\.hill\.org/in\?h=(\w{38})&c=click%3Akestrel\.net%2Cada%40kestrel\.net$", answer[-1])
    assert found is not None
    assert challenge("click:kestrel.net,ada@kestrel.net", found[1][:6], "shells") == f"CLICK-{found[1]}"


def test_sender_keeps_the_case_of_his_address(options: dict) -> None:
    answer, _ = refused(talk({**options, click.CLICK_URL: "https://click.hill.org/in"}), "Ada@Kestrel.net")
    assert answer[-1].endswith("&c=click%3Akestrel.net%2CAda%40Kestrel.net")


@pytest.mark.parametrize("command", ["BOGUS", "RCPT", "VRFY bob", "DATA"])
def test_protocol_errors_offer_nothing(options: dict, command: str) -> None:
    made = talk({**options, MAIL_REQUIRE_MX: "-"})
    client = made.greeted()
    client.say(ADA)
    assert client.say(command)[0].startswith("50") and "White list" not in client.say(command)[0]
    assert "White list" not in client.say("RCPT TO:<zed@far.example>")[0]
    client.say("RCPT TO:<bob@hill.org>")
    client.message()
    assert 'f="policy"' in made.logged(720)[0]


@pytest.mark.parametrize("change", [{click.CLICK_SECRET: ""}, {click.CLICK_URL: ""}, {click.CLICK_URL: "http://click.hill.org/in"}])
def test_nothing_is_offered_without_secret_or_with_a_plain_url(options: dict, change: dict) -> None:
    answer, _ = refused(talk({**options, **change}))
    assert "White list" not in answer[-1]


@pytest.mark.parametrize("access", ["from:kestrel.net REJECT\n", "connect:192.0.2.7 REJECT\n", "to:bob@hill.org REJECT\n"])
def test_refusals_of_the_postmasters_own_lists_offer_nothing(options: dict, access: str) -> None:
    answer, _ = refused(talk(options, access))
    assert answer[0].startswith("550") and "White list" not in answer[-1]


def test_refusal_of_the_sender_itself_carries_the_offer(options: dict) -> None:
    client = talk({**options, SMTP_DELAY_CHECKS: "-"}).greeted()
    assert OFFER.search(client.say(ADA)[-1])
