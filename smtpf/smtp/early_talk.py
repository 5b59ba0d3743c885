"""What is said and done about clients that speak before it is their turn.

Spam software seldom waits for replies. The conversation notices input that comes too early, and the pauses of the access map
invite it; either way the refusal is the same. Source: RFC 5321 4.3.1, RFC 2920; spec chapter session, 2.5.
"""

from __future__ import annotations

import re

from smtpf.journal.message import err, info
from smtpf.pipeline import Verdict, drop
from smtpf.smtp import counters, replies
from smtpf.smtp import options as opt
from smtpf.smtp.session import ClientFlag, Session
from smtpf.stats.counter import Counter, Group

PIPELINE_INPUT = info(540, "pipeline input=%ld:%s", "The client spoke before it was its turn; this is how it began.")
SENT_TRAFFIC = err(
    630,
    "%s [%s] sent traffic before %s reply, pause=%ld",
    "GreetPause: or CommandPause: of the access map asked the client to wait, and it did not. Spam software often does not.",
    fields=("client", "address", "command", "pause"),
)
GREET_PAUSE = Counter("smtp-greet-pause", Group.CONNECT, "The client spoke during its GreetPause:.")
COMMAND_PAUSE = Counter("smtp-command-pause", Group.CONNECT, "The client spoke during its CommandPause:.")
SHOWN = 100
"""Octets of early input in the log."""
BANNER = "welcome"
"""What #630 calls the banner."""

_AUTH = re.compile(rb"^[ \t]*AUTH\b", re.IGNORECASE | re.MULTILINE)
_COMMANDS = re.compile(
    rb"(?:(?:EHLO|HELO|MAIL|RCPT|DATA|BDAT|RSET|NOOP|QUIT|HELP|VRFY|EXPN|ETRN|STARTTLS|AUTH)\b[^\n]*(?:\n|$))*", re.IGNORECASE
)
_CONTROL = re.compile(r"[^\x20-\x7e]")


def escaped(octets: bytes) -> str:
    """Octets for the log: control characters as ``\\xNN``."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", octets.decode("latin-1"))


def without_secrets(octets: bytes, *, commands_only: bool) -> bytes:
    """``octets`` up to what may be credentials: behind AUTH and, with ``commands_only``, from the first line that is no command."""
    found = _AUTH.search(octets)
    cut = found.end() if found else len(octets)
    if commands_only:
        commands = _COMMANDS.match(octets)
        cut = min(cut, commands.end() if commands else 0)
    return octets if cut == len(octets) else octets[:cut] + b"..."


def note(session: Session) -> None:
    """Log and count the input that is there; from now on this client is an early talker."""
    count, head = session.early_input()
    head = without_secrets(head, commands_only=session.said_auth or session.settings[opt.SMTP_AUTH_ENABLE])
    session.log(PIPELINE_INPUT, count, escaped(head))
    session.count(counters.CLIENT_PIPELINING)
    session.flags.add(ClientFlag.PIPELINING)


def refusal(session: Session) -> Verdict:
    """Note the input that is there, and give the verdict on it."""
    note(session)
    return drop(replies.PIPELINING_NOT_ALLOWED, delay=True, whole_session=True, fact="early input")


def refusal_in_pause(session: Session, verb: str, pause: int) -> Verdict | None:
    """The verdict on input during the pause (milliseconds) before ``verb`` or the banner; None when the client has just gone."""
    if not session.early_input()[0]:
        return None
    verdict = refusal(session)
    session.log(SENT_TRAFFIC, session.name, session.address, verb, pause)
    session.count(GREET_PAUSE if verb == BANNER else COMMAND_PAUSE)
    return verdict
