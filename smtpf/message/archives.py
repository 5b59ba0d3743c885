"""Names of the files in an archive: ZIP, RAR, 7z, TAR, and what gzip, bzip2 and xz wrap.

Only names are wanted, so nothing is unpacked but directories and archives inside archives, and all of it within caps:
entries, depth, octets and time. Structures are searched for, not believed: a file that only one of two directories
names, or that a broken archive still shows to some program, counts. Call ``list_names`` in a thread. Source: spec
chapter filters-content, 11.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Protocol

import attrs

MAX_ARCHIVE = 32 * 1024 * 1024
"""Octets of an archive that are looked at."""
MAX_NAMES = 10_000
"""Names that are listed."""
MAX_DEPTH = 3
"""Archives inside archives."""
MAX_UNPACKED = 64 * 1024 * 1024
"""Octets that are unpacked for one archive, all inner ones together."""
MAX_DICTIONARY = 16 * 1024 * 1024
"""Octets of memory for unpacking the directory of a 7z file."""
MAX_SECONDS = 5.0
"""Time for one archive."""
MAX_INNER = 1000
"""Entries whose beginning is unpacked to see whether they are archives."""
MAX_NAME = 4096
"""Octets of a name."""

ENCRYPTED = "(encrypted)"
"""The name that stands for a directory that cannot be read."""

_ZIP_LOCAL = b"PK\x03\x04"
_ZIP_CENTRAL = b"PK\x01\x02"
_ZIP_ENDS = (b"PK\x05\x06", b"PK\x07\x08PK")
_RAR4 = b"Rar!\x1a\x07\x00"
_RAR5 = b"Rar!\x1a\x07\x01\x00"
_SEVEN = b"7z\xbc\xaf\x27\x1c"
_XZ = b"\xfd7zXZ\x00"
_BZIP2 = re.compile(rb"BZh[1-9]1AY&SY")
_AES = b"\x06\xf1\x07\x01"
_UNSAFE_END = ". \t\0"
_PROBE = 512


@attrs.frozen
class Listing:
    """The names in an archive."""

    names: tuple[str, ...]
    """Full paths as stored, those of inner archives included, in no order; ``(encrypted)`` for a hidden directory."""
    complete: bool
    """No cap was reached."""


def kind_of(head: bytes) -> str:
    """Kind of the archive that begins with ``head`` (512 octets are enough), empty if it is none."""
    if head.startswith((_ZIP_LOCAL, *_ZIP_ENDS)):
        return "zip"
    if head.startswith((_RAR4, _RAR5)):
        return "rar"
    if head.startswith(_SEVEN):
        return "7z"
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(_XZ):
        return "xz"
    if _BZIP2.match(head):
        return "bzip2"
    return "tar" if head[257:262] == b"ustar" else ""


def comparable(name: str) -> tuple[str, str]:
    """Full and base name as patterns are compared with: one kind of slash, no trailing dots, blanks and NULs."""
    full = name.replace("\\", "/").rstrip(_UNSAFE_END)
    return full, full.rpartition("/")[2]


def list_names(octets: bytes, clock: Callable[[], float], kind: str = "") -> Listing:
    """The names in an archive. ``kind`` says how to read it when its beginning does not; ``clock`` gives seconds."""
    search = _Search(clock, clock() + MAX_SECONDS)
    if len(octets) > MAX_ARCHIVE:
        search.complete = False
        octets = octets[:MAX_ARCHIVE]
    search.archive(octets, 0, kind)
    return Listing(tuple(search.names), search.complete)


class _Unpacker(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Search:
    """One look through an archive and what is inside it."""

    def __init__(self, clock: Callable[[], float], deadline: float) -> None:
        self.names: dict[str, None] = {}
        self.complete = True
        self._clock = clock
        self._deadline = deadline
        self._unpacked = 0
        self._inner = 0

    def archive(self, octets: bytes, depth: int, kind: str = "") -> None:
        if depth > MAX_DEPTH:
            self.complete = False
            return
        kind = kind_of(octets[:_PROBE]) or kind
        if kind == "zip":
            self._zip(octets, depth)
        elif kind == "rar":
            self._rar(octets)
        elif kind == "7z":
            self._seven(octets)
        elif kind == "tar":
            self._tar(octets, depth)
        elif kind:
            self._wrapped(octets, kind, depth)

    def _room(self) -> bool:
        if len(self.names) < MAX_NAMES and self._clock() < self._deadline:
            return True
        self.complete = False
        return False

    def _name(self, octets: bytes, encoding: str = "utf-8") -> str:
        try:
            name = octets[:MAX_NAME].decode(encoding)
        except UnicodeDecodeError:
            name = octets[:MAX_NAME].decode("cp437")
        self.names[name] = None
        return name

    def _zip(self, octets: bytes, depth: int) -> None:
        """Every local and central header that is anywhere in there, whatever the directory at the end says."""
        at = octets.find(_ZIP_CENTRAL)
        while at >= 0 and self._room():
            if at + 46 <= len(octets):
                flags, length, extra = struct.unpack_from("<H", octets, at + 8) + struct.unpack_from("<HH", octets, at + 28)
                self._zip_name(octets, at + 46, length, extra, flags)
            at = octets.find(_ZIP_CENTRAL, at + 4)
        at = octets.find(_ZIP_LOCAL)
        while at >= 0 and self._room():
            if at + 30 <= len(octets):
                flags, method, _, _, _, packed, _, length, extra = struct.unpack_from("<HHHHIIIHH", octets, at + 6)
                self._zip_name(octets, at + 30, length, extra, flags)
                if not flags & 1:
                    self._zip_inner(octets, at + 30 + length + extra, method, packed, depth)
            at = octets.find(_ZIP_LOCAL, at + 4)

    def _zip_name(self, octets: bytes, at: int, length: int, extra: int, flags: int) -> None:
        if flags & 0x2000:
            self.names[ENCRYPTED] = None
        if length:
            self._name(octets[at : at + length], "utf-8" if flags & 0x800 else "cp437")
        fields = octets[at + length : at + length + extra]
        place = 0
        while place + 4 <= len(fields):
            tag, size = struct.unpack_from("<HH", fields, place)
            if tag == 0x7075 and size > 5:
                self._name(fields[place + 9 : place + 4 + size])
            place += 4 + size

    def _zip_inner(self, octets: bytes, at: int, method: int, packed: int, depth: int) -> None:
        """An entry that is an archive itself. A stored one needs no unpacking: its headers are found already, if a ZIP."""
        if self._inner >= MAX_INNER:
            self.complete = False
            return
        self._inner += 1
        if method == 0:
            kind = kind_of(octets[at : at + _PROBE])
            if kind and kind != "zip":
                self.archive(octets[at : at + packed] if packed else octets[at:], depth + 1)
        elif method == 8:
            self._unpack(lambda: zlib.decompressobj(-15), octets, at, depth)

    def _wrapped(self, octets: bytes, kind: str, depth: int) -> None:
        if kind == "gzip":
            self._gzip_name(octets)
            self._unpack(lambda: zlib.decompressobj(31), octets, 0, depth)
        elif kind == "bzip2":
            self._unpack(bz2.BZ2Decompressor, octets, 0, depth)
        else:
            self._unpack(lambda: lzma.LZMADecompressor(memlimit=MAX_UNPACKED), octets, 0, depth)

    def _gzip_name(self, octets: bytes) -> None:
        """The name in the header of a gzip file (RFC 1952 2.3.1)."""
        if len(octets) < 10 or not octets[3] & 8:
            return
        at = 10
        if octets[3] & 4:
            at += 2 + int.from_bytes(octets[10:12], "little")
        end = octets.find(b"\0", at, at + MAX_NAME)
        if end > at:
            self._name(octets[at:end], "latin-1")

    def _unpack(self, unpacker: Callable[[], _Unpacker], octets: bytes, at: int, depth: int) -> None:
        """Unpack what begins at ``at`` if it is an archive, as far as the caps allow."""
        try:
            if not kind_of(unpacker().decompress(octets[at : at + 65536], _PROBE)):
                return
            if depth + 1 > MAX_DEPTH or self._unpacked >= MAX_UNPACKED:
                self.complete = False
                return
            room = MAX_UNPACKED - self._unpacked
            whole = unpacker().decompress(octets[at:], room)
        except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
            self.complete = False
            return
        self._unpacked += len(whole)
        if len(whole) >= room:
            self.complete = False
        self.archive(whole, depth + 1)

    def _tar(self, octets: bytes, depth: int) -> None:
        try:
            with tarfile.open(fileobj=io.BytesIO(octets), mode="r:") as archive:
                while self._room() and (member := archive.next()) is not None:
                    self.names[member.name[:MAX_NAME]] = None
                    if member.isfile() and self._inner < MAX_INNER:
                        self._inner += 1
                        inner = octets[member.offset_data : member.offset_data + member.size]
                        if kind_of(inner[:_PROBE]):
                            self.archive(inner, depth + 1)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError):
            self.complete = False

    def _rar(self, octets: bytes) -> None:
        if octets.startswith(_RAR5):
            self._rar5(octets)
        else:
            self._rar4(octets)

    def _rar4(self, octets: bytes) -> None:
        at = len(_RAR4)
        while at + 7 <= len(octets) and self._room():
            kind, flags, size = struct.unpack_from("<BHH", octets, at + 2)
            if size < 7:
                return
            added = struct.unpack_from("<I", octets, at + 7)[0] if flags & 0x8000 and at + 11 <= len(octets) else 0
            if kind == 0x73 and flags & 0x80:
                self.names[ENCRYPTED] = None
                return
            if kind in (0x74, 0x7A) and at + 32 <= len(octets):
                added = struct.unpack_from("<I", octets, at + 7)[0]
                high = 0
                place = at + 32
                if flags & 0x100 and at + 40 <= len(octets):
                    high = struct.unpack_from("<I", octets, at + 32)[0]
                    place += 8
                length = struct.unpack_from("<H", octets, at + 26)[0]
                plain, _, _ = octets[place : place + length].partition(b"\0")
                if kind == 0x74:
                    self._name(plain)
                added += high << 32
            if kind == 0x7B:
                return
            at += size + added

    def _rar5(self, octets: bytes) -> None:
        at = len(_RAR5)
        while at + 7 <= len(octets) and self._room():
            try:
                size, place = _vint(octets, at + 4)
                end = place + size
                kind, place = _vint(octets, place)
                flags, place = _vint(octets, place)
                _extra, place = _vint(octets, place) if flags & 1 else (0, place)
                added, place = _vint(octets, place) if flags & 2 else (0, place)
                if kind == 4:
                    self.names[ENCRYPTED] = None
                    return
                if kind == 2:
                    self._name(_rar5_file_name(octets, place))
            except IndexError:
                self.complete = False
                return
            if kind == 5 or size == 0:
                return
            at = end + added

    def _seven(self, octets: bytes) -> None:
        """The directory of a 7z file: it stands at the end, usually packed."""
        if len(octets) < 32:
            return
        offset, size = struct.unpack_from("<QQ", octets, 12)
        if size > MAX_UNPACKED or 32 + offset + size > len(octets):
            self.complete = False
            return
        header = octets[32 + offset : 32 + offset + size]
        for _ in range(MAX_DEPTH):
            if not header.startswith(b"\x17"):
                break
            if _AES in header:
                self.names[ENCRYPTED] = None
                return
            unpacked = self._seven_header(octets, header)
            if unpacked is None:
                self.complete = False
                return
            header = unpacked
        self._seven_names(header)

    def _seven_header(self, octets: bytes, packed: bytes) -> bytes | None:
        """Unpack a directory that one coder has packed: LZMA, LZMA2 or none."""
        try:
            place = 2
            if packed[1] != 6:
                return None
            position, place = _seven_number(packed, place)
            count, place = _seven_number(packed, place)
            if count != 1 or packed[place] != 9:
                return None
            length, place = _seven_number(packed, place + 1)
            place = packed.index(b"\x07\x0b\x01\x00\x01", place) + 5
            coder = packed[place]
            identity = packed[place + 1 : place + 1 + (coder & 15)]
            place += 1 + (coder & 15)
            properties = b""
            if coder & 0x20:
                amount, place = _seven_number(packed, place)
                properties = packed[place : place + amount]
                place += amount
            if packed[place] != 12:
                return None
            size, _ = _seven_number(packed, place + 1)
            if size > MAX_UNPACKED - self._unpacked:
                return None
            self._unpacked += size
            data = octets[32 + position : 32 + position + length]
            return _seven_unpack(identity, properties, data, size)
        except (IndexError, ValueError, struct.error, lzma.LZMAError, EOFError, MemoryError):
            return None

    def _seven_names(self, header: bytes) -> None:
        """Every list of names in a directory: property 17, its size, no external stream, UTF-16 with final NULs."""
        at = header.find(b"\x11")
        tries = 0
        while at >= 0 and tries < MAX_NAMES and self._room():
            tries += 1
            try:
                size, place = _seven_number(header, at + 1)
            except IndexError:
                return
            block = header[place + 1 : place + size]
            if 3 <= size <= len(header) - place and header[place] == 0 and size % 2 == 1 and block.endswith(b"\0\0"):
                for name in block.decode("utf-16-le", "replace").split("\0")[: MAX_NAMES + 1]:
                    if name and self._room():
                        self.names[name[:MAX_NAME]] = None
                at = place + size - 1
            at = header.find(b"\x11", at + 1)


def _rar5_file_name(octets: bytes, place: int) -> bytes:
    flags, place = _vint(octets, place)
    _, place = _vint(octets, place)
    _, place = _vint(octets, place)
    place += (4 if flags & 2 else 0) + (4 if flags & 4 else 0)
    _, place = _vint(octets, place)
    _, place = _vint(octets, place)
    length, place = _vint(octets, place)
    return octets[place : place + length]


def _vint(octets: bytes, place: int) -> tuple[int, int]:
    """A number of RAR 5: seven bits an octet, the low ones first. Raises IndexError at the end of the data."""
    value = 0
    for shift in range(0, 70, 7):
        octet = octets[place]
        place += 1
        value |= (octet & 0x7F) << shift
        if not octet & 0x80:
            return value, place
    raise IndexError


def _seven_number(octets: bytes, place: int) -> tuple[int, int]:
    """A number of 7z: the high bits of the first octet tell how many follow. Raises IndexError at the end of the data."""
    first = octets[place]
    value = 0
    mask = 0x80
    for count in range(8):
        if not first & mask:
            return value | ((first & (mask - 1)) << (8 * count)), place + 1 + count
        value |= octets[place + 1 + count] << (8 * count)
        mask >>= 1
    return value, place + 9


def _seven_unpack(identity: bytes, properties: bytes, data: bytes, size: int) -> bytes | None:
    if identity == b"\x00":
        return data[:size]
    if identity == b"\x03\x01\x01":
        first, dictionary = struct.unpack("<BI", properties)
        chain = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": min(dictionary, MAX_DICTIONARY),
            "lc": first % 9,
            "lp": first // 9 % 5,
            "pb": first // 45,
        }
    elif identity == b"\x21":
        chain = {"id": lzma.FILTER_LZMA2, "dict_size": MAX_DICTIONARY}
    else:
        return None
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain]).decompress(data, size)
