"""Tests of the header section by the book: 7-bit header fields, dates that exist, the fields that every message has.

All off by default, for much real mail is not by the book. Run behind the access gate, except for the test of the line that
ends the header section, which spares nobody. Source: RFC 5322 3.6, spec chapters filters-content, 21, and session, 5.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from smtpf.filters.header_date import is_date
from smtpf.message.header import Field, HeaderEnd
from smtpf.pipeline import Filter, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.settings.store import Settings
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.counter import Counter, Group

SEVEN_BIT_HEADERS = Flag(
    "rfc2822-7bit-headers",
    False,
    "Refuse messages whose header has octets outside printable ASCII, unless the client announced them with SMTPUTF8.",
    area="rfc",
)
MIN_HEADERS = Flag(
    "rfc2822-min-headers",
    False,
    "Refuse messages without Date, From or Message-ID, with a malformed Message-ID, or with several authors and no Sender.",
    area="rfc",
)
STRICT_DATE = Flag("rfc2822-strict-date", False, "Refuse messages with an impossible date in Date, Received or Resent-Date.", area="rfc")
MISSING_EOH = Flag("rfc2822-missing-eoh", False, "Refuse messages in which no empty line ends the header.", area="rfc")

NOT_ASCII = Reply(
    456,
    "554 5.6.0 message headers must be US-ASCII, found 0x%.2X; RFC 2822 section 2.2",
    meaning="rfc2822-7bit-headers: an octet of the header is not printable ASCII.",
)
BAD_DATE = Reply(457, "554 5.6.0 invalid RFC 2822 date-time in %s header", meaning="rfc2822-strict-date: the Date is none.")
BAD_MESSAGE_ID = Reply(458, "554 5.6.0 invalid RFC 2822 %s header", meaning="rfc2822-min-headers: the Message-ID is none.")
BAD_RECEIVED = Reply(
    459, "554 5.6.0 invalid RFC 2822 date-time in %s header", meaning="rfc2822-strict-date: what ends a Received field is no date."
)
BAD_RESENT_DATE = Reply(460, "554 5.6.0 invalid RFC 2822 date-time in %s header", meaning="rfc2822-strict-date: a Resent-Date is none.")
MISSING = Reply(
    462,
    "554 5.6.0 missing RFC 2822 required headers",
    meaning="rfc2822-min-headers: Date, From or Message-ID is missing, or several authors have no Sender.",
)
NO_END = Reply(927, "550 5.7.1 missing of end-of-header line", meaning="rfc2822-missing-eoh: the message is all header.")

COUNT_SEVEN_BIT = Counter("rfc2822-7bit-headers", Group.MSG, "Messages refused for octets in the header that are not ASCII.")
COUNT_MIN = Counter("rfc2822-min-headers", Group.MSG, "Messages refused for missing or malformed header fields.")
COUNT_DATE = Counter("rfc2822-strict-date", Group.MSG, "Messages refused for a date that is none.")
COUNT_EOH = Counter("rfc2822-missing-eoh", Group.MSG, "Messages refused because nothing ends their header.", since="later")

_ODD_OCTET = re.compile(rb"[^\x20-\x7e\b\t\n\f\r]")
_MESSAGE_ID = re.compile(rb"[^<]*<[^@]*@.*>", re.DOTALL)
_TWO_AUTHORS = re.compile(rb"[^@]*@[^,]*,[^@]*@", re.DOTALL)
_ONCE = frozenset({"date", "from", "sender", "message-id"})
"""Fields of which only the first one is looked at."""


class HeaderTests(Filter):
    """Refuses messages whose header is not by the book."""

    def end_of_header(self, session: Session, transaction: Transaction) -> Verdict | None:
        if session.settings[MISSING_EOH] and transaction.header_end in (HeaderEnd.MESSAGE_END, HeaderEnd.TOO_LARGE):
            session.count(COUNT_EOH)
            return reject(NO_END)
        return None

    def headers(self, session: Session, transaction: Transaction) -> Verdict | None:
        settings = session.settings
        seven_bit = settings[SEVEN_BIT_HEADERS] and "SMTPUTF8" not in transaction.parameters
        if not (seven_bit or settings[MIN_HEADERS] or settings[STRICT_DATE]) or session.usual_suspect:
            return None
        first: dict[str, Field] = {}
        for field, name in _looked_at(transaction.original_headers, first):
            verdict = self._field(session, settings, field, name, seven_bit)
            if verdict is not None:
                return verdict
        if settings[MIN_HEADERS] and _lacking(first):
            session.count(COUNT_MIN)
            return reject(MISSING)
        return None

    def _field(self, session: Session, settings: Settings, field: Field, name: str, seven_bit: bool) -> Verdict | None:
        """One field; ``name`` is empty when only its octets matter."""
        if seven_bit and (odd := _ODD_OCTET.search(field.raw)) is not None:
            session.count(COUNT_SEVEN_BIT)
            return reject(NOT_ASCII, odd[0][0])
        if settings[STRICT_DATE] and (wrong := _wrong_date(field, name)) is not None:
            session.count(COUNT_DATE)
            return wrong
        if name == "message-id" and settings[MIN_HEADERS] and not _MESSAGE_ID.match(field.value):
            session.count(COUNT_MIN)
            return reject(BAD_MESSAGE_ID, "Message-ID:")
        return None


def _looked_at(fields: tuple[bytes, ...], first: dict[str, Field]) -> Iterator[tuple[Field, str]]:
    """Each field and its name in lower case, empty for a repetition; ``first`` gathers the first of each name."""
    for raw in fields:
        field = Field(raw)
        name = field.name.lower()
        again = name in first
        first.setdefault(name, field)
        yield field, "" if again and name in _ONCE else name


def _wrong_date(field: Field, name: str) -> Verdict | None:
    match name:
        case "date":
            return None if is_date(_text(field.value)) else reject(BAD_DATE, "Date:")
        case "received":
            _, semicolon, date = _text(field.value).rpartition(";")
            return None if semicolon and is_date(date) else reject(BAD_RECEIVED, "Received:")
        case "resent-date":
            return None if is_date(_text(field.value)) else reject(BAD_RESENT_DATE, "Resent-Date:")
        case _:
            return None


def _lacking(first: dict[str, Field]) -> bool:
    if not {"date", "from", "message-id"} <= first.keys():
        return True
    return "sender" not in first and _TWO_AUTHORS.match(first["from"].value) is not None


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")
