"""Msg-Limit-, Length- and Null-Rate-To: entries, parameters, and the null sender's one recipient."""

from __future__ import annotations

import pytest

from smtpf.filters import msg_limit, null_rate, one_rcpt_per_null, parameters, size
from test.support.talk import Talk, codes

ROUTE = "route:hill.org FORWARD: 45.76.9.1\nroute:local FORWARD: 45.76.9.2\n"


def talk(access: str = "", options: dict | None = None) -> Talk:
    made = Talk(options, access=access, route=ROUTE)
    made.hop("45.76.9.1")
    return made


def say(made: Talk, *lines: str) -> list[str]:
    """Codes of the replies to ``lines`` of one new session."""
    client = made.greeted()
    return [code for line in lines for code in codes(client.say(line))]


ADA = "MAIL FROM:<ada@kestrel.net>"


def test_recipients_are_counted_and_the_one_over_the_limit_hears_of_it() -> None:
    made = talk("msg-limit-from:ada@kestrel.net 2/30m\n")
    client = made.greeted()
    client.say(ADA)
    client.say("RCPT TO:<a@hill.org>")
    client.say("RCPT TO:<b@hill.org>")
    assert client.say("RCPT TO:<c@hill.org>")[0].startswith("451 4.7.1 ada@kestrel.net has exceeded 2 messages per 30 minutes #475")
    assert made.counted(msg_limit.MESSAGE_LIMIT) == 1
    made.net.pass_time(1801)
    assert say(made, ADA, "RCPT TO:<d@hill.org>") == ["250 #283", "250 #297"]


def test_singular_words() -> None:
    made = talk("msg-limit-to:fred@hill.org 1/1h\n")
    say(made, ADA, "RCPT TO:<Fred@hill.org>")
    client = made.greeted()
    client.say(ADA)
    assert " Fred@hill.org has exceeded 1 message per 1 hour #475" in client.say("RCPT TO:<Fred@hill.org>")[0]


def test_recipient_limit_decides_before_sender_and_client() -> None:
    made = talk("msg-limit-to:bob@hill.org 9/1h\nmsg-limit-from:kestrel.net 1/1h\nmsg-limit-connect: 1/1h\n")
    for _ in range(2):
        assert say(made, ADA, "RCPT TO:<bob@hill.org>") == ["250 #283", "250 #297"]
    assert say(made, ADA, "RCPT TO:<cy@hill.org>") == ["250 #283", "451 #475"]


def test_recipient_without_limit_does_not_hide_the_senders() -> None:
    made = talk("msg-limit-to:bob@hill.org -1\nmsg-limit-from:kestrel.net 1/1h\n")
    assert say(made, ADA, "RCPT TO:<bob@hill.org>", "RCPT TO:<bob@hill.org>")[1:] == ["250 #297", "451 #475"]


def test_null_sender_has_no_sender_limit() -> None:
    made = talk("msg-limit-from: 1/1h\n")
    for _ in range(2):
        assert say(made, "MAIL FROM:<>", "RCPT TO:<bob@hill.org>")[1] == "250 #297"


@pytest.mark.parametrize(
    ("reaction", "answers", "reports"),
    [
        ("tempfail", ["250 #297", "451 #475", "451 #475"], 0),
        ("tempfail-report", ["250 #297", "451 #475", "451 #475"], 1),
        ("report-only", ["250 #297", "250 #297", "250 #297"], 1),
        ("report-discard", ["250 #297", "250 #290", "250 #290"], 1),
    ],
)
def test_reactions_and_one_report_per_window(reaction: str, answers: list[str], reports: int) -> None:
    made = talk("msg-limit-connect: 1/1d\n", {msg_limit.MSG_LIMIT_REPORT: reaction})
    hop = made.hop("45.76.9.2")
    assert [say(made, ADA, "RCPT TO:<bob@hill.org>")[1] for _ in range(3)] == answers
    made.net.pass_time(1)
    assert len(hop.contents) == reports
    if reports:
        assert "MAIL FROM:<>" in hop.lines and "RCPT TO:<postmaster>" in hop.lines
        assert b"Subject: message limit exceeded\r\n" in hop.contents[0]
        assert b"192.0.2.7 has exceeded 1 message per 1 day.\r\nThe time window ends at " in hop.contents[0]


LENGTHS = "length-connect: 10M\nlength-from:kestrel.net 5M\nlength-to:a@hill.org 1M\nlength-to:b@hill.org 20m\n"


