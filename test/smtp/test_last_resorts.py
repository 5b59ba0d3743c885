"""What a session does when memory runs out, and what it tells of clients in a hurry."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from smtpf.pipeline import Filter
from smtpf.smtp.options import SMTP_DISCONNECT_AFTER_DOT
from smtpf.smtp.session import Session, Transaction
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1"


def test_out_of_memory_ends_the_session_with_421(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Talk(route=ROUTE)
    client = talk.greeted()

    def exhausted(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Session, "count", exhausted)
    answer = client.say("MAIL FROM:<joe@example.org>")
    monkeypatch.undo()
    assert codes(answer) == ["421 #551"]
    assert client.gone
    assert talk.logged(538)[0].startswith("out of memory test_last_resorts.py(")


@pytest.mark.parametrize(("text", "logged"), [("+", ["pipelining byte=51"]), ("-", [])])
def test_octets_behind_the_message_are_told_when_asked_for(text: str, logged: list[str]) -> None:
    talk = Talk({SMTP_DISCONNECT_AFTER_DOT: text}, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    client.say("DATA")
    assert codes(client.send(b"Subject: x\r\n\r\nhi\r\n.\r\nQUIT\r\n")) == ["250 #554", "221 #247"]
    assert talk.logged(315) == logged


class Forgetful(Filter):
    """Of a third party, and broken: it fails when a transaction is over."""

    def rset(self, session: Session, transaction: Transaction) -> None:
        raise LookupError("nothing to forget")


def test_a_filter_that_fails_at_the_end_of_a_transaction_keeps_nothing_of_it() -> None:
    talk = Talk(route=ROUTE, extensions=[SimpleNamespace(filter=lambda materials: Forgetful())])
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    client.say("DATA")
    before = talk.engine.room.left
    client.send(b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" + b"".join([b"y" * 998 + b"\r\n"] * 400) + b".\r\n")
    assert len(hop.contents) == 1
    assert client.gone
    assert len(talk.logged(539)) == 1
    assert talk.engine.room.left == before
    assert not talk.engine.conversations
    assert hop.verbs[-1] == "QUIT"
