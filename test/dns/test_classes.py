"""Address classes of the specification's table."""

from __future__ import annotations

import pytest

from smtpf.dns.classes import is_lan, is_local, is_restricted, is_this_net, is_unreachable


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"])
def test_local(address: str) -> None:
    assert is_local(address)
    assert is_restricted(address)


@pytest.mark.parametrize("address", ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.9.9", "fe80::1", "fd00::1"])
def test_lan(address: str) -> None:
    assert is_lan(address)
    assert is_unreachable(address)


@pytest.mark.parametrize("address", ["81.2.69.142", "172.32.0.1", "0.0.0.1", "2a00:1450::1"])
def test_neither_local_nor_lan(address: str) -> None:
    assert not is_local(address)
    assert not is_lan(address)


@pytest.mark.parametrize(
    "address",
    (
        *("198.18.0.1", "192.0.2.25", "198.51.100.1", "203.0.113.9", "2001:db8::1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("ff02::1", "0.1.2.3", "100.64.1.1", "192.0.0.8", "192.88.99.1", "fec0::1", "100::1", "2001:0:1::1"),
        *("64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1"),
    ),
)
def test_no_mail_exchange_lives_here(address: str) -> None:
    assert is_unreachable(address)


@pytest.mark.parametrize("address", ["81.2.69.142", "2a02:6b8::1", "64:ff9b::81.2.69.142", "::ffff:81.2.69.142", "100.128.0.1"])
def test_public_addresses_are_reachable(address: str) -> None:
    assert not is_unreachable(address)


def test_this_net() -> None:
    assert is_this_net("0.9.9.9")
    assert not is_this_net("1.0.0.0")
    assert not is_restricted("0.9.9.9")
