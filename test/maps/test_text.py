"""Text maps: lines, blanks, comments, octets, and the counted form."""

from __future__ import annotations

import pytest

from smtpf.maps.keys import normal_key
from smtpf.maps.source import table_of, tags_of
from smtpf.maps.text import parse_text


def records(content: bytes) -> list[tuple[str, str]]:
    return [(line.key, line.value) for line in parse_text(content).lines]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# note\n\nConnect:10 OK\n", [("Connect:10", "OK")]),
        (b'from:x\t\tREJECT:"Go  Away"  \r\n', [("from:x", 'REJECT:"Go  Away"')]),
        (b"emew:example.com", [("emew:example.com", "")]),
        (b"emew:example.com \n", [("emew:example.com", "")]),
        (b"a:x !a!OK # no comment", [("a:x", "!a!OK # no comment")]),
        (b"a:\xff 1", [("a:\udcff", "1")]),
        (b"a:x " + b"y" * 20000 + b"\n", [("a:x", "y" * 20000)]),
        (b"3:a:x,4:v=2Cw=0A,\n", [("a:x", "v,w\n")]),
        (b"3:a=3Ax,0:,\n", [("a:x", "")]),
    ],
)
def test_lines(content: bytes, expected: list[tuple[str, str]]) -> None:
    assert records(content) == expected


def test_line_that_begins_with_a_blank_is_told() -> None:
    text = parse_text(b"a:x 1\n b:y 2\n")
    assert (len(text.lines), text.keyless) == (1, (2,))


@pytest.mark.parametrize("content", [b"3:ab,1:x,\n", b"3:abc", b"999999:a,1:x,", b"1:a,1:b,c\n", b"1:a\n"])
def test_broken_counted_form(content: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_text(content)


def test_last_of_equal_keys_wins() -> None:
    assert table_of([("A:x", "1"), ("a:X", "2")]).records == {"a:x": "2"}


@pytest.mark.parametrize(
    ("key", "normal"),
    [
        ("Connect:2001:0DB8:0:0:0:0:1234", "connect:2001:db8:0:0:0:0:1234"),
        ("connect:2001:0db8::01", "connect:2001:0db8::01"),
        ("connect:0001:0002:from:0a@b.example", "connect:1:2:from:0a@b.example"),
        ("to:[ipv6:2001:0db8:0:0:0:0:0:0001]", "to:[ipv6:2001:db8:0:0:0:0:0:1]"),
        ("connect:IPv6:2001:0DB8", "connect:2001:db8"),
        ("connect:ipv6:2001:db8::1", "connect:2001:db8::1"),
        ("connect:ipv6:2001:0db8:from:example.com", "connect:2001:db8:from:example.com"),
        ("connect:ipv6.example.com", "connect:ipv6.example.com"),
        ("connect:192.0.2", "connect:192.0.2"),
        ("from:joe@B\u00dcCHER.example", "from:joe@xn--bcher-kva.example"),
        ("fields", "fields"),
    ],
)
def test_keys_are_written_one_way(key: str, normal: str) -> None:
    assert normal_key(key) == normal


def test_combinations_are_tags_of_their_own() -> None:
    assert tags_of(["connect:10", "from::to:ann@", "helo:x"]) == {"connect:", "from:", "from:to:", "helo:"}
    assert tags_of(["connect:10:from:"]) == {"connect:", "connect:from:"}
