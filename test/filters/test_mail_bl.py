"""Mail addresses held against lists of digests."""

from __future__ import annotations

import pytest

from smtpf.filters import mail_bl
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Talk, codes

ROUTE = "route:hill.org FORWARD: 192.0.2.1"
JOE = "62a051bba95ad2944f5122e274d9147f.ebl.lists.net"
LIST = {mail_bl.MAIL_BL: "ebl.lists.net"}


def node(options: dict[object, str] | None = None, zone: str = f"{JOE} A 127.0.0.2", access: str = "") -> Talk:
    talk = Talk({**LIST, **(options or {})}, access=access, route=ROUTE, zone=zone)
    talk.hop("192.0.2.1")
    return talk


def sent(talk: Talk, message: str, sender: str = "ada@kestrel.net") -> list[str]:
    client = talk.greeted(name="mail.kestrel.net")
    client.say(f"MAIL FROM:<{sender}>")
    client.say("RCPT TO:<ann@hill.org>")
    return client.message(message)[-1:]


def test_sender() -> None:
    talk = node({SMTP_DELAY_CHECKS: "-"})
    reply = talk.greeted(name="mail.kestrel.net").say("MAIL FROM:<joe@gmail.com>")[-1]
    assert reply.startswith("550 5.7.1 rejected mail address, <joe@gmail.com> black listed by ebl.lists.net #940 ")
    assert talk.logged(523) == ["mail-bl found joe@gmail.com ebl.lists.net"]
    assert talk.counted(mail_bl.SENDER_HIT) == 1


def test_header_and_text_are_refused_at_once_with_delayed_checks_too() -> None:
    talk = node()
    assert codes(sent(talk, "From: Joe <Joe@gmail.com>\r\n\r\nx\r\n")) == ["550 #940"]
    assert talk.counted(mail_bl.HEADER_HIT) == 1
    assert codes(sent(talk, "Subject: x\r\n\r\nwrite to joe@gmail.com\r\n")) == ["550 #940"]
    assert talk.counted(mail_bl.BODY_HIT) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({mail_bl.MAIL_BL_DOMAINS: "aol.*"}, "From: joe@gmail.com\r\n\r\nx\r\n"),
        ({mail_bl.MAIL_BL_DOMAINS: ""}, "From: joe@gmail.com\r\n\r\nx\r\n"),
        ({mail_bl.MAIL_BL_HEADERS: ""}, "From: joe@gmail.com\r\n\r\nx\r\n"),
        ({mail_bl.MAIL_BL_POLICY: "none"}, "From: joe@gmail.com\r\n\r\nx\r\n"),
        ({mail_bl.MAIL_BL_MAX: "1"}, "From: amy@gmail.com\r\n\r\njoe@gmail.com\r\n"),
    ],
)
def test_what_is_not_asked_about(options: dict[object, str], message: str) -> None:
    talk = node(options)
    assert codes(sent(talk, message)) == ["250 #554"]
    assert (JOE, "A") not in talk.resolver.asked


def test_shared_addresses_are_not_asked_about() -> None:
    talk = node({mail_bl.MAIL_BL_DOMAINS: "*"})
    sent(talk, "From: info@gmail.com\r\n\r\npostmaster@gmail.com bounce-1@aol.com no-reply@x.com\r\n", "sales@aol.com")
    assert not [name for name, _ in talk.resolver.asked if name.endswith("ebl.lists.net")]


def test_without_a_limit_all_are_asked_about() -> None:
    talk = node({mail_bl.MAIL_BL_MAX: "0"})
    assert codes(sent(talk, "From: a@gmail.com, b@gmail.com\r\nReply-To: c@gmail.com, joe@gmail.com\r\n\r\nx\r\n")) == ["550 #940"]


def test_discard() -> None:
    talk = node({mail_bl.MAIL_BL_POLICY: "discard"})
    assert codes(sent(talk, "From: joe@gmail.com\r\n\r\nx\r\n")) == ["250 #554"]
    assert talk.logged(785) == ["discarded: rejected mail address, <joe@gmail.com> black listed by ebl.lists.net #940"]


def test_an_address_white_listed_by_body_is_not_asked_about() -> None:
    talk = node(access="body:joe@gmail.com OK")
    assert codes(sent(talk, "Subject: x\r\n\r\njoe@gmail.com\r\n")) == ["250 #554"]


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("Joe@Gmail.com", ("joe@gmail.com",)),
        ("j.o.e+tag@gmail.com", ("j.o.e+tag@gmail.com", "joe@gmail.com")),
        ("joe+x@aol.com", ("joe+x@aol.com", "joe@aol.com")),
        ("j.oe@aol.com", ("j.oe@aol.com",)),
    ],
)
def test_spellings(address: str, asked: tuple[str, ...]) -> None:
    assert mail_bl.spellings(address) == asked


def test_digests() -> None:
    groups = mail_bl.by_digest(["ebl.lists.net:127.0.0.2", "127.0.0.4", "sha1!x.net/8", "sha256!y.net"])
    assert [(digest, [each.suffix for each in lists]) for digest, lists in groups] == [
        ("md5", ["ebl.lists.net"]),
        ("sha1", ["x.net"]),
        ("sha256", ["y.net"]),
    ]
    assert groups[0][1][0].codes == {"127.0.0.2", "127.0.0.4"}
    assert [len(mail_bl.label(digest, "joe@gmail.com")) for digest in mail_bl.DIGESTS] == [32, 40, 52]
    with pytest.raises(ValueError):
        mail_bl.by_digest(["crc!x.net"])
