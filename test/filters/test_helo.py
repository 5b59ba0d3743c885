"""The HELO tests: the chapter's tables and examples."""

from __future__ import annotations

import pytest

from smtpf.filters import helo
from smtpf.filters.helo import HELO_CLAIMS_US_HIT, HELO_IP_MISMATCH, HELO_IS_PTR, RFC2821_STRICT_HELO, helo_address, is_full_name
from smtpf.filters.postponing import AUTH_DELAY_CHECKS, CLIENT_IS_MX
from smtpf.filters.reserved import RFC2606_SPECIAL_DOMAINS
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:198.51.100.3 RELAY\n"


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        ("192.0.2.9", "192.0.2.9"),
        ("[192.0.2.9]", "192.0.2.9"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("IPv6:2001:db8::1", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("3221225993", "192.0.2.9"),
        ("0xC0000209", "192.0.2.9"),
        ("030000001011", "192.0.2.9"),
        ("4294967296", None),
        ("9" * 4000, None),
        ("cafe", None),
        ("0x", None),
        ("089", None),
        ("192.0.2", None),
        ("mail.example.org", None),
        ("[mail.example.org]", None),
    ],
)
def test_which_arguments_are_addresses(argument: str, address: str | None) -> None:
    found = helo_address(argument)
    assert (None if found is None else str(found)) == address


@pytest.mark.parametrize("argument", ["mail.example.com", "[192.0.2.9]", "[IPv6:2001:db8::1]"])
def test_full_names_and_literals_are_strict(argument: str) -> None:
    assert is_full_name(argument)
    talk = Talk()
    assert codes(talk.connect("192.0.2.9").say(f"HELO {argument}")) == ["250 #256"]


@pytest.mark.parametrize("argument", ["192.0.2.9", "3221225993", "localhost", "friend", "host.", "."])
def test_other_arguments_are_not(argument: str) -> None:
    assert not is_full_name(argument)
    talk = Talk()
    client = talk.connect("192.0.2.9")
    heard = client.say(f"EHLO {argument}")
    assert heard[0].startswith(f"550 5.7.0 HELO {argument} argument must be a FQDN or IP-domain literal #428 ")
    assert client.gone
    assert talk.counted(helo.STRICT_HELO_HIT) == 1
    assert codes(Talk({RFC2821_STRICT_HELO: "-"}).connect("192.0.2.9").say(f"HELO {argument}")) == ["250 #256"]


def test_a_trusted_client_is_noted_and_served() -> None:
    talk = Talk(route=ROUTE)
    assert codes(talk.connect("198.51.100.3").say("HELO friend")) == ["250 #256"]
    assert talk.logged(429) == [" [198.51.100.3] HELO friend is not FQDN"]
    assert codes(talk.connect("127.0.0.1", at="127.0.0.1").say("HELO host.")) == ["250 #256"]
    assert talk.logged(429)[1:] == ["localhost.localhost [127.0.0.1] HELO host. is not FQDN"]
    talk.connect("198.51.100.3").say("HELO mail.example.com")
    assert len(talk.logged(429)) == 2


@pytest.mark.parametrize("argument", ["mail/x.example.org", "joe@example.org", "a(b).example.org", "mail!x.org", '"x.org"'])
def test_impossible_characters_are_refused_and_the_session_goes_on(argument: str) -> None:
    talk = Talk({AUTH_DELAY_CHECKS: "+", RFC2821_STRICT_HELO: "-"})
    client = talk.connect("192.0.2.9")
    assert client.say(f"HELO {argument}")[0].startswith(f"501 5.5.4 invalid HELO {argument} #423 ")
    assert not client.gone
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["503 #251"]
    assert talk.counted(helo.BOGUS_HELO) == 1


@pytest.mark.parametrize(
    ("argument", "refused"),
    [
        ("[192.0.2.9]", False),
        ("[198.51.100.7]", True),
        ("198.51.100.7", True),
        ("[10.1.2.3]", False),
        ("[169.254.3.4]", False),
        ("[0.1.2.3]", False),
        ("3221225993", False),
        ("3221225994", True),
        ("[IPv6:::ffff:192.0.2.9]", False),
        ("[IPv6:2001:db8::1]", True),
        ("mail.example.org", False),
    ],
)
def test_another_hosts_address(argument: str, refused: bool) -> None:
    talk = Talk({HELO_IP_MISMATCH: "+", RFC2821_STRICT_HELO: "-"})
    client = talk.connect("192.0.2.9")
    assert codes(client.say(f"HELO {argument}")) == (["550 #424"] if refused else ["250 #256"])
    assert client.gone is refused


def test_a_mismatch_is_not_postponed_for_auth() -> None:
    talk = Talk({HELO_IP_MISMATCH: "+", AUTH_DELAY_CHECKS: "+"})
    assert codes(talk.connect("192.0.2.9").say("EHLO [198.51.100.7]")) == ["550 #424"]


