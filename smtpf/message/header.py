"""The header section of a message: an ordered list of fields, each kept octet by octet until somebody edits it.

The session splits the header section off the first chunks of the message with ``split_headers``, filters read and edit
the ``HeaderList``, and ``encode`` gives the octets that a next hop gets. Source: RFC 5322 2.2, spec chapters session,
7.2 and 7.4, and filters-content, 8.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from functools import lru_cache

import attrs

from smtpf.message.encoded_word import decode_words, encode_words, raw_text

MAX_HEADER_SECTION = 256 * 1024
"""Octets of a header section."""

_NAME = rb"[!-9;-~]++"
_FIELD = re.compile(rb"(" + _NAME + rb")[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+")
_MAILBOX_LINE = re.compile(rb">*From [^\n]*\n")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_WELL_FOLDED = re.compile(r"[\t\x20-\x7e]*+(?:\r\n[\t ][\t\x20-\x7e]*+)*+")
"""A value in which there is nothing that ``_BREAK`` finds: almost all, and told in a tenth of the time."""
_BREAK = re.compile(r"\r\n(?![\t ])|(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class HeaderEnd(Enum):
    """What ended a header section."""

    EMPTY_LINE = "empty line"
    BODY_LINE = "body line"
    """A line that is no header field; it is the first line of the body."""
    MESSAGE_END = "message end"
    """The message has no body."""
    TOO_LARGE = "too large"
    """The limit was reached; the last whole field below it is the last one."""


@attrs.frozen
class HeaderSplit:
    """A message taken apart behind its header section."""

    headers: bytes
    """The fields, without the empty line. A mailbox line (``From joe Sat Jul 4...``) before the first one is left out."""
    body: bytes
    """What has already come behind it."""
    end: HeaderEnd


def split_headers(buffer: bytes, final: bool = False) -> HeaderSplit | None:
    """Take the header section off ``buffer``, the message from its beginning, in whole CRLF lines.

    None: its end has not come, more is needed. ``final``: nothing follows ``buffer``. A message that begins with white
    space has no header section.
    """
    start = _mailbox_line_end(buffer)
    edge = header_edge(buffer, start, MAX_HEADER_SECTION, final)
    return None if edge is None else HeaderSplit(buffer[start : edge.fields_end], buffer[edge.body :], edge.end)


@attrs.frozen
class HeaderEdge:
    """Offsets at the end of a header section."""

    fields_end: int
    body: int
    end: HeaderEnd


def header_edge(buffer: bytes, start: int, most: int, final: bool) -> HeaderEdge | None:
    """Where the header section ends that begins at ``start`` and may have ``most`` octets; None as ``split_headers``."""
    at = start
    limit = start + most
    while (found := _FIELD.match(buffer, at)) is not None:
        if found.end() > limit:
            return HeaderEdge(at, at, HeaderEnd.TOO_LARGE)
        if found.end() == len(buffer) and not final:
            return None
        at = found.end()
    if buffer.startswith((b"\r\n", b"\n"), at):
        return HeaderEdge(at, buffer.index(b"\n", at) + 1, HeaderEnd.EMPTY_LINE)
    if not final and buffer.find(b"\n", at) < 0:
        return HeaderEdge(at, at, HeaderEnd.TOO_LARGE) if len(buffer) > limit else None
    return HeaderEdge(at, at, HeaderEnd.BODY_LINE if at < len(buffer) else HeaderEnd.MESSAGE_END)


def _mailbox_line_end(buffer: bytes) -> int:
    found = _MAILBOX_LINE.match(buffer)
    return found.end() if found else 0


@attrs.frozen
class Field:
    """One header field."""

    raw: bytes
    """As it stands in the message: folded, with its CRLF."""

    @property
    def name(self) -> str:
        """As written."""
        return self.raw.partition(b":")[0].rstrip(b" \t").decode("latin-1")

    @property
    def value(self) -> bytes:
        """Unfolded, without the blanks around it."""
        return _FOLD.sub(b"", self.raw.partition(b":")[2]).strip(b" \t\r\n")

    @property
    def text(self) -> str:
        """The value with its encoded words decoded."""
        return decode_words(self.value)

    @property
    def line(self) -> str:
        """The whole field as one line, for the log."""
        return raw_text(_FOLD.sub(b"", self.raw).rstrip(b"\r\n"))


def field(name: str, value: str) -> bytes:
    """The octets of a field of our own.

    ``value`` may be folded (CRLF and a blank). Any other CR or LF and every control character becomes a blank, so that
    no value can begin a field of its own; text outside US-ASCII becomes encoded words.
    """
    safe = value if _WELL_FOLDED.fullmatch(value) else _BREAK.sub(" ", value)
    return f"{name}: {encode_words(safe)}".encode("ascii", "replace").rstrip(b"\r\n") + b"\r\n"


class HeaderList:
    """Header fields in their order. Names are compared without regard to case."""

    def __init__(self, fields: Iterable[bytes] = ()) -> None:
        self._raw = list(fields)
        self._names = [_name_of(raw) for raw in self._raw]

    @classmethod
    def parse(cls, section: bytes) -> HeaderList:
        """The fields of a header section as ``split_headers`` gives it."""
        if section and not section.endswith(b"\n"):
            section += b"\r\n"
        return cls(found[0] for found in _FIELD.finditer(section))

    @property
    def fields(self) -> tuple[bytes, ...]:
        """The octets of every field, in order."""
        return tuple(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __iter__(self) -> Iterator[Field]:
        return map(Field, list(self._raw))

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._names

    def first(self, name: str) -> Field | None:
        """The first field of that name."""
        try:
            return Field(self._raw[self._names.index(_key(name))])
        except ValueError:
            return None

    def all(self, name: str) -> list[Field]:
        """Every field of that name, in order."""
        key = _key(name)
        if key not in self._names:
            return []
        return [Field(raw) for raw, known in zip(self._raw, self._names, strict=True) if known == key]

    def get(self, name: str, default: str = "") -> str:
        """Text of the first field of that name, unfolded and decoded."""
        found = self.first(name)
        return default if found is None else found.text

    def prepend_raw(self, raw: bytes) -> None:
        """Put a field, made by ``field`` or a builder of ``message.trace``, before all others."""
        self._raw.insert(0, raw)
        self._names.insert(0, _name_of(raw))

    def put_second(self, name: str, value: str) -> None:
        """Put a field behind the first one: a trace field that belongs to our Received, which stays at the very top."""
        raw = field(name, value)
        self._raw.insert(1, raw)
        self._names.insert(1, _name_of(raw))

    def append(self, name: str, value: str) -> None:
        """Put a field behind all others."""
        self.append_raw(field(name, value))

    def append_raw(self, raw: bytes) -> None:
        """Put a field, made by ``field`` or a builder of ``message.trace``, behind all others."""
        self._raw.append(raw)
        self._names.append(_name_of(raw))

    def remove(self, name: str) -> list[Field]:
        """Take every field of that name out; those taken out."""
        if name not in self:
            return []
        removed = self.all(name)
        self._keep_all_but(_key(name))
        return removed

    def has_prefixed(self, prefix: str) -> bool:
        """There is a field whose name begins with ``prefix``."""
        key = _key(prefix)
        return any(known.startswith(key) for known in self._names)

    def remove_prefixed(self, prefix: str) -> list[Field]:
        """Take every field out whose name begins with ``prefix``; those taken out."""
        key = _key(prefix)
        names = {known for known in self._names if known.startswith(key)}
        removed = [Field(raw) for raw, known in zip(self._raw, self._names, strict=True) if known in names]
        for known in names:
            self._keep_all_but(known)
        return removed

    def _keep_all_but(self, key: bytes) -> None:
        kept = [(raw, known) for raw, known in zip(self._raw, self._names, strict=True) if known != key]
        self._raw = [raw for raw, _ in kept]
        self._names = [known for _, known in kept]

    def replace(self, name: str, value: str) -> None:
        """Let this be the only field of that name: in the place of the first one, or behind all others."""
        key = _key(name)
        if key not in self._names:
            self.append(name, value)
            return
        at = self._names.index(key)
        self._keep_all_but(key)
        raw = field(name, value)
        self._raw.insert(at, raw)
        self._names.insert(at, key)

    def replace_raw(self, raw: bytes) -> None:
        """Let ``raw``, a field made octet by octet, stand in the place of the first field of its name, or behind all others."""
        key = _name_of(raw)
        if key in self._names:
            self._raw[self._names.index(key)] = raw
        else:
            self.append_raw(raw)

    def prefix(self, name: str, tag: str) -> bool:
        """Write ``tag`` in front of the first field of that name, unless it is there already; whether it was written.

        A missing field is added. A tag that stands only inside an encoded word does not count (filters-content, 8.1).
        """
        if not tag:
            return False
        key = _key(name)
        if key not in self._names:
            self._raw.append(f"{name}: {_tag_text(tag)} \r\n".encode("ascii", "replace"))
            self._names.append(key)
            return True
        at = self._names.index(key)
        raw = self._raw[at]
        encoded = _tag_text(tag).encode("ascii", "replace")
        if encoded in raw:
            return False
        old = raw.partition(b":")[2].lstrip(b" \t")
        self._raw[at] = name.encode("ascii", "replace") + b": " + encoded + b" " + old
        return True

    def encode(self) -> bytes:
        """The section as it goes out, without the empty line behind it."""
        return b"".join(self._raw)


def _tag_text(tag: str) -> str:
    return encode_words(_BREAK.sub(" ", tag).replace("\r\n", " "))


@lru_cache(maxsize=256)
def _key(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


def _name_of(raw: bytes) -> bytes:
    return raw.partition(b":")[0].rstrip(b" \t").lower()
