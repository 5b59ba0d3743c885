"""client-ptr-required and client-ip-in-ptr: when they strike, and what saves a client."""

from __future__ import annotations

import pytest

from smtpf.filters.client_ptr import CLIENT_IP_IN_PTR, CLIENT_IP_IN_PTR_HIT, CLIENT_PTR_REQUIRED
from smtpf.filters.postponing import AUTH_DELAY_CHECKS, CLIENT_IS_MX
from smtpf.filters.spf import SPF_MAIL_POLICY
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
POOL = "9.2.0.192.in-addr.arpa PTR 9-2-0-192.dyn.example\n9-2-0-192.dyn.example A 192.0.2.9\n"
BOTH = {CLIENT_PTR_REQUIRED: "+", CLIENT_IP_IN_PTR: "+"}


def at_connect_and_mail(talk: Talk, address: str = "192.0.2.9") -> list[str]:
    client = talk.connect(address)
    if not client.banner[0].startswith("220"):
        return codes(client.banner)
    client.say("EHLO mail.example.org")
    return ["220", *codes(client.say("MAIL FROM:<joe@example.org>"))]


@pytest.mark.parametrize(
    ("zone", "number"),
    [("", "554 #416"), ("9.2.0.192.in-addr.arpa PTR SERVFAIL\n", "421 #415"), (POOL, "550 #418")],
)
@pytest.mark.parametrize(
    ("auth_delay", "is_mx", "at_mail"),
    [("-", "-", False), ("-", "+", True), ("+", "-", True), ("+", "+", True)],
)
def test_the_stage_follows_the_two_options(zone: str, number: str, auth_delay: str, is_mx: str, at_mail: bool) -> None:
    talk = Talk({**BOTH, AUTH_DELAY_CHECKS: auth_delay, CLIENT_IS_MX: is_mx}, zone=zone, route=ROUTE)
    assert at_connect_and_mail(talk) == (["220", number] if at_mail else [number])


def test_a_refused_client_is_told_why_and_dropped() -> None:
    talk = Talk(BOTH, zone=POOL)
    client = talk.connect("192.0.2.9")
    assert client.banner[0].startswith("550 5.7.1 reject IP in client name 9-2-0-192.dyn.example [192.0.2.9] (1) #418 ")
    assert client.gone
    assert talk.counted(CLIENT_IP_IN_PTR_HIT) == 1
    client = talk.connect("192.0.2.10")
    assert client.banner[0].startswith("554 5.7.1 reject [192.0.2.10] missing PTR record #416 ")


def test_a_lookup_error_leaves_the_client_in_the_sink() -> None:
    talk = Talk(BOTH, zone="9.2.0.192.in-addr.arpa PTR SERVFAIL\n")
    client = talk.connect("192.0.2.9")
    assert client.banner[0].startswith("421 4.4.3 PTR record lookup error for [192.0.2.9] #415 ")
    assert not client.gone
    assert codes(client.say("EHLO mail.example.org")) == ["421 #966"]


@pytest.mark.parametrize("access", ["connect:192.0.2.9 OK\n", "connect:192.0.2.9 CONTENT\n"])
@pytest.mark.parametrize("is_mx", ["-", "+"])
def test_white_and_grey_clients_are_exempt_at_both_stages(access: str, is_mx: str) -> None:
    assert at_connect_and_mail(Talk({**BOTH, CLIENT_IS_MX: is_mx}, access=access, route=ROUTE))[-1] == "250 #283"


def test_a_relay_is_exempt() -> None:
    assert at_connect_and_mail(Talk(BOTH, zone=POOL, route=ROUTE + "route:192.0.2.9 RELAY\n"))[-1] == "250 #283"


def test_without_the_options_nobody_is_refused() -> None:
    assert at_connect_and_mail(Talk(zone=POOL, route=ROUTE))[-1] == "250 #283"


def test_with_delay_checks_it_is_told_at_each_recipient() -> None:
    talk = Talk({**BOTH, SMTP_DELAY_CHECKS: "+"}, route=ROUTE)
    client = talk.connect("192.0.2.9")
    assert codes(client.banner) == ["220"]
    client.say("EHLO mail.example.org")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["554 #416"]
    assert codes(client.say("RCPT TO:<bob@example.com>")) == ["554 #416"]
    assert codes(client.say("RSET")) == ["250 #547"]
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["554 #416"]


MX = "example.org MX 10 mx.example.org\nmx.example.org A 81.2.69.142\n"


def test_a_mail_exchange_of_the_senders_domain_passes() -> None:
    talk = Talk({**BOTH, CLIENT_IS_MX: "+"}, zone=MX, route=ROUTE)
    assert at_connect_and_mail(talk, "81.2.69.142") == ["220", "250 #283"]
    assert at_connect_and_mail(talk, "81.2.69.143") == ["220", "554 #416"]


def test_a_client_that_the_senders_policy_names_passes() -> None:
    zone = "example.org TXT v=spf1 ip4:81.2.69.142 -all\n"
    talk = Talk({**BOTH, CLIENT_IS_MX: "+", SPF_MAIL_POLICY: "fail-reject"}, zone=zone, route=ROUTE)
    assert at_connect_and_mail(talk, "81.2.69.142") == ["220", "250 #283"]
    assert at_connect_and_mail(talk, "81.2.69.143") == ["220", "554 #416"]
