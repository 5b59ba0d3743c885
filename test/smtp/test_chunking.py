"""BDAT towards the client (RFC 3030): chunks, their answers, and what the next hop gets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpf.smtp.chunking import Chunking
from smtpf.smtp.dot_stuffing import DotReader
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
MESSAGE = b"Subject: hello\r\n\r\none\r\n.two\r\n.\r\nthree\r\n"


def ready(talk: Talk) -> Client:
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]
    return client


def bdat(octets: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets


def test_chunking_is_offered() -> None:
    assert "250-CHUNKING" in Talk().connect().say("EHLO mail.example.org")
    assert "250-CHUNKING" not in Talk({"rfc3030-chunking": "-"}).connect().say("EHLO mail.example.org")


@pytest.mark.parametrize("cut", [(), (5,), (16, 17, 18), (20, 21, 22, 23, 24, 25, 26, 27), tuple(range(1, len(MESSAGE)))])
def test_chunks_make_one_message(cut: tuple[int, ...]) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    pieces = [MESSAGE[a:b] for a, b in itertools.pairwise((0, *cut, len(MESSAGE)))]
    for piece in pieces[:-1]:
        (line,) = client.send(bdat(piece))
        assert line.startswith(f"250 2.0.0 {len(piece)} octets received #1152 ")
    assert hop.contents == []
    assert codes(client.send(bdat(pieces[-1], last=True))) == ["250 #554"]
    assert hop.contents[0].endswith(b"\r\n\r\none\r\n..two\r\n..\r\nthree\r\n")
    assert f" b={len(MESSAGE)} " in talk.logged(720)[0]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]


def test_an_empty_last_chunk_ends_the_message() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    assert codes(client.send(bdat(MESSAGE) + bdat(b"", last=True) + b"NOOP\r\n")) == ["250 #1152", "250 #554", "250 #547"]
    assert len(hop.contents) == 1


def test_a_message_without_final_line_end_gets_one() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    assert codes(ready(talk).send(bdat(b"S: x\r\n\r\nend", last=True))) == ["250 #554"]
    assert hop.contents[0].endswith(b"\r\n\r\nend\r\n")


@pytest.mark.parametrize("verb", ["DATA", "RCPT TO:<bob@example.com>", "MAIL FROM:<joe@example.org>", "STARTTLS", "AUTH PLAIN x"])
def test_other_commands_between_chunks_are_out_of_sequence(verb: str) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.send(bdat(MESSAGE))
    assert codes(client.say(verb)) == ["503 #251"]
    assert codes(client.say("NOOP")) == ["250 #547"]
    assert codes(client.send(bdat(b"", last=True))) == ["250 #554"]
    assert len(hop.contents) == 1


@pytest.mark.parametrize("verb", ["RSET", "EHLO mail.example.org", "HELO mail.example.org"])
def test_a_message_is_abandoned_between_chunks(verb: str) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    client.send(bdat(MESSAGE))
    assert codes(client.say(verb))[-1].startswith("250")
    assert hop.contents == []
    assert hop.verbs[-1] == "QUIT"
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["503 #251"]
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    assert codes(client.message()) == ["250 #554"]
    assert hop.contents[0].count(b"three") == 0


@pytest.mark.parametrize("state", ["EHLO", "MAIL"])
def test_a_chunk_out_of_sequence_is_read_and_never_carried_out(state: str) -> None:
    talk = Talk(route=ROUTE)
    client = talk.greeted()
    if state == "MAIL":
        client.say("MAIL FROM:<joe@example.org>")
    heard = client.send(bdat(b"QUIT\r\nNOOP\r\n", last=True) + b"NOOP\r\n")
    assert codes(heard) == ["503 #251", "250 #547"]


@pytest.mark.parametrize("argument", ["", "x", "-1", "1 FIRST", "1 LAST LAST", "99999999999999999999999", "1e3", "0x10"])
def test_a_chunk_of_unknown_length_ends_the_session(argument: str) -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    client = ready(talk)
    assert codes(client.send(f"BDAT {argument}\r\nQUIT\r\n".encode())) == ["501 #1153"]
    assert client.gone


@pytest.mark.parametrize("option", [True, False])
def test_bdat_that_was_not_offered_ends_the_session(option: bool) -> None:
    talk = Talk({"rfc3030-chunking": "-"} if option else None)
    client = talk.connect()
    client.say("EHLO mail.example.org" if option else "HELO mail.example.org")
    assert codes(client.send(bdat(b"MAIL FROM:<joe@example.org>\r\n")))[0] == "500 #248"
    assert client.gone


def test_bare_line_ends_are_refused() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = ready(talk)
    assert codes(client.send(bdat(b"S: x\r\n\r\na\n.\nb\r\n", last=True))) == ["550 #1145"]
    assert hop.contents == []
    assert codes(client.say("NOOP")) == ["250 #547"]


def test_a_client_that_goes_between_chunks_or_within_one() -> None:
    for octets in (bdat(MESSAGE), bdat(MESSAGE)[:-4]):
        talk = Talk(route=ROUTE)
        hop = talk.hop("192.0.2.1")
        client = ready(talk)
        client.send(octets)
        client.transport.loseConnection()
        talk.net.pump()
        assert talk.logged(720)[0].endswith('x=""')
        assert hop.contents == []
        assert talk.engine.conversations == {}


def test_a_refusing_data_stage_reads_the_chunk_and_refuses_the_rest() -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    client = ready(talk)
    from smtpf.pipeline import reject
    from smtpf.reply import Reply
    from test.smtp.test_outgoing_replies import judged

    judged(talk, data=reject(Reply(999, "550 5.7.1 no")))
    heard = client.send(bdat(b"QUIT\r\n") + bdat(b"QUIT\r\n", last=True) + b"DATA\r\nRSET\r\n")
    assert codes(heard) == ["550 #999", "503 #251", "503 #251", "250 #547"]
    assert len(talk.logged(719)) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet=".\r\nab", max_size=8).map(str.encode), max_size=6))
def test_whatever_the_chunks_hold_the_message_ends_at_its_last_one(chunks: list[bytes]) -> None:
    chunking, reader = Chunking(), DotReader()
    content = b""
    for chunk in chunks:
        content += reader.feed(chunking.stuffed(chunk))
        assert not reader.finished
    content += reader.feed(chunking.end())
    assert reader.finished
    assert reader.rest == b""
    whole = b"".join(chunks)
    wanted = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert content in (wanted, wanted + b"\r\n")
    if whole and not whole.endswith((b"\n", b"\r")):
        assert content == wanted + b"\r\n"


@pytest.mark.parametrize("address", ["192.0.2.7", "127.0.0.1"])
def test_a_message_dropped_within_a_chunk_ends_the_session(address: str) -> None:
    talk = Talk({"rfc2821-line-length": "2"}, route=ROUTE + "route:local FORWARD: 192.0.2.1\n")
    hop = talk.hop("192.0.2.1")
    client = talk.greeted(address)
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    octets = b"S: x\r\n\r\n" + b"y" * 2000 + b"\r\n"
    heard = client.send(b"BDAT 200000 LAST\r\n" + octets + b"QUIT\r\nNOOP\r\n")
    assert codes(heard) == ["554 #321"]
    assert client.gone
    assert hop.contents == []
