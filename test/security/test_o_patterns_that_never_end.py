"""O: a pattern from a map must not hold the program, whatever it is and whatever the client says."""

from __future__ import annotations

import time

import pytest

from smtpf.journal.journal import Journal
from smtpf.maps import patterns
from smtpf.maps.access import AccessMap
from smtpf.maps.source import FixedSource, table_of
from smtpf.waiting import run

HELD_AT_MOST = 0.05
"""Seconds."""

EVIL = [
    "(a+)+$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(a|a)*b",
    "(x+x+)+y",
    "(a|b)*a(a|b){990}y",
    "((a{0,31}){0,31})b",
    "(.{1,999}y)",
    "(.{0,250}a){4}z",
    ".{999}" * 300,
    "[^x]{999}" * 3 + "y",
    "(" * 500 + "a" + ")*" * 500,
]


@pytest.mark.parametrize("expression", EVIL)
@pytest.mark.parametrize("said", ["a" * 1000, "ab" * 500, "\u00fc\u20ac" * 500, "a" * 100_000])
def test_look_up_holds_the_program_at_most_50_ms(expression: str, said: str) -> None:
    patterns.regex.cache_clear()
    patterns._parse_and_keep.cache_clear()
    access = AccessMap(FixedSource(table_of([("from:", f"/{expression}/REJECT !{'*a' * 200}b!REJECT SKIP")])), Journal([].append))
    answers: list[object] = []
    began = time.process_time()
    run(access.lookup_mail("from:", said), answers.append, lambda failure: failure.raiseException())
    held = time.process_time() - began
    assert len(answers) == 1
    assert held < HELD_AT_MOST
