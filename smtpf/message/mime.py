"""The MIME structure of a message, walked once while its body passes, for all content filters together.

A filter that wants to see parts gives a ``PartListener`` to the message's ``MimeWalker`` at the headers stage; the
walker is fed the header section and every chunk of the body, and calls the listeners. It never recurses, its limits are
constants, and where two mail programs could read the message in different ways it takes a ``Note`` of it. Source:
RFC 2045 and 2046, spec chapter filters-content, 10.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from enum import Enum

import attrs

from smtpf.message.encoded_word import codec_of, decode_words
from smtpf.message.header import HeaderEdge, HeaderEnd, HeaderList, header_edge
from smtpf.message.parameters import StructuredValue, parse_value
from smtpf.message.transfer_encoding import Identity, TransferDecoder, UuEncoded, decoder_for

MAX_DEPTH = 20
"""Nesting of multiparts and embedded messages."""
MAX_PARTS = 500
"""Parts of a message."""
MAX_HEADER_BLOCK = 256 * 1024
"""Octets of the header block of a part."""
MAX_FIELD = 64 * 1024
"""Octets of one header field; what exceeds it is not looked at."""
MAX_FIELDS = 5000
"""Header fields of a part that are looked at."""
MAX_DECODED = 256 * 1024 * 1024
"""Decoded octets of a message; further ones are not given to listeners."""
MAX_BOUNDARY = 250
"""Octets of a boundary. RFC 2046 allows 70; mail programs take more."""
MAX_HELD_LINE = 4096
"""Octets of an unfinished line that are kept back, because it could become a boundary."""


class Note(Enum):
    """Why two programs could read the message differently, or why the walk did not see all of it."""

    DUPLICATE_HEADER = "duplicate header"
    ODD_PARAMETERS = "odd parameters"
    ODD_BOUNDARY = "odd boundary"
    REUSED_BOUNDARY = "reused boundary"
    MISSING_BOUNDARY = "missing boundary"
    UNCLOSED = "unclosed multipart"
    ODD_ENCODING = "odd encoding"
    ENCODED_CONTAINER = "encoded multipart or message"
    ODD_HEADER = "odd header block"
    TOO_DEEP = "nested too deep"
    TOO_MANY_PARTS = "too many parts"
    TOO_LARGE = "too large"


@attrs.frozen(eq=False)
class Part:
    """One part: the message itself, a body part, an embedded message, an epilogue, or a uuencoded file in a text."""

    number: int
    """0 is the message itself."""
    depth: int
    content_type: str
    """Lower case, such as ``text/plain``; empty when the part has none."""
    parameters: dict[str, str]
    """Of the Content-Type, decoded; names in lower case."""
    disposition: str
    """``inline``, ``attachment`` or another word, empty without one."""
    filename: str
    """The name that most programs show; empty without one."""
    names: tuple[str, ...]
    """Every name that some program may show."""
    encoding: str
    """Content-Transfer-Encoding in lower case; empty without one."""
    types: tuple[str, ...]
    """The types of all Content-Type fields."""
    headers: HeaderList
    """The header block of the part."""

    @property
    def multipart(self) -> bool:
        return self.content_type.startswith("multipart/")

    @property
    def textual(self) -> bool:
        """Its text is looked through for URIs (filters-content, 12)."""
        kind = self.content_type
        if not kind or kind.startswith(("text/", "multipart/")):
            return True
        return kind.startswith("application/") and any(name.lower().endswith((".txt", ".htm", ".html")) for name in self.names)

    @property
    def html(self) -> bool:
        return self.content_type in ("text/html", "application/xhtml+xml") or any(
            name.lower().endswith((".htm", ".html")) for name in self.names
        )

    @property
    def charset(self) -> str:
        return self.parameters.get("charset", "")


class PartListener:
    """What a content filter wants to hear of the parts. Override what is needed: nothing is decoded for nobody.

    The methods are called in the order of the message; ``begin`` of an inner part comes before ``end`` of its container.
    """

    def begin(self, part: Part) -> None:
        """The header block of ``part`` is complete."""

    def raw(self, part: Part, octets: bytes) -> None:
        """The next octets of the part as they stand in the message. The line end before a boundary is not among them."""

    def decoded(self, part: Part, octets: bytes) -> None:
        """The next octets of the part, its Content-Transfer-Encoding undone."""

    def text(self, part: Part, text: str) -> None:
        """The next piece of a textual part, its charset undone."""

    def end(self, part: Part) -> None:
        """The part is complete."""


_DASHES = re.compile(rb"\n--([^\r\n]{1,%d})\r*(?=\n)" % (MAX_BOUNDARY + 100))
_FALLBACK = re.compile(rb"(?=[^\r\n]*[^\-=])[A-Za-z0-9\-=_'()+,./:?]+\Z")
_HEX_ESCAPE = re.compile(rb"=[0-9A-Fa-f]")
_BEGIN_FILE = re.compile(rb"(?:\A|\n)begin(?:-base64)? [0-7]{3,4} ([^\r\n]{1,255})(?:\r?\n|\r?\Z)")
_BEGIN_AHEAD = re.compile(rb"\nbegin")
_END_FILE = re.compile(rb"(?:\A|\n)end[ \t]*\r?(?:\n|\Z)")


@attrs.define
class _Level:
    """An open multipart, or an embedded message (which has no boundary)."""

    part: Part
    boundary: bytes | None
    """None: any line that looks like a boundary (rule 4)."""
    embedded: bool = False


@attrs.define
class _Open:
    """A part whose content is passing."""

    part: Part
    decoder: TransferDecoder
    text: codecs.IncrementalDecoder | None
    file: _Open | None = None
    """A uuencoded file inside it."""


class MimeWalker:
    """Walks one message. ``add`` listeners, ``start`` with the header section, ``feed`` the body, ``finish``."""

    def __init__(self) -> None:
        self.notes: set[Note] = set()
        self.parts = 0
        self._listeners: list[PartListener] = []
        self._raw: list[PartListener] = []
        self._decoded: list[PartListener] = []
        self._text: list[PartListener] = []
        self._stack: list[_Level] = []
        self._boundaries: dict[bytes, int] = {}
        self._fallback = False
        self._open: _Open | None = None
        self._in_header = False
        self._pending = b""
        """What has come of an unfinished header block."""
        self._held = b""
        self._line = b""
        self._line_start = True
        self._opaque = False
        self._octets = 0
        self._started = False

    def add(self, listener: PartListener) -> None:
        """Let ``listener`` hear of this message. Before ``start``."""
        self._listeners.append(listener)
        kind = type(listener)
        if kind.raw is not PartListener.raw:
            self._raw.append(listener)
        if kind.decoded is not PartListener.decoded:
            self._decoded.append(listener)
        if kind.text is not PartListener.text:
            self._text.append(listener)

    @property
    def wanted(self) -> bool:
        """Somebody listens."""
        return bool(self._listeners)

    @property
    def started(self) -> bool:
        return self._started

    def start(self, fields: Iterable[bytes]) -> None:
        """The message begins: its header fields as the client sent them."""
        self._started = True
        self._begin(HeaderList(fields), container="")

    def feed(self, chunk: bytes) -> None:
        """The next octets of the body, in any segmentation."""
        if self._opaque:
            self._leaf(chunk)
            return
        data = self._line + chunk if self._line else chunk
        cut = data.rfind(b"\n") + 1
        if len(data) - cut > MAX_HELD_LINE:
            cut = len(data)
        self._line = data[cut:]
        if cut:
            self._walk(data if cut == len(data) else data[:cut])

    def finish(self) -> None:
        """The message ends."""
        line, self._line = self._line, b""
        if line and (self._in_header or (line.startswith(b"--") and self._boundary(line[2:].rstrip(b"\r")) is not None)):
            self._walk(line + b"\n")
        elif line:
            self._leaf(line)
        while self._in_header:
            pending, self._pending = self._pending, b""
            edge = header_edge(pending, 0, MAX_HEADER_BLOCK, True)
            self._end_header(pending, 0, edge)
            if edge is not None:
                self._leaf(pending[edge.body :])
        if any(not level.embedded for level in self._stack):
            self.notes.add(Note.UNCLOSED)
        self._pass_on(self._held)
        self._close_part()
        while self._stack:
            self._pop()

    def _walk(self, data: bytes) -> None:
        """``data`` in whole lines, or a piece of a line too long to be a boundary."""
        starts = self._line_start
        self._line_start = data.endswith(b"\n")
        if self._in_header:
            data = b"".join((b"\n", self._pending, data))
            self._pending = b""
            at = 1
        elif not self._boundaries and not self._fallback:
            self._leaf(data)
            return
        else:
            at = 1 if starts else 0
            data = b"\n" + data if starts else data
        while at < len(data):
            if self._opaque:
                self._leaf(data[at:])
                return
            at = self._walk_header(data, at) if self._in_header else self._walk_content(data, at)

    def _walk_header(self, data: bytes, at: int) -> int:
        """Take a header block from ``at`` on; where to go on. A boundary ends it, even one that looks like a field."""
        edge = header_edge(data, at, MAX_HEADER_BLOCK, False)
        found = self._next_boundary(data, at, len(data) if edge is None else edge.fields_end)
        if found is not None:
            line = found[0].start() + 1
            self._end_header(data, at, HeaderEdge(line, line, HeaderEnd.MESSAGE_END))
            return line
        if edge is None:
            self._pending = data[at:]
            return len(data)
        self._end_header(data, at, edge)
        return edge.body

    def _walk_content(self, data: bytes, at: int) -> int:
        """Take content from ``at`` up to the next boundary, and the boundary; where to go on."""
        found = self._next_boundary(data, at, len(data))
        if found is None:
            self._leaf(data[at:])
            return len(data)
        line, level, closing = found
        if line.start() + 1 > at:
            self._leaf(data[at : line.start() + 1])
        self._held = b""
        self._cross(level, closing)
        return line.end() + 1

    def _next_boundary(self, data: bytes, at: int, limit: int) -> tuple[re.Match[bytes], int, bool] | None:
        """The first boundary line that begins in ``data`` between ``at`` and ``limit``, its level, and whether it closes it."""
        if not self._boundaries and not self._fallback:
            return None
        look = max(at - 1, 0)
        while (found := _DASHES.search(data, look)) is not None and found.start() < limit:
            edge = self._boundary(found[1])
            if edge is not None:
                return found, *edge
            look = found.end()
        return None

    def _boundary(self, line: bytes) -> tuple[int, bool] | None:
        """The level whose boundary ``line`` is (what follows two dashes), and whether it closes it."""
        text = line.rstrip(b" \t")
        level = self._boundaries.get(text)
        if level is not None:
            return level, False
        if text.endswith(b"--"):
            level = self._boundaries.get(text[:-2])
            if level is not None:
                return level, True
        if self._fallback and self._stack and self._stack[-1].boundary is None and not self._stack[-1].embedded:
            quoted = self._open is not None and "quoted-printable" in self._open.part.encoding
            if _FALLBACK.match(line) and not (quoted and _HEX_ESCAPE.search(line)):
                return len(self._stack) - 1, False
        return None

    def _cross(self, level: int, closing: bool) -> None:
        """A boundary of ``level`` has come: what is inside it ends, and a part or its epilogue begins."""
        self._close_part()
        while len(self._stack) > level + 1:
            self._pop()
        if closing:
            container = self._stack[level].part
            self._pop()
            if not self._room(len(self._stack)):
                return
            epilogue = attrs.evolve(
                container, number=self.parts, filename="", names=(), encoding="", parameters={}, disposition="", headers=HeaderList()
            )
            self._open_part(epilogue, Identity())
            return
        self._in_header = True

    def _end_header(self, data: bytes, at: int, edge: HeaderEdge | None) -> None:
        """A header block is complete."""
        self._in_header = False
        if edge is None:
            edge = HeaderEdge(len(data), len(data), HeaderEnd.MESSAGE_END)
        if edge.end is HeaderEnd.TOO_LARGE:
            self.notes.add(Note.TOO_LARGE)
        elif edge.end is HeaderEnd.BODY_LINE:
            self.notes.add(Note.ODD_HEADER)
        container = self._stack[-1].part.content_type if self._stack else ""
        self._begin(HeaderList.parse(data[at : edge.fields_end]), container)

    def _begin(self, headers: HeaderList, container: str) -> None:
        """A part's header block is known: open the part, and what it contains."""
        if not self._room(len(self._stack)):
            return
        part, ways = self._describe(headers, container)
        decoder = decoder_for(part.encoding)
        if decoder is None:
            self.notes.add(Note.ODD_ENCODING)
            decoder = Identity()
        is_message = "message/rfc822" in part.types or "message/global" in part.types
        if (part.multipart or is_message) and not isinstance(decoder, Identity):
            self.notes.add(Note.ENCODED_CONTAINER)
            is_message = False
        self._open_part(part, decoder)
        if part.multipart:
            self._push(_Level(part, self._declared_boundary(ways)))
        elif is_message:
            self._push(_Level(part, None, embedded=True))
            self._in_header = not self._opaque

    def _room(self, depth: int) -> bool:
        if self.parts >= MAX_PARTS:
            self.notes.add(Note.TOO_MANY_PARTS)
        elif depth > MAX_DEPTH:
            self.notes.add(Note.TOO_DEEP)
        else:
            return True
        self._opaque = True
        self._open_part(Part(self.parts, depth, "", {}, "", "", (), "", (), HeaderList()), Identity())
        return False

    def _push(self, level: _Level) -> None:
        if len(self._stack) >= MAX_DEPTH:
            self.notes.add(Note.TOO_DEEP)
            self._opaque = True
            return
        self._stack.append(level)
        self._index()

    def _pop(self) -> None:
        level = self._stack.pop()
        if level.embedded:
            self._tell_end(level.part)
        self._index()

    def _index(self) -> None:
        """Which lines are boundaries now. Of equal ones the innermost counts."""
        self._boundaries = {level.boundary: at for at, level in enumerate(self._stack) if level.boundary is not None}
        self._fallback = any(level.boundary is None and not level.embedded for level in self._stack)
        if len(self._boundaries) != sum(level.boundary is not None for level in self._stack):
            self.notes.add(Note.REUSED_BOUNDARY)

    def _declared_boundary(self, ways: tuple[str, ...]) -> bytes | None:
        """The boundary of a multipart, None when there is no usable one."""
        if len(ways) > 1:
            self.notes.add(Note.ODD_BOUNDARY)
        boundary = ways[0].encode("utf-8", "replace").rstrip(b" \t") if ways else b""
        if not boundary or len(boundary) > MAX_BOUNDARY or b"\n" in boundary or b"\r" in boundary:
            self.notes.add(Note.MISSING_BOUNDARY)
            return None
        if len(boundary) > 70:
            self.notes.add(Note.ODD_BOUNDARY)
        return boundary

    def _describe(self, headers: HeaderList, container: str) -> tuple[Part, tuple[str, ...]]:
        """The part of a header block, and every reading of its boundary parameter."""
        if len(headers) > MAX_FIELDS:
            self.notes.add(Note.TOO_LARGE)
        types = self._values(headers, "content-type")
        dispositions = self._values(headers, "content-disposition")
        encodings = headers.all("content-transfer-encoding")
        if len(types) > 1 or len(dispositions) > 1 or len(encodings) > 1:
            self.notes.add(Note.DUPLICATE_HEADER)
        kind = next((value for value in types if value.word.startswith("multipart/")), types[0] if types else None)
        names: list[str] = []
        for values, parameter in ((dispositions, "filename"), (types, "name")):
            for value in values:
                names += value.readings.get(parameter, ())
        default = "message/rfc822" if container == "multipart/digest" else ""
        part = Part(
            number=self.parts,
            depth=len(self._stack),
            content_type=kind.word if kind else default,
            parameters=kind.parameters if kind else {},
            disposition=dispositions[0].word if dispositions else "",
            filename=names[0] if names else "",
            names=tuple(dict.fromkeys(names)),
            encoding=self._encoding([found.value for found in encodings]),
            types=tuple(value.word for value in types) or ((default,) if default else ()),
            headers=headers,
        )
        return part, kind.readings.get("boundary", ()) if kind else ()

    def _encoding(self, values: list[bytes]) -> str:
        """The transfer encoding: of several the one that hides something."""
        words = [parse_value(value).word for value in values]
        return next((word for word in words if not isinstance(decoder_for(word), Identity)), words[0] if words else "")

    def _values(self, headers: HeaderList, name: str) -> list[StructuredValue]:
        values = []
        for found in headers.all(name)[:10]:
            if len(found.raw) > MAX_FIELD:
                self.notes.add(Note.TOO_LARGE)
            value = parse_value(found.value)
            if value.ambiguous:
                self.notes.add(Note.ODD_PARAMETERS)
            if "=?" in value.word:
                value = attrs.evolve(value, word=decode_words(value.word.encode("utf-8", "replace")).lower())
                self.notes.add(Note.ODD_PARAMETERS)
            values.append(value)
        return values

    def _open_part(self, part: Part, decoder: TransferDecoder) -> None:
        self._close_part()
        self.parts += 1
        self._open = _Open(part, decoder, self._text_of(part))
        for listener in self._listeners:
            listener.begin(part)

    def _text_of(self, part: Part) -> codecs.IncrementalDecoder | None:
        """What undoes the charset of a part whose text somebody wants."""
        if not self._text or not part.textual:
            return None
        return codecs.getincrementaldecoder(codec_of(part.charset or "utf-8"))("replace")

    def _close_part(self) -> None:
        opened, self._open = self._open, None
        if opened is None:
            return
        self._close_file(opened)
        self._give(opened, opened.decoder.end(), final=True)
        if opened.decoder.odd:
            self.notes.add(Note.ODD_ENCODING)
        if not (self._stack and self._stack[-1].part is opened.part and self._stack[-1].embedded):
            self._tell_end(opened.part)
        self._held = b""

    def _tell_end(self, part: Part) -> None:
        for listener in self._listeners:
            listener.end(part)

    def _leaf(self, octets: bytes) -> None:
        """Content of the open part. Its last line end waits, for a boundary may follow it."""
        if self._held:
            octets = self._held + octets
        if self._boundaries or self._fallback:
            self._held = b"\r\n" if octets.endswith(b"\r\n") else b"\n" if octets.endswith(b"\n") else b""
            if self._held:
                octets = octets[: -len(self._held)]
        else:
            self._held = b""
        self._pass_on(octets)

    def _pass_on(self, octets: bytes) -> None:
        opened = self._open
        if opened is None or not octets:
            return
        for listener in self._raw:
            listener.raw(opened.part, octets)
        if not self._decoded and not self._text:
            return
        if isinstance(opened.decoder, Identity) and opened.part.textual:
            self._text_and_files(opened, octets)
        else:
            self._give(opened, opened.decoder.decode(octets))

    def _text_and_files(self, opened: _Open, octets: bytes) -> None:
        """Plain text: uuencoded files in it are parts of their own."""
        while octets:
            if opened.file is not None:
                found = _END_FILE.search(octets)
                if found is None:
                    self._give(opened.file, opened.file.decoder.decode(octets))
                    return
                line = found.start() + (octets[found.start()] == 10)
                self._give(opened.file, opened.file.decoder.decode(octets[:line]))
                self._close_file(opened)
                octets = octets[found.end() :]
                continue
            found = _BEGIN_FILE.search(octets) if octets.startswith(b"begin") or _BEGIN_AHEAD.search(octets) else None
            if found is None or self.parts >= MAX_PARTS:
                self._give(opened, octets)
                return
            self._give(opened, octets[: found.start() + (octets[found.start()] == 10)])
            name = decode_words(found[1].strip())
            part = Part(self.parts, opened.part.depth + 1, "", {}, "", name, (name,), "x-uuencode", (), HeaderList())
            part = attrs.evolve(part, content_type="application/octet-stream")
            self.parts += 1
            opened.file = _Open(part, UuEncoded(), self._text_of(part))
            for listener in self._listeners:
                listener.begin(part)
            octets = octets[found.end() :]

    def _close_file(self, opened: _Open) -> None:
        if opened.file is not None:
            self._give(opened.file, opened.file.decoder.end(), final=True)
            self._tell_end(opened.file.part)
            opened.file = None

    def _give(self, opened: _Open, octets: bytes, final: bool = False) -> None:
        self._octets += len(octets)
        if self._octets > MAX_DECODED:
            self.notes.add(Note.TOO_LARGE)
            return
        if octets:
            for listener in self._decoded:
                listener.decoded(opened.part, octets)
        if opened.text is not None and (octets or final):
            text = opened.text.decode(octets, final)
            if text:
                for listener in self._text:
                    listener.text(opened.part, text)
