"""The water-mark of EMEW: how a Message-ID is marked, and how a mark is told from a forged one.

Pure functions of texts and times. A mark names the sender and the second in which it was made, and proves both with a digest
that only the holder of the secret can make. Source: spec chapter filters-content, 19.2, 19.3 and 19.7.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from enum import StrEnum

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MARK = "EMEW"
STAMP = 6
"""Characters of a time stamp."""
DIGEST = 32
"""Hexadecimal digits of a digest."""
MAX_LINE = 998
"""Octets of the field that carries a mark (RFC 5322 2.1.1)."""
AHEAD = 86_400
"""Seconds by which another node's clock may be ahead."""
CYCLE = 62
"""Years after which the first digit of a stamp comes again."""

_ID_END = re.compile(r"[>\s]")
_UNMARKABLE = re.compile(r"[\s<>|]")
_SPAN = len("EMEW4|") + DIGEST
_VERSION_1 = re.compile(r"EMEW-([0-9A-Za-z]{6})([0-9a-f]{32})-(.*)")
_VERSION_2 = re.compile(r"EMEW,([0-9A-Za-z]{6})([0-9a-f]{32}),([^,]*),(.*)")
_LATER_VERSION = re.compile(r"EMEW([34])\|([0-9a-f]{32})([0-9A-Za-z]{6})([0-9a-f]{2})(.*)")


class Result(StrEnum):
    """By the words of the Received field."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    EXPIRED = "expired"


def stamp(moment: float) -> str:
    """``moment`` (Unix seconds) as a time stamp, in UTC."""
    at = time.gmtime(moment)
    return "".join(DIGITS[part] for part in ((at.tm_year - 1900) % CYCLE, at.tm_mon - 1, at.tm_mday - 1, at.tm_hour, at.tm_min, at.tm_sec))


def moment_of(text: str, now: float) -> float | None:
    """Unix seconds of a time stamp: of all years that it can mean the latest that is not to come. None: it is none."""
    year, month, day, hour, minute, second = (DIGITS.index(digit) for digit in text)
    if month > 11 or day > 30 or hour > 23 or minute > 59 or second > 60:
        return None
    this_year = time.gmtime(now).tm_year
    full_year = 1900 + year + (this_year - 1900) // CYCLE * CYCLE
    made = float(calendar.timegm((full_year, month + 1, day + 1, hour, minute, second)))
    if made > now + AHEAD:
        made = float(calendar.timegm((full_year - CYCLE, month + 1, day + 1, hour, minute, second)))
    return made


def secrets_of(text: str) -> tuple[str, ...]:
    """The secrets of an option or map entry, newest first; the first one marks, all of them verify."""
    parts = [part for part in text.split(";") if part]
    return tuple(dict.fromkeys([*parts, text] if len(parts) > 1 else [text])) if parts else ()


def plain_id(value: str) -> str:
    """A message id without its brackets: from an optional ``<`` up to ``>`` or white space."""
    text = value.strip().removeprefix("<")
    found = _ID_END.search(text)
    return text[: found.start()] if found else text


def ids_in(value: str) -> list[str]:
    """The ids in brackets of a References or In-Reply-To field, without brackets."""
    return re.findall(r"<([^<>]*)>", value)


def marked(identity: str, sender: str, secret: str, moment: float) -> str:
    """``identity``, a message id without brackets, as a marked one; empty when that is not possible."""
    at = sender.rfind("@")
    if not 0 < at <= 255 or not secret or not identity or _UNMARKABLE.search(sender[at:]) or re.search(r"[\s<>]", sender):
        return ""
    span = f"{stamp(moment)}{at:02x}{sender[:at]}|{sender[at + 1 :]}|{identity}"
    made = f"EMEW4|{_hmac(span, secret)}{span}"
    return made if len(f"Message-ID: <{made}>".encode()) <= MAX_LINE else ""


SecretsFor = Callable[[str], Awaitable[Sequence[str]]]
"""The secrets that may have marked mail of a sender, newest first; those of no sender in particular for an empty text."""


async def validate(value: str, accepted: Collection[str], secrets_for: SecretsFor, ttl: int, now: float) -> Result:
    """What a message id proves. ``accepted`` are version numbers; a mark older than ``ttl`` seconds (if over 0) is expired."""
    text = plain_id(value)
    later = _LATER_VERSION.fullmatch(text)
    if later is not None:
        return await _validate_later(text, later, accepted, secrets_for, ttl, now)
    found = _VERSION_2.fullmatch(text)
    if found is not None and "2" in accepted:
        secrets = await secrets_for("@".join(found[3].split("%", 1)))
        return _judge(found[1] + found[3] + "," + found[4], found[2], secrets, _md5, found[1], ttl, now) if secrets else Result.FAIL
    found = _VERSION_1.fullmatch(text)
    if found is not None and "1" in accepted:
        secrets = await secrets_for("")
        return _judge(found[1] + found[3], found[2], secrets, _md5, found[1], ttl, now) if secrets else Result.NONE
    if text.startswith(("EMEW3|", "EMEW4|")):
        return Result.FAIL if text[4] in accepted else Result.NONE
    return Result.FAIL if text.startswith("EMEW,") and "2" in accepted else Result.NONE


async def _validate_later(
    text: str, found: re.Match[str], accepted: Collection[str], secrets_for: SecretsFor, ttl: int, now: float
) -> Result:
    """Versions 3 and 4."""
    if found[1] not in accepted:
        return Result.NONE
    at = int(found[4], 16)
    rest = found[5]
    end = rest.find("|", at + 1)
    if rest[at : at + 1] != "|" or end < 0:
        return Result.FAIL
    secrets = await secrets_for(f"{rest[:at]}@{rest[at + 1 : end]}")
    if not secrets:
        return Result.NONE
    return _judge(text[_SPAN:], found[2], secrets, _md5 if found[1] == "3" else _hmac, found[3], ttl, now)


def _judge(span: str, digest: str, secrets: Sequence[str], proof: Callable[[str, str], str], made: str, ttl: int, now: float) -> Result:
    """The digest first, so that a forged mark never counts as an old one; then its age."""
    right = False
    for secret in secrets:
        right |= hmac.compare_digest(proof(span, secret), digest)
    if not right:
        return Result.FAIL
    moment = moment_of(made, now)
    return Result.EXPIRED if ttl > 0 and (moment is None or moment + ttl < now) else Result.PASS


def _hmac(span: str, secret: str) -> str:
    return hmac.new(_octets(secret), _octets(span), hashlib.sha256).hexdigest()[:DIGEST]


def _md5(span: str, secret: str) -> str:
    return hashlib.md5(_octets(span) + _octets(secret), usedforsecurity=False).hexdigest()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
