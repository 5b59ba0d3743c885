"""The table of states and commands (chapter session, 3.1), the command loop (1.7) and the small commands (3.3)."""

from __future__ import annotations

import pytest

from smtpf.smtp import counters
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
ARGUMENTS = {
    "EHLO": "EHLO mail.example.org",
    "HELO": "HELO mail.example.org",
    "MAIL": "MAIL FROM:<joe@example.org>",
    "RCPT": "RCPT TO:<ann@example.com>",
    "AUTH": "AUTH FOO",
    "ETRN": "ETRN example.com",
    "VRFY": "VRFY joe",
    "EXPN": "EXPN list",
    "XCLIENT": "XCLIENT NAME=x.example",
}
OK, SEQ, NOT = "2", "503 #251", "502 #250"
TABLE = {
    #            CONN  HELO  EHLO  MAIL  RCPT
    "EHLO": (OK, OK, OK, OK, OK),
    "HELO": (OK, OK, OK, OK, OK),
    "HELP": (OK, OK, OK, OK, OK),
    "NOOP": (OK, OK, OK, OK, OK),
    "QUIT": (OK, OK, OK, OK, OK),
    "RSET": (OK, OK, OK, OK, OK),
    "MAIL": (SEQ, OK, OK, SEQ, SEQ),
    "RCPT": (SEQ, SEQ, SEQ, OK, OK),
    "DATA": (SEQ, SEQ, SEQ, SEQ, "354"),
    "AUTH": (SEQ, SEQ, "504 #269", SEQ, SEQ),
    "STARTTLS": (SEQ, SEQ, NOT, SEQ, SEQ),
    "ETRN": (SEQ, NOT, "458 #276", SEQ, SEQ),
    "VRFY": (SEQ, NOT, NOT, NOT, NOT),
    "EXPN": (SEQ, NOT, NOT, NOT, NOT),
    "TURN": (SEQ, NOT, NOT, NOT, NOT),
    "XCLIENT": (SEQ, SEQ, SEQ, SEQ, SEQ),
    "SAML": ("500 #248",) * 5,
    "X-FOO": ("500 #248",) * 5,
}
STATES = ("CONN", "HELO", "EHLO", "MAIL", "RCPT")


def brought_to(state: str, talk: Talk) -> Client:
    client = talk.connect()
    if state == "HELO":
        client.say(ARGUMENTS["HELO"])
    elif state != "CONN":
        for verb in ("EHLO", "MAIL", "RCPT")[: ("EHLO", "MAIL", "RCPT").index(state) + 1]:
            assert codes(client.say(ARGUMENTS[verb]))[0].startswith("250")
    return client


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", TABLE)
def test_each_command_in_each_state(verb: str, state: str) -> None:
    talk = Talk({"smtp-auth-enable": "+", "smtp-auth-tls": "-"}, route=ROUTE + "route:local FORWARD: 192.0.2.66\n")
    talk.hop("192.0.2.1")
    client = brought_to(state, talk)
    answer = client.say(ARGUMENTS.get(verb, verb))
    assert codes(answer)[-1].startswith(TABLE[verb][STATES.index(state)]), answer
    assert client.gone is (verb == "QUIT")


@pytest.mark.parametrize("verb", TABLE)
def test_sink_answers_everything_but_quit_with_421(verb: str) -> None:
    talk = Talk(access="connect:192.0.2.7 TEMPFAIL\n")
    client = talk.connect()
    assert codes(client.banner) == ["450 #853"]
    answer = client.say(ARGUMENTS.get(verb, verb))
    assert codes(answer) == (["221 #247"] if verb == "QUIT" else ["421 #966"])
    assert client.gone is (verb == "QUIT")


def test_sink_is_left_by_smtp_drop_after() -> None:
    talk = Talk({"smtp-drop-after": "3"}, access="connect:192.0.2.7 TEMPFAIL\n")
    client = talk.connect()
    client.say("NOOP")
    assert codes(client.say("NOOP")) == ["421 #966"]
    assert client.gone
    assert talk.logged(644) == ["dropping  [192.0.2.7] after 3 errors"]


