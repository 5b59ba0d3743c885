"""The sender's mail exchanges and name servers."""

from __future__ import annotations

import pytest

from smtpf.filters import mx, ns
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Talk, codes

CLIENT = "81.2.69.142"
ROUTE = "route:hill.org FORWARD: 45.76.9.1\nroute:10 RELAY\nroute:local FORWARD: 45.76.9.2\n"


def talk(zone: str, options: dict | None = None, access: str = "") -> Talk:
    made = Talk({mx.MAIL_REQUIRE_MX: "+", **(options or {})}, access=access, route=ROUTE, zone=zone)
    made.hop("45.76.9.1")
    return made


def mail(made: Talk, sender: str = "<fred@kestrel.net>", address: str = CLIENT, helo: str = "[81.2.69.142]") -> list[str]:
    return codes(made.greeted(address, helo).say(f"MAIL FROM:{sender}"))


def numbers(made: Talk) -> list[int]:
    wanted = {435, 437, 438, 444, 446, 448, 453, 906, 465, 467, 468, 469}
    return [entry.message.number for entry in made.entries if entry.message.number in wanted]


PUBLIC = "45.76.1.1"


@pytest.mark.parametrize(
    ("zone", "require", "answer", "logged"),
    [
        (f"kestrel.net MX 10 a.kestrel.net\na.kestrel.net A {PUBLIC}", "+", "250 #283", []),
        (f"kestrel.net MX 10 a.kestrel.net\na.kestrel.net A {CLIENT}", "+", "250 #283", [437]),
        (f"kestrel.net MX 10 a.kestrel.net\na.kestrel.net A {CLIENT}", "-", "250 #283", [437]),
        ("kestrel.net MX 10 a.kestrel.net\na.kestrel.net A 192.0.2.25", "+", "553 #439", [438]),
        ("kestrel.net MX 10 a.kestrel.net\na.kestrel.net A 192.0.2.25", "-", "250 #283", []),
        ("", "+", "553 #434", []),
        ("", "-", "250 #283", [435]),
        (f"kestrel.net A {PUBLIC}", "+", "250 #283", []),
        (f"kestrel.net A {CLIENT}", "+", "250 #283", [448]),
        ("kestrel.net TXT hello", "+", "553 #439", [444]),
        ("kestrel.net MX 10 localhost\nlocalhost A 127.0.0.1", "+", "553 #439", [438]),
        (f"kestrel.net MX 10 a.net\nkestrel.net MX 20 b.net\na.net A 10.0.0.1\nb.net A {PUBLIC}", "+", "250 #283", []),
        ("kestrel.net MX SERVFAIL", "+", "451 #436", [435]),
        ("kestrel.net MX SERVFAIL", "-", "250 #283", [435]),
        ("kestrel.net MX NOTIMP", "+", "250 #283", [435]),
        ("kestrel.net MX TIMEOUT", "+", "451 #436", [446]),
        ("kestrel.net MX 10 a.net\na.net * SERVFAIL", "+", "451 #907", [906]),
        (f"kestrel.net MX 10 a.net\nkestrel.net MX 20 b.net\na.net * SERVFAIL\nb.net A {PUBLIC}", "+", "250 #283", []),
        ("kestrel.net MX 0 .", "+", "553 #439", [438]),
        ("kestrel.net MX 10 a.net\na.net AAAA 2a01:4f8::7", "+", "250 #283", []),
    ],
)
def test_worked_examples(zone: str, require: str, answer: str, logged: list[int]) -> None:
    made = talk(zone, {mx.MAIL_REQUIRE_MX: require})
    client = made.greeted(CLIENT, "[81.2.69.142]")
    heard = client.say("MAIL FROM:<fred@kestrel.net>")
    if not heard:
        made.net.pass_time(50)
        heard = client.take()
    assert codes(heard) == [answer]
    assert numbers(made) == logged


def test_log_lines_to_the_letter() -> None:
    made = talk("kestrel.net MX REFUSED", {mx.MAIL_REQUIRE_MX: "-"})
    mail(made)
    assert made.logged(435) == ["MX kestrel.net error REFUSED"]


