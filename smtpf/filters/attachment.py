"""Refuse messages by MIME type, by the names of attachments, and by the names of files inside archives.

``deny-content`` switches it on. Four lists of patterns hold for everybody; tags of the access map replace one of them for a client,
a sender or a recipient. Names count in every spelling that some mail program may show, and a message built so that programs would
see different attachments is refused, because nobody can say what is in it. Source: spec chapter filters-content, 11.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import attrs

from smtpf.filters.mime_pass import listen, notes
from smtpf.journal.message import info
from smtpf.maps.access import AccessMap
from smtpf.maps.patterns import glob
from smtpf.message.archives import MAX_ARCHIVE, Listing, comparable, kind_of, list_names
from smtpf.message.header import HeaderList
from smtpf.message.mime import MimeWalker, Note, Part, PartListener
from smtpf.message.parameters import parse_value
from smtpf.message.transfer_encoding import Identity, decoder_for
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Words
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.message.spool import InThread

DENY_CONTENT = Flag(
    "deny-content",
    False,
    "Refuse messages by the types and names of their attachments, as the deny-* lists say.",
    since="later",
    area="attachment",
)
DENY_TOP_CONTENT_TYPE = Words(
    "deny-top-content-type",
    "!application/pdf;application/*;text/*script;audio/*;image/*;video/*",
    "MIME types that a message as a whole may not have. The first pattern that fits decides; one with a leading ! allows.",
    choices="MIME type globs, leading ! allows",
    since="later",
    area="attachment",
)
DENY_CONTENT_TYPE = Words(
    "deny-content-type",
    "application/*executable;application/*msdos-program;application/*msdownload;message/partial",
    "MIME types that no part of a message may have. The first pattern that fits decides; one with a leading ! allows.",
    choices="MIME type globs, leading ! allows",
    since="later",
    area="attachment",
)
DENY_CONTENT_NAME = Words(
    "deny-content-name",
    "*.ade;*.adp;*.bas;*.bat;*.chm;*.cmd;*.com;*.cpl;*.crt;*.exe;*.hlp;*.hta;*.inf;*.ins;*.isp;*.js;*.jse;*.lnk;*.mdb;*.mde;*.msc;"
    "*.msi;*.msp;*.mst;*.pcd;*.pif;*.reg;*.scr;*.sct;*.shs;*.shb;*.url;*.vb;*.vbe;*.vbs;*.wsc;*.wsf;*.wsh",
    "Names that no attachment may have. The first pattern that fits decides; one with a leading ! allows.",
    choices="file name globs, leading ! allows",
    since="later",
    area="attachment",
)
DENY_COMPRESSED_NAME = Words(
    "deny-compressed-name",
    "*.bat;*.com;*.cpl;*.exe;*.inf;*.msi;*.msp;*.pif;*.scr",
    "Names that no file inside an attached archive may have. The first pattern that fits decides; one with a leading ! allows.",
    choices="file name globs, leading ! allows",
    since="later",
    area="attachment",
    aliases=("deny-zip-name",),
)

FOUND = info(
    821,
    "%s found content=%s pattern=%s",
    "The message was refused for a type or name that a deny-* list or its access tag forbids.",
    fields=("list", "content", "pattern"),
    since="later",
)
BLOCKED = Reply(
    826,
    "550 5.7.0 message contains blocked content (%s)",
    meaning="A type, an attachment or a file in an archive fits the pattern shown, or the words tell why they could not be seen.",
)

TOP_TYPE_HIT = Counter("deny-top-content-type", Group.MSG, "Messages refused for their own MIME type.")
TYPE_HIT = Counter("deny-content-type", Group.MSG, "Messages refused for the MIME type of a part.")
NAME_HIT = Counter("deny-content-name", Group.MSG, "Messages refused for the name of an attachment.")
COMPRESSED_HIT = Counter("deny-compressed-name", Group.MSG, "Messages refused for a name inside an archive.", since="later")

MAX_HELD = MAX_ARCHIVE
"""Octets of archives of one message that are kept at a time."""
MAX_NESTED = 3
"""Encoded messages inside encoded messages that are looked into."""
MAX_FIELDS_SEEN = 1000
"""Lines like header fields that are remembered of one message."""

INCOMPLETE = "(incomplete)"
"""Stands for what is behind the limits of an archive. A list may allow it with ``!(incomplete)``."""
AMBIGUOUS = "ambiguous structure"


@attrs.frozen(eq=False)
class Kind:
    """One of the four lists."""

    label: str
    option: Words
    tag: str
    counter: Counter


TOP_TYPE = Kind("top-content-type", DENY_TOP_CONTENT_TYPE, "top-mimetype", TOP_TYPE_HIT)
TYPE = Kind("content-type", DENY_CONTENT_TYPE, "mimetype", TYPE_HIT)
NAME = Kind("content-name", DENY_CONTENT_NAME, "filename", NAME_HIT)
COMPRESSED = Kind("compressed-name", DENY_COMPRESSED_NAME, "archname", COMPRESSED_HIT)

Lists = tuple[tuple[str, ...], ...]
"""The pattern lists that hold for the message: several when its recipients have different ones."""


@attrs.frozen
class Hit:
    """Why a message is refused."""

    kind: Kind
    content: str
    pattern: str


_BLANKS = "[ \t\n\r\x0b\x0c]"


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], bool]:
    return glob(pattern.lower().replace(" ", _BLANKS))


def blocked_by(patterns: Iterable[str], texts: tuple[str, ...]) -> str | None:
    """The first pattern that fits one of ``texts``, None when that allows or none fits."""
    for pattern in patterns:
        allows = pattern.startswith("!")
        fits = _matcher(pattern[1:] if allows else pattern)
        if any(fits(text) for text in texts):
            return None if allows else pattern
    return None


def spellings(name: str) -> Iterator[tuple[str, ...]]:
    """What a file may be called by a program that gets ``name``: each as full and base name, in lower case."""
    variants = {name: None, name.partition("\0")[0]: None, unicodedata.normalize("NFKC", name): None}
    for variant in variants:
        full, base = comparable("".join(mark for mark in variant if mark.isprintable() or mark == " "))
        if full:
            yield (full.lower(),) if base == full else (base.lower(), full.lower())


def _first_hit(kind: Kind, lists: Lists, name: str) -> Hit | None:
    for patterns in lists:
        for texts in spellings(name):
            pattern = blocked_by(patterns, texts)
            if pattern is not None:
                return Hit(kind, name, pattern)
    return None


def _type_hit(kind: Kind, lists: Lists, types: Iterable[str]) -> Hit | None:
    for patterns in lists:
        for each in types:
            pattern = blocked_by(patterns, (each,))
            if pattern is not None:
                return Hit(kind, each, pattern)
    return None


def types_in(value: bytes) -> tuple[str, ...]:
    """The type of a Content-Type value, as the standard and as a simple program reads it."""
    simple = re.split(rb"[;\s]", value.strip(), maxsplit=1)[0].decode("latin-1").lower()
    return tuple(dict.fromkeys(each for each in (parse_value(value).word, simple) if each))


@attrs.define(eq=False)
class _Archive:
    """An archive while its octets come."""

    kind: str
    octets: bytearray
    cut: bool = False


class Watch(PartListener):
    """Looks at every part of one message; ``hit`` is the first thing found."""

    def __init__(self, lists: dict[Kind, Lists], depth: int = 0, held: list[int] | None = None) -> None:
        self.hit: Hit | None = None
        self.archives: list[_Archive] = []
        """Complete ones that wait to be listed."""
        self.archives_seen = 0
        self._lists = lists
        self._depth = depth
        self._heads: dict[Part, bytes] = {}
        self._open: dict[Part, _Archive] = {}
        self._inner: dict[Part, tuple[MimeWalker, Watch]] = {}
        self.inner_notes: set[Note] = set()
        self._held = held if held is not None else [0]
        """Octets of archives kept, of this message with all that is inside it."""

    def begin(self, part: Part) -> None:
        if self.hit is not None:
            return
        self.hit = _type_hit(TYPE, self._lists[TYPE], part.types) or self._names(part) or _conflict(part)

    def _names(self, part: Part) -> Hit | None:
        for name in part.names:
            hit = _first_hit(NAME, self._lists[NAME], name)
            if hit is not None:
                return hit
        return None

    def decoded(self, part: Part, octets: bytes) -> None:
        if self.hit is not None:
            return
        if part.encoding and (part.multipart or _is_message(part)) and not isinstance(decoder_for(part.encoding), Identity | None):
            self._feed_inner(part, octets)
            return
        if not self._lists[COMPRESSED]:
            return
        archive = self._open.get(part)
        if archive is not None:
            self._hold(archive, octets)
            return
        head = self._heads.get(part)
        if head is None:
            head = b""
        elif len(head) >= 512:
            return
        head += octets
        self._heads[part] = head[:512]
        kind = kind_of(head[:512]) or _inside(head) or _claimed_kind(part)
        if kind:
            self._open[part] = archive = _Archive(kind, bytearray())
            self._hold(archive, head)

    def _hold(self, archive: _Archive, octets: bytes) -> None:
        room = MAX_HELD - self._held[0]
        if len(octets) > room:
            archive.cut = True
            octets = octets[:room]
        archive.octets += octets
        self._held[0] += len(octets)

    def end(self, part: Part) -> None:
        self._heads.pop(part, None)
        archive = self._open.pop(part, None)
        if archive is not None:
            self.archives_seen += 1
            self.archives.append(archive)
        inner = self._inner.pop(part, None)
        if inner is not None:
            inner[0].finish()
            self._take_over(*inner)

    def release(self, archive: _Archive) -> None:
        """``archive`` has been listed."""
        self._held[0] -= len(archive.octets)

    def _feed_inner(self, part: Part, octets: bytes) -> None:
        """A message or multipart that is encoded as a whole, which it must not be, but which some programs decode."""
        inner = self._inner.get(part)
        if inner is None:
            if self._depth >= MAX_NESTED:
                self.hit = Hit(TYPE, part.content_type, Note.TOO_DEEP.value)
                return
            walker, watch = MimeWalker(), Watch(self._lists, self._depth + 1, self._held)
            walker.add(watch)
            fields = part.headers.all("content-type")
            walker.start([b"Content-Type: message/rfc822\r\n"] if _is_message(part) else [each.raw for each in fields])
            inner = self._inner[part] = (walker, watch)
        inner[0].feed(octets)
        self._take_over(*inner)

    def _take_over(self, walker: MimeWalker, watch: Watch) -> None:
        self.hit = self.hit or watch.hit
        self.archives += watch.archives
        self.archives_seen += watch.archives_seen
        watch.archives, watch.archives_seen = [], 0
        self.inner_notes |= walker.notes | watch.inner_notes


def _is_message(part: Part) -> bool:
    return "message/rfc822" in part.types or "message/global" in part.types


def _inside(head: bytes) -> str:
    """An archive with something in front, which many programs open all the same."""
    return "zip" if b"PK\x03\x04" in head else "rar" if b"Rar!\x1a\x07" in head else ""


def _claimed_kind(part: Part) -> str:
    """What a part is said to be by its type or name, for archives with much in front."""
    names = [texts[0] for name in part.names for texts in spellings(name)]
    if any("application/" in each and "zip" in each for each in part.types) or any(name.endswith(".zip") for name in names):
        return "zip"
    if any(each.startswith("application/x-rar") for each in part.types) or any(name.endswith(".rar") for name in names):
        return "rar"
    return ""


def _conflict(part: Part) -> Hit | None:
    """Two fields, or two parameters, that say different things about where parts begin or how they are encoded."""
    fields = part.headers.all("content-type")
    encodings = part.headers.all("content-transfer-encoding")
    if len(fields) > 1 or part.multipart:
        ways: set[str] = set()
        for each in fields[:10]:
            value = parse_value(each.value)
            boundaries = value.readings.get("boundary", ()) if value.word.startswith("multipart/") else ()
            ways.update(boundaries or (("",) if len(fields) > 1 else ()))
        if len(ways) > 1:
            return Hit(TYPE, part.content_type, AMBIGUOUS)
    if len(encodings) > 1 and len({type(decoder_for(parse_value(each.value).word)) for each in encodings[:10]} - {type(None)}) > 1:
        return Hit(TYPE, part.encoding, AMBIGUOUS)
    return None


_FIELD_LINE = re.compile(rb"^content-(?:type|disposition)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_AHEAD = re.compile(rb"\n(?:content-|[ \t]*(?:UEsDB|UmFyIR|N3q8ry))", re.IGNORECASE)
"""A line that may be a field or begin an archive: one pass tells that most messages have none."""
_BEHIND_EQUALS = re.compile(rb"=(?:UEsDB|UmFyIR|N3q8ry)")
_BASE64_ARCHIVE = re.compile(rb"(?:^[ \t]*|=)(?:UEsDB|UmFyIR|N3q8ry)", re.MULTILINE)
_UNSURE = {Note.ODD_HEADER, Note.ODD_ENCODING, Note.MISSING_BOUNDARY, Note.ENCODED_CONTAINER, Note.ODD_BOUNDARY}
_UNSEEN = {Note.TOO_DEEP, Note.TOO_MANY_PARTS, Note.TOO_LARGE}


class Sweep:
    """What stands in a body, whatever its structure: for messages whose structure is in doubt."""

    __slots__ = ("archives", "fields")

    def __init__(self) -> None:
        self.fields: list[bytes] = []
        """Lines that are MIME header fields to somebody."""
        self.archives = 0
        """Lines that begin an archive in base64."""

    def feed(self, chunk: bytes, archives: bool) -> None:
        """The next whole lines; ``archives`` when they matter."""
        # Either may stand at the very beginning.
        ahead = _AHEAD.search(chunk) is not None or _AHEAD.match(b"\n" + chunk[:2000]) is not None
        if ahead:
            for found in _FIELD_LINE.finditer(chunk):
                if len(self.fields) < MAX_FIELDS_SEEN:
                    self.fields.append(found[0][:4096])
        if archives and (ahead or _BEHIND_EQUALS.search(chunk)):
            self.archives += len(_BASE64_ARCHIVE.findall(chunk))


class _Own:
    """What this filter keeps of a message."""

    __slots__ = ("lists", "sweep", "watch")

    def __init__(self) -> None:
        self.watch: Watch | None = None
        self.sweep = Sweep()
        self.lists: dict[Kind, Lists] = {}


class Attachment(Filter):
    """Holds the lists against every part."""

    def __init__(self, access: AccessMap, in_thread: InThread, seconds: Callable[[], float]) -> None:
        """``seconds`` is a clock that threads may ask."""
        self._access = access
        self._in_thread = in_thread
        self._seconds = seconds

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The type of the whole message; and the lists for all that follows."""
        return self._headers(session, transaction) if session.settings[DENY_CONTENT] else None

    async def _headers(self, session: Session, transaction: Transaction) -> Verdict | None:
        own = transaction.own(_Own)
        for kind in (TOP_TYPE, TYPE, NAME, COMPRESSED):
            own.lists[kind] = await self._lists(session, transaction, kind)
        types = [each for found in HeaderList(transaction.original_headers).all("content-type")[:10] for each in types_in(found.value)]
        hit = _type_hit(TOP_TYPE, own.lists[TOP_TYPE], types)
        if hit is not None:
            return _refused(session, transaction, hit)
        own.watch = Watch(own.lists)
        listen(transaction, own.watch)
        return None

    async def _lists(self, session: Session, transaction: Transaction, kind: Kind) -> Lists:
        """Those of the recipients, else of the sender, else of the client, else the option."""
        access, sid = self._access, session.sid
        general: tuple[str, ...] | None = None
        found: dict[tuple[str, ...], None] = {}
        for recipient in transaction.recipients:
            own = await access.lookup_mail_list(f"{kind.tag}-to:", recipient.path.address, sid)
            if not own:
                if general is None:
                    general = await self._general(session, transaction, kind)
                own = general
            found[own] = None
        return tuple(patterns for patterns in found if patterns)

    async def _general(self, session: Session, transaction: Transaction, kind: Kind) -> tuple[str, ...]:
        access, sid = self._access, session.sid
        return (
            await access.lookup_mail_list(f"{kind.tag}-from:", transaction.sender.address, sid)
            or await access.lookup_client_list(f"{kind.tag}-connect:", session.name, session.address, sid)
            or session.settings[kind.option]
        )

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """What the parts of this chunk brought to light."""
        own = transaction.owned(_Own)
        if own is None or own.watch is None:
            return None
        watch = own.watch
        own.sweep.feed(chunk, bool(own.lists[COMPRESSED]))
        if watch.hit is not None:
            return _refused(session, transaction, watch.hit)
        if watch.archives:
            return self._archives(session, transaction, own, watch)
        return _conclusion(session, transaction, own, watch) if transaction.complete else None

    async def _archives(self, session: Session, transaction: Transaction, own: _Own, watch: Watch) -> Verdict | None:
        """List the names in the archives that are complete, in a thread."""
        while watch.archives:
            archive = watch.archives.pop(0)
            names = await self._in_thread(partial(list_names, bytes(archive.octets), self._seconds, archive.kind))
            watch.release(archive)
            hit = _hit_in(names, archive.cut, own.lists[COMPRESSED])
            if hit is not None:
                return _refused(session, transaction, hit)
        return _conclusion(session, transaction, own, watch) if transaction.complete else None


