"""SPF beyond the conformance suite: deadlines, failing look-ups, odd identities and odd records."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import succeed
from twisted.internet.task import Clock

from smtpf import waiting
from smtpf.dns.spf import Spf, SpfOutcome
from test.support.zones import ZoneResolver

CLIENT = "192.0.2.9"


def checker(zones: str, clock: Clock | None = None) -> tuple[Spf, list[str]]:
    threads: list[str] = []

    def in_thread(work: Any) -> Any:
        threads.append("used")
        return succeed(work())

    return Spf(ZoneResolver(zones, clock), in_thread), threads


def outcome(work: Any) -> SpfOutcome:
    outcomes: list[SpfOutcome] = []
    waiting.run(work, outcomes.append, lambda failure: failure.raiseException())
    return outcomes[0]


@pytest.mark.parametrize(
    ("record", "result", "problem"),
    [
        ("v=spf1 ip4:192.0.2.0/24 -all", "Pass", ""),
        ("v=spf1 -all", "Fail", ""),
        ("v=spf1 ~all", "SoftFail", ""),
        ("v=spf1", "Neutral", ""),
        ("hello", "None", ""),
        ("v=spf1 nonsense -all", "PermError", "invalid syntax"),
        ("v=spf1 include:a.example -all", "PermError", "invalid syntax"),
        ("v=spf1 a:bad.example -all", "TempError", "SERVER"),
        ("v=spf1 include:bad.example -all", "TempError", "SERVER"),
        ("v=spf1 a:n1.no a:n2.no a:n3.no -all", "PermError", "too many DNS lookups"),
        ("v=spf1 include:example.org -all", "PermError", "circular reference"),
        ("v=spf1 exp=%{ -all", "PermError", "invalid syntax"),
    ],
)
def test_results_and_problems(record: str, result: str, problem: str) -> None:
    spf, _ = checker(f"example.org TXT {record}\nbad.example * SERVFAIL")
    found = outcome(spf.check_sender(CLIENT, "mx.example.org", "joe@example.org"))
    assert (found.result, found.problem) == (result, problem)


def test_two_records_are_a_permanent_error() -> None:
    spf, _ = checker("example.org TXT v=spf1 -all\nexample.org TXT v=spf1 +all")
    assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org")) == SpfOutcome("PermError", "more than one SPF record")


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 a:bad.example ip4:192.0.2.9 -all", "Pass"),
        ("v=spf1 a:bad.example -all", "TempError"),
        ("v=spf1 include:bad.example -all", "TempError"),
        ("v=spf1 include:bad.example ip4:192.0.2.9 -all", "Pass"),
        ("v=spf1 -ip4:192.0.2.9 a:bad.example -all", "Fail"),
    ],
)
def test_failing_look_ups_may_be_skipped(record: str, result: str) -> None:
    spf, _ = checker(f"example.org TXT {record}\nbad.example * SERVFAIL")
    assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org", skip_errors=True)).result == result


@pytest.mark.parametrize(
    ("zones", "result"), [("", "None"), ("example.org TXT SERVFAIL", "TempError"), ("example.org A 192.0.2.1", "None")]
)
def test_domain_without_record(zones: str, result: str) -> None:
    spf, _ = checker(zones)
    for skip in (False, True):
        assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org", skip_errors=skip)).result == result


@pytest.mark.parametrize("helo", ["[192.0.2.9]", "192.0.2.9", "[IPv6:2001:db8::1]"])
def test_helo_literal_has_no_policy(helo: str) -> None:
    spf, _ = checker("")
    assert outcome(spf.check_helo(CLIENT, helo)) == SpfOutcome("None", "IP address literal")
    assert outcome(spf.check_sender(CLIENT, helo, "")) == SpfOutcome("None", "IP address literal")


@pytest.mark.parametrize(
    "domain", ["localhost", "", "a..b.example", "x" * 64 + ".example", "a\0b.example", "é" * 70 + ".example", "%{s}.example"]
)
def test_odd_domains_have_no_policy(domain: str) -> None:
    spf, _ = checker("")
    assert outcome(spf.check_sender(CLIENT, "h.example", f"joe@{domain}")).result == "None"


def test_null_sender_is_checked_as_postmaster_of_the_helo_name() -> None:
    spf, _ = checker("mx.example.org TXT v=spf1 exists:%{l}.ok.example -all\npostmaster.ok.example A 127.0.0.1")
    assert outcome(spf.check_sender(CLIENT, "mx.example.org", "")).result == "Pass"


def test_best_guess_takes_the_place_of_the_record() -> None:
    spf, _ = checker("example.org A 192.0.2.100")
    assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org", record="v=spf1 a/24 -all")).result == "Pass"


def test_ipv6_client() -> None:
    spf, _ = checker("example.org TXT v=spf1 mx -all\nexample.org MX 10 mx.example.org\nmx.example.org AAAA 2001:db8::1")
    assert outcome(spf.check_sender("2001:db8::1", "h.example", "joe@example.org")).result == "Pass"


def test_slow_includes_end_as_a_temporary_error_at_the_deadline() -> None:
    clock = Clock()
    zones = "".join(f"i{n}.example TXT v=spf1 include:i{n + 1}.example -all\ni{n}.example TXT DELAY 3\n" for n in range(20))
    spf, _ = checker(zones, clock)
    outcomes: list[SpfOutcome] = []
    waiting.run(
        spf.check_sender(CLIENT, "h.example", "joe@i0.example", timeout=10), outcomes.append, lambda failure: failure.raiseException()
    )
    for _ in range(10):
        assert not outcomes
        clock.advance(1)
    assert outcomes == [SpfOutcome("TempError", "TIMED OUT")]


def test_addresses_of_all_exchanges_are_asked_for_together() -> None:
    clock = Clock()
    zones = "example.org TXT v=spf1 mx -all\n"
    for n in range(10):
        zones += f"example.org MX {n} m{n}.example\nm{n}.example A 192.0.2.{n}\nm{n}.example A DELAY 3\n"
    spf, _ = checker(zones, clock)
    outcomes: list[SpfOutcome] = []
    waiting.run(spf.check_sender(CLIENT, "h.example", "joe@example.org"), outcomes.append, lambda failure: failure.raiseException())
    clock.advance(3)
    assert outcomes[0].result == "Pass"


LONG = "ip4:198.51.100.1 " * 300


def test_long_record_is_read_in_a_thread() -> None:
    spf, threads = checker("example.org TXT v=spf1 include:long.example -all\nlong.example TXT v=spf1 " + LONG + "ip4:192.0.2.9 -all")
    assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org")).result == "Pass"
    assert threads == ["used"]


def test_endless_record_is_refused() -> None:
    spf, _ = checker("example.org TXT v=spf1 " + LONG * 10 + "ip4:192.0.2.9 -all")
    assert outcome(spf.check_sender(CLIENT, "h.example", "joe@example.org")).result == "PermError"
