"""Attachment rules as clients and postmasters see them."""

from __future__ import annotations

import base64
import io
import zipfile

import pytest

from smtpf.filters import attachment
from smtpf.message.header import HeaderList
from test.support.talk import Talk, codes

ROUTE = "route:hill.org FORWARD: 192.0.2.1"
SWITCH = attachment.DENY_CONTENT
REFUSED = ["550 #826"]
TAKEN = ["250"]


def sent(message: str | bytes, options: dict[object, str] | None = None, access: str = "", to: str = "ann@hill.org") -> tuple[Talk, str]:
    """A message sent through a node with the rules on; the node, and the reply to its dot."""
    talk = Talk({SWITCH: "+", **(options or {})}, access=access, route=ROUTE)
    talk.hop("192.0.2.1")
    client = talk.greeted(name="mail.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    for each in to.split():
        client.say(f"RCPT TO:<{each}>")
    assert client.say("DATA")[-1].startswith("354")
    octets = message.encode() if isinstance(message, str) else message
    octets = octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").replace(b"\r\n.", b"\r\n..")
    return talk, client.send(octets + (b"" if octets.endswith(b"\n") else b"\r\n") + b".\r\n")[-1]


def mixed(*parts: str) -> str:
    return "Content-Type: multipart/mixed; boundary=b\n\n" + "".join(f"--b\n{part}\n" for part in parts) + "--b--\n"


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, b"words")
    return made.getvalue()


def attached(octets: bytes, head: str = "Content-Type: application/octet-stream") -> str:
    return f"{head}\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(octets).decode()


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        (mixed('Content-Type: application/x-msdownload; name="a.bin"\n\nMZ'), "application/*msdownload"),
        (mixed('Content-Disposition: attachment; filename="Invoice.PDF.exe"\n\nMZ'), "*.exe"),
        ("Content-Type: image/png\n\nPNG\n", "image/*"),
        (mixed("Content-Type: text/plain\n\nwords", "Content-Type: image/png\n\nPNG"), None),
        (mixed(attached(zipped("x/setup.EXE"), "Content-Type: application/zip; name=a.zip")), "*.exe"),
        ("Content-Type: application/pdf\n\n%PDF\n", None),
        ("Content-Type: application/pdf; name=x\n\n%PDF\n", None),
        ("Content-Type: text/javascript\n\nx\n", "text/*script"),
        (mixed("Content-Type: message/partial; id=a; number=1; total=2\n\nwords"), "message/partial"),
        ("Subject: no type\n\nwords\n", None),
        (mixed("Content-Type: text/plain; name*=utf-8''run%2Eexe\n\nx"), "*.exe"),
        (mixed('Content-Type: text/plain; name="=?utf-8?B?cnVuLmV4ZQ==?="\n\nx'), "*.exe"),
        (mixed("Content-Disposition: attachment; filename*0=run.; filename*1=exe\n\nx"), "*.exe"),
        (mixed('Content-Disposition: attachment; filename="run.exe. . "\n\nx'), "*.exe"),
        (mixed('Content-Disposition: attachment; filename="C:\\\\dir\\\\run.exe"\n\nx'), "*.exe"),
        (mixed("Content-Type: text/plain\n\nbegin 644 run.com\n#86)C\n`\nend"), "*.com"),
        (mixed("Content-Type: message/rfc822\n\nContent-Disposition: attachment; filename=run.pif\n\nx"), "*.pif"),
    ],
)
def test_what_the_default_lists_refuse(message: str, pattern: str | None) -> None:
    talk, reply = sent(message)
    if pattern is None:
        assert reply.startswith("250"), reply
    else:
        assert reply.startswith(f"550 5.7.0 message contains blocked content ({pattern}) #826 ")
        assert talk.logged(821)


def test_a_hit_is_logged_and_counted() -> None:
    talk, reply = sent(mixed(attached(zipped("x/setup.EXE"), "Content-Type: application/zip")))
    assert codes([reply]) == REFUSED
    assert talk.logged(821) == ["compressed-name found content=x/setup.EXE pattern=*.exe"]
    assert talk.counted(attachment.COMPRESSED_HIT) == 1


def test_nothing_is_looked_at_without_the_switch() -> None:
    _, reply = sent(mixed("Content-Disposition: attachment; filename=run.exe\n\nx"), {SWITCH: "-"})
    assert reply.startswith("250")


