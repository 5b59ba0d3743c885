"""iXhash digests by the published examples, and whole sessions."""

from __future__ import annotations

import pytest

from smtpf.filters.ixhash import HIT, IXHASH_BL, BodyDigests
from test.support.talk import Talk, codes

LONG = b"one two three four five six seven eight nine ten eleven twelve\r\n a b c d e f g h i j k l\r\nend\r\n"
MIXED = b"a b\r\nc  d\te\r\n\r\nHi there (you) <x@y> why?\r\n"
BUY = b"buy_now!! http://x.example/ <b>99%</b>\r\n"


def of(body, size=10_000):
    made = BodyDigests()
    for at in range(0, len(body), size):
        made.take(body[at : at + size])
    return made


@pytest.mark.parametrize(
    ("body", "digest"),
    [
        (LONG, "09b259488bf5635751bb2e6f72668dbb"),
        (MIXED, "c14d5aa1f0c4eb5637b10a6f4e0af600"),
        (BUY, "ac8d8eeb9382a607839b3dee2bfd0b2c"),
        (b"aabbccdd==\r\n", "e2fc714c4727ee9395f324cd2e7f331f"),
        (b"Hi!\r\n", ""),
        (b"", ""),
    ],
)
def test_chosen_digest(body, digest):
    assert of(body).chosen == digest


def test_all_three_of_a_body():
    assert of(MIXED).all == (
        "0f9aa5a4b7dace88f7c95aa4e7b1e3d2",
        "c14d5aa1f0c4eb5637b10a6f4e0af600",
        "d534238e4d1b1c02b04129010ca3b2aa",
    )


def test_pieces_make_no_difference():
    body = b"aa  bb!!\r\n" * 50
    assert of(body, 10).all == of(body).all


@pytest.mark.parametrize(("body", "answer"), [("aabbccdd==", "550 #988"), ("another body", "250 #554")])
def test_listed_body_is_refused(body, answer):
    talk = Talk(
        {IXHASH_BL: "ix.lists.net"},
        route="route:hill.org\tFORWARD: 192.0.2.1\n",
        zone="e2fc714c4727ee9395f324cd2e7f331f.ix.lists.net A 127.0.0.2\nix.lists.net SOA ns.lists.net h.lists.net 1\n",
    )
    talk.hop("192.0.2.1")
    client = talk.greeted("81.2.69.10")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<bob@hill.org>")
    assert codes(client.message(f"Subject: x\r\n\r\n{body}\r\n")) == [answer]
    if answer[0] == "5":
        assert talk.logged(523) == ["ixhash-bl found e2fc714c4727ee9395f324cd2e7f331f ix.lists.net"]
        assert talk.counted(HIT) == 1
        assert 'f="policy"' in talk.logged(720)[0]
