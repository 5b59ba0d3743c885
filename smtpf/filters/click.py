"""Click to white-list: a person who was refused by mistake sends one mail, or opens one page, and is let in.

A refusal carries a challenge that only this site can make, for the pair of the sending network and the sender's address.
Mail to the challenge's address, from the same network and sender, proves that somebody reads what the refusal says.
Source: RFC 2104; spec chapter filters-envelope, 11.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import quote

from smtpf.cache.store import Cache
from smtpf.dns.domains import Domains
from smtpf.filters.access import SENDER_BLACK, SENDER_TEMPFAIL
from smtpf.journal.message import info
from smtpf.pipeline import Code, Filter, MaybeVerdict, Verdict, accept, discard, reject, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Number, Text
from smtpf.settings.store import Settings
from smtpf.smtp.session import ClientFlag, MailFlag, MsgFlag, RcptFlag, Recipient, Session, Transaction
from smtpf.stats.counter import Counter, Group

CLICK_URL = Text(
    "click-url",
    "",
    "How a refused sender can white-list himself: mailto puts a mail address into refusals, an https URL a link to a page of yours "
    "that checks the challenge and stores the cache record. A URL without https is not offered. Needs click-secret.",
    choices='mailto|https URL; "" disables',
    area="click",
)
CLICK_SECRET = Text(
    "click-secret", "", "The secret by which challenges are made and recognised. Empty: no challenges.", secret=True, area="click"
)
CLICK_TTL = Number("click-ttl", 90000, "How long a challenge can be answered.", choices="seconds", least=0, area="click")

WHITE = info(
    242,
    "host %s [%s] sender <%s> white listed",
    "The sender has answered a challenge before, from the same network, and is let in.",
    fields=("client", "address", "sender"),
)
CHALLENGE_EXPIRED = Reply(244, "550 5.7.1 recipient <%s> expired", meaning="The challenge is older than click-ttl.")
CHALLENGE_INVALID = Reply(245, "550 5.7.1 recipient <%s> invalid", meaning="The challenge was not made for this client and sender.")
CLICK_ACCEPT = Counter("click-accept", Group.MAIL, "Messages of senders that have white-listed themselves.")
CLICK_PASS = Counter("click-pass", Group.RCPT, "Challenges answered.")
CLICK_FAIL = Counter("click-fail", Group.RCPT, "Challenges that were wrong for this client and sender.")
CLICK_EXPIRED = Counter("click-ttl", Group.RCPT, "Challenges answered too late.")

PREFIX = "CLICK-"
TIME_DIGITS = 6
CYCLE = 62
"""Years after which time codes repeat."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MSG_SETTLED = frozenset({MsgFlag.OK, MsgFlag.OK_AV, MsgFlag.DISCARD, MsgFlag.TRAP, MsgFlag.POLICY})
_MAIL_SETTLED = frozenset({MailFlag.LOCAL_BLACK, MailFlag.WHITE})
_RCPT_SETTLED = frozenset({RcptFlag.LOCAL_BLACK, RcptFlag.WHITE, RcptFlag.FAILED})


