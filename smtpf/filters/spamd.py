"""Let SpamAssassin's spamd score every message, and refuse, tag or annotate it by the score.

First, and without any daemon, a message is refused that its own sender has marked as spam, and marks of other hosts are
taken out. Then spamd hears the message after the final dot or, with ``spamd-stream``, while it comes in. When spamd fails the message
goes on without a score, and the log tells so. Source: spec chapter filters-content, 7.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Coroutine
from typing import Any

import attrs

from smtpf.filters.daemon_failure import guarded, no_descriptors
from smtpf.filters.tagging import SPAMD_FLAG_HEADER, SPAMD_SUBJECT_TAG
from smtpf.journal.message import Message, err, info, warn
from smtpf.maps.access import AccessMap, Hit
from smtpf.message.header import HeaderList
from smtpf.message.spool import SpoolError, SpoolReader
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, discard, reject, tempfail
from smtpf.reply import Reply
from smtpf.scanners import spamd
from smtpf.scanners.connection import Connection, Network, Trouble
from smtpf.scanners.spamd import Score
from smtpf.settings.option import Flag, Number, Text
from smtpf.smtp.replies import INTERNAL_ERROR_LATER
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

SPAMD_SOCKET = Text("spamd-socket", "", "Where spamd listens.", choices='/path|host[:port], port 783; "" disables', area="spamd")
SPAMD_COMMAND = Text(
    "spamd-command", "CHECK", "What spamd is asked: CHECK gives a score, the others give text for the report header, too.",
    choices="CHECK|SYMBOLS|REPORT|REPORT_IFSPAM", area="spamd",
)  # fmt: skip
SPAMD_MAX_SIZE = Number(
    "spamd-max-size", 0, "How much of a message's body spamd gets to see.", choices="kilobytes; 0 = no limit", area="spamd"
)
SPAMD_TIMEOUT = Number(
    "spamd-timeout", 120, "How long connecting to spamd, and each read and write, may take.", choices="seconds", least=1, area="spamd"
)
SPAMD_SCORE_REJECT = Number("spamd-score-reject", 10, "From this score on a message is refused.", choices="score; -1 = never", area="spamd")
SPAMD_REJECT_SENDER_MARKED = Flag(
    "spamd-reject-sender-marked-spam", True, "Refuse a message whose own headers say that it is spam. Works without spamd.", area="spamd"
)
SPAMD_SKIP_TAGGED = Flag(
    "spamd-skip-tagged", False, "Do not ask spamd about a message that another test has tagged.", since="later", area="spamd"
)
SPAMD_LEVEL_HEADER = Text(
    "spamd-level-header", "X-Spam-Level", "Name of the header field that shows the score as a bar.", choices='header name; "" disables',
    since="later", area="spamd",
)  # fmt: skip
SPAMD_STATUS_HEADER = Text(
    "spamd-status-header", "X-Spam-Status", "Name of the header field with score and threshold.", choices='header name; "" disables',
    since="later", area="spamd",
)  # fmt: skip
SPAMD_REPORT_HEADER = Text(
    "spamd-report-header", "X-Spam-Report", "Name of the header field with spamd's report.", choices='header name; "" disables',
    since="later", area="spamd",
)  # fmt: skip
SPAMD_LEVEL_CHARACTER = Text(
    "spamd-level-character", "x", "What the bar of the level header is made of.", choices="one character", since="later", area="spamd"
)
SPAMD_STREAM = Text(
    "spamd-stream",
    "none",
    "Let spamd read along while a message comes in, which shortens the wait after its end; the word says what becomes of a message that "
    "reaches spamd-score-reject. spamd then sees the header section without the marks of later filters.",
    choices="none|reject|discard",
    words=("none", "reject", "discard"),
    since="later",
    area="spamd",
)

_PASSED = "The message went on without a score."
DISABLED = info(670, "spamd disabled this message", "A Spamd: entry of the access map says OK for the recipients.")
CONNECT_ERROR = err(
    671, 'spamd connect error "%s": %s (%d)', f"Nobody answers at spamd-socket. {_PASSED}", fields=("socket", "error", "errno")
)
WRITE_ERROR = err(675, "spamd write error: %s (%d)", f"spamd stopped reading. {_PASSED}", fields=("error", "errno"))
OPEN_ERROR = err(
    682, 'spamd open error "%s": %s (%d)', "The message could not be read back from save-dir. The client was asked to come again.",
    fields=("path", "error", "errno"),
)  # fmt: skip
MAX_SIZE_REACHED = warn(684, "spamd-max-size=%ld reached", "spamd saw only so many octets of the body.", fields=("octets",))
READ_ERROR = err(685, "spamd read error: %s (%d)", f"spamd did not answer. {_PASSED}", fields=("error", "errno"))
PARSE_ERROR = err(687, "spamd parse error: %s", f"spamd answered with an error, or is no spamd. {_PASSED}", fields=("line",))
SCORE_ERROR = err(689, "spamd parse error: %s", f"spamd's answer has no score that can be read. {_PASSED}", fields=("line",))
HEADER_READ_ERROR = err(690, "spamd read error: %s (%d)", f"spamd broke off within its answer. {_PASSED}", fields=("error", "errno"))
SCORED = info(692, "spamd %s [%s] %s", "The score and threshold of a message.", always=True, fields=("client", "address", "text"))

STREAM_CONNECT_ERROR = err(
    646, 'spamd connect error "%s": %s (%d)', f"As #671, with spamd-stream. {_PASSED}", fields=("socket", "error", "errno")
)
STREAM_WRITE_ERROR = err(649, "spamd write error: %s (%d)", f"spamd did not take the request. {_PASSED}", fields=("error", "errno"))
STREAM_MAX_SIZE_REACHED = warn(656, "spamd-max-size=%ld reached", "As #684, with spamd-stream.", fields=("octets",))
CHUNK_WRITE_ERROR = err(657, "spamd write error after %lu bytes", f"spamd stopped reading in the message. {_PASSED}", fields=("octets",))
STREAM_READ_ERROR = err(659, "spamd read error: %s (%d)", f"As #685, with spamd-stream. {_PASSED}", fields=("error", "errno"))
REFUSED = err(661, "spamd error: %s", f"spamd says that it could not scan the message. {_PASSED}", fields=("line",))
STREAM_PARSE_ERROR = err(663, "spamd parse error: %s", f"As #687 and #689, with spamd-stream. {_PASSED}", fields=("line",))
STREAM_HEADER_READ_ERROR = err(664, "spamd read error: %s (%d)", f"As #690, with spamd-stream. {_PASSED}", fields=("error", "errno"))
DISCARDED = err(667, "%s", "spamd-stream is discard, and the message reached spamd-score-reject: the client believes it delivered.")
STREAM_SCORED = info(668, "%s", "As #692, with spamd-stream.")

MARKED_STATUS = Reply(678, "550 5.7.1 message was already marked as spam by sender", meaning="X-Spam-Status came with a high score.")
MARKED_FLAG = Reply(679, "550 5.7.1 message was already marked as spam by sender", meaning="X-Spam-Flag: YES came with the message.")
JUNK = Reply(693, "550 5.7.1 %s", meaning="The score reached spamd-score-reject.")
STREAM_JUNK = Reply(666, "550 5.7.1 %s", meaning="The score reached spamd-score-reject, with spamd-stream.")

CONNECT = Counter("spamd-connect", Group.MSG, "Connections to spamd.")
CONNECT_FAILED = Counter(
    "spamd-connect-error", Group.MSG, "Messages that went on unscored because spamd could not be reached.", since="later"
)
REJECT = Counter("spamd-reject", Group.MSG, "Messages that reached spamd-score-reject.")
TAG = Counter("spamd-tag", Group.MSG, "Messages tagged because spamd calls them spam.")
SENDER_MARKED = Counter("spamd-sender-marked-spam", Group.MSG, "Messages refused because their sender had marked them as spam.")

ACCESS_TAG = "spamd:"
FOREIGN = "X-Spam-"
MAX_LEVEL = 50
"""Characters of the bar of the level header."""
MAX_REPORT_LINE = 500
"""Characters of a line of the report header."""

_STATUS = re.compile(rb"X-Spam-Status[ \t]*:", re.IGNORECASE)
_FLAG = re.compile(rb"X-Spam-Flag[ \t]*:.*YES", re.IGNORECASE | re.DOTALL)
_HITS = re.compile(rb"hits=[ \t]*([+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)?", re.IGNORECASE)
_SCORE = re.compile(rb"score=[ \t]*([+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)?", re.IGNORECASE)
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")


@attrs.frozen(eq=False)
class _Voice:
    """The numbers under which the same failures are known while the message comes in, and after its end."""

    connect: Message
    write: Message
    cut: Message
    first_line: Message
    header: Message
    parse: Message
    score: Message
    refused: Message


_AT_DOT = _Voice(CONNECT_ERROR, WRITE_ERROR, MAX_SIZE_REACHED, READ_ERROR, HEADER_READ_ERROR, PARSE_ERROR, SCORE_ERROR, PARSE_ERROR)
_STREAMING = _Voice(
    STREAM_CONNECT_ERROR, STREAM_WRITE_ERROR, STREAM_MAX_SIZE_REACHED, STREAM_READ_ERROR, STREAM_HEADER_READ_ERROR, STREAM_PARSE_ERROR,
    STREAM_PARSE_ERROR, REFUSED,
)  # fmt: skip


@attrs.define(eq=False)
class _Stream:
    """The message on its way to spamd."""

    connection: Connection | None = None
    sent: int = 0
    """Octets of the body."""

    def abort(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()


class Spamd(Filter):
    """Has the message scored by spamd."""

    def __init__(self, network: Network, access: AccessMap) -> None:
        self._network = network
        self._access = access

    # Headers

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """What the message says of itself counts against it, and never for it."""
        settings = session.settings
        if settings[SPAMD_REJECT_SENDER_MARKED]:
            reply = _marked_by_sender(transaction.original_headers, settings[SPAMD_SCORE_REJECT])
            if reply is not None:
                session.count(SENDER_MARKED)
                return reject(reply)
        assert transaction.headers is not None
        names = (settings[SPAMD_FLAG_HEADER], settings[SPAMD_LEVEL_HEADER], settings[SPAMD_STATUS_HEADER], settings[SPAMD_REPORT_HEADER])
        remove_foreign(transaction.headers, transaction.original_headers, names)
        if settings[SPAMD_STREAM] != "none" and _wanted(session, transaction):
            return guarded(session, self._begin(session, transaction), "spamd", None)
        return None

    # While the message comes in

    async def _begin(self, session: Session, transaction: Transaction) -> Verdict | None:
        user = await self._user(session, transaction)
        if user is None:
            session.log(DISABLED)
            return None
        connection = await self._connect(session, _STREAMING)
        if not isinstance(connection, Connection):
            return connection
        problem = await connection.send(spamd.request(session.settings[SPAMD_COMMAND].upper(), user, None))
        if problem is not None:
            connection.abort()
            session.log(STREAM_WRITE_ERROR, problem.text, problem.errno)
            return None
        stream = transaction.own(_Stream)
        stream.connection = connection
        head = _head(transaction)
        if await connection.send(head) is not None:
            stream.abort()
            session.log(CHUNK_WRITE_ERROR, 0)
        return None

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """Send a piece of the body, when spamd reads along."""
        settings = session.settings
        if not settings[SPAMD_SOCKET] or settings[SPAMD_STREAM] == "none":
            return None
        stream = transaction.own(_Stream)
        connection = stream.connection
        most = max(0, settings[SPAMD_MAX_SIZE]) * 1024
        if connection is None or (most and stream.sent >= most):
            return None
        if most and stream.sent + len(chunk) > most:
            chunk = chunk[: most - stream.sent]
            session.log(STREAM_MAX_SIZE_REACHED, most)
        if connection.write(chunk) is not None:
            _not_sent(session, stream)
            return None
        stream.sent += len(chunk)
        return None if connection.flowing else _drained(session, stream, connection)

    # After its end

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not _wanted(session, transaction):
            return None
        if session.settings[SPAMD_STREAM] != "none":
            return guarded(session, self._hear_stream(session, transaction), "spamd", None)
        return guarded(session, self._ask(session, transaction), "spamd", None)

    async def _hear_stream(self, session: Session, transaction: Transaction) -> Verdict | None:
        stream = transaction.own(_Stream)
        connection, stream.connection = stream.connection, None
        if connection is None:
            return None
        score = await _hear(session, connection, _STREAMING)
        if score is None:
            return None
        text = _annotate(session, transaction, score)
        session.log(STREAM_SCORED, text)
        if not _reaches(session, score):
            _tag(session, transaction, score)
            return None
        session.count(REJECT)
        if session.settings[SPAMD_STREAM] == "reject":
            return reject(STREAM_JUNK, text, fact=text)
        session.log(DISCARDED, text)
        transaction.flags.add(MsgFlag.DISCARD)
        return discard(text)

    async def _ask(self, session: Session, transaction: Transaction) -> Verdict | None:
        spool = transaction.spool
        assert spool is not None
        reader = spool.reader()
        first = await _piece(reader)
        if isinstance(first, SpoolError):
            return _unreadable(session, first)
        user = await self._user(session, transaction)
        if user is None:
            session.log(DISABLED)
            return None
        connection = await self._connect(session, _AT_DOT)
        if not isinstance(connection, Connection):
            return connection
        problem = await _send(session, transaction, connection, user, first, reader)
        if problem is not None:
            connection.abort()
            if isinstance(problem, SpoolError):
                return _unreadable(session, problem)
            session.log(WRITE_ERROR, problem.text, problem.errno)
            return None
        score = await _hear(session, connection, _AT_DOT)
        if score is None:
            return None
        text = _annotate(session, transaction, score)
        session.log(SCORED, session.name, session.address, text)
        if _reaches(session, score):
            session.count(REJECT)
            return reject(JUNK, text, fact=text)
        _tag(session, transaction, score)
        return None

    # The daemon and its user

    async def _connect(self, session: Session, voice: _Voice) -> Connection | Verdict | None:
        """A connection; None when the message goes on without a score."""
        socket = session.settings[SPAMD_SOCKET]
        connection = await self._network.connect(socket, spamd.PORT, session.settings[SPAMD_TIMEOUT])
        if isinstance(connection, Trouble):
            session.count(CONNECT_FAILED)
            session.log(voice.connect, socket, connection.text, connection.errno)
            return no_descriptors(session, connection)
        session.count(CONNECT)
        return connection

    async def _user(self, session: Session, transaction: Transaction) -> str | None:
        """Whose preferences spamd is to use, empty for nobody's; None when the recipients say OK."""
        recipients = [recipient.path for recipient in transaction.recipients if not recipient.discarded]
        if not recipients:
            return ""
        domains = {path.domain.lower() for path in recipients}
        hit: Hit | None
        if len(recipients) == 1:
            hit = await self._access.lookup_mail(ACCESS_TAG, recipients[0].address, session.sid)
        elif len(domains) == 1:
            hit = await self._access.lookup_domain(ACCESS_TAG, recipients[0].domain, session.sid)
        else:
            hit = await self._access.lookup_bare(ACCESS_TAG, session.sid, recipients[0].domain)
        if hit is None or hit.failed or hit.word == "SKIP":
            return ""
        if hit.text == "OK":
            return None
        return "" if _NOT_PLAIN.search(hit.text) else hit.text

    def rset(self, session: Session, transaction: Transaction) -> None:
        if session.settings[SPAMD_STREAM] != "none" and session.settings[SPAMD_SOCKET]:
            transaction.own(_Stream).abort()


