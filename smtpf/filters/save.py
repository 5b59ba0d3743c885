"""SAVE and TRAP: copies of messages that the access map asked for, and the message as a file while it is filtered.

Runs first at the dot. Source: spec chapter session, 10; filters-content, 22.
"""

from __future__ import annotations

from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.message.spool import SAVE_DIR, TRAP_DIR, SpoolError
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, tempfail
from smtpf.settings.store import Settings
from smtpf.smtp.replies import INTERNAL_ERROR_LATER
from smtpf.smtp.session import MsgFlag, Session, Transaction

SAVE_DIR_MISSING = err(
    574, "save-dir must be defined", "Option save-dir is empty. Messages need a folder to wait in; the node does not start."
)


class SaveDirMissing(Exception):
    """#574 has been logged; the node must not start."""


class Save(Filter):
    """Makes the copies that SAVE and TRAP ask for."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._directory = SAVE_DIR.default

    def configure(self, settings: Settings) -> None:
        self._directory = settings[SAVE_DIR]

    def start(self) -> None:
        if not self._directory:
            self._journal.write(SAVE_DIR_MISSING)
            raise SaveDirMissing

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        # One trapped recipient is enough for a copy, even when others get the message.
        trapped = MsgFlag.TRAP in transaction.flags or any(recipient.trapped for recipient in transaction.recipients)
        if trapped or MsgFlag.SAVE in transaction.flags:
            return self._keep(session, transaction, trapped)
        return None

    async def _keep(self, session: Session, transaction: Transaction, trapped: bool) -> Verdict | None:
        """TRAP wins over SAVE."""
        spool, settings = transaction.spool, session.settings
        assert spool is not None
        if trapped:
            problem = await spool.trap(transaction.trap_directory or settings[TRAP_DIR])
        else:
            problem = await spool.save(transaction.save_directory or settings[SAVE_DIR])
        if isinstance(problem, SpoolError):
            session.log(problem.message, *problem.args)
            return tempfail(INTERNAL_ERROR_LATER)
        return None
