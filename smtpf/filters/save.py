"""SAVE and TRAP: copies of messages that the access map asked for, and the message as a file while it is filtered.

Runs first at the dot. At start, spool files that a killed node has left behind are swept out of save-dir.
Source: spec chapter session, 10; filters-content, 22.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info
from smtpf.message.leftovers import sweep
from smtpf.message.spool import SAVE_DATA, SAVE_DIR, SAVE_ERROR, TRAP_DIR, TRAP_ERROR, InThread
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, tempfail
from smtpf.settings.store import Settings
from smtpf.smtp.replies import INTERNAL_ERROR_LATER
from smtpf.smtp.session import MsgFlag, Session, Transaction

SAVE_DIR_MISSING = err(
    574, "save-dir must be defined", "Option save-dir is empty. Messages need a folder to wait in; the node does not start."
)
SWEPT = info(
    1180, 'removed %lu old spool files from "%s"',
    "A node had been killed while messages were on their way; nothing of them had been accepted.",
    fields=("files", "directory"), since="new",
)  # fmt: skip


class SaveDirMissing(Exception):
    """#574 has been logged; the node must not start."""


class Save(Filter):
    """Makes the copies that SAVE and TRAP ask for."""

    def __init__(self, journal: Journal, in_thread: InThread) -> None:
        self._journal = journal
        self._in_thread = in_thread
        self._directory = SAVE_DIR.default
        self._kept = False

    def configure(self, settings: Settings) -> None:
        self._directory = settings[SAVE_DIR]
        self._kept = settings[SAVE_DATA]

    def start(self) -> Awaitable[None] | None:
        if not self._directory:
            self._journal.write(SAVE_DIR_MISSING)
            raise SaveDirMissing
        return None if self._kept else self._sweep()

    async def _sweep(self) -> None:
        directory = self._directory
        removed = await self._in_thread(lambda: sweep(directory, time.time()))
        if removed:
            self._journal.write(SWEPT, removed, directory)

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
            problem = await spool.trap(_folder(transaction.trap_directory, settings[TRAP_DIR]))
        else:
            problem = await spool.save(_folder(transaction.save_directory, settings[SAVE_DIR]))
        if problem is None:
            return None
        session.log(problem.message, *problem.args)
        # A copy that cannot be linked is no reason to hold up mail; without the spool file, the disk is in trouble.
        return None if problem.message in (TRAP_ERROR, SAVE_ERROR) else tempfail(INTERNAL_ERROR_LATER)


def _folder(asked: str, default: str) -> str:
    """The folder that an entry names, if it is an absolute path."""
    return asked if asked.startswith("/") else default
