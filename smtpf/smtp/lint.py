"""What would have been refused while ``lint`` is on: the replies, for the report that the postmaster gets.

The reply slots write here; the filter ``lint`` makes a report of it. Source: spec chapter session, 15.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.pipeline import Verdict
from smtpf.reply import render
from smtpf.settings.option import Flag

if TYPE_CHECKING:
    from smtpf.smtp.session import Session

LINT = Flag(
    "lint",
    False,
    "Try the configuration without effect on senders: policy refusals are answered positively, nothing that would have been refused is "
    "delivered, and the postmaster gets a report for each such message. Not for mail that people wait for.",
    area="lint",
)

MAX_LINES = 100
"""Replies kept of one session, and of one message."""


class LintRecord:
    """Refusals of one session, oldest first."""

    def __init__(self) -> None:
        self.of_session: list[str] = []
        """Those that concern the whole connection."""
        self.of_message: list[str] = []
        self.reported = False
        """A report has named those of the session."""

    @property
    def lines(self) -> list[str]:
        return self.of_session + self.of_message

    def note(self, session: Session, verdict: Verdict) -> None:
        assert verdict.reply is not None
        line = render(verdict.reply, verdict.args, session.sid).first
        kept = self.of_session if verdict.whole_session else self.of_message
        if line not in kept and len(kept) < MAX_LINES:
            kept.append(line)