@pytest.mark.parametrize(
    ("argument", "number"),
    [
        ("box.localdomain", "550 #427"),
        ("mail.example.com", "550 #427"),
        ("mail.test", "550 #427"),
        ("x.onion", "550 #427"),
        ("pc.local", "250 #256"),
        ("pc.lan", "250 #256"),
        ("9.2.0.192.in-addr.arpa", "250 #256"),
        ("x.arpa", "550 #427"),
        ("localhost", "550 #428"),
        ("mail.my-example.com", "250 #256"),
    ],
)
def test_reserved_names_come_before_strict_ones(argument: str, number: str) -> None:
    talk = Talk({RFC2606_SPECIAL_DOMAINS: "+"})
    assert codes(talk.connect("192.0.2.9").say(f"HELO {argument}")) == [number]


OTHER = "5.113.0.203.in-addr.arpa PTR host.other.net\nhost.other.net A 203.0.113.5\n"
OWN = "5.113.0.203.in-addr.arpa PTR a.example.com\na.example.com A 203.0.113.5\n"
NO_PTR = "mx.example.com A 203.0.113.5\n"


@pytest.mark.parametrize(
    ("zone", "argument", "refused"),
    [
        (OTHER, "example.com", True),
        (OTHER, "mx.example.com", True),
        (OTHER, "mx.example.net", False),
        (OWN, "mx.example.com", False),
        (NO_PTR, "mx.example.com", False),
        (NO_PTR, "mx2.example.com", True),
        ("", "mx.example.com", True),
    ],
)
def test_who_claims_to_be_us(zone: str, argument: str, refused: bool) -> None:
    talk = Talk(zone=zone, route=ROUTE)
    client = talk.connect("203.0.113.5")
    assert codes(client.say(f"HELO {argument}")) == (["550 #430"] if refused else ["250 #256"])
    assert talk.counted(HELO_CLAIMS_US_HIT) == refused


def test_claims_us_names_client_and_argument() -> None:
    talk = Talk(zone=OTHER, route=ROUTE)
    heard = talk.connect("203.0.113.5").say("EHLO mx.example.com")
    assert heard[0].startswith('550 5.7.0 host.other.net [203.0.113.5] claims to be us "mx.example.com" #430 ')


def test_a_helo_name_that_leads_to_the_client_becomes_its_name() -> None:
    talk = Talk(zone=NO_PTR)
    client = talk.connect("203.0.113.5")
    assert client.say("HELO MX.example.com")[0].startswith("250 mx.test Hello mx.example.com [203.0.113.5] #256")
    client.say("QUIT")
    assert 'p="mx.example.com" f="helo_host,no_ptr,quit"' in talk.logged(721)[0]


def test_the_name_of_an_earlier_helo_is_forgotten() -> None:
    talk = Talk({"smtp-helo-schizo": "0"}, zone=NO_PTR)
    client = talk.connect("203.0.113.5")
    client.say("HELO mx.example.com")
    client.say("HELO other.example.com")
    client.say("QUIT")
    assert 'p="" f="forged,no_ptr,quit"' in talk.logged(721)[0]


def test_an_address_as_argument_is_flagged() -> None:
    talk = Talk()
    client = talk.connect("192.0.2.9")
    client.say("HELO [198.51.100.7]")
    client.say("QUIT")
    assert "helo_ip" in talk.logged(721)[0]


POOL = "77.113.0.203.in-addr.arpa PTR pool113-77.isp.example\npool113-77.isp.example A 203.0.113.77\n"


@pytest.mark.parametrize(("argument", "refused"), [("Pool113-77.ISP.example", True), ("mail.isp.example", False)])
def test_the_generated_name_as_argument(argument: str, refused: bool) -> None:
    talk = Talk({HELO_IS_PTR: "+"}, zone=POOL)
    client = talk.connect("203.0.113.77")
    assert codes(client.say(f"HELO {argument}")) == (["550 #432"] if refused else ["250 #256"])
    assert client.gone is refused


def test_with_client_is_mx_the_generated_name_is_judged_at_rcpt() -> None:
    talk = Talk({HELO_IS_PTR: "+", CLIENT_IS_MX: "+"}, zone=POOL, route=ROUTE)
    client = talk.connect("203.0.113.77")
    assert codes(client.say("HELO pool113-77.isp.example")) == ["250 #256"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["550 #432"]


def test_with_auth_delay_checks_the_tests_wait_for_mail() -> None:
    talk = Talk({AUTH_DELAY_CHECKS: "+"}, route=ROUTE)
    client = talk.connect("192.0.2.9")
    assert codes(client.say("HELO friend")) == ["250 #256"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["550 #428"]
    assert client.gone


def test_with_delay_checks_they_are_told_at_rcpt() -> None:
    talk = Talk({SMTP_DELAY_CHECKS: "+"}, route=ROUTE, access="to:ann@example.com OK\n")
    talk.hop("192.0.2.1")
    client = talk.connect("192.0.2.9")
    assert codes(client.say("HELO friend")) == ["250 #256"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<bob@example.com>")) == ["550 #428"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]


@pytest.mark.parametrize("access", ["connect:192.0.2.9 OK", "connect:192.0.2.9 CONTENT", "helo:friend OK"])
def test_white_and_grey_clients_are_not_tested(access: str) -> None:
    talk = Talk({AUTH_DELAY_CHECKS: "-"}, access=access + "\n")
    assert codes(talk.connect("192.0.2.9").say("HELO friend")) == ["250 #256"]
    assert talk.logged(429) == []