def test_declared_size_against_the_most_particular_limit() -> None:
    made = talk(LENGTHS)
    client = made.greeted()
    client.say(f"{ADA} SIZE=6000000")
    refused = client.say("RCPT TO:<a@hill.org>")[0]
    assert refused.startswith("552 5.3.4 <a@hill.org> (6000000 bytes) exceeded max. message size of 1048576 bytes #901")
    assert codes(client.say("RCPT TO:<b@hill.org>")) == ["250 #297"]
    client.say("RSET")
    client.say(f"{ADA} SIZE=6000000")
    assert codes(client.say("RCPT TO:<c@hill.org>")) == ["552 #901"]


def test_session_limit_is_advertised() -> None:
    assert "250-SIZE 10485760" in talk(LENGTHS).connect().say("EHLO x.example")
    assert "250-SIZE 0" in talk().connect().say("EHLO x.example")


@pytest.mark.parametrize(("value", "answer"), [("1" * 21, "501 #903"), ("12a", "501 #280"), ("1" * 20, "250 #283")])
def test_size_parameter_must_be_a_number_of_twenty_digits_at_most(value: str, answer: str) -> None:
    assert say(talk(), f"{ADA} SIZE={value}") == [answer]


@pytest.mark.parametrize(
    ("access", "answer"),
    [
        ("length-from:kestrel.net 1K\n", "550 #625"),
        ("length-from:kestrel.net 1K\nconnect:192.0.2.7 OK\n", "550 #625"),
        ("length-from:kestrel.net 2k\n", "250 #554"),
        ("length-connect: 1K\nlength-from:kestrel.net -1\n", "250 #554"),
        ("length-connect: 1K\nlength-to:bob@hill.org 4K\n", "250 #554"),
    ],
)
def test_size_at_the_dot(access: str, answer: str) -> None:
    made = talk(access)
    client = made.greeted()
    client.say(ADA)
    client.say("RCPT TO:<bob@hill.org>")
    heard = client.message("Subject: x\r\n\r\n" + ("x" * 70 + "\r\n") * 20)
    assert codes(heard) == [answer]
    assert made.counted(size.MESSAGE_SIZE) == (answer == "550 #625")


def test_bounce_has_one_recipient() -> None:
    made = talk()
    assert say(made, "MAIL FROM:<>", "RCPT TO:<x@other.net>", "RCPT TO:<bob@hill.org>", "RCPT TO:<cy@hill.org>")[1:] == [
        "550 #288",
        "250 #297",
        "550 #441",
    ]
    assert made.counted(one_rcpt_per_null.ONE_RCPT) == 1
    off = talk("", {one_rcpt_per_null.ONE_RCPT_PER_NULL: "-"})
    assert say(off, "MAIL FROM:<>", "RCPT TO:<bob@hill.org>", "RCPT TO:<cy@hill.org>")[1:] == ["250 #297", "250 #297"]


def bounce(made: Talk, recipient: str) -> list[str]:
    client = made.greeted()
    client.say("MAIL FROM:<>")
    client.say(f"RCPT TO:<{recipient}>")
    return client.message()


def test_bounces_to_a_domain_in_a_minute() -> None:
    made = talk("null-rate-to:hill.org 2\n")
    assert codes(bounce(made, "a@hill.org")) == codes(bounce(made, "b@hill.org")) == ["250 #554"]
    refused = bounce(made, "joe@hill.org")
    assert refused[0].startswith("550 5.7.1 null-sender messages 3 for <joe@hill.org> exceed 2/60s #505")
    assert made.counted(null_rate.NULL_RATE_TO) == 1
    made.net.pass_time(61)
    assert codes(bounce(made, "joe@hill.org")) == ["250 #554"]


@pytest.mark.parametrize(("limit", "answer"), [("0", "550 #505"), ("-1", "250 #554")])
def test_bounces_may_be_forbidden_or_free(limit: str, answer: str) -> None:
    assert codes(bounce(talk(f"null-rate-to: {limit}\n"), "joe@hill.org")) == [answer]


def test_parameters_need_ehlo() -> None:
    made = talk()
    client = made.connect()
    client.say("HELO mail.example.org")
    assert codes(client.say(f"{ADA} SIZE=10")) == ["555 #1016"]
    client.say(ADA)
    assert codes(client.say("RCPT TO:<bob@hill.org> NOTIFY=NEVER")) == ["555 #1017"]
    assert made.counted(parameters.HELO_MAIL_PARAMS) == made.counted(parameters.HELO_RCPT_PARAMS) == 1
    assert say(made, f"{ADA} BODY=BINARYMIME") == ["555 #1016"]
