"""What follows when a daemon that a filter needs does not do its part.

The log has the whole story, the client hears no more than that something failed and may come again: addresses and paths of
this site stay inside. Source: spec chapter filters-content, 1.3, 1.4 and 24.8.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.python.failure import Failure

from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, warn
from smtpf.message.spool import SpoolError
from smtpf.pipeline import Verdict, drop, tempfail
from smtpf.reply import Reply
from smtpf.scanners.connection import Trouble, is_on_this_host, place_of
from smtpf.settings.option import Text
from smtpf.settings.store import Settings
from smtpf.smtp.conversation import RESOURCES
from smtpf.smtp.replies import INTERNAL_ERROR_LATER, RESOURCES_EXCEEDED
from smtpf.smtp.session import Session, Transaction

REMOTE_SCANNER = warn(
    1150,
    '%s="%s" is not on this host and cannot read the files in save-dir',
    "This scanner gets the path of a file instead of the message. Let it listen on this host, or share save-dir with its host.",
    fields=("option", "value"),
    since="later",
)


def undone(session: Session, log: Message, reply: Reply, *args: Any) -> Verdict:
    """Log ``args`` with the numbered message, and ask the client to come again."""
    session.log(log, *args)
    return tempfail(reply, fact=" ".join(map(str, args)))


def unreachable(session: Session, trouble: Trouble, log: Message, reply: Reply) -> Verdict:
    """As ``undone`` for a connection that could not be made; without descriptors left the session ends."""
    return no_descriptors(session, trouble) or undone(session, log, reply, trouble.text, trouble.errno)


def no_descriptors(session: Session, trouble: Trouble) -> Verdict | None:
    """The end of the session when the process has no descriptors left, else nothing."""
    if not trouble.out_of_descriptors:
        return None
    session.log(RESOURCES, "connection", 0, trouble.text, trouble.errno)
    return drop(RESOURCES_EXCEEDED, fact=trouble.text)


async def file_of(session: Session, transaction: Transaction) -> str | Verdict:
    """Path of the message as a file, or the refusal when there is none."""
    assert transaction.spool is not None
    path = await transaction.spool.path()
    if isinstance(path, SpoolError):
        session.log(path.message, *path.args)
        return tempfail(INTERNAL_ERROR_LATER)
    return path


async def guarded(session: Session, work: Awaitable[Verdict | None], doing: str, otherwise: Verdict | None) -> Verdict | None:
    """The outcome of ``work``. A fault in it is logged with its traceback, and ``otherwise`` takes its place."""
    try:
        return await work
    except Exception:
        session.journal.failure(Failure(), session.sid, doing)
        return otherwise


LATER = tempfail(INTERNAL_ERROR_LATER, fact="fault in a filter")
"""What takes the place of a virus scanner's verdict after a fault: nothing passes unscanned."""


def warn_of_remote_scanner(journal: Journal, settings: Settings, option: Text, port: int) -> None:
    """Tell that a daemon on another host cannot read our files."""
    place = place_of(settings[option], port) if settings[option] else None
    if place is not None and not is_on_this_host(place):
        journal.write(REMOTE_SCANNER, option.name, settings[option])
