"""Row AA: never a 250 that no next hop has given, whatever dies at whichever step; doubles only where the protocol allows them."""

from __future__ import annotations

from typing import Any

import pytest

from smtpf.filters import order
from smtpf.pipeline import Filter, Pipeline, Stage
from smtpf.smtp.session import Session, Transaction
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
CLOSE = b"\0close"
STEPS = ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT")


def deliver(talk: Talk, text: bytes = b"S: x\r\n\r\nhi\r\n") -> tuple[Client, list[str]]:
    client = talk.greeted()
    heard: list[str] = []
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        heard = codes(client.say(line))
        if heard != ["354"] and line == "DATA":
            return client, heard
    return client, codes(client.send(text + b".\r\n"))


@pytest.mark.parametrize(
    "answer",
    [
        CLOSE,
        None,
        b"421 going down\r\n",
        b"451 later\r\n",
        b"550 no\r\n",
        b"garbage\r\n",
        b"250",
        b"199 x\r\n",
        b"999 x\r\n",
        b"250-a\r\n550 b\r\n",
    ],
)
@pytest.mark.parametrize("step", STEPS)
def test_a_next_hop_that_fails_at_any_step(step: str, answer: bytes | None) -> None:
    talk = Talk({"smtp-connect-timeout": "5", "smtp-command-timeout": "20", "smtp-dot-timeout": "20"}, route=ROUTE)
    hop = talk.hop("192.0.2.1", **{step: answer, **({"HELO": answer} if step == "EHLO" else {})})
    client = talk.greeted()
    heard: list[str] = []
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        client.send(b"")
        heard = codes(client.say(line))
        for _ in range(30):
            if heard or client.gone:
                break
            talk.net.pass_time(1)
            heard = codes(client.take())
    if heard == ["354"]:
        heard = codes(client.send(b"S: x\r\n\r\nhi\r\n.\r\n"))
        for _ in range(30):
            if heard or client.gone:
                break
            talk.net.pass_time(1)
            heard = codes(client.take())
    assert heard
    assert not heard[-1].startswith("250")
    assert len(hop.contents) == (step == "CONTENT")
    client.say("QUIT")
    talk.net.pass_time(1)
    assert talk.engine.conversations == {}


@pytest.mark.parametrize("answer", [b"250 ok\r\n", b"250-ok\r\n250 ok\r\n", b"251 ok\r\n", b"220 ok\r\n"])
def test_only_the_next_hops_own_2xy_is_passed_on(answer: bytes) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", CONTENT=answer)
    _, heard = deliver(talk)
    assert heard == ["250 #554"]
    assert len(hop.contents) == 1


FAULTS = (Stage.CONNECT, Stage.HELO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.HEADERS, Stage.CONTENT, Stage.DOT)


class Faulty(Filter):
    """A filter with a fault of its own."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def _fail(self, stage: Stage) -> None:
        if stage is self.stage:
            raise ZeroDivisionError("a fault")

    def connect(self, session: Session) -> None:
        self._fail(Stage.CONNECT)

    def helo(self, session: Session) -> None:
        self._fail(Stage.HELO)

    def mail(self, session: Session, transaction: Transaction) -> None:
        self._fail(Stage.MAIL)

    def rcpt(self, session: Session, transaction: Transaction, recipient: Any) -> None:
        self._fail(Stage.RCPT)

    def data(self, session: Session, transaction: Transaction) -> None:
        self._fail(Stage.DATA)

    def headers(self, session: Session, transaction: Transaction) -> None:
        self._fail(Stage.HEADERS)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> None:
        self._fail(Stage.CONTENT)

    def dot(self, session: Session, transaction: Transaction) -> None:
        self._fail(Stage.DOT)

    def rset(self, session: Session, transaction: Transaction) -> None:
        self._fail(Stage.RSET)

    def close(self, session: Session) -> None:
        self._fail(Stage.CLOSE)


@pytest.mark.parametrize("stage", FAULTS)
def test_a_fault_of_ours_is_421_and_delivers_nothing(stage: Stage) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    talk.engine.pipeline = Pipeline(order.bind(talk.filters, [Faulty(stage)]))
    released: list[None] = []
    talk.reception.released = lambda: released.append(None)
    client, _ = deliver(talk)
    assert client.gone
    assert hop.contents == []
    assert talk.engine.conversations == {}
    assert released == [None]
    assert len(talk.logged(539)) == 1
    numbers = [entry.message.number for entry in talk.entries if entry.message.number in (539, 720, 721)]
    assert numbers == ([539, 721] if stage not in (Stage.HEADERS, Stage.CONTENT, Stage.DOT) else [720, 539, 721])
    assert talk.net.transports == []


@pytest.mark.parametrize("stage", [Stage.RSET, Stage.CLOSE])
def test_a_fault_at_the_end_gives_the_place_free(stage: Stage) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    talk.engine.pipeline = Pipeline(order.bind(talk.filters, [Faulty(stage)]))
    released: list[None] = []
    talk.reception.released = lambda: released.append(None)
    client, heard = deliver(talk)
    client.say("QUIT")
    talk.net.pass_time(1)
    assert heard[:1] == ["250 #554"]
    assert len(hop.contents) == 1
    assert client.gone
    assert talk.engine.conversations == {}
    assert released == [None]
    assert talk.logged(539)


def test_a_client_that_vanishes_while_the_next_hop_answers_may_send_a_double_and_it_is_logged() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", CONTENT=None)
    client = talk.greeted()
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>"):
        client.say(line)
    client.message()
    client.transport.abortConnection()
    talk.net.pump()
    assert len(hop.contents) == 1
    hop.sessions[0].transport.write(b"250 taken\r\n")
    talk.net.pump()
    assert len(talk.logged(316)) == len(talk.logged(720)) == 1
    assert "io_error" in talk.logged(721)[0]


@pytest.mark.parametrize("cut", range(14))
def test_a_client_that_vanishes_before_the_dot_delivers_nothing(cut: int) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        client.say(line)
    client.transport.write(b"S: x\r\n\r\nhi\r\n."[:cut])
    client.transport.loseConnection()
    talk.net.pump()
    assert hop.contents == []
    assert "DATA" not in hop.verbs
    assert talk.engine.conversations == {}
