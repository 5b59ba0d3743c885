"""SIQ: a reputation server's score of the client address and the sender's domain together.

Asked before the message is sent, and remembered in the cache for as long as the server says. A low score refuses, discards
or tags. Source: spec chapter filters-envelope, 17.
"""

from __future__ import annotations

import re

import attrs

from smtpf.cache.records import Record
from smtpf.cache.store import Cache
from smtpf.dns.resolver import Resolver
from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, err, info
from smtpf.maps.hosts import Host, parse_host
from smtpf.pipeline import Filter, FilterNotReady, MaybeVerdict, Verdict, discard, reject, tempfail
from smtpf.reply import Reply
from smtpf.scanners import siq as wire
from smtpf.scanners.siq import Failed, Reputation, SiqClient
from smtpf.settings.option import Number, Text, Words
from smtpf.settings.store import Settings
from smtpf.smtp.replies import TRY_AGAIN
from smtpf.smtp.session import ClientFlag, MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

OFF, HIGHEST = -1, 99


@attrs.frozen(eq=False, kw_only=True)
class Score(Number):
    """A limit on a score: -1, or 0 to 99. The node tells of another one by a message of its own, and does not start."""

    def fits(self, value: int) -> bool:
        return OFF <= value <= HIGHEST


SIQ_SERVERS = Words(
    "siq-servers",
    "",
    "Reputation servers that speak SIQ, asked in turn. Empty: none.",
    choices='host[:port]; "" disables',
    area="siq",
)
SIQ_SCORE_REJECT = Score(
    "siq-score-reject", OFF, "Messages with this score or a lower one are refused.", choices="-1 off|0..99", area="siq"
)
SIQ_SCORE_DISCARD = Score(
    "siq-score-discard", OFF, "Messages with this score or a lower one are accepted and thrown away.", choices="-1 off|0..99", area="siq"
)
SIQ_SCORE_TAG = Score(
    "siq-score-tag", 50, "The Subject of messages with this score or a lower one is tagged.", choices="-1 off|0..99", area="siq"
)
SIQ_SUBJECT_TAG = Text("siq-subject-tag", "[SPAM]", "Prefix of the Subject of messages with a low score.", area="siq")

BAD_DISCARD = err(
    608, "siq-score-discard number must -1 to disable, or 0..99", "The option has a number outside its range. The node does not start."
)
BAD_REJECT = err(
    609, "siq-score-reject number must -1 to disable, or 0..99", "The option has a number outside its range. The node does not start."
)
BAD_TAG = err(
    610, "siq-score-tag number must -1 to disable, or 0..99", "The option has a number outside its range. The node does not start."
)
ANSWERED = info(
    615,
    "siq score=%d confidence=%d ttl=%u text='%.83s'",
    "What a reputation server, or the cache, says of the client and the sender's domain.",
    fields=("score", "confidence", "ttl", "text"),
    always=True,
)
QUERY_FAILED = err(
    616, "%s", "No reputation server gave a usable answer. The message goes on without score; look after the server.", fields=("error",)
)
DISCARDING = info(
    618,
    "siq-score=%d less than %ld, discarding message",
    "siq-score-discard: the score is not above the limit. The message is accepted and thrown away.",
    fields=("score", "limit"),
    always=True,
)
SCORE_TOO_LOW = Reply(
    617, "550 5.7.1 message rejected, SIQ score %d too low", meaning="siq-score-reject: the reputation of client and sender is too bad."
)

QUERY_CACHE = Counter("siq-query-cache", Group.MAIL, "SIQ scores found in the cache.")
QUERY_MADE = Counter("siq-query-made", Group.MAIL, "SIQ scores asked for.")
COUNT_REJECT = Counter("siq-score-reject", Group.MAIL, "Messages refused for their SIQ score.")
COUNT_DISCARD = Counter("siq-score-discard", Group.MAIL, "Messages thrown away for their SIQ score.")
COUNT_TAG = Counter("siq-score-tag", Group.MAIL, "Messages tagged for their SIQ score.")

REPORT_HEADER = "SIQ-Report"
MAX_VALUE = 92
"""Octets of a cache value."""
MAX_TEXT = 83

_LIMITS: tuple[tuple[Score, Message], ...] = (
    (SIQ_SCORE_DISCARD, BAD_DISCARD),
    (SIQ_SCORE_REJECT, BAD_REJECT),
    (SIQ_SCORE_TAG, BAD_TAG),
)
_UNSAFE = re.compile(r"[^\x20-\x7e]|['\"]")


@attrs.define
class _Asked:
    """Of a transaction."""

    flags: int = 0
    answer: Reputation | Failed | None = None


