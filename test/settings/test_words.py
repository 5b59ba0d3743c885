"""Cutting lines into words, and reading a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.settings.words import Assignment, Form, Word, assignment, cut, escaped, needs_quotes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  +a\t-b  c=d ", ["+a", "-b", "c=d"]),
        ('a"b c"d', ["ab cd"]),
        ("n='it\\'s'", ["n=it's"]),
        ("n='say \"hi\"'", ['n=say "hi"']),
        (r"n=a\ b", ["n=a b"]),
        (r"n=\a\b\e\f\n\r\s\t\v\q\\", ["n=\a\b\x1b\f\n\r \t\vq\\"]),
        (r'n="\s\"x"', ['n= "x']),
        ("n=a#b #c d", ["n=a#b"]),
        ('"#x" n=1', ["#x", "n=1"]),
        ('n="" ""', ["n=", ""]),
        ("a=ä\u00a0b", ["a=ä\u00a0b"]),
    ],
)
def test_quotes_escapes_and_comments(line: str, words: list[str]) -> None:
    assert list(cut(line)) == [Word(word) for word in words]


def test_an_open_quote_and_a_last_backslash_are_told() -> None:
    for line in ("n='x", 'n="x', "n=x\\"):
        assert [bool(word.broken) for word in cut(line)] == [True]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("+name", Assignment("name", "+", Form.SIGN)),
        ("-_name", Assignment("_name", "-", Form.SIGN)),
        ("name=", Assignment("name", "", Form.SET)),
        ("name=a=b", Assignment("name", "a=b", Form.SET)),
        ("name+=a", Assignment("name", "a", Form.APPEND)),
        ("name=+=a", Assignment("name", "+=a", Form.SET)),
        ("name=;a", Assignment("name", ";a", Form.SET)),
        ("+name=a", Assignment("name=a", "+", Form.SIGN)),
        ("name=a\nb", Assignment("name", "a\nb", Form.SET)),
        ("name", None),
        ("", None),
        ("-", None),
        ("--", None),
        ("--name", None),
        ("+5", None),
        ("5=a", None),
        ("=a", None),
    ],
)
def test_what_a_word_asks_for(word: str, meant: Assignment | None) -> None:
    assert assignment(word) == meant


@given(st.text())
def test_whatever_is_escaped_is_read_back(text: str) -> None:
    quote = '"' if needs_quotes(text) else ""
    line = f"name={quote}{escaped(text)}{quote}"
    assert "\n" not in line
    assert list(cut(line)) == [Word(f"name={text}")]


@given(st.text())
def test_any_line_can_be_cut(line: str) -> None:
    assert all(isinstance(word.text, str) for word in cut(line))
