"""The help dump: its form, and that reading it gives exactly the settings it was made from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.settings import dropped, process_options
from smtpf.settings.catalogue import instances
from smtpf.settings.dump import dump, setting
from smtpf.settings.language import load
from smtpf.settings.option import Action, AnyOption, Flag, Level, Number, Option, OptionError, Text, Words
from smtpf.settings.process_options import FILE, HELP
from smtpf.settings.store import Settings

SECRET = Text("emew-secret", "", "Key of the water-mark.", secret=True)
LISTS = Words("dns-bl", "a.example;b.example", "Lists.", choices='DNS suffix; "" = none')
SOA = Level("uri-valid-soa", "-", "SOA.")
SLOW = Flag("smtp-slow-reply", False, "Slow.")
AFTER = Number("smtp-drop-after", 5, "After.", least=0)
POLICY = Text("clamd-policy", "reject", "Policy.", words=("none", "reject", "discard"))
SPF = Words("spf-mail-policy", "fail-reject", "SPF.", words=("softfail-tag", "fail-reject", "fail-tag"))

DECLARED: tuple[AnyOption, ...] = tuple(
    value for module in (process_options, dropped) for value in vars(module).values() if isinstance(value, Option)
)
EVERY: tuple[AnyOption, ...] = (SECRET, LISTS, SOA, SLOW, AFTER, POLICY, SPF, *DECLARED)
SETTABLE = tuple(option for option in EVERY if not isinstance(option, Action) and not option.ignored and option is not FILE)


def texts_of(option: AnyOption) -> st.SearchStrategy[str]:
    """Texts that the option takes: spelled the usual ways, or anything at all when it takes anything."""
    if option.kind == "bool":
        return st.sampled_from(["+", "-", "yes", "off", "0", "1", ""]) | st.sampled_from(["2", "0x2"])
    if option.kind == "int":
        number = st.integers(0, 2**40)
        return (number.map(str) | number.map(hex) | st.sampled_from(["", "+", " 7 "])).filter(lambda text: accepted(option, text))
    words: tuple[str, ...] = getattr(option, "words", ())
    if words and option.kind == "list":
        return st.lists(st.sampled_from((*words, "")), max_size=4).map(";".join)
    if words:
        return st.sampled_from(words)
    return st.text() | st.text(alphabet="ab;'\"\\ \t\n#+-=")


def accepted(option: AnyOption, text: str) -> bool:
    try:
        option.parse(text)
    except OptionError:
        return False
    return True


def read_back(settings: Settings) -> Settings:
    loaded = load([], settings.options, read=lambda path: dump(settings).encode())
    assert loaded.problems == ()
    return loaded.settings


@given(st.fixed_dictionaries({}, optional={option: texts_of(option) for option in SETTABLE}))
def test_reading_the_dump_gives_the_settings_it_was_made_from(texts: dict[AnyOption, str]) -> None:
    settings = Settings(EVERY, texts)
    again = read_back(settings)
    assert again == Settings((*settings.options, process_options.LENIENT), texts)


@pytest.mark.parametrize("option", SETTABLE, ids=lambda option: option.name)
def test_every_option_survives_alone(option: AnyOption) -> None:
    @given(texts_of(option))
    def survives(text: str) -> None:
        settings = Settings(EVERY, {option: text})
        assert read_back(settings).text(option) == settings.text(option)

    survives()


@pytest.mark.parametrize(
    ("option", "text", "lines"),
    [
        (SLOW, "-", "-smtp-slow-reply\n"),
        (SLOW, "+", "#-smtp-slow-reply\n+smtp-slow-reply\n"),
        (SOA, "2", "#-uri-valid-soa\nuri-valid-soa=2\n"),
        (AFTER, "5", "smtp-drop-after=5\n"),
        (AFTER, "6", "#smtp-drop-after=5\nsmtp-drop-after=6\n"),
        (LISTS, "a.example;b.example", "dns-bl=a.example\ndns-bl+=b.example\n"),
        (LISTS, "x y;z", '#dns-bl=a.example\n#dns-bl+=b.example\ndns-bl="x y"\ndns-bl+="z"\n'),
        (LISTS, "", "#dns-bl=a.example\n#dns-bl+=b.example\ndns-bl=\n"),
        (LISTS, ";;x;", "#dns-bl=a.example\n#dns-bl+=b.example\ndns-bl=;;x\ndns-bl+=\n"),
        (SECRET, 'a\\"\n', '#emew-secret=\nemew-secret=a\\\\\\"\\n\n'),
        (HELP, "+", "#-help or +help\n"),
    ],
)
def test_form_of_a_setting(option: AnyOption, text: str, lines: str) -> None:
    assert setting(Settings.of({option: text}), option) == lines


def test_an_entry_is_description_setting_and_an_empty_line_in_help_order() -> None:
    text = dump(Settings((LISTS, SLOW, AFTER)))
    assert text.endswith(
        '\n\n# Lists. (DNS suffix; "" = none)\ndns-bl=a.example\ndns-bl+=b.example\n'
        "\n# After.\nsmtp-drop-after=5\n"
        "\n# Slow.\n-smtp-slow-reply\n"
    )
    assert text.count("\n\n") == 5, "three opening blocks, then the options"


def test_dropped_options_are_not_dumped() -> None:
    assert not any(option.name in dump(Settings(EVERY)) for option in EVERY if option.ignored)


def test_long_descriptions_are_wrapped() -> None:
    assert all(len(line) <= 78 for line in dump(Settings(EVERY)).splitlines())


def test_the_defaults_of_all_options_of_the_program_survive() -> None:
    settings = Settings(instances(Option))
    assert read_back(settings) == settings
    assert [option.name for option in settings.options if settings.changed(option)] == []
