"""Names in archives: all that any program would show, within caps."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import time
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.message.archives import ENCRYPTED, MAX_NAMES, Listing, comparable, kind_of, list_names


def a_zip(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def a_tar(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def a_rar4(*names: bytes, main_flags: int = 0) -> bytes:
    octets = b"Rar!\x1a\x07\x00" + struct.pack("<HBHH", 0, 0x73, main_flags, 13) + b"\0" * 6
    for name in names:
        body = struct.pack("<IIBIIBBHI", 3, 3, 2, 0, 0, 20, 0x30, len(name), 0) + name
        octets += struct.pack("<HBHH", 0, 0x74, 0x8000, 7 + len(body)) + body + b"abc"
    return octets + b"\xc4\x3d\x7b\x00\x40\x07\x00"


def a_rar5(*names: bytes, encrypted: bool = False) -> bytes:
    octets = b"Rar!\x1a\x07\x01\x00"
    if encrypted:
        return octets + b"\0" * 4 + bytes((3, 4, 0, 0))
    octets += b"\0" * 4 + bytes((3, 1, 0, 0))
    for name in names:
        body = bytes((2, 2, 3, 0, 3, 0, 0, 0, len(name))) + name
        octets += b"\0" * 4 + bytes((len(body),)) + body + b"abc"
    return octets + b"\0" * 4 + bytes((3, 5, 0, 0))


def a_7z(*names: str, packed: bool = True, aes: bool = False) -> bytes:
    listed = b"".join(name.encode("utf-16-le") + b"\0\0" for name in names)
    header = b"\x01\x05" + bytes((len(names),)) + b"\x11" + bytes((len(listed) + 1,)) + b"\0" + listed + b"\0\0"
    data = b""
    if packed:
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]
        data = lzma.compress(header, lzma.FORMAT_RAW, filters=filters)
        identity = b"\x06\xf1\x07\x01" if aes else b"\x03\x01\x01"
        header = (
            b"\x17\x06\x00\x01\x09"
            + bytes((len(data), 0))
            + b"\x07\x0b\x01\x00\x01"
            + bytes((0x20 | len(identity),))
            + identity
            + b"\x05\x5d"
            + struct.pack("<I", 1 << 16)
            + b"\x0c"
            + bytes((len(header),))
            + b"\x00\x00"
        )
    start = struct.pack("<QQI", len(data), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + data + header


def names(octets: bytes, kind: str = "") -> set[str]:
    return set(list_names(octets, lambda: 0.0, kind).names)


TWO = (("x/setup.EXE", b"MZ"), ("read.me", b"hi"))


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        (a_zip(*TWO), "zip"),
        (a_zip(*TWO, method=zipfile.ZIP_STORED), "zip"),
        (a_tar(*TWO), "tar"),
        (gzip.compress(a_tar(*TWO)), "gzip"),
        (bz2.compress(a_tar(*TWO)), "bzip2"),
        (lzma.compress(a_tar(*TWO)), "xz"),
        (a_rar4(b"x/setup.EXE", b"read.me"), "rar"),
        (a_rar5(b"x/setup.EXE", b"read.me"), "rar"),
        (a_7z("x/setup.EXE", "read.me"), "7z"),
        (a_7z("x/setup.EXE", "read.me", packed=False), "7z"),
    ],
)
def test_names_in_every_kind(octets: bytes, kind: str) -> None:
    assert kind_of(octets[:512]) == kind
    assert {"x/setup.EXE", "read.me"} <= names(octets)


@pytest.mark.parametrize("octets", [a_rar4(b"x", main_flags=0x80), a_rar5(encrypted=True), a_7z("x", aes=True)], ids=["rar4", "rar5", "7z"])
def test_hidden_directory_is_called_encrypted(octets: bytes) -> None:
    assert names(octets) == {ENCRYPTED}


def test_name_in_only_one_of_the_headers_counts() -> None:
    whole = a_zip(("good.txt", b"hi"))
    local, central = whole.replace(b"good.txt", b"evil.exe", 1), whole[::-1].replace(b"txt.doog", b"exe.live", 1)[::-1]
    assert names(local) == names(central) == {"good.txt", "evil.exe"}
    assert names(whole[: whole.index(b"PK\x01\x02")]) == {"good.txt"}


def test_archive_behind_a_program_is_read_when_its_kind_is_told() -> None:
    assert names(b"MZ" + b"\0" * 600 + a_zip(*TWO), "zip") == {"x/setup.EXE", "read.me"}
    assert names(b"MZ" + b"\0" * 600 + a_zip(*TWO)) == set()


def test_inner_archives_are_read_to_depth_three() -> None:
    inner = a_zip(("deep.exe", b"MZ"))
    for level in range(3):
        inner = a_zip((f"level{level}.zip", inner))
    assert "deep.exe" in names(inner)
    deeper = list_names(a_zip(("one.zip", inner)), lambda: 0.0)
    assert "deep.exe" not in deeper.names and not deeper.complete


def test_inner_archives_of_other_kinds_are_read() -> None:
    assert "a.exe" in names(a_zip(("a.7z", a_7z("a.exe")), method=zipfile.ZIP_STORED))
    assert "a.exe" in names(a_zip(("a.rar", a_rar5(b"a.exe"))))
    assert "a.exe" in names(a_tar(("a.zip", a_zip(("a.exe", b"")))))


def test_utf8_and_unicode_extra_names_count() -> None:
    assert "ü.exe" in names(a_zip(("ü.exe", b"")))
    extra = struct.pack("<HHBI", 0x7075, 5 + 5, 1, 0) + b"b.exe"
    header = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 5, len(extra)) + b"a.txt" + extra
    assert names(header) == {"a.txt", "b.exe"}


def test_gzip_tells_its_own_name() -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("run.exe", "wb", fileobj=buffer) as packed:
        packed.write(b"MZ")
    assert names(buffer.getvalue()) == {"run.exe"}


def test_names_are_compared_without_tricks_at_their_end() -> None:
    assert comparable("a\\b/evil.exe. \0") == ("a/b/evil.exe", "evil.exe")


def test_sixty_thousand_entries_are_capped() -> None:
    octets = b"".join(
        b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 8, 0) + b"%08d" % number for number in range(60_000)
    )
    listing = list_names(octets, lambda: 0.0)
    assert len(listing.names) == MAX_NAMES and not listing.complete


def test_time_is_capped() -> None:
    ticks = iter(range(1000))
    listing = list_names(a_zip(*((f"{number}.txt", b"") for number in range(50))), lambda: float(next(ticks)))
    assert not listing.complete and len(listing.names) < 10


def test_bomb_is_not_unpacked() -> None:
    begin = time.process_time()
    bomb = a_zip(("zeros", b"\0" * 100_000_000))
    begin = time.process_time()
    assert names(bomb) == {"zeros"}
    assert names(a_zip(*((f"{number}.zip", bomb) for number in range(100)))) >= {"zeros", "99.zip"}
    tarred = gzip.compress(a_tar(("zeros", b"\0" * 80_000_000)))
    assert list_names(tarred, lambda: 0.0) == Listing(("zeros",), False)
    assert time.process_time() - begin < 8


def test_archive_that_contains_itself_ends() -> None:
    header = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 5, 0) + b"a.zip"
    assert names(header * 2000) == {"a.zip"}


@given(
    st.sampled_from([a_zip(*TWO), a_tar(*TWO), a_rar4(b"a"), a_rar5(b"a"), a_7z("a"), gzip.compress(a_tar(*TWO))]),
    st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 20_000),
)
def test_damaged_archives_never_fail(octets: bytes, changes: list[tuple[int, int]], length: int) -> None:
    damaged = bytearray(octets)
    for place, value in changes:
        damaged[8 + place % (len(damaged) - 8)] = value
    list_names(bytes(damaged[:length]), lambda: 0.0)
    list_names(bytes(damaged), lambda: 0.0)
