"""Ask a mail host whether it would take mail for an address, without sending any: the part that call-ahead and
call-back have in common.

A host that says yes to everything says nothing; so it is also asked about an address that nobody can have. That address
is made from the real one, so that it is the same each time and can be recognised in the host's log.
Source: spec chapters filters-envelope, 14 and 15.3, and maps, 22.
"""

from __future__ import annotations

from smtpf.journal.message import err
from smtpf.smtp.client import FailureKind, HopAnswer, HopFailure, NextHopProtocol
from smtpf.smtp.grammar import Path
from smtpf.smtp.session import Session

WRITE_ERROR = err(
    480, "%s write error: %s (%d)", "A command could not be written to a host that was asked about an address.",
    fields=("host", "error", "errno"),
)  # fmt: skip
READ_ERROR = err(
    484, "%s read error: %s (%d)", "A host that was asked about an address closed the connection, stayed silent, or broke the protocol.",
    fields=("host", "error", "errno"),
)  # fmt: skip

MAX_LOCAL = 64
"""Octets of a local part (RFC 5321 4.5.3.1.1)."""
OVER_QUOTA = frozenset({452, 552})
"""Answers about a full mailbox: it exists."""


def luhn_digit(text: str) -> int:
    """Luhn's check digit. A letter counts as its number in base 36, written in decimal; any other character as 0."""
    digits = "".join(str(int(character, 36)) if character.isascii() and character.isalnum() else "0" for character in text)
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return (10 - total % 10) % 10


def false_local(path: Path) -> str:
    """A local part that nobody has: the mailbox of ``path`` backwards, and its check digit."""
    backwards = path.mailbox[::-1][: MAX_LOCAL - 1]
    return f"{backwards}{luhn_digit(backwards)}"


def false_address(path: Path) -> str:
    """``false_local`` in the domain of ``path``, which has one."""
    return f"{false_local(path)}@{path.address[len(path.local) + 1 :]}"


async def ask(protocol: NextHopProtocol, address: str, timeout: float) -> HopAnswer:
    """RCPT for ``address``."""
    return await protocol.command(b"RCPT TO:<" + address.encode() + b">", timeout)


def verdict(answer: HopAnswer) -> int:
    """2, 4 or 5: what an answer to RCPT says of the address. A full mailbox is no reason to call it unknown."""
    if answer.positive:
        return 2
    return 5 if answer.code >= 500 and answer.code not in OVER_QUOTA else 4


def text(answer: HopAnswer) -> str:
    """Last line of the reply, or why there is none."""
    return answer.text if isinstance(answer, HopFailure) else answer.last


def log_failure(session: Session, host: str, failure: HopFailure) -> None:
    """Write #480 or #484."""
    session.log(WRITE_ERROR if failure.kind is FailureKind.WRITE else READ_ERROR, host, failure.text, failure.errno)