# What the sender says


def _marked_by_sender(fields: tuple[bytes, ...], score_reject: int) -> Reply | None:
    """The refusal of a message that its sender calls spam."""
    status = flag = None
    for raw in fields:
        if _STATUS.match(raw):
            status = raw
        elif _FLAG.match(raw):
            flag = raw
    if status is not None and score_reject >= 0:
        found = _HITS.search(status) or _SCORE.search(status)
        return MARKED_STATUS if found is not None and found[1] and score_reject <= float(found[1]) else None
    return MARKED_FLAG if flag is not None else None


def remove_foreign(headers: HeaderList, original: tuple[bytes, ...], names: tuple[str, ...]) -> None:
    """Take out the marks that came with the message; those made here in this transaction stay."""
    if not headers.has_prefixed(FOREIGN) and not any(name in headers for name in names):
        return
    removed = [field.raw for field in headers.remove_prefixed(FOREIGN)]
    for name in names:
        if name:
            removed += [field.raw for field in headers.remove(name)]
    for raw in (collections.Counter(removed) - collections.Counter(original)).elements():
        headers.append_raw(raw)


# The request


def _wanted(session: Session, transaction: Transaction) -> bool:
    settings = session.settings
    return bool(settings[SPAMD_SOCKET]) and not (settings[SPAMD_SKIP_TAGGED] and MsgFlag.TAGGED in transaction.flags)


