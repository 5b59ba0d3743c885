"""DNS lists: notation, query names, and what counts as a listing."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpf import waiting
from smtpf.dns.lists import (
    FAILED,
    LISTS_EVERYTHING,
    NOT_A_LIST,
    REFUSED,
    DnsList,
    DnsListOption,
    DnsLists,
    Listing,
    parse_lists,
    reversed_address,
)
from smtpf.settings.option import OptionError
from test.support.zones import ZoneResolver

OPTION = DnsListOption("dns-bl", (), "Lists.")


class Log(list[tuple[Any, ...]]):
    def __call__(self, *given: Any) -> None:
        self.append(given)


def lists(text: str, zones: str, clock: Clock | None = None) -> tuple[DnsLists, Log, ZoneResolver]:
    log = Log()
    resolver = ZoneResolver(zones, clock)
    return DnsLists(resolver, parse_lists(OPTION.parse(text)), log), log, resolver


def found(answer: Any) -> Listing | None:
    if answer is None:
        return None
    outcomes: list[Any] = []
    waiting.run(answer, outcomes.append, lambda failure: failure.raiseException())
    return outcomes[0] if outcomes else pytest.fail("still waiting")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("item", "code", "hit"),
    [
        ("bl.example", "127.0.0.2", True),
        ("bl.example", "127.0.0.1", False),
        ("bl.example/0x0C", "127.0.0.6", True),
        ("bl.example/0x0C", "127.0.0.2", False),
        ("bl.example/8", "127.0.0.10", True),
        ("bl.example/010", "127.0.0.10", True),
        ("bl.example/010", "127.0.0.2", False),
        ("bl.example", "203.0.113.5", False),
        ("zen.example:127.0.0.2,127.0.0.4", "127.0.0.10", False),
        ("zen.example:127.0.0.2,127.0.0.4", "127.0.0.4", True),
        ("bl.example", "127.0.1.255", False),
        ("bl.example", "127.255.255.254", False),
        ("bl.example", "0.0.0.2", True),
    ],
)
def test_worked_examples_of_evaluation(item: str, code: str, hit: bool) -> None:
    suffix = item.split("/")[0].split(":")[0]
    engine, _, _ = lists(item, f"9.2.0.192.{suffix} A {code}")
    listing = found(engine.address("192.0.2.9"))
    assert (listing is not None) is hit
    if listing is not None:
        assert (listing.name, listing.code) == (suffix, code)


@pytest.mark.parametrize(
    ("address", "reverse"),
    [
        ("192.0.2.9", "9.2.0.192"),
        ("2001:db8::1234:5678", "8.7.6.5.4.3.2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2"),
        ("::ffff:192.0.2.9", "9.2.0.192"),
    ],
)
def test_query_names(address: str, reverse: str) -> None:
    assert reversed_address(address) == reverse


def test_notation_of_several_items() -> None:
    parsed = parse_lists(OPTION.parse(".a.example.; b.example/0x10, c.example:127.0.0.2,127.0.0.4 d.example"))
    assert parsed == (
        DnsList("a.example"),
        DnsList("b.example", 16),
        DnsList("c.example", codes=frozenset({"127.0.0.2", "127.0.0.4"})),
        DnsList("d.example"),
    )


@pytest.mark.parametrize("text", ["/4", "a.example/x", "a.example:1.2.3", "a.example:", "a.example/0x1ffffffff", "a.example/-1"])
def test_bad_items_are_refused_when_the_option_is_set(text: str) -> None:
    with pytest.raises(OptionError):
        OPTION.parse(text)


def test_first_list_of_the_option_wins_even_when_it_answers_last() -> None:
    clock = Clock()
    zones = "9.2.0.192.one.example A 127.0.0.2\n9.2.0.192.one.example A DELAY 3\n9.2.0.192.two.example A 127.0.0.2"
    engine, _, resolver = lists("one.example;two.example", zones, clock)
    outcomes: list[Any] = []
    waiting.run(engine.address("192.0.2.9"), outcomes.append, lambda failure: failure.raiseException())  # type: ignore[arg-type]
    assert resolver.asked[:2] == [("9.2.0.192.one.example", "A"), ("9.2.0.192.two.example", "A")]
    assert outcomes == []
    clock.advance(3)
    assert outcomes[0].name == "one.example"


def test_an_address_of_another_name_lists_nobody() -> None:
    engine, _, _ = lists("one.example", "9.2.0.192.one.example CNAME parked.example\nparked.example A 127.0.0.2")
    assert found(engine.address("192.0.2.9")) is None


def test_all_lists_share_one_deadline() -> None:
    clock = Clock()
    suffixes = [f"l{n}.example" for n in range(10)]
    engine, _, _ = lists(";".join(suffixes), "\n".join(f"9.2.0.192.{suffix} A TIMEOUT" for suffix in suffixes), clock)
    outcomes: list[Any] = []
    waiting.run(engine.address("192.0.2.9", timeout=5), outcomes.append, lambda failure: failure.raiseException())  # type: ignore[arg-type]
    clock.advance(5)
    assert outcomes == [None]


def test_misses_from_the_cache_make_no_coroutine() -> None:
    engine, _, _ = lists("bl.example", "")
    assert engine.address("192.0.2.9") is None


def test_error_codes_and_foreign_answers_warn_once_an_hour() -> None:
    clock = Clock()
    zones = "9.2.0.192.a.example A 127.255.255.254\n9.2.0.192.b.example A 203.0.113.5\n9.2.0.192.c.example A SERVFAIL"
    engine, log, _ = lists("a.example b.example c.example", zones, clock)
    assert engine.address("192.0.2.9") is None
    assert engine.address("192.0.2.9") is None
    expected = [(REFUSED, "a.example", "127.255.255.254"), (NOT_A_LIST, "b.example", "203.0.113.5"), (FAILED, "c.example", "SERVER")]
    assert log == expected
    clock.advance(3601)
    engine.address("192.0.2.9")
    assert log == expected * 2


def test_zone_that_lists_its_test_entry_is_not_believed() -> None:
    zones = "9.2.0.192.wild.example A 127.0.0.2\n1.0.0.127.wild.example A 127.0.0.2\n9.2.0.192.good.example A 127.0.0.2"
    engine, log, _ = lists("wild.example good.example", zones)
    assert found(engine.address("192.0.2.9")).name == "good.example"  # type: ignore[union-attr]
    assert log == [(LISTS_EVERYTHING, "wild.example")]


def test_name_lists_have_their_own_test_entry() -> None:
    zones = "spam.example.org.dbl.example A 127.0.0.2\nham.example.org.wild.example A 127.0.0.2\ninvalid.wild.example A 127.0.0.2"
    engine, _, _ = lists("dbl.example;wild.example", zones)
    assert found(engine.name("Spam.Example.ORG")).subject == "spam.example.org"  # type: ignore[union-attr]
    assert found(engine.name("ham.example.org")) is None


def test_over_long_name_is_not_asked() -> None:
    engine, _, resolver = lists("dbl.example", "")
    assert engine.name(".".join(["abcdefgh"] * 28)) is None
    assert resolver.asked == []
