"""The two reply slots of a session: one immediate reply, one delayed. Source: spec chapter session, 2.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpf.journal.message import info
from smtpf.pipeline import CONTINUE, Code, Verdict
from smtpf.reply import render
from smtpf.settings.option import Flag
from smtpf.smtp.lint import LINT, LintRecord
from smtpf.smtp.session import MsgFlag

if TYPE_CHECKING:
    from smtpf.smtp.session import Session

SMTP_DELAY_CHECKS = Flag(
    "smtp-delay-checks",
    False,
    "Keep refusals of the connection, HELO and sender until RCPT, so that a recipient can be white-listed in spite of them.",
    area="smtp",
)

DELAYED = info(
    1034,
    "delayed: %s",
    "A refusal was put aside by smtp-delay-checks. It is the answer to each recipient that is not white-listed.",
    since="later",
)


class ReplySlots:
    """At most one immediate and one delayed verdict."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.immediate: Verdict | None = None
        self.delayed: Verdict | None = None

    def take(self, verdict: Verdict) -> Verdict:
        """Store a verdict that carries a reply; what the stage's verdict then is.

        Of delayed verdicts the first wins, of immediate ones the last.
        """
        session = self._session
        if verdict.negative and session.settings[LINT]:
            session.own(LintRecord).note(session, verdict)
            if verdict.delay:
                return CONTINUE
        if verdict.delay and verdict.negative and session.settings[SMTP_DELAY_CHECKS]:
            if self.delayed is None:
                self.put_aside(verdict)
            if self.tagged and session.transaction is not None:
                session.transaction.list_state = Code.ACCEPT
            return CONTINUE
        self.immediate = verdict
        return verdict

    def put_aside(self, verdict: Verdict) -> None:
        """Make a refusal the delayed one, whatever ``smtp-delay-checks`` says."""
        assert verdict.reply is not None
        self.delayed = verdict
        self._session.log(DELAYED, render(verdict.reply, verdict.args, self._session.sid).first)

    @property
    def tagged(self) -> bool:
        """The message carries TAG: a delayed refusal marks it instead of refusing it."""
        transaction = self._session.transaction
        return transaction is not None and MsgFlag.TAG in transaction.flags

    @property
    def refusing(self) -> Verdict | None:
        """The delayed refusal that holds for a recipient without an entry of its own; None when the message is tagged instead."""
        return None if self.tagged else self.delayed

    def end_transaction(self, forget_session: bool) -> None:
        """Forget what concerned the transaction; with ``forget_session`` what concerned the connection too."""
        self.immediate = None
        if self.delayed is not None and (forget_session or not self.delayed.whole_session):
            self.delayed = None

    def begin_data(self) -> None:
        """DATA was said: a delayed refusal of the transaction has done its work, unless the message is tagged for it."""
        if self.delayed is not None and not self.delayed.whole_session and not self.tagged:
            self.delayed = None