def test_sink_is_left_by_timeout() -> None:
    talk = Talk(access="connect:192.0.2.7 TEMPFAIL\n")
    client = talk.connect()
    talk.net.pass_time(301)
    assert codes(client.take()) == ["421 #966"]
    assert client.gone


@pytest.mark.parametrize("verb", ["EHLO", "HELO", "ETRN", "AUTH"])
def test_a_missing_argument_is_told_with_the_line_as_sent(verb: str) -> None:
    talk = Talk({"smtp-auth-enable": "+", "smtp-auth-tls": "-"})
    client = talk.greeted()
    (line,) = client.say(verb.lower())
    assert line.startswith(f"501 5.5.2 {verb.lower()} missing argument #249 ")


@pytest.mark.parametrize("line", ["MAIL", "MAIL FROM:", "MAIL FROM", "MAIL FROM:  "])
def test_mail_without_a_path_is_a_missing_argument_and_not_summarised(line: str) -> None:
    talk = Talk()
    client = talk.greeted()
    assert codes(client.say(line)) == ["501 #249"]
    assert talk.logged(717) == []


@pytest.mark.parametrize("line", ["RCPT", "RCPT TO:", "RCPT TO", "RCPT TO: "])
def test_rcpt_without_a_path_is_a_missing_argument_and_not_summarised(line: str) -> None:
    talk = Talk()
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say(line)) == ["501 #249"]
    assert talk.logged(718) == []


# 1.7


@pytest.mark.parametrize("octets", [b"NOOP\r\n", b"noop\r\n", b"NoOp \r\n", b"NOOP\t\r\n", b"NOOP\n", b"NOOP\tx y\r\n"])
def test_a_verb_ends_at_white_space_and_ignores_case(octets: bytes) -> None:
    talk = Talk()
    client = talk.greeted()
    assert codes(client.send(octets)) == ["250 #547"]


@pytest.mark.parametrize(
    ("line", "flag"), [("EHLO mail.example.org", False), ("Ehlo mail.example.org", True), ("ehlo mail.example.org", True)]
)
def test_a_lower_case_letter_in_a_verb_sets_the_flag(line: str, flag: bool) -> None:
    talk = Talk()
    client = talk.connect()
    client.say(line)
    client.say("QUIT")
    assert ("smtp_lower_case" in talk.logged(721)[0]) is flag


@pytest.mark.parametrize("octet", [*range(9), 11, 12, *range(14, 32), 127, 128, 0xA0, 0xFF])
def test_an_octet_that_is_not_printable_ends_the_session(octet: int) -> None:
    talk = Talk(zone="7.2.0.192.in-addr.arpa PTR mail.example.org\nmail.example.org A 192.0.2.7\n")
    client = talk.greeted()
    (line,) = client.send(b"NOOP " + bytes([octet]) + b"\r\n")
    assert line.startswith("500 5.5.2 mail.example.org [192.0.2.7] sent non-printable characters in SMTP command #641 ")
    assert client.gone
    assert talk.counted(counters.NON_ASCII) == 1


def test_a_cr_in_a_command_line_is_not_printable() -> None:
    talk = Talk()
    client = talk.greeted()
    assert codes(client.send(b"NOOP\rQUIT\r\n")) == ["500 #641"]
    assert client.gone


@pytest.mark.parametrize(("size", "kept"), [(998, True), (999, True), (1000, True), (1001, False), (5000, False)])
def test_a_command_line_has_at_most_1000_octets(size: int, kept: bool) -> None:
    talk = Talk()
    client = talk.greeted()
    answer = client.send(b"NOOP " + b"x" * (size - 7) + b"\r\n")
    assert codes(answer) == (["250 #547"] if kept else ["500 #640"])
    assert client.gone is not kept


