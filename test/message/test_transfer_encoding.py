"""What quoted-printable content decodes to, whatever was written there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.message.transfer_encoding import QuotedPrintable


def decoded(*pieces: bytes) -> bytes:
    decoder = QuotedPrintable()
    return b"".join(decoder.decode(piece) for piece in pieces) + decoder.end()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (b"a=3Db=3d", b"a=b="),
        (b"one=\r\ntwo=\nthree", b"onetwothree"),
        (b"one= \t\r\ntwo", b"onetwo"),
        (b"no code: =zz = =", b"no code: =zz = ="),
        (b"a==41", b"a=A"),
        (b"===", b"==="),
        (b"=\rhttp://evil.example/\r\n", b"=\rhttp://evil.example/\r\n"),
        (b"=41=\rkept=\r\njoined", b"A=\rkeptjoined"),
        (b"a_b=0D\r\n", b"a_b\r\r\n"),
    ],
)
def test_quoted_printable(written: bytes, meant: bytes) -> None:
    assert decoded(written) == meant


@given(
    st.lists(st.sampled_from([b"=", b"4", b"1", b"\r", b"\n", b" ", b"x", b"=41", b"=\r\n"]), max_size=30).map(b"".join), st.integers(0, 60)
)
def test_any_segmentation_of_quoted_printable_decodes_the_same(written: bytes, place: int) -> None:
    assert decoded(written[:place], written[place:]) == decoded(written)
