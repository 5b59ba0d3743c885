"""Let ClamAV scan every message.

clamd reads along while the message comes in, so its answer is there soon after the final dot; or it reads the spool file, when
the option says SCAN. White-listing does not keep a message from being scanned. When clamd is down, silent or unclear the
client is asked to come again: nothing passes unscanned. Source: spec chapter filters-content, 2.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

import attrs

from smtpf.filters import infection
from smtpf.filters.daemon_failure import LATER, file_of, guarded, undone, unreachable, warn_of_remote_scanner
from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, err, warn
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, tempfail
from smtpf.reply import Reply
from smtpf.scanners import clamd
from smtpf.scanners.clamd import Finding
from smtpf.scanners.connection import Connection, Network, Step, Trouble
from smtpf.settings.option import Flag, Number, Policy, Text
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction

CLAMD_SOCKET = Text(
    "clamd-socket",
    "",
    "Where clamd listens. SCAN lets the clamd of this host read the spool file itself; SCAN:/path does so over a Unix socket.",
    choices='/path|host[:port], port 3310|SCAN; "" disables',
    area="clamd",
)
CLAMD_TIMEOUT = Number(
    "clamd-timeout", 120, "How long connecting to clamd, and each read and write, may take.", choices="seconds", least=1, area="clamd"
)
CLAMD_MAX_SIZE = Number(
    "clamd-max-size",
    10000,
    "How much of a message clamd gets to see as a stream. Keep it below clamd's own StreamMaxLength.",
    choices="kilobytes; 0 = no limit",
    area="clamd",
)
CLAMD_POLICY = Policy("clamd-policy", "reject", "What becomes of a message in which clamd finds a virus.", area="clamd")
CLAMD_SCAN_ALL = Flag(
    "clamd-scan-all",
    True,
    "Scan every message. When off, only those whose Content-Type is multipart/mixed; that misses viruses.",
    since="later",
    area="clamd",
)

INFECTED = err(207, "%s", "clamd found a virus; the text names it. By clamd-policy the message was refused, discarded or delivered.")
MAX_SIZE_REACHED = warn(
    202,
    "clamd-max-size=%ld reached",
    "clamd saw only so many octets of the message: by clamd-max-size, or because clamd's own StreamMaxLength is smaller.",
    fields=("octets",),
)
_ELSE = "The client was asked to come again."
ADDRESS_ERROR = err(
    178, "clamd address error: %s (%d)", f"clamd-socket names no usable host. {_ELSE}", fields=("error", "errno"), since="later"
)
OPEN_ERROR = err(179, "clamd open error: %s (%d)", f"No socket could be made. {_ELSE}", fields=("error", "errno"), since="later")
CONNECT_ERROR = err(
    180, "clamd connect error: %s (%d)", f"Nobody answers at clamd-socket: is clamd running? {_ELSE}", fields=("error", "errno"),
    since="later",
)  # fmt: skip
PATH_TOO_LONG = err(
    181, "clamd buffer overflow", f"The path of the spool file is too long for a command; shorten save-dir. {_ELSE}", since="later"
)
SCAN_WRITE_ERROR = err(
    183, "clamd write error: %s (%d)", f"clamd did not take the SCAN command. {_ELSE}", fields=("error", "errno"), since="later"
)
BEGIN_WRITE_ERROR = err(
    185, "clamd write error: %s (%d)", f"clamd did not take the INSTREAM command. {_ELSE}", fields=("error", "errno"), since="later"
)
HEADERS_WRITE_ERROR = err(
    196, "clamd session write error after %lu bytes", f"clamd stopped reading in the headers. {_ELSE}", fields=("octets",), since="later"
)
CHUNK_WRITE_ERROR = err(
    199, "clamd session write error after %lu bytes", f"clamd stopped reading in the body. {_ELSE}", fields=("octets",), since="later"
)
END_WRITE_ERROR = err(
    943, "clamd session write error after %lu bytes", f"clamd stopped reading at the end of the message. {_ELSE}", fields=("octets",),
    since="later",
)  # fmt: skip
READ_ERROR = err(
    204, "clamd session read error: %s (%d)", f"clamd closed the connection or was silent instead of answering. {_ELSE}",
    fields=("error", "errno"), since="later",
)  # fmt: skip
UNEXPECTED = err(
    206, "unexpected clamd result: %s",
    f"clamd answered neither OK nor FOUND; its own log tells more. A missing file means that clamd may not read save-dir. {_ELSE}",
    fields=("result",), since="later",
)  # fmt: skip

FOUND = Reply(208, "550 5.7.1 %s", meaning="clamd found a virus in the message, and clamd-policy is reject.")
ADDRESS_FAILED = Reply(178, "451 4.4.0 clamd address error", meaning="clamd-socket names no usable host; see the log.")
OPEN_FAILED = Reply(179, "451 4.4.0 clamd open error", meaning="No socket could be made; see the log.")
CONNECT_FAILED = Reply(180, "451 4.4.0 clamd connect error", meaning="clamd could not be reached; see the log.")
OVERFLOW = Reply(181, "451 4.4.0 clamd buffer overflow", meaning="The path of the spool file is too long.")
SCAN_FAILED = Reply(183, "451 4.4.0 clamd write error", meaning="clamd did not take the SCAN command.")
BEGIN_FAILED = Reply(185, "451 4.4.0 clamd write error", meaning="clamd did not take the INSTREAM command.")
HEADERS_FAILED = Reply(196, "451 4.4.0 clamd session write error after %lu bytes", meaning="clamd stopped reading in the headers.")
CHUNK_FAILED = Reply(199, "451 4.4.0 clamd session write error after %lu bytes", meaning="clamd stopped reading in the body.")
END_FAILED = Reply(943, "451 4.4.0 clamd session write error after %lu bytes", meaning="clamd stopped reading at the end.")
READ_FAILED = Reply(204, "451 4.4.0 clamd session read error", meaning="clamd did not answer.")
UNCLEAR = Reply(206, "451 4.4.0 unexpected clamd result", meaning="clamd's answer was neither OK nor FOUND; the log has it.")

_MIXED = re.compile(rb"multipart/mixed", re.IGNORECASE)
_UNREACHABLE = {
    Step.ADDRESS: (ADDRESS_ERROR, ADDRESS_FAILED),
    Step.OPEN: (OPEN_ERROR, OPEN_FAILED),
    Step.CONNECT: (CONNECT_ERROR, CONNECT_FAILED),
}
_AT_HEADERS = (HEADERS_WRITE_ERROR, HEADERS_FAILED)
_AT_CHUNK = (CHUNK_WRITE_ERROR, CHUNK_FAILED)
_AT_END = (END_WRITE_ERROR, END_FAILED)
_Numbered = tuple[Message, Reply]


@attrs.define(eq=False)
class _Stream:
    """The message on its way to clamd."""

    connection: Connection | None = None
    sent: int = 0
    most: int = 0
    """Octets that clamd gets; 0 is no limit."""
    failed: _Numbered | None = None
    """Why no more is sent."""

    def abort(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()


class Clamd(Filter):
    """Has the message scanned by clamd."""

    def __init__(self, network: Network, journal: Journal) -> None:
        self._network = network
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        socket = settings[CLAMD_SOCKET]
        if _by_path(socket) and socket[5:]:
            warn_of_remote_scanner(self._journal, settings.evolve({CLAMD_SOCKET: socket[5:]}), CLAMD_SOCKET, clamd.PORT)

    # The stream

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Connect, and send the header section with the empty line behind it."""
        settings = session.settings
        socket = settings[CLAMD_SOCKET]
        if not socket or _by_path(socket) or _thrown_away(transaction):
            return None
        if not settings[CLAMD_SCAN_ALL] and not _is_mixed(transaction):
            return None
        return guarded(session, self._begin(session, transaction, socket), "clamd", LATER)

    async def _begin(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        settings = session.settings
        connection = await self._network.connect(socket, clamd.PORT, settings[CLAMD_TIMEOUT])
        if isinstance(connection, Trouble):
            return unreachable(session, connection, *_UNREACHABLE[connection.step])
        stream = transaction.own(_Stream)
        stream.connection = connection
        stream.most = max(0, settings[CLAMD_MAX_SIZE]) * 1024
        problem = await connection.send(clamd.BEGIN_STREAM)
        if problem is not None:
            stream.abort()
            return undone(session, BEGIN_WRITE_ERROR, BEGIN_FAILED, problem.text, problem.errno)
        assert transaction.headers is not None
        waiting = _feed(session, stream, transaction.headers.encode() + b"\r\n", _AT_HEADERS)
        if waiting is not None:
            await waiting
        return None

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """Send a piece of the body."""
        if not session.settings[CLAMD_SOCKET]:
            return None
        stream = transaction.own(_Stream)
        if stream.connection is None or stream.failed is not None or not chunk:
            return None
        if _thrown_away(transaction):
            stream.abort()
            return None
        return _feed(session, stream, chunk, _AT_CHUNK)

    # The verdict

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        socket = session.settings[CLAMD_SOCKET]
        if not socket or _thrown_away(transaction):
            return None
        if _by_path(socket):
            work = self._scan_file(session, transaction, socket[5:] or "127.0.0.1")
        elif transaction.own(_Stream).connection is not None:
            work = self._end(session, transaction)
        else:
            return None
        return guarded(session, work, "clamd", LATER)

    async def _end(self, session: Session, transaction: Transaction) -> Verdict | None:
        """End the stream and hear the result. What clamd said before it stopped reading counts more than that it did."""
        stream = transaction.own(_Stream)
        connection = stream.connection
        assert connection is not None
        if stream.failed is None and await connection.send(clamd.END_OF_STREAM) is not None:
            stream.failed = _AT_END
        result: clamd.Result | Trouble | None = None
        if stream.failed is None or connection.gone is not None:
            result = await clamd.read_result(connection)
        if stream.failed is not None and not isinstance(result, clamd.Result):
            stream.abort()
            log, reply = stream.failed
            session.log(log, stream.sent)
            return tempfail(reply, stream.sent)
        assert result is not None
        stream.connection = None
        connection.close()
        return self._judge(session, transaction, result, stream.most or stream.sent)

    async def _scan_file(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        path = await file_of(session, transaction)
        if isinstance(path, Verdict):
            return path
        command = clamd.scan_command(path)
        if command is None:
            return undone(session, PATH_TOO_LONG, OVERFLOW)
        connection = await self._network.connect(socket, clamd.PORT, session.settings[CLAMD_TIMEOUT])
        if isinstance(connection, Trouble):
            return unreachable(session, connection, *_UNREACHABLE[connection.step])
        problem = await connection.send(command)
        result = problem or await clamd.read_result(connection)
        connection.close()
        if problem is not None:
            return undone(session, SCAN_WRITE_ERROR, SCAN_FAILED, problem.text, problem.errno)
        return self._judge(session, transaction, result, transaction.octets)

    def _judge(self, session: Session, transaction: Transaction, result: clamd.Result | Trouble, octets: int) -> Verdict | None:
        if isinstance(result, Trouble):
            return undone(session, READ_ERROR, READ_FAILED, result.text, result.errno)
        match result.finding:
            case Finding.INFECTED:
                words = f"is INFECTED with {infection.virus_name(result.text)}"
                return infection.infected(session, transaction, words, session.settings[CLAMD_POLICY], INFECTED, FOUND)
            case Finding.STREAM_LIMIT:
                session.log(MAX_SIZE_REACHED, octets)
                return None
            case Finding.UNCLEAR:
                return undone(session, UNEXPECTED, UNCLEAR, result.text)
        return None

    def rset(self, session: Session, transaction: Transaction) -> None:
        if session.settings[CLAMD_SOCKET]:
            transaction.own(_Stream).abort()


def _feed(session: Session, stream: _Stream, octets: bytes, at: _Numbered) -> Coroutine[Any, Any, None] | None:
    """Send ``octets`` as far as the limit allows. A coroutine when clamd does not keep up."""
    connection = stream.connection
    assert connection is not None
    if stream.most:
        if stream.sent >= stream.most:
            return None
        octets = octets[: stream.most - stream.sent]
    if connection.write(clamd.chunk(octets)) is not None:
        stream.failed = at
        return None
    stream.sent += len(octets)
    if stream.sent == stream.most:
        session.log(MAX_SIZE_REACHED, stream.most)
    return None if connection.flowing else _drained(stream, connection, at)


async def _drained(stream: _Stream, connection: Connection, at: _Numbered) -> None:
    if await connection.drained() is not None:
        stream.failed = at


def _by_path(socket: str) -> bool:
    return socket[:5].upper() in ("SCAN", "SCAN:")


def _thrown_away(transaction: Transaction) -> bool:
    return MsgFlag.DISCARD in transaction.flags or MsgFlag.TRAP in transaction.flags


def _is_mixed(transaction: Transaction) -> bool:
    assert transaction.headers is not None
    return any(_MIXED.search(field.raw) for field in transaction.headers.all("Content-Type"))
