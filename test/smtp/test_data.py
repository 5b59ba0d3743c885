"""DATA: where a message ends, its headers, what is relayed, and what the client hears (chapter session, 4.7, 7 and 8)."""

from __future__ import annotations

import pytest

from smtpf.smtp import counters
from test.support.talk import Client, Talk, codes

ROUTE = "route:x.com FORWARD: 192.0.2.1\nroute:y.com FORWARD: 192.0.2.2\nroute:z.com FORWARD: 192.0.2.1\n"


def ready(talk: Talk, *recipients: str, address: str = "192.0.2.7") -> Client:
    client = talk.greeted(address)
    client.say("MAIL FROM:<joe@example.org>")
    for recipient in recipients or ("a@x.com",):
        assert codes(client.say(f"RCPT TO:<{recipient}>")) == ["250 #297"]
    return client


def body(content: bytes) -> bytes:
    """What follows our own header fields."""
    return content.partition(b"\r\n\r\n")[2]


# 7.1

ENDS, WAITS = True, False


@pytest.mark.parametrize("cut", [None, 1, 2, 3])
@pytest.mark.parametrize(
    ("octets", "lenient", "strict", "content"),
    [
        (b"Subject: x\r\n\r\nhi\r\n.\r\n", ENDS, ENDS, b"hi\r\n"),
        (b"Subject: x\r\n\r\nhi\n.\r\n", ENDS, WAITS, b"hi\r\n"),
        (b"Subject: x\r\n\r\nhi\r\n.\n", ENDS, WAITS, b"hi\r\n"),
        (b"Subject: x\r\n\r\nhi\r\n.\r", ENDS, WAITS, b"hi\r\n"),
        (b"Subject: x\r\n\r\nhi\r\n..\r\n.\r\n", ENDS, ENDS, b"hi\r\n.\r\n"),
        (b".\r\n", ENDS, ENDS, b""),
    ],
)
def test_where_a_message_ends(octets: bytes, lenient: bool, strict: bool, content: bytes, cut: int | None) -> None:
    for option, ends in (("-", lenient), ("+", strict)):
        if octets.endswith(b".\r") and option == "-":
            continue
        talk = Talk({"rfc2821-strict-dot": option}, route=ROUTE)
        hop = talk.hop("192.0.2.1")
        client = ready(talk)
        client.say("DATA")
        if cut is None:
            heard = client.send(octets)
        else:
            heard = client.send(octets[:-cut]) + client.send(octets[-cut:])
        assert codes(heard) == (["250 #554"] if ends else [])
        if ends:
            got = body(hop.contents[0])
            assert got == (content.replace(b"\r\n.\r\n", b"\r\n..\r\n"))


@pytest.mark.parametrize(
    ("octets", "number"),
    [(b"hi\r\n.\n", 319), (b"hi\r\n.\r", 319), (b".\n", 319), (b"hi\n.\r\n", 319), (b"hi\r\n. \n", 320), (b"hi\r\n", 320)],
)
def test_silence_after_a_dot_that_ends_nothing(octets: bytes, number: int) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    assert client.send(octets) == []
    talk.net.pass_time(181)
    assert client.take() == []
    assert client.gone
    assert [entry.message.number for entry in talk.entries if entry.message.number in (319, 320)] == [number]
    assert talk.counted(counters.STRICT_DOT) == (number == 319)
    assert talk.counted(counters.CLIENT_TIMEOUT) == 1
    assert talk.logged(720)[0].endswith('x=""')
    assert hop.contents == []


