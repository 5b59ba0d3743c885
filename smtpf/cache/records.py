"""A cache record as a value, and the limits of its parts.

Every filter that remembers something keeps it as one record: a key ``family:rest``, a short value whose first
character is mostly a result code, and the times that decide how long it lives. Keys and values are text in the
program and octets on disk and between nodes; octets that are no UTF-8 survive the way there and back.
Source: spec chapter operations, 1.3 and 1.5.
"""

from __future__ import annotations

import attrs

MAX_KEY = 1024
"""Octets of a key, at least 1."""
MAX_VALUE = 1024
"""Octets of a value."""
TOMBSTONE_LIFE = 86_400
"""Seconds for which the removal of a record is remembered and told to other nodes."""


@attrs.frozen
class Record:
    """One row. Times are Unix seconds."""

    key: str
    value: str
    h: int
    """Version: 1 when made, one more at each local put."""
    c: int
    """When it was made; a put on a living record keeps it."""
    t: int
    """When it was last put."""
    e: int
    """When it ends; at this second it is no longer found."""
    o: str = ""
    """Node id of the last writer, 32 hex digits."""
    x: bool = False
    """True: a removed record, remembered so that other nodes hear of it (tombstone)."""
    n: int = 0
    """Change number on this node; 0 before it is stored."""

    @property
    def code(self) -> str:
        """First character of the value, mostly a digit of ``pipeline.Code``; empty for an empty value."""
        return self.value[:1]

    def alive(self, now: float) -> bool:
        return not self.x and self.e > now


def encoded(text: str) -> bytes:
    """The octets of a key or value. Raises UnicodeEncodeError for lone surrogates that no octets stand behind."""
    return text.encode("utf-8", "surrogateescape")


def decoded(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def storable(key: str, value: str) -> bool:
    """Whether key and value keep the limits. Nothing is ever cut to fit."""
    if 0 < len(key) <= MAX_KEY // 4 and len(value) <= MAX_VALUE // 4 and key.isascii() and value.isascii():
        return True
    try:
        return 0 < len(encoded(key)) <= MAX_KEY and len(encoded(value)) <= MAX_VALUE
    except UnicodeEncodeError:
        return False