class Siq(Filter):
    """Asks, decides, and reports in the header."""

    def __init__(self, client: SiqClient, cache: Cache, resolver: Resolver, journal: Journal) -> None:
        self._client = client
        self._cache = cache
        self._resolver = resolver
        self._journal = journal
        self._settings = Settings()
        self._servers: tuple[Host, ...] = ()

    def configure(self, settings: Settings) -> None:
        self._settings = settings
        parsed = (parse_host(text, wire.PORT) for text in settings[SIQ_SERVERS])
        self._servers = tuple(host for host in parsed if host is not None)

    def start(self) -> None:
        """Raises FilterNotReady when a limit is out of its range."""
        wrong = [message for option, message in _LIMITS if not option.fits(self._settings[option])]
        for message in wrong:
            self._journal.write(message)
        if wrong:
            raise FilterNotReady

    # DATA

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not self._servers or session.usual_suspect or not transaction.sender.domain:
            return None
        return self._decide(session, transaction)

    async def _decide(self, session: Session, transaction: Transaction) -> Verdict | None:
        asked = transaction.own(_Asked)
        answer = asked.answer = await self._answer(session, transaction.sender.domain, asked)
        if isinstance(answer, Failed):
            session.log(QUERY_FAILED, answer.text)
            return None
        session.log(ANSWERED, answer.score, answer.confidence, answer.ttl, answer.text)
        return self._verdict(session, transaction, answer.score)

    def _verdict(self, session: Session, transaction: Transaction, score: int) -> Verdict | None:
        settings = session.settings
        fact = f"siq score {score}"
        if score == wire.TEMPORARY:
            return tempfail(TRY_AGAIN, fact=fact)
        if 0 <= score <= settings[SIQ_SCORE_REJECT]:
            session.count(COUNT_REJECT)
            return reject(SCORE_TOO_LOW, score, fact=fact)
        if 0 <= score <= settings[SIQ_SCORE_DISCARD]:
            session.log(DISCARDING, score, settings[SIQ_SCORE_DISCARD])
            session.count(COUNT_DISCARD)
            transaction.flags.add(MsgFlag.DISCARD)
            return discard(fact)
        return None

    async def _answer(self, session: Session, domain: str, asked: _Asked) -> Reputation | Failed:
        """From the cache, else from a server."""
        helo = session.helo.lower()
        asked.flags = wire.HELO_MATCHES if ClientFlag.HELO_HOST in session.flags else 0
        if helo.endswith(domain) and len(helo) > len(domain):
            asked.flags |= wire.MAIL_MATCHES
        key = f"siq:{session.address},{domain}"
        record = await self._cache.fetch(key, session.sid)
        known = restored(record) if record is not None else None
        if known is not None:
            session.count(QUERY_CACHE)
            return known
        session.count(QUERY_MADE)
        answer = await self._client.ask(await self._addresses(), asked.flags, session.address, domain)
        if isinstance(answer, Failed):
            return answer
        answer = attrs.evolve(answer, text=_UNSAFE.sub("", answer.text)[:MAX_TEXT])
        if answer.score >= 0 and answer.ttl > 0:
            self._cache.put(key, kept(asked.flags, answer), answer.ttl, session=session.sid)
        return answer

    async def _addresses(self) -> list[tuple[str, int]]:
        """Where the servers are now."""
        found = []
        for host in self._servers:
            where = await self._resolver.host_addresses(host.host)
            found += [(address, host.port) for address in where.addresses[:1]]
        return found

    # Headers

    def headers(self, session: Session, transaction: Transaction) -> None:
        """The report, and the tag."""
        if not self._servers:
            return
        asked = transaction.own(_Asked)
        answer = asked.answer
        if answer is None:
            return
        assert transaction.headers is not None
        settings = session.settings
        score, text, word = (answer.score, answer.text, "YES") if isinstance(answer, Reputation) else (-1, "", "")
        if score < 0:
            word = text = "UNKNOWN"
        elif score <= settings[SIQ_SCORE_TAG]:
            word = "NO"
            session.count(COUNT_TAG)
            transaction.flags.add(MsgFlag.TAGGED)
            transaction.headers.prefix("Subject", settings[SIQ_SUBJECT_TAG])
        helo, mail = bool(asked.flags & wire.HELO_MATCHES), bool(asked.flags & wire.MAIL_MATCHES)
        transaction.headers.append(
            REPORT_HEADER,
            f"pass={word} ip={session.address} dn={transaction.sender.domain} hl={helo:d} ml={mail:d} score={score} text='{text}'",
        )


def kept(flags: int, answer: Reputation) -> str:
    """An answer as a cache value."""
    numbers = (answer.score, answer.address_score, answer.relationship_score, answer.domain_score, answer.confidence, answer.ttl)
    return f"{flags:02x} {' '.join(map(str, numbers))} {answer.text}"[:MAX_VALUE]


def restored(record: Record) -> Reputation | None:
    """The answer that ``kept`` wrote; None when the record is none."""
    parts = record.value.split(" ", 7)
    if len(parts) != 8:
        return None
    try:
        score, address, relationship, domain, confidence, ttl = map(int, parts[1:7])
    except ValueError:
        return None
    return Reputation(score, address, domain, relationship, confidence, ttl, parts[7])
