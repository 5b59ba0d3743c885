"""ctasd against scripted peers: what is sent, what each word leads to, and that its failures are told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from smtpf.message.header import HeaderList
from test.support.scripted_daemon import ABORT, CLOSE, ScriptedDaemon, Turn, by_length, fail_write
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 10.0.0.9\n"
TEXT = "X-CTCH-RefID: forged\r\nSubject: s2\r\n\r\nOne line.\r\n"


def classified(vod: str, spam: str, ref_id: str = "str=0001.A") -> Turn:
    body = f"X-CTCH-PVer: 0000001\r\nX-CTCH-VOD: {vod}\r\nX-CTCH-Spam: {spam}\r\nX-CTCH-RefID: {ref_id}\r\n"
    return f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(), CLOSE


class Classified:
    def __init__(self, turn: Turn, folder: Path, *, access: str = "", listening: bool = True, wait: float = 0, **options: str) -> None:
        given = {"ctasd-socket": "127.0.0.1", "save-dir": str(folder), **{key.replace("_", "-"): value for key, value in options.items()}}
        self.talk = Talk(given, access=access, route=ROUTE)
        self.hop = self.talk.hop("10.0.0.9")
        self.daemon = ScriptedDaemon([turn], by_length)
        if listening:
            self.talk.net.listen("127.0.0.1", 8088, self.daemon.make)
        client = self.talk.greeted()
        client.say("MAIL FROM:<z@out.example>")
        client.say("RCPT TO:<al@example.com>")
        self.lines = client.message(TEXT)
        if wait:
            self.talk.net.pass_time(wait)
            self.lines = client.take()
        [self.answer] = codes(self.lines)

    @property
    def headers(self) -> HeaderList:
        [content] = self.hop.contents
        return HeaderList.parse(content.partition(b"\r\n\r\n")[0])

    def counted(self, names: Sequence[str]) -> list[str]:
        return [counter.name for counter in self.talk.stats.counters if counter.name in names and self.talk.stats.value(counter)]


COUNTERS = ("ctasd-spam-reject", "ctasd-spam-suspect", "ctasd-spam-tag", "ctasd-vod-reject", "ctasd-vod-tempfail", "virus-infected")
WORDS = [
    ("Unknown", "NonSpam", "250 #554", []),
    ("Virus", "NonSpam", "550 #960", ["ctasd-vod-reject", "virus-infected"]),
    ("high", "Confirmed", "550 #960", ["ctasd-vod-reject", "virus-infected"]),
    ("Unknown", "Confirmed", "550 #960", ["ctasd-spam-reject"]),
    ("Medium", "NonSpam", "451 #961", ["ctasd-vod-tempfail"]),
    ("NonVirus", "Bulk", "250 #554", ["ctasd-spam-tag"]),
    ("NonVirus", "Suspected", "250 #554", ["ctasd-spam-suspect"]),
]


@pytest.mark.parametrize(("vod", "spam", "wanted", "counted"), WORDS)
def test_each_word_has_its_outcome(vod: str, spam: str, wanted: str, counted: list[str], tmp_path: Path) -> None:
    result = Classified(classified(vod, spam), tmp_path)
    assert result.answer == wanted
    assert sorted(result.counted(COUNTERS)) == sorted(counted)
    assert result.talk.logged(958) == [f"ctasd vod={vod} spam={spam} refid=str=0001.A"]
    if wanted.startswith("250"):
        assert [field.text for field in result.headers.all("X-CTCH-RefID")] == ["str=0001.A"]
        bulk = spam == "Bulk"
        assert result.headers.get("Subject") == ("[SUSPECT] s2" if bulk else "s2")
        assert ("Precedence" in result.headers) == bulk
    else:
        assert result.hop.contents == []


@pytest.mark.parametrize(("vod", "spam", "text"), [("Virus", "x", "is INFECTED"), ("x", "Confirmed", "is spam")])
@pytest.mark.parametrize(("policy", "wanted"), [("reject", "550 #960"), ("discard", "250 #554"), ("none", "250 #554")])
def test_the_policy_decides(vod: str, spam: str, text: str, policy: str, wanted: str, tmp_path: Path) -> None:
    result = Classified(classified(vod, spam), tmp_path, ctasd_policy=policy)
    assert result.answer == wanted
    assert result.talk.logged(959)[0].endswith(f" {text}")
    assert len(result.hop.contents) == int(policy == "none")


def test_white_listing_covers_spam_but_not_viruses(tmp_path: Path) -> None:
    white = "to:al@example.com OK\n"
    assert Classified(classified("x", "Confirmed"), tmp_path, access=white).answer == "250 #554"
    assert Classified(classified("Virus", "x"), tmp_path, access=white).answer == "550 #960"
    assert Classified(classified("Virus", "x"), tmp_path, access="to:al@example.com OK+AV\n").answer == "250 #554"
    assert Classified(classified("Virus", "x"), tmp_path, access="from:z@out.example DISCARD\n").daemon.connections == 0


def test_by_path_it_gets_the_file(tmp_path: Path) -> None:
    [request] = Classified(classified("x", "x"), tmp_path).daemon.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ctasd/ClassifyMessage_File HTTP/1.0\r\nHost: ")
    lines = body.decode().split("\r\n")
    assert lines[:3] == ["X-CTCH-PVer: 0000001", "X-CTCH-MailFrom: z@out.example", "X-CTCH-SenderIP: 192.0.2.7"]
    assert lines[3].startswith(f"X-CTCH-Filename: {tmp_path}/") and lines[4:] == [""]


@pytest.mark.parametrize("stream", ["1", "2"])
def test_inline_it_gets_the_message(stream: str, tmp_path: Path) -> None:
    [request] = Classified(classified("x", "x"), tmp_path, ctasd_stream=stream).daemon.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /ctasd/ClassifyMessage_Inline HTTP/1.0\r\n")
    facts, _, message = body.partition(b"\r\n\r\n")
    assert facts == b"X-CTCH-PVer: 0000001\r\nX-CTCH-MailFrom: z@out.example\r\nX-CTCH-SenderIP: 192.0.2.7"
    assert message.endswith(b"\r\n\r\nOne line.\r\n") and b"Subject: s2" in message and b"X-CTCH-RefID" not in message


FAILURES: list[Turn] = [
    CLOSE,
    ABORT,
    b"HTTP/1.0 500 oops\r\n\r\n",
    b"hello\r\n",
    (b"HTTP/1.0 200 OK\r\n\r\n", CLOSE),
    (b"HTTP/1.0 200 OK\r\nX-CTCH-VOD: Virus\r\n", CLOSE),
    (b"HTTP/1.0 200 OK\r\n\r\nX-CTCH-VOD: Virus\r\n", ABORT),
    b"HTTP/1.0 200 OK\r\n\r\n" + b"x: y\r\n" * 300,
]


@pytest.mark.parametrize("turn", FAILURES)
def test_without_an_answer_the_message_passes_and_the_log_tells(turn: Turn, tmp_path: Path) -> None:
    result = Classified(turn, tmp_path)
    assert result.answer == "250 #554" and len(result.hop.contents) == 1
    assert len(result.talk.logged(1151)) == 1
    assert "X-CTCH-RefID" not in result.headers


def test_a_ctasd_that_is_down_or_silent_is_told(tmp_path: Path) -> None:
    assert len(Classified(None, tmp_path, listening=False).talk.logged(1151)) == 1
    silent = Classified(None, tmp_path, ctasd_timeout="5", wait=5.5)
    assert silent.answer == "250 #554" and len(silent.talk.logged(1151)) == 1


@pytest.mark.parametrize(("stream", "fails", "wanted"), [("0", 1, "250 #554"), ("1", 1, "451 #950"), ("1", 2, "451 #953")])
def test_a_stream_that_breaks_puts_the_message_off(
    stream: str, fails: int, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_write(monkeypatch, fails)
    result = Classified(classified("x", "x"), tmp_path, ctasd_stream=stream)
    assert result.answer == wanted
    assert len(result.talk.logged(int(wanted.split("#")[1]) if stream == "1" else 1151)) == 1
