"""The body of a message on the wire: where it ends, and the dots that hide its lines.

``DotReader`` takes what a client sends after 354 and gives content as it will be relayed: dots unstuffed, every line
ended by CRLF. ``DotWriter`` is the inverse towards a next hop, and holds of itself that nothing it is given can end the
message early there. Both work on whole segments with a handful of bulk operations, never line by line, and give the
same result however the octets are cut into segments. Source: RFC 5321 4.5.2 and 2.3.8, spec chapter session, 7.1.
"""

from __future__ import annotations

import re

CHUNK = 64535
"""Octets from which on a chunk of content is given out."""
LINE_FLOOR = 1000
"""Octets, CRLF included, that every line may have (RFC 5321 4.5.3.1.6). Shorter lines are not measured."""
MAX_LINE = 1 << 20
"""Octets of a line without end that are kept back until it ends; then its pieces are given out as they come."""

_DOT_OR_BARE_LF = re.compile(rb"\n(?:\.|(?<!\r\n))")
"""A line that begins with a dot, or an LF without CR. Like ``_BARE_CR`` it begins with a letter, which is searched for at the speed of
memory: the two passes find that most text needs nothing done."""
_BARE_LF = re.compile(rb"\n(?<!\r\n)")
_LENIENT_END = re.compile(rb"\n\.(?:\r\n|\n|\r)")
_STUFFED = re.compile(rb"\n\.(?=[^\r\n])")
_BARE_CR = re.compile(rb"\r[^\n]")
_LONE_DOT = re.compile(rb"\n\.(?:\r\n?|\n)\Z")


class DotReader:
    """Content of one message out of the octets that a client sends after 354.

    A line ends at LF. With ``strict`` only CRLF dot CRLF ends the message; without it a line that begins with a dot
    followed by CR or LF does. A dot in front of anything else in a line is dropped.
    """

    __slots__ = (
        "_before",
        "_collected",
        "_collected_octets",
        "_last",
        "_line_octets",
        "_measuring",
        "_partial",
        "_partial_octets",
        "_strict",
        "bare_cr",
        "bare_lf",
        "finished",
        "longest_line",
        "nul",
        "octets",
        "plain",
        "rest",
    )

    def __init__(self, strict: bool = True, measure: bool = True) -> None:
        """``measure``: find the longest line."""
        self._strict = strict
        self._measuring = measure
        self._before = b"\r\n"
        """How the line before the octets to come ended: CRLF, LF, or not at all."""
        self._partial: list[bytes] = []
        self._partial_octets = 0
        self._collected: list[bytes] = []
        self._collected_octets = 0
        self._line_octets = 0
        """Octets already given out of a line that has not ended."""
        self._last = b"\r\n"
        self.finished = False
        """The end of the message has come."""
        self.rest = b""
        """What came behind the end: the next commands."""
        self.octets = 0
        """Octets received, stuffed dots counted, the final dot line not."""
        self.bare_cr = False
        """A CR without LF was seen; it has become CRLF."""
        self.bare_lf = False
        """An LF without CR was seen; it has become CRLF."""
        self.nul = False
        """A NUL was seen; it stays in the content."""
        self.plain = True
        """All content given out so far is whole lines as they came, each ended by CRLF and none begun with a dot."""
        self.longest_line = 0
        """Octets, CRLF included, of the longest line of the content if it has more than 1,000 and lines are measured; else 0."""

    @property
    def after_lone_dot(self) -> bool:
        """The last line so far is a dot that did not end the message (#319 when the client then falls silent)."""
        return not self.finished and _LONE_DOT.search(self._last) is not None

    def feed(self, data: bytes) -> bytes:
        """Take the next segment; the chunk of content that is complete by it, of whole lines, or nothing.

        A chunk has ``CHUNK`` octets or more, the last one of the message may have fewer. A piece of a line is only
        given out when the line grows over ``MAX_LINE``.
        """
        if self.finished:
            self.rest += data
            return b""
        self._take(data)
        if self._collected_octets < CHUNK and not self.finished:
            return b""
        chunk = b"".join(self._collected)
        self._collected.clear()
        self._collected_octets = 0
        return chunk

    def _take(self, data: bytes) -> None:
        self.octets += len(data)
        self._last = data[-4:] if len(data) >= 4 else (self._last + data)[-4:]
        cut = data.rfind(b"\n") + 1
        if cut:
            block = b"".join((self._before, *self._partial, memoryview(data)[:cut]))
            self._partial = [data[cut:]] if cut < len(data) else []
            self._partial_octets = len(data) - cut
            self._lines(block)
            return
        self._partial.append(data)
        self._partial_octets += len(data)
        if self._partial_octets > MAX_LINE:
            self._give_out_unfinished_line()

    def _lines(self, block: bytes) -> None:
        """Whole lines, behind the end of the line before them."""
        start = len(self._before)
        found = _DOT_OR_BARE_LF.search(block, start - 1)
        sound = found is None
        if found is not None:
            first = found.start()
            block = self._cut_at_end(block, first)
            sound = len(block) == first + 1 and block.endswith(b"\r\n")
            if not sound:
                block = _STUFFED.sub(b"\n", block)
        self._before = b"\r\n" if block.endswith(b"\r\n") else b"\n"
        self._collect(block[start:], sound)

    def _cut_at_end(self, block: bytes, line_end: int = 0) -> bytes:
        """``block`` up to the end of the message, if it is in there; no line end before the one at ``line_end`` has a dot behind it."""
        if self._strict:
            end = block.find(b"\r\n.\r\n", max(line_end - 1, 0))
            if end < 0:
                return block
            content, behind = end + 2, end + 5
        else:
            found = _LENIENT_END.search(block, line_end)
            if found is None:
                return block
            content, behind = found.start() + 1, found.end()
        self.finished = True
        self.rest = b"".join((block[behind:], *self._partial))
        self.octets -= len(self.rest) + behind - content
        self._partial = []
        return block[:content]

    def _give_out_unfinished_line(self) -> None:
        """Pass a line on though its end has not come. A final CR waits for its LF, a stuffed dot for what follows it."""
        block = b"".join((self._before, *self._partial))
        start = len(self._before)
        self._partial = []
        if not self._strict:
            block = self._cut_at_end(block)
        block = _STUFFED.sub(b"\n", block)
        kept = 1 if block.endswith(b"\r") else 0
        if kept:
            self._partial.append(block[-1:])
        self._partial_octets = kept
        self._before = b"x"
        self._collect(block[start : len(block) - kept])

    def _collect(self, content: bytes, sound: bool = False) -> None:
        """``sound``: it is whole lines, of which none ends in an LF without CR or begins with a dot."""
        if not content:
            return
        bare_cr = has_bare_cr(content)
        self.plain &= sound and not bare_cr
        if bare_cr or (not sound and has_bare_lf(content)):
            pairs = content.count(b"\r\n")
            self.bare_cr |= content.count(b"\r") != pairs
            self.bare_lf |= content.count(b"\n") != pairs
            content = with_crlf(content)
        if b"\0" in content:
            self.nul = True
        if self._measuring:
            self._measure(content)
        self._collected.append(content)
        self._collected_octets += len(content)

    def _measure(self, content: bytes) -> None:
        """Find lines longer than the longest so far, by leaps of that length."""
        at = 0
        end = len(content)
        carried = self._line_octets
        while at < end:
            leap = max(self.longest_line, LINE_FLOOR)
            line_end = content.rfind(b"\n", at, at + leap - carried) if leap > carried else -1
            if line_end < 0:
                if at + leap - carried >= end:
                    carried += end - at
                    break
                line_end = content.find(b"\n", at)
                octets = carried + (line_end + 1 if line_end >= 0 else end) - at
                self.longest_line = max(self.longest_line, octets)
                if line_end < 0:
                    carried = octets
                    break
            at = line_end + 1
            carried = 0
        self._line_octets = carried


