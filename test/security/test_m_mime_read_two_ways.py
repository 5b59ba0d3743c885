"""M: attachments in every structure that some mail program opens: names are found, in archives too, or the message is refused."""

from __future__ import annotations

import base64

import pytest

from test.filters.test_attachment import REFUSED, sent, zipped
from test.message.test_mime import EICAR, encodings
from test.support.talk import codes

NAMED = [
    (
        name,
        message.replace(b"application/octet-stream", b'application/octet-stream; name="run.exe"').replace(
            b"begin 644 a", b"begin 644 run.exe"
        ),
    )
    for name, message in encodings()
    if b"application/octet-stream" in message or b"begin 644" in message
]


@pytest.mark.parametrize(("name", "message"), NAMED, ids=[name for name, _ in NAMED])
def test_no_structure_hides_a_name(name: str, message: bytes) -> None:
    _, reply = sent(message)
    assert codes([reply]) == REFUSED


ZIPPED = [
    (name, message.replace(base64.b64encode(EICAR), base64.encodebytes(zipped("run.exe")).strip()))
    for name, message in encodings()
    if base64.b64encode(EICAR) in message
]


@pytest.mark.parametrize(("name", "message"), ZIPPED, ids=[name for name, _ in ZIPPED])
def test_no_structure_hides_an_archive(name: str, message: bytes) -> None:
    _, reply = sent(message)
    assert codes([reply]) == REFUSED
