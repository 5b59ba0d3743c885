"""What the access map comes to on the wire (chapter maps, 26.4; session, 4.2, 4.5 and 4.6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpf.dns.reverse import reverse_name
from smtpf.filters import access as lists
from smtpf.filters.tagging import MSG_TAGGED
from smtpf.maps.source import FAILED
from smtpf.pipeline import drop, reject
from smtpf.reply import Reply
from smtpf.smtp import counters
from test.smtp.test_outgoing_replies import judged
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
ZONE = "9.2.0.192.in-addr.arpa PTR mx.example.net\nmx.example.net A 192.0.2.9\n"
CLIENT = "mx.example.net [192.0.2.9]"
DELAY = {"smtp-delay-checks": "+"}
SPAM = Reply(999, "550 5.7.1 spam")


class Node:
    """A node with one map, its next hop, and one client of the examples."""

    def __init__(self, access: str, options: dict[Any, str] | None = None, route: str = ROUTE, zone: str = ZONE) -> None:
        self.talk = Talk(options, access=access, route=route, zone=zone)
        self.hop = self.talk.hop("192.0.2.1")

    def connect(self) -> Client:
        self.client = self.talk.connect("192.0.2.9")
        return self.client

    def mail(self, sender: str = "joe@example.org") -> list[str]:
        self.connect()
        self.client.say("EHLO mx.example.edu")
        return self.client.say(f"MAIL FROM:<{sender}>")

    def rcpt(self, recipient: str = "ann@example.com") -> list[str]:
        return self.client.say(f"RCPT TO:<{recipient}>")


def one(lines: list[str]) -> str:
    (line,) = lines
    return line


def test_e1_reject_in_place_of_the_greeting() -> None:
    node = Node("connect:192.0.2.9 REJECT\n")
    assert one(node.connect().banner).startswith(f"550 5.7.1 host {CLIENT} black listed #120 ")
    assert node.client.gone
    assert node.talk.counted(lists.CONNECT_BL) == 1


def test_e2_delayed_to_each_recipient() -> None:
    node = Node("connect:192.0.2.9 REJECT\n", DELAY)
    assert codes(node.mail()) == ["250 #283"]
    for _ in range(2):
        assert codes(node.rcpt()) == ["550 #120"]
    assert codes(node.client.say("DATA")) == ["503 #251"]
    assert not node.client.gone


def test_e3_a_white_recipient_is_heard_in_spite_of_it() -> None:
    node = Node("connect:192.0.2.9 REJECT\nto:abuse@example.com OK\n", DELAY)
    judge = judged(node.talk)
    node.mail()
    assert codes(node.rcpt("abuse@example.com")) == ["250 #297"]
    assert codes(node.rcpt("other@example.com")) == ["550 #120"]
    assert node.talk.logged(138) == ["recipient <abuse@example.com> white listed"]
    assert codes(node.client.message()) == ["250 #554"]
    assert [line for line in node.hop.lines if line.startswith("RCPT")] == ["RCPT TO:<abuse@example.com>"]
    assert not {"data", "headers", "content", "dot"} & set(judge.seen)


def test_e4_words_of_the_entry() -> None:
    node = Node('connect:192.0.2.9 REJECT:"see http://x.example/"\n')
    assert one(node.connect().banner).startswith(f"550 5.7.1 host {CLIENT} see http://x.example/ #120 ")


def test_e5_ireject_is_not_delayed() -> None:
    node = Node("connect:192.0.2.9 IREJECT\n", DELAY)
    assert codes(node.connect().banner) == ["550 #854"]
    assert node.client.gone


def test_e6_tempfail_sinks() -> None:
    node = Node("connect:192.0.2.9 TEMPFAIL\n")
    assert one(node.connect().banner).startswith(f"450 4.7.1 host {CLIENT} temporary failure #853 ")
    assert codes(node.client.say("EHLO x.example.edu")) == ["421 #966"]
    assert codes(node.client.say("QUIT")) == ["221 #247"]


def test_e7_e8_a_black_sender() -> None:
    node = Node("from:example.org REJECT\n")
    assert one(node.mail()).startswith("550 5.7.1 sender <joe@example.org> black listed #127 ")
    assert codes(node.client.say("MAIL FROM:<ann@example.edu>")) == ["250 #283"]
    node = Node("from:example.org REJECT\n", DELAY)
    assert codes(node.mail()) == ["250 #283"]
    assert codes(node.rcpt()) == ["550 #127"]


@pytest.mark.parametrize("options", [{}, DELAY])
@pytest.mark.parametrize(
    ("number", "entries", "white"),
    [
        ("E12", "connect:192.0.2.9:from:example.org OK\nfrom:example.org REJECT\n", 124),
        ("E13", "connect:192.0.2.9:from:example.org SKIP\nfrom:example.org REJECT\n", 0),
    ],
)
def test_e12_e13_the_more_specific_key_decides(number: str, entries: str, white: int, options: dict[str, str]) -> None:
    node = Node(entries, options)
    assert codes(node.mail()) == ["250 #283"]
    assert codes(node.rcpt()) == ["250 #297"]
    assert node.talk.logged(127) == []
    assert not white or len(node.talk.logged(white)) == 1


@pytest.mark.parametrize("options", [{}, DELAY])
@pytest.mark.parametrize(
    ("number", "entries", "code", "log"),
    [
        ("E14", "connect:192.0.2.9 OK\nto:ann@example.com REJECT\n", "550 #139", 119),
        ("E15", "from:example.org:to:ann@ OK\nto:ann@example.com REJECT\n", "250 #297", 136),
        ("E16", "connect:192.0.2:to:ann@example.com SKIP\nto:ann@example.com REJECT\n", "250 #297", 0),
    ],
)
def test_e14_to_e16_recipients(number: str, entries: str, code: str, log: int, options: dict[str, str]) -> None:
    node = Node(entries, options)
    node.mail()
    assert codes(node.rcpt()) == [code]
    assert not log or len(node.talk.logged(log)) == 1


def test_e18_protocol_lets_content_by() -> None:
    node = Node("to:list@example.com PROTOCOL\n")
    judge = judged(node.talk, headers=reject(SPAM), content=reject(SPAM), dot=reject(SPAM))
    node.mail()
    assert codes(node.rcpt("list@example.com")) == ["250 #297"]
    assert codes(node.client.message()) == ["250 #554"]
    assert "rcpt" in judge.seen
    assert not {"headers", "content", "dot"} & set(judge.seen)


def test_e19_discarded_sender() -> None:
    node = Node("from:example.org DISCARD\n")
    assert codes(node.mail()) == ["250 #283"]
    assert codes(node.rcpt()) == ["250 #290"]
    assert codes(node.client.message()) == ["250 #554"]
    assert node.hop.contents == []
    assert len(node.talk.logged(975)) == 1


def test_e20_discarded_client() -> None:
    node = Node("connect:192.0.2.9 DISCARD\n")
    node.mail()
    assert len(node.talk.logged(974)) == 1
    for _ in range(2):
        assert codes(node.rcpt()) == ["250 #297"]
        assert codes(node.client.message()) == ["250 #554"]
        node.client.say("MAIL FROM:<joe@example.org>")
    assert node.hop.contents == []


@pytest.mark.parametrize(("options", "tagged"), [(DELAY, True), ({}, False)])
def test_e21_e22_tag(options: dict[str, str], tagged: bool) -> None:
    node = Node("connect:192.0.2.9 TAG\n", options)
    judged(node.talk, connect=drop(SPAM, delay=True, whole_session=True))
    banner = codes(node.connect().banner)
    if not tagged:
        assert banner == ["550 #999"]
        return
    node.client.say("EHLO mx.example.edu")
    node.client.say("MAIL FROM:<joe@example.org>")
    assert codes(node.rcpt()) == ["250 #297"]
    assert codes(node.client.message()) == ["250 #554"]
    head = node.hop.contents[0].decode()
    assert "X-Spam-Flag: YES\r\n" in head
    assert "X-Spam-Reason: 550 5.7.1 spam #999 " in head
    assert "Subject: [SPAM] hello\r\n" in head
    assert node.talk.counted(MSG_TAGGED) == 1
    assert "tagged" in node.talk.logged(720)[0]


@pytest.mark.parametrize("tagging", ["from:example.org TAG", "to:ann@example.com TAG"])
def test_a_refusal_from_before_the_message_was_tagged_bypasses_the_content_tests_too(tagging: str) -> None:
    node = Node(f"connect:192.0.2.9 REJECT\n{tagging}\n", DELAY)
    judge = judged(node.talk, content=reject(SPAM))
    node.mail()
    assert codes(node.rcpt()) == ["250 #297"]
    assert codes(node.client.message()) == ["250 #554"]
    assert "Subject: [SPAM] hello\r\n" in node.hop.contents[0].decode()
    assert "content" not in judge.seen


def test_the_stage_goes_on_behind_a_refusal_that_tags() -> None:
    node = Node("connect:192.0.2.9 TAG\nfrom:example.org REJECT\n", DELAY)
    judge = judged(node.talk, mail=reject(Reply(998, "555 5.5.4 not that")))
    assert codes(node.mail()) == ["555 #998"]
    assert "mail" in judge.seen
    assert len(node.talk.logged(1034)) == 1


def test_e23_trap(tmp_path: Path) -> None:
    node = Node(f'to:spamtrap@example.com TRAP:"{tmp_path}"\n', {"save-dir": str(tmp_path)})
    node.mail()
    assert codes(node.rcpt("spamtrap@example.com"))[0].startswith("250")
    assert one(node.client.message()).startswith("550 5.7.0 this message was blocked #945 ")
    (kept,) = tmp_path.glob("*.trap")
    assert b"A line." in kept.read_bytes()
    assert node.talk.counted(counters.MSG_TRAP) == 1
    assert node.hop.contents == []


def test_a_copy_is_kept_for_a_trapped_recipient_beside_others(tmp_path: Path) -> None:
    node = Node("to:spamtrap@example.com TRAP\n", {"save-dir": str(tmp_path), "trap-dir": str(tmp_path)})
    node.mail()
    assert codes(node.rcpt("spamtrap@example.com")) == ["250 #290"]
    assert codes(node.rcpt()) == ["250 #297"]
    assert codes(node.client.message()) == ["250 #554"]
    assert [line for line in node.hop.lines if line.startswith("RCPT")] == ["RCPT TO:<ann@example.com>"]
    assert len(list(tmp_path.glob("*.trap"))) == 1
    assert node.talk.counted(counters.MSG_TRAP) == 0


@pytest.mark.parametrize(("word", "number", "answer"), [("SAVE", 877, "250 #554"), ("TRAP", 876, "550 #945")])
def test_a_copy_that_cannot_be_linked_changes_no_answer(tmp_path: Path, word: str, number: int, answer: str) -> None:
    node = Node(f'from:example.org {word}:"{tmp_path}/missing"\n', {"save-dir": str(tmp_path)})
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == [answer]
    (line,) = node.talk.logged(number)
    assert line.startswith(f"hard link({tmp_path}/") and line.endswith(" failed: No such file or directory (2)")


@pytest.mark.parametrize(("word", "ending"), [("SAVE", "msg"), ("TRAP", "trap")])
def test_a_relative_path_is_ignored(tmp_path: Path, word: str, ending: str) -> None:
    node = Node(f"from:example.org {word}:here\n", {"save-dir": str(tmp_path), "trap-dir": str(tmp_path)})
    node.mail()
    node.rcpt()
    node.client.message()
    assert len(list(tmp_path.glob(f"*.{ending}"))) == 1


@pytest.mark.parametrize(("word", "answer"), [("SAVE", "451 #550"), ("TRAP", "550 #945")])
def test_without_a_spool_file_a_message_to_be_saved_must_come_again(tmp_path: Path, word: str, answer: str) -> None:
    node = Node(f"from:example.org {word}\n", {"save-dir": f"{tmp_path}/missing", "trap-dir": str(tmp_path)})
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == [answer]
    assert len(node.talk.logged(579)) == 1


def test_e24_a_white_relay_is_logged_and_not_counted() -> None:
    node = Node("connect:192.0.2.9 OK\n", route=ROUTE + "route:192.0.2.9 RELAY\n")
    node.connect()
    assert len(node.talk.logged(119)) == 1
    assert node.talk.counted(lists.CONNECT_WL) == 0


def test_e25_skip_keeps_the_reserved_names_away() -> None:
    zone = "9.2.0.192.in-addr.arpa PTR host.local\nhost.local A 192.0.2.9\n"
    options = {"rfc2606-special-domains": "+"}
    assert codes(Node("", options, zone=zone).connect().banner) == ["550 #121"]
    assert codes(Node("connect:192.0.2.9 SKIP\n", options, zone=zone).connect().banner) == ["220"]


@pytest.mark.parametrize(("address", "route"), [("192.0.2.9", "route:192.0.2.9 RELAY\n"), ("10.1.2.3", "")])
def test_hosts_of_our_own_may_have_reserved_names(address: str, route: str) -> None:
    talk = Talk(
        {"rfc2606-special-domains": "+"}, route=ROUTE + route, zone=f"{reverse_name(address)} PTR host.local\nhost.local A {address}\n"
    )
    assert codes(talk.connect(address).banner)[0].startswith("220")


def test_e33_a_map_that_cannot_be_asked() -> None:
    node = Node("connect:192.0.2.200 OK\n")
    table = node.talk.access_map.source.view
    table.get = lambda key: FAILED  # type: ignore[method-assign]
    table.tags = None  # A map server does not tell which tags it has.
    banner = codes(node.connect().banner)
    assert banner == ["421 #966"]


def test_e34_a_white_recipient_without_route_is_still_relaying() -> None:
    node = Node("to:joe@other.example OK\nfrom:example.org:to:joe@ OK\nconnect:192.0.2.9 OK\n")
    node.mail()
    assert codes(node.rcpt("joe@other.example")) == ["550 #288"]


def test_other_recipients_are_forwarded_beside_a_discarded_one() -> None:
    node = Node("to:bin@example.com DISCARD\n")
    node.mail()
    assert codes(node.rcpt("bin@example.com")) == ["250 #290"]
    assert codes(node.rcpt("ann@example.com")) == ["250 #297"]
    assert codes(node.client.message()) == ["250 #554"]
    assert [line for line in node.hop.lines if line.startswith("RCPT")] == ["RCPT TO:<ann@example.com>"]
    assert len(node.hop.contents) == 1


@pytest.mark.parametrize(("code", "verdict", "gone"), [("550 #999", reject(SPAM), False), ("550 #999", drop(SPAM), True)])
@pytest.mark.parametrize("stage", ["data", "headers", "content", "dot"])
def test_a_verdict_in_data(stage: str, code: str, verdict: Any, gone: bool) -> None:
    node = Node("")
    judged(node.talk, **{stage: verdict})
    node.mail()
    node.rcpt()
    answer = node.client.message()
    assert codes(answer) == [code]
    assert node.client.gone is gone
    assert node.hop.contents == []
    assert len(node.talk.logged(719)) == (stage == "data")
    assert len(node.talk.logged(720)) == (stage != "data")
    if not gone and stage == "data":
        assert codes(node.client.say("DATA")) == [code]


def test_smtp_drop_dot_closes_on_a_rejected_message() -> None:
    node = Node("", {"smtp-drop-dot": "+"})
    judged(node.talk, dot=reject(SPAM))
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["550 #999"]
    assert node.client.gone
    assert node.talk.counted(counters.MSG_DROP) == 1


def test_smtp_drop_dot_closes_on_a_message_that_the_next_hop_refused() -> None:
    node = Node("", {"smtp-drop-dot": "+"})
    node.hop.script["CONTENT"] = b"554 5.6.0 no\r\n"
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["554 #306"]
    assert node.client.gone


def test_smtp_drop_dot_keeps_a_client_whose_message_may_come_again() -> None:
    node = Node("", {"smtp-drop-dot": "+"})
    node.hop.script["CONTENT"] = b"452 4.3.1 full\r\n"
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["451 #307"]
    assert not node.client.gone


def test_a_refusal_at_dot_is_heard_though_the_message_would_be_discarded() -> None:
    node = Node("connect:192.0.2.9 DISCARD\nlength-connect: 10\n")
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["550 #625"]
    assert node.hop.contents == []


def test_a_trapped_message_is_counted_as_that_alone() -> None:
    node = Node("from:example.org TRAP\n")
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["550 #945"]
    assert node.talk.counted(counters.MSG_TRAP) == 1
    assert node.talk.counted(counters.MSG_REJECT) == 0


def test_a_trusted_client_is_dropped_for_no_message_that_has_come_to_its_end() -> None:
    node = Node("", {"smtp-drop-dot": "+"}, ROUTE + "route:local FORWARD: 192.0.2.1\nroute:192.0.2.9 RELAY\n")
    judged(node.talk, dot=reject(SPAM))
    node.mail()
    node.rcpt()
    assert codes(node.client.message()) == ["550 #999"]
    assert codes(node.client.say("NOOP")) == ["250 #547"]


def test_a_trusted_client_dropped_in_the_middle_of_a_message_is_not_heard_any_more() -> None:
    node = Node("", {"rfc2821-line-length": "2"}, ROUTE + "route:local FORWARD: 192.0.2.1\nroute:192.0.2.9 RELAY\n")
    node.mail()
    node.rcpt()
    node.client.say("DATA")
    assert codes(node.client.send(b"x: y\r\n\r\n" + b"z" * 2000 + b"\r\n")) == ["554 #321"]
    assert node.client.gone
