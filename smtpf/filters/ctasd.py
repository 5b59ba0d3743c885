"""Ask the Commtouch daemon ctasd about outbreaks and bulk mail.

It hears of the message after the final dot: its file (``ctasd-stream=0``) or its text. Its word on viruses holds for every
message, its word on spam only for messages that are not white-listed. Without its answer the message goes on, and a warning tells
so. Source: spec chapter filters-content, 6.
"""

from __future__ import annotations

import attrs

from smtpf.filters import infection
from smtpf.filters.daemon_failure import file_of, guarded, no_descriptors, warn_of_remote_scanner
from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info, warn
from smtpf.message.spool import SpoolError
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, tempfail
from smtpf.reply import Reply
from smtpf.scanners import ctasd
from smtpf.scanners.connection import Connection, Network, Trouble
from smtpf.settings.option import Number, Policy, Text
from smtpf.settings.store import Settings
from smtpf.smtp.replies import INTERNAL_ERROR_LATER
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

CTASD_SOCKET = Text(
    "ctasd-socket", "", "Where the Commtouch daemon listens.", choices='/path|host[:port], port 8088; "" disables', since="later",
    area="ctasd",
)  # fmt: skip
CTASD_TIMEOUT = Number(
    "ctasd-timeout", 120, "How long connecting to ctasd, and each read and write, may take.", choices="seconds", least=1, since="later",
    area="ctasd",
)  # fmt: skip
CTASD_POLICY = Policy(
    "ctasd-policy", "reject", "What becomes of a message that ctasd calls infected or confirmed spam.",
    since="later", area="ctasd",
)  # fmt: skip
CTASD_STREAM = Number(
    "ctasd-stream", 0, "How ctasd gets a message: the path of its file, which only a daemon on this host can read, or its text.",
    choices="0 file path|1 inline stream|2 stream saved file", least=0, most=2, since="later", area="ctasd",
)  # fmt: skip
CTASD_SUBJECT_TAG = Text(
    "ctasd-subject-tag", "[SUSPECT]", "Prefix of the Subject of messages that ctasd calls bulk mail.", choices='text; "" disables',
    since="later", area="ctasd",
)  # fmt: skip

CLASSIFIED = info(
    958, "ctasd vod=%s spam=%s refid=%s", "What ctasd thinks of the message: virus outbreak, spam, and its own reference.",
    fields=("vod", "spam", "refid"), since="later",
)  # fmt: skip
JUDGED = err(959, "%s", "ctasd calls the message infected or spam. By ctasd-policy it was refused, discarded or delivered.", since="later")
UNSCANNED = warn(
    1151, "ctasd error: %s (%d), message not classified", "ctasd gave no answer. The message went on without; see that the daemon runs.",
    fields=("error", "errno"), since="later",
)  # fmt: skip
HEADERS_WRITE_ERROR = err(
    950, "ctasd session write error after %lu bytes", "ctasd stopped reading in the headers. The client was asked to come again.",
    fields=("octets",), since="later",
)  # fmt: skip
CHUNK_WRITE_ERROR = err(
    953, "ctasd session write error after %lu bytes", "ctasd stopped reading in the body. The client was asked to come again.",
    fields=("octets",), since="later",
)  # fmt: skip

REFUSED = Reply(960, "550 5.7.1 %s", meaning="ctasd calls the message infected or spam, and ctasd-policy is reject.")
OUTBREAK = Reply(
    961,
    "451 4.7.1 message %s cannot be delivered at this time",
    meaning="ctasd is not yet sure about an outbreak; the client is to come again.",
)
HEADERS_FAILED = Reply(950, "451 4.4.0 ctasd session write error after %lu bytes", meaning="ctasd stopped reading in the headers.")
CHUNK_FAILED = Reply(953, "451 4.4.0 ctasd session write error after %lu bytes", meaning="ctasd stopped reading in the body.")

SPAM_REJECT = Counter("ctasd-spam-reject", Group.MSG, "Messages that ctasd calls confirmed spam.", since="later")
SPAM_SUSPECT = Counter("ctasd-spam-suspect", Group.MSG, "Messages that ctasd suspects to be spam.", since="later")
SPAM_TAG = Counter("ctasd-spam-tag", Group.MSG, "Messages that ctasd calls bulk mail; their Subject was tagged.", since="later")
VOD_REJECT = Counter("ctasd-vod-reject", Group.MSG, "Messages that ctasd calls infected.", since="later")
VOD_TEMPFAIL = Counter("ctasd-vod-tempfail", Group.MSG, "Messages put off because ctasd is not sure about an outbreak.", since="later")

REFERENCE_HEADER = "X-CTCH-RefID"


@attrs.define
class _Judgement:
    spam: str = ""


