"""cli-envelope and cli-content with real programs: what they read, and what each exit status leads to."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smtpf.filters.cli import CLI_CONTENT, CLI_ENVELOPE, CLI_TIMEOUT, Cli, Command, CommandUnusable, parse_command
from smtpf.pipeline import Code, Verdict
from smtpf.reply import render
from smtpf.smtp.session import MsgFlag, Recipient
from test.support.sending import SID, TID, Desk, mail_path

HEAD = b"Received: ours\r\nSubject: hello\r\n"


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str, str], str]:
    """``script("name", "echo x")``: path of a shell script that does so."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


Script = Callable[[str, str], str]


class Judged:
    """One message before the programs of cli-envelope and cli-content."""

    def __init__(self, folder: Path, reactor_run: Any, *, envelope: str = "", content: str = "", timeout: str = "10") -> None:
        from twisted.internet import reactor

        self.folder = folder
        self.run = reactor_run
        self.desk = Desk(reactor, {CLI_ENVELOPE: envelope, CLI_CONTENT: content, CLI_TIMEOUT: timeout})
        self.desk.journal.use_words("info,warn")
        self.session = self.desk.session
        self.session.port = 55197
        self.transaction = self.desk.transaction("z@out.example")
        for address in ("al@example.com", "bob@example.org"):
            self.transaction.recipients.append(Recipient(mail_path(address)))
        self.cli = Cli(reactor, self.desk.journal)
        self.cli.configure(self.desk.settings)
        self.cli.start()

    def whole(self, body: bytes = b"One line.\r\n", pieces: int = 1) -> Verdict | None:
        """The message from DATA to its dot: the first verdict."""

        async def stages() -> Verdict | None:
            verdict = await settled(self.cli.data(self.session, self.transaction))
            if verdict is not None:
                return verdict
            self.desk.fill(self.transaction, HEAD, body, self.folder)
            await settled(self.cli.headers(self.session, self.transaction))
            for _ in range(pieces):
                await settled(self.cli.content(self.session, self.transaction, body))
            return await settled(self.cli.dot(self.session, self.transaction))

        async def settled(answer: Any) -> Verdict | None:
            return answer if answer is None or isinstance(answer, Verdict) else await answer

        verdict: Verdict | None = self.run(stages())
        self.cli.rset(self.session, self.transaction)
        return verdict

    def lines(self, number: int) -> list[str]:
        return [entry.body for entry in self.desk.entries if entry.message.number == number]

    def reply(self, verdict: Verdict | None) -> tuple[str, ...]:
        assert verdict is not None and verdict.reply is not None
        return render(verdict.reply, verdict.args, SID).lines


def test_the_envelope_is_read_line_by_line(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("env", f"cat > {tmp_path}/heard"))
    assert judged.whole() is None
    assert (tmp_path / "heard").read_text().splitlines() == [
        "192.0.2.7", "55197", "mail.example.org", "mail.example.org", "z@out.example", TID, "al@example.com", "bob@example.org",
    ]  # fmt: skip


def test_the_message_is_read_with_return_path_and_one_empty_line(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, content=script("msg", f"cat > {tmp_path}/heard"))
    assert judged.whole() is None
    wanted = b"Return-Path: <z@out.example>\r\n" + HEAD + b"\r\nOne line.\r\n"
    assert (tmp_path / "heard").read_bytes() == wanted


def test_recipients_of_one_next_hop_stand_together(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("env", f"tail -n 3 > {tmp_path}/heard"))
    judged.transaction.recipients.append(Recipient(mail_path("carl@example.com")))
    first, second = object(), object()
    for recipient, hop in zip(judged.transaction.recipients, (first, second, first), strict=True):
        recipient.forward = hop
    judged.whole()
    assert (tmp_path / "heard").read_text().split() == ["al@example.com", "carl@example.com", "bob@example.org"]


STATUSES = [
    ("echo too many links; echo see policy; exit 5", Code.REJECT, ("550-5.7.0 too many links", f"550 5.7.0 see policy #224 {SID}")),
    ("exit 4", Code.TEMPFAIL, (f"451 4.7.0 message rejected #224 {SID}",)),
    ("echo later; exit 4", Code.TEMPFAIL, (f"451 4.7.0 later #224 {SID}",)),
    ("exit 5", Code.REJECT, (f"550 5.7.0 message rejected #224 {SID}",)),
    ("exit 7", Code.DROP, (f"421 4.3.0 internal server error #549 {SID}",)),
    ("printf 'a\\001b\\r\\n'; exit 5", Code.REJECT, (f"550 5.7.0 a b #224 {SID}",)),
]


@pytest.mark.parametrize(("text", "code", "reply"), STATUSES)
@pytest.mark.parametrize("option", ["envelope", "content"])
def test_a_status_leads_to_its_reply(
    option: str, text: str, code: Code, reply: tuple[str, ...], script: Script, tmp_path: Path, reactor_run: Any
) -> None:
    judged = Judged(tmp_path, reactor_run, **{option: script("judge", f"cat > /dev/null; {text}")})
    verdict = judged.whole()
    assert verdict is not None and verdict.code is code
    assert judged.reply(verdict) == reply
    assert judged.desk.counted(f"cli-{option}") == 1
    assert judged.lines(222)[0].endswith(f"exit status={text[-1]}")


@pytest.mark.parametrize("option", ["envelope", "content"])
def test_status_6_discards(option: str, script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, **{option: script("judge", "cat > /dev/null; echo away; exit 6")})
    verdict = judged.whole()
    assert verdict is not None and verdict.code is Code.DISCARD
    assert MsgFlag.DISCARD in judged.transaction.flags
    assert judged.lines(225) == ["away"]


