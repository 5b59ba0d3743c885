"""Duplicate messages: a client that never heard that its message was taken sends it again; it is not delivered twice.

A message is known by its body, Message-ID, sender and recipients. It is remembered when the reply to it could not be
written, or when the connection broke before the client said another word; with ``dupmsg-track-all`` always, and then a
repetition is refused. Runs at the dot before all scanners. Source: spec chapters session, 9, and filters-content, 20.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from smtpf.cache.records import Record
from smtpf.cache.store import Cache
from smtpf.journal.message import info
from smtpf.pipeline import Code, Filter, MaybeVerdict, Verdict, discard, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Number
from smtpf.smtp.session import ClientFlag, MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

DUPMSG_TTL = Number(
    "dupmsg-ttl",
    90000,
    "How long a message is remembered whose client was lost before it heard the reply; longer than clients wait between attempts.",
    choices="seconds; <=0 disables",
    area="dupmsg",
)
DUPMSG_TRACK_ALL = Flag(
    "dupmsg-track-all",
    False,
    "Remember every message of unknown clients, and refuse it when it comes a second time.",
    area="dupmsg",
)

DUPLICATE = info(
    337,
    "%s duplicate Message-Id=%s previous session=%s",
    "The message came before, in the session named: it was discarded because its client had been lost, or refused by dupmsg-track-all.",
    fields=("action", "message_id", "session"),
)
REJECTED = Reply(340, "550 5.3.4 duplicate message rejected", meaning="dupmsg-track-all: the same message has been taken before.")

CACHED = Counter("dupmsg-cached", Group.MSG, "Messages remembered in case they come again.")
HIT = Counter("dupmsg-hit", Group.MSG, "Messages that came again.")

TAKEN = frozenset({Code.CONTINUE, Code.ACCEPT, Code.DISCARD})
"""Outcomes that the client hears as 2xy."""
_IDENTITY = re.compile(rb"<[^\s]*")


class _OfMessage:
    """What is known of one message."""

    __slots__ = ("body", "identity", "key", "repeated")

    def __init__(self) -> None:
        self.body: Any = hashlib.sha256()
        self.identity = b""
        """The Message-ID as the client wrote it, with its brackets."""
        self.key = ""
        self.repeated = False


@attrs.define
class _Last:
    """The last message of a session that was answered 2xy."""

    key: str = ""
    octets: int = -1
    """Octets that the client had sent by then."""


class DupMsg(Filter):
    """Recognises messages that were taken already."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def headers(self, session: Session, transaction: Transaction) -> None:
        if session.settings[DUPMSG_TTL] <= 0:
            return
        assert transaction.headers is not None
        field = transaction.headers.first("Message-ID")
        found = _IDENTITY.search(field.value) if field is not None else None
        transaction.own(_OfMessage).identity = found[0] if found else b""

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> None:
        if session.settings[DUPMSG_TTL] > 0:
            transaction.own(_OfMessage).body.update(chunk)

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if session.settings[DUPMSG_TTL] <= 0 or not transaction.forwarded:
            return None
        if MsgFlag.DISCARD in transaction.flags or MsgFlag.TRAP in transaction.flags:
            return None
        own = transaction.own(_OfMessage)
        own.key = _key(transaction, own)
        found = self._cache.get(own.key, session.sid)
        if found is None:
            return None
        return self._judge(session, transaction, own, found)

    async def _judge(
        self, session: Session, transaction: Transaction, own: _OfMessage, found: Record | Deferred[Record | None]
    ) -> Verdict | None:
        record = await found if isinstance(found, Deferred) else found
        if record is None or record.code not in ("5", "6"):
            return None
        own.repeated = True
        session.count(HIT)
        refused = record.code == "5"
        session.log(DUPLICATE, "REJECT" if refused else "DISCARD", own.identity.decode("utf-8", "replace"), record.value[2:])
        transaction.flags.add(MsgFlag.DISCARD)
        return reject(REJECTED, fact=own.key) if refused else discard(own.key)

    def rset(self, session: Session, transaction: Transaction) -> None:
        """Remember the message, if its client does not know what became of it."""
        outcome = transaction.outcome
        if outcome is None or outcome.code not in TAKEN or session.settings[DUPMSG_TTL] <= 0:
            return
        own = transaction.own(_OfMessage)
        if not own.key:
            return
        if ClientFlag.IO_ERROR in session.flags:
            self._remember(session, own.key, "6")
            return
        last = session.own(_Last)
        last.key, last.octets = own.key, session.octets
        if session.settings[DUPMSG_TRACK_ALL] and not session.usual_suspect and not own.repeated:
            self._remember(session, own.key, "5")

    def close(self, session: Session) -> None:
        """The connection broke before the client said another word: it may not have heard the reply."""
        if not session.broken or session.settings[DUPMSG_TTL] <= 0:
            return
        last = session.own(_Last)
        if last.key and last.octets == session.octets:
            self._remember(session, last.key, "6")

    def _remember(self, session: Session, key: str, code: str) -> None:
        self._cache.put(key, f"{code} {session.sid}", session.settings[DUPMSG_TTL], session=session.sid)
        session.count(CACHED)


def _key(transaction: Transaction, own: _OfMessage) -> str:
    """Body, Message-ID, sender and recipients as one digest, each with its length, so that no two lists of fields are the same."""
    addresses = [recipient.path.address.lower() for recipient in transaction.recipients]
    fields = [own.body.digest(), own.identity, *(each.encode() for each in (transaction.sender.address.lower(), *sorted(addresses)))]
    digest = hashlib.sha256(b"".join(b"%d:%s" % (len(field), field) for field in fields)).hexdigest()
    return f"dupmsg:{digest},{addresses[0]}"
