"""A client that gets listed while it stays connected."""

from __future__ import annotations

import pytest

from smtpf.filters.dns_list import DNS_BL, DNS_GL, DNS_WL
from smtpf.filters.idle_retest import IDLE_RETEST_FOUND, IDLE_RETEST_TIMER
from smtpf.smtp.options import MAIL_RETEST_CLIENT, SMTP_COMMAND_TIMEOUT
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
LISTED = "9.2.0.192.bl.lists.net A 127.0.0.2\n"
PATIENT = {SMTP_COMMAND_TIMEOUT: "3000"}


def deliver(client: Client) -> list[str]:
    """One message; the codes of its MAIL and RCPT, and of its dot when it came so far."""
    said = [*client.say("MAIL FROM:<joe@example.org>"), *client.say("RCPT TO:<ann@example.com>")]
    return codes(said if len(codes(said)) < 2 or not codes(said)[1].startswith("250") else [*said, *client.message()])


@pytest.mark.parametrize("command", ["NOOP", "HELP", "MAIL FROM:<joe@example.org>", "BOGUS", "MAIL"])
def test_a_client_is_looked_up_again_after_the_timer(command: str) -> None:
    talk = Talk({**PATIENT, DNS_BL: "bl.lists.net"})
    client = talk.greeted("192.0.2.9")
    talk.resolver.add(LISTED)
    talk.net.pass_time(290)
    assert codes(client.say("NOOP")) == ["250 #547"]
    talk.net.pass_time(15)
    assert codes(client.say(command)) == ["550 #525"]
    assert client.gone
    assert talk.logged(527) == ["dns-bl found 192.0.2.9 bl.lists.net"]
    assert talk.logged(523) == []
    assert talk.counted(IDLE_RETEST_FOUND) == 1


def test_the_timer_starts_anew_at_each_test() -> None:
    talk = Talk({**PATIENT, DNS_BL: "bl.lists.net"})
    client = talk.greeted("192.0.2.9")
    talk.net.pass_time(310)
    assert codes(client.say("NOOP")) == ["250 #547"]
    talk.resolver.add(LISTED)
    talk.net.pass_time(290)
    assert codes(client.say("NOOP")) == ["250 #547"]
    talk.net.pass_time(20)
    assert codes(client.say("NOOP")) == ["550 #525"]


@pytest.mark.parametrize(("timer", "access"), [("0", ""), ("300", "connect:192.0.2.9 OK\n"), ("300", "connect:192.0.2.9 CONTENT\n")])
def test_who_is_not_looked_up_again(timer: str, access: str) -> None:
    talk = Talk({**PATIENT, DNS_BL: "bl.lists.net", IDLE_RETEST_TIMER: timer}, access=access)
    client = talk.greeted("192.0.2.9")
    talk.resolver.add(LISTED)
    talk.net.pass_time(400)
    assert codes(client.say("NOOP")) == ["250 #547"]


def test_the_access_map_is_asked_again_first() -> None:
    talk = Talk(PATIENT)
    client = talk.greeted("192.0.2.9")
    talk.access_map.source = Talk(access="connect:192.0.2.9 REJECT\n").access_map.source
    talk.net.pass_time(310)
    assert codes(client.say("NOOP")) == ["550 #120"]
    assert talk.counted(IDLE_RETEST_FOUND) == 1


def test_with_delay_checks_the_next_recipients_are_refused() -> None:
    talk = Talk({**PATIENT, DNS_BL: "bl.lists.net", SMTP_DELAY_CHECKS: "+"}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted("192.0.2.9")
    talk.resolver.add(LISTED)
    talk.net.pass_time(310)
    assert deliver(client) == ["250 #283", "550 #525"]


def test_mail_retest_client_looks_up_at_every_message_behind_the_first() -> None:
    talk = Talk({DNS_BL: "bl.lists.net", MAIL_RETEST_CLIENT: "+"}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted("192.0.2.9")
    assert deliver(client) == ["250 #283", "250 #297", "250 #554"]
    assert deliver(client) == ["250 #283", "250 #297", "250 #554"]
    talk.resolver.add(LISTED)
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["550 #525"]
    assert client.gone


@pytest.mark.parametrize("option", [DNS_WL, DNS_GL])
def test_a_client_that_a_list_speaks_for_is_asked_for_there_again(option: object) -> None:
    good = "9.2.0.192.good.lists.net A 127.0.0.2\n"
    talk = Talk({DNS_BL: "bl.lists.net", option: "good.lists.net", MAIL_RETEST_CLIENT: "+"}, route=ROUTE, zone=good + LISTED)
    talk.hop("192.0.2.1")
    client = talk.greeted("192.0.2.9")
    assert deliver(client) == ["250 #283", "250 #297", "250 #554"]
    assert deliver(client) == ["250 #283", "250 #297", "250 #554"]
    assert talk.logged(527) == [f"{option.name} found 192.0.2.9 good.lists.net"]  # type: ignore[attr-defined]
    talk.resolver.records.pop(("9.2.0.192.good.lists.net", "A"))
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["550 #525"]
