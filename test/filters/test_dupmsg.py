"""Duplicate messages in whole sessions."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from smtpf.filters.dupmsg import CACHED, DUPMSG_TRACK_ALL, DUPMSG_TTL, HIT
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\n"
TEXT = "Message-ID: <m1@x>\r\n\r\naaa\r\n"


class Here:
    def __init__(self, options=None, **script):
        self.talk = Talk(options or {}, route=ROUTE)
        self.hop = self.talk.hop("192.0.2.1", **script)

    def begin(self, sender="ada@kestrel.net", recipients="bob@hill.org", address="81.2.69.10"):
        client = self.talk.greeted(address)
        client.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients.split():
            client.say(f"RCPT TO:<{recipient}>")
        return client

    def send(self, text=TEXT, **envelope):
        client = self.begin(**envelope)
        answer = codes(client.message(text))
        client.say("QUIT")
        return answer

    def lose_reply(self):
        """A message whose client is gone before the next hop has answered; the session's id."""
        self.hop.script["CONTENT"] = None
        client = self.begin()
        client.message(TEXT)
        client.transport.loseConnection()
        self.talk.net.pump()
        self.hop.sessions[-1].transport.write(b"250 2.0.0 taken\r\n")
        self.talk.net.pump()
        self.hop.script["CONTENT"] = b"250 2.0.0 taken\r\n"
        return next(entry.session for entry in self.talk.entries if entry.message.number == 721)


def test_message_whose_client_was_lost_is_not_delivered_twice():
    here = Here()
    first = here.lose_reply()
    assert len(here.hop.contents) == 1
    assert here.talk.counted(CACHED) == 1
    assert here.send() == ["250 #554"]
    assert len(here.hop.contents) == 1
    assert here.talk.logged(337) == [f"DISCARD duplicate Message-Id=<m1@x> previous session={first}"]
    assert 'f="discard"' in here.talk.logged(720)[-1]
    assert here.talk.counted(HIT) == 1


@pytest.mark.parametrize(
    ("text", "envelope"),
    [
        (TEXT.replace("aaa", "bbb"), {}),
        (TEXT.replace("m1", "m2"), {}),
        (TEXT, {"sender": "eve@kestrel.net"}),
        (TEXT, {"recipients": "ann@hill.org"}),
        (TEXT, {"recipients": "bob@hill.org ann@hill.org"}),
    ],
)
def test_other_messages_are_delivered(text, envelope):
    here = Here()
    here.lose_reply()
    assert here.send(text, **envelope) == ["250 #554"]
    assert len(here.hop.contents) == 2


def test_by_default_the_same_message_passes_again():
    here = Here()
    assert [here.send(), here.send()] == [["250 #554"], ["250 #554"]]
    assert len(here.hop.contents) == 2


def test_every_message_can_be_tracked():
    here = Here({DUPMSG_TRACK_ALL: "+"})
    assert here.send() == ["250 #554"]
    assert here.send() == ["550 #340"]
    assert 'f="discard"' in here.talk.logged(720)[-1]
    assert here.send(address="127.0.0.1") == ["550 #340"]
    assert here.talk.logged(337)[0].startswith("REJECT duplicate Message-Id=<m1@x> previous session=")


def test_recipient_in_other_letters_is_the_same():
    here = Here({DUPMSG_TRACK_ALL: "+"})
    assert here.send(recipients="bob@hill.org") == ["250 #554"]
    assert here.send(recipients="BOB@Hill.org") == ["550 #340"]


def test_known_clients_are_not_tracked():
    here = Here({DUPMSG_TRACK_ALL: "+"})
    assert [here.send(address="127.0.0.1"), here.send(address="127.0.0.1")] == [["250 #554"]] * 2


def test_records_end():
    here = Here({DUPMSG_TRACK_ALL: "+", DUPMSG_TTL: "100"})
    here.send()
    here.talk.net.pass_time(101)
    assert here.send() == ["250 #554"]


def test_switched_off():
    here = Here({DUPMSG_TRACK_ALL: "+", DUPMSG_TTL: "0"})
    assert [here.send(), here.send()] == [["250 #554"]] * 2


def test_refused_messages_are_not_remembered():
    here = Here({DUPMSG_TRACK_ALL: "+"}, CONTENT=[b"451 later\r\n", b"250 ok\r\n"])
    assert here.send() == ["451 #307"]
    here.hop.script["CONTENT"] = b"250 ok\r\n"
    assert here.send() == ["250 #554"]


@pytest.mark.parametrize(
    ("said", "reason", "remembered"),
    [
        (b"", ConnectionLost(), 1),
        (b"", ConnectionDone(), 0),
        (b"NOOP\r\n", ConnectionLost(), 0),
    ],
)
def test_connection_that_breaks_right_after_the_reply(said, reason, remembered):
    here = Here()
    client = here.begin()
    assert codes(client.message(TEXT)) == ["250 #554"]
    if said:
        client.send(said)
    (conversation,) = here.talk.engine.conversations.values()
    conversation.wire.transport.lost(Failure(reason))
    here.talk.net.pump()
    assert here.talk.counted(CACHED) == remembered


def test_client_that_is_silent_after_the_reply_may_not_have_heard_it():
    here = Here()
    client = here.begin()
    client.message(TEXT)
    here.talk.net.pass_time(301)
    assert here.talk.counted(CACHED) == 1
