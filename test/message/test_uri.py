"""URIs in texts: the table of the content chapter, 12, what evades simple scanners, and bounds."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.message.header import HeaderList
from smtpf.message.mime import MimeWalker
from smtpf.message.uri import MAX_URIS, Uri, UriListener, UriScanner, _marked_tokens, embedded_uris, parse_uris, scan_text

TOPS = frozenset({"com", "net", "org", "pl", "uk", "bar", "de", "example", "xn--p1ai"})


def known(host: str) -> bool:
    return host.rpartition(".")[2] in TOPS


def hosts(text: str, markup: bool = False) -> list[str]:
    scanner = UriScanner(known, markup)
    return [uri.host for uri in scanner.feed(text) + scanner.end()]


PUBLISHED = [
    ("visit example.com.", ["example.com"]),
    ("(www.paren.com) 'www.quote.com' _http://under.example.com_", ["www.paren.com", "www.quote.com", "under.example.com"]),
    ("achowe@snert.com", ["snert.com"]),
    ("http:/grandpalace.pl/", ["grandpalace.pl"]),
    ("http%3A%2F%2Fenc.example.com%2Fx", ["enc.example.com"]),
    ("http://1.2.3.4/x", ["1.2.3.4"]),
    ("1.2.3.4", ["1.2.3.4"]),
    ("http://[2001:db8::1]/x", ["2001:db8::1"]),
    ("<a href=http://href.example.com/>", ["href.example.com"]),
    ("http://soft&shy;hyphen.com/", ["softhyphen.com"]),
    ("http://ex&#97;mple.net/", ["example.net"]),
    ("www.example.co.uk/x", ["www.example.co.uk"]),
    ("foo.bar", ["foo.bar"]),
    ("file.txt", []),
    ("http://a..b.com/", []),
    ("foo://bar.com/", []),
    ("user@localhost", []),
    ("$B%Q!!(Bhttp://www.c-evian.com", ["www.c-evian.com"]),
    ("xxhttp://a.example.com/", []),
    ("http://host.com:8080/a", ["host.com"]),
    ("http://user@host.com/a", ["host.com"]),
    ("mailto:joe@x.com?subject=hi", ["x.com"]),
    ("cid:12@host.com", [""]),
]

ONCE_EVADED = [
    ("http://user:pw@host.com:8080/a", ["host.com"]),
    ("www.x.com:8080/", ["www.x.com"]),
    ("http:example.com", ["example.com"]),
    (
        "URL:http://a.example.com/ Web:www.example.com www.example.com: E-mail:joe@x.com",
        ["a.example.com", *["www.example.com"] * 2, "x.com"],
    ),
    ("www.a.com,www.b.com;x *www.c.com* http://www.d.com,and", ["www.a.com", "www.b.com", "www.c.com", "www.d.com"]),
    ("//x.example.com/", ["x.example.com"]),
    ("http://3232235777/", ["192.168.1.1"]),
    ("http://0xC0.0xA8.1.1/", ["192.168.1.1"]),
    ("http://0300.0250.01.1/", ["192.168.1.1"]),
    ("http://a.com/,http://b.com/", ["a.com", "b.com"]),
    ("http://bücher.example/", ["xn--bcher-kva.example"]),
    ("http://ex&#1072;mple.net/", ["xn--exmple-4nf.net"]),
    ("http://evil\u3002example\uff0ecom\uff61/", ["evil.example.com"]),
    ("http://\uff45\uff56\uff49\uff4c.com/", ["evil.com"]),
    ("http://ev%69l.com/", ["evil.com"]),
    ("HTTP://EVIL.COM/", ["evil.com"]),
    ("see http://evil.com, or evil.net!", ["evil.com", "evil.net"]),
    ("\u00a1\u00a2 http://evil\u00a1Dcom/", ["evil.com"]),
    ("http://good.com@evil.com/", ["evil.com"]),
    ("https:\\\\evil.com\\x", ["evil.com"]),
    ("a\x01http://evil.com/\x02", ["evil.com"]),
    ("http://ev\u00adil.com/ http://ev\u200bil.net/", ["evil.com", "evil.net"]),
    ("пример.рф http://пример.рф/", []),
]


@pytest.mark.parametrize(("text", "expected"), PUBLISHED)
def test_published_examples(text: str, expected: list[str]) -> None:
    assert hosts(text) == expected


@pytest.mark.parametrize(("text", "expected"), ONCE_EVADED[:-1])
def test_what_once_evaded(text: str, expected: list[str]) -> None:
    assert hosts(text) == expected


def test_internationalised_top_level_domain_is_queried_as_a_labels() -> None:
    assert hosts("пример.рф http://пример.рф/") == ["xn--e1afmkfd.xn--p1ai"] * 2


@pytest.mark.parametrize(
    ("token", "scheme", "port", "implicit", "path", "query"),
    [
        ("example.com/x?y#z", "http", 80, True, "/x", "y"),
        ("http://example.com/x?y#z", "http", 80, False, "/x", "y"),
        ("https://example.com:444", "https", 444, False, "", ""),
        ("1.2.3.4", "ip", 0, True, "", ""),
        ("ftp://example.com/", "ftp", 21, False, "/", ""),
        ("file:/etc/passwd", "file", 0, False, "/etc/passwd", ""),
        ("mailto:joe@x.com?subject=hi", "mailto", 25, False, "", "subject=hi"),
        ("joe@x.com", "mailto", 25, True, "", ""),
    ],
)
def test_parts_of_a_uri(token: str, scheme: str, port: int, implicit: bool, path: str, query: str) -> None:
    (uri,) = parse_uris(token, known)
    assert (uri.scheme, uri.port, uri.implicit, uri.path, uri.query) == (scheme, port, implicit, path, query)


@pytest.mark.parametrize(
    ("token", "address"),
    [
        ("joe+tag@x.com", "joe+tag@x.com"),
        ("mailto:joe%40x.com", "joe@x.com"),
        ("to:a@b,joe@x.com", "joe@x.com"),
        ("(joe@x.com", "joe@x.com"),
    ],
)
def test_mail_addresses_are_whole(token: str, address: str) -> None:
    assert [uri.address for uri in parse_uris(token, known)] == [address]


def test_words_and_colons_in_front_are_not_followed_for_ever() -> None:
    assert parse_uris("a:" * 2000 + "www.example.com", known) == []


def test_url_with_an_address_is_shown_decoded() -> None:
    (uri,) = scan_text("http://198.51.100.1/%78", known)
    assert uri.is_ip and uri.decoded == "http://198.51.100.1/x"


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ('<a href="http://evil.com/a b">x</a>', "evil.com"),
        ("<a href='ht\ntp://ev\til.com/'>x</a>", "evil.com"),
        ('<img src = "//evil.com/x.png">', "evil.com"),
        ('<a href="https:\\\\evil.com">x</a>', "evil.com"),
        ('<a href="&#104;ttp&#58;//evil.com">x</a>', "evil.com"),
        ('<meta http-equiv=refresh content="0; url=http://evil.com/">', "evil.com"),
        ('<p style="background: url(http://evil.com/x.png)">', "evil.com"),
        ("<style>body { background-image: url(http://evil.com/x.png) }</style>", "evil.com"),
        ("<form action=http://evil.com/post>", "evil.com"),
        ('<button formaction="http:evil.com">', "evil.com"),
        ("<td background='http://evil.com/'>", "evil.com"),
        ('<a href="mailto:joe@evil.com">', "evil.com"),
    ],
)
def test_links_of_html_are_taken_whole(markup: str, expected: str) -> None:
    assert expected in hosts(markup, markup=True)


def test_links_and_text_of_html_come_in_their_order() -> None:
    markup = '<p>one.com <a href="http://two.com/">three.com</a> four.com <img src="http://five.com/"> six.com'
    wanted = ["one.com", "two.com", "three.com", "four.com", "five.com", "six.com"]
    assert hosts(markup, markup=True) == wanted
    scanner = UriScanner(known, True)
    pieces = [uri.host for letter in markup for uri in scanner.feed(letter)] + [uri.host for uri in scanner.end()]
    assert pieces == wanted


def test_targets_of_redirectors_are_found() -> None:
    (uri,) = parse_uris("http://r.example.com/go?u=http%3A%2F%2Fwww.evil.com%2Fx&v=www.other.net", known)
    assert [inner.host for inner in embedded_uris(uri, known)] == ["www.evil.com", "www.other.net"]
    (uri,) = parse_uris("http://r.example.com/http://www.evil.com/x", known)
    assert "www.evil.com" in [inner.host for inner in embedded_uris(uri, known)]
    (uri,) = parse_uris("http://r.example.com/a.com/b.example.net", known)
    assert [inner.host for inner in embedded_uris(uri, known)] == ["b.example.net"]


PIECES = st.lists(
    st.sampled_from(
        ["http://", "evil.com", " ", "\n", "&#97;", "&shy;", "@", "%41", "<a href='", "'>", "x", ".", "joe", "//", ":8080", "é", "=", ","]
    ),
    max_size=30,
).map("".join)


@given(PIECES, st.lists(st.integers(0, 500), max_size=8), st.booleans())
def test_any_segmentation_finds_the_same(text: str, places: list[int], markup: bool) -> None:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    scanner = UriScanner(known, markup)
    pieces: list[Uri] = []
    for left, right in itertools.pairwise(edges):
        pieces += scanner.feed(text[left:right])
    pieces += scanner.end()
    whole = UriScanner(known, markup)
    assert {uri.host for uri in pieces} == {uri.host for uri in whole.feed(text) + whole.end()}


@given(st.text(max_size=300))
def test_any_text_is_scanned(text: str) -> None:
    for markup in (False, True):
        for uri in [*UriScanner(known, markup).feed(text + " "), *parse_uris(text, known)]:
            assert uri.host.isascii() and "\n" not in uri.host
            embedded_uris(uri, known)


@given(st.text(alphabet='ab.:%/@ \n\r\t<>"{}^`\\\x00', max_size=120))
def test_no_token_with_a_mark_inside_is_passed_over(text: str) -> None:
    tokens = re.findall(r"""[^\s\x00-\x1f\x7f-\x9f"<>{}\\^`]+""", text)
    assert list(_marked_tokens(text)) == [token for token in tokens if re.search("[.:%].", token)]


