"""grey-content: the text that is compared, and whole sessions by the published time line."""

from __future__ import annotations

import hashlib

import pytest

from smtpf.filters.grey import GREY_CONTENT, GREY_KEY
from smtpf.filters.grey_content import GREY_CONTENT_HIT, GREY_CONTENT_SAVE, GREY_HASH_MISMATCH, GREY_HASH_REPLACED, TextDigest
from smtpf.message.mime import MimeWalker
from smtpf.message.spool import SAVE_DIR
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\n"
ZONE = """
10.69.2.81.in-addr.arpa PTR out.pool.kestrel.net
out.pool.kestrel.net A 81.2.69.10
"""


def digest_of(body: bytes, fields: tuple[bytes, ...] = (), size: int = 1000) -> str:
    walker = MimeWalker()
    listener = TextDigest()
    walker.add(listener)
    walker.start(fields)
    for at in range(0, len(body), size):
        walker.feed(body[at : at + size])
    walker.finish()
    return listener.digest


def of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


HTML = (b"Content-Type: text/html\r\n",)
MULTI = (b'Content-Type: multipart/mixed; boundary="b"\r\n',)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("body", "fields", "said"),
    [
        (b"hello content\r\n", (), b"hellocontent"),
        (b" hello   content \r\n\r\n", (), b"hellocontent"),
        ("he\u200bllo\ufeff con\u2060tent\r\n".encode(), (), b"hellocontent"),
        (b"<p>a<!-- x1 -->b</p>\r\n", HTML, b"<p>ab</p>"),
        (b"<p>a<!-- x1 -->b</p>\r\n", (), b"<p>a<!--x1-->b</p>"),
        (b"pre\r\n--b\r\n\r\none\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\ndHdv\r\n--b--\r\nend\r\n", MULTI, b"onetwo"),
        (b"--b\r\nContent-Type: application/ms-tnef\r\n\r\nzzz\r\n--b\r\n\r\none\r\n--b--\r\n", MULTI, b"one"),
        (b"1 < 2\r\n", HTML, b"1<2"),
    ],
)
def test_text_that_counts(body, fields, said, size):
    assert digest_of(body, fields, size) == of(said)


class Here:
    def __init__(self, options=None):
        self.talk = Talk({GREY_KEY: "ptr,mail,rcpt", GREY_CONTENT: "+", **(options or {})}, route=ROUTE, zone=ZONE)
        self.hop = self.talk.hop("192.0.2.1")

    def attempt(self, body, message_id="", sender="fred@example.com"):
        self.client = self.talk.greeted("81.2.69.10")
        self.client.say(f"MAIL FROM:<{sender}>")
        self.client.say("RCPT TO:<john@hill.org>")
        head = f"Message-ID: <{message_id}>\r\n" if message_id else ""
        return codes(self.client.message(f"Subject: x\r\n{head}\r\n{body}\r\n"))

    def wait(self, seconds):
        self.talk.net.pass_time(seconds)

    def record(self, key):
        found = self.talk.cache.get(key)
        return found.value if found is not None else None


FULL = "grey:pool.kestrel.net,fred@example.com,john@hill.org"


def test_time_line():
    here = Here()
    assert here.attempt("message A") == ["451 #552"]
    assert here.client.gone
    assert here.talk.logged(394) == [f"grey-content listed {{{FULL}}} for 600 seconds"]
    a, b = of(b"messageA"), of(b"messageB")
    assert here.record(FULL) == f"4 {a} {a}"
    assert len(here.record(FULL)) == 67
    here.wait(100)
    assert here.attempt("message A") == ["451 #552"]
    assert len(here.talk.logged(387)) == 1
    here.wait(600)
    assert here.attempt("message B") == ["450 #553"]
    assert not here.client.gone
    assert here.talk.logged(393) == ["grey-content message mismatch"]
    assert here.record(FULL) == f"4 {a} {b}"
    here.wait(10)
    assert here.attempt("message   A") == ["250 #554"]
    assert here.record("grey:pool.kestrel.net") == "0"
    assert b"X-Grey-Report" in here.hop.contents[0]
    here.wait(10)
    assert here.attempt("message C") == ["250 #554"]
    assert (here.talk.counted(GREY_CONTENT_HIT), here.talk.counted(GREY_HASH_MISMATCH)) == (2, 1)
    assert 'f="grey_content,grey_hash_mismatch"' in " ".join(here.talk.logged(720))


def test_sender_may_rewrite_its_message_once():
    here = Here()
    here.attempt("first", "m1@x.org")
    here.wait(601)
    assert here.attempt("second", "m1@x.org") == ["450 #553"]
    assert here.talk.logged(964) == [
        f"grey content hash replaced msg-id=m1@x.org key={{{FULL}}} value={{4 {of(b'first')} {of(b'first')}}} hash={of(b'second')}"
    ]
    assert here.attempt("third", "m1@x.org") == ["450 #553"]
    assert len(here.talk.logged(393)) == 1
    assert here.attempt("second", "m1@x.org") == ["250 #554"]
    assert here.talk.counted(GREY_HASH_REPLACED) == 1


def test_bounces_are_not_compared():
    here = Here()
    assert here.attempt("one", sender="") == ["451 #552"]
    here.wait(601)
    assert here.attempt("two", sender="") == ["250 #554"]


def test_attempt_made_before_the_option_was_set_passes_after_its_time():
    here = Here()
    here.talk.cache.put(FULL, "4")
    here.wait(601)
    assert here.attempt("anything") == ["250 #554"]


def test_compared_text_can_be_kept(tmp_path):
    here = Here({GREY_CONTENT_SAVE: "+", SAVE_DIR: str(tmp_path)})
    here.attempt("message A")
    (kept,) = tmp_path.glob("*.grey")
    assert kept.read_bytes() == b"messageA"
