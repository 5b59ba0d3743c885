"""B: the next hop trusts our address, so no message may end early there and turn its rest into commands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from smtpf.smtp.client import NextHopProtocol

ODD = st.sampled_from([b"\r", b"\n", b".", b"\r\n", b".\r\n", b"\r\n.", b"\n.\n", b"\r.\r", b"\r\n.\r", b"\r\n\0.\r\n", b"\r\r\n.\r\n"])


@given(st.lists(st.binary(max_size=30) | ODD, max_size=20), st.binary(max_size=20) | ODD)
def test_any_content_is_one_message_on_the_wire(pieces: list[bytes], head: bytes) -> None:
    wire = StringTransport()
    protocol = NextHopProtocol(Clock(), 300.0)
    protocol.makeConnection(wire)
    protocol.dataReceived(b"220 hop\r\n")
    ensureDeferred(protocol.data(10))
    protocol.dataReceived(b"354 go\r\n")
    wire.clear()
    given_pieces = iter([piece for piece in pieces if piece])
    ensureDeferred(protocol.send_content(head, lambda: next(given_pieces, b""), 10, 10))
    sent = wire.value()
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    lines = sent.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert all(line[:1] != b"." or line[:2] == b".." for line in lines[:-2])