def test_a_message_line_must_come_within_its_timeout() -> None:
    talk = Talk({"smtp-data-line-timeout": "60"}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    for _ in range(4):
        client.send(b"a line\r\n")
        talk.net.pass_time(40)
    assert not client.gone
    for _ in range(4):
        client.send(b"x")
        talk.net.pass_time(20)
    assert client.gone
    assert len(talk.logged(320)) == 1


def test_a_client_that_goes_in_the_middle_is_320() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    client.send(b"half a mess")
    client.transport.loseConnection()
    talk.net.pump()
    assert len(talk.logged(320)) == 1
    assert talk.logged(639) == []
    assert "b=11 " in talk.logged(720)[0]
    heard = len("EHLO mail.example.org\r\nMAIL FROM:<joe@example.org>\r\nRCPT TO:<a@x.com>\r\nDATA\r\nhalf a mess")
    assert f" b={heard} " in talk.logged(721)[0]
    assert hop.verbs[-1] == "QUIT"


@pytest.mark.parametrize(("line", "word"), [(b"a\nb\r\n", "LF"), (b"a\rb\r\n", "CR"), (b"a\r\r\n", "CR")])
@pytest.mark.parametrize("trusted", [False, True])
def test_bare_line_ends(line: bytes, word: str, trusted: bool) -> None:
    talk = Talk(route=ROUTE + ("route:192.0.2.7 RELAY\nroute:local FORWARD: 192.0.2.1\n" if trusted else ""))
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    (heard,) = client.send(b"S: x\r\n\r\n" + line + b".\r\n")
    if trusted:
        assert codes([heard]) == ["250 #554"]
        assert b"\n" not in body(hop.contents[0]).replace(b"\r\n", b"")
        assert b"\r" not in body(hop.contents[0]).replace(b"\r\n", b"")
    else:
        assert heard.startswith(f"550 5.5.2 message contains a bare {word} #1145 ")
        assert hop.contents == []
        assert heard in talk.logged(720)[0]
    assert codes(client.say("NOOP")) == ["250 #547"]


@pytest.mark.parametrize(("level", "size", "code", "gone"), [
    ("0", 5000, "250 #554", False), ("1", 1000, "250 #554", False), ("1", 1001, "554 #321", False), ("2", 1001, "554 #321", True),
])  # fmt: skip
@pytest.mark.parametrize("trusted", [False, True])
def test_line_length(level: str, size: int, code: str, gone: bool, trusted: bool) -> None:
    talk = Talk(
        {"rfc2821-line-length": level}, route=ROUTE + ("route:192.0.2.7 RELAY\nroute:local FORWARD: 192.0.2.1\n" if trusted else "")
    )
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    heard = client.send(b"S: x\r\n\r\n" + b"y" * (size - 2) + b"\r\nNOOP\r\n.\r\n")
    assert codes(heard) == [code]
    assert client.gone is gone
    assert len(hop.contents) == (code == "250 #554")
    assert talk.counted(counters.LINE_LENGTH) == (code != "250 #554")
    if code != "250 #554":
        assert heard[0].startswith("554 5.5.2 content line too long (1001); RFC 2821 section 4.5.3.1 #321 ")


# 7.2 to 7.4


@pytest.mark.parametrize(
    ("start", "fields", "rest"),
    [
        (b"A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n", [b"A: 1", b"B: 2\r\n 3"], b"body\r\n"),
        (b"A: 1\r\nno field\r\nbody\r\n", [b"A: 1"], b"no field\r\nbody\r\n"),
        (b"A: 1\r\n: no name\r\n", [b"A: 1"], b": no name\r\n"),
        (b"\r\nbody\r\n", [], b"body\r\n"),
        (b"body only\r\n", [], b"body only\r\n"),
        (b"A: 1\r\n", [b"A: 1"], b""),
        (b"", [], b""),
    ],
)
def test_header_and_body_are_told_apart(start: bytes, fields: list[bytes], rest: bytes) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    assert codes(client.send(start + b".\r\n")) == ["250 #554"]
    head, _, content = hop.contents[0].partition(b"\r\n\r\n")
    assert content == rest
    assert b"Received: from mail.example.org ( [192.0.2.7])\r\n\tby mx.test " in head
    positions = [head.index(field) for field in fields]
    assert positions == sorted(positions)
    assert b"X-smtpf-Report: " in head


def test_report_header_counts_and_replaces() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", RCPT=[b"250 ok\r\n", b"550 no\r\n"])
    client = ready(talk)
    client.say("RCPT TO:<b@x.com>")
    client.say("DATA")
    client.send(b"X-smtpf-Report: forged\r\nX-smtpf-Reporter: other\r\nS: x\r\n\r\nhi\r\n.\r\n")
    sid = next(entry.session for entry in talk.entries if entry.message.number == 720)
    head = hop.contents[0].partition(b"\r\n\r\n")[0].decode()
    (report,) = [line for line in head.replace("\r\n\t", " ").split("\r\n") if line.startswith("X-smtpf-Report:")]
    assert f"sid={sid}; tid=" in report
    assert "; nrcpt=1:1; fails=1" in report
    assert "forged" not in report.replace("forged,no_ptr", "")
    assert "X-smtpf-Reporter: other" in head


# 4.7 and 8.2


@pytest.mark.parametrize(
    ("number", "one", "two", "code", "dsn"),
    [
        ("one: accepts", {}, None, "250 #554", False),
        ("one: 5xy at dot", {"CONTENT": b"554 no\r\n"}, None, "554 #306", False),
        ("one: 4xy at dot", {"CONTENT": b"451 later\r\n"}, None, "451 #307", False),
        ("one: closes at dot", {"CONTENT": b"\0close"}, None, "451 #307", False),
        ("one: 5xy at DATA", {"DATA": b"554 no\r\n"}, None, "554 #306", False),
        ("one: 4xy at DATA", {"DATA": b"451 no\r\n"}, None, "451 #307", False),
        ("one: closes at DATA", {"DATA": b"\0close"}, None, "451 #307", False),
        ("one: 251 at dot", {"CONTENT": b"251 well\r\n"}, None, "250 #554", False),
        ("one: 354 at dot", {"CONTENT": b"354 what\r\n"}, None, "451 #307", False),
        ("one: 250 at DATA", {"DATA": b"250 what\r\n"}, None, "451 #307", False),
        ("both accept", {}, {}, "250 #554", False),
        ("example 1", {}, {"CONTENT": b"554 no\r\n"}, "250 #554", True),
        ("example 2", {"CONTENT": b"451 x\r\n"}, {"CONTENT": b"554 no\r\n"}, "451 #307", False),
        ("both 5xy", {"CONTENT": b"550 x\r\n"}, {"CONTENT": b"554 no\r\n"}, "554 #306", False),
        ("DATA nowhere", {"DATA": b"550 x\r\n"}, {"DATA": b"554 no\r\n"}, "554 #306", False),
        ("DATA nowhere for now", {"DATA": b"450 x\r\n"}, {"DATA": b"554 no\r\n"}, "451 #307", False),
        ("DATA at one, dot at none", {"DATA": b"550 x\r\n"}, {"CONTENT": b"554 no\r\n"}, "554 #306", False),
    ],
)
def test_what_the_client_hears(number: str, one: dict[str, bytes], two: dict[str, bytes] | None, code: str, dsn: bool) -> None:
    talk = Talk(route=ROUTE + "route:local FORWARD: 192.0.2.66\n")
    talk.hop("192.0.2.1", **one)
    if two is not None:
        talk.hop("192.0.2.2", **two)
    local = talk.hop("192.0.2.66")
    client = ready(talk, *(["a@x.com"] if two is None else ["a@x.com", "b@y.com"]))
    assert codes(client.message()) == [code]
    talk.net.pass_time(1)
    assert len(local.contents) == dsn
    if dsn:
        assert talk.logged(331) == ["route:y.com rejected message: 554 no"]
        assert b"Final-Recipient: rfc822; b@y.com" in local.contents[0]
        assert b"Status: 5.0.0" in local.contents[0]
    assert len(talk.logged(312)) == number.startswith("DATA nowhere")
    assert codes(client.say("NOOP")) == ["250 #547"]


def test_example_3_the_second_recipient_is_refused() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", RCPT=[b"250 ok\r\n", b"550 5.1.1 no\r\n"])
    client = ready(talk)
    assert codes(client.say("RCPT TO:<b@x.com>")) == ["550 #300"]
    assert codes(client.message()) == ["250 #554"]
    assert len(hop.contents) == 1


def test_example_4_routes_with_the_same_host_share_a_connection() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk, "a@x.com", "b@z.com")
    assert codes(client.message()) == ["250 #554"]
    assert len(hop.sessions) == len(hop.contents) == 1


