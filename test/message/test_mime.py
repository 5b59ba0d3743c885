"""The MIME walk: parts and texts, whatever the segmentation, and bounds that hold."""

from __future__ import annotations

import base64
import binascii
import itertools
import quopri
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpf.message.header import HeaderList, split_headers
from smtpf.message.mime import MAX_PARTS, MimeWalker, Note, Part, PartListener
from smtpf.message.parameters import parse_value

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


class Ear(PartListener):
    """Writes down all that it hears."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.raws: dict[int, bytes] = {}
        self.decodes: dict[int, bytes] = {}
        self.texts: dict[int, str] = {}
        self.events: list[tuple[str, int]] = []

    def begin(self, part: Part) -> None:
        self.parts.append(part)
        self.events.append(("begin", part.number))

    def raw(self, part: Part, octets: bytes) -> None:
        self.raws[part.number] = self.raws.get(part.number, b"") + octets

    def decoded(self, part: Part, octets: bytes) -> None:
        self.decodes[part.number] = self.decodes.get(part.number, b"") + octets

    def text(self, part: Part, text: str) -> None:
        self.texts[part.number] = self.texts.get(part.number, "") + text

    def end(self, part: Part) -> None:
        self.events.append(("end", part.number))


def walk(message: bytes, places: list[int] | None = None) -> tuple[Ear, set[Note]]:
    message = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    split = split_headers(message, final=True)
    assert split is not None
    walker, ear = MimeWalker(), Ear()
    walker.add(ear)
    walker.start(HeaderList.parse(split.headers).fields)
    edges = sorted({0, len(split.body), *(place % (len(split.body) + 1) for place in places or [])})
    for left, right in itertools.pairwise(edges):
        walker.feed(split.body[left:right])
    walker.finish()
    return ear, walker.notes


MIXED = b"""Content-Type: multipart/mixed; boundary="out"

preamble
--out
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

gr=FC=DFe =
end
--out
Content-Type: multipart/alternative; boundary=in

--in
Content-Type: text/html

<b>x</b>

--in--
--out
Content-Type: message/rfc822

Subject: inner
Content-Type: text/plain

inner text
--out
Content-Type: application/zip; name="a.zip"
Content-Transfer-Encoding: base64
Content-Disposition: attachment;
 filename*=utf-8''%C3%A4.zip

