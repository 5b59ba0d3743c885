"""Let programs of this site judge the envelope and the message.

``cli-envelope`` hears of client, sender and recipients at DATA, ``cli-content`` gets the message while it comes in; both decide by
exit status, and their output becomes the reply. A program that cannot be started, dies or hangs decides nothing: the message goes on,
and the log tells. Source: spec chapter filters-content, 9.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Coroutine
from typing import Any

import attrs

from smtpf.filters.daemon_failure import guarded
from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, discard, drop, reject, tempfail
from smtpf.reply import Reply
from smtpf.scanners.program import Ending, Program, start
from smtpf.settings.option import Number, Text
from smtpf.settings.store import Settings
from smtpf.smtp.replies import INTERNAL_ERROR
from smtpf.smtp.session import MsgFlag, Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

CLI_ENVELOPE = Text(
    "cli-envelope",
    "",
    "A program, with its arguments, that gets the envelope at DATA. Its status decides: 0 go on, 4 later, 5 refuse, 6 discard, 7 drop.",
    choices='absolute path; "" disables',
    area="cli",
)
CLI_CONTENT = Text(
    "cli-content",
    "",
    "A program, with its arguments, that gets the message on its standard input and decides by exit status as cli-envelope does.",
    choices='absolute path; "" disables',
    area="cli",
)
CLI_TIMEOUT = Number(
    "cli-timeout", 60, "How long those programs may be silent, or not read, before they are killed.", choices="seconds", least=1, area="cli"
)

PARSE_ERROR = err(
    210,
    "error parsing %s='%s': %s (%d)",
    "The command has an open quote, or does not begin with an absolute path. The node does not start; a running one keeps the old command.",
    fields=("option", "value", "error", "errno"),
)
STARTED = info(212, "started %s[%d] %s", "A program was started.", fields=("program", "pid", "command"))
START_ERROR = err(
    213, "cmdStart(%s) failed: %s (%d)", "No process or pipe is left for the program. The message went on without it.",
    fields=("command", "error", "errno"),
)  # fmt: skip
WRITE_ERROR = err(
    215,
    "write error to child=%d: %s (%d)",
    "The program closed its input, but went on running. It was killed.",
    fields=("pid", "error", "errno"),
)
SIGNALLED = err(
    220, "%s[%d] terminated on signal=%d%s", "The program died, or was killed (9) because it hung. The message went on without its word.",
    fields=("program", "pid", "signal", "core"),
)  # fmt: skip
OUT_OF_RANGE = err(
    221, "exit status=%d out of range", "The status means nothing (71: it cannot be executed). The message went on.", fields=("status",)
)
EXITED = info(222, "%s[%d] exit status=%d", "A program has decided.", fields=("program", "pid", "status"))
OUTPUT = info(225, "%s", "A line of a program's output that is in no reply.")

DECIDED = Reply(224, "%d %d.7.0 %s", meaning="A program of cli-envelope or cli-content refused; the text is its output.")

ENVELOPE = Counter("cli-envelope", Group.DATA, "Messages on which the program of cli-envelope decided.")
CONTENT = Counter("cli-content", Group.MSG, "Messages on which the program of cli-content decided.")

MAX_REPLY_LINES = 20
MAX_REPLY_LINE = 450
"""Octets of the program's text in a reply line."""
MAX_PENDING = 256 * 1024
"""Octets that wait for a program that does not keep up, before the client has to wait, too."""
_STATUS = frozenset({0, 4, 5, 6, 7})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class CommandUnusable(SystemExit):
    """#210 has been logged; the node must not start."""


@attrs.frozen
class Command:
    """A command line, taken apart."""

    text: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return os.path.basename(self.words[0])


@attrs.define(eq=False)
class _Content:
    """The program that gets this message."""

    command: Command | None = None
    running: Program | None = None
    ended: Ending | None = None
    pending: list[bytes] = attrs.field(factory=list)
    pending_octets: int = 0
    given_up: bool = False
    """It did not read for too long; the rest is dropped."""


