"""Reply slots, what happens to a reply on its way out, slow replies and early talkers (chapter session, 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smtpf.filters.order import ORDER
from smtpf.pipeline import Code, Filter, Stage, Verdict, drop, reject, tempfail
from smtpf.reply import MAX_LINE, Reply, render
from smtpf.smtp import counters
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.smtp.slots import ReplySlots
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
NAMED = "7.2.0.192.in-addr.arpa PTR mail.example.org\nmail.example.org A 192.0.2.7\n"
ONE, TWO = Reply(901, "550 5.7.1 one"), Reply(902, "450 4.7.1 two")
SID = "263953047110001700"


# 2.1


def test_a_reply_line_has_at_most_512_octets_and_keeps_its_number() -> None:
    line = render(Reply(283, "250 2.1.0 sender <%s> accepted"), ("x" * 900,), SID).first
    assert len(line) == MAX_LINE - 2
    assert line.endswith(f"x #283 {SID}")


def test_client_data_in_a_reply_is_printable() -> None:
    line = render(Reply(248, "500 5.5.1 %s command unknown"), ("a\r\nb\0\x7f\xe9\u2028",), SID).first
    assert line == f"500 5.5.1 a??b???? command unknown #248 {SID}"


# 2.2


def slots(delay_checks: bool = True) -> ReplySlots:
    talk = Talk({"smtp-delay-checks": "+" if delay_checks else "-"})
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    (conversation,) = talk.engine.conversations.values()
    return conversation.session.slots


def test_of_delayed_replies_the_first_wins_and_the_stage_goes_on() -> None:
    held = slots()
    assert held.take(reject(ONE, delay=True)).code is Code.CONTINUE
    assert held.take(tempfail(TWO, delay=True)).code is Code.CONTINUE
    assert held.delayed is not None
    assert held.delayed.reply is ONE
    assert held.immediate is None


def test_of_immediate_replies_the_last_wins() -> None:
    held = slots()
    held.take(reject(ONE))
    held.take(tempfail(TWO))
    assert held.immediate is not None
    assert held.immediate.reply is TWO
    assert held.delayed is None


def test_without_delay_checks_a_delayed_reply_is_immediate() -> None:
    held = slots(delay_checks=False)
    assert held.take(reject(ONE, delay=True)).code is Code.REJECT
    assert held.immediate is not None
    assert held.delayed is None


def test_a_delayed_reply_under_tag_makes_the_list_state_accept() -> None:
    held = slots()
    transaction = held._session.transaction
    assert transaction is not None
    transaction.flags.add(MsgFlag.TAG)
    held.take(reject(ONE, delay=True))
    assert transaction.list_state is Code.ACCEPT
    assert held.refusing is None


@pytest.mark.parametrize(("whole", "forget", "kept"), [(True, False, True), (True, True, False), (False, False, False)])
def test_lifetime_of_a_delayed_reply(whole: bool, forget: bool, kept: bool) -> None:
    held = slots()
    held.take(reject(ONE, delay=True, whole_session=whole))
    held.end_transaction(forget)
    assert (held.delayed is not None) is kept


def test_data_ends_a_delayed_reply_of_the_transaction_but_not_one_of_the_session() -> None:
    held = slots()
    held.take(reject(ONE, delay=True))
    held.begin_data()
    assert held.delayed is None
    held.take(reject(ONE, delay=True, whole_session=True))
    held.begin_data()
    assert held.delayed is not None


class Judge(Filter):
    """Gives the verdicts that a test wants."""

    def __init__(self, **verdicts: Verdict) -> None:
        self.verdicts = verdicts
        self.seen: list[str] = []

    def _say(self, stage: str) -> Verdict | None:
        self.seen.append(stage)
        return self.verdicts.get(stage)

    def connect(self, session: Session) -> Verdict | None:
        return self._say("connect")

    def helo(self, session: Session) -> Verdict | None:
        return self._say("helo")

    def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        return self._say("mail")

    def rcpt(self, session: Session, transaction: Transaction, recipient: Any) -> Verdict | None:
        return self._say("rcpt")

    def data(self, session: Session, transaction: Transaction) -> Verdict | None:
        return self._say("data")

    def headers(self, session: Session, transaction: Transaction) -> Verdict | None:
        return self._say("headers")

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> Verdict | None:
        return self._say("content")

    def dot(self, session: Session, transaction: Transaction) -> Verdict | None:
        return self._say("dot")


def judged(talk: Talk, **verdicts: Verdict) -> Judge:
    """Add a filter of our own behind all others."""
    from smtpf.filters import order
    from smtpf.pipeline import Pipeline

    judge = Judge(**verdicts)
    talk.engine.pipeline = Pipeline(order.bind(talk.filters, [judge]))
    return judge


@pytest.mark.parametrize("stage", ["connect", "helo", "mail"])
@pytest.mark.parametrize(("verdict", "code"), [(reject, "550 #901"), (drop, "550 #901"), (tempfail, "450 #902")])
def test_a_delayed_verdict_is_the_answer_to_each_recipient(stage: str, verdict: Any, code: str) -> None:
    talk = Talk({"smtp-delay-checks": "+"}, route=ROUTE)
    judged(talk, **{stage: verdict(ONE if code[0] == "5" else TWO, delay=True, whole_session=True)})
    hop = talk.hop("192.0.2.1")
    client = talk.connect()
    assert codes(client.banner) == ["220"]
    assert codes(client.say("EHLO mail.example.org"))[-1] == "250"
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    for _ in range(3):
        assert codes(client.say("RCPT TO:<ann@example.com>")) == [code]
        assert codes(client.say("DATA")) == ["503 #251"]
    assert not client.gone
    assert hop.lines == []
    assert codes(client.say("RSET")) == ["250 #547"]
    assert codes(client.say("QUIT")) == ["221 #247"]


@pytest.mark.parametrize("stage", ["connect", "helo", "mail", "rcpt", "data"])
def test_an_immediate_drop_closes(stage: str) -> None:
    talk = Talk(route=ROUTE)
    talk.hop("192.0.2.1")
    judged(talk, **{stage: drop(ONE)})
    client = talk.connect()
    heard = codes(client.banner)
    for line in ("EHLO x.example.org", "MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        heard += codes(client.say(line))
    assert heard[-1] == "550 #901"
    assert client.gone


@pytest.mark.parametrize(("stage", "closes"), [("connect", True), ("mail", False), ("rcpt", False), ("data", False)])
def test_a_drop_rejects_a_trusted_client_and_closes_only_at_connect(stage: str, closes: bool) -> None:
    talk = Talk(route=ROUTE + "route:192.0.2.7 RELAY\nroute:local FORWARD: 192.0.2.1\n")
    talk.hop("192.0.2.1")
    judged(talk, **{stage: drop(ONE)})
    client = talk.connect()
    heard = codes(client.banner)
    for line in ("EHLO x.example.org", "MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        heard += codes(client.say(line))
    assert "550 #901" in heard
    assert client.gone is closes


def test_a_refused_connect_stage_sinks_and_a_dropped_one_closes() -> None:
    for verdict, gone in ((reject(ONE), False), (tempfail(TWO), False), (drop(ONE), True)):
        talk = Talk()
        judged(talk, connect=verdict)
        client = talk.connect()
        assert codes(client.banner)[0] in ("550 #901", "450 #902")
        assert client.gone is gone
        if not gone:
            assert codes(client.say("EHLO x.example.org")) == ["421 #966"]


# 2.3


def test_a_pad_octet_fills_one_line_replies_before_helo() -> None:
    talk = Talk({"rfc2821-pad-reply-octet": "*"}, access="connect:192.0.2.8 OK\n")
    client = talk.connect()
    assert all(len(line) < 200 for line in client.banner)
    (line,) = client.say("NOOP")
    assert len(line) == 510
    assert line.rstrip("*").endswith(talk.engine.conversations.popitem()[0])
    assert len(client.say("HELO mail.example.org")[0]) < 200
    white = talk.connect("192.0.2.8")
    assert len(white.say("NOOP")[0]) < 200


def test_a_pad_octet_that_is_not_printable_is_a_blank() -> None:
    talk = Talk({"rfc2821-pad-reply-octet": "\x01"})
    client = talk.connect()
    (line,) = client.say("NOOP")
    assert len(line) == 510
    assert line.endswith(" " * 100)


def with_reject_file(tmp_path: Path, **options: str) -> dict[str, str]:
    file = tmp_path / "reject.txt"
    file.write_text("Questions?\nSee http://x.example/\n")
    return {"smtp-reject-file": str(file), **options}


def test_the_reject_file_follows_each_permanent_refusal(tmp_path: Path) -> None:
    talk = Talk(with_reject_file(tmp_path), route=ROUTE)
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    lines = client.say("RCPT TO:<x@elsewhere.net>")
    assert lines[0].startswith("550-5.7.1 recipient <x@elsewhere.net> relaying denied #288 ")
    assert lines[1:] == ["550-5.7.1 Questions?", "550 5.7.1 See http://x.example/"]
    assert len(client.say("RCPT TO:<ann@example.com>")) == 1


def test_equal_lines_of_the_reject_file_are_one_reply(tmp_path: Path) -> None:
    (tmp_path / "reject").write_text("x\n\nx\n\n")
    client = Talk({"smtp-reject-file": str(tmp_path / "reject")}, route=ROUTE).greeted()
    assert [line[:6] for line in client.say("MAIL FROM:bad")] == ["553-5.", "553-5.", "553-5.", "553-5.", "553 5."]


def test_the_reject_file_is_not_for_state_conn_nor_for_usual_suspects(tmp_path: Path) -> None:
    talk = Talk(with_reject_file(tmp_path), access="connect:192.0.2.8 OK\n")
    assert len(talk.connect().say("FOO")) == 1
    assert len(talk.greeted("192.0.2.8").say("FOO")) == 1
    assert len(talk.greeted("192.0.2.7").say("FOO")) == 3


def test_reject_delay_doubles_with_each_refusal() -> None:
    talk = Talk({"smtp-reject-delay": "+"})
    client = talk.greeted()
    for delay in (1, 2, 4, 8):
        assert client.say("FOO") == []
        talk.net.pass_time(delay - 0.2)
        assert client.take() == []
        talk.net.pass_time(0.3)
        assert codes(client.take()) == ["500 #248"]
    assert codes(client.say("NOOP")) == ["250 #547"]


def test_reject_delay_has_a_ceiling_and_is_counted_once() -> None:
    talk = Talk({"smtp-reject-delay": "+"})
    client = talk.greeted()
    for _ in range(11):
        client.say("FOO")
        talk.net.advance(301)
        talk.net.pump()
        assert codes(client.take()) == ["500 #248"]
    assert talk.counted(counters.REJECT_DELAY) == 1


def test_reject_delay_ends_when_the_client_goes() -> None:
    talk = Talk({"smtp-reject-delay": "+"})
    client = talk.greeted()
    client.say("FOO")
    client.transport.loseConnection()
    talk.net.pump()
    assert talk.engine.conversations == {}


def test_usual_suspects_are_refused_without_delay() -> None:
    talk = Talk({"smtp-reject-delay": "+"}, access="connect:192.0.2.7 OK\n")
    assert codes(talk.greeted().say("FOO")) == ["500 #248"]


# 2.4


class Slow(Client):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.pieces.append((round(self.talk.net.seconds(), 1), len(data)))

    pieces: list[tuple[float, int]]


def test_a_slow_reply_leaves_in_pieces_of_ten_octets() -> None:
    talk = Talk({"smtp-slow-reply": "+"})
    client = Slow(talk)
    client.pieces = []
    wire = talk.reception.factory("mx.test").buildProtocol(None)
    talk.net.join(wire, client, ("192.0.2.7", 50000), ("192.0.2.25", 25))
    talk.net.pass_time(60)
    client.pieces.clear()
    client.say("NOOP")
    talk.net.pass_time(10)
    total = len(f"250 2.0.0 OK #547 {SID}\r\n")
    sizes = [size for _, size in client.pieces]
    assert sizes == [10, 10, total - 20] if total - 20 <= 12 else [10] * ((total - 3) // 10)
    assert sum(sizes) == total
    gaps = [round(b - a, 1) for (a, _), (b, _) in zip(client.pieces, client.pieces[1:], strict=False)]
    assert set(gaps) == {0.5}


@pytest.mark.parametrize("octets", [1, 12, 13, 22, 23, 35])
def test_the_rest_of_a_slow_reply_is_never_a_lone_line_end(octets: int) -> None:
    """35 octets are 10, 10, 10 and 5: the rest of 15 is more than 12."""
    from twisted.internet.defer import Deferred

    from smtpf import waiting
    from smtpf.smtp.outgoing import send_slowly

    class Recorder:
        def __init__(self) -> None:
            self.pieces: list[bytes] = []
            self.rests: list[float] = []

        async def send(self, data: bytes, timeout: float) -> None:
            self.pieces.append(data)

        async def rest(self, seconds: float) -> bool:
            self.rests.append(seconds)
            return False

    wire = Recorder()
    done: list[Any] = []
    assert isinstance(waiting.run(send_slowly(wire, bytes(octets), 1.0), done.append, done.append), Deferred | None)  # type: ignore[arg-type]
    sizes = [len(piece) for piece in wire.pieces]
    expected = {1: [1], 12: [12], 13: [10, 3], 22: [10, 12], 23: [10, 10, 3], 35: [10, 10, 10, 5]}
    assert sizes == expected[octets]
    assert wire.rests == [0.5] * (len(sizes) - 1)


def test_a_known_client_is_answered_at_once() -> None:
    talk = Talk({"smtp-slow-reply": "+"}, access="connect:192.0.2.7 CONTENT\n")
    assert codes(talk.greeted().say("NOOP")) == ["250 #547"]


# 2.5


@pytest.mark.parametrize("delay", ["-", "+"])
def test_talk_before_the_banner(delay: str) -> None:
    talk = Talk({"smtp-delay-checks": delay}, route=ROUTE)
    client = talk.connect(first=b"EHLO mail.example.org\r\n")
    assert talk.logged(540) == ["pipeline input=23:EHLO mail.example.org\\x0d\\x0a"]
    if delay == "-":
        assert codes(client.banner) == ["220", "550 #643"]
        assert client.gone
        return
    assert codes(client.banner)[:1] == ["220"]
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["550 #643"]
    assert not client.gone


def test_an_empty_line_before_the_banner_is_no_early_talk() -> None:
    talk = Talk()
    client = talk.connect(first=b"\r\n")
    assert codes(client.banner)[:1] == ["220"]
    assert talk.logged(540) == []


@pytest.mark.parametrize("entry", ["connect:192.0.2.7 OK", "connect:192.0.2.7 CONTENT"])
def test_a_known_client_may_talk_early(entry: str) -> None:
    talk = Talk(access=entry + "\n")
    client = talk.connect(first=b"HELO mail.example.org\r\nNOOP\r\n")
    assert codes(client.banner) == ["220 #632", "250 #256", "250 #547"]
    assert talk.logged(540) == []


def test_input_behind_ehlo_is_tolerated_and_each_command_waits_for_its_predecessor() -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1", RCPT=[b"250 ok\r\n", b"550 5.1.1 no\r\n", b"250 ok\r\n"])
    client = talk.connect()
    group = b"MAIL FROM:<joe@example.org>\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n"
    answer = client.send(b"EHLO mail.example.org\r\n" + group)
    assert codes(answer)[1:] == ["250 #283", "250 #297", "550 #300", "250 #297", "354"]
    assert codes(client.send(b"x: y\r\n\r\nz\r\n.\r\nQUIT\r\n")) == ["250 #554", "221 #247"]
    assert talk.logged(540) == []
    assert len(hop.contents) == 1


@pytest.mark.parametrize("delay", ["-", "+"])
def test_pipelining_that_is_not_offered_is_refused(delay: str) -> None:
    talk = Talk({"smtp-delay-checks": delay, "rfc2920-pipelining": "-"}, route=ROUTE)
    client = talk.connect()
    assert "250-PIPELINING" not in client.say("EHLO mail.example.org")
    answer = codes(client.send(b"MAIL FROM:<joe@example.org>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n"))
    if delay == "-":
        assert answer == ["250 #283", "550 #643"]
        assert client.gone
    else:
        assert answer == ["250 #283", "550 #643", "503 #251"]
        assert codes(client.say("QUIT")) == ["221 #247"]
    assert len(talk.logged(540)) == 1
    assert talk.counted(counters.CLIENT_PIPELINING) == 1


def test_data_behind_its_recipient_is_answered_at_the_dot() -> None:
    """DATA is let by, so that the refusal is heard where the client listens for it."""
    talk = Talk({"rfc2920-pipelining": "-"}, route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    client.say("MAIL FROM:<joe@example.org>")
    assert codes(client.send(b"RCPT TO:<a@example.com>\r\nDATA\r\n")) == ["250 #297", "354"]
    assert codes(client.send(b"x: y\r\n\r\nz\r\n.\r\n")) == ["550 #643"]
    assert client.gone
    assert hop.contents == []


def test_early_input_in_the_log_is_bounded_and_escaped() -> None:
    talk = Talk()
    talk.connect(first=b"\x00\xff" * 100)
    (line,) = talk.logged(540)
    assert line == "pipeline input=200:" + "\\x00\\xff" * 50


def test_command_pause_answers_the_paused_command() -> None:
    talk = Talk(access="commandpause:192.0.2.7 2000\n")
    client = talk.connect()
    assert client.say("EHLO mail.example.org") == []
    talk.net.pass_time(2.1)
    lines = client.take()
    assert lines[-1] == "250 HELP"
    assert "250-PIPELINING" not in lines
    assert client.say("NOOP") == []
    assert codes(client.say("NOOP")) == ["550 #643"]
    assert client.gone
    assert talk.logged(630) == [" [192.0.2.7] sent traffic before NOOP reply, pause=2000"]


def test_a_command_pause_of_zero_allows_pipelining() -> None:
    talk = Talk({"rfc2920-pipelining": "-"}, access="commandpause:192.0.2.7 0\n")
    client = talk.connect()
    assert "250-PIPELINING" in client.say("EHLO mail.example.org")
    assert codes(client.send(b"NOOP\r\nNOOP\r\n")) == ["250 #547"] * 2
    assert talk.logged(540) == []


def test_every_stage_of_the_chapter_has_its_tests() -> None:
    assert set(ORDER) == set(Stage)
