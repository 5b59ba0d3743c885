"""clamd, avastd, fpscand and savdid against scripted peers: every published answer and every way to fail."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from smtpf.journal.message import Level
from test.support.scripted_daemon import ABORT, CLOSE, ScriptedDaemon, Turn, by_chunks, by_line, fail_write
from test.support.talk import Client, Hop, Talk, codes

ROUTE = "route:example.com FORWARD: 10.0.0.9\n"
EICAR = "Eicar-Test-Signature"
EARLY = b"Subject: hello\r\n\r\n" + b"line\r\n" * 10800
"""So much of a message that the filters have seen a part of it."""
TEXT = "Subject: hello\r\n\r\nOne line.\r\n"


class Scanned:
    """One message through a node with one scanner."""

    def __init__(
        self,
        name: str,
        turns: Sequence[Turn],
        folder: Path,
        *,
        socket: str = "127.0.0.1:7777",
        text: str = TEXT,
        access: str = "",
        wait: float = 0.0,
        listening: bool = True,
        **options: str,
    ) -> None:
        given = {f"{name}-socket": socket, "save-dir": str(folder), **{key.replace("_", "-"): value for key, value in options.items()}}
        self.talk = Talk(given, access=access, route=ROUTE)
        self.hop: Hop = self.talk.hop("10.0.0.9")
        greets = name in ("avastd", "savdid")
        self.daemon = ScriptedDaemon(turns, by_chunks if name == "clamd" else by_line, greets=greets)
        if listening:
            self.talk.net.listen("127.0.0.1", 7777, self.daemon.make)
            self.talk.net.listen("127.0.0.1", 3310, self.daemon.make)
            self.talk.net.listen("/run/clamd.sock", 0, self.daemon.make)
        client: Client = self.talk.greeted()
        client.say("MAIL FROM:<z@out.example>")
        client.say("RCPT TO:<al@example.com>")
        self.lines = client.message(text)
        if wait:
            assert self.lines == []
            self.talk.net.pass_time(wait)
            self.lines = client.take()
        self.client = client
        self.tid = self.talk.entries[-1].text.split()[0] if self.talk.entries else ""

    @property
    def answer(self) -> str:
        assert len(codes(self.lines)) == 1, self.lines
        return codes(self.lines)[0]

    @property
    def delivered(self) -> bool:
        return len(self.hop.contents) == 1

    def message_flags(self) -> str:
        line = self.talk.logged(720)[-1]
        return line.split('f="')[1].split('"')[0]


def avast(*results: bytes) -> list[Turn]:
    return [b"220 Welcome\r\n", b"200 OK\r\n" + b"".join(line + b"\r\n" for line in results) + b"\r\n"]


def savi(*events: bytes) -> list[Turn]:
    body = b"".join(line + b"\r\n" for line in (b"ACC 2/2", *events))
    return [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n", body + b"\r\n", b"BYE\r\n"]


OUTCOMES: list[tuple[str, list[Turn], str, int | None]] = [
    # name, what the daemon says, what the client hears, a log line that must be there
    ("clamd", [b"stream: OK\0"], "250 #554", None),
    ("clamd", [b"stream: Eicar-Test-Signature FOUND\0"], "550 #208", 207),
    ("clamd", [b"stream: Eicar-Test-Signature FOUND\n"], "550 #208", 207),
    ("clamd", [b"INSTREAM size limit exceeded. ERROR\0"], "250 #554", 202),
    ("clamd", [b"/x: lstat() failed: No such file or directory. ERROR\0"], "451 #206", 206),
    ("clamd", [b"what\0"], "451 #206", 206),
    ("clamd", [b"\0"], "451 #206", 206),
    ("clamd", [b"stream: OKAY\0"], "451 #206", 206),
    ("clamd", [(b"stream: O", CLOSE)], "451 #206", 206),
    ("clamd", [CLOSE], "451 #204", 204),
    ("clamd", [ABORT], "451 #204", 204),
    ("clamd", [b"x" * 5000], "451 #204", 204),
    ("avastd", avast(b"/s/M.tmp\t[+]"), "250 #554", None),
    ("avastd", avast(b"/s/M.tmp/part1\t[L]\tEICAR Test-NOT virus!!"), "550 #162", 161),
    ("avastd", avast(b"/s/M.tmp\t[+]", b"/s/M.tmp/2\t[L] Second", b"/s/M.tmp/3\t[L]\tThird"), "550 #162", 161),
    ("avastd", avast(b"/s/M.tmp\t[E]\tArchive is password protected."), "250 #554", 163),
    ("avastd", [b"500 busy\r\n"], "451 #153", 153),
    ("avastd", [CLOSE], "451 #153", 153),
    ("avastd", [b"220 hi\r\n", b"501 no\r\n"], "451 #158", 158),
    ("avastd", [b"220 hi\r\n", CLOSE], "451 #158", 158),
    ("avastd", [b"220 hi\r\n", (b"200 OK\r\n", CLOSE)], "451 #160", 160),
    ("avastd", [b"220 hi\r\n", (b"200 OK\r\nrubbish\r\n\r\n", CLOSE)], "451 #160", 160),
    ("avastd", [b"220 hi\r\n", (b"200 OK\r\n/s/M.tmp\t[+]\r\n", ABORT)], "451 #160", 160),
    ("avastd", [b"220 hi\r\n", (b"200 OK\r\n/s/M.tmp\t[+]\r\n", CLOSE)], "250 #554", None),
    ("fpscand", [b"0 <clean> /s/M.tmp\n"], "250 #554", None),
    ("fpscand", [b"64 <clean> /s/M.tmp\n"], "250 #554", None),
    ("fpscand", [b"1 <infected: EICAR_Test> /s/M.tmp->x\n"], "550 #376", 375),
    ("fpscand", [b"2 <suspicious: W32/Heur> /s/M.tmp\n"], "550 #376", 375),
    ("fpscand", [b"33 <infected: X> /s/M.tmp\n"], "550 #376", 375),
    ("fpscand", [b"32 <internal error> /s/M.tmp\n"], "451 #373", 373),
    ("fpscand", [b"16 <resource error> /s/M.tmp\n"], "451 #373", 373),
    ("fpscand", [b"4 <interrupted> /s/M.tmp\n"], "451 #373", 373),
    ("fpscand", [b"8 <skipped> /s/M.tmp\n"], "250 #554", None),
    ("fpscand", [b"hello\n"], "451 #373", 373),
    ("fpscand", [CLOSE], "451 #373", 373),
    ("savdid", savi(b"DONE OK 0000 The function call succeeded"), "250 #554", None),
    ("savdid", savi(b"VIRUS EICAR-AV-Test /s/M.tmp", b"DONE OK 0203 Virus found"), "550 #847", 846),
    ("savdid", savi(b"FILE /s/M.tmp", b"DONE FAIL 0212 Encrypted"), "451 #839", 839),
    ("savdid", savi(b"VIRUS EICAR-AV-Test /s/M.tmp", b"DONE FAIL 0212 Encrypted"), "550 #847", 846),
    ("savdid", savi(), "451 #839", 839),
    ("savdid", [b"OK SSSP/1.0\r\n", b"REJ 1\r\n"], "451 #841", 841),
    ("savdid", [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n", b"REJ 4\r\n\r\n"], "451 #841", 841),
    ("savdid", [CLOSE], "451 #836", 836),
    ("savdid", [b"OK SSSP/1.0\r\n", CLOSE], "451 #839", 839),
    ("savdid", [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n", (b"ACC 2/2\r\n", CLOSE)], "451 #839", 839),
    ("savdid", [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n", ABORT], "451 #839", 839),
]


@pytest.mark.parametrize(("name", "turns", "wanted", "logged"), OUTCOMES)
def test_an_answer_leads_to_its_reply(name: str, turns: list[Turn], wanted: str, logged: int | None, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path)
    assert scanned.answer == wanted
    assert scanned.delivered == wanted.startswith("250")
    if logged is not None:
        assert len(scanned.talk.logged(logged)) == 1
    assert scanned.daemon.connections == 1 and scanned.daemon.ended == 1


SILENT: list[tuple[str, list[Turn], str]] = [
    ("clamd", [None], "451 #204"),
    ("avastd", [None], "451 #153"),
    ("avastd", [b"220 hi\r\n", None], "451 #158"),
    ("avastd", [b"220 hi\r\n", b"200 OK\r\n"], "451 #160"),
    ("fpscand", [None], "451 #373"),
    ("savdid", [None], "451 #836"),
    ("savdid", [b"OK SSSP/1.0\r\n", None], "451 #839"),
    ("savdid", [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n", b"ACC 2/2\r\n"], "451 #839"),
]


@pytest.mark.parametrize(("name", "turns", "wanted"), SILENT)
def test_silence_ends_with_the_timeout_and_nothing_is_delivered(name: str, turns: list[Turn], wanted: str, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path, wait=5.5, **{f"{name}-timeout": "5"})
    assert scanned.answer == wanted
    assert not scanned.delivered
    number = int(wanted.split("#")[1])
    assert scanned.talk.logged(number)[0].endswith(f"({errno.ETIMEDOUT})")
    assert scanned.daemon.ended == 1


@pytest.mark.parametrize(("name", "wanted"), [("clamd", 180), ("avastd", 151), ("fpscand", 369), ("savdid", 834)])
def test_a_daemon_that_is_down_puts_the_message_off(name: str, wanted: int, tmp_path: Path) -> None:
    scanned = Scanned(name, [], tmp_path, listening=False)
    assert scanned.answer == f"451 #{wanted}"
    assert scanned.lines[0].startswith(f"451 4.4.0 {name} connect error #{wanted}")
    assert scanned.talk.logged(wanted)[0].startswith(f"{name} connect error: Connection ")
    assert not scanned.delivered


@pytest.mark.parametrize(("name", "wanted"), [("clamd", 178), ("avastd", 149), ("fpscand", 367), ("savdid", 832)])
@pytest.mark.parametrize("socket", ["nowhere.example", "1.2.3.4:http"])
def test_a_socket_that_names_no_host_puts_the_message_off(name: str, wanted: int, socket: str, tmp_path: Path) -> None:
    scanned = Scanned(name, [], tmp_path, socket=socket)
    assert scanned.answer == f"451 #{wanted}"
    assert len(scanned.talk.logged(wanted)) == 1


class _NoDescriptors:
    """Connecting fails as it does when the process has no descriptors left."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> None:
        from twisted.internet.error import ConnectBindError
        from twisted.python.failure import Failure

        factory.clientConnectionFailed(None, Failure(ConnectBindError(self.number, "no")))


