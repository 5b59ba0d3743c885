"""Dates as they stand in header fields, in the forms that mail really has. Source: RFC 5322 3.3, spec chapter filters-content, 21."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

MAX_LENGTH = 200
"""Characters of a date with its comments."""

_MONTHS = {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12}
_DAY = r"(?:mon|tue|wed|thu|fri|sat|sun)"
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>\d{1,2})\s*:\s*(?P<minute>\d{2})(?:\s*:\s*(?P<second>\d{2}))?"
_ZONE = r"(?:(?P<offset>[+-]\d{4})|[a-z][a-z0-9_-]{0,9})"
_MAIL = re.compile(rf"(?:{_DAY}\s*,?\s*)?(?P<day>\d{{1,2}})\s+{_MONTH}\s+(?P<year>\d{{1,4}})(?:\s+{_TIME}(?:\s*{_ZONE})?)?")
_CTIME = re.compile(rf"(?:{_DAY}\s+){_MONTH}\s+(?P<day>\d{{1,2}})\s+{_TIME}\s+(?:{_ZONE}\s+)?(?P<year>\d{{4}})(?:\s+[+-]\d{{4}})?")
_ISO = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?:[t ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?:z|(?P<offset>[+-]\d{2}:?\d{2}))?"
)
_COMMENT = re.compile(r"\((?:[^()\\]|\\.)*\)")
MAX_NESTING = 10
"""Comments within comments."""


def is_date(text: str) -> bool:
    """``text`` names a time that exists, from 1970 on."""
    if len(text) > MAX_LENGTH:
        return False
    for _ in range(MAX_NESTING):
        if "(" not in text:
            break
        text = _COMMENT.sub(" ", text)
    plain = text.strip().lower()
    found = _MAIL.fullmatch(plain) or _CTIME.fullmatch(plain) or _ISO.fullmatch(plain)
    return found is not None and _exists(found)


def _exists(found: re.Match[str]) -> bool:
    year = int(found["year"])
    if year < 70:
        year += 2000
    elif year < 1000:
        year += 1900
    month = _MONTHS.get(found["month"]) or int(found["month"])
    second = int(found["second"] or 0)
    offset = (found["offset"] or "+0000").replace(":", "")
    if int(offset[3:5]) > 59:
        return False
    try:
        local = datetime(year, month, int(found["day"]), int(found["hour"] or 0), int(found["minute"] or 0), min(second, 59))
        zone = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5]))
        moment = local - zone if offset[0] == "+" else local + zone
    except (ValueError, OverflowError):
        return False
    return second <= 60 and moment.year >= 1970