class Click(Filter):
    """Offers challenges, takes answers, and knows who has answered."""

    def __init__(self, cache: Cache, domains: Domains, now: Callable[[], float]) -> None:
        self._cache = cache
        self._domains = domains
        self._now = now

    # Refusals

    def addition(self, session: Session, transaction: Transaction, recipient: Recipient | None) -> str:
        """What a permanent refusal says in addition; empty when there is no offer. ``recipient`` is the one that was refused."""
        settings = session.settings
        url, secret = settings[CLICK_URL], settings[CLICK_SECRET]
        if not url or not secret or transaction.sender.is_null or _settled(session, transaction, recipient):
            return ""
        key = self.key(session, transaction.sender.address)
        made = challenge(key, time_code(self._now()), secret)
        if url == "mailto":
            return f" White list by sending mail to <{made}@{session.interface_name}>"
        if not url.lower().startswith("https://"):
            return ""
        return f" White list via {url}?h={made[len(PREFIX) :]}&c={quote(key, safe='-_.~')}"

    # MAIL

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Has the sender answered before?"""
        if not _enabled(session.settings) or transaction.sender.is_null:
            return None
        return self._known(session, transaction)

    async def _known(self, session: Session, transaction: Transaction) -> Verdict | None:
        sender = transaction.sender.address
        record = await self._cache.fetch(self.key(session, sender), session.sid)
        if record is None:
            return None
        self._cache.touch(record, session=session.sid)
        match record.code:
            case "2":
                session.log(WHITE, session.name, session.address, sender)
                session.count(CLICK_ACCEPT)
                session.slots.delayed = None
                transaction.mail_flags.add(MailFlag.WHITE)
                transaction.list_state = Code.ACCEPT
                return accept(record.key)
            case "4":
                return tempfail(SENDER_TEMPFAIL, sender, "temporary failure", fact=record.key)
            case "5":
                return reject(SENDER_BLACK, sender, "black listed", fact=record.key)
            case "6":
                transaction.flags.add(MsgFlag.DISCARD)
                transaction.list_state = Code.DISCARD
                return discard(record.key)
        return None

    # RCPT

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """Is the recipient a challenge?"""
        settings = session.settings
        answer = recipient.path.local
        if settings[CLICK_URL] != "mailto" or not settings[CLICK_SECRET] or not answer.startswith(PREFIX):
            return None
        address, now = recipient.path.address, self._now()
        code = answer[len(PREFIX) : len(PREFIX) + TIME_DIGITS]
        made = time_of(code, now)
        if made is not None and made + settings[CLICK_TTL] < now:
            session.count(CLICK_EXPIRED)
            return reject(CHALLENGE_EXPIRED, address)
        key = self.key(session, transaction.sender.address)
        wanted = challenge(key, code, settings[CLICK_SECRET])
        if made is None or not hmac.compare_digest(answer.encode(), wanted.encode()):
            session.count(CLICK_FAIL)
            return reject(CHALLENGE_INVALID, address)
        self._cache.put(key, "2", session=session.sid)
        session.count(CLICK_PASS)
        return discard(key)

    def key(self, session: Session, sender: str) -> str:
        """The cache key of the pair of network and sender; the sender's address keeps its case."""
        flags, name = session.flags, session.name
        named = ClientFlag.NO_PTR not in flags or ClientFlag.HELO_HOST in flags
        if name and named and "." in name and ClientFlag.PTR_MULTIDOMAIN not in flags:
            source = self._domains.ptr_suffix(name)
        else:
            source = session.address
        return f"click:{source.lower()},{sender}"


def _enabled(settings: Settings) -> bool:
    return bool(settings[CLICK_URL] and settings[CLICK_SECRET])


def _settled(session: Session, transaction: Transaction, recipient: Recipient | None) -> bool:
    """The postmaster has decided about the client, sender, recipient or message; a click changes nothing."""
    if session.white or session.grey or ClientFlag.LOCAL_BLACK in session.flags:
        return True
    rcpt_flags = recipient.flags if recipient is not None else transaction.recipient_flags
    return bool(_MSG_SETTLED & transaction.flags or _MAIL_SETTLED & transaction.mail_flags or _RCPT_SETTLED & rcpt_flags)


def challenge(key: str, code: str, secret: str) -> str:
    """The challenge for a cache key and a time code."""
    digest = hmac.new(secret.encode(), (key + code).encode(), hashlib.sha256).hexdigest()
    return f"{PREFIX}{code}{digest[:32]}"


def time_code(now: float) -> str:
    """Unix seconds as six digits to the base of 62: year, month, day, hour, minute, second of UTC."""
    at = datetime.fromtimestamp(int(now), UTC)
    return "".join(_DIGITS[part] for part in ((at.year - 1900) % CYCLE, at.month - 1, at.day - 1, at.hour, at.minute, at.second))


def time_of(code: str, now: float) -> float | None:
    """Unix seconds of a time code, the latest possible before ``now``; None when it is none."""
    parts = [_DIGITS.find(digit) for digit in code]
    if len(parts) != TIME_DIGITS or min(parts) < 0:
        return None
    cycle, month, day, hour, minute, second = parts
    latest = datetime.fromtimestamp(int(now), UTC)
    year = latest.year - (latest.year - 1900 - cycle) % CYCLE
    for candidate in (year, year - CYCLE):
        try:
            made = datetime(candidate, month + 1, day + 1, hour, minute, second, tzinfo=UTC)
        except ValueError:
            continue
        if made <= latest:
            return made.timestamp()
    return None
