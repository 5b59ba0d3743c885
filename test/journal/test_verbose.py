"""The words of option verbose."""

import pytest

from smtpf.journal.journal import Journal
from smtpf.journal.message import debug, err, info, warn
from smtpf.journal.verbose import LONGEST, VERBOSE, Verbose


def on(verbose):
    return {word: level for word, level in verbose.levels.items() if level}


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        (VERBOSE.default, {"info": 1, "warn": 1, "tls": 1, "smtp": 1}),
        ("info, smtp=2", {"info": 1, "warn": 1, "tls": 1, "smtp": 2}),
        ("-info,-warn", {"tls": 1}),
        ("", {}),
        (" , ;", {}),
        ("+cache;grey=2 -tls", {"info": 1, "warn": 1, "cache": 1, "grey": 2}),
        ("smtp-dot", {"info": 1, "warn": 1, "tls": 1, "smtp": 1}),
        ("smtp-data socket-fd", {"info": 1, "warn": 1, "tls": 1, "smtp": 3, "socket": 1}),
        ("smtp=3,-smtp-data", {"info": 1, "warn": 1, "tls": 1}),
        ("smtp=0x2 uri=-1", {"info": 1, "warn": 1, "tls": 1, "smtp": 2}),
        ("SMTP=2", {"info": 1, "warn": 1, "tls": 1, "smtp": 2}),
    ],
)
def test_option_sets_the_named_words_and_leaves_others_built_in(text, levels):
    assert on(Verbose(text)) == levels


def test_unknown_words_are_named_and_change_nothing():
    verbose = Verbose()
    before = dict(verbose.levels)
    assert verbose.apply("nonsense +other=3 smtp=much") == ["nonsense", "+other=3", "smtp=much"]
    assert verbose.levels == before


def test_verb_changes_only_what_it_names():
    verbose = Verbose()
    assert verbose.apply("+smtp -uri grey=2") == []
    listing = " ".join(verbose.lines())
    assert "grey=2" in listing and "+info" in listing and "+smtp" in listing and listing.endswith("+warn")
    assert "-uri" in listing


def test_listing_is_alphabetical_and_wrapped_near_column_72():
    lines = Verbose().lines()
    assert lines[0] == "-access -attachment -auth -avastd -cache -clamd -cli -click -connect"
    assert all(len(line) <= 72 for line in lines)
    words = [word.lstrip("+-") for line in lines for word in line.split()]
    assert words == sorted(words)


def test_words_that_filters_register_are_known_and_off():
    verbose = Verbose(words=["mine"])
    verbose.register(["also", "info"])
    assert verbose.apply("mine also=2") == []
    assert verbose.levels["mine"] == 1 and verbose.levels["also"] == 2 and verbose.levels["info"] == 1


@pytest.mark.parametrize("text", ["", "info", "-info,-warn", "smtp=3 -tls cache", "-tls"])
def test_text_gives_the_same_levels_again(text):
    verbose = Verbose(text)
    assert Verbose(verbose.text()).levels == verbose.levels


def test_too_long_a_value_is_refused_with_795():
    entries = []
    journal = Journal(entries.append)
    assert journal.use_words("x" * (LONGEST + 1)) is None
    assert [entry.text for entry in entries] == ["#795 verbose word list too long"]
    assert journal.use_words("info odd") == ["odd"]


@pytest.mark.parametrize(
    ("message", "words", "written"),
    [
        (err(1, "e"), "", True),
        (warn(2, "w"), "warn", True),
        (warn(2, "w"), "-warn", False),
        (info(3, "i"), "info", True),
        (info(3, "i"), "-info", False),
        (info(3, "i", always=True), "", True),
        (debug(4, "d", "smtp", at_least=2), "smtp=1", False),
        (debug(4, "d", "smtp", at_least=2), "smtp=2", True),
        (debug(4, "d", "unheard"), "info", False),
    ],
)
def test_a_message_is_written_when_its_word_is_high_enough(message, words, written):
    entries = []
    journal = Journal(entries.append, Verbose(words))
    journal.write(message)
    assert journal.enabled(message) is written
    assert bool(entries) is written