@pytest.mark.parametrize(("number", "wanted"), [(errno.EMFILE, "421 #551"), (errno.ENFILE, "421 #551"), (errno.EACCES, "451")])
@pytest.mark.parametrize(("name", "opened"), [("clamd", 179), ("avastd", 150), ("fpscand", 368), ("savdid", 833)])
def test_without_descriptors_the_session_ends(
    name: str, opened: int, number: int, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test.support.net import MemoryNet

    real = MemoryNet.connectTCP
    failing = _NoDescriptors(number)

    def connect(net: Any, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None) -> Any:
        return failing(host, port, factory) if port == 7777 else real(net, host, port, factory, timeout, bindAddress)

    monkeypatch.setattr(MemoryNet, "connectTCP", connect)
    scanned = Scanned(name, [], tmp_path)
    if wanted == "451":
        assert scanned.answer == f"451 #{opened}"
        assert len(scanned.talk.logged(opened)) == 1
    else:
        assert scanned.answer == wanted
        assert len(scanned.talk.logged(556)) == 1
        assert scanned.client.gone
    assert not scanned.delivered


INFECTIONS: list[tuple[str, list[Turn], str, int]] = [
    ("clamd", [b"stream: Eicar-Test-Signature FOUND\0"], "is INFECTED with Eicar-Test-Signature", 207),
    ("avastd", avast(b"/s/M.tmp/part1\t[L]\tEICAR Test-NOT virus!!"), "is INFECTED with EICAR Test-NOT virus!!", 161),
    ("fpscand", [b"1 <infected: EICAR_Test> /s/M.tmp->x\n"], "is <infected: EICAR_Test>", 375),
    ("savdid", savi(b"VIRUS EICAR-AV-Test /s/M.tmp", b"DONE OK 0203 x"), "is INFECTED with EICAR-AV-Test", 846),
]


@pytest.mark.parametrize(("name", "turns", "words", "log"), INFECTIONS)
def test_policy_reject_names_the_virus_and_marks_the_message(name: str, turns: list[Turn], words: str, log: int, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path)
    assert f" {words} #{log + 1} " in scanned.lines[0] and scanned.lines[0].startswith("550 5.7.1 message ")
    assert scanned.message_flags() == "policy,infected"
    [entry] = [entry for entry in scanned.talk.entries if entry.message.number == log]
    assert entry.message.level is Level.INFO and entry.body.endswith(words)
    assert not scanned.delivered


@pytest.mark.parametrize(("name", "turns", "words", "log"), INFECTIONS)
def test_policy_discard_lets_the_client_believe(name: str, turns: list[Turn], words: str, log: int, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path, **{f"{name}-policy": "Discard"})
    assert scanned.answer == "250 #554"
    assert not scanned.delivered
    [entry] = [entry for entry in scanned.talk.entries if entry.message.number == log]
    assert entry.message.level is Level.ERR and entry.body.endswith(words)


@pytest.mark.parametrize(("name", "turns", "words", "log"), INFECTIONS)
def test_policy_none_delivers_and_logs(name: str, turns: list[Turn], words: str, log: int, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path, **{f"{name}-policy": "n"})
    assert scanned.answer == "250 #554" and scanned.delivered
    [entry] = [entry for entry in scanned.talk.entries if entry.message.number == log]
    assert entry.message.level is Level.ERR
    assert scanned.message_flags() == "policy,infected"


@pytest.mark.parametrize(("name", "turns", "words", "log"), INFECTIONS)
def test_ok_av_delivers_what_is_infected(name: str, turns: list[Turn], words: str, log: int, tmp_path: Path) -> None:
    scanned = Scanned(name, turns, tmp_path, access="to:al@example.com OK+AV\n")
    assert scanned.answer == "250 #554" and scanned.delivered
    assert scanned.talk.logged(log)[0].endswith(f"{words}, but ignored because OK+AV")
    assert "infected" in scanned.message_flags()


@pytest.mark.parametrize(("name", "turns", "words", "log"), INFECTIONS)
def test_white_listing_does_not_keep_a_message_from_being_scanned(
    name: str, turns: list[Turn], words: str, log: int, tmp_path: Path
) -> None:
    assert Scanned(name, turns, tmp_path, access="to:al@example.com OK\n").answer == f"550 #{log + 1}"


def test_a_discarded_message_is_not_sent_to_clamd_but_to_the_others(tmp_path: Path) -> None:
    discarded = "from:z@out.example DISCARD\n"
    assert Scanned("clamd", [b"stream: OK\0"], tmp_path, access=discarded).daemon.connections == 0
    assert Scanned("fpscand", [b"0 <clean> /s\n"], tmp_path, access=discarded).daemon.connections == 1


def test_a_name_with_control_characters_is_harmless_and_short(tmp_path: Path) -> None:
    scanned = Scanned("clamd", [b"stream: \x1b[31m" + b"x" * 300 + b"\r FOUND\0"], tmp_path)
    assert f"INFECTED with ?[31m{'x' * 95} #208" in scanned.lines[0]


def test_clamd_hears_headers_empty_line_and_body_in_counted_chunks(tmp_path: Path) -> None:
    scanned = Scanned("clamd", [b"stream: OK\0"], tmp_path, text="Subject: hello\r\n\r\n..stuffed\r\n")
    [request] = scanned.daemon.requests
    assert request.startswith(b"zINSTREAM\0") and request.endswith(b"\0\0\0\0")
    message = unchunked(request)
    assert b"Received: from mail.example.org" in message
    assert message.endswith(b"\r\n\r\n.stuffed\r\n") and b"\r\nSubject: hello\r\n" in message


def unchunked(request: bytes) -> bytes:
    at, message = request.index(b"\0") + 1, b""
    while size := int.from_bytes(request[at : at + 4], "big"):
        message += request[at + 4 : at + 4 + size]
        at += 4 + size
    return message


@pytest.mark.parametrize(("length", "reached"), [(100, False), (1024, True), (5000, True)])
def test_clamd_max_size_cuts_exactly_and_says_so_once(length: int, reached: bool, tmp_path: Path) -> None:
    text = "Subject: hello\r\n\r\n" + ("x" * 98 + "\r\n") * (length // 100)
    scanned = Scanned("clamd", [b"stream: OK\0"], tmp_path, text=text, clamd_max_size="1")
    message = unchunked(scanned.daemon.requests[0])
    assert (len(message) == 1024) == reached and len(message) <= 1024
    assert scanned.talk.logged(202) == (["clamd-max-size=1024 reached"] if reached else [])
    assert scanned.delivered


def test_clamd_without_limit_gets_everything(tmp_path: Path) -> None:
    body = ("x" * 98 + "\r\n") * 3000
    scanned = Scanned("clamd", [b"stream: OK\0"], tmp_path, text="Subject: hello\r\n\r\n" + body, clamd_max_size="0")
    assert unchunked(scanned.daemon.requests[0]).endswith(b"\r\n\r\n" + body.encode())


@pytest.mark.parametrize(
    ("content_type", "scans"), [("", 0), ("text/plain", 0), ("multipart/MIXED; boundary=x", 1), ("multipart/alternative; boundary=x", 0)]
)
def test_without_scan_all_only_mixed_messages_are_scanned(content_type: str, scans: int, tmp_path: Path) -> None:
    head = f"Content-Type: {content_type}\r\n" if content_type else ""
    text = f"{head}Subject: hello\r\n\r\n--x\r\n"
    assert Scanned("clamd", [b"stream: OK\0"], tmp_path, text=text, clamd_scan_all="-").daemon.connections == scans


@pytest.mark.parametrize("socket", ["SCAN", "scan", "SCAN:/run/clamd.sock", "SCAN:127.0.0.1:7777"])
def test_scan_gives_clamd_the_path_of_a_file_that_holds_the_message(socket: str, tmp_path: Path) -> None:
    scanned = Scanned("clamd", [b"/x: Eicar-Test-Signature FOUND\n"], tmp_path, socket=socket, clamd_scan_all="-")
    assert scanned.answer == "550 #208"
    [request] = scanned.daemon.requests
    path = request.removeprefix(b"nSCAN ").removesuffix(b"\n").decode()
    assert path.startswith(f"{tmp_path}/")


def test_a_path_too_long_for_a_command_puts_the_message_off(tmp_path: Path) -> None:
    deep = tmp_path
    while len(str(deep)) < 520:
        deep = deep / ("d" * 100)
    deep.mkdir(parents=True)
    for name, number, turns in (
        ("clamd", 181, [b"x: OK\n"]), ("avastd", 154, [b"220 x\r\n"]), ("fpscand", 370, [b""]),
        ("savdid", 842, [b"OK\n", b"ACC 1\n"]),
    ):  # fmt: skip
        scanned = Scanned(name, turns, deep, socket="SCAN" if name == "clamd" else "127.0.0.1:7777")
        assert scanned.answer == f"451 #{number}"
        assert len(scanned.talk.logged(number)) == 1


def test_an_answer_of_clamd_before_the_end_counts_more_than_the_broken_stream(tmp_path: Path) -> None:
    talk = Talk({"clamd-socket": "127.0.0.1:7777", "save-dir": str(tmp_path)}, route=ROUTE)
    hop = talk.hop("10.0.0.9")

    def complete(heard: bytes) -> int:
        return len(heard) if len(heard) > 12 else 0

    daemon = ScriptedDaemon([(b"INSTREAM size limit exceeded. ERROR\0", CLOSE)], complete)
    talk.net.listen("127.0.0.1", 7777, daemon.make)
    client = talk.greeted()
    client.say("MAIL FROM:<z@out.example>")
    client.say("RCPT TO:<al@example.com>")
    client.say("DATA")
    client.send(EARLY)
    assert codes(client.send(b"more\r\n" * 100 + b".\r\n")) == ["250 #554"]
    assert talk.logged(202) == ["clamd-max-size=10240000 reached"]
    assert len(hop.contents) == 1


@pytest.mark.parametrize(("rest", "number"), [(b"more\r\n.\r\n", 199), (b".\r\n", 943)])
def test_a_clamd_that_hangs_up_in_the_stream_puts_the_message_off(rest: bytes, number: int, tmp_path: Path) -> None:
    talk = Talk({"clamd-socket": "127.0.0.1:7777", "save-dir": str(tmp_path)}, route=ROUTE)
    hop = talk.hop("10.0.0.9")

    def complete(heard: bytes) -> int:
        return len(heard) if len(heard) > 13 else 0

    talk.net.listen("127.0.0.1", 7777, ScriptedDaemon([CLOSE], complete).make)
    client = talk.greeted()
    client.say("MAIL FROM:<z@out.example>")
    client.say("RCPT TO:<al@example.com>")
    client.say("DATA")
    client.send(EARLY)
    assert codes(client.send(rest)) == [f"451 #{number}"]
    assert talk.logged(number)[0].startswith("clamd session write error after ")
    assert hop.contents == []


def test_rset_and_disconnect_leave_no_connection_to_clamd(tmp_path: Path) -> None:
    talk = Talk({"clamd-socket": "127.0.0.1:7777", "save-dir": str(tmp_path)}, route=ROUTE)
    talk.hop("10.0.0.9")
    daemon = ScriptedDaemon([None], by_chunks)
    talk.net.listen("127.0.0.1", 7777, daemon.make)
    client = talk.greeted()
    client.say("MAIL FROM:<z@out.example>")
    client.say("RCPT TO:<al@example.com>")
    client.say("DATA")
    client.send(EARLY)
    assert daemon.connections == 1 and daemon.ended == 0
    client.transport.loseConnection()
    talk.net.pump()
    assert daemon.ended == 1


@pytest.mark.parametrize(
    ("option", "value", "warned"),
    [
        ("avastd-socket", "192.0.2.50", True),
        ("avastd-socket", "localhost", False),
        ("fpscand-socket", "/run/fpscand.sock", False),
        ("savdid-socket", "scan.example:4010", True),
        ("clamd-socket", "192.0.2.50", False),
        ("clamd-socket", "SCAN:192.0.2.50", True),
        ("clamd-socket", "SCAN", False),
        ("ctasd-socket", "192.0.2.50", True),
    ],
)
def test_a_scanner_on_another_host_that_should_read_files_is_told_at_start(option: str, value: str, warned: bool) -> None:
    assert len(Talk({option: value}).logged(1150)) == int(warned)


def test_a_fault_in_a_scanner_filter_lets_nothing_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(line: str) -> None:
        raise RuntimeError("fault")

    monkeypatch.setattr("smtpf.scanners.clamd.parse_result", broken)
    scanned = Scanned("clamd", [b"stream: OK\0"], tmp_path)
    assert scanned.answer == "451 #550"
    assert "fault" in scanned.talk.logged(539)[0]
    assert not scanned.delivered


WRITES = [
    ("clamd", "127.0.0.1:7777", 1, 185), ("clamd", "127.0.0.1:7777", 2, 196), ("clamd", "127.0.0.1:7777", 3, 199),
    ("clamd", "127.0.0.1:7777", 4, 943), ("clamd", "SCAN", 1, 183), ("avastd", "127.0.0.1:7777", 1, 156),
    ("fpscand", "127.0.0.1:7777", 1, 372), ("savdid", "127.0.0.1:7777", 1, 837), ("savdid", "127.0.0.1:7777", 2, 844),
]  # fmt: skip


@pytest.mark.parametrize(("name", "socket", "fails", "wanted"), WRITES)
def test_each_write_that_fails_has_its_number(
    name: str, socket: str, fails: int, wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = {"clamd": [None], "avastd": [b"220 hi\r\n"], "fpscand": [], "savdid": [b"OK SSSP/1.0\r\n", b"ACC 1/1\r\n"]}[name]
    fail_write(monkeypatch, fails)
    scanned = Scanned(name, turns, tmp_path, socket=socket)
    assert scanned.answer == f"451 #{wanted}"
    assert len(scanned.talk.logged(wanted)) == 1
    assert not scanned.delivered