@pytest.mark.parametrize("option", ["envelope", "content"])
def test_status_0_goes_on_and_its_output_is_logged(option: str, script: Script, tmp_path: Path, reactor_run: Any) -> None:
    path = script("judge", "cat > /dev/null; echo ok")
    judged = Judged(tmp_path, reactor_run, **{option: f"{path} -v 'two words'"})
    assert judged.whole() is None
    assert judged.lines(225) == ["ok"]
    [started] = judged.lines(212)
    assert started.startswith("started judge[") and started.endswith(f"] {path} -v 'two words'")
    assert judged.desk.counted(f"cli-{option}") == 0


@pytest.mark.parametrize("status", [1, 2, 3, 8, 99])
def test_a_status_that_means_nothing_goes_on(status: int, script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("judge", f"cat > /dev/null; exit {status}"))
    assert judged.whole() is None
    assert judged.lines(221) == [f"exit status={status} out of range"]
    assert judged.lines(222)[0].endswith("exit status=0")


def test_a_long_reply_is_bounded(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    text = "cat > /dev/null; printf '%0500d\\n' 7; seq 1 60; exit 5"
    judged = Judged(tmp_path, reactor_run, envelope=script("judge", text))
    lines = judged.reply(judged.whole())
    assert len(lines) == 20 and lines[0] == "550-5.7.0 " + "0" * 450
    assert lines[-1] == f"550 5.7.0 19 #224 {SID}"


def test_death_by_signal_goes_on(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("judge", "echo no; kill -TERM $$"))
    assert judged.whole() is None
    assert judged.lines(220)[0].startswith("judge[") and judged.lines(220)[0].endswith("] terminated on signal=15")
    assert judged.lines(225) == ["no"]


def test_one_that_hangs_is_killed_and_goes_on(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, content=script("judge", "cat > /dev/null; sleep 600"), timeout="1")
    assert judged.whole() is None
    assert judged.lines(220)[0].endswith("] terminated on signal=9")


def test_one_that_does_not_read_holds_the_message_no_longer_than_the_timeout(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, content=script("judge", "sleep 600"), timeout="1")
    assert judged.whole(b"x" * 60_000, pieces=20) is None
    assert judged.lines(220)[0].endswith("] terminated on signal=9")


def test_one_that_closes_its_input_and_goes_on_is_killed(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, content=script("judge", f"exec 0<&-; touch {tmp_path}/closed; sleep 600"))

    async def stages() -> Verdict | None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        judged.cli.data(judged.session, judged.transaction)
        judged.desk.fill(judged.transaction, HEAD, b"x\r\n", tmp_path)
        while not (tmp_path / "closed").exists():
            await deferLater(reactor, 0.01)
        await deferLater(reactor, 0.1)
        judged.cli.headers(judged.session, judged.transaction)
        await deferLater(reactor, 0.1)
        answer: Any = judged.cli.dot(judged.session, judged.transaction)
        verdict: Verdict | None = await answer
        return verdict

    assert reactor_run(stages()) is None
    [line] = judged.lines(215)
    assert line.endswith(f": Broken pipe ({errno.EPIPE})")
    assert len(judged.lines(220)) == 1


def test_the_content_is_not_shown_when_the_envelope_was_refused(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    content = script("msg", f"touch {tmp_path}/started")
    judged = Judged(tmp_path, reactor_run, envelope=script("env", "cat > /dev/null; exit 5"), content=content)
    assert judged.whole() is not None
    assert len(judged.lines(212)) == 1


def test_what_cannot_be_executed_goes_on(tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope="/no/such/program", content="/etc/passwd x")
    assert judged.whole() is None
    assert judged.lines(221) == ["exit status=71 out of range"] * 2


def test_without_descriptors_the_message_goes_on(script: Script, tmp_path: Path, reactor_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("env", "exit 5"))
    monkeypatch.setattr("smtpf.filters.cli.start", lambda *given: OSError(errno.EMFILE, "Too many open files"))
    assert judged.whole() is None
    assert judged.lines(213)[0].endswith("failed: Too many open files (24)")


def test_the_end_of_a_transaction_kills_its_program(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, content=script("msg", "sleep 600"))
    judged.cli.data(judged.session, judged.transaction)
    pid = int(judged.lines(212)[0].split("[")[1].split("]")[0])
    judged.cli.rset(judged.session, judged.transaction)

    async def reaped() -> bool:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        for _ in range(500):
            if not Path(f"/proc/{pid}").exists():
                return True
            await deferLater(reactor, 0.01)
        return False

    assert reactor_run(reaped())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/bin/x", ("/bin/x",)),
        ('/bin/x -a \'b c\' "d\\"e" f\\ g', ("/bin/x", "-a", "b c", 'd"e', "f g")),
    ],
)
def test_a_command_line_is_taken_apart(text: str, words: tuple[str, ...]) -> None:
    parsed = parse_command(text)
    assert isinstance(parsed, Command) and parsed.words == words and parsed.name == "x"


@pytest.mark.parametrize("text", ["/bin/x 'open", "relative/x", "x", "''"])
def test_a_bad_command_line_ends_the_start(text: str, tmp_path: Path, reactor_run: Any) -> None:
    with pytest.raises(CommandUnusable) as ended:
        Judged(tmp_path, reactor_run, envelope=text)
    assert ended.value.code == 1


def test_a_bad_command_line_at_run_time_leaves_the_old_one(script: Script, tmp_path: Path, reactor_run: Any) -> None:
    judged = Judged(tmp_path, reactor_run, envelope=script("env", "cat > /dev/null; exit 5"))
    judged.cli.configure(judged.desk.settings.evolve({CLI_ENVELOPE: "/bin/x 'open"}))
    assert judged.lines(210) == ["error parsing cli-envelope='/bin/x 'open': No closing quotation (22)"]
    assert judged.whole() is not None