def _head(transaction: Transaction) -> bytes:
    """What spamd sees in front of the body."""
    assert transaction.headers is not None
    return f"Return-Path: <{transaction.sender.address}>\r\n".encode() + transaction.headers.encode() + b"\r\n"


async def _send(
    session: Session, transaction: Transaction, connection: Connection, user: str, piece: bytes, reader: SpoolReader
) -> Trouble | SpoolError | None:
    """The whole request; ``piece`` is the first one of the body."""
    settings, spool = session.settings, transaction.spool
    assert spool is not None
    most = max(0, settings[SPAMD_MAX_SIZE]) * 1024
    left = min(spool.size, most) if most else spool.size
    if left < spool.size:
        session.log(MAX_SIZE_REACHED, most)
    head = _head(transaction)
    problem = await connection.send(spamd.request(settings[SPAMD_COMMAND].upper(), user, len(head) + left) + head)
    while problem is None and left > 0:
        problem = await connection.send(piece[:left])
        left -= len(piece)
        if problem is None and left > 0:
            following = await _piece(reader)
            if isinstance(following, SpoolError):
                return following
            piece = following
    return problem


async def _piece(reader: SpoolReader) -> bytes | SpoolError:
    piece = reader.read()
    return piece if isinstance(piece, bytes | SpoolError) else await piece


