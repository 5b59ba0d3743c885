"""Pattern lists: the worked examples, and that no pattern can hold the program."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpf.maps import patterns
from smtpf.maps.patterns import MAX_SUBJECT, REGEX_MATCH, glob, parse, regex


def evaluated(value: str, subject: str) -> tuple[str | None, list[str], list[int]]:
    """The action, and the text and numbers of the messages."""
    lines: list[str] = []
    numbers: list[int] = []

    def report(message: patterns.Message, *args: object) -> None:
        lines.append(message.format % args)
        numbers.append(message.number)

    return parse(value).evaluate(subject, report), lines, numbers


LISTS = [
    (60, 'REJECT:"go away now"', "abc", None, "REJECT:go away now"),
    (61, "REJECT:go away", "abc", None, "REJECT:go"),
    (62, '!abc!REJECT:"go away" OK', "abc", None, "REJECT:go away"),
    (63, '!xyz!REJECT:"go away" OK', "abc", None, "OK"),
    (64, 'REJECT:"say \\"hi\\" there"', "abc", None, 'REJECT:say "hi" there'),
    (65, 'TRAP:"/var/spool/my trap"', "abc", None, "TRAP:/var/spool/my trap"),
    (66, "OK+AV", "abc", None, "OK+AV"),
    (67, "OKAY", "abc", None, "OKAY"),
    (68, "reject", "abc", None, "reject"),
    (69, "!abc! REJECT", "abc", None, "SKIP"),
    (70, "!abc!", "abc", None, "SKIP"),
    (71, "REJECT !abc!OK", "abc", None, "REJECT"),
    (72, "!a\\!b@c.d!OK REJECT", "a!b@c.d", None, "OK"),
    (73, "/a\\/b/OK REJECT", "a/b@c.d", None, "OK"),
    (74, "!a?c!OK REJECT", "abc", None, "OK"),
    (75, "!a[b-d]c!OK REJECT", "acc", None, "OK"),
    (76, "!*abc*def*!OK REJECT", "xabcydefz", None, "OK"),
    (77, "!abc!OK REJECT", "xabc", None, "REJECT"),
    (78, "/b/REJECT OK", "abc", None, "REJECT"),
    (79, "[192.0.2.0/24]REJECT OK", "mail.example.com", None, "OK"),
    (80, "[192.0.2.0/24]REJECT OK", "192.0.2.9.rev.example", None, "OK"),
    (81, "[192.0.2.0/24]REJECT OK", "[192.0.2.9]", None, "REJECT"),
    (82, "[2001:db8::/32]REJECT OK", "2001:db8::1", None, "REJECT"),
    (83, "[2001:db8::1]REJECT OK", "2001:db8::1", None, "REJECT"),
    (84, "[192.0.2.0/24]REJECT OK", "2001:db8::1", None, "OK"),
    (85, "[0.0.0.0/0]REJECT OK", "192.0.2.9", None, "REJECT"),
    (86, "!!REJECT OK", "abc", 100, "OK"),
    (87, "!abcREJECT TEMPFAIL", "abc", 100, "TEMPFAIL"),
    (88, "!abcREJECT", "abc", 100, None),
    (89, "!abcREJECT !abc!OK", "abc", 100, "OK"),
    (90, "[192.0.2.0/24 REJECT", "192.0.2.9", 103, "REJECT"),
    (91, "[192.0.2.0/24 REJECT", "mail.example.com", None, "REJECT"),
    (92, "[192.0.2]REJECT OK", "192.0.2.9", 105, "OK"),
    (93, "[192.0.2.0x/24]REJECT OK", "192.0.2.9", 106, "OK"),
    (94, "[192.0.2.0/33]REJECT OK", "192.0.2.9", 106, "OK"),
    (95, "[192.0.2.0/abc]REJECT OK", "192.0.2.9", 106, "OK"),
    (96, "//REJECT OK", "abc", 108, "OK"),
    (97, "/abcREJECT", "abc", 108, None),
    (98, "/a(bc/REJECT OK", "abc", 110, "OK"),
    (99, "!*!!application/pdf;application/*", "x@y.z", None, "!application/pdf;application/*"),
    (100, "!application/pdf;application/*", "x@y.z", 100, None),
    (101, "!*!10 20", "abc", None, "10"),
]


@pytest.mark.parametrize(("row", "value", "subject", "message", "action"), LISTS, ids=lambda value: None)
def test_worked_list(row: int, value: str, subject: str, message: int | None, action: str | None) -> None:
    found, _, numbers = evaluated(value, subject)
    assert (found, numbers) == (action, [message] if message else []), row


@pytest.mark.parametrize(
    ("value", "subject", "line"),
    [
        ("!!REJECT OK", "abc", 'pattern delimiter error: "!!REJECT OK..."'),
        ("[192.0.2.0/24 REJECT", "192.0.2.9", 'network delimiter error: "[192.0.2.0/24 REJECT..."'),
        ("[192.0.2]REJECT OK", "192.0.2.9", 'network specifier error: "[192.0.2]REJECT OK..."'),
        ("[192.0.2.0x/24]REJECT OK", "192.0.2.9", 'network specifier error, "[192.0.2.0x/24]REJECT OK..."'),
        ("//REJECT OK", "abc", 'regular expression delimiter error: "//REJECT OK..."'),
        ("/a(bc/REJECT OK", "abc", 'regular expression error: missing ): a(bc "/a(bc/REJECT OK..."'),
    ],
)
def test_text_of_messages(value: str, subject: str, line: str) -> None:
    assert evaluated(value, subject)[1] == [line]


@pytest.mark.parametrize(
    ("expression", "subject", "matches"),
    [
        (r"a[\d]", "a\\", True),
        (r"a[\d]", "ad", True),
        (r"a[\d]", "a5", False),
        (r"[[:digit:]]+\.x", "5.x", True),
        (r"[[:digit:][:alpha:]_]$", "-_", True),
        (r"[^[:space:]]", " ", False),
        (r"[]a]b", "]b", True),
        (r"[a-]b", "-b", True),
        (r"[-a]b", "-b", True),
        (r"[[.-.]]b", "-b", True),
        (r"a{2,3}$", "aaa", True),
        (r"^(foo|bar)+$", "foobar", True),
        (r"a\/b", "a/b", True),
        (r"\.", "x", False),
        (r"\.", "a.b", True),
        (r"ABC", "abc", False),
        (r"^b", "a\nb", False),
        ("\u00fc+", "x\u00fc\u00fc", True),
    ],
)
def test_posix_meaning(expression: str, subject: str, matches: bool) -> None:
    compiled = regex(expression)
    assert not isinstance(compiled, str), compiled
    assert compiled(subject) is matches


@pytest.mark.parametrize(
    "expression",
    ["(?=a)", "(?:a)", "(?i)a", r"(a)\1", "a*?", "a+?", "a??", "a{2}?", "[[:foo:]]", "[a", "a\\", "(a", "a{2000}", "[[=ab=]]", "x" * 5000],
)
def test_other_dialects_are_refused(expression: str) -> None:
    assert isinstance(regex(expression), str)


def test_long_text_is_refused_with_112() -> None:
    found, _, numbers = evaluated("/x/REJECT OK", "x" * (MAX_SUBJECT + 1))
    assert (found, numbers) == ("OK", [REGEX_MATCH.number])


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("[!a]b", "xb", True),
        ("[^a]b", "ab", False),
        ("[]x]b", "]b", True),
        ("[-x]b", "-b", True),
        ("a[b", "a[b", True),
        (r"\*", "*", True),
        (r"\*", "a", False),
        ("a.b", "axb", False),
        ("*", "", True),
        ("?", "\u00fc", True),
        ("A*", "abc", False),
        ("[z-a]", "[z-a]", True),
    ],
)
def test_glob(pattern: str, subject: str, matches: bool) -> None:
    assert glob(pattern)(subject) is matches


@pytest.mark.parametrize(
    ("network", "address", "inside"),
    [
        ("[::ffff:192.0.2.0/120]", "192.0.2.9", True),
        ("[192.0.2.9/24]", "192.0.2.77", True),
        ("[IPv6:2001:db8::/32]", "[IPv6:2001:db8::5]", True),
        ("[::/0]", "192.0.2.9", False),
        ("[::/0]", "2001:db8::1", True),
    ],
)
def test_network(network: str, address: str, inside: bool) -> None:
    assert evaluated(f"{network}OK REJECT", address)[0] == ("OK" if inside else "REJECT")


EVIL = [
    "(a+)+$",
    "(a|a)*b",
    "(a|aa)+$",
    "(.*)*x",
    "(x+x+)+y",
    "(((a{30}){30}){1})",
    "(a?){50}a{50}",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    ".{1,1000}$",
]


@pytest.mark.parametrize("expression", EVIL)
def test_evil_expression_ends_within_50_ms(expression: str) -> None:
    regex.cache_clear()
    patterns._parse_and_keep.cache_clear()
    began = time.process_time()
    evaluated(f"/{expression}/REJECT OK", "a" * MAX_SUBJECT)
    assert time.process_time() - began < 0.05


def test_evil_glob_ends_within_50_ms() -> None:
    began = time.process_time()
    assert glob("*a" * 200 + "b")("a" * 5000) is False
    assert time.process_time() - began < 0.05


marks = st.text(alphabet="ab \t[]!/\\\"'*?+{}()|^$.-:;,0129=", max_size=60)
"""Values made of the marks that mean something."""


@settings(max_examples=400, deadline=None)
@given(
    value=st.one_of(marks, st.text(max_size=80)),
    subject=st.one_of(st.text(max_size=40), st.sampled_from(["192.0.2.9", "2001:db8::1", "ab"])),
)
def test_no_value_raises_or_holds_the_caller(value: str, subject: str) -> None:
    began = time.process_time()
    evaluated(value, subject)
    assert time.process_time() - began < 0.05


@settings(max_examples=200, deadline=None)
@given(text=st.text(min_size=1, max_size=30))
def test_quoted_glob_matches_itself(text: str) -> None:
    assert glob("".join(f"\\{mark}" for mark in text))(text)


@settings(max_examples=200, deadline=None)
@given(text=marks)
def test_parsing_always_comes_to_an_end_of_the_value(text: str) -> None:
    parsed = parse(text)
    assert len(parsed.items) <= len(text)