@pytest.mark.parametrize(
    ("access", "to", "message", "refused"),
    [
        ("filename-to:ann@hill.org !*!!*.vbs;*.exe", "ann@hill.org", mixed("Content-Disposition: x; filename=a.vbs\n\nx"), False),
        ("filename-to:hill.org *.txt", "ann@hill.org", mixed("Content-Disposition: x; filename=a.txt\n\nx"), True),
        ("filename-from:ada@kestrel.net none", "ann@hill.org", mixed("Content-Disposition: x; filename=a.exe\n\nx"), False),
        ("filename-connect:192.0.2.7 none", "ann@hill.org", mixed("Content-Disposition: x; filename=a.exe\n\nx"), False),
        ("filename-to:ann@hill.org none", "ann@hill.org bob@hill.org", mixed("Content-Disposition: x; filename=a.exe\n\nx"), True),
        ("mimetype-to:hill.org image/*", "ann@hill.org", mixed("Content-Type: image/png\n\nx"), True),
        ("top-mimetype-to:hill.org text/html", "ann@hill.org", "Content-Type: text/html\n\nx", True),
        ("archname-to:hill.org *.doc", "ann@hill.org", mixed(attached(zipped("a.doc"))), True),
        ("archname-to:hill.org *.doc", "ann@hill.org", mixed(attached(zipped("a.exe"))), False),
    ],
)
def test_access_tags_replace_a_list(access: str, to: str, message: str, refused: bool) -> None:
    _, reply = sent(message, access=access, to=to)
    assert reply.startswith("550" if refused else "250"), reply


@pytest.mark.parametrize("option", ["deny-content-type", "deny-compressed-name"])
def test_an_empty_list_disables_only_itself(option: str) -> None:
    empty = {attachment.DENY_CONTENT_TYPE if option == "deny-content-type" else attachment.DENY_COMPRESSED_NAME: ""}
    _, reply = sent(mixed("Content-Disposition: attachment; filename=run.exe\n\nx"), empty)
    assert codes([reply]) == REFUSED


def test_archives_are_known_by_their_content_and_opened_in_archives() -> None:
    _, reply = sent(mixed(attached(zipped("readme.txt"), "Content-Type: text/plain; name=a.txt")))
    assert reply.startswith("250")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("inner.dat", zipped("run.exe"))
    _, reply = sent(mixed(attached(made.getvalue(), "Content-Type: text/plain; name=a.txt")))
    assert codes([reply]) == REFUSED


def test_a_hidden_directory_has_a_name_that_a_list_can_forbid() -> None:
    lists = (("(encrypted)",),)
    listing = attachment.Listing(("(encrypted)",), True)
    hit = attachment._hit_in(listing, False, lists)
    assert hit is not None and hit.pattern == "(encrypted)"


@pytest.mark.parametrize(("patterns", "refused"), [(("*.exe",), True), (("!(incomplete)", "*.exe"), False), (("none",), False)])
def test_an_archive_beyond_the_limits_is_refused_unless_a_list_allows_it(patterns: tuple[str, ...], refused: bool) -> None:
    assert (attachment._hit_in(attachment.Listing((), False), False, (patterns,)) is not None) is refused


def test_an_encoded_message_is_looked_into() -> None:
    inner = b"Content-Type: text/plain\nContent-Disposition: attachment; filename=run.exe\n\nx\n"
    for kind in ("message/rfc822", "multipart/mixed; boundary=c"):
        text = inner if "rfc822" in kind else b"--c\n" + inner + b"--c--\n"
        _, reply = sent(mixed(f"Content-Type: {kind}\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(text).decode()))
        assert codes([reply]) == REFUSED


def test_two_types_that_disagree_about_the_boundary_are_refused() -> None:
    _, reply = sent("Content-Type: multipart/mixed; boundary=a\nContent-Type: multipart/mixed; boundary=b\n\n--a\n\nx\n--a--\n")
    assert "blocked content (ambiguous structure) #826" in reply


def test_a_field_is_found_by_name_only() -> None:
    assert HeaderList([b"Content-Type: text/plain\r\n"]).first("content-type") is not None
    _, reply = sent(
        "Content-Type: text/plain\n\n> Content-Disposition: attachment; filename=run.exe\nContent-Disposition: x; filename=run.exe\n"
    )
    assert reply.startswith("250")