def test_hosts_are_asked_in_parallel_with_the_full_timeout_each() -> None:
    talk = Talk({"smtp-dot-timeout": "100"}, route=ROUTE)
    talk.hop("192.0.2.1", CONTENT=None)
    talk.hop("192.0.2.2", CONTENT=None)
    client = ready(talk, "a@x.com", "b@y.com")
    client.message()
    talk.net.pass_time(99)
    assert client.take() == []
    talk.net.pass_time(2)
    assert codes(client.take()) == ["451 #307"]


def test_a_client_gone_before_the_relay_gets_nothing_delivered() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.say("DATA")
    client.transport.write(b"S: x\r\n\r\nhi\r\n.\r\n")
    client.transport.loseConnection()
    (wire,) = [each.protocol for each in talk.net.transports if each.other is client.transport]
    waiting = talk.engine.pipeline.run

    async def slowly(stage, session, *args):  # type: ignore[no-untyped-def]
        if stage.value == "dot":
            await wire.rest(5.0)
        return await waiting(stage, session, *args)

    talk.engine.pipeline.run = slowly  # type: ignore[method-assign]
    talk.net.pass_time(6)
    assert hop.contents == []
    assert len(talk.logged(314)) == 1
    assert talk.counted(counters.DISCONNECT_AFTER_DOT) == 1


def test_a_client_gone_during_the_relay_does_not_interrupt_it() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", CONTENT=None)
    client = ready(talk)
    client.message()
    client.transport.loseConnection()
    talk.net.pump()
    assert len(hop.contents) == 1
    hop.sessions[0].transport.write(b"250 taken\r\n")
    talk.net.pump()
    assert len(talk.logged(316)) == 1
    assert 'x="250 2.0.0 message ' in talk.logged(720)[0]
    assert len(talk.logged(628)) == 1
    assert talk.engine.conversations == {}
