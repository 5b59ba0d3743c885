"""Let an avast! daemon scan every message.

The daemon reads the spool file after the final dot. White-listing does not keep a message from being scanned. When the daemon is
down, silent or unclear the client is asked to come again. Source: spec chapter filters-content, 3.
"""

from __future__ import annotations

from smtpf.filters import infection
from smtpf.filters.daemon_failure import LATER, file_of, guarded, undone, unreachable, warn_of_remote_scanner
from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.pipeline import Filter, MaybeVerdict, Verdict
from smtpf.reply import Reply
from smtpf.scanners import avastd
from smtpf.scanners.connection import Network, Step, Trouble
from smtpf.settings.option import Number, Policy, Text
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session, Transaction

AVASTD_SOCKET = Text(
    "avastd-socket",
    "",
    "Where avastd listens. It reads the message as a file, so it must run on this host, in run-group.",
    choices='/path|host[:port], port 5037; "" disables',
    area="avastd",
)
AVASTD_TIMEOUT = Number(
    "avastd-timeout", 120, "How long connecting to avastd, and each read and write, may take.", choices="seconds", least=1, area="avastd"
)
AVASTD_POLICY = Policy("avastd-policy", "reject", "What becomes of a message in which avastd finds a virus.", area="avastd")

INFECTED = err(161, "%s", "avastd found a virus; the text names it. By avastd-policy the message was refused, discarded or delivered.")
PART_ERROR = err(
    163,
    "avastd error: %s",
    "avastd could not look into a part of the message, for example an archive with a password. The rest decides.",
    fields=("result",),
)
MAX_ERRORS = 50
"""Parts of one message that are logged as not scanned."""
_ELSE = "The client was asked to come again."
ADDRESS_ERROR = err(
    149, "avastd address error: %s (%d)", f"avastd-socket names no usable host. {_ELSE}", fields=("error", "errno"), since="later"
)
OPEN_ERROR = err(150, "avastd open error: %s (%d)", f"No socket could be made. {_ELSE}", fields=("error", "errno"), since="later")
CONNECT_ERROR = err(
    151, "avastd connect error: %s (%d)", f"Nobody answers at avastd-socket. {_ELSE}", fields=("error", "errno"), since="later"
)
BANNER_ERROR = err(153, "avastd read error: %s (%d)", f"No banner, or a strange one. {_ELSE}", fields=("error", "errno"), since="later")
PATH_TOO_LONG = err(154, "avastd buffer overflow", f"The path of the spool file is too long; shorten save-dir. {_ELSE}", since="later")
WRITE_ERROR = err(156, "avastd write error: %s (%d)", f"avastd did not take the command. {_ELSE}", fields=("error", "errno"), since="later")
COMMAND_ERROR = err(
    158, "avastd read error: %s (%d)", f"avastd refused to scan, or said nothing. {_ELSE}", fields=("error", "errno"), since="later"
)
RESULT_ERROR = err(
    160, "avastd read error: %s (%d)", f"avastd broke off before its result. {_ELSE}", fields=("error", "errno"), since="later"
)

FOUND = Reply(162, "550 5.7.1 %s", meaning="avastd found a virus in the message, and avastd-policy is reject.")
ADDRESS_FAILED = Reply(149, "451 4.4.0 avastd address error", meaning="avastd-socket names no usable host; see the log.")
OPEN_FAILED = Reply(150, "451 4.4.0 avastd open error", meaning="No socket could be made; see the log.")
CONNECT_FAILED = Reply(151, "451 4.4.0 avastd connect error", meaning="avastd could not be reached; see the log.")
BANNER_FAILED = Reply(153, "451 4.4.0 avastd read error", meaning="avastd did not greet.")
OVERFLOW = Reply(154, "451 4.4.0 avastd buffer overflow", meaning="The path of the spool file is too long.")
WRITE_FAILED = Reply(156, "451 4.4.0 avastd write error", meaning="avastd did not take the command.")
COMMAND_FAILED = Reply(158, "451 4.4.0 avastd read error", meaning="avastd did not begin to scan.")
RESULT_FAILED = Reply(160, "451 4.4.0 avastd read error", meaning="avastd gave no result.")

_UNREACHABLE = {
    Step.ADDRESS: (ADDRESS_ERROR, ADDRESS_FAILED),
    Step.OPEN: (OPEN_ERROR, OPEN_FAILED),
    Step.CONNECT: (CONNECT_ERROR, CONNECT_FAILED),
}
_BROKEN = {
    avastd.Step.BANNER: (BANNER_ERROR, BANNER_FAILED),
    avastd.Step.WRITE: (WRITE_ERROR, WRITE_FAILED),
    avastd.Step.COMMAND: (COMMAND_ERROR, COMMAND_FAILED),
    avastd.Step.RESULT: (RESULT_ERROR, RESULT_FAILED),
}


class Avastd(Filter):
    """Has the spool file scanned by avastd."""

    def __init__(self, network: Network, journal: Journal) -> None:
        self._network = network
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        warn_of_remote_scanner(self._journal, settings, AVASTD_SOCKET, avastd.PORT)

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        socket = session.settings[AVASTD_SOCKET]
        return guarded(session, self._scan(session, transaction, socket), "avastd", LATER) if socket else None

    async def _scan(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        path = await file_of(session, transaction)
        if isinstance(path, Verdict):
            return path
        connection = await self._network.connect(socket, avastd.PORT, session.settings[AVASTD_TIMEOUT])
        if isinstance(connection, Trouble):
            return unreachable(session, connection, *_UNREACHABLE[connection.step])
        report = await avastd.scan(connection, path)
        connection.close()
        if isinstance(report, avastd.Broken):
            if report.step is avastd.Step.PATH:
                return undone(session, PATH_TOO_LONG, OVERFLOW)
            return undone(session, *_BROKEN[report.step], report.text, report.errno)
        for line in report.errors[:MAX_ERRORS]:
            session.log(PART_ERROR, line)
        if report.virus is None:
            return None
        words = f"is INFECTED with {infection.virus_name(report.virus)}"
        return infection.infected(session, transaction, words, session.settings[AVASTD_POLICY], INFECTED, FOUND)