def _hit_in(listing: Listing, cut: bool, lists: Lists) -> Hit | None:
    for name in listing.names:
        hit = _first_hit(COMPRESSED, lists, name)
        if hit is not None:
            return hit
    if listing.complete and not cut:
        return None
    for patterns in lists:
        allowed = any(each.startswith("!") and _matcher(each[1:])(INCOMPLETE) for each in patterns)
        if not allowed and any("*" in each for each in patterns):
            return Hit(COMPRESSED, INCOMPLETE, "incomplete archive")
    return None


def _conclusion(session: Session, transaction: Transaction, own: _Own, watch: Watch) -> Verdict | None:
    """The message has been seen to its end: is there something that only others would see?"""
    doubts = notes(transaction) | watch.inner_notes
    unseen = doubts & _UNSEEN
    if unseen and any(own.lists.values()):
        return _refused(session, transaction, Hit(TYPE, "message", min(each.value for each in unseen)))
    if not doubts & _UNSURE:
        return None
    for raw in own.sweep.fields:
        hit = _hit_in_field(raw, own.lists)
        if hit is not None:
            return _refused(session, transaction, hit)
    if own.lists[COMPRESSED] and own.sweep.archives > watch.archives_seen:
        return _refused(session, transaction, Hit(COMPRESSED, "message", AMBIGUOUS))
    return None


def _hit_in_field(raw: bytes, lists: dict[Kind, Lists]) -> Hit | None:
    value = HeaderList.parse(raw + b"\r\n")
    for found in value:
        parsed = parse_value(found.value)
        names = (*parsed.readings.get("name", ()), *parsed.readings.get("filename", ()))
        hit = _type_hit(TYPE, lists[TYPE], types_in(found.value)) if found.name.lower() == "content-type" else None
        for name in names:
            hit = hit or _first_hit(NAME, lists[NAME], name)
        if hit is not None:
            return hit
    return None


def _refused(session: Session, transaction: Transaction, hit: Hit) -> Verdict:
    session.log(FOUND, hit.kind.label, hit.content, hit.pattern)
    session.count(hit.kind.counter)
    transaction.flags.add(MsgFlag.POLICY)
    transaction.own(_Own).watch = None
    return reject(BLOCKED, hit.pattern, fact=hit.content)
