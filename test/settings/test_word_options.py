"""Options that take one of a few words: what they understand, and that they refuse all else."""

from __future__ import annotations

import pytest

from smtpf.filters.extension import extension_modules
from smtpf.reply import Reply
from smtpf.settings.catalogue import instances
from smtpf.settings.option import AnyOption, Flag, Option, OptionError, Policy, Words
from smtpf.settings.runtime import INVALID_VALUE, Changed, Refused, change
from smtpf.settings.store import Settings

OPTIONS = {option.name: option for option in instances(Option, extension_modules())}
SETTINGS = Settings(OPTIONS.values())
REACTION = Policy("reaction", "reject", "For the test.")
KEY = Words("key", "a", "For the test.", words=("a", "b"), signs="+-!")


@pytest.mark.parametrize(
    ("text", "word"), [("reject", "reject"), ("R", "reject"), ("Disc", "discard"), ("n", "none"), ("", ""), (" none ", "none")]
)
def test_first_letters_of_a_policy_are_enough(text: str, word: str) -> None:
    assert REACTION.parse(text) == word


@pytest.mark.parametrize("text", ["quarantine", "rejected", "-", "reject discard"])
def test_policy_refuses_other_words(text: str) -> None:
    with pytest.raises(OptionError, match="takes one of"):
        REACTION.parse(text)


def test_word_of_a_list_may_have_a_sign_where_that_means_something() -> None:
    assert KEY.parse("a,-b +B !a") == ("a", "-b", "+B", "!a")
    for wrong in ("c", "-", "--a", "-c"):
        with pytest.raises(OptionError):
            KEY.parse(wrong)


def test_flag_says_what_it_takes() -> None:
    assert Flag("f", True, "For the test.").choices == "+|-"


@pytest.mark.parametrize(
    "name",
    sorted(
        [name for name, option in OPTIONS.items() if isinstance(option, Policy)]
        + ["grey-key", "spf-helo-policy", "spf-mail-policy", "emew-accept-versions", "msg-limit-report", "test-on-command"]
    ),
)
def test_optn_refuses_an_unknown_word(name: str) -> None:
    option: AnyOption = OPTIONS[name]
    outcome = change(SETTINGS, f"{name}=bogus")
    refusal: Reply = INVALID_VALUE
    assert isinstance(outcome, Refused) and (outcome.reply, outcome.name) == (refusal, option.name)


def test_optn_takes_every_word_that_the_choices_name() -> None:
    for option in OPTIONS.values():
        if isinstance(option, Policy):
            for word in option.choices.split("|"):
                assert isinstance(change(SETTINGS, f"{option.name}={word}"), Changed)
