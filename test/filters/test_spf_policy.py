"""SPF: results at MAIL, verdicts at RCPT, Received-SPF fields in the message."""

from __future__ import annotations

import pytest

from smtpf.dns.spf import SpfOutcome
from smtpf.filters import spf
from smtpf.filters.spf import received_spf
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Talk, codes

CLIENT = "81.2.69.10"
ROUTE = "route:hill.org FORWARD: 45.76.9.1\nroute:10 RELAY\nroute:local FORWARD: 45.76.9.2\n"
ZONE = """
10.69.2.81.in-addr.arpa PTR mail.kestrel.net
mail.kestrel.net A 81.2.69.10
kestrel.net A 81.2.69.11
"""


def talk(record: str, options: dict | None = None, more: str = "", access: str = "") -> Talk:
    lines = f"kestrel.net TXT {record}\n" if record else ""
    made = Talk({spf.SPF_MAIL_POLICY: "fail-reject", **(options or {})}, access=access, route=ROUTE, zone=ZONE + lines + more)
    made.hop("45.76.9.1")
    made.hop("45.76.9.2")
    return made


def recipient(made: Talk, sender: str = "<ada@kestrel.net>", address: str = CLIENT) -> list[str]:
    client = made.greeted(address, "mail.kestrel.net")
    client.say(f"MAIL FROM:{sender}")
    return client.say("RCPT TO:<bob@hill.org>")


@pytest.mark.parametrize(
    ("record", "policy", "result", "answer"),
    [
        ("v=spf1 ip4:81.2.69.10 -all", "fail-reject", "Pass", "250 #297"),
        ("v=spf1 -all", "fail-reject", "Fail", "550 #702"),
        ("v=spf1 ~all", "fail-reject", "SoftFail", "250 #297"),
        ("v=spf1 ~all", "fail-reject,softfail-reject", "SoftFail", "550 #702"),
        ("v=spf1 ?all", "fail-reject,softfail-reject", "Neutral", "250 #297"),
        ("", "fail-reject,softfail-reject", "None", "250 #297"),
        ("v=spf1 nonsense -all", "fail-reject", "PermError", "250 #297"),
        ("v=spf1 -all", "fail-tag,fail-reject", "Fail", "250 #297"),
    ],
)
def test_policy_decides_at_rcpt_what_follows_from_the_result(record: str, policy: str, result: str, answer: str) -> None:
    made = talk(record, {spf.SPF_MAIL_POLICY: policy})
    assert codes(recipient(made)) == [answer]
    assert f"spf-mail={result} spf-helo=None" in made.logged(717)[0]


def test_refusal_names_sender_helo_and_client_and_ends_with_an_empty_problem() -> None:
    refused = recipient(talk("v=spf1 -all"))[0]
    assert refused.startswith(
        "550 5.7.1 sender <ada@kestrel.net> via mail.kestrel.net (mail.kestrel.net [81.2.69.10]) SPF result Fail;  #702 "
    )


def test_helo_identity_is_refused_by_its_own_policy() -> None:
    made = talk("", {spf.SPF_HELO_POLICY: "fail-reject"}, "mail.kestrel.net TXT v=spf1 -all\n")
    assert recipient(made)[0].startswith("550 5.7.1 HELO mail.kestrel.net from mail.kestrel.net [81.2.69.10] SPF result Fail;  #701")
    assert made.counted(spf.SPF_FAIL) == 1


def test_null_sender_whose_helo_passes_is_not_looked_at_further() -> None:
    made = talk("", {spf.SPF_HELO_POLICY: "fail-reject"}, "mail.kestrel.net TXT v=spf1 a -all\n")
    assert codes(recipient(made, "<>")) == ["250 #297"]
    assert made.counted(spf.SPF_PASS) == 1


def test_empty_policies_ask_nothing() -> None:
    made = talk("v=spf1 -all", {spf.SPF_MAIL_POLICY: ""})
    assert codes(recipient(made)) == ["250 #297"]
    assert not any(rtype == "TXT" for _, rtype in made.resolver.asked)


