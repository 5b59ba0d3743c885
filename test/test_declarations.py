"""What holds for all options, messages, replies and counters together."""

from __future__ import annotations

import re
from collections import defaultdict

from smtpf.journal.message import Level, Message
from smtpf.reply import Reply
from smtpf.settings.catalogue import declared, emitters
from smtpf.settings.option import AnyOption, Option
from smtpf.stats.counter import Counter

PUBLISHED_TWICE = {
    # The published list gives these numbers two texts each.
    722: {"signal %d, slow quit cn=%u", "signal %d, stopping sessions, cn=%u"},
}
REPLIED_TWICE = {
    790: {"550 5.7.1 rejected client %s [%s], %s", "550 5.7.1 rejected PTR NS, %s"},
}
REASONS = {740, 741, 743, 744, 745, 746, 747, 748, 762, 763, 765, 766, 973}
"""Texts with a number that stand inside another reply."""
KINDS = {"bool", "int", "string", "list", "action"}


def every_option() -> list[tuple[str, AnyOption]]:
    return [(f"{module}.{constant}", option) for module, constant, option in declared(Option)]


def every_message() -> list[tuple[str, Message]]:
    return [(f"{module}.{constant}", message) for module, constant, message in declared(Message)]


def test_each_option_name_is_declared_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for place, option in every_option():
        for name in (option.name, *option.aliases, *option.fallback_aliases):
            places[name.lower()].append(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_each_option_explains_itself() -> None:
    wanting = [place for place, option in every_option() if not (option.meaning and option.area and option.kind in KINDS)]
    assert wanting == []


def test_each_default_is_a_value_that_the_option_takes() -> None:
    for _, option in every_option():
        option.parse(option.default)


def test_each_message_number_has_one_format() -> None:
    formats: dict[int, set[str]] = defaultdict(set)
    for _, message in every_message():
        formats[message.number].add(message.format)
    several = {number: found for number, found in formats.items() if len(found) > 1}
    assert {number: found for number, found in several.items() if PUBLISHED_TWICE.get(number) != found} == {}


def test_each_message_is_declared_once() -> None:
    places: dict[tuple[int, str], list[str]] = defaultdict(list)
    for place, message in every_message():
        places[message.number, message.format].append(place)
    assert {key: found for key, found in places.items() if len(found) > 1} == {}


def test_each_message_explains_itself_and_names_its_values() -> None:
    wanting = [place for place, message in every_message() if message.level is not Level.DEBUG and not message.explanation.strip()]
    assert wanting == []


def test_error_messages_are_always_written_and_others_obey_their_word() -> None:
    for place, message in every_message():
        if message.level is Level.ERR:
            assert message.always, place
        else:
            assert message.always or message.word, place


def test_each_message_is_written_somewhere() -> None:
    found = every_message()
    emitting = emitters([message for _, message in found])
    assert [place for place, message in found if not emitting[id(message)]] == []


def test_each_reply_number_has_one_text() -> None:
    texts: dict[int, set[str]] = defaultdict(set)
    places: dict[int, list[str]] = defaultdict(list)
    for module, constant, reply in declared(Reply):
        texts[reply.number].add(reply.text)
        places[reply.number].append(f"{module}.{constant}")
    several = {number: found for number, found in texts.items() if len(found) > 1}
    assert {number: places[number] for number, found in several.items() if REPLIED_TWICE.get(number) != found} == {}


def test_each_reply_starts_with_a_code_or_passes_one_on() -> None:
    for module, constant, reply in declared(Reply):
        if reply.number in REASONS:
            continue
        assert re.match(r"[2-5][0-9]{2}(?:[ -]|%c)|%[sd]", reply.text), f"{module}.{constant}"


def test_each_counter_is_declared_once_and_explained() -> None:
    names: dict[str, list[str]] = defaultdict(list)
    for module, constant, counter in declared(Counter):
        names[counter.name].append(f"{module}.{constant}")
        assert counter.meaning, counter.name
    assert {name: found for name, found in names.items() if len(found) > 1} == {}
