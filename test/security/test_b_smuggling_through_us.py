"""B: the next hop trusts our address, so no message may end early there and turn its rest into commands."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from smtpf.smtp.client import NextHopProtocol
from smtpf.smtp.dot_stuffing import DotReader

ODD = st.sampled_from([b"\r", b"\n", b".", b"\r\n", b".\r\n", b"\r\n.", b"\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\n"])


def sent_on(head: bytes, pieces: list[bytes], *, plain: bool) -> bytes:
    """What the next hop gets behind its 354."""
    wire = StringTransport()
    protocol = NextHopProtocol(Clock(), 300.0)
    protocol.makeConnection(wire)
    protocol.dataReceived(b"220 hop\r\n")
    ensureDeferred(protocol.data(10))
    protocol.dataReceived(b"354 go\r\n")
    wire.clear()
    given_pieces = iter([piece for piece in pieces if piece])
    ensureDeferred(protocol.send_content(head, lambda: next(given_pieces, b""), 10, 10, plain=plain))
    return wire.value()


def one_message(sent: bytes) -> None:
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    lines = sent.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert all(line[:1] != b"." or line[:2] == b".." for line in lines[:-2])


@given(st.lists(st.binary(max_size=30) | ODD, max_size=20), st.binary(max_size=20) | ODD)
def test_any_content_is_one_message_on_the_wire(pieces: list[bytes], head: bytes) -> None:
    one_message(sent_on(head, pieces, plain=False))


@given(st.lists(st.binary(max_size=30) | ODD, max_size=20), st.lists(st.integers(0, 600), max_size=6), st.binary(max_size=20) | ODD)
def test_what_a_client_said_is_one_message_on_the_wire_wherever_its_body_begins(said: list[bytes], places: list[int], head: bytes) -> None:
    reader = DotReader()
    content = b"".join(map(reader.feed, (*said, b"\r\n.\r\n")))
    edges = [*sorted(place % (len(content) + 1) for place in places), len(content)]
    pieces = [content[start:end] for start, end in pairwise(edges)]
    one_message(sent_on(head, pieces, plain=reader.plain))
