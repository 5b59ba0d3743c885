"""Let F-PROT's fpscand scan every message.

The daemon reads the spool file after the final dot. White-listing does not keep a message from being scanned. When the daemon is
down, silent, or did not come to the end of its scan, the client is asked to come again. Source: spec chapter filters-content, 4.
"""

from __future__ import annotations

from smtpf.filters import infection
from smtpf.filters.daemon_failure import LATER, file_of, guarded, undone, unreachable, warn_of_remote_scanner
from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.pipeline import Filter, MaybeVerdict, Verdict
from smtpf.reply import Reply
from smtpf.scanners import fpscand
from smtpf.scanners.connection import Network, Step, Trouble
from smtpf.settings.option import Number, Policy, Text
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session, Transaction

FPSCAND_SOCKET = Text(
    "fpscand-socket",
    "",
    "Where fpscand listens. It reads the message as a file, so it must run on this host, in run-group.",
    choices='/path|host[:port], port 10200; "" disables',
    area="fpscand",
)
FPSCAND_TIMEOUT = Number(
    "fpscand-timeout", 120, "How long connecting to fpscand, and each read and write, may take.", choices="seconds", least=1, area="fpscand"
)
FPSCAND_POLICY = Policy("fpscand-policy", "reject", "What becomes of a message in which fpscand finds a virus.", area="fpscand")

INFECTED = err(375, "%s", "fpscand found a virus; the text names it. By fpscand-policy the message was refused, discarded or delivered.")
_ELSE = "The client was asked to come again."
ADDRESS_ERROR = err(
    367, "fpscand address error: %s (%d)", f"fpscand-socket names no usable host. {_ELSE}", fields=("error", "errno"), since="later"
)
OPEN_ERROR = err(368, "fpscand open error: %s (%d)", f"No socket could be made. {_ELSE}", fields=("error", "errno"), since="later")
CONNECT_ERROR = err(
    369, "fpscand connect error: %s (%d)", f"Nobody answers at fpscand-socket. {_ELSE}", fields=("error", "errno"), since="later"
)
PATH_TOO_LONG = err(370, "fpscand buffer overflow", f"The path of the spool file is too long; shorten save-dir. {_ELSE}", since="later")
WRITE_ERROR = err(
    372, "fpscand write error: %s (%d)", f"fpscand did not take the command. {_ELSE}", fields=("error", "errno"), since="later"
)
READ_ERROR = err(
    373,
    "fpscand read error: %s (%d)",
    f"fpscand did not answer, or did not finish: then the text and the code are its own. {_ELSE}",
    fields=("error", "errno"),
    since="later",
)

FOUND = Reply(376, "550 5.7.1 %s", meaning="fpscand found a virus in the message, and fpscand-policy is reject.")
ADDRESS_FAILED = Reply(367, "451 4.4.0 fpscand address error", meaning="fpscand-socket names no usable host; see the log.")
OPEN_FAILED = Reply(368, "451 4.4.0 fpscand open error", meaning="No socket could be made; see the log.")
CONNECT_FAILED = Reply(369, "451 4.4.0 fpscand connect error", meaning="fpscand could not be reached; see the log.")
OVERFLOW = Reply(370, "451 4.4.0 fpscand buffer overflow", meaning="The path of the spool file is too long.")
WRITE_FAILED = Reply(372, "451 4.4.0 fpscand write error", meaning="fpscand did not take the command.")
READ_FAILED = Reply(373, "451 4.4.0 fpscand read error", meaning="fpscand gave no result, or none that can be trusted.")

_UNREACHABLE = {
    Step.ADDRESS: (ADDRESS_ERROR, ADDRESS_FAILED),
    Step.OPEN: (OPEN_ERROR, OPEN_FAILED),
    Step.CONNECT: (CONNECT_ERROR, CONNECT_FAILED),
}


class Fpscand(Filter):
    """Has the spool file scanned by fpscand."""

    def __init__(self, network: Network, journal: Journal) -> None:
        self._network = network
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        warn_of_remote_scanner(self._journal, settings, FPSCAND_SOCKET, fpscand.PORT)

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        socket = session.settings[FPSCAND_SOCKET]
        return guarded(session, self._scan(session, transaction, socket), "fpscand", LATER) if socket else None

    async def _scan(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        path = await file_of(session, transaction)
        if isinstance(path, Verdict):
            return path
        command = fpscand.scan_command(path)
        if command is None:
            return undone(session, PATH_TOO_LONG, OVERFLOW)
        connection = await self._network.connect(socket, fpscand.PORT, session.settings[FPSCAND_TIMEOUT])
        if isinstance(connection, Trouble):
            return unreachable(session, connection, *_UNREACHABLE[connection.step])
        problem = await connection.send(command)
        result = problem or await fpscand.read_result(connection)
        connection.close()
        if problem is not None:
            return undone(session, WRITE_ERROR, WRITE_FAILED, problem.text, problem.errno)
        if isinstance(result, Trouble):
            return undone(session, READ_ERROR, READ_FAILED, result.text, result.errno)
        if isinstance(result, str):
            return undone(session, READ_ERROR, READ_FAILED, result, 0)
        if result.failed:
            return undone(session, READ_ERROR, READ_FAILED, result.text, result.code)
        if not result.infected:
            return None
        words = f"is {infection.virus_name(result.text)}"
        return infection.infected(session, transaction, words, session.settings[FPSCAND_POLICY], INFECTED, FOUND)
