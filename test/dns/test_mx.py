"""MX lists: explicit, implicit and null; pruning; failures."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from smtpf import waiting
from smtpf.dns.mx import MxList, mx_list
from test.support.zones import ZoneResolver


def mx(zones: str, domain: str = "example.com") -> MxList:
    outcomes: list[MxList] = []
    waiting.run(mx_list(ZoneResolver(zones), domain), outcomes.append, lambda failure: failure.raiseException())
    return outcomes[0]


@pytest.mark.parametrize(
    ("zones", "usable", "facts"),
    [
        ("example.com MX 10 mx.example.com\nmx.example.com A 81.2.69.142", {"81.2.69.142"}, set()),
        ("example.com MX 10 mx.example.com\nmx.example.com A 192.0.2.25", set(), set()),
        ("", set(), {"nxdomain"}),
        ("example.com A 81.2.69.142", {"81.2.69.142"}, {"implicit"}),
        ("example.com TXT nothing", set(), {"implicit"}),
        ("example.com AAAA 2a00:1450::1", {"2a00:1450::1"}, {"implicit"}),
        ("example.com MX 10 localhost\nlocalhost A 127.0.0.1", set(), set()),
        (
            "example.com MX 10 a.example\nexample.com MX 20 b.example\na.example A 10.0.0.1\nb.example A 81.2.69.142",
            {"81.2.69.142"},
            set(),
        ),
        ("example.com MX SERVFAIL", set(), {"failed"}),
        ("example.com MX NOTIMP", set(), {"failed", "not_implemented"}),
        ("example.com MX TIMEOUT", set(), {"failed"}),
        ("example.com MX 10 a.example\na.example A SERVFAIL", set(), {"incomplete"}),
        ("example.com MX 10 a.example\na.example AAAA SERVFAIL\na.example A 81.2.69.142", {"81.2.69.142"}, {"incomplete"}),
        (
            "example.com MX 10 a.example\nexample.com MX 20 b.example\na.example * SERVFAIL\nb.example A 81.2.69.142",
            {"81.2.69.142"},
            {"incomplete"},
        ),
        ("example.com MX 0 .\nexample.com A 81.2.69.142", set(), {"null"}),
        ("example.com MX 10 a.example\na.example CNAME b.example\nb.example A 81.2.69.142", {"81.2.69.142"}, set()),
        ("example.com MX 10 a.example\na.example CNAME b.example\nb.example CNAME a.example", set(), set()),
    ],
)
def test_outcomes_of_the_table(zones: str, usable: set[str], facts: set[str]) -> None:
    found = mx(zones)
    assert {address for host in found.usable for address in host.addresses} == usable
    assert {fact for fact in ("nxdomain", "implicit", "failed", "not_implemented", "incomplete", "null") if getattr(found, fact)} == facts


def test_hosts_stand_in_order_of_preference_without_duplicates() -> None:
    zones = "example.com MX 20 b.example\nexample.com MX 10 a.example\nexample.com MX 30 a.example\n"
    zones += "a.example A 81.2.69.142\nb.example A 1.1.1.1"
    found = mx(zones)
    assert [(host.preference, host.host) for host in found.hosts] == [(10, "a.example"), (20, "b.example")]
    assert found.preference_of("1.1.1.1") == 20
    assert found.preference_of("1.1.1.2") is None
    assert found.lists("81.2.69.142")


def test_one_deadline_holds_for_all_look_ups() -> None:
    clock = Clock()
    zones = "example.com MX 10 a.example\nexample.com MX DELAY 4\na.example * TIMEOUT"
    outcomes: list[MxList] = []
    waiting.run(mx_list(ZoneResolver(zones, clock), "example.com", 5), outcomes.append, lambda failure: failure.raiseException())
    clock.advance(4)
    assert outcomes == []
    clock.advance(1)
    assert outcomes[0].incomplete
