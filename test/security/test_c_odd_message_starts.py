"""Row C and the headers of row L: our own header fields stand whole and first, however a message begins.

Nothing a message starts with joins a field of ours, ends our header section early or makes a field of ours part of the
body; and sizes are those of the octets that came.
"""

from __future__ import annotations

import time

import pytest

from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"
STARTS = {
    "mailbox line": b"From joe@example.org Sat Jul  4 09:05:03 2026\r\nSubject: x\r\n\r\nhi\r\n",
    "quoted mailbox line": b">From joe Sat Jul  4\r\nSubject: x\r\n\r\nhi\r\n",
    "mailbox line alone": b"From joe Sat Jul  4\r\n",
    "dot": b"..\r\nSubject: x\r\n\r\nhi\r\n",
    "dots": b"....\r\n\r\nhi\r\n",
    "empty line": b"\r\nhi\r\n",
    "two empty lines": b"\r\n\r\nhi\r\n",
    "blank": b" folded into what?\r\nSubject: x\r\n\r\nhi\r\n",
    "tab": b"\tX-Injected: yes\r\nSubject: x\r\n\r\nhi\r\n",
    "blank line of blanks": b"   \r\nSubject: x\r\n\r\nhi\r\n",
    "no header": b"hello\r\nSubject: x\r\n",
    "colon first": b": x\r\nSubject: x\r\n\r\nhi\r\n",
    "name with blank": b"Sub ject: x\r\n\r\nhi\r\n",
    "name with NUL": b"Sub\0ject: x\r\n\r\nhi\r\n",
    "8-bit name": b"S\xfcbject: x\r\n\r\nhi\r\n",
    "own field": b"Received: from forged\r\nX-smtpf-Report: forged\r\n\r\nhi\r\n",
    "no body": b"Subject: x\r\n",
    "no end": b"Subject: x\r\nTo: y\r\n folded\r\n",
    "empty": b"",
    "long first line": b"X: " + b"y" * 5000 + b"\r\n\r\nhi\r\n",
}


@pytest.mark.parametrize("cut", [0, 1, 3, 9])
@pytest.mark.parametrize("name", STARTS)
def test_our_fields_stand_whole_before_whatever_comes(name: str, cut: int) -> None:
    text = STARTS[name]
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        client.say(line)
    heard = client.send(text[:cut]) + client.send(text[cut:]) + client.send(b".\r\n")
    assert codes(heard) == ["250 #554"]
    (content,) = hop.contents
    head, _, body = content.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0].startswith(b"Received")
    assert not lines[0].startswith((b" ", b"\t"))
    (at,) = [count for count, line in enumerate(lines) if line.startswith(b"Received: from mail.example.org ")]
    assert lines[at + 1].startswith(b"\tby mx.test ")
    assert lines[at + 2].startswith(b"\twith ESMTP id ")
    after = lines[at + 3] if len(lines) > at + 3 else b"X:"
    assert not after.startswith((b" ", b"\t")), "something joined our field"
    assert len([line for line in lines if line.startswith(b"X-smtpf-Report: sid=")]) == 1
    assert b"X-Injected" not in head
    assert all(b":" in line or line[:1] in b" \t" for line in lines)
    octets = len(text)
    assert f" b={octets} " in talk.logged(720)[0]
    if name in ("no header", "colon first", "name with blank", "blank", "tab", "dot"):
        first = text.split(b"\r\n")[0]
        assert body.startswith(first)


@pytest.mark.parametrize(
    "text",
    [
        b"".join(b"X-%d: y\r\n" % count for count in range(20_000)) + b"\r\nhi\r\n",
        b"X: " + b"y" * (1 << 20) + b"\r\n\r\nhi\r\n",
        b"X: y\r\n" + b" z\r\n" * 50_000 + b"\r\nhi\r\n",
        b"Subject: " + b"=?utf-8?q?x?= " * 5000 + b"\r\n\r\nhi\r\n",
        b"From: " + b"(" * 20_000 + b"\r\n\r\nhi\r\n",
        b"To: " + b"<a@b>," * 20_000 + b"\r\n\r\nhi\r\n",
        b"Content-Type: text/plain" + b"; a=b" * 3000 + b"\r\n\r\nhi\r\n",
        b":" * 70_000 + b"\r\n\r\nhi\r\n",
        b"A" * 70_000 + b":\r\n\r\nhi\r\n",
    ],
    ids=["many", "long", "folded", "encoded", "comments", "addresses", "parameters", "colons", "name"],
)
def test_a_hostile_header_section_gets_a_verdict(text: bytes) -> None:
    talk = Talk(route=ROUTE)
    hop = talk.hop("192.0.2.1")
    client = talk.greeted()
    for line in ("MAIL FROM:<joe@example.org>", "RCPT TO:<ann@example.com>", "DATA"):
        client.say(line)
    began = time.process_time()
    heard = codes(client.send(text + b".\r\n"))
    assert time.process_time() - began < 2.0
    assert heard[0][:3] in ("250", "550", "554")
    assert not talk.logged(539)
    assert len(hop.contents) == (heard[0][:3] == "250")
    assert codes(client.say("NOOP")) == ["250 #547"]
