"""spamd against scripted peers: the request to the octet, the table of scores, every way to fail, at the dot and as a stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtpf.filters.spamd import remove_foreign
from smtpf.message.header import HeaderList
from test.support.scripted_daemon import ABORT, CLOSE, ScriptedDaemon, Turn, at_end, by_length, fail_write
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 10.0.0.9\nroute:example.net FORWARD: 10.0.0.9\n"
TEXT = "Subject: s2\r\n\r\nOne line.\r\n"


def scored(score: float, threshold: float = 5.0, report: bytes = b"") -> bytes:
    word = b"True" if score >= threshold else b"False"
    head = b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: %s ; %.2f / %.2f\r\n\r\n"
    return head % (len(report), word, score, threshold) + report


class Scored:
    """One message through a node with spamd."""

    def __init__(
        self,
        turn: Turn,
        folder: Path,
        *,
        text: str = TEXT,
        access: str = "",
        recipients: Sequence[str] = ("al@example.com",),
        wait: float = 0.0,
        listening: bool = True,
        socket: str = "127.0.0.1:783",
        **options: str,
    ) -> None:
        given = {"spamd-socket": socket, "save-dir": str(folder), **{key.replace("_", "-"): value for key, value in options.items()}}
        self.talk = Talk(given, access=access, route=ROUTE)
        self.hop = self.talk.hop("10.0.0.9")
        complete = at_end if options.get("spamd_stream", "none") != "none" else by_length
        self.daemon = ScriptedDaemon([turn], complete)
        if listening:
            self.talk.net.listen("127.0.0.1", 783, self.daemon.make)
        client = self.talk.greeted()
        client.say("MAIL FROM:<z@out.example>")
        for recipient in recipients:
            client.say(f"RCPT TO:<{recipient}>")
        self.lines = client.message(text)
        if wait:
            assert self.lines == []
            self.talk.net.pass_time(wait)
            self.lines = client.take()

    @property
    def answer(self) -> str:
        assert len(codes(self.lines)) == 1, self.lines
        return codes(self.lines)[0]

    @property
    def headers(self) -> HeaderList:
        [content] = self.hop.contents
        return HeaderList.parse(content.partition(b"\r\n\r\n")[0])

    @property
    def request(self) -> bytes:
        [request] = self.daemon.requests
        return request


TABLE = [
    (2.0, 5.0, "10", "NO", "NO, score=2.00 required=5.00", "xx", "s2", None),
    (7.25, 5.0, "10", "YES", "YES, score=7.25 required=5.00", "xxxxxxx", "[SPAM] s2", "bulk"),
    (50.0, 5.0, "-1", "YES", "YES, score=50.00 required=5.00", "x" * 50, "[SPAM] s2", "bulk"),
    (99.0, 5.0, "-1", "YES", "YES, score=99.00 required=5.00", "x" * 50, "[SPAM] s2", "bulk"),
    (-1.5, 5.0, "10", "NO", "NO, score=-1.50 required=5.00", "", "s2", None),
    (5.0, 5.0, "10", "YES", "YES, score=5.00 required=5.00", "xxxxx", "[SPAM] s2", "bulk"),
]


@pytest.mark.parametrize(("score", "threshold", "limit", "flag", "status", "level", "subject", "precedence"), TABLE)
@pytest.mark.parametrize("stream", ["none", "reject", "discard"])
def test_a_score_becomes_headers(
    score: float, threshold: float, limit: str, flag: str, status: str, level: str, subject: str, precedence: str | None, stream: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    result = Scored(scored(score, threshold), tmp_path, spamd_score_reject=limit, spamd_stream=stream)
    assert result.answer == "250 #554"
    headers = result.headers
    assert [headers.get(f"X-Spam-{name}") for name in ("Flag", "Status", "Level")] == [flag, status, level]
    order = [field.name for field in headers if field.name.startswith("X-Spam")]
    assert order == ["X-Spam-Flag", "X-Spam-Status", "X-Spam-Level"]
    assert headers.get("Subject") == subject
    assert headers.get("Precedence", "none") == (precedence or "none")
    text = f"junk mail score {score:.2f}/{threshold:.2f}"
    [line] = result.talk.logged(692 if stream == "none" else 668)
    assert line.endswith(text)
    flags = result.talk.logged(720)[0].split('f="')[1].split('"')[0]
    assert flags == ("tagged" if precedence else "")


@pytest.mark.parametrize(("score", "threshold"), [(10.0, 5.0), (11.0, 15.0), (10.01, 5.0)])
def test_a_score_over_the_limit_is_refused_whatever_the_threshold(score: float, threshold: float, tmp_path: Path) -> None:
    result = Scored(scored(score, threshold), tmp_path)
    assert re.fullmatch(rf"550 5\.7\.1 message \S{{18}} junk mail score {score:.2f}/{threshold:.2f} #693 \S{{18}}", result.lines[0])
    assert result.hop.contents == []
    streamed = Scored(scored(score, threshold), tmp_path, spamd_stream="reject")
    assert streamed.answer == "550 #666"
    assert streamed.hop.contents == []


def test_a_stream_may_discard_and_says_so(tmp_path: Path) -> None:
    result = Scored(scored(12), tmp_path, spamd_stream="discard")
    assert result.answer == "250 #554" and result.hop.contents == []
    assert result.talk.logged(667)[0].endswith("junk mail score 12.00/5.00")


def test_the_request_is_exact(tmp_path: Path) -> None:
    result = Scored(scored(1), tmp_path, text="Subject: s2\r\n\r\n..stuffed\r\nlast\r\n", access="spamd:al@example.com joe\n")
    head, _, message = result.request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"CHECK SPAMC/1.5" and lines[1] == b"User: joe"
    assert lines[2] == b"Content-Length: %d" % len(message)
    assert message.startswith(b"Return-Path: <z@out.example>\r\n")
    assert b"\r\nReceived: from mail.example.org" in message and b"\r\nSubject: s2\r\n" in message
    assert message.endswith(b"\r\n\r\n.stuffed\r\nlast\r\n")
    assert result.daemon.ended == 1


def test_a_stream_has_no_length_and_ends_with_the_writing_side(tmp_path: Path) -> None:
    result = Scored(scored(1), tmp_path, spamd_stream="reject", spamd_command="report")
    head, _, message = result.request.partition(b"\r\n\r\n")
    assert head == b"REPORT SPAMC/1.5"
    assert message.startswith(b"Return-Path: <z@out.example>\r\n") and message.endswith(b"\r\n\r\nOne line.\r\n")


@pytest.mark.parametrize(("stream", "number"), [("none", 684), ("reject", 656)])
def test_max_size_cuts_the_body(stream: str, number: int, tmp_path: Path) -> None:
    body = ("x" * 98 + "\r\n") * 30
    result = Scored(scored(1), tmp_path, text=f"Subject: s2\r\n\r\n{body}", spamd_max_size="2", spamd_stream=stream)
    head, _, message = result.request.partition(b"\r\n\r\n")
    assert message.partition(b"\r\n\r\n")[2] == body[:2048].encode()
    if stream == "none":
        assert b"Content-Length: %d" % len(message) in head
    assert result.talk.logged(number) == ["spamd-max-size=2048 reached"]
    whole = Scored(scored(1), tmp_path, text="Subject: s2\r\n\r\n" + body[:2048], spamd_max_size="2", spamd_stream=stream)
    assert whole.talk.logged(number) == []


def test_a_large_body_comes_back_from_its_file(tmp_path: Path) -> None:
    body = ("x" * 98 + "\r\n") * 8000
    result = Scored(scored(1), tmp_path, text=f"Subject: s2\r\n\r\n{body}")
    assert result.answer == "250 #554"
    assert result.request.endswith(b"\r\n\r\n" + body.encode())


def test_a_report_becomes_a_folded_header(tmp_path: Path) -> None:
    result = Scored(scored(2, 5, b"pts rule\r\n---- ----\r\n 1.0 T\xc3\xa9ST\r\n"), tmp_path, spamd_command="REPORT")
    raw = result.headers.first("X-Spam-Report")
    assert raw is not None
    wanted = b"X-Spam-Report: score=2.00 required=5.00\r\n  | pts rule\r\n  | ---- ----\r\n  |  1.0 T?ST\r\n"
    assert raw.raw == wanted


def test_header_names_and_bar_are_options(tmp_path: Path) -> None:
    result = Scored(
        scored(3), tmp_path, text="X-Junk: old\r\nSubject: s2\r\n\r\nx\r\n", spamd_flag_header="X-Junk", spamd_status_header="",
        spamd_level_character="*",
    )  # fmt: skip
    headers = result.headers
    assert [field.text for field in headers.all("X-Junk")] == ["NO"]
    assert "X-Spam-Status" not in headers and headers.get("X-Spam-Level") == "***"


def test_a_subject_that_has_the_tag_stays_and_a_missing_one_is_added(tmp_path: Path) -> None:
    assert Scored(scored(7), tmp_path, text="Subject: Re: [SPAM] s2\r\n\r\nx\r\n").headers.get("Subject") == "Re: [SPAM] s2"
    added = Scored(scored(7), tmp_path, text="To: x\r\n\r\nx\r\n").headers.first("Subject")
    assert added is not None and added.raw == b"Subject: [SPAM] \r\n"
    assert Scored(scored(7), tmp_path, spamd_subject_tag="").headers.get("Subject") == "s2"
    assert len(Scored(scored(7), tmp_path, text="Precedence: list\r\nPrecedence: x\r\n\r\nx\r\n").headers.all("Precedence")) == 1


FAILURES: list[tuple[Turn, int, int, str]] = [
    # what spamd says, the log number after the dot and in a stream, how the line begins
    (CLOSE, 685, 659, "spamd read error: "),
    (ABORT, 685, 659, "spamd read error: "),
    (b"hello\r\n", 687, 663, "spamd parse error: hello"),
    (b"SPAMD/1.1 74 EX_IOERR\r\n\r\n", 687, 661, "spamd "),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: yes\r\n\r\n", 689, 663, "spamd parse error: Spam: yes"),
    (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; x / 5\r\n\r\n", 689, 663, "spamd parse error: Spam: True ; x / 5"),
    (b"SPAMD/1.1 0 EX_OK\r\n\r\n", 689, 663, "spamd parse error: no Spam: line"),
    (b"SPAMD/1.1 0 EX_OK\r\n" + b"X: y\r\n" * 200, 689, 663, "spamd parse error: too many header lines"),
    ((b"SPAMD/1.1 0 EX_OK\r\n", CLOSE), 690, 664, "spamd read error: "),
    ((b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 50.0 / 5.0", ABORT), 690, 664, "spamd read error: "),
]


@pytest.mark.parametrize(("turn", "at_dot", "streaming", "begin"), FAILURES)
@pytest.mark.parametrize("stream", ["none", "reject"])
def test_without_a_score_the_message_passes_and_the_log_tells(
    turn: Turn, at_dot: int, streaming: int, begin: str, stream: str, tmp_path: Path
) -> None:
    result = Scored(turn, tmp_path, spamd_stream=stream)
    assert result.answer == "250 #554" and len(result.hop.contents) == 1
    [line] = result.talk.logged(at_dot if stream == "none" else streaming)
    assert line.startswith(begin)
    assert "X-Spam-Flag" not in result.headers
    assert result.daemon.ended == 1


@pytest.mark.parametrize(("stream", "number"), [("none", 685), ("reject", 659)])
def test_a_silent_spamd_costs_its_timeout_and_no_more(stream: str, number: int, tmp_path: Path) -> None:
    result = Scored(None, tmp_path, spamd_timeout="5", spamd_stream=stream, wait=5.5)
    assert result.answer == "250 #554"
    assert len(result.talk.logged(number)) == 1


@pytest.mark.parametrize(("stream", "number"), [("none", 671), ("reject", 646)])
def test_a_spamd_that_is_down_is_counted_and_logged(stream: str, number: int, tmp_path: Path) -> None:
    result = Scored(None, tmp_path, listening=False, spamd_stream=stream)
    assert result.answer == "250 #554"
    assert result.talk.logged(number)[0].startswith('spamd connect error "127.0.0.1:783": ')
    assert counted(result.talk, "spamd-connect-error") == 1 and counted(result.talk, "spamd-connect") == 0


def counted(talk: Talk, name: str) -> int:
    return next((talk.stats.value(counter) for counter in talk.stats.counters if counter.name == name), 0)


@pytest.mark.parametrize(
    ("stream", "fails", "number", "text"),
    [
        ("none", 1, 675, "spamd write error: Broken pipe (32)"),
        ("none", 2, 675, "spamd write error: Broken pipe (32)"),
        ("reject", 1, 649, "spamd write error: Broken pipe (32)"),
        ("reject", 2, 657, "spamd write error after 0 bytes"),
        ("reject", 3, 657, "spamd write error after 0 bytes"),
    ],
)
def test_a_write_that_fails_is_logged(
    stream: str, fails: int, number: int, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_write(monkeypatch, fails)
    result = Scored(scored(50), tmp_path, spamd_stream=stream)
    assert result.answer == "250 #554"
    assert result.talk.logged(number) == [text]


def test_a_spool_that_cannot_be_read_puts_the_message_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smtpf.message import spool

    body = ("x" * 98 + "\r\n") * 8000
    real = spool.SpoolReader._read_file

    def unreadable(reader: spool.SpoolReader) -> bytes | spool.SpoolError:
        return spool.SpoolError.of(spool.OPEN_ERROR, OSError(13, "Permission denied"), reader._path)

    monkeypatch.setattr(spool, "LARGEST", 0)
    monkeypatch.setattr(spool.SpoolReader, "_read_file", unreadable)
    result = Scored(scored(1), tmp_path, text=f"Subject: s2\r\n\r\n{body}")
    assert result.answer == "451 #550"
    assert re.fullmatch(r'spamd open error "\S+\.tmp": Permission denied \(13\)', result.talk.logged(682)[0])
    assert result.hop.contents == []
    assert real is not unreadable


USERS = [
    (["al@example.com"], "spamd:al@example.com joe", "joe"),
    (["al@example.com"], "spamd:example.com site", "site"),
    (["al@example.com"], "spamd: all", "all"),
    (["al@example.com"], "spamd:bob@example.com joe", None),
    (["al@example.com", "bob@EXAMPLE.com"], "spamd:example.com site\nspamd:al@example.com joe", "site"),
    (["al@example.com", "bob@example.com"], "spamd: all", "all"),
    (["al@example.com", "bob@example.net"], "spamd:example.com site\nspamd: all", "all"),
    (["al@example.com", "bob@example.net"], "spamd:example.com site", None),
    (["al@example.com", "bob@example.net"], "spamd: !*example.com!first other", "first"),
    (["al@example.com"], "spamd:al@example.com SKIP", None),
]


@pytest.mark.parametrize(("recipients", "access", "user"), USERS)
def test_the_user_comes_from_the_access_map(recipients: list[str], access: str, user: str | None, tmp_path: Path) -> None:
    result = Scored(scored(1), tmp_path, access=access + "\n", recipients=recipients)
    head = result.request.partition(b"\r\n\r\n")[0].decode()
    assert re.findall("User: (.*)\r", head) == ([user] if user else [])


@pytest.mark.parametrize("stream", ["none", "reject"])
def test_ok_means_do_not_scan(stream: str, tmp_path: Path) -> None:
    result = Scored(scored(50), tmp_path, access="spamd:al@example.com OK\n", spamd_stream=stream)
    assert result.answer == "250 #554" and result.daemon.connections == 0
    assert result.talk.logged(670) == ["spamd disabled this message"]


def test_white_listed_messages_are_not_scored(tmp_path: Path) -> None:
    assert Scored(scored(50), tmp_path, access="to:al@example.com OK\n").daemon.connections == 0


MARKED = [
    ("X-Spam-Status: Yes, hits=12.3 required=5.0", "10", "550 #678"),
    ("X-Spam-Status: Yes, score=7.0 required=5.0\r\nX-Spam-Flag: YES", "10", "250 #554"),
    ("X-Spam-Flag: YES", "10", "550 #679"),
    ("X-Spam-Status: Yes, score=99\r\nX-Spam-Flag: YES", "-1", "550 #679"),
    ("x-spam-status: yes, SCORE=10 required=5.0", "10", "550 #678"),
    ("X-Spam-Status: Yes, hits=9.99\r\nX-Spam-Status: No, score=12", "10", "550 #678"),
    ("X-Spam-Status: Yes, score=12\r\nX-Spam-Status: No, score=1", "10", "250 #554"),
    ("X-Spam-Status: Yes, hits=x score=12", "10", "250 #554"),
    ("X-Spam-Status: Yes", "10", "250 #554"),
    ("X-Spam-Status: Yes,\r\n\tscore=12", "10", "550 #678"),
    ("x-spam-flag: really yes", "10", "550 #679"),
    ("X-Spam-Flag: NO", "10", "250 #554"),
    ("X-Spam-Score: 99", "10", "250 #554"),
]


@pytest.mark.parametrize(("fields", "limit", "wanted"), MARKED)
def test_what_the_sender_says_counts_against_him(fields: str, limit: str, wanted: str, tmp_path: Path) -> None:
    result = Scored(None, tmp_path, socket="", text=f"{fields}\r\nSubject: s2\r\n\r\nx\r\n", spamd_score_reject=limit)
    assert result.answer == wanted
    assert counted(result.talk, "spamd-sender-marked-spam") == int(wanted.startswith("550"))
    if wanted.startswith("250"):
        assert not [field for field in result.headers if field.name.lower().startswith("x-spam-")]


def test_without_the_option_marks_are_only_removed(tmp_path: Path) -> None:
    result = Scored(None, tmp_path, socket="", text="X-Spam-Flag: YES\r\nX-SPAM-Foo: x\r\nSubject: s2\r\n\r\nx\r\n",
                    spamd_reject_sender_marked_spam="-")  # fmt: skip
    assert result.answer == "250 #554"
    assert [field.name for field in result.headers if field.name.lower().startswith("x-spam")] == []


def test_marks_made_here_stay_when_foreign_ones_go() -> None:
    ours, theirs = b"X-Spam-Flag: YES\r\n", b"X-Spam-Flag: YES\r\n"
    headers = HeaderList([theirs, b"Subject: s2\r\n", ours, b"X-Spam-Reason: no\r\n"])
    remove_foreign(headers, (theirs, b"Subject: s2\r\n"), ("X-Spam-Flag",))
    assert headers.fields == (b"Subject: s2\r\n", b"X-Spam-Flag: YES\r\n", b"X-Spam-Reason: no\r\n")
