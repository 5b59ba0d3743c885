"""What a session held is free as soon as it is over, without the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from smtpf.smtp import conversation
from smtpf.smtp.forward import ForwardConnection
from smtpf.smtp.session import Recipient, Session, Transaction
from test.support.talk import Client, Talk


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """References to all that sessions make. The collector rests meanwhile."""
    references: list[weakref.ref[Any]] = []
    for kind in (Session, Transaction, Recipient, ForwardConnection, conversation.Conversation):
        plain: Callable[..., None] = kind.__init__

        def begin(self: Any, *args: Any, plain: Callable[..., None] = plain, **named: Any) -> None:
            references.append(weakref.ref(self))
            plain(self, *args, **named)

        monkeypatch.setattr(kind, "__init__", begin)
    gc.collect()
    gc.disable()
    yield references
    gc.enable()


def _quit(client: Client) -> None:
    client.message()
    client.say("QUIT")


def _vanish(client: Client) -> None:
    client.send(b"DATA\r\nSubject: x\r\n\r\nhalf a li")
    client.transport.loseConnection()


def _reset(client: Client) -> None:
    client.say("RSET")
    client.say("QUIT")


def _refused(client: Client) -> None:
    client.say("RCPT TO:<nobody@elsewhere.example>")
    client.say("QUIT")


@pytest.mark.parametrize("end", [_quit, _vanish, _reset, _refused])
def test_nothing_of_a_session_waits_for_the_collector(made: list[weakref.ref[Any]], end: Callable[[Client], None]) -> None:
    talk = Talk(route="route:example.com\tFORWARD: 192.0.2.1\n")
    talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    client.say("RCPT TO:<ann@example.com>")
    end(client)
    client.wait()
    assert len(talk.logged(721)) == 1
    assert {type(found).__name__ for reference in made if (found := reference()) is not None} == set()
    assert len(made) >= 5