class Ctasd(Filter):
    """Has the message classified by ctasd."""

    def __init__(self, network: Network, journal: Journal) -> None:
        self._network = network
        self._journal = journal

    def configure(self, settings: Settings) -> None:
        if settings[CTASD_STREAM] == 0:
            warn_of_remote_scanner(self._journal, settings, CTASD_SOCKET, ctasd.PORT)

    # Before the access gate

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Ask, and judge what concerns viruses."""
        socket = session.settings[CTASD_SOCKET]
        if not socket or MsgFlag.DISCARD in transaction.flags or MsgFlag.TRAP in transaction.flags:
            return None
        return guarded(session, self._classify(session, transaction, socket), "ctasd", None)

    async def _classify(self, session: Session, transaction: Transaction, socket: str) -> Verdict | None:
        headers = transaction.headers
        assert headers is not None
        headers.remove(REFERENCE_HEADER)
        answer = await self._ask(session, transaction, socket)
        if answer is None or isinstance(answer, Verdict):
            return answer
        session.log(CLASSIFIED, answer.vod, answer.spam, answer.ref_id)
        if answer.ref_id:
            headers.append(REFERENCE_HEADER, answer.ref_id)
        vod = answer.vod.lower()
        if vod in ("virus", "high"):
            session.count(VOD_REJECT)
            return infection.infected(session, transaction, "is INFECTED", session.settings[CTASD_POLICY], JUDGED, REFUSED)
        if vod == "medium":
            session.count(VOD_TEMPFAIL)
            return tempfail(OUTBREAK, transaction.tid, fact="vod=medium")
        transaction.own(_Judgement).spam = answer.spam.lower()
        return None

    async def _ask(self, session: Session, transaction: Transaction, socket: str) -> ctasd.Classification | Verdict | None:
        """The classification; a verdict when the message cannot go on, None when it goes on without."""
        streaming = session.settings[CTASD_STREAM] != 0
        path = "" if streaming else await file_of(session, transaction)
        if isinstance(path, Verdict):
            return path
        connection = await self._network.connect(socket, ctasd.PORT, session.settings[CTASD_TIMEOUT])
        if isinstance(connection, Trouble):
            return no_descriptors(session, connection) or _unscanned(session, connection.text, connection.errno)
        facts = ctasd.facts(transaction.sender.address, session.address, path)
        if streaming:
            refused = await _send_message(session, transaction, connection, facts)
            if refused is not None:
                connection.abort()
                return refused
        else:
            problem = await connection.send(ctasd.request(ctasd.BY_FILE, "localhost", len(facts)) + facts)
            if problem is not None:
                connection.close()
                return _unscanned(session, problem.text, problem.errno)
        answer = await ctasd.read_answer(connection)
        connection.close()
        if isinstance(answer, Trouble):
            return _unscanned(session, answer.text, answer.errno)
        if isinstance(answer, str):
            return _unscanned(session, answer, 0)
        return answer

    # Behind the access gate

    def judge_spam(self, session: Session, transaction: Transaction) -> Verdict | None:
        """What ctasd said about spam."""
        if not session.settings[CTASD_SOCKET]:
            return None
        settings, headers = session.settings, transaction.headers
        assert headers is not None
        match transaction.own(_Judgement).spam:
            case "confirmed":
                session.count(SPAM_REJECT)
                return infection.by_policy(session, transaction, "is spam", settings[CTASD_POLICY], JUDGED, REFUSED)
            case "bulk":
                transaction.flags.add(MsgFlag.TAGGED)
                headers.prefix("Subject", settings[CTASD_SUBJECT_TAG])
                headers.replace("Precedence", "bulk")
                session.count(SPAM_TAG)
            case "suspected":
                session.count(SPAM_SUSPECT)
        return None


async def _send_message(session: Session, transaction: Transaction, connection: Connection, facts: bytes) -> Verdict | None:
    """The request with the message in it. A refusal when it could not be written."""
    assert transaction.headers is not None and transaction.spool is not None
    head = transaction.headers.encode() + b"\r\n"
    request = ctasd.request(ctasd.INLINE, "localhost", len(facts) + 2 + len(head) + transaction.spool.size)
    if await connection.send(request + facts + b"\r\n" + head) is not None:
        session.log(HEADERS_WRITE_ERROR, 0)
        return tempfail(HEADERS_FAILED, 0)
    sent = len(head)
    reader = transaction.spool.reader()
    while True:
        piece = reader.read()
        if not isinstance(piece, bytes | SpoolError):
            piece = await piece
        if isinstance(piece, SpoolError):
            session.log(piece.message, *piece.args)
            return tempfail(INTERNAL_ERROR_LATER)
        if not piece:
            return None
        if await connection.send(piece) is not None:
            session.log(CHUNK_WRITE_ERROR, sent)
            return tempfail(CHUNK_FAILED, sent)
        sent += len(piece)


def _unscanned(session: Session, text: str, number: int) -> Verdict | None:
    """The message goes on, and the log tells that nobody has classified it."""
    session.log(UNSCANNED, text, number)
    return None
