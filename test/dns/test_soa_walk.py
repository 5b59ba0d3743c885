"""The SOA walk: whether a domain exists."""

from __future__ import annotations

import pytest

from smtpf import waiting
from smtpf.dns.domains import Domains
from smtpf.dns.soa import Existence, Walk, walk
from test.support.zones import ZoneResolver

DOMAINS = Domains()


@pytest.mark.parametrize(
    ("host", "zones", "existence", "name"),
    [
        ("ns1.example.com", "ns1.example.com A 192.0.2.1\nexample.com SOA a b", Existence.EXISTS, "ns1.example.com"),
        ("ns1.nosuch.com", "", Existence.NXDOMAIN, "ns1.nosuch.com"),
        ("ns1.example.zzzz", "", Existence.UNKNOWN_TLD, "ns1.example.zzzz"),
        ("co.uk", "", Existence.UNKNOWN_TLD, "co.uk"),
        ("ns1.example.com", "ns1.example.com * SERVFAIL", Existence.FAILED, "ns1.example.com"),
        ("a.b.example.co.uk", "a.b.example.co.uk A 192.0.2.1\nexample.co.uk SOA a b", Existence.EXISTS, "a.b.example.co.uk"),
        ("a.b.example.com", "a.b.example.com A 192.0.2.1", Existence.NO_SOA, "a.b.example.com"),
        ("a.example.com", "a.example.com A 192.0.2.1\ncom SOA a b", Existence.NO_SOA, "a.example.com"),
        ("example.com", "example.com SOA a b", Existence.EXISTS, "example.com"),
    ],
)
def test_worked_examples(host: str, zones: str, existence: Existence, name: str) -> None:
    outcomes: list[Walk] = []
    waiting.run(walk(ZoneResolver(zones), DOMAINS, host), outcomes.append, lambda failure: failure.raiseException())
    assert (outcomes[0].existence, outcomes[0].name) == (existence, name)


def test_walk_climbs_when_the_answers_name_no_zone() -> None:
    resolver = ZoneResolver("a.b.example.com A 192.0.2.1\nexample.com SOA a b")
    resolver._authority = lambda name: None  # type: ignore[method-assign]
    outcomes: list[Walk] = []
    waiting.run(walk(resolver, DOMAINS, "a.b.example.com"), outcomes.append, lambda failure: failure.raiseException())
    assert outcomes[0].exists
    assert [name for name, _ in resolver.asked] == ["a.b.example.com", "b.example.com", "example.com"]
