"""Text out of header octets: encoded words and the names of character sets, bounded.

Shared by the header list, the MIME walk and the URI tests. Nothing here fails: an unknown or false character set is
read as ISO 8859-1. Source: RFC 2047, spec chapter filters-content, 10 (Modern b and f).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from functools import lru_cache
from itertools import islice

MAX_DECODED = 65536
"""Octets of a header value in which encoded words are looked for; what follows is taken as it stands."""
MAX_WORDS = 4096
"""Encoded words decoded in one value; further ones stay encoded."""

_WORD = re.compile(r"=\?([^?*\s]{1,64})(?:\*[^?\s]{0,64})?\?([BbQq])\?([^?\r\n]{0,4096})\?=")
_GAP = re.compile(r"[ \t\r\n]+")
_QUOTED = re.compile(rb"=([0-9A-Fa-f]{2})")
_NO_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
"""Codecs of Python that are no character sets of mail, or that take time quadratic in the input."""


@lru_cache(maxsize=256)
def codec_of(charset: str) -> str:
    """Name of the Python codec of ``charset``; ``latin-1`` if there is none."""
    name = charset.strip().strip("\"'").lower()
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return "latin-1"
    if not getattr(found, "_is_text_encoding", True) or found.name.replace("-", "_") in _NO_TEXT:
        return "latin-1"
    return "cp1252" if found.name in ("iso8859-1", "ascii") else found.name


def to_text(octets: bytes, charset: str) -> str:
    """``octets`` in ``charset`` as text; what is not valid in it becomes U+FFFD."""
    if octets.isascii() and codec_of(charset) in ("cp1252", "utf-8"):
        return octets.decode("ascii")
    try:
        return octets.decode(codec_of(charset), "replace")
    except (UnicodeError, LookupError, ValueError, AssertionError):
        return octets.decode("latin-1")


def raw_text(octets: bytes) -> str:
    """Header octets without a charset: UTF-8 if they are, else ISO 8859-1."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def decode_words(octets: bytes) -> str:
    """The text of a header value, its encoded words decoded, blanks between two of them dropped (RFC 2047 6.2)."""
    text = raw_text(octets[:MAX_DECODED])
    if "=?" not in text:
        return text + raw_text(octets[MAX_DECODED:])
    pieces: list[str] = []
    pending = b""
    charset = ""
    at = 0
    for word in islice(_WORD.finditer(text), MAX_WORDS):
        between = text[at : word.start()]
        if not (charset and _GAP.fullmatch(between)) and between:
            pieces.append(to_text(pending, charset) if charset else "")
            pending, charset = b"", ""
            pieces.append(between)
        if charset and word[1].lower() != charset:
            pieces.append(to_text(pending, charset))
            pending = b""
        charset = word[1].lower()
        pending += _word_octets(word[2], word[3])
        at = word.end()
    if charset:
        pieces.append(to_text(pending, charset))
    pieces.append(text[at:])
    pieces.append(raw_text(octets[MAX_DECODED:]))
    return "".join(pieces)


def _word_octets(encoding: str, payload: str) -> bytes:
    octets = payload.encode("utf-8", "replace")
    if encoding in "Qq":
        return _QUOTED.sub(lambda found: bytes((int(found[1], 16),)), octets.replace(b"_", b" "))
    try:
        return base64.b64decode(octets + b"=" * (-len(octets) % 4))
    except (binascii.Error, ValueError):
        return b""


def encode_words(text: str) -> str:
    """``text`` for an unstructured header: as it is in US-ASCII, else as encoded words in UTF-8 (RFC 2047 2)."""
    if text.isascii():
        return text
    words: list[str] = []
    octets = b""
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(octets) + len(encoded) > 45:
            words.append(_b_word(octets))
            octets = b""
        octets += encoded
    words.append(_b_word(octets))
    return " ".join(words)


def _b_word(octets: bytes) -> str:
    return f"=?UTF-8?B?{base64.b64encode(octets).decode('ascii')}?="