@pytest.mark.parametrize(("size", "kept"), [(512, True), (513, False)])
def test_rfc2821_command_length_wants_512_octets(size: int, kept: bool) -> None:
    talk = Talk({"rfc2821-command-length": "+"})
    client = talk.greeted()
    (line,) = client.send(b"NOOP " + b"x" * (size - 7) + b"\r\n")
    assert kept or line.startswith("500 5.5.2 RFC 2821 max. command line length exceeded (513) #640 ")
    assert client.gone is not kept
    assert talk.counted(counters.COMMAND_LENGTH) == (not kept)


@pytest.mark.parametrize(
    ("option", "trusted", "line", "helo", "dropped"),
    [
        ("-", False, "FOO", "EHLO", False),
        ("+", False, "FOO", "EHLO", True),
        ("+", False, "XFOO", "EHLO", False),
        ("+", False, "XFOO", "HELO", True),
        ("+", True, "FOO", "EHLO", False),
    ],
)
def test_smtp_drop_unknown(option: str, trusted: bool, line: str, helo: str, dropped: bool) -> None:
    talk = Talk({"smtp-drop-unknown": option}, route="route:192.0.2.7 RELAY\n" if trusted else "")
    client = talk.connect()
    client.say(f"{helo} mail.example.org")
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say(line)) == ["500 #248"]
    assert client.gone is dropped
    assert talk.counted(counters.DROP_UNKNOWN) == dropped


@pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.1"])
def test_smtp_drop_after_counts_refusals_of_whoever(address: str) -> None:
    talk = Talk({"smtp-drop-after": "5"})
    client = talk.connect(address)
    for _ in range(4):
        client.say("FOO")
        client.say("NOOP")
    assert not client.gone
    assert codes(client.say("FOO")) == ["500 #248"]
    assert client.gone
    assert talk.logged(644)[0].endswith("after 5 errors")
    assert talk.counted(counters.DROP_AFTER) == 1


def test_a_refused_ehlo_does_not_count_towards_smtp_drop_after() -> None:
    talk = Talk({"smtp-drop-after": "2", "smtp-enable-esmtp": "-"})
    client = talk.connect()
    for _ in range(4):
        assert codes(client.say("EHLO mail.example.org")) == ["502 #253"]
    assert not client.gone
    assert codes(client.say("HELO mail.example.org")) == ["250 #256"]


def test_test_on_command() -> None:
    for action, code, gone in (("temp-fail", "451 #552", False), ("reject", "550 #555", False), ("drop", "550 #555", True)):
        talk = Talk({"test-on-command": f"{action},NOOP"})
        client = talk.greeted()
        assert codes(client.say("NOOP")) == [code]
        assert client.gone is gone


# Timeouts and lost clients


def test_a_silent_client_hears_421_and_is_logged() -> None:
    talk = Talk({"smtp-command-timeout": "60"})
    client = talk.greeted()
    talk.net.pass_time(59)
    assert not client.gone
    talk.net.pass_time(2)
    assert codes(client.take()) == ["421 #966"]
    assert client.gone
    assert talk.logged(639) == ["client  [192.0.2.7] I/O error: Connection timed out (110)"]
    assert "io_error" in talk.logged(721)[0]
    assert (talk.counted(counters.CLIENT_TIMEOUT), talk.counted(counters.CLIENT_IO_ERROR)) == (1, 0)
    assert talk.counted(counters.DROPPED) == 1


def test_a_line_that_trickles_in_must_be_complete_within_the_timeout() -> None:
    talk = Talk({"smtp-command-timeout": "60"})
    client = talk.greeted()
    heard: list[str] = []
    for _ in range(7):
        heard += client.send(b"N")
        talk.net.pass_time(10)
    assert codes(heard) == ["421 #966"]
    assert client.gone


def test_a_black_client_gets_less_time() -> None:
    talk = Talk({"smtp-delay-checks": "+"}, access="connect:192.0.2.7 REJECT\n")
    client = talk.greeted()
    talk.net.pass_time(31)
    assert client.gone