def test_best_guess_that_passes_takes_the_place_of_the_result() -> None:
    made = talk("v=spf1 -all", {spf.SPF_BEST_GUESS_TXT: "v=spf1 a/24"})
    assert codes(recipient(made)) == ["250 #297"]
    assert "spf-mail=Pass" in made.logged(717)[0]


def test_relays_are_not_checked_and_get_no_header() -> None:
    made = talk("v=spf1 -all")
    hop = made.hop("45.76.9.2")
    client = made.greeted("10.1.1.1", "desk.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    client.message()
    assert b"Received-SPF" not in hop.contents[0]
    assert "spf-mail=None" in made.logged(717)[0]


def test_white_listed_recipient_gets_mail_that_fails() -> None:
    made = talk("v=spf1 -all", access="to:hill.org OK\n")
    assert codes(recipient(made)) == ["250 #297"]


def test_our_secondary_mx_is_not_refused() -> None:
    made = talk("v=spf1 -all", more="hill.org MX 20 mail.kestrel.net\n")
    assert codes(recipient(made)) == ["250 #297"]


@pytest.mark.parametrize("delay", ["+", "-"])
def test_tag_policy_delivers_with_marks_whether_checks_are_delayed_or_not(delay: str) -> None:
    made = talk("v=spf1 -all", {spf.SPF_MAIL_POLICY: "fail-tag", SMTP_DELAY_CHECKS: delay})
    hop = made.hop("45.76.9.1")
    client = made.greeted(CLIENT, "mail.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    assert codes(client.say("RCPT TO:<bob@hill.org>")) == ["250 #297"]
    assert codes(client.say("RCPT TO:<cy@hill.org>")) == ["250 #297"]
    assert codes(client.message()) == ["250 #554"]
    assert b"Subject: [SPAM] hello\r\n" in hop.contents[0]
    assert b"X-Spam-Reason: 550 5.7.1 sender <ada@kestrel.net>" in hop.contents[0].replace(b"\r\n\t", b" ")
    assert len(made.logged(1034)) == 1


def test_headers_stand_right_below_received() -> None:
    made = talk("v=spf1 ip4:81.2.69.10 -all")
    hop = made.hop("45.76.9.1")
    client = made.greeted(CLIENT, "mail.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    client.message()
    text = hop.contents[0].replace(b"\r\n\t", b" ").decode()
    lines = text.split("\r\n")
    assert lines[0].startswith("Received: from")
    assert lines[1:3] == [
        "Received-SPF: None; identity=helo; helo=mail.kestrel.net; client-ip=81.2.69.10; receiver=mx.test",
        'Received-SPF: Pass; identity=mailfrom; envelope-from="<ada@kestrel.net>"; helo=mail.kestrel.net; client-ip=81.2.69.10; '
        "receiver=mx.test",
    ]


def test_values_that_are_no_dot_atoms_are_quoted_and_long_lines_folded() -> None:
    value = received_spf(SpfOutcome("TempError", "TIMED OUT"), "helo", [("helo", "a" * 60), ("client-ip", "2a01:4f8::7")])
    assert value == f'TempError; problem="TIMED OUT"; identity=helo;\r\n\thelo={"a" * 60};\r\n\tclient-ip="2a01:4f8::7"'


def test_failing_look_up_is_skipped_when_it_shall_not_be_an_error() -> None:
    record = "v=spf1 a:far.net ip4:81.2.69.10 -all"
    strict, lenient = (talk(record, {spf.SPF_TEMP_ERROR_DNS: sign}, "far.net * SERVFAIL\n") for sign in "+-")
    recipient(strict)
    recipient(lenient)
    assert "spf-mail=TempError" in strict.logged(717)[0]
    assert "spf-mail=Pass" in lenient.logged(717)[0]


def test_result_is_remembered_within_the_session() -> None:
    made = talk("v=spf1 ip4:81.2.69.10 -all")
    client = made.greeted(CLIENT, "mail.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RSET")
    asked = len(made.resolver.asked)
    client.say("MAIL FROM:<ada@kestrel.net>")
    assert not any(rtype == "TXT" for _, rtype in made.resolver.asked[asked:])
    assert "spf-mail=Pass" in made.logged(717)[1]