UEsD
BA==
--out--
epilogue
"""


def test_parts_of_a_nested_message() -> None:
    ear, notes = walk(MIXED)
    assert notes == set()
    assert [(part.content_type, part.depth) for part in ear.parts] == [
        ("multipart/mixed", 0),
        ("text/plain", 1),
        ("multipart/alternative", 1),
        ("text/html", 2),
        ("multipart/alternative", 1),
        ("message/rfc822", 1),
        ("text/plain", 2),
        ("application/zip", 1),
        ("multipart/mixed", 0),
    ]
    assert ear.texts == {0: "preamble", 1: "grüße end", 3: "<b>x</b>\r\n", 6: "inner text", 8: "epilogue\r\n"}
    assert ear.decodes[7] == b"PK\x03\x04"
    assert ear.raws[7] == b"UEsD\r\nBA=="
    assert ear.parts[7].names == ("ä.zip", "a.zip")
    assert (ear.parts[7].filename, ear.parts[7].disposition) == ("ä.zip", "attachment")
    assert ear.parts[6].headers.get("subject") == "inner"


def test_every_part_that_begins_ends_once() -> None:
    ear, _ = walk(MIXED)
    begun = [number for event, number in ear.events if event == "begin"]
    ended = [number for event, number in ear.events if event == "end"]
    assert begun == list(range(9)) and sorted(ended) == begun
    assert ear.events.index(("end", 6)) < ear.events.index(("end", 5))


@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_any_segmentation_gives_the_same_parts(places: list[int]) -> None:
    whole, _ = walk(MIXED)
    pieces, notes = walk(MIXED, places)
    assert notes == set()
    assert (pieces.raws, pieces.decodes, pieces.texts, pieces.events) == (whole.raws, whole.decodes, whole.texts, whole.events)


def test_octet_by_octet_gives_the_same_parts() -> None:
    whole, _ = walk(MIXED)
    single, _ = walk(MIXED, list(range(2000)))
    assert (single.raws, single.decodes, single.texts, single.events) == (whole.raws, whole.decodes, whole.texts, whole.events)


PIECES = st.lists(
    st.sampled_from(
        [
            b"--a\r\n",
            b"--a--\r\n",
            b"--b\r\n",
            b"--b-- \r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Type: text/plain\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"\r\n",
            b"text\r\n",
            b"--",
            b"begin 644 x\r\n",
            b"end\r\n",
            b"#86)C\r\n",
            b"=\r\n",
        ]
    ),
    max_size=25,
).map(b"".join)


@given(PIECES, st.lists(st.integers(0, 1000), max_size=10))
@settings(max_examples=300)
def test_odd_structures_never_fail_and_agree_in_any_segmentation(body: bytes, places: list[int]) -> None:
    message = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n" + body
    whole, notes = walk(message)
    pieces, again = walk(message, places)
    assert whole.raws == pieces.raws and notes == again
    assert [part.content_type for part in whole.parts] == [part.content_type for part in pieces.parts]


def test_part_without_content_type_is_textual() -> None:
    ear, _ = walk(b"Subject: x\n\nhi\n")
    assert (ear.parts[0].content_type, ear.texts) == ("", {0: "hi\r\n"})


def test_multipart_without_boundary_falls_back_to_lines_that_look_like_one() -> None:
    ear, notes = walk(b"Content-Type: multipart/mixed\n\nx\n--abc\nContent-Type: text/html\n\ny\n-- \nz\n--====\n--abc--\n\n")
    assert Note.MISSING_BOUNDARY in notes
    assert [part.content_type for part in ear.parts[:2]] == ["multipart/mixed", "text/html"]
    assert ear.texts[1] == "y\r\n-- \r\nz\r\n--===="


def test_boundary_may_have_trailing_blanks() -> None:
    ear, _ = walk(b"Content-Type: multipart/mixed; boundary=a\n\n--a \t\nContent-Type: text/html\n\nx\n--a--  \n")
    assert ear.texts[1] == "x"


def test_uuencoded_file_in_a_text_is_a_part() -> None:
    lines = b"".join(binascii.b2a_uu(EICAR[at : at + 45]) for at in range(0, len(EICAR), 45))
    for places in ([], list(range(400))):
        ear, _ = walk(b"Subject: x\n\nsee\nbegin 644 virus.com\n" + lines + b"`\nend\nbye\n", places)
        assert ear.parts[1].filename == "virus.com"
        assert ear.decodes[1] == EICAR
        assert ear.texts[0] == "see\r\nbye\r\n"


def test_text_of_a_uuencoded_text_file_is_told() -> None:
    line = binascii.b2a_uu(b"see http://www.example.com/")
    for places in ([], list(range(80))):
        ear, _ = walk(b"Subject: x\n\nbegin 644 notes.txt\n" + line + b"`\nend\n", places)
        assert ear.texts[1] == "see http://www.example.com/"


def encodings() -> list[tuple[str, bytes]]:
    plain = base64.b64encode(EICAR)
    uu = b"".join(binascii.b2a_uu(EICAR[at : at + 45]) for at in range(0, len(EICAR), 45))
    inner = b"Content-Transfer-Encoding: base64\n\n" + plain
    head = b"Content-Type: application/octet-stream\n"
    top = b"Content-Type: multipart/mixed; boundary=b\n\n"
    attached = {
        "7bit": head + b"\n" + EICAR,
        "base64": head + inner,
        "base64 short lines": head
        + b"Content-Transfer-Encoding: base64\n\n"
        + b"\n".join(plain[at : at + 3] for at in range(0, len(plain), 3)),
        "base64 with junk": head
        + b"Content-Transfer-Encoding: base64\n\n"
        + b"!*-".join(plain[at : at + 4] for at in range(0, len(plain), 4)),
        "base64 quoted": head + b'Content-Transfer-Encoding: "base64"\n\n' + plain,
        "base64 commented": head + b"Content-Transfer-Encoding: (x) base64 (y)\n\n" + plain,
        "base64 upper": head + b"CONTENT-TRANSFER-ENCODING : BASE64\n\n" + plain,
        "base64 folded": head + b"Content-Transfer-Encoding:\n base64\n\n" + plain,
        "base64 after 7bit": head + b"Content-Transfer-Encoding: 7bit\n" + inner,
        "base64 before 7bit": head + b"Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: 7bit\n\n" + plain,
        "base64 padded early": head + b"Content-Transfer-Encoding: base64\n\n" + base64.b64encode(b"x") + plain,
        "unknown encoding": head + b"Content-Transfer-Encoding: x-secret\n\n" + plain,
        "quoted-printable": head + b"Content-Transfer-Encoding: quoted-printable\n\n" + quopri.encodestring(EICAR),
        "qp all hex": head + b"Content-Transfer-Encoding: quoted-printable\n\n" + b"".join(b"=%02x" % octet for octet in EICAR),
        "qp soft breaks": head
        + b"Content-Transfer-Encoding: quoted-printable\n\n"
        + b"=  \n".join(EICAR[at : at + 7] for at in range(0, 68, 7)),
        "uuencode": head + b"Content-Transfer-Encoding: x-uuencode\n\nbegin 644 a\n" + uu + b"end",
        "no blank line": head + b"Content-Transfer-Encoding: base64\n" + plain,
        "no header": b"\n" + EICAR,
        "text": b"Content-Type: text/plain\n" + inner,
        "two types": b"Content-Type: text/plain\n" + head + inner,
        "embedded": b"Content-Type: message/rfc822\n\n" + head + inner,
        "embedded encoded": b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(head + b"\n" + EICAR),
        "nested same boundary": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + head + inner,
        "nested two boundaries": b"Content-Type: multipart/mixed; boundary=c; boundary=d\n\n--d\n" + head + inner,
        "nested long boundary": b"Content-Type: multipart/mixed; boundary=" + b"c" * 71 + b"\n\n--" + b"c" * 71 + b"\n" + head + inner,
        "nested empty boundary": b'Content-Type: multipart/mixed; boundary=""\n\n--zz\n' + head + inner,
    }
    messages = [(name, top + b"--b\n" + part + b"\n--b--\n") for name, part in attached.items()]
    messages += [(f"unclosed {name}", top + b"--b\n" + part) for name, part in attached.items()]
    messages += [
        ("in epilogue", top + b"--b\n\nx\n--b--\n" + EICAR + b"\n"),
        ("in preamble", top + EICAR + b"\n--b\n\nx\n--b--\n"),
        ("single part", b"Content-Transfer-Encoding: base64\n\n" + plain + b"\n"),
        ("2047 type", b"Content-Type: =?utf-8?q?multipart/mixed?=; boundary=b\n\n--b\n" + head + inner + b"\n--b--\n"),
        ("2231 boundary", b"Content-Type: multipart/mixed; boundary*=utf-8''%62\n\n--b\n" + head + inner + b"\n--b--\n"),
        ("continued boundary", b"Content-Type: multipart/mixed; boundary*0=x; boundary*1=y\n\n--xy\n" + head + inner + b"\n--xy--\n"),
        ("two top types", b"Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n" + head + inner + b"\n--b--\n"),
        ("commented type", b"Content-Type: multipart/(x)mixed; (;) boundary=b\n\n--b\n" + head + inner + b"\n--b--\n"),
    ]
    return messages


@pytest.mark.parametrize(("name", "message"), encodings())
def test_eicar_is_found_or_the_message_is_noted_as_ambiguous(name: str, message: bytes) -> None:
    ear, notes = walk(message)
    found = any(EICAR in decoded for decoded in ear.decodes.values())
    assert found or notes & {Note.DUPLICATE_HEADER, Note.ODD_BOUNDARY, Note.ODD_ENCODING, Note.ENCODED_CONTAINER, Note.ODD_HEADER}


@pytest.mark.parametrize(
    ("value", "word", "name", "readings"),
    [
        (b'text/plain; name="a.txt"', "text/plain", "a.txt", ("a.txt",)),
        (b"Text/PLAIN ; NAME = a.txt", "text/plain", "a.txt", ("a.txt",)),
        (b'x/y; name="a;b.exe"', "x/y", "a;b.exe", ("a;b.exe",)),
        (b'x/y; name="a\\"b"', "x/y", 'a"b', ('a"b',)),
        (b"x/y; name==?utf-8?q?=C3=A4.exe?=", "x/y", "ä.exe", ("ä.exe",)),
        (b"x/y; name*=utf-8'de'%C3%A4.exe", "x/y", "ä.exe", ("ä.exe",)),
        (b"x/y; name*0=a; name*1=.exe", "x/y", "a.exe", ("a.exe",)),
        (b"x/y; name*1=.exe; name*0*=utf-8''%C3%A4", "x/y", "ä.exe", ("ä.exe",)),
        (b"x/y; name=a.txt; name*=utf-8''b.exe", "x/y", "b.exe", ("b.exe", "a.txt")),
        (b"x/y; name=a b.exe", "x/y", "a b.exe", ("a b.exe", "a")),
        (b'x/y; name="a.txt" .exe', "x/y", "a.txt", ("a.txt", 'a.txt" .exe')),
        (b"x/y (comment; name=no) ; name=a", "x/y", "a", ("a",)),
    ],
)
def test_parameters_in_every_spelling(value: bytes, word: str, name: str, readings: tuple[str, ...]) -> None:
    parsed = parse_value(value)
    assert (parsed.word, parsed.parameters["name"]) == (word, name)
    assert set(readings) <= set(parsed.readings["name"])


@given(st.binary(max_size=300))
def test_any_value_is_taken(octets: bytes) -> None:
    parse_value(b"x/y; " + octets)


def longest_call(message: bytes) -> tuple[float, MimeWalker, Ear]:
    head, _, body = message.partition(b"\r\n\r\n")
    walker, ear = MimeWalker(), Ear()
    walker.add(ear)
    longest = 0.0
    begin = time.process_time()
    walker.start(HeaderList.parse(head + b"\r\n").fields)
    longest = time.process_time() - begin
    for at in range(0, len(body), 65536):
        begin = time.process_time()
        walker.feed(body[at : at + 65536])
        longest = max(longest, time.process_time() - begin)
    begin = time.process_time()
    walker.finish()
    return max(longest, time.process_time() - begin), walker, ear


TORTURE = {
    "depth 10000": b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
    + b"".join(b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (at, at + 1) for at in range(10_000)),
    "10000 embedded": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    "100000 parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" * 100_000,
    "100000 bare boundaries": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n" * 100_000,
    "dashes": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--c\r\n" * 100_000,
    "fallback dashes": b"Content-Type: multipart/mixed\r\n\r\n" + b"--=\r\n" * 100_000,
    "1 MB header": b"X: y\r\nContent-Type: multipart/mixed; boundary=b\r\nX-Long: " + b"x" * 1_000_000 + b"\r\n\r\n--b\r\n\r\nx\r\n",
    "1 MB part header": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain;" + b" a=b;\r\n" * 150_000,
    "3000 parameters": b"Content-Type: text/plain" + b"".join(b"; p%d=x" % at for at in range(3000)) + b"\r\n\r\nx\r\n",
    "3000 pieces": b"Content-Type: text/plain" + b"".join(b"; p*%d=x" % at for at in range(3000)) + b"\r\n\r\nx\r\n",
    "parentheses": b"Content-Type: " + b"(" * 60_000 + b"\r\n\r\nx\r\n",
    "quotes": b'Content-Type: x/y; a="' + b'\\"' * 30_000 + b"\r\n\r\nx\r\n",
    "semicolons": b"Content-Type: x/y" + b"; " * 30_000 + b"\r\n\r\nx\r\n",
    "encoded words": b'Content-Type: x/y; name="' + b"=?utf-8?q?a?= " * 4_000 + b'"\r\n\r\nx\r\n',
    "100000 type fields": b"Content-Type: text/plain\r\n" * 9_000 + b"\r\nx\r\n",
    "equal signs": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=" * 400_000 + b"\r\n",
    "blanks behind equal": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + (b"=" + b" " * 900) * 500,
    "begin lines": b"Content-Type: text/plain\r\n\r\n" + b"begin 644 a\r\n" * 30_000,
    "begin and end": b"Content-Type: text/plain\r\n\r\n" + b"begin 644 a\r\nend\r\n" * 30_000,
    "uu lines": b"Content-Type: text/plain\r\n\r\nbegin 644 a\r\n" + b"#86)C\r\n" * 60_000,
    "base64": b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"YWJj\r\n" * 100_000,
    "utf-7": b"Content-Type: text/plain; charset=utf-7\r\n\r\n" + b"+AAA-" * 100_000,
}


@pytest.mark.parametrize("name", TORTURE)
def test_no_message_holds_the_reactor(name: str) -> None:
    longest = min(longest_call(TORTURE[name])[0] for _ in range(2))
    assert longest < 0.05


def test_limits_are_noted_and_the_rest_is_passed_on_as_it_is() -> None:
    _, walker, ear = longest_call(TORTURE["depth 10000"])
    assert Note.TOO_DEEP in walker.notes and len(ear.parts) < 50
    _, walker, ear = longest_call(TORTURE["100000 parts"] + b"hidden.example.com\r\n")
    assert Note.TOO_MANY_PARTS in walker.notes and MAX_PARTS <= len(ear.parts) <= MAX_PARTS + 1
    assert "hidden.example.com" in ear.texts[ear.parts[-1].number]
