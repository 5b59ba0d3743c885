"""digest-bl in whole sessions."""

from __future__ import annotations

import hashlib

import pytest

from smtpf.filters.digest import DIGEST_BL, HIT, by_kind, written
from test.support.talk import Talk, codes

MULTI = (
    'Subject: x\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\npre\r\n--b\r\n\r\none\r\n'
    "--b\r\nContent-Transfer-Encoding: base64\r\n\r\neHg=\r\n--b--\r\n"
)


def send(option, zone, text):
    talk = Talk({DIGEST_BL: option}, route="route:hill.org\tFORWARD: 192.0.2.1\n", zone=f"{zone}\nd.net SOA ns.d.net h.d.net 1\n")
    talk.hop("192.0.2.1")
    client = talk.greeted("81.2.69.10")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    return talk, codes(client.message(text))


@pytest.mark.parametrize(
    ("digest", "text", "answer"),
    [
        ("6bf9e70a1f928aba143ef1eebe2720b5", MULTI, "550 #870"),
        ("9336ebf25087d91c818ee6e9ec29f8c1", MULTI, "550 #870"),
        (hashlib.md5(b"one").hexdigest(), MULTI, "550 #870"),
        (hashlib.md5(b"xx\r\n").hexdigest(), "Subject: x\r\n\r\nxx\r\n", "550 #870"),
        (hashlib.md5(b"").hexdigest(), MULTI, "250 #554"),
        (hashlib.md5(b"two").hexdigest(), MULTI, "250 #554"),
    ],
)
def test_parts(digest, text, answer):
    talk, answers = send("d.net", f"{digest}.d.net A 127.0.0.2", text)
    assert answers == [answer]
    if answer[0] == "5":
        assert talk.logged(523) == [f"digest-bl found {digest} d.net"]
        assert talk.counted(HIT) == 1
        assert 'f="policy"' in talk.logged(720)[0]


def test_lists_of_other_digests():
    digest = "o2jmhljvic5yapacbm5o4zwnrcdremru5igg44kdycw5op7ughwq"
    assert written(hashlib.sha256(b"one").digest()) == digest
    _, answers = send("m.net;sha256!d.net", f"{digest}.d.net A 127.0.0.2", MULTI)
    assert answers == ["550 #870"]


def test_kinds_of_lists():
    found = by_kind(("a.net", "sha1!b.net:127.0.0.2", "127.0.0.3", "c.net/2", "SHA256!d.net"))
    assert found == {"md5": ["a.net", "c.net/2"], "sha1": ["b.net:127.0.0.2", "127.0.0.3"], "sha256": ["d.net"]}
