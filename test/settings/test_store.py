"""The snapshot of settings: values, texts, immutability, and who hears of a new one."""

from __future__ import annotations

import pytest

from smtpf.settings.option import Flag, Level, Number, OptionError, Text, Words
from smtpf.settings.store import Settings, SettingsHolder

SLOW = Flag("smtp-slow-reply", False, "Slow.")
AFTER = Number("smtp-drop-after", 5, "After.", least=0)
LISTS = Words("dns-bl", "", "Lists.")
SOA = Level("uri-valid-soa", "-", "SOA.")
POLICY = Text("clamd-policy", "reject", "Policy.", words=("none", "reject", "discard"))
EXPERIMENT = Flag("_experiment", False, "Experimental.")


def test_values_are_typed_and_absent_options_have_their_default() -> None:
    settings = Settings.of({SLOW: "+", LISTS: "a.example;b.example", SOA: "2"})
    assert settings[SLOW] is True
    assert settings[LISTS] == ("a.example", "b.example")
    assert settings[SOA] == 2
    assert settings[AFTER] == 5
    assert settings[POLICY] == "reject"


def test_text_of_a_flag_is_its_sign_or_level_however_it_was_spelled() -> None:
    spellings = {"yes": "+", "1": "+", "on": "+", "no": "-", "0": "-", "": "-", "0x2": "2"}
    for given, kept in spellings.items():
        assert Settings.of({SOA: given}).text(SOA) == kept


def test_changed_compares_with_the_default() -> None:
    settings = Settings.of({SLOW: "0", AFTER: "6"})
    assert not settings.changed(SLOW)
    assert settings.changed(AFTER)
    assert not settings.changed(POLICY)


def test_options_stand_in_help_order_without_the_experimental_mark() -> None:
    settings = Settings((SLOW, EXPERIMENT, AFTER, LISTS))
    assert [option.name for option in settings.options] == ["dns-bl", "_experiment", "smtp-drop-after", "smtp-slow-reply"]


def test_evolve_leaves_the_old_snapshot_alone() -> None:
    old = Settings.of({AFTER: "7"})
    new = old.evolve({SLOW: "+"})
    assert (old[SLOW], new[SLOW], new[AFTER]) == (False, True, 7)
    assert old != new
    assert new == Settings.of({AFTER: "7", SLOW: "yes"})


def test_a_bad_text_never_gets_in() -> None:
    for option, text in ((AFTER, "many"), (AFTER, "-3"), (POLICY, "maybe"), (SLOW, "perhaps"), (SOA, "3")):
        with pytest.raises(OptionError):
            Settings.of({option: text})


def test_settings_cannot_be_changed_in_place() -> None:
    settings = Settings.of({AFTER: "7"})
    with pytest.raises(TypeError):
        settings[AFTER] = 9
    with pytest.raises(TypeError):
        settings.clear()
    assert settings[AFTER] == 7


def test_listeners_hear_the_new_settings_until_they_leave() -> None:
    holder = SettingsHolder(Settings.of())
    heard: list[int] = []
    leave = holder.subscribe(lambda settings: heard.append(settings[AFTER]))
    holder.replace(Settings.of({AFTER: "1"}))
    leave()
    holder.replace(Settings.of({AFTER: "2"}))
    assert heard == [1]
    assert holder.current[AFTER] == 2
