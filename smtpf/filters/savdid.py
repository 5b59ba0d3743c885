"""Let Sophos' SAVDI scan every message.

The daemon reads the spool file after the final dot. White-listing does not keep a message from being scanned. Only its word that
the scan was done and found nothing lets a message pass; otherwise the client is asked to come again.
Source: spec chapter filters-content, 5.
"""

from __future__ import annotations

from smtpf.filters import infection
from smtpf.filters.daemon_failure import LATER, file_of, guarded, undone, unreachable, warn_of_remote_scanner
from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.pipeline import Filter, MaybeVerdict, Verdict
from smtpf.reply import Reply
from smtpf.scanners import savdid
from smtpf.scanners.connection import Network, Step, Trouble
from smtpf.settings.option import Number, Policy, Text
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session, Transaction

SAVDID_SOCKET = Text(
    "savdid-socket",
    "",
    "Where savdid listens. It reads the message as a file, so it must run on this host, in run-group.",
    choices='/path|host[:port], port 4010; "" disables',
    since="later",
    area="savdid",
)
SAVDID_TIMEOUT = Number(
    "savdid-timeout",
    60,
    "How long connecting to savdid, and each read and write, may take.",
    choices="seconds",
    least=1,
    since="later",
    area="savdid",
)
SAVDID_POLICY = Policy(
    "savdid-policy",
    "reject",
    "What becomes of a message in which savdid finds a virus.",
    since="later",
    area="savdid",
)

INFECTED = err(
    846, "%s", "savdid found a virus; the text names it. By savdid-policy the message was refused, discarded or delivered.", since="later"
)
_ELSE = "The client was asked to come again."
ADDRESS_ERROR = err(
    832, "savdid address error: %s (%d)", f"savdid-socket names no usable host. {_ELSE}", fields=("error", "errno"), since="later"
)
OPEN_ERROR = err(833, "savdid open error: %s (%d)", f"No socket could be made. {_ELSE}", fields=("error", "errno"), since="later")
CONNECT_ERROR = err(
    834, "savdid connect error: %s (%d)", f"Nobody answers at savdid-socket. {_ELSE}", fields=("error", "errno"), since="later"
)
BANNER_ERROR = err(836, "savdid read error: %s (%d)", f"savdid did not greet. {_ELSE}", fields=("error", "errno"), since="later")
GREETING_ERROR = err(
    837, "savdid write error: %s (%d)", f"savdid did not take our greeting. {_ELSE}", fields=("error", "errno"), since="later"
)
RESULT_ERROR = err(
    839, "savdid read error: %s (%d)", f"savdid broke off, or could not finish its scan. {_ELSE}", fields=("error", "errno"), since="later"
)
REFUSED_ERROR = err(
    841, "savdid read error: %s (%d)", f"savdid refused the protocol or the command. {_ELSE}", fields=("error", "errno"), since="later"
)
PATH_TOO_LONG = err(842, "savdid buffer overflow", f"The path of the spool file is too long; shorten save-dir. {_ELSE}", since="later")
COMMAND_ERROR = err(
    844, "savdid write error: %s (%d)", f"savdid did not take the command. {_ELSE}", fields=("error", "errno"), since="later"
)

FOUND = Reply(847, "550 5.7.1 %s", meaning="savdid found a virus in the message, and savdid-policy is reject.")
ADDRESS_FAILED = Reply(832, "451 4.4.0 savdid address error", meaning="savdid-socket names no usable host; see the log.")
OPEN_FAILED = Reply(833, "451 4.4.0 savdid open error", meaning="No socket could be made; see the log.")
CONNECT_FAILED = Reply(834, "451 4.4.0 savdid connect error", meaning="savdid could not be reached; see the log.")
BANNER_FAILED = Reply(836, "451 4.4.0 savdid read error", meaning="savdid did not greet.")
GREETING_FAILED = Reply(837, "451 4.4.0 savdid write error", meaning="savdid did not take our greeting.")
RESULT_FAILED = Reply(839, "451 4.4.0 savdid read error", meaning="savdid gave no result that can be trusted.")
REFUSED = Reply(841, "451 4.4.0 savdid read error", meaning="savdid refused the protocol or the command.")
OVERFLOW = Reply(842, "451 4.4.0 savdid buffer overflow", meaning="The path of the spool file is too long.")
COMMAND_FAILED = Reply(844, "451 4.4.0 savdid write error", meaning="savdid did not take the command.")

_UNREACHABLE = {
    Step.ADDRESS: (ADDRESS_ERROR, ADDRESS_FAILED),
    Step.OPEN: (OPEN_ERROR, OPEN_FAILED),
    Step.CONNECT: (CONNECT_ERROR, CONNECT_FAILED),
}
_BROKEN = {
    savdid.Step.BANNER: (BANNER_ERROR, BANNER_FAILED),
    savdid.Step.GREETING: (GREETING_ERROR, GREETING_FAILED),
    savdid.Step.REFUSED: (REFUSED_ERROR, REFUSED),
    savdid.Step.COMMAND: (COMMAND_ERROR, COMMAND_FAILED),
    savdid.Step.RESULT: (RESULT_ERROR, RESULT_FAILED),
}


class Savdid(Filter):
    """Has the spool file scanned by savdid."""

    def __init__(self, network: Network, journal: Journal) -> None:
        self._network = network
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        warn_of_remote_scanner(self._journal, settings, SAVDID_SOCKET, savdid.PORT)

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        socket = session.settings[SAVDID_SOCKET]
        return guarded(session, self._scan(session, transaction, socket), "savdid", LATER) if socket else None

    async def _scan(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        path = await file_of(session, transaction)
        if isinstance(path, Verdict):
            return path
        connection = await self._network.connect(socket, savdid.PORT, session.settings[SAVDID_TIMEOUT])
        if isinstance(connection, Trouble):
            return unreachable(session, connection, *_UNREACHABLE[connection.step])
        outcome = await savdid.scan(connection, path)
        connection.close()
        if isinstance(outcome, savdid.Broken):
            if outcome.step is savdid.Step.PATH:
                return undone(session, PATH_TOO_LONG, OVERFLOW)
            return undone(session, *_BROKEN[outcome.step], outcome.text, outcome.errno)
        if not outcome:
            return None
        words = f"is INFECTED with {infection.virus_name(outcome)}"
        return infection.infected(session, transaction, words, session.settings[SAVDID_POLICY], INFECTED, FOUND)