class Cli(Filter):
    """Runs the programs of cli-envelope and cli-content."""

    def __init__(self, reactor: Any, journal: Journal) -> None:
        self._reactor = reactor
        self._journal = journal
        self._commands: dict[Text, Command | None] = {}
        self._unusable = False
        self._used = False
        """A program has been started since the node began."""

    def configure(self, settings: Settings) -> None:
        """Take the command lines apart; one that cannot be leaves the old one in force."""
        for option in (CLI_ENVELOPE, CLI_CONTENT):
            text = settings[option].strip()
            command = parse_command(text)
            if isinstance(command, str):
                self._journal.write(PARSE_ERROR, option.name, text, command, errno.EINVAL)
                self._unusable = True
            else:
                self._commands[option] = command

    def start(self) -> None:
        if self._unusable:
            raise CommandUnusable(1)

    # DATA

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Ask about the envelope; then start the program that gets the content."""
        envelope = self._commands.get(CLI_ENVELOPE)
        if envelope is not None:
            return guarded(session, self._envelope(session, transaction, envelope), "cli-envelope", None)
        self._start_content(session, transaction)
        return None

    async def _envelope(self, session: Session, transaction: Transaction, command: Command) -> Verdict | None:
        verdict = await self._judge_envelope(session, transaction, command)
        if verdict is not None:
            session.count(ENVELOPE)
            return verdict
        self._start_content(session, transaction)
        return None

    async def _judge_envelope(self, session: Session, transaction: Transaction, command: Command) -> Verdict | None:
        running = self._start(session, command)
        if running is None:
            return None
        if isinstance(running, Ending):
            return _verdict(session, transaction, command, 0, running)
        content = transaction.own(_Content)
        content.running = running
        running.write(envelope_of(session, transaction))
        ending = await running.finish()
        content.running = None
        return _verdict(session, transaction, command, running.pid, ending)

    def _start(self, session: Session, command: Command) -> Program | Ending | None:
        self._used = True
        running = start(self._reactor, command.words, session.settings[CLI_TIMEOUT])
        if isinstance(running, OSError):
            session.log(START_ERROR, command.text, running.strerror or str(running), running.errno or 0)
            return None
        if isinstance(running, Program):
            session.log(STARTED, command.name, running.pid, command.text)
        return running

    def _start_content(self, session: Session, transaction: Transaction) -> None:
        command = self._commands.get(CLI_CONTENT)
        if command is None:
            return
        running = self._start(session, command)
        if running is None:
            return
        content = transaction.own(_Content)
        content.command = command
        if isinstance(running, Ending):
            content.ended = running
        else:
            content.running = running
            running.write(f"Return-Path: <{transaction.sender.address}>\r\n".encode())

    # The message

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Give the program the header section as it is now, and the empty line."""
        if not self._used:
            return None
        assert transaction.headers is not None
        return _feed(transaction.own(_Content), transaction.headers.encode() + b"\r\n")

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        return _feed(transaction.own(_Content), chunk) if self._used else None

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The program's word."""
        if not self._used:
            return None
        content = transaction.own(_Content)
        if content.command is None:
            return None
        return guarded(session, self._judge_content(session, transaction, content, content.command), "cli-content", None)

    async def _judge_content(self, session: Session, transaction: Transaction, content: _Content, command: Command) -> Verdict | None:
        ending, pid = content.ended, 0
        if content.running is not None:
            pid = content.running.pid
            if content.pending and not content.given_up:
                content.running.write(b"".join(content.pending))
            ending = await content.running.finish()
            content.running = None
        if ending is None:
            return None
        verdict = _verdict(session, transaction, command, pid, ending)
        if verdict is not None:
            session.count(CONTENT)
        return verdict

    def rset(self, session: Session, transaction: Transaction) -> None:
        """Nobody wants the word of a program that still runs."""
        if not self._used:
            return
        content = transaction.own(_Content)
        running, content.running = content.running, None
        if running is not None:
            running.kill()


def parse_command(text: str) -> Command | str | None:
    """The words of a command line; what is wrong with it as text; None when it is empty."""
    if not text:
        return None
    try:
        words = tuple(shlex.split(text))
    except ValueError as reason:
        return str(reason)
    if not words or not words[0].startswith("/"):
        return "not an absolute path"
    return Command(text, words)


def envelope_of(session: Session, transaction: Transaction) -> bytes:
    """What the program of cli-envelope reads."""
    lines = [session.address, str(session.port), session.name, session.helo, transaction.sender.address, transaction.tid]
    lines += [recipient.path.address for recipient in _by_next_hop(transaction.recipients)]
    return "".join(f"{_CONTROL.sub('?', line)}\n" for line in lines).encode("utf-8", "replace")


def _by_next_hop(recipients: list[Recipient]) -> list[Recipient]:
    first: dict[int, int] = {}
    for at, recipient in enumerate(recipients):
        first.setdefault(id(recipient.forward), at)
    return sorted(recipients, key=lambda recipient: first[id(recipient.forward)])


def _feed(content: _Content, octets: bytes) -> Coroutine[Any, Any, None] | None:
    """Give the program more of the message. A coroutine when it is far behind."""
    running = content.running
    if running is None or content.given_up:
        return None
    if running.flowing:
        if content.pending:
            content.pending.append(octets)
            octets = b"".join(content.pending)
            content.pending.clear()
            content.pending_octets = 0
        running.write(octets)
        return None
    content.pending.append(octets)
    content.pending_octets += len(octets)
    return _wait_for(content, running) if content.pending_octets > MAX_PENDING else None


async def _wait_for(content: _Content, running: Program) -> None:
    if not await running.drained():
        content.given_up = True
        content.pending.clear()
        return
    running.write(b"".join(content.pending))
    content.pending.clear()
    content.pending_octets = 0


def _verdict(session: Session, transaction: Transaction, command: Command, pid: int, ending: Ending) -> Verdict | None:
    """Log how the program ended, and do what its status says."""
    lines = ending.lines
    if ending.unfed:
        session.log(WRITE_ERROR, pid, os.strerror(ending.unfed), ending.unfed)
    status = ending.status
    if ending.signal:
        session.log(SIGNALLED, command.name, pid, ending.signal, ", core dumped" if ending.core_dumped else "")
        status = 0
    elif status and not lines:
        lines = ("message rejected",)
    if status not in _STATUS:
        session.log(OUT_OF_RANGE, status)
        status = 0
    session.log(EXITED, command.name, pid, status)
    if status in (4, 5):
        texts = tuple(_CONTROL.sub(" ", line)[:MAX_REPLY_LINE] for line in lines[:MAX_REPLY_LINES])
        if status == 4:
            return tempfail(DECIDED, 451, 4, texts, fact=texts[0])
        return reject(DECIDED, 550, 5, texts, fact=texts[0])
    for line in lines:
        session.log(OUTPUT, line)
    if status == 6:
        transaction.flags.add(MsgFlag.DISCARD)
        return discard(f"{command.name} exit status=6")
    if status == 7:
        return drop(INTERNAL_ERROR, fact=f"{command.name} exit status=7")
    return None
