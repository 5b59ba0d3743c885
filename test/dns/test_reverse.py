"""Client names: the worked examples of the specification, and hostile reverse zones."""

from __future__ import annotations

from typing import Any

import pytest

from smtpf import waiting
from smtpf.dns.domains import Domains
from smtpf.dns.reverse import ClientName, identify
from test.support.zones import ZoneResolver

DOMAINS = Domains()
PTR = "9.2.0.192.in-addr.arpa PTR "


def client(zones: str, address: str = "192.0.2.9", **given: Any) -> ClientName:
    outcomes: list[ClientName] = []
    waiting.run(identify(ZoneResolver(zones), address, DOMAINS, **given), outcomes.append, lambda failure: failure.raiseException())
    return outcomes[0]


@pytest.mark.parametrize(
    ("zones", "wanted"),
    [
        (PTR + "mail.example.com\nmail.example.com A 192.0.2.9", ClientName("mail.example.com")),
        (PTR + "Mail.Example.COM.\nmail.example.com A 192.0.2.10", ClientName("mail.example.com", forged=True)),
        (
            "9.2.0.192.in-addr.arpa CNAME 9.0-15.2.0.192.in-addr.arpa\n9.0-15.2.0.192.in-addr.arpa PTR mx.example.com\n"
            "mx.example.com A 192.0.2.9",
            ClientName("mx.example.com", delegations=("9.0-15.2.0.192.in-addr.arpa.",)),
        ),
        ("", ClientName(forged=True, no_ptr=True)),
        ("9.2.0.192.in-addr.arpa PTR SERVFAIL", ClientName(forged=True, no_ptr=True, no_ptr_error=True)),
        ("9.2.0.192.in-addr.arpa PTR TIMEOUT", ClientName(forged=True, no_ptr=True, no_ptr_error=True)),
        (PTR + "a.example.com\n" + PTR + "b.example.com\na.example.com A 192.0.2.9", ClientName("a.example.com")),
        (
            PTR + "www.example.com\n" + PTR + "www.example.org\nwww.example.com A 192.0.2.9",
            ClientName("www.example.com", ptr_multidomain=True),
        ),
        (PTR + "9.pool.example.com\n9.pool.example.com A 192.0.2.9", ClientName("9.pool.example.com", ip_in_ptr=True)),
        (PTR + "a.co.uk\n" + PTR + "b.co.uk\na.co.uk A 192.0.2.9", ClientName("a.co.uk", ptr_multidomain=True)),
    ],
)
def test_worked_examples(zones: str, wanted: ClientName) -> None:
    assert client(zones) == wanted


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "0.0.0.0"])
def test_localhost_is_not_looked_up(address: str) -> None:
    resolver = ZoneResolver()
    outcomes: list[ClientName] = []
    waiting.run(identify(resolver, address), outcomes.append, lambda failure: failure.raiseException())
    assert outcomes == [ClientName("localhost.localhost")]
    assert resolver.asked == []


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.9", "169.254.1.1", "fe80::1"])
def test_private_addresses_are_never_forged(address: str) -> None:
    assert client("", address) == ClientName(no_ptr=True)


def test_relay_is_not_tested_for_its_address_in_the_name() -> None:
    zones = PTR + "9.pool.example.com\n9.pool.example.com A 192.0.2.9"
    assert client(zones, relay=True) == ClientName("9.pool.example.com")


def test_ipv6_client_is_confirmed_by_aaaa() -> None:
    name = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"
    zones = f"{name} PTR mail.example.com\nmail.example.com AAAA 2001:db8::1"
    assert client(zones, "2001:db8::1") == ClientName("mail.example.com")


@pytest.mark.parametrize(
    "target",
    [
        "evil\\000.example.com",
        "evil\\013\\010.example.com",
        "-a.example.com",
        "192.0.2.1",
        "a%s.example.com",
        ".".join(["a"] * 128),
        "a" * 64 + ".x",
    ],
)
def test_target_that_no_host_can_have_counts_as_no_ptr(target: str) -> None:
    assert client(PTR + target) == ClientName(forged=True, no_ptr=True)


def test_only_the_first_ten_targets_are_looked_at() -> None:
    zones = "\n".join(PTR + f"h{n}.example.com" for n in range(10)) + "\n" + PTR + "x.example.org\nh0.example.com A 192.0.2.9"
    assert not client(zones).ptr_multidomain
