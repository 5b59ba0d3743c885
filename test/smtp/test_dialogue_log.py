"""The dialogue in the log, and what must not be seen there."""

from __future__ import annotations

from typing import Any

import pytest

from smtpf.smtp.wire import NotWritten
from test.support.administered import Administered

ROUTE = "route:example.com FORWARD: 192.0.2.99\n"


@pytest.fixture
def node() -> Administered:
    made = Administered({}, route=ROUTE)
    made.journal.verbose.apply("smtp=2")
    return made


def test_commands_and_replies_are_shown_both_ways(node: Administered) -> None:
    node.hop("192.0.2.99")
    client = node.operator()
    for line in ("EHLO me.example", "MAIL FROM:<a@b.example>", "RCPT TO:<fred@example.com>"):
        client.say(line)
    client.message()
    here = "localhost.localhost [127.0.0.1]"
    assert node.logged(642)[1] == f"{here} > MAIL FROM:<a@b.example>"
    assert any(line.startswith(f"{here} < 250 2.1.0 sender <a@b.example> accepted #283 ") for line in node.logged(626))
    asked = node.logged(303)
    assert [line.partition(" > ")[2] for line in asked] == ["MAIL FROM:<a@b.example>", "RCPT TO:<fred@example.com>", "DATA"]
    assert [line.partition(" < ")[2][:3] for line in node.logged(305)] == ["250", "250", "354"]
    assert [line.partition(" < ")[2][:3] for line in node.logged(304)] == ["250"]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        ("MAIL FROM:<a@b.example>", [642, 717, 626]),
        ("MAIL FROM:<a@b..example>", [642, 717, 626]),
        ("RCPT TO:<fred@example.com>", [642, 303, 305, 303, 305, 718, 626]),
        ("RCPT TO:<fred@>", [642, 718, 626]),
    ],
)
def test_the_summary_line_of_a_reply_stands_before_the_reply(node: Administered, line: str, numbers: list[int]) -> None:
    node.hop("192.0.2.99")
    client = node.operator()
    client.say("EHLO me.example")
    if line.startswith("RCPT"):
        client.say("MAIL FROM:<a@b.example>")
    node.entries.clear()
    client.say(line)
    assert [entry.message.number for entry in node.entries if entry.message.number in (303, 305, 626, 642, 717, 718)] == numbers


def test_a_reply_is_on_its_way_before_its_lines_are_written(node: Administered) -> None:
    client = node.operator()
    client.say("EHLO me.example")
    sent: list[int] = []
    (talk,) = node.engine.conversations.values()
    write = talk.wire.write

    def noting(data: bytes) -> None:
        sent.append(len(node.entries))
        write(data)

    talk.wire.write = noting  # type: ignore[method-assign]
    node.entries.clear()
    client.say("MAIL FROM:<a@b.example>")
    assert [entry.message.number for entry in node.entries[sent[0] :]] == [717, 626]


def test_a_reply_that_nobody_hears_has_its_lines_all_the_same(node: Administered) -> None:
    client = node.operator()
    client.say("EHLO me.example")
    (talk,) = node.engine.conversations.values()

    def nobody(data: bytes, timeout: float) -> None:
        raise NotWritten("connection closed")

    talk.wire.send = nobody  # type: ignore[method-assign]
    node.entries.clear()
    client.say("MAIL FROM:<a@b.example>")
    assert [entry.message.number for entry in node.entries] == [642, 717, 626, 628, 721]


def test_level_1_shows_the_next_hops_answer_to_the_message_and_no_more(node: Administered) -> None:
    node.journal.verbose.apply("smtp=1")
    node.hop("192.0.2.99")
    client = node.operator()
    for line in ("EHLO me.example", "MAIL FROM:<a@b.example>", "RCPT TO:<fred@example.com>"):
        client.say(line)
    client.message()
    assert [len(node.logged(number)) for number in (304, 303, 305, 626, 642)] == [1, 0, 0, 0, 0]
    assert node.logged(304)[0].startswith("route:example.com < 250 ")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("AUTH PLAIN AGpvZQBzM2NyZXQ=", "AUTH ***"),
        ("auth plain AGpvZQBzM2NyZXQ=", "AUTH ***"),
        ("OPTN emew-secret=AGpvZQBzM2NyZXQ=", "OPTN ***"),
        ("AGpvZQBzM2NyZXQ=", "***"),
        ("OPTN", "OPTN"),
    ],
)
def test_secrets_are_not_shown(node: Administered, line: str, shown: str) -> None:
    client = node.operator()
    client.say("EHLO me.example")
    client.say(line)
    assert node.logged(642)[-1].endswith(f" > {shown}")
    everything = " ".join(str(entry) for number in (642, 626, 721) for entry in node.logged(number))
    assert "AGpvZQBzM2NyZXQ" not in everything


def test_long_lines_are_cut(node: Administered) -> None:
    node.operator().say("NOOP " + "x" * 900)
    text: Any = node.logged(642)[0]
    assert len(text.partition(" > ")[2]) == 512
