"""Content-Transfer-Encodings, undone piece by piece as the message passes.

Each decoder takes the octets of a part in any segmentation and gives what they stand for; faulty input is decoded as
mail programs do, never refused. Source: RFC 2045 6, spec chapter filters-content, 10 (rule 5, Modern c and e).
"""

from __future__ import annotations

import binascii
import re
from typing import Protocol

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET + b"="))
_SOFT_BREAK = re.compile(rb"=[ \t]+(?=\r?\n)")
_QUOTED = re.compile(rb"=(?:([0-9A-Fa-f]{2})|\r?\n)")
_UNDECIDED = re.compile(rb"=(?:[0-9A-Fa-f]?|[ \t]{0,998}\r?)\Z")
_MAX_UU_LINE = 256


class TransferDecoder(Protocol):
    """One part's decoder."""

    odd: bool
    """The input was such that mail programs differ about it."""

    def decode(self, octets: bytes) -> bytes:
        """What the next octets stand for."""

    def end(self) -> bytes:
        """What was still undecided at the end of the part."""


class Identity:
    """7bit, 8bit and binary."""

    __slots__ = ("odd",)

    def __init__(self) -> None:
        self.odd = False

    def decode(self, octets: bytes) -> bytes:
        return octets

    def end(self) -> bytes:
        return b""


class Base64:
    """Octets outside the alphabet are skipped; padding ends the data."""

    __slots__ = ("_ended", "_rest", "odd")

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False
        self.odd = False

    def decode(self, octets: bytes) -> bytes:
        letters = octets.translate(None, _NOT_BASE64)
        if self._ended:
            self.odd |= bool(letters.strip(b"="))
            return b""
        if self._rest:
            letters = self._rest + letters
        padding = letters.find(b"=")
        if padding >= 0:
            self.odd |= bool(letters[padding:].strip(b"="))
            self._rest = letters[:padding]
            self._ended = True
            return self._last()
        cut = len(letters) & ~3
        self._rest = letters[cut:]
        return binascii.a2b_base64(letters[:cut])

    def _last(self) -> bytes:
        letters, self._rest = self._rest, b""
        if len(letters) % 4 == 1:
            self.odd = True
            letters = letters[:-1]
        return binascii.a2b_base64(letters + b"=" * (-len(letters) % 4))

    def end(self) -> bytes:
        return b"" if self._ended else self._last()


class QuotedPrintable:
    """``=XX`` is an octet, ``=`` at the end of a line joins it with the next, any other ``=`` stands for itself."""

    __slots__ = ("_rest", "odd")

    def __init__(self) -> None:
        self._rest = b""
        self.odd = False

    def decode(self, octets: bytes) -> bytes:
        if self._rest:
            octets = self._rest + octets
            self._rest = b""
        if b"=" not in octets:
            return octets
        open_end = _UNDECIDED.search(octets, max(0, len(octets) - 1000))
        if open_end is not None:
            self._rest = octets[open_end.start() :]
            octets = octets[: open_end.start()]
        return self._decoded(octets)

    def _decoded(self, octets: bytes) -> bytes:
        octets = _SOFT_BREAK.sub(b"=", octets)
        # binascii would drop a second equals sign, one at the very end, and all of a line behind ``=`` and a lone CR.
        if b"==" in octets or octets.endswith(b"=") or octets.count(b"=\r") != octets.count(b"=\r\n"):
            return _QUOTED.sub(lambda found: bytes((int(found[1], 16),)) if found[1] else b"", octets)
        return binascii.a2b_qp(octets)

    def end(self) -> bytes:
        octets, self._rest = self._rest, b""
        return octets


class UuEncoded:
    """Lines of uuencode; ``begin`` and ``end`` lines and lines that are none are skipped."""

    __slots__ = ("_rest", "odd")

    def __init__(self) -> None:
        self._rest = b""
        self.odd = False

    def decode(self, octets: bytes) -> bytes:
        lines = (self._rest + octets).split(b"\n")
        self._rest = lines.pop()[-_MAX_UU_LINE:]
        return b"".join(map(self._line, lines))

    def _line(self, line: bytes) -> bytes:
        line = line.rstrip(b"\r")
        if not line or len(line) > _MAX_UU_LINE or line.startswith(b"begin ") or line == b"end":
            return b""
        try:
            return binascii.a2b_uu(line)
        except binascii.Error:
            return self._short_line(line)

    def _short_line(self, line: bytes) -> bytes:
        """A line whose trailing blanks were lost, or with junk behind its octets."""
        octets = (line[0] - 32) & 63
        wanted = (octets * 4 + 5) // 3
        try:
            return binascii.a2b_uu(line[: 1 + wanted].ljust(1 + wanted, b" "))
        except binascii.Error:
            self.odd = True
            return b""

    def end(self) -> bytes:
        line, self._rest = self._rest, b""
        return self._line(line)


def decoder_for(encoding: str) -> TransferDecoder | None:
    """A decoder for the value of a Content-Transfer-Encoding field, in lower case; None if the encoding is unknown."""
    if encoding in ("", "7bit", "8bit", "binary"):
        return Identity()
    if "quoted-printable" in encoding:
        return QuotedPrintable()
    if "base64" in encoding:
        return Base64()
    if encoding in ("x-uuencode", "uuencode", "x-uue"):
        return UuEncoded()
    return None
