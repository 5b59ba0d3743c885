"""The dialogue in the log: with ``smtp=2`` among the verbose words each command and each line of a reply, both ways.

For a postmaster who must know what a client or a next hop really said. Secrets stay out: of AUTH and OPTN only the first word
is shown, and of what is no command at all nothing, because it may be a password that nobody asked for. The answer of a next
hop to the final dot is shown with ``smtp=1`` already: it often names the message's place in the queue there.
Source: spec chapter operations, 5.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.journal.message import debug
from smtpf.reply import Answer
from smtpf.smtp.client import HopAnswer, HopFailure

if TYPE_CHECKING:
    from smtpf.smtp.session import Session

LONGEST = 512
"""Octets of a line that are shown."""

RECEIVED = debug(642, "%s > %s", "smtp", "A client's command. What could hold a secret is left out.", at_least=2)
SENT = debug(626, "%s < %s", "smtp", "A line of a reply to a client.", at_least=2)
ASKED = debug(303, "%s > %s", "smtp", "A command to a next hop; its route comes first.", at_least=2)
ANSWERED = debug(305, "%s < %s", "smtp", "A line of a next hop's reply.", at_least=2)
DOT_ANSWERED = debug(304, "%s < %s", "smtp", "A next hop's answer to the whole message; its route comes first.")

FIRST_WORD_ONLY = frozenset({"AUTH", "OPTN"})
HIDDEN = "***"


def received(session: Session, verb: str, line: str, known: bool) -> None:
    """A client's command line, stripped of its end; ``known`` is False for what is no command."""
    if session.journal.enabled(RECEIVED):
        shown = line if known else HIDDEN
        if verb in FIRST_WORD_ONLY and line.upper() != verb:
            shown = f"{verb} {HIDDEN}"
        session.log(RECEIVED, session.client, shown[:LONGEST])


def sent(session: Session, answer: Answer, repeats_client: bool) -> None:
    """A reply; ``repeats_client`` for one that holds a word that was no command."""
    if session.journal.enabled(SENT):
        for line in answer.lines:
            session.log(SENT, session.client, HIDDEN if repeats_client else line[:LONGEST])


def with_next_hop(session: Session, route: str, command: bytes, answer: HopAnswer) -> None:
    """A command to a next hop, and what came of it."""
    if session.journal.enabled(ASKED):
        session.log(ASKED, route, command[:LONGEST])
        for line in (answer.text,) if isinstance(answer, HopFailure) else answer.lines:
            session.log(ANSWERED, route, line[:LONGEST])