def found_in(message: bytes) -> list[str]:
    head, _, body = message.replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    walker, listener = MimeWalker(), UriListener(known)
    walker.add(listener)
    walker.start(HeaderList.parse(head + b"\r\n").fields)
    walker.feed(body)
    walker.finish()
    return [uri.host for uri in listener.take()]


def test_uris_of_all_textual_parts_of_a_message() -> None:
    message = b"""Content-Type: multipart/mixed; boundary=b

http://preamble.com/
--b
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<a href=3D"http://quoted=
.com/">http://quoted.com/</a>
--b
Content-Type: application/x; name="a.txt"

http://named.com/
--b
Content-Type: application/x; name="a.bin"

http://binary.com/
--b
Content-Type: message/rfc822

Subject: http://header.com/

http://embedded.com/ http://preamble.com/
--b--
"""
    assert found_in(message) == ["preamble.com", "quoted.com", "named.com", "embedded.com"]


def test_copies_of_one_uri_do_not_use_up_the_limit() -> None:
    assert found_in(b"A: b\n\n" + b"http://good.com/\n" * 5000 + b"http://evil.com/\n") == ["good.com", "evil.com"]


def test_uris_of_a_message_are_bounded() -> None:
    assert len(found_in(b"A: b\n\n" + b"".join(b"http://h%d.com/\n" % number for number in range(5000)))) == MAX_URIS


@pytest.mark.parametrize(
    "unit",
    [
        "a.b@",
        "http://",
        "href='",
        'href="',
        "&#97;",
        "&",
        "%41",
        "www.evil.com ",
        "x",
        ".",
        "http://a.com/,",
        "url(",
        "<",
        "é.",
        "a@b.com ",
        "href = ",
    ],
)
@pytest.mark.parametrize("markup", [False, True])
def test_no_text_holds_the_reactor(unit: str, markup: bool) -> None:
    text = (unit * 65536)[:65536]
    best = 9.0
    for _ in range(2):
        scanner = UriScanner(known, markup)
        for _ in range(2):
            begin = time.process_time()
            scanner.feed(text)
            taken = time.process_time() - begin
        best = min(best, taken)
    assert best < 0.1