def test_null_sender_with_address_as_helo_asks_nothing() -> None:
    made = talk("")
    assert mail(made, "<>") == ["250 #283"]
    assert not any(rtype == "MX" for _, rtype in made.resolver.asked)


def test_null_sender_is_judged_by_its_helo_but_never_refused() -> None:
    made = talk(f"mail.kestrel.net A {CLIENT}")
    assert mail(made, "<>", helo="mail.kestrel.net") == ["250 #283"]
    assert made.logged(448) == [" [81.2.69.142] is MX for mail.kestrel.net"] or made.logged(448)[0].endswith("is MX for mail.kestrel.net")
    assert made.counted(mx.CLIENT_IS_MX) == 1


@pytest.mark.parametrize(("sender", "address"), [("<x@nosuch.net>", "10.0.0.9"), ("<cy@hill.org>", CLIENT)])
def test_relays_and_our_own_domains_are_exempt(sender: str, address: str) -> None:
    made = talk("")
    assert mail(made, sender, address) == ["250 #283"]
    assert not any(rtype == "MX" for _, rtype in made.resolver.asked)


def test_lookup_error_lets_white_listed_recipients_through_when_delayed() -> None:
    made = talk("kestrel.net MX SERVFAIL", {SMTP_DELAY_CHECKS: "+"}, "to:joe@hill.org OK\n")
    client = made.greeted(CLIENT, "[81.2.69.142]")
    assert codes(client.say("MAIL FROM:<fred@kestrel.net>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<bob@hill.org>")) == ["451 #436"]
    assert codes(client.say("RCPT TO:<joe@hill.org>")) == ["250 #297"]


def test_secondary_mx_is_asked_about_once_per_domain_and_failures_are_told() -> None:
    made = talk(f"kestrel.net A {PUBLIC}\nhill.org MX SERVFAIL")
    client = made.greeted(CLIENT, "[81.2.69.142]")
    client.say("MAIL FROM:<fred@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    client.say("RCPT TO:<cy@hill.org>")
    assert made.logged(453) == ["MX hill.org lookup: SERVER (0)"]


NS_ZONE = f"kestrel.net A {PUBLIC}\nkestrel.net NS %s\n"


@pytest.mark.parametrize(
    ("host", "more", "answer", "logged"),
    [
        ("ns1.hoster.com", "hoster.com SOA ns1.hoster.com h.hoster.com\nns1.hoster.com A 45.76.1.9", "250 #283", []),
        ("ns1.nosuch.com", "", "553 #450", [467]),
        ("ns1.hoster.zzzz", "", "553 #450", [465]),
        ("ns1.hoster.com", "ns1.hoster.com SOA SERVFAIL", "250 #283", [468]),
    ],
)
def test_name_servers_in_domains_that_do_not_exist(host: str, more: str, answer: str, logged: list[int]) -> None:
    made = talk(NS_ZONE % host + more, {ns.MAIL_NS_NXDOMAIN: "+"})
    assert mail(made) == [answer]
    assert numbers(made) == logged


def test_name_server_with_its_address_in_its_name() -> None:
    made = talk(NS_ZONE % "81-2-69-10.dsl.net" + "81-2-69-10.dsl.net A 81.2.69.10", {ns.MAIL_IP_IN_NS: "+"})
    client = made.greeted(CLIENT, "[81.2.69.142]")
    refused = client.say("MAIL FROM:<fred@kestrel.net>")[0]
    assert refused.startswith("553 5.1.8 sender <fred@kestrel.net> NS 81-2-69-10.dsl.net contains IP 81.2.69.10 in name #449")


def test_name_servers_of_the_parent_count_for_a_host() -> None:
    zone = f"mail.kestrel.net A {PUBLIC}\nkestrel.net NS ns1.nosuch.com\n"
    assert mail(talk(zone, {ns.MAIL_NS_NXDOMAIN: "+"}), "<fred@mail.kestrel.net>") == ["553 #450"]


def test_name_servers_are_not_asked_for_by_default() -> None:
    made = talk(NS_ZONE % "ns1.nosuch.com")
    assert mail(made) == ["250 #283"]
    assert not any(rtype == "NS" for _, rtype in made.resolver.asked)
