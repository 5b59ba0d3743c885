"""Where a message ends, whatever the segmentation; and that it ends once on the way out."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpf.smtp.dot_stuffing import CHUNK, MAX_LINE, DotReader, DotWriter

TRICKY = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"..", b"\0", b"a", b"Subject: x", b"\r\n.\r\n", b"\n.\n", b".\r", b"x" * 1100]),
    max_size=30,
).map(b"".join)

LINES = st.lists(st.sampled_from([b"", b"a", b"a.b", b" .", b"\0.", b"x" * 80]), max_size=12).map(b"\r\n".join)
"""Lines of which none begins with a dot. Cut at any place their pieces can begin with dots and with halves of line ends."""


def read(segments: list[bytes], strict: bool = True) -> tuple[DotReader, bytes]:
    reader = DotReader(strict)
    content = b"".join(map(reader.feed, segments))
    return reader, content


def wire_of(head: bytes, pieces: list[bytes], plain: bool) -> bytes:
    """A message as it goes out when its body is, or is not, known to be plain."""
    writer = DotWriter()
    write = writer.write_plain if plain else writer.write
    return writer.write(head) + b"".join(map(write, pieces)) + writer.end()


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(octets), *(place % (len(octets) + 1) for place in places)})
    return [octets[left:right] for left, right in itertools.pairwise(edges)]


def facts(reader: DotReader) -> tuple[object, ...]:
    return (
        reader.finished,
        reader.rest,
        reader.octets,
        reader.bare_cr,
        reader.bare_lf,
        reader.nul,
        reader.plain,
        reader.longest_line,
        reader.after_lone_dot,
    )


PUBLISHED = [
    (b"Subject: x\r\n\r\nhi\r\n.\r\n", True, True, b"Subject: x\r\n\r\nhi\r\n"),
    (b"hi\n.\r\n", True, False, b"hi\r\n.\r\n"),
    (b"hi\r\n.\n", True, False, b"hi\r\n.\r\n"),
    (b"hi\r\n..\r\n.\r\n", True, True, b"hi\r\n.\r\n"),
    (b".\r\n", True, True, b""),
]


@pytest.mark.parametrize(("sent", "lenient_ends", "strict_ends", "content"), PUBLISHED)
def test_published_ends(sent: bytes, lenient_ends: bool, strict_ends: bool, content: bytes) -> None:
    assert read([sent], strict=False)[0].finished is lenient_ends
    reader, got = read([sent])
    assert reader.finished is strict_ends
    assert reader.after_lone_dot is not strict_ends
    if not strict_ends:
        got += reader.feed(b"\r\n.\r\n")
        content += b"\r\n"
    assert got == content


def test_octets_count_stuffed_dots_and_not_the_last_line() -> None:
    reader, content = read([b"..a\r\nb\r\n.\r\nQUIT\r\n"])
    assert (reader.octets, content, reader.rest) == (8, b".a\r\nb\r\n", b"QUIT\r\n")


SMUGGLING = [
    b"\n.\n",
    b"\r.\r",
    b"\r.\n",
    b"\n.\r",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
]


@pytest.mark.parametrize("end", SMUGGLING)
def test_smuggling_ends_are_content_in_every_segmentation_and_never_end_it_at_the_next_hop(end: bytes) -> None:
    sent = b"hi" + end + b"MAIL FROM:<evil@example.com>\r\n.\r\n"
    critical = len(b"hi" + end)
    whole, content = read([sent])
    assert whole.finished and whole.rest == b""
    assert b"MAIL FROM" in content
    assert whole.bare_cr or whole.bare_lf or whole.nul
    places = [*range(1, critical + 1), *range(len(sent) - 5, len(sent))]
    for picked in itertools.chain(itertools.combinations(places, 2), [tuple(places)], [tuple(range(len(sent)))]):
        reader, again = read(cut(sent, list(picked)))
        assert again == content
        assert facts(reader) == facts(whole)
    for place in range(len(content) + 1):
        wire = wire_of(b"", [content[:place], content[place:]], whole.plain)
        assert wire.count(b"\r\n.\r\n") == 1 and wire.endswith(b"\r\n.\r\n")


@example(b".\r\n", [], True)
@example(b"\n", [], False)
@given(TRICKY | LINES, st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_plain_is_content_as_it_came_without_a_dot_at_the_begin_of_a_line(octets: bytes, places: list[int], strict: bool) -> None:
    reader, content = read(cut(octets + b"\r\n.\r\n", places), strict)
    as_it_came = content == (octets + b"\r\n")[: reader.octets]
    assert reader.plain is (as_it_came and not re.search(rb"(?m)^\.", content))


def test_pieces_of_an_unfinished_line_are_not_plain() -> None:
    reader = DotReader()
    assert reader.feed(b"a\r\n" * CHUNK) and reader.plain
    for _ in range(MAX_LINE // 65536 + 1):
        reader.feed(b"x" * 65536)
    assert not reader.plain


@given(TRICKY, LINES, st.lists(st.integers(0, 10_000), max_size=12))
def test_a_plain_body_cut_anywhere_behind_any_head_goes_out_as_any_other(head: bytes, lines: bytes, places: list[int]) -> None:
    reader, content = read([lines + b"\r\n.\r\n"])
    assert reader.plain
    for start in range(len(content) + 1):
        pieces = cut(content[start:], places)
        assert wire_of(head, pieces, True) == wire_of(head, pieces, False)


@given(TRICKY, st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_any_segmentation_gives_the_same(octets: bytes, places: list[int], strict: bool) -> None:
    octets += b"\r\n.\r\nNEXT"
    whole, content = read([octets], strict)
    pieces, again = read(cut(octets, places), strict)
    single, once_more = read([octets[at : at + 1] for at in range(len(octets))], strict)
    assert content == again == once_more
    assert facts(whole) == facts(pieces) == facts(single)
    assert whole.finished


@given(TRICKY)
def test_content_has_whole_crlf_lines(octets: bytes) -> None:
    reader, content = read([octets + b"\r\n.\r\n"])
    assert reader.finished
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", content)
    assert content == b"" or content.endswith(b"\r\n")
    lines = [len(line) + 2 for line in content.split(b"\r\n")[:-1]]
    assert reader.longest_line == max((length for length in lines if length > 1000), default=0)


@example(b"\r\n.\n\r\r", [])
@given(st.one_of(TRICKY, st.binary(max_size=200)), st.lists(st.integers(0, 10_000), max_size=8))
def test_whatever_is_written_ends_once_on_the_wire(octets: bytes, places: list[int]) -> None:
    writer = DotWriter()
    wire = b"".join(map(writer.write, cut(octets, places))) + writer.end()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    assert (b"\r\n" + wire).find(b"\r\n.\r\n") == len(wire) - 3
    for line in wire.split(b"\r\n")[:-2]:
        assert not line.startswith(b".") or line.startswith(b"..")


@given(TRICKY, st.lists(st.integers(0, 10_000), max_size=8))
def test_what_is_written_is_read_back(octets: bytes, places: list[int]) -> None:
    _, content = read([octets + b"\r\n.\r\n"])
    writer = DotWriter()
    wire = b"".join(map(writer.write, cut(content, places))) + writer.end()
    reader, again = read([wire])
    assert reader.finished and again == content
    assert not reader.bare_cr and not reader.bare_lf


@pytest.mark.parametrize(
    ("octets", "wire"),
    [
        (b"a\r.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n.\rb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
        (b"\n.\n", b"\r\n..\r\n.\r\n"),
        (b"\r.", b"\r\n..\r\n.\r\n"),
    ],
)
def test_bare_line_ends_in_front_of_a_dot_are_mended_before_the_dot_is_stuffed(octets: bytes, wire: bytes) -> None:
    for cut in range(len(octets) + 1):
        writer = DotWriter()
        assert writer.write(octets[:cut]) + writer.write(octets[cut:]) + writer.end() == wire


def test_message_without_final_line_end_gets_one() -> None:
    writer = DotWriter()
    assert writer.write(b"hi") + writer.end() == b"hi\r\n.\r\n"


def test_empty_message_is_a_dot() -> None:
    assert DotWriter().end() == b".\r\n"


def test_chunks_hold_whole_lines_and_the_published_size() -> None:
    reader = DotReader()
    line = b"x" * 70 + b"\r\n"
    chunks = [reader.feed(line * count + b"x") for count in range(1, 2000)]
    assert all(len(chunk) >= CHUNK and chunk.endswith(b"\r\n") for chunk in chunks if chunk)
    assert b"".join(chunks) + reader.feed(b"\r\n.\r\n") == b"".join(line * count + b"x" for count in range(1, 2000)) + b"\r\n"


def test_endless_line_is_bounded_and_given_out_in_pieces() -> None:
    reader = DotReader()
    got = 0
    for _ in range(100):
        got += len(reader.feed(b"x" * 65536))
    assert 100 * 65536 - got <= MAX_LINE + 2 * 65536
    got += len(reader.feed(b"\r\n.\r\n"))
    assert reader.finished
    assert got == reader.octets == reader.longest_line == 100 * 65536 + 2


@pytest.mark.parametrize("limit", [998, 999, 1000, 65534, 65535, 65536, 65537])
def test_line_around_a_limit_never_leaves_data(limit: int) -> None:
    sent = b"a" * limit + b"\r\nQUIT\r\n.\r\n"
    for offset in range(limit - 2, limit + 4):
        reader, content = read([sent[:offset], sent[offset:]])
        assert reader.finished and content == sent[:-3]
        assert reader.longest_line == (limit + 2 if limit + 2 > 1000 else 0)


def test_ordinary_text_is_fast() -> None:
    wire = (b"x" * 70 + b"\r\n") * 9000
    segments = [wire[at : at + 65536] for at in range(0, len(wire), 65536)] * 20
    best = 0.0
    for _ in range(5):
        reader = DotReader()
        begin = time.process_time()
        for segment in segments:
            reader.feed(segment)
        best = max(best, len(wire) * 20 / (time.process_time() - begin))
    assert best > 100e6