def has_bare_cr(content: bytes) -> bool:
    """Whether ``content`` has a CR without LF."""
    return _BARE_CR.search(content) is not None or content.endswith(b"\r")


def has_bare_lf(content: bytes) -> bool:
    """Whether ``content`` has an LF without CR."""
    return _BARE_LF.search(content) is not None


def with_crlf(content: bytes) -> bytes:
    """``content`` with every bare CR and bare LF turned into CRLF."""
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


class DotWriter:
    """One message towards a next hop: dots stuffed, CRLF line ends only, one end.

    Whatever octets are written, on the wire every CR is followed by LF, every LF preceded by CR, and CRLF dot CRLF
    stands at the end alone.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = b"\n"
        """Last octet written; a CR is not written before the octet behind it is known."""

    def write(self, chunk: bytes) -> bytes:
        """The octets to send for the next piece of the message."""
        if not chunk:
            return b""
        before = self._before
        if before == b"\r":
            chunk = before + chunk
            before = b""
        held = chunk.endswith(b"\r")
        if held:
            chunk = chunk[:-1]
        plain = _DOT_OR_BARE_LF.search(chunk) is None
        if has_bare_cr(chunk) or (not plain and has_bare_lf(chunk)):
            chunk = with_crlf(chunk)
            plain = False
        if before == b"\n" and chunk.startswith(b"."):
            chunk = b"." + chunk
        if not plain:
            chunk = chunk.replace(b"\n.", b"\n..")
        self._before = b"\r" if held else (chunk[-1:] or before)
        return chunk

    def write_plain(self, chunk: bytes) -> bytes:
        """As ``write``, for a piece cut anywhere out of content that a DotReader called ``plain``: only its borders are looked at."""
        if self._before == b"\n" and chunk[:1] not in (b".", b"\n") and chunk.endswith(b"\r\n"):
            return chunk
        return self.write(chunk)

    def end(self) -> bytes:
        """What ends the message: a line end if one is missing, and the dot line."""
        return b".\r\n" if self._before == b"\n" else b"\r\n.\r\n"