def _unreadable(session: Session, error: SpoolError) -> Verdict:
    path, text, number = error.args if len(error.args) == 3 else ("", error.message.format, 0)
    session.log(OPEN_ERROR, path, text, number)
    return tempfail(INTERNAL_ERROR_LATER, fact=str(text))


def _not_sent(session: Session, stream: _Stream) -> None:
    stream.abort()
    session.log(CHUNK_WRITE_ERROR, stream.sent)


def _drained(session: Session, stream: _Stream, connection: Connection) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        if await connection.drained() is not None:
            _not_sent(session, stream)

    return wait()


# The answer


async def _hear(session: Session, connection: Connection, voice: _Voice) -> Score | None:
    """The score; None when there is none, and why is in the log."""
    connection.end_of_input()
    answer = await spamd.read_answer(connection, with_report=session.settings[SPAMD_COMMAND].upper() != "CHECK")
    connection.close()
    if isinstance(answer, Score):
        return answer
    match answer.step:
        case spamd.Step.FIRST_LINE:
            session.log(voice.first_line, answer.text, answer.errno)
        case spamd.Step.HEADER:
            session.log(voice.header, answer.text, answer.errno)
        case spamd.Step.STATUS:
            session.log(voice.parse, answer.text)
        case spamd.Step.REFUSED:
            session.log(voice.refused, answer.text)
        case spamd.Step.SCORE:
            session.log(voice.score, answer.text)
    return None


