"""The two listings of access-map words come from one table."""

from __future__ import annotations

from smtpf.maps.tags import EVERYWHERE, RULES, WORDS, tag_words, word_tags


def test_tags_are_listed_with_their_words() -> None:
    lines = tag_words()
    assert lines[0] == "/connect:/ /OK|OK+AV|DISCARD|REJECT|IREJECT|TEMPFAIL|SAVE|TRAP|NEXT|SKIP|TAG|CONTENT|PROTOCOL/"
    assert "/grey-to:/ /^[0-9]+$|NEXT|SKIP/" in lines
    assert "/null-rate-to:/ /^-?[0-9]+$|NEXT|SKIP/" in lines
    assert lines[-1] == "/archname-to:/ /.*/"


def test_words_are_listed_with_their_tags() -> None:
    lines = word_tags()
    assert lines[0] == "/OK/ /connect:|helo:|from:|to:|connect:from:|connect:to:|from:to:|body:/"
    assert "/CONTENT/ /connect:|helo:/" in lines
    assert "/NEXT/ /.+/" in lines


def test_every_word_of_a_tag_is_listed() -> None:
    for rule in RULES:
        for word in rule.words:
            assert word in WORDS, word
    assert set(EVERYWHERE) <= set(WORDS)
