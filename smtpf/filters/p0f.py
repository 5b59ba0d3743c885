"""Ask p0f what operating system a client runs. Nothing is refused for it.

The answer goes into a header field of each message, into the client's ``end`` line and, when ``grey-key`` says so, into the key of
grey-listing. The daemon is asked while the client is served; the first message waits for its answer. Any failure is logged
and forgotten. Source: spec chapter filters-envelope, 4.
"""

from __future__ import annotations

import random
from ipaddress import IPv4Address, ip_address
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred

from smtpf.journal.journal import Journal
from smtpf.journal.message import Level, Message, err
from smtpf.pipeline import Filter, MaybeVerdict
from smtpf.scanners.p0f import Fault, Fingerprint, P0fError, Query, ask, query_2, query_3
from smtpf.settings.option import Flag, Number, Text
from smtpf.smtp.session import ClientFlag, Session, Transaction

P0F_SOCKET = Text("p0f-socket", "", "Socket of the p0f daemon, which is asked about each client.", choices='/path; "" disables', area="p0f")
P0F_VERSION = Number(
    "p0f-version", 3, "Protocol of the p0f daemon; version 2 knows IPv4 only.", choices="2 or 3", least=2, most=3, since="later", area="p0f"
)
P0F_TIMEOUT = Number("p0f-timeout", 5, "How long p0f may take to answer.", choices="seconds", least=1, area="p0f")
P0F_MUTEX = Flag("p0f-mutex", False, "Ask p0f one question at a time. Only daemons of version 2 may need it.", area="p0f")
P0F_REPORT_HEADER = Text(
    "p0f-report-header",
    "X-p0f-Report",
    "Name of the header field that tells what p0f says of the client.",
    choices='header name; "" disables',
    since="later",
    area="p0f",
)

_FIX = "p0f was not asked about this client, which is served all the same."
ADDRESS_ERROR = err(506, "p0f address error: %s (%d)", f"p0f-socket is not a usable path. {_FIX}", fields=("error", "errno"))
OPEN_ERROR = err(507, "p0f open error: %s (%d)", f"No socket could be made. {_FIX}", fields=("error", "errno"))
CONNECTION_ERROR = err(
    508, "p0f connection error: %s (%d)", f"Nobody listens at p0f-socket: start the daemon. {_FIX}", fields=("error", "errno")
)
WRITE_ERROR = err(
    510, "p0f write error: %s (%d)", f"The daemon closed the connection before it was asked. {_FIX}", fields=("error", "errno")
)
TIMEOUT_ERROR = err(511, "p0f timeout error: %s (%d)", f"The daemon did not answer within p0f-timeout. {_FIX}", fields=("error", "errno"))
READ_ERROR = err(
    512,
    "p0f read error: %s (%d)",
    "The daemon closed the connection before its answer was complete. Is p0f-version right? The client is served all the same.",
    fields=("error", "errno"),
)
MUTEX_ERROR = err(
    513,
    "p0f mutex unlock failed: %s (%d)",
    "The turns of the queries were mixed up: a fault of the program, please report it.",
    fields=("error", "errno"),
)
MAGIC_ERROR = err(515, "p0f magic number error", "What answers at p0f-socket is no p0f, or one of the other version: see p0f-version.")
QUERY_ERROR = err(516, "p0f query error (%d)", "p0f did not understand the query. Is p0f-version right?", fields=("status",))
REPORT = Message(517, Level.INFO, "p0f %s", explanation="What p0f says of the client.", word="p0f", fields=("report",))

_ERRORS = {
    Fault.ADDRESS: ADDRESS_ERROR,
    Fault.OPEN: OPEN_ERROR,
    Fault.CONNECT: CONNECTION_ERROR,
    Fault.WRITE: WRITE_ERROR,
    Fault.TIMEOUT: TIMEOUT_ERROR,
    Fault.READ: READ_ERROR,
}


@attrs.define
class _Known:
    under_way: Deferred[None] | None = None
    report: str = ""


class P0f(Filter):
    """Keeps what p0f says of each client."""

    def __init__(self, reactor: Any, rng: random.Random, journal: Journal) -> None:
        self._reactor = reactor
        self._rng = rng
        self._journal = journal
        self._turn = DeferredLock()

    def connect(self, session: Session) -> None:
        """Ask."""
        settings = session.settings
        path = settings[P0F_SOCKET]
        if not path:
            return
        session.p0f = session.p0f_os = ""
        query = self._query(session)
        if query is None:
            return
        known = session.own(_Known)
        known.report = ""
        serial = settings[P0F_MUTEX] and settings[P0F_VERSION] == 2
        work = self._ask_in_turn if serial else self._ask
        known.under_way = ensureDeferred(work(session, path, query))
        known.under_way.addErrback(lambda failure: self._journal.failure(failure, session.sid, "p0f"))

    def _query(self, session: Session) -> Query | None:
        if session.settings[P0F_VERSION] == 3:
            return query_3(session.ip)
        local = ip_address(session.interface_address)
        if not isinstance(session.ip, IPv4Address) or not isinstance(local, IPv4Address):
            return None
        return query_2(self._rng.getrandbits(32), session.ip, session.port, local, session.interface_port)

    async def _ask_in_turn(self, session: Session, path: str, query: Query) -> None:
        await self._turn.acquire()
        try:
            await self._ask(session, path, query)
        finally:
            if self._turn.locked:
                self._turn.release()
            else:
                session.log(MUTEX_ERROR, "not locked", 0)

    async def _ask(self, session: Session, path: str, query: Query) -> None:
        answer = await ask(self._reactor, path, query, session.settings[P0F_TIMEOUT])
        if isinstance(answer, Fingerprint):
            session.own(_Known).report = answer.report
            session.p0f_os = answer.os
            session.p0f = f'p0f="{answer.report.replace(chr(34), chr(39))}"'
            session.log(REPORT, answer.report)
        else:
            _say(session, answer)

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """From here on the answer is needed."""
        if not session.settings[P0F_SOCKET]:
            return None
        under_way = session.own(_Known).under_way
        return None if under_way is None or under_way.called else self._wait(under_way)

    async def _wait(self, under_way: Deferred[None]) -> None:
        await under_way

    def headers(self, session: Session, transaction: Transaction) -> None:
        """Add the report, except to mail of our own clients: it would tell of the network inside."""
        settings = session.settings
        name = settings[P0F_REPORT_HEADER]
        if not settings[P0F_SOCKET] or not name or session.trusted or transaction.headers is None:
            return
        report = session.own(_Known).report
        if report:
            forged = "(forged) " if ClientFlag.FORGED in session.flags else ""
            transaction.headers.append(name, f"{session.client.lstrip()} {forged}{report}")


def _say(session: Session, error: P0fError) -> None:
    if error.fault is Fault.MAGIC:
        session.log(MAGIC_ERROR)
    elif error.fault is Fault.QUERY:
        session.log(QUERY_ERROR, error.number)
    else:
        session.log(_ERRORS[error.fault], error.text, error.number)