def _annotate(session: Session, transaction: Transaction, score: Score) -> str:
    """Write the score into the header; the text that tells of it."""
    settings, headers = session.settings, transaction.headers
    assert headers is not None
    word = "YES" if score.is_spam else "NO"
    numbers = f"score={score.score:.2f} required={score.threshold:.2f}"
    bar = settings[SPAMD_LEVEL_CHARACTER][:1] * min(MAX_LEVEL, max(0, int(score.score)))
    values = [(SPAMD_FLAG_HEADER, word), (SPAMD_STATUS_HEADER, f"{word}, {numbers}"), (SPAMD_LEVEL_HEADER, bar)]
    if settings[SPAMD_COMMAND].upper() != "CHECK":
        lines = (_NOT_PLAIN.sub("?", line.replace("\t", " "))[:MAX_REPORT_LINE] for line in score.report)
        values.append((SPAMD_REPORT_HEADER, "".join((numbers, *(f"\r\n  | {line}" for line in lines)))))
    for option, value in values:
        if settings[option]:
            headers.append(settings[option], value)
    return f"message {transaction.tid} junk mail score {score.score:.2f}/{score.threshold:.2f}"


def _reaches(session: Session, score: Score) -> bool:
    limit = session.settings[SPAMD_SCORE_REJECT]
    return 0 <= limit <= score.score


def _tag(session: Session, transaction: Transaction, score: Score) -> None:
    """Mark the message when spamd calls it spam."""
    if not score.is_spam:
        return
    assert transaction.headers is not None
    session.count(TAG)
    transaction.flags.add(MsgFlag.TAGGED)
    transaction.headers.prefix("Subject", session.settings[SPAMD_SUBJECT_TAG])
    transaction.headers.replace("Precedence", "bulk")