@pytest.mark.parametrize("black", ["-1", "400"])
def test_the_timeout_of_black_clients_is_never_longer(black: str) -> None:
    talk = Talk({"smtp-delay-checks": "+", "smtp-command-timeout-black": black}, access="connect:192.0.2.7 REJECT\n")
    client = talk.greeted()
    talk.net.pass_time(299)
    assert not client.gone
    talk.net.pass_time(2)
    assert client.gone


def test_a_client_that_goes_is_logged_and_hears_nothing() -> None:
    talk = Talk()
    client = talk.greeted()
    client.transport.loseConnection()
    talk.net.pump()
    assert talk.logged(639) == ["client  [192.0.2.7] I/O error: connection closed (0)"]
    assert talk.counted(counters.CLIENT_IO_ERROR) == 1
    assert 'f="forged,no_ptr,io_error"' in talk.logged(721)[0]


def test_a_reply_that_cannot_be_written_is_628() -> None:
    talk = Talk(zone="mail.example.org * DELAY 2\nmail.example.org A 192.0.2.7\n")
    client = talk.connect()
    client.transport.write(b"EHLO mail.example.org\r\n")
    client.transport.loseConnection()
    talk.net.pass_time(4)
    assert [entry.message.number for entry in talk.entries if entry.message.number in (628, 639, 721)] == [628, 721]
    assert talk.counted(counters.SERVER_IO_ERROR) == 1


# 3.3


@pytest.mark.parametrize(
    ("state", "counter"), [("HELO", counters.QUIT_AFTER_HELO), ("EHLO", counters.QUIT_AFTER_EHLO), ("RCPT", counters.QUIT_AFTER_RCPT)]
)
def test_quit_counts_the_state_it_leaves(state: str, counter: object) -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    client = brought_to(state, talk)
    (line,) = client.say("QUIT")
    assert line.startswith("221 2.0.0 mx.test closing connection #247 ")
    assert talk.counted(counter) == 1  # type: ignore[arg-type]
    assert talk.counted(counters.CLEAN_QUIT) == 1
    assert talk.counted(counters.DROPPED) == 0


def test_help_ends_with_its_last_line() -> None:
    talk = Talk()
    client = talk.greeted()
    lines = client.say("HELP")
    assert lines[-1] == "214 2.0.0 End"
    assert all(line.startswith("214-2.0.0") for line in lines[:-1])
    assert "AUTH DATA EHLO ETRN HELO HELP NOOP MAIL RCPT RSET QUIT STARTTLS" in "\n".join(lines)


@pytest.mark.parametrize("verb", ["RSET", "EHLO", "HELO", "MAIL"])
def test_a_transaction_ends_at_rset_and_at_a_greeting(verb: str) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = brought_to("RCPT", talk)
    client.say(ARGUMENTS.get(verb, verb))
    if verb == "MAIL":
        assert hop.verbs == ["EHLO", "MAIL", "RCPT"]
        return
    assert hop.verbs == ["EHLO", "MAIL", "RCPT", "QUIT"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["503 #251"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]


def test_rset_after_helo_goes_back_to_helo() -> None:
    talk = Talk()
    client = talk.connect()
    client.say("HELO mail.example.org")
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RSET")
    assert codes(client.say("VRFY x")) == ["502 #250"]
    assert codes(client.say("AUTH PLAIN x")) == ["503 #251"]


def test_etrn_is_passed_to_the_local_route() -> None:
    talk = Talk(route="route:local FORWARD: 192.0.2.66\n")
    hop = talk.hop("192.0.2.66", ETRN=b"253 2.5.0 12 pending\r\n")
    client = talk.connect()
    assert "250-ETRN" in client.say("EHLO mail.example.org")
    (line,) = client.say("ETRN example.com")
    assert line.startswith("253 2.5.0 12 pending #277 ")
    assert "ETRN example.com" in hop.lines


def test_etrn_is_not_offered_without_a_local_route() -> None:
    talk = Talk(route=ROUTE)
    client = talk.connect()
    assert "250-ETRN" not in client.say("EHLO mail.example.org")
