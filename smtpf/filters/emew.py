"""EMEW: mail that leaves is marked in its Message-ID, so that answers to it pass and bounces of mail never sent do not.

Mail of authenticated clients and relays that goes to the local route gets a mark. A message that refers to a marked one skips
the tests behind this one; a bounce that quotes none can be refused. Which addresses use marks is said by the option
``emew-secret`` and the tag ``Emew:``. Source: spec chapter filters-content, 19.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs

from smtpf.filters.emew_id import MARK, Result, ids_in, marked, plain_id, secrets_of, validate
from smtpf.journal.message import warn
from smtpf.maps.access import AccessMap
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, accept, reject
from smtpf.reply import Reply
from smtpf.settings.option import Number, Policy, Text, Words
from smtpf.settings.store import Settings
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

EMEW_SECRET = Text(
    "emew-secret",
    "",
    "Secret with which Message-IDs of outgoing mail are marked. Several, separated by semicolons, newest first: the first one marks, "
    "all verify. An Emew: entry of the access map overrides it for an address.",
    choices='shared secret; "" disables',
    area="emew",
    secret=True,
)
EMEW_TTL = Number(
    "emew-ttl", 604800, "How long a mark is good, for answers and for bounces.", choices="seconds; <=0 no expiry", area="emew"
)
EMEW_DSN_POLICY = Policy(
    "emew-dsn-policy",
    "none",
    "What to do with a bounce or receipt that quotes no mark of ours, or an old one: nothing, or refuse it.",
    words=("none", "reject"),
    area="emew",
)
EMEW_ACCEPT_VERSIONS = Words(
    "emew-accept-versions",
    "3;4",
    "Versions of marks that are believed. 4 is what this program writes, 3 and before were written by older ones.",
    choices="1|2|3|4",
    words=("1", "2", "3", "4"),
    since="later",
    area="emew",
)

CANNOT_MARK = warn(
    346,
    "EMEW Message-ID buffer error",
    "An outgoing message kept its Message-ID as it was: there is no secret for its sender, or the mark would not fit in a line.",
)

OLD_MESSAGE = Reply(357, "550 5.7.1 DSN or MDN in response to an old message", meaning="emew-dsn-policy: the mark it quotes is too old.")
NOT_OURS = Reply(
    358,
    "550 5.7.1 DSN or MDN for message that did not originate here",
    meaning="emew-dsn-policy: it quotes no mark of ours, or a forged one.",
)

EMEW_PASS = Counter("emew-pass", Group.MSG, "Messages that refer to marked mail of ours.")
EMEW_FAIL = Counter("emew-fail", Group.MSG, "Bounces of mail that was never sent from here.")
EMEW_TTL_OVER = Counter("emew-ttl", Group.MSG, "Bounces of mail that was sent too long ago.")

MAX_LOOKED_AT = 256 * 1024
"""Octets of a bounce in which a mark is looked for."""
MAX_IDS = 20
"""Ids of an In-Reply-To field that are looked at."""

_QUOTED_ID = re.compile(rb"^message-id:[ \t]*(?:\r?\n[ \t]+)?<?(EMEW[^>\s]*)", re.IGNORECASE | re.MULTILINE)


@attrs.define
class _Search:
    """The search for a mark in one bounce."""

    going_on: bool = False
    looked_at: int = 0
    """Octets."""


class Emew(Filter):
    """Marks what goes out, and believes marks of what comes in."""

    def __init__(self, access: AccessMap, now: Callable[[], float]) -> None:
        self._access = access
        self._now = now
        self._accepted: frozenset[str] = frozenset()

    def configure(self, settings: Settings) -> None:
        versions = settings[EMEW_ACCEPT_VERSIONS]
        self._accepted = frozenset(versions)

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        tags = self._access.source.view.tags
        if not session.settings[EMEW_SECRET] and tags is not None and "emew:" not in tags:
            return None
        return self._headers(session, transaction)

    async def _headers(self, session: Session, transaction: Transaction) -> Verdict | None:
        if not await self._required(session, transaction):
            return None
        if session.auth or (session.relay and MsgFlag.QUEUED in transaction.flags):
            await self._mark(session, transaction)
            return None
        if await self._refers_to_ours(session, transaction):
            return _passed(session, transaction)
        if transaction.sender.is_null:
            transaction.own(_Search).going_on = True
        return None

    async def _required(self, session: Session, transaction: Transaction) -> bool:
        """The sender or a recipient uses marks. Bounces to postmaster are none of its business."""
        secret = bool(session.settings[EMEW_SECRET])
        if transaction.sender.is_null:
            if session.usual_suspect:
                return False
            addresses = [each.path.address for each in transaction.recipients if each.path.mailbox != "postmaster"]
        else:
            addresses = [transaction.sender.address, *(each.path.address for each in transaction.recipients)]
        if secret:
            return bool(addresses)
        for address in addresses:
            if await self._entry(session, address):
                return True
        return False

    async def _entry(self, session: Session, address: str) -> str:
        """The secret of an ``Emew:`` entry; empty without one."""
        hit = await self._access.lookup_mail("emew:", address, session.sid)
        return hit.text if hit is not None and not hit.failed else ""

    async def _secrets(self, session: Session, address: str) -> Sequence[str]:
        entry = await self._entry(session, address) if address else ""
        return secrets_of(entry or session.settings[EMEW_SECRET])

    # Outgoing mail

    async def _mark(self, session: Session, transaction: Transaction) -> None:
        """Put a mark into the Message-ID, and the id as it was into References."""
        headers = transaction.headers
        assert headers is not None
        field = headers.first("Message-ID")
        if field is None or transaction.sender.is_null:
            return
        value = field.value.decode("utf-8", "surrogateescape")
        identity = plain_id(value)
        if MARK in value or not identity:
            return
        sender = transaction.sender.address
        secrets = await self._secrets(session, sender)
        made = marked(identity, sender, secrets[0] if secrets else "", self._now())
        if not made:
            session.log(CANNOT_MARK)
            return
        known = f"<{identity}>".encode("utf-8", "surrogateescape")
        references = headers.first("References")
        if references is None:
            headers.append_raw(b"References: " + known + b"\r\n")
        else:
            headers.replace_raw(references.raw.rstrip(b"\r\n") + b"\r\n " + known + b"\r\n")
        headers.replace_raw(b"Message-ID: <" + made.encode("utf-8", "surrogateescape") + b">\r\n")
        transaction.message_id = made

    # Answers

    async def _refers_to_ours(self, session: Session, transaction: Transaction) -> bool:
        """The message answers one that was marked here."""
        headers = transaction.headers
        assert headers is not None
        references = headers.first("References")
        if references is not None:
            candidates = ids_in(_text(references.value))[-1:]
        else:
            answered = headers.first("In-Reply-To")
            candidates = ids_in(_text(answered.value))[:MAX_IDS] if answered is not None else []
        for candidate in candidates:
            if candidate.startswith(MARK) and await self._validate(session, candidate) is Result.PASS:
                return True
        return False

    async def _validate(self, session: Session, identity: str) -> Result:
        async def secrets_for(address: str) -> Sequence[str]:
            return await self._secrets(session, address)

        return await validate(identity, self._accepted, secrets_for, session.settings[EMEW_TTL], self._now())

    # Bounces

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """Look for a quoted mark; decide when one is found, or when there is none to come."""
        if MsgFlag.EMEW_PASS in transaction.flags:
            return accept("emew")
        search = transaction.own(_Search) if transaction.sender.is_null else None
        if search is None or not search.going_on:
            return None
        found = _QUOTED_ID.search(chunk[: MAX_LOOKED_AT - search.looked_at])
        search.looked_at += len(chunk)
        search.going_on = found is None and not transaction.complete and search.looked_at < MAX_LOOKED_AT
        if found is not None:
            return self._judge_quoted(session, transaction, _text(found[1]))
        return None if search.going_on else _bounce(session, transaction, Result.NONE)

    async def _judge_quoted(self, session: Session, transaction: Transaction, identity: str) -> Verdict | None:
        return _bounce(session, transaction, await self._validate(session, identity))

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if MsgFlag.EMEW_PASS in transaction.flags and not session.usual_suspect:
            return accept("emew")
        return None


def _passed(session: Session, transaction: Transaction) -> Verdict:
    """It refers to mail of ours: the tests behind this one are skipped."""
    transaction.emew = Result.PASS
    transaction.flags.add(MsgFlag.EMEW_PASS)
    session.count(EMEW_PASS)
    return accept("emew")


def _bounce(session: Session, transaction: Transaction, result: Result) -> Verdict | None:
    """What becomes of a bounce with this result."""
    strict = session.settings[EMEW_DSN_POLICY][:1].lower() == "r"
    if result is Result.PASS:
        return _passed(session, transaction)
    if result is Result.NONE and strict:
        result = Result.FAIL
    elif result is Result.FAIL and not strict:
        result = Result.NONE
    transaction.emew = result
    if result is Result.EXPIRED:
        session.count(EMEW_TTL_OVER)
        return reject(OLD_MESSAGE, fact="emew") if strict else None
    if result is Result.FAIL:
        session.count(EMEW_FAIL)
        return reject(NOT_OURS, fact="emew")
    return None


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
